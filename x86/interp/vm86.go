package interp

import (
	"berth/x86"
	"berth/x86/decode"
	"berth/x86/optab"
)

// Virtual-8086 mode and virtual interrupts (Intel SDM vol. 3B chapter 20). With
// CR4.VME a program in virtual-8086 mode below IOPL 3, and with CR4.PVI one at
// CPL 3, has VIF where it believes to have IF.

// virtual86 reports that IOPL-sensitive instructions must be trapped: virtual-8086 mode below IOPL 3.
func (c *CPU) virtual86() bool {
	return c.Flags&x86.FlagVM != 0 && c.Flags&x86.FlagIOPL != x86.FlagIOPL
}

// virtualImage makes FLAGS for the program out of the real flags.
func virtualImage(flags uint64) uint64 {
	return flags&^x86.FlagIF | flags>>19&1<<9 | x86.FlagIOPL
}

// fromVirtualImage is the other way: IF moves to VIF.
func fromVirtualImage(image uint64) uint64 { return image&^x86.FlagVIF | image>>9&1<<19 }

// refusesFlags reports that the program may not load such FLAGS: they would
// enable an interrupt that is pending, or single-step it.
func (c *CPU) refusesFlags(image uint64) bool {
	return image&x86.FlagTF != 0 || image&x86.FlagIF != 0 && c.Flags&x86.FlagVIP != 0
}

// hasVIF reports that virtual interrupts are in use here.
func (c *CPU) hasVIF() bool {
	if c.CPL <= c.iopl() {
		return false
	}
	if c.Flags&x86.FlagVM != 0 {
		return c.CR4&x86.CR4VME != 0
	}
	return c.CPL == 3 && c.CR4&x86.CR4PVI != 0
}

// setVIF is CLI and STI where IF may not be changed.
func (c *CPU) setVIF(in *decode.Inst) status {
	switch {
	case !c.hasVIF(), in.Op == optab.STI && c.Flags&x86.FlagVIP != 0:
		return c.raiseErr(x86.GP, 0)
	case in.Op == optab.CLI:
		c.Flags &^= x86.FlagVIF
	default:
		c.Flags |= x86.FlagVIF
	}
	return next
}

// virtualPending raises #GP(0) in place of the instruction at RIP if it would
// begin with a virtual interrupt both enabled and pending (§20.3.2).
func (c *CPU) virtualPending() bool {
	const both = x86.FlagVIF | x86.FlagVIP
	if c.Flags&both != both || !c.hasVIF() {
		return false
	}
	c.raiseErr(x86.GP, 0)
	return true
}

// virtualInt is INT n in virtual-8086 mode (§20.3.3, table 20-2).
func (c *CPU) virtualInt(e *event) status {
	if c.CR4&x86.CR4VME != 0 {
		own, ok := c.redirected(e.vector)
		if !ok {
			return faulted
		}
		if own {
			c.sys.noStep = true
			if c.iopl() == 3 {
				return jumpedIf(c.enter8086(e, 0, e.flags, x86.FlagIF))
			}
			return jumpedIf(c.enter8086(e, 0, virtualImage(e.flags), x86.FlagVIF))
		}
	}
	if c.iopl() != 3 {
		return c.raiseErr(x86.GP, 0)
	}
	return jumpedIf(c.inject(e))
}

// redirected reads the interrupt redirection bitmap, 32 bytes that end where the
// I/O permission bitmap begins: own is true if the program handles vector itself.
func (c *CPU) redirected(vector uint8) (own, ok bool) {
	base, ok := c.ioMap()
	if !ok {
		return false, false
	}
	off := base - 32 + uint64(vector)/8
	if base < 32 || off > uint64(c.Seg[x86.TR].Limit) {
		return false, c.fail(x86.GP, 0)
	}
	var v uint8
	ok = c.asSupervisor(func() bool {
		v, ok = c.ld8(c.Seg[x86.TR].Base + off)
		return ok
	})
	return v>>(vector%8)&1 == 0, ok
}

// iretVME is IRET below IOPL 3 in virtual-8086 mode.
func (c *CPU) iretVME(in *decode.Inst) status {
	if c.CR4&x86.CR4VME == 0 || in.OpSize != 2 {
		return c.raiseErr(x86.GP, 0)
	}
	st := c.stack(2)
	var ip, cs, image uint64
	if !st.popAll(&ip, &cs, &image) {
		return faulted
	}
	if c.refusesFlags(image) {
		return c.raiseErr(x86.GP, 0)
	}
	const mask = statusFlags | x86.FlagTF | x86.FlagDF | x86.FlagNT | x86.FlagVIF
	st.commit()
	c.setRFlags(c.rflags()&^mask | fromVirtualImage(image)&mask)
	c.setCS(c.realSegment(c.Seg[x86.CS], uint16(cs)), ip)
	return jumped
}

// iretVM86 enters virtual-8086 mode (Intel SDM vol. 3B §20.2.5).
func (c *CPU) iretVM86(st *pusher, rip uint64, cs uint16, flags uint64) status {
	var sp, ss, es, ds, fs, gs uint64
	if !st.popAll(&sp, &ss, &es, &ds, &fs, &gs) {
		return faulted
	}
	if rip > 0xffff {
		return c.raiseErr(x86.GP, 0)
	}
	const mask = statusFlags | x86.FlagTF | x86.FlagIF | x86.FlagDF | x86.FlagIOPL | x86.FlagNT |
		x86.FlagRF | x86.FlagVM | x86.FlagAC | x86.FlagVIF | x86.FlagVIP | x86.FlagID
	c.setRFlags(c.rflags()&^mask | flags&mask)
	for seg, sel := range [6]uint16{uint16(es), cs, uint16(ss), uint16(ds), uint16(fs), uint16(gs)} {
		c.Seg[seg] = c.realSegment(x86.Segment{}, sel)
	}
	c.CPL = 3
	c.R[x86.RSP] = sp
	c.RIP = rip
	c.modeChanged()
	return jumped
}
