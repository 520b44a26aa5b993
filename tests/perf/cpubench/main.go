// Command cpubench compares what workloads of known answer cost natively, on berth's soft engine and on QEMU's TCG: the same
// programs, CPU-seconds of the whole process, one boot of each engine for all rows, the three taking turns.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"time"
)

// options are the command line.
type options struct {
	rows   string
	runs   int
	scale  float64
	dir    string
	qemu   string
	newer  string
	model  string
	engine string
	extra  string
	shares bool
	limit  time.Duration
}

func main() {
	var o options
	flag.StringVar(&o.rows, "rows", "", "regular expression of the rows to run; empty: all")
	flag.IntVar(&o.runs, "runs", 5, "runs of each row; the median counts")
	flag.Float64Var(&o.scale, "scale", 1, "how much work, as a factor")
	flag.StringVar(&o.dir, "guest", ".cache/guest", "folder of the guest's kernel")
	flag.StringVar(&o.qemu, "qemu", "qemu-system-x86_64", "QEMU's program, which may be another version's")
	flag.StringVar(&o.newer, "qemu-newer", "", "another QEMU's program, in a column of its own; tests/guest/newer-qemu makes .cache/qemu/qemu-system-x86_64")
	flag.StringVar(&o.model, "qemu-cpu", "max", "QEMU's CPU model; with others the guest's kernel defends itself at every system call, or its libc has only slow functions")
	flag.StringVar(&o.engine, "soft-engine", "auto", "berth's --soft-engine")
	flag.StringVar(&o.extra, "append", "mitigations=off", "more of the guest's kernel command line; what it defends against depends on the CPU model, which is not measured here")
	flag.BoolVar(&o.shares, "shares", true, "count too how much of each row ran translated, which takes one more boot of each")
	flag.DurationVar(&o.limit, "limit", 20*time.Minute, "time limit of one boot")
	flag.Parse()
	if err := bench(o, os.Stdout); err != nil {
		fmt.Fprintf(os.Stderr, "cpubench: %v\n", err)
		os.Exit(1)
	}
}

// The columns.
const (
	onHost = iota
	onBerth
	onTCG
	onNewer // another QEMU's, which there may be none of
	columns
)

// result is a row's samples in each column.
type result struct {
	row
	samples [columns][]sample
	counted counters // by berth, of the row alone
}

func bench(o options, out io.Writer) error {
	if o.runs < 1 || o.scale <= 0 {
		return fmt.Errorf("-runs and -scale are to be above 0")
	}
	chosen, err := choose(o.rows)
	if err != nil {
		return err
	}
	scratch, err := os.MkdirTemp("", "cpubench")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(scratch) }()
	dir, initrd := filepath.Join(scratch, "bench"), filepath.Join(scratch, "initrd.img")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	if err := makePrograms(here(), dir); err != nil {
		return err
	}
	if err := makeInitrd(here(), dir, initrd, chosen, o.scale); err != nil {
		return err
	}
	results, whole, err := measure(o, chosen, dir, vms(o, initrd))
	if err != nil {
		return err
	}
	if o.shares {
		if err := shares(o, results, vms(o, initrd)[onBerth]); err != nil {
			return err
		}
	}
	names := [2]string{"TCG " + version(o.qemu)}
	if o.newer != "" {
		names[1] = "TCG " + version(o.newer)
	}
	report(results, names, out)
	fmt.Fprintf(out, "berth, a whole boot with all rows: %s\n", whole)
	return differences(results)
}

// here is this package's folder.
func here() string {
	_, self, _, _ := runtime.Caller(0)
	return filepath.Dir(self)
}

// vms are the command lines of the VMs, by column. On a busy host QEMU's timer may
// be late for the kernel's check of it, which then panics.
func vms(o options, initrd string) [columns][]string {
	kernel, line := filepath.Join(o.dir, "vmlinuz"), "console=ttyS0 quiet panic=-1 no_timer_check berth.script=cpubench "+o.extra
	qemu := func(program string) []string {
		return []string{program, "-accel", "tcg", "-machine", "q35", "-cpu", o.model, "-m", "512", "-smp", "1",
			"-nodefaults", "-display", "none", "-serial", "stdio", "-no-reboot", "-kernel", kernel, "-initrd", initrd, "-append", line}
	}
	all := [columns][]string{
		onBerth: {"./berth", "run", "--accel", "soft", "--soft-engine", o.engine, "-v", "--kernel", kernel, "--initrd", initrd, "--memory", "512M", "--append", line},
		onTCG:   qemu(o.qemu),
	}
	if o.newer != "" {
		all[onNewer] = qemu(o.newer)
	}
	return all
}

// measure runs everything, the columns in turn, and returns what berth counted in
// its last boot too.
func measure(o options, chosen []row, dir string, vms [columns][]string) (results []*result, whole counters, err error) {
	for _, r := range chosen {
		results = append(results, &result{row: r})
	}
	for i := range o.runs {
		fmt.Fprintf(os.Stderr, "run %d of %d: native, berth, TCG\n", i+1, o.runs)
		for _, r := range results {
			s, err := native(dir, r.at(o.scale), o.limit)
			if err != nil {
				return nil, whole, err
			}
			r.samples[onHost] = append(r.samples[onHost], s)
		}
		for column, args := range vms {
			if args == nil {
				continue
			}
			b, err := bootAll(args, o.limit)
			if err != nil {
				return nil, whole, fmt.Errorf("%s: %w", args[0], err)
			}
			for _, r := range results {
				s, ok := b.samples[r.id()]
				if !ok {
					return nil, whole, fmt.Errorf("%s: the guest said nothing of row %s", args[0], r.name)
				}
				r.samples[column] = append(r.samples[column], s)
			}
			if column == onBerth {
				whole = counts(b.p.Errors())
			}
		}
	}
	return results, whole, nil
}
