package guestmem

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// mincore says for each page of b whether it takes host memory; unsafe because the
// call has no wrapper.
func mincore(b, in []byte) error {
	_, _, errno := unix.Syscall(unix.SYS_MINCORE, uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), uintptr(unsafe.Pointer(&in[0])))
	if errno != 0 {
		return errno
	}
	return nil
}
