package main

import (
	"bytes"
	"flag"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"berth/tests/guest"
	"berth/tests/process"
)

var (
	debianRuns = flag.Int("debian.runs", 1, "boots of Debian's kernel on the soft engine, of each number of vCPUs")
	debianCPUs = flag.String("debian.cpus", "1,4", "numbers of vCPUs")
)

// TestDebianOnSoft boots Debian's kernel to userland, where every vCPU computes a
// checksum and the disk is written and read back, and powers off; the disk's file
// system is then without fault.
func TestDebianOnSoft(t *testing.T) {
	files := guest.Need(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	berth := filepath.Join(asBerth(t, self), "berth")
	for cpus := range strings.SplitSeq(*debianCPUs, ",") {
		t.Run(cpus+"CPUs", func(t *testing.T) {
			for i := range *debianRuns {
				seconds := bootDebian(t, berth, files, cpus)
				t.Logf("boot %d of %d: userland, disk and power-off in %.1f CPU-seconds", i+1, *debianRuns, seconds)
			}
		})
	}
}

// bootDebian returns the CPU-seconds of one boot.
func bootDebian(t *testing.T, berth string, files guest.Files, cpus string) float64 {
	t.Helper()
	disk := filepath.Join(t.TempDir(), "disk.img")
	copyFile(t, files.Disk, disk)
	cmd := exec.Command(berth, "run", "--accel", "soft", "--cpus", cpus, "--memory", "1G", "--kernel", files.Kernel,
		"--initrd", files.Initrd, "--append", "console=ttyS0 quiet berth.script=smp,demo", "--disk", "file="+disk, "--debug-exit")
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := process.Tie(cmd).Start(); err != nil {
		t.Fatal(err)
	}
	watchdog := time.AfterFunc(10*time.Minute, func() { _ = cmd.Process.Kill() })
	err := cmd.Wait()
	watchdog.Stop()
	for _, want := range []string{"BERTH-DEMO ok", "BERTH-CPUS " + cpus + "\r\n"} {
		if err != nil || !strings.Contains(out.String(), want) {
			t.Fatalf("%v, looking for %q\n%s%s", err, want, out.String(), errs.String())
		}
	}
	if out, err := exec.Command("/sbin/e2fsck", "-fn", disk).CombinedOutput(); err != nil {
		t.Fatalf("the disk's file system: %v: %s", err, out)
	}
	return (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds()
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
