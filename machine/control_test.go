package machine

import (
	"errors"
	"slices"
	"sync"
	"testing"

	"berth/accel"
)

// heard collects what a machine says of itself.
type heard struct {
	mu   sync.Mutex
	list []Notice
}

func (h *heard) add(n Notice) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.list = append(h.list, n)
}

// start runs m and returns what its end will be.
func start(m *Machine) <-chan Outcome {
	end := make(chan Outcome, 1)
	go func() {
		o, _ := m.Run()
		end <- o
	}()
	return end
}

func do(t *testing.T, m *Machine, f func() error) {
	t.Helper()
	if err := m.Do(f); err != nil {
		t.Fatal(err)
	}
}

func TestPauseStopsGuestTime(t *testing.T) {
	m := build(t, &script{}, 2)
	var h heard
	m.cfg.Notify = h.add
	end := start(m)
	do(t, m, m.Pause)
	do(t, m, m.Pause) // again: nothing
	at := m.board.clock.Now()
	for _, c := range m.vcpus {
		c.await(paused)
	}
	do(t, m, func() error {
		if s := m.Status(); s != Paused || m.board.clock.Now() != at {
			t.Errorf("%s, time went on from %d to %d", s, at, m.board.clock.Now())
		}
		return nil
	})
	do(t, m, m.Reset) // stays halted
	do(t, m, func() error {
		if s := m.Status(); s != Prelaunch {
			t.Errorf("after a reset while paused: %s", s)
		}
		return m.Continue()
	})
	m.Quit()
	if o := <-end; o.Kind != Left {
		t.Errorf("%+v", o)
	}
	want := []Notice{
		{Kind: NoticeResume}, {Kind: NoticeStop}, {Kind: NoticeReset, Cause: ByReset}, {Kind: NoticeResume}, {Kind: NoticeShutdown, Cause: ByQuit},
	}
	if !slices.Equal(h.list, want) {
		t.Errorf("heard %+v, want %+v", h.list, want)
	}
	if err := m.Do(func() error { return nil }); !errors.Is(err, ErrEnded) {
		t.Errorf("an ended VM: %v", err)
	}
}

func TestNothingRunsBeforeContinue(t *testing.T) {
	m := build(t, &script{exits: []accel.Exit{{Reason: accel.ExitPowerOff}}}, 1)
	m.cfg.Spec.Paused = true
	end := start(m)
	do(t, m, func() error {
		if s := m.Status(); s != Prelaunch {
			t.Errorf("status %s", s)
		}
		return m.Continue()
	})
	if o := <-end; o.Kind != PowerOff {
		t.Errorf("%+v", o)
	}
}

func TestNoShutdownKeepsTheVM(t *testing.T) {
	s := &script{exits: []accel.Exit{{Reason: accel.ExitPowerOff}}}
	m := build(t, s, 1)
	m.cfg.Spec.NoShutdown = true
	off := make(chan struct{})
	m.cfg.Notify = func(n Notice) {
		if n.Kind == NoticeStop {
			close(off)
		}
	}
	end := start(m)
	<-off
	do(t, m, func() error {
		if s := m.Status(); s != ShutDown {
			t.Errorf("status %s", s)
		}
		if m.Continue() == nil {
			t.Error("a VM that is off went on without a reset")
		}
		return errors.Join(m.Reset(), m.Continue())
	})
	m.Quit()
	<-end
}

// Whoever wants something of a VM that could not be begun is answered.
func TestForgoneVMAnswers(t *testing.T) {
	m := build(t, &script{}, 1)
	answer := make(chan error)
	go func() { answer <- m.Do(m.Pause) }()
	m.Forgo()
	if err := <-answer; !errors.Is(err, ErrEnded) {
		t.Errorf("waiting: %v", err)
	}
	m.Forgo()
	if err := m.Do(m.Pause); !errors.Is(err, ErrEnded) {
		t.Errorf("afterwards: %v", err)
	}
}
