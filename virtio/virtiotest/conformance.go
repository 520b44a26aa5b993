package virtiotest

import (
	"encoding/binary"
	"errors"
	"sync"
	"testing"

	"berth/virtio"
)

// Open puts a device behind the transport under test: New or NewMMIO.
type Open func(testing.TB, virtio.Device, virtio.Doorbells) *Driver

// ringFeatures are those that every device has from its transport.
const ringFeatures = virtio.FeatureIndirect | virtio.FeatureEventIdx | virtio.FeatureVersion1

// Conformance is what a driver may expect of every transport. Tests are named
// after sections of virtio 1.2.
func Conformance(t *testing.T, open Open) {
	for _, c := range []struct {
		name string
		run  func(*testing.T, Open)
	}{
		{"3.1.1 initialisation", initialisation},
		{"2.1 status bits stay", statusBitsStay},
		{"2.6 queues", queues},
		{"2.7 chains", chains},
		{"2.1.2 rings outside RAM need a reset", badRings},
		{"2.1.2 a device that refuses needs a reset", refusal},
		{"2.3 interrupts", interrupts},
		{"2.5 configuration space", configuration},
		{"2.5.1 configuration generation", generation},
		{"2.4.1 reset at any moment", resetAtAnyMoment},
		{"doorbells", doorbells},
		{"pause and resume", pauseAndResume},
		{"reset of a paused device", resetPaused},
		{"bad states are refused", badStates},
		{"a pending interrupt is saved", pendingInterrupt},
		{"everything at once", everythingAtOnce},
	} {
		t.Run(c.name, func(t *testing.T) { c.run(t, open) })
	}
}

