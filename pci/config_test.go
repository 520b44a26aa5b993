package pci

import (
	"bytes"
	"strings"
	"testing"
)

func Test_3_2_2_3_2_ConfigurationByPorts(t *testing.T) {
	r := newRig(t)
	r.add(3)
	at := func(bus, devfn, reg uint64) { poke(r.ports, 0xcf8, 4, 1<<31|bus<<16|devfn<<8|reg) }
	at(0, 3<<3, 0)
	if v := peek(r.ports, 0xcfc, 4); v != 0x5678_1234 {
		t.Errorf("ID 0x%x", v)
	}
	if v := peek(r.ports, 0xcfe, 2); v != 0x5678 {
		t.Errorf("device ID 0x%x", v)
	}
	if v := peek(r.ports, 0xcff, 1); v != 0x56 {
		t.Errorf("byte 3 0x%x", v)
	}
	at(0, 3<<3, 0x3c)
	poke(r.ports, 0xcfc, 1, 0x5a)
	if v := peek(r.ports, 0xcfc, 2); v != 0x015a {
		t.Errorf("interrupt line and pin 0x%x", v)
	}
	for _, c := range [][3]uint64{{0, 4 << 3, 0}, {0, 3<<3 | 1, 0}, {1, 3 << 3, 0}, {255, 0xff, 0xfc}} {
		at(c[0], c[1], c[2])
		if v := peek(r.ports, 0xcfc, 4); v != 0xffffffff {
			t.Errorf("%v reads 0x%x", c, v)
		}
		poke(r.ports, 0xcfc, 4, 0)
	}
	poke(r.ports, 0xcf8, 4, 3<<11) // not enabled
	if v := peek(r.ports, 0xcfc, 4); v != 0xffffffff {
		t.Errorf("disabled reads 0x%x", v)
	}
	poke(r.ports, 0xcf8, 4, 0xffffffff)
	if v := peek(r.ports, 0xcf8, 4); v != 0x80fffffc {
		t.Errorf("address reads 0x%x", v)
	}
	poke(r.ports, 0xcf8, 2, 0)
	if v := peek(r.ports, 0xcf8, 4); v != 0x80fffffc {
		t.Errorf("a 16-bit write changed the address to 0x%x", v)
	}
}

func TestResetPortLiesInsideTheAddressRegister(t *testing.T) {
	r := newRig(t)
	poke(r.ports, 0xcf8, 4, 0x80001234)
	poke(r.ports, 0xcf9, 1, 6)
	if r.reset.writes != 1 || r.reset.bytes[0] != 6 {
		t.Errorf("reset control saw %d writes", r.reset.writes)
	}
	if v := peek(r.ports, 0xcf9, 1); v != 6 {
		t.Errorf("reset control reads 0x%x", v)
	}
	if v := peek(r.ports, 0xcf8, 4); v != 0x80001234 {
		t.Errorf("address became 0x%x", v)
	}
}

func Test_7_2_2_ECAM(t *testing.T) {
	r := newRig(t)
	r.add(3)
	base := uint64(ECAMBase + 3<<15)
	if v := peek(r.mmio, base, 4); v != 0x5678_1234 {
		t.Errorf("ID 0x%x", v)
	}
	poke(r.mmio, base+4, 2, 7)
	if v := peek(r.mmio, base+4, 2); v != 7 {
		t.Errorf("command 0x%x", v)
	}
	for _, off := range []uint64{0x100, 0xffc, 1 << 20, ECAMSize - 3<<15 - 4} {
		if v := peek(r.mmio, base+off, 4); v != 0xffffffff {
			t.Errorf("+0x%x reads 0x%x", off, v)
		}
		poke(r.mmio, base+off, 4, 0)
	}
	if v := peek(r.mmio, base+0xfc, 8); v != 1<<64-1 {
		t.Errorf("an access across the header's end reads 0x%x", v)
	}
}

