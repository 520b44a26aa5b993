package interp

import "berth/x86"

// raise notes a fault without an error code.
func (c *CPU) raise(vector uint8) status {
	c.exc = exception{vector: vector}
	return faulted
}

// raiseErr notes a fault with an error code.
func (c *CPU) raiseErr(vector uint8, code uint32) status {
	c.exc = exception{vector: vector, hasError: true, code: code}
	return faulted
}

// source is what caused an event; delivery differs by it (Intel SDM vol. 3A §6.12, §6.13).
type source uint8

const (
	fromException source = iota
	fromINT              // INT n: gate privilege checked, faults lack EXT
	fromTrapInst         // INT3, INTO: likewise
	fromExternal         // interrupts, NMI, INT1
)

// event is an interrupt or exception on its way through the IDT.
type event struct {
	vector   uint8
	source   source
	hasError bool
	code     uint32
	rip      uint64 // return address
	flags    uint64 // image to push
}

// ext is the EXT bit of the error codes of faults met while e is delivered.
func (e *event) ext() uint32 {
	if e.source == fromINT || e.source == fromTrapInst {
		return 0
	}
	return 1
}

// gateError is the error code that names e's IDT entry.
func (e *event) gateError() uint32 { return uint32(e.vector)*8 + 2 + e.ext() }

// deliver takes c.exc to its handler with RIP as the return address: jumped, or
// stopped with a shutdown. Faults on the way make double and triple faults
// (Intel SDM vol. 3A table 6-5).
func (c *CPU) deliver() status {
	if c.exit.Reason == Internal {
		return stopped
	}
	return c.deliverEvent(c.faultEvent())
}

// faultEvent makes an event of c.exc.
func (c *CPU) faultEvent() event {
	e := event{vector: c.exc.vector, hasError: c.exc.hasError, code: c.exc.code, rip: c.RIP, flags: c.rflags()}
	switch e.vector {
	case x86.PF:
		c.CR2 = c.exc.cr2
	case x86.DB:
		if c.exc.dr6&dr6BD != 0 {
			e.flags |= x86.FlagRF
		}
		c.commitDR6(c.exc.dr6)
	}
	e.resumeFlag()
	return e
}

// resumeFlag sets RF in the flags that a fault pushes, so that the instruction
// meets no breakpoint again (Intel SDM vol. 3B §17.3.1.1). Of debug exceptions
// only general detect does, and is seen to by faultEvent.
func (e *event) resumeFlag() {
	switch e.vector {
	case x86.DB, x86.DF, x86.MC:
	default:
		e.flags |= x86.FlagRF
	}
}

func (c *CPU) deliverEvent(e event) status {
	class := faultClass(&e)
	for {
		if c.inject(&e) {
			return jumped
		}
		if c.exit.Reason == Internal {
			return stopped
		}
		second := c.faultEvent()
		second.rip, second.flags = e.rip, e.flags|second.flags&x86.FlagRF
		switch next := faultClass(&second); {
		case e.vector == x86.DF && e.source == fromException:
			c.exit = Exit{Reason: Shutdown}
			return stopped
		case class == contributory && next == contributory, class == pageFault && next != benign:
			second = event{vector: x86.DF, hasError: true, rip: e.rip, flags: e.flags}
			class = contributory
		default:
			class = next
		}
		e = second
	}
}

type faultKind uint8

const (
	benign faultKind = iota
	contributory
	pageFault
)

func faultClass(e *event) faultKind {
	if e.source != fromException {
		return benign
	}
	switch e.vector {
	case x86.DE, x86.TS, x86.NP, x86.SSFault, x86.GP:
		return contributory
	case x86.AC:
		// Benign by the table, which lets a guest whose #AC handler's stack is
		// misaligned at CPL 3 keep the processor for ever (CVE-2015-5307).
		return contributory
	case x86.PF:
		return pageFault
	}
	return benign
}

// inject delivers one event. false: exc is set and nothing but memory below the
// new stack pointer has changed.
func (c *CPU) inject(e *event) bool {
	c.sys.noStep = true
	var ok bool
	switch {
	case c.CR0&x86.CR0PE == 0:
		ok = c.injectReal(e)
	case c.longMode():
		ok = c.injectLong(e)
	default:
		ok = c.injectProtected(e)
	}
	if ok {
		c.sys.shadow = shadowNone
	}
	return ok
}

// injectReal goes through the interrupt vector table (Intel SDM vol. 3B §20.1.4).
func (c *CPU) injectReal(e *event) bool {
	off := uint64(e.vector) * 4
	if off+3 > uint64(c.IDT.Limit) {
		return c.fail(x86.GP, e.gateError())
	}
	return c.enter8086(e, c.IDT.Base, e.flags, x86.FlagIF|x86.FlagAC)
}

