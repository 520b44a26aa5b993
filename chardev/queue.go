package chardev

import (
	"io"
	"sync"

	"golang.org/x/sys/unix"
)

// Queue writes bytes to w from a goroutine of its own, so that who offers them
// never waits for a slow reader. Bytes that arrive within a millisecond of each
// other share one write. After a failed write everything is dropped. Safe for
// concurrent use.
type Queue struct {
	w     io.Writer
	space func()

	mu      sync.Mutex
	changed sync.Cond // of anything below
	buf     []byte    // accepted, not yet in a write
	other   []byte    // the buffer of the write under way
	limit   int
	writing bool
	starved bool // an Offer was cut short
	closed  bool
	gone    bool // see Abandon
	ended   bool // the goroutine
	err     error
}

// coalesce is how long the first byte waits for company, in nanoseconds.
const coalesce = 1_000_000

// NewQueue returns a queue of at most limit bytes in front of w. After an Offer
// that was not taken whole, space is called, with no lock held, once there is
// room again; it may be nil.
func NewQueue(w io.Writer, limit int, space func()) *Queue {
	q := &Queue{w: w, space: space, limit: limit}
	q.changed.L = &q.mu
	go q.run()
	return q
}

// Offer takes as much of p as there is room for and returns how much that was.
func (q *Queue) Offer(p []byte) int {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed || q.gone || q.err != nil {
		return len(p)
	}
	n := min(len(p), q.limit-len(q.buf))
	if len(q.buf) == 0 && n > 0 {
		q.changed.Broadcast()
	}
	q.buf = append(q.buf, p[:n]...)
	if n < len(p) {
		q.starved = true
	}
	return n
}

// Drain returns when every byte taken so far has been written or dropped.
func (q *Queue) Drain() {
	q.mu.Lock()
	defer q.mu.Unlock()
	for !q.gone && (len(q.buf) > 0 || q.writing) {
		q.changed.Wait()
	}
}

// Err returns the error that ended writing, or nil.
func (q *Queue) Err() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.err
}

// Close writes what was taken and ends the goroutine. Later offers are dropped.
func (q *Queue) Close() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.changed.Broadcast()
	for !q.gone && !q.ended {
		q.changed.Wait()
	}
	return q.err
}

// Abandon drops what is not written yet and all that will be offered, and lets
// Drain and Close return though a write may never end.
func (q *Queue) Abandon() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.gone {
		q.gone, q.buf = true, nil
		q.changed.Broadcast()
	}
}

func (q *Queue) run() {
	for q.wait() {
		q.flush()
	}
	q.mu.Lock()
	q.ended = true
	q.changed.Broadcast()
	q.mu.Unlock()
}

// wait returns true when there are bytes to write, false at the end.
func (q *Queue) wait() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.buf) == 0 && !q.closed {
		q.changed.Wait()
	}
	if len(q.buf) == 0 {
		return false
	}
	if !q.closed {
		q.mu.Unlock()
		pause := unix.NsecToTimespec(coalesce)
		_ = unix.Nanosleep(&pause, nil) // cut short by a signal: the write is only smaller
		q.mu.Lock()
	}
	return true
}

func (q *Queue) flush() {
	q.mu.Lock()
	p := q.buf
	q.buf, q.other = q.other[:0], nil
	q.writing = true
	starved := q.starved
	q.starved = false
	q.mu.Unlock()
	if starved && q.space != nil {
		q.space() // the other buffer has room while this one is written
	}
	_, err := q.w.Write(p)
	q.mu.Lock()
	q.other = p
	q.writing = false
	if err != nil {
		q.err, q.buf = err, nil
		starved, q.starved = q.starved, false
	} else {
		starved = false
	}
	q.changed.Broadcast()
	q.mu.Unlock()
	if starved && q.space != nil {
		q.space() // what is offered now is dropped: the guest goes on
	}
}
