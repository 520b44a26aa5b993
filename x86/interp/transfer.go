package interp

import (
	"berth/x86"
	"berth/x86/decode"
	"berth/x86/optab"
)

// nextRIP is the address after in.
func (c *CPU) nextRIP(in *decode.Inst) uint64 {
	rip := c.RIP + uint64(in.Len)
	if c.Mode != decode.Mode64 {
		rip = uint64(uint32(rip))
	}
	return rip
}

// farPointer returns the target operand of a far JMP or CALL.
func (c *CPU) farPointer(in *decode.Inst) (selector uint16, off uint64, ok bool) {
	if !in.Mem {
		return uint16(in.Imm2), truncate(in.Imm, in.OpSize), true
	}
	va, ok := c.memAddr(in, in.OpSize+2, false)
	if !ok {
		return 0, 0, false
	}
	if off, ok = c.load(va, in.OpSize); ok {
		selector, ok = c.ld16(c.after(va, uint64(in.OpSize)))
	}
	return selector, off, ok
}

// farJump is JMP far (SDM vol. 2, JMP).
func (c *CPU) farJump(in *decode.Inst) status {
	sel, off, ok := c.farPointer(in)
	if !ok {
		return faulted
	}
	if !c.protected() {
		return c.realJump(sel, off)
	}
	to, ok := c.farTarget(sel, off, false)
	switch {
	case !ok:
		return faulted
	case to.isTask:
		return c.transferTask(&to.task, taskJump, c.nextRIP(in))
	case !c.ripFits(&to.cs, to.rip):
		return c.raiseErr(x86.GP, 0)
	}
	c.setCS(to.cs, to.rip)
	return jumped
}

func (c *CPU) realJump(sel uint16, off uint64) status {
	cs := c.realSegment(c.Seg[x86.CS], sel)
	if off > uint64(cs.Limit) {
		return c.raiseErr(x86.GP, 0)
	}
	c.setCS(cs, off)
	return jumped
}

func (c *CPU) setCS(cs x86.Segment, rip uint64) {
	c.Seg[x86.CS] = cs
	c.RIP = rip
	c.modeChanged()
}

// target is where a far JMP or CALL leads.
type target struct {
	cs     x86.Segment
	rip    uint64
	gate   *gate // the call gate on the way, or nil
	task   task
	isTask bool
}

// farTarget resolves the selector of a far JMP or CALL: a code segment, a call
// gate with the gate's own entry point, or a task. A call to more privileged
// code returns a segment whose RPL is less than CPL.
func (c *CPU) farTarget(sel uint16, off uint64, call bool) (to target, ok bool) {
	if sel&^3 == 0 {
		return to, c.fail(x86.GP, 0)
	}
	d, va, ok := c.readDesc(sel, x86.GP)
	if !ok {
		return to, false
	}
	a := d.attr()
	if a&x86.AttrS != 0 {
		to.rip = off
		to.cs, ok = c.checkCode(sel, d, va)
		return to, ok
	}
	t := a.Type()
	isCall := t == typeCall || t == typeCall16 && !c.longMode()
	to.isTask = (t == typeTask || t == typeTSS || t == typeTSS16) && !c.longMode()
	if !isCall && !to.isTask || a.DPL() < max(c.CPL, uint8(sel&3)) {
		return to, c.fail(x86.GP, errSel(sel))
	}
	to.gate = &gate{descriptor: d}
	if isCall && c.longMode() && !c.gateHigh(to.gate, sel) {
		return to, false
	}
	if a&x86.AttrP == 0 {
		return to, c.fail(x86.NP, errSel(sel))
	}
	if to.isTask {
		if t == typeTask {
			sel = to.gate.selector()
		}
		to.task, ok = c.openTask(sel, taskNested, 0)
		return to, ok
	}
	to.cs, ok = c.gateCode(to.gate, call)
	to.rip = to.gate.offset()
	if t == typeCall16 {
		to.rip &= 0xffff
	}
	return to, ok
}

