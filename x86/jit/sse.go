package jit

import (
	"berth/x86/decode"
	"berth/x86/optab"
)

// classifySSE: XMM and MMX instructions that every x86-64-v2 host has and that change
// nothing but registers, memory and MXCSR's flags.
func (in *inst) classifySSE() how {
	switch in.Op {
	case optab.MASKMOVDQU, optab.MASKMOVQ, optab.LDMXCSR, optab.STMXCSR, optab.PCLMULQDQ, optab.AESENC, optab.AESENCLAST,
		optab.AESDEC, optab.AESDECLAST, optab.AESIMC, optab.AESKEYGENASSIST:
		return howStep
	}
	if in.Op == optab.EMMS {
		return howMMX
	}
	o := &in.ops
	*o = parse(&in.Inst)
	if in.effect == flagsSet { // a comparison: its first operand is only read, that of a move only written
		o.eWrite, o.gWrite = false, false
	}
	if o.unsupported || len(in.Row.Args) == 0 || !o.xmmE && !o.xmmG {
		return howStep
	}
	if !o.mmx {
		return howSSE
	}
	if in.Mem && (in.Op == optab.CVTPI2PS || in.Op == optab.CVTPI2PD) {
		return howStep // whether they enter MMX state differs between CPUs
	}
	return howMMX
}

// alignment is what the address of in's memory operand must be a multiple of.
func alignment(in *decode.Inst, o *operands) uint8 {
	if o.eSize == 16 && (in.Op == optab.CMPXCHG16B || in.Op >= optab.FirstSSE && in.Op <= optab.LastSSE && aligned(in.Op)) {
		return 16
	}
	return 1
}

// aligned: a 16-byte memory operand must stand at a multiple of 16.
func aligned(op optab.Op) bool {
	switch op {
	case optab.MOVUPS, optab.MOVUPD, optab.MOVDQU, optab.LDDQU, optab.PCMPESTRI, optab.PCMPESTRM, optab.PCMPISTRI, optab.PCMPISTRM:
		return false
	}
	return true
}

// sse emits in with its general registers renamed.
func (t *translation) sse() {
	in := &t.in.Inst
	if in.Op == optab.EMMS {
		t.bytes(0x0f, 0x77)
		return
	}
	o := &t.in.ops
	e := t.operandE(o)
	t.beforeWrites(o)
	switch in.Op {
	case optab.PCMPESTRI, optab.PCMPISTRI:
		t.writes(rCX)
	}
	g := uint8(0)
	if in.Row.Digit >= 0 {
		g = uint8(in.Row.Digit)
	} else if o.g {
		g = t.loadG(o)
	}
	if !e.mem {
		e.reg = t.loadE(o)
	}
	enc := t.encoding(o)
	enc.p66 = false
	t.inst(enc, g, e)
	t.immediate(o.imm)
	if o.gWrite && !o.xmmG {
		t.writeBack(in.Reg, g)
	}
	if o.eWrite && !o.xmmE && !in.Mem {
		t.writeBack(in.RM, e.reg)
	}
	t.setFlags(recipe{kind: FlagsRaw})
}
