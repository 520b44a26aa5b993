package clock

import "sync"

// Manual is a Clock for tests: time moves only by Advance, and timers fire
// inside it. A timer set for a time already past fires at the next Advance.
type Manual struct {
	mu     sync.Mutex
	now    uint64
	timers queue
}

// NewManual returns a clock that stands at 0.
func NewManual() *Manual { return &Manual{} }

// Now implements Clock.
func (m *Manual) Now() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.now
}

// Advance moves time on by ns and fires, on the caller's goroutine and in order
// of their deadlines, the timers that come due, those they set included. Now
// returns a timer's deadline while it fires.
func (m *Manual) Advance(ns uint64) {
	m.mu.Lock()
	end := m.now + ns
	for {
		e := m.timers.due(end)
		if e == nil {
			break
		}
		m.now = max(m.now, e.deadline)
		m.mu.Unlock()
		e.fire()
		m.mu.Lock()
	}
	m.now = end
	m.mu.Unlock()
}

// NewTimer implements Clock.
func (m *Manual) NewTimer(fire func()) Timer {
	return &manualTimer{entry: entry{fire: fire, index: -1}, clock: m}
}

type manualTimer struct {
	entry
	clock *Manual
}

func (t *manualTimer) Set(deadline uint64) {
	t.clock.mu.Lock()
	defer t.clock.mu.Unlock()
	t.clock.timers.set(&t.entry, deadline)
}

func (t *manualTimer) Stop() {
	t.clock.mu.Lock()
	defer t.clock.mu.Unlock()
	t.clock.timers.remove(&t.entry)
}
