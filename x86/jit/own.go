package jit

import (
	"berth/x86/decode"
	"berth/x86/optab"
)

// own emits the operations that need code of their own.
func (t *translation) own() {
	in := &t.in.Inst
	t.wanted = t.in.wanted
	switch in.Op {
	case optab.MOV:
		t.move()
	case optab.XCHG:
		t.exchange()
	case optab.BSWAP:
		t.byteSwap()
	case optab.LEA:
		t.loadAddress()
	case optab.CBW, optab.CWD:
		if in.Op == optab.CBW {
			t.writes(rAX)
		} else {
			t.writes(rDX)
		}
		t.again1(in)
	case optab.LAHF:
		t.hostFlags(true)
		t.writes(rAX)
		t.again1(in)
	case optab.SAHF, optab.CLC, optab.STC, optab.CMC:
		if in.Op == optab.CMC || t.in.keep {
			t.hostFlags(true)
		}
		t.again1(in)
		t.setFlags(recipe{kind: FlagsRaw})
	case optab.CLD, optab.STD:
		t.direction()
	case optab.LFENCE, optab.SFENCE, optab.MFENCE:
		t.bytes(0x0f, 0xae, map[optab.Op]byte{optab.LFENCE: 0xe8, optab.MFENCE: 0xf0, optab.SFENCE: 0xf8}[in.Op])
	case optab.PUSH:
		t.push()
	case optab.BT, optab.BTS, optab.BTR, optab.BTC:
		t.bitString()
	case optab.STOS, optab.MOVS:
		t.string()
	case optab.PUSHF:
		t.pushFlags()
	case optab.POP:
		t.pop()
	case optab.LEAVE:
		t.leaveFrame()
	case optab.DIV, optab.IDIV:
		t.divide()
	case optab.JCC:
		t.branch()
	case optab.JMP:
		t.jump()
	case optab.CALL:
		t.call()
	case optab.RET:
		t.ret()
	default:
		t.system()
	}
}

// again1 emits a one-byte instruction as it is.
func (t *translation) again1(in *decode.Inst) {
	t.emitSized(in.OpSize, in.Opcode)
}

func (t *translation) emitSized(size, opcode byte) {
	switch size {
	case 2:
		t.bytes(0x66)
	case 8:
		t.bytes(0x48)
	}
	t.bytes(opcode)
}

// move is MOV of immediates to registers and between memory and the accumulator.
func (t *translation) move() {
	in := &t.in.Inst
	switch in.Row.Args[0] {
	case optab.AL, optab.RAXv:
		size := sizeOf(in, in.Row.Args[0])
		m := t.memory(size, false, 1)
		t.writes(rAX)
		t.load(size, rAX, m)
	case optab.Ob, optab.Ov:
		size := sizeOf(in, in.Row.Args[1])
		t.store(size, rAX, t.memory(size, true, 1))
	case optab.Zb:
		if in.Reg&^3 == 4 && !in.Rex {
			t.writes(in.Reg & 3)
			t.bytes(0xb0|in.Reg, byte(in.Imm))
			return
		}
		t.partial(1)
	case optab.Zv:
		if in.OpSize == 2 {
			t.partial(2)
			return
		}
		t.writes(in.Reg)
		h := t.hostOr(in.Reg, tmp1)
		t.constant(h, truncate(in.Imm, in.OpSize))
		t.writeBack(in.Reg, h)
	}
}

func truncate(v uint64, size uint8) uint64 { return v << (64 - 8*size) >> (64 - 8*size) }

// partial is MOV of an immediate to the low size bytes of a register.
func (t *translation) partial(size uint8) {
	in := &t.in.Inst
	t.writes(in.Reg)
	h := t.hostOr(in.Reg, tmp1)
	if h == tmp1 {
		t.load(8, tmp1, t.reg(in.Reg))
	}
	t.storeImm(size, regRM(h), int32(in.Imm))
	t.writeBack(in.Reg, h)
}

// exchange is XCHG of a register with the accumulator.
func (t *translation) exchange() {
	in := &t.in.Inst
	t.writes(rAX)
	t.writes(in.Reg)
	h := t.hostOr(in.Reg, tmp1)
	if h == tmp1 {
		t.load(8, tmp1, t.reg(in.Reg))
	}
	t.inst(sized(in.OpSize, 0x87), rAX, regRM(h))
	t.writeBack(in.Reg, h)
}

func (t *translation) byteSwap() {
	in := &t.in.Inst
	t.writes(in.Reg)
	h := t.hostOr(in.Reg, tmp1)
	if h == tmp1 {
		t.load(8, tmp1, t.reg(in.Reg))
	}
	rex := byte(0x40) | h>>3
	if in.OpSize == 8 {
		rex |= 8
	}
	t.bytes(rex, 0x0f, 0xc8|h&7)
	t.writeBack(in.Reg, h)
}