// gateHigh loads the upper half of a 64-bit call gate.
func (c *CPU) gateHigh(g *gate, sel uint16) bool {
	va, ok := c.findDesc(sel, 16)
	if !ok {
		return c.fail(x86.GP, errSel(sel))
	}
	if g.high, ok = c.sys64(va + 8); !ok {
		return false
	}
	if g.high>>40&0x1f != 0 {
		return c.fail(x86.GP, errSel(sel))
	}
	g.high &= 0xffffffff
	return true
}

// gateCode checks the code segment that a call gate leads to.
func (c *CPU) gateCode(g *gate, call bool) (cs x86.Segment, ok bool) {
	sel := g.selector()
	if sel&^3 == 0 {
		return cs, c.fail(x86.GP, 0)
	}
	d, va, ok := c.readDesc(sel, x86.GP)
	if !ok {
		return cs, false
	}
	a := d.attr()
	inner := call && !isConforming(a)
	switch {
	case !isCode(a) || a.DPL() > c.CPL,
		c.longMode() && a&(x86.AttrL|x86.AttrDB) != x86.AttrL,
		!inner && !isConforming(a) && a.DPL() != c.CPL:
		return cs, c.fail(x86.GP, errSel(sel))
	case a&x86.AttrP == 0:
		return cs, c.fail(x86.NP, errSel(sel))
	}
	if !c.touch(&d, va) {
		return cs, false
	}
	rpl := c.CPL
	if inner {
		rpl = a.DPL()
	}
	return d.segment(sel&^3 | uint16(rpl)), true
}

// farCall is CALL far (SDM vol. 2, CALL).
func (c *CPU) farCall(in *decode.Inst) status {
	sel, off, ok := c.farPointer(in)
	if !ok {
		return faulted
	}
	size := uint64(in.OpSize)
	ret := c.nextRIP(in)
	if !c.protected() {
		st := c.stack(size)
		if !st.pushAll(c.sel(x86.CS), ret) {
			return faulted
		}
		r := c.realJump(sel, off)
		if r == jumped {
			st.commit()
		}
		return r
	}
	to, ok := c.farTarget(sel, off, true)
	if !ok {
		return faulted
	}
	if to.isTask {
		return c.transferTask(&to.task, taskNested, ret)
	}
	cs, rip, g := to.cs, to.rip, to.gate
	if g != nil {
		size = c.gateSize(g)
		if cpl := uint8(cs.Selector & 3); cpl < c.CPL {
			return c.callInner(g, cs, rip, cpl, size, ret)
		}
	}
	st := c.stack(size)
	if g != nil && c.longMode() {
		st.seg, st.base, st.mask = nil, 0, ^uint64(0)
	}
	if !st.pushAll(c.sel(x86.CS), ret) {
		return faulted
	}
	if !c.ripFits(&cs, rip) {
		return c.raiseErr(x86.GP, 0)
	}
	st.commit()
	c.setCS(cs, rip)
	return jumped
}

// gateSize is the width of what a call through g pushes.
func (c *CPU) gateSize(g *gate) uint64 {
	switch {
	case c.longMode():
		return 8
	case g.attr().Type() == typeCall16:
		return 2
	}
	return 4
}

// callInner is a call through a gate to a more privileged level: the stack
// switches, and outside long mode the gate's parameters are copied.
func (c *CPU) callInner(g *gate, cs x86.Segment, rip uint64, cpl uint8, size, ret uint64) status {
	var st pusher
	var ss x86.Segment
	var ok bool
	if c.longMode() {
		var sp uint64
		if sp, ok = c.tssStack64(4+uint64(cpl)*8, 0); !ok {
			return faulted
		}
		ss = nullSS(uint16(cpl), cpl)
		st = pusher{c: c, sp: sp, mask: ^uint64(0), size: 8, index: c.handlerIndex(cpl)}
	} else if st, ss, ok = c.innerStack(cpl, size, 0); !ok {
		return faulted
	}
	if !st.pushAll(c.sel(x86.SS), c.R[x86.RSP]) {
		return faulted
	}
	if !c.longMode() && !c.copyParams(&st, g.params()) {
		return faulted
	}
	if !st.pushAll(c.sel(x86.CS), ret) {
		return faulted
	}
	if !c.ripFits(&cs, rip) {
		return c.raiseErr(x86.GP, 0)
	}
	c.Seg[x86.SS] = ss
	st.commit()
	c.CPL = cpl
	c.setCS(cs, rip)
	return jumped
}

