package raw

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"berth/block"
)

// Perm is a set of things that a process does with an image. The numbers are
// QEMU's (include/block/block-common.h).
type Perm uint8

// The permissions.
const (
	PermRead           Perm = 1 << 0 // relies on a consistent content
	PermWrite          Perm = 1 << 1
	PermWriteUnchanged Perm = 1 << 2 // writes what is there already
	PermResize         Perm = 1 << 3
	PermAll                 = PermRead | PermWrite | PermWriteUnchanged | PermResize

	permCount = 4
)

// String names one permission, as QEMU's messages do.
func (p Perm) String() string {
	switch p {
	case PermRead:
		return "consistent read"
	case PermWrite:
		return "write"
	case PermWriteUnchanged:
		return "write unchanged"
	case PermResize:
		return "resize"
	}
	return fmt.Sprintf("Perm(%#x)", uint8(p))
}

// Lock is what a process does with an image, and what it lets nobody else do
// meanwhile. The zero value is no lock at all.
type Lock struct{ Uses, Denies Perm }

// LockError is the answer to a lock that another process's does not allow; it is
// a block.ErrInUse. Perm is the first permission that could not be had.
type LockError struct {
	Perm   Perm
	Shared bool // others use it, and were to be kept from it
}

func (e *LockError) Error() string { return block.ErrInUse.Error() }

// Unwrap says what kind of error it is.
func (e *LockError) Unwrap() error { return block.ErrInUse }

// QEMU's image locks (block/file-posix.c): a process holds a read lock on byte
// 100+p for each permission p that it uses, and on byte 200+p for each that it
// lets nobody else use. They are taken first and then compared with others'.
// The locks are of the open file description (OFD, fcntl(2)): whoever is passed
// the descriptor shares them, and they end with the last copy of it.
const (
	lockUsed     = 100
	lockUnshared = 200
)

// change replaces the locks of l, which fd has, by those of n. On an error l's
// are as they were.
func (l Lock) change(fd int, n Lock) error {
	more := Lock{Uses: n.Uses &^ l.Uses, Denies: n.Denies &^ l.Denies}
	err := more.each(fd, readLock)
	if err == nil {
		err = n.compare(fd)
	}
	if err != nil {
		return errors.Join(err, more.each(fd, unlock))
	}
	return Lock{Uses: l.Uses &^ n.Uses, Denies: l.Denies &^ n.Denies}.each(fd, unlock)
}

// each calls f with every byte that l locks.
func (l Lock) each(fd int, f func(fd, at int) error) error {
	for p := range permCount {
		if l.Uses>>p&1 != 0 {
			if err := f(fd, lockUsed+p); err != nil {
				return err
			}
		}
	}
	for p := range permCount {
		if l.Denies>>p&1 != 0 {
			if err := f(fd, lockUnshared+p); err != nil {
				return err
			}
		}
	}
	return nil
}

// compare checks that no other open file's locks stand against l.
func (l Lock) compare(fd int) error {
	for p := range permCount {
		if l.Uses>>p&1 != 0 {
			if ok, err := free(fd, lockUnshared+p); err != nil {
				return err
			} else if !ok {
				return &LockError{Perm: 1 << p}
			}
		}
	}
	for p := range permCount {
		if l.Denies>>p&1 != 0 {
			if ok, err := free(fd, lockUsed+p); err != nil {
				return err
			} else if !ok {
				return &LockError{Perm: 1 << p, Shared: true}
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

func unlock(fd, at int) error {
	l := unix.Flock_t{Type: unix.F_UNLCK, Start: int64(at), Len: 1}
	return retry(func() error { return unix.FcntlFlock(uintptr(fd), unix.F_OFD_SETLK, &l) })
}

// free tells whether no other open file holds a lock on the byte.
func free(fd, at int) (bool, error) {
	l := unix.Flock_t{Type: unix.F_WRLCK, Start: int64(at), Len: 1}
	if err := retry(func() error { return unix.FcntlFlock(uintptr(fd), unix.F_OFD_GETLK, &l) }); err != nil {
		return false, fmt.Errorf("locking: %w", err)
	}
	return l.Type == unix.F_UNLCK, nil
}
