package debian

import (
	"flag"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"berth/tests/guest"
)

var onQcow2 = flag.Bool("debian.qcow2", false, "boot Debian from a qcow2 overlay in TestQcow2")

// work is what Debian does to its disk: what it wrote is read back from the
// device, and what it removed is discarded.
var work = []question{
	{"sudo sh -c 'for i in 1 2 3 4; do dd if=/dev/urandom of=/srv/new$i bs=1M count=16 conv=fsync 2>/dev/null & done; wait; sha256sum /srv/new? >/srv/sums' && echo written", "written\n"},
	{"sudo sh -c 'cp /srv/numbers /srv/copy && sync && rm /srv/copy && sync && fstrim -v /'", "trimmed"},
	{"sudo sh -c 'echo 3 >/proc/sys/vm/drop_caches; sha256sum -c /srv/sums' | grep -c OK", "4\n"},
	{"sha256sum /srv/numbers", "  /srv/numbers\n"},
}

// TestQcow2 boots Debian from an overlay of a compressed image, has it work and
// shut down. No check finds a fault in the overlay, and what is committed to the
// image below is a file system without fault.
func TestQcow2(t *testing.T) {
	if !*onQcow2 {
		t.Skip("-debian.qcow2")
	}
	d := find(t)
	vmm := berth(t)
	dir := t.TempDir()
	base, overlay, flat := filepath.Join(dir, "base.qcow2"), filepath.Join(dir, "overlay.qcow2"), filepath.Join(dir, "flat.img")
	image := func(args ...string) {
		t.Helper()
		began := time.Now()
		path := vmm(guest.Debian{}, "").Path
		if out, err := exec.Command(path, append([]string{"image"}, args...)...).CombinedOutput(); err != nil {
			t.Fatalf("berth image %s: %v: %s", strings.Join(args, " "), err, out)
		}
		t.Logf("berth image %s: %.0f s", args[0], time.Since(began).Seconds())
	}
	checked := func(path string) {
		t.Helper()
		image("check", "-f", "qcow2", path)
		if out, err := exec.Command("qemu-img", "check", "-f", "qcow2", path).CombinedOutput(); err != nil {
			t.Fatalf("qemu-img check: %v: %s", err, out)
		}
	}
	image("convert", "-c", "-O", "qcow2", d.Disk, base)
	image("create", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", overlay)
	m := start(t, vmm(d.Debian, overlay+",format=qcow2,discard=unmap,detect-zeroes=unmap"))
	var r record
	err := m.login(&r)
	for _, q := range work {
		if err != nil {
			break
		}
		var got string
		if got, err = m.console.Run(q.command, stepLimit); err == nil && !strings.Contains(got, q.answer) {
			t.Errorf("%s: %q, which does not contain %q", q.command, got, q.answer)
		}
	}
	if err == nil {
		err = m.shutDown(&r)
	}
	if err != nil {
		t.Fatalf("after %.0f CPU-seconds: %v\nIts console:\n%s\nIts standard error:\n%s", m.cpu(), err, m.console.Said(), m.errs.String())
	}
	for _, line := range r.warnings {
		t.Errorf("the kernel warned: %s", line)
	}
	t.Logf("prompt after %.0f CPU-seconds, shut down after %.0f", r.login.cpu, m.cpu())
	checked(overlay)
	image("commit", "-f", "qcow2", overlay)
	checked(base)
	image("convert", "-f", "qcow2", "-O", "raw", base, flat)
	if err := guest.CheckDisk(flat); err != nil {
		t.Error(err)
	}
	if out, err := exec.Command("debugfs", "-R", "cat /srv/sums", flat).Output(); err != nil || strings.Count(string(out), "/srv/new") != 4 {
		t.Errorf("what the guest wrote is not in the image that was committed to: %v: %s", err, out)
	}
}