func TestChipsetFunctions(t *testing.T) {
	r := newRig(t)
	for _, c := range []struct {
		devfn    uint8
		off, n   int
		want     uint64
		writable bool
	}{
		{0, 0, 4, 0x29c0_8086, false}, {0, 8, 4, 0x0600_0002, false}, {0, 0x60, 8, 0xb0000001, false},
		{0xf8, 0, 4, 0x2918_8086, false}, {0xf8, 8, 4, 0x0601_0002, false}, {0xf8, 0x40, 4, 0x601, false}, {0xf8, 0x44, 1, 0x80, false},
		{0xf8, 0x60, 4, 0x80808080, true}, {0xf8, 0x68, 4, 0x80808080, true},
	} {
		if v := r.read(c.devfn, c.off, c.n); v != c.want {
			t.Errorf("%02x+0x%x reads 0x%x, want 0x%x", c.devfn, c.off, v, c.want)
		}
		r.write(c.devfn, c.off, c.n, 0)
		if v := r.read(c.devfn, c.off, c.n); (v != c.want) != c.writable {
			t.Errorf("%02x+0x%x reads 0x%x after a write", c.devfn, c.off, v)
		}
	}
}

func Test_6_2_1_MultiFunctionBit(t *testing.T) {
	r := newRig(t)
	r.add(3)
	if v := r.read(3<<3, 0x0e, 1); v != 0 {
		t.Errorf("header type 0x%x", v)
	}
	if err := r.AddFunction(Devfn(3, 5), NewFunction("second", Identity{Vendor: 1})); err != nil {
		t.Fatal(err)
	}
	if v := r.read(3<<3, 0x0c, 4); v != 0x80_0000 {
		t.Errorf("with a sibling 0x%x", v)
	}
}

func TestReadOnlyRegistersStay(t *testing.T) {
	r := newRig(t)
	f, _ := r.add(3)
	for off := range configSize {
		r.write(3<<3, off, 1, 0xff)
	}
	for off := range configSize {
		if got, was, m := f.cfg[off], f.reset[off], f.writable[off]; (got^was)&^m != 0 {
			t.Errorf("register 0x%x changed from 0x%x to 0x%x, mask 0x%x", off, was, got, m)
		}
	}
}

func TestAddFunctionRefuses(t *testing.T) {
	r := newRig(t)
	f, _ := r.add(3)
	if err := r.AddFunction(Devfn(3, 0), NewFunction("late", Identity{})); err == nil || !strings.Contains(err.Error(), "00:03.0 holds test device") {
		t.Errorf("same place: %v", err)
	}
	if err := r.AddFunction(Devfn(4, 0), f); err == nil {
		t.Error("one function in two places")
	}
	for _, c := range []struct {
		i    int
		kind BARKind
		size uint64
	}{{6, BAR32, 16}, {5, BAR64, 16}, {3, BAR32, 0}, {3, BAR32, 24}, {3, BAR32, 8}, {3, BARIO, 512}, {5, BAR32, 16}, {2, BAR32, 16}, {3, BAR32, 1 << 32}, {-1, BAR32, 16}} {
		if err := f.AddBAR(c.i, c.kind, c.size, nil); err == nil {
			t.Errorf("AddBAR(%d, %d, %d) was accepted", c.i, c.kind, c.size)
		}
	}
	g := NewFunction("full", Identity{})
	if _, err := g.AddCapability(9, make([]byte, 180), nil); err != nil {
		t.Error(err)
	}
	if _, err := g.AddCapability(9, make([]byte, 20), nil); err == nil {
		t.Error("a capability past the end was accepted")
	}
	if _, err := g.AddMSIX(0, 2049); err == nil {
		t.Error("2049 vectors were accepted")
	}
}

func Test_6_7_CapabilityList(t *testing.T) {
	r := newRig(t)
	f := NewFunction("caps", Identity{})
	a, _ := f.AddCapability(9, []byte{1, 2, 3}, []byte{0, 0xf0, 0})
	b, _ := f.AddCapability(5, []byte{4}, nil)
	if err := r.AddFunction(8, f); err != nil {
		t.Fatal(err)
	}
	if r.read(8, 6, 2)&0x10 == 0 || r.read(8, 0x34, 1) != uint64(a) || r.read(8, a, 2) != uint64(9|b<<8) || r.read(8, b, 2) != 5 {
		t.Errorf("list is %x", f.cfg[0x34:0x60])
	}
	if r.write(8, a+2, 4, 0xffffffff); r.read(8, a+2, 2) != 0xf201 {
		t.Errorf("masked write gave 0x%x", r.read(8, a+2, 2))
	}
}

