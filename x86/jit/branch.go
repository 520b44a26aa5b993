package jit

import (
	"math"

	"berth/x86/optab"
)

// branch is Jcc.
func (t *translation) branch() {
	in := &t.in.Inst
	t.hostFlags(needsCarry(in))
	if t.backEdge(true, in.Opcode&15) {
		return
	}
	t.sides = append(t.sides, side{
		from: t.jcc(in.Opcode & 15), target: int64(t.pos) + int64(in.Len) + int64(in.Imm),
		in: t.in, count: t.count + 1, flags: t.flags,
	})
}

// spend takes n instructions off the budget; once it is spent, exit x leaves.
func (t *translation) spend(n uint8, x uint32, what stubKind) {
	t.clobber()
	t.aluImm(aluSub, 8, regRM(budget), int32(n))
	t.stub(t.jcc(ccS), x, what)
}

// edge goes on at target, relative to the page, after n instructions of the block.
// The flags are saved or are known from values.
func (t *translation) edge(target int64, n uint8) {
	t.saveFlags()
	if target < 0 || target >= pageSize {
		t.edgeFar(target, n)
		return
	}
	link := t.exit(Exit{Kind: Edge, Off: t.pos, Target: target})
	t.clobber()
	p := &t.c.pieces.near
	at := t.piece(p)
	t.b[at+p.at[0]] = n
	t.stub(at+p.at[2], link, stubLeave).also = at + p.at[1]
	t.c.exits[link].patch = t.base + at + p.at[2]
	t.ended = true
}

// far is a branch to another page. It is linked for one linear address of its page and for as long
// as the translations are the same; else the table decides.
type far struct {
	where, whereTag uint32    // displacements of the operands
	slow            [3]uint32 // jumps for when it is not linked so
	exit            uint32
	target          int64
}

func (t *translation) edgeFar(target int64, n uint8) {
	x := t.exit(Exit{Kind: Far, Off: t.pos, Target: target})
	p := &t.c.pieces.far[t.word/8]
	at := t.piece(p)
	t.b[at+farBudget] = n
	t.stubs = append(t.stubs, stub{from: at + p.at[0], exit: x, flags: t.flags, what: stubFar, target: target})
	t.patch(at+p.at[4], uint32(target&^(pageSize-1)))
	e := &t.c.exits[x]
	e.patchTag, e.patch = t.base+at+p.at[2]-farTag, t.base+t.here()-4
	t.fars = append(t.fars, far{
		where: at + p.at[1], whereTag: at + p.at[2],
		slow: [3]uint32{at + p.at[1] + farSlow, at + p.at[2] + farSlow, at + p.at[3]},
		exit: x, target: target,
	})
	t.ended = true
}

// Distances in edgeFar: where the budget's byte is; from the displacement of an operand at RIP to that of
// the jump behind it; from that of the tag to the operand that Exit.patchTag says.
const (
	farBudget = 3
	farSlow   = 6
	farTag    = 4
)

// edgeFar emits a branch to another page.
func (c *Cache) edgeFar(e *buf, word uint8) (marks [5]uint32) {
	e.aluImm(aluSub, 8, regRM(budget), 1)
	marks[0] = e.jcc(ccS)
	e.load(8, tmp1, c.reg(17))
	marks[1] = e.relative(0x3b, tmp1)
	e.jcc(ccNZ)
	e.load(8, tmp1, frame(offTags))
	marks[2] = e.relative(0x3b, tmp1)
	e.jcc(ccNZ)
	e.aluImm(aluCmp, 4, at(state, c.layout.Pending), 0)
	marks[3] = e.jcc(ccNZ)
	e.aluImm(aluAdd, word, c.reg(17), math.MinInt32) // so that there is room for any
	marks[4] = e.here() - 4
	e.jmp()
	return marks
}

var _ = [1]byte{}[(offTags+8)/128] // a displacement of one byte: see LinkFar

