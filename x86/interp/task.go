package interp

import (
	"encoding/binary"

	"berth/x86"
)

// tssForm is a layout of a task-state segment (Intel SDM vol. 3A figures 7-2 and
// 7-10). From first on it holds what a task switch saves, in pieces of width
// bytes, and behind that the selector of the LDT:
//
//	EIP | EFLAGS | EAX ECX EDX EBX ESP EBP ESI EDI | ES CS SS DS (FS GS) | LDT
//
// At 0 lies the link to the interrupted task, with 32 bits at 28 CR3 and at 100
// the T flag.
type tssForm struct {
	size, first, width uint64
	segs               int
}

// form returns the layout of a TSS by its descriptor's type.
func form(a x86.Attr) tssForm {
	if a.Type()&^2 == typeTSS16 {
		return tssForm{size: 44, first: 14, width: 2, segs: 4}
	}
	return tssForm{size: 104, first: 32, width: 4, segs: 6}
}

// saved is how many bytes a task switch writes.
func (f tssForm) saved() uint64 { return f.width * uint64(10+f.segs) }

// item returns item i of those from first on.
func (f tssForm) item(p []byte, i int) uint64 {
	p = p[f.first+uint64(i)*f.width:]
	if f.width == 2 {
		return uint64(binary.LittleEndian.Uint16(p))
	}
	return uint64(binary.LittleEndian.Uint32(p))
}

// task is one that a transfer is about to switch to.
type task struct {
	seg   x86.Segment // for TR
	va    uint64      // of its descriptor
	cr3   uint64
	pdpte [4]uint64
	trap  bool // T flag: #DB before its first instruction
}

// taskCause is what makes a task switch: it decides about busy flags, NT and the link.
type taskCause uint8

const (
	taskJump   taskCause = iota
	taskNested           // CALL, interrupts and exceptions
	taskReturn           // IRET
)

// debugLocal are the bits of DR7 that a task switch clears: L0-L3 and LE.
const debugLocal = 0x155

// flagsInTSS are the flags that exist.
const flagsInTSS = 0x3f7fd5

// openTask checks the descriptor of a TSS (Intel SDM vol. 3A table 7-1) for a
// switch by cause; false: exc is set. vector is that of a selector that does
// not fit.
func (c *CPU) openTask(sel uint16, cause taskCause, ext uint32) (t task, ok bool) {
	vector, busy := uint8(x86.GP), x86.Attr(0)
	if cause == taskReturn {
		vector, busy = x86.TS, x86.AttrRW
	}
	if sel&4 != 0 {
		return t, c.fail(vector, errSel(sel)|ext)
	}
	d, va, ok := c.readDesc(sel, vector)
	if !ok {
		c.exc.addExt(ext)
		return t, false
	}
	a := d.attr()
	tss := a&x86.AttrS == 0 && (a.Type()&^2 == typeTSS16 || a.Type()&^2 == typeTSS)
	switch {
	case !tss || a&x86.AttrRW != busy:
		return t, c.fail(vector, errSel(sel)|ext)
	case a&x86.AttrP == 0:
		return t, c.fail(x86.NP, errSel(sel)|ext)
	case uint64(d.limit()) < form(a).size-1:
		return t, c.fail(x86.TS, errSel(sel)|ext)
	}
	t = task{seg: d.segment(sel), va: va}
	t.seg.Attr |= x86.AttrRW
	return t, true
}

// switchTask leaves the current task, whose saved state will have rip and flags,
// and loads registers and bare selectors of t (SDM vol. 3A §7.3). false: exc is
// set and nothing changed. After it the new task's loadTask and enterTask are due.
func (c *CPU) switchTask(t *task, cause taskCause, rip, flags uint64, ext uint32) bool {
	old := c.Seg[x86.TR]
	oldVA, ok := c.findDesc(old.Selector, 8)
	if !ok || uint64(old.Limit) < form(old.Attr).size-1 {
		return c.fail(x86.TS, errSel(old.Selector)|ext)
	}
	if !c.asSupervisor(func() bool { return c.probeTasks(t, cause, &old, oldVA) }) {
		return false
	}
	// From here on memory changes, and nothing can fail but by another vCPU's
	// changes to the page tables.
	if cause != taskNested {
		c.lockedSys8(oldVA+5, func(v uint64) uint64 { return v &^ 2 })
	}
	if cause == taskReturn {
		flags &^= x86.FlagNT
	}
	c.saveTask(&old, rip, flags)
	if cause == taskNested {
		c.asSupervisor(func() bool { return c.st16(t.seg.Base, old.Selector) })
	}
	// Only now: an IRET may lead to the task itself.
	var p [104]byte
	f := form(t.seg.Attr)
	if !c.asSupervisor(func() bool { return c.ldBytes(t.seg.Base, p[:f.size]) }) {
		return false
	}
	if cause != taskReturn {
		c.lockedSys8(t.va+5, func(v uint64) uint64 { return v | 2 })
	}
	c.becomeTask(t, f, p[:], cause == taskNested)
	return true
}

