package virtio_test

import (
	"testing"

	"berth/virtio/virtiotest"
)

func TestPauseWaitsForChainsInFlight(t *testing.T) {
	e := &hoarder{max: 8}
	d := virtiotest.New(t, e, nil)
	r := d.Begin(0, 8)
	r.Send(virtiotest.Out(0, 1))
	r.Send(virtiotest.Out(0, 1))
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
