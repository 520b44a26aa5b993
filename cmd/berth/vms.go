package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"berth/rundir"
)

// answerTime is how long a VM's monitor may take to answer.
const answerTime = 5 * time.Second

// vmCommands are the commands about VMs that run.
func vmCommands(stdin *os.File, stdout, stderr io.Writer) []*cobra.Command {
	commands := []*cobra.Command{
		psCommand(stdout), consoleCommand(stdin, stdout, stderr), monitorCommand(stdin, stdout, stderr), stopCommand(), killCommand(),
		logsCommand(stdout), topCommand(stdout), sshCommand(stdin, stdout, stderr),
	}
	for _, c := range []struct{ name, short, qmp string }{
		{"pause", "Halt a running VM: its vCPUs, devices and time", "stop"},
		{"resume", "Let a paused VM go on", "cont"},
		{"reset", "Reset a running VM, as a PC's reset button does", "system_reset"},
	} {
		commands = append(commands, vmCommand(c.name+" VM", c.short, func(ctx context.Context, v *rundir.VM) error {
			return ask(ctx, v, c.qmp, nil, nil)
		}))
	}
	return commands
}

// vmCommand is a command about one running VM.
func vmCommand(use, short string, run func(ctx context.Context, v *rundir.VM) error) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) != 1 {
				return fmt.Errorf("%s takes the name of a running VM: berth ps lists them", c.Name())
			}
			return nil
		},
		ValidArgsFunction: completeVM,
		RunE: func(c *cobra.Command, args []string) error {
			v, err := rundir.Find(rundir.Root(), args[0])
			if err != nil {
				return err
			}
			return run(c.Context(), v)
		},
	}
}

