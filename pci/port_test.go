package pci

import (
	"encoding/binary"
	"strings"
	"testing"
)

// portRig has root ports 1 and 2 at 00:1c.0 and 1c.1, and addresses assigned.
func portRig(t testing.TB) (r *rig, ports [2]*Port) {
	t.Helper()
	r = newRig(t)
	for i := range ports {
		p, err := r.AddPort(Devfn(0x1c, uint8(i)), uint8(i+1))
		if err != nil {
			t.Fatal(err)
		}
		ports[i] = p
	}
	if err := r.AssignResources(); err != nil {
		t.Fatal(err)
	}
	return r, ports
}

// endpoint is a function that can be plugged in.
func endpoint(t testing.TB) (*Function, *pad) {
	t.Helper()
	f, p := NewFunction("endpoint", Identity{Vendor: 0x1234, Device: 0x9abc}), &pad{}
	f.UseINTx()
	if err := f.AddBAR(4, BAR64Prefetch, 0x4000, p); err != nil {
		t.Fatal(err)
	}
	if _, err := f.AddMSIX(1, 2); err != nil {
		t.Fatal(err)
	}
	if err := f.AddExpress(); err != nil {
		t.Fatal(err)
	}
	return f, p
}

func (r *rig) readBus(bus uint8, devfn uint8, off, n int) uint64 {
	var b [8]byte
	r.ReadConfig(bus, devfn, off, b[:n])
	return binary.LittleEndian.Uint64(b[:])
}

func (r *rig) writeBus(bus uint8, off, n int, v uint64) {
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], v)
	r.WriteConfig(bus, 0, off, b[:n])
}

func Test_7_8_RootPort(t *testing.T) {
	r, ports := portRig(t)
	d := Devfn(0x1c, 0)
	for off, want := range map[int]uint64{0: 0x000c_1b36, 8: 0x0604_0000, 0x0c: 0x0081_0000, 0x18: 0x0001_0100, 0x1c: 0} {
		if v := r.read(d, off, 4); v != want {
			t.Errorf("register 0x%x reads 0x%x, want 0x%x", off, v, want)
		}
	}
	at := int(r.read(d, 0x34, 1))
	if v := r.read(d, at, 4); v != 0x0142_0010 {
		t.Errorf("capability 0x%x: not a root port with a slot", v)
	}
	if v := r.read(d, at+0x14, 4); v != 1<<19 {
		t.Errorf("slot capabilities 0x%x: the number is not 1, or it claims hot-plug", v)
	}
	if v := r.read(d, at+0x1a, 2); v != 0 {
		t.Errorf("slot status 0x%x of an empty slot", v)
	}
	if v := peek(r.mmio, ECAMBase+uint64(d)<<12+0x100, 4); v != 0 {
		t.Errorf("extended configuration space 0x%x", v)
	}
	f, _ := endpoint(t)
	if err := ports[0].Plug(f); err != nil {
		t.Fatal(err)
	}
	if v := r.read(d, at+0x1a, 2); v != slotPresent {
		t.Errorf("slot status 0x%x with a function in the slot", v)
	}
	if ports[0].Device() != f || ports[0].Bus() != 1 {
		t.Errorf("%v on bus %d", ports[0].Device(), ports[0].Bus())
	}
}

func Test_7_3_3_ConfigurationOfTheBusBehind(t *testing.T) {
	r, ports := portRig(t)
	if v := r.readBus(1, 0, 0, 4); v != 0xffffffff {
		t.Errorf("an empty slot reads 0x%x", v)
	}
	f, _ := endpoint(t)
	if err := ports[1].Plug(f); err != nil {
		t.Fatal(err)
	}
	if v := r.readBus(2, 0, 0, 4); v != 0x9abc_1234 {
		t.Errorf("function behind port 2: 0x%x", v)
	}
	for _, devfn := range []uint8{1, 8, 0xff} {
		if v := r.readBus(2, devfn, 0, 4); v != 0xffffffff {
			t.Errorf("devfn 0x%x on the link reads 0x%x", devfn, v)
		}
	}
	r.write(Devfn(0x1c, 1), 0x19, 1, 77)
	if a, b := r.readBus(2, 0, 0, 4), r.readBus(77, 0, 0, 4); a != 0xffffffff || b != 0x9abc_1234 {
		t.Errorf("after a new bus number: 0x%x on the old, 0x%x on the new", a, b)
	}
	if v := r.readBus(77, 0, 0x0e, 1); v != 0 {
		t.Errorf("header type 0x%x", v)
	}
}

