package kvm

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"berth/accel"
	"berth/irq"
	"berth/x86"
)

// TestProgramsAreTheirSources assembles every guest program anew, where there is
// an assembler: the test binary also runs in guests that have none.
func TestProgramsAreTheirSources(t *testing.T) {
	nasm, err := exec.LookPath("nasm")
	if err != nil {
		t.Skip("no nasm in PATH")
	}
	sources, err := filepath.Glob("testdata/*.asm")
	if err != nil || len(sources) == 0 {
		t.Fatalf("no sources: %v", err)
	}
	for _, src := range append(sources, "probe.asm") {
		out := filepath.Join(t.TempDir(), "out")
		dir, file := filepath.Split(src)
		cmd := exec.Command(nasm, "-f", "bin", "-o", out, file)
		cmd.Dir = dir
		if msg, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", src, err, msg)
		}
		built, err := os.ReadFile(out)
		if err != nil {
			t.Fatal(err)
		}
		committed, err := os.ReadFile(strings.TrimSuffix(src, ".asm") + ".bin")
		if err != nil || !bytes.Equal(built, committed) {
			t.Errorf("%s: the committed binary is not its source's (%v)", src, err)
		}
	}
}

func TestPortsAndMMIOInRealMode(t *testing.T) {
	g := newGuest(t, "real", 1)
	g.numbers(0xa1, 0xb2b1, 0xc4c3c2c1, 0x1111, 0x2222, 0x3333)
	g.mmio.answer = func(uint64, int) uint64 { return 0xbeef }
	g.run()
	want := []uint64{0x12, 0x3456, 0x789abcde, 0xa1, 0xb2b1, 0xc4c3c2c1, 'h', 'e', 'l', 'l', 'o', 0x1111, 0x2222, 0x3333, 0xbeef}
	if got := g.ports.writes(0x80); !slices.Equal(got, want) {
		t.Errorf("ports: %x, want %x", got, want)
	}
	wantMMIO := []access{{0xd0004, 1, 0x5a, true}, {0xd0006, 2, 0x1234, true}, {0xd0008, 2, 0, false}}
	if got := g.mmio.all(); !slices.Equal(got, wantMMIO) {
		t.Errorf("MMIO: %+v, want %+v", got, wantMMIO)
	}
}

func TestMMIOInProtectedMode(t *testing.T) {
	g := newGuest(t, "protected", 1)
	g.mmio.answer = func(addr uint64, _ int) uint64 { return addr&^0xff | 0x7e }
	g.run()
	const b = 0xd0000000
	want := []access{
		{b, 1, 0x11, true}, {b + 2, 2, 0x2222, true}, {b + 4, 4, 0x33333333, true}, {b + 8, 4, 0, false},
		{b + 12, 4, 0, false}, {b + 12, 4, 0xd000007f, true},
		{b + 16, 4, 0x44444444, true}, {b + 20, 4, 0x44444444, true}, {b + 24, 4, 0x44444444, true},
		{b + 8, 4, 0, false}, {b + 8, 1, 0, false},
	}
	if got := g.mmio.all(); !slices.Equal(got, want) {
		t.Errorf("MMIO: %+v, want %+v", got, want)
	}
	if got := g.ports.writes(0x80); !slices.Equal(got, []uint64{0xd000007e, 0xd000007e, 0x7e}) {
		t.Errorf("ports: %x", got)
	}
}

func TestLongMode(t *testing.T) {
	g := newGuest(t, "long", 1)
	g.mmio.answer = func(uint64, int) uint64 { return 0xaabbccdd_01020304 }
	g.run()
	want := []access{{0xd0000000, 8, 0x1122334455667788, true}, {0xd0000008, 8, 0, false}}
	if got := g.mmio.all(); !slices.Equal(got, want) {
		t.Errorf("MMIO: %+v, want %+v", got, want)
	}
	if got := g.ports.writes(0x80); !slices.Equal(got, []uint64{0x01020304, 0xaabbccdd, 1}) {
		t.Errorf("ports: %x", got)
	}
	var s x86.State
	g.get(0, &s)
	if s.EFER&x86.EFERLMA == 0 || s.GPR[15] != 0x1122334455667788 || s.GPR[14] != 0xaabbccdd_01020304 || s.CR3 != 0x70000 {
		t.Errorf("state after the end: %+v", s)
	}
	if err := given(&s).CheckVMXEntry(); err != nil {
		t.Error(err)
	}
}

