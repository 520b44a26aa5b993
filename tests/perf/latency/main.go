// Command latency measures in the guest how late interrupts wake a halted vCPU, alone and while all others spin, and what an idle guest costs, on berth's soft engine and on QEMU's TCG.
package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// row is the delays of one kind of interrupt in one engine, in nanoseconds.
type row struct {
	engine, name string
	late         []uint64
}

// engine measures the guest at path and returns its rows.
type engine struct {
	name string
	run  func(path string) ([]row, error)
}

func main() {
	runs := flag.Int("runs", 3, "runs of each engine, which take turns")
	cpus := flag.Int("cpus", 5, "vCPUs: one waits, the others spin")
	limit := flag.Duration("limit", 2*time.Minute, "time limit of one run")
	dir := flag.String("guest", ".cache/guest", "folder of the idle guest's kernel and initrd")
	during := flag.Duration("idle", 20*time.Second, "how long a guest is idle")
	flag.Parse()
	err := bench(*runs, *cpus, *limit, os.Stdout)
	if err == nil {
		err = idle(*dir, *during, *limit, os.Stdout)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "latency: %v\n", err)
		os.Exit(1)
	}
}

func bench(runs, cpus int, limit time.Duration, out io.Writer) error {
	scratch, err := os.MkdirTemp("", "latency")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(scratch) }()
	guest, native := filepath.Join(scratch, "guest"), filepath.Join(scratch, "native")
	if said, err := exec.Command("tests/perf/latency/build", guest, native).CombinedOutput(); err != nil {
		return fmt.Errorf("building the guest: %w\n%s", err, said)
	}
	n := strconv.Itoa(cpus)
	engines := []engine{
		{"host's threads", command(limit, native, strconv.Itoa(cpus-1))},
		{"berth soft", command(limit, "./berth", "run", "--accel", "soft", "--cpus", n, "--debug-exit", "--kernel", guest)},
		{"QEMU TCG", command(limit, "qemu-system-x86_64", "-accel", "tcg", "-cpu", "max", "-m", "64", "-smp", n, "-nodefaults",
			"-display", "none", "-serial", "stdio", "-no-reboot", "-device", "isa-debug-exit,iobase=0xf4,iosize=4", "-kernel", guest)},
		{"berth soft", func(path string) ([]row, error) { return stampedRows(path, cpus, limit) }},
	}
	var all []row
	for i := range runs {
		for _, e := range engines {
			fmt.Fprintf(os.Stderr, "run %d of %d: %s\n", i+1, runs, e.name)
			rows, err := e.run(guest)
			if err != nil {
				return fmt.Errorf("%s: %w", e.name, err)
			}
			for _, r := range rows {
				r.engine = e.name
				all = join(all, r)
			}
		}
	}
	report(all, out)
	return nil
}

// command returns what runs a program that prints rows. A guest's status is 1 by debug exit.
func command(limit time.Duration, name string, args ...string) func(string) ([]row, error) {
	return func(string) ([]row, error) {
		cmd := exec.Command(name, args...)
		var said, errs bytes.Buffer
		cmd.Stdout, cmd.Stderr = &said, &errs
		if err := cmd.Start(); err != nil {
			return nil, err
		}
		watchdog := time.AfterFunc(limit, func() { _ = cmd.Process.Kill() })
		defer watchdog.Stop()
		err := cmd.Wait()
		var exit *exec.ExitError
		if err != nil && (!errors.As(err, &exit) || exit.ExitCode() != 1) {
			return nil, fmt.Errorf("%w: %s", err, errs.String())
		}
		return parse(said.String())
	}
}

// parse reads what a guest printed, which ends with "done".
func parse(said string) ([]row, error) {
	var rows []row
	for line := range strings.Lines(said) {
		line = strings.TrimSpace(line)
		if name, ok := strings.CutPrefix(line, "row "); ok {
			rows = append(rows, row{name: name})
			continue
		}
		if line == "done" {
			return rows, nil
		}
		if v, err := strconv.ParseUint(line, 10, 64); err == nil && len(rows) > 0 && !strings.HasPrefix(line, "spinning") {
			r := &rows[len(rows)-1]
			r.late = append(r.late, v)
		}
	}
	return nil, fmt.Errorf("the guest did not reach its end: %.200q", said)
}

// join adds a run's delays to those of earlier runs.
func join(all []row, r row) []row {
	for i := range all {
		if all[i].engine == r.engine && all[i].name == r.name {
			all[i].late = append(all[i].late, r.late...)
			return all
		}
	}
	return append(all, r)
}

func report(rows []row, out io.Writer) {
	slices.SortStableFunc(rows, func(a, b row) int { return strings.Compare(a.name, b.name) })
	fmt.Fprintf(out, "%-56s %-14s %8s %8s %8s %8s\n", "late by, microseconds", "", "samples", "p50", "p99", "max")
	for _, r := range rows {
		slices.Sort(r.late)
		n := len(r.late)
		if n == 0 {
			continue
		}
		us := func(i int) float64 { return float64(r.late[i]) / 1e3 }
		fmt.Fprintf(out, "%-56s %-14s %8d %8.0f %8.0f %8.0f\n", r.name, r.engine, n, us(n/2), us(n*99/100), us(n-1))
	}
}
