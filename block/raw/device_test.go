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
func loop(t *testing.T) string {
	t.Helper()
	if f, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0); err != nil {
		t.Skipf("no loop devices: %v", err)
	} else {
		f.Close()
	}
	out, err := exec.Command("losetup", "--find", "--show", image(t, blocktest.Size)).CombinedOutput()
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
	blocktest.Run(t, func(t *testing.T) block.Disk { return mustOpen(t, loop(t), Options{}) })
}

func TestBlockDeviceIsLocked(t *testing.T) {
	dev := loop(t)
	d := mustOpen(t, dev, Options{})
	defer d.Close()
	if _, err := Open(dev, Options{ReadOnly: true}); !errors.Is(err, block.ErrInUse) {
		t.Errorf("Open: %v", err)
	}
}
