package jit

import (
	"berth/x86"
	"berth/x86/decode"
)

// memory is the memory operand of the instruction at hand as one of the host's, of size bytes at
// a multiple of align. Until tmp1 or one of the guest's registers that it is made of is written, it
// may be used. It uses tmp2 and the host's flags.
func (t *translation) memory(size uint8, write bool, align uint8) rm {
	r := &t.in.refs[accMem]
	switch {
	case r.group == 0:
		t.address(0)
		t.access(size, write, align)
		return at(tmp1, 0)
	case r.first:
		t.address(r.off)
		t.check(r, size, write)
	}
	return t.grouped(r)
}

// stack is memory for the word at RSP+disp.
func (t *translation) stack(disp int32, write bool) rm { return t.near(rsp, disp, write) }

// near is memory for the word at disp from guest register n, which the host has.
func (t *translation) near(n uint8, disp int32, write bool) rm {
	r := &t.in.refs[accStack]
	switch {
	case r.group == 0:
		t.lea(t.word, tmp1, at(hostReg[n], disp))
		t.access(t.word, write, 1)
		return at(tmp1, 0)
	case r.first:
		t.lea(t.word, tmp1, at(hostReg[n], disp-int32(r.off)))
		t.check(r, t.word, write)
	}
	return t.grouped(r)
}

// address puts the linear address of the memory operand, less by, into tmp1, or what access makes
// that of. It uses tmp2.
func (t *translation) address(by int64) {
	in := &t.in.Inst
	t.offset(in, by)
	switch {
	case in.Seg < x86.FS:
	case t.mode != decode.Mode64:
		t.seg = in.Seg
	default:
		t.clobber()
		t.alu(aluAdd, 8, tmp1, at(state, t.c.layout.SegBase+8*int32(in.Seg)))
	}
}

// offset is address without the segment. Flags stay.
func (t *translation) offset(in *decode.Inst, by int64) {
	size := uint8(8)
	if in.AddrSize == 4 {
		size = 4
	}
	disp := in.Disp - by
	m := rm{mem: true, reg: noReg, index: noReg}
	switch in.Base {
	case decode.NoReg:
	case decode.RIP:
		t.load(8, tmp1, t.reg(17))
		disp += int64(t.pos) + int64(in.Len)
		m.reg = tmp1
	default:
		m.reg = t.readInto(in.Base, tmp1)
	}
	if in.Index != decode.NoReg {
		m.index, m.scale = t.readInto(in.Index, tmp2), in.Scale
	}
	switch {
	case int64(int32(disp)) == disp:
		m.disp = int32(disp)
		if m.reg == noReg && m.index == noReg {
			t.constant(tmp1, uint64(disp))
			if size == 4 {
				t.load(4, tmp1, regRM(tmp1))
			}
			return
		}
		t.lea(size, tmp1, m)
	case m.reg == noReg && m.index == noReg:
		t.constant(tmp1, uint64(disp))
	default: // RIP-relative, just beyond
		t.lea(8, tmp1, m)
		t.lea(8, tmp1, at(tmp1, int32(in.Disp)))
		t.lea(size, tmp1, at(tmp1, int32(disp-in.Disp)))
	}
}

// access turns the linear address in tmp1 into one of the host, for size bytes,
// which lie at a multiple of align. It uses tmp2 and the host's flags.
func (t *translation) access(size uint8, write bool, align uint8) {
	t.clobber()
	if t.seg != 0 {
		t.inSegment(size)
	}
	if align > 1 { // before any effect on the page tables
		t.testLow(align)
		t.stub(t.jcc(ccNZ), t.exit(Exit{Kind: Step, Off: t.pos, Count: t.count}), stubLeave)
	}
	tag := t.tag(write)
	t.find(tag)
	t.aluImm(aluCmp, 8, regRM(tmp1), pageSize-int32(size))
	x := t.exit(Exit{Kind: Miss, Size: size, Write: write, Off: t.pos, Count: t.count})
	s := t.stub(t.jcc(ccA), x, stubMiss)
	s.tag = tag
	t.piece(&t.c.pieces.host[t.index])
}

// tag is where the TLB's tags for reads or writes begin.
func (t *translation) tag(write bool) int32 {
	if write {
		return t.tlb + int32(tagWrite)
	}
	return t.tlb + int32(tagRead)
}

// find takes the tag of the TLB's entry for the linear address in tmp1 from that, and
// has tmp2 be the entry's offset.
func (t *translation) find(tag int32) { t.piece(t.c.byTag(&t.c.pieces.find, tag)) }

// testLow sets ZF if tmp1 is a multiple of align.
func (t *translation) testLow(align uint8) {
	t.inst(op{opcode: 0xf6, rex: true}, 0, regRM(tmp1)) // test tmp1b, align-1
	t.bytes(align - 1)
}
