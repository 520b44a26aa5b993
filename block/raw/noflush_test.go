package raw

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"berth/block"
)

// With NoFlush a flush does not reach the host, which would refuse this descriptor.
func TestNoFlushAsksNothingOfTheHost(t *testing.T) {
	if err := (&File{fd: -1, noFlush: true}).Flush(); err != nil {
		t.Error(err)
	}
	if err := (&File{fd: -1}).Flush(); !errors.Is(err, unix.EBADF) {
		t.Errorf("a flush that is carried out: %v", err)
	}
}

// onto puts another descriptor in the place of f's until the function it returns is called.
func onto(t *testing.T, f *File, fd int) (back func()) {
	t.Helper()
	own, err := unix.Dup(f.fd)
	if err := errors.Join(err, unix.Dup3(fd, f.fd, 0)); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := errors.Join(unix.Dup3(own, f.fd, 0), unix.Close(own)); err != nil {
			t.Fatal(err)
		}
	}
}

// The kernel reports what it could not write once, and forgets it: whoever flushes
// later must not hear that all is well. A pipe stands for such storage.
func TestAFailedFlushIsNotForgotten(t *testing.T) {
	var pipe [2]int
	if err := unix.Pipe(pipe[:]); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pipe[0])
	defer unix.Close(pipe[1])
	f := mustOpenFile(t, image(t, 4096), FileOptions{})
	back := onto(t, f, pipe[0])
	err := f.Flush()
	back()
	if !errors.Is(err, unix.EINVAL) {
		t.Fatalf("a flush of a pipe: %v", err)
	}
	if err := f.Flush(); !errors.Is(err, unix.EINVAL) {
		t.Errorf("the flush after it: %v", err)
	}
	if err := f.Writev([][]byte{make([]byte, 512)}, 0, block.FlagFUA); !errors.Is(err, unix.EINVAL) {
		t.Errorf("a write that is to be durable: %v", err)
	}
	d := direct(t, image(t, 4096))
	back = onto(t, d, pipe[0])
	err = d.Flush()
	back()
	if err == nil || d.Flush() != nil {
		t.Errorf("past the page cache nothing is lost by a failed flush (%v)", err)
	}
}
