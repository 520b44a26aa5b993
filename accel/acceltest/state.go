package acceltest

import (
	"reflect"
	"strings"
	"testing"

	"berth/accel"
	"berth/x86"
)

// Pattern changes s to a 64-bit kernel state with something of its own in every
// field; avx says whether guests have it.
func Pattern(s *x86.State, avx bool) {
	for i := range s.GPR {
		s.GPR[i] = 0x1000_0000_0000_0001 * uint64(i+1)
	}
	s.RIP, s.RFLAGS = 0xffffffff81000000, x86.FlagR1|x86.FlagIF|x86.FlagCF|x86.FlagAC
	seg := func(sel uint16, a x86.Attr) x86.Segment {
		return x86.Segment{Selector: sel, Limit: 0xffffffff, Attr: a | x86.AttrP | x86.AttrS | x86.AttrG | 3}
	}
	s.Seg[x86.CS] = seg(0x10, x86.AttrL|8)
	for _, i := range []int{x86.SS, x86.DS, x86.ES, x86.FS, x86.GS} {
		s.Seg[i] = seg(0x18, x86.AttrDB)
	}
	s.Seg[x86.FS].Base, s.Seg[x86.GS].Base = 0x7fff_1234_5000, 0xffff_8880_0000_0000
	s.Seg[x86.TR] = x86.Segment{Selector: 0x40, Attr: x86.AttrP | 11, Limit: 0x206f, Base: 0xfffffe0000003000}
	s.Seg[x86.LDTR] = x86.Segment{Attr: x86.AttrUnusable}
	s.GDT, s.IDT = x86.Table{Base: 0xfffffe0000001000, Limit: 0x7f}, x86.Table{Base: 0xfffffe0000000000, Limit: 0xfff}
	s.CR0 = x86.CR0PG | x86.CR0WP | x86.CR0NE | x86.CR0ET | x86.CR0MP | x86.CR0PE | x86.CR0AM
	s.CR2, s.CR3 = 0xdead000, 0x70000
	s.CR4 = x86.CR4PAE | x86.CR4PGE | x86.CR4OSFXSR | x86.CR4OSXMMEXCPT
	s.EFER = x86.EFERLME | x86.EFERLMA | x86.EFERSCE | x86.EFERNXE
	s.DR = [8]uint64{0x1000, 0x2000, 0x3000, 0x4000, 0, 0, 0xffff0ff0, 0x400}
	s.FPU = x86.FPU{FCW: 0x27f, FSW: 5<<11 | 1, FTW: 0xe0, FOP: 0x123, FIP: 0x401000, FDP: 0x602000, MXCSR: 0x1fa0}
	for i := range s.FPU.ST {
		s.FPU.ST[i] = x86.F80{Mant: 1<<63 | uint64(i), SE: 0x3fff + uint16(i)}
	}
	for i := range s.FPU.XMM {
		s.FPU.XMM[i] = [2]uint64{uint64(i) * 3, ^uint64(i)}
		if avx {
			s.FPU.YMMH[i] = [2]uint64{^uint64(i) * 5, uint64(i) + 1}
		}
	}
	s.XCR0 = 3
	if avx {
		s.XCR0 = 7
		s.CR4 |= x86.CR4OSXSAVE
	}
	for i := range s.MSRs {
		switch m := &s.MSRs[i]; m.Index {
		case x86.MSRSTAR:
			m.Value = 0x0023001000000000
		case x86.MSRLSTAR:
			m.Value = 0xffffffff82000000
		case x86.MSRKernelGSBase:
			m.Value = 0x7fff0000
		case x86.MSRSysenterESP:
			m.Value = 0xfe002000 // AMD CPUs keep 32 bits
		case x86.MSRMTRRDefType:
			m.Value = 0xc06
		}
	}
	s.Events = x86.Events{NMIPending: true, NMIMasked: true, ShadowSTI: true}
}

// stateRoundTrip sets everything and reads it back, on a second VM too.
func (suite Suite) stateRoundTrip(t *testing.T) {
	g := suite.NewGuest(t, "", 2)
	avx := suite.AVX
	for cpu, mp := range []x86.MPState{x86.MPRunnable, x86.MPWaitSIPI} {
		var want, got x86.State
		g.Get(cpu, &want)
		Pattern(&want, avx)
		want.MP = mp
		g.Set(cpu, &want)
		g.Get(cpu, &got)
		sameState(t, &got, &want)
		if len(got.MSRs) < 20 {
			t.Errorf("only %d MSRs are saved", len(got.MSRs))
		}
	}
	var first, second x86.State
	g.Get(0, &first)
	h := suite.NewGuest(t, "", 1)
	h.Set(0, &first)
	h.Get(0, &second)
	sameState(t, &second, &first)
}

// sameState compares all but the TSC, which runs on, and TSC_ADJUST's likes that follow it.
func sameState(t *testing.T, got, want *x86.State) {
	t.Helper()
	g, w := *got, *want
	g.MSRs, w.MSRs = nil, nil
	gv, wv := reflect.ValueOf(g), reflect.ValueOf(w)
	for i := range gv.NumField() {
		if !reflect.DeepEqual(gv.Field(i).Interface(), wv.Field(i).Interface()) {
			t.Errorf("%s: %+v, want %+v", gv.Type().Field(i).Name, gv.Field(i).Interface(), wv.Field(i).Interface())
		}
	}
	have := map[uint32]uint64{}
	for _, m := range got.MSRs {
		have[m.Index] = m.Value
	}
	for _, m := range want.MSRs {
		if v, ok := have[m.Index]; m.Index != x86.MSRTSC && (!ok || v != m.Value) {
			t.Errorf("MSR 0x%x: 0x%x (%t), want 0x%x", m.Index, v, ok, m.Value)
		}
	}
}

