package qcow2

import (
	"math/bits"

	"berth/block"
)

const (
	maxSliceBits = 16
	maxSlice     = 1 << maxSliceBits
)

// dirtySpan is a range of a table that is not yet written; to 0: none.
type dirtySpan struct{ from, to int }

func (d *dirtySpan) add(from, to int) {
	if d.to == 0 {
		*d = dirtySpan{from, to}
		return
	}
	d.from, d.to = min(d.from, from), max(d.to, to)
}

// slice is a part of a table in memory.
type slice struct {
	off   int64 // bytes, in the file
	b     []byte
	dirty dirtySpan
	used  bool // since the clock's hand last passed
	slot  int
}

func (s *slice) u64(n int) uint64 { return be.Uint64(s.b[n*8:]) }

// cache holds a bounded number of slices of one kind of table. It is guarded by
// the image's mu. A slice stays valid until the cache's next but one get.
type cache struct {
	file  block.File
	bytes int // of a slice
	max   int // slices
	all   []*slice
	byOff map[int64]*slice
	hand  int
	last  *slice
	dirty int // slices that are
	// clean makes it possible to drop dirty slices, in whatever order the format asks for.
	clean func() error
	// wrote is called after a slice has been written.
	wrote func()
	// allowed says whether a slice may be written there; nil: anywhere.
	allowed func(off int64) error
}

func newCache(f block.File, sliceBytes, slices int) *cache {
	return &cache{file: f, bytes: sliceBytes, max: max(slices, 4), byOff: map[int64]*slice{}}
}

// get returns the slice at off, which it reads if need be.
func (c *cache) get(off int64) (*slice, error) {
	if s := c.last; s != nil && s.off == off {
		return s, nil
	}
	if s := c.byOff[off]; s != nil {
		s.used = true
		c.last = s
		return s, nil
	}
	s, err := c.room()
	if err != nil {
		return nil, err
	}
	if err := readFull(c.file, s.b, off); err != nil {
		s.off = -1
		return nil, err
	}
	c.place(s, off)
	return s, nil
}

// insert returns a slice for off whose contents the caller gives; they are
// written later, whole.
func (c *cache) insert(off int64) (*slice, error) {
	s := c.byOff[off]
	if s == nil {
		var err error
		if s, err = c.room(); err != nil {
			return nil, err
		}
		c.place(s, off)
	}
	c.touch(s, 0, c.bytes)
	return s, nil
}

func (c *cache) place(s *slice, off int64) {
	s.off, s.used = off, true
	c.byOff[off] = s
	c.last = s
}

// put stores an entry of eight bytes.
func (c *cache) put(s *slice, n int, v uint64) {
	be.PutUint64(s.b[n*8:], v)
	c.touch(s, n*8, n*8+8)
}

// touch says that the bytes from:to of s have changed.
func (c *cache) touch(s *slice, from, to int) {
	if s.dirty.to == 0 {
		c.dirty++
	}
	s.dirty.add(from, to)
}

// room returns a slice to fill, belonging to no offset.
func (c *cache) room() (*slice, error) {
	if len(c.all) < c.max {
		s := &slice{off: -1, b: make([]byte, c.bytes), slot: len(c.all)}
		c.all = append(c.all, s)
		return s, nil
	}
	for {
		s := c.all[c.hand]
		c.hand = (c.hand + 1) % len(c.all)
		if s.used && s.off >= 0 || s == c.last {
			s.used = false
			continue
		}
		if s.dirty.to != 0 {
			if err := c.clean(); err != nil {
				return nil, err
			}
			if s.dirty.to != 0 {
				continue
			}
		}
		delete(c.byOff, s.off)
		s.off = -1
		return s, nil
	}
}

// flush writes all dirty slices.
func (c *cache) flush() error {
	if c.dirty == 0 {
		return nil
	}
	for _, s := range c.all {
		if s.off < 0 || s.dirty.to == 0 {
			continue
		}
		if err := c.write(s); err != nil {
			return err
		}
	}
	return nil
}

func (c *cache) write(s *slice) error {
	if c.allowed != nil {
		if err := c.allowed(s.off); err != nil {
			return err
		}
	}
	unit := min(512, c.bytes)
	from, to := s.dirty.from&^(unit-1), (s.dirty.to+unit-1)&^(unit-1)
	if err := writeFull(c.file, s.b[from:to], s.off+int64(from)); err != nil {
		return err
	}
	s.dirty = dirtySpan{}
	c.dirty--
	if c.wrote != nil {
		c.wrote()
	}
	return nil
}

// forget drops what is held of the range, written or not.
func (c *cache) forget(off, n int64) {
	for o := off; o < off+n; o += int64(c.bytes) {
		if s := c.byOff[o]; s != nil {
			c.drop(s)
		}
	}
}

// forgetAll drops everything, written or not.
func (c *cache) forgetAll() {
	for _, s := range c.byOff {
		c.drop(s)
	}
}

func (c *cache) drop(s *slice) {
	if s.dirty.to != 0 {
		s.dirty = dirtySpan{}
		c.dirty--
	}
	delete(c.byOff, s.off)
	if c.last == s {
		c.last = nil
	}
	s.off, s.used = -1, false
}

func log2(n int64) uint { return uint(bits.TrailingZeros64(uint64(n))) }
