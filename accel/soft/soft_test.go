package soft

import (
	"log/slog"
	"testing"

	"berth/accel"
	"berth/clock"
	"berth/guestmem"
	"berth/irq"
	"berth/x86"
)

// ports records what the guest writes.
type ports struct {
	got   []byte
	want  int
	done  func()
	first func() // called at the first write
}

func (p *ports) Read(_ uint64, b []byte) { clear(b) }

func (p *ports) Write(_ uint64, b []byte) {
	p.got = append(p.got, b...)
	if len(p.got) == 1 && p.first != nil {
		p.first()
	}
	if len(p.got) == p.want {
		p.done()
	}
}

type nothing struct{}

func (nothing) Read(_ uint64, b []byte) { clear(b) }
func (nothing) Write(uint64, []byte)    {}

type guest struct {
	vm    accel.VM
	cpu   accel.VCPU
	mem   *guestmem.Memory
	clock *clock.Manual
	ports *ports
}

// realMode returns a guest of one vCPU about to run code at 0x1000 in real mode,
// kicked once it has written n bytes to ports.
func realMode(t *testing.T, code []byte, n int) *guest {
	t.Helper()
	g := &guest{mem: guestmem.New(), clock: clock.NewManual(), ports: &ports{want: n}}
	if _, err := g.mem.AddRAM(0, 1<<20); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { g.mem.Close() })
	var err error
	g.vm, err = New(slog.New(slog.DiscardHandler)).NewVM(accel.Config{
		Memory: g.mem, Ports: g.ports, MMIO: nothing{}, CPUs: 1, Clock: g.clock,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { g.vm.Close() })
	if g.cpu, err = g.vm.NewVCPU(0); err != nil {
		t.Fatal(err)
	}
	g.ports.done = g.cpu.Kick
	if err := g.mem.Write(0x1000, code); err != nil {
		t.Fatal(err)
	}
	var s x86.State
	if err := g.cpu.GetState(&s); err != nil {
		t.Fatal(err)
	}
	s.Seg[x86.CS].Selector, s.Seg[x86.CS].Base, s.RIP = 0, 0, 0x1000
	s.GPR[x86.RSP] = 0x8000
	if err := g.cpu.SetState(&s); err != nil {
		t.Fatal(err)
	}
	return g
}

func (g *guest) run(t *testing.T) accel.Exit {
	t.Helper()
	var e accel.Exit
	if err := g.cpu.Run(&e); err != nil {
		t.Fatal(err)
	}
	return e
}

// TestInterruptWakesHLT takes a GSI through the 8259 in the PC's reset wiring.
func TestInterruptWakesHLT(t *testing.T) {
	g := realMode(t, []byte{
		0xb0, 0x11, 0xe6, 0x20, 0xb0, 0x20, 0xe6, 0x21, // ICW1, ICW2: vectors from 0x20
		0xb0, 0x04, 0xe6, 0x21, 0xb0, 0x01, 0xe6, 0x21, 0xb0, 0x00, 0xe6, 0x21,
		0xb0, 0x01, 0xe6, 0x80, // out 0x80, 1
		0xfb, 0xf4, // sti; hlt
		0xb0, 0x03, 0xe6, 0x80, // out 0x80, 3
		0xeb, 0xfe,
	}, 3)
	handler := []byte{0xb0, 0x02, 0xe6, 0x80, 0xcf} // out 0x80, 2; iret
	if err := g.mem.Write(0x2000, handler); err != nil {
		t.Fatal(err)
	}
	if err := g.mem.Write(0x24*4, []byte{0, 0x20, 0, 0}); err != nil {
		t.Fatal(err)
	}
	g.ports.first = func() { g.vm.IRQChip().SetGSI(4, true) }
	if e := g.run(t); e.Reason != accel.ExitKick {
		t.Fatalf("%+v", e)
	}
	if string(g.ports.got) != "\x01\x02\x03" {
		t.Errorf("ports got % x", g.ports.got)
	}
}

func TestKickBeforeRun(t *testing.T) {
	g := realMode(t, []byte{0xf4, 0xeb, 0xfd}, 0)
	g.cpu.Kick()
	if e := g.run(t); e.Reason != accel.ExitKick {
		t.Errorf("%+v", e)
	}
}

func TestTripleFault(t *testing.T) {
	g := realMode(t, []byte{0x0f, 0x01, 0x1e, 0x00, 0x30, 0x0f, 0x0b}, 0) // lidt of zeros; ud2
	e := g.run(t)
	if e.Reason != accel.ExitShutdown || e.RIP != 0x1005 || len(e.Bytes) < 2 || e.Bytes[0] != 0x0f {
		t.Errorf("%+v", e)
	}
}

func TestStateRoundTrip(t *testing.T) {
	g := realMode(t, []byte{0xf4}, 0)
	var a, b x86.State
	if err := g.cpu.GetState(&a); err != nil {
		t.Fatal(err)
	}
	a.GPR[x86.R15], a.FPU.XMM[3], a.Events.ShadowSTI, a.MP = 77, [2]uint64{1, 2}, true, x86.MPHalted
	if err := g.cpu.SetState(&a); err != nil {
		t.Fatal(err)
	}
	if err := g.cpu.GetState(&b); err != nil {
		t.Fatal(err)
	}
	if len(a.MSRs) != len(b.MSRs) {
		t.Fatal("MSRs differ")
	}
	for i := range a.MSRs {
		if a.MSRs[i] != b.MSRs[i] {
			t.Errorf("MSR %#x: %#x and %#x", a.MSRs[i].Index, a.MSRs[i].Value, b.MSRs[i].Value)
		}
	}
	a.MSRs, b.MSRs = nil, nil
	if b.GPR != a.GPR || b.FPU != a.FPU || b.Events != a.Events || b.Seg != a.Seg || b.MP != a.MP {
		t.Errorf("set %+v\ngot %+v", a, b)
	}
}

