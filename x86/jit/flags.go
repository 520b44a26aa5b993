package jit

import (
	"berth/x86/decode"
	"berth/x86/optab"
)

// effect is what an operation does with the six status flags.
type effect uint8

const (
	flagsNone effect = iota
	flagsRead        // it reads some and changes none
	flagsSet         // it sets or spoils all
	flagsMix         // it reads some, or leaves some as they were, and sets others
)

// effectOf tells it for what is translated.
func effectOf(in *decode.Inst) effect {
	switch in.Op {
	case optab.ADD, optab.OR, optab.AND, optab.SUB, optab.XOR, optab.CMP, optab.TEST, optab.NEG, optab.MUL, optab.IMUL,
		optab.DIV, optab.IDIV, optab.BSF, optab.BSR, optab.TZCNT, optab.LZCNT, optab.POPCNT, optab.XADD, optab.CMPXCHG,
		optab.COMISS, optab.COMISD, optab.UCOMISS, optab.UCOMISD, optab.PTEST, optab.PCMPESTRI, optab.PCMPESTRM,
		optab.PCMPISTRI, optab.PCMPISTRM, optab.VTESTPS, optab.VTESTPD, optab.ANDN, optab.BEXTR, optab.BLSI, optab.BLSMSK,
		optab.BLSR, optab.BZHI:
		return flagsSet
	case optab.SHL, optab.SHR, optab.SAR, optab.SHLD, optab.SHRD, optab.ROL, optab.ROR, optab.RCL, optab.RCR:
		return shiftEffect(in)
	case optab.ADC, optab.SBB, optab.INC, optab.DEC, optab.BT, optab.BTS, optab.BTR, optab.BTC, optab.CMPXCHG8B, optab.CMPXCHG16B,
		optab.SAHF, optab.CLC, optab.STC, optab.CMC:
		return flagsMix
	case optab.LAHF, optab.JCC, optab.SETCC, optab.CMOVCC, optab.PUSHF:
		return flagsRead
	}
	return flagsNone
}

// shiftEffect: a shift by 0 leaves the flags alone.
func shiftEffect(in *decode.Inst) effect {
	mask := uint64(31)
	if in.OpSize == 8 {
		mask = 63
	}
	rotate := in.Op == optab.ROL || in.Op == optab.ROR || in.Op == optab.RCL || in.Op == optab.RCR
	switch last := in.Row.Args[len(in.Row.Args)-1]; {
	case last == optab.CL:
		return flagsMix
	case last == optab.Ib && in.Imm&mask == 0:
		return flagsNone
	case rotate:
		return flagsMix
	}
	return flagsSet
}

// value is where an operand of the instruction that made the flags still is.
type value struct {
	reg uint8 // a guest register; noReg: imm
	imm int32
}

func (v value) isReg(n uint8) bool { return v.reg == n }

// recipe is what is known of the guest's flags at a point of a block.
type recipe struct {
	kind  uint32 // FlagsLogic to FlagsCmp; FlagsRaw; FlagsCore: whatever the frame says
	width uint8  // log2 of bytes
	a, b  value
	host  bool // the host's flags are the guest's
	saved bool // the frame says so
}

// word is FlagKind for the recipe.
func (r *recipe) word() uint32 { return r.kind | uint32(r.width)<<flagsWidthShift }

// uses reports that the recipe needs guest register n.
func (r *recipe) uses(n uint8) bool {
	return r.kind >= FlagsLogic && (r.a.isReg(n) || r.kind >= FlagsAdd && r.b.isReg(n))
}

// reads reports that the result depends on the flags.
func reads(op optab.Op) bool {
	switch op {
	case optab.ADC, optab.SBB, optab.RCL, optab.RCR, optab.CMC, optab.SETCC, optab.CMOVCC, optab.JCC, optab.LAHF, optab.PUSHF:
		return true
	}
	return false
}

// saveFlags puts the flags into the frame, without touching the host's.
func (t *translation) saveFlags() {
	if t.flags.saved {
		return
	}
	t.flags.saved = true
	t.storeFlags(&t.flags)
}

