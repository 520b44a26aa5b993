package clock

import (
	"sync"
	"testing"
)

// TestClockConformance holds every Clock to the interface's promises. wait
// blocks until ch has a value, moving time if time does not move by itself.
func TestClockConformance(t *testing.T) {
	t.Run("Host", func(t *testing.T) {
		h, err := New()
		if err != nil {
			t.Fatal(err)
		}
		defer h.Close()
		conformance(t, h, func() {})
	})
	t.Run("Manual", func(t *testing.T) {
		m := NewManual()
		conformance(t, m, func() { m.Advance(10_000_000) })
	})
}

func conformance(t *testing.T, c Clock, move func()) {
	fired := make(chan int, 16)
	at := make([]uint64, 3)
	timer := func(n int) Timer {
		return c.NewTimer(func() { at[n] = c.Now(); fired <- n })
	}
	a, b, stopped := timer(0), timer(1), timer(2)

	start := c.Now()
	b.Set(start + 2_000_000)
	a.Set(start + 1_000_000)
	stopped.Set(start + 1_500_000)
	stopped.Stop()
	move()
	for want := range 2 {
		if got := <-fired; got != want {
			t.Fatalf("timer %d fired, want %d", got, want)
		}
	}
	if at[0] < start+1_000_000 || at[1] < start+2_000_000 {
		t.Errorf("fired at %v, before the deadlines after %d", at, start)
	}

	a.Set(c.Now() + 1<<62) // replaced by an earlier deadline
	a.Set(0)               // past: fires at once
	move()
	if got := <-fired; got != 0 {
		t.Errorf("timer %d fired, want 0", got)
	}

	var again Timer
	left := 3
	again = c.NewTimer(func() { // re-arming from fire
		if left--; left == 0 {
			fired <- 9
			return
		}
		again.Set(c.Now() + 1000)
	})
	again.Set(c.Now() + 1000)
	move()
	if got := <-fired; got != 9 || left != 0 {
		t.Errorf("re-armed timer: got %d, left %d", got, left)
	}
	if c.Now() < start {
		t.Error("time went backwards")
	}
}

func TestManualFiresInOrderWithinOneAdvance(t *testing.T) {
	m := NewManual()
	var got []uint64
	var periodic Timer
	periodic = m.NewTimer(func() { got = append(got, m.Now()); periodic.Set(m.Now() + 10) })
	periodic.Set(10)
	m.NewTimer(func() { got = append(got, m.Now()+1000) }).Set(20)
	m.Advance(35)
	want := []uint64{10, 1020, 20, 30}
	for i := range want {
		if len(got) != len(want) || got[i] != want[i] {
			t.Fatalf("got %v, want %v", got, want)
		}
	}
	if m.Now() != 35 {
		t.Errorf("Now %d, want 35", m.Now())
	}
}

func TestHostPauseStopsTimeAndTimers(t *testing.T) {
	h, err := New()
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	fired := make(chan uint64, 1)
	timer := h.NewTimer(func() { fired <- h.Now() })
	h.Pause()
	h.Pause() // idempotent
	now := h.Now()
	timer.Set(now + 1)
	other := make(chan struct{}, 1)
	ref, err := New() // a second clock shows that real time has passed
	if err != nil {
		t.Fatal(err)
	}
	defer ref.Close()
	ref.NewTimer(func() { other <- struct{}{} }).Set(ref.Now() + 3_000_000)
	<-other
	if len(fired) != 0 || h.Now() != now {
		t.Fatalf("paused clock: %d fired, time %d, want %d", len(fired), h.Now(), now)
	}
	h.Resume()
	h.Resume()
	if at := <-fired; at <= now {
		t.Errorf("fired at %d, want after %d", at, now)
	}
}

func TestHostNowIsMonotonicAcrossPauses(t *testing.T) {
	h, err := New()
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	var wg sync.WaitGroup
	stop := make(chan struct{})
	for range 2 {
		wg.Go(func() {
			last := uint64(0)
			for {
				now := h.Now()
				if now < last {
					t.Errorf("time went from %d to %d", last, now)
					return
				}
				last = now
				select {
				case <-stop:
					return
				default:
				}
			}
		})
	}
	for range 2000 {
		h.Pause()
		h.Resume()
	}
	close(stop)
	wg.Wait()
}

func TestHostPauseWaitsForTheRunningTimer(t *testing.T) {
	h, err := New()
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	entered, leave := make(chan struct{}), make(chan struct{})
	returned := false
	h.NewTimer(func() { close(entered); <-leave; returned = true }).Set(0)
	<-entered
	paused := make(chan bool)
	go func() { h.Pause(); paused <- returned }()
	close(leave)
	if !<-paused {
		t.Error("Pause returned while a timer's function ran")
	}
}

func TestHostStateRoundTrip(t *testing.T) {
	h, err := New()
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	if err := h.Load(State{Version: StateVersion, Now: 5}); err == nil {
		t.Error("load while running succeeded")
	}
	h.Pause()
	if err := h.Load(State{Version: 99}); err == nil {
		t.Error("unknown version accepted")
	}
	if err := h.Load(State{Version: StateVersion, Now: 1 << 40}); err != nil {
		t.Fatal(err)
	}
	if s := h.Save(); s.Now != 1<<40 {
		t.Errorf("saved %d", s.Now)
	}
	h.Resume()
	if now := h.Now(); now < 1<<40 || now > 1<<41 {
		t.Errorf("time %d after resume", now)
	}
}

func TestHostCloseTwiceAndFarDeadline(t *testing.T) {
	h, err := New()
	if err != nil {
		t.Fatal(err)
	}
	h.NewTimer(func() { t.Error("fired") }).Set(never)
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	h.NewTimer(func() { t.Error("fired") }).Set(0)
}

func TestTicksAndNanosAreInverse(t *testing.T) {
	for _, hz := range []uint64{32768, 1193182, 3579545, 1_000_000_000} {
		for _, ticks := range []uint64{0, 1, 2, 1000, 1 << 24, 1<<32 + 7, 1 << 40} {
			ns := Nanos(ticks, hz)
			if got := Ticks(ns, hz); got != ticks {
				t.Errorf("%d Hz: Ticks(Nanos(%d)) = %d", hz, ticks, got)
			}
			if ns > 0 && Ticks(ns-1, hz) >= ticks {
				t.Errorf("%d Hz: %d ns is not the first of tick %d", hz, ns, ticks)
			}
		}
	}
	Ticks(^uint64(0), 1<<32-1) // no overflow panics
	if Nanos(^uint64(0), 1) != ^uint64(0) {
		t.Error("Nanos does not saturate")
	}
}
