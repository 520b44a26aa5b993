package qcow2

import (
	"errors"
	"io/fs"
	"syscall"

	"berth/block"
)

// vector walks through scattered memory.
type vector struct {
	iov [][]byte
	in  int // bytes used of iov[0]
}

func length(iov [][]byte) (n int64) {
	for _, b := range iov {
		n += int64(len(b))
	}
	return n
}

// take returns the next n bytes, appended to to.
func (v *vector) take(to [][]byte, n int64) [][]byte {
	for n > 0 {
		b := v.iov[0][v.in:]
		if int64(len(b)) > n {
			to = append(to, b[:n])
			v.in += int(n)
			return to
		}
		if len(b) > 0 {
			to = append(to, b)
		}
		n -= int64(len(b))
		v.iov, v.in = v.iov[1:], 0
	}
	return to
}

func clearAll(iov [][]byte) {
	for _, b := range iov {
		clear(b)
	}
}

// copyTo fills iov from p.
func copyTo(iov [][]byte, p []byte) {
	for _, b := range iov {
		p = p[copy(b, p):]
	}
}

func readFull(f block.Image, p []byte, off int64) error { return f.Readv([][]byte{p}, off) }

func writeFull(f block.Image, p []byte, off int64) error { return f.Writev([][]byte{p}, off, 0) }

// writeZeros makes n bytes at off zero by writing them.
func writeZeros(f block.Image, off, n int64) error {
	zeros := make([]byte, min(n, 1<<20))
	for n > 0 {
		k := min(n, int64(len(zeros)))
		if err := writeFull(f, zeros[:k], off); err != nil {
			return err
		}
		off, n = off+k, n-k
	}
	return nil
}

// readBacking fills iov from b, with zeros past its end, and past the end of
// what it backs, where VM state is.
func readBacking(b block.Image, iov [][]byte, off, size int64) error {
	n := length(iov)
	in := int64(0)
	if b != nil {
		in = max(0, min(n, min(b.Size(), size)-off))
	}
	if in == n {
		return b.Readv(iov, off)
	}
	v := vector{iov: iov}
	if in > 0 {
		if err := b.Readv(v.take(nil, in), off); err != nil {
			return err
		}
	}
	clearAll(v.take(nil, n-in))
	return nil
}

// strerror is an error without what package os puts in front.
func strerror(err error) string {
	var p *fs.PathError
	var e syscall.Errno
	switch {
	case errors.As(err, &p):
		return p.Err.Error()
	case errors.As(err, &e):
		return e.Error()
	}
	return err.Error()
}
