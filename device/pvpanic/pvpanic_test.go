package pvpanic

import (
	"slices"
	"testing"
)

func TestEvents(t *testing.T) {
	var got []Event
	d := New(func(e Event) { got = append(got, e) })
	for _, w := range []struct {
		off uint64
		p   []byte
	}{{0, []byte{1}}, {0, []byte{2}}, {0, []byte{3}}, {0, []byte{0xfc}}, {0, []byte{0}}, {1, []byte{1}}, {0, []byte{2, 1, 1, 1}}} {
		d.Write(w.off, w.p)
	}
	if want := []Event{Panicked, CrashLoaded, Panicked, CrashLoaded}; !slices.Equal(got, want) {
		t.Errorf("told %v, want %v", got, want)
	}
}

func TestReadsTheEventsItKnows(t *testing.T) {
	d := New(nil)
	p := []byte{9, 9, 9, 9}
	if d.Read(0, p); !slices.Equal(p, []byte{3, 0, 0, 0}) {
		t.Errorf("reads % x", p)
	}
	p = []byte{9}
	if d.Read(1, p); p[0] != 0 {
		t.Errorf("reads % x behind the register", p)
	}
}

func TestStateVersion(t *testing.T) {
	d := New(nil)
	if err := d.Load(d.Save()); err != nil {
		t.Error(err)
	}
	if d.Load(State{}) == nil {
		t.Error("unknown version accepted")
	}
}
