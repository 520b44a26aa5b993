// Package blocktest checks that a disk keeps block.Disk's contract, offers disks and files that forget, fail or stall on purpose, and cuts the power of a recorded file.
package blocktest

import (
	"sync"

	"berth/block"
)

// Mem is a disk in memory that completes requests in Submit. It counts flushes
// and FUA writes.
type Mem struct {
	mu     sync.Mutex
	bytes  []byte
	synced int
	closed bool
}

// NewMem returns a disk of size zero bytes.
func NewMem(size int64) *Mem { return &Mem{bytes: make([]byte, size)} }

// Size returns the disk's length.
func (m *Mem) Size() int64 { return int64(len(m.bytes)) }

// Bytes returns a copy of what the disk holds.
func (m *Mem) Bytes() []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]byte(nil), m.bytes...)
}

// Synced returns how many flushes and FUA writes there have been.
func (m *Mem) Synced() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.synced
}

// Submit does the request.
func (m *Mem) Submit(r *block.Request) { r.Done(m.do(r)) }

func (m *Mem) do(r *block.Request) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return block.ErrClosed
	}
	if r.Op == block.OpFlush || r.Flags&block.FlagFUA != 0 {
		m.synced++
	}
	if r.Op == block.OpFlush {
		return nil
	}
	if r.Op > block.OpWriteZeroes {
		return block.ErrUnsupported
	}
	if r.Off < 0 || r.Len < 0 || r.Off > m.Size() || r.Len > m.Size()-r.Off {
		return block.ErrRange
	}
	p := m.bytes[r.Off : r.Off+r.Len]
	if r.Op >= block.OpDiscard {
		clear(p)
		return nil
	}
	for _, b := range r.IOV {
		var n int
		if r.Op == block.OpRead {
			n = copy(b, p)
		} else {
			n = copy(p, b)
		}
		p = p[n:]
	}
	if len(p) > 0 {
		return block.ErrRange
	}
	return nil
}

// Close ends the disk.
func (m *Mem) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return block.ErrClosed
	}
	m.closed = true
	return nil
}

// Faulty passes requests on to Disk, save those that Fail gives an error.
type Faulty struct {
	block.Disk
	// Fail decides before the request reaches the disk. Set before use; called concurrently.
	Fail func(r *block.Request) error
}

// Submit fails the request or passes it on.
func (f *Faulty) Submit(r *block.Request) {
	if err := f.Fail(r); err != nil {
		r.Done(err)
		return
	}
	f.Disk.Submit(r)
}

// Stalled holds requests back until it is told to let them go.
type Stalled struct {
	block.Disk
	mu   sync.Mutex
	held []*block.Request
}

// Submit keeps the request.
func (s *Stalled) Submit(r *block.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held = append(s.held, r)
}

// Held returns how many requests wait.
func (s *Stalled) Held() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.held)
}

// Release passes on every held request, the last one first, on the caller's goroutine.
func (s *Stalled) Release() {
	s.mu.Lock()
	held := s.held
	s.held = nil
	s.mu.Unlock()
	for i := len(held) - 1; i >= 0; i-- {
		s.Disk.Submit(held[i])
	}
}
