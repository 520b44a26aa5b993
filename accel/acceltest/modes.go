package acceltest

import (
	"slices"
	"testing"
	"time"

	"berth/accel"
	"berth/x86"
)

func (suite Suite) realMode(t *testing.T) {
	g := suite.NewGuest(t, "real", 1)
	g.Numbers(0xa1, 0xb2b1, 0xc4c3c2c1, 0x1111, 0x2222, 0x3333)
	g.MMIO.Answer = func(uint64, int) uint64 { return 0xbeef }
	g.Run()
	want := []uint64{0x12, 0x3456, 0x789abcde, 0xa1, 0xb2b1, 0xc4c3c2c1, 'h', 'e', 'l', 'l', 'o', 0x1111, 0x2222, 0x3333, 0xbeef}
	if got := g.Ports.Writes(0x80); !slices.Equal(got, want) {
		t.Errorf("ports: %x, want %x", got, want)
	}
	wantMMIO := []Access{{0xd0004, 1, 0x5a, true}, {0xd0006, 2, 0x1234, true}, {0xd0008, 2, 0, false}}
	if got := g.MMIO.All(); !slices.Equal(got, wantMMIO) {
		t.Errorf("MMIO: %+v, want %+v", got, wantMMIO)
	}
}

func (suite Suite) protectedMode(t *testing.T) {
	g := suite.NewGuest(t, "protected", 1)
	g.MMIO.Answer = func(addr uint64, _ int) uint64 { return addr&^0xff | 0x7e }
	g.Run()
	const b = 0xd0000000
	want := []Access{
		{b, 1, 0x11, true}, {b + 2, 2, 0x2222, true}, {b + 4, 4, 0x33333333, true}, {b + 8, 4, 0, false},
		{b + 12, 4, 0, false}, {b + 12, 4, 0xd000007f, true},
		{b + 16, 4, 0x44444444, true}, {b + 20, 4, 0x44444444, true}, {b + 24, 4, 0x44444444, true},
		{b + 8, 4, 0, false}, {b + 8, 1, 0, false},
	}
	if got := g.MMIO.All(); !slices.Equal(got, want) {
		t.Errorf("MMIO: %+v, want %+v", got, want)
	}
	if got := g.Ports.Writes(0x80); !slices.Equal(got, []uint64{0xd000007e, 0xd000007e, 0x7e}) {
		t.Errorf("ports: %x", got)
	}
}

func (suite Suite) longMode(t *testing.T) {
	g := suite.NewGuest(t, "long", 1)
	g.MMIO.Answer = func(uint64, int) uint64 { return 0xaabbccdd_01020304 }
	g.Run()
	want := []Access{{0xd0000000, 8, 0x1122334455667788, true}, {0xd0000008, 8, 0, false}}
	if got := g.MMIO.All(); !slices.Equal(got, want) {
		t.Errorf("MMIO: %+v, want %+v", got, want)
	}
	if got := g.Ports.Writes(0x80); !slices.Equal(got, []uint64{0x01020304, 0xaabbccdd, 1}) {
		t.Errorf("ports: %x", got)
	}
	var s x86.State
	g.Get(0, &s)
	if s.EFER&x86.EFERLMA == 0 || s.GPR[15] != 0x1122334455667788 || s.GPR[14] != 0xaabbccdd_01020304 || s.CR3 != 0x70000 {
		t.Errorf("state after the end: %+v", s)
	}
	if err := suite.fit(&s); err != nil {
		t.Error(err)
	}
}

// ioIsComplete kicks from inside an IN and an OUT:
// RIP must be past the instruction and the register loaded by the time Run is back.
func (suite Suite) ioIsComplete(t *testing.T) {
	g := suite.NewGuest(t, "", 1)
	g.LoadCode([]byte{0xe4, 0x81, 0xe6, 0x82, 0xf4}) // in al, 0x81; out 0x82, al; hlt
	var s x86.State
	g.Ports.Answer = func(uint64, int) uint64 { return 0x5c }
	g.Ports.Hook = func(Access) { g.Kick() }
	g.Run()
	g.Get(0, &s)
	if s.RIP != 0x1002 || s.GPR[x86.RAX]&0xff != 0x5c {
		t.Errorf("after IN: RIP 0x%x, AL 0x%x", s.RIP, s.GPR[x86.RAX]&0xff)
	}
	g.Run()
	g.Get(0, &s)
	if got := g.Ports.Writes(0x82); s.RIP != 0x1004 || !slices.Equal(got, []uint64{0x5c}) {
		t.Errorf("after OUT: RIP 0x%x, written %x", s.RIP, got)
	}
}

// kicks kicks a guest that never exits of itself, one that halts, and one
// that is not running yet. The time a kick takes is printed.
func (suite Suite) kicks(t *testing.T) {
	g := suite.NewGuest(t, "count", 1)
	g.Kick() // before Run: it returns at once
	g.Run()
	var took []time.Duration
	for range 50 {
		g.Start()
		g.moves()
		at := time.Now()
		g.Kick()
		g.Stop()
		took = append(took, time.Since(at))
	}
	slices.Sort(took)
	t.Logf("kick to Run's return, a running guest: median %v, worst %v", took[25], took[49])

	h := suite.interrupts(t)
	took = nil
	for range 50 {
		at := time.Now()
		h.Kick()
		h.Stop()
		took = append(took, time.Since(at))
		h.Start()
	}
	slices.Sort(took)
	t.Logf("kick to Run's return, a halted guest: median %v, worst %v", took[25], took[49])
	h.Kick()
	h.Stop()
}

// moves waits until the counting guest has counted on.
func (g *Guest) moves() {
	g.t.Helper()
	was, _ := g.Mem.Load64(0x6000)
	for end := time.Now().Add(patience); ; time.Sleep(100 * time.Microsecond) {
		if now, _ := g.Mem.Load64(0x6000); now != was {
			return
		}
		if time.Now().After(end) {
			g.t.Fatal("the guest does not move")
		}
	}
}

func (suite Suite) tripleFault(t *testing.T) {
	g := suite.NewGuest(t, "triple", 1)
	g.Start()
	g.Ended()
	if r := g.CPUs[0]; r.Err != nil || r.Exit.Reason != accel.ExitShutdown {
		t.Errorf("%v, %+v", r.Err, r.Exit)
	}
}

func (suite Suite) startUp(t *testing.T) {
	for _, cpus := range []int{2, 4} {
		if cpus > suite.MaxCPUs {
			return
		}
		g := suite.NewGuest(t, "smp", cpus)
		for id := 1; id < cpus; id++ {
			var s x86.State
			if g.Get(id, &s); s.MP != x86.MPUninitialized && s.MP != x86.MPWaitSIPI {
				t.Errorf("vCPU %d starts in MP state %d", id, s.MP)
			}
		}
		g.Ports.Answer = func(uint64, int) uint64 { return uint64(cpus - 1) }
		g.Run()
		got := g.Ports.Writes(0x80)
		slices.Sort(got)
		if want := []uint64{1, 2, 3}[:cpus-1]; !slices.Equal(got, want) {
			t.Errorf("%d vCPUs: APIC IDs %d, want %d", cpus, got, want)
		}
	}
}
