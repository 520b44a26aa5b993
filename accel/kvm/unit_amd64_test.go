package kvm

import (
	"encoding/binary"
	"errors"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"berth/accel"
	"berth/accel/acceltest"
	"berth/guestmem"
	"berth/irq"
	"berth/kvmapi"
	"berth/x86"
)

// stuck returns a vCPU whose last exit is r, with u as the exit's data. It has
// no KVM behind it.
func stuck(r kvmapi.ExitReason, u ...uint64) *vcpu {
	c := &vcpu{vm: &vm{cfg: accel.Config{Memory: guestmem.New(), Ports: &acceltest.Space{}, MMIO: &acceltest.Space{}}}, fd: -1, run: &kvmapi.Run{ExitReason: r}, mapping: make([]byte, 8192)}
	for i, v := range u {
		binary.LittleEndian.PutUint64(c.run.Union[8*i:], v)
	}
	return c
}

func TestEveryExitIsNamed(t *testing.T) {
	const emulation, data2 = 1, 2 << 32
	for _, c := range []struct {
		cpu    *vcpu
		reason accel.Reason
		words  string
	}{
		{stuck(kvmapi.KVM_EXIT_SHUTDOWN), accel.ExitShutdown, ""},
		{stuck(kvmapi.KVM_EXIT_SYSTEM_EVENT, kvmapi.KVM_SYSTEM_EVENT_SHUTDOWN), accel.ExitPowerOff, ""},
		{stuck(kvmapi.KVM_EXIT_SYSTEM_EVENT, kvmapi.KVM_SYSTEM_EVENT_RESET), accel.ExitReset, ""},
		{stuck(kvmapi.KVM_EXIT_SYSTEM_EVENT, kvmapi.KVM_SYSTEM_EVENT_CRASH), accel.ExitInternal, "reported a crash"},
		{stuck(kvmapi.KVM_EXIT_SYSTEM_EVENT, 77), accel.ExitInternal, "of type 77"},
		{stuck(kvmapi.KVM_EXIT_FAIL_ENTRY, 0x80000021), accel.ExitInternal, "refused to enter the guest (KVM_EXIT_FAIL_ENTRY, hardware reason 0x80000021)"},
		{stuck(kvmapi.KVM_EXIT_UNKNOWN, 0x63), accel.ExitInternal, "KVM_EXIT_UNKNOWN, hardware reason 0x63"},
		{stuck(kvmapi.KVM_EXIT_HLT), accel.ExitInternal, "unexpected KVM_EXIT_HLT"},
		{stuck(kvmapi.KVM_EXIT_IOAPIC_EOI), accel.ExitInternal, "unexpected KVM_EXIT_IOAPIC_EOI"},
		{stuck(4242), accel.ExitInternal, "unexpected KVM exit 4242"},
		{stuck(kvmapi.KVM_EXIT_INTERNAL_ERROR, 3|data2, 0xab, 0xcd), accel.ExitInternal, "exit while an event was delivered 0xab 0xcd"},
		{stuck(kvmapi.KVM_EXIT_INTERNAL_ERROR, emulation|4<<32, 1, 0xcc0f_03), accel.ExitInternal, "instruction emulation failed at RIP 0x0, bytes 0f cc 00"},
		{stuck(kvmapi.KVM_EXIT_INTERNAL_ERROR, emulation), accel.ExitInternal, "whose bytes cannot be read"},
		{stuck(kvmapi.KVM_EXIT_IO, 1<<8|1<<32, 8190), accel.ExitInternal, ""},
	} {
		var exit accel.Exit
		if c.cpu.run.ExitReason == kvmapi.KVM_EXIT_IO {
			io := c.cpu.run.IO()
			*io = kvmapi.RunIO{Direction: kvmapi.KVM_EXIT_IO_OUT, Size: 4, Count: 3, DataOffset: 8190}
		}
		if leave, err := c.cpu.handle(&exit); err != nil || !leave || exit.Reason != c.reason || !strings.Contains(exit.Detail, c.words) {
			t.Errorf("%v: %+v, want %v, %q", c.cpu.run.ExitReason, exit, c.reason, c.words)
		}
	}
	for _, r := range []kvmapi.ExitReason{kvmapi.KVM_EXIT_INTR, kvmapi.KVM_EXIT_IRQ_WINDOW_OPEN, kvmapi.KVM_EXIT_SET_TPR} {
		if leave, err := stuck(r).handle(&accel.Exit{}); leave || err != nil {
			t.Errorf("%v ends Run", r)
		}
	}
}

