package interp

import (
	"berth/x86/decode"
	"berth/x86/fp"
	"berth/x86/optab"
)

// sseConvert is the conversions with an integer or MMX register on one side.
func (c *CPU) sseConvert(in *decode.Inst) status {
	switch in.Op {
	case optab.CVTSI2SS, optab.CVTSI2SD:
		v, ok := c.read(in, 1)
		if !ok {
			return faulted
		}
		dst := c.fpu.xmm[in.Reg&15]
		f := c.fpu.arith.FromInt(in.Op, &dst, v, in.OpSize == 8, c.fpu.mxcsr)
		if st := c.sseFlags(f); st != next {
			return st
		}
		c.fpu.xmm[in.Reg&15] = dst
		return next
	case optab.CVTSS2SI, optab.CVTTSS2SI, optab.CVTSD2SI, optab.CVTTSD2SI:
		size := uint8(8)
		if in.Row.Args[1] == optab.Wd {
			size = 4
		}
		src, ok := c.sseSource(in, size)
		if !ok {
			return faulted
		}
		v, f := c.fpu.arith.ToInt(in.Op, src[0], in.OpSize == 8, c.fpu.mxcsr)
		if st := c.sseFlags(f); st != next {
			return st
		}
		c.R[in.Reg&15] = v
		return next
	case optab.CVTPI2PS, optab.CVTPI2PD:
		return c.convertFromMMX(in)
	}
	return c.convertToMMX(in)
}

func (c *CPU) convertFromMMX(in *decode.Inst) status {
	v, ok := c.mmxSource(in, 8)
	if !ok {
		return faulted
	}
	dst, src := c.fpu.xmm[in.Reg&15], [2]uint64{v}
	var f fp.Flags
	if in.Op == optab.CVTPI2PS {
		t := dst
		f = c.fpu.arith.Float(optab.CVTDQ2PS, &t, &src, 0, c.fpu.mxcsr)
		dst[0] = t[0]
	} else {
		f = c.fpu.arith.Float(optab.CVTDQ2PD, &dst, &src, 0, c.fpu.mxcsr)
	}
	if st := c.sseFlags(f); st != next {
		return st
	}
	if !in.Mem {
		c.fpu.enterMMX()
	}
	c.fpu.xmm[in.Reg&15] = dst
	return next
}

func (c *CPU) convertToMMX(in *decode.Inst) status {
	op, size := optab.CVTPS2DQ, uint8(8)
	switch in.Op {
	case optab.CVTTPS2PI:
		op = optab.CVTTPS2DQ
	case optab.CVTPD2PI:
		op, size = optab.CVTPD2DQ, 16
	case optab.CVTTPD2PI:
		op, size = optab.CVTTPD2DQ, 16
	}
	src, ok := c.sseSource(in, size)
	if !ok {
		return faulted
	}
	if size == 8 {
		src[1] = 0
	}
	var dst [2]uint64
	f := c.fpu.arith.Float(op, &dst, &src, 0, c.fpu.mxcsr)
	if st := c.sseFlags(f); st != next {
		return st
	}
	c.fpu.setMM(in.Reg, dst[0])
	return next
}
