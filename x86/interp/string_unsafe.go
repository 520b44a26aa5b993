package interp

import (
	"unsafe"

	"berth/x86"
	"berth/x86/decode"
	"berth/x86/optab"
)

// stringHost moves or stores n bytes within one page each way, if both pages
// are plain RAM; false: nothing was done. unsafe: the pointers come from the
// TLB, which proved the whole range accessible.
func (c *CPU) stringHost(in *decode.Inst, dst, src, n uint64) bool {
	var s unsafe.Pointer
	if in.Op == optab.MOVS { // first, as it faults first
		if s = c.hostPtr(src, n, false); s == nil {
			return false
		}
	}
	d := c.hostPtr(dst, n, true)
	if d == nil {
		return false
	}
	if in.Op == optab.STOS {
		storeRun(d, n, in.OpSize, c.R[x86.RAX])
		return true
	}
	if gap := uintptr(d) - uintptr(s); gap < uintptr(n) && gap != 0 {
		return copyForward(d, s, n, in.OpSize)
	}
	copy(hostBytes(d, n), hostBytes(s, n))
	return true
}

// copyForward copies element by element, for a destination that overlaps the
// source from above: elements already copied are copied again.
func copyForward(d, s unsafe.Pointer, n uint64, size uint8) bool {
	for i := 0; i < int(n); i += int(size) {
		switch size {
		case 1:
			*(*uint8)(unsafe.Add(d, i)) = *(*uint8)(unsafe.Add(s, i))
		case 2:
			*(*uint16)(unsafe.Add(d, i)) = *(*uint16)(unsafe.Add(s, i))
		case 4:
			*(*uint32)(unsafe.Add(d, i)) = *(*uint32)(unsafe.Add(s, i))
		default:
			*(*uint64)(unsafe.Add(d, i)) = *(*uint64)(unsafe.Add(s, i))
		}
	}
	return true
}

// storeRun fills n bytes at d with the low size bytes of v, over and over.
func storeRun(d unsafe.Pointer, n uint64, size uint8, v uint64) {
	switch size {
	case 1:
		v = v & 0xff * 0x0101010101010101
	case 2:
		v = v & 0xffff * 0x0001000100010001
	case 4:
		v = v & 0xffffffff * 0x0000000100000001
	}
	b := hostBytes(d, n)
	if v == 0 {
		clear(b)
		return
	}
	i := 0
	for ; i+8 <= int(n); i += 8 {
		*(*uint64)(unsafe.Add(d, i)) = v
	}
	for ; i < int(n); i++ {
		b[i] = byte(v >> (8 * (i & 7)))
	}
}
