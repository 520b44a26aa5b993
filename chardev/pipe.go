package chardev

import (
	"io"
	"sync"
)

// Pipe returns two connected ports: what is written to one is read from the
// other. Each direction holds up to size bytes, then Write blocks.
func Pipe(size int) (Port, Port) {
	ab, ba := newHalf(size), newHalf(size)
	return &end{in: ba, out: ab}, &end{in: ab, out: ba}
}

type end struct{ in, out *half }

func (e *end) Read(p []byte) (int, error)  { return e.in.read(p) }
func (e *end) Write(p []byte) (int, error) { return e.out.write(p) }

// Close ends both directions; the peer still reads what was written.
func (e *end) Close() error {
	e.in.close()
	e.out.close()
	return nil
}

// half is one direction of a pipe.
type half struct {
	mu      sync.Mutex
	changed sync.Cond
	buf     []byte
	size    int
	closed  bool
}

func newHalf(size int) *half {
	h := &half{size: size}
	h.changed.L = &h.mu
	return h
}

func (h *half) read(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for len(h.buf) == 0 {
		if h.closed {
			return 0, io.EOF
		}
		h.changed.Wait()
	}
	n := copy(p, h.buf)
	h.buf = append(h.buf[:0], h.buf[n:]...)
	h.changed.Broadcast()
	return n, nil
}

func (h *half) write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	done := 0
	for done < len(p) {
		for len(h.buf) >= h.size && !h.closed {
			h.changed.Wait()
		}
		if h.closed {
			return done, io.ErrClosedPipe
		}
		n := min(len(p)-done, h.size-len(h.buf))
		h.buf = append(h.buf, p[done:done+n]...)
		done += n
		h.changed.Broadcast()
	}
	return done, nil
}

func (h *half) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	h.changed.Broadcast()
}