func completeVM(_ *cobra.Command, args []string, _ string) (names []string, _ cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	list, _ := rundir.List(rundir.Root())
	for _, v := range list {
		names = append(names, v.Name)
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// ask runs one QMP command of a VM; args and answer may be nil.
func ask(ctx context.Context, v *rundir.VM, command string, args, answer any) error {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	c, err := v.Monitor(ctx, nil)
	if err != nil {
		return err
	}
	defer c.Close()
	return c.Do(ctx, command, args, answer)
}

// row is a VM as ps shows it.
type row struct {
	Name   string    `json:"name"`
	PID    int       `json:"pid"`
	Status string    `json:"status"`
	CPUs   int       `json:"cpus"`
	Memory int64     `json:"memory"` // bytes
	Since  time.Time `json:"since"`
}

func psCommand(stdout io.Writer) *cobra.Command {
	var format string
	c := &cobra.Command{
		Use: "ps", Short: "List the VMs that run", Args: cobra.NoArgs,
		Long: "List this user's VMs that run and have a name (berth run --name).",
		RunE: func(c *cobra.Command, _ []string) error {
			list, err := rundir.List(rundir.Root())
			if err != nil {
				return err
			}
			rows := []row{}
			for _, v := range list {
				rows = append(rows, row{v.Name, v.PID, statusOfVM(c.Context(), &v), v.Spec.CPUs.Count, int64(v.Spec.Memory.Size), v.Since})
			}
			return printRows(stdout, rows, format)
		},
	}
	c.Flags().StringVarP(&format, "output", "o", "table", "`FORMAT`: table or json")
	return c
}

// statusOfVM is what the VM's monitor says, or that it does not answer.
func statusOfVM(ctx context.Context, v *rundir.VM) string {
	var s struct {
		Status string `json:"status"`
	}
	if err := ask(ctx, v, "query-status", nil, &s); err != nil {
		return "no answer"
	}
	return s.Status
}

func printRows(w io.Writer, rows []row, format string) error {
	switch format {
	case "json":
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(rows)
	case "table":
		t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
		fmt.Fprintln(t, "NAME\tPID\tSTATUS\tCPUS\tMEMORY\tUP")
		for _, r := range rows {
			fmt.Fprintf(t, "%s\t%d\t%s\t%d\t%d MiB\t%s\n", r.Name, r.PID, r.Status, r.CPUs, r.Memory>>20, time.Since(r.Since).Round(time.Second))
		}
		return t.Flush()
	}
	return fmt.Errorf("--output: %q is not known: use table or json", format)
}

func stopCommand() *cobra.Command {
	var patience time.Duration
	var now bool
	c := vmCommand("stop VM", "End a VM: press its power button, and end it at once if that does not help", func(ctx context.Context, v *rundir.VM) error {
		if !now {
			if err := ask(ctx, v, "system_powerdown", nil, nil); err != nil {
				return err
			}
			wait, cancel := context.WithTimeout(ctx, patience)
			defer cancel()
			if err := v.Wait(wait); !errors.Is(err, context.DeadlineExceeded) {
				return err
			}
		}
		if err := ask(ctx, v, "quit", nil, nil); err != nil {
			return err
		}
		wait, cancel := context.WithTimeout(ctx, answerTime)
		defer cancel()
		if err := v.Wait(wait); err != nil {
			return fmt.Errorf("%s does not end (%w): berth kill %s ends its process", v.Name, err, v.Name)
		}
		return nil
	})
	c.Flags().DurationVarP(&patience, "timeout", "t", 90*time.Second, "how long the guest may take to power off, `TIME`")
	c.Flags().BoolVar(&now, "now", false, "end it at once: the guest is not asked, its disks are closed in order")
	return c
}

func killCommand() *cobra.Command {
	return vmCommand("kill VM", "Kill a VM's process, as the power fails", func(ctx context.Context, v *rundir.VM) error {
		if err := v.Kill(); err != nil {
			return err
		}
		if err := v.Wait(ctx); err != nil {
			return err
		}
		_, err := rundir.Find(rundir.Root(), v.Name) // which removes what it left
		if errors.Is(err, rundir.ErrNotFound) {
			return nil
		}
		return err
	})
}

func logsCommand(stdout io.Writer) *cobra.Command {
	var follow, console bool
	c := vmCommand("logs VM", "Print what berth said of a VM in the background, or its serial port did", func(ctx context.Context, v *rundir.VM) error {
		name := rundir.Log
		if console {
			name = rundir.ConsoleText
		}
		f, err := os.Open(v.Path(name))
		if err != nil {
			return fmt.Errorf("%s has no log: it does not run in the background", v.Name)
		}
		defer f.Close()
		for {
			if _, err := io.Copy(stdout, f); err != nil || !follow {
				return err
			}
			if err := rewound(f); err != nil {
				return err
			}
			wait, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
			ended := v.Wait(wait) == nil
			cancel()
			if ended {
				_, err := io.Copy(stdout, f)
				return err
			}
		}
	})
	c.Flags().BoolVarP(&follow, "follow", "f", false, "go on until the VM ends")
	c.Flags().BoolVar(&console, "console", false, "what the guest wrote to its serial port")
	return c
}

// rewound goes on at the end of a log that has become shorter.
func rewound(f *os.File) error {
	at, err := f.Seek(0, io.SeekCurrent)
	if err != nil {
		return err
	}
	if end, err := f.Seek(0, io.SeekEnd); err != nil || end < at {
		return err
	}
	_, err = f.Seek(at, io.SeekStart)
	return err
}

// consoleCommand joins the terminal to the serial port of a VM in the background.
func consoleCommand(stdin *os.File, stdout, stderr io.Writer) *cobra.Command {
	return vmCommand("console VM", "Join the terminal to a VM's serial port; Ctrl-A X leaves, the VM goes on", func(ctx context.Context, v *rundir.VM) error {
		var d net.Dialer
		conn, err := d.DialContext(ctx, "unix", v.Path(rundir.Console))
		if err != nil {
			return fmt.Errorf("%s has no console to join: it does not run in the background", v.Name)
		}
		defer conn.Close()
		interactive := term.IsTerminal(int(stdin.Fd()))
		if interactive {
			raw, err := makeRaw(stdin)
			if err != nil {
				return err
			}
			defer raw.restore()
			fmt.Fprint(stderr, "berth: Ctrl-A X leaves, the VM goes on\r\n")
		}
		typed := newConsole(stdin, stdout, stderr, interactive)
		typed.leave = func() { _ = conn.Close() }
		typed.keys.help = func() { fmt.Fprintf(stderr, consoleHelp, ", the VM goes on") }
		typed.attach = func() (net.Conn, error) { return d.DialContext(ctx, "unix", v.Path(rundir.HMPSocket)) }
		go typed.pump()
		go func() { _, _ = io.Copy(conn, readerOnly{typed}) }()
		_, err = io.Copy(stdout, conn)
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		return err
	})
}

// readerOnly hides what else a Reader can do.
type readerOnly struct{ io.Reader }
