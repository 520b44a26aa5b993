package interp

import (
	"berth/x86"
	"berth/x86/decode"
	"berth/x86/optab"
)

// stackSize is the width of the stack pointer in bytes.
func (c *CPU) stackSize() uint8 {
	switch {
	case c.Mode == decode.Mode64:
		return 8
	case c.Seg[x86.SS].Attr&x86.AttrDB != 0:
		return 4
	}
	return 2
}

// stackOffset returns RSP + delta as the stack's width wraps it.
func (c *CPU) stackOffset(delta uint64) uint64 {
	return truncate(c.R[x86.RSP]+delta, c.stackSize())
}

// setRSP sets as much of RSP as the stack's width covers.
func (c *CPU) setRSP(v uint64) {
	if c.stackSize() == 2 {
		c.R[x86.RSP] = c.R[x86.RSP]&^0xffff | v&0xffff
		return
	}
	c.R[x86.RSP] = truncate(v, c.stackSize())
}

// stackFault makes a non-canonical stack address #SS(0).
func (c *CPU) stackFault() {
	if c.exc.nonCanonical {
		c.exc.vector, c.exc.nonCanonical = x86.SSFault, false
	}
}

// stackLoad reads size bytes at off in SS.
func (c *CPU) stackLoad(off uint64, size uint8) (uint64, bool) {
	va, ok := c.addr(x86.SS, off, size, false)
	if !ok {
		return 0, false
	}
	v, ok := c.load(va, size)
	if !ok {
		c.stackFault()
	}
	return v, ok
}

// stackStore writes size bytes at off in SS.
func (c *CPU) stackStore(off, v uint64, size uint8) bool {
	va, ok := c.addr(x86.SS, off, size, true)
	if !ok {
		return false
	}
	if !c.store(va, v, size) {
		c.stackFault()
		return false
	}
	return true
}

// push stores v below the stack pointer and moves it; false: exc is set and
// nothing changed.
func (c *CPU) push(v uint64, size uint8) bool {
	sp := c.stackOffset(-uint64(size))
	if !c.stackStore(sp, v, size) {
		return false
	}
	c.setRSP(sp)
	return true
}

// top reads the value on top of the stack and leaves it there.
func (c *CPU) top(size uint8) (uint64, bool) { return c.stackLoad(c.stackOffset(0), size) }

// discard moves the stack pointer past n bytes.
func (c *CPU) discard(n uint64) { c.setRSP(c.stackOffset(n)) }

// stackOp is the instructions that push and pop.
func (c *CPU) stackOp(in *decode.Inst) status {
	switch in.Op {
	case optab.PUSH:
		v, ok := c.read(in, 0)
		return done(ok && c.push(v, in.OpSize))
	case optab.POP:
		return c.pop(in)
	case optab.PUSHA:
		return c.pusha(in)
	case optab.POPA:
		return c.popa(in)
	case optab.PUSHF:
		return c.pushf(in)
	case optab.POPF:
		return c.popf(in)
	case optab.PUSHSEG:
		return done(c.push(uint64(c.Seg[segArg(in)].Selector), in.OpSize))
	case optab.POPSEG:
		return c.popSeg(in)
	case optab.ENTER:
		return c.enter(in)
	default:
		return c.leave(in)
	}
}

// segArg returns the segment register that PUSHSEG or POPSEG names.
func segArg(in *decode.Inst) uint8 {
	switch in.Row.Args[0] {
	case optab.SegES:
		return x86.ES
	case optab.SegCS:
		return x86.CS
	case optab.SegSS:
		return x86.SS
	case optab.SegDS:
		return x86.DS
	case optab.SegFS:
		return x86.FS
	}
	return x86.GS
}

// pop is POP. A memory destination based on RSP sees the pointer already moved.
func (c *CPU) pop(in *decode.Inst) status {
	v, ok := c.top(in.OpSize)
	if !ok {
		return faulted
	}
	old := c.R[x86.RSP]
	c.discard(uint64(in.OpSize))
	if !c.write(in, 0, v) {
		c.R[x86.RSP] = old
		return faulted
	}
	return next
}

func (c *CPU) popSeg(in *decode.Inst) status {
	v, ok := c.top(in.OpSize)
	if !ok {
		return faulted
	}
	size, seg := in.OpSize, segArg(in)
	old := c.R[x86.RSP]
	c.discard(uint64(size))
	if c.loadSeg(seg, uint16(v)) {
		if seg == x86.SS {
			c.setShadow(shadowMovSS, in)
		}
		return next
	}
	c.R[x86.RSP] = old
	return faulted
}

