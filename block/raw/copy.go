package raw

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"berth/block"
)

// CopyRange has the kernel copy n bytes from another file, which on many file
// systems costs no storage. Past from's end there are zeros. ErrUnsupported:
// these two files cannot; nothing has been changed.
func (f *File) CopyRange(from *File, fromOff, off, n int64) error {
	if f.readOnly.Load() {
		return block.ErrReadOnly
	}
	if fromOff < 0 || off < 0 || n < 0 || fromOff+n < 0 || off+n < 0 {
		return block.ErrRange
	}
	f.growth.RLock()
	done, err := f.copyBytes(from, fromOff, off, n)
	f.growth.RUnlock()
	if err != nil || done == n {
		return err
	}
	return f.WriteZeroes(off+done, n-done, 0)
}

// copyBytes copies up to from's end and returns how many bytes that were.
func (f *File) copyBytes(from *File, fromOff, off, n int64) (done int64, err error) {
	for done < n {
		if f.gone.Load() {
			return done, block.ErrClosed
		}
		src, dst := fromOff+done, off+done
		k, err := unix.CopyFileRange(from.fd, &src, f.fd, &dst, int(min(n-done, maxSpan)), 0)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil && done == 0 && (cannot(err) || errors.Is(err, unix.EXDEV) || errors.Is(err, unix.EBADF)):
			return 0, block.ErrUnsupported
		case err != nil:
			return done, fmt.Errorf("copying to %d: %w", off+done, err)
		case k == 0 && fromOff+done < from.Size():
			if done == 0 {
				return 0, block.ErrUnsupported // some file systems say it so
			}
			return done, fmt.Errorf("copying to %d: %w", off+done, unix.EIO)
		case k == 0:
			return done, nil
		}
		done += int64(k)
		if !f.device {
			f.reach(off + done)
		}
	}
	return done, nil
}
