package raw

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"berth/block"
)

// Extent tells data from holes, as the file system does. Past the end of the
// file there are zeros that nothing stores.
func (f *File) Extent(off, n int64) (block.Extent, error) {
	if off < 0 || n < 0 {
		return block.Extent{}, block.ErrRange
	}
	size := f.Size()
	if off >= size {
		return block.Extent{Len: n, Zero: true, EOF: true}, nil
	}
	e := block.Extent{Len: min(n, size-off), Allocated: true, HasOffset: true, Off: off}
	e.EOF = off+e.Len == size
	if f.device {
		e.Data = true
		return e, nil
	}
	data, end, err := f.run(off)
	if err != nil {
		return block.Extent{}, err
	}
	e.Data, e.Zero = data, !data
	if end-off < e.Len {
		e.Len, e.EOF = end-off, false
	}
	return e, nil
}

// run returns what lies at off, data or a hole, and where it ends.
func (f *File) run(off int64) (data bool, end int64, err error) {
	next, err := unix.Seek(f.fd, off, unix.SEEK_DATA)
	switch {
	case errors.Is(err, unix.ENXIO):
		return false, f.Size(), nil
	case errors.Is(err, unix.EINVAL): // a file system that does not know
		return true, f.Size(), nil
	case err != nil:
		return false, 0, fmt.Errorf("looking for data at %d: %w", off, err)
	case next > off:
		return false, next, nil
	}
	next, err = unix.Seek(f.fd, off, unix.SEEK_HOLE)
	if err != nil {
		return false, 0, fmt.Errorf("looking for a hole at %d: %w", off, err)
	}
	if next <= off { // the file has changed since
		return true, off + 1, nil
	}
	return true, next, nil
}
