package jit

import (
	"berth/x86"
	"berth/x86/decode"
	"berth/x86/optab"
)

// System is the part of Frame that system instructions need.
type System struct {
	KernelGSBase, STAR, LSTAR, FMASK uint64 // the MSRs of SWAPGS, SYSCALL and SYSRET

	// RDTSC while the host's TSC is less than TSCLimit after TSCHost: TSCBase and so much as that is, times
	// TSCRate, by 2^32. RDTSCP has TSCAux besides.
	TSCHost, TSCLimit, TSCRate, TSCBase, TSCAux uint64

	Pauses      int32 // PAUSEs until one is to be run by its definition
	KernelIndex uint8 // which TLB accesses go through at CPL 0 while AC is clear
	Blocked     bool  // an interrupt may wait for IF, a shadow's end or an IRET
}

// userIndex is the TLB of CPL 3; that of CPL 0 with AC set, or without SMAP, is 1.
const (
	acIndex   = 1
	userIndex = 2
)

// classifySystem says how an instruction is translated that belongs to operating systems.
func classifySystem(in *decode.Inst) how {
	switch in.Op {
	case optab.CLI, optab.PAUSE, optab.RDTSC, optab.RDTSCP:
		return howOwn
	case optab.MOVSEG:
		if !in.Mem && in.Row.Args[1] == optab.Sw {
			return howOwn
		}
		return howStep
	}
	if in.Mode != decode.Mode64 {
		return howStep
	}
	switch in.Op {
	case optab.STI, optab.STAC, optab.CLAC, optab.SWAPGS, optab.SYSCALL:
		return howOwn
	case optab.RDFSBASE, optab.RDGSBASE, optab.WRFSBASE, optab.WRGSBASE:
		if in.OpSize >= 4 {
			return howOwn
		}
	case optab.POPF, optab.SYSRET:
		if in.OpSize == 8 {
			return howOwn
		}
	case optab.MOVCR:
		if in.Row.Args[0] != optab.Cd && (in.Reg == 0 || in.Reg >= 2 && in.Reg <= 4) {
			return howOwn
		}
	}
	return howStep
}

// system emits what classifySystem says howOwn of. Whatever is rare or faults leaves
// before anything has changed.
func (t *translation) system() {
	in := &t.in.Inst
	switch in.Op {
	case optab.PAUSE:
		t.pause()
	case optab.RDTSC, optab.RDTSCP:
		t.timeStamp()
	case optab.MOVSEG:
		t.selector()
	case optab.POPF:
		t.popFlags()
	case optab.SYSCALL:
		if t.index != userIndex {
			t.stepOver()
			return
		}
		t.syscall()
	case optab.RDFSBASE, optab.RDGSBASE, optab.WRFSBASE, optab.WRGSBASE:
		t.segmentBase()
	default:
		if t.index == userIndex { // it faults
			t.stepOver()
			return
		}
		t.clobber()
		x := t.c.step(in, t.pos, t.count)
		t.aluImm(aluCmp, 1, at(state, t.c.layout.CPL), 0)
		t.stub(t.jcc(ccNZ), x, stubLeave)
		t.privileged(x)
	}
}

// privileged is an instruction at CPL 0; x leaves for it to be run by its definition.
func (t *translation) privileged(x uint32) {
	in := &t.in.Inst
	switch in.Op {
	case optab.CLI:
		t.aluImm(aluAnd, 4, at(state, t.c.layout.Flags), ^x86.FlagIF)
	case optab.STI:
		t.testFlags(x86.FlagIF)
		set := t.jcc(ccNZ)
		t.unlessWaiting(x)
		t.aluImm(aluOr, 4, at(state, t.c.layout.Flags), x86.FlagIF)
		t.bind(set)
	case optab.STAC:
		t.aluImm(aluOr, 4, at(state, t.c.layout.Flags), x86.FlagAC)
		if t.index != acIndex {
			t.changeIndex(acIndex)
		}
	case optab.CLAC:
		if t.index != acIndex { // it is clear
			return
		}
		t.aluImm(aluCmp, 1, frame(offKernelIndex), 0)
		t.stub(t.jcc(ccNZ), x, stubLeave) // without SMAP
		t.aluImm(aluAnd, 4, at(state, t.c.layout.Flags), ^x86.FlagAC)
		t.changeIndex(0)
	case optab.SWAPGS:
		t.load(8, tmp1, frame(offKernelGSBase))
		t.load(8, tmp2, t.segment(x86.GS, offSegBase))
		t.store(8, tmp2, frame(offKernelGSBase))
		t.setBase(x86.GS, tmp1)
	case optab.SYSRET:
		t.sysret(x)
	case optab.MOVCR:
		t.writes(in.RM)
		h := t.hostOr(in.RM, tmp1)
		t.load(8, h, at(state, t.c.layout.CR[in.Reg]))
		t.writeBack(in.RM, h)
	}
}

