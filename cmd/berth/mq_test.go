package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"berth/tests/guest"
)

// TestQueuesAndDiscardsOnSoft boots Debian's kernel with four CPUs and a disk of
// four queues. Discards of the guest, and those of its file system, give the
// image's storage back; what it writes from all CPUs at once is a file system
// without fault.
func TestQueuesAndDiscardsOnSoft(t *testing.T) {
	const size, mib = 64 << 20, 1 << 20
	image := filepath.Join(t.TempDir(), "disk.img")
	if err := os.WriteFile(image, bytes.Repeat([]byte{0x5a}, size), 0o600); err != nil {
		t.Fatal(err)
	}
	stored := func() int64 {
		var st syscall.Stat_t
		if err := syscall.Stat(image, &st); err != nil {
			t.Fatal(err)
		}
		return st.Blocks * 512
	}
	g := startSoft(t, guest.Need(t).Initrd, "mq", "--cpus", "4", "--disk", "file="+image+",discard=unmap,queues=4")
	step := func(want string) {
		t.Helper()
		if _, _, err := g.hand.Expect(`BERTH-MQ `+want+`\r\n`, patience); err != nil {
			t.Fatalf("%v\n%s%s", err, g.hand.Said(), g.errs.String())
		}
	}
	next := func() {
		t.Helper()
		if err := g.hand.Type("\n"); err != nil {
			t.Fatal(err)
		}
	}
	step(`queues 4, blocks 512 \d+, discards of \d+ to 2147483136, zeroes to 2147483136, write back`)
	next()
	step(`interrupts of 4 queues`)
	if n := stored(); n < size {
		t.Fatalf("the image has %d bytes of storage before anything is discarded", n)
	}
	next()
	step(`discarded`)
	if n := stored(); n < 32*mib || n > 33*mib {
		t.Errorf("the image has %d bytes of storage after a discard of half of it", n)
	}
	if b, err := os.ReadFile(image); err != nil || bytes.Count(b[:16*mib], []byte{0x5a}) != 16*mib ||
		bytes.Count(b[16*mib:48*mib], []byte{0}) != 32*mib || bytes.Count(b[48*mib:], []byte{0x5a}) != 16*mib {
		t.Errorf("not exactly what was discarded is gone (%v)", err)
	}
	next()
	step(`written`)
	if n := stored(); n < 16*mib {
		t.Errorf("the image has %d bytes of storage with four files of 4 MiB", n)
	}
	next()
	step(`trimmed`)
	if n := stored(); n < 4*mib || n > 8*mib {
		t.Errorf("the image has %d bytes of storage with one file of 4 MiB, trimmed", n)
	}
	next()
	step(`ok`)
	t.Logf("%.1f CPU-seconds", g.end(t))
	if out, err := exec.Command("/sbin/e2fsck", "-fn", image).CombinedOutput(); err != nil {
		t.Errorf("the disk's file system: %v: %s", err, out)
	}
}
