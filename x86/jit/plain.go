package jit

import (
	"berth/x86/optab"
)

// plain emits in with its operands renamed.
func (t *translation) plain() {
	in := &t.in.Inst
	o := &t.in.ops
	if t.arith(o) || t.incDec(o) {
		return
	}
	e := t.operandE(o)
	t.beforeWrites(o)
	g := uint8(0)
	if in.Row.Digit >= 0 {
		g = uint8(in.Row.Digit)
	} else if o.g {
		g = t.loadG(o)
	} else if o.acc {
		g = in.Opcode >> 3 & 7
	}
	swap := o.gHigh && e.mem
	if swap {
		g = t.swapHalves(in.Reg)
	}
	if !e.mem {
		e.reg = t.loadE(o)
	}
	t.inst(t.encoding(o), g, e)
	t.immediate(o.imm)
	if in.Op == optab.CMPXCHG && !in.Mem && o.eSize == 4 { // Intel writes it back if it differs, AMD leaves it alone
		t.load(4, e.reg, regRM(e.reg))
	}
	if swap {
		t.swapHalves(in.Reg)
	}
	if o.gWrite {
		t.writeBack(in.Reg, g)
	}
	if o.eWrite && !in.Mem {
		t.writeBack(t.eReg(o), e.reg)
	}
	t.setFlags(recipe{kind: FlagsRaw})
}

// swapHalves exchanges the two low bytes of the register whose second byte is n,
// and returns it. Flags stay.
func (t *translation) swapHalves(n uint8) uint8 {
	t.bytes(0x86, 0xc0|n<<3|n&3)
	return n & 3
}

// eReg is the guest register of the operand in ModRM.rm.
func (t *translation) eReg(o *operands) uint8 {
	if o.acc {
		return 0
	}
	if o.eHigh {
		return t.in.RM & 3
	}
	return t.in.RM
}

// gReg is that of ModRM.reg.
func (t *translation) gReg(o *operands) uint8 {
	if o.gHigh {
		return t.in.Reg & 3
	}
	return t.in.Reg
}

// operandE prepares the operand in ModRM.rm and the host's flags, if they are read.
func (t *translation) operandE(o *operands) rm {
	in := &t.in.Inst
	e := regRM(0)
	if o.e && in.Mem {
		e = t.memory(o.eSize, o.eWrite, alignment(in, o))
	}
	if e := t.in.effect; e == flagsRead || e == flagsMix && t.in.keep {
		t.hostFlags(needsCarry(in))
	}
	switch t.in.effect {
	case flagsSet, flagsMix:
		t.wanted = false // from here on nothing leaves before they are set anew
	default:
		t.wanted = t.in.wanted
	}
	return e
}

// beforeWrites saves flags whose recipe needs a register that is about to be written.
func (t *translation) beforeWrites(o *operands) {
	if o.eWrite && !t.in.Mem && !o.xmmE {
		t.writes(t.eReg(o))
	}
	if o.gWrite && !o.xmmG {
		t.writes(t.gReg(o))
	}
	if o.implicitRAX {
		t.writes(0)
	}
	if o.implicitRDX {
		t.writes(2)
	}
}

// loadG returns the host register for ModRM.reg, with its value if that counts.
func (t *translation) loadG(o *operands) uint8 {
	n := t.in.Reg
	if o.xmmG || o.gHigh {
		return n
	}
	h := t.hostOr(n, tmp2)
	if h == tmp2 && (o.gRead || o.gSize < 4) {
		t.load(8, tmp2, t.reg(n))
	}
	return h
}

// loadE likewise for a register in ModRM.rm.
func (t *translation) loadE(o *operands) uint8 {
	if !o.e {
		return 0
	}
	n := t.eReg(o)
	if o.xmmE {
		return n
	}
	if o.eHigh {
		return t.in.RM
	}
	h := t.hostOr(n, tmp1)
	if h == tmp1 && (o.eRead || o.eSize < 4) {
		t.load(8, tmp1, t.reg(n))
	}
	return h
}

// encoding is in's opcode with its prefixes.
func (t *translation) encoding(o *operands) op {
	in := &t.in.Inst
	row := in.Row
	enc := op{opcode: in.Opcode, opmap: opMap(row.Map), lock: in.Lock, w: in.OpSize == 8}
	switch row.Prefix {
	case optab.P66:
		enc.prefix = 0x66
	case optab.PF3:
		enc.prefix = 0xf3
	case optab.PF2:
		enc.prefix = 0xf2
	}
	if (in.Op == optab.TZCNT || in.Op == optab.LZCNT) && !t.c.layout.V3 {
		enc.prefix = 0 // the guest's CPU has only BSF and BSR: see optab
	}
	enc.p66 = in.OpSize == 2 && enc.prefix != 0x66
	enc.rex = in.Rex && (o.e && o.eSize == 1 && !in.Mem || o.g && o.gSize == 1)
	if o.acc { // the forms with ModRM
		enc.opcode = 0x81
		if o.eSize == 1 {
			enc.opcode--
		}
	}
	return enc
}

func opMap(m optab.Map) byte {
	switch m {
	case optab.Map0F:
		return map0F
	case optab.Map0F38:
		return map0F38
	case optab.Map0F3A:
		return map0F3A
	}
	return mapOne
}

func (t *translation) immediate(n uint8) {
	v := t.in.Imm
	for range n {
		t.bytes(byte(v))
		v >>= 8
	}
}

// setFlags notes what in has done to the flags: r says how they can be had again.
func (t *translation) setFlags(r recipe) {
	switch t.in.effect {
	case flagsSet, flagsMix:
		r.host = true
		t.flags = r
	}
}
