// Command monitor runs hostile guests, one VM after the other in this one
// process, and looks after itself meanwhile: that it answers, that it gives back
// what it took, that nothing but guest memory and the guest's disk was touched.
// It names each VM before it starts it; the same flags with -vms 1 run it again.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"time"

	"berth/accel"
	"berth/accel/kvm"
	"berth/accel/soft"
)

// options are the flags.
type options struct {
	kernel, accel, programs, dir string
	seed                         uint64
	cpus, vms                    int
	time, patience               time.Duration
	long, tcg                    bool
	quiet                        bool
}

func main() {
	o := options{}
	flag.StringVar(&o.kernel, "kernel", "hostile.elf", "the guest")
	flag.StringVar(&o.accel, "accel", "soft", "soft or kvm")
	flag.StringVar(&o.programs, "do", "all", "what the vCPUs do, in turn: names with commas")
	flag.StringVar(&o.dir, "dir", "", "folder for the disks")
	flag.Uint64Var(&o.seed, "seed", 1, "seed of the first VM")
	flag.IntVar(&o.cpus, "cpus", 0, "vCPUs; 0: by the seed")
	flag.IntVar(&o.vms, "vms", 0, "VMs to run; 0: as many as the time allows")
	flag.DurationVar(&o.time, "time", 20*time.Second, "for how long")
	flag.DurationVar(&o.patience, "patience", 30*time.Second, "how long the monitor may take to obey")
	flag.BoolVar(&o.long, "long", false, "some VMs run for a minute")
	flag.BoolVar(&o.tcg, "tcg", false, "leave CR8 and TR alone: inside a KVM on QEMU 7.2's TCG they make QEMU abort")
	flag.BoolVar(&o.quiet, "quiet", false, "do not name each VM")
	flag.Parse()
	if err := run(o, os.Stdout); err != nil {
		fmt.Println("FAIL", err)
		os.Exit(1)
	}
}

// run runs VMs until the time is over, then says how they ended.
func run(o options, out io.Writer) error {
	log := slog.New(slog.DiscardHandler)
	engine, err := open(o.accel, log)
	if err != nil {
		return err
	}
	w := newWatch(o.patience)
	ends := map[string]int{}
	end := time.Now().Add(o.time)
	n := 0
	for ; time.Now().Before(end) && (o.vms == 0 || n < o.vms); n++ {
		c := choose(o, o.seed+uint64(n))
		if !o.quiet {
			fmt.Fprintln(out, "vm", c)
		}
		how, err := c.run(engine, log, w)
		if err != nil {
			return fmt.Errorf("%s: %w", c, err)
		}
		ends[how]++
		if n >= warmUp {
			if err := w.grown(); err != nil {
				return fmt.Errorf("%s: %w", c, err)
			}
		}
	}
	for _, how := range slices.Sorted(maps.Keys(ends)) {
		fmt.Fprintf(out, "end %6d %s\n", ends[how], how)
	}
	fmt.Fprintf(out, "ran %d VMs, %d operations, %d virtio chains, seeds %d to %d; slowest to obey: %s; now %s\n",
		n, w.done.operations, w.done.chains, o.seed, o.seed+uint64(n)-1, w.slowest.Round(time.Millisecond), w.now())
	return nil
}

// warmUp is after how many VMs the process should have all that it will ever need.
const warmUp = 5

func open(name string, log *slog.Logger) (accel.Accelerator, error) {
	switch name {
	case "soft":
		return soft.New(log), nil
	case "kvm":
		return kvm.New(kvm.DefaultPath, log)
	}
	return nil, errors.New("accelerator " + name + " is not known")
}

// choose makes the VM of a seed.
func choose(o options, seed uint64) *vm {
	r := rand.New(rand.NewPCG(seed, 0))
	c := &vm{options: o, seed: seed, rand: r}
	c.memory = []uint64{16 << 20, 64 << 20, 2<<30 + 1<<20}[r.IntN(3)]
	c.count = []int{1, 1, 2, 3, 4}[r.IntN(5)]
	c.board = []string{"q35", "q35", "microvm"}[r.IntN(3)]
	if o.cpus != 0 {
		c.count = o.cpus
	}
	c.ends, c.debugExit = r.IntN(8) == 0, r.IntN(4) == 0
	c.console = consoleKind(r.IntN(int(consoleKinds)))
	c.life = time.Duration(100+r.IntN(2000)) * time.Millisecond
	if o.long && r.IntN(8) == 0 {
		c.life = time.Minute
	}
	// A console that nobody reads holds back everything but a kill.
	c.kill = c.console == consoleStuck || r.IntN(2) == 0
	c.press = r.IntN(2) == 0
	return c
}