// storeFlags emits that; in a stub it is emitted a second time.
func (t *translation) storeFlags(r *recipe) {
	switch r.kind {
	case FlagsCore:
		return
	case FlagsRaw:
		t.mov(tmp2, rAX)
		t.bytes(0x9f)                                         // lahf
		t.inst(op{opmap: map0F, opcode: 0x90}, 0, regRM(rAX)) // seto al
		t.store(2, rAX, frame(offFlagA))
		t.mov(rAX, tmp2)
	default:
		t.storeValue(r.a, offFlagA)
		if r.kind >= FlagsAdd {
			t.storeValue(r.b, offFlagB)
		}
	}
	t.storeImm(4, frame(offFlagKind), int32(r.word()))
}

func (t *translation) storeValue(v value, off uintptr) {
	if v.reg == noReg {
		t.storeImm(8, frame(off), v.imm)
		return
	}
	t.store(8, t.readInto(v.reg, tmp2), frame(off))
}

// hostFlags makes the host's flags the guest's. It may use tmp2, which then holds nothing.
func (t *translation) hostFlags() {
	r := &t.flags
	if r.host {
		return
	}
	r.host = true
	switch {
	case r.kind == FlagsCore:
		t.aluImm(aluCmp, 4, frame(offFlagKind), int32(FlagsRaw))
		t.lazies = append(t.lazies, lazy{from: t.jcc(ccNZ), back: t.here(), exit: t.exit(Exit{Kind: Lazy, Off: t.pos, Count: t.count}), retry: t.start})
		r.kind, r.saved = FlagsRaw, true
		t.loadRaw()
	case r.kind == FlagsRaw:
		t.loadRaw()
	case r.saved:
		t.again(r, true)
	default:
		t.again(r, false)
	}
}

// lazy is where flags of a kind not known are to become FlagsRaw.
type lazy struct{ from, back, exit, retry uint32 }

func (t *translation) emitLazy(l *lazy) {
	t.bind(l.from)
	t.callTo(t.c.toRaw)
	t.bindTo(t.jcc(ccNZ), l.back)
	t.leave(l.exit)
	t.retry(l.exit, l.retry)
}

// loadRaw takes the host's flags from the frame.
func (t *translation) loadRaw() {
	t.mov(tmp2, rAX)
	t.loadZX(2, rAX, frame(offFlagA))
	t.bytes(0x04, 0x7f) // add al, 127: OF
	t.bytes(0x9e)       // sahf
	t.mov(rAX, tmp2)
}

// again sets the flags as the instruction did that the recipe stands for, from its
// operands in registers or in the frame.
func (t *translation) again(r *recipe, saved bool) {
	size := uint8(1) << r.width
	get := func(v value, off uintptr) {
		switch {
		case saved:
			t.load(8, tmp2, frame(off))
		case v.reg == noReg:
			t.constant(tmp2, uint64(int64(v.imm)))
		default:
			t.mov(tmp2, t.readInto(v.reg, tmp2))
		}
	}
	with := func(n uint8) {
		v := r.b
		switch {
		case v.reg == noReg && !saved:
			t.aluImm(n, size, regRM(tmp2), v.imm)
		case saved:
			t.alu(n, size, tmp2, frame(offFlagB))
		default:
			t.alu(n, size, tmp2, t.source(v.reg))
		}
	}
	get(r.a, offFlagA)
	switch r.kind {
	case FlagsLogic:
		t.test(size, tmp2, regRM(tmp2))
	case FlagsCmp:
		with(aluCmp)
	case FlagsAdd:
		with(aluSub)
		with(aluAdd)
	case FlagsSub:
		with(aluAdd)
		with(aluCmp)
	}
}

// spoil is clobber where the flags may be known to the host alone.
func (t *translation) spoil() {
	if t.flags.host && t.flags.kind == FlagsRaw {
		t.saveFlags()
	}
	t.clobber()
}

// clobber says that the host's flags are no longer the guest's.
func (t *translation) clobber() {
	r := &t.flags
	r.host = false
	if r.kind == FlagsRaw && !r.saved { // nobody will ask: see want
		*r = recipe{kind: FlagsCore, saved: true}
	}
}

// writes says that guest register n is about to change: a recipe that needs its
// old value is saved, if the flags may still be asked for.
func (t *translation) writes(n uint8) {
	if t.flags.uses(n) && !t.flags.saved {
		if t.flagsWanted() {
			t.saveFlags()
		}
		if !t.flags.saved { // nobody will ask: what they are is not known any more
			t.flags = recipe{kind: FlagsCore, saved: true}
		}
	}
}
