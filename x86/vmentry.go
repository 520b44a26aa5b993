package x86

import "fmt"

// CheckVMEntry returns the first of VMX's checks on guest state that s fails
// (Intel SDM vol. 3C §27.3.1), or nil. Processors with AMD-V check less: a state
// that is only ever tried there may still not run on Intel. unrestricted is
// whether the processor runs guests with paging or protection off.
func CheckVMEntry(s *State, unrestricted bool) error {
	for _, check := range []func(*State, bool) error{entryControl, entrySegments, entryTables, entryRIP} {
		if err := check(s, unrestricted); err != nil {
			return fmt.Errorf("VM entry: %w", err)
		}
	}
	return nil
}

// entryControl is §27.3.1.1: control and debug registers, EFER.
func entryControl(s *State, unrestricted bool) error {
	pe, pg := s.CR0&CR0PE != 0, s.CR0&CR0PG != 0
	lme, lma := s.EFER&EFERLME != 0, s.EFER&EFERLMA != 0
	switch {
	case s.CR0>>32 != 0 || s.CR4>>32 != 0:
		return fmt.Errorf("CR0 0x%x or CR4 0x%x has high bits", s.CR0, s.CR4)
	case s.CR0&CR0NE == 0:
		return fmt.Errorf("CR0.NE is clear")
	case !unrestricted && !(pe && pg):
		return fmt.Errorf("CR0 0x%x lacks PE or PG, and the processor has no unrestricted guests", s.CR0)
	case pg && !pe:
		return fmt.Errorf("CR0.PG without CR0.PE")
	case s.CR0&CR0NW != 0 && s.CR0&CR0CD == 0:
		return fmt.Errorf("CR0.NW without CR0.CD")
	case lma != (lme && pg):
		return fmt.Errorf("EFER.LMA is %v with LME %v and paging %v", lma, lme, pg)
	case lma && s.CR4&CR4PAE == 0:
		return fmt.Errorf("long mode without CR4.PAE")
	case !lma && s.CR4&CR4PCIDE != 0:
		return fmt.Errorf("CR4.PCIDE outside long mode")
	case s.CR3>>52 != 0:
		return fmt.Errorf("CR3 0x%x is beyond the physical address width", s.CR3)
	case s.DR[7]>>32 != 0:
		return fmt.Errorf("DR7 0x%x has high bits", s.DR[7])
	}
	return nil
}

// entrySegments is §27.3.1.2.
func entrySegments(s *State, _ bool) error {
	if s.RFLAGS&FlagVM != 0 {
		return entryVM86(s)
	}
	lma := s.EFER&EFERLMA != 0
	for i, r := range s.Seg {
		name := [...]string{"ES", "CS", "SS", "DS", "FS", "GS", "LDTR", "TR"}[i]
		if r.Attr&AttrUnusable != 0 {
			if i == CS || i == TR {
				return fmt.Errorf("%s is unusable", name)
			}
			continue
		}
		if err := entrySegment(i, r, lma, s.CR0&CR0PE != 0); err != nil {
			return fmt.Errorf("%s: %w (selector 0x%x, attributes 0x%x, base 0x%x, limit 0x%x)", name, err, r.Selector, r.Attr, r.Base, r.Limit)
		}
	}
	ss, cs := s.Seg[SS], s.Seg[CS]
	switch {
	case ss.Selector&3 != cs.Selector&3 && s.CR0&CR0PE != 0 && ss.Attr&AttrUnusable == 0:
		return fmt.Errorf("SS's RPL differs from CS's")
	case ss.Attr&AttrUnusable == 0 && s.CR0&CR0PE != 0 && ss.Attr.DPL() != uint8(ss.Selector&3):
		return fmt.Errorf("SS's DPL differs from its RPL")
	case !canonical(s.Seg[TR].Base) || !canonical(s.Seg[FS].Base) || !canonical(s.Seg[GS].Base):
		return fmt.Errorf("base of TR, FS or GS is not canonical")
	}
	return nil
}

// entrySegment checks one usable register's attributes, limit and base.
func entrySegment(i int, r Segment, lma, protected bool) error {
	t := r.Attr.Type()
	switch {
	case r.Attr&^(AttrUnusable-1) != 0 || r.Attr&0xf00 != 0:
		return fmt.Errorf("reserved attribute bits")
	case r.Attr&AttrP == 0:
		return fmt.Errorf("not present")
	case (r.Attr&AttrS != 0) != (i < LDTR):
		return fmt.Errorf("S bit")
	case r.Attr&AttrG == 0 && r.Limit>>20 != 0, r.Attr&AttrG != 0 && r.Limit&0xfff != 0xfff:
		return fmt.Errorf("limit does not agree with G")
	case i < LDTR && i != FS && i != GS && r.Base>>32 != 0:
		return fmt.Errorf("base above 4 GiB")
	}
	var good bool
	switch i {
	case CS:
		good = t == 9 || t == 11 || t == 13 || t == 15 || t == 3 && !protected
		if lma && r.Attr&AttrL != 0 && r.Attr&AttrDB != 0 {
			return fmt.Errorf("both L and D")
		}
	case SS:
		good = t == 3 || t == 7
	case LDTR:
		good = t == 2 && r.Selector&4 == 0
	case TR:
		good = (t == 11 || t == 3 && !lma) && r.Selector&4 == 0
	default:
		good = t&1 != 0 && (t&8 == 0 || t&2 != 0)
	}
	if !good {
		return fmt.Errorf("type %d", t)
	}
	return nil
}

// entryVM86 is the part for virtual-8086 mode: real-mode-like segments at
// privilege 3.
func entryVM86(s *State) error {
	for i, r := range s.Seg[:LDTR] {
		if r.Base != uint64(r.Selector)<<4 || r.Limit != 0xffff || r.Attr != 0xf3 {
			return fmt.Errorf("segment register %d does not fit virtual-8086 mode", i)
		}
	}
	return nil
}

// entryTables is §27.3.1.3.
func entryTables(s *State, _ bool) error {
	if !canonical(s.GDT.Base) || !canonical(s.IDT.Base) {
		return fmt.Errorf("GDTR or IDTR base is not canonical")
	}
	return nil
}

// entryRIP is §27.3.1.4 and what §27.3.1.5 says of events.
func entryRIP(s *State, _ bool) error {
	long := s.EFER&EFERLMA != 0 && s.Seg[CS].Attr&AttrL != 0
	const reserved = 1<<3 | 1<<5 | 1<<15 | ^uint64(1<<22-1)
	switch {
	case !long && s.RIP>>32 != 0:
		return fmt.Errorf("RIP 0x%x outside 64-bit mode", s.RIP)
	case long && !canonical(s.RIP):
		return fmt.Errorf("RIP 0x%x is not canonical", s.RIP)
	case s.RFLAGS&reserved != 0 || s.RFLAGS&FlagR1 == 0:
		return fmt.Errorf("RFLAGS 0x%x has reserved bits wrong", s.RFLAGS)
	case s.Events.ShadowSTI && (s.RFLAGS&FlagIF == 0 || s.Events.ShadowMovSS):
		return fmt.Errorf("blocking by STI with IF clear, or with blocking by MOV SS")
	case s.Events.Interrupt.Valid && s.RFLAGS&FlagIF == 0:
		return fmt.Errorf("external interrupt injected with IF clear")
	}
	return nil
}

// canonical reports whether bits 63 to 47 of a are alike.
func canonical(a uint64) bool { return uint64(int64(a<<16)>>16) == a }
