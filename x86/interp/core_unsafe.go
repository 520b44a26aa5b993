package interp

import (
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// newCore maps a zeroed Core. unsafe: a mapping of at least its size, of which all that
// it needs of alignment is kept, is reinterpreted; Core holds no Go pointers, and lives
// until freeCore.
func newCore() (*Core, error) {
	p, err := mapGuarded(unsafe.Sizeof(Core{}))
	if err != nil {
		return nil, fmt.Errorf("interp: mapping a vCPU's state: %w", err)
	}
	return (*Core)(p), nil
}

// freeCore unmaps it. unsafe: undoes newCore's reinterpretation.
func freeCore(k *Core) error { return unmapGuarded(unsafe.Pointer(k), unsafe.Sizeof(Core{})) }

// guard is the bytes of addresses before and behind what translated code writes that
// nobody can touch: an access that goes wrong by less faults.
const guard = 1 << 20

// guarded is how many bytes are mapped for size of them: whole pages, of which the last
// bytes are used, so that the guard begins right behind (to a cache line).
func guarded(size uintptr) (pages, off uintptr) {
	pages = (size + pageSize - 1) &^ (pageSize - 1)
	return pages, (pages - size) &^ 63
}

// mapGuarded maps size bytes between guards. unsafe: the second mapping replaces part of
// the first, which nobody else knows yet.
func mapGuarded(size uintptr) (unsafe.Pointer, error) {
	pages, off := guarded(size)
	p, err := unix.MmapPtr(-1, 0, nil, pages+2*guard, unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		return nil, err
	}
	at := unsafe.Add(p, guard)
	_, err = unix.MmapPtr(-1, 0, at, pages, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_FIXED)
	if err != nil {
		return nil, errors.Join(err, unix.MunmapPtr(p, pages+2*guard))
	}
	return unsafe.Add(at, off), nil
}

// unmapGuarded undoes mapGuarded. unsafe: goes back to where the guard begins.
func unmapGuarded(p unsafe.Pointer, size uintptr) error {
	pages, off := guarded(size)
	return unix.MunmapPtr(unsafe.Add(p, -int(off+guard)), pages+2*guard)
}