// testFlags sets ZF unless one of bits is set in what Layout.Flags holds.
func (t *translation) testFlags(bits uint32) { t.testImm(at(state, t.c.layout.Flags), bits) }

// testImm is TEST of 4 bytes with an immediate.
func (t *translation) testImm(m rm, bits uint32) {
	t.inst(op{opcode: 0xf7}, 0, m)
	t.u32(bits)
}

// unlessWaiting leaves by x if an interrupt waits for IF, or something else is to be done.
// What comes later is seen as always: STI is never a block's last instruction, so not
// before the next one is done.
func (t *translation) unlessWaiting(x uint32) {
	t.aluImm(aluCmp, 4, at(state, t.c.layout.Pending), 0)
	t.stub(t.jcc(ccNZ), x, stubLeave)
	t.aluImm(aluCmp, 1, frame(offBlocked), 0)
	t.stub(t.jcc(ccNZ), x, stubLeave)
}

// changeIndex has accesses go through another TLB from here on.
func (t *translation) changeIndex(to uint8) {
	t.storeImm(1, at(state, t.c.layout.MMUIndex), int32(to))
	for half := range uintptr(2) {
		t.aluImm(aluAdd, 8, frame(offTags+8*half), int32(to)-int32(t.index)) // see Frame.Tags
	}
	t.setIndex(to)
}

// setIndex says which TLB accesses go through.
func (t *translation) setIndex(index uint8) {
	t.index, t.tlb = index, t.c.layout.TLB+int32(index)*int32(tlbBytes)
}

// segment is a field of a segment register.
func (t *translation) segment(seg uint8, field uintptr) rm {
	return at(state, t.c.layout.Seg+t.c.layout.SegSize*int32(seg)+int32(field))
}

// setBase makes h the base of FS or GS.
func (t *translation) setBase(seg, h uint8) {
	t.store(8, h, t.segment(seg, offSegBase))
	t.store(8, h, at(state, t.c.layout.SegBase+8*int32(seg)))
}

// selector is MOV from a segment register.
func (t *translation) selector() {
	in := &t.in.Inst
	t.writes(in.RM)
	h := t.hostOr(in.RM, tmp1)
	if in.OpSize == 2 && h == tmp1 {
		t.load(8, tmp1, t.reg(in.RM))
	}
	if in.OpSize == 2 {
		t.load(2, h, t.segment(in.Reg, offSelector))
	} else {
		t.loadZX(2, h, t.segment(in.Reg, offSelector))
	}
	t.writeBack(in.RM, h)
}

// segmentBase is RDFSBASE and its kin.
func (t *translation) segmentBase() {
	in := &t.in.Inst
	t.clobber()
	t.testImm(at(state, t.c.layout.CR[4]), x86.CR4FSGSBASE)
	t.stub(t.jcc(ccZ), t.c.step(in, t.pos, t.count), stubLeave)
	seg := uint8(x86.FS)
	if in.Op == optab.RDGSBASE || in.Op == optab.WRGSBASE {
		seg = x86.GS
	}
	if in.Op == optab.RDFSBASE || in.Op == optab.RDGSBASE {
		t.writes(in.RM)
		h := t.hostOr(in.RM, tmp1)
		t.load(in.OpSize, h, t.segment(seg, offSegBase))
		t.writeBack(in.RM, h)
		return
	}
	t.load(in.OpSize, tmp2, t.source(in.RM))
	if in.OpSize == 8 {
		t.canonical(tmp2)
	}
	t.setBase(seg, tmp2)
}

// pause is PAUSE: one of some is run by its definition, which may give the host's CPU away.
func (t *translation) pause() {
	t.clobber()
	x := t.c.step(&t.in.Inst, t.pos, t.count)
	t.aluImm(aluCmp, 4, frame(offPauses), 0)
	t.stub(t.jcc(ccZ), x, stubLeave)
	t.aluImm(aluSub, 4, frame(offPauses), 1)
}