// copyParams pushes n parameters of the caller's stack, keeping their order.
func (c *CPU) copyParams(to *pusher, n uint64) bool {
	for i := n; i > 0; i-- {
		from := c.stack(to.size)
		from.skip((i - 1) * to.size)
		v, ok := from.pop()
		if !ok || !to.push(v) {
			return false
		}
	}
	return true
}

// farRet is RET far (SDM vol. 2, RET).
func (c *CPU) farRet(in *decode.Inst) status {
	st := c.stack(uint64(in.OpSize))
	var rip, sel uint64
	if !st.popAll(&rip, &sel) {
		return faulted
	}
	st.skip(in.Imm & 0xffff)
	if !c.protected() {
		r := c.realJump(uint16(sel), rip)
		if r == jumped {
			st.commit()
		}
		return r
	}
	return c.returnTo(&st, uint16(sel), rip, in.Imm&0xffff, false)
}

// returnCode checks the code segment that RET or IRET goes back to.
func (c *CPU) returnCode(sel uint16) (cs x86.Segment, ok bool) {
	if sel&^3 == 0 {
		return cs, c.fail(x86.GP, 0)
	}
	d, va, ok := c.readDesc(sel, x86.GP)
	if !ok {
		return cs, false
	}
	a, rpl := d.attr(), uint8(sel&3)
	switch {
	case !isCode(a) || !c.validCodeBits(a) || rpl < c.CPL,
		isConforming(a) && a.DPL() > rpl,
		!isConforming(a) && a.DPL() != rpl:
		return cs, c.fail(x86.GP, errSel(sel))
	case a&x86.AttrP == 0:
		return cs, c.fail(x86.NP, errSel(sel))
	}
	if !c.touch(&d, va) {
		return cs, false
	}
	return d.segment(sel), true
}

// returnTo finishes RET and IRET in protected and long mode: it pops SS:RSP when
// the privilege drops (or popStack says so), releases params bytes of the outer
// stack and switches. Nothing changes if it faults.
func (c *CPU) returnTo(st *pusher, sel uint16, rip, params uint64, popStack bool) status {
	cs, ok := c.returnCode(sel)
	if !ok {
		return faulted
	}
	cpl := uint8(sel & 3)
	outer := cpl != c.CPL
	if !outer && !popStack {
		if !c.ripFits(&cs, rip) {
			return c.raiseErr(x86.GP, 0)
		}
		st.commit()
		c.setCS(cs, rip)
		return jumped
	}
	var sp, ssSel uint64
	if !st.popAll(&sp, &ssSel) {
		return faulted
	}
	to64 := c.longMode() && cs.Attr&x86.AttrL != 0
	ss, ok := c.checkSS(uint16(ssSel), cpl, x86.GP, to64)
	if !ok {
		return faulted
	}
	if !c.ripFits(&cs, rip) {
		return c.raiseErr(x86.GP, 0)
	}
	c.setReturnSP(st, &ss, to64, sp, params)
	c.Seg[x86.SS] = ss
	c.CPL = cpl
	if outer {
		c.dropData(cpl)
	}
	c.setCS(cs, rip)
	return jumped
}

