package formats

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"berth/block"
)

// loop returns a block device of 4 MiB. Only root has such devices to give, and
// not in every container: there the test has nothing to run on.
func loop(t *testing.T) string {
	t.Helper()
	if err := os.WriteFile("device.img", make([]byte, 4<<20), 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("losetup", "--find", "--show", "device.img").CombinedOutput()
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

func TestImagesOnBlockDevices(t *testing.T) {
	inDir(t)
	dev := loop(t)
	raw, _ := Find("raw")
	for size, want := range map[string]string{"1048576": "", "4194304": "", "8388608": "Cannot grow device files"} {
		f, err := CreateFile(dev, 0)
		if err != nil {
			t.Fatal(err)
		}
		err = raw.Create(f, block.Creation{Values: block.Values{"size": size}})
		got := ""
		if err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%s bytes: %q, want %q", size, got, want)
		}
		f.Close()
	}
	n, err := Open(Options{Filename: dev, Format: "raw"})
	if err != nil {
		t.Fatal(err)
	}
	if n.File.Driver != "host_device" || n.Image.Size() != 4<<20 {
		t.Errorf("%s of %d bytes", n.File.Driver, n.Image.Size())
	}
	for _, size := range []int64{1 << 20, 8 << 20} {
		if err := n.Image.(block.Resizer).Truncate(size); err == nil || err.Error() != "Cannot resize device files" {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
	n.Close()
	mustQEMU(t, "qemu-img", "create", "-q", "-f", "qcow2", dev, "64M")
	if n, err = Open(Options{Filename: dev}); err != nil || n.Driver != "qcow2" {
		t.Fatalf("%v, %v", n, err)
	}
	if err := n.Image.Writev([][]byte{make([]byte, 512)}, 32<<20, 0); err != nil {
		t.Error(err)
	}
	if err := n.Close(); err != nil {
		t.Error(err)
	}
	mustQEMU(t, "qemu-img", "check", "-q", "-f", "qcow2", dev)
}