// probeTasks makes sure that a switch to t can read and write what it must, and
// reads what could still forbid it.
func (c *CPU) probeTasks(t *task, cause taskCause, old *x86.Segment, oldVA uint64) bool {
	f, of := form(t.seg.Attr), form(old.Attr)
	switch {
	case !c.probeRead(t.seg.Base, f.size),
		cause == taskNested && !c.probeWrite(t.seg.Base, 2),
		cause != taskReturn && !c.probeWrite(t.va+5, 1),
		cause != taskNested && !c.probeWrite(oldVA+5, 1),
		!c.probeWrite(old.Base+of.first, of.saved()):
		return false
	}
	t.cr3 = c.CR3
	if f.width == 4 && c.CR0&x86.CR0PG != 0 {
		v, ok := c.ld32(t.seg.Base + 28)
		if !ok {
			return false
		}
		t.cr3 = uint64(v)
	}
	var ok bool
	if t.cr3 != c.CR3 {
		t.pdpte, ok = c.readPDPTEs(c.CR0, t.cr3, c.CR4, c.EFER)
		return ok
	}
	return true
}

// saveTask writes the registers to the TSS of the task that is left.
func (c *CPU) saveTask(old *x86.Segment, rip, flags uint64) {
	f := form(old.Attr)
	var p [64]byte
	put := func(i int, v uint64) {
		if f.width == 2 {
			binary.LittleEndian.PutUint16(p[2*i:], uint16(v))
		} else {
			binary.LittleEndian.PutUint32(p[4*i:], uint32(v))
		}
	}
	put(0, rip)
	put(1, flags)
	for i := range 8 {
		put(2+i, c.R[i])
	}
	for i := range f.segs {
		put(10+i, uint64(c.Seg[i].Selector))
	}
	c.asSupervisor(func() bool { return c.stBytes(old.Base+f.first, p[:f.saved()]) })
}

// becomeTask loads registers from the image of a TSS. The segment registers
// get their selectors and are unusable: see loadTask.
func (c *CPU) becomeTask(t *task, f tssForm, p []byte, nested bool) {
	c.Seg[x86.TR] = t.seg
	c.CR0 |= x86.CR0TS
	if c.DR[7]&debugLocal != 0 {
		c.setDR(7, c.DR[7]&^debugLocal)
	}
	if t.cr3 != c.CR3 {
		c.CR3, c.sys.mem.regs.PDPTE = t.cr3, t.pdpte
		c.flushTLB(true)
	}
	c.pagingChanged()
	c.RIP = f.item(p, 0)
	for i := range 8 {
		c.R[i] = f.item(p, 2+i)
	}
	for i := range 6 {
		c.Seg[i] = nullSegment(0)
		if i < f.segs {
			c.Seg[i].Selector = uint16(f.item(p, 10+i))
		}
	}
	c.Seg[x86.LDTR] = nullSegment(uint16(f.item(p, 10+f.segs)))
	flags := f.item(p, 1)&flagsInTSS | x86.FlagR1
	if nested {
		flags |= x86.FlagNT
	}
	c.CPL = uint8(c.Seg[x86.CS].Selector & 3)
	if flags&x86.FlagVM != 0 {
		c.CPL = 3
	}
	t.trap = f.width == 4 && p[100]&1 != 0
	c.sys.tf = false // the switch itself is not stepped over: TF belongs to a task
	c.setRFlags(flags)
	c.modeChanged()
}

// loadTask loads LDTR and the segment registers of the task that switchTask made
// current. false: exc is set, to be delivered in the new task with RIP at its
// first instruction; the registers not yet reached stay unusable.
func (c *CPU) loadTask(ext uint32) bool {
	if c.loadTaskLDT() && c.loadTaskSegments() {
		return true
	}
	c.exc.addExt(ext)
	return false
}

