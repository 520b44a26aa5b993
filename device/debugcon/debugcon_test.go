package debugcon

import (
	"bytes"
	"testing"

	"berth/chardev"
)

func TestBytesReachTheHost(t *testing.T) {
	ring := chardev.NewRing(64)
	d := New(ring)
	d.Write(0, []byte("Sea"))
	d.Write(0, []byte("BIOS"))
	d.Drain()
	if got := string(ring.Bytes()); got != "SeaBIOS" {
		t.Errorf("host got %q", got)
	}
	p := make([]byte, 2)
	if d.Read(0, p); p[0] != present || p[1] != present {
		t.Errorf("reads % x", p)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	d.Write(0, []byte("late"))
}

type stuck chan struct{}

func (s stuck) Write(p []byte) (int, error) { <-s; return len(p), nil }

func TestStuckHostDropsInsteadOfBlocking(t *testing.T) {
	s := make(stuck)
	d := New(s)
	p := bytes.Repeat([]byte{'x'}, 8)
	for range limit / 2 {
		d.Write(0, p)
	}
	close(s)
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestStateVersion(t *testing.T) {
	d := New(chardev.NewRing(1))
	defer d.Close()
	if err := d.Load(d.Save()); err != nil {
		t.Error(err)
	}
	if d.Load(State{}) == nil {
		t.Error("unknown version accepted")
	}
}