// TestAnIOExitIsCompleteBeforeStateIsRead kicks from inside an IN and an OUT:
// RIP must be past the instruction and the register loaded by the time Run is back.
func TestAnIOExitIsCompleteBeforeStateIsRead(t *testing.T) {
	g := newGuest(t, "", 1)
	if err := g.mem.Write(0x1000, []byte{0xe4, 0x81, 0xe6, 0x82, 0xf4}); err != nil { // in al, 0x81; out 0x82, al; hlt
		t.Fatal(err)
	}
	var s x86.State
	g.get(0, &s)
	s.Seg[x86.CS].Selector, s.Seg[x86.CS].Base, s.RIP = 0, 0, 0x1000
	g.set(0, &s)
	g.ports.answer = func(uint64, int) uint64 { return 0x5c }
	g.ports.hook = func(access) { g.kick() }
	g.run()
	g.get(0, &s)
	if s.RIP != 0x1002 || s.GPR[x86.RAX]&0xff != 0x5c {
		t.Errorf("after IN: RIP 0x%x, AL 0x%x", s.RIP, s.GPR[x86.RAX]&0xff)
	}
	g.run()
	g.get(0, &s)
	if got := g.ports.writes(0x82); s.RIP != 0x1004 || !slices.Equal(got, []uint64{0x5c}) {
		t.Errorf("after OUT: RIP 0x%x, written %x", s.RIP, got)
	}
}

// interrupts returns a guest that waits for interrupts with all its handlers set up.
func interrupts(t *testing.T) *guest {
	g := newGuest(t, "interrupts", 1)
	g.start()
	g.word(0x6000, 1)
	return g
}

func TestInterruptsThroughTheIOAPIC(t *testing.T) {
	g := interrupts(t)
	chip := g.vm.IRQChip()
	for range 3 { // edges
		chip.SetGSI(4, true)
		g.expect(0x44)
		chip.SetGSI(4, false)
	}
	// A level that stays comes again after EOI; the third delivery lowers it.
	n := 0
	log := g.ports.hook
	g.ports.hook = func(a access) {
		if n++; n == 3 {
			chip.SetGSI(5, false)
		}
		log(a)
	}
	chip.SetGSI(5, true)
	g.expect(0x45, 0x45, 0x45)
	chip.SetGSI(4, true)
	// One more may have been accepted before the level fell.
	if v := <-g.logged; v == 0x45 {
		g.expect(0x44)
	} else if v != 0x44 {
		t.Fatalf("log entry 0x%x, want 0x44", v)
	}
	g.kick()
	g.stop()
}

func TestAnInterruptThroughThe8259(t *testing.T) {
	g := interrupts(t)
	g.vm.IRQChip().SetGSI(3, true)
	g.expect(0x4b)
	g.vm.IRQChip().SetGSI(3, false)
	g.kick()
	g.stop()
}

// TestTheIntervalTimerIsIOAPICPin2 raises GSI 0 as the in-kernel PIT does.
func TestTheIntervalTimerIsIOAPICPin2(t *testing.T) {
	g := interrupts(t)
	g.vm.IRQChip().SetGSI(0, true)
	g.expect(0x42)
	g.vm.IRQChip().SetGSI(0, false)
	g.kick()
	g.stop()
}

func message(vector uint32) irq.MSI { return irq.MSI{Addr: 0xfee00000, Data: vector} }

func TestMessageInterrupts(t *testing.T) {
	g := interrupts(t)
	chip := g.vm.IRQChip()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(chip.SignalMSI(message(0x46)))
	g.expect(0x46)
	a, err := chip.NewMSISource()
	must(err)
	b, err := chip.NewMSISource()
	must(err)
	a.Trigger() // not programmed: nothing
	must(a.Program(message(0x47), false))
	must(b.Program(message(0x48), false))
	a.Trigger()
	g.expect(0x47)
	b.Trigger()
	g.expect(0x48)
	// Masked: nothing comes, then or after unmasking, and the pins still lead where they did.
	must(a.Program(message(0x47), true))
	a.Trigger()
	must(a.Program(message(0x49), false))
	chip.SetGSI(4, true)
	g.expect(0x44)
	chip.SetGSI(4, false)
	a.Trigger()
	g.expect(0x49)
	must(b.Close())
	must(b.Close())
	b.Trigger()
	if b.Program(message(0x48), false) == nil {
		t.Error("a closed source can be programmed")
	}
	c, err := chip.NewMSISource() // takes b's GSI again
	must(err)
	must(c.Program(message(0x4a), false))
	c.Trigger()
	g.expect(0x4a)
	a.Trigger()
	g.expect(0x49)
	g.kick()
	g.stop()
	must(errors.Join(a.Close(), c.Close()))
}

