package jit

import "berth/x86/optab"

// arith emits the operations whose flags can be had again from values; false: it is not one.
func (t *translation) arith(o *operands) bool {
	in := &t.in.Inst
	n := in.Opcode >> 3 & 7
	switch in.Op {
	case optab.ADD, optab.OR, optab.AND, optab.SUB, optab.XOR, optab.CMP:
		if in.Row.Digit >= 0 {
			n = uint8(in.Row.Digit)
		}
	case optab.TEST:
		n = aluAnd
	default:
		return false
	}
	if in.Lock || (o.eHigh || o.gHigh) {
		return false
	}
	size := o.eSize
	r := recipe{width: log2(size)}
	switch in.Op {
	case optab.ADD:
		r.kind = FlagsAdd
	case optab.SUB:
		r.kind = FlagsSub
	case optab.CMP:
		r.kind = FlagsCmp
	default:
		r.kind = FlagsLogic
	}
	if in.Mem {
		return t.arithMem(o, n, r)
	}
	a, b := value{reg: t.eReg(o)}, value{reg: noReg, imm: int32(in.Imm)}
	if o.g {
		b = value{reg: in.Reg}
		if o.destG {
			a, b = value{reg: in.Reg}, value{reg: in.RM}
		}
	}
	t.operandE(o)
	if in.Op == optab.TEST {
		return t.testRegs(size, a, b, r)
	}
	if in.Op != optab.CMP {
		t.writes(a.reg)
	}
	dst := t.hostOr(a.reg, tmp1)
	if dst == tmp1 {
		t.load(8, tmp1, t.reg(a.reg))
	}
	if b.reg == noReg {
		t.aluImm(n, size, regRM(dst), b.imm)
	} else {
		t.alu(n, size, dst, t.source(b.reg))
	}
	if in.Op != optab.CMP {
		t.writeBack(a.reg, dst)
	}
	r.a, r.b = a, b
	if r.kind == FlagsAdd && a.reg == b.reg {
		r.kind = FlagsRaw
	}
	if r.kind == FlagsSub && a.reg == b.reg {
		r.kind = FlagsLogic
	}
	t.setFlags(r)
	return true
}

// testRegs is TEST of registers.
func (t *translation) testRegs(size uint8, a, b value, r recipe) bool {
	r.a = a
	if a == b {
		h := t.readInto(a.reg, tmp1)
		t.test(size, h, regRM(h))
		t.setFlags(r)
		return true
	}
	r.kind, r.b = FlagsTest, b
	if b.reg == noReg {
		t.inst(sized(size, 0xf7), 0, t.source(a.reg))
		t.immediateOf(size, b.imm)
	} else {
		t.test(size, t.readInto(a.reg, tmp1), t.source(b.reg))
	}
	t.setFlags(r)
	return true
}

func (t *translation) immediateOf(size uint8, v int32) {
	for range min(size, 4) {
		t.bytes(byte(v))
		v >>= 8
	}
}

// arithMem is arith with memory.
func (t *translation) arithMem(o *operands, n uint8, r recipe) bool {
	in := &t.in.Inst
	size := o.eSize
	if o.eWrite { // the result is in memory only
		return false
	}
	m := t.operandE(o)
	if o.destG && in.Op != optab.CMP {
		t.writes(in.Reg)
	}
	if o.destG && in.Op != optab.CMP {
		dst := t.hostOr(in.Reg, tmp2)
		if dst == tmp2 {
			t.load(8, tmp2, t.reg(in.Reg))
		}
		if t.in.wanted && r.kind != FlagsLogic {
			t.loadZX(size, tmp1, m)
			m = regRM(tmp1)
		}
		t.alu(n, size, dst, m)
		t.writeBack(in.Reg, dst)
		r.a = value{reg: in.Reg}
		if r.kind != FlagsLogic {
			if t.in.wanted {
				t.store(8, tmp1, frame(offFlagB))
				t.store(8, dst, frame(offFlagA))
				t.storeImm(4, frame(offFlagKind), int32(r.word()))
				r.saved = true
			} else {
				r.kind = FlagsRaw
			}
			r.a, r.b = value{reg: noReg}, value{reg: noReg}
		}
		t.setFlags(r)
		return true
	}
	// CMP and TEST, either way round: nothing is written.
	other, isReg := uint8(0), o.g
	if !t.in.wanted {
		switch {
		case in.Op == optab.CMP && o.destG:
			t.alu(aluCmp, size, t.readInto(in.Reg, tmp2), m)
		case in.Op == optab.CMP && isReg:
			t.inst(sized(size, 0x39), t.readInto(in.Reg, tmp2), m)
		case in.Op == optab.CMP:
			t.aluImm(aluCmp, size, m, int32(in.Imm))
		case isReg:
			t.test(size, t.readInto(in.Reg, tmp2), m)
		default:
			t.inst(sized(size, 0xf7), 0, m)
			t.immediateOf(size, int32(in.Imm))
		}
		t.setFlags(recipe{kind: FlagsRaw})
		return true
	}
	t.loadZX(size, tmp1, m)
	if isReg {
		other = t.readInto(in.Reg, tmp2)
	}
	offMem, offOther := offFlagA, offFlagB
	switch {
	case in.Op == optab.TEST && isReg:
		t.alu(aluAnd, size, tmp1, regRM(other))
	case in.Op == optab.TEST:
		t.aluImm(aluAnd, size, regRM(tmp1), int32(in.Imm))
	case o.destG:
		t.alu(aluCmp, size, other, regRM(tmp1))
		offMem, offOther = offFlagB, offFlagA
	case isReg:
		t.alu(aluCmp, size, tmp1, regRM(other))
	default:
		t.aluImm(aluCmp, size, regRM(tmp1), int32(in.Imm))
	}
	t.store(8, tmp1, frame(offMem))
	if in.Op == optab.CMP {
		if isReg {
			t.store(8, other, frame(offOther))
		} else {
			t.storeImm(8, frame(offOther), int32(in.Imm))
		}
	}
	t.storeImm(4, frame(offFlagKind), int32(r.word()))
	r.saved = true
	r.a, r.b = value{reg: noReg}, value{reg: noReg}
	t.setFlags(r)
	return true
}

// log2 of an operand's bytes.
func log2(size uint8) uint8 {
	switch size {
	case 1:
		return 0
	case 2:
		return 1
	case 4:
		return 2
	}
	return 3
}
