package qcow2

import (
	"errors"
	"io"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"berth/block"
)

// testFile is a file as the format sees it, by the plainest calls.
type testFile struct {
	*os.File
}

func openTestFile(t testing.TB, path string) *testFile {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	return &testFile{f}
}

func (f *testFile) Readv(iov [][]byte, off int64) error {
	for _, b := range iov {
		n, err := f.ReadAt(b, off)
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		clear(b[n:])
		off += int64(len(b))
	}
	return nil
}

func (f *testFile) Writev(iov [][]byte, off int64, _ block.Flags) error {
	for _, b := range iov {
		if _, err := f.WriteAt(b, off); err != nil {
			return err
		}
		off += int64(len(b))
	}
	return nil
}

func (f *testFile) Flush() error { return nil }

func (f *testFile) Size() int64 {
	s, err := f.Stat()
	if err != nil {
		return 0
	}
	return s.Size()
}

func (f *testFile) WriteZeroes(off, n int64, _ block.Flags) error { return writeZeros(f, off, n) }

func (f *testFile) Discard(off, n int64) error {
	return unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n)
}

func (f *testFile) Preallocate(off, n int64, _ bool) error {
	return unix.Fallocate(int(f.Fd()), 0, off, n)
}

func (f *testFile) Extent(off, n int64) (block.Extent, error) {
	e := block.Extent{Len: n, Data: true, Allocated: true, HasOffset: true, Off: off}
	data, err := unix.Seek(int(f.Fd()), off, unix.SEEK_DATA)
	switch {
	case errors.Is(err, unix.ENXIO):
		e.Data, e.Zero = false, true
	case err == nil && data > off:
		e.Data, e.Zero, e.Len = false, true, min(n, data-off)
	case err == nil:
		if hole, err := unix.Seek(int(f.Fd()), off, unix.SEEK_HOLE); err == nil {
			e.Len = min(n, hole-off)
		}
	}
	return e, nil
}

func (f *testFile) Occupied() (int64, error) {
	var s unix.Stat_t
	err := unix.Fstat(int(f.Fd()), &s)
	return s.Blocks * 512, err
}