// relative emits a 64-bit instruction with an operand at RIP and returns where its displacement is.
func (e *buf) relative(opcode, r uint8) uint32 {
	e.bytes(0x48|r>>3<<2, opcode, r&7<<3|5)
	e.u32(0)
	return e.here() - 4
}

func (t *translation) emitFar(f *far) {
	for t.entry()%8 != 0 {
		t.bytes(0xcc)
	}
	t.c.exits[f.exit].where = uint32(t.entry())
	t.bindHot(f.where)
	t.u64(noPage)
	t.bindHot(f.whereTag)
	t.u64(0)
	for _, from := range f.slow {
		t.bindHot(from)
	}
	t.load(8, tmp1, t.reg(17))
	t.lea(t.word, tmp1, at(tmp1, int32(f.target)))
	t.storeImm(4, frame(offExit), int32(f.exit))
	t.jumpTo(t.c.lookup)
}

// jump is near JMP.
func (t *translation) jump() {
	in := &t.in.Inst
	switch a := in.Row.Args[0]; {
	case relative(a) && t.backEdge(false, 0):
	case relative(a):
		t.edge(int64(t.pos)+int64(in.Len)+int64(in.Imm), t.count+1)
	case in.Mem:
		t.load(t.word, tmp1, t.memory(t.word, false, 1))
		t.indirect(0)
	default:
		t.load(t.word, tmp1, t.source(in.RM))
		t.indirect(0)
	}
}

// indirect goes on at the address in tmp1; moved is what was added to RSP.
func (t *translation) indirect(moved int32) {
	t.saveFlags() // tmp2 is free
	x := t.exit(Exit{Kind: Indirect, Off: t.pos, Count: t.count, Target: int64(moved)})
	t.spend(t.count+1, x, stubRIP)
	// In line, so that the host predicts this jump by itself.
	p := &t.c.pieces.jump
	at := t.piece(p)
	t.stub(at+p.at[0], x, stubLookup)
	t.stub(at+p.at[1], x, stubLookup)
	t.stub(at+p.at[2], x, stubReload)
	t.ended = true
}

// call is near CALL.
func (t *translation) call() {
	in := &t.in.Inst
	near := in.Row.Args[0] == optab.Jz
	t.clobber() // while tmp2 is free
	switch {
	case near:
	case in.Mem:
		t.load(t.word, tmp2, t.memory(t.word, false, 1))
		t.store(8, tmp2, frame(offScratch))
		t.canonical(tmp2)
	default:
		t.load(t.word, tmp2, t.source(in.RM))
		t.store(8, tmp2, frame(offScratch))
		t.canonical(tmp2)
	}
	top := t.stack(-int32(t.word), true)
	t.load(8, tmp2, t.reg(17))
	t.lea(t.word, tmp2, at(tmp2, int32(t.pos)+int32(in.Len)))
	t.store(t.word, tmp2, top)
	t.moveRSP(-int32(t.word))
	if near {
		t.edge(int64(t.pos)+int64(in.Len)+int64(in.Imm), t.count+1)
		return
	}
	t.saveFlags()
	t.load(8, tmp1, frame(offScratch))
	t.indirect(-int32(t.word))
}

// canonical leaves if the address in r is not: the call faults before it stores.
func (t *translation) canonical(r uint8) {
	if t.word == 4 {
		return
	}
	t.clobber()
	x := t.c.step(&t.in.Inst, t.pos, t.count)
	t.mov(tmp1, r)
	t.shift(7, 8, tmp1, 47)
	t.aluImm(aluAdd, 4, regRM(tmp1), 1)
	t.aluImm(aluCmp, 4, regRM(tmp1), 1)
	t.stub(t.jcc(ccA), x, stubLeave)
}

// ret is near RET.
func (t *translation) ret() {
	in := &t.in.Inst
	more := int32(t.word)
	if len(in.Row.Args) > 0 {
		more += int32(in.Imm)
	}
	t.load(t.word, tmp1, t.stack(0, false))
	t.moveRSP(more)
	t.saveFlags()
	t.indirect(more)
}
