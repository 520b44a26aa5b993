package interp

import (
	"math/bits"

	"berth/x86"
	"berth/x86/decode"
	"berth/x86/optab"
)

// execBMI is BMI1 and BMI2 but for TZCNT.
func (c *CPU) execBMI(in *decode.Inst) status {
	size := in.OpSize
	s, ok := c.rmGPR(in)
	if !ok {
		return faulted
	}
	v := truncate(c.R[in.V&15], size)
	dst := in.Reg
	var r uint64
	switch in.Op {
	case optab.ANDN:
		r = ^v & s
		c.flagsBMI(r, size, false)
	case optab.BLSR, optab.BLSMSK, optab.BLSI:
		dst = in.V
		cf := s == 0
		switch in.Op {
		case optab.BLSR:
			r = s & (s - 1)
		case optab.BLSMSK:
			r = s ^ (s - 1)
		default:
			r, cf = s&-s, s != 0
		}
		r = truncate(r, size)
		c.flagsBMI(r, size, cf)
	case optab.BEXTR:
		r = s >> (v & 0xff) & lowBits(v>>8&0xff)
		c.flagsBMI(r, size, false)
	case optab.BZHI:
		n := v & 0xff
		r = s & lowBits(n)
		c.flagsBMI(r, size, n >= uint64(size)*8)
	case optab.PEXT:
		r = extractBits(v, s)
	case optab.PDEP:
		r = depositBits(v, s)
	case optab.RORX:
		r, _ = rotated(optab.ROR, s, in.Imm&countMask(size), log2(size))
	case optab.SARX:
		r = uint64(int64(signExtend(s, size)) >> (v & countMask(size)))
	case optab.SHLX:
		r = s << (v & countMask(size))
	case optab.SHRX:
		r = s >> (v & countMask(size))
	case optab.MULX:
		d := truncate(c.R[x86.RDX], size)
		hi, lo := bits.Mul64(d, s)
		if size == 4 {
			hi = lo >> 32
		}
		c.setReg(in, in.V, size, lo)
		r = hi
	}
	c.setReg(in, dst, size, r)
	return next
}

// rmGPR reads the general register or memory in ModRM.rm.
func (c *CPU) rmGPR(in *decode.Inst) (uint64, bool) {
	if !in.Mem {
		return truncate(c.R[in.RM&15], in.OpSize), true
	}
	va, ok := c.memAddr(in, in.OpSize, false)
	if !ok {
		return 0, false
	}
	return c.load(va, in.OpSize)
}

// flagsBMI sets SF, ZF and CF and clears the others.
func (c *CPU) flagsBMI(r uint64, size uint8, cf bool) {
	c.setStatus(b2u(cf) | b2u(r == 0)<<6 | r>>(8*size-1)&1<<7)
}

// lowBits is a mask of n ≥ 0 bits.
func lowBits(n uint64) uint64 {
	if n >= 64 {
		return ^uint64(0)
	}
	return 1<<n - 1
}

// extractBits packs those bits of v that mask names.
func extractBits(v, mask uint64) (r uint64) {
	for i := uint(0); mask != 0; i++ {
		r |= v >> bits.TrailingZeros64(mask) & 1 << i
		mask &= mask - 1
	}
	return r
}

// depositBits spreads the low bits of v to where mask has ones.
func depositBits(v, mask uint64) (r uint64) {
	for ; mask != 0; mask &= mask - 1 {
		r |= v & 1 << bits.TrailingZeros64(mask)
		v >>= 1
	}
	return r
}
