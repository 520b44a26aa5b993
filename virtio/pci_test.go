package virtio_test

import (
	"encoding/binary"
	"errors"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"berth/virtio"
	"berth/virtio/virtiotest"
)

func Test_4_1_2_Identity(t *testing.T) {
	d := virtiotest.New(t, newEcho(), nil)
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
	d := virtiotest.New(t, newEcho(), nil)
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

func Test_3_1_1_Initialisation(t *testing.T) {
	e := newEcho()
	d := virtiotest.New(t, e, nil)
	if s := d.Status(); s != 0 {
		t.Errorf("status at first 0x%x", s)
	}
	want := uint64(1<<3) | virtio.FeatureIndirect | virtio.FeatureEventIdx | virtio.FeatureVersion1
	if f := d.Offered(); f != want {
		t.Errorf("features 0x%x, want 0x%x", f, want)
	}
	d.Write(virtiotest.Common, 0, 4, 2)
	if v := d.Read(virtiotest.Common, 4, 4); v != 0 {
		t.Errorf("features 64 and up 0x%x", v)
	}
	for _, c := range []struct {
		features uint64
		ok       bool
	}{
		{virtio.FeatureVersion1, true}, {want, true}, {0, false}, {want &^ virtio.FeatureVersion1, false},
		{want | 1<<34, false}, {want | 1<<4, false},
	} {
		if ok := d.Negotiate(c.features); ok != c.ok {
			t.Errorf("features 0x%x: FEATURES_OK %v", c.features, ok)
		}
	}
	// DRIVER_OK without FEATURES_OK starts nothing.
	d.SetStatus(7)
	if s := d.Status(); s&virtio.StatusDriverOK != 0 || e.qs != nil {
		t.Errorf("status 0x%x", s)
	}
	d.Negotiate(virtio.FeatureVersion1)
	d.Write(virtiotest.Common, 8, 4, 0)
	d.Write(virtiotest.Common, 12, 4, 0xffffffff) // too late
	d.SetStatus(15)
	if e.acked != virtio.FeatureVersion1 || d.Status() != 15 {
		t.Errorf("accepted 0x%x, status 0x%x", e.acked, d.Status())
	}
}

func Test_4_1_4_3_QueueRegisters(t *testing.T) {
	e := newEcho()
	e.queues = []uint16{256, 64}
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

func TestRingsOutsideRAMNeedReset(t *testing.T) {
	for _, c := range []struct {
		name              string
		desc, avail, used uint64
	}{
		{"table past RAM", virtiotest.RAM, 0x1000, 0x2000},
		{"table across the end", virtiotest.RAM - 16, 0x1000, 0x2000},
		{"table that wraps", 1<<64 - 16, 0x1000, 0x2000},
		{"table not aligned", 0x808, 0x1000, 0x2000},
		{"available ring past RAM", 0, virtiotest.RAM - 6, 0x2000},
		{"available ring not aligned", 0, 0x1001, 0x2000},
		{"used ring past RAM", 0, 0x1000, virtiotest.RAM - 8},
		{"used ring not aligned", 0, 0x1000, 0x2002},
	} {
		e := newEcho()
		d := virtiotest.New(t, e, nil)
		d.Negotiate(virtio.FeatureVersion1)
		d.Write(virtiotest.Common, 0x18, 2, 16)
		d.Write(virtiotest.Common, 0x20, 8, c.desc)
		d.Write(virtiotest.Common, 0x28, 8, c.avail)
		d.Write(virtiotest.Common, 0x30, 8, c.used)
		d.Write(virtiotest.Common, 0x1c, 2, 1)
		d.SetStatus(15)
		if d.Status()&virtio.StatusNeedsReset == 0 || e.qs != nil {
			t.Errorf("%s: status 0x%x", c.name, d.Status())
		}
		d.Write(virtiotest.Notify, 0, 2, 0)
		d.SetStatus(0)
		healthy(t, d, d.Begin(0, 8))
	}
}

func Test_4_1_4_5_ISRAndINTx(t *testing.T) {
	d := virtiotest.New(t, newEcho(), nil)
	d.Negotiate(virtio.FeatureVersion1)
	r := d.AddQueue(0, 8)
	d.SetStatus(15)
	high := func() bool { return d.GSI.High(23) }
	r.Send(out(0x1000, 1))
	r.Wait()
	d.Wait("INTx", high)
	if v := d.Read(virtiotest.ISR, 0, 1); v != 1 || high() {
		t.Errorf("ISR %d, line %v after reading it", v, high())
	}
	d.Dev.ConfigChanged()
	if !high() || d.Read(virtiotest.ISR, 0, 1) != 2 || d.Read(virtiotest.ISR, 0, 1) != 0 {
		t.Error("configuration change by INTx")
	}
	d.Dev.ConfigChanged()
	if d.SetStatus(0); high() {
		t.Error("reset left the line high")
	}
}

func Test_4_1_4_3_1_ConfigGeneration(t *testing.T) {
	e := newEcho()
	d := virtiotest.New(t, e, nil)
	d.Begin(0, 8)
	gen := func() uint64 { return d.Read(virtiotest.Common, 0x15, 1) }
	d.Read(virtiotest.Config, 0, 4)
	a := gen()
	if d.Read(virtiotest.Config, 0, 4); gen() != a {
		t.Error("generation changed by itself")
	}
	d.Dev.ConfigChanged()
	if d.Read(virtiotest.Config, 0, 4); gen() == a {
		t.Error("generation did not follow a change")
	}
	for range 256 { // 8 bits must not wrap to the same value unread
		d.Dev.ConfigChanged()
	}
	b := gen()
	if d.Read(virtiotest.Config, 0, 4); gen() == b {
		t.Error("256 changes went unseen")
	}
	if n := d.MSIs.Count(0x40); n != 257 {
		t.Errorf("%d configuration interrupts", n)
	}
}

func TestDeviceConfigurationSpace(t *testing.T) {
	e := newEcho()
	d := virtiotest.New(t, e, nil)
	if v := d.Read(virtiotest.Config, 0, 4); v != uint64(binary.LittleEndian.Uint32([]byte("conf"))) {
		t.Errorf("reads 0x%x", v)
	}
	if v := d.Read(virtiotest.Config, 12, 4); v != 'n' {
		t.Errorf("across the end 0x%x", v)
	}
	if v := d.Read(virtiotest.Config, 0xff8, 8); v != 0 {
		t.Errorf("past the end 0x%x", v)
	}
	d.Write(virtiotest.Config, 0, 2, 0x4241)
	d.Write(virtiotest.Config, 12, 4, 1)
	d.Write(virtiotest.Config, 100, 4, 1)
	if len(e.configIn) != 1 || string(e.configIn[0]) != "AB" {
		t.Errorf("device saw writes %q", e.configIn)
	}
}

func Test_4_1_4_9_ConfigurationAccessWindow(t *testing.T) {
	d := virtiotest.New(t, newEcho(), nil)
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

func Test_2_1_StatusBitsStay(t *testing.T) {
	d := virtiotest.New(t, newEcho(), nil)
	d.SetStatus(3)
	d.SetStatus(1)
	if d.Status() != 3 {
		t.Errorf("a bit was taken back: 0x%x", d.Status())
	}
	d.SetStatus(3 | 64) // NEEDS_RESET is the device's
	if d.Status() != 3 {
		t.Errorf("status 0x%x", d.Status())
	}
	d.SetStatus(128)
	if d.Status() != 131 {
		t.Errorf("status 0x%x", d.Status())
	}
}

// bells records doorbells and rings them as KVM would.
type bells struct {
	mu      sync.Mutex
	at      map[uint64]int
	sizes   map[int]bool // accepted sizes
	refused int
}

func (b *bells) AddDoorbell(addr uint64, size int, value *uint64, fd int) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, taken := b.at[addr]; taken || !b.sizes[size] || value != nil {
		b.refused++
		return errors.New("refused")
	}
	b.at[addr] = fd
	return nil
}

func (b *bells) RemoveDoorbell(addr uint64, size int, _ *uint64, fd int) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.at[addr] != fd || !b.sizes[size] {
		return errors.New("no such doorbell")
	}
	delete(b.at, addr)
	return nil
}

func (b *bells) ring(t *testing.T, addr uint64) {
	t.Helper()
	b.mu.Lock()
	fd, ok := b.at[addr]
	b.mu.Unlock()
	if !ok {
		t.Fatalf("no doorbell at 0x%x, but %v", addr, b.at)
	}
	if _, err := unix.Write(fd, []byte{1, 0, 0, 0, 0, 0, 0, 0}); err != nil {
		t.Fatal(err)
	}
}

func TestDoorbellsFollowTheBAR(t *testing.T) {
	for _, sizes := range []map[int]bool{{0: true, 2: true}, {2: true}, {}} {
		b := &bells{at: map[uint64]int{}, sizes: sizes}
		e := newEcho()
		e.queues = []uint16{8, 8, 8}
		d := virtiotest.New(t, e, b)
		r := d.Begin(0, 8)
		want := 3
		if len(sizes) == 0 {
			want = 0
			healthy(t, d, r) // by register writes
		}
		if len(b.at) != want {
			t.Fatalf("%d doorbells, want %d", len(b.at), want)
		}
		if want == 0 {
			continue
		}
		old := r.NotifyAddr()
		r.Offer(r.Chain(out(0x1000, 1)))
		b.ring(t, old)
		r.Wait()
		d.WriteConfig(0x24, 4, 0x200) // moved by the upper half
		if _, still := b.at[old]; still || len(b.at) != 3 {
			t.Errorf("after a move: %v", b.at)
		}
		r.Offer(r.Chain(out(0x1000, 1)))
		b.ring(t, old&0xffffffff|0x200<<32)
		r.Wait()
		if d.SetCommand(0); len(b.at) != 0 {
			t.Errorf("decoding off: %v", b.at)
		}
	}
}
