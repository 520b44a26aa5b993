package x86

import "testing"

// resetState is the state after a processor's reset (Intel SDM vol. 3A table
// 10-1), which VMX with unrestricted guests can enter once NE is set.
func resetState() State {
	s := State{Version: 1, RIP: 0xfff0, RFLAGS: FlagR1, CR0: CR0ET | CR0NE | CR0CD | CR0NW}
	for i := range s.Seg {
		s.Seg[i] = Segment{Attr: 0x93, Limit: 0xffff}
	}
	s.Seg[CS] = Segment{Selector: 0xf000, Attr: 0x9b, Limit: 0xffff, Base: 0xffff0000}
	s.Seg[LDTR].Attr, s.Seg[TR].Attr = 0x82, 0x8b
	return s
}

func TestCheckVMEntry(t *testing.T) {
	s := resetState()
	if err := CheckVMEntry(&s, true); err != nil {
		t.Fatalf("reset state: %v", err)
	}
	if CheckVMEntry(&s, false) == nil {
		t.Error("real mode accepted without unrestricted guests")
	}
	for name, change := range map[string]func(*State){
		"CR0.NE":                func(s *State) { s.CR0 &^= CR0NE },
		"PG without PE":         func(s *State) { s.CR0 |= CR0PG },
		"NW without CD":         func(s *State) { s.CR0 &^= CR0CD },
		"LMA alone":             func(s *State) { s.EFER = EFERLMA },
		"DR7":                   func(s *State) { s.DR[7] = 1 << 32 },
		"CS not accessed":       func(s *State) { s.Seg[CS].Attr = 0x9a },
		"SS read-only":          func(s *State) { s.Seg[SS].Attr = 0x91 },
		"DS execute-only":       func(s *State) { s.Seg[DS].Attr = 0x99 },
		"TR available":          func(s *State) { s.Seg[TR].Attr = 0x89 },
		"TR unusable":           func(s *State) { s.Seg[TR].Attr = AttrUnusable },
		"LDTR type":             func(s *State) { s.Seg[LDTR].Attr = 0x83 },
		"limit without G":       func(s *State) { s.Seg[ES].Limit = 0xffffffff },
		"limit with G":          func(s *State) { s.Seg[ES].Attr |= AttrG; s.Seg[ES].Limit = 0x1ffe },
		"not present":           func(s *State) { s.Seg[FS].Attr &^= AttrP },
		"FS not canonical":      func(s *State) { s.Seg[FS].Base = 1 << 47 },
		"DS above 4 GiB":        func(s *State) { s.Seg[DS].Base = 1 << 32 },
		"IDT not canonical":     func(s *State) { s.IDT.Base = 1 << 60 },
		"RIP wide":              func(s *State) { s.RIP = 1 << 32 },
		"RFLAGS bit 1":          func(s *State) { s.RFLAGS = 0 },
		"RFLAGS reserved":       func(s *State) { s.RFLAGS |= 1 << 15 },
		"STI shadow without IF": func(s *State) { s.Events.ShadowSTI = true },
		"interrupt without IF":  func(s *State) { s.Events.Interrupt.Valid = true },
		"virtual-8086":          func(s *State) { s.RFLAGS |= FlagVM },
	} {
		s := resetState()
		change(&s)
		if CheckVMEntry(&s, true) == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
