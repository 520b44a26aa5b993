package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"time"

	"golang.org/x/sys/unix"
)

// firmware is what QEMU loads for the command lines of vmms, in Debian's folders.
var firmware = []string{
	"/usr/share/seabios/bios-256k.bin", "/usr/share/qemu/kvmvapic.bin", "/usr/share/qemu/linuxboot_dma.bin",
	"/usr/share/qemu/pvh.bin",
}

// insideFirmware is where firmware lies in the outer guest.
const insideFirmware = "/firmware"

// nested measures on a real KVM, in one outer guest: this program runs there
// again, beside QEMU with its libraries.
func nested(o options, scratch string) ([]*vmm, error) {
	self := filepath.Join(scratch, "vmmbench")
	build := exec.Command("go", "build", "-o", self, "./tests/perf/vmmbench")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("building for the outer guest: %w: %s", err, out)
	}
	packed, err := qemuFiles()
	if err != nil {
		return nil, err
	}
	here := here(o.guest, scratch)
	packed = append(packed, self, here.berth, here.kernel, here.initrd)
	args := []string{"-c", "1", "-m", "2048", "-t", fmt.Sprint(int(o.nestedLimit.Seconds()))}
	for _, f := range packed {
		args = append(args, "-f", f)
	}
	command := fmt.Sprintf("mount -t debugfs debugfs /sys/kernel/debug; vmmbench -inside -starts %d -boots %d -limit %s",
		o.starts, o.boots, 10*time.Minute)
	args = append(args, "--", command)
	for range 3 {
		all, err := outer(args)
		if !errors.Is(err, errFroze) {
			return all, err
		}
		fmt.Fprintln(os.Stderr, "vmmbench: the outer guest froze, and is started again")
	}
	return nil, errFroze
}

// errFroze says that the outer guest itself stood still before there was a boot of each VMM.
var errFroze = errors.New("the outer guest froze")

// froze is the status of tests/nested/nested for that.
const froze = 126

// outer runs this program in an outer guest and returns what it last said.
func outer(args []string) ([]*vmm, error) {
	cmd := exec.Command("tests/nested/nested", args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, os.Stderr
	failed := cmd.Run()
	var all []*vmm
	for line := range bytes.Lines(out.Bytes()) {
		var now []*vmm
		if json.Unmarshal(line, &now) == nil {
			all = now
		} else {
			fmt.Fprintf(os.Stderr, "%s", line)
		}
	}
	if failed == nil {
		return all, nil
	}
	if cmd.ProcessState == nil || cmd.ProcessState.ExitCode() != froze {
		return nil, fmt.Errorf("in the outer guest: %w", failed)
	}
	if len(all) == 0 || len(all[0].Boots) == 0 {
		return nil, errFroze
	}
	fmt.Fprintf(os.Stderr, "vmmbench: the outer guest froze after %d boots\n", len(all[0].Boots))
	return all, nil
}

// qemuFiles lists QEMU, its libraries and its firmware as FILE:PATH.
func qemuFiles() ([]string, error) {
	qemu, err := exec.LookPath("qemu-system-x86_64")
	if err != nil {
		return nil, err
	}
	out, err := exec.Command("ldd", qemu).Output()
	if err != nil {
		return nil, fmt.Errorf("ldd %s: %w", qemu, err)
	}
	all := []string{qemu + ":/bin/qemu-system-x86_64"}
	for _, lib := range regexp.MustCompile(`(?m)(/\S+) \(0x`).FindAllStringSubmatch(string(out), -1) {
		all = append(all, lib[1]+":"+lib[1])
	}
	for _, f := range firmware {
		if _, err := os.Stat(f); err != nil {
			return nil, err
		}
		all = append(all, f+":"+insideFirmware+"/"+filepath.Base(f))
	}
	return all, nil
}

// inside measures in the outer guest and writes the figures so far after every
// round, as one line.
func inside(o options) error {
	scratch, err := os.MkdirTemp("", "vmmbench")
	if err != nil {
		return err
	}
	stop, err := keepAwake()
	if err != nil {
		return err
	}
	defer stop()
	f := files{berth: "./berth", kernel: "vmlinuz", initrd: "initrd.img", scratch: scratch, firmware: insideFirmware}
	all, err := f.vmms("kvm")
	if err != nil {
		return err
	}
	return measure(all, "kvm", o, func() error {
		line, err := json.Marshal(all)
		if err == nil {
			_, err = fmt.Printf("%s\n", line)
		}
		return err
	})
}

// keepAwake keeps the outer CPU from halting until stop is called: QEMU's TCG can
// lose a halted CPU's timer for good (docs/decisions/0008). What does it runs only
// when nobody else wants the CPU, so that processes' CPU times stay their own.
func keepAwake() (stop func(), err error) {
	cmd := exec.Command("sh", "-c", "while :; do :; done")
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	stop = func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
	}
	const idle = 5 // SCHED_IDLE, sched(7)
	if err := unix.SchedSetAttr(cmd.Process.Pid, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: idle}, 0); err != nil {
		stop()
		return nil, fmt.Errorf("sched_setattr: %w", err)
	}
	return stop, nil
}
