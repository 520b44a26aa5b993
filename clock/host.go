package clock

import (
	"fmt"
	"math"
	"os"
	"runtime"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"berth/internal/thread"
)

// Host is the Clock of a running machine: CLOCK_MONOTONIC less the time spent
// paused. One goroutine of its own sleeps in a timerfd and calls the timers; Go's
// own timers are never used, because a busy scheduler serves them late.
type Host struct {
	phase atomic.Pointer[phase] // nil while it changes

	// firing is held around each call of a timer's function, so that Pause can
	// wait for it. Taken before mu.
	firing sync.Mutex

	mu     sync.Mutex
	timers queue
	fd     int
	armed  uint64 // guest time that the timerfd is set to
	closed bool
	done   chan struct{}
}

// phase is what Now needs. A new value is stored for each change.
type phase struct {
	paused bool
	at     uint64 // paused: the guest time; running: CLOCK_MONOTONIC at guest time 0
}

const never = math.MaxUint64

// New returns a running clock that stands at 0. Close releases it.
func New() (*Host, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("clock: timerfd: %w", os.NewSyscallError("timerfd_create", err))
	}
	h := &Host{fd: fd, armed: never, done: make(chan struct{})}
	h.phase.Store(&phase{at: nanotime()})
	go h.run()
	return h, nil
}

// Now returns the guest time in nanoseconds. It never goes backwards, across
// Pause and Resume either.
func (h *Host) Now() uint64 {
	for {
		p := h.phase.Load()
		if p == nil {
			h.mu.Lock() // the change is made under mu
			p = h.phase.Load()
			h.mu.Unlock()
		}
		if p.paused {
			return p.at
		}
		t := nanotime()
		if h.phase.Load() == p { // else t may lie past the moment of the pause
			return t - p.at
		}
	}
}

// NewTimer implements Clock.
func (h *Host) NewTimer(fire func()) Timer {
	return &hostTimer{entry: entry{fire: fire, index: -1}, host: h}
}

type hostTimer struct {
	entry
	host *Host
}

func (t *hostTimer) Set(deadline uint64) {
	t.host.mu.Lock()
	defer t.host.mu.Unlock()
	t.host.timers.set(&t.entry, deadline)
	t.host.program()
}

// Stop leaves the timerfd as it is: waking once for nothing is cheaper than a
// system call for each stop.
func (t *hostTimer) Stop() {
	t.host.mu.Lock()
	defer t.host.mu.Unlock()
	t.host.timers.remove(&t.entry)
}

// program sets the timerfd if the first deadline is earlier than what it stands at. mu is held.
func (h *Host) program() {
	p := h.phase.Load()
	if p.paused || h.closed || len(h.timers.heap) == 0 || h.timers.heap[0].deadline >= h.armed {
		return
	}
	h.armed = h.timers.heap[0].deadline
	host := h.armed + p.at
	if host < p.at || host > math.MaxInt64 {
		h.armed = never // centuries away
		return
	}
	h.settime(host)
}

// settime arms the timerfd for an instant of CLOCK_MONOTONIC, which is not 0.
func (h *Host) settime(host uint64) {
	spec := unix.ItimerSpec{Value: unix.NsecToTimespec(int64(host))}
	if err := unix.TimerfdSettime(h.fd, unix.TFD_TIMER_ABSTIME, &spec, nil); err != nil {
		panic(fmt.Sprintf("clock: timerfd_settime: %v", err)) // only for a bad descriptor or value
	}
}

// run sleeps in read(2), which tells Go's scheduler that the thread blocks. What
// the timers wake waits for this thread first, so it is to come before threads
// that compute; the thread ends with the goroutine.
func (h *Host) run() {
	defer close(h.done)
	runtime.LockOSThread()
	thread.Prompt()
	var expirations [8]byte
	for {
		if _, err := unix.Read(h.fd, expirations[:]); err != nil && err != unix.EINTR && err != unix.EAGAIN {
			panic(fmt.Sprintf("clock: read of timerfd: %v", err))
		}
		for h.fireNext() {
		}
		h.mu.Lock()
		if h.closed {
			h.mu.Unlock()
			return
		}
		h.armed = never
		h.program()
		h.mu.Unlock()
	}
}

// fireNext calls the first timer that is due and reports whether there was one.
func (h *Host) fireNext() bool {
	h.firing.Lock()
	defer h.firing.Unlock()
	h.mu.Lock()
	p := h.phase.Load()
	if p.paused || h.closed {
		h.mu.Unlock()
		return false
	}
	e := h.timers.due(nanotime() - p.at)
	h.mu.Unlock()
	if e == nil {
		return false
	}
	e.fire()
	return true
}

// Pause stops guest time and all timers; when it returns no timer's function
// runs. It must not be called from one, nor with a lock held that one takes.
func (h *Host) Pause() {
	h.mu.Lock()
	if p := h.phase.Load(); !p.paused {
		h.phase.Store(nil)
		h.phase.Store(&phase{paused: true, at: nanotime() - p.at})
	}
	h.mu.Unlock()
	h.firing.Lock()
	h.firing.Unlock() //nolint:staticcheck // empty, for when it is entered the last call has returned
}

// Resume lets time go on from where Pause stopped it.
func (h *Host) Resume() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if p := h.phase.Load(); p.paused {
		h.phase.Store(&phase{at: nanotime() - p.at})
		h.armed = never
		h.program()
	}
}

// StateVersion is the version of State.
const StateVersion = 1

// State is a paused clock.
type State struct {
	Version uint32
	Now     uint64 // guest time in nanoseconds
}

// Save returns the clock's state. Pause it first for a value that stays true.
func (h *Host) Save() State { return State{Version: StateVersion, Now: h.Now()} }

// Load sets the guest time of a paused clock. Armed timers keep their deadlines.
func (h *Host) Load(s State) error {
	if s.Version != StateVersion {
		return fmt.Errorf("clock: state version %d, want %d", s.Version, StateVersion)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.phase.Load().paused {
		return fmt.Errorf("clock: load while running")
	}
	h.phase.Store(&phase{paused: true, at: s.Now})
	return nil
}

// Close ends the clock's goroutine. No timer fires afterwards; Now goes on.
// It must not be called from a timer's function.
func (h *Host) Close() error {
	h.mu.Lock()
	if h.closed {
		h.mu.Unlock()
		return nil
	}
	h.closed = true
	h.settime(1) // long past: wakes run
	h.mu.Unlock()
	<-h.done
	return unix.Close(h.fd)
}