// enter8086 goes through the vector table at a linear address, in real mode or
// for a program in virtual-8086 mode: image is what the handler finds as FLAGS,
// and the flags given are cleared besides TF and RF.
func (c *CPU) enter8086(e *event, table, image, clear uint64) bool {
	v, ok := c.sys32(table + uint64(e.vector)*4)
	if !ok {
		return false
	}
	st := c.stack(2)
	if !st.pushAll(image, c.sel(x86.CS), e.rip) {
		return false
	}
	st.commit()
	c.setRFlags(e.flags &^ (x86.FlagTF | x86.FlagRF | clear))
	c.Seg[x86.CS] = c.realSegment(c.Seg[x86.CS], uint16(v>>16))
	c.RIP = uint64(v & 0xffff)
	c.modeChanged()
	return true
}

// gate is a call, interrupt or trap gate.
//
//	63..48 offset 31..16 | 47 P | 46..45 DPL | 44 0 | 43..40 type | 34..32 IST | 31..16 selector | 15..0 offset 15..0
//	long mode, high quadword: 31..0 offset 63..32
type gate struct {
	descriptor
	high uint64
}

func (g gate) selector() uint16 { return uint16(g.descriptor >> 16) }
func (g gate) ist() uint64      { return uint64(g.descriptor>>32) & 7 }
func (g gate) params() uint64   { return uint64(g.descriptor>>32) & 31 }
func (g gate) offset() uint64 {
	return uint64(g.descriptor)&0xffff | uint64(g.descriptor)>>32&0xffff0000 | g.high<<32
}

// readGate loads and checks the IDT entry of e.
func (c *CPU) readGate(e *event, size uint64) (g gate, ok bool) {
	off := uint64(e.vector) * size
	if off+size-1 > uint64(c.IDT.Limit) {
		return g, c.fail(x86.GP, e.gateError())
	}
	v, ok := c.sys64(c.IDT.Base + off)
	if ok && size == 16 {
		g.high, ok = c.sys64(c.IDT.Base + off + 8)
	}
	if !ok {
		return g, false
	}
	g.descriptor = descriptor(v)
	a := g.attr()
	valid := a.Type() == typeInt || a.Type() == typeTrap
	if size == 8 {
		valid = valid || a.Type() == typeInt16 || a.Type() == typeInt16+1 || a.Type() == typeTask
	}
	switch {
	case a&x86.AttrS != 0 || !valid:
		return g, c.fail(x86.GP, e.gateError())
	case (e.source == fromINT || e.source == fromTrapInst) && a.DPL() < c.CPL:
		return g, c.fail(x86.GP, e.gateError())
	case a&x86.AttrP == 0:
		return g, c.fail(x86.NP, e.gateError())
	}
	return g, true
}

// handlerCode loads the code segment of a handler: it may not be less privileged than CPL.
func (c *CPU) handlerCode(selector uint16, ext uint32) (s x86.Segment, va uint64, ok bool) {
	if selector&^3 == 0 {
		return s, 0, c.fail(x86.GP, ext)
	}
	d, va, ok := c.readDesc(selector, x86.GP)
	if !ok {
		c.exc.addExt(ext)
		return s, 0, false
	}
	a := d.attr()
	long := a&(x86.AttrL|x86.AttrDB) == x86.AttrL
	switch {
	case !isCode(a) || a.DPL() > c.CPL || c.longMode() && !long:
		return s, 0, c.fail(x86.GP, errSel(selector)|ext)
	case a&x86.AttrP == 0:
		return s, 0, c.fail(x86.NP, errSel(selector)|ext)
	}
	if !c.touch(&d, va) {
		return s, 0, false
	}
	return d.segment(selector &^ 3), va, true
}

// injectLong is delivery in long mode (Intel SDM vol. 3A §6.14).
func (c *CPU) injectLong(e *event) bool {
	g, ok := c.readGate(e, 16)
	if !ok {
		return false
	}
	cs, _, ok := c.handlerCode(g.selector(), e.ext())
	if !ok {
		return false
	}
	cpl := c.CPL
	if !isConforming(cs.Attr) {
		cpl = cs.Attr.DPL()
	}
	sp := c.R[x86.RSP]
	switch {
	case g.ist() != 0:
		sp, ok = c.tssStack64(28+g.ist()*8, e.ext())
	case cpl != c.CPL:
		sp, ok = c.tssStack64(4+uint64(cpl)*8, e.ext())
	}
	if !ok {
		return false
	}
	st := pusher{c: c, sp: sp &^ 15, mask: ^uint64(0), size: 8, index: c.handlerIndex(cpl), ext: e.ext()}
	if !st.pushAll(uint64(c.Seg[x86.SS].Selector), c.R[x86.RSP], e.flags, uint64(c.Seg[x86.CS].Selector), e.rip) {
		return false
	}
	if e.hasError && !st.push(uint64(e.code)) {
		return false
	}
	if !c.canonical(g.offset()) {
		return c.fail(x86.GP, e.ext())
	}
	if cpl != c.CPL {
		c.Seg[x86.SS] = nullSS(uint16(cpl), cpl)
	}
	c.enterHandler(&g, e, cs, cpl, g.offset())
	c.R[x86.RSP] = st.sp
	return true
}