// leaf returns one leaf of a CPUID table.
func leaf(t *testing.T, c *kvmapi.CPUID2, function, index uint32) kvmapi.CPUIDEntry2 {
	t.Helper()
	for _, e := range c.Entries[:c.Nent] {
		if e.Function == function && e.Index == index {
			return e
		}
	}
	t.Fatalf("no leaf 0x%x.%d", function, index)
	return kvmapi.CPUIDEntry2{}
}

func cpuidTable(vendor uint32) *kvmapi.CPUID2 {
	c := &kvmapi.CPUID2{}
	for _, e := range []kvmapi.CPUIDEntry2{
		{Function: 0, EAX: 0x16, EBX: vendor},
		{Function: 1, EBX: 0x0710_0800, ECX: leaf1ECXVMX | leaf1ECXOSXSAVE, EDX: leaf1EDXHTT},
		{Function: 4, Index: 0, EAX: 0x1c004121}, {Function: 4, Index: 3, EAX: 0x1c03c163},
		{Function: 7, EBX: leaf7EBXSGX | leaf7EBXPT | 1, ECX: leaf7ECXSGXLC},
		{Function: 0xb, EAX: 1, EBX: 2}, {Function: 0x14}, {Function: 0x1f},
		{Function: 0x40000000, EAX: 0x40000001, EBX: 0x4b4d564b}, {Function: 0x40000001, EAX: 1<<5 | 1<<3},
		{Function: 0x80000001, ECX: ext1ECXSVM}, {Function: 0x80000008, EAX: 0x3030, ECX: 0x700f}, {Function: 0x8000000a},
		{Function: 0x8000001d, Index: 3, EAX: 0x3c163}, {Function: 0x8000001e, EAX: 9, EBX: 0x104},
	} {
		c.Entries[c.Nent] = e
		c.Nent++
	}
	return c
}

func TestCPUIDShowsOneSocketOfSingleThreadedCores(t *testing.T) {
	c := guestCPUID(cpuidTable(vendorIntel), 2, 3, x86.Topology{}, true)
	one := leaf(t, c, 1, 0)
	if one.EBX != 2<<24|4<<16|0x0800 || one.EDX&leaf1EDXHTT == 0 {
		t.Errorf("leaf 1: %+v", one)
	}
	if want := uint32(leaf1ECXX2APIC | leaf1ECXTSCDeadline | leaf1ECXHypervisor); one.ECX != want {
		t.Errorf("leaf 1 ECX 0x%x, want 0x%x", one.ECX, want)
	}
	if l1, l3 := leaf(t, c, 4, 0), leaf(t, c, 4, 3); l1.EAX != 3<<26|0x121 || l3.EAX != 3<<26|3<<14|0x163 {
		t.Errorf("leaf 4: 0x%x and 0x%x", l1.EAX, l3.EAX)
	}
	core := leaf(t, c, 0xb, 1)
	if core.EAX != 2 || core.EBX != 3 || core.ECX != 0x201 || core.EDX != 2 || core.Flags != kvmapi.KVM_CPUID_FLAG_SIGNIFCANT_INDEX {
		t.Errorf("leaf 0xb.1: %+v", core)
	}
	if thread := leaf(t, c, 0xb, 0); thread.EAX != 0 || thread.EBX != 1 || thread.ECX != 0x100 {
		t.Errorf("leaf 0xb.0: %+v", thread)
	}
	if seven := leaf(t, c, 7, 0); seven.EBX != 1 || seven.ECX != 0 {
		t.Errorf("leaf 7: %+v", seven)
	}
	if leaf(t, c, 0x40000000, 0).EBX != 0x4b4d564b || leaf(t, c, 0x40000001, 0).EAX != 1<<5|1<<3 {
		t.Error("KVM's own leaves changed")
	}
	if leaf(t, c, 0x80000008, 0).ECX != 0x700f || leaf(t, c, 0x80000001, 0).ECX != 0 {
		t.Error("AMD's core count on an Intel CPU")
	}
	for _, e := range c.Entries[:c.Nent] {
		if e.Function == 0x14 || e.Function == 0x1f || e.Function == 0x8000000a {
			t.Errorf("leaf 0x%x is there", e.Function)
		}
	}
}

