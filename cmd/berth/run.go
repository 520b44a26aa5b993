package main

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"

	"github.com/lmittmann/tint"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"berth/machine"
	"berth/spec"
)

const runLong = `Run one virtual machine in the foreground, its serial console on this terminal.

Only the guest's bytes go to standard output; berth's own words go to standard
error. On a terminal, Ctrl-A X leaves and Ctrl-A H lists the keys.

SIGTERM and SIGINT press the power button; a second one stops the VM at once.

Exit status: 0 power-off, or left with Ctrl-A X; 2 bad input, or the VM could
not be started; 10 triple fault; 12 internal error of the engine; 14 the guest
reset itself again and again; 16 stopped by a second signal; with --debug-exit,
value*2+1 of what the guest wrote to port 0xf4.`

const runExample = `  berth run --kernel vmlinuz --initrd initrd.img --append console=ttyS0
  berth run --kernel vmlinuz --initrd initrd.img --append "console=ttyS0 root=/dev/vda" \
      --memory 2G --disk file=root.img,serial=ROOT --disk file=data.img,readonly=on`

// runFlags are the flags of berth run as typed.
type runFlags struct {
	machine spec.Machine
	memory  string
	disks   []string
	dryRun  bool
	verbose bool
}

func runCommand(stdin *os.File, stdout, stderr io.Writer) *cobra.Command {
	f := &runFlags{machine: spec.Default()}
	c := &cobra.Command{
		Use:     "run --kernel FILE [flags]",
		Short:   "Run a virtual machine in the foreground",
		Long:    runLong,
		Example: runExample,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return fmt.Errorf("run takes no argument %q: name the kernel with --kernel", args[0])
			}
			return nil
		},
		RunE: func(*cobra.Command, []string) error {
			m, err := f.spec()
			if err != nil {
				return err
			}
			if f.dryRun {
				e := json.NewEncoder(stdout)
				e.SetIndent("", "  ")
				return e.Encode(m)
			}
			return runMachine(m, f.verbose, stdin, stdout, stderr)
		},
	}
	m, flags := &f.machine, c.Flags()
	flags.SortFlags = false
	flags.StringVar(&m.Boot.Kernel, "kernel", "", "kernel `FILE`: bzImage or ELF vmlinux")
	flags.StringVar(&m.Boot.Initrd, "initrd", "", "initial RAM disk `FILE`")
	flags.StringVar(&m.Boot.Cmdline, "append", "", "kernel command line `STRING`")
	flags.StringVarP(&f.memory, "memory", "m", "512M", "guest RAM `SIZE`: a number with K, M, G or T; MiB without")
	flags.IntVar(&m.CPUs, "cpus", m.CPUs, "`N` virtual CPUs")
	flags.StringArrayVar(&f.disks, "disk", nil, "virtio disk `KEY=VALUE,…`: file=PATH[,format=raw][,readonly=on][,serial=TEXT]; may be repeated")
	flags.StringVar(&m.Accel, "accel", m.Accel, "`ENGINE` that runs the guest: auto, kvm or soft")
	flags.StringVar(&m.Name, "name", m.Name, "`NAME` of the VM, which ps and top show for the process")
	flags.StringVar(&m.Boot.Decompress, "decompress", m.Boot.Decompress, "`WHERE` a bzImage is unpacked: host, guest or auto (host for soft, guest for KVM)")
	flags.BoolVar(&m.DebugExit, "debug-exit", false, "a guest's write of v to port 0xf4 ends the VM with status v*2+1")
	flags.BoolVar(&m.NoReboot, "no-reboot", false, "end when the guest resets itself, with status 0")
	flags.BoolVar(&f.dryRun, "dry-run", false, "print the resulting spec as JSON and do nothing")
	flags.BoolVarP(&f.verbose, "verbose", "v", false, "say more on standard error")
	return c
}

// spec returns the validated machine that the flags describe.
func (f *runFlags) spec() (spec.Machine, error) {
	m := f.machine
	var err error
	if m.Memory, err = spec.ParseSize(f.memory); err != nil {
		return m, fmt.Errorf("--memory: %w", err)
	}
	for _, s := range f.disks {
		d, err := spec.ParseDisk(s)
		if err != nil {
			return m, fmt.Errorf("--disk: %w", err)
		}
		m.Disks = append(m.Disks, d)
	}
	return m, m.Validate()
}

// runMachine builds the VM, ties it to the terminal and the signals, and
// returns how it ended as an exitError.
func runMachine(m spec.Machine, verbose bool, stdin *os.File, stdout, stderr io.Writer) error {
	interactive := term.IsTerminal(int(stdin.Fd()))
	if interactive {
		stderr = crlfWriter{stderr}
	}
	level := slog.LevelWarn
	if verbose {
		level = slog.LevelDebug
	}
	log := slog.New(tint.NewHandler(stderr, &tint.Options{Level: level, TimeFormat: "15:04:05.000", NoColor: !interactive}))
	accelerator, why, err := chooseAccelerator(m, log)
	if err != nil {
		return err
	}
	console := newConsole(stdin, stdout, stderr, interactive)
	vm, err := machine.New(machine.Config{Spec: m, Accelerator: accelerator, Console: console, Log: log})
	if err != nil {
		return err
	}
	defer vm.Close()
	if err := os.WriteFile("/proc/self/comm", []byte(m.Name), 0); err != nil {
		log.Warn("naming the process", "err", err)
	}
	fmt.Fprintf(stderr, "berth: %s: %s\n", accelerator.Name(), why)
	if interactive {
		raw, err := makeRaw(stdin)
		if err != nil {
			return err
		}
		defer raw.restore()
		fmt.Fprintln(stderr, "berth: Ctrl-A X leaves, Ctrl-A H for help")
	}
	console.leave = vm.Stop
	go console.pump()
	defer watchSignals(vm, stderr)()
	outcome, err := vm.Run()
	if err != nil {
		return err
	}
	return ended(outcome, verbose)
}

// watchSignals presses the power button at the first SIGTERM, SIGINT, SIGHUP
// or SIGQUIT and stops the VM at the second. The returned function ends the watch.
func watchSignals(vm *machine.Machine, stderr io.Writer) (stop func()) {
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGQUIT)
	go func() {
		pressed := false
		for s := range signals {
			if pressed {
				vm.Kill(fmt.Sprintf("a second signal (%s)", s))
				continue
			}
			pressed = true
			fmt.Fprintf(stderr, "berth: %s: pressing the power button; a second signal stops the VM at once\n", s)
			vm.PowerButton()
		}
	}()
	return func() {
		signal.Stop(signals)
		close(signals)
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
	case machine.ResetLoop, machine.Killed:
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
