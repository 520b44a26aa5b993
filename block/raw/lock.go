package raw

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"berth/block"
)

// QEMU's image locks (block/file-posix.c): a process holds a read lock on byte
// 100+p for each permission p that it uses, and on byte 200+p for each that it
// lets nobody else use. They are taken first and then compared with others'.
const (
	lockUsed     = 100
	lockUnshared = 200

	permConsistentRead = 0
	permWrite          = 1
	permResize         = 3
	permCount          = 4
)

// lock takes the locks of a guest's disk: a reader bears no writer, a writer
// neither another writer nor one who changes the size.
func lock(fd int, readOnly bool) error {
	used, unshared := 1<<permConsistentRead, 1<<permWrite
	if !readOnly {
		used |= 1 << permWrite
		unshared |= 1 << permResize
	}
	for p := range permCount {
		if used>>p&1 != 0 {
			if err := readLock(fd, lockUsed+p); err != nil {
				return err
			}
		}
		if unshared>>p&1 != 0 {
			if err := readLock(fd, lockUnshared+p); err != nil {
				return err
			}
		}
	}
	for p := range permCount {
		if used>>p&1 != 0 {
			if err := free(fd, lockUnshared+p); err != nil {
				return err
			}
		}
		if unshared>>p&1 != 0 {
			if err := free(fd, lockUsed+p); err != nil {
				return err
			}
		}
	}
	return nil
}

func readLock(fd, at int) error {
	l := unix.Flock_t{Type: unix.F_RDLCK, Start: int64(at), Len: 1}
	err := retry(func() error { return unix.FcntlFlock(uintptr(fd), unix.F_OFD_SETLK, &l) })
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
		return block.ErrInUse
	}
	if err != nil {
		return fmt.Errorf("locking: %w", err)
	}
	return nil
}

// free checks that no other open file holds a lock on the byte.
func free(fd, at int) error {
	l := unix.Flock_t{Type: unix.F_WRLCK, Start: int64(at), Len: 1}
	if err := retry(func() error { return unix.FcntlFlock(uintptr(fd), unix.F_OFD_GETLK, &l) }); err != nil {
		return fmt.Errorf("locking: %w", err)
	}
	if l.Type != unix.F_UNLCK {
		return block.ErrInUse
	}
	return nil
}
