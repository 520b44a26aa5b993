package jit

import "berth/x86/optab"

// loop is the instructions of a block up to a branch to its first. They are emitted a second time,
// behind the block, for when that branch is taken: there the flags are known as the branch left
// them, need not be stored for the next round, and the vector registers are loaded.
//
// The second time never goes through the block's entry, so at its top it looks at the budget as an
// edge does. Whoever has the entry lead elsewhere (Kill) is heeded when that is spent.
type loop struct {
	last   int      // which of the instructions branches; -1: none
	second bool     // that is being emitted
	from   uint32   // the displacement of the branch, the first time; 0: it goes on behind it
	top    uint32   // of the second time
	flags  recipe   // at top
	fp     uint8    // see translation.fp, likewise
	index  uint8    // see translation.index, likewise
	behind struct { // the branch, the first time
		at    uint32
		flags recipe
		held  uint8
	}
}

// findLoop says which instruction branches to the first, with nothing before it that may
// change how others are translated; -1: none.
func (t *translation) findLoop() int {
	for i := range t.insts {
		in := &t.insts[i]
		switch {
		case in.how == howStep || in.how == howBad || in.usesX87() || in.Op >= optab.FirstSystem && in.Op <= optab.LastSystem:
			return -1
		case in.how != howOwn:
		case in.Op == optab.POPF || in.Op == optab.PAUSE:
			return -1
		case in.Op == optab.JCC || in.Op == optab.JMP && relative(in.Row.Args[0]):
			if int64(in.pos)+int64(in.Len)+int64(in.Imm) == int64(t.insts[0].pos) {
				return i
			}
		}
	}
	return -1
}

// relative reports the operand of a branch that is a distance.
func relative(a optab.Arg) bool { return a == optab.Jb || a == optab.Jz }

// backEdge emits the branch at the end of the loop, if it is that: a JCC with condition cc, or a JMP.
func (t *translation) backEdge(conditional bool, cc byte) bool {
	l := &t.loop
	if t.i != l.last {
		return false
	}
	if t.flags.kind == FlagsRaw { // the top changes the host's
		t.saveFlags()
	}
	top := t.flags
	top.host, top.lost = false, false
	switch {
	case !l.second:
		l.flags, l.fp, l.index = top, t.fp, t.index
		if !conditional {
			t.ended = true
			return true
		}
		l.from = t.jcc(cc)
		l.behind.at, l.behind.flags, l.behind.held = t.here(), t.flags, t.held
		return true
	case top != l.flags:
		return false
	case !conditional:
		t.bindTo(t.jmp(), l.top)
		return true
	}
	t.bindTo(t.jcc(cc), l.top)
	return true
}

// emitLoop emits the loop the second time.
func (t *translation) emitLoop() {
	l := &t.loop
	l.second = true
	if l.from != 0 {
		t.bind(l.from)
	}
	// Behind the loop they may have become others.
	t.known, t.fp, t.x87 = 0, l.fp, false
	t.setIndex(l.index)
	l.top = t.here()
	t.in = &t.insts[l.last]
	t.pos, t.flags, t.held, t.wanted = t.in.pos, l.flags, 0, true
	t.spend(uint8(l.last+1), t.exit(Exit{Kind: Spent, Off: t.pos, Target: int64(t.insts[0].pos)}), stubLeave)
	t.ended = false
	t.body(l.last + 1)
	switch b := &l.behind; {
	case l.from == 0:
	case t.flags == b.flags && t.held == b.held:
		t.bindTo(t.jmp(), b.at)
	default:
		t.edge(int64(t.pos)+int64(t.in.Len), uint8(l.last+1))
	}
	t.ended = true
}
