package pci

import "testing"

func Test_6_2_5_1_Sizing(t *testing.T) {
	r := newRig(t)
	r.add(3)
	for i, want := range []uint64{0xfffffff1, 0xfffff000, 0xfffff000, 0, 0xffffc00c, 0xffffffff} {
		off := 0x10 + 4*i
		was := r.read(3<<3, off, 4)
		r.write(3<<3, off, 4, 0xffffffff)
		if v := r.read(3<<3, off, 4); v != want {
			t.Errorf("BAR %d sizes as 0x%x, want 0x%x", i, v, want)
		}
		r.write(3<<3, off, 4, was)
	}
	if v := r.read(3<<3, 0x30, 4); v != 0 {
		t.Errorf("ROM BAR 0x%x", v)
	}
}

func TestDecodingFollowsCommandAndBase(t *testing.T) {
	r := newRig(t)
	f, p := r.add(3)
	var moves []uint64
	f.OnBARMove(2, func(base uint64, mapped bool) {
		if !mapped {
			base = ^base
		}
		moves = append(moves, base)
	})
	r.write(3<<3, 0x18, 4, 0xc0001000)
	r.write(3<<3, 0x10, 4, 0xc001)
	hits := func(mmio, port bool) {
		t.Helper()
		n := p.writes
		poke(r.mmio, 0xc0001004, 4, 1)
		if (p.writes > n) != mmio {
			t.Errorf("memory decodes: %v, want %v", p.writes > n, mmio)
		}
		n = p.writes
		poke(r.ports, 0xc004, 1, 1)
		if (p.writes > n) != port {
			t.Errorf("ports decode: %v, want %v", p.writes > n, port)
		}
	}
	hits(false, false)
	r.write(3<<3, 4, 2, 2)
	hits(true, false)
	r.write(3<<3, 4, 2, 3)
	hits(true, true)
	r.write(3<<3, 4, 2, 1)
	hits(false, true)
	r.write(3<<3, 4, 2, 2)
	r.write(3<<3, 0x18, 4, 0xc0005000) // moved while enabled
	hits(false, false)
	r.write(3<<3, 0x18, 4, 0xc0001000)
	hits(true, false)
	r.write(3<<3, 4, 2, 0)
	want := []uint64{0xc0001000, ^uint64(0xc0001000), 0xc0001000, ^uint64(0xc0001000), 0xc0005000, ^uint64(0xc0005000), 0xc0001000, ^uint64(0xc0001000)}
	if len(moves) != len(want) {
		t.Fatalf("moves %x, want %x", moves, want)
	}
	for i := range want {
		if moves[i] != want[i] {
			t.Fatalf("moves %x, want %x", moves, want)
		}
	}
}

func Test64BitBase(t *testing.T) {
	r := newRig(t)
	_, p := r.add(3)
	r.write(3<<3, 0x20, 8, 0x1_2345_0000)
	r.write(3<<3, 4, 2, 2)
	if poke(r.mmio, 0x1_2345_3ffc, 4, 1); p.writes != 1 {
		t.Error("not decoded")
	}
	if poke(r.mmio, 0x1_2345_4000, 4, 1); p.writes != 1 {
		t.Error("decoded past its end")
	}
}

// A guest may put a BAR anywhere. RAM, the chipset's own addresses, other
// windows and the end of the address space are not its to take.
func TestNonsenseBasesAreHarmless(t *testing.T) {
	r := newRig(t)
	r.add(3)
	before := len(r.mmio.Windows())
	r.write(3<<3, 4, 2, 2)
	for _, base := range []uint64{0, 0x1000, ramSize - 0x1000, ECAMBase, ECAMBase + ECAMSize - 0x1000, 0xfec00000, 0xfee00000, 0xfffff000} {
		r.write(3<<3, 0x18, 4, base)
		if n := len(r.mmio.Windows()); n != before {
			t.Errorf("base 0x%x is decoded", base)
		}
	}
	for _, base := range []uint64{1<<64 - 0x4000, ramSize - 0x4000, 0xfebfc000 + 0x4000, ECAMBase} {
		r.write(3<<3, 0x20, 8, base)
		if n := len(r.mmio.Windows()); n != before && base != 1<<64-0x4000 {
			t.Errorf("base 0x%x is decoded", base)
		}
	}
	poke(r.mmio, 1<<64-8, 8, 1)
}

func TestOverlappingBARsWaitForTheirTurn(t *testing.T) {
	r := newRig(t)
	_, p := r.add(3)
	_, q := r.add(4)
	for _, slot := range []uint8{3, 4} {
		r.write(slot<<3, 0x18, 4, 0xc0001000)
		r.write(slot<<3, 4, 2, 2)
	}
	if poke(r.mmio, 0xc0001000, 4, 1); p.writes != 1 || q.writes != 0 {
		t.Errorf("writes %d, %d: the first comer should have it", p.writes, q.writes)
	}
	r.write(3<<3, 0x18, 4, 0xc0002000)
	if poke(r.mmio, 0xc0001000, 4, 1); q.writes != 1 {
		t.Error("the second did not get the place when it became free")
	}
	if poke(r.mmio, 0xc0002000, 4, 1); p.writes != 2 {
		t.Error("the first did not move")
	}
}

func TestAssignResources(t *testing.T) {
	r := newRig(t)
	for slot := range uint8(20) {
		r.add(slot + 1)
	}
	if err := r.AssignResources(); err != nil {
		t.Fatal(err)
	}
	before := len(r.mmio.Windows())
	for slot := range uint8(20) {
		d := (slot + 1) << 3
		if b := r.read(d, 0x18, 4); b < 0xc0000000 || b >= 0xfec00000 || b%0x1000 != 0 {
			t.Errorf("32-bit BAR at 0x%x", b)
		}
		if b := r.read(d, 0x20, 8) &^ 15; b < 1<<36 || b >= 1<<36+1<<32 || b%0x4000 != 0 {
			t.Errorf("64-bit BAR at 0x%x", b)
		}
		r.write(d, 4, 2, 3)
	}
	if n := len(r.mmio.Windows()) - before; n != 60 {
		t.Errorf("%d BARs decode, want 60: they overlap", n)
	}
}

func TestAssignResourcesWithoutRoom(t *testing.T) {
	r := newRig(t)
	r.cfg.Mem64 = Range{}
	f := NewFunction("big", Identity{})
	if err := f.AddBAR(0, BAR64, 1<<28, &pad{}); err != nil {
		t.Fatal(err)
	}
	if err := f.AddBAR(2, BAR64Prefetch, 1<<31, &pad{}); err != nil {
		t.Fatal(err)
	}
	if err := r.AddFunction(8, f); err != nil {
		t.Fatal(err)
	}
	if err := r.AssignResources(); err == nil || err.Error() != "pci: big: no address space left for BAR 2 of 0x80000000 bytes" {
		t.Errorf("AssignResources: %v", err)
	}
	if b := r.read(8, 0x10, 8); b != 0xc0000004 {
		t.Errorf("a 64-bit BAR without a window is at 0x%x", b)
	}
}
