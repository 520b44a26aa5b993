package main

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"time"

	"berth/accel"
	"berth/machine"
	"berth/spec"
)

// vm is one VM with a hostile guest.
type vm struct {
	options
	seed            uint64
	rand            *rand.Rand
	memory          uint64
	count           int
	board           string
	ends, debugExit bool // the guest may touch ports that end the VM
	console         consoleKind
	life            time.Duration // then it is stopped
	kill            bool          // at once, rather than as its user does
	press           bool          // the power button, now and then
}

func (c *vm) String() string {
	return fmt.Sprintf("-accel %s -do %s -seed %d -cpus %d (%s, %d MiB, ends %t, debug exit %t, console %s, %s, kill %t)",
		c.accel, c.programs, c.seed, c.count, c.board, c.memory>>20, c.ends, c.debugExit, c.console, c.life, c.kill)
}

func (c *vm) spec(d *disks) (spec.Machine, error) {
	m := spec.Default()
	m.Accel, m.CPUs.Count, m.Memory.Size = c.accel, c.count, spec.Size(c.memory)
	m.Board, m.Boot.Kernel, m.DebugExit = c.board, c.kernel, c.debugExit
	m.Boot.Cmdline = fmt.Sprintf("seed=%d cpus=%d ends=%d tcg=%d do=%s", c.seed, c.count, digit(c.ends), digit(c.tcg), c.programs)
	m.Disks = []spec.Disk{
		{File: d.written, Discard: []string{"unmap", "ignore"}[c.rand.IntN(2)], Queues: 1 + c.rand.IntN(4)},
		{File: d.kept, ReadOnly: true},
	}
	// Nobody is at the other ends, so that what the guest says there takes no room.
	m.Console = spec.Chars{{To: []string{"pty", "null"}[c.rand.IntN(2)]}}
	m.Ports = []spec.Port{{Name: "socket", Socket: filepath.Join(d.dir, "port"), Server: true}, {Name: "null", To: "null"}}
	return m, errors.Join(m.Complete(), m.Validate())
}

func digit(b bool) int {
	if b {
		return 1
	}
	return 0
}

// result is what Run said.
type result struct {
	outcome machine.Outcome
	err     error
}

// run runs the VM to its end and returns how it ended.
func (c *vm) run(engine accel.Accelerator, log *slog.Logger, w *watch) (string, error) {
	around := plant(2 + c.rand.IntN(3))
	defer around.free()
	d, err := newDisks(c.dir, c.rand)
	if err != nil {
		return "", err
	}
	defer d.remove()
	m, err := c.spec(d)
	if err != nil {
		return "", err
	}
	port := newConsole(c.console, c.seed)
	v, err := machine.New(machine.Config{Spec: m, Accelerator: engine, Console: port, Log: log})
	if err != nil {
		return "", err
	}
	between := plant(1)
	defer between.free()
	done := make(chan result, 1)
	go func() {
		o, err := v.Run()
		done <- result{o, err}
	}()
	r, err := c.attend(v, done, w)
	if err != nil {
		return "", err
	}
	if err := w.obeyed("close", func() error { return v.Close() }); err != nil {
		return "", err
	}
	work, last := port.said()
	w.done.operations += work.operations
	w.done.chains += work.chains
	how, err := c.judge(r)
	if !c.quiet {
		fmt.Printf("   %s %s; RIP 0x%x: % x; last line %q\n", how, r.outcome.Detail, r.outcome.RIP, r.outcome.Bytes, last)
	}
	return how, errors.Join(err, around.check(), between.check(), d.check())
}

// attend waits for the VM's end and stops it when its time is over.
func (c *vm) attend(v *machine.Machine, done <-chan result, w *watch) (r result, err error) {
	over := time.After(c.life)
	tick := time.NewTicker(time.Duration(20+c.rand.IntN(300)) * time.Millisecond)
	defer tick.Stop()
	budget := w.budget(c)
	for {
		select {
		case r = <-done:
			return r, nil
		case <-tick.C:
			if err := w.within(budget); err != nil {
				return r, err
			}
			if c.press {
				err = w.obeyed("power button", func() error { v.PowerButton(); return nil })
			}
			if err != nil {
				return r, err
			}
		case <-over:
			word := "stop"
			if c.kill {
				word = "kill"
			}
			return r, w.obeyed(word, func() error {
				if c.kill {
					v.Kill("the test")
				} else {
					v.Stop()
				}
				r = <-done
				return nil
			})
		}
	}
}

// judge says how the VM ended, or what is wrong with that.
func (c *vm) judge(r result) (string, error) {
	if r.err != nil {
		return "", fmt.Errorf("the machine failed: %w", r.err)
	}
	// Programs that never leave the data that is theirs give no cause for a fault.
	tame := !c.ends
	for p := range strings.SplitSeq(c.programs, ",") {
		tame = tame && (p == "ports" || p == "timer")
	}
	switch o := r.outcome; o.Kind {
	case machine.Killed, machine.Left:
		return "stopped", nil
	case machine.PowerOff, machine.DebugExit, machine.Panicked:
		if tame {
			return "", fmt.Errorf("unexpected end: %+v", o)
		}
		return "the guest ended itself", nil
	case machine.ResetLoop:
		if tame {
			return "", fmt.Errorf("unexpected end: %+v", o)
		}
		return "reset loop", nil
	case machine.TripleFault:
		if tame {
			return "", fmt.Errorf("unexpected end: %+v", o)
		}
		return "triple fault", nil
	case machine.InternalError:
		return c.internal(o)
	default:
		return "", fmt.Errorf("unexpected end: %+v", o)
	}
}

// internal judges an engine's own end. The soft engine says by name what it does
// not know; KVM's failures are the host kernel's, and named as it names them.
func (c *vm) internal(o machine.Outcome) (string, error) {
	known := o.Detail == "not implemented: executing code outside memory"
	if c.accel == "kvm" {
		known = strings.Contains(o.Detail, "KVM internal error") || strings.Contains(o.Detail, "the CPU refused to enter the guest")
	}
	if !known {
		return "", fmt.Errorf("internal error: %s; RIP 0x%x: % x", o.Detail, o.RIP, o.Bytes)
	}
	before, _, _ := strings.Cut(o.Detail, " at RIP")
	if i := strings.Index(before, "KVM"); i > 0 {
		before = before[i:]
	}
	return "internal error: " + string(bytes.TrimSpace([]byte(before))), nil
}
