package interp

import (
	"berth/x86"
	"berth/x86/decode"
	"berth/x86/mmu"
	"berth/x86/optab"
)

// CR4 bits that this CPU has.
const cr4Supported = x86.CR4VME | x86.CR4PVI | x86.CR4TSD | x86.CR4DE | x86.CR4PSE | x86.CR4PAE | x86.CR4MCE | x86.CR4PGE | x86.CR4PCE |
	x86.CR4OSFXSR | x86.CR4OSXMMEXCPT | x86.CR4UMIP | x86.CR4FSGSBASE | x86.CR4PCIDE | x86.CR4OSXSAVE |
	x86.CR4SMEP | x86.CR4SMAP

// CR0 bits that can change; ET is always set.
const cr0Writable = x86.CR0PE | x86.CR0MP | x86.CR0EM | x86.CR0TS | x86.CR0NE | x86.CR0WP | x86.CR0AM |
	x86.CR0NW | x86.CR0CD | x86.CR0PG

// pagingChanged refreshes the copy of the registers that walks use.
func (c *CPU) pagingChanged() {
	r := &c.sys.mem.regs
	r.CR0, r.CR3, r.CR4, r.EFER = c.CR0, c.CR3, c.CR4, c.EFER
}

// movCR is MOV to and from a control register.
func (c *CPU) movCR(in *decode.Inst) status {
	if in.Row.Args[0] != optab.Cd {
		var v uint64
		switch in.Reg {
		case 0:
			v = c.CR0
		case 2:
			v = c.CR2
		case 3:
			v = c.CR3
		case 4:
			v = c.CR4
		case 8:
			v = uint64(c.cfg.APIC.TPR())
		default:
			return c.raise(x86.UD)
		}
		c.setReg(in, in.RM, crSize(in), v)
		return next
	}
	v := c.reg(in, in.RM, crSize(in))
	switch in.Reg {
	case 0:
		return c.setCR0(v)
	case 2:
		c.CR2 = v
	case 3:
		return c.setCR3(v)
	case 4:
		return c.setCR4(v)
	case 8:
		return c.setCR8(v)
	default:
		return c.raise(x86.UD)
	}
	return next
}

// crSize is the operand size of MOV CR and MOV DR: no prefix changes it.
func crSize(in *decode.Inst) uint8 {
	if in.Mode == decode.Mode64 {
		return 8
	}
	return 4
}

func (c *CPU) setCR8(v uint64) status {
	if v > 15 {
		return c.raiseErr(x86.GP, 0)
	}
	c.cfg.APIC.SetTPR(uint8(v))
	if c.Frame.Blocked {
		c.post(pendIntr)
	}
	return next
}

// setCR0 checks and sets CR0 with its effects on long mode (Intel SDM vol. 3A §2.5, §9.8.5).
func (c *CPU) setCR0(v uint64) status {
	old := c.CR0
	gp := v>>32 != 0 || v&x86.CR0PG != 0 && v&x86.CR0PE == 0 || v&x86.CR0NW != 0 && v&x86.CR0CD == 0
	v = v&cr0Writable | x86.CR0ET
	efer := c.EFER
	switch {
	case gp:
	case v&^old&x86.CR0PG != 0 && efer&x86.EFERLME != 0:
		gp = c.CR4&x86.CR4PAE == 0 || c.Seg[x86.CS].Attr&x86.AttrL != 0
		efer |= x86.EFERLMA
	case old&^v&x86.CR0PG != 0:
		gp = c.Mode == decode.Mode64 || c.CR4&x86.CR4PCIDE != 0
		efer &^= x86.EFERLMA
	}
	if gp {
		return c.raiseErr(x86.GP, 0)
	}
	changed := old ^ v
	if changed&(x86.CR0PG|x86.CR0CD|x86.CR0NW) != 0 && !c.loadPDPTEs(v, c.CR3, c.CR4, efer) {
		return faulted
	}
	c.CR0, c.EFER = v, efer
	c.pagingChanged()
	if changed&(x86.CR0PG|x86.CR0WP|x86.CR0PE) != 0 {
		c.flushTLB(false)
	}
	c.modeChanged()
	return next
}

// loadPDPTEs loads the four registers of PAE paging if the control registers
// given mean it; false: exc is set.
func (c *CPU) loadPDPTEs(cr0, cr3, cr4, efer uint64) bool {
	pdpte, ok := c.readPDPTEs(cr0, cr3, cr4, efer)
	if ok {
		c.sys.mem.regs.PDPTE = pdpte
	}
	return ok
}

// readPDPTEs reads their new values (Intel SDM vol. 3A §4.4.1), or the present
// ones if paging is of another kind.
func (c *CPU) readPDPTEs(cr0, cr3, cr4, efer uint64) (pdpte [4]uint64, ok bool) {
	if cr0&x86.CR0PG == 0 || cr4&x86.CR4PAE == 0 || efer&x86.EFERLMA != 0 {
		return c.sys.mem.regs.PDPTE, true
	}
	for i := range pdpte {
		gpa := cr3&0xffffffe0 + uint64(i)*8
		c.physRead(c.cfg.Memory.Find(gpa), gpa, c.sys.mem.buf[:8])
		v := leUint64(c.sys.mem.buf[:8])
		if v&1 != 0 && v&(^uint64(1<<mmu.PhysBits-1)|0x1e6) != 0 {
			return pdpte, c.fail(x86.GP, 0)
		}
		pdpte[i] = v
	}
	return pdpte, true
}

// setCR3 switches the address space. With PCIDs bit 63 keeps the translations
// of the new one.
func (c *CPU) setCR3(v uint64) status {
	keep := false
	if c.CR4&x86.CR4PCIDE != 0 {
		keep = v>>63 != 0
		v &^= 1 << 63
	}
	if c.longMode() && v>>mmu.PhysBits != 0 {
		return c.raiseErr(x86.GP, 0)
	}
	if !c.loadPDPTEs(c.CR0, v, c.CR4, c.EFER) {
		return faulted
	}
	old, from := c.CR3, c.pcid()
	c.CR3 = v
	c.pagingChanged()
	if !keep || old != v {
		c.switchTLB(from, c.pcid(), keep)
	}
	return next
}

// setCR4 checks and sets CR4 (Intel SDM vol. 3A §2.5, §4.10.4.1).
func (c *CPU) setCR4(v uint64) status {
	changed := c.CR4 ^ v
	switch {
	case v&^cr4Supported != 0,
		c.longMode() && v&x86.CR4PAE == 0,
		changed&v&x86.CR4PCIDE != 0 && (!c.longMode() || c.CR3&0xfff != 0):
		return c.raiseErr(x86.GP, 0)
	}
	const pdpteBits = x86.CR4PAE | x86.CR4PSE | x86.CR4PGE | x86.CR4SMEP
	if changed&pdpteBits != 0 && !c.loadPDPTEs(c.CR0, c.CR3, v, c.EFER) {
		return faulted
	}
	c.CR4 = v
	c.pagingChanged()
	if changed&(pdpteBits|x86.CR4PCIDE|x86.CR4SMAP) != 0 {
		c.flushTLB(false)
	}
	c.updateMMUIndex()
	return next
}
