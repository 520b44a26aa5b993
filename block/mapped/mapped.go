// Package mapped reads images of formats that only say where each run of bytes lies.
package mapped

import (
	"fmt"
	"syscall"

	"berth/block"
)

// Kind is what a run is made of.
type Kind uint8

// The kinds. Their extents are: not allocated; zeros; data with an offset;
// data stored compressed, so without one.
const (
	Unallocated Kind = iota
	Zero
	Data
	Compressed
)

// Run is a run of bytes that lie together.
type Run struct {
	Len     int64 // bytes, at least 1
	Kind    Kind
	File    block.File // of Data
	Off     int64      // where in File, in bytes
	Name    string     // File's, if it is not the image's own
	Recurse bool       // Data of which File may know that it is zeros
	// Read fills iov, which is as long as the run, from its beginning. Nil: Data
	// is read from File, and all else is zeros.
	Read func(iov [][]byte) error
}

// Map says where an image's bytes lie. Run describes what begins at off, for
// no more than n bytes; n is not 0, and the range lies within the image. It is
// safe for concurrent use.
type Map interface {
	Run(off, n int64) (Run, error)
}

// Image is a block.Image that is only read.
type Image struct {
	m     Map
	size  int64
	files []block.File
}

// New returns the image of that many bytes that m describes. It owns the files.
func New(m Map, size int64, files ...block.File) *Image {
	return &Image{m: m, size: size, files: files}
}

// Refuse is the answer to who asks to write to an image of a format that is
// only read. To be repaired it is opened, so that Check can say that it cannot be.
func Refuse(format string, o block.OpenOptions) error {
	if o.ReadOnly || o.Check {
		return nil
	}
	return fmt.Errorf("Driver '%s' can only be used for read-only devices", format)
}

// Readv implements block.Image.
func (i *Image) Readv(iov [][]byte, off int64) error {
	var n int64
	for _, p := range iov {
		n += int64(len(p))
	}
	if err := i.check(off, n); err != nil {
		return err
	}
	for n > 0 {
		r, err := i.m.Run(off, n)
		if err != nil {
			return err
		}
		var now [][]byte
		now, iov = Cut(iov, r.Len)
		if err := r.read(now); err != nil {
			return err
		}
		off, n = off+r.Len, n-r.Len
	}
	return nil
}

func (r *Run) read(iov [][]byte) error {
	switch {
	case r.Read != nil:
		return r.Read(iov)
	case r.Kind == Data:
		if err := Within(r.File, r.Off, r.Len); err != nil {
			return fmt.Errorf("data: %w: %w", err, syscall.EIO)
		}
		return r.File.Readv(iov, r.Off)
	}
	for _, p := range iov {
		clear(p)
	}
	return nil
}

// Cut divides iov after n bytes, which it must have. iov itself stays as it is.
func Cut(iov [][]byte, n int64) (head, tail [][]byte) {
	for k, p := range iov {
		if int64(len(p)) > n {
			head = append(iov[:k:k], p[:n])
			return head, append([][]byte{p[n:]}, iov[k+1:]...)
		}
		n -= int64(len(p))
	}
	return iov, nil
}

// Writev implements block.Image.
func (*Image) Writev([][]byte, int64, block.Flags) error { return block.ErrReadOnly }

// Flush implements block.Image.
func (*Image) Flush() error { return nil }

// Size implements block.Image.
func (i *Image) Size() int64 { return i.size }

// Close implements block.Image.
func (i *Image) Close() error {
	var first error
	for _, f := range i.files {
		if err := f.Close(); err != nil && first == nil {
			first = err
		}
	}
	return first
}

// Extent implements block.Extenter.
func (i *Image) Extent(off, n int64) (block.Extent, error) {
	if err := i.check(off, n); err != nil || n == 0 {
		return block.Extent{EOF: off == i.size}, err
	}
	r, err := i.m.Run(off, n)
	if err != nil {
		return block.Extent{}, err
	}
	e := block.Extent{Len: r.Len, Allocated: r.Kind != Unallocated}
	switch r.Kind {
	case Zero:
		e.Zero = true
	case Compressed:
		e.Data, e.Compressed = true, true
	case Data:
		e.Data, e.HasOffset, e.Off, e.File = true, true, r.Off, r.Name
		if r.Recurse {
			narrow(&e, r.File)
		}
	}
	e.EOF = off+e.Len == i.size
	return e, nil
}

// narrow adds what the file knows of its zeros. That it does not know is no
// error. Behind its last sector there are none: to read there is an error.
func narrow(e *block.Extent, f block.File) {
	size := f.Size()
	if e.Off >= size {
		e.Zero = Within(f, e.Off, e.Len) == nil
		return
	}
	below, err := f.Extent(e.Off, min(e.Len, size-e.Off))
	if err != nil {
		return
	}
	e.Zero = below.Zero
	if below.Zero && below.EOF && Within(f, e.Off, e.Len) == nil {
		return // so are the bytes past the file's end
	}
	e.Len = min(e.Len, below.Len)
}

func (i *Image) check(off, n int64) error {
	if off < 0 || n < 0 || off > i.size || n > i.size-off {
		return block.ErrRange
	}
	return nil
}

// Occupied returns how many bytes of storage all files take; see block.Occupier.
func (i *Image) Occupied() (int64, error) {
	sum := int64(0)
	for _, f := range i.files {
		o, ok := f.(block.Occupier)
		if !ok {
			return 0, block.ErrUnsupported
		}
		n, err := o.Occupied()
		if err != nil {
			return 0, err
		}
		sum += n
	}
	return sum, nil
}
