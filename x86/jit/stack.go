package jit

import "berth/x86/optab"

// pushFlags is PUSHFQ: RF and VM are pushed as 0.
func (t *translation) pushFlags() {
	top := t.stack(-8, true)
	t.hostFlags()
	t.saveFlags()
	t.bytes(0x9c)       // pushfq
	t.bytes(0x41, 0x5d) // pop tmp2
	t.clobber()
	t.aluImm(aluAnd, 4, regRM(tmp2), 0x8d5)
	t.alu(aluOr, 8, tmp2, at(state, t.c.layout.Flags))
	t.aluImm(aluAnd, 4, regRM(tmp2), ^0x30000)
	t.store(8, tmp2, top)
	t.moveRSP(-8)
}

const rsp = 4 // the guest's

// push stores what is in reg, or else imm, and moves RSP.
func (t *translation) push() {
	in := &t.in.Inst
	switch in.Row.Args[0] {
	case optab.Iz, optab.IbS:
		t.storeImm(8, t.stack(-8, true), int32(in.Imm))
	default:
		if in.Mem {
			t.load(8, tmp2, t.memory(8, false, 1))
			t.store(8, tmp2, frame(offScratch))
			top := t.stack(-8, true)
			t.load(8, tmp2, frame(offScratch))
			t.store(8, tmp2, top)
			break
		}
		n := in.Reg
		if in.Row.Args[0] == optab.Ev {
			n = in.RM
		}
		top := t.stack(-8, true)
		t.store(8, t.readInto(n, tmp2), top)
	}
	t.moveRSP(-8)
}

func (t *translation) moveRSP(by int32) {
	t.writes(rsp)
	t.lea(8, hostReg[rsp], at(hostReg[rsp], by))
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
	t.load(8, h, top)
	if n == rsp {
		return
	}
	t.moveRSP(8)
	t.writeBack(n, h)
}

func (t *translation) leaveFrame() {
	saved := t.near(rBP, 0, false)
	t.writes(rsp)
	t.writes(rBP)
	t.lea(8, hostReg[rsp], at(rBP, 8))
	t.load(8, rBP, saved)
}
