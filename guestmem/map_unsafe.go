package guestmem

import (
	"errors"
	"fmt"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Around the bytes of every region lie at least guard bytes of the host's
// addresses that nobody can touch: an access that leaves a region faults at once
// instead of reaching a neighbour. hugePage is the alignment that lets the host
// back the guest's huge pages with its own.
const (
	guard    = 2 << 20
	hugePage = 2 << 20
)

// mapRAM maps size bytes between guards and returns the whole reservation and
// the bytes in its middle; transparent huge pages are advice, so a refusal is ignored.
// unsafe: the second mapping replaces part of the first, which nobody else knows yet.
func (b *backing) mapRAM(gpa, size uint64) (reserved, host []byte, err error) {
	if size > maxRegion {
		return nil, nil, unix.ENOMEM
	}
	align := max(hugePage, b.HugePages)
	reserved, err = unix.Mmap(-1, 0, int(size+2*guard+align), unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		return nil, nil, err
	}
	base := uint64(uintptr(unsafe.Pointer(&reserved[0])))
	off := guard + (gpa-base-guard)%align // congruent to gpa modulo a huge page
	at := unsafe.Pointer(&reserved[off])
	if _, err := unix.MmapPtr(b.fd, int64(b.used), at, uintptr(size), unix.PROT_READ|unix.PROT_WRITE, b.mapFlags()|unix.MAP_FIXED); err != nil {
		return nil, nil, errors.Join(err, unix.Munmap(reserved))
	}
	host = reserved[off : off+size : off+size]
	if b.HugePages == 0 {
		_ = unix.Madvise(host, unix.MADV_HUGEPAGE)
	}
	return reserved, host, nil
}

// mapFlags reserves one flag word per page outside the Go heap, so that 64 GiB
// of sparse RAM costs no heap. unsafe: a page-aligned mapping is reinterpreted
// as words; it lives until unmap.
func mapFlags(pages uint64) ([]uint32, error) {
	b, err := unix.Mmap(-1, 0, int(pages*4), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		return nil, err
	}
	return unsafe.Slice((*uint32)(unsafe.Pointer(&b[0])), pages), nil
}

// unmap releases a region's bytes and flags. unsafe: undoes mapFlags' reinterpretation.
func unmap(r *Region) error {
	flags := unsafe.Slice((*byte)(unsafe.Pointer(&r.flags[0])), len(r.flags)*4)
	err := unix.Munmap(flags)
	err = errors.Join(err, unix.Munmap(r.reserved))
	r.Host, r.flags, r.reserved = nil, nil, nil
	return err
}

// at returns the host address of an n-byte access that is naturally aligned and inside RAM.
func (m *Memory) at(gpa, n uint64) (unsafe.Pointer, error) {
	if gpa%n != 0 {
		return nil, fmt.Errorf("guestmem: %d-byte access at 0x%x is not aligned", n, gpa)
	}
	b, err := m.Slice(gpa, n)
	if err != nil {
		return nil, err
	}
	return unsafe.Pointer(&b[0]), nil
}

// Load16, Load32 and Load64 read an aligned little-endian word as one host
// access with acquire order; Store16, Store32 and Store64 write one with
// release order (sequentially consistent for 32 and 64 bits) and mark the page.
// unsafe: guest RAM is shared with vCPUs, so sync/atomic needs typed pointers
// into it; bounds and alignment are checked by at.

// Load16 reads an aligned 16-bit word. sync/atomic has no 16-bit load: the
// aligned 32-bit word around it is loaded, which lies in the same page.
func (m *Memory) Load16(gpa uint64) (uint16, error) {
	if gpa%2 != 0 {
		return 0, fmt.Errorf("guestmem: 2-byte access at 0x%x is not aligned", gpa)
	}
	p, err := m.at(gpa&^3, 4)
	if err != nil {
		return 0, err
	}
	return uint16(atomic.LoadUint32((*uint32)(p)) >> (gpa & 2 * 8)), nil
}

// Load32 reads an aligned 32-bit word.
func (m *Memory) Load32(gpa uint64) (uint32, error) {
	p, err := m.at(gpa, 4)
	if err != nil {
		return 0, err
	}
	return atomic.LoadUint32((*uint32)(p)), nil
}

// Load64 reads an aligned 64-bit word.
func (m *Memory) Load64(gpa uint64) (uint64, error) {
	p, err := m.at(gpa, 8)
	if err != nil {
		return 0, err
	}
	return atomic.LoadUint64((*uint64)(p)), nil
}

// Store16 writes an aligned 16-bit word, leaving its neighbour as any other
// writer has it: the surrounding 32-bit word is exchanged until it sticks.
func (m *Memory) Store16(gpa uint64, v uint16) error {
	if gpa%2 != 0 {
		return fmt.Errorf("guestmem: 2-byte access at 0x%x is not aligned", gpa)
	}
	p, err := m.at(gpa&^3, 4)
	if err != nil {
		return err
	}
	shift := gpa & 2 * 8
	w := (*uint32)(p)
	for {
		old := atomic.LoadUint32(w)
		if atomic.CompareAndSwapUint32(w, old, old&^(0xffff<<shift)|uint32(v)<<shift) {
			break
		}
	}
	m.MarkWritten(gpa, 2)
	return nil
}

// Store32 writes an aligned 32-bit word.
func (m *Memory) Store32(gpa uint64, v uint32) error {
	p, err := m.at(gpa, 4)
	if err != nil {
		return err
	}
	atomic.StoreUint32((*uint32)(p), v)
	m.MarkWritten(gpa, 4)
	return nil
}

// Store64 writes an aligned 64-bit word.
func (m *Memory) Store64(gpa uint64, v uint64) error {
	p, err := m.at(gpa, 8)
	if err != nil {
		return err
	}
	atomic.StoreUint64((*uint64)(p), v)
	m.MarkWritten(gpa, 8)
	return nil
}

// HostAddr returns the host address of the region's first byte, for KVM's
// memslots and the software TLB.
func (r *Region) HostAddr() uintptr { return uintptr(unsafe.Pointer(&r.Host[0])) }
