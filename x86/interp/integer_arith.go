package interp

import (
	"math/bits"

	"berth/x86"
	"berth/x86/decode"
	"berth/x86/optab"
)

// The flag setters take results and operands cut to the operand's width w (log2 of bytes).

func (k *Core) flagsLogic(r uint64, w uint8) {
	k.Res, k.CC = r<<(64-8<<w), ccLogic|w
}

func (k *Core) flagsAdd(b, r uint64, w uint8) {
	sh := uint(64 - 8<<w)
	k.Res, k.Src, k.CC = r<<sh, b<<sh, ccAdd|w
}

func (k *Core) flagsSub(b, r uint64, w uint8) {
	sh := uint(64 - 8<<w)
	k.Res, k.Src, k.CC = r<<sh, b<<sh, ccSub|w
}

// flagsCount is INC and DEC: CF stays.
func (k *Core) flagsCount(r uint64, kind, w uint8) {
	k.Src = b2u(k.cf())
	k.Res, k.CC = r<<(64-8<<w), kind|w
}

// flagsAux sets SF, ZF and PF from r; aux holds CF, AF and OF.
func (k *Core) flagsAux(r, aux uint64, w uint8) {
	k.Res, k.Src, k.CC = r<<(64-8<<w), aux, ccAux|w
}

// compare is CMP and TEST.
func (c *CPU) compare(in *decode.Inst) status {
	b, ok := c.read(in, 1)
	if !ok {
		return faulted
	}
	a, ok := c.read(in, 0)
	if !ok {
		return faulted
	}
	w := log2(argSize(in, in.Row.Args[0]))
	if in.Op == optab.CMP {
		c.flagsSub(b, a-b, w)
	} else {
		c.flagsLogic(a&b, w)
	}
	return next
}

// arith is the two-operand arithmetic and logic.
func (c *CPU) arith(in *decode.Inst) status {
	b, ok := c.read(in, 1)
	if !ok {
		return faulted
	}
	carry := b2u(c.cf())
	var r uint64
	ok = c.modify(in, func(a uint64) uint64 {
		r = arithResult(in.Op, a, b, carry)
		return r
	})
	if !ok {
		return faulted
	}
	w := log2(argSize(in, in.Row.Args[0]))
	switch in.Op {
	case optab.ADD:
		c.flagsAdd(b, r, w)
	case optab.SUB:
		c.flagsSub(b, r, w)
	case optab.ADC:
		c.flagsAdd(b, r, w)
		c.CC += uint8(carry) * (ccAdc - ccAdd)
	case optab.SBB:
		c.flagsSub(b, r, w)
		c.CC += uint8(carry) * (ccSbb - ccSub)
	default:
		c.flagsLogic(r, w)
	}
	return next
}

func arithResult(op optab.Op, a, b, carry uint64) uint64 {
	switch op {
	case optab.ADD:
		return a + b
	case optab.ADC:
		return a + b + carry
	case optab.SUB:
		return a - b
	case optab.SBB:
		return a - b - carry
	case optab.AND:
		return a & b
	case optab.OR:
		return a | b
	default:
		return a ^ b
	}
}

// unary is INC, DEC, NEG and NOT.
func (c *CPU) unary(in *decode.Inst) status {
	w := log2(argSize(in, in.Row.Args[0]))
	var a, r uint64
	ok := c.modify(in, func(old uint64) uint64 {
		a = old
		switch in.Op {
		case optab.INC:
			r = a + 1
		case optab.DEC:
			r = a - 1
		case optab.NEG:
			r = -a
		default:
			r = ^a
		}
		return r
	})
	if !ok {
		return faulted
	}
	switch in.Op {
	case optab.INC:
		c.flagsCount(r, ccInc, w)
	case optab.DEC:
		c.flagsCount(r, ccDec, w)
	case optab.NEG:
		c.flagsSub(a, r, w)
	}
	return next
}

// setWide writes a double-width result to AX, DX:AX, EDX:EAX or RDX:RAX.
func (c *CPU) setWide(in *decode.Inst, size uint8, hi, lo uint64) {
	if size == 1 {
		c.R[x86.RAX] = c.R[x86.RAX]&^0xffff | lo&0xff | hi&0xff<<8
		return
	}
	c.setReg(in, x86.RAX, size, lo)
	c.setReg(in, x86.RDX, size, hi)
}

// multiply is MUL and the three forms of IMUL. SF, ZF, PF and AF are undefined
// by the architecture; here the first three follow the lower half.
func (c *CPU) multiply(in *decode.Inst) status {
	size := argSize(in, in.Row.Args[0])
	args := in.Row.Args
	src := 0
	if len(args) > 1 {
		src = 1
	}
	b, ok := c.read(in, src)
	if !ok {
		return faulted
	}
	var a uint64
	switch len(args) {
	case 3:
		a = in.Imm
	case 2:
		a = c.R[in.Reg&15]
	default:
		a = c.R[x86.RAX]
	}
	hi, lo, over := product(a, b, size, in.Op == optab.IMUL)
	if len(args) > 1 {
		c.setReg(in, in.Reg, size, lo)
	} else {
		c.setWide(in, size, hi, lo)
	}
	c.flagsAux(truncate(lo, size), b2u(over)*(x86.FlagCF|x86.FlagOF), log2(size))
	return next
}

