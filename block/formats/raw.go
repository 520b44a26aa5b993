package formats

import (
	"fmt"
	"math"
	"sync"
	"syscall"

	"berth/block"
	"berth/block/raw"
)

const sector = 512 // bytes

// rawFormat is that of an image which is nothing but the disk's bytes
// (block/raw-format.c), from an offset on and up to a size if those are given.
func rawFormat() block.Format {
	return block.Format{
		Name:    "raw",
		Probe:   func([]byte) int { return 1 }, // less than anything that knows
		Open:    func(f block.File, o block.OpenOptions) (block.Image, error) { return openRaw(f, o, false) },
		Create:  createRaw,
		Options: []block.Option{{Name: "size", Help: "Virtual disk size", Type: block.OptSize}},
		Measure: measureRaw,
	}
}

// rawImage is an image of rawFormat. Safe for concurrent use.
type rawImage struct {
	file   block.File
	off    int64 // bytes, of the image's begin within the file
	limit  int64 // bytes; -1: the image ends with the file
	probed bool  // see guarded

	first sync.Mutex // held while a guarded sector 0 changes
}

var (
	_ block.Resizer         = (*rawImage)(nil)
	_ block.PreallocResizer = (*rawImage)(nil)
	_ block.ZeroWriter      = (*rawImage)(nil)
	_ block.Discarder       = (*rawImage)(nil)
	_ block.Extenter        = (*rawImage)(nil)
	_ block.Shaped          = (*rawImage)(nil)
	_ block.RangeCopier     = (*rawImage)(nil)
)

// openRaw opens the image in f. probed: nobody said that it is raw, so the
// guest may not make another format of it.
func openRaw(f block.File, o block.OpenOptions, probed bool) (*rawImage, error) {
	r := &rawImage{file: f, off: o.Values.Int("offset", 0), limit: -1, probed: probed && !o.ReadOnly}
	size, has := o.Values["size"]
	whole := roundUp(f.Size())
	if r.off < 0 || r.off > whole {
		return nil, fmt.Errorf("Offset (%s) cannot be greater than size of the containing file (%d)", o.Values["offset"], whole)
	}
	if !has {
		return r, nil
	}
	r.limit = o.Values.Int("size", math.MaxInt64)
	if r.limit < 0 || r.limit > whole-r.off {
		return nil, fmt.Errorf("The sum of offset (%d) and size (%s) has to be smaller or equal to the  actual size of the containing file (%d)", r.off, size, whole)
	}
	if r.limit%sector != 0 {
		return nil, fmt.Errorf("Specified size is not multiple of %d", sector)
	}
	return r, nil
}

// roundUp makes whole sectors of n bytes; of the largest files there are, all but the last.
func roundUp(n int64) int64 { return (min(n, math.MaxInt64-sector+1) + sector - 1) &^ (sector - 1) }

// Size returns the disk's length in bytes: whole sectors, as in QEMU.
func (r *rawImage) Size() int64 {
	if r.limit >= 0 {
		return r.limit
	}
	return roundUp(max(r.file.Size()-r.off, 0))
}

func (r *rawImage) check(off, n int64) error {
	if size := r.Size(); off < 0 || n < 0 || off > size || n > size-off {
		return block.ErrRange
	}
	return nil
}

func bytesOf(iov [][]byte) (n int64) {
	for _, b := range iov {
		n += int64(len(b))
	}
	return n
}

// Readv fills the buffers.
func (r *rawImage) Readv(iov [][]byte, off int64) error {
	if err := r.check(off, bytesOf(iov)); err != nil {
		return err
	}
	return r.file.Readv(iov, r.off+off)
}

// Writev writes the buffers.
func (r *rawImage) Writev(iov [][]byte, off int64, f block.Flags) error {
	n := bytesOf(iov)
	if err := r.check(off, n); err != nil {
		return err
	}
	if r.probed && off < ProbeSize && n > 0 {
		return r.guarded(iov, off, n, f)
	}
	return r.file.Writev(iov, r.off+off, f)
}

