package interp

import (
	"math/bits"

	"berth/x86"
	"berth/x86/decode"
	"berth/x86/optab"
)

// Operand access for instructions that have no micro-op of their own.

// truncate keeps the low size bytes of v.
func truncate(v uint64, size uint8) uint64 { return v << (64 - 8*size) >> (64 - 8*size) }

// signExtend widens the low size bytes of v.
func signExtend(v uint64, size uint8) uint64 {
	sh := 64 - 8*uint(size)
	return uint64(int64(v<<sh) >> sh)
}

// log2 returns the width bits of CC for an operand of size bytes.
func log2(size uint8) uint8 { return uint8(bits.TrailingZeros8(size)) }

// argSize returns the bytes of an integer operand.
func argSize(in *decode.Inst, a optab.Arg) uint8 {
	switch a {
	case optab.Eb, optab.Gb, optab.Ob, optab.Zb, optab.AL, optab.CL, optab.Ib, optab.IbS, optab.Mb, optab.Xb, optab.Yb:
		return 1
	case optab.Ew, optab.Gw, optab.Iw, optab.DX, optab.Mw:
		return 2
	case optab.Ed, optab.Gd, optab.Md:
		return 4
	}
	return in.OpSize
}

// offset returns the effective address: the offset in in.Seg.
func (c *CPU) offset(in *decode.Inst) uint64 {
	off := uint64(in.Disp)
	switch in.Base {
	case decode.NoReg:
	case decode.RIP:
		off += c.RIP + uint64(in.Len)
	default:
		off += c.R[in.Base&15]
	}
	if in.Index != decode.NoReg {
		off += c.R[in.Index&15] << (in.Scale & 3)
	}
	return truncate(off, in.AddrSize)
}

// ea returns the linear address of in's memory operand, with no segment checks.
func (c *CPU) ea(in *decode.Inst) uint64 { return c.segLinear(in.Seg, c.offset(in), in.Mode) }

func (c *CPU) segLinear(seg uint8, off uint64, mode decode.Mode) uint64 {
	if mode == decode.Mode64 {
		if seg < x86.FS {
			return off
		}
		return c.SegBase[seg] + off
	}
	return uint64(uint32(c.SegBase[seg] + off))
}

// addr returns the linear address of size bytes at off in a segment after the
// checks that apply; false: exc is set.
func (c *CPU) addr(seg uint8, off uint64, size uint8, write bool) (uint64, bool) {
	if c.Mode != decode.Mode64 && !c.checkSeg(seg, off, uint64(size), write) {
		return 0, false
	}
	return c.segLinear(seg, off, c.Mode), true
}

// memAddr is addr for in's memory operand.
func (c *CPU) memAddr(in *decode.Inst, size uint8, write bool) (uint64, bool) {
	return c.addr(in.Seg, c.offset(in), size, write)
}

// load reads size bytes at va, zero-extended.
func (c *CPU) load(va uint64, size uint8) (uint64, bool) {
	switch size {
	case 1:
		v, ok := c.ld8(va)
		return uint64(v), ok
	case 2:
		v, ok := c.ld16(va)
		return uint64(v), ok
	case 4:
		v, ok := c.ld32(va)
		return uint64(v), ok
	default:
		return c.ld64(va)
	}
}

// store writes the low size bytes of v at va.
func (c *CPU) store(va, v uint64, size uint8) bool {
	switch size {
	case 1:
		return c.st8(va, uint8(v))
	case 2:
		return c.st16(va, uint16(v))
	case 4:
		return c.st32(va, uint32(v))
	default:
		return c.st64(va, v)
	}
}

// reg reads a register operand of size bytes, zero-extended.
func (c *CPU) reg(in *decode.Inst, n, size uint8) uint64 {
	if size == 1 && n&^3 == 4 && !in.Rex {
		return c.R[n&3] >> 8 & 0xff
	}
	return truncate(c.R[n&15], size)
}

