package pci

import "testing"

// msixRig has MSI-X enabled and every vector's message set, all masked by entry.
func msixRig(t *testing.T) (r *rig, f *Function, table uint64) {
	r = newRig(t)
	f, _ = r.add(3)
	if err := r.AssignResources(); err != nil {
		t.Fatal(err)
	}
	r.write(3<<3, 4, 2, 6)
	table = r.read(3<<3, 0x14, 4)
	for i := range uint64(3) {
		poke(r.mmio, table+16*i, 8, 0xfee00000+i<<12)
		poke(r.mmio, table+16*i+8, 4, 0x40+i)
	}
	r.write(3<<3, f.msix.cap+2, 2, msixEnable)
	return r, f, table
}

func Test_6_8_2_Capability(t *testing.T) {
	r, f, _ := msixRig(t)
	if v := r.read(3<<3, f.msix.cap, 8); v != 0x00000001_8002_0011 {
		t.Errorf("capability 0x%x", v)
	}
	if v := r.read(3<<3, f.msix.cap+8, 4); v != 0x801 {
		t.Errorf("pending bits at 0x%x", v)
	}
}

func Test_6_8_2_9_MaskedVectorBecomesPending(t *testing.T) {
	r, f, table := msixRig(t)
	sent := func(i int) int { return len(r.msi.all[i].sent) }
	if !r.msi.all[1].masked {
		t.Error("a masked vector's source is live")
	}
	f.msix.Trigger(1)
	f.msix.Trigger(1)
	if v := peek(r.mmio, table+0x800, 8); v != 2 || sent(1) != 0 {
		t.Errorf("pending 0x%x, %d sent", v, sent(1))
	}
	poke(r.mmio, table+0x800, 8, 0) // read-only
	if v := peek(r.mmio, table+0x800, 4); v != 2 {
		t.Errorf("the guest cleared a pending bit: 0x%x", v)
	}
	poke(r.mmio, table+16+12, 4, 0)
	if v := peek(r.mmio, table+0x800, 8); v != 0 || sent(1) != 1 {
		t.Errorf("after unmasking: pending 0x%x, %d sent", v, sent(1))
	}
	f.msix.Trigger(1)
	if sent(1) != 2 || r.msi.all[1].sent[1].Data != 0x41 || r.msi.all[1].sent[1].Addr != 0xfee01000 {
		t.Errorf("sent %+v", r.msi.all[1].sent)
	}
	poke(r.mmio, table+16+8, 4, 0x99) // a new message while live
	if f.msix.Trigger(1); r.msi.all[1].sent[2].Data != 0x99 {
		t.Errorf("sent %+v", r.msi.all[1].sent)
	}
}

func Test_6_8_2_3_FunctionMaskAndDisable(t *testing.T) {
	r, f, table := msixRig(t)
	poke(r.mmio, table+12, 4, 0)
	r.write(3<<3, f.msix.cap+2, 2, msixEnable|msixMaskAll)
	f.msix.Trigger(0)
	if len(r.msi.all[0].sent) != 0 || !r.msi.all[0].masked {
		t.Error("function mask does not mask")
	}
	if r.write(3<<3, f.msix.cap+3, 1, msixEnable>>8); len(r.msi.all[0].sent) != 1 {
		t.Error("the pending message did not follow")
	}
	r.write(3<<3, f.msix.cap+2, 2, 0)
	if f.msix.Trigger(0) {
		t.Error("Trigger says that MSI-X is enabled")
	}
	if v := peek(r.mmio, table+0x800, 8); v != 0 || len(r.msi.all[0].sent) != 1 {
		t.Errorf("disabled, but pending is 0x%x", v)
	}
}

