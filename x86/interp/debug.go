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
// change of TF, RF and DR7.
func (c *CPU) updateStepping() {
	armed := c.DR[7]&0xff != 0
	c.sys.stepping = armed || c.Flags&x86.FlagTF != 0
	if !armed {
		// Nothing looks at RF: it need not be cleared after the next instruction.
		c.Flags &^= x86.FlagRF
	}
	if c.sys.stepping {
		c.post(pendDebug)
	}
}

// needStep reports that the next instruction must run by itself: an interrupt
// shadow covers it, TF is set, or breakpoints are armed. The run loop asks
// whenever it left straight-line execution, after interrupts.
func (c *CPU) needStep() bool {
	s := &c.sys
	covered := c.inShadow() != shadowNone
	s.shadow = shadowNone
	if !covered && !s.stepping {
		return false
	}
	s.tf = c.Flags&x86.FlagTF != 0
	s.noStep = false
	c.Flags &^= x86.FlagRF // it has done its work; an IRET may set it again
	return true
}

// stepped is told how the one instruction that followed needStep ended. It
// raises the single-step or breakpoint trap and delivers it itself, with RIP
// past the instruction: jumped then, or stopped; else it returns st.
func (c *CPU) stepped(st status) status {
	if st == faulted || st == stopped {
		return st
	}
	if st == again && c.sys.mp != x86.MPRunnable {
		return st // waiting for an interrupt, it has done nothing: see raiseX87
	}
	if st == again {
		c.Flags |= x86.FlagRF // the rest of a repetition meets no breakpoint again
	}
	if c.inShadow() == shadowMovSS {
		return st
	}
	if c.sys.tf && (!c.sys.noStep || c.Flags&x86.FlagTF != 0) {
		c.sys.dr6 |= dr6BS
	}
	if c.sys.dr6 == 0 {
		return st
	}
	c.raise(x86.DB)
	return c.deliver()
}

// codeBreak reports an enabled instruction breakpoint at RIP and notes it for DR6.
func (c *CPU) codeBreak() bool {
	if c.DR[7]&0xff == 0 || c.Flags&x86.FlagRF != 0 {
		return false
	}
	va := c.SegBase[x86.CS] + c.RIP
	hit := uint64(0)
	for i := range 4 {
		if kind, _, on := c.breakpoint(i); on && kind == watchFetch && c.DR[i] == va {
			hit |= 1 << i
		}
	}
	c.sys.dr6 |= hit
	return hit != 0
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

// commitDR6 moves the causes of a #DB to DR6 as it is delivered.
func (c *CPU) commitDR6() {
	if c.sys.dr6&0xf != 0 {
		c.DR[6] &^= 0xf
	}
	c.DR[6] |= c.sys.dr6
	c.sys.dr6 = 0
	c.DR[7] &^= dr7GD
}

// movDR is MOV to and from a debug register.
func (c *CPU) movDR(in *decode.Inst) status {
	n := in.Reg
	switch {
	case n > 7, n&^1 == 4 && c.CR4&x86.CR4DE != 0:
		return c.raise(x86.UD)
	case c.DR[7]&dr7GD != 0:
		c.sys.dr6 |= dr6BD
		return c.raise(x86.DB)
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
