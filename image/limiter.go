package image

import (
	"context"
	"sync"
	"time"
)

// limiter spreads bytes over time. A nil one does not. Safe for concurrent use.
type limiter struct {
	rate int64           // bytes a second
	stop <-chan struct{} // nobody waits any more

	mu   sync.Mutex
	free time.Time // when what was taken so far has been paid for
}

// newLimiter returns one for that many bytes a second until ctx is done; 0: no limit.
func newLimiter(ctx context.Context, rate int64) *limiter {
	if rate == 0 {
		return nil
	}
	return &limiter{rate: rate, stop: ctx.Done()}
}

// burst is how far ahead of its rate a limiter lets go, as QEMU's does.
const burst = time.Second / 10

// take waits until n more bytes are allowed.
func (l *limiter) take(n int64) {
	if l == nil {
		return
	}
	l.mu.Lock()
	now := time.Now()
	if l.free.Before(now) {
		l.free = now
	}
	wait := l.free.Sub(now) - burst
	l.free = l.free.Add(time.Duration(float64(n) / float64(l.rate) * float64(time.Second)))
	l.mu.Unlock()
	if wait <= 0 {
		return
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-t.C:
	case <-l.stop:
	}
}
