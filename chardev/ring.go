package chardev

import (
	"io"
	"sync"
)

// Ring is a Port that keeps the last bytes written to it, for logs that are
// looked at afterwards. Writing never blocks; Read has no input to give and
// waits for Close. Safe for concurrent use.
type Ring struct {
	mu    sync.Mutex
	buf   []byte
	next  int    // where the next byte goes once buf is full
	total uint64 // bytes ever written
	once  sync.Once
	done  chan struct{}
}

// NewRing returns a ring of size bytes, at least 1.
func NewRing(size int) *Ring {
	return &Ring{buf: make([]byte, 0, size), done: make(chan struct{})}
}

// Write implements Port.
func (r *Ring) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := len(p)
	r.total += uint64(n)
	p = p[max(0, n-cap(r.buf)):]
	grow := min(len(p), cap(r.buf)-len(r.buf))
	r.buf = append(r.buf, p[:grow]...)
	for p = p[grow:]; len(p) > 0; {
		c := copy(r.buf[r.next:], p)
		r.next = (r.next + c) % len(r.buf)
		p = p[c:]
	}
	return n, nil
}

// Bytes returns a copy of what the ring holds, oldest first.
func (r *Ring) Bytes() []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append(append([]byte(nil), r.buf[r.next:]...), r.buf[:r.next]...)
}

// Take removes the oldest bytes, at most n, and returns them.
func (r *Ring) Take(n int) []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := append(append(make([]byte, 0, cap(r.buf)), r.buf[r.next:]...), r.buf[:r.next]...)
	n = min(n, len(all))
	r.buf, r.next = append(r.buf[:0], all[n:]...), 0
	return all[:n:n]
}

// Total returns how many bytes were ever written.
func (r *Ring) Total() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.total
}

// Read implements Port: it waits for Close.
func (r *Ring) Read([]byte) (int, error) {
	<-r.done
	return 0, io.EOF
}

// Close implements Port. What the ring holds stays.
func (r *Ring) Close() error {
	r.once.Do(func() { close(r.done) })
	return nil
}
