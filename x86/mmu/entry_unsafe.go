package mmu

import (
	"sync/atomic"
	"unsafe"

	"berth/guestmem"
)

// Paging-structure entries are read and updated as single host accesses, since
// other vCPUs change them at the same time. unsafe: sync/atomic needs typed
// pointers into guest RAM; entry checks that all of the entry is RAM, and
// entries are aligned by construction.

func entry(m *guestmem.Memory, gpa, n uint64) (p unsafe.Pointer, writable bool) {
	r := m.Find(gpa)
	if r == nil || n > r.End()-gpa {
		return nil, false
	}
	return unsafe.Pointer(&r.Host[gpa-r.GPA]), !r.ReadOnly
}

// load64 reads an entry; outside RAM it reads as all ones, as an empty bus does.
func load64(m *guestmem.Memory, gpa uint64) uint64 {
	p, _ := entry(m, gpa, 8)
	if p == nil {
		return ^uint64(0)
	}
	return atomic.LoadUint64((*uint64)(p))
}

func load32(m *guestmem.Memory, gpa uint64) uint32 {
	p, _ := entry(m, gpa, 4)
	if p == nil {
		return ^uint32(0)
	}
	return atomic.LoadUint32((*uint32)(p))
}

// cas64 replaces old by value and reports success; an entry that cannot be
// written keeps its old value, which is no failure.
func cas64(m *guestmem.Memory, gpa, old, value uint64) bool {
	p, writable := entry(m, gpa, 8)
	if !writable {
		return true
	}
	ok := atomic.CompareAndSwapUint64((*uint64)(p), old, value)
	m.MarkWritten(gpa, 8)
	return ok
}

func cas32(m *guestmem.Memory, gpa uint64, old, value uint32) bool {
	p, writable := entry(m, gpa, 4)
	if !writable {
		return true
	}
	ok := atomic.CompareAndSwapUint32((*uint32)(p), old, value)
	m.MarkWritten(gpa, 4)
	return ok
}
