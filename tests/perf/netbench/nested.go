package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	realkvm "berth/tests/nested"
)

// nested measures on a real KVM, in one outer guest: this program runs there
// again, beside QEMU and iperf3 with their libraries.
func nested(h host, scratch string, o options) ([]figure, error) {
	self := filepath.Join(scratch, "netbench")
	build := exec.Command("go", "build", "-o", self, "./tests/perf/netbench")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("building for the outer guest: %w: %s", err, out)
	}
	packed, err := realkvm.QEMUFiles()
	if err != nil {
		return nil, err
	}
	iperf, err := realkvm.WithLibraries("iperf3")
	if err != nil {
		return nil, err
	}
	tun, err := filepath.Glob(".cache/guest/kernel/lib/modules/*/kernel/drivers/net/tun.ko")
	if err != nil {
		return nil, err
	}
	if len(tun) != 1 {
		return nil, errors.New("no module tun in .cache/guest/kernel")
	}
	args := []string{"-c", "1", "-m", "3072", "-t", fmt.Sprint(int(o.nestedLimit.Seconds()))}
	for _, p := range append(append(packed, iperf...), self, h.berth, h.kernel, h.initrd, tun[0]) {
		args = append(args, "-f", p)
	}
	args = append(args, "--", strings.Join([]string{
		"insmod tun.ko", "mkdir -p /dev/net", "{ [ -e /dev/net/tun ] || mknod /dev/net/tun c 10 200; }",
		"ip addr add " + farServer + "/32 dev lo", "tunctl -t " + tapName, "ip addr add " + tapServer + "/24 dev " + tapName, "ip link set " + tapName + " up",
		fmt.Sprintf("netbench -inside -seconds %d -rounds %d -nets %s -limit %s", o.seconds, o.rounds, o.nets, o.limit),
	}, " && "))
	_, out, errs, err := realkvm.Run(func() *exec.Cmd { return exec.Command("tests/nested/nested", args...) }, func(format string, a ...any) {
		fmt.Fprintf(os.Stderr, "netbench: "+format+"\n", a...)
	})
	if err != nil {
		return nil, fmt.Errorf("in the outer guest: %w\n%s%s", err, out, errs)
	}
	return figures(out), nil
}

// figures reads what this program has printed.
func figures(out string) (all []figure) {
	for line := range strings.Lines(out) {
		var f figure
		if n, _ := fmt.Sscanf(strings.TrimSpace(line), figureWord+" %s %s %s %g %g", &f.vmm, &f.net, &f.row, &f.value, &f.cpu); n == 5 {
			all = append(all, f)
		}
	}
	return all
}
