package jit

import (
	"berth/x86/decode"
	"berth/x86/optab"
)

// Levels of Frame.FPLoaded and FPUsable.
const (
	fpXMM = 1
	fpYMM = 2
)

// classifyVEX: every host with AVX2 and BMI2 runs them as they are; v3 says that the
// guest has them.
func classifyVEX(in *decode.Inst, v3 bool) how {
	switch op := in.Op; {
	case !v3:
	case op == optab.MASKMOVDQU, op == optab.LDMXCSR, op == optab.STMXCSR:
	case op >= optab.PCLMULQDQ && op <= optab.AESKEYGENASSIST: // CPUID does not offer them
	case op >= optab.VMASKMOVPS && op <= optab.VPMASKMOVQ, op >= optab.VPGATHERDD && op <= optab.VGATHERQPD:
	default:
		return howVEX
	}
	return howStep
}

// fpLevel is what the instruction needs of the host's vector registers.
func (in *inst) fpLevel() uint8 {
	switch {
	case in.how == howSSE, in.how == howMMX && usesXMM(in.Row):
		return fpXMM
	case in.how == howVEX && in.Op < optab.FirstBMI:
		return fpYMM
	}
	return 0
}

// vexOperands is where the operands of a VEX instruction go.
type vexOperands struct {
	memSize         uint8 // of the memory operand
	memWrite        bool
	regGPR, rmGPR   bool // ModRM.reg, ModRM.rm are general registers
	usesV, vGPR     bool // VEX.vvvv is an operand, a general register
	rmWrite, vWrite bool // as general registers
	imm             bool // an immediate byte follows
}

func parseVEX(in *decode.Inst) (o vexOperands) {
	for i, a := range in.Row.Args {
		switch a {
		case optab.Vx, optab.Vo:
		case optab.Hx:
			o.usesV = true
		case optab.By:
			o.usesV, o.vGPR, o.vWrite = true, true, i == 0 || in.Op == optab.MULX
		case optab.Gd, optab.Gy:
			o.regGPR = true
		case optab.Ib, optab.Lx:
			o.imm = true
		default:
			if in.Mem {
				o.memSize, o.memWrite = in.Width(a), i == 0
				break
			}
			o.rmGPR = a == optab.Ed || a == optab.Ey
			o.rmWrite = o.rmGPR && i == 0
		}
	}
	return o
}

// vex emits in with its general registers renamed.
func (t *translation) vex() {
	in := &t.in.Inst
	if in.Op == optab.VZEROUPPER && t.word == 4 {
		t.zeroUpper()
		return
	}
	if in.Op == optab.VZEROUPPER {
		t.bytes(0xc5, 0xf8|in.L<<2, 0x77)
		return
	}
	o := parseVEX(in)
	rm := regRM(in.RM)
	if in.Mem {
		align := uint8(1)
		if in.Op.VEXAligned() {
			align = o.memSize
		}
		rm = t.memory(o.memSize, o.memWrite, align)
	}
	t.wanted = t.in.wanted && t.in.effect == flagsNone // if not, nothing leaves before they are set anew
	t.vexWrites(&o)
	reg, v := t.vexRegisters(&o, &rm)
	t.vexInst(vexOf(in), reg, v, rm)
	if o.imm {
		t.bytes(byte(in.Imm))
	}
	if o.vWrite {
		t.writeBack(in.V, v)
	}
	if o.regGPR {
		t.writeBack(in.Reg, reg)
	}
	if o.rmWrite {
		t.writeBack(in.RM, rm.reg)
	}
	t.setFlags(recipe{kind: FlagsRaw})
}

// vexRegisters returns the host registers for ModRM.reg and VEX.vvvv, with their
// values where those count, and puts that for ModRM.rm into rm. The temporaries do for
// every combination: a destination may share its source's.
func (t *translation) vexRegisters(o *vexOperands, rm *rm) (reg, v uint8) {
	in := &t.in.Inst
	reg, v = in.Reg, in.V
	switch {
	case o.rmWrite:
		rm.reg = t.hostOr(in.RM, tmp1)
	case o.rmGPR:
		rm.reg = t.readInto(in.RM, tmp1)
	}
	switch {
	case in.Op == optab.MULX:
		v = t.hostOr(in.V, tmp1)
	case o.vWrite:
		v = t.hostOr(in.V, tmp2)
	case o.vGPR:
		v = t.readInto(in.V, tmp2)
	case !o.usesV:
		v = 0
	}
	if o.regGPR {
		reg = t.hostOr(in.Reg, tmp2)
	}
	if in.Row.Digit >= 0 {
		reg = uint8(in.Row.Digit)
	}
	return reg, v
}

// vexWrites saves flags whose recipe needs a general register that is about to be written.
func (t *translation) vexWrites(o *vexOperands) {
	in := &t.in.Inst
	if o.regGPR {
		t.writes(in.Reg)
	}
	if o.vWrite {
		t.writes(in.V)
	}
	if o.rmWrite {
		t.writes(in.RM)
	}
	if in.Op == optab.PCMPESTRI || in.Op == optab.PCMPISTRI {
		t.writes(rCX)
	}
}
