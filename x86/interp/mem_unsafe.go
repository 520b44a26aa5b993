package interp

import (
	"unsafe"

	"berth/x86/mmu"
)

// unsafe throughout this file: guest RAM is host memory outside the Go heap that
// never moves while a vCPU lives; a TLB entry's tag proves that the page is
// mapped and that the access ends within it.

// readPtr returns the host address of [va, va+last], if the TLB grants reading it, or nil.
func (c *CPU) readPtr(va, last uint64) unsafe.Pointer {
	e := &c.TLB[c.MMUIndex][va/pageSize%mmu.TLBSize]
	if (va+last)&pageMask != e.Read {
		return nil
	}
	return unsafe.Add(unsafe.Pointer(nil), uintptr(va)+e.Add)
}

// writePtr is readPtr for writing.
func (c *CPU) writePtr(va, last uint64) unsafe.Pointer {
	e := &c.TLB[c.MMUIndex][va/pageSize%mmu.TLBSize]
	if (va+last)&pageMask != e.Write {
		return nil
	}
	return unsafe.Add(unsafe.Pointer(nil), uintptr(va)+e.Add)
}

// hostPtr returns the host address of [va, va+n) if that lies in one RAM page
// with the permission asked for, filling the TLB; nil for anything else, faults included.
func (c *CPU) hostPtr(va, n uint64, write bool) unsafe.Pointer {
	if write {
		if p := c.writePtr(va, n-1); p != nil {
			return p
		}
		if _, _, ok := c.translate(c.linear(va), mmu.Write); !ok {
			return nil
		}
		return c.writePtr(c.linear(va), n-1)
	}
	if p := c.readPtr(va, n-1); p != nil {
		return p
	}
	if _, _, ok := c.translate(c.linear(va), mmu.Read); !ok {
		return nil
	}
	return c.readPtr(c.linear(va), n-1)
}

// lockedPtr returns the host address of [va, va+n) for a locked access that
// hostPtr does not grant, as on pages with code, and the guest-physical one; nil
// for what is not one page of RAM, faults included. After it come stored and watchAccess.
func (c *CPU) lockedPtr(va, n uint64) (p unsafe.Pointer, gpa uint64) {
	va = c.linear(va)
	if va%pageSize+n > pageSize || !c.aligned(va, n) {
		return nil, 0
	}
	gpa, r, ok := c.translate(va, mmu.Write)
	if !ok || r == nil || r.ReadOnly {
		return nil, 0
	}
	return unsafe.Pointer(&r.Host[gpa-r.GPA]), gpa
}

func (c *CPU) ld8(va uint64) (uint8, bool) {
	if p := c.readPtr(va, 0); p != nil {
		return *(*uint8)(p), true
	}
	return c.ld8Slow(va)
}

func (c *CPU) ld16(va uint64) (uint16, bool) {
	if p := c.readPtr(va, 1); p != nil {
		return *(*uint16)(p), true
	}
	return c.ld16Slow(va)
}

func (c *CPU) ld32(va uint64) (uint32, bool) {
	if p := c.readPtr(va, 3); p != nil {
		return *(*uint32)(p), true
	}
	return c.ld32Slow(va)
}

func (c *CPU) ld64(va uint64) (uint64, bool) {
	if p := c.readPtr(va, 7); p != nil {
		return *(*uint64)(p), true
	}
	return c.ld64Slow(va)
}

func (c *CPU) st8(va uint64, v uint8) bool {
	if p := c.writePtr(va, 0); p != nil {
		*(*uint8)(p) = v
		return true
	}
	return c.st8Slow(va, v)
}

func (c *CPU) st16(va uint64, v uint16) bool {
	if p := c.writePtr(va, 1); p != nil {
		*(*uint16)(p) = v
		return true
	}
	return c.st16Slow(va, v)
}

func (c *CPU) st32(va uint64, v uint32) bool {
	if p := c.writePtr(va, 3); p != nil {
		*(*uint32)(p) = v
		return true
	}
	return c.st32Slow(va, v)
}

func (c *CPU) st64(va uint64, v uint64) bool {
	if p := c.writePtr(va, 7); p != nil {
		*(*uint64)(p) = v
		return true
	}
	return c.st64Slow(va, v)
}

// hostBytes views n bytes of guest RAM.
// ld128 loads 16 bytes, low quadword first.
func (c *CPU) ld128(va uint64) ([2]uint64, bool) {
	if p := c.readPtr(va, 15); p != nil {
		return *(*[2]uint64)(p), true
	}
	return c.ld128Slow(va)
}

// st128 stores 16 bytes, low quadword first; nothing is stored if it faults.
func (c *CPU) st128(va uint64, v [2]uint64) bool {
	if p := c.writePtr(va, 15); p != nil {
		*(*[2]uint64)(p) = v
		return true
	}
	return c.st128Slow(va, v)
}

func hostBytes(p unsafe.Pointer, n uint64) []byte { return unsafe.Slice((*byte)(p), n) }

// loadHost copies len(p) bytes of guest RAM to p, as one host access where that is
// 1, 2, 4 or 8, two for 16: a concurrent store of that width is seen whole or not at all.
func loadHost(host, p []byte) {
	h, d := unsafe.Pointer(&host[0]), unsafe.Pointer(&p[0])
	switch len(p) {
	case 1:
		p[0] = host[0]
	case 2:
		*(*uint16)(d) = *(*uint16)(h)
	case 4:
		*(*uint32)(d) = *(*uint32)(h)
	case 8:
		*(*uint64)(d) = *(*uint64)(h)
	case 16:
		*(*[2]uint64)(d) = *(*[2]uint64)(h)
	default:
		copy(p, host)
	}
}

// storeHost is the same for stores.
func storeHost(host, p []byte) {
	h, s := unsafe.Pointer(&host[0]), unsafe.Pointer(&p[0])
	switch len(p) {
	case 1:
		host[0] = p[0]
	case 2:
		*(*uint16)(h) = *(*uint16)(s)
	case 4:
		*(*uint32)(h) = *(*uint32)(s)
	case 8:
		*(*uint64)(h) = *(*uint64)(s)
	case 16:
		*(*[2]uint64)(h) = *(*[2]uint64)(s)
	default:
		copy(host, p)
	}
}

// loadHostBytes is loadHost in pieces of 16.
func loadHostBytes(host, p []byte) {
	for len(p) > 16 {
		loadHost(host[:16], p[:16])
		host, p = host[16:], p[16:]
	}
	loadHost(host, p)
}

// storeHostBytes is storeHost in pieces of 16.
func storeHostBytes(host, p []byte) {
	for len(p) > 16 {
		storeHost(host[:16], p[:16])
		host, p = host[16:], p[16:]
	}
	storeHost(host, p)
}
