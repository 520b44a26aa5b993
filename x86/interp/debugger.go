package interp

import "berth/x86"

// debugger is what a debugger has the vCPU stop for. The guest's own breakpoints
// (debug.go) work beside it.
//
// Instructions run one by one for a step, and for watchpoints where code is not
// translated. Pages with watchpoints stay out of the TLB, so that every access to
// them comes by watchAccess. No block begins or goes on at a cut, where the run
// loop runs one instruction: it has then looked for a breakpoint there.
type debugger struct {
	x86.Debug
	cuts [pageSize / 64]uint64 // offsets in pages, a bit each, where breakpoints are or were
	stop x86.Stop
	due  bool // stop is to be reported
}

// SetDebug replaces what Run returns Debug for; the zero x86.Debug is nothing.
// Only the vCPU's thread, outside Run.
func (c *CPU) SetDebug(d x86.Debug) {
	watched := len(d.Watchpoints) > 0
	var now *debugger
	if d.Any() {
		now = &debugger{Debug: d}
	}
	if old := c.debug; old != nil {
		watched = watched || len(old.Watchpoints) > 0
		if now != nil {
			now.cuts = old.cuts // blocks are cut there
		}
	}
	c.debug = now
	for _, b := range d.Breakpoints {
		if off := b.Addr % pageSize; !now.cut(off) {
			now.cuts[off/64] |= 1 << (off % 64)
			c.dropBlocksOver(uint16(off))
		}
	}
	c.updateStepping()
	if watched {
		c.flushTLB(false)
	}
}

// dropBlocksOver removes the blocks that reach over an offset in their page.
func (c *CPU) dropBlocksOver(off uint16) {
	for _, b := range c.blocks.byKey {
		if b.off <= off && off < b.end {
			c.removeBlock(b)
		}
	}
}

// cut reports that off is where no block may begin or go on.
func (d *debugger) cut(off uint64) bool {
	return d != nil && d.cuts[off%pageSize/64]>>(off%64)&1 != 0
}

// uncut returns the part of code, which is at lin, that a block may have.
func (d *debugger) uncut(lin uint64, code []byte) []byte {
	if d == nil {
		return code
	}
	for i := 1; i < len(code); i++ {
		if d.cut(lin + uint64(i)) {
			return code[:i]
		}
	}
	return code
}

// here is the linear address of the next instruction.
func (c *CPU) here() uint64 { return c.linear(c.SegBase[x86.CS] + c.RIP) }

// atBreakpoint reports that Run is to stop before the instruction at RIP, and
// makes that the stop. RF, which is set between two repetitions of a string
// instruction, goes past it.
func (c *CPU) atBreakpoint() bool {
	d := c.debug
	if d == nil || c.Flags&x86.FlagRF != 0 || !d.cut(c.here()) {
		return false
	}
	for _, b := range d.Breakpoints {
		if b.Addr == c.here() {
			d.stop, d.due = x86.Stop{Kind: x86.StopBreakpoint, Breakpoint: b}, true
			return true
		}
	}
	return false
}

// watched reports whether a page, which then stays out of the TLB, has watchpoints.
func (d *debugger) watched(page uint64) bool {
	for _, w := range d.Watchpoints {
		if w.Addr < page+pageSize && page < w.Addr+w.Len {
			return true
		}
	}
	return false
}

// access notes the watchpoint that an access meets: Run stops behind the instruction.
func (d *debugger) access(va, n uint64, write bool) {
	kind := x86.WatchRead
	if write {
		kind = x86.WatchWrite
	}
	for _, w := range d.Watchpoints {
		if !d.due && w.Kind&kind != 0 && va < w.Addr+w.Len && w.Addr < va+n {
			d.stop, d.due = x86.Stop{Kind: x86.StopWatchpoint, Watchpoint: w}, true
		}
	}
}

// watchesAll reports that each instruction may meet a watchpoint: blocks of
// micro-ops do not look whether one did.
func (c *CPU) watchesAll() bool {
	return c.debug != nil && len(c.debug.Watchpoints) > 0 && !c.translates()
}

// debugStop reports that Run is to return now, between two instructions.
func (c *CPU) debugStop() bool {
	d := c.debug
	if d == nil || !d.due {
		return false
	}
	d.due = false
	c.exit = Exit{Reason: Debug, Stop: d.stop}
	return true
}

// ran notes that an instruction has run, or its exception was delivered.
func (d *debugger) ran() {
	if d.Step && !d.due {
		d.stop, d.due = x86.Stop{Kind: x86.StopStep}, true
	}
}

// holds reports that interrupts wait for a step to end.
func (c *CPU) holds() bool { return c.debug != nil && c.debug.Step && c.debug.Hold }

// wakeHeld ends a halt, while interrupts wait, for what would have ended it; that
// goes on waiting.
func (c *CPU) wakeHeld(p uint32) {
	switch {
	case c.sys.mp != x86.MPHalted:
	case p&pendNMI != 0 && !c.sys.nmiMasked:
		c.sys.mp = x86.MPRunnable
	case p&pendNMI != 0:
		c.take(pendNMI)
		c.sys.nmi = true
	case p&pendIntr != 0:
		c.take(pendIntr)
		c.Frame.Blocked = true
		if c.Flags&x86.FlagIF != 0 && c.cfg.APIC.Deliverable() {
			c.post(pendIntr)
			c.sys.mp = x86.MPRunnable
		}
	}
}
