package interp

import (
	"berth/x86"
	"berth/x86/decode"
	"berth/x86/optab"
)

// Bits of DR6 and DR7 (Intel SDM vol. 3B §17.2).
const (
	dr6BD    = 1 << 13
	dr6BS    = 1 << 14
	dr6BT    = 1 << 15
	dr6Reset = 0xffff0ff0
	dr6Bits  = 0xf | dr6BD | dr6BS | dr6BT

	dr7GD    = 1 << 13
	dr7Reset = 1 << 10
	dr7Bits  = 0xffff23ff // those that can be written
)

// What a breakpoint watches: R/W of DR7.
const (
	watchFetch = iota
	watchWrite
	watchPorts
	watchAccess
)

// breakpoint returns breakpoint i of DR7.
func (c *CPU) breakpoint(i int) (kind uint8, n uint64, enabled bool) {
	dr7 := c.DR[7]
	kind = uint8(dr7>>(16+4*i)) & 3
	n = [...]uint64{1, 2, 8, 4}[dr7>>(18+4*i)&3]
	return kind, n, dr7>>(2*i)&3 != 0
}

// updateStepping decides whether instructions run one by one; it follows every
// change of TF, RF, DR7 and the debugger's wishes.
func (c *CPU) updateStepping() {
	armed := c.DR[7]&0xff != 0
	c.sys.stepping = armed || c.Flags&x86.FlagTF != 0 || c.debug != nil && c.debug.Step
	if !armed {
		// Nothing looks at RF: it need not be cleared after the next instruction.
		c.Flags &^= x86.FlagRF
	}
	if c.sys.stepping {
		c.post(pendDebug)
	}
}

// needStep reports that the next instruction must run by itself: an interrupt
// shadow covers it, TF is set, breakpoints are armed, or a debugger wants it. The run loop asks
// whenever it left straight-line execution, after interrupts.
func (c *CPU) needStep() bool {
	s := &c.sys
	covered := c.inShadow() != shadowNone
	s.shadow = shadowNone
	c.Flags &^= x86.FlagRF // it has done its work; an IRET may set it again
	if !covered && !s.stepping && !c.watchesAll() {
		return false
	}
	s.tf = c.Flags&x86.FlagTF != 0
	s.noStep = false
	s.heldDR6 = s.dr6
	return true
}

// stepped is told how the one instruction that followed needStep ended, and notes
// the single-step trap. What breakpoints an instruction met before it faulted it
// will meet again.
func (c *CPU) stepped(st status) status {
	s := &c.sys
	switch {
	case st == faulted:
		s.dr6 = s.heldDR6
		return st
	case st == stopped, st == again && s.mp != x86.MPRunnable: // see raiseX87
		return st
	}
	step := s.tf && (!s.noStep || c.Flags&x86.FlagTF != 0) && c.inShadow() != shadowMovSS
	if step && (st == jumped || s.msrs.debugCtl&debugBTF == 0) {
		s.dr6 |= dr6BS
	}
	return st
}

// trapped reports that a debug trap is due before anything else: an instruction
// met breakpoints or was single-stepped, or the delivery of an event met some.
// MOV SS and POP SS put it off by one instruction (Intel SDM vol. 3A §6.8.3).
func (c *CPU) trapped() bool { return c.sys.dr6 != 0 && c.inShadow() != shadowMovSS }

// deliverTrap delivers it. It ends a HLT.
func (c *CPU) deliverTrap() status {
	c.sys.mp = x86.MPRunnable
	c.raise(x86.DB)
	return c.deliver()
}

// codeBreak raises the fault of an enabled instruction breakpoint at RIP, and
// reports whether there is one.
func (c *CPU) codeBreak() bool {
	if c.DR[7]&0xff == 0 || c.Flags&x86.FlagRF != 0 {
		return false
	}
	va := c.linear(c.SegBase[x86.CS] + c.RIP)
	hit := uint64(0)
	for i := range 4 {
		if kind, _, on := c.breakpoint(i); on && kind == watchFetch && c.DR[i] == va {
			hit |= 1 << i
		}
	}
	if hit == 0 {
		return false
	}
	c.exc = exception{vector: x86.DB, dr6: hit}
	return true
}

// watched reports whether data breakpoints exist on the page: it then stays out of the TLB.
func (c *CPU) watched(page uint64) bool {
	for i := range 4 {
		if kind, _, on := c.breakpoint(i); on && kind&1 != 0 && c.DR[i]&pageMask == page {
			return true
		}
	}
	return false
}

// watchData notes the data breakpoints that an access meets; the trap follows the instruction.
func (c *CPU) watchData(va, size uint64, write bool) {
	for i := range 4 {
		kind, n, on := c.breakpoint(i)
		if !on || kind&1 == 0 || kind == watchWrite && !write {
			continue
		}
		if at := c.DR[i] &^ (n - 1); at < va+size && va < at+n {
			c.sys.dr6 |= 1 << i
		}
	}
}

// watchPort does the same for I/O breakpoints.
func (c *CPU) watchPort(port uint16, size uint8) {
	if c.DR[7]&0xff == 0 || c.CR4&x86.CR4DE == 0 {
		return
	}
	for i := range 4 {
		kind, n, on := c.breakpoint(i)
		at := c.DR[i] &^ (n - 1)
		if on && kind == watchPorts && at < uint64(port)+uint64(size) && uint64(port) < at+n {
			c.sys.dr6 |= 1 << i
		}
	}
}

// commitDR6 moves the causes of a #DB, its own and those of a trap that is due,
// to DR6 as it is delivered.
func (c *CPU) commitDR6(causes uint64) {
	c.DR[6] = dr6With(c.DR[6], causes|c.sys.dr6)
	c.sys.dr6 = 0
	c.DR[7] &^= dr7GD
	c.sys.msrs.debugCtl &^= debugBTF
}

// dr6With returns DR6 with causes; breakpoints displace earlier ones, the other
// bits are software's to clear.
func dr6With(dr6, causes uint64) uint64 {
	if causes&0xf != 0 {
		dr6 &^= 0xf
	}
	return dr6 | causes
}

// movDR is MOV to and from a debug register.
func (c *CPU) movDR(in *decode.Inst) status {
	n := in.Reg
	switch {
	case n > 7, n&^1 == 4 && c.CR4&x86.CR4DE != 0:
		return c.raise(x86.UD)
	case c.DR[7]&dr7GD != 0:
		c.exc = exception{vector: x86.DB, dr6: dr6BD}
		return faulted
	case n == 4 || n == 5:
		n += 2
	}
	if in.Row.Args[0] != optab.Dd {
		c.setReg(in, in.RM, crSize(in), c.DR[n])
		return next
	}
	v := c.reg(in, in.RM, crSize(in))
	if n >= 6 && v>>32 != 0 {
		return c.raiseErr(x86.GP, 0)
	}
	switch n {
	case 6:
		v = v&dr6Bits | dr6Reset
	case 7:
		v = v&dr7Bits | dr7Reset
	}
	c.setDR(n, v)
	return next
}

func (c *CPU) setDR(n uint8, v uint64) {
	c.DR[n] = v
	c.updateStepping()
	c.flushTLB(false) // watched pages leave the TLB, others come back
}