func TestCPUIDOnAMD(t *testing.T) {
	c := guestCPUID(cpuidTable(vendorAMD), 1, 4, x86.Topology{}, false)
	if e := leaf(t, c, 0x80000008, 0); e.ECX != 2<<12|3 {
		t.Errorf("leaf 0x80000008: 0x%x", e.ECX)
	}
	if e := leaf(t, c, 0x80000001, 0); e.ECX != ext1ECXCmpLegacy {
		t.Errorf("leaf 0x80000001: 0x%x", e.ECX)
	}
	if e := leaf(t, c, 0x8000001e, 0); e.EAX != 1 || e.EBX != 1 || e.ECX != 0 {
		t.Errorf("leaf 0x8000001e: %+v", e)
	}
	if e := leaf(t, c, 0x8000001d, 3); e.EAX != 3<<14|0x163 {
		t.Errorf("leaf 0x8000001d: 0x%x", e.EAX)
	}
	one := guestCPUID(cpuidTable(vendorAMD), 0, 1, x86.Topology{}, false)
	if e := leaf(t, one, 1, 0); e.EDX&leaf1EDXHTT != 0 || e.EBX>>16&0xff != 1 || e.ECX&leaf1ECXTSCDeadline != 0 {
		t.Errorf("one vCPU: %+v", e)
	}
	if e := leaf(t, one, 0xb, 1); e.EAX != 0 || e.EBX != 1 {
		t.Errorf("one vCPU: leaf 0xb.1 %+v", e)
	}
}

func TestCPUIDOfATopology(t *testing.T) {
	shape := x86.Topology{Sockets: 2, Cores: 3, Threads: 2}
	c := guestCPUID(cpuidTable(vendorIntel), 9, 12, shape, false) // socket 1, core 1, thread 1
	if e := leaf(t, c, 1, 0); e.EBX>>24 != 8|1<<1|1 || e.EBX>>16&0xff != 8 {
		t.Errorf("leaf 1: EBX 0x%x", e.EBX)
	}
	if e := leaf(t, c, 0xb, 0); e.EAX != 1 || e.EBX != 2 || e.EDX != 11 {
		t.Errorf("leaf 0xb.0: %+v", e)
	}
	if e := leaf(t, c, 0xb, 1); e.EAX != 3 || e.EBX != 6 {
		t.Errorf("leaf 0xb.1: %+v", e)
	}
	if e := leaf(t, c, 4, 0); e.EAX>>26 != 3 || e.EAX>>14&0xfff != 1 {
		t.Errorf("leaf 4: EAX 0x%x", e.EAX)
	}
	amd := guestCPUID(cpuidTable(vendorAMD), 9, 12, shape, false)
	if e := leaf(t, amd, 0x8000001e, 0); e.EAX != 11 || e.EBX != 1<<8|5 {
		t.Errorf("leaf 0x8000001e: %+v", e)
	}
	if e := leaf(t, amd, 0x80000008, 0); e.ECX != 3<<12|5 {
		t.Errorf("leaf 0x80000008: ECX 0x%x", e.ECX)
	}
}

// TestSegmentsAreMadeFitForEntry gives states that are right in themselves and
// that VMX would refuse as they are.
func TestSegmentsAreMadeFitForEntry(t *testing.T) {
	var s x86.State
	acceltest.Pattern(&s, false)
	s.Seg[x86.CS].Attr &^= x86.AttrAccessed
	s.Seg[x86.DS] = x86.Segment{}                                // never loaded
	s.Seg[x86.ES].Attr &^= x86.AttrG                             // limit says otherwise
	s.Seg[x86.FS] = x86.Segment{Limit: 0x10, Attr: 0x93 | 1<<15} // and here
	s.Seg[x86.TR].Attr = x86.AttrP | 9                           // available task
	s.Seg[x86.SS].Attr &^= x86.AttrAccessed
	if s.CheckVMXEntry() == nil {
		t.Error("the state is fit as it is")
	}
	if err := given(&s).CheckVMXEntry(); err != nil {
		t.Error(err)
	}
}