func (c *CPU) loadTaskLDT() bool {
	sel := c.Seg[x86.LDTR].Selector
	if sel&^3 == 0 {
		return true
	}
	if sel&4 != 0 {
		return c.fail(x86.TS, errSel(sel))
	}
	d, _, ok := c.readDesc(sel, x86.TS)
	if !ok {
		return false
	}
	if a := d.attr(); a&x86.AttrS != 0 || a.Type() != typeLDT || a&x86.AttrP == 0 {
		return c.fail(x86.TS, errSel(sel))
	}
	c.Seg[x86.LDTR] = d.segment(sel)
	return true
}

func (c *CPU) loadTaskSegments() bool {
	if c.Flags&x86.FlagVM != 0 {
		for i := range 6 {
			c.Seg[i] = c.realSegment(c.Seg[i], c.Seg[i].Selector)
		}
		c.modeChanged()
		return true
	}
	cs, ok := c.taskCode(c.Seg[x86.CS].Selector)
	if !ok {
		return false
	}
	c.Seg[x86.CS] = cs
	c.modeChanged()
	for _, i := range [...]uint8{x86.SS, x86.DS, x86.ES, x86.FS, x86.GS} {
		s := c.Seg[i]
		if i == x86.SS {
			s, ok = c.checkSS(s.Selector, c.CPL, x86.TS, false)
		} else {
			s, ok = c.checkData(s.Selector, c.CPL, x86.TS)
		}
		if !ok {
			return false
		}
		c.setSeg(i, s)
	}
	return true
}

// taskCode loads the code segment of a task, whose RPL is the task's privilege.
func (c *CPU) taskCode(sel uint16) (s x86.Segment, ok bool) {
	if sel&^3 == 0 {
		return s, c.fail(x86.TS, 0)
	}
	d, va, ok := c.readDesc(sel, x86.TS)
	if !ok {
		return s, false
	}
	a, rpl := d.attr(), uint8(sel&3)
	switch {
	case !isCode(a), isConforming(a) && a.DPL() > rpl, !isConforming(a) && a.DPL() != rpl:
		return s, c.fail(x86.TS, errSel(sel))
	case a&x86.AttrP == 0:
		return s, c.fail(x86.NP, errSel(sel))
	}
	if !c.touch(&d, va) {
		return s, false
	}
	return d.segment(sel), true
}

// enterTask makes the last check before the new task's first instruction. The
// run loop delivers the trap of the T flag.
func (c *CPU) enterTask(t *task, ext uint32) bool {
	if c.RIP > uint64(c.Seg[x86.CS].Limit) {
		return c.fail(x86.GP, ext)
	}
	if t.trap {
		c.sys.dr6 |= dr6BT
	}
	return true
}

// transferTask is a task switch by JMP, CALL or IRET.
func (c *CPU) transferTask(t *task, cause taskCause, rip uint64) status {
	if !c.switchTask(t, cause, rip, c.rflags(), 0) || !c.loadTask(0) || !c.enterTask(t, 0) {
		return faulted
	}
	return jumped
}

// injectTask delivers e through a task gate. Once the switch is made, e is one of
// the new task: faults on the way return there.
func (c *CPU) injectTask(e *event, g *gate) bool {
	t, ok := c.openTask(g.selector(), taskNested, e.ext())
	if !ok || !c.switchTask(&t, taskNested, e.rip, e.flags, e.ext()) {
		return false
	}
	e.rip, e.flags = c.RIP, c.rflags()
	if !c.loadTask(e.ext()) {
		return false
	}
	if e.hasError {
		st := c.stack(form(t.seg.Attr).width)
		st.ext = e.ext()
		if !st.push(uint64(e.code)) {
			return false
		}
		st.commit()
	}
	return c.enterTask(&t, e.ext())
}

// returnTask is IRET with NT: back to the task that the current one's link names.
func (c *CPU) returnTask(rip uint64) status {
	sel, ok := c.sys16(c.Seg[x86.TR].Base)
	if !ok {
		return faulted
	}
	t, ok := c.openTask(sel, taskReturn, 0)
	if !ok {
		return faulted
	}
	return c.transferTask(&t, taskReturn, rip)
}