// setReturnSP loads RSP with the popped value, 16 bits of it only if that is all
// that was popped or the new stack segment has.
func (c *CPU) setReturnSP(st *pusher, ss *x86.Segment, to64 bool, sp, params uint64) {
	out := c.stackOn(ss, sp, st.size)
	if to64 {
		out.mask = ^uint64(0)
	}
	if out.mask == 0xffff {
		out.sp = c.R[x86.RSP]&^0xffff | sp&0xffff
	}
	out.skip(params)
	out.commit()
}

// iretFlags are the flags that IRET and POPF may change at the current privilege.
func (c *CPU) iretFlags(size uint8) uint64 {
	mask := uint64(statusFlags | x86.FlagTF | x86.FlagDF | x86.FlagNT | x86.FlagRF | x86.FlagAC | x86.FlagID)
	if c.CPL == 0 {
		mask |= x86.FlagIOPL | x86.FlagVIF | x86.FlagVIP
	}
	if c.CPL <= c.iopl() {
		mask |= x86.FlagIF
	}
	if size == 2 {
		mask &= 0xffff
	}
	return mask
}

func (c *CPU) iopl() uint8 { return uint8(c.Flags>>12) & 3 }

// iret is IRET in all modes (SDM vol. 2, IRET). It unblocks NMIs even if it faults.
func (c *CPU) iret(in *decode.Inst) status {
	if c.sys.nmiMasked {
		c.sys.nmiMasked = false
		if c.sys.nmi {
			c.sys.nmi = false
			c.post(pendNMI)
		}
	}
	mask := c.iretFlags(in.OpSize)
	switch {
	case c.CR0&x86.CR0PE == 0:
		return c.iretReal(in, mask&^(x86.FlagVIF|x86.FlagVIP))
	case c.virtual86():
		return c.iretVME(in)
	case c.Flags&x86.FlagVM != 0:
		return c.iretReal(in, mask&^x86.FlagIOPL)
	case c.Flags&x86.FlagNT != 0:
		if c.longMode() {
			return c.raiseErr(x86.GP, 0)
		}
		return c.returnTask(c.nextRIP(in))
	}
	st := c.stack(uint64(in.OpSize))
	var rip, sel, flags uint64
	if !st.popAll(&rip, &sel, &flags) {
		return faulted
	}
	if flags&x86.FlagVM != 0 && in.OpSize == 4 && c.CPL == 0 && !c.longMode() {
		return c.iretVM86(&st, rip, uint16(sel), flags)
	}
	if r := c.returnTo(&st, uint16(sel), rip, 0, c.Mode == decode.Mode64); r != jumped {
		return r
	}
	c.setRFlags(c.rflags()&^mask | flags&mask)
	return jumped
}

func (c *CPU) iretReal(in *decode.Inst, mask uint64) status {
	st := c.stack(uint64(in.OpSize))
	var rip, sel, flags uint64
	if !st.popAll(&rip, &sel, &flags) {
		return faulted
	}
	r := c.realJump(uint16(sel), rip)
	if r == jumped {
		st.commit()
		c.setRFlags(c.rflags()&^mask | flags&mask)
	}
	return r
}

// softInt is INT n, INT3, INTO and INT1. Faults leave RIP at the instruction.
func (c *CPU) softInt(in *decode.Inst) status {
	e := event{source: fromTrapInst, rip: c.nextRIP(in), flags: c.rflags()}
	switch in.Op {
	case optab.INT3:
		e.vector = x86.BP
	case optab.INTO:
		if e.flags&x86.FlagOF == 0 {
			return next
		}
		e.vector = x86.OF
	case optab.INT1:
		e.vector, e.source = x86.DB, fromExternal
	default:
		e.vector, e.source = uint8(in.Imm), fromINT
		if c.Flags&x86.FlagVM != 0 {
			return c.virtualInt(&e)
		}
	}
	return jumpedIf(c.inject(&e))
}

// jumpedIf turns the ok of a transfer into a status.
func jumpedIf(ok bool) status {
	if ok {
		return jumped
	}
	return faulted
}
