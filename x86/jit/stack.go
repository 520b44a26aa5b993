package jit

import "berth/x86/optab"

// pushFlags is PUSHF: RF and VM are pushed as 0.
func (t *translation) pushFlags() {
	top := t.stack(-int32(t.word), true)
	t.hostFlags(true)
	t.saveFlags()
	t.bytes(0x9c)       // pushfq
	t.bytes(0x41, 0x5d) // pop tmp2
	t.clobber()
	t.aluImm(aluAnd, 4, regRM(tmp2), 0x8d5)
	t.alu(aluOr, 8, tmp2, at(state, t.c.layout.Flags))
	t.aluImm(aluAnd, 4, regRM(tmp2), ^0x30000)
	t.store(t.word, tmp2, top)
	t.moveRSP(-int32(t.word))
}

const rsp = 4 // the guest's

// push stores what is in reg, or else imm, and moves RSP.
func (t *translation) push() {
	in := &t.in.Inst
	switch in.Row.Args[0] {
	case optab.Iz, optab.IbS:
		t.storeImm(t.word, t.stack(-int32(t.word), true), int32(in.Imm))
	default:
		if in.Mem {
			t.load(t.word, tmp2, t.memory(t.word, false, 1))
			t.store(8, tmp2, frame(offScratch))
			top := t.stack(-int32(t.word), true)
			t.load(8, tmp2, frame(offScratch))
			t.store(t.word, tmp2, top)
			break
		}
		n := in.Reg
		if in.Row.Args[0] == optab.Ev {
			n = in.RM
		}
		top := t.stack(-int32(t.word), true)
		t.store(t.word, t.readInto(n, tmp2), top)
	}
	t.moveRSP(-int32(t.word))
}

func (t *translation) moveRSP(by int32) {
	t.writes(rsp)
	t.lea(t.word, hostReg[rsp], at(hostReg[rsp], by))
}

func (t *translation) pop() {
	in := &t.in.Inst
	n := in.Reg
	if in.Row.Args[0] == optab.Ev {
		n = in.RM
	}
	top := t.stack(0, false)
	t.writes(n)
	h := t.hostOr(n, tmp2)
	t.load(t.word, h, top)
	if n == rsp {
		return
	}
	t.moveRSP(int32(t.word))
	t.writeBack(n, h)
}

func (t *translation) leaveFrame() {
	saved := t.near(rBP, 0, false)
	t.writes(rsp)
	t.writes(rBP)
	t.lea(t.word, hostReg[rsp], at(rBP, int32(t.word)))
	t.load(t.word, rBP, saved)
}
