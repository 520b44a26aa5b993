package jit

import (
	"berth/x86"
	"berth/x86/decode"
	"berth/x86/optab"
)

// operands is what plain has to know of an instruction's explicit operands.
type operands struct {
	e, g          bool // it has an operand in ModRM.rm, in ModRM.reg
	eSize, gSize  uint8
	eRead, eWrite bool
	gRead, gWrite bool
	imm           uint8 // bytes of immediate
	eHigh, gHigh  bool  // byte registers 4 to 7 without REX
	implicitRAX   bool  // written
	implicitRDX   bool
	destG         bool // the destination is g
	acc           bool // e is the accumulator, though there is no ModRM
	unsupported   bool
	xmmE, xmmG    bool // XMM or MMX registers
	mmx           bool // one of them is an MMX register
}

// sizeOf returns the bytes of an integer operand.
func sizeOf(in *decode.Inst, a optab.Arg) uint8 {
	switch a {
	case optab.Eb, optab.Gb, optab.Zb, optab.AL, optab.Mb, optab.Wb:
		return 1
	case optab.Ew, optab.Gw, optab.Mw, optab.Ww:
		return 2
	case optab.Ed, optab.Gd, optab.Md, optab.Wd:
		return 4
	case optab.Mq, optab.Wq:
		return 8
	case optab.Mdq, optab.Wx:
		return 16
	}
	return in.OpSize
}

// parse sorts in's operands.
func parse(in *decode.Inst) (o operands) {
	for i, a := range in.Row.Args {
		r, w := accessOf(in.Op, i, len(in.Row.Args))
		switch a {
		case optab.Eb, optab.Ew, optab.Ed, optab.Ev, optab.Ey, optab.Mb, optab.Mw, optab.Md, optab.Mq, optab.Mdq:
			o.e, o.eSize, o.eRead, o.eWrite = true, sizeOf(in, a), r, w
		case optab.Wb, optab.Ww, optab.Wd, optab.Wq, optab.Wx, optab.Ux:
			o.e, o.eSize, o.eRead, o.eWrite, o.xmmE = true, sizeOf(in, a), r, w, true
		case optab.Gb, optab.Gw, optab.Gd, optab.Gv, optab.Gy:
			o.g, o.gSize, o.gRead, o.gWrite, o.destG = true, sizeOf(in, a), r, w, i == 0
		case optab.Pq:
			o.g, o.gSize, o.gRead, o.gWrite, o.xmmG, o.mmx, o.destG = true, 8, r, w, true, true, i == 0
		case optab.Qd, optab.Qq, optab.Nq:
			o.e, o.eSize, o.eRead, o.eWrite, o.xmmE, o.mmx = true, in.Width(a), r, w, true, true
		case optab.Vx:
			o.g, o.gSize, o.gRead, o.gWrite, o.xmmG, o.destG = true, 16, r, w, true, i == 0
		case optab.AL, optab.RAXv:
			o.e, o.acc, o.eSize, o.eRead, o.eWrite = true, true, sizeOf(in, a), r, w
		case optab.Ib, optab.IbS:
			o.imm = 1
		case optab.Iw:
			o.imm = 2
		case optab.Iz:
			o.imm = min(in.OpSize, 4)
		case optab.One, optab.CL, optab.XMM0:
		default:
			o.unsupported = true
		}
	}
	byteHigh := func(n, size uint8) bool { return size == 1 && n&^3 == 4 && !in.Rex }
	o.eHigh = o.e && !in.Mem && !o.acc && !o.xmmE && byteHigh(in.RM, o.eSize)
	o.gHigh = o.g && !o.xmmG && byteHigh(in.Reg, o.gSize)
	switch in.Op {
	case optab.MUL, optab.IMUL:
		if len(in.Row.Args) == 1 {
			o.implicitRAX, o.implicitRDX = true, o.eSize > 1
		}
	case optab.CMPXCHG:
		o.implicitRAX = true
	case optab.CMPXCHG8B, optab.CMPXCHG16B:
		o.implicitRAX, o.implicitRDX = true, true
	}
	return o
}

// accessOf tells whether the i-th of n explicit operands is read and written.
func accessOf(op optab.Op, i, n int) (read, write bool) {
	switch op {
	case optab.CMP, optab.TEST, optab.BT:
		return true, false
	case optab.XCHG, optab.XADD:
		return true, true
	case optab.MUL, optab.IMUL:
		if n == 1 {
			return true, false
		}
		return i > 0 || n == 2, i == 0
	case optab.MOV, optab.MOVZX, optab.MOVSX, optab.MOVSXD, optab.SETCC, optab.POPCNT, optab.MOVNTI, optab.MOVBE:
		return i > 0, i == 0
	case optab.CMPXCHG8B, optab.CMPXCHG16B:
		return true, true
	}
	return true, i == 0
}