// setReg writes one; 32-bit results clear the upper half.
func (c *CPU) setReg(in *decode.Inst, n, size uint8, v uint64) {
	r := &c.R[n&15]
	switch {
	case size >= 4:
		*r = truncate(v, size)
	case size == 2:
		*r = *r&^0xffff | v&0xffff
	case n&^3 == 4 && !in.Rex:
		r = &c.R[n&3]
		*r = *r&^0xff00 | v&0xff<<8
	default:
		*r = *r&^0xff | v&0xff
	}
}

// regOf returns the register that operand a names; mem: it is memory instead.
func regOf(in *decode.Inst, a optab.Arg) (n uint8, mem bool) {
	switch a {
	case optab.Eb, optab.Ew, optab.Ed, optab.Ev, optab.Ey:
		return in.RM, in.Mem
	case optab.Ob, optab.Ov, optab.M, optab.Mb, optab.Mw, optab.Md, optab.Mq:
		return 0, true
	case optab.Ry:
		return in.RM, false
	case optab.AL, optab.RAXv:
		return x86.RAX, false
	case optab.CL:
		return x86.RCX, false
	case optab.DX:
		return x86.RDX, false
	}
	return in.Reg, false
}

// read returns operand i of in, zero-extended from its size (immediates are
// cut to the operand size); false: exc is set.
func (c *CPU) read(in *decode.Inst, i int) (uint64, bool) {
	a := in.Row.Args[i]
	switch a {
	case optab.Ib, optab.Iw, optab.Iv:
		return in.Imm, true
	case optab.IbS, optab.Iz:
		return truncate(in.Imm, in.OpSize), true
	case optab.One:
		return 1, true
	}
	size := argSize(in, a)
	n, mem := regOf(in, a)
	if !mem {
		if a == optab.AL || a == optab.CL {
			return c.R[n] & 0xff, true
		}
		return c.reg(in, n, size), true
	}
	va, ok := c.memAddr(in, size, false)
	if !ok {
		return 0, false
	}
	return c.load(va, size)
}

// write stores v to operand i of in; false: exc is set and nothing changed.
func (c *CPU) write(in *decode.Inst, i int, v uint64) bool {
	a := in.Row.Args[i]
	size := argSize(in, a)
	n, mem := regOf(in, a)
	if !mem {
		c.setReg(in, n, size, v)
		return true
	}
	va, ok := c.memAddr(in, size, true)
	return ok && c.store(va, v, size)
}

// modify replaces operand 0 by f of it; false: exc is set and nothing changed.
// f may run several times and must have no effects but the last run's results.
// With LOCK the replacement is atomic on RAM.
func (c *CPU) modify(in *decode.Inst, f func(old uint64) uint64) bool {
	a := in.Row.Args[0]
	size := argSize(in, a)
	n, mem := regOf(in, a)
	if !mem {
		c.setReg(in, n, size, f(c.reg(in, n, size)))
		return true
	}
	va, ok := c.memAddr(in, size, true)
	return ok && c.modifyMem(va, size, in.Lock, f)
}

// modifyMem is modify for size bytes at va.
func (c *CPU) modifyMem(va uint64, size uint8, lock bool, f func(old uint64) uint64) bool {
	if lock {
		if p := c.hostPtr(va, uint64(size), true); p != nil {
			atomicModify(p, size, f)
			return true
		}
		if p, gpa := c.lockedPtr(va, uint64(size)); p != nil {
			atomicModify(p, size, f)
			c.stored(gpa, uint64(size))
			c.watchAccess(va, uint64(size), true)
			return true
		}
		return c.group.alone(c, func() bool { return c.modifySlow(va, size, f) })
	}
	return c.modifySlow(va, size, f)
}

func (c *CPU) modifySlow(va uint64, size uint8, f func(old uint64) uint64) bool {
	if !c.probeWrite(va, uint64(size)) {
		return false
	}
	old, ok := c.load(va, size)
	return ok && c.store(va, f(old), size)
}

// done turns the ok of an access into a status.
func done(ok bool) status {
	if ok {
		return next
	}
	return faulted
}
