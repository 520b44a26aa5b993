package x86

import (
	"errors"
	"fmt"
)

// CheckVMXEntry holds a state against the checks on guest state that VM entry
// makes on Intel CPUs with unrestricted guest (Intel SDM vol. 3C §27.3.1), so
// that a state made on an AMD host, or by the soft engine, is known to run there
// too. The error joins every rule that is broken.
func (s *State) CheckVMXEntry() error {
	c := vmxCheck{s: s, long: s.EFER&EFERLMA != 0, v86: s.RFLAGS&FlagVM != 0}
	c.control()
	c.segments()
	c.tables()
	c.flags()
	return errors.Join(c.broken...)
}

type vmxCheck struct {
	s         *State
	long, v86 bool // IA-32e mode, virtual-8086 mode
	broken    []error
}

func (c *vmxCheck) rule(ok bool, format string, args ...any) {
	if !ok {
		c.broken = append(c.broken, fmt.Errorf("x86: VMX entry: "+format, args...))
	}
}

func canonical(a uint64) bool { return uint64(int64(a<<16)>>16) == a }

// control is §27.3.1.1.
func (c *vmxCheck) control() {
	s := c.s
	pg := s.CR0&CR0PG != 0
	c.rule(!pg || s.CR0&CR0PE != 0, "CR0.PG without CR0.PE")
	c.rule(s.CR0>>32 == 0, "CR0 0x%x has reserved bits", s.CR0)
	c.rule(!c.long || pg && s.CR4&CR4PAE != 0, "IA-32e mode without paging and CR4.PAE")
	c.rule(c.long || s.CR4&CR4PCIDE == 0, "CR4.PCIDE outside IA-32e mode")
	c.rule(!pg || c.long == (s.EFER&EFERLME != 0), "EFER.LMA and EFER.LME differ under paging")
	c.rule(pg || !c.long, "EFER.LMA without paging")
	c.rule(s.CR3>>52 == 0, "CR3 0x%x is wider than any physical address", s.CR3)
	c.rule(s.DR[7]>>32 == 0, "DR7 0x%x has upper bits", s.DR[7])
	for _, m := range s.MSRs {
		switch m.Index {
		case MSRSysenterESP, MSRSysenterEIP:
			c.rule(canonical(m.Value), "MSR 0x%x holds 0x%x, which is not canonical", m.Index, m.Value)
		case MSRPAT:
			for i := range 8 {
				t := m.Value >> (8 * i) & 0xff
				c.rule(t <= 7 && t != 2 && t != 3, "PAT entry %d has type %d", i, t)
			}
		}
	}
}

// segments is §27.3.1.2.
func (c *vmxCheck) segments() {
	s := c.s
	for i, name := range [...]string{"ES", "CS", "SS", "DS", "FS", "GS", "LDTR", "TR"} {
		seg := &s.Seg[i]
		usable := seg.Attr&AttrUnusable == 0
		if i == CS || i == TR {
			c.rule(usable, "%s is unusable", name)
		}
		switch i {
		case FS, GS, TR:
			c.rule(canonical(seg.Base), "%s base 0x%x is not canonical", name, seg.Base)
		case LDTR:
			c.rule(!usable || canonical(seg.Base), "%s base 0x%x is not canonical", name, seg.Base)
		default:
			c.rule(!usable || seg.Base>>32 == 0, "%s base 0x%x has upper bits", name, seg.Base)
		}
		if !usable {
			continue
		}
		if c.v86 && i <= GS {
			c.rule(seg.Base == uint64(seg.Selector)<<4 && seg.Limit == 0xffff && seg.Attr == 0xf3, "%s %+v is not a virtual-8086 segment", name, *seg)
			continue
		}
		c.rights(name, i, seg)
	}
	c.rule(s.Seg[TR].Selector&4 == 0, "TR's selector is of the LDT")
	c.rule(s.Seg[LDTR].Attr&AttrUnusable != 0 || s.Seg[LDTR].Selector&4 == 0, "LDTR's selector is of the LDT")
}