func (c *CPU) pusha(in *decode.Inst) status {
	size := in.OpSize
	if sp := c.stackOffset(0); !c.protected() && sp&1 != 0 && sp >= 7 && sp <= 15 {
		return c.raiseErr(x86.GP, 0) // not #SS: SDM vol. 2, PUSHA
	}
	for i := range uint8(8) { // all or nothing: the lowest is checked by the first pass
		off := c.stackOffset(-uint64(size) * uint64(i+1))
		va, ok := c.addr(x86.SS, off, size, true)
		if !ok || !c.probeWrite(va, uint64(size)) {
			return faulted
		}
	}
	for i := range uint8(8) {
		off := c.stackOffset(-uint64(size) * uint64(i+1))
		if !c.stackStore(off, truncate(c.R[i], size), size) {
			return faulted
		}
	}
	c.setRSP(c.stackOffset(-uint64(size) * 8))
	return next
}

func (c *CPU) popa(in *decode.Inst) status {
	size := in.OpSize
	var v [8]uint64
	for i := range uint8(8) {
		var ok bool
		if v[7-i], ok = c.stackLoad(c.stackOffset(uint64(size)*uint64(i)), size); !ok {
			return faulted
		}
	}
	c.discard(uint64(size) * 8)
	for i := range uint8(8) {
		if i != x86.RSP {
			c.setReg(in, i, size, v[i])
		}
	}
	return next
}

// pushf is PUSHF. RF and VM read as 0 on the stack.
func (c *CPU) pushf(in *decode.Inst) status {
	v := c.rflags() &^ (x86.FlagVM | x86.FlagRF)
	if c.virtual86() {
		if c.CR4&x86.CR4VME == 0 || in.OpSize != 2 {
			return c.raiseErr(x86.GP, 0)
		}
		v = virtualImage(v)
	}
	return done(c.push(v, in.OpSize))
}

// popf is POPF: what it may change depends on CPL, IOPL and virtual-8086 mode
// (Intel SDM vol. 2, POPF).
func (c *CPU) popf(in *decode.Inst) status {
	v86 := c.virtual86()
	if v86 && (c.CR4&x86.CR4VME == 0 || in.OpSize != 2) {
		return c.raiseErr(x86.GP, 0)
	}
	v, ok := c.top(in.OpSize)
	if !ok {
		return faulted
	}
	mask := uint64(statusFlags | x86.FlagTF | x86.FlagDF | x86.FlagNT)
	if in.OpSize > 2 {
		mask |= x86.FlagAC | x86.FlagID
	}
	old := c.rflags()
	switch {
	case v86:
		if c.refusesFlags(v) {
			return c.raiseErr(x86.GP, 0)
		}
		mask |= x86.FlagVIF
		v = fromVirtualImage(v)
	case c.CPL == 0 && c.Flags&x86.FlagVM == 0:
		mask |= x86.FlagIOPL | x86.FlagIF
	case uint64(c.CPL) <= c.Flags>>12&3 || c.Flags&x86.FlagVM != 0:
		mask |= x86.FlagIF
	}
	c.discard(uint64(in.OpSize))
	c.setRFlags((old&^mask | v&mask) &^ x86.FlagRF)
	return next
}

// enter is ENTER with nesting levels.
func (c *CPU) enter(in *decode.Inst) status {
	size, level := in.OpSize, uint8(in.Imm2&31)
	step := uint64(size)
	off := c.stackOffset(-step)
	if !c.stackStore(off, truncate(c.R[x86.RBP], size), size) {
		return faulted
	}
	frame := off
	for i := uint8(1); i < level; i++ {
		v, ok := c.stackLoad(truncate(c.R[x86.RBP]-step*uint64(i), c.stackSize()), size)
		if !ok {
			return faulted
		}
		off = truncate(off-step, c.stackSize())
		if !c.stackStore(off, v, size) {
			return faulted
		}
	}
	if level > 0 {
		off = truncate(off-step, c.stackSize())
		if !c.stackStore(off, truncate(frame, size), size) {
			return faulted
		}
	}
	off = truncate(off-in.Imm&0xffff, c.stackSize())
	va, ok := c.addr(x86.SS, off, size, true)
	// The final stack top must be writable, and aligned for the operand size (seen on AMD Zen 3).
	if !ok || !c.probeWrite(va, 1) || !c.aligned(va, uint64(size)) {
		c.stackFault()
		return faulted
	}
	c.setReg(in, x86.RBP, size, frame)
	c.setRSP(off)
	return next
}

// leave is LEAVE.
func (c *CPU) leave(in *decode.Inst) status {
	size := in.OpSize
	bp := truncate(c.R[x86.RBP], c.stackSize())
	v, ok := c.stackLoad(bp, size)
	if !ok {
		return faulted
	}
	c.setRSP(bp)
	c.discard(uint64(size))
	c.setReg(in, x86.RBP, size, v)
	return next
}