func initialisation(t *testing.T, open Open) {
	e := NewEcho()
	d := open(t, e, nil)
	if s := d.Status(); s != 0 {
		t.Errorf("status at first 0x%x", s)
	}
	const want = EchoFeatures | ringFeatures
	if f := d.Offered(); f != want {
		t.Errorf("features 0x%x, want 0x%x", f, want)
	}
	if v := d.feature(2); v != 0 {
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
	if s := d.Status(); s&virtio.StatusDriverOK != 0 || e.Active != nil {
		t.Errorf("status 0x%x", s)
	}
	d.Negotiate(virtio.FeatureVersion1)
	d.acceptFeature(0, 0xffffffff) // too late
	d.SetStatus(15)
	if e.Acked != virtio.FeatureVersion1 || d.Status() != 15 {
		t.Errorf("accepted 0x%x, status 0x%x", e.Acked, d.Status())
	}
}

func statusBitsStay(t *testing.T, open Open) {
	d := open(t, NewEcho(), nil)
	for _, c := range [][2]uint64{{3, 3}, {1, 3}, {3 | 64, 3}, {128, 131}, {0, 0}} { // NEEDS_RESET (64) is the device's
		if d.SetStatus(c[0]); d.Status() != c[1] {
			t.Errorf("status 0x%x after writing 0x%x, want 0x%x", d.Status(), c[0], c[1])
		}
	}
}

func queues(t *testing.T, open Open) {
	e := NewEcho()
	e.Queues = []uint16{256, 8, 64}
	d := open(t, e, nil)
	d.Negotiate(virtio.FeatureVersion1)
	for i, want := range []uint64{256, 8, 64, 0, 0} {
		if v := d.queueMax(i); v != want || d.queueReady(i) {
			t.Errorf("queue %d: size %d, want %d; ready %v", i, v, want, d.queueReady(i))
		}
	}
	a, b := d.AddQueue(2, 16), d.AddQueue(0, 8)
	if !d.queueReady(2) || !d.queueReady(0) || d.queueReady(1) {
		t.Error("the wrong queues are ready")
	}
	d.SetStatus(15)
	for range 3 {
		d.Healthy(a)
		d.Healthy(b)
	}
	if n := []int{e.Active[0].Size(), e.Active[2].Size()}; n[0] != 8 || n[1] != 16 || e.Active[1].Enabled() {
		t.Errorf("sizes %v", n)
	}
	d.SetStatus(0)
	if d.queueReady(0) || d.queueReady(2) {
		t.Error("a queue is ready after a reset")
	}
}

func chains(t *testing.T, open Open) {
	for _, features := range []uint64{0, virtio.FeatureEventIdx, virtio.FeatureIndirect, virtio.FeatureEventIdx | virtio.FeatureIndirect} {
		d := open(t, NewEcho(), nil)
		r := d.Begin(features, 8)
		for range 40 { // the rings wrap
			d.Healthy(r)
		}
	}
}

func badRings(t *testing.T, open Open) {
	for _, c := range []struct {
		name              string
		desc, avail, used uint64
	}{
		{"table past RAM", RAM, 0x1000, 0x2000},
		{"table across the end", RAM - 16, 0x1000, 0x2000},
		{"table that wraps", 1<<64 - 16, 0x1000, 0x2000},
		{"table above 4 GiB", 1<<40 | 0x800, 0x1000, 0x2000},
		{"table not aligned", 0x808, 0x1000, 0x2000},
		{"available ring past RAM", 0, RAM - 6, 0x2000},
		{"available ring not aligned", 0, 0x1001, 0x2000},
		{"used ring past RAM", 0, 0x1000, RAM - 8},
		{"used ring above 4 GiB", 0, 0x1000, 1<<32 | 0x2000},
		{"used ring not aligned", 0, 0x1000, 0x2002},
	} {
		e := NewEcho()
		d := open(t, e, nil)
		d.Negotiate(virtio.FeatureVersion1)
		r := &Ring{d: d, Size: 16, Desc: c.desc, Avail: c.avail, Used: c.used}
		d.setQueue(r)
		d.SetStatus(15)
		if d.Status()&virtio.StatusNeedsReset == 0 || e.Active != nil {
			t.Errorf("%s: status 0x%x", c.name, d.Status())
		}
		r.Kick()
		d.SetStatus(0)
		d.Healthy(d.Begin(0, 8))
	}
}

func refusal(t *testing.T, open Open) {
	e := NewEcho()
	e.Refuse = errors.New("no")
	d := open(t, e, nil)
	d.Begin(0, 8)
	if s := d.Status(); s != 15|virtio.StatusNeedsReset {
		t.Errorf("status 0x%x", s)
	}
}

func interrupts(t *testing.T, open Open) {
	d := open(t, NewEcho(), nil)
	d.Negotiate(virtio.FeatureVersion1)
	r := d.AddQueue(0, 8)
	d.Dev.ConfigChanged() // not before DRIVER_OK
	if d.Interrupted() || d.TakeInterrupt() != 0 {
		t.Error("an interrupt at rest")
	}
	d.SetStatus(15)
	r.Send(Out(0x1000, 1))
	r.Wait()
	d.Wait("an interrupt", d.Interrupted)
	if v := d.TakeInterrupt(); v != 1 || d.Interrupted() {
		t.Errorf("reasons %d, line %v once taken", v, d.Interrupted())
	}
	d.Dev.ConfigChanged()
	if !d.Interrupted() || d.TakeInterrupt() != 2 || d.TakeInterrupt() != 0 || d.Interrupted() {
		t.Error("interrupt for a configuration change")
	}
	d.Dev.ConfigChanged()
	if d.SetStatus(0); d.Interrupted() || d.TakeInterrupt() != 0 {
		t.Error("reset left the line high")
	}
}

func configuration(t *testing.T, open Open) {
	e := NewEcho()
	d := open(t, e, nil)
	le := binary.LittleEndian
	for _, c := range []struct {
		off, n int
		want   uint64
	}{
		{0, 4, uint64(le.Uint32([]byte("conf")))}, {1, 1, 'o'}, {2, 2, uint64(le.Uint16([]byte("nf")))},
		{0, 8, le.Uint64([]byte("configur"))}, {12, 4, 'n'}, {13, 1, 0}, {0xef8, 8, 0},
	} {
		if v := d.DeviceConfig(c.off, c.n); v != c.want {
			t.Errorf("%d bytes at %d read 0x%x, want 0x%x", c.n, c.off, v, c.want)
		}
	}
	d.SetDeviceConfig(0, 2, 0x4241)
	d.SetDeviceConfig(12, 4, 1)
	d.SetDeviceConfig(100, 4, 1)
	if len(e.ConfigIn) != 1 || string(e.ConfigIn[0]) != "AB" {
		t.Errorf("device saw writes %q", e.ConfigIn)
	}
}

func generation(t *testing.T, open Open) {
	d := open(t, NewEcho(), nil)
	d.Begin(0, 8)
	d.DeviceConfig(0, 4)
	a := d.Generation()
	if d.DeviceConfig(0, 4); d.Generation() != a {
		t.Error("generation changed by itself")
	}
	for _, changes := range []int{1, 256} { // 256: 8 bits must not wrap to the same value unread
		a := d.Generation()
		for range changes {
			d.Dev.ConfigChanged()
		}
		if d.DeviceConfig(0, 4); d.Generation() == a {
			t.Errorf("generation did not follow %d changes", changes)
		}
	}
}

func resetAtAnyMoment(t *testing.T, open Open) {
	e := NewEcho()
	d := open(t, e, nil)
	for i := range 50 {
		r := d.Begin(virtio.FeatureEventIdx, 8)
		h := r.Chain(Out(0x1000, 1))
		r.Offer(h, h, h, h)
		r.Kick()
		if i%2 == 0 {
			r.Wait()
		}
		d.SetStatus(0)
		after := r.UsedIdx()
		r.Offer(h)
		r.Kick()
		if d.Status() != 0 || d.queueReady(0) || r.UsedIdx() != after {
			t.Fatal("the device works after its reset")
		}
	}
	if e.Resets != 50 {
		t.Errorf("%d resets", e.Resets)
	}
}

func doorbells(t *testing.T, open Open) {
	b := &Bells{Sizes: map[int]bool{0: true, 2: true, 4: true}}
	t.Cleanup(func() { // after the driver's own
		if n := b.Len(); n != 0 {
			t.Errorf("%d doorbells are left", n)
		}
	})
	e := NewEcho()
	e.Queues = []uint16{8, 8, 8}
	d := open(t, e, b)
	if n := b.Len(); n != len(e.Queues) {
		t.Fatalf("%d doorbells", n)
	}
	d.Negotiate(virtio.FeatureVersion1)
	rings := []*Ring{d.AddQueue(0, 8), d.AddQueue(1, 8), d.AddQueue(2, 8)}
	d.SetStatus(15)
	for _, r := range rings {
		r.Offer(r.Chain(Out(0x1000, 1)))
		if err := b.Ring(r.NotifyAddr(), uint64(r.Index)); err != nil {
			t.Fatal(err)
		}
		r.Wait()
		d.Healthy(r) // by the register
	}
}

// "A paused device must stop producing work but must accept new work."
func pauseAndResume(t *testing.T, open Open) {
	for _, features := range []uint64{0, virtio.FeatureEventIdx} {
		d := open(t, NewEcho(), nil)
		r := d.Begin(features, 8)
		d.Healthy(r)
		for range 20 {
			d.Dev.Pause()
			used := r.UsedIdx()
			r.Send(Out(0x1000, 1))
			r.Send(Out(0x1000, 1))
			d.DeviceConfig(0, 4)
			if d.Status() != 15 || r.UsedIdx() != used {
				t.Fatal("a paused device worked, or did not answer")
			}
			d.Dev.Resume()
			r.Wait()
			r.Wait()
		}
		d.Healthy(r)
	}
}

func resetPaused(t *testing.T, open Open) {
	d := open(t, NewEcho(), nil)
	d.Healthy(d.Begin(0, 8))
	d.Dev.Pause()
	d.Dev.Reset()
	if d.Status() != 0 {
		t.Errorf("status 0x%x", d.Status())
	}
	r := d.Begin(0, 8)
	r.Send(Out(0x1000, 1))
	if r.UsedIdx() != 0 {
		t.Error("reset ended the pause")
	}
	d.Dev.Resume()
	r.Wait()
}

func badStates(t *testing.T, open Open) {
	d := open(t, NewEcho(), nil)
	d.Begin(0, 8)
	d.Dev.Pause()
	good := d.Dev.Save()
	changed := func(change func(*virtio.State)) virtio.State {
		s := good
		s.Queues = append([]virtio.QueueState(nil), good.Queues...)
		change(&s)
		return s
	}
	for name, change := range map[string]func(*virtio.State){
		"version":  func(s *virtio.State) { s.Version = 2 },
		"type":     func(s *virtio.State) { s.ID = 1 },
		"queues":   func(s *virtio.State) { s.Queues = nil },
		"size":     func(s *virtio.State) { s.Queues[0].Size = 3 },
		"too big":  func(s *virtio.State) { s.Queues[0].Size = 512 },
		"features": func(s *virtio.State) { s.Acked |= 1 << 50 },
	} {
		if err := d.Dev.Load(changed(change)); err == nil {
			t.Errorf("%s: loaded", name)
		}
	}
	far := changed(func(s *virtio.State) { s.Queues[0].Used = 1 << 50 })
	if err := d.Dev.Load(far); err != nil || d.Status()&virtio.StatusNeedsReset == 0 {
		t.Errorf("rings outside RAM: %v, status 0x%x", err, d.Status())
	}
	if err := d.Dev.Load(good); err != nil {
		t.Fatal(err)
	}
	d.Dev.Resume()
	d.Healthy(d.Rings[0])
}

// pendingInterrupt moves a device to another machine while its line is high.
func pendingInterrupt(t *testing.T, open Open) {
	a := open(t, NewEcho(), nil)
	a.Negotiate(virtio.FeatureVersion1)
	r := a.AddQueue(0, 8)
	a.SetStatus(15)
	r.Send(Out(0x1000, 1))
	r.Wait()
	a.Wait("an interrupt", a.Interrupted)
	a.Dev.Pause()
	b := open(t, NewEcho(), nil)
	b.Dev.Pause()
	if a.Root != nil {
		if err := b.Root.Load(a.Root.Save()); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Dev.Load(a.Dev.Save()); err != nil {
		t.Fatal(err)
	}
	if !b.Interrupted() || b.TakeInterrupt() != 1 {
		t.Error("the interrupt was lost")
	}
}

// everythingAtOnce is all that a guest and a machine can do to a transport, at
// once: nothing may hang, panic or race.
func everythingAtOnce(t *testing.T, open Open) {
	e := NewEcho()
	e.Queues = []uint16{16, 16}
	d := open(t, e, &Bells{Sizes: map[int]bool{0: true, 4: true}})
	doings := []func(i int){
		func(i int) { // the driver
			d.Negotiate(virtio.FeatureVersion1 | uint64(i&3)<<28)
			r := d.AddQueue(i&1, 16)
			d.SetStatus(15)
			h := r.Chain(Out(0x1000, 4), In(0x2000, 4))
			r.Offer(h, h, h)
			r.Kick()
			r.Offer(h)
			r.Kick()
		},
		func(int) { d.Dev.Pause(); d.Dev.Save(); d.Dev.Resume() },
		func(int) { d.Dev.ConfigChanged() },
		func(int) {
			d.TakeInterrupt()
			d.DeviceConfig(0, 4)
			d.Generation()
			d.Status()
		},
		func(i int) { d.SetStatus(uint64(i & 1)) },
	}
	if d.Root != nil {
		doings = append(doings, pciDoings(d)...)
	}
	var wg sync.WaitGroup
	for _, f := range doings {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for i := range 300 {
				f(i)
			}
		}()
	}
	wg.Wait()
	if d.Root != nil {
		d.SetCommand(6)
		d.WriteConfig(0x24, 4, 0x100)
	}
	d.Healthy(d.Begin(0, 8))
}

// pciDoings is what a guest can do to a device's PCI function besides.
func pciDoings(d *Driver) []func(i int) {
	d.EnableMSIX()
	table, capAt := d.MSIXTable(), d.Cap(func(off int) bool { return d.ReadConfig(off, 1) == 0x11 })
	return []func(i int){
		func(i int) { d.SetCommand(uint16(i & 2)) },
		func(i int) { d.WriteConfig(0x24, 4, uint64(0x100+i&7)) },
		func(i int) { d.WriteConfig(capAt+2, 2, uint64(i&3)<<14) },
		func(i int) { d.MMIO.Write(table+16+12, []byte{byte(i & 1), 0, 0, 0}) },
		func(int) { d.Root.Save() },
		func(i int) { d.Read(Common, i&0x3c, 4) },
	}
}
