package interp

import (
	"sync/atomic"
	"unsafe"
)

// unsafe throughout this file: p points to guest RAM that the TLB proved
// accessible, size bytes within one page. Guest RAM is shared with other vCPUs
// and with devices, so a locked access must be one atomic operation of the host.

// atomicModify replaces size bytes at p by f of them.
func atomicModify(p unsafe.Pointer, size uint8, f func(old uint64) uint64) {
	switch {
	case size == 8 && uintptr(p)&7 == 0:
		q := (*uint64)(p)
		for {
			if old := atomic.LoadUint64(q); atomic.CompareAndSwapUint64(q, old, f(old)) {
				return
			}
		}
	case size == 4 && uintptr(p)&3 == 0:
		q := (*uint32)(p)
		for {
			if old := atomic.LoadUint32(q); atomic.CompareAndSwapUint32(q, old, uint32(f(uint64(old)))) {
				return
			}
		}
	case uintptr(p)&7+uintptr(size) <= 8:
		atomicPart(p, size, f)
	default:
		atomicUnaligned(p, size, f)
	}
}

// atomicPart replaces bytes that lie within one aligned quadword.
func atomicPart(p unsafe.Pointer, size uint8, f func(old uint64) uint64) {
	off := uintptr(p) & 7
	q := (*uint64)(unsafe.Add(p, -int(off)))
	sh := off * 8
	mask := ^uint64(0) >> (64 - 8*uint(size)) << sh
	for {
		w := atomic.LoadUint64(q)
		v := f(w & mask >> sh)
		if atomic.CompareAndSwapUint64(q, w, w&^mask|v<<sh&mask) {
			return
		}
	}
}

// atomicUnaligned replaces bytes that cross an aligned quadword. The host locks
// its bus for such an access on amd64; elsewhere no atomic access exists.
func atomicUnaligned(p unsafe.Pointer, size uint8, f func(old uint64) uint64) {
	for {
		var old uint64
		switch size {
		case 2:
			old = uint64(*(*uint16)(p))
		case 4:
			old = uint64(*(*uint32)(p))
		default:
			old = *(*uint64)(p)
		}
		if casUnaligned(p, size, old, f(old)) {
			return
		}
	}
}