func TestMSIXTableRefusesOddAccesses(t *testing.T) {
	r, f, table := msixRig(t)
	poke(r.mmio, table+8, 2, 0xffff)
	poke(r.mmio, table+10, 4, 0xffffffff)
	poke(r.mmio, table+3*16, 8, 1<<64-1) // past the last vector
	poke(r.mmio, table+0x7f8, 8, 1<<64-1)
	if v := peek(r.mmio, table+8, 4); v != 0x40 {
		t.Errorf("data 0x%x", v)
	}
	if v := peek(r.mmio, table+3*16, 8); v != 0 {
		t.Errorf("past the table 0x%x", v)
	}
	if v := peek(r.mmio, table+9, 1); v != 0 {
		t.Errorf("byte 0x%x", v)
	}
	f.msix.Trigger(3)
	f.msix.Trigger(0xffff)
}

func TestINTxIsSharedAndGated(t *testing.T) {
	r := newRig(t)
	f, _ := r.add(3)
	g, _ := r.add(7) // the same pin: (3+0)&3 == (7+0)&3
	n := INTxGSI(3, 0)
	high := func(want bool) {
		t.Helper()
		if r.gsi[n].level != want {
			t.Errorf("GSI %d is %v, want %v", n, r.gsi[n].level, want)
		}
	}
	f.SetINTx(true)
	high(true)
	if r.read(3<<3, 6, 2)&8 == 0 || r.read(7<<3, 6, 2)&8 != 0 {
		t.Error("interrupt status bit")
	}
	g.SetINTx(true)
	f.SetINTx(false)
	high(true)
	r.write(7<<3, 4, 2, 1<<10)
	high(false)
	if r.read(7<<3, 4, 4)>>16&8 == 0 {
		t.Error("interrupt status goes with interrupt disable")
	}
	r.write(7<<3, 5, 1, 0)
	high(true)
	r.write(7<<3, g.msix.cap+2, 2, msixEnable)
	high(false)
	r.write(7<<3, g.msix.cap+2, 2, 0)
	high(true)
	g.SetINTx(false)
	high(false)
}

func TestINTxRoutes(t *testing.T) {
	for _, c := range []struct {
		slot, pin uint8
		gsi       uint32
	}{{0, 0, 20}, {1, 0, 21}, {2, 3, 21}, {3, 0, 23}, {24, 0, 20}, {25, 0, 16}, {31, 0, 16}, {31, 3, 19}} {
		if g := INTxGSI(c.slot, c.pin); g != c.gsi {
			t.Errorf("slot %d pin %d is GSI %d, want %d", c.slot, c.pin, g, c.gsi)
		}
	}
	routes := Routes()
	if len(routes) != 128 {
		t.Fatalf("%d routes", len(routes))
	}
	for _, x := range routes {
		if x.GSI < 16 || x.GSI > 23 || x.GSI != INTxGSI(x.Slot, x.Pin) {
			t.Errorf("%+v", x)
		}
	}
}

func Test_ICH9_13_1_17_PIRQRouting(t *testing.T) {
	r := newRig(t)
	f, _ := r.add(3) // PIRQH, its register at 0x6b
	f.SetINTx(true)
	if r.gsi[11].level || r.gsi[10].level {
		t.Error("an ISA interrupt without a route")
	}
	if r.write(0xf8, 0x6b, 1, 11); !r.gsi[11].level || !r.gsi[23].level {
		t.Error("not routed to 11")
	}
	if r.write(0xf8, 0x68, 4, 0x0a808080); r.gsi[11].level || !r.gsi[10].level {
		t.Error("not moved to 10")
	}
	if f.SetINTx(false); r.gsi[10].level || r.gsi[23].level {
		t.Error("stuck")
	}
	f.SetINTx(true)
	if r.write(0xf8, 0x6b, 1, 0x8a); r.gsi[10].level {
		t.Error("not switched off")
	}
	r.write(0xf8, 0x6b, 1, 2) // the cascade cannot be a target
	if v := r.read(0xf8, 0x6b, 1); v != 2 {
		t.Errorf("register 0x%x", v)
	}
}
