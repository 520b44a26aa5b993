package jit

import (
	"berth/x86/mmu"
	"berth/x86/optab"
)

// stringCode is where the repeated string instructions of one element size are.
type stringCode struct{ store, move Entry }

// string is STOS and MOVS, repeated or not, with DF clear.
func (t *translation) string() {
	in := &t.in.Inst
	size := in.OpSize
	move := in.Op == optab.MOVS
	t.saveFlags()
	t.clobber()
	x := t.c.step(in, t.pos, t.count)
	t.inst(op{opcode: 0xf7}, 0, at(state, t.c.layout.Flags)) // test dword, DF
	t.u32(0x400)
	t.stub(t.jcc(ccNZ), x, stubLeave)
	if in.Rep || in.RepN {
		t.cut(rCX, rSI, rDI)
		code := t.c.strings[t.index][log2(size)]
		if move {
			t.callTo(code.move)
		} else {
			t.callTo(code.store)
		}
		t.cut(rSI, rDI)
		t.stub(t.jcc(ccB), x, stubLeave)
		return
	}
	if move {
		t.load(t.word, tmp1, regRM(rSI))
		t.access(size, false, 1)
		t.load(size, tmp2, at(tmp1, 0))
		t.store(8, tmp2, frame(offScratch))
		t.load(t.word, tmp1, regRM(rDI))
		t.access(size, true, 1)
		t.load(8, tmp2, frame(offScratch))
		t.store(size, tmp2, at(tmp1, 0))
		t.lea(t.word, rSI, at(rSI, int32(size)))
	} else {
		t.load(t.word, tmp1, regRM(rDI))
		t.access(size, true, 1)
		t.store(size, rAX, at(tmp1, 0))
	}
	t.lea(t.word, rDI, at(rDI, int32(size)))
}

// cut clears the upper halves of 32-bit code's registers: the addresses and the count
// that a routine for 64 bits is given, and addresses it has moved past 4 GiB, where no
// page is. Flags stay.
func (t *translation) cut(regs ...uint8) {
	if t.word == 4 {
		for _, r := range regs {
			t.load(4, r, regRM(r))
		}
	}
}

// page turns the linear address in tmp1 into its offset in its page and returns an
// operand that holds where the host has that; fail is the jump for a page that is
// not granted. It uses tmp2.
func (c *Cache) page(e *buf, index, size uint8, tag uintptr) (host rm, fail uint32) {
	tlb := c.layout.TLB + int32(index)*int32(tlbBytes)
	e.load(4, tmp2, regRM(tmp1))
	e.shift(5, 4, tmp2, 12-tlbShift)
	e.aluImm(aluAnd, 4, regRM(tmp2), (mmu.TLBSize-1)<<tlbShift)
	e.alu(aluSub, 8, tmp1, rm{mem: true, reg: state, index: tmp2, disp: tlb + int32(tag)})
	e.aluImm(aluCmp, 8, regRM(tmp1), pageSize-int32(size))
	return rm{mem: true, reg: state, index: tmp2, disp: tlb + int32(tagHost)}, e.jcc(ccA)
}

// elements turns an offset in a page, in tmp2, into how many elements fit behind
// it, at most RCX.
func (e *buf) elements(log uint8) {
	e.inst(sized(8, 0xf7), 3, regRM(tmp2)) // neg
	e.aluImm(aluAdd, 8, regRM(tmp2), pageSize)
	if log > 0 {
		e.shift(5, 8, tmp2, log)
	}
	e.alu(aluCmp, 8, tmp2, regRM(rCX))
	e.inst(op{opmap: map0F, opcode: 0x47, w: true}, tmp2, regRM(rCX)) // cmova
}

func (e *buf) push(r uint8) { e.stackOp(0x50, r) }
func (e *buf) pop(r uint8)  { e.stackOp(0x58, r) }

func (e *buf) stackOp(opcode, r uint8) {
	e.touch(r)
	if r >= 8 {
		e.bytes(0x41)
	}
	e.bytes(opcode | r&7)
}

