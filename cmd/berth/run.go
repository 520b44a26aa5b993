package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/lmittmann/tint"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"berth/chardev"
	"berth/gdb"
	"berth/machine"
	"berth/monitor"
	"berth/rundir"
	"berth/spec"
)

const runLong = `Run one virtual machine, its serial console on this terminal
unless --serial or --console says otherwise.

Only the guest's bytes go to standard output; berth's own words go to standard
error. On a terminal, Ctrl-A X leaves, Ctrl-A C turns to the VM's monitor and
back, and Ctrl-A H lists the keys.

A machine file, YAML or JSON, says the same as the flags do; flags override it,
and --dry-run prints one. Files named in it are relative to its own folder.

With --detach it runs in the background: ps lists such VMs, console shows
their serial port, stop ends them.

SIGTERM and SIGINT press the power button; a second one, or one while the guest is
paused, stops the VM at once.

Exit status: 0 power-off, or left with Ctrl-A X; 2 bad input, or the VM could
not be started; 10 triple fault; 12 internal error of the engine; 14 the guest
reset itself again and again; 16 stopped by a second signal; 18 the guest's
kernel panicked (--on-panic); with --debug-exit, value*2+1 of what the guest
wrote to port 0xf4.`

const runExample = `  berth run --kernel vmlinuz --initrd initrd.img --append console=ttyS0
  berth run --kernel vmlinuz --initrd initrd.img --append "console=ttyS0 root=/dev/vda" \
      --memory 2G --disk file=root.img,serial=ROOT --disk file=data.img,readonly=on
  berth run web.yaml --memory 4G`

func runCommand(stdin *os.File, stdout, stderr io.Writer) *cobra.Command {
	f := &runFlags{}
	c := &cobra.Command{
		Use:     "run [MACHINE.yaml] [flags]",
		Short:   "Run a virtual machine",
		Long:    runLong,
		Example: runExample,
		Args:    func(_ *cobra.Command, args []string) error { return checkArgs(args) },
		RunE: func(_ *cobra.Command, args []string) error {
			m, err := f.machine(args)
			if err != nil {
				return err
			}
			if f.dryRun != "" {
				return printMachine(stdout, m, f.dryRun)
			}
			if f.detach && !f.detached {
				if m.Name == spec.Default().Name {
					return errors.New("--detach: give the VM a --name, by which it is found again")
				}
				if m.MonitorOnStdio() {
					return errors.New("--detach: a VM in the background has no stdio for --hmp: berth monitor reaches it by its name")
				}
				return detach(os.Args[2:], m, stdout, stderr)
			}
			return runMachine(m, f.verbose, f.detached, stdin, stdout, stderr)
		},
	}
	f.declare(c.Flags())
	completeRun(c)
	return c
}

// checkArgs takes one argument, a machine file.
func checkArgs(args []string) error {
	if len(args) > 1 {
		return fmt.Errorf("run takes one machine file, not %d", len(args))
	}
	if len(args) == 1 && !slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(args[0])) {
		return fmt.Errorf("run takes no argument %q: name the kernel with --kernel; a machine file ends in .yaml, .yml or .json", args[0])
	}
	return nil
}

// printMachine writes m as a machine file.
func printMachine(w io.Writer, m spec.Machine, format string) error {
	write := m.JSON
	switch format {
	case "json":
	case "yaml":
		write = m.YAML
	default:
		return fmt.Errorf("--dry-run: %q is not known: use json or yaml", format)
	}
	b, err := write()
	if err == nil {
		_, err = w.Write(b)
	}
	return err
}

// runMachine builds the VM, ties it to the terminal and the signals, and
// returns how it ended as an exitError. A detached one is a process in the background.
func runMachine(m spec.Machine, verbose, detached bool, stdin *os.File, stdout, stderr io.Writer) error {
	interactive := !detached && (m.OnStdio() || m.MonitorOnStdio()) && term.IsTerminal(int(stdin.Fd()))
	if interactive {
		stderr = crlfWriter{stderr}
	}
	log := newLog(stderr, verbose, interactive)
	accelerator, why, err := chooseAccelerator(m, log)
	if err != nil {
		return err
	}
	dir, err := holdName(m)
	if err != nil {
		return err
	}
	defer func() { _ = dir.Remove() }() // what stays is cleaned up by whoever looks next
	removeSeed, err := addSeed(&m)
	if err != nil {
		return err
	}
	defer removeSeed()
	mon, err := monitor.New(monitor.Config{Spec: m, Accelerator: accelerator.Name(), KVM: hostHasKVM(), Package: "berth", Log: log})
	if err != nil {
		return err
	}
	debugger := gdb.New(mon.Human)
	control, err := openControls(m.Controls, dir, mon, debugger)
	if err != nil {
		return err
	}
	defer func() { _ = control.close() }() // the VM has ended: nobody is left to tell
	console := newConsole(stdin, stdout, stderr, interactive)
	var host chardev.Port = console
	if detached {
		if host, err = newLoggedConsole(dir); err != nil {
			return err
		}
	}
	vm, err := machine.New(machine.Config{Spec: m, Accelerator: accelerator, Console: host, Log: log, Notify: func(n machine.Notice) {
		mon.Notice(n)
		debugger.Notice(n)
	}, Descriptors: mon.Descriptors()})
	if err != nil {
		return err
	}
	defer func() {
		if err := vm.Close(); err != nil {
			log.Warn("closing the VM", "err", err)
		}
	}()
	if err := os.WriteFile("/proc/self/comm", []byte(m.Name), 0); err != nil {
		log.Warn("naming the process", "err", err)
	}
	defer func() {
		vm.Forgo()
		_ = control.close() // before vm is: whoever is at work with it is waited for
	}()
	mon.Attach(vm)
	debugger.Attach(vm)
	introduce(stderr, accelerator.Name(), why, vm)
	if err := control.serve(stderr); err != nil {
		return err
	}
	console.attach, console.alone = control.human, m.MonitorOnStdio()
	if !detached {
		leave, err := tie(m, vm, console, interactive, stdin, stderr)
		if err != nil {
			return err
		}
		defer leave()
	}
	defer watchSignals(vm, stderr)()
	if detached {
		if err := background(dir); err != nil {
			return err
		}
	}
	outcome, err := vm.Run()
	if err != nil {
		return err
	}
	return ended(outcome, verbose)
}

