// Package mmu translates guest linear addresses: the page walk and the software TLB.
package mmu

// TLBSize is the number of entries of each TLB, a power of two.
const TLBSize = 1024

// NoPage in a tag matches no page.
const NoPage = ^uint64(0)

// Entry maps one 4 KiB page of linear addresses onto host memory. Read and Write
// are the page's linear address where that access may go straight to the host,
// else NoPage (no permission, dirty bit not yet set, code on the page, MMIO).
// The host address is the linear address plus Add. Layout is known to engines.
//
//	0 Read | 8 Write | 16 Add | 24 Phys
type Entry struct {
	Read, Write uint64
	Add         uintptr
	Phys        uint64 // guest-physical page
}

// TLB is one direct-mapped set of entries, indexed by linear page number.
type TLB [TLBSize]Entry