func (t *translation) loadAddress() {
	in := &t.in.Inst
	if in.OpSize == 2 {
		t.offset(in, 0)
		t.writes(in.Reg)
		if h := hostReg[in.Reg]; h != noReg {
			t.load(2, h, regRM(tmp1))
		} else {
			t.store(2, tmp1, t.reg(in.Reg))
		}
		return
	}
	h := hostReg[in.Reg]
	t.writes(in.Reg)
	if h != noReg && in.Base != decode.RIP && (in.AddrSize == 8 || in.OpSize == 4) && int64(int32(in.Disp)) == in.Disp {
		if m, ok := t.direct(in); ok {
			t.lea(in.OpSize, h, m)
			return
		}
	}
	t.offset(in, 0)
	if in.OpSize == 4 {
		t.load(4, tmp1, regRM(tmp1))
	}
	if h != noReg {
		t.mov(h, tmp1)
	} else {
		t.store(8, tmp1, t.reg(in.Reg))
	}
}

// direct is the memory operand of in with registers that the host has.
func (t *translation) direct(in *decode.Inst) (m rm, ok bool) {
	m = rm{mem: true, reg: noReg, index: noReg, disp: int32(in.Disp)}
	if in.Base != decode.NoReg {
		if m.reg = hostReg[in.Base]; m.reg == noReg {
			return m, false
		}
	}
	if in.Index != decode.NoReg {
		if m.index, m.scale = hostReg[in.Index], in.Scale; m.index == noReg {
			return m, false
		}
	}
	return m, m.reg != noReg || m.index != noReg
}

// direction is CLD and STD.
func (t *translation) direction() {
	t.clobber()
	if t.in.Op == optab.CLD {
		t.aluImm(aluAnd, 4, at(state, t.c.layout.Flags), ^0x400)
	} else {
		t.aluImm(aluOr, 4, at(state, t.c.layout.Flags), 0x400)
	}
}

// bitString is a bit test whose bit may lie anywhere from the operand on.
func (t *translation) bitString() {
	in := &t.in.Inst
	size, bits := in.OpSize, uint8(5)
	if size == 8 {
		bits = 6
	}
	t.address(0)
	t.clobber()
	if size == 8 {
		t.load(8, tmp2, t.source(in.Reg))
	} else {
		t.inst(op{opcode: 0x63, w: true}, tmp2, t.source(in.Reg)) // movsxd
	}
	t.shift(7, 8, tmp2, bits)
	t.lea(in.AddrSize, tmp1, rm{mem: true, reg: tmp1, index: tmp2, scale: bits - 3})
	t.access(size, in.Op != optab.BT, 1)
	t.load(4, tmp2, t.source(in.Reg))
	t.aluImm(aluAnd, 4, regRM(tmp2), int32(size)*8-1) // or the host would look beyond the operand again
	t.store(8, tmp2, frame(offScratch))
	if t.in.keep {
		t.hostFlags(true)
	}
	t.wanted = false
	t.load(8, tmp2, frame(offScratch))
	t.inst(op{opmap: map0F, opcode: in.Opcode, w: size == 8, lock: in.Lock}, tmp2, at(tmp1, 0))
	t.setFlags(recipe{kind: FlagsRaw})
}

// divide is DIV and IDIV of 32 and 64 bits. What may be #DE leaves: a divisor of 0
// or a quotient too large, and for IDIV also a divisor of -1 or a dividend that is
// more than a sign-extended register.
func (t *translation) divide() {
	in := &t.in.Inst
	size := in.OpSize
	if in.Mem {
		t.load(size, tmp2, t.memory(size, false, 1))
	} else {
		t.clobber()
		t.load(size, tmp2, t.source(in.RM))
	}
	x := t.c.step(&t.in.Inst, t.pos, t.count)
	digit := uint8(6)
	if in.Op == optab.DIV {
		t.alu(aluCmp, size, rDX, regRM(tmp2))
		t.stub(t.jcc(ccAE), x, stubLeave)
	} else {
		digit = 7
		t.load(size, tmp1, regRM(rAX))
		t.shift(7, size, tmp1, 8*size-1)
		t.alu(aluCmp, size, tmp1, regRM(rDX))
		t.stub(t.jcc(ccNZ), x, stubLeave)
		t.lea(size, tmp1, at(tmp2, 1))
		t.aluImm(aluCmp, size, regRM(tmp1), 1)
		t.stub(t.jcc(ccBE), x, stubLeave)
	}
	t.wanted = false
	t.writes(rAX)
	t.writes(rDX)
	t.inst(sized(size, 0xf7), digit, regRM(tmp2))
	t.setFlags(recipe{kind: FlagsRaw})
}
