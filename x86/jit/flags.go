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
		optab.BLSR, optab.BZHI, optab.FCOMI, optab.FCOMIP, optab.FUCOMI, optab.FUCOMIP:
		return flagsSet
	case optab.SHL, optab.SHR, optab.SAR, optab.SHLD, optab.SHRD, optab.ROL, optab.ROR, optab.RCL, optab.RCR:
		return shiftEffect(in)
	case optab.ADC, optab.SBB, optab.INC, optab.DEC, optab.BT, optab.BTS, optab.BTR, optab.BTC, optab.CMPXCHG8B, optab.CMPXCHG16B,
		optab.SAHF, optab.CLC, optab.STC, optab.CMC:
		return flagsMix
	case optab.LAHF, optab.JCC, optab.SETCC, optab.CMOVCC, optab.PUSHF, optab.FCMOVCC:
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
	lost  bool // but CF is not
	saved bool // the frame says so, but for step
	step  step
}

// step is an INC or DEC that came after: CF is as before, the other flags follow from its result.
type step struct {
	kind  uint32 // FlagsInc or FlagsDec with the width; 0: there was none
	reg   uint8  // the guest register that has the result, unless saved
	saved bool
}

// pending reports that the frame does not know of it.
func (s *step) pending() bool { return s.kind != 0 && !s.saved }

// word is FlagKind for the recipe.
func (r *recipe) word() uint32 { return r.kind | uint32(r.width)<<flagsWidthShift | r.step.kind }

// allSaved reports that the frame says all.
func (r *recipe) allSaved() bool { return r.saved && !r.step.pending() }

// uses reports that the recipe needs guest register n.
func (r *recipe) uses(n uint8) bool {
	return r.step.pending() && r.step.reg == n ||
		!r.saved && r.kind >= FlagsLogic && (r.a.isReg(n) || r.kind >= FlagsAdd && r.b.isReg(n))
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
	if t.flags.allSaved() {
		return
	}
	t.storeFlags(&t.flags)
	t.flags.saved, t.flags.step.saved = true, true
}

// storeFlags emits that; in a stub it is emitted a second time.
func (t *translation) storeFlags(r *recipe) {
	if r.step.pending() {
		t.store(8, t.readInto(r.step.reg, tmp2), frame(offFlagC))
		if r.saved {
			t.storeStep(&r.step)
			return
		}
	}
	switch r.kind {
	case FlagsRaw:
		t.mov(tmp2, rAX)
		t.raw()
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

// storeStep tells the frame, which knows the rest.
func (t *translation) storeStep(s *step) {
	t.storeImm(1, frame(offFlagKind+stepShift/8), int32(s.kind>>stepShift))
}

func (t *translation) storeValue(v value, off uintptr) {
	if v.reg == noReg {
		t.storeImm(8, frame(off), v.imm)
		return
	}
	t.store(8, t.readInto(v.reg, tmp2), frame(off))
}

// hostFlags makes the host's flags the guest's; carry: CF too. It may use tmp2, which then holds
// nothing.
func (t *translation) hostFlags(carry bool) {
	r := &t.flags
	if r.host && !(carry && r.lost) {
		return
	}
	switch {
	case r.kind == FlagsCore:
		t.aluImm(aluCmp, 4, frame(offFlagKind), int32(FlagsRaw))
		t.lazies = append(t.lazies, lazy{from: t.jcc(ccNZ), back: t.here(), exit: t.exit(Exit{Kind: Lazy, Off: t.pos, Count: t.count}), retry: t.start, fp: t.fp, x87: t.x87})
		r.kind, r.saved = FlagsRaw, true
		if r.step.saved { // what the frame has of it is in there
			r.step = step{}
		}
		t.loadRaw()
	case r.kind == FlagsRaw:
		t.loadRaw()
	case r.saved:
		t.again(r, true)
	default:
		t.again(r, false)
	}
	t.stepAgain(&r.step)
	r.host, r.lost = true, false
}

// stepAgain sets all of the host's flags but CF as an INC or DEC did.
func (t *translation) stepAgain(s *step) {
	switch {
	case s.kind == 0:
		return
	case s.saved:
		t.load(8, tmp2, frame(offFlagC))
	default:
		t.mov(tmp2, t.readInto(s.reg, tmp2))
	}
	digit := uint8(0)
	if s.kind&FlagsDec != 0 {
		digit = 1
	}
	o := sized(1<<(s.kind>>FlagsStepWidth), 0xff)
	t.inst(o, digit^1, regRM(tmp2))
	t.inst(o, digit, regRM(tmp2))
}

// needsCarry: a condition code that looks at CF.
func needsCarry(in *decode.Inst) bool {
	switch in.Op {
	case optab.JCC, optab.SETCC, optab.CMOVCC:
		return in.Opcode&0xa == 2
	}
	return true
}

// lazy is where flags of a kind not known are to become FlagsRaw.
type lazy struct {
	from, back, exit, retry uint32
	fp                      uint8 // as stub.fp
	x87                     bool  // as stub.x87
}

func (t *translation) emitLazy(l *lazy) {
	t.bindHot(l.from)
	t.callTo(t.c.toRaw)
	t.bindTo(t.jcc(ccNZ), t.hot.base+l.back-t.base)
	t.leave(l.exit)
	t.retry(l.exit, l.retry, l.fp, l.x87)
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
	case FlagsTest:
		with(aluAnd)
	case FlagsAdd:
		with(aluSub)
		with(aluAdd)
	case FlagsSub:
		with(aluAdd)
		with(aluCmp)
	}
}

// clobber says that the host's flags are about to change. If they are known to the host alone and
// may be asked for they are saved, which uses tmp2.
func (t *translation) clobber() {
	t.keepRaw()
	t.flags.host, t.flags.lost = false, false
}

// keepRaw saves flags that the host alone knows, if they may be asked for.
func (t *translation) keepRaw() {
	switch r := &t.flags; {
	case r.kind != FlagsRaw || r.saved:
	case t.wanted:
		t.saveFlags()
	default:
		*r = recipe{kind: FlagsCore, saved: true, host: r.host}
	}
}

// writes says that guest register n is about to change: a recipe that needs its
// old value is saved, if the flags may still be asked for.
func (t *translation) writes(n uint8) {
	switch {
	case !t.flags.uses(n):
	case t.wanted:
		t.saveFlags()
	default: // nobody will ask: what they are is not known any more
		t.flags = recipe{kind: FlagsCore, saved: true}
	}
}
