package interp

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// newCore maps a zeroed Core. unsafe: a page-aligned mapping of at least its
// size is reinterpreted; Core holds no Go pointers, and lives until freeCore.
func newCore() (*Core, error) {
	b, err := unix.Mmap(-1, 0, int(unsafe.Sizeof(Core{})), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, fmt.Errorf("interp: mapping a vCPU's state: %w", err)
	}
	return (*Core)(unsafe.Pointer(&b[0])), nil
}

// freeCore unmaps it. unsafe: undoes newCore's reinterpretation.
func freeCore(k *Core) error {
	return unix.Munmap(unsafe.Slice((*byte)(unsafe.Pointer(k)), unsafe.Sizeof(Core{})))
}