func TestStateRoundTrip(t *testing.T) {
	build := func() (*rig, *Function) {
		r := newRig(t)
		f, _ := r.add(3)
		return r, f
	}
	a, f := build()
	if err := a.AssignResources(); err != nil {
		t.Fatal(err)
	}
	a.write(3<<3, 4, 2, 7)
	poke(a.ports, 0xcf8, 4, 0x80001234)
	a.write(0xf8, 0x60, 4, 0x0b80800a)
	table := a.read(3<<3, 0x14, 4)
	poke(a.mmio, table, 8, 0xfee01000)
	poke(a.mmio, table+8, 8, 0x55)
	poke(a.mmio, table+16+8, 4, 0x66)
	f.msix.control(msixEnable)
	a.write(3<<3, f.msix.cap+2, 2, msixEnable)
	f.msix.Trigger(1) // masked: pending when saved
	s := a.Save()

	b, g := build()
	if err := b.Load(s); err != nil {
		t.Fatal(err)
	}
	if got := b.Save(); !equal(got, s) {
		t.Errorf("state does not survive:\n%+v\n%+v", s, got)
	}
	if w := b.mmio.Windows(); len(w) != len(a.mmio.Windows()) {
		t.Errorf("%d windows mapped, want %d", len(w), len(a.mmio.Windows()))
	}
	if !g.msix.Trigger(0) || len(b.msi.all[0].sent) != 1 || b.msi.all[0].sent[0].Data != 0x55 || b.msi.all[0].sent[0].Addr != 0xfee01000 {
		t.Errorf("vector 0 sent %+v", b.msi.all[0].sent)
	}
	if poke(b.mmio, table+16+12, 4, 0); len(b.msi.all[1].sent) != 1 {
		t.Error("the pending bit was lost")
	}

	for name, change := range map[string]func(*State){
		"version":   func(s *State) { s.Version = 1 },
		"functions": func(s *State) { s.Functions = s.Functions[1:] },
		"place":     func(s *State) { s.Functions[1].Devfn = 77 },
		"length":    func(s *State) { s.Functions[1].Config = nil },
		"identity":  func(s *State) { s.Functions[1].Config[0]++ },
		"vectors":   func(s *State) { s.Functions[1].Vectors = nil },
	} {
		bad := a.Save()
		change(&bad)
		before := b.Save()
		if err := b.Load(bad); err == nil {
			t.Errorf("%s: a bad state was loaded", name)
		}
		if !equal(before, b.Save()) {
			t.Errorf("%s: a refused state changed something", name)
		}
	}
}

func equal(a, b State) bool {
	if a.Address != b.Address || a.PIRQRoute != b.PIRQRoute || len(a.Functions) != len(b.Functions) {
		return false
	}
	for i, f := range a.Functions {
		g := b.Functions[i]
		if f.Devfn != g.Devfn || f.INTx != g.INTx || !bytes.Equal(f.Config, g.Config) || len(f.Vectors) != len(g.Vectors) {
			return false
		}
		for j := range f.Vectors {
			if f.Vectors[j] != g.Vectors[j] {
				return false
			}
		}
	}
	return true
}

func TestResetUnmapsEverything(t *testing.T) {
	r := newRig(t)
	f, _ := r.add(3)
	fresh := r.Save()
	if err := r.AssignResources(); err != nil {
		t.Fatal(err)
	}
	r.write(3<<3, 4, 2, 7)
	r.write(0xf8, 0x63, 1, 5)
	f.SetINTx(true)
	n := len(r.mmio.Windows())
	r.Reset()
	if !equal(fresh, r.Save()) {
		t.Error("reset is not the state at first")
	}
	if m := len(r.mmio.Windows()); m != n-3 {
		t.Errorf("%d windows before, %d after", n, m)
	}
	if r.gsi[INTxGSI(3, 0)].level {
		t.Error("INTx stayed high")
	}
	if err := r.Close(); err != nil || !r.msi.all[2].closed {
		t.Errorf("Close: %v", err)
	}
}
