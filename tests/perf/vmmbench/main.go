// Command vmmbench compares what berth costs its host with what QEMU does, in one run: starting a VM, memory beside the
// guest's, VM exits, and a guest that idles; on soft beside TCG, and on a real KVM in an outer guest.
package main

import (
	"flag"
	"fmt"
	"os"
	"time"
)

// options are the command line.
type options struct {
	starts, boots, inits int
	guest                string
	engine               string
	limit, nestedLimit   time.Duration
	inside               bool
}

func main() {
	var o options
	flag.IntVar(&o.starts, "starts", 15, "runs of the tiny guest with each VMM")
	flag.IntVar(&o.boots, "boots", 3, "boots of Debian's kernel with each VMM")
	flag.IntVar(&o.inits, "inits", 15, "runs that package initialisation is timed in")
	flag.StringVar(&o.guest, "guest", ".cache/guest", "folder of the guest's kernel and initrd")
	flag.StringVar(&o.engine, "engine", "", "soft or kvm alone; empty: both")
	flag.DurationVar(&o.limit, "limit", 5*time.Minute, "time limit of one boot")
	flag.DurationVar(&o.nestedLimit, "nested-limit", time.Hour, "time limit of the outer guest")
	flag.BoolVar(&o.inside, "inside", false, "this is the outer guest: measure on KVM and print JSON")
	flag.Parse()
	run := bench
	if o.inside {
		run = inside
	}
	if err := run(o); err != nil {
		fmt.Fprintf(os.Stderr, "vmmbench: %v\n", err)
		os.Exit(1)
	}
}

func bench(o options) error {
	scratch, err := os.MkdirTemp("", "vmmbench")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(scratch) }()
	f := here(o.guest, scratch)
	if o.inits > 0 {
		trace, err := medianTrace(f.berth, o.inits)
		if err != nil {
			return err
		}
		reportInit(trace, os.Stdout)
	}
	var hostSoft float64
	if o.engine != "kvm" {
		all, err := f.vmms("soft")
		if err != nil {
			return err
		}
		if err := measure(all, "soft", o, func() error { return nil }); err != nil {
			return err
		}
		report("soft beside TCG", all, hostSoft, os.Stdout)
		if o.starts > 0 {
			hostSoft = medianOf(all[0].Starts, func(s start) float64 { return s.CPU })
		}
	}
	if o.engine != "soft" {
		all, err := nested(o, scratch)
		if err != nil {
			return err
		}
		report("a real KVM, in an outer guest on TCG", all, hostSoft, os.Stdout)
	}
	return nil
}

// measure fills in what the VMMs cost, with them taking turns, and calls done
// after the starts and after each round of boots.
func measure(all []*vmm, engine string, o options, done func() error) error {
	for n := range o.starts {
		fmt.Fprintf(os.Stderr, "%s: start %d of %d\n", engine, n+1, o.starts)
		for _, v := range all {
			if err := v.measureStart(o.limit); err != nil {
				return fmt.Errorf("%s: %w", v.Name, err)
			}
		}
	}
	if err := done(); err != nil {
		return err
	}
	for n := range o.boots {
		for _, v := range all {
			if v.boot == nil {
				continue
			}
			fmt.Fprintf(os.Stderr, "%s: boot %d of %d of %s\n", engine, n+1, o.boots, v.Name)
			if err := v.measureBoot(engine, o.limit); err != nil {
				return fmt.Errorf("%s: %w", v.Name, err)
			}
		}
		if err := done(); err != nil {
			return err
		}
	}
	return nil
}
