package monitor

import (
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"berth/qmp"
)

// A netdev that cannot be had keeps no descriptor that was meant for it.
func TestRefusedNetdevKeepsNoDescriptor(t *testing.T) {
	m := vmForTest(t)
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	fd, err := unix.FcntlInt(null.Fd(), unix.F_DUPFD_CLOEXEC, 200)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.descriptors.keep(fd, "one"); err != nil {
		t.Fatal(err)
	}
	args := map[string]any{"type": "tap", "id": "n", "fds": "one:two"}
	m.server.Exclusive(t.Context(), func(c *qmp.Call) { _, err = m.server.Do(c, "netdev_add", args) })
	if err == nil || err.Error() != "File descriptor named 'two' not found" {
		t.Fatal(err)
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != unix.EBADF {
		t.Errorf("descriptor %d is open: %v", fd, err)
	}
}

// One whose ID is taken keeps none either.
func TestNetdevOfATakenIDKeepsNoDescriptor(t *testing.T) {
	m := vmForTest(t)
	add := func(args map[string]any) (err error) {
		m.server.Exclusive(t.Context(), func(c *qmp.Call) { _, err = m.server.Do(c, "netdev_add", args) })
		return err
	}
	if err := add(map[string]any{"type": "user", "id": "n"}); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.descriptors.keep(fd, "one"); err != nil {
		t.Fatal(err)
	}
	if err := add(map[string]any{"type": "tap", "id": "n", "fd": "one"}); err == nil || err.Error() != "Duplicate ID 'n'" {
		t.Error(err)
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); !errors.Is(err, unix.EBADF) {
		t.Errorf("descriptor %d is open: %v", fd, err)
	}
}
