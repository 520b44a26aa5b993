package raw

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"

	"berth/block"
	"berth/block/blocktest"
)

// loop returns a block device over a file of zeros. Only root has such devices
// to give, and not in every container: there the test has nothing to run on.
func loop(t *testing.T, options ...string) string {
	t.Helper()
	return loopOver(t, image(t, blocktest.Size), options...)
}

// loopOver is loop over the file at path.
func loopOver(t *testing.T, path string, options ...string) string {
	t.Helper()
	if f, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0); err != nil {
		t.Skipf("no loop devices: %v", err)
	} else {
		f.Close()
	}
	out, err := exec.Command("losetup", append(options, "--find", "--show", path)...).CombinedOutput()
	if err != nil {
		t.Skipf("losetup: %v: %s", err, out)
	}
	dev := strings.TrimSpace(string(out))
	t.Cleanup(func() {
		if out, err := exec.Command("losetup", "--detach", dev).CombinedOutput(); err != nil {
			t.Errorf("losetup: %v: %s", err, out)
		}
	})
	return dev
}

func TestBlockDeviceConformance(t *testing.T) {
	for _, size := range []string{"512", "4096"} {
		blocktest.Run(t, func(t *testing.T) block.Disk {
			return mustOpen(t, loop(t, "--sector-size", size), options{Discard: true})
		})
	}
}

func TestBlockDeviceIsLocked(t *testing.T) {
	dev := loop(t)
	d := mustOpen(t, dev, options{})
	defer d.Close()
	if _, err := open(dev, options{ReadOnly: true}); !errors.Is(err, block.ErrInUse) {
		t.Errorf("Open: %v", err)
	}
}

func TestBlockDeviceTopology(t *testing.T) {
	d := mustOpen(t, loop(t, "--sector-size", "4096"), options{})
	defer d.Close()
	if x := d.Topology(); x.Logical != 4096 || x.Physical < 4096 {
		t.Errorf("%+v", x)
	}
}

// A device is asked for its logical blocks only: what is less stays.
func TestBlockDeviceDiscardFreesStorage(t *testing.T) {
	path := image(t, 4<<20)
	d := mustOpen(t, loopOver(t, path, "--sector-size", "4096"), options{Discard: true})
	defer d.Close()
	if _, err := block.WriteAt(d, bytes.Repeat([]byte{1}, 4<<20), 0); err != nil {
		t.Fatal(err)
	}
	if err := block.Flush(d); err != nil {
		t.Fatal(err)
	}
	before := stored(t, path)
	for _, r := range []block.Request{
		{Op: block.OpDiscard, Off: 1<<20 - 512, Len: 1<<20 + 1024},
		{Op: block.OpDiscard, Off: 512, Len: 2048},
		{Op: block.OpWriteZeroes, Flags: block.FlagUnmap, Off: 3<<20 - 512, Len: 1<<20 + 512},
	} {
		if err := blocktest.Do(t, d, r); err != nil {
			t.Errorf("op %d: %v", r.Op, err)
		}
	}
	if err := block.Flush(d); err != nil {
		t.Fatal(err)
	}
	if n := stored(t, path); before < 4<<20 || n < 2<<20 || n > 2<<20+64<<10 {
		t.Errorf("%d bytes of storage, %d before", n, before)
	}
	if p := contents(t, d); bytes.Count(p, []byte{1}) != 2<<20-512 {
		t.Errorf("%d bytes are left, want %d", bytes.Count(p, []byte{1}), 2<<20-512)
	}
}
