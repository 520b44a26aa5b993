package interp

import (
	"sync"

	"berth/x86"
	"berth/x86/decode"
	"berth/x86/fp"
	"berth/x86/optab"
)

// execSSE runs one instruction of the MMX and SSE family.
func (c *CPU) execSSE(in *decode.Inst) status {
	k := &c.sse[in.Op-optab.FirstSSE]
	if st := c.sseAvailable(in, k); st != next {
		return st
	}
	switch k.do {
	case doMove:
		return c.sseMove(in, k)
	case doInt:
		if in.Row.Prefix == optab.PNone && k.size == 0 {
			return c.mmxInt(in)
		}
		return c.sseInt(in, k)
	case doFloat:
		return c.sseFloat(in, k)
	case doCompare:
		return c.sseCompare(in, k)
	case doConvert:
		return c.sseConvert(in)
	case doShuffle:
		return c.sseShuffle(in)
	case doTransfer:
		return c.sseTransfer(in)
	case doState:
		return c.sseState(in)
	}
	return c.raise(x86.UD) // CPUID does not offer the rest
}

// what an operation is to execSSE
type sseDo uint8

const (
	doUD       sseDo = iota
	doMove           // between XMM and memory or XMM, size bytes
	doInt            // fp.Int
	doFloat          // fp.Float
	doCompare        // to RFLAGS
	doConvert        // with an integer or MMX register on one side
	doShuffle        // of one or two vectors by an immediate or a mask
	doTransfer       // everything else that moves data
	doState          // FXSAVE and relatives
)

// sseKind is what execSSE has to know of an operation.
type sseKind struct {
	do sseDo
	// size is the bytes of a memory operand; 0: 16, or 8 in an MMX row.
	size uint8
	// unaligned: a 16-byte memory operand may stand anywhere.
	unaligned bool
	// mmx: some row of the operation touches MMX registers.
	mmx bool
}

// sseTable holds the kind of every operation.
type sseTable [optab.LastSSE - optab.FirstSSE + 1]sseKind

// sseKinds is the table, built for the first vCPU.
var sseKinds = sync.OnceValue(newSSETable)

