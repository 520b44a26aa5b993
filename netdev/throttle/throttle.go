// Package throttle limits the bytes and packets a second of a netdev.Port.
package throttle

import (
	"sync"
	"time"

	"berth/netdev"
)

// Rate is a limit: so much a second, and at once what has been saved up, at most Burst. A
// Rate of 0 is none; a Burst of 0 is what the rate gives in a tenth of a second.
type Rate struct{ Rate, Burst int64 }

// Limits are those of both directions: towards the guest (In), and from it (Out).
type Limits struct {
	BytesIn, PacketsIn   Rate
	BytesOut, PacketsOut Rate
}

// longest is how long a frame waits at most: one larger than the rate of a second goes then.
const longest = time.Second

// Throttle keeps to limits: a frame that comes too early waits. It is what netdev.Around
// puts on a cable.
type Throttle struct {
	in, out lane
	clock   func() time.Time
	done    chan struct{}
	once    sync.Once

	mu    sync.Mutex
	hurry int
	free  chan struct{} // closed while nothing is held back
}

// New returns a throttle that keeps to l.
func New(l Limits) *Throttle {
	t := &Throttle{clock: time.Now, done: make(chan struct{}), free: make(chan struct{})}
	t.in.buckets = [2]bucket{newBucket(l.BytesIn), newBucket(l.PacketsIn)}
	t.out.buckets = [2]bucket{newBucket(l.BytesOut), newBucket(l.PacketsOut)}
	return t
}

// lane is one direction. Frames go one after the other.
type lane struct {
	mu      sync.Mutex
	buckets [2]bucket // of bytes, and of packets
}

// bucket holds tokens, which time brings and frames take. It may owe some: a frame goes as
// soon as nothing is owed, however large it is.
type bucket struct {
	rate, burst float64 // a rate of 0: no limit
	tokens      float64
	at          time.Time
}

func newBucket(r Rate) bucket {
	b := bucket{rate: float64(r.Rate), burst: float64(r.Burst)}
	if r.Burst == 0 {
		b.burst = max(b.rate/10, 1)
	}
	b.tokens = b.burst
	return b
}

// take takes n tokens and returns how long to wait before that is paid.
func (b *bucket) take(now time.Time, n float64) time.Duration {
	if b.rate == 0 {
		return 0
	}
	if !b.at.IsZero() {
		b.tokens = min(b.tokens+now.Sub(b.at).Seconds()*b.rate, b.burst)
	}
	b.at = now
	wait := time.Duration(0)
	if b.tokens < 0 {
		wait = min(time.Duration(-b.tokens/b.rate*float64(time.Second)), longest)
	}
	b.tokens = max(b.tokens-n, -b.rate*longest.Seconds())
	return wait
}

// pass waits for a frame's turn. Who waits holds up who comes later.
func (t *Throttle) pass(l *lane, size int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := t.clock()
	wait := max(l.buckets[0].take(now, float64(size)), l.buckets[1].take(now, 1))
	if wait == 0 {
		return
	}
	t.mu.Lock()
	free := t.free
	t.mu.Unlock()
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-free:
	case <-t.done:
	}
}

// Out implements netdev.Between.
func (t *Throttle) Out(frame [][]byte) bool {
	n := -netdev.HeaderSize
	for _, b := range frame {
		n += len(b)
	}
	t.pass(&t.out, max(n, 0))
	return true
}

// In implements netdev.Between.
func (t *Throttle) In(frame []byte) bool {
	t.pass(&t.in, max(len(frame)-netdev.HeaderSize, 0))
	return true
}

// Hasten has nothing wait while it is on. Called in pairs.
func (t *Throttle) Hasten(on bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if on {
		if t.hurry++; t.hurry == 1 {
			close(t.free)
		}
		return
	}
	if t.hurry--; t.hurry == 0 {
		t.free = make(chan struct{})
	}
}

// Close implements netdev.Between.
func (t *Throttle) Close() error {
	t.once.Do(func() { close(t.done) })
	return nil
}
