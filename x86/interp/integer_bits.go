package interp

import (
	"math/bits"

	"berth/x86"
	"berth/x86/decode"
	"berth/x86/optab"
)

// shift is the shifts and rotates. The count is masked to 5 bits, 6 for 64-bit
// operands; a masked count of 0 changes neither flags nor operand.
func (c *CPU) shift(in *decode.Inst) status {
	size := argSize(in, in.Row.Args[0])
	w := log2(size)
	count, _ := c.read(in, 1)
	count &= countMask(size)
	if count == 0 {
		if in.Mem { // still a write access
			return done(c.modify(in, func(v uint64) uint64 { return v }))
		}
		c.setReg(in, in.RM, size, c.reg(in, in.RM, size))
		return next
	}
	cf := b2u(c.cf())
	var r, aux uint64
	ok := c.modify(in, func(a uint64) uint64 {
		switch in.Op {
		case optab.SHL, optab.SHR, optab.SAR:
			r, aux = shifted(in.Op, a, count, w)
		case optab.RCL, optab.RCR:
			r, aux = rotatedCarry(in.Op, a, count, w, cf)
		default:
			r, aux = rotated(in.Op, a, count, w)
		}
		return r
	})
	if !ok {
		return faulted
	}
	switch in.Op {
	case optab.SHL, optab.SHR, optab.SAR:
		c.flagsAux(r, aux, w)
	default:
		c.setStatus(c.status()&^(x86.FlagCF|x86.FlagOF) | aux)
	}
	return next
}

func countMask(size uint8) uint64 {
	if size == 8 {
		return 63
	}
	return 31
}

// shifted returns the result of a shift by count ≥ 1 with its CF and OF.
func shifted(op optab.Op, a, count uint64, w uint8) (r, aux uint64) {
	n := uint64(8) << w
	var cf, of uint64
	switch op {
	case optab.SHL:
		r = a << count
		if count <= n {
			cf = a >> (n - count) & 1
		}
		of = cf ^ r>>(n-1)&1
	case optab.SHR:
		r = a >> count
		cf = a >> (count - 1) & 1
		if count == 1 {
			of = a >> (n - 1) & 1
		}
	default:
		s := int64(signExtend(a, uint8(n/8)))
		r = uint64(s >> count)
		cf = uint64(s>>(count-1)) & 1
	}
	return truncate(r, uint8(n/8)), cf | of<<11
}

// rotated is ROL and ROR.
func rotated(op optab.Op, a, count uint64, w uint8) (r, aux uint64) {
	n := uint64(8) << w
	s := count % n
	if op == optab.ROR {
		s = (n - s) % n
	}
	r = a
	if s != 0 {
		r = truncate(a<<s|a>>(n-s), uint8(n/8))
	}
	top := r >> (n - 1) & 1
	if op == optab.ROL {
		return r, r&1 | (r&1^top)<<11
	}
	return r, top | (top^r>>(n-2)&1)<<11
}

// rotatedCarry is RCL and RCR: rotation through n+1 bits.
func rotatedCarry(op optab.Op, a, count uint64, w uint8, cf uint64) (r, aux uint64) {
	n := uint64(8) << w
	s := count % (n + 1)
	if op == optab.RCR {
		s = n + 1 - s
	}
	r = a
	if s != 0 && s != n+1 {
		// s left rotations: bit n-s of a leaves last, the carry enters at s-1.
		r = cf << (s - 1)
		if s < n {
			r |= a << s
		}
		if s > 1 {
			r |= a >> (n + 1 - s)
		}
		r = truncate(r, uint8(n/8))
		cf = a >> (n - s) & 1
	}
	top := r >> (n - 1) & 1
	if op == optab.RCL {
		return r, cf | (cf^top)<<11
	}
	return r, cf | (top^r>>(n-2)&1)<<11
}

// doubleShift is SHLD and SHRD. A 16-bit operand shifted by more than 16 is
// undefined by the architecture: here destination, source, destination stand in
// a row, as on AMD's and Intel's processors.
func (c *CPU) doubleShift(in *decode.Inst) status {
	size := in.OpSize
	w, n := log2(size), uint64(size)*8
	count := c.R[x86.RCX]
	if in.Row.Args[2] == optab.Ib {
		count = in.Imm
	}
	count &= countMask(size)
	b := truncate(c.R[in.Reg&15], size)
	var r, aux uint64
	ok := c.modify(in, func(a uint64) uint64 {
		r = a
		if count != 0 {
			r, aux = doubleShifted(in.Op == optab.SHLD, a, b, count, n)
		}
		return r
	})
	if ok && count != 0 {
		c.flagsAux(r, aux, w)
	}
	return done(ok)
}