// repeated emits a host string instruction with REP.
func (e *buf) repeated(opcode, log uint8) {
	e.bytes(0xf3)
	switch log {
	case 0:
		opcode--
	case 1:
		e.bytes(0x66)
	case 3:
		e.bytes(0x48)
	}
	e.bytes(opcode)
}

// more ends a round: it begins the next unless something is pending.
func (c *Cache) more(e *buf, loop uint32) (pending uint32) {
	e.aluImm(aluCmp, 4, at(state, c.layout.Pending), 0)
	e.bindTo(e.jcc(ccZ), loop)
	e.test(8, rCX, regRM(rCX))
	return e.jcc(ccNZ)
}

// finish ends a routine: CF is set if RCX iterations are left to the interpreter.
func (e *buf) finish(done uint32, fails ...uint32) {
	e.bind(done)
	e.bytes(0xf8, 0xc3) // clc; ret
	for _, f := range fails {
		e.bind(f)
	}
	e.bytes(0xf9, 0xc3) // stc; ret
}

// emitStore emits REP STOS, a page at a time.
func (c *Cache) emitStore(e *buf, index, log uint8) {
	size := uint8(1) << log
	c.strings[index][log].store = e.entry()
	loop := e.here()
	e.test(8, rCX, regRM(rCX))
	done := e.jcc(ccZ)
	e.mov(tmp1, rDI)
	host, fail := c.page(e, index, size, tagWrite)
	e.push(tmp1)
	e.alu(aluAdd, 8, tmp1, host)
	e.pop(tmp2)
	e.elements(log)
	e.push(rCX)
	e.push(rDI)
	e.mov(rCX, tmp2)
	e.mov(rDI, tmp1)
	e.repeated(0xab, log)
	e.pop(rDI)
	e.pop(rCX)
	e.alu(aluSub, 8, rCX, regRM(tmp2))
	e.lea(8, rDI, rm{mem: true, reg: rDI, index: tmp2, scale: log})
	pending := c.more(e, loop)
	e.bytes(0xf8, 0xc3) // clc; ret
	e.finish(done, fail, pending)
}

// emitMove emits REP MOVS, a page at a time.
func (c *Cache) emitMove(e *buf, index, log uint8) {
	size := uint8(1) << log
	c.strings[index][log].move = e.entry()
	loop := e.here()
	e.test(8, rCX, regRM(rCX))
	done := e.jcc(ccZ)
	e.mov(tmp1, rSI)
	host, failSrc := c.page(e, index, size, tagRead)
	e.push(tmp1) // offset of the source
	e.alu(aluAdd, 8, tmp1, host)
	e.push(tmp1) // its host address
	e.mov(tmp1, rDI)
	host, failDst := c.page(e, index, size, tagWrite)
	e.push(tmp1)
	e.alu(aluAdd, 8, tmp1, host)
	e.pop(tmp2)
	e.alu(aluCmp, 8, tmp2, at(rSP, 8))
	e.inst(op{opmap: map0F, opcode: 0x42, w: true}, tmp2, at(rSP, 8)) // cmovb
	e.elements(log)
	e.push(rCX)
	e.push(rSI)
	e.push(rDI)
	e.load(8, rSI, at(rSP, 24))
	e.mov(rDI, tmp1)
	e.mov(rCX, tmp2)
	e.repeated(0xa5, log)
	e.pop(rDI)
	e.pop(rSI)
	e.pop(rCX)
	e.lea(8, rSP, at(rSP, 16))
	e.alu(aluSub, 8, rCX, regRM(tmp2))
	e.lea(8, rDI, rm{mem: true, reg: rDI, index: tmp2, scale: log})
	e.lea(8, rSI, rm{mem: true, reg: rSI, index: tmp2, scale: log})
	pending := c.more(e, loop)
	e.bytes(0xf8, 0xc3) // clc; ret
	e.bind(failDst)
	e.lea(8, rSP, at(rSP, 16))
	e.bytes(0xf9, 0xc3)
	e.finish(done, failSrc, pending)
}
