package jit

// emitShared emits what all blocks use.
func (c *Cache) emitShared() {
	e := c.begin()
	// lookup goes on at the address in tmp1 by the table, or returns with RIP set: also
	// when something is pending, so that what a device wrote into code is seen before
	// control gets to another page.
	c.lookup = e.entry()
	miss, reload := c.find(e)
	e.bind(reload)
	e.load(8, tmp1, at(tmp2, 0))
	e.bind(miss[1])
	e.aluImm(aluXor, 8, regRM(tmp2), int32(jumpBytes))
	other, reload := c.probe(e)
	e.bind(reload)
	e.load(8, tmp1, at(tmp2, 0))
	e.bind(other)
	e.bind(miss[0])
	e.store(8, tmp1, at(state, c.layout.RIP))
	e.bytes(0xc3)

	c.loadFP[fpXMM] = e.entry()
	for i := range uint8(16) {
		e.inst(op{opmap: map0F, opcode: 0x10}, i, frame(offXMM+16*uintptr(i)))
	}
	e.inst(op{opmap: map0F, opcode: 0xae}, 2, frame(offMXCSR))
	e.storeImm(1, frame(offFPLoaded), fpXMM)
	e.bytes(0xc3)
	if c.layout.V3 {
		c.emitLoadYMM(e)
	}
	c.emitLoadX87(e)
	c.emitRaw(e)
	for index := range c.strings {
		for size := range c.strings[index] {
			c.emitStore(e, uint8(index), uint8(size))
			c.emitMove(e, uint8(index), uint8(size))
		}
	}
	c.end()
}

// find emits a jump to the address in tmp1 by the first place of the table that may have it. It
// returns the jumps for when something is pending or it has another, and that of probe.
func (c *Cache) find(e *buf) (miss [2]uint32, reload uint32) {
	e.aluImm(aluCmp, 4, at(state, c.layout.Pending), 0)
	miss[0] = e.jcc(ccNZ)
	e.mov(tmp2, tmp1)
	e.shift(5, 8, tmp2, 12)
	e.alu(aluXor, 4, tmp2, regRM(tmp1))
	e.aluImm(aluAnd, 4, regRM(tmp2), JumpEntries-1)
	e.shift(4, 4, tmp2, 5)
	e.alu(aluAdd, 8, tmp2, frame(offJumps))
	miss[1], reload = c.probe(e)
	return miss, reload
}

// probe emits a jump to the address in tmp1 by the entry that tmp2 points to. It returns the jump
// for when that has another, and for when it does not hold: then tmp1 is lost, and is in the entry.
func (c *Cache) probe(e *buf) (miss, reload uint32) {
	e.alu(aluCmp, 8, tmp1, at(tmp2, 0))
	miss = e.jcc(ccNZ)
	e.shift(5, 8, tmp1, 63)
	e.load(8, tmp1, rm{mem: true, reg: state, index: tmp1, scale: 3, disp: int32(offTags)})
	e.alu(aluCmp, 8, tmp1, at(tmp2, 8))
	reload = e.jcc(ccNZ)
	e.load(8, tmp1, at(tmp2, 24))
	e.store(8, tmp1, c.reg(17))
	e.inst(op{opcode: 0xff}, 4, at(tmp2, 16))
	return miss, reload
}

// emitLoadYMM emits what loads YMM registers, whose lower halves may be there
// already: XMM instructions leave the upper ones alone.
func (c *Cache) emitLoadYMM(e *buf) {
	c.loadFP[fpYMM] = e.entry()
	e.aluImm(aluCmp, 1, frame(offFPLoaded), 0)
	loaded := e.jcc(ccNZ)
	e.callTo(c.loadFP[fpXMM])
	e.bind(loaded)
	for i := range uint8(16) {
		e.vexInst(vexOp{pp: 1, mmmmm: 3, opcode: 0x18, l: true}, i, i, frame(offYMMH+16*uintptr(i))) // vinsertf128
		e.bytes(1)
	}
	e.storeImm(1, frame(offFPLoaded), fpYMM)
	e.bytes(0xc3)
}

// emitRaw emits what turns the frame's flags of any kind but FlagsCore into FlagsRaw.
// It returns with ZF set if they are FlagsCore. It keeps all registers but tmp2.
func (c *Cache) emitRaw(e *buf) {
	c.toRaw = e.entry()
	e.load(4, tmp2, frame(offFlagKind))
	e.test(1, tmp2, regRM(tmp2))
	core := e.jcc(ccZ)
	e.push(rAX)
	e.load(8, rAX, frame(offFlagA))
	e.loadZX(2, tmp2, regRM(tmp2)) // without the step
	e.aluImm(aluCmp, 4, regRM(tmp2), int32(FlagsRaw))
	done := []uint32{e.jcc(ccZ)}
	for kind := FlagsLogic; kind <= FlagsTest; kind++ {
		for w := range uint8(4) {
			e.aluImm(aluCmp, 4, regRM(tmp2), int32(kind|uint32(w)<<flagsWidthShift))
			other := e.jcc(ccNZ)
			e.flagsOf(kind, 1<<w)
			e.raw()
			done = append(done, e.jmp())
			e.bind(other)
		}
	}
	for _, d := range done {
		e.bind(d)
	}
	e.emitStep()
	e.storeImm(4, frame(offFlagKind), int32(FlagsRaw))
	e.pop(rAX)
	e.test(4, state, regRM(state))
	e.bind(core)
	e.bytes(0xc3)
}

// flagsOf sets the host's flags from RAX, which is FlagA, and FlagB.
func (e *buf) flagsOf(kind uint32, size uint8) {
	b := frame(offFlagB)
	switch kind {
	case FlagsLogic:
		e.test(size, rAX, regRM(rAX))
	case FlagsCmp:
		e.alu(aluCmp, size, rAX, b)
	case FlagsTest:
		e.test(size, rAX, b)
	case FlagsAdd:
		e.alu(aluSub, size, rAX, b)
		e.alu(aluAdd, size, rAX, b)
	case FlagsSub:
		e.alu(aluAdd, size, rAX, b)
		e.alu(aluCmp, size, rAX, b)
	}
}

// raw puts the host's flags into RAX as FlagsRaw has them.
func (e *buf) raw() {
	e.bytes(0x9f)                                         // lahf
	e.inst(op{opmap: map0F, opcode: 0x90}, 0, regRM(rAX)) // seto al
}

// emitStep applies the frame's INC or DEC, if there is one, to the flags in RAX and stores them in FlagA.
func (e *buf) emitStep() {
	var done []uint32
	e.loadZX(1, tmp2, frame(offFlagKind+stepShift/8))
	for w := range uint8(4) {
		for digit, kind := range [2]uint32{FlagsInc, FlagsDec} {
			e.aluImm(aluCmp, 4, regRM(tmp2), int32(kind>>stepShift|uint32(w)<<(FlagsStepWidth-stepShift)))
			other := e.jcc(ccNZ)
			e.load(8, tmp2, frame(offFlagC))
			e.bytes(0x04, 0x7f, 0x9e) // add al, 127; sahf
			e.inst(sized(1<<w, 0xff), uint8(digit)^1, regRM(tmp2))
			e.inst(sized(1<<w, 0xff), uint8(digit), regRM(tmp2))
			e.raw()
			done = append(done, e.jmp())
			e.bind(other)
		}
	}
	for _, d := range done {
		e.bind(d)
	}
	e.store(2, rAX, frame(offFlagA))
}
