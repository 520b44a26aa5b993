package virtio_test

import (
	"sync"
	"testing"

	"berth/virtio"
	"berth/virtio/virtiotest"
)

// "A paused device must stop producing work but must accept new work."
func TestPauseAndResume(t *testing.T) {
	for _, features := range []uint64{0, virtio.FeatureEventIdx} {
		d := virtiotest.New(t, newEcho(), nil)
		r := d.Begin(features, 8)
		healthy(t, d, r)
		for range 20 {
			d.Dev.Pause()
			used := r.UsedIdx()
			r.Send(out(0x1000, 1))
			r.Send(out(0x1000, 1))
			d.Read(virtiotest.Config, 0, 4)
			if d.Status() != 15 || r.UsedIdx() != used {
				t.Fatal("a paused device worked, or did not answer")
			}
			d.Dev.Resume()
			r.Wait()
			r.Wait()
		}
		healthy(t, d, r)
	}
}

func TestPauseWaitsForChainsInFlight(t *testing.T) {
	e := &hoarder{max: 8}
	d := virtiotest.New(t, e, nil)
	r := d.Begin(0, 8)
	r.Send(out(0, 1))
	r.Send(out(0, 1))
	d.Wait("two pops", func() bool { return e.count() == 2 })
	done := make(chan bool)
	go func() {
		d.Dev.Pause()
		close(done)
	}()
	select {
	case <-done:
		t.Fatal("Pause returned with chains in flight")
	default:
	}
	e.pushAll()
	<-done
	if r.UsedIdx() != 2 {
		t.Errorf("used index %d", r.UsedIdx())
	}
}

func TestResetOfAPausedDevice(t *testing.T) {
	d := virtiotest.New(t, newEcho(), nil)
	r := d.Begin(0, 8)
	healthy(t, d, r)
	d.Dev.Pause()
	d.Dev.Reset()
	if d.Status() != 0 {
		t.Errorf("status 0x%x", d.Status())
	}
	r = d.Begin(0, 8)
	r.Send(out(0x1000, 1))
	if r.UsedIdx() != 0 {
		t.Error("reset ended the pause")
	}
	d.Dev.Resume()
	r.Wait()
}

func Test_2_4_1_ResetAtAnyMoment(t *testing.T) {
	e := newEcho()
	d := virtiotest.New(t, e, nil)
	for i := range 50 {
		r := d.Begin(virtio.FeatureEventIdx, 8)
		h := r.Chain(out(0x1000, 1))
		r.Offer(h, h, h, h)
		r.Kick()
		if i%2 == 0 {
			r.Wait()
		}
		d.SetStatus(0)
		after := r.UsedIdx()
		r.Offer(h)
		r.Kick()
		if d.Status() != 0 || d.Read(virtiotest.Common, 0x1c, 2) != 0 || r.UsedIdx() != after {
			t.Fatal("the device works after its reset")
		}
	}
	if e.resets != 50 {
		t.Errorf("%d resets", e.resets)
	}
}

func TestLoadRefusesBadStates(t *testing.T) {
	d := virtiotest.New(t, newEcho(), nil)
	d.Begin(0, 8)
	d.Dev.Pause()
	good := d.Dev.Save()
	for name, change := range map[string]func(*virtio.State){
		"version":  func(s *virtio.State) { s.Version = 2 },
		"type":     func(s *virtio.State) { s.ID = 1 },
		"queues":   func(s *virtio.State) { s.Queues = nil },
		"size":     func(s *virtio.State) { s.Queues[0].Size = 3 },
		"too big":  func(s *virtio.State) { s.Queues[0].Size = 512 },
		"features": func(s *virtio.State) { s.Acked |= 1 << 50 },
	} {
		bad := good
		bad.Queues = append([]virtio.QueueState(nil), good.Queues...)
		change(&bad)
		if err := d.Dev.Load(bad); err == nil {
			t.Errorf("%s: loaded", name)
		}
	}
	far := good
	far.Queues = append([]virtio.QueueState(nil), good.Queues...)
	far.Queues[0].Used = 1 << 50
	if err := d.Dev.Load(far); err != nil || d.Status()&virtio.StatusNeedsReset == 0 {
		t.Errorf("rings outside RAM: %v, status 0x%x", err, d.Status())
	}
	if err := d.Dev.Load(good); err != nil {
		t.Fatal(err)
	}
	d.Dev.Resume()
	healthy(t, d, d.Rings[0])
}

func TestInterruptPendingAcrossSave(t *testing.T) {
	a := virtiotest.New(t, newEcho(), nil)
	a.Negotiate(virtio.FeatureVersion1)
	r := a.AddQueue(0, 8)
	a.SetStatus(15)
	r.Send(out(0x1000, 1))
	r.Wait()
	a.Wait("INTx", func() bool { return a.GSI.High(23) })
	a.Dev.Pause()
	b := virtiotest.New(t, newEcho(), nil)
	b.Dev.Pause()
	if err := b.Root.Load(a.Root.Save()); err != nil {
		t.Fatal(err)
	}
	if err := b.Dev.Load(a.Dev.Save()); err != nil {
		t.Fatal(err)
	}
	if !b.GSI.High(23) || b.Read(virtiotest.ISR, 0, 1) != 1 {
		t.Error("the interrupt was lost")
	}
}

// Everything that a guest and a machine can do, at once: nothing may hang,
// panic or race.
func TestEverythingAtOnce(t *testing.T) {
	e := newEcho()
	e.queues = []uint16{16, 16}
	b := &bells{at: map[uint64]int{}, sizes: map[int]bool{0: true}}
	d := virtiotest.New(t, e, b)
	d.EnableMSIX()
	table, capAt := d.MSIXTable(), d.Cap(func(off int) bool { return d.ReadConfig(off, 1) == 0x11 })
	var wg sync.WaitGroup
	for _, f := range []func(i int){
		func(i int) { // the driver
			d.Negotiate(virtio.FeatureVersion1 | uint64(i&3)<<28)
			r := d.AddQueue(i&1, 16)
			d.SetStatus(15)
			h := r.Chain(out(0x1000, 4), in(0x2000, 4))
			r.Offer(h, h, h)
			r.Kick()
			r.Offer(h)
			r.Kick()
		},
		func(i int) { d.SetCommand(uint16(i & 2)) },
		func(i int) { d.WriteConfig(0x24, 4, uint64(0x100+i&7)) },
		func(i int) { d.WriteConfig(capAt+2, 2, uint64(i&3)<<14) },
		func(i int) { d.MMIO.Write(table+16+12, []byte{byte(i & 1), 0, 0, 0}) },
		func(int) { d.Dev.Pause(); d.Dev.Save(); d.Dev.Resume() },
		func(int) { d.Dev.ConfigChanged(); d.Root.Save() },
		func(i int) {
			d.Read(virtiotest.ISR, 0, 1)
			d.Read(virtiotest.Common, i&0x3c, 4)
			d.Read(virtiotest.Config, 0, 4)
		},
		func(i int) { d.Write(virtiotest.Common, 0x14, 1, uint64(i&1)) },
	} {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for i := range 300 {
				f(i)
			}
		}()
	}
	wg.Wait()
	d.SetCommand(6)
	d.WriteConfig(0x24, 4, 0x100)
	healthy(t, d, d.Begin(0, 8))
}
