package jit

import "berth/x86/optab"

// incDec emits an INC or DEC whose flags may be asked for; false: it is not one. CF is not looked
// for: whoever asks puts it together with what the flags were before.
func (t *translation) incDec(o *operands) bool {
	in := &t.in.Inst
	if in.Op != optab.INC && in.Op != optab.DEC || in.Lock || o.eHigh || !t.in.keep {
		return false
	}
	s := step{kind: FlagsInc | uint32(log2(o.eSize))<<FlagsStepWidth}
	if in.Op == optab.DEC {
		s.kind ^= FlagsInc ^ FlagsDec
	}
	enc := sized(o.eSize, 0xff)
	digit := uint8(in.Row.Digit)
	if in.Mem {
		m := t.memory(o.eSize, true, 1)
		t.load(o.eSize, tmp2, m)
		t.inst(enc, digit, regRM(tmp2))
		t.store(o.eSize, tmp2, m)
		if !t.stepped(s) {
			return true
		}
		t.store(8, tmp2, frame(offFlagC))
		if t.flags.step.saved = true; t.flags.saved {
			t.storeStep(&s)
		}
		return true
	}
	s.reg = in.RM
	t.wanted = true
	t.flags.step = step{} // no flag of an earlier one is left
	t.writes(s.reg)
	h := t.hostOr(s.reg, tmp1)
	if h == tmp1 {
		t.load(8, h, t.reg(s.reg))
	}
	t.inst(enc, digit, regRM(h))
	t.writeBack(s.reg, h)
	t.stepped(s)
	return true
}

// stepped notes s; false: the host alone knows all flags still.
func (t *translation) stepped(s step) bool {
	r := &t.flags
	if !r.host {
		r.host, r.lost = true, true
	}
	if r.kind == FlagsRaw && !r.saved {
		return false
	}
	r.step = s
	return true
}