// holdName makes the directory by which other commands find a VM that has a name; nil without.
func holdName(m spec.Machine) (*rundir.Dir, error) {
	if m.Name == spec.Default().Name {
		return nil, nil
	}
	d, err := rundir.Create(rundir.Root(), m.Name)
	if err != nil {
		return nil, err
	}
	if err := d.WriteSpec(m); err != nil {
		return nil, errors.Join(err, d.Remove())
	}
	return d, nil
}

// tie joins the VM to the terminal that it was started from.
func tie(m spec.Machine, vm *machine.Machine, console *console, interactive bool, stdin *os.File, stderr io.Writer) (leave func(), err error) {
	leave = func() {}
	if interactive {
		raw, err := makeRaw(stdin)
		if err != nil {
			return nil, err
		}
		leave = raw.restore
		fmt.Fprintln(stderr, "berth: Ctrl-A X leaves, Ctrl-A H for help")
	}
	if m.OnStdio() || console.alone {
		console.leave = vm.Stop
		go console.pump()
	}
	if interactive && slices.ContainsFunc(m.Console, func(c spec.Char) bool { return c.To == "stdio" }) {
		restore, unwatch := leave, watchSize(vm, stdin)
		leave = func() {
			unwatch()
			restore()
		}
	}
	return leave, nil
}

// introduce says what runs the VM and where its pseudo-terminals are.
func introduce(w io.Writer, accelerator, why string, vm *machine.Machine) {
	fmt.Fprintf(w, "berth: %s: %s\n", accelerator, why)
	for _, t := range vm.Terminals() {
		fmt.Fprintf(w, "berth: %s is %s\n", t.Device, t.Path)
	}
}

// newLog is the VM's log on stderr: warnings, and all there is to say if verbose.
func newLog(stderr io.Writer, verbose, color bool) *slog.Logger {
	level := slog.LevelWarn
	if verbose {
		level = slog.LevelDebug
	}
	return slog.New(tint.NewTextHandler(stderr, &tint.Options{Level: level, TimeFormat: "15:04:05.000", NoColor: !color}))
}

// endingSignals are those that ask berth to end.
var endingSignals = []os.Signal{unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGQUIT}

// watchSignals presses the power button at the first SIGTERM, SIGINT, SIGHUP
// or SIGQUIT and stops the VM at the second. After
// stop, signals do nothing: the process ends as soon as its disks are closed.
func watchSignals(vm *machine.Machine, stderr io.Writer) (stop func()) {
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, endingSignals...)
	var over atomic.Bool
	go func() {
		pressed := false
		for s := range signals {
			switch {
			case over.Load():
				continue
			case pressed:
				vm.Kill(fmt.Sprintf("a second signal (%s)", s))
				continue
			}
			pressed = true
			go firstSignal(vm, s, stderr)
		}
	}()
	return func() { over.Store(true) }
}

// firstSignal presses the power button of a guest that runs, and ends a VM whose
// guest does not: it would never hear of it.
func firstSignal(vm *machine.Machine, s os.Signal, stderr io.Writer) {
	var status machine.Status
	if vm.Do(func() error { status = vm.Status(); return nil }) != nil {
		return // it has ended
	}
	if status != machine.Running {
		vm.Kill(fmt.Sprintf("%s: its guest does not run (%s)", s, status))
		return
	}
	fmt.Fprintf(stderr, "berth: %s: pressing the power button; a second signal stops the VM at once\n", s)
	vm.PowerButton()
}

// watchSize tells the guest how large the terminal is, now and whenever that
// changes. The returned function ends the watch.
func watchSize(vm *machine.Machine, terminal *os.File) (stop func()) {
	tell := func() {
		if cols, rows, err := term.GetSize(int(terminal.Fd())); err == nil {
			vm.Resize(cols, rows)
		}
	}
	tell()
	changes, done := make(chan os.Signal, 1), make(chan struct{})
	signal.Notify(changes, unix.SIGWINCH)
	go func() {
		defer close(done)
		for range changes {
			tell()
		}
	}()
	return func() {
		signal.Stop(changes)
		close(changes)
		<-done // vm may be closed from now on
	}
}

// ended turns an outcome into the error that carries its status and its line.
func ended(o machine.Outcome, verbose bool) error {
	e := &exitError{status: statusOf(o)}
	switch o.Kind {
	case machine.TripleFault, machine.InternalError:
		e.text = fmt.Sprintf("vCPU %d: %s", o.VCPU, o.Detail)
		if verbose {
			e.text += fmt.Sprintf("; RIP 0x%x: %s", o.RIP, hexBytes(o.Bytes))
		}
	case machine.ResetLoop, machine.Killed, machine.Panicked:
		e.text = o.Detail
	}
	if e.status == statusOK {
		return nil
	}
	return e
}

func hexBytes(p []byte) string {
	if len(p) == 0 {
		return "not readable"
	}
	return strings.TrimSuffix(fmt.Sprintf("% x", p), " ")
}
