package jit

import (
	"encoding/binary"
	"errors"

	"berth/x86/decode"
	"berth/x86/optab"
)

const (
	pageSize        = 4096
	maxInstructions = 48 // a block's
)

// inst is an instruction of the block at hand.
type inst struct {
	decode.Inst
	pos    uint16 // in its page
	how    how
	effect effect
	ops    operands // of howPlain, howSSE and howMMX
	refs   [accesses]ref
	leaves bool // it may leave the block before it is done: see mayLeave
	wanted bool // the flags after it may be asked for
	keep   bool // of flagsMix: those before it matter
	loads  bool // it is the block's first that uses x87 registers
	points bool // it stores where it is for the x87: see wantPointers
}

// how an instruction is translated.
type how uint8

const (
	howStep    how = iota // not at all
	howBad                // its bytes are no instruction
	howNothing            // it does nothing
	howPlain              // with its operands renamed
	howSSE                // likewise, of XMM registers
	howVEX                // likewise, of YMM or general registers, with a VEX prefix
	howX87                // as it is, but for memory
	howMMX                // as howSSE, of MMX registers or both
	howOwn                // by code of its own
)

// translation is the state of one Translate.
type translation struct {
	*buf
	hot    *buf // the block, while stubs are emitted
	c      *Cache
	index  uint8 // of the TLB
	tlb    int32 // offset of the TLB's first entry from the frame
	mode   decode.Mode
	word   uint8 // bytes of RIP, RSP and what is pushed: see wordOf
	insts  []inst
	in     *inst
	i      int    // of in
	pos    uint16 // likewise
	count  uint8  // instructions before it that the budget does not know of
	known  uint8  // those that it does
	flags  recipe
	stubs  []stub
	lazies []lazy
	splits []split
	groups []group
	fars   []far
	ended  bool
	fp     uint8 // what the block needs of the host's vector registers, up to the next step: see fpLevel
	x87    bool  // the host's x87 registers are the guest's, at the point being emitted
	fpu    bool  // some instruction uses them
	sides  []side
	wanted bool   // the flags, at the point being emitted
	start  uint32 // where in begins
	loop   loop
	seg    uint8 // not 0: a segment that access is to add and check
}

// stub is code out of line that leaves the block.
type stub struct {
	from   uint32 // the jump's displacement
	also   uint32 // another's, or 0
	exit   uint32
	flags  recipe
	what   stubKind
	tag    int32 // of a miss: the TLB tag's offset
	target int64
	retry  uint32 // where the instruction begins, in the code
	fp     uint8  // what it needs of the host's vector registers
	x87    bool   // the x87 registers were loaded
}

type stubKind uint8

const (
	stubMiss   stubKind = iota // tmp1 is VA less the tag
	stubRetry                  // leaves, and has a Retry
	stubLeave                  // only leaves
	stubRIP                    // tmp1 is the RIP to go to
	stubLookup                 // tmp1 is the RIP to look up
	stubReload                 // it lies where tmp2 points
	stubTSC                    // leaves, with RAX and RDX in tmp1 and tmp2
	stubFar                    // it is target, of a branch to another page
)

// side is the way out of a conditional branch that was taken.
type side struct {
	from   uint32
	target int64
	in     *inst
	count  uint8
	flags  recipe
}

