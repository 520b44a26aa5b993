package raw

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// discardBlocks discards n bytes of a block device (linux/fs.h, BLKDISCARD).
// unsafe: the kernel takes offset and length by address, during the call.
func discardBlocks(fd int, off, n int64) error {
	span := [2]uint64{uint64(off), uint64(n)}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.BLKDISCARD, uintptr(unsafe.Pointer(&span)))
	if errno != 0 {
		return errno
	}
	return nil
}
