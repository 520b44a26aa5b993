// Command fiobench compares berth's disks with QEMU's in one run: Debian's fio in the same guest on raw and qcow2 images, on
// soft beside TCG, and on a real KVM in an outer guest.
package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"berth/tests/guest"
	realkvm "berth/tests/nested"
)

// options are the command line.
type options struct {
	seconds     int
	rounds      int
	engine      string
	formats     string
	cache       string
	limit       time.Duration
	nestedLimit time.Duration
	inside      bool
}

func main() {
	var o options
	flag.IntVar(&o.seconds, "seconds", 5, "how long each of fio's jobs runs")
	flag.IntVar(&o.rounds, "rounds", 3, "boots of each VMM with each format; the best figure of each job counts")
	flag.StringVar(&o.engine, "engine", "", "soft or kvm alone; empty: both")
	flag.StringVar(&o.formats, "formats", "raw,qcow2", "formats of the disk")
	flag.StringVar(&o.cache, "cache", "writeback", "cache mode of the disk, for both")
	flag.DurationVar(&o.limit, "limit", 20*time.Minute, "time limit of one boot")
	flag.DurationVar(&o.nestedLimit, "nested-limit", 2*time.Hour, "time limit of the outer guest")
	flag.BoolVar(&o.inside, "inside", false, "this is the outer guest: measure on KVM and print each result as a line")
	flag.Parse()
	if err := bench(o); err != nil {
		fmt.Fprintf(os.Stderr, "fiobench: %v\n", err)
		os.Exit(1)
	}
}

func bench(o options) error {
	scratch, err := os.MkdirTemp("", "fiobench")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(scratch) }()
	if o.inside {
		f := files{berth: "./berth", kernel: "vmlinuz", initrd: "initrd.img", fio: "/dev/vda", scratch: scratch, firmware: realkvm.Firmware}
		_, err := measure(f, "kvm", o, func(r result) { fmt.Println(r) })
		return err
	}
	fio, err := guest.Fio()
	if err != nil {
		return err
	}
	dir := filepath.Dir(fio)
	f := files{berth: "./berth", kernel: filepath.Join(dir, "vmlinuz"), initrd: filepath.Join(dir, "initrd.img"), fio: fio, scratch: scratch}
	if o.engine != "kvm" {
		all, err := measure(f, "soft", o, func(result) {})
		if err != nil {
			return err
		}
		report("soft beside TCG", all, os.Stdout)
	}
	if o.engine != "soft" {
		all, err := nested(f, o)
		if err != nil {
			return err
		}
		report("a real KVM, in an outer guest on TCG", all, os.Stdout)
	}
	return nil
}

// files are what a machine on which VMMs are measured has.
type files struct {
	berth, kernel, initrd, fio string
	scratch                    string // a folder to write to
	firmware                   string // a folder with QEMU's firmware; "": where QEMU looks by itself
}

// command is the command line of a VMM, "berth" or "QEMU".
func (f files) command(vmm, engine, disk, format string, o options) *exec.Cmd {
	line := fmt.Sprintf("console=ttyS0 quiet berth.script=fio berth.fio=bench:%d", o.seconds)
	if vmm == "berth" {
		return exec.Command(f.berth, "run", "--accel", engine, "--memory", "384M", "--kernel", f.kernel, "--initrd", f.initrd, "--append", line,
			"--disk", "file="+f.fio+",format=raw,readonly=on", "--disk", fmt.Sprintf("file=%s,format=%s,cache=%s,discard=unmap", disk, format, o.cache))
	}
	args := []string{"-accel", "tcg", "-cpu", "Nehalem"}
	if engine == "kvm" {
		args = []string{"-accel", "kvm", "-cpu", "host"}
	}
	args = append(args, "-machine", "q35", "-m", "384", "-nodefaults", "-display", "none", "-serial", "stdio", "-kernel", f.kernel, "-initrd", f.initrd, "-append", line,
		"-drive", "if=virtio,format=raw,readonly=on,file="+f.fio, "-drive", fmt.Sprintf("if=virtio,discard=unmap,format=%s,cache=%s,file=%s", format, o.cache, disk))
	if f.firmware != "" {
		args = append(args, "-L", f.firmware)
	}
	return exec.Command("qemu-system-x86_64", args...)
}

// result is one figure: what a VMM did of a job in a second.
type result struct {
	vmm, format, job string
	iops             float64
}

const resultWord = "FIOBENCH"

func (r result) String() string {
	return fmt.Sprintf("%s %s %s %s %.0f", resultWord, r.vmm, r.format, r.job, r.iops)
}

// measure boots the VMMs in turn with each format, and tells each result to say.
func measure(f files, engine string, o options, say func(result)) ([]result, error) {
	var all []result
	for format := range strings.SplitSeq(o.formats, ",") {
		for n := range o.rounds {
			for _, vmm := range []string{"berth", "QEMU"} {
				fmt.Fprintf(os.Stderr, "fiobench: %s on %s, %s, round %d of %d\n", vmm, engine, format, n+1, o.rounds)
				got, err := f.boot(vmm, engine, format, o)
				if err != nil {
					return nil, fmt.Errorf("%s with %s: %w", vmm, format, err)
				}
				for _, r := range got {
					say(r)
				}
				all = append(all, got...)
			}
		}
	}
	return all, nil
}

// boot makes a disk, full of what fio will read, and boots one guest on it.
func (f files) boot(vmm, engine, format string, o options) ([]result, error) {
	disk := filepath.Join(f.scratch, "disk."+format)
	defer func() { _ = os.Remove(disk) }()
	if out, err := exec.Command(f.berth, "image", "create", "-q", "-f", format, "-o", "preallocation=falloc", disk, "256M").CombinedOutput(); err != nil {
		return nil, fmt.Errorf("berth image create: %w: %s", err, out)
	}
	cmd := f.command(vmm, engine, disk, format, o)
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	watchdog := time.AfterFunc(o.limit, func() { _ = cmd.Process.Kill() })
	err := cmd.Wait()
	watchdog.Stop()
	if err != nil || !strings.Contains(out.String(), "BERTH-FIO ok") {
		return nil, fmt.Errorf("the guest did not end well: %w\n%s%s", err, out.String(), errs.String())
	}
	var got []result
	for line := range strings.Lines(out.String()) {
		r := result{vmm: vmm, format: format}
		var kib float64
		if n, _ := fmt.Sscanf(strings.TrimSpace(line), "BERTH-FIO result %s %f %f", &r.job, &r.iops, &kib); n == 3 {
			got = append(got, r)
		}
	}
	return got, nil
}