// Translate makes the block that begins at offset pos of its page. code is what
// lies there: to the end of the page, or, for an instruction that reaches beyond,
// crossing set, that instruction. index is which TLB its accesses go through. mode is that of the
// code segment, 64 or 32 bits; of the latter, ES, CS, SS and DS are flat. alone has each access checked for itself, which is what a
// Split exit asks for. not ok: its first instruction
// does not fit in code.
func (c *Cache) Translate(code []byte, pos uint16, index uint8, mode decode.Mode, crossing, alone bool) (u Unit, ok bool) {
	t := translation{
		c: c, insts: c.insts[:0], word: wordOf(mode), mode: mode,
		stubs: c.stubs[:0], lazies: c.lazies[:0], sides: c.sides[:0], splits: c.splits[:0],
		flags: recipe{kind: FlagsCore, saved: true},
	}
	t.setIndex(index)
	if !t.decode(code, pos, crossing) {
		return u, false
	}
	if last := &t.insts[len(t.insts)-1]; last.Op == optab.STI && last.how == howOwn {
		last.how = howStep // see unlessWaiting
	}
	if !alone {
		t.groups = plan(t.insts, c.groups)
		c.groups = t.groups
	}
	t.want()
	t.wantPointers()
	if t.loop.last = -1; !crossing {
		t.loop.last = t.findLoop()
	}
	t.buf = c.begin()
	dead := c.add(Exit{Kind: Dead, Off: pos})
	t.stub(0, dead, stubLeave)
	t.block()
	c.end()
	c.endRare()
	c.insts, c.stubs, c.lazies, c.sides, c.splits = t.insts, t.stubs, t.lazies, t.sides, t.splits
	last := &t.insts[len(t.insts)-1]
	return Unit{
		Entry: Entry(t.hot.base), End: last.pos + uint16(last.Len), Count: len(t.insts), dead: dead,
	}, true
}

// decode fills t.insts up to the block's end.
func (t *translation) decode(code []byte, pos uint16, crossing bool) bool {
	for len(t.insts) < maxInstructions {
		n := len(t.insts)
		t.insts = t.insts[:n+1]
		in := &t.insts[n]
		*in = inst{pos: pos}
		err := decode.Decode(code, t.mode, &in.Inst)
		if err != nil && errors.Is(err, decode.ErrTruncated) && len(code) < decode.MaxLen {
			t.insts = t.insts[:len(t.insts)-1]
			return len(t.insts) > 0
		}
		if err != nil {
			// The bytes looked at decide: the block covers them.
			in.how, in.Len = howBad, max(in.Len, 1)
			if errors.Is(err, decode.ErrTruncated) {
				in.Len = decode.MaxLen
			}
			return true
		}
		in.modernise()
		in.classify(t.c.layout.V3)
		in.loads = in.usesX87() && !t.x87
		t.fpu = t.fpu || in.loads
		t.x87 = (t.x87 || in.loads) && in.how != howStep
		if ends(in.Op) || crossing {
			return true
		}
		pos += uint16(in.Len)
		code = code[in.Len:]
		if len(code) == 0 {
			break
		}
	}
	return true
}

// ends reports that control does not go on behind the instruction.
func ends(op optab.Op) bool {
	switch op {
	case optab.JMP, optab.CALL, optab.RET, optab.LOOP, optab.LOOPE, optab.LOOPNE, optab.JCXZ,
		optab.INT, optab.INT1, optab.INT3, optab.IRET, optab.HLT, optab.SYSCALL, optab.SYSRET, optab.SYSENTER, optab.SYSEXIT,
		optab.UD0, optab.UD1, optab.UD2:
		return true
	}
	return false
}

// want works out where flags may be asked for.
func (t *translation) want() {
	w := true
	for i := len(t.insts) - 1; i >= 0; i-- {
		in := &t.insts[i]
		in.wanted, in.leaves = w, mayLeave(in)
		switch e := in.effect; {
		case in.how == howStep || in.how == howBad || in.Op == optab.JCC:
			w = true
		case e == flagsRead:
			w = true
		case e == flagsMix:
			in.keep = w || reads(in.Op)
			w = in.keep || in.leaves
		case e == flagsSet:
			w = in.leaves
		default:
			w = w || in.leaves
		}
	}
}

// mayLeave reports that the instruction may leave the block before it is done.
func mayLeave(in *inst) bool {
	switch in.Op {
	case optab.LEA, optab.NOP, optab.PREFETCH, optab.PREFETCHW:
		return false
	case optab.PUSH, optab.PUSHF, optab.POP, optab.LEAVE:
		return in.refs[accStack].leaves() || in.Mem && in.refs[accMem].leaves()
	case optab.CALL, optab.RET, optab.DIV, optab.IDIV, optab.JMP, optab.POPF, optab.PAUSE, optab.RDTSC, optab.RDTSCP, optab.STOS, optab.MOVS:
		return true
	}
	return in.Mem && in.refs[accMem].leaves() || in.loads || in.Op >= optab.FirstSystem && in.Op <= optab.LastSystem
}

