package mapped

import (
	"encoding/binary"
	"fmt"
	"sync"

	"berth/block"
)

const (
	cacheBlock = 16 << 10 // bytes
	cacheSlots = 64
	sectorSize = 512
)

// Cache reads a file's tables: 1 MiB of them at most is in memory, however
// large the image says that they are. It serves files that nobody writes to.
// Safe for concurrent use.
type Cache struct {
	f block.File
	*store
}

// store is the memory of one cache, or of those of all files of an image.
type store struct {
	mu    sync.Mutex
	slots [cacheSlots]struct {
		f    block.File // nil: none
		n    int64      // of the block
		data []byte
	}
}

// NewCache returns an empty one over f, which stays the caller's.
func NewCache(f block.File) *Cache { return &Cache{f, &store{}} }

// Of returns a cache over another file of the same image, in the same memory.
func (c *Cache) Of(f block.File) *Cache { return &Cache{f, c.store} }

// ReadAt fills p from the file at off.
func (c *Cache) ReadAt(p []byte, off int64) error {
	if off < 0 {
		return block.ErrRange
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(p) > 0 {
		b, err := c.block(off / cacheBlock)
		if err != nil {
			return err
		}
		k := copy(p, b[off%cacheBlock:])
		p, off = p[k:], off+int64(k)
	}
	return nil
}

func (c *Cache) block(n int64) ([]byte, error) {
	s := &c.slots[n%cacheSlots]
	if s.f == c.f && s.n == n {
		return s.data, nil
	}
	if s.data == nil {
		s.data = make([]byte, cacheBlock)
	}
	s.f = nil
	if err := c.f.Readv([][]byte{s.data}, n*cacheBlock); err != nil {
		return nil, err
	}
	s.f, s.n = c.f, n
	return s.data, nil
}

// Uint32 reads one number.
func (c *Cache) Uint32(off int64, o binary.ByteOrder) (uint32, error) {
	var b [4]byte
	err := c.ReadAt(b[:], off)
	return o.Uint32(b[:]), err
}

// Uint64 reads one number.
func (c *Cache) Uint64(off int64, o binary.ByteOrder) (uint64, error) {
	var b [8]byte
	err := c.ReadAt(b[:], off)
	return o.Uint64(b[:]), err
}

// Scan reads n bytes of f from off on, in pieces whose lengths are multiples
// of 8, but for the last, and gives each to visit, which does not keep it.
// Memory is bounded, and the time by the file's size: what lies beyond its end
// is an error.
func Scan(f block.File, off, n int64, visit func([]byte) error) error {
	if err := Within(f, off, n); err != nil {
		return err
	}
	buf := make([]byte, min(n, 64<<10))
	for n > 0 {
		p := buf[:min(n, int64(len(buf)))]
		if err := f.Readv([][]byte{p}, off); err != nil {
			return err
		}
		if err := visit(p); err != nil {
			return err
		}
		off, n = off+int64(len(p)), n-int64(len(p))
	}
	return nil
}

// Within says whether n bytes at off lie in the file, the last sector of which
// may not be whole: what it lacks are zeros.
func Within(f block.File, off, n int64) error {
	if size := (f.Size() + sectorSize - 1) &^ (sectorSize - 1); off < 0 || n < 0 || off > size || n > size-off {
		return fmt.Errorf("%d bytes at %d are beyond the end of the file", n, off)
	}
	return nil
}
