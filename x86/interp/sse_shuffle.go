package interp

import (
	"berth/x86"
	"berth/x86/decode"
	"berth/x86/fp"
	"berth/x86/optab"
)

// shuffleSize is the bytes of sseShuffle's memory operand where they are not 16;
// the string comparisons read 16 unaligned.
func shuffleSize(op optab.Op) (size uint8, aligned bool) {
	switch op {
	case optab.MOVDDUP:
		return 8, false
	case optab.INSERTPS:
		return 4, false
	case optab.PCMPESTRI, optab.PCMPESTRM, optab.PCMPISTRI, optab.PCMPISTRM:
		return 16, false
	}
	return 16, true
}

// sseShuffle rearranges one or two vectors.
func (c *CPU) sseShuffle(in *decode.Inst) status {
	imm := uint8(in.Imm)
	switch in.Row.Args[0] {
	case optab.Pq:
		return c.mmxShuffle(in)
	case optab.Ux: // PSLLDQ, PSRLDQ
		x := &c.fpu.xmm[in.RM&15]
		n := min(imm, 16)
		if in.Op == optab.PSRLDQ {
			*x = fp.ShiftRight([2]uint64{}, *x, n)
		} else {
			*x = fp.ShiftRight(*x, [2]uint64{}, 16-n)
		}
		return next
	}
	var src [2]uint64
	var ok bool
	if in.Mem {
		size, aligned := shuffleSize(in.Op)
		va, inside := c.sseAddr(in, size, aligned, false)
		switch {
		case !inside:
			return faulted
		case size == 16:
			src, ok = c.ld128(va)
		default:
			src[0], ok = c.load(va, size)
		}
		if !ok {
			return faulted
		}
	} else {
		src = c.fpu.xmm[in.RM&15]
	}
	if in.Op >= optab.PCMPESTRI && in.Op <= optab.PCMPISTRM {
		c.compareStrings(in, src)
		return next
	}
	dst := &c.fpu.xmm[in.Reg&15]
	*dst = c.shuffle(in, *dst, src, imm)
	return next
}

func (c *CPU) shuffle(in *decode.Inst, d, s [2]uint64, imm uint8) [2]uint64 {
	mask := &c.fpu.xmm[0]
	switch in.Op {
	case optab.PSHUFD:
		return fp.ShuffleDwords(s, s, imm)
	case optab.SHUFPS:
		return fp.ShuffleDwords(d, s, imm)
	case optab.PSHUFLW:
		return [2]uint64{fp.ShuffleWords(s[0], imm), s[1]}
	case optab.PSHUFHW:
		return [2]uint64{s[0], fp.ShuffleWords(s[1], imm)}
	case optab.SHUFPD:
		return [2]uint64{d[imm&1], s[imm>>1&1]}
	case optab.PALIGNR:
		return fp.ShiftRight(d, s, imm)
	case optab.BLENDPS:
		return fp.Blend(d, s, uint64(imm), 32)
	case optab.BLENDPD:
		return fp.Blend(d, s, uint64(imm), 64)
	case optab.PBLENDW:
		return fp.Blend(d, s, uint64(imm), 16)
	case optab.PBLENDVB:
		return fp.Blend(d, s, fp.SignBits(*mask, 8), 8)
	case optab.BLENDVPS:
		return fp.Blend(d, s, fp.SignBits(*mask, 32), 32)
	case optab.BLENDVPD:
		return fp.Blend(d, s, fp.SignBits(*mask, 64), 64)
	case optab.MPSADBW:
		return fp.MultiSumAbsDiff(d, s, imm)
	case optab.MOVDDUP:
		return [2]uint64{s[0], s[0]}
	case optab.MOVSLDUP:
		return fp.ShuffleDwords(s, s, 0xa0)
	case optab.MOVSHDUP:
		return fp.ShuffleDwords(s, s, 0xf5)
	}
	return insertPS(d, s, imm, in.Mem)
}

// insertPS is INSERTPS; a memory source is one element.
func insertPS(d, s [2]uint64, imm uint8, mem bool) [2]uint64 {
	from := imm >> 6
	if mem {
		from = 0
	}
	v := s[from>>1] >> (from & 1 * 32) & 0xffffffff
	at := imm >> 4 & 3
	x := &d[at>>1]
	*x = *x&^(0xffffffff<<(at&1*32)) | v<<(at&1*32)
	return fp.Blend(d, [2]uint64{}, uint64(imm&15), 32)
}

// mmxShuffle is PSHUFW and PALIGNR on MMX registers.
func (c *CPU) mmxShuffle(in *decode.Inst) status {
	s, ok := c.mmxSource(in, 8)
	if !ok {
		return faulted
	}
	if in.Op == optab.PSHUFW {
		c.fpu.setMM(in.Reg, fp.ShuffleWords(s, uint8(in.Imm)))
		return next
	}
	v := fp.ShiftRight([2]uint64{}, [2]uint64{s, c.fpu.mm(in.Reg)}, uint8(in.Imm))
	c.fpu.setMM(in.Reg, v[0])
	return next
}

// compareStrings is PCMPESTRI, PCMPESTRM, PCMPISTRI and PCMPISTRM.
func (c *CPU) compareStrings(in *decode.Inst, b [2]uint64) {
	imm := uint8(in.Imm)
	a := c.fpu.xmm[in.Reg&15]
	la, lb := fp.StringLength(a, imm), fp.StringLength(b, imm)
	if in.Op == optab.PCMPESTRI || in.Op == optab.PCMPESTRM {
		la = fp.ExplicitLength(c.lengthReg(in, x86.RAX), imm)
		lb = fp.ExplicitLength(c.lengthReg(in, x86.RDX), imm)
	}
	r := fp.CompareStrings(a, b, la, lb, imm)
	if in.Op == optab.PCMPESTRI || in.Op == optab.PCMPISTRI {
		c.R[x86.RCX] = r.Index(imm)
	} else {
		c.fpu.xmm[0] = r.Mask(imm)
	}
	n := fp.StringElements(imm)
	var f uint64
	if r != 0 {
		f |= x86.FlagCF
	}
	if lb < n {
		f |= x86.FlagZF
	}
	if la < n {
		f |= x86.FlagSF
	}
	if r&1 != 0 {
		f |= x86.FlagOF
	}
	c.setStatus(f)
}

// lengthReg is an explicit string's length register: 64 bits with REX.W.
func (c *CPU) lengthReg(in *decode.Inst, n uint8) int64 {
	if in.OpSize == 8 {
		return int64(c.R[n])
	}
	return int64(int32(c.R[n]))
}