func newSSETable() *sseTable {
	t := &sseTable{}
	set := func(k sseKind, ops ...optab.Op) {
		for _, op := range ops {
			t[op-optab.FirstSSE] = k
		}
	}
	var v [2]uint64
	for op := optab.FirstSSE; op <= optab.LastSSE; op++ {
		if fp.Soft.Int(op, &v, &v) {
			set(sseKind{do: doInt}, op)
		}
	}
	set(sseKind{do: doInt, size: 2}, optab.PMOVSXBQ, optab.PMOVZXBQ)
	set(sseKind{do: doInt, size: 4}, optab.PMOVSXBD, optab.PMOVZXBD, optab.PMOVSXWQ, optab.PMOVZXWQ)
	set(sseKind{do: doInt, size: 8}, optab.PMOVSXBW, optab.PMOVZXBW, optab.PMOVSXWD, optab.PMOVZXWD, optab.PMOVSXDQ, optab.PMOVZXDQ)
	set(sseKind{do: doInt, size: 16}, optab.ANDPS, optab.ANDPD, optab.ANDNPS, optab.ANDNPD, optab.ORPS, optab.ORPD,
		optab.XORPS, optab.XORPD, optab.UNPCKLPS, optab.UNPCKLPD, optab.UNPCKHPS, optab.UNPCKHPD)

	set(sseKind{do: doFloat, size: 16},
		optab.ADDPS, optab.ADDPD, optab.SUBPS, optab.SUBPD, optab.MULPS, optab.MULPD, optab.DIVPS, optab.DIVPD,
		optab.SQRTPS, optab.SQRTPD, optab.MINPS, optab.MINPD, optab.MAXPS, optab.MAXPD, optab.CMPPS, optab.CMPPD,
		optab.RCPPS, optab.RSQRTPS, optab.ADDSUBPS, optab.ADDSUBPD, optab.HADDPS, optab.HADDPD, optab.HSUBPS, optab.HSUBPD,
		optab.DPPS, optab.DPPD, optab.ROUNDPS, optab.ROUNDPD,
		optab.CVTDQ2PS, optab.CVTPS2DQ, optab.CVTTPS2DQ, optab.CVTPD2DQ, optab.CVTTPD2DQ, optab.CVTPD2PS)
	set(sseKind{do: doFloat, size: 4}, optab.ADDSS, optab.SUBSS, optab.MULSS, optab.DIVSS, optab.SQRTSS, optab.MINSS,
		optab.MAXSS, optab.CMPSS, optab.RCPSS, optab.RSQRTSS, optab.ROUNDSS, optab.CVTSS2SD)
	set(sseKind{do: doFloat, size: 8}, optab.ADDSD, optab.SUBSD, optab.MULSD, optab.DIVSD, optab.SQRTSD, optab.MINSD,
		optab.MAXSD, optab.CMPSDX, optab.ROUNDSD, optab.CVTSD2SS, optab.CVTPS2PD, optab.CVTDQ2PD)

	set(sseKind{do: doCompare, size: 4}, optab.COMISS, optab.UCOMISS)
	set(sseKind{do: doCompare, size: 8}, optab.COMISD, optab.UCOMISD)
	set(sseKind{do: doCompare, size: 16}, optab.PTEST)

	set(sseKind{do: doConvert}, optab.CVTSI2SS, optab.CVTSI2SD, optab.CVTSS2SI, optab.CVTTSS2SI, optab.CVTSD2SI, optab.CVTTSD2SI,
		optab.CVTPI2PS, optab.CVTPI2PD, optab.CVTPS2PI, optab.CVTTPS2PI, optab.CVTPD2PI, optab.CVTTPD2PI)

	set(sseKind{do: doMove, size: 16}, optab.MOVAPS, optab.MOVAPD, optab.MOVDQA, optab.MOVNTPS, optab.MOVNTPD, optab.MOVNTDQ, optab.MOVNTDQA)
	set(sseKind{do: doMove, size: 16, unaligned: true}, optab.MOVUPS, optab.MOVUPD, optab.MOVDQU, optab.LDDQU)
	set(sseKind{do: doMove, size: 4}, optab.MOVSS)
	set(sseKind{do: doMove, size: 8}, optab.MOVSDX)

	set(sseKind{do: doShuffle}, optab.PSHUFD, optab.PSHUFHW, optab.PSHUFLW, optab.PSHUFW, optab.SHUFPS, optab.SHUFPD, optab.PALIGNR,
		optab.PSLLDQ, optab.PSRLDQ, optab.BLENDPS, optab.BLENDPD, optab.BLENDVPS, optab.BLENDVPD, optab.PBLENDVB, optab.PBLENDW,
		optab.MPSADBW, optab.INSERTPS, optab.MOVDDUP, optab.MOVSHDUP, optab.MOVSLDUP,
		optab.PCMPESTRI, optab.PCMPESTRM, optab.PCMPISTRI, optab.PCMPISTRM)
	set(sseKind{do: doTransfer}, optab.EMMS, optab.MOVD, optab.MOVQ, optab.PEXTRB, optab.PEXTRW, optab.PEXTRD, optab.PEXTRQ,
		optab.PINSRB, optab.PINSRW, optab.PINSRD, optab.PINSRQ, optab.EXTRACTPS, optab.PMOVMSKB, optab.MOVMSKPS, optab.MOVMSKPD,
		optab.MASKMOVQ, optab.MASKMOVDQU, optab.MOVNTQ, optab.MOVHLPS, optab.MOVLHPS, optab.MOVHPS, optab.MOVLPS,
		optab.MOVHPD, optab.MOVLPD, optab.MOVDQ2Q, optab.MOVQ2DQ)
	for _, r := range optab.Rows() {
		if r.Op >= optab.FirstSSE && rowMMX(&r, false) {
			t[r.Op-optab.FirstSSE].mmx = true
		}
	}
	set(sseKind{do: doState}, optab.LDMXCSR, optab.STMXCSR, optab.FXSAVE, optab.FXRSTOR, optab.XSAVE, optab.XSAVEOPT, optab.XRSTOR)
	return t
}

