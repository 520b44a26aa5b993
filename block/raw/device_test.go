package raw

import (
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
	if f, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0); err != nil {
		t.Skipf("no loop devices: %v", err)
	} else {
		f.Close()
	}
	out, err := exec.Command("losetup", append(options, "--find", "--show", image(t, blocktest.Size))...).CombinedOutput()
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
			return mustOpen(t, loop(t, "--sector-size", size), Options{Discard: true})
		})
	}
}

func TestBlockDeviceIsLocked(t *testing.T) {
	dev := loop(t)
	d := mustOpen(t, dev, Options{})
	defer d.Close()
	if _, err := Open(dev, Options{ReadOnly: true}); !errors.Is(err, block.ErrInUse) {
		t.Errorf("Open: %v", err)
	}
}

func TestBlockDeviceTopology(t *testing.T) {
	d := mustOpen(t, loop(t, "--sector-size", "4096"), Options{})
	defer d.Close()
	if x := d.Topology(); x.Logical != 4096 || x.Physical < 4096 {
		t.Errorf("%+v", x)
	}
}