// rights checks the access rights of one usable segment.
func (c *vmxCheck) rights(name string, i int, seg *Segment) {
	a, t := seg.Attr, seg.Attr.Type()
	ss := c.s.Seg[SS].Attr
	switch i {
	case CS:
		c.rule(t == 3 || t&9 == 9, "CS has type %d", t)
		switch {
		case t == 3:
			c.rule(a.DPL() == 0, "CS of type 3 has DPL %d", a.DPL())
		case t&4 == 0:
			c.rule(ss&AttrUnusable != 0 || a.DPL() == ss.DPL(), "CS has DPL %d, SS %d", a.DPL(), ss.DPL())
		default:
			c.rule(ss&AttrUnusable != 0 || a.DPL() <= ss.DPL(), "conforming CS has DPL %d, SS %d", a.DPL(), ss.DPL())
		}
		c.rule(!c.long || a&AttrL == 0 || a&AttrDB == 0, "CS has both L and D")
	case SS:
		c.rule(t == 3 || t == 7, "SS has type %d", t)
		real := c.s.CR0&CR0PE == 0 || c.s.Seg[CS].Attr.Type() == 3
		c.rule(!real || a.DPL() == 0, "SS has DPL %d in real mode", a.DPL())
	case LDTR:
		c.rule(t == 2, "LDTR has type %d", t)
	case TR:
		c.rule(t == 11 || t == 3 && !c.long, "TR has type %d, not a busy task", t)
	default:
		c.rule(t&1 != 0, "%s is not accessed (type %d)", name, t)
		c.rule(t&8 == 0 || t&2 != 0, "%s is unreadable code (type %d)", name, t)
	}
	c.rule((a&AttrS != 0) == (i <= GS), "%s has S %t", name, a&AttrS != 0)
	c.rule(a&AttrP != 0, "%s is usable and not present", name)
	c.rule(a&0xf00 == 0 && a>>17 == 0, "%s has reserved bits in 0x%x", name, uint32(a))
	c.rule(seg.Limit&0xfff == 0xfff || a&AttrG == 0, "%s has G and limit 0x%x", name, seg.Limit)
	c.rule(seg.Limit>>20 == 0 || a&AttrG != 0, "%s has limit 0x%x without G", name, seg.Limit)
}

// tables is §27.3.1.3.
func (c *vmxCheck) tables() {
	c.rule(canonical(c.s.GDT.Base), "GDT base 0x%x is not canonical", c.s.GDT.Base)
	c.rule(canonical(c.s.IDT.Base), "IDT base 0x%x is not canonical", c.s.IDT.Base)
}

// flags is §27.3.1.4 and the parts of §27.3.1.5 that State holds.
func (c *vmxCheck) flags() {
	s := c.s
	if c.long && s.Seg[CS].Attr&AttrL != 0 {
		c.rule(canonical(s.RIP), "RIP 0x%x is not canonical", s.RIP)
	} else {
		c.rule(s.RIP>>32 == 0, "RIP 0x%x has upper bits outside 64-bit mode", s.RIP)
	}
	const reserved = ^uint64(0x3f7fd7)
	c.rule(s.RFLAGS&reserved == 0 && s.RFLAGS&FlagR1 != 0, "RFLAGS 0x%x has reserved bits wrong", s.RFLAGS)
	c.rule(!c.v86 || !c.long && s.CR0&CR0PE != 0, "RFLAGS.VM in IA-32e or real mode")
	e := &s.Events
	c.rule(!e.ShadowSTI || !e.ShadowMovSS, "shadows of STI and MOV SS at once")
	c.rule(!e.ShadowSTI || s.RFLAGS&FlagIF != 0, "shadow of STI without RFLAGS.IF")
	c.rule(!e.Interrupt.Valid || e.Interrupt.Soft || s.RFLAGS&FlagIF != 0, "external interrupt on its way without RFLAGS.IF")
	ss := s.Seg[SS].Attr
	c.rule(s.MP != MPHalted || ss&AttrUnusable != 0 || ss.DPL() == 0, "halted with SS.DPL %d", ss.DPL())
}