func TestWindowsGovernWhatDecodesBehind(t *testing.T) {
	r, ports := portRig(t)
	f, p := endpoint(t)
	if err := ports[0].Plug(f); err != nil {
		t.Fatal(err)
	}
	d := Devfn(0x1c, 0)
	mem := r.read(d, 0x20, 2) << 16
	pref := r.read(d, 0x28, 4)<<32 | r.read(d, 0x24, 2)&0xfff0<<16
	if mem < Mem32Base || pref < 1<<36 || r.read(d, 0x26, 2)&0xf != 1 {
		t.Fatalf("windows at 0x%x and 0x%x", mem, pref)
	}
	before := len(r.mmio.Windows())
	decodes := func(want int) {
		t.Helper()
		if n := len(r.mmio.Windows()) - before; n != want {
			t.Errorf("%d BARs decode, want %d", n, want)
		}
	}
	r.writeBus(1, 0x20, 8, pref)
	r.writeBus(1, 0x14, 4, mem)
	r.writeBus(1, 4, 2, 6)
	decodes(0)
	r.write(d, 4, 2, 6)
	decodes(2)
	if poke(r.mmio, pref+8, 4, 1); p.writes != 1 {
		t.Error("the BAR is not reached")
	}
	r.writeBus(1, 0x20, 8, pref+portMem64) // behind port 2's window
	decodes(1)
	r.writeBus(1, 0x20, 8, mem+portMem32-0x4000) // a prefetchable BAR in the other window
	decodes(2)
	r.writeBus(1, 0x20, 8, mem+portMem32)
	decodes(1)
	r.writeBus(1, 0x20, 8, mem+portMem32-0x4000)
	r.write(d, 0x20, 4, 0x0000_fff0) // shut
	decodes(0)
	r.write(d, 0x20, 4, mem>>16|(mem+portMem32-1)&0xfff00000)
	decodes(2)
	r.write(d, 4, 2, 0)
	decodes(0)
}

func TestUnplugLeavesNothing(t *testing.T) {
	r, ports := portRig(t)
	windows := len(r.mmio.Windows())
	for round := range 3 {
		f, _ := endpoint(t)
		var moves int
		f.OnBARMove(4, func(_ uint64, mapped bool) {
			if moves--; mapped {
				moves += 2
			}
		})
		if err := ports[0].Plug(f); err != nil {
			t.Fatal(err)
		}
		if err := ports[0].Plug(f); err == nil || !strings.Contains(err.Error(), "slot 1 holds endpoint") {
			t.Errorf("a full slot: %v", err)
		}
		if err := r.AssignResources(); err != nil {
			t.Fatal(err)
		}
		r.write(Devfn(0x1c, 0), 4, 2, 6)
		r.writeBus(1, 4, 2, 6)
		f.SetINTx(true)
		gsi := r.gsi[INTxGSI(0x1c, 0)]
		if !gsi.level || len(r.mmio.Windows()) != windows+2 || moves != 1 {
			t.Fatalf("round %d: line %v, %d windows, %d moves", round, gsi.level, len(r.mmio.Windows()), moves)
		}
		if g := ports[0].Unplug(); g != f {
			t.Fatalf("unplugged %v", g)
		}
		if gsi.level || len(r.mmio.Windows()) != windows || moves != 0 || ports[0].Device() != nil {
			t.Fatalf("round %d: line %v, %d windows, %d moves after the unplug", round, gsi.level, len(r.mmio.Windows()), moves)
		}
		f.SetINTx(true) // late: reaches nobody
		if gsi.level {
			t.Error("an unplugged function interrupts")
		}
		if err := f.Close(); err != nil || !r.msi.all[len(r.msi.all)-1].closed {
			t.Errorf("Close: %v", err)
		}
		if v := r.readBus(1, 0, 0, 4); v != 0xffffffff {
			t.Errorf("the slot reads 0x%x", v)
		}
		if ports[0].Unplug() != nil {
			t.Error("unplugged twice")
		}
	}
}

func TestPortStateSurvives(t *testing.T) {
	a, ports := portRig(t)
	f, _ := endpoint(t)
	if err := ports[1].Plug(f); err != nil {
		t.Fatal(err)
	}
	if err := a.AssignResources(); err != nil {
		t.Fatal(err)
	}
	a.write(Devfn(0x1c, 1), 4, 2, 6)
	a.writeBus(2, 4, 2, 6)
	s := a.Save()
	b, theirs := portRig(t)
	if err := b.Load(s); err == nil {
		t.Error("loaded without the function behind")
	}
	g, _ := endpoint(t)
	if err := theirs[0].Plug(g); err != nil {
		t.Fatal(err)
	}
	if err := b.Load(s); err == nil || !strings.Contains(err.Error(), "at port 2") {
		t.Errorf("loaded with the function in another slot: %v", err)
	}
	h, _ := endpoint(t)
	theirs[0].Unplug()
	if err := theirs[1].Plug(h); err != nil {
		t.Fatal(err)
	}
	if err := b.Load(s); err != nil {
		t.Fatal(err)
	}
	if !equal(s, b.Save()) || len(a.mmio.Windows()) != len(b.mmio.Windows()) {
		t.Error("the state does not survive")
	}
	b.Reset()
	if b.readBus(2, 0, 0, 4) != 0xffffffff {
		t.Error("the bus behind is there after a reset")
	}
}

func TestPortsWithoutRoomAbove(t *testing.T) {
	r := newRig(t)
	r.cfg.Mem64 = Range{}
	if _, err := r.AddPort(Devfn(0x1c, 0), 1); err != nil {
		t.Fatal(err)
	}
	if err := r.AssignResources(); err != nil {
		t.Fatal(err)
	}
	if v := r.read(Devfn(0x1c, 0), 0x24, 8); v != 0xc031_c021 {
		t.Errorf("prefetchable window 0x%x", v)
	}
}
