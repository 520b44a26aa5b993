package blocktest

import (
	"sync"

	"berth/block"
)

const chunkSize = 4096

// MemFile is a file in memory; only what was written takes any. The zero value is empty.
type MemFile struct {
	mu     sync.RWMutex
	chunks map[int64]*[chunkSize]byte
	size   int64
	closed bool
}

// NewMemFile returns a file that holds a copy of p.
func NewMemFile(p []byte) *MemFile {
	m := &MemFile{}
	if len(p) > 0 {
		m.store(p, 0)
	}
	return m
}

// Clone returns an open copy.
func (m *MemFile) Clone() *MemFile {
	m.mu.RLock()
	defer m.mu.RUnlock()
	c := &MemFile{size: m.size, chunks: make(map[int64]*[chunkSize]byte, len(m.chunks))}
	for n, p := range m.chunks {
		q := *p
		c.chunks[n] = &q
	}
	return c
}

// Bytes returns a copy of what the file holds.
func (m *MemFile) Bytes() []byte {
	m.mu.RLock()
	defer m.mu.RUnlock()
	p := make([]byte, m.size)
	m.load(p, 0)
	return p
}

// Size returns the file's length.
func (m *MemFile) Size() int64 {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.size
}

// Readv fills iov; past the end there are zeros.
func (m *MemFile) Readv(iov [][]byte, off int64) error {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if err := m.usable(off); err != nil {
		return err
	}
	for _, p := range iov {
		m.load(p, off)
		off += int64(len(p))
	}
	return nil
}

// Writev stores iov.
func (m *MemFile) Writev(iov [][]byte, off int64, _ block.Flags) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.usable(off); err != nil {
		return err
	}
	for _, p := range iov {
		m.store(p, off)
		off += int64(len(p))
	}
	return nil
}

// Flush does nothing.
func (m *MemFile) Flush() error {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.usable(0)
}

// Truncate sets the length.
func (m *MemFile) Truncate(size int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.usable(size); err != nil {
		return err
	}
	if size < m.size {
		m.zero(size, m.size-size)
	}
	m.size = size
	return nil
}

// WriteZeroes frees what it can of the range.
func (m *MemFile) WriteZeroes(off, n int64, _ block.Flags) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.usable(off); err != nil {
		return err
	}
	m.zero(off, n)
	m.size = max(m.size, off+n)
	return nil
}

// Discard makes what lies within the file zero.
func (m *MemFile) Discard(off, n int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.usable(off); err != nil {
		return err
	}
	m.zero(off, n)
	return nil
}

// Extent tells chunks that were written from those that were not.
func (m *MemFile) Extent(off, n int64) (block.Extent, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if err := m.usable(off); err != nil {
		return block.Extent{}, err
	}
	n = min(n, m.size-off)
	if n <= 0 {
		return block.Extent{EOF: true, Zero: true}, nil
	}
	_, data := m.chunks[off/chunkSize]
	end := off + 1
	for end < off+n && end < m.size {
		if _, d := m.chunks[end/chunkSize]; d != data {
			break
		}
		end = (end/chunkSize + 1) * chunkSize
	}
	l := min(end-off, n)
	return block.Extent{Len: l, Allocated: true, Data: data, Zero: !data, HasOffset: true, Off: off, EOF: off+l == m.size}, nil
}

// Close ends the file.
func (m *MemFile) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return block.ErrClosed
	}
	m.closed = true
	return nil
}

func (m *MemFile) usable(off int64) error {
	if m.closed {
		return block.ErrClosed
	}
	if off < 0 {
		return block.ErrRange
	}
	return nil
}

func (m *MemFile) load(p []byte, off int64) {
	for len(p) > 0 {
		n := min(int64(len(p)), chunkSize-off%chunkSize)
		if c := m.chunks[off/chunkSize]; c != nil {
			copy(p[:n], c[off%chunkSize:])
		} else {
			clear(p[:n])
		}
		p, off = p[n:], off+n
	}
}

func (m *MemFile) store(p []byte, off int64) {
	if m.chunks == nil {
		m.chunks = map[int64]*[chunkSize]byte{}
	}
	for len(p) > 0 {
		c := m.chunks[off/chunkSize]
		if c == nil {
			c = new([chunkSize]byte)
			m.chunks[off/chunkSize] = c
		}
		n := int64(copy(c[off%chunkSize:], p))
		p, off = p[n:], off+n
		m.size = max(m.size, off)
	}
}

// zero does not change the size.
func (m *MemFile) zero(off, n int64) {
	end := min(off+n, m.size)
	if end-off > chunkSize*int64(len(m.chunks)+1) { // a hole of any size costs what is stored
		for c := range m.chunks {
			m.zeroChunk(c, off, end)
		}
		return
	}
	for c := off / chunkSize; c*chunkSize < end; c++ {
		m.zeroChunk(c, off, end)
	}
}

func (m *MemFile) zeroChunk(c, off, end int64) {
	from, to := max(off, c*chunkSize), min(end, (c+1)*chunkSize)
	if p := m.chunks[c]; p == nil || from >= to {
		return
	} else if to-from == chunkSize {
		delete(m.chunks, c)
	} else {
		clear(p[from-c*chunkSize : to-c*chunkSize])
	}
}