// block emits the code.
func (t *translation) block() {
	t.needFP(0)
	t.x87 = false
	t.body(len(t.insts))
	if !t.ended {
		last := t.in
		t.count = uint8(len(t.insts)) - t.known
		t.edge(int64(last.pos)+int64(last.Len), t.count)
	}
	if t.loop.last >= 0 {
		t.emitLoop()
	}
	for i := range t.sides {
		s := &t.sides[i]
		t.bind(s.from)
		t.in, t.pos, t.flags = s.in, s.in.pos, s.flags
		t.edge(s.target, s.count)
	}
	t.hot, t.buf = t.buf, t.c.beginRare()
	for i := range t.fars {
		t.emitFar(&t.fars[i])
	}
	for i := range t.stubs {
		t.emitStub(&t.stubs[i])
	}
	for i := range t.lazies {
		t.emitLazy(&t.lazies[i])
	}
	for i := range t.splits {
		t.emitSplit(&t.splits[i])
	}
}

// body emits the first n instructions.
func (t *translation) body(n int) {
	before := true
	for i := range t.insts[:n] {
		t.in, t.i = &t.insts[i], i
		t.pos, t.count = t.in.pos, uint8(i)-t.known
		t.wanted = before
		if t.in.leaves {
			t.keepRaw() // before it begins: when it begins again the host's flags are others
		}
		if e := t.in.effect; t.in.leaves || e == flagsRead || e == flagsMix {
			t.held = 0 // when it begins again tmp1 is not what it was
		}
		t.start = t.here()
		t.instruction()
		before = t.in.wanted
	}
}

// bindHot has the jump or operand in the block whose displacement is at pos lead here.
func (t *translation) bindHot(pos uint32) {
	binary.LittleEndian.PutUint32(t.hot.b[pos:], uint32(t.entry())-t.hot.base-pos-4)
}

func (t *translation) instruction() {
	switch t.in.how {
	case howStep:
		t.stepOver()
	case howBad:
		t.saveFlags()
		t.leave(t.exit(Exit{Kind: Step, Off: t.pos, Count: t.count}))
		t.ended = true
	case howNothing:
	case howPlain:
		t.plain()
	case howSSE:
		t.sse()
	case howX87:
		t.needX87()
		t.doX87()
	case howMMX:
		t.needX87()
		t.sse()
	case howVEX:
		t.vex()
	case howOwn:
		t.own()
	}
}

// stepOver leaves to have the instruction run by its definition. The block goes on
// behind it.
func (t *translation) stepOver() {
	t.saveFlags()
	x := t.c.step(&t.in.Inst, t.pos, t.count)
	t.leave(x)
	i := t.i + 1
	if i == len(t.insts) {
		t.ended = true
		return
	}
	t.flags = recipe{kind: FlagsCore, saved: true}
	t.known, t.x87, t.held = uint8(i), false, 0
	t.c.exits[x].Retry = t.entry()
	t.needFP(i)
}

// exit adds an Exit of this block.
func (t *translation) exit(x Exit) uint32 { return t.c.add(x) }

// leave returns from the translated code by exit x.
func (t *translation) leave(x uint32) {
	p := &t.c.pieces.leave
	t.patch(t.piece(p)+p.at[0], x)
}

// stub has the jump at from lead to a stub.
func (t *translation) stub(from, x uint32, what stubKind) *stub {
	t.stubs = append(t.stubs, stub{from: from, exit: x, flags: t.flags, what: what, retry: t.start, fp: t.fp, x87: t.x87})
	return &t.stubs[len(t.stubs)-1]
}