func TestXSaveRoundTrip(t *testing.T) {
	areas := []xstateArea{{number: 9, off: 2688, size: 8}}
	var want, got x86.State
	acceltest.Pattern(&want, true)
	want.XState = []x86.XStateComponent{{Number: 9, Data: []byte{1, 2, 3, 4, 5, 6, 7, 8}}}
	k, err := makeXSave(&want, areas)
	if err != nil {
		t.Fatal(err)
	}
	getXSave(k, &got, areas)
	if got.FPU != want.FPU || len(got.XState) != 1 || string(got.XState[0].Data) != string(want.XState[0].Data) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	// A component in its initial state is not read from its area.
	binary.LittleEndian.PutUint64(k.Region[xsaveHeader:], 0)
	var initial x86.State
	getXSave(k, &initial, areas)
	if initial.FPU.FCW != 0x37f || initial.FPU.XMM[1] != [2]uint64{} || initial.XState != nil {
		t.Errorf("initial: %+v", initial)
	}
	if _, err := makeXSave(&want, nil); err == nil || !strings.Contains(err.Error(), "component 9") {
		t.Errorf("component that the host has not: %v", err)
	}
}

// tsc returns the vCPU's TSC as State has it.
func tsc(t *testing.T, s *x86.State) uint64 {
	t.Helper()
	for _, m := range s.MSRs {
		if m.Index == x86.MSRTSC {
			return m.Value
		}
	}
	t.Fatal("the state has no TSC")
	return 0
}

// steadyTSC reports whether KVM can leave a vCPU's TSC offset alone: Linux tells
// by taking the TSC as its clock, or there is but one CPU to run on.
func steadyTSC() bool {
	source, _ := os.ReadFile("/sys/devices/system/clocksource/clocksource0/current_clocksource")
	return strings.TrimSpace(string(source)) == "tsc" || runtime.NumCPU() == 1
}

// TestAPauseTakesNoGuestTime stops the clock for a while: neither TSC nor
// kvmclock moves, all vCPUs stay in step, and time goes on from there.
func TestAPauseTakesNoGuestTime(t *testing.T) {
	g := suite(t).NewGuest(t, "", 2)
	v := g.VM.(*vm)
	clock := g.VM.(accel.ClockPauser)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	read := func() (tscs [2]uint64, ns uint64) {
		t.Helper()
		for i := range tscs {
			var s x86.State
			g.Get(i, &s)
			tscs[i] = tsc(t, &s)
		}
		c, err := g.VM.(accel.Stater).SaveChip()
		must(err)
		return tscs, c.ParavirtClock
	}
	offset := func() uint64 {
		a, err := v.vcpus[0].tscOffset()
		must(err)
		b, err := v.vcpus[1].tscOffset()
		must(err)
		return a - b
	}
	apart := offset()
	must(clock.PauseClock())
	before, ns := read()
	const pause = 200 * time.Millisecond
	time.Sleep(pause)
	must(clock.PauseClock()) // again: nothing
	if now, n := read(); now != before || n != ns {
		t.Errorf("the stopped clock moved from %d, %d to %d, %d", before, ns, now, n)
	}
	start := time.Now()
	must(clock.ResumeClock())
	must(clock.ResumeClock())
	after, n := read()
	passed := uint64(time.Since(start))
	if n < ns || n-ns > passed {
		t.Errorf("kvmclock went from %d to %d in %d ns", ns, n, passed)
	}
	if after[0] <= before[0] || after[1] <= before[1] {
		t.Errorf("the TSC went from %d to %d", before, after)
	}
	if !steadyTSC() {
		t.Log("this host's CPUs disagree on the TSC: KVM moves the guest's by itself")
		return
	}
	if now := offset(); now != apart {
		t.Errorf("the TSCs were %d apart and are %d", apart, now)
	}
	// A KVM that runs guests on the host's own TSC ignores a new offset.
	was, err := v.vcpus[0].tscOffset()
	must(err)
	must(v.vcpus[0].shiftTSC(1 << 50))
	if now, err := v.vcpus[0].tscOffset(); err != nil || now != was+1<<50 {
		t.Logf("this host's KVM cannot move the TSC: offset 0x%x, %v", now, err)
		return
	}
	must(v.vcpus[0].shiftTSC(^uint64(1<<50 - 1)))
	if d := after[0] - before[0]; d > passed*10 { // 10 GHz
		t.Errorf("the TSC went on by %d in %d ns", d, passed)
	}
	// SetState on a stopped clock is what it goes on from.
	must(clock.PauseClock())
	var s x86.State
	g.Get(0, &s)
	for i := range s.MSRs {
		if s.MSRs[i].Index == x86.MSRTSC {
			s.MSRs[i].Value = 1 << 50
		}
	}
	g.Set(0, &s)
	g.Get(0, &s)
	if tsc(t, &s) != 1<<50 {
		t.Errorf("stopped TSC %d, set 2^50", tsc(t, &s))
	}
	must(clock.ResumeClock())
	g.Get(0, &s)
	if d := tsc(t, &s) - 1<<50; d == 0 || d > 1<<40 {
		t.Errorf("the TSC went on by %d", d)
	}
}