// sseAvailable raises #UD and #NM as CR0 and CR4 demand (Intel SDM vol. 3A
// table 14-1, vol. 2 §2.4 exception classes); MMX instructions also report
// pending x87 exceptions.
func (c *CPU) sseAvailable(in *decode.Inst, k *sseKind) status {
	if !k.mmx {
		if k.do == doState && in.Op != optab.LDMXCSR && in.Op != optab.STMXCSR {
			return next // they check for themselves
		}
		if c.CR0&(x86.CR0EM|x86.CR0TS)|^c.CR4&x86.CR4OSFXSR == 0 && k.do != doUD {
			return next
		}
	}
	mmx := k.mmx && rowMMX(in.Row, in.Mem)
	if mmx {
		c.takeX87()
	}
	if k.do == doUD || c.CR0&x86.CR0EM != 0 || c.CR4&x86.CR4OSFXSR == 0 && !(mmx && in.Row.Prefix == optab.PNone && !needsSSE(in.Op)) {
		return c.raise(x86.UD)
	}
	if c.CR0&x86.CR0TS != 0 {
		return c.raise(x86.NM)
	}
	if mmx && c.fpu.fsw&fswES != 0 {
		return c.raiseX87()
	}
	return next
}

// rowMMX reports whether an instruction of the row touches an MMX register.
func rowMMX(r *optab.Row, mem bool) bool {
	if r.Op == optab.EMMS {
		return true
	}
	for _, a := range r.Args {
		switch a {
		case optab.Pq, optab.Nq, optab.Qd:
			return true
		case optab.Qq:
			if !mem { // CVTPI2PS and CVTPI2PD from memory leave the x87 alone
				return true
			}
		}
	}
	return false
}

// needsSSE reports whether an instruction on MMX registers also uses XMM ones.
func needsSSE(op optab.Op) bool {
	switch op {
	case optab.CVTPI2PS, optab.CVTPI2PD, optab.CVTPS2PI, optab.CVTTPS2PI, optab.CVTPD2PI, optab.CVTTPD2PI:
		return true
	}
	return false
}

// sseAddr returns the linear address of in's memory operand of n bytes.
func (c *CPU) sseAddr(in *decode.Inst, n uint8, aligned, write bool) (uint64, bool) {
	va, ok := c.memAddr(in, n, write)
	if ok && aligned && va&15 != 0 {
		c.raiseErr(x86.GP, 0)
		return 0, false
	}
	return va, ok
}

// sseSource loads the operand in RM or memory: size bytes, zero-extended, from
// memory; the whole register otherwise.
func (c *CPU) sseSource(in *decode.Inst, size uint8) (v [2]uint64, ok bool) {
	if !in.Mem {
		return c.fpu.xmm[in.RM&15], true
	}
	va, ok := c.sseAddr(in, size, size == 16, false)
	if !ok {
		return v, false
	}
	if size == 16 {
		return c.ld128(va)
	}
	v[0], ok = c.load(va, size)
	return v, ok
}

// copy moves as much as k says between registers; the rest of dst stays.
func (k *sseKind) copy(dst, src *[2]uint64) {
	switch k.size {
	case 4:
		dst[0] = dst[0]&^0xffffffff | src[0]&0xffffffff
	case 8:
		dst[0] = src[0]
	default:
		*dst = *src
	}
}

// sseMove is the moves of a whole register or its low element.
func (c *CPU) sseMove(in *decode.Inst, k *sseKind) status {
	if in.Row.Args[0] != optab.Vx {
		return c.sseStore(in, k)
	}
	dst := &c.fpu.xmm[in.Reg&15]
	if !in.Mem {
		k.copy(dst, &c.fpu.xmm[in.RM&15])
		return next
	}
	va, ok := c.sseAddr(in, k.size, k.size == 16 && !k.unaligned, false)
	if !ok {
		return faulted
	}
	var v [2]uint64
	if k.size == 16 {
		v, ok = c.ld128(va)
	} else {
		v[0], ok = c.load(va, k.size)
	}
	if !ok {
		return faulted
	}
	*dst = v
	return next
}

func (c *CPU) sseStore(in *decode.Inst, k *sseKind) status {
	src := &c.fpu.xmm[in.Reg&15]
	if !in.Mem {
		k.copy(&c.fpu.xmm[in.RM&15], src)
		return next
	}
	va, ok := c.sseAddr(in, k.size, k.size == 16 && !k.unaligned, true)
	if !ok {
		return faulted
	}
	if k.size == 16 {
		return done(c.st128(va, *src))
	}
	return done(c.store(va, src[0], k.size))
}

