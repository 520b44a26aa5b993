package image

import (
	"context"
	"runtime"
	"sync"

	"berth/block"
)

// span is a run of bytes that are to be handled alike.
type span struct {
	off, n int64
	zero   bool // there are only zeros
}

// copyWorkers is how many spans are in hand at once where the user cannot say.
func copyWorkers() int { return min(runtime.NumCPU()+1, 8) }

// inParallel calls do with every span that take returns, several at once, until
// take's ok is false, one of them fails, or ctx is done. take is called by one
// at a time.
func inParallel(ctx context.Context, take func() (s span, ok bool, err error), do func(h *hand, s span) error) error {
	var mu sync.Mutex
	var failure error
	fail := func(err error) {
		mu.Lock()
		defer mu.Unlock()
		if failure == nil {
			failure = err
		}
	}
	next := func() (s span, ok bool) {
		mu.Lock()
		defer mu.Unlock()
		if failure == nil && ctx.Err() != nil {
			failure = errInterrupted
		}
		if failure != nil {
			return s, false
		}
		s, ok, failure = take()
		return s, ok && failure == nil
	}
	var all sync.WaitGroup
	for range copyWorkers() {
		all.Go(func() {
			var h hand
			for s, ok := next(); ok; s, ok = next() {
				if err := do(&h, s); err != nil {
					fail(err)
					return
				}
			}
		})
	}
	all.Wait()
	return failure
}

// room returns n bytes of h's buffer.
func (h *hand) room(n int64) []byte {
	if int64(cap(h.buf)) < n {
		h.buf = alignedBuffer(int(n))
	}
	return h.buf[:n]
}

func (h *hand) write(image block.Image, p []byte, off int64) error {
	h.iov[0] = p
	return image.Writev(h.iov[:], off, 0)
}