// guarded writes what reaches into sector 0 of an image that was probed: what
// would make the sector look like another format is refused, since the next to
// open the image would follow what it names. What was looked at is what is
// written: the guest may change its buffers meanwhile.
func (r *rawImage) guarded(iov [][]byte, off, n int64, f block.Flags) error {
	r.first.Lock()
	defer r.first.Unlock()
	head := make([]byte, ProbeSize)
	if err := r.file.Readv([][]byte{head}, r.off); err != nil {
		return err
	}
	end := min(off+n, ProbeSize)
	own := head[off:end]
	rest := take(own, iov)
	if Probe(head) != "raw" {
		return fmt.Errorf("sector 0 of an image whose format was probed: %w", syscall.EPERM)
	}
	return r.file.Writev(append([][]byte{own}, rest...), r.off+off, f)
}

// take fills p from the front of iov, and returns what remains of it.
func take(p []byte, iov [][]byte) [][]byte {
	for len(p) > 0 {
		n := copy(p, iov[0])
		p = p[n:]
		if n < len(iov[0]) {
			return append([][]byte{iov[0][n:]}, iov[1:]...)
		}
		iov = iov[1:]
	}
	return iov
}

// WriteZeroes makes a range zero.
func (r *rawImage) WriteZeroes(off, n int64, f block.Flags) error {
	if err := r.check(off, n); err != nil {
		return err
	}
	if r.probed && off < ProbeSize && n > 0 && (off > 0 || n < ProbeSize) { // zeros within a number can make a magic of it
		if f&block.FlagNoFallback != 0 {
			return block.ErrUnsupported
		}
		part := min(n, ProbeSize-off)
		if err := r.guarded([][]byte{make([]byte, part)}, off, part, f); err != nil {
			return err
		}
		off, n = off+part, n-part
	}
	return r.file.WriteZeroes(r.off+off, n, f)
}

// Discard gives back a range's storage; see block.Discarder.
func (r *rawImage) Discard(off, n int64) error {
	if err := r.check(off, n); err != nil {
		return err
	}
	if r.probed && off < ProbeSize && (off > 0 || n < ProbeSize) {
		part := min(n, ProbeSize-off)
		off, n = off+part, n-part
	}
	return r.file.Discard(r.off+off, n)
}

// CopyRange has the kernel copy bytes from a file, in which past the end there are zeros.
func (r *rawImage) CopyRange(from block.Image, fromOff, off, n int64) error {
	file, readable := from.(*raw.File)
	to, writable := r.file.(*raw.File)
	if !readable || !writable || r.probed && off < ProbeSize {
		return block.ErrUnsupported
	}
	if err := r.check(off, n); err != nil {
		return err
	}
	return to.CopyRange(file, fromOff, r.off+off, n)
}

// Flush puts on stable storage what was written before.
func (r *rawImage) Flush() error { return r.file.Flush() }

// Close closes the file.
func (r *rawImage) Close() error { return r.file.Close() }

// Abandon makes what is under way fail; see pool.Disk.Abandon.
func (r *rawImage) Abandon() {
	if f, ok := r.file.(interface{ Abandon() }); ok {
		f.Abandon()
	}
}

// Topology is the file's.
func (r *rawImage) Topology() block.Topology { return block.TopologyOf(r.file) }

// Extent tells data from holes, as the file does.
func (r *rawImage) Extent(off, n int64) (block.Extent, error) {
	if err := r.check(off, n); err != nil {
		return block.Extent{}, err
	}
	size := r.Size()
	if end := r.file.Size(); r.off+off >= end && n > 0 { // the last sector's tail, which is not in the file
		return block.Extent{Len: n, Allocated: true, Zero: true, HasOffset: true, Off: r.off + off, EOF: off+n == size}, nil
	}
	e, err := r.file.Extent(r.off+off, n)
	if err != nil {
		return e, err
	}
	e.Allocated, e.EOF = true, off+e.Len == size
	return e, nil
}

