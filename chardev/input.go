package chardev

import "sync"

// Input reads ahead of a Port from a goroutine of its own, so that who filters
// what is typed sees it though the guest does not read. Beyond its limit the host
// is held back. Safe for concurrent use.
type Input struct {
	port  Port
	limit int

	mu     sync.Mutex
	room   sync.Cond // buf has shrunk below limit, or closed
	buf    []byte
	closed bool
}

// NewInput returns an input of p, which reads from Start on; nil is a port with
// nothing plugged in. It holds at most twice limit bytes.
func NewInput(p Port, limit int) *Input {
	in := &Input{port: p, limit: limit}
	in.room.L = &in.mu
	return in
}

// Start begins to read, until the port ends. Whenever bytes have come, arrived
// is called with no lock held.
func (in *Input) Start(arrived func()) {
	if in.port != nil {
		go in.run(arrived)
	}
}

func (in *Input) run(arrived func()) {
	buf := make([]byte, in.limit)
	for {
		n, err := in.port.Read(buf)
		in.mu.Lock()
		in.buf = append(in.buf, buf[:n]...)
		in.mu.Unlock()
		if n > 0 {
			arrived()
		}
		if err != nil || !in.waitForRoom() {
			return
		}
	}
}

// waitForRoom returns false after Close.
func (in *Input) waitForRoom() bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	for len(in.buf) >= in.limit && !in.closed {
		in.room.Wait()
	}
	return !in.closed
}

// Take moves bytes that have come into p and returns how many.
func (in *Input) Take(p []byte) int {
	in.mu.Lock()
	defer in.mu.Unlock()
	n := copy(p, in.buf)
	in.buf = append(in.buf[:0], in.buf[n:]...)
	if len(in.buf) < in.limit {
		in.room.Signal()
	}
	return n
}

// Len returns how many bytes wait.
func (in *Input) Len() int {
	in.mu.Lock()
	defer in.mu.Unlock()
	return len(in.buf)
}

// Save returns what waits, for a state.
func (in *Input) Save() []byte {
	in.mu.Lock()
	defer in.mu.Unlock()
	return append([]byte(nil), in.buf...)
}

// Load replaces what waits.
func (in *Input) Load(p []byte) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.buf = append(in.buf[:0], p...)
	in.room.Signal()
}

// Close stops reading once the port, which stays the caller's to close, is closed.
func (in *Input) Close() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.closed = true
	in.room.Signal()
}