func TestMessageSourcesRunOutCleanly(t *testing.T) {
	g := newGuest(t, "", 1)
	chip := g.vm.IRQChip().(*chip)
	chip.used = chip.used[:2]
	for range 2 {
		if _, err := chip.NewMSISource(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := chip.NewMSISource(); err == nil || !strings.Contains(err.Error(), "all 2 message interrupts are in use") {
		t.Errorf("got %v", err)
	}
}

func TestProcessorsStartByINITAndSIPI(t *testing.T) {
	for _, cpus := range []int{2, 4} {
		g := newGuest(t, "smp", cpus)
		for id := 1; id < cpus; id++ {
			var s x86.State
			if g.get(id, &s); s.MP != x86.MPUninitialized {
				t.Errorf("vCPU %d starts in MP state %d", id, s.MP)
			}
		}
		g.ports.answer = func(uint64, int) uint64 { return uint64(cpus - 1) }
		g.run()
		got := g.ports.writes(0x80)
		slices.Sort(got)
		if want := []uint64{1, 2, 3}[:cpus-1]; !slices.Equal(got, want) {
			t.Errorf("%d vCPUs: APIC IDs %d, want %d", cpus, got, want)
		}
	}
}

func TestDirtyLog(t *testing.T) {
	g := newGuest(t, "dirty", 1)
	d := g.vm.(accel.DirtyLogger)
	collect := func() (pages []uint64) {
		t.Helper()
		if err := d.CollectDirty(func(gpa uint64) { pages = append(pages, gpa) }); err != nil {
			t.Fatal(err)
		}
		return pages
	}
	if d.CollectDirty(func(uint64) {}) == nil {
		t.Error("collecting with the log off is no error")
	}
	g.numbers(0x180000, 0x1ff004, 0x20000)
	if err := d.SetDirtyLog(true); err != nil {
		t.Fatal(err)
	}
	g.run()
	rounds := [][]uint64{collect(), collect()}
	for _, gpa := range []uint64{0x180000, 0x1ff000, 0x20000} {
		if !slices.Contains(rounds[0], gpa) {
			t.Errorf("page 0x%x is not in %x", gpa, rounds[0])
		}
	}
	if slices.Contains(rounds[0], 0x190000) {
		t.Errorf("a page that nobody wrote is in %x", rounds[0])
	}
	if len(rounds[1]) != 0 {
		t.Errorf("a second collection gives %x", rounds[1])
	}
	// The program anew, from reset: this round has what is written now, and nothing of before.
	h := newGuest(t, "", 1)
	var reset x86.State
	h.get(0, &reset)
	reset.Seg[x86.CS].Selector, reset.Seg[x86.CS].Base, reset.RIP = 0, 0, 0x1000
	g.set(0, &reset)
	g.numbers(0x190000)
	g.run()
	if round := collect(); !slices.Contains(round, 0x190000) || slices.Contains(round, 0x180000) {
		t.Errorf("second round: %x", round)
	}
	if err := d.SetDirtyLog(false); err != nil {
		t.Fatal(err)
	}
}

func TestDoorbells(t *testing.T) {
	g := newGuest(t, "doorbell", 1)
	d := g.vm.(accel.Doorbells)
	fd := func() int {
		f, err := unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = unix.Close(f) })
		return f
	}
	count := func(f int) uint64 {
		var b [8]byte
		if _, err := unix.Read(f, b[:]); err != nil {
			return 0
		}
		return uint64(b[0])
	}
	four := uint64(4)
	matched, anything := fd(), fd()
	add := func(addr uint64, size int, value *uint64, f int) {
		t.Helper()
		if err := d.AddDoorbell(addr, size, value, f); err != nil {
			t.Fatal(err)
		}
	}
	add(0xd0001000, 2, &four, matched)
	add(0xd0001004, 0, nil, anything)
	if err := d.AddDoorbell(0xd0001004, 0, nil, anything); err == nil || !strings.Contains(err.Error(), "KVM_IOEVENTFD") {
		t.Errorf("adding twice: %v", err)
	}
	g.run()
	if m, a := count(matched), count(anything); m != 2 || a != 1 {
		t.Errorf("rung %d and %d times, want 2 and 1", m, a)
	}
	if got := g.mmio.all(); !slices.Equal(got, []access{{0xd0001000, 2, 3, true}}) {
		t.Errorf("left for MMIO: %+v", got)
	}
	if err := errors.Join(d.RemoveDoorbell(0xd0001000, 2, &four, matched), d.RemoveDoorbell(0xd0001004, 0, nil, anything)); err != nil {
		t.Error(err)
	}
}

