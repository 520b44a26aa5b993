package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	realkvm "berth/tests/nested"
)

// nested measures on a real KVM, in one outer guest: this program runs there
// again, beside QEMU with its libraries.
func nested(f files, o options) ([]result, error) {
	self := filepath.Join(f.scratch, "fiobench")
	build := exec.Command("go", "build", "-o", self, "./tests/perf/fiobench")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("building for the outer guest: %w: %s", err, out)
	}
	fio := filepath.Join(f.scratch, "fio.img") // the outer guest locks its disk as one that it may write
	if out, err := exec.Command("cp", "--sparse=always", f.fio, fio).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("copying fio's disk: %w: %s", err, out)
	}
	packed, err := realkvm.QEMUFiles()
	if err != nil {
		return nil, err
	}
	args := []string{"-c", "1", "-m", "3072", "-t", fmt.Sprint(int(o.nestedLimit.Seconds())), "-d", fio}
	for _, p := range append(packed, self, f.berth, f.kernel, f.initrd) {
		args = append(args, "-f", p)
	}
	args = append(args, "--", fmt.Sprintf("fiobench -inside -seconds %d -rounds %d -formats %s -cache %s -limit %s", o.seconds, o.rounds, o.formats, o.cache, o.limit))
	_, out, errs, err := realkvm.Run(func() *exec.Cmd { return exec.Command("tests/nested/nested", args...) }, func(format string, a ...any) {
		fmt.Fprintf(os.Stderr, "fiobench: "+format+"\n", a...)
	})
	if err != nil {
		return nil, fmt.Errorf("in the outer guest: %w\n%s%s", err, out, errs)
	}
	var all []result
	for line := range strings.Lines(out) {
		var r result
		if n, _ := fmt.Sscanf(strings.TrimSpace(line), resultWord+" %s %s %s %f", &r.vmm, &r.format, &r.job, &r.iops); n == 4 {
			all = append(all, r)
		}
	}
	return all, nil
}
