package machine

import (
	"sync"
	"testing"

	"berth/chardev"
	"berth/spec"
)

// deaf is a device whose host takes nothing.
type deaf struct {
	once      sync.Once
	abandoned chan struct{}
}

func (s *deaf) Drain()   { <-s.abandoned }
func (s *deaf) Abandon() { s.once.Do(func() { close(s.abandoned) }) }

func TestAnEndedGuestWaitsForNoHostThatTakesNothing(t *testing.T) {
	b := &board{}
	b.speaks(&deaf{abandoned: make(chan struct{})}, spec.Char{Socket: "s"})
	b.speaks(&deaf{abandoned: make(chan struct{})}, spec.Char{To: "pty"}, spec.Char{File: "f"})
	b.drainChars()
}

func TestStandardOutputIsWaitedFor(t *testing.T) {
	b := &board{}
	for _, hosts := range [][]spec.Char{{{}}, {{To: "stdio"}}, {{To: "pty"}, {To: "stdio"}}, {{To: "pty"}}} {
		b.speaks(&deaf{}, hosts...)
	}
	for i, want := range []bool{true, true, true, false} {
		if b.speakers[i].patient != want {
			t.Errorf("device %d: patient %v", i, !want)
		}
	}
}

// A console whose other end comes and goes, of a VM in the background, is not waited for.
func TestAConsoleInTheBackgroundIsNotWaitedFor(t *testing.T) {
	s, err := chardev.Listen(t.TempDir() + "/console")
	if err != nil {
		t.Fatal(err)
	}
	m := buildWith(t, &script{}, 1, s)
	for i, sp := range m.board.speakers {
		if sp.patient {
			t.Errorf("device %d is waited for", i)
		}
	}
}
