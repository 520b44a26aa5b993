// Package boottest is what tests of kernel loading share: guest RAM as the board lays it out, and images made on the spot.
package boottest

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"testing"

	"berth/guestmem"
)

// RAM returns size bytes of guest memory as the board has them: up to 2 GiB at
// 0, the rest from 4 GiB up.
func RAM(t testing.TB, size uint64) *guestmem.Memory {
	t.Helper()
	mem := guestmem.New()
	t.Cleanup(func() { _ = mem.Close() })
	add := func(at, n uint64) {
		if _, err := mem.AddRAM(at, n); err != nil {
			t.Fatal(err)
		}
	}
	low := min(size, 2<<30)
	add(0, low)
	if size > low {
		add(4<<30, size-low)
	}
	return mem
}

// Section returns b as an opened file.
func Section(b []byte) *io.SectionReader {
	return io.NewSectionReader(bytes.NewReader(b), 0, int64(len(b)))
}

// Compress runs a compressor from standard input to standard output.
func Compress(t testing.TB, data []byte, command ...string) []byte {
	t.Helper()
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Stdin, cmd.Stderr = bytes.NewReader(data), os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %v", command, err)
	}
	return out
}
