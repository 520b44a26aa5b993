package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"berth/tests/guest"
	"berth/tests/process"
)

// TestQcow2OnSoft boots Debian's kernel on an overlay of a compressed image, at first twice:
// what it writes, discards and flushes is there at the second boot, for QEMU's
// tools, and in the image below once it is committed.
func TestQcow2OnSoft(t *testing.T) {
	files := guest.Need(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	berth := filepath.Join(asBerth(t, self), "berth")
	for i, c := range []struct{ name, create, disk string }{
		{"writeback", "cluster_size=64k", "format=qcow2,discard=unmap,detect-zeroes=unmap,queues=4"},
		{"none", "cluster_size=2M,lazy_refcounts=on", "cache=none,discard=unmap"},
		{"writethrough", "cluster_size=4k,refcount_bits=1", "format=qcow2,cache=writethrough"},
		{"directsync", "extended_l2=on,cluster_size=128k", "format=qcow2,cache=directsync,detect-zeroes=on"},
		{"unsafe", "compat=0.10", "format=qcow2,cache=unsafe,discard=unmap"},
		{"throttled", "cluster_size=64k", "format=qcow2,iops=2000,bps=20M,iops_max=4000"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			base, overlay := filepath.Join(dir, "base.qcow2"), filepath.Join(dir, "overlay.qcow2")
			tool(t, "qemu-img", "convert", "-c", "-O", "qcow2", files.Disk, base)
			tool(t, "qemu-img", "create", "-q", "-f", "qcow2", "-o", c.create, "-b", "base.qcow2", "-F", "qcow2", overlay)
			for range max(2-i, 1) {
				bootWithDisks(t, berth, files, "disk", overlay+","+c.disk)
				tool(t, "qemu-img", "check", "-f", "qcow2", overlay)
			}
			tool(t, berth, "image", "check", "-f", "qcow2", overlay)
			flat := filepath.Join(dir, "flat.img")
			tool(t, "qemu-img", "convert", "-O", "raw", overlay, flat)
			tool(t, "/sbin/e2fsck", "-fn", flat)
			tool(t, berth, "image", "commit", overlay)
			tool(t, "qemu-img", "check", "-f", "qcow2", base)
			tool(t, "qemu-img", "compare", "-f", "qcow2", "-F", "raw", base, flat)
		})
	}
}

func tool(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v: %s", filepath.Base(name), strings.Join(args, " "), err, out)
	}
}

// TestFio has Debian's fio verify in the guest what it writes at random, with
// flushes and discards among it, on a raw disk and on qcow2.
func TestFio(t *testing.T) {
	files := guest.Need(t)
	fio, err := guest.Fio()
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	berth := filepath.Join(asBerth(t, self), "berth")
	for format, keys := range map[string]string{"raw": "cache=none", "qcow2": "detect-zeroes=unmap"} {
		t.Run(format, func(t *testing.T) {
			disk := filepath.Join(t.TempDir(), "disk."+format)
			tool(t, "qemu-img", "create", "-q", "-f", format, disk, "64M")
			bootWithDisks(t, berth, files, "fio berth.fio=verify", fio+",format=raw,readonly=on", disk+",format="+format+",discard=unmap,queues=2,"+keys)
			if format == "qcow2" {
				tool(t, "qemu-img", "check", "-f", "qcow2", disk)
			}
		})
	}
}

// bootWithDisks boots to the end of one of tests/guest/scripts, behind which
// there may be more of the command line.
func bootWithDisks(t *testing.T, berth string, files guest.Files, script string, disks ...string) {
	t.Helper()
	cmd := exec.Command(berth, "run", "--accel", "soft", "--cpus", "2", "--memory", "256M", "--kernel", files.Kernel, "--initrd", files.Initrd,
		"--append", "console=ttyS0 quiet berth.script="+script)
	for _, d := range disks {
		cmd.Args = append(cmd.Args, "--disk", "file="+d)
	}
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := process.Tie(cmd).Start(); err != nil {
		t.Fatal(err)
	}
	watchdog := time.AfterFunc(10*time.Minute, func() { _ = cmd.Process.Kill() })
	err := cmd.Wait()
	watchdog.Stop()
	if err != nil || !strings.Contains(out.String(), "BERTH-"+strings.ToUpper(strings.Fields(script)[0])+" ok") {
		t.Fatalf("%v\n%s%s", err, out.String(), errs.String())
	}
}
