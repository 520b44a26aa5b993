package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"
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
	cmd := exec.Command("tests/nested/nested", append(args, "--", command)...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, os.Stderr
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("in the outer guest: %w: %s", err, out.String())
	}
	var all []*vmm
	at := bytes.LastIndexByte(bytes.TrimSpace(out.Bytes()), '\n') + 1
	if err := json.Unmarshal(out.Bytes()[at:], &all); err != nil {
		return nil, fmt.Errorf("what the outer guest said: %w: %s", err, out.String())
	}
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

// inside measures in the outer guest and writes the figures as one line.
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
	if err := measure(all, "kvm", o); err != nil {
		return err
	}
	line, err := json.Marshal(all)
	if err != nil {
		return err
	}
	_, err = fmt.Println(strings.TrimSpace(string(line)))
	return err
}