func (t *translation) emitStub(s *stub) {
	if s.from != 0 {
		t.bindHot(s.from)
	}
	if s.also != 0 {
		t.bindHot(s.also)
	}
	x := &t.c.exits[s.exit]
	x.stub = uint32(t.entry())
	switch s.what {
	case stubMiss:
		t.piece(t.c.byTag(&t.c.pieces.miss, s.tag))
	case stubLookup, stubReload:
		if s.what == stubReload {
			t.load(8, tmp1, at(tmp2, 0))
		}
		t.storeImm(4, frame(offExit), int32(s.exit))
		t.jumpTo(t.c.lookup)
		return
	case stubFar:
		t.load(8, tmp1, t.reg(17))
		t.lea(t.word, tmp1, at(tmp1, int32(s.target)))
		t.store(8, tmp1, at(state, t.c.layout.RIP))
	case stubTSC:
		t.mov(rAX, tmp1)
		t.mov(rDX, tmp2)
	case stubRIP:
		t.store(8, tmp1, at(state, t.c.layout.RIP))
	}
	if !s.flags.allSaved() {
		if s.flags.kind == FlagsRaw && !s.flags.saved {
			panic("jit: flags lost")
		}
		t.storeFlags(&s.flags)
	}
	t.leave(s.exit)
	if s.what == stubMiss || s.what == stubRetry {
		t.retry(s.exit, s.retry, s.fp, s.x87)
	}
}

// retry has exit x lead back to the instruction at pos of the code, which needs fp
// of the host's vector registers. x87: the x87 registers were loaded there.
func (t *translation) retry(x, pos uint32, fp uint8, x87 bool) {
	at := Entry(t.hot.base + pos)
	if fp == 0 && !x87 {
		t.c.exits[x].Retry = at
		return
	}
	t.c.exits[x].Retry = t.entry()
	if fp != 0 {
		t.callTo(t.c.loadFP[fp])
	}
	if x87 {
		t.callTo(t.c.loadX87)
	}
	t.jumpTo(at)
}

// needFP has the host's registers hold the guest's XMM or YMM if the i-th instruction or
// one behind it needs them, up to the next step, or leaves.
func (t *translation) needFP(i int) {
	t.fp = 0
	for j := i; j < len(t.insts) && t.insts[j].how != howStep; j++ {
		t.fp = max(t.fp, t.insts[j].fpLevel())
	}
	if t.fp == 0 {
		return
	}
	t.aluImm(aluCmp, 1, frame(offFPLoaded), int32(t.fp))
	ok := t.jcc(ccAE)
	t.aluImm(aluCmp, 1, frame(offFPUsable), int32(t.fp))
	x := t.c.step(&t.insts[i].Inst, t.insts[i].pos, 0)
	t.stub(t.jcc(ccB), x, stubLeave)
	t.callTo(t.c.loadFP[t.fp])
	t.bind(ok)
}

// host registers of the guest's general registers; noReg: in memory.
var hostReg = [16]uint8{rAX, rCX, rDX, rBX, r10, rBP, rSI, rDI, r8, r9, noReg, noReg, r11, noReg, noReg, noReg}

// source is a guest register as an operand to be read.
func (t *translation) source(n uint8) rm {
	if h := hostReg[n]; h != noReg {
		return regRM(h)
	}
	return t.reg(n)
}

// reg is a register's place in memory.
func (t *translation) reg(n uint8) rm { return at(state, t.c.layout.R+8*int32(n)) }

// readInto returns a host register with guest register n: its own, or tmp.
func (t *translation) readInto(n, tmp uint8) uint8 {
	if h := hostReg[n]; h != noReg {
		return h
	}
	t.load(8, tmp, t.reg(n))
	return tmp
}

// hostOr returns guest register n's host register, or tmp, which writeBack stores.
func (t *translation) hostOr(n, tmp uint8) uint8 {
	if h := hostReg[n]; h != noReg {
		return h
	}
	return tmp
}

// writeBack stores h if that is not guest register n's own.
func (t *translation) writeBack(n, h uint8) {
	if hostReg[n] == noReg {
		t.store(8, h, t.reg(n))
	}
}