// handlerIndex is the MMU index for pushes on a handler's stack.
func (c *CPU) handlerIndex(cpl uint8) uint8 {
	if cpl == 3 {
		return mmuUser
	}
	return c.implicitIndex()
}

// enterHandler sets CS, RIP, CPL and the flags on the way into a handler.
func (c *CPU) enterHandler(g *gate, e *event, cs x86.Segment, cpl uint8, rip uint64) {
	flags := e.flags &^ (x86.FlagTF | x86.FlagVM | x86.FlagRF | x86.FlagNT)
	if g.attr().Type()&1 == 0 {
		flags &^= x86.FlagIF
	}
	cs.Selector = cs.Selector&^3 | uint16(cpl)
	c.Seg[x86.CS] = cs
	c.CPL = cpl
	c.RIP = rip
	c.setRFlags(flags)
	c.modeChanged()
}

// tssStack64 loads a stack pointer from the 64-bit TSS (Intel SDM vol. 3A figure 7-11).
func (c *CPU) tssStack64(off uint64, ext uint32) (sp uint64, ok bool) {
	tr := &c.Seg[x86.TR]
	if off+7 > uint64(tr.Limit) {
		return 0, c.fail(x86.TS, errSel(tr.Selector)|ext)
	}
	sp, ok = c.sys64(tr.Base + off)
	if ok && !c.canonical(sp) {
		return 0, c.fail(x86.SSFault, ext)
	}
	return sp, ok
}

// injectProtected is delivery in protected and virtual-8086 mode (Intel SDM vol. 3A §6.12).
func (c *CPU) injectProtected(e *event) bool {
	g, ok := c.readGate(e, 8)
	if !ok {
		return false
	}
	if g.attr().Type() == typeTask {
		return c.injectTask(e, &g)
	}
	cs, _, ok := c.handlerCode(g.selector(), e.ext())
	if !ok {
		return false
	}
	vm := c.Flags&x86.FlagVM != 0
	cpl := c.CPL
	if !isConforming(cs.Attr) {
		cpl = cs.Attr.DPL()
	}
	if vm && cpl != 0 {
		return c.fail(x86.GP, errSel(g.selector())|e.ext())
	}
	size := uint64(2)
	rip := g.offset() & 0xffff
	if g.attr().Type()&8 != 0 {
		size, rip = 4, g.offset()&0xffffffff
	}
	st := c.stack(size)
	st.ext = e.ext()
	ss := c.Seg[x86.SS]
	if cpl != c.CPL {
		if st, ss, ok = c.innerStack(cpl, size, e.ext()); !ok {
			return false
		}
		if vm && !st.pushAll(c.sel(x86.GS), c.sel(x86.FS), c.sel(x86.DS), c.sel(x86.ES)) {
			return false
		}
		if !st.pushAll(c.sel(x86.SS), c.R[x86.RSP]) {
			return false
		}
	}
	if !st.pushAll(e.flags, c.sel(x86.CS), e.rip) || e.hasError && !st.push(uint64(e.code)) {
		return false
	}
	if rip > uint64(cs.Limit) {
		return c.fail(x86.GP, e.ext())
	}
	c.Seg[x86.SS] = ss
	if vm {
		for _, s := range [...]uint8{x86.ES, x86.DS, x86.FS, x86.GS} {
			c.Seg[s] = nullSegment(0)
		}
	}
	st.commit()
	c.enterHandler(&g, e, cs, cpl, rip)
	return true
}

func (c *CPU) sel(seg uint8) uint64 { return uint64(c.Seg[seg].Selector) }

// innerStack is the stack that the TSS gives for a more privileged level outside
// long mode, for pushes of size bytes.
func (c *CPU) innerStack(cpl uint8, size uint64, ext uint32) (st pusher, ss x86.Segment, ok bool) {
	tr := &c.Seg[x86.TR]
	var sp uint32
	var sel uint16
	off, width := uint64(4+8*cpl), uint64(6)
	if tr.Attr.Type() == typeTSS16Busy {
		off, width = uint64(2+4*cpl), 4
	}
	if off+width-1 > uint64(tr.Limit) {
		return st, ss, c.fail(x86.TS, errSel(tr.Selector)|ext)
	}
	if width == 4 {
		v, ok := c.sys32(tr.Base + off)
		if !ok {
			return st, ss, false
		}
		sp, sel = v&0xffff, uint16(v>>16)
	} else {
		if sp, ok = c.sys32(tr.Base + off); !ok {
			return st, ss, false
		}
		if sel, ok = c.sys16(tr.Base + off + 4); !ok {
			return st, ss, false
		}
	}
	ss, ok = c.checkSS(sel, cpl, x86.TS, false)
	if !ok {
		c.exc.addExt(ext)
		return st, ss, false
	}
	st = c.stackOn(&ss, uint64(sp), size)
	st.index = c.handlerIndex(cpl)
	st.ext = errSel(sel) | ext
	return st, ss, true
}
