package virtio_test

import (
	"testing"

	"berth/virtio"
	"berth/virtio/virtiotest"
)

func Test_4_1_2_Identity(t *testing.T) {
	d := virtiotest.New(t, virtiotest.NewEcho(), nil)
	if v := d.ReadConfig(0, 4); v != 0x107f_1af4 {
		t.Errorf("ID 0x%x", v)
	}
	if v := d.ReadConfig(8, 1); v < 1 {
		t.Errorf("revision %d", v)
	}
	if v := d.ReadConfig(0x2e, 2); v < 0x40 {
		t.Errorf("subsystem ID 0x%x", v)
	}
}

func Test_4_1_4_Capabilities(t *testing.T) {
	d := virtiotest.New(t, virtiotest.NewEcho(), nil)
	for kind, minimum := range map[uint64]uint64{virtiotest.Common: 0x38, virtiotest.Notify: 2, virtiotest.ISR: 1, virtiotest.Config: 4, 5: 0} {
		off := d.VirtioCap(kind)
		if off == 0 {
			t.Fatalf("no capability of type %d", kind)
		}
		if n := d.ReadConfig(off+2, 1); (kind == virtiotest.Notify || kind == 5) != (n == 20) || n < 16 {
			t.Errorf("type %d: cap_len %d", kind, n)
		}
		if n := d.ReadConfig(off+12, 4); n < minimum {
			t.Errorf("type %d: length %d", kind, n)
		}
		if v := d.ReadConfig(off+8, 4); v%4 != 0 {
			t.Errorf("type %d: offset 0x%x", kind, v)
		}
	}
}

func Test_4_1_4_3_QueueRegisters(t *testing.T) {
	e := virtiotest.NewEcho()
	e.Queues = []uint16{256, 64}
	d := virtiotest.New(t, e, nil)
	d.Negotiate(virtio.FeatureVersion1)
	rd := func(off, n int) uint64 { return d.Read(virtiotest.Common, off, n) }
	wr := func(off, n int, v uint64) { d.Write(virtiotest.Common, off, n, v) }
	if rd(0x12, 2) != 2 {
		t.Errorf("num_queues %d", rd(0x12, 2))
	}
	wr(0x16, 2, 2) // no such queue
	if rd(0x18, 2) != 0 || rd(0x1a, 2) != virtio.NoVector {
		t.Error("a queue that does not exist has a size or a vector")
	}
	wr(0x18, 2, 8)
	wr(0x1c, 2, 1)
	wr(0x16, 2, 1)
	if rd(0x18, 2) != 64 || rd(0x1c, 2) != 0 {
		t.Errorf("size %d, enabled %d", rd(0x18, 2), rd(0x1c, 2))
	}
	for _, bad := range []uint64{0, 3, 128, 0xffff} {
		if wr(0x18, 2, bad); rd(0x18, 2) != 64 {
			t.Errorf("size %d was accepted", bad)
		}
	}
	wr(0x18, 2, 16)
	wr(0x1a, 2, 2)
	wr(0x20, 4, 0x11223340)
	wr(0x24, 4, 5)
	wr(0x28, 8, 0x1_0000_0002)
	if rd(0x18, 2) != 16 || rd(0x1a, 2) != 2 || rd(0x20, 8) != 0x5_1122_3340 || rd(0x28, 4) != 2 || rd(0x2c, 4) != 1 {
		t.Error("registers do not read back")
	}
	if wr(0x1a, 2, 3); rd(0x1a, 2) != virtio.NoVector {
		t.Error("a vector that does not exist was accepted")
	}
	wr(0x10, 2, 2)
	if wr(0x10, 2, 77); rd(0x10, 2) != virtio.NoVector {
		t.Error("a configuration vector that does not exist was accepted")
	}
	for _, odd := range [][2]int{{0x20, 2}, {0x22, 4}, {0x18, 4}, {0x19, 1}, {0x14, 2}, {0x36, 2}, {0x38, 4}, {0xffc, 4}} {
		before := rd(0x18, 8)
		wr(odd[0], odd[1], 1<<64-1)
		if rd(0x18, 8) != before || d.Status() != 11 {
			t.Errorf("a write of %d at 0x%x did something", odd[1], odd[0])
		}
	}
	wr(0x1c, 2, 1)
	wr(0x20, 8, 0)
	wr(0x18, 2, 4)
	if rd(0x20, 8) != 0x5_1122_3340 || rd(0x18, 2) != 16 {
		t.Error("an enabled queue changed")
	}
}

