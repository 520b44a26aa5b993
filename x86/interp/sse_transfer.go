package interp

import (
	"berth/x86"
	"berth/x86/decode"
	"berth/x86/fp"
	"berth/x86/optab"
)

// sseTransfer is the moves that are not a whole register's.
func (c *CPU) sseTransfer(in *decode.Inst) status {
	switch in.Op {
	case optab.EMMS:
		c.fpu.enterMMX()
		c.fpu.valid = 0
		return next
	case optab.MOVD:
		return c.movd(in)
	case optab.MOVQ:
		return c.movq(in)
	case optab.MOVNTQ:
		va, ok := c.sseAddr(in, 8, false, true)
		if !ok || !c.st64(va, c.fpu.mm(in.Reg)) {
			return faulted
		}
		c.fpu.enterMMX()
		return next
	case optab.MOVDQ2Q:
		c.fpu.setMM(in.Reg, c.fpu.xmm[in.RM&15][0])
		return next
	case optab.MOVQ2DQ:
		c.fpu.xmm[in.Reg&15] = [2]uint64{c.fpu.mm(in.RM)}
		c.fpu.enterMMX()
		return next
	case optab.MOVHLPS:
		c.fpu.xmm[in.Reg&15][0] = c.fpu.xmm[in.RM&15][1]
		return next
	case optab.MOVLHPS:
		c.fpu.xmm[in.Reg&15][1] = c.fpu.xmm[in.RM&15][0]
		return next
	case optab.MOVLPS, optab.MOVLPD:
		return c.moveHalf(in, 0)
	case optab.MOVHPS, optab.MOVHPD:
		return c.moveHalf(in, 1)
	case optab.MASKMOVQ, optab.MASKMOVDQU:
		return c.maskMove(in)
	case optab.PINSRB, optab.PINSRW, optab.PINSRD, optab.PINSRQ:
		return c.insert(in)
	case optab.PMOVMSKB, optab.MOVMSKPS, optab.MOVMSKPD:
		return c.moveMask(in)
	}
	return c.extract(in)
}

func (c *CPU) movd(in *decode.Inst) status {
	size := in.OpSize // 4 or 8
	switch in.Row.Args[0] {
	case optab.Pq, optab.Vx:
		v, ok := c.read(in, 1)
		if !ok {
			return faulted
		}
		if in.Row.Args[0] == optab.Pq {
			c.fpu.setMM(in.Reg, v)
		} else {
			c.fpu.xmm[in.Reg&15] = [2]uint64{v}
		}
		return next
	}
	mmx := in.Row.Args[1] == optab.Pq
	v := c.fpu.xmm[in.Reg&15][0]
	if mmx {
		v = c.fpu.mm(in.Reg)
	}
	if !c.write(in, 0, truncate(v, size)) {
		return faulted
	}
	if mmx {
		c.fpu.enterMMX()
	}
	return next
}

func (c *CPU) movq(in *decode.Inst) status {
	switch in.Row.Args[0] {
	case optab.Pq:
		v, ok := c.mmxSource(in, 8)
		if ok {
			c.fpu.setMM(in.Reg, v)
		}
		return done(ok)
	case optab.Vx:
		v, ok := c.sseSource(in, 8)
		if ok {
			c.fpu.xmm[in.Reg&15] = [2]uint64{v[0]}
		}
		return done(ok)
	}
	mmx := in.Row.Args[0] == optab.Qq
	v := c.fpu.xmm[in.Reg&15][0]
	if mmx {
		v = c.fpu.mm(in.Reg)
	}
	if in.Mem {
		va, ok := c.sseAddr(in, 8, false, true)
		if !ok || !c.st64(va, v) {
			return faulted
		}
		if mmx {
			c.fpu.enterMMX()
		}
		return next
	}
	if mmx {
		c.fpu.setMM(in.RM, v)
	} else {
		c.fpu.xmm[in.RM&15] = [2]uint64{v}
	}
	return next
}

// moveHalf is MOVLPS, MOVHPS and their doubles.
func (c *CPU) moveHalf(in *decode.Inst, half int) status {
	x := &c.fpu.xmm[in.Reg&15][half]
	load := in.Row.Args[0] == optab.Vx
	va, ok := c.sseAddr(in, 8, false, !load)
	if !ok {
		return faulted
	}
	if !load {
		return done(c.st64(va, *x))
	}
	v, ok := c.ld64(va)
	if !ok {
		return faulted
	}
	*x = v
	return next
}

