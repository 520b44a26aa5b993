package raw

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"berth/block"
)

// maxSpan is how many bytes one call gives back or zeroes at most, so that
// Abandon is soon seen: storage that cannot do better writes them all.
const maxSpan = 256 << 20

// Truncate sets the file's length. A device has only its own.
func (f *File) Truncate(size int64) error {
	if f.readOnly.Load() {
		return block.ErrReadOnly
	}
	if size < 0 {
		return block.ErrRange
	}
	f.growth.Lock()
	defer f.growth.Unlock()
	if f.device {
		if size > f.size.Load() {
			return fmt.Errorf("a block device does not grow: %w", unix.EINVAL)
		}
		return nil
	}
	if err := retry(func() error { return unix.Ftruncate(f.fd, size) }); err != nil {
		return fmt.Errorf("setting the size to %d: %w", size, err)
	}
	if f.size.Swap(size) == 0 && size > 0 {
		f.allocateFirst(size)
	}
	return nil
}

// allocateFirst gives a file that was empty its first block, as QEMU does
// (block/file-posix.c, allocate_first_block): who looks for O_DIRECT's unit by
// reading learns nothing from a hole. It changes no contents, and may fail.
func (f *File) allocateFirst(size int64) {
	const block = 4096
	n := int64(sectorSize)
	if size >= block {
		n = block
	}
	b := alignedBuffer(block, block)[:min(n, size)]
	_ = retry(func() error { _, err := unix.Pwrite(f.fd, b, 0); return err })
}

// Preallocate gives the range its storage, and lengthens the file where it ends
// past it. What the file has already stays as it is, unless full.
func (f *File) Preallocate(off, n int64, full bool) error {
	if f.readOnly.Load() {
		return block.ErrReadOnly
	}
	if n == 0 || f.device && !full {
		return nil
	}
	if full {
		return f.writeZeroBytes(off, off+n)
	}
	err := retry(func() error { return unix.Fallocate(f.fd, 0, off, n) })
	if cannot(err) && off >= f.Size() { // storage without reservations
		return f.writeZeroBytes(off, off+n)
	}
	if err != nil {
		return fmt.Errorf("reserving storage: %w", err)
	}
	f.reach(off + n)
	return nil
}

// Discard gives back the storage of what whole blocks the range has. Storage
// that is busy with the range keeps it: a discard is advice.
func (f *File) Discard(off, n int64) error {
	if f.readOnly.Load() {
		return block.ErrReadOnly
	}
	if off < 0 || n < 0 || off+n < off {
		return block.ErrRange
	}
	from, to := f.whole(off, min(off+n, f.Size()))
	err := f.discard(from, to)
	f.traffic.discarded(to-from, err)
	return err
}

func (f *File) discard(from, to int64) error {
	for from < to {
		if f.gone.Load() {
			return block.ErrClosed
		}
		n := min(to-from, maxSpan)
		err := f.giveBack(from, n)
		switch {
		case errors.Is(err, unix.EBUSY):
		case cannot(err):
			return block.ErrUnsupported
		case err != nil:
			return fmt.Errorf("discarding at %d: %w", from, err)
		}
		from += n
	}
	return nil
}

func (f *File) giveBack(off, n int64) error {
	return retry(func() error {
		if f.device {
			return discardBlocks(f.fd, off, n)
		}
		return unix.Fallocate(f.fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n)
	})
}

// whole returns the part of [from, to) that is whole units of what the kernel
// gives back and zeroes: bytes of a file, logical blocks of a device.
func (f *File) whole(from, to int64) (int64, int64) {
	if !f.device {
		return from, max(from, to)
	}
	unit := int64(f.topology.Logical)
	first, last := (from+unit-1)/unit*unit, to/unit*unit
	if first >= last {
		return max(from, to), max(from, to)
	}
	return first, last
}