func TestChipStateRoundTrip(t *testing.T) {
	g := realMode(t, []byte{0xf4}, 0)
	v := g.vm.(accel.Stater)
	g.vm.IRQChip().SetGSI(4, true)
	s, err := v.SaveChip()
	if err != nil {
		t.Fatal(err)
	}
	if s.PIC[0].IRR&(1<<4) == 0 || s.IOAPIC.IRR&(1<<4) == 0 {
		t.Errorf("GSI 4 did not reach both controllers: %+v", s)
	}
	if err := v.LoadChip(s); err != nil {
		t.Error(err)
	}
	s.Version++
	if v.LoadChip(s) == nil {
		t.Error("a state of an unknown version was accepted")
	}
}

func TestDirtyLogSeesEveryWrite(t *testing.T) {
	g := realMode(t, []byte{
		0xa2, 0x00, 0x50, 0xe6, 0x80, // mov [0x5000], al; out 0x80, al
		0xa2, 0x01, 0x50, 0xe6, 0x80,
		0xa2, 0x00, 0x60, 0xe6, 0x80, 0xeb, 0xfe,
	}, 1)
	log := g.vm.(accel.DirtyLogger)
	if err := log.SetDirtyLog(true); err != nil {
		t.Fatal(err)
	}
	for i, want := range [][]uint64{{0x5000}, {0x5000}, {0x6000}} {
		g.ports.want = i + 1
		g.run(t)
		var got []uint64
		if err := log.CollectDirty(func(gpa uint64) { got = append(got, gpa) }); err != nil {
			t.Fatal(err)
		}
		if len(got) != 1 || got[0] != want[0] {
			t.Errorf("round %d: %#x, want %#x", i, got, want)
		}
	}
}

func TestMSISource(t *testing.T) {
	g := realMode(t, []byte{0xf4}, 0)
	src, err := g.vm.IRQChip().NewMSISource()
	if err != nil {
		t.Fatal(err)
	}
	l := g.vm.(*VM).lapics.APIC(0)
	l.Write(0xf0, []byte{0xff, 1, 0, 0}) // enable
	m := irq.MSI{Addr: 0xfee00000, Data: 0x55}
	if err := src.Program(m, true); err != nil {
		t.Fatal(err)
	}
	if src.Trigger(); l.Deliverable() {
		t.Error("a masked source sent its message")
	}
	if err := src.Program(m, false); err != nil {
		t.Fatal(err)
	}
	src.Trigger()
	if v, ok := l.Acknowledge(); !ok || v != 0x55 {
		t.Errorf("vector %#x %v", v, ok)
	}
	if err := src.Close(); err != nil {
		t.Error(err)
	}
	if src.Trigger(); l.Deliverable() {
		t.Error("a closed source sent its message")
	}
	if g.vm.IRQChip().SignalMSI(irq.MSI{Addr: 0x1000}) == nil {
		t.Error("a message to RAM was accepted")
	}
}

// TestFPUErrorIsIRQ13: an unmasked x87 exception with CR0.NE clear is IRQ 13; the
// instruction that reports it waits, and port 0xF0 lets the handler use the FPU.
func TestFPUErrorIsIRQ13(t *testing.T) {
	g := realMode(t, []byte{
		0xb0, 0x11, 0xe6, 0x20, 0xe6, 0xa0, 0xb0, 0x20, 0xe6, 0x21, 0xb0, 0x28, 0xe6, 0xa1, // ICW1, ICW2
		0xb0, 0x04, 0xe6, 0x21, 0xb0, 0x02, 0xe6, 0xa1, 0xb0, 0x01, 0xe6, 0x21, 0xe6, 0xa1, 0xb0, 0x00, 0xe6, 0x21, 0xe6, 0xa1,
		0xdb, 0xe3, 0x68, 0x7b, 0x03, 0x89, 0xe5, 0xd9, 0x6e, 0x00, // fninit; fldcw: division by zero unmasked
		0xd9, 0xe8, 0xd9, 0xee, 0xde, 0xf9, 0xfb, // fld1; fldz; fdivp; sti
		0xb0, 0x01, 0xe6, 0x80, 0x9b, 0xb0, 0x04, 0xe6, 0x80, 0xeb, 0xfe, // out 0x80, 1; fwait; out 0x80, 4
	}, 4)
	handler := []byte{
		0xb0, 0x02, 0xe6, 0x80, 0xe6, 0xf0, 0xd9, 0xe8, 0xdb, 0xe2, // out 0x80, 2; out 0xf0, al; fld1; fnclex
		0xb0, 0x20, 0xe6, 0xa0, 0xe6, 0x20, 0xb0, 0x03, 0xe6, 0x80, 0xcf, // EOIs; out 0x80, 3; iret
	}
	if err := g.mem.Write(0x2000, handler); err != nil {
		t.Fatal(err)
	}
	if err := g.mem.Write(0x2d*4, []byte{0, 0x20, 0, 0}); err != nil {
		t.Fatal(err)
	}
	if e := g.run(t); e.Reason != accel.ExitKick {
		t.Fatalf("%+v", e)
	}
	if string(g.ports.got) != "\x01\x02\x03\x04" {
		t.Errorf("ports got % x", g.ports.got)
	}
	s, err := g.vm.(accel.Stater).SaveChip()
	if err != nil {
		t.Fatal(err)
	}
	if s.FERR != (irq.FERRState{}) {
		t.Errorf("the error's state afterwards: %+v", s.FERR)
	}
}
