package main

import (
	"bytes"
	"flag"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"berth/tests/guest"
)

var debianRuns = flag.Int("debian.runs", 1, "boots of Debian's kernel on the soft engine")

// TestDebianOnSoft boots Debian's kernel to userland, where it writes a disk and
// reads it back, and powers off; the disk's file system is then without fault.
func TestDebianOnSoft(t *testing.T) {
	files := guest.Need(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	berth := filepath.Join(asBerth(t, self), "berth")
	for i := range *debianRuns {
		disk := filepath.Join(t.TempDir(), "disk.img")
		copyFile(t, files.Disk, disk)
		cmd := exec.Command(berth, "run", "--accel", "soft", "--kernel", files.Kernel, "--initrd", files.Initrd,
			"--append", "console=ttyS0 quiet berth.script=demo", "--disk", "file="+disk, "--debug-exit")
		var out, errs bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &errs
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		watchdog := time.AfterFunc(5*time.Minute, func() { _ = cmd.Process.Kill() })
		err := cmd.Wait()
		watchdog.Stop()
		if err != nil || !bytes.Contains(out.Bytes(), []byte("BERTH-DEMO ok")) {
			t.Fatalf("boot %d: %v\n%s%s", i+1, err, out.String(), errs.String())
		}
		if out, err := exec.Command("/sbin/e2fsck", "-fn", disk).CombinedOutput(); err != nil {
			t.Fatalf("boot %d: the disk's file system: %v: %s", i+1, err, out)
		}
		t.Logf("boot %d of %d: userland, disk and power-off in %.1f CPU-seconds", i+1, *debianRuns,
			(cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds())
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	in, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(out, in); err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
}
