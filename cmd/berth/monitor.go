package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"berth/monitor"
	"berth/rundir"
)

const monitorLong = `Talk to a VM's monitor, in QEMU's words: help lists them. Ctrl-D or Ctrl-C
leaves, the VM goes on; quit ends the VM.

With words after the VM's name they are the one command that is run, and what it
prints is printed (quote a command with dashes in it). So is each line of a standard input that is no terminal.

With --qmp it is the machine protocol, one JSON object after the other.`

// monitorCommand joins the terminal to a VM's monitor.
func monitorCommand(stdin *os.File, stdout, stderr io.Writer) *cobra.Command {
	var raw bool
	c := &cobra.Command{
		Use: "monitor VM [COMMAND…]", Short: "Talk to a VM's monitor", Long: monitorLong,
		ValidArgsFunction: completeVM,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return errors.New("monitor takes the name of a running VM: berth ps lists them")
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			v, err := rundir.Find(rundir.Root(), args[0])
			switch {
			case err != nil:
				return err
			case raw && len(args) > 1:
				return errors.New("monitor: --qmp takes no command")
			case raw:
				return machineMonitor(c.Context(), v, stdin, stdout)
			case len(args) > 1:
				return humanLines(c.Context(), v, strings.NewReader(strings.Join(args[1:], " ")), stdout)
			case term.IsTerminal(int(stdin.Fd())):
				return humanMonitor(c.Context(), v, stdin, stdout, stderr)
			}
			return humanLines(c.Context(), v, stdin, stdout)
		},
	}
	c.Flags().BoolVar(&raw, "qmp", false, "speak QMP, one JSON object after the other; with --help: what there is to say")
	help := c.HelpFunc()
	c.SetHelpFunc(func(c *cobra.Command, args []string) {
		text, err := monitor.Documentation()
		if !raw || err != nil {
			help(c, args)
			return
		}
		_, _ = io.WriteString(stdout, text) // there is nobody to tell
	})
	return c
}

// dialMonitor connects to one of a VM's monitors.
func dialMonitor(ctx context.Context, v *rundir.VM, socket string) (net.Conn, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", v.Path(socket))
	if err != nil {
		return nil, fmt.Errorf("%s: its monitor does not answer: %w", v.Name, err)
	}
	return conn, nil
}

// machineMonitor passes QMP on.
func machineMonitor(ctx context.Context, v *rundir.VM, stdin *os.File, stdout io.Writer) error {
	conn, err := dialMonitor(ctx, v, rundir.QMPSocket)
	if err != nil {
		return err
	}
	defer conn.Close()
	go func() {
		_, _ = io.Copy(conn, stdin)
		_ = conn.(*net.UnixConn).CloseWrite()
	}()
	_, err = io.Copy(stdout, conn)
	return err
}

// humanMonitor joins the terminal to the human monitor.
func humanMonitor(ctx context.Context, v *rundir.VM, stdin *os.File, stdout, stderr io.Writer) error {
	conn, err := dialMonitor(ctx, v, rundir.HMPSocket)
	if err != nil {
		return err
	}
	defer conn.Close()
	raw, err := makeRaw(stdin)
	if err != nil {
		return err
	}
	defer raw.restore()
	fmt.Fprint(stderr, "berth: Ctrl-D leaves, the VM goes on\r\n")
	go func() { _, _ = io.Copy(conn, stdin) }()
	_, err = io.Copy(stdout, conn)
	fmt.Fprint(stderr, "\r\n")
	return err
}

// humanLines runs each line of in and prints what it says.
func humanLines(ctx context.Context, v *rundir.VM, in io.Reader, stdout io.Writer) error {
	c, err := v.Monitor(ctx, nil)
	if err != nil {
		return err
	}
	defer c.Close()
	lines := bufio.NewScanner(in)
	cpu := 0 // each line is a session of its own but for this
	for lines.Scan() {
		var out string
		line := map[string]any{"command-line": lines.Text(), "cpu-index": cpu}
		if err := c.Do(ctx, "human-monitor-command", line, &out); err != nil {
			return err
		}
		if index, ok := strings.CutPrefix(lines.Text(), "cpu "); ok && out == "" {
			if n, err := strconv.Atoi(strings.TrimSpace(index)); err == nil {
				cpu = n
			}
		}
		if _, err := io.WriteString(stdout, strings.ReplaceAll(out, "\r\n", "\n")); err != nil {
			return err
		}
	}
	return lines.Err()
}