// TestKicks kicks a guest that never exits of itself, one that halts, and one
// that is not running yet. The time a kick takes is printed.
func TestKicks(t *testing.T) {
	g := newGuest(t, "count", 1)
	g.kick() // before Run: it returns at once
	g.run()
	var took []time.Duration
	for range 50 {
		g.start()
		g.moves()
		at := time.Now()
		g.kick()
		g.stop()
		took = append(took, time.Since(at))
	}
	slices.Sort(took)
	t.Logf("kick to Run's return, a running guest: median %v, worst %v", took[25], took[49])

	h := interrupts(t)
	took = nil
	for range 50 {
		at := time.Now()
		h.kick()
		h.stop()
		took = append(took, time.Since(at))
		h.start()
	}
	slices.Sort(took)
	t.Logf("kick to Run's return, a halted guest: median %v, worst %v", took[25], took[49])
	h.kick()
	h.stop()
}

// moves waits until the counting guest has counted on.
func (g *guest) moves() {
	g.t.Helper()
	was, _ := g.mem.Load64(0x6000)
	for end := time.Now().Add(patience); ; time.Sleep(100 * time.Microsecond) {
		if now, _ := g.mem.Load64(0x6000); now != was {
			return
		}
		if time.Now().After(end) {
			g.t.Fatal("the guest does not move")
		}
	}
}

func TestATripleFaultIsAShutdown(t *testing.T) {
	g := newGuest(t, "triple", 1)
	done := g.cpus[0].start()
	select {
	case <-done:
	case <-time.After(patience):
		t.Fatal("no exit")
	}
	if r := g.cpus[0]; r.err != nil || r.exit.Reason != accel.ExitShutdown {
		t.Errorf("%v, %+v", r.err, r.exit)
	}
}

func TestAnInternalErrorNamesTheInstruction(t *testing.T) {
	g := newGuest(t, "unemulated", 1)
	done := g.cpus[0].start()
	select {
	case <-done:
	case <-time.After(patience):
		t.Fatal("no exit")
	}
	r := g.cpus[0]
	if r.err != nil || r.exit.Reason != accel.ExitInternal {
		t.Fatalf("%v, %+v", r.err, r.exit)
	}
	t.Log(r.exit.Detail)
	code, err := testdata.ReadFile("testdata/unemulated.bin")
	if err != nil {
		t.Fatal(err)
	}
	at := bytes.Index(code, []byte{0xdb, 0x2b}) // fld tword [ebx]
	if r.exit.RIP != 0x1000+uint64(at) || !bytes.HasPrefix(r.exit.Bytes, code[at:]) && !bytes.HasPrefix(r.exit.Bytes, code[at:at+2]) {
		t.Errorf("RIP 0x%x, bytes % x; want 0x%x, % x", r.exit.RIP, r.exit.Bytes, 0x1000+at, code[at:])
	}
	if !strings.Contains(r.exit.Detail, "emulation failed at RIP 0x") || !strings.Contains(r.exit.Detail, "db 2b") {
		t.Errorf("detail: %s", r.exit.Detail)
	}
}

