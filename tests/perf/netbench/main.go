// Command netbench compares berth's network with QEMU's in one run: iperf3 and ping in the same guest, on the user network and on
// a tap, on soft beside TCG, and on a real KVM in an outer guest.
package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	realkvm "berth/tests/nested"
)

// options are the command line.
type options struct {
	seconds     int
	rounds      int
	engine      string
	nets        string
	limit       time.Duration
	nestedLimit time.Duration
	inside      bool
}

func main() {
	var o options
	flag.IntVar(&o.seconds, "seconds", 4, "how long each of iperf3's rows takes")
	flag.IntVar(&o.rounds, "rounds", 3, "boots of each VMM with each network; the medians count")
	flag.StringVar(&o.engine, "engine", "", "soft or kvm alone; empty: both")
	flag.StringVar(&o.nets, "nets", "user,tap", "networks")
	flag.DurationVar(&o.limit, "limit", 10*time.Minute, "time limit of one boot")
	flag.DurationVar(&o.nestedLimit, "nested-limit", 2*time.Hour, "time limit of the outer guest")
	flag.BoolVar(&o.inside, "inside", false, "this is the outer guest: measure on KVM and print each figure as a line")
	flag.Parse()
	if err := bench(o); err != nil {
		fmt.Fprintf(os.Stderr, "netbench: %v\n", err)
		os.Exit(1)
	}
}

func bench(o options) error {
	if o.inside {
		h := host{berth: "./berth", kernel: "vmlinuz", initrd: "net.img", firmware: true}
		return h.measure("kvm", o, func(f figure) { fmt.Println(f) })
	}
	scratch, err := os.MkdirTemp("", "netbench")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(scratch) }()
	initrd, err := guestFiles(scratch)
	if err != nil {
		return err
	}
	h := host{berth: "./berth", kernel: filepath.Join(".cache", "guest", "vmlinuz"), initrd: initrd}
	if o.engine != "kvm" {
		if err := h.enter(); err != nil {
			return err
		}
		defer func() { _ = h.leave() }()
		var all []figure
		if err := h.measure("soft", o, func(f figure) { all = append(all, f) }); err != nil {
			return err
		}
		report("soft beside TCG", all, os.Stdout)
	}
	if o.engine != "soft" {
		all, err := nested(h, scratch, o)
		if err != nil {
			return err
		}
		report("a real KVM, in an outer guest on TCG", all, os.Stdout)
	}
	return nil
}

// guestFiles makes an initrd with iperf3, its libraries and the NIC's driver.
func guestFiles(scratch string) (initrd string, err error) {
	packed, err := realkvm.WithLibraries("iperf3")
	if err != nil {
		return "", fmt.Errorf("%w: tests/guest/setup --net installs it", err)
	}
	initrd = filepath.Join(scratch, "net.img")
	args := []string{"-o", initrd, "-m", "virtio_net"}
	for _, p := range packed {
		args = append(args, "-f", p)
	}
	if out, err := exec.Command("tests/guest/mkinitrd", args...).CombinedOutput(); err != nil {
		return "", fmt.Errorf("tests/guest/mkinitrd: %w: %s", err, out)
	}
	return initrd, nil
}

// measure boots the VMMs in turn on each network, and tells say each figure.
func (h *host) measure(engine string, o options, say func(figure)) error {
	stop, err := h.serve()
	if err != nil {
		return err
	}
	defer stop()
	for net := range strings.SplitSeq(o.nets, ",") {
		for n := range o.rounds {
			for _, vmm := range []string{"berth", "QEMU"} {
				fmt.Fprintf(os.Stderr, "netbench: %s on %s, %s, round %d of %d\n", vmm, engine, net, n+1, o.rounds)
				got, err := h.boot(vmm, engine, net, o)
				for _, f := range got {
					say(f)
				}
				if err != nil {
					return fmt.Errorf("%s on %s: %w", vmm, net, err)
				}
			}
		}
	}
	return nil
}
