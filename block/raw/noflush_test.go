package raw

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"
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