// pattern is a state with something of its own in every field that KVM keeps.
func pattern(s *x86.State, avx bool) {
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

// TestStateRoundTrip sets everything and reads it back, on a second VM too.
func TestStateRoundTrip(t *testing.T) {
	g := newGuest(t, "", 2)
	avx := g.vm.(*vm).acc.hasAVX()
	for cpu, mp := range []x86.MPState{x86.MPRunnable, x86.MPWaitSIPI} {
		var want, got x86.State
		g.get(cpu, &want)
		pattern(&want, avx)
		want.MP = mp
		g.set(cpu, &want)
		g.get(cpu, &got)
		sameState(t, &got, &want)
		if len(got.MSRs) < 20 {
			t.Errorf("only %d MSRs are saved", len(got.MSRs))
		}
	}
	var first, second x86.State
	g.get(0, &first)
	h := newGuest(t, "", 1)
	h.set(0, &first)
	h.get(0, &second)
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

func TestStateOfAnotherVersionIsRefused(t *testing.T) {
	g := newGuest(t, "", 1)
	var s x86.State
	g.get(0, &s)
	s.Version++
	g.cpus[0].do(func() {
		if err := g.cpus[0].vcpu.SetState(&s); err == nil || !strings.Contains(err.Error(), "version 2") {
			t.Errorf("got %v", err)
		}
	})
}

// TestAGuestMovesToAnotherVM stops a guest in user mode with all its vector
// registers full, and lets it go on elsewhere.
func TestAGuestMovesToAnotherVM(t *testing.T) {
	g := newGuest(t, "user", 1)
	avx := g.vm.(*vm).acc.hasAVX()
	g.ports.answer = func(uint64, int) uint64 { return uint64(bit(avx)) }
	g.start()
	g.word(0x6000, 1)
	g.kick()
	g.stop()
	used, _ := g.mem.Load32(0x6004)
	var s x86.State
	g.get(0, &s)
	t.Logf("AVX offered %t, used %t; XCR0 0x%x", avx, used == 1, s.XCR0)
	avx = used == 1
	if s.FPU.ST[0] != (x86.F80{Mant: 0xb17217f7d1cf79ac, SE: 0xbffe}) || s.FPU.XMM[3] != [2]uint64{0x0303030303030303, 0xf0e0d0c0b0a09083} {
		t.Errorf("ST0 %x, XMM3 %x", s.FPU.ST[0], s.FPU.XMM[3])
	}
	if avx && s.FPU.YMMH[0] != s.FPU.XMM[5] {
		t.Errorf("YMM0's upper half %x, want %x", s.FPU.YMMH[0], s.FPU.XMM[5])
	}
	if err := given(&s).CheckVMXEntry(); err != nil {
		t.Error(err)
	}
	h := newGuest(t, "", 1)
	for _, r := range g.mem.Regions() {
		if err := h.mem.Write(r.GPA, r.Host); err != nil {
			t.Fatal(err)
		}
	}
	h.set(0, &s)
	if err := h.mem.Store32(0x6008, 1); err != nil {
		t.Fatal(err)
	}
	h.start()
	h.word(0x6000, 2)
	h.kick()
	h.stop()
	for i := range uint64(16) {
		lo, _ := h.mem.Load64(0x6100 + 16*i)
		hi, _ := h.mem.Load64(0x6108 + 16*i)
		if lo != 0x0101010101010101*i || hi != 0xf0e0d0c0b0a09080+i {
			t.Errorf("XMM%d: %x %x", i, lo, hi)
		}
	}
	for i, want := range []uint64{0xb17217f7d1cf79ac, 0xc90fdaa22168c235, 0x8000000000000000} {
		if v, _ := h.mem.Load64(0x6200 + 16*uint64(i)); v != want {
			t.Errorf("ST%d: %x, want %x", i, v, want)
		}
	}
	if v, _ := h.mem.Load64(0x6250); avx && v != 0x0505050505050505 {
		t.Errorf("YMM0's upper half: %x", v)
	}
}

// TestChipStateRoundTrip moves a guest with its controllers, an interrupt
// pending in them, to a second VM, where it is delivered.
func TestChipStateRoundTrip(t *testing.T) {
	g := interrupts(t)
	g.kick()
	g.stop()
	g.vm.IRQChip().SetGSI(4, true)
	if err := g.vm.IRQChip().SignalMSI(message(0x4c)); err != nil {
		t.Fatal(err)
	}
	saved, err := g.vm.(accel.Stater).SaveChip()
	if err != nil {
		t.Fatal(err)
	}
	if saved.IOAPIC.Redirect[4]&0xff != 0x44 || saved.PIC[0].VectorBase != 0x48 || saved.LAPIC[0].Regs[0xf] != 0x13f || saved.LAPIC[0].Base&0x900 != 0x900 {
		t.Errorf("saved %+v", saved)
	}
	if saved.ParavirtClock == 0 {
		t.Error("kvmclock is not saved")
	}
	var s x86.State
	g.get(0, &s)
	h := newGuest(t, "", 1)
	for _, r := range g.mem.Regions() {
		if err := h.mem.Write(r.GPA, r.Host); err != nil {
			t.Fatal(err)
		}
	}
	h.set(0, &s)
	if err := h.vm.(accel.Stater).LoadChip(saved); err != nil {
		t.Fatal(err)
	}
	again, err := h.vm.(accel.Stater).SaveChip()
	if err != nil {
		t.Fatal(err)
	}
	if again.ParavirtClock < saved.ParavirtClock {
		t.Errorf("kvmclock went back from %d to %d", saved.ParavirtClock, again.ParavirtClock)
	}
	again.ParavirtClock = saved.ParavirtClock
	if !reflect.DeepEqual(again, saved) {
		t.Errorf("loaded %+v, saved %+v", again, saved)
	}
	h.start()
	h.expect(0x4c, 0x44)
	h.vm.IRQChip().SetGSI(5, true)
	h.expect(0x45)
	h.kick()
	h.stop()
	saved.Version++
	if h.vm.(accel.Stater).LoadChip(saved) == nil {
		t.Error("chip state of another version is accepted")
	}
}