// sseInt is the packed-integer operations on XMM registers.
func (c *CPU) sseInt(in *decode.Inst, k *sseKind) status {
	if in.Row.Args[0] == optab.Ux { // shift by immediate
		src := [2]uint64{in.Imm}
		c.fpu.arith.Int(in.Op, &c.fpu.xmm[in.RM&15], &src)
		return next
	}
	size := k.size
	if size == 0 {
		size = 16
	}
	src, ok := c.sseSource(in, size)
	if !ok {
		return faulted
	}
	c.fpu.arith.Int(in.Op, &c.fpu.xmm[in.Reg&15], &src)
	return next
}

// sseFloat is the floating-point operations on XMM registers.
func (c *CPU) sseFloat(in *decode.Inst, k *sseKind) status {
	src, ok := c.sseSource(in, k.size)
	if !ok {
		return faulted
	}
	dst := c.fpu.xmm[in.Reg&15]
	f := c.fpu.arith.Float(in.Op, &dst, &src, uint8(in.Imm), c.fpu.mxcsr)
	if st := c.sseFlags(f); st != next {
		return st
	}
	c.fpu.xmm[in.Reg&15] = dst
	return next
}

// sseFlags sets MXCSR's sticky flags and raises the exception for an unmasked one.
func (c *CPU) sseFlags(f fp.Flags) status {
	c.fpu.mxcsr |= uint32(f)
	if f&^fp.Masked(c.fpu.mxcsr) == 0 {
		return next
	}
	if c.CR4&x86.CR4OSXMMEXCPT == 0 {
		return c.raise(x86.UD)
	}
	return c.raise(x86.XM)
}

// sseCompare is COMISS and relatives and PTEST.
func (c *CPU) sseCompare(in *decode.Inst, k *sseKind) status {
	src, ok := c.sseSource(in, k.size)
	if !ok {
		return faulted
	}
	dst := &c.fpu.xmm[in.Reg&15]
	if in.Op == optab.PTEST {
		zf := dst[0]&src[0]|dst[1]&src[1] == 0
		cf := src[0]&^dst[0]|src[1]&^dst[1] == 0
		c.setCompareFlags(zf, false, cf)
		return next
	}
	zf, pf, cf, f := fp.Compare(in.Op, dst[0], src[0], c.fpu.mxcsr)
	if st := c.sseFlags(f); st != next {
		return st
	}
	c.setCompareFlags(zf, pf, cf)
	return next
}

// mmxSource loads the MMX operand in RM or memory.
func (c *CPU) mmxSource(in *decode.Inst, size uint8) (uint64, bool) {
	if !in.Mem {
		return c.fpu.mm(in.RM), true
	}
	va, ok := c.sseAddr(in, size, false, false)
	if !ok {
		return 0, false
	}
	return c.load(va, size)
}

// mmxInt does an operation on MMX registers with XMM ones.
func (c *CPU) mmxInt(in *decode.Inst) status {
	if in.Row.Args[0] == optab.Nq { // shift by immediate
		dst, src := [2]uint64{c.fpu.mm(in.RM)}, [2]uint64{in.Imm}
		c.fpu.arith.Int(in.Op, &dst, &src)
		c.fpu.setMM(in.RM, dst[0])
		return next
	}
	size := uint8(8)
	if in.Row.Args[1] == optab.Qd {
		size = 4
	}
	s, ok := c.mmxSource(in, size)
	if !ok {
		return faulted
	}
	c.fpu.setMM(in.Reg, mmxOp(c.fpu.arith, in.Op, c.fpu.mm(in.Reg), s))
	return next
}

// mmxOp puts 64-bit operands where the 128-bit operation finds them.
func mmxOp(a fp.Arith, op optab.Op, d, s uint64) uint64 {
	dst, src := [2]uint64{d}, [2]uint64{s}
	switch op {
	case optab.PUNPCKHBW: // the upper halves' elements are in the low unpack's upper half
		a.Int(optab.PUNPCKLBW, &dst, &src)
		return dst[1]
	case optab.PUNPCKHWD:
		a.Int(optab.PUNPCKLWD, &dst, &src)
		return dst[1]
	case optab.PUNPCKHDQ:
		a.Int(optab.PUNPCKLDQ, &dst, &src)
		return dst[1]
	case optab.PACKSSWB, optab.PACKUSWB, optab.PACKSSDW,
		optab.PHADDW, optab.PHADDD, optab.PHADDSW, optab.PHSUBW, optab.PHSUBD, optab.PHSUBSW: // destination below source
		dst[1] = s
	case optab.PSHUFB:
		src[0] &= 0x8787878787878787
	}
	a.Int(op, &dst, &src)
	return dst[0]
}
