// Command berth turns a Linux machine into a hypervisor.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"berth/internal/suggest"
)

func main() {
	// The image commands last milliseconds: they start without what the others need.
	if startedAsQEMUImg(os.Args) {
		os.Exit(runImage(os.Args, os.Stdin, os.Stdout, os.Stderr))
	}
	if len(os.Args) > 1 && os.Args[1] == imageWord {
		os.Exit(runImage(imageArgs(os.Args[2:]), os.Stdin, os.Stdout, os.Stderr))
	}
	// The process's first thread, whose name is the process's, is kept from being
	// a vCPU's.
	runtime.LockOSThread()
	if len(os.Args) > 1 && os.Args[1] == "run" {
		calmRuntime()
	}
	os.Exit(berth(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// exitError carries the status to end with; its text, if any, is printed.
type exitError struct {
	status int
	text   string
}

func (e *exitError) Error() string { return e.text }

// berth runs one command line and returns the exit status.
func berth(args []string, stdin *os.File, stdout, stderr io.Writer) int {
	root := rootCommand(stdin, stdout, stderr)
	root.SetArgs(args)
	err := root.Execute()
	if err == nil {
		return statusOK
	}
	status := statusUsage
	var exit *exitError
	if errors.As(err, &exit) {
		status = exit.status
	}
	if text := err.Error(); text != "" {
		fmt.Fprintf(stderr, "berth: %s\n", text)
	}
	return status
}

func rootCommand(stdin *os.File, stdout, stderr io.Writer) *cobra.Command {
	root := &cobra.Command{
		Use:           "berth",
		Short:         "KVM virtualization in one binary",
		Long:          "berth runs virtual machines: on /dev/kvm where the host has it, on its own x86-64 engine where it has not.",
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          cobra.ArbitraryArgs,
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return c.Help()
			}
			return unknownCommand(c, args[0])
		},
	}
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.SetFlagErrorFunc(flagError)
	root.CompletionOptions.DisableDefaultCmd = true
	root.AddCommand(runCommand(stdin, stdout, stderr), doctorCommand(stdout), imageCommand(stdin, stdout, stderr), completionCommand(stdout), guardCmd())
	root.AddCommand(vmCommands(stdin, stdout, stderr)...)
	return root
}

func unknownCommand(root *cobra.Command, word string) error {
	var names []string
	for _, c := range root.Commands() {
		if !c.Hidden {
			names = append(names, c.Name())
		}
	}
	if near := suggest.Closest(word, names); near != "" {
		return fmt.Errorf("unknown command %q: did you mean %q?", word, near)
	}
	return fmt.Errorf("unknown command %q: see berth --help", word)
}

// flagError adds to pflag's complaint about an unknown flag what was probably meant.
func flagError(c *cobra.Command, err error) error {
	var unknown *pflag.NotExistError
	if !errors.As(err, &unknown) {
		return err
	}
	var names []string
	c.Flags().VisitAll(func(f *pflag.Flag) { names = append(names, f.Name) })
	word := strings.TrimLeft(unknown.GetSpecifiedName(), "-")
	if near := suggest.Closest(word, names); near != "" && len(word) > 1 {
		return fmt.Errorf("unknown flag --%s: did you mean --%s?", word, near)
	}
	return fmt.Errorf("%w: see %s --help", err, c.CommandPath())
}

func guardCmd() *cobra.Command {
	return &cobra.Command{
		Use: guardCommand, Hidden: true, Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return terminalGuard() },
	}
}
