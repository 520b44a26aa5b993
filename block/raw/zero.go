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

// discard gives back the storage of what whole blocks the range has. Storage
// that is busy with the range keeps it: a discard is advice.
func (d *Disk) discard(r *block.Request) error {
	if !d.unmap {
		return nil
	}
	from, to := d.whole(r.Off, r.Off+r.Len)
	for from < to {
		if d.gone.Load() {
			return block.ErrClosed
		}
		n := min(to-from, maxSpan)
		err := d.giveBack(from, n)
		switch {
		case errors.Is(err, unix.EBUSY):
		case cannot(err):
			return block.ErrUnsupported
		case err != nil:
			return fmt.Errorf("raw: discarding at %d: %w", from, err)
		}
		from += n
	}
	return nil
}

func (d *Disk) giveBack(off, n int64) error {
	return retry(func() error {
		if d.device {
			return discardBlocks(d.fd, off, n)
		}
		return unix.Fallocate(d.fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n)
	})
}

// whole returns the part of [from, to) that is whole units of what the kernel
// gives back and zeroes: bytes of a file, logical blocks of a device.
func (d *Disk) whole(from, to int64) (int64, int64) {
	if !d.device {
		return from, to
	}
	unit := int64(d.topology.Logical)
	first, last := (from+unit-1)/unit*unit, to/unit*unit
	if first >= last {
		return to, to
	}
	return first, last
}

// writeZeroes zeroes whole blocks in the cheapest way that the storage knows,
// and what is left at either end by writing.
func (d *Disk) writeZeroes(r *block.Request, v *vector) error {
	end := r.Off + r.Len
	from, to := d.whole(r.Off, end)
	err := d.writeZeroBytes(r.Off, from, v)
	if err == nil {
		err = d.zeroBlocks(from, to, d.unmap && r.Flags&block.FlagUnmap != 0, v)
	}
	if err == nil {
		err = d.writeZeroBytes(to, end, v)
	}
	if err == nil && r.Flags&block.FlagFUA != 0 {
		err = retry(func() error { return unix.Fdatasync(d.fd) })
	}
	return err
}

func (d *Disk) zeroBlocks(from, to int64, unmap bool, v *vector) error {
	for from < to {
		if d.gone.Load() {
			return block.ErrClosed
		}
		n := min(to-from, maxSpan)
		err := error(unix.EOPNOTSUPP)
		if unmap {
			err = d.fallocate(unix.FALLOC_FL_PUNCH_HOLE, from, n)
		}
		if cannot(err) {
			err = d.fallocate(unix.FALLOC_FL_ZERO_RANGE, from, n)
		}
		if cannot(err) {
			err = d.writeZeroBytes(from, from+n, v)
		}
		if err != nil {
			return fmt.Errorf("raw: zeroing at %d: %w", from, err)
		}
		from += n
	}
	return nil
}

// writeZeroBytes is the way that always works.
func (d *Disk) writeZeroBytes(from, to int64, v *vector) error {
	if from >= to {
		return nil
	}
	zeros := make([]byte, min(to-from, 1<<20))
	for from < to {
		if d.gone.Load() {
			return block.ErrClosed
		}
		n := min(to-from, int64(len(zeros)))
		if err := d.write(&block.Request{Op: block.OpWrite, Off: from, Len: n, IOV: [][]byte{zeros[:n]}}, v); err != nil {
			return err
		}
		from += n
	}
	return nil
}

func (d *Disk) fallocate(mode uint32, off, n int64) error {
	return retry(func() error { return unix.Fallocate(d.fd, mode|unix.FALLOC_FL_KEEP_SIZE, off, n) })
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
