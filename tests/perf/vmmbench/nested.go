package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	realkvm "berth/tests/nested"
)

// insideFirmware is where firmware lies in the outer guest.
const insideFirmware = realkvm.Firmware

// nested measures on a real KVM, in one outer guest: this program runs there
// again, beside QEMU with its libraries.
func nested(o options, scratch string) ([]*vmm, error) {
	self := filepath.Join(scratch, "vmmbench")
	build := exec.Command("go", "build", "-o", self, "./tests/perf/vmmbench")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("building for the outer guest: %w: %s", err, out)
	}
	packed, err := realkvm.QEMUFiles()
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

// outer runs this program in an outer guest and returns what it last said.
func outer(args []string) ([]*vmm, error) {
	cmd := exec.Command("tests/nested/nested", args...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	var all []*vmm
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var now []*vmm
		if json.Unmarshal(lines.Bytes(), &now) == nil {
			all = now
		} else {
			fmt.Fprintln(os.Stderr, lines.Text())
		}
	}
	failed := cmd.Wait()
	if failed == nil {
		return all, nil
	}
	if cmd.ProcessState.ExitCode() != realkvm.Froze {
		return nil, fmt.Errorf("in the outer guest: %w", failed)
	}
	if len(all) == 0 || len(all[0].Boots) == 0 {
		return nil, errFroze
	}
	fmt.Fprintf(os.Stderr, "vmmbench: the outer guest froze after %d boots\n", len(all[0].Boots))
	return all, nil
}

// inside measures in the outer guest and writes the figures so far after every
// round, as one line.
func inside(o options) error {
	scratch, err := os.MkdirTemp("", "vmmbench")
	if err != nil {
		return err
	}
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