func Test_4_1_4_9_ConfigurationAccessWindow(t *testing.T) {
	d := virtiotest.New(t, virtiotest.NewEcho(), nil)
	off := d.VirtioCap(5)
	aim := func(bar, at, n uint64) {
		d.WriteConfig(off+4, 1, bar)
		d.WriteConfig(off+8, 4, at)
		d.WriteConfig(off+12, 4, n)
	}
	d.SetCommand(0) // works without decoding
	aim(4, 0x14, 1)
	d.WriteConfig(off+16, 1, 3)
	if v := d.ReadConfig(off+16, 4); v != 3 {
		t.Errorf("status by the window 0x%x", v)
	}
	aim(4, 0x12, 2)
	if v := d.ReadConfig(off+16, 2); v != 1 {
		t.Errorf("num_queues by the window 0x%x", v)
	}
	for _, c := range [][3]uint64{{4, 0x4000, 4}, {4, 0x3ffe, 4}, {4, 0xffffffff, 1}, {4, 1, 2}, {4, 0, 3}, {4, 0, 0}, {4, 0, 8}, {4, 0, 0x80000004}, {5, 0, 4}, {6, 0, 4}, {255, 0, 4}, {0, 0, 4}} {
		aim(c[0], c[1], c[2])
		d.WriteConfig(off+16, 4, 0xffffffff)
		if v := d.ReadConfig(off+16, 4); v != 0 {
			t.Errorf("%v reads 0x%x", c, v)
		}
	}
	aim(1, 12, 4)
	d.WriteConfig(off+16, 4, 0)
	if v := d.ReadConfig(off+16, 4); v != 0 {
		t.Errorf("vector control by the window 0x%x", v)
	}
	aim(4, 0x14, 1)
	if v := d.ReadConfig(off+16, 1); v != 3 {
		t.Errorf("status 0x%x", v)
	}
}

func ringBell(t *testing.T, b *virtiotest.Bells, addr uint64) {
	t.Helper()
	if err := b.Ring(addr, 0); err != nil {
		t.Fatal(err)
	}
}

func TestDoorbellsFollowTheBAR(t *testing.T) {
	for _, sizes := range []map[int]bool{{0: true, 2: true}, {2: true}, {}} {
		b := &virtiotest.Bells{Sizes: sizes}
		e := virtiotest.NewEcho()
		e.Queues = []uint16{8, 8, 8}
		d := virtiotest.New(t, e, b)
		r := d.Begin(0, 8)
		want := 3
		if len(sizes) == 0 {
			want = 0
			d.Healthy(r) // by register writes
		}
		if b.Len() != want {
			t.Fatalf("%d doorbells, want %d", b.Len(), want)
		}
		if want == 0 {
			continue
		}
		old := r.NotifyAddr()
		r.Offer(r.Chain(virtiotest.Out(0x1000, 1)))
		ringBell(t, b, old)
		r.Wait()
		d.WriteConfig(0x24, 4, 0x200) // moved by the upper half
		if b.Ring(old, 0) == nil || b.Len() != 3 {
			t.Errorf("after a move: %d doorbells, or the old one rings", b.Len())
		}
		r.Offer(r.Chain(virtiotest.Out(0x1000, 1)))
		ringBell(t, b, old&0xffffffff|0x200<<32)
		r.Wait()
		if d.SetCommand(0); b.Len() != 0 {
			t.Errorf("decoding off: %d doorbells", b.Len())
		}
	}
}