// popFlags is POPFQ, as far as it changes only status flags, DF, and at CPL 0 IF.
func (t *translation) popFlags() {
	const others = x86.FlagTF | x86.FlagNT | x86.FlagAC | x86.FlagID
	t.load(8, tmp2, t.stack(0, false))
	x := t.c.step(&t.in.Inst, t.pos, t.count)
	step := func(cc byte) { t.stub(t.jcc(cc), x, stubLeave) }
	t.mov(tmp1, tmp2)
	t.alu(aluXor, 4, tmp1, at(state, t.c.layout.Flags))
	changes := int32(x86.FlagDF)
	if t.index == userIndex {
		t.testFlags(x86.FlagIOPL)
		step(ccNZ)
		t.testImm(regRM(tmp1), others)
		step(ccNZ)
	} else {
		t.aluImm(aluCmp, 1, at(state, t.c.layout.CPL), 0)
		step(ccNZ)
		t.testImm(regRM(tmp1), others|x86.FlagIOPL)
		step(ccNZ)
		t.testImm(regRM(tmp1), x86.FlagIF)
		same := t.jcc(ccZ)
		t.testImm(regRM(tmp2), x86.FlagIF)
		cleared := t.jcc(ccZ)
		t.unlessWaiting(x)
		t.bind(same)
		t.bind(cleared)
		changes |= x86.FlagIF
	}
	t.aluImm(aluAnd, 4, regRM(tmp1), changes)
	t.alu(aluXor, 4, tmp1, at(state, t.c.layout.Flags))
	t.store(4, tmp1, at(state, t.c.layout.Flags))
	t.moveRSP(8)
	t.statusFrom(tmp2)
}

// statusFrom makes the status flags those of RFLAGS in h, which it overwrites, as tmp1.
func (t *translation) statusFrom(h uint8) {
	t.loadZX(1, tmp1, regRM(h))
	t.shift(4, 4, tmp1, 8)
	t.shift(5, 4, h, 11)
	t.aluImm(aluAnd, 4, regRM(h), 1)
	t.alu(aluOr, 4, tmp1, regRM(h))
	t.store(8, tmp1, frame(offFlagA))
	t.storeImm(4, frame(offFlagKind), int32(FlagsRaw))
	t.flags = recipe{kind: FlagsRaw, saved: true}
}

// flat loads CS and SS as SYSCALL and SYSRET do, for CPL: tmp1 is the selector of CS, and
// ss is what that of SS has more.
func (t *translation) flat(cpl uint8, ss int32) {
	const all = x86.AttrP | x86.AttrS | x86.AttrRW | x86.AttrAccessed | x86.AttrG
	level := int32(cpl)
	t.aluImm(aluOr, 4, regRM(tmp1), level)
	load := func(seg uint8, attr x86.Attr) {
		t.store(2, tmp1, t.segment(seg, offSelector))
		t.storeImm(4, t.segment(seg, offSegAttr), int32(all|attr)|level<<5)
		t.storeImm(4, t.segment(seg, offSegLimit), -1)
		t.storeImm(8, t.segment(seg, offSegBase), 0)
	}
	load(x86.CS, x86.AttrCode|x86.AttrL)
	t.aluImm(aluAdd, 4, regRM(tmp1), ss)
	load(x86.SS, x86.AttrDB)
	t.storeImm(1, at(state, t.c.layout.CPL), level)
}

// statusBits are the status flags in RFLAGS.
const statusBits = x86.FlagCF | x86.FlagPF | x86.FlagAF | x86.FlagZF | x86.FlagSF | x86.FlagOF

// syscall is SYSCALL at CPL 3.
func (t *translation) syscall() {
	in := &t.in.Inst
	t.clobber()
	x := t.c.step(in, t.pos, t.count)
	t.testImm(at(state, t.c.layout.EFER), x86.EFERSCE)
	t.stub(t.jcc(ccZ), x, stubLeave)
	t.testFlags(x86.FlagAC) // alignment may be checked
	t.stub(t.jcc(ccNZ), x, stubLeave)
	t.statusInto(tmp2)
	t.alu(aluOr, 4, tmp2, at(state, t.c.layout.Flags))
	t.store(8, tmp2, t.reg(11))
	t.load(8, rCX, t.reg(17))
	t.lea(8, rCX, at(rCX, int32(t.pos)+int32(in.Len)))
	t.load(4, tmp1, frame(offFMASK))
	t.inst(sized(4, 0xf7), 2, regRM(tmp1)) // not
	t.alu(aluAnd, 4, tmp2, regRM(tmp1))
	t.setFlagsFrom(tmp2)
	t.loadZX(2, tmp1, frame(offSTAR+4))
	t.aluImm(aluAnd, 4, regRM(tmp1), ^3)
	t.flat(0, 8)
	t.loadZX(1, tmp2, frame(offKernelIndex))
	t.store(1, tmp2, at(state, t.c.layout.MMUIndex))
	t.aluImm(aluSub, 8, regRM(tmp2), userIndex)
	for half := range uintptr(2) {
		t.inst(sized(8, 0x01), tmp2, frame(offTags+8*half)) // add
	}
	t.load(8, tmp1, frame(offLSTAR))
	t.indirect(0)
}

