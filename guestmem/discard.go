package guestmem

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Discard gives the whole pages in [gpa, gpa+n) back to the host: they read as
// zeros, and come from the host again when they are touched. Pages of a pool of huge
// pages and of a named file are kept as they are, for what is given back of those
// another may have taken when it is needed. ROM is not discarded.
func (m *Memory) Discard(gpa, n uint64) error {
	r := m.Find(gpa)
	if r == nil || n > r.End()-gpa || r.ReadOnly {
		return fmt.Errorf("guestmem: discarding 0x%x+0x%x: %w", gpa, n, ErrBounds)
	}
	first, end := (gpa+PageSize-1)&^(PageSize-1), (gpa+n)&^(PageSize-1)
	if first >= end {
		return nil
	}
	done, err := m.backing.discard(r, first-r.GPA, end-first)
	if err != nil {
		return fmt.Errorf("guestmem: discarding 0x%x+0x%x: %w", gpa, n, err)
	}
	if done {
		m.MarkWritten(first, end-first)
	}
	return nil
}

// discard gives pages of a region back and reports whether it did.
func (b *backing) discard(r *Region, off, size uint64) (done bool, err error) {
	switch {
	case b.HugePages != 0 || b.File != "" && b.Share:
		return false, nil
	case b.Share:
		return true, unix.Fallocate(b.fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, int64(r.fileOffset+off), int64(size))
	}
	return true, unix.Madvise(r.Host[off:off+size], unix.MADV_DONTNEED)
}