// WriteZeroes zeroes whole blocks in the cheapest way that the storage knows,
// and what is left at either end by writing. Past the end it lengthens the file.
func (f *File) WriteZeroes(off, n int64, flags block.Flags) error {
	if f.readOnly.Load() {
		return block.ErrReadOnly
	}
	if off < 0 || n < 0 || off+n < off {
		return block.ErrRange
	}
	if n == 0 {
		return nil
	}
	end := off + n
	from, to := f.whole(off, min(end, f.zeroable(end)))
	cheap := flags&block.FlagNoFallback != 0
	if cheap && (f.device && (from != off || to != end)) {
		return block.ErrUnsupported
	}
	err := f.zeroBlocks(min(from, end), min(to, end), flags&block.FlagUnmap != 0, cheap)
	if err == nil {
		err = f.writeZeroBytes(off, min(from, end))
	}
	if err == nil && f.device {
		err = f.writeZeroBytes(max(off, to), end)
	} else if err == nil {
		err = f.lengthen(end)
	}
	if err == nil && flags&block.FlagFUA != 0 {
		err = f.sync()
	}
	return err
}

// zeroable is where the bytes end that must be zeroed: past the end of a file
// there are none.
func (f *File) zeroable(end int64) int64 {
	if f.device {
		return end
	}
	return f.Size()
}

// lengthen makes the file at least end bytes long.
func (f *File) lengthen(end int64) error {
	if end <= f.Size() {
		return nil
	}
	f.growth.Lock()
	defer f.growth.Unlock()
	if end <= f.Size() {
		return nil
	}
	if err := retry(func() error { return unix.Ftruncate(f.fd, end) }); err != nil {
		return fmt.Errorf("setting the size to %d: %w", end, err)
	}
	f.size.Store(end)
	return nil
}

// zeroBlocks zeroes [from, to). With cheap it answers ErrUnsupported rather
// than begin with writing.
func (f *File) zeroBlocks(from, to int64, unmap, cheap bool) error {
	for from < to {
		if f.gone.Load() {
			return block.ErrClosed
		}
		n := min(to-from, maxSpan)
		err := error(unix.EOPNOTSUPP)
		if unmap {
			err = f.fallocate(unix.FALLOC_FL_PUNCH_HOLE, from, n)
		}
		if cannot(err) {
			err = f.fallocate(unix.FALLOC_FL_ZERO_RANGE, from, n)
		}
		if cannot(err) && cheap {
			return block.ErrUnsupported
		}
		if cannot(err) {
			err = f.writeZeroBytes(from, from+n)
		}
		if err != nil {
			return fmt.Errorf("zeroing at %d: %w", from, err)
		}
		from, cheap = from+n, false
	}
	return nil
}

// writeZeroBytes is the way that always works.
func (f *File) writeZeroBytes(from, to int64) error {
	if from >= to {
		return nil
	}
	zeros := make([]byte, min(to-from, 1<<20))
	if f.align != 0 {
		zeros = alignedBuffer(len(zeros), f.align)
	}
	iov := [][]byte{zeros}
	for from < to {
		if f.gone.Load() {
			return block.ErrClosed
		}
		iov[0] = zeros[:min(to-from, int64(len(zeros)))]
		if err := f.Writev(iov, from, 0); err != nil {
			return err
		}
		from += int64(len(iov[0]))
	}
	return nil
}

// fallocate zeroes as mode says. A rewrite of a block that the range has a part of
// must not bring back what it read before.
func (f *File) fallocate(mode uint32, off, n int64) error {
	if f.align != 0 {
		f.growth.RLock()
		defer f.growth.RUnlock()
	}
	return retry(func() error { return unix.Fallocate(f.fd, mode|unix.FALLOC_FL_KEEP_SIZE, off, n) })
}

// cannot knows the kernel's ways of saying that there is no such way. EBUSY is
// that of a block device some of whose pages are just being written.
func cannot(err error) bool {
	for _, e := range [...]error{unix.EOPNOTSUPP, unix.ENOSYS, unix.ENODEV, unix.ENOTTY, unix.EINVAL, unix.EBUSY} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
