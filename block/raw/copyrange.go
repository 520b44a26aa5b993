package raw

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"berth/block"
)

var _ block.RangeCopier = (*File)(nil)

// CopyRange has the kernel copy n bytes of from, a *File, into f; where the file
// system can, they share their storage (copy_file_range). What from does not
// reach is not copied: the answer is then block.ErrUnsupported. A part may have
// been copied when an error comes.
func (f *File) CopyRange(from block.Image, fromOff, off, n int64) error {
	src, ok := from.(*File)
	if !ok || src.device || f.device || f.align != 0 || src.align != 0 || fromOff < 0 || off < 0 || fromOff+n > src.Size() {
		return block.ErrUnsupported
	}
	if f.readOnly {
		return block.ErrReadOnly
	}
	f.growth.RLock()
	defer f.growth.RUnlock()
	for n > 0 {
		in, out := fromOff, off
		done, err := unix.CopyFileRange(src.fd, &in, f.fd, &out, int(min(n, 1<<30)), 0)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EXDEV), errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EBADF):
			return block.ErrUnsupported
		case err != nil:
			return fmt.Errorf("copying to %d: %w", off, err)
		case done == 0:
			return block.ErrUnsupported // the file was cut meanwhile
		}
		fromOff, off, n = fromOff+int64(done), off+int64(done), n-int64(done)
		f.reach(off)
	}
	return nil
}
