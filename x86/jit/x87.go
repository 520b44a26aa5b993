package jit

import (
	"berth/x86/decode"
	"berth/x86/optab"
)

// Values of Frame.X87: where the x87 and MMX registers are.
const (
	X87Elsewhere uint8 = iota // with the caller, or they may not be used
	X87Saved                  // in Frame.X87Image, and instructions run as on the host
	X87Loaded                 // in the host's registers
)

// X87Masks is the exceptions that a control word must mask for x87 and MMX
// instructions to run as on the host: all.
const X87Masks = 0x3f

// classifyX87: what stores or loads the pointers to the last instruction is left to
// the caller, and FBLD, which makes of invalid digits what it likes.
func classifyX87(in *decode.Inst) how {
	switch in.Op {
	case optab.FNINIT, optab.FLDENV, optab.FNSTENV, optab.FNSAVE, optab.FRSTOR, optab.FBLD:
		return howStep
	}
	return howX87
}

// usesX87 reports that the host's x87 registers must be the guest's.
func (in *inst) usesX87() bool { return in.how == howX87 || in.how == howMMX }

// setsPointers reports the x87 instructions that note where they are: those on data
// (Intel SDM vol. 1 §8.1.8).
func (in *inst) setsPointers() bool {
	if in.how != howX87 {
		return false
	}
	switch in.Op {
	case optab.FNSTCW, optab.FLDCW, optab.FNSTSW, optab.FNSTSWAX, optab.FNCLEX, optab.FWAIT, optab.FNOP, optab.FNENI,
		optab.FNDISI, optab.FNSETPM:
		return false
	}
	return true
}

// wantPointers works out which instructions store where they are: those behind which
// the block may be left before another one does.
func (t *translation) wantPointers() {
	if !t.fpu {
		return
	}
	stored := false
	for i := len(t.insts) - 1; i >= 0; i-- {
		in := &t.insts[i]
		sets := in.setsPointers()
		in.points = sets && !stored
		switch {
		case in.leaves || in.Op == optab.JCC || in.how == howStep || in.how == howBad:
			stored = false
		case sets:
			stored = true
		}
	}
}

// needX87 has the host's registers hold the guest's x87 state from here on, or leaves.
func (t *translation) needX87() {
	if t.x87 {
		return
	}
	t.clobber()
	t.aluImm(aluCmp, 1, frame(offX87), int32(X87Saved))
	loaded := t.jcc(ccA)
	x := t.c.step(&t.in.Inst, t.pos, t.count)
	t.c.exits[x].Kind = Load
	t.stub(t.jcc(ccB), x, stubRetry)
	t.callTo(t.c.loadX87)
	t.bind(loaded)
	t.x87 = true
}

// emitLoadX87 emits what loads the x87 registers.
func (c *Cache) emitLoadX87(e *buf) {
	c.loadX87 = e.entry()
	e.inst(op{opcode: 0xdd}, 4, frame(offX87Image)) // frstor
	e.storeImm(1, frame(offX87), int32(X87Loaded))
	e.bytes(0xc3)
}

// doX87 emits in as it is.
func (t *translation) doX87() {
	in := &t.in.Inst
	switch in.Op {
	case optab.FWAIT, optab.FNOP, optab.FNENI, optab.FNDISI, optab.FNSETPM:
		return // no exception is pending
	case optab.FLDCW:
		t.loadControl()
		return
	case optab.FNSTSWAX:
		t.writes(rAX)
	}
	o := operands{e: in.Mem}
	if in.Mem {
		o.eSize, o.eWrite = in.Width(in.Row.Args[0]), x87Stores(in.Op)
	}
	m := t.operandE(&o)
	if in.Mem {
		t.inst(op{opcode: in.Opcode}, in.Reg&7, m)
	} else {
		t.bytes(in.Opcode, in.ModRM)
	}
	t.setFlags(recipe{kind: FlagsRaw})
	t.pointers()
}

func x87Stores(op optab.Op) bool {
	switch op {
	case optab.FST, optab.FSTP, optab.FIST, optab.FISTP, optab.FISTTP, optab.FBSTP, optab.FNSTCW, optab.FNSTSW:
		return true
	}
	return false
}

// pointers stores what FIP, FOP and FDP are after in. The host's flags stay.
func (t *translation) pointers() {
	in := &t.in.Inst
	if t.in.points {
		t.load(8, tmp2, t.reg(decode.RIP))
		t.lea(8, tmp2, at(tmp2, int32(t.pos)))
		t.store(8, tmp2, frame(offFIP))
		t.storeImm(2, frame(offFOP), int32(in.Opcode&7)<<8|int32(in.ModRM))
	}
	if in.Mem && t.in.setsPointers() {
		t.offset(in, 0)
		t.store(8, tmp1, frame(offFDP))
	}
}

// loadControl is FLDCW. One that unmasks an exception leaves. The word is looked at
// and loaded from where no other vCPU can change it in between.
func (t *translation) loadControl() {
	const reserved, one = 0xe0c0, 0x40
	m := t.operandE(&operands{e: true, eSize: 2})
	t.loadZX(2, tmp2, m)
	t.aluImm(aluAnd, 4, regRM(tmp2), 0xffff&^reserved)
	t.aluImm(aluOr, 4, regRM(tmp2), one)
	t.store(8, tmp2, frame(offScratch))
	t.aluImm(aluOr, 4, regRM(tmp2), ^X87Masks)
	t.aluImm(aluCmp, 4, regRM(tmp2), -1)
	x := t.c.step(&t.in.Inst, t.pos, t.count)
	t.stub(t.jcc(ccNZ), x, stubLeave)
	t.inst(op{opcode: 0xd9}, 5, frame(offScratch))
}

// usesXMM reports that an instruction of the row touches XMM registers too.
func usesXMM(r *optab.Row) bool {
	for _, a := range r.Args {
		switch a {
		case optab.Vx, optab.Wx, optab.Wq, optab.Ux:
			return true
		}
	}
	return false
}