// statusInto puts the guest's status flags into a register, all else clear.
func (t *translation) statusInto(h uint8) {
	t.hostFlags(true)
	t.saveFlags()
	t.bytes(0x9c) // pushfq
	t.buf.pop(h)
	t.clobber()
	t.aluImm(aluAnd, 4, regRM(h), statusBits)
}

// setFlagsFrom makes RFLAGS what h holds, which it overwrites, as tmp1.
func (t *translation) setFlagsFrom(h uint8) {
	t.mov(tmp1, h)
	t.aluImm(aluAnd, 4, regRM(tmp1), ^int32(statusBits))
	t.aluImm(aluOr, 4, regRM(tmp1), x86.FlagR1)
	t.store(8, tmp1, at(state, t.c.layout.Flags))
	t.statusFrom(h)
}

// sysret is SYSRETQ at CPL 0.
func (t *translation) sysret(x uint32) {
	const loaded = 0x3c7fd7
	step := func(cc byte) { t.stub(t.jcc(cc), x, stubLeave) }
	t.testImm(at(state, t.c.layout.EFER), x86.EFERSCE)
	step(ccZ)
	t.canonical(rCX)
	t.load(4, tmp2, t.reg(11))
	t.testImm(regRM(tmp2), x86.FlagTF|x86.FlagAC|x86.FlagVIF|x86.FlagVIP)
	step(ccNZ)
	t.testImm(regRM(tmp2), x86.FlagIF)
	off := t.jcc(ccZ)
	t.aluImm(aluCmp, 1, frame(offBlocked), 0)
	step(ccNZ) // what is pending is seen by indirect
	t.bind(off)
	t.aluImm(aluAnd, 4, regRM(tmp2), loaded)
	t.setFlagsFrom(tmp2)
	t.loadZX(2, tmp1, frame(offSTAR+6))
	t.aluImm(aluAdd, 4, regRM(tmp1), 16)
	t.flat(3, -8)
	t.changeIndex(userIndex)
	t.mov(tmp1, rCX)
	t.indirect(0)
}

// timeStamp is RDTSC and RDTSCP. Where the clock is to be looked at it leaves.
func (t *translation) timeStamp() {
	t.clobber()
	x := t.c.step(&t.in.Inst, t.pos, t.count)
	t.testImm(at(state, t.c.layout.CR[4]), x86.CR4TSD)
	t.stub(t.jcc(ccNZ), x, stubLeave)
	flags := t.flags
	t.writes(rAX)
	t.writes(rDX)
	if t.in.Op == optab.RDTSCP {
		t.writes(rCX)
	}
	t.mov(tmp1, rAX)
	t.mov(tmp2, rDX)
	if t.in.Op == optab.RDTSCP {
		t.bytes(0x0f, 0xae, 0xe8) // lfence: it waits for what is before it
	}
	t.bytes(0x0f, 0x31) // rdtsc
	t.shift(4, 8, rDX, 32)
	t.alu(aluOr, 8, rAX, regRM(rDX))
	t.alu(aluSub, 8, rAX, frame(offTSCHost))
	t.alu(aluCmp, 8, rAX, frame(offTSCLimit))
	t.stub(t.jcc(ccAE), x, stubTSC).flags = flags                           // there the registers are again what they were
	t.inst(op{opmap: map0F, opcode: 0xaf, w: true}, rAX, frame(offTSCRate)) // imul
	t.shift(5, 8, rAX, 32)
	t.alu(aluAdd, 8, rAX, frame(offTSCBase))
	t.mov(rDX, rAX)
	t.shift(5, 8, rDX, 32)
	t.load(4, rAX, regRM(rAX))
	if t.in.Op == optab.RDTSCP {
		t.load(4, rCX, frame(offTSCAux))
	}
}