// classify says how an instruction is translated for a CPU that has x86-64-v3 or not, and what it does.
func (in *inst) classify(v3 bool) {
	in.effect = effectOf(&in.Inst)
	in.how = in.howFor(v3)
}

func (in *inst) howFor(v3 bool) how {
	word := wordOf(in.Mode)
	if word == 4 && stepped32(&in.Inst) {
		return howStep
	}
	if in.Vex {
		return classifyVEX(&in.Inst, v3)
	}
	switch op := in.Op; op {
	case optab.NOP, optab.PREFETCH, optab.PREFETCHW:
		return howNothing
	case optab.ADD, optab.OR, optab.ADC, optab.SBB, optab.AND, optab.SUB, optab.XOR, optab.CMP, optab.TEST, optab.INC, optab.DEC,
		optab.NEG, optab.NOT, optab.MUL, optab.IMUL, optab.ROL, optab.ROR, optab.RCL, optab.RCR, optab.SHL, optab.SHR, optab.SAR,
		optab.SHLD, optab.SHRD, optab.BSF, optab.BSR, optab.TZCNT, optab.LZCNT, optab.POPCNT, optab.MOVZX, optab.MOVSX,
		optab.MOVSXD, optab.MOVNTI, optab.XADD, optab.CMPXCHG, optab.SETCC, optab.CMOVCC, optab.CRC32,
		optab.CMPXCHG8B, optab.CMPXCHG16B:
		return in.plainIf()
	case optab.MOVBE: // whether CPUID offers it or not, it is there
		if v3 {
			return in.plainIf()
		}
	case optab.BT, optab.BTS, optab.BTR, optab.BTC:
		if in.Mem && in.Row.Args[1] == optab.Gv {
			if in.OpSize == 2 {
				return howStep
			}
			return howOwn
		}
		return in.plainIf()
	case optab.STOS, optab.MOVS:
		if in.AddrSize != word || op == optab.MOVS && in.Seg >= x86.FS {
			return howStep
		}
		return howOwn
	case optab.MOV, optab.XCHG:
		switch in.Row.Args[0] {
		case optab.Zb, optab.Zv, optab.AL, optab.RAXv, optab.Ob, optab.Ov:
			return howOwn
		}
		return in.plainIf()
	case optab.BSWAP:
		if in.OpSize == 2 {
			return howStep
		}
		return howOwn
	case optab.LEA, optab.CBW, optab.CWD, optab.LAHF, optab.SAHF, optab.CLC, optab.STC, optab.CMC, optab.CLD, optab.STD, optab.JCC,
		optab.LFENCE, optab.SFENCE, optab.MFENCE:
		return howOwn
	case optab.JMP, optab.CALL:
		return howOwn
	case optab.RET, optab.LEAVE:
		if in.OpSize != word {
			return howStep
		}
		return howOwn
	case optab.PUSHF:
		if in.OpSize == word {
			return howOwn
		}
	case optab.POPF, optab.PAUSE, optab.RDTSC, optab.RDTSCP:
		return classifySystem(&in.Inst)
	case optab.PUSH, optab.POP:
		if in.OpSize != word || op == optab.POP && in.Mem {
			return howStep
		}
		return howOwn
	case optab.DIV, optab.IDIV:
		if in.OpSize < 4 {
			return howStep
		}
		return howOwn
	default:
		switch {
		case op >= optab.FirstX87 && op <= optab.LastX87:
			return classifyX87(&in.Inst)
		case op >= optab.FirstSSE && op <= optab.LastSSE:
			return in.classifySSE()
		case op >= optab.FirstSystem && op <= optab.LastSystem:
			return classifySystem(&in.Inst)
		}
	}
	return howStep
}

func (in *inst) plainIf() how {
	o := &in.ops
	*o = parse(&in.Inst)
	switch {
	case o.unsupported || in.Lock && !in.Mem:
		return howStep
	case o.eHigh && o.g && (hostReg[in.Reg&15] == noReg || hostReg[in.Reg&15] >= 8):
		return howStep // MOVZX of AH to RSP
	case o.gHigh && in.Mem && in.Op == optab.CMPXCHG:
		return howStep
	}
	return howPlain
}