// maskMove stores the bytes whose mask byte has its sign set, at Seg:rDI.
func (c *CPU) maskMove(in *decode.Inst) status {
	v, mask, n := c.fpu.xmm[in.Reg&15], c.fpu.xmm[in.RM&15], uint64(16)
	if in.Op == optab.MASKMOVQ {
		v, mask, n = [2]uint64{c.fpu.mm(in.Reg)}, [2]uint64{c.fpu.mm(in.RM)}, 8
	}
	pick := fp.SignBits(mask, 8) & (1<<n - 1)
	va, ok := c.addr(in.Seg, truncate(c.R[x86.RDI], in.AddrSize), uint8(n), true)
	if !ok {
		return faulted
	}
	if !c.probeWrite(va, n) { // the whole of it, whatever the mask: the SDM leaves this open
		return faulted
	}
	for i := range n {
		if pick>>i&1 != 0 && !c.st8(c.after(va, i), uint8(v[i>>3]>>(i&7*8))) {
			return faulted
		}
	}
	if in.Op == optab.MASKMOVQ {
		c.fpu.enterMMX()
	}
	return next
}

// elementSize returns the bytes of what PEXTR and PINSR move.
func elementSize(in *decode.Inst) uint8 {
	switch in.Op {
	case optab.PEXTRB, optab.PINSRB:
		return 1
	case optab.PEXTRW, optab.PINSRW:
		return 2
	case optab.PEXTRQ, optab.PINSRQ:
		return 8
	}
	return 4
}

// insert is PINSRx.
func (c *CPU) insert(in *decode.Inst) status {
	size := elementSize(in)
	var v uint64
	if in.Mem {
		va, ok := c.sseAddr(in, size, false, false)
		if !ok {
			return faulted
		}
		if v, ok = c.load(va, size); !ok {
			return faulted
		}
	} else {
		v = truncate(c.R[in.RM&15], size)
	}
	at := uint(in.Imm) * uint(size) * 8
	m := truncate(^uint64(0), size)
	if in.Row.Args[0] == optab.Pq {
		at &= 63
		c.fpu.setMM(in.Reg, c.fpu.mm(in.Reg)&^(m<<at)|v<<at)
		return next
	}
	x := &c.fpu.xmm[in.Reg&15][at>>6&1]
	*x = *x&^(m<<(at&63)) | v<<(at&63)
	return next
}

// extract is PEXTRx and EXTRACTPS; a register gets the element zero-extended.
func (c *CPU) extract(in *decode.Inst) status {
	size := elementSize(in)
	at := uint(in.Imm) * uint(size) * 8
	var v uint64
	reg := in.RM
	switch in.Row.Args[1] {
	case optab.Nq:
		v = c.fpu.mm(in.RM) >> (at & 63)
		reg = in.Reg
		c.fpu.enterMMX()
	case optab.Ux:
		v = c.fpu.xmm[in.RM&15][at>>6&1] >> (at & 63)
		reg = in.Reg
	default:
		v = c.fpu.xmm[in.Reg&15][at>>6&1] >> (at & 63)
	}
	v = truncate(v, size)
	if !in.Mem {
		c.R[reg&15] = v
		return next
	}
	va, ok := c.sseAddr(in, size, false, true)
	return done(ok && c.store(va, v, size))
}

// moveMask is PMOVMSKB, MOVMSKPS and MOVMSKPD.
func (c *CPU) moveMask(in *decode.Inst) status {
	x := c.fpu.xmm[in.RM&15]
	switch {
	case in.Op == optab.MOVMSKPS:
		c.R[in.Reg&15] = fp.SignBits(x, 32)
	case in.Op == optab.MOVMSKPD:
		c.R[in.Reg&15] = fp.SignBits(x, 64)
	case in.Row.Args[1] == optab.Nq:
		c.R[in.Reg&15] = fp.SignBits([2]uint64{c.fpu.mm(in.RM)}, 8)
		c.fpu.enterMMX()
	default:
		c.R[in.Reg&15] = fp.SignBits(x, 8)
	}
	return next
}
