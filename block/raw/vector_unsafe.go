package raw

import (
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// maxVector is the most buffers that one call takes (Linux UIO_MAXIOV).
	maxVector = 1024
	// maxPiece is how many bytes one call moves at most, so that Abandon is soon seen.
	maxPiece = 16 << 20
)

// vector is the kernel's form of what remains of a request's buffers. A worker
// reuses its own, so that a request costs no allocation.
type vector struct {
	rest [][]byte // not yet begun
	head []byte   // what remains of the buffer in progress
	iov  [maxVector]unix.Iovec
}

func (v *vector) start(iov [][]byte) {
	v.rest, v.head = iov, nil
	v.advance(0)
}

// advance drops n bytes, and empty buffers, from the front.
func (v *vector) advance(n int64) {
	for {
		if n < int64(len(v.head)) {
			v.head = v.head[n:]
			return
		}
		n -= int64(len(v.head))
		if v.head = nil; len(v.rest) == 0 {
			return
		}
		v.head, v.rest = v.rest[0], v.rest[1:]
	}
}

// done tells that nothing remains.
func (v *vector) done() bool { return len(v.head) == 0 && len(v.rest) == 0 }

// zero clears all that remains.
func (v *vector) zero() {
	clear(v.head)
	for _, b := range v.rest {
		clear(b)
	}
}

// fill lays out the next call and returns its number of buffers.
func (v *vector) fill() int {
	n, left := 0, maxPiece
	for i := -1; i < len(v.rest) && n < maxVector && left > 0; i++ {
		b := v.head
		if i >= 0 {
			b = v.rest[i]
		}
		if len(b) > 0 {
			b = b[:min(len(b), left)]
			v.iov[n].Base = unsafe.SliceData(b)
			v.iov[n].SetLen(len(b))
			n, left = n+1, left-len(b)
		}
	}
	return n
}

func (v *vector) preadv(fd int, off int64) (int64, error)  { return v.call(unix.SYS_PREADV, fd, off) }
func (v *vector) pwritev(fd int, off int64) (int64, error) { return v.call(unix.SYS_PWRITEV, fd, off) }

// call makes one preadv or pwritev. unsafe: the kernel takes the vector by
// address; v outlives the call and holds the buffers it points to. The offset
// goes in two halves, of which a 64-bit kernel reads the first whole.
func (v *vector) call(number uintptr, fd int, off int64) (int64, error) {
	n := v.fill()
	done, _, errno := unix.Syscall6(number, uintptr(fd), uintptr(unsafe.Pointer(&v.iov[0])), uintptr(n), uintptr(off), 0, 0)
	runtime.KeepAlive(v)
	if errno != 0 {
		return 0, errno
	}
	return int64(done), nil
}