// product multiplies size-byte operands; over reports that the upper half says
// something the lower does not.
func product(a, b uint64, size uint8, signed bool) (hi, lo uint64, over bool) {
	if signed {
		a, b = signExtend(a, size), signExtend(b, size)
	} else {
		a, b = truncate(a, size), truncate(b, size)
	}
	hi, lo = bits.Mul64(a, b)
	if signed {
		hi -= uint64(int64(a)>>63)&b + uint64(int64(b)>>63)&a
	}
	if size < 8 {
		hi = lo >> (8 * size)
	}
	if signed {
		return hi, lo, truncate(hi, size) != truncate(uint64(int64(signExtend(lo, size))>>63), size)
	}
	return hi, lo, truncate(hi, size) != 0
}

// divide is DIV and IDIV.
func (c *CPU) divide(in *decode.Inst) status {
	size := argSize(in, in.Row.Args[0])
	d, ok := c.read(in, 0)
	if !ok {
		return faulted
	}
	hi, lo := truncate(c.R[x86.RDX], size), truncate(c.R[x86.RAX], size)
	if size == 1 {
		hi, lo = c.R[x86.RAX]>>8&0xff, lo&0xff
	}
	q, r, ok := quotient(hi, lo, d, size, in.Op == optab.IDIV)
	if !ok {
		return c.raise(x86.DE)
	}
	c.setWide(in, size, r, q)
	return next
}

// quotient divides hi:lo by d, all size bytes wide; not ok is #DE.
func quotient(hi, lo, d uint64, size uint8, signed bool) (q, r uint64, ok bool) {
	if size < 8 {
		lo |= hi << (8 * size)
		hi = 0
		if signed {
			lo = signExtend(lo, 2*size)
			hi = uint64(int64(lo) >> 63)
		}
	}
	if !signed {
		if d == 0 || hi >= d {
			return 0, 0, false
		}
		q, r = bits.Div64(hi, lo, d)
		return q, r, truncate(q, size) == q
	}
	d = signExtend(d, size)
	negN, negD := int64(hi) < 0, int64(d) < 0
	if negN {
		var borrow uint64
		lo, borrow = bits.Sub64(0, lo, 0)
		hi, _ = bits.Sub64(0, hi, borrow)
	}
	if negD {
		d = -d
	}
	if d == 0 || hi >= d {
		return 0, 0, false
	}
	q, r = bits.Div64(hi, lo, d)
	limit := uint64(1)<<(8*uint(size)-1) - 1 // largest positive quotient
	if negN != negD {
		limit++
	}
	if q > limit {
		return 0, 0, false
	}
	if negN != negD {
		q = -q
	}
	if negN {
		r = -r
	}
	return q, r, true
}

// bcd is the decimal adjustments (Intel SDM vol. 2: AAA to DAS).
func (c *CPU) bcd(in *decode.Inst) status {
	ax := c.R[x86.RAX] & 0xffff
	al, ah := ax&0xff, ax>>8
	switch in.Op {
	case optab.AAA, optab.AAS:
		c.asciiAdjust(in.Op == optab.AAS, ax)
	case optab.DAA, optab.DAS:
		c.decimalAdjust(in.Op == optab.DAS, al)
	case optab.AAM:
		d := in.Imm & 0xff
		if d == 0 {
			return c.raise(x86.DE)
		}
		c.setReg(in, x86.RAX, 2, al/d<<8|al%d)
		c.flagsLogic(al%d, cc8)
	case optab.AAD:
		r := (al + ah*(in.Imm&0xff)) & 0xff
		c.setReg(in, x86.RAX, 2, r)
		c.flagsLogic(r, cc8)
	}
	return next
}

func (c *CPU) asciiAdjust(sub bool, ax uint64) {
	adjust := ax&0xf > 9 || c.af()
	if adjust {
		if sub {
			ax -= 0x106
		} else {
			ax += 0x106
		}
	}
	ax &= 0xff0f
	c.R[x86.RAX] = c.R[x86.RAX]&^0xffff | ax
	c.flagsAux(ax&0xff, b2u(adjust)|b2u(adjust)<<4, cc8)
}

func (c *CPU) decimalAdjust(sub bool, al uint64) {
	old, cf, af := al, c.cf(), c.af()
	low := al&0xf > 9 || af
	carry := false
	step := func(v uint64) {
		if sub {
			al -= v
		} else {
			al += v
		}
	}
	if low {
		step(6)
		carry = cf || al > 0xff
	}
	if old > 0x99 || cf {
		step(0x60)
		carry = true
	}
	al &= 0xff
	c.R[x86.RAX] = c.R[x86.RAX]&^0xff | al
	c.flagsAux(al, b2u(carry)|b2u(low)<<4, cc8)
}
