package image

import (
	"errors"
	"syscall"

	"berth/block"
)

// strerror is C's text of an error number.
func strerror(e syscall.Errno) string {
	text := e.Error()
	if text == "" || text[0] < 'a' || text[0] > 'z' {
		return text
	}
	return string(text[0]-'a'+'A') + text[1:]
}

// errno is the number of the system error within err; EIO if there is none.
func errno(err error) syscall.Errno {
	var e syscall.Errno
	switch {
	case errors.As(err, &e):
		return e
	case errors.Is(err, block.ErrUnsupported):
		return syscall.ENOTSUP
	case errors.Is(err, block.ErrReadOnly):
		return syscall.EACCES
	}
	return syscall.EIO
}