func (suite Suite) stateVersion(t *testing.T) {
	g := suite.NewGuest(t, "", 1)
	var s x86.State
	g.Get(0, &s)
	s.Version++
	g.CPUs[0].Do(func() {
		if err := g.CPUs[0].VCPU.SetState(&s); err == nil || !strings.Contains(err.Error(), "version 2") {
			t.Errorf("got %v", err)
		}
	})
}

// move stops a guest in user mode with all its vector
// registers full, and lets it go on elsewhere.
func (suite Suite) move(t *testing.T) {
	g := suite.NewGuest(t, "user", 1)
	avx := suite.AVX
	if avx {
		g.Numbers(1)
	} else {
		g.Numbers(0)
	}
	g.Start()
	g.Word(0x6000, 1)
	g.Kick()
	g.Stop()
	used, _ := g.Mem.Load32(0x6004)
	var s x86.State
	g.Get(0, &s)
	t.Logf("AVX offered %t, used %t; XCR0 0x%x", avx, used == 1, s.XCR0)
	avx = used == 1
	if s.FPU.ST[0] != (x86.F80{Mant: 0xb17217f7d1cf79ac, SE: 0xbffe}) || s.FPU.XMM[3] != [2]uint64{0x0303030303030303, 0xf0e0d0c0b0a09083} {
		t.Errorf("ST0 %x, XMM3 %x", s.FPU.ST[0], s.FPU.XMM[3])
	}
	if avx && s.FPU.YMMH[0] != s.FPU.XMM[5] {
		t.Errorf("YMM0's upper half %x, want %x", s.FPU.YMMH[0], s.FPU.XMM[5])
	}
	if err := suite.fit(&s); err != nil {
		t.Error(err)
	}
	h := suite.NewGuest(t, "", 1)
	for _, r := range g.Mem.Regions() {
		if err := h.Mem.Write(r.GPA, r.Host); err != nil {
			t.Fatal(err)
		}
	}
	h.Set(0, &s)
	if err := h.Mem.Store32(0x6008, 1); err != nil {
		t.Fatal(err)
	}
	h.Start()
	h.Word(0x6000, 2)
	h.Kick()
	h.Stop()
	for i := range uint64(16) {
		lo, _ := h.Mem.Load64(0x6100 + 16*i)
		hi, _ := h.Mem.Load64(0x6108 + 16*i)
		if lo != 0x0101010101010101*i || hi != 0xf0e0d0c0b0a09080+i {
			t.Errorf("XMM%d: %x %x", i, lo, hi)
		}
	}
	for i, want := range []uint64{0xb17217f7d1cf79ac, 0xc90fdaa22168c235, 0x8000000000000000} {
		if v, _ := h.Mem.Load64(0x6200 + 16*uint64(i)); v != want {
			t.Errorf("ST%d: %x, want %x", i, v, want)
		}
	}
	if v, _ := h.Mem.Load64(0x6250); avx && v != 0x0505050505050505 {
		t.Errorf("YMM0's upper half: %x", v)
	}
}

// chipRoundTrip moves a guest with its controllers, an interrupt
// pending in them, to a second VM, where it is delivered.
func (suite Suite) chipRoundTrip(t *testing.T) {
	g := suite.interrupts(t)
	g.Kick()
	g.Stop()
	g.VM.IRQChip().SetGSI(4, true)
	if err := g.VM.IRQChip().SignalMSI(message(0x4c)); err != nil {
		t.Fatal(err)
	}
	saved, err := g.VM.(accel.Stater).SaveChip()
	if err != nil {
		t.Fatal(err)
	}
	if saved.IOAPIC.Redirect[4]&0xff != 0x44 || saved.PIC[0].VectorBase != 0x48 || saved.LAPIC[0].Regs[0xf] != 0x13f || saved.LAPIC[0].Base&0x900 != 0x900 {
		t.Errorf("saved %+v", saved)
	}
	var s x86.State
	g.Get(0, &s)
	h := suite.NewGuest(t, "", 1)
	for _, r := range g.Mem.Regions() {
		if err := h.Mem.Write(r.GPA, r.Host); err != nil {
			t.Fatal(err)
		}
	}
	h.Set(0, &s)
	if err := h.VM.(accel.Stater).LoadChip(saved); err != nil {
		t.Fatal(err)
	}
	again, err := h.VM.(accel.Stater).SaveChip()
	if err != nil {
		t.Fatal(err)
	}
	if again.ParavirtClock < saved.ParavirtClock {
		t.Errorf("kvmclock went back from %d to %d", saved.ParavirtClock, again.ParavirtClock)
	}
	again.ParavirtClock = saved.ParavirtClock
	for i := range again.PIT.Channel { // the clocks of the two VMs differ, and KVM starts counts anew
		again.PIT.Channel[i].LoadTime = saved.PIT.Channel[i].LoadTime
	}
	if !reflect.DeepEqual(again, saved) {
		t.Errorf("loaded %+v, saved %+v", again, saved)
	}
	h.Start()
	h.Expect(0x4c, 0x44)
	h.VM.IRQChip().SetGSI(5, true)
	h.Expect(0x45)
	h.VM.IRQChip().SetGSI(5, false)
	h.Kick()
	h.Stop()
	saved.Version++
	if h.VM.(accel.Stater).LoadChip(saved) == nil {
		t.Error("chip state of another version is accepted")
	}
}
