package virtio

import (
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"berth/internal/thread"
)

// worker is the goroutine that serves one queue, and the bell that wakes it.
//
//	absent --start--> running <--pause/resume--> parked
//	                     '------stop-----> absent <---'
//
// A paused worker takes no new chains, but rings are remembered: the eventfd
// keeps them, and a resumed worker looks at the queue before it waits.
type worker struct {
	fd   int     // eventfd, blocking
	one  [8]byte // what a ring writes; constant
	rung [8]byte // what wait reads

	paused   atomic.Bool
	stopping atomic.Bool

	mu     sync.Mutex
	cond   sync.Cond
	alive  bool
	parked bool
}

func (w *worker) open() error {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		return fmt.Errorf("virtio: eventfd: %w", err)
	}
	w.fd = fd
	binary.NativeEndian.PutUint64(w.one[:], 1)
	w.cond.L = &w.mu
	return nil
}

// halted reports whether the queue must give out nothing.
func (w *worker) halted() bool { return w.paused.Load() || w.stopping.Load() }

// ring wakes the worker; it never blocks, for a reader always follows and 2^64
// rings do not.
func (w *worker) ring() {
	_, _ = unix.Write(w.fd, w.one[:])
}

// wait blocks until the bell has rung since the last wait.
func (w *worker) wait() {
	for {
		if _, err := unix.Read(w.fd, w.rung[:]); !errors.Is(err, unix.EINTR) {
			return
		}
	}
}

// Sleep waits, in the middle of serving, for something else than the driver's
// next chain: it returns when the bell has rung, by Wake or by the driver. False
// means that the queue is paused or stopped and serve must return.
func (q *Queue) Sleep() bool {
	if !q.worker.halted() {
		q.worker.wait()
	}
	if q.worker.halted() {
		return false
	}
	q.suppress() // should it have been beckoned
	return true
}

// Wake makes the worker look again: serve runs, or Sleep returns.
func (q *Queue) Wake() { q.worker.ring() }

// gate holds a paused worker back; false means that it is to end.
func (w *worker) gate() bool {
	if !w.halted() {
		return true
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.paused.Load() && !w.stopping.Load() {
		w.parked = true
		w.cond.Broadcast()
		w.cond.Wait()
	}
	w.parked = false
	return !w.stopping.Load()
}

// wake makes drain look again.
func (w *worker) wake() {
	if w.halted() {
		w.mu.Lock()
		w.cond.Broadcast()
		w.mu.Unlock()
	}
}

// Start runs serve on a goroutine of its own whenever the driver has made
// chains available. serve pops until there is none. Once per activation; a
// queue that the driver has not enabled stays still.
func (q *Queue) Start(serve func()) {
	w := &q.worker
	w.mu.Lock()
	defer w.mu.Unlock()
	if !q.Enabled() || w.alive {
		return
	}
	w.alive = true
	go q.run(serve)
}

// run is the worker. Guests wait for it to wake, so its thread comes before those
// that compute; the thread ends with the goroutine.
func (q *Queue) run(serve func()) {
	runtime.LockOSThread()
	thread.Prompt()
	w := &q.worker
	for w.gate() {
		q.suppress()
		serve()
		if q.listen() || w.halted() { // Sleep may have heard the bell that says so
			continue
		}
		w.wait()
	}
	w.mu.Lock()
	w.alive = false
	w.cond.Broadcast()
	w.mu.Unlock()
}

// pause stops the worker at its gate; drain waits for it.
func (q *Queue) pause() {
	q.worker.paused.Store(true)
	q.worker.ring()
}

func (q *Queue) resume() {
	w := &q.worker
	w.mu.Lock()
	w.paused.Store(false)
	w.cond.Broadcast()
	w.mu.Unlock()
}

// drain waits until the paused or stopping worker is still and every chain has
// been pushed. Requests complete by themselves, so it ends.
func (q *Queue) drain() {
	w := &q.worker
	w.mu.Lock()
	defer w.mu.Unlock()
	for (w.alive && (!w.parked || !w.paused.Load() || w.stopping.Load())) || q.busy() {
		w.cond.Wait()
	}
}

func (q *Queue) busy() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.inflight > 0
}

// stop ends the worker, waits for its chains and clears the queue for the next driver.
func (q *Queue) stop() {
	w := &q.worker
	w.mu.Lock()
	w.stopping.Store(true)
	w.cond.Broadcast()
	w.mu.Unlock()
	w.ring()
	q.drain()
	w.stopping.Store(false)
	q.clear()
}

// clear puts the queue back to what a reset leaves.
func (q *Queue) clear() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.size, q.enabled = q.max, false
	q.desc, q.avail, q.used = 0, 0, 0
	q.vector.Store(NoVector)
	q.nextAvail, q.nextUsed, q.signalled = 0, 0, 0
	q.fresh, q.broken = true, false
	q.eventIdx, q.indirect = false, false
}
