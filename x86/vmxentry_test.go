package x86

import (
	"strings"
	"testing"
)

// entry returns a 64-bit state that VM entry takes.
func entry() *State {
	data := Segment{Selector: 0x18, Attr: AttrP | AttrS | AttrG | AttrDB | 3, Limit: 0xffffffff}
	s := &State{RFLAGS: FlagR1 | FlagIF, CR0: CR0PE | CR0PG | CR0NE, CR4: CR4PAE, CR3: 0x1000, EFER: EFERLME | EFERLMA, RIP: 0xffffffff81000000}
	for i := range s.Seg {
		s.Seg[i] = data
	}
	s.Seg[CS].Attr = AttrP | AttrS | AttrG | AttrL | 11
	s.Seg[TR] = Segment{Selector: 0x40, Attr: AttrP | 11, Limit: 0x67}
	s.Seg[LDTR] = Segment{Attr: AttrUnusable}
	return s
}

// TestVMXEntry27_3_1 breaks one rule of Intel SDM vol. 3C §27.3.1 at a time.
func TestVMXEntry27_3_1(t *testing.T) {
	if err := entry().CheckVMXEntry(); err != nil {
		t.Fatal(err)
	}
	for want, change := range map[string]func(*State){
		"CR0.PG without CR0.PE":             func(s *State) { s.CR0 &^= CR0PE },
		"without paging and CR4.PAE":        func(s *State) { s.CR4 = 0 },
		"EFER.LMA and EFER.LME differ":      func(s *State) { s.EFER &^= EFERLME },
		"CR3 0x":                            func(s *State) { s.CR3 = 1 << 60 },
		"DR7 0x":                            func(s *State) { s.DR[7] = 1 << 32 },
		"MSR 0x175":                         func(s *State) { s.MSRs = []MSR{{MSRSysenterESP, 1 << 50}} },
		"PAT entry 1 has type 2":            func(s *State) { s.MSRs = []MSR{{MSRPAT, 0x0200}} },
		"TR is unusable":                    func(s *State) { s.Seg[TR].Attr = AttrUnusable },
		"TR has type 9, not a busy task":    func(s *State) { s.Seg[TR].Attr = AttrP | 9 },
		"TR has type 3, not a busy task":    func(s *State) { s.Seg[TR].Attr = AttrP | 3 },
		"TR's selector is of the LDT":       func(s *State) { s.Seg[TR].Selector |= 4 },
		"CS has type 8":                     func(s *State) { s.Seg[CS].Attr &^= 3 },
		"CS has both L and D":               func(s *State) { s.Seg[CS].Attr |= AttrDB },
		"CS has DPL 3, SS 0":                func(s *State) { s.Seg[CS].Attr |= 3 << 5 },
		"SS has type 1":                     func(s *State) { s.Seg[SS].Attr &^= 2 },
		"DS is not accessed":                func(s *State) { s.Seg[DS].Attr &^= 1 },
		"DS is unreadable code":             func(s *State) { s.Seg[DS].Attr = s.Seg[DS].Attr&^15 | 9 },
		"ES has S false":                    func(s *State) { s.Seg[ES].Attr &^= AttrS },
		"ES is usable and not present":      func(s *State) { s.Seg[ES].Attr &^= AttrP },
		"FS base 0x8000000000000000 is not": func(s *State) { s.Seg[FS].Base = 1 << 63 },
		"DS base 0x100000000 has upper":     func(s *State) { s.Seg[DS].Base = 1 << 32 },
		"GS has G and limit 0x10":           func(s *State) { s.Seg[GS].Limit = 0x10 },
		"GS has limit 0xffffffff without G": func(s *State) { s.Seg[GS].Attr &^= AttrG },
		"GS has reserved bits":              func(s *State) { s.Seg[GS].Attr |= 1 << 8 },
		"LDTR has type 3":                   func(s *State) { s.Seg[LDTR].Attr = AttrP | 3 },
		"GDT base":                          func(s *State) { s.GDT.Base = 1 << 55 },
		"IDT base":                          func(s *State) { s.IDT.Base = 1 << 55 },
		"RIP 0x800000000000 is not":         func(s *State) { s.RIP = 1 << 47 },
		"RIP 0xffffffff81000000 has upper":  func(s *State) { s.Seg[CS].Attr &^= AttrL },
		"RFLAGS 0x200 has reserved":         func(s *State) { s.RFLAGS = FlagIF },
		"RFLAGS 0x8202 has reserved":        func(s *State) { s.RFLAGS |= 1 << 15 },
		"RFLAGS.VM in IA-32e":               func(s *State) { s.RFLAGS |= FlagVM },
		"shadows of STI and MOV SS":         func(s *State) { s.Events.ShadowSTI, s.Events.ShadowMovSS = true, true },
		"shadow of STI without":             func(s *State) { s.RFLAGS, s.Events.ShadowSTI = FlagR1, true },
		"external interrupt on its way":     func(s *State) { s.RFLAGS, s.Events.Interrupt.Valid = FlagR1, true },
		"halted with SS.DPL 3":              func(s *State) { s.MP = MPHalted; s.Seg[SS].Attr |= 3 << 5; s.Seg[CS].Attr |= 3 << 5 },
	} {
		s := entry()
		change(s)
		if err := s.CheckVMXEntry(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v", want, err)
		}
	}
}

// TestVMXEntryInOtherModes takes reset's real mode and virtual-8086 mode.
func TestVMXEntryInOtherModes(t *testing.T) {
	real := &State{RFLAGS: FlagR1, RIP: 0xfff0, CR0: CR0ET | CR0NW | CR0CD}
	for i := range real.Seg {
		real.Seg[i] = Segment{Attr: AttrP | AttrS | 3, Limit: 0xffff}
	}
	real.Seg[CS] = Segment{Selector: 0xf000, Base: 0xffff0000, Attr: AttrP | AttrS | 11, Limit: 0xffff}
	real.Seg[TR].Attr, real.Seg[LDTR].Attr = AttrP|11, AttrP|2
	if err := real.CheckVMXEntry(); err != nil {
		t.Errorf("reset: %v", err)
	}
	v86 := entry()
	v86.EFER, v86.RIP, v86.RFLAGS = 0, 0x100, FlagR1|FlagVM
	for i := range v86.Seg[:GS+1] {
		v86.Seg[i] = Segment{Selector: 0x1000, Base: 0x10000, Attr: 0xf3, Limit: 0xffff}
	}
	if err := v86.CheckVMXEntry(); err != nil {
		t.Errorf("virtual-8086: %v", err)
	}
	v86.Seg[DS].Base = 0
	if err := v86.CheckVMXEntry(); err == nil || !strings.Contains(err.Error(), "DS") {
		t.Errorf("virtual-8086 with a base of its own: %v", err)
	}
}
