package interp

//go:generate go run gen_run_unsafe.go

import (
	"errors"
	"sync/atomic"

	"berth/x86"
	"berth/x86/decode"
)

// Run executes the guest until Kick, a triple fault, what SetDebug asks for, or
// something this engine cannot do, and says which.
func (c *CPU) Run() Exit {
	c.beginTurns()
	c.tscMoved() // the clock may have stood still
	c.arrive()
	defer c.depart()
	for {
		if c.debugStop() {
			return c.exit
		}
		if c.trapped() && c.deliverTrap() == stopped {
			return c.exit
		}
		dropped := false
		if p := atomic.LoadUint32(&c.Pending); p != 0 {
			if p&pendCode != 0 {
				c.dropWritten()
				dropped = true
			}
			if c.interrupts() {
				return c.exit
			}
		}
		var st status
		switch {
		case c.trapped():
			continue // Pending has been looked at: a #DB whose delivery meets breakpoints can be stopped
		case c.virtualPending():
			st = faulted
		case c.atBreakpoint():
			continue
		case c.needStep():
			st = c.stepped(c.step())
		case c.debug != nil && c.debug.cut(c.here()):
			st = c.step()
		case dropped:
			// One instruction past the blocks: a vCPU that keeps writing to this page
			// may have the next block dropped as well before it begins.
			st = c.step()
		default:
			st = c.runAhead()
		}
		switch st {
		case faulted:
			if c.debug != nil {
				c.debug.due = false // the instruction will meet its watchpoint again
			}
			st = c.deliver()
		case again:
			c.Flags |= x86.FlagRF // as an interrupt before the next repetition pushes it
		}
		if st == stopped {
			return c.exit
		}
		if c.debug != nil {
			c.debug.ran()
		}
	}
}

// runAhead runs block after block until the run loop has something to decide.
func (c *CPU) runAhead() status {
	if c.translates() {
		return c.runTranslated()
	}
	return c.runBlocks()
}

// translates reports that the code at hand is to be translated.
func (c *CPU) translates() bool {
	return c.tier1 != nil && (c.Mode == decode.Mode64 || c.sys.flat32)
}

// step runs the one instruction at RIP, past any block. RIP moves over it.
func (c *CPU) step() status {
	in := &c.inst
	if st := c.decodeHere(in); st != next {
		return st
	}
	return c.finish(in, c.exec(in))
}

// finish moves RIP past an instruction that ended so.
func (c *CPU) finish(in *decode.Inst, st status) status {
	switch st {
	case next:
		c.RIP += uint64(in.Len)
		if c.Mode != decode.Mode64 {
			c.RIP = uint64(uint32(c.RIP))
		}
		c.Instructions++
	case jumped:
		c.Instructions++
	case faulted:
		c.segmentFault()
	}
	return st
}

// decodeHere decodes the instruction at RIP.
func (c *CPU) decodeHere(in *decode.Inst) status {
	lin, room := c.RIP, uint64(decode.MaxLen)
	if c.Mode != decode.Mode64 {
		limit := uint64(c.Seg[x86.CS].Limit)
		if c.RIP > limit {
			return c.raiseErr(x86.GP, 0)
		}
		if limit != 0xffffffff { // else it is the processor's choice (SDM vol. 3A §5.3): here code wraps
			room = min(room, limit-c.RIP+1)
		}
		lin = uint64(uint32(c.RIP + c.SegBase[x86.CS]))
	}
	_, code, ok := c.fetch(lin)
	if !ok {
		return faulted
	}
	var p [decode.MaxLen]byte
	n := min(copy(p[:], code), int(room))
	err := decode.Decode(p[:n], c.Mode, in)
	if errors.Is(err, decode.ErrTruncated) && n == len(code) && n < int(room) {
		_, code, ok = c.fetch(c.after(lin, uint64(n)))
		if !ok {
			return faulted
		}
		n = min(n+copy(p[n:], code), int(room))
		err = decode.Decode(p[:n], c.Mode, in)
	}
	switch {
	case err == nil:
		return next
	case errors.Is(err, decode.ErrTruncated):
		if len(code) == 0 {
			return c.unimplementedText("executing code outside memory")
		}
		return c.raiseErr(x86.GP, 0)
	}
	return c.raiseDecode(x86.UD)
}

// raiseDecode raises the fault of bytes that are no instruction: #UD, or #GP(0)
// for one that is too long.
func (c *CPU) raiseDecode(vector uint8) status {
	if vector == x86.GP {
		return c.raiseErr(x86.GP, 0)
	}
	return c.raise(vector)
}

// segmentFault makes the #GP of a non-canonical memory operand #SS if it went
// through SS. The instruction at RIP has faulted.
func (c *CPU) segmentFault() {
	if !c.exc.nonCanonical {
		return
	}
	c.exc.nonCanonical = false
	exc := c.exc
	var in decode.Inst
	st := c.decodeHere(&in)
	c.exc = exc
	if st == next && in.Mem && in.Seg == x86.SS {
		c.exc.vector = x86.SSFault
	}
}