func doubleShifted(left bool, a, b, count, n uint64) (r, aux uint64) {
	var cf uint64
	if n == 16 {
		if left {
			v := a<<32 | b<<16 | a
			r = v << count >> 32 & 0xffff
			cf = v >> (48 - count) & 1
		} else {
			v := a<<32 | b<<16 | a
			r = v >> count & 0xffff
			cf = v >> (count - 1) & 1
		}
	} else if left {
		r = a<<count | b>>(n-count)
		cf = a >> (n - count) & 1
	} else {
		r = a>>count | b<<(n-count)
		cf = a >> (count - 1) & 1
	}
	r = truncate(r, uint8(n/8))
	return r, cf | (a^r)>>(n-1)&1<<11
}

// bitTest is BT, BTS, BTR and BTC. A register bit offset reaches beyond a memory operand.
func (c *CPU) bitTest(in *decode.Inst) status {
	size := in.OpSize
	n := uint64(size) * 8
	bit := in.Imm
	if in.Row.Args[1] != optab.Ib {
		bit = signExtend(c.R[in.Reg&15], size)
	}
	mask := uint64(1) << (bit & (n - 1))
	var old uint64
	f := func(v uint64) uint64 {
		old = v
		switch in.Op {
		case optab.BTS:
			return v | mask
		case optab.BTR:
			return v &^ mask
		case optab.BTC:
			return v ^ mask
		}
		return v
	}
	ok := true
	switch {
	case !in.Mem && in.Op == optab.BT:
		f(c.R[in.RM&15])
	case !in.Mem:
		c.setReg(in, in.RM, size, f(truncate(c.R[in.RM&15], size)))
	default:
		off := c.offset(in)
		if in.Row.Args[1] != optab.Ib {
			off = truncate(off+uint64(int64(bit)>>(3+log2(size)))*uint64(size), in.AddrSize)
		}
		var va uint64
		if va, ok = c.addr(in.Seg, off, size, in.Op != optab.BT); ok {
			if in.Op == optab.BT {
				old, ok = c.load(va, size)
			} else {
				ok = c.modifyMem(va, size, in.Lock, f)
			}
		}
	}
	if ok {
		c.setCarry(old&mask != 0)
	}
	return done(ok)
}

// bitScan is BSF, BSR, POPCNT, TZCNT and LZCNT. On a CPU that has neither BMI1 nor
// LZCNT these are BSF and BSR: it ignores their F3.
func (c *CPU) bitScan(in *decode.Inst) status {
	v, ok := c.read(in, 1)
	if !ok {
		return faulted
	}
	if (in.Op == optab.TZCNT || in.Op == optab.LZCNT) && c.single != nil {
		n := uint64(in.OpSize) * 8
		r := min(n, uint64(bits.TrailingZeros64(v)))
		if in.Op == optab.LZCNT {
			r = n - uint64(bits.Len64(v))
		}
		c.setReg(in, in.Reg, in.OpSize, r)
		c.setStatus(b2u(v == 0) | b2u(r == 0)<<6)
		return next
	}
	switch in.Op {
	case optab.POPCNT:
		n := uint64(bits.OnesCount64(v))
		c.setReg(in, in.Reg, in.OpSize, n)
		c.setStatus(b2u(v == 0) << 6)
		return next
	case optab.BSF, optab.TZCNT:
		if v != 0 {
			c.setReg(in, in.Reg, in.OpSize, uint64(bits.TrailingZeros64(v)))
		}
	default:
		if v != 0 {
			c.setReg(in, in.Reg, in.OpSize, uint64(bits.Len64(v)-1))
		}
	}
	c.setStatus(c.status()&^x86.FlagZF | b2u(v == 0)<<6)
	return next
}

// crc32 is CRC32: the Castagnoli polynomial, bit-reflected, without inversions.
func (c *CPU) crc32(in *decode.Inst) status {
	v, ok := c.read(in, 1)
	if !ok {
		return faulted
	}
	crc := uint32(c.R[in.Reg&15])
	for range argSize(in, in.Row.Args[1]) {
		crc ^= uint32(v & 0xff)
		for range 8 {
			crc = crc>>1 ^ -(crc&1)&0x82f63b78
		}
		v >>= 8
	}
	c.R[in.Reg&15] = uint64(crc)
	return next
}
