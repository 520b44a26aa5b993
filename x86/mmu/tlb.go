// Package mmu translates guest linear addresses: the page walk and the software TLB.
package mmu

// TLBSize is the number of entries of each TLB, a power of two.
const TLBSize = 4096

// NoPage is what a tag of the i-th entry holds if no page: the address of a page
// that belongs to an entry far from it, so that no address which looks there, nor
// the end of an access that begins there, is within it.
func NoPage(i uint64) uint64 { return (i ^ TLBSize/2) << 12 }

// Entry maps one 4 KiB page of linear addresses onto host memory. Read and Write
// are the page's linear address where that access may go straight to the host,
// else NoPage (no permission, dirty bit not yet set, code on the page, MMIO).
// The host address is the linear address plus Add, or the offset in the page plus
// Host. Layout is known to engines.
//
//	0 Read | 8 Write | 16 Add | 24 Host
type Entry struct {
	Read, Write uint64
	Add, Host   uintptr
}

// TLB is one direct-mapped set of entries, indexed by linear page number.
type TLB [TLBSize]Entry