func TestVMsThatCannotBe(t *testing.T) {
	a := open(t)
	for _, cpus := range []int{-1, 0, 256, 1 << 30} {
		if v, err := a.NewVM(accel.Config{Memory: guestmem.New(), CPUs: cpus}); err == nil || !strings.Contains(err.Error(), "vCPUs") {
			t.Errorf("%d vCPUs: %v, %v", cpus, v, err)
		}
	}
	mem := guestmem.New()
	defer func() { _ = mem.Close() }()
	if _, err := mem.AddRAM(ReservedBase, 0x1000); err != nil {
		t.Fatal(err)
	}
	if _, err := a.NewVM(accel.Config{Memory: mem, CPUs: 1}); err == nil || !strings.Contains(err.Error(), "KVM's own range") {
		t.Errorf("memory in KVM's range: %v", err)
	}
	g := suite(t).NewGuest(t, "", 1)
	for _, id := range []int{-1, 1} {
		if _, err := g.VM.NewVCPU(id); err == nil {
			t.Errorf("vCPU %d of 1", id)
		}
	}
	if _, err := g.VM.NewVCPU(0); err == nil || !strings.Contains(err.Error(), "KVM_CREATE_VCPU(0x0)") {
		t.Errorf("vCPU 0 twice: %v", err)
	}
}

// TestDevicesMayOutliveTheVM uses what a device holds after Close.
func TestDevicesMayOutliveTheVM(t *testing.T) {
	g := suite(t).NewGuest(t, "", 1)
	chip, cpu := g.VM.IRQChip(), g.CPUs[0].VCPU
	s, err := chip.NewMSISource()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Program(irq.MSI{Addr: 0xfee00000, Data: 0x40}, false); err != nil {
		t.Fatal(err)
	}
	if err := g.VM.Close(); err != nil {
		t.Fatal(err)
	}
	cpu.Kick()
	chip.SetGSI(4, true)
	s.Trigger()
	if err := errors.Join(s.Close(), g.VM.Close()); err != nil {
		t.Error(err)
	}
	g.CPUs = nil // their vCPUs are gone
}

func TestARefusedMSRIsToldOnceAndLeftOut(t *testing.T) {
	g := suite(t).NewGuest(t, "", 1)
	c := g.VM.(*vm).vcpus[0]
	const none = 0x12345
	list := []uint32{x86.MSRTSC, none, x86.MSRPAT}
	for range 2 {
		held, err := c.readMSRs(list)
		if err != nil || len(held) != 2 || held[1].Index != x86.MSRPAT {
			t.Fatalf("%v, %v", held, err)
		}
	}
	if err := c.writeMSRs([]x86.MSR{{Index: none, Value: 1}, {Index: x86.MSRPAT, Value: 0x0606060606060606}}); err != nil {
		t.Fatal(err)
	}
	if held, err := c.readMSRs([]uint32{x86.MSRPAT}); err != nil || held[0].Value != 0x0606060606060606 {
		t.Errorf("the MSR after the refused one: %v, %v", held, err)
	}
	for _, m := range c.vm.msrs.stateList() {
		if m == none {
			t.Error("a refused MSR is still asked for")
		}
	}
}

// TestAnX2APICsIDIsWhole saves and loads LAPICs in x2APIC mode.
func TestAnX2APICsIDIsWhole(t *testing.T) {
	g := suite(t).NewGuest(t, "", 2)
	c := g.VM.(*vm).vcpus[1]
	saved, err := c.saveLAPIC()
	if err != nil || saved.Regs[lapicID] != 1<<24 {
		t.Fatalf("xAPIC: ID 0x%x, %v", saved.Regs[lapicID], err)
	}
	saved.Base |= x2APIC
	saved.Regs[lapicID] = 1
	if err := c.loadLAPIC(saved); err != nil {
		t.Fatal(err)
	}
	again, err := c.saveLAPIC()
	if err != nil || again.Base != saved.Base || again.Regs[lapicID] != 1 {
		t.Errorf("x2APIC: base 0x%x, ID 0x%x, %v", again.Base, again.Regs[lapicID], err)
	}
}