// Truncate sets the disk's length.
func (r *rawImage) Truncate(size int64) error {
	if err := r.checkSize(size); err != nil {
		return err
	}
	return r.file.Truncate(r.off + size)
}

// isDevice tells whether f has the size that it has.
func isDevice(f block.File) bool {
	d, ok := f.(interface{ IsDevice() bool })
	return ok && d.IsDevice()
}

func (r *rawImage) checkSize(size int64) error {
	if isDevice(r.file) && r.off+size != r.file.Size() {
		return fmt.Errorf("Cannot resize device files")
	}
	if r.limit >= 0 {
		return fmt.Errorf("Cannot resize fixed-size raw disks")
	}
	if size < 0 || size > math.MaxInt64-r.off {
		return fmt.Errorf("Disk size too large for the chosen offset")
	}
	return nil
}

// TruncatePrealloc sets the disk's length, and gives what is added its storage
// if mode is falloc or full.
func (r *rawImage) TruncatePrealloc(size int64, mode string) error {
	if err := r.checkSize(size); err != nil {
		return err
	}
	old := r.file.Size()
	if r.off+size < old && mode != "off" {
		return fmt.Errorf("Cannot use preallocation for shrinking files")
	}
	return grow(r.file, old, r.off+size, mode)
}

// grow sets f's length from old to size; on an error it is old again.
func grow(f block.File, old, size int64, mode string) error {
	var err error
	p, ok := f.(block.Preallocator)
	switch {
	case mode == "off":
		if err := f.Truncate(size); err != nil {
			return &wordedError{"Could not resize file", err}
		}
		return nil
	case mode != "falloc" && mode != "full":
		return fmt.Errorf("Unsupported preallocation mode: %s", mode)
	case !ok:
		return block.ErrUnsupported
	case mode == "falloc":
		if err = p.Preallocate(old, size-old, false); err != nil {
			err = &wordedError{"Could not preallocate new data", err}
		}
	default:
		if err = p.Preallocate(old, size-old, true); err != nil {
			err = &wordedError{"Could not write zeros for preallocation", err}
		} else if err = f.Flush(); err != nil {
			err = &wordedError{"Could not flush file to disk", err}
		}
	}
	if err != nil {
		_ = f.Truncate(old) // the first error is the one to tell
	}
	return err
}

// createRaw makes f a disk of Values' size.
func createRaw(f block.File, c block.Creation) error {
	mode := c.Values["preallocation"]
	switch mode {
	case "":
		mode = "off"
	case "off", "metadata", "falloc", "full":
	default:
		return fmt.Errorf("invalid parameter value: %s", mode)
	}
	if c.Values.Int("extent_size_hint", 0) > math.MaxUint32 {
		return fmt.Errorf("Extent size hint is too large")
	}
	if file, ok := f.(*raw.File); ok {
		file.Advise(c.Values.On("nocow", false), c.Values.Int("extent_size_hint", defaultExtentSize))
	}
	size := c.Values.Int("size", 0)
	if isDevice(f) {
		if size > f.Size() {
			return fmt.Errorf("Cannot grow device files")
		}
		return nil
	}
	if size < 0 || size > math.MaxInt64-sector {
		return &wordedError{"Could not resize file", syscall.EFBIG}
	}
	return grow(f, f.Size(), roundUp(size), mode)
}

// defaultExtentSize is how much storage a file system that can be told so
// gives a new file at once, in bytes (block/file-posix.c, raw_co_create).
const defaultExtentSize = 1 << 20

func measureRaw(v block.Values, src block.Image) (block.Measurement, error) {
	n := roundUp(v.Int("size", 0))
	if src != nil {
		n = roundUp(src.Size())
	}
	return block.Measurement{Required: n, FullyAllocated: n, Bitmaps: -1}, nil
}
