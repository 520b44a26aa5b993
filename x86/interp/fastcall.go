package interp

import (
	"berth/x86"
	"berth/x86/decode"
)

// flatSegment is a 4 GiB segment as SYSCALL and its kin load it, without a descriptor.
func flatSegment(sel uint16, attr x86.Attr, dpl uint8) x86.Segment {
	return x86.Segment{
		Selector: sel,
		Limit:    0xffffffff,
		Attr:     attr | x86.AttrP | x86.AttrS | x86.AttrRW | x86.AttrAccessed | x86.AttrG | x86.Attr(dpl)<<5,
	}
}

const (
	flatCode64 = x86.AttrCode | x86.AttrL
	flatCode32 = x86.AttrCode | x86.AttrDB
	flatData   = x86.AttrDB
)

// enterFlat switches to the flat segments of a fast system call or return.
func (c *CPU) enterFlat(cs, ss uint16, code x86.Attr, cpl uint8, rip uint64) status {
	c.Seg[x86.SS] = flatSegment(ss, flatData, cpl)
	c.CPL = cpl
	c.setCS(flatSegment(cs, code, cpl), rip)
	return jumped
}

// syscall is SYSCALL (SDM vol. 2): 64-bit mode only, as on Intel's processors.
func (c *CPU) syscall(in *decode.Inst) status {
	if c.Mode != decode.Mode64 || c.EFER&x86.EFERSCE == 0 {
		return c.raise(x86.UD)
	}
	flags := c.rflags()
	c.R[x86.RCX] = c.nextRIP(in)
	c.R[x86.R11] = flags &^ x86.FlagRF
	sel := uint16(c.Frame.STAR>>32) &^ 3
	c.sys.noStep = true
	c.setRFlags(flags &^ (c.Frame.FMASK | x86.FlagRF))
	return c.enterFlat(sel, sel+8, flatCode64, 0, c.Frame.LSTAR)
}

// sysret is SYSRET. A non-canonical RCX faults before the privilege drops. A TF
// that it loads traps at its target already, as if the system call had been
// stepped: SYSCALL's own trap, which a mask of TF keeps from the kernel.
func (c *CPU) sysret(in *decode.Inst) status {
	if c.Mode != decode.Mode64 || c.EFER&x86.EFERSCE == 0 {
		return c.raise(x86.UD)
	}
	rip := c.R[x86.RCX]
	if c.CPL != 0 || in.OpSize == 8 && !c.canonical(rip) {
		return c.raiseErr(x86.GP, 0)
	}
	sel := uint16(c.Frame.STAR >> 48)
	c.setRFlags(c.R[x86.R11] & 0x3c7fd7)
	if c.Flags&x86.FlagTF != 0 {
		c.sys.dr6 |= dr6BS
	}
	if in.OpSize == 8 {
		return c.enterFlat((sel+16)|3, (sel+8)|3, flatCode64, 3, rip)
	}
	return c.enterFlat(sel|3, (sel+8)|3, flatCode32, 3, uint64(uint32(rip)))
}

// sysenter is SYSENTER (SDM vol. 2).
func (c *CPU) sysenter() status {
	m := &c.sys.msrs
	if c.CR0&x86.CR0PE == 0 || uint16(m.sysenterCS)&^3 == 0 {
		return c.raiseErr(x86.GP, 0)
	}
	sel := uint16(m.sysenterCS) &^ 3
	c.setRFlags(c.rflags() &^ (x86.FlagVM | x86.FlagIF))
	if c.longMode() {
		c.R[x86.RSP] = m.sysenterESP
		return c.enterFlat(sel, sel+8, flatCode64, 0, m.sysenterEIP)
	}
	c.R[x86.RSP] = uint64(uint32(m.sysenterESP))
	return c.enterFlat(sel, sel+8, flatCode32, 0, uint64(uint32(m.sysenterEIP)))
}

// sysexit is SYSEXIT.
func (c *CPU) sysexit(in *decode.Inst) status {
	sel := uint16(c.sys.msrs.sysenterCS) &^ 3
	if c.CR0&x86.CR0PE == 0 || sel == 0 {
		return c.raiseErr(x86.GP, 0)
	}
	rip, rsp := c.R[x86.RDX], c.R[x86.RCX]
	if in.OpSize == 8 {
		if !c.canonical(rip) || !c.canonical(rsp) {
			return c.raiseErr(x86.GP, 0)
		}
		c.R[x86.RSP] = rsp
		return c.enterFlat((sel+32)|3, (sel+40)|3, flatCode64, 3, rip)
	}
	c.R[x86.RSP] = uint64(uint32(rsp))
	return c.enterFlat((sel+16)|3, (sel+24)|3, flatCode32, 3, uint64(uint32(rip)))
}
