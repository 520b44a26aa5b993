package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"

	"berth/image"
)

// qemuImg is the name under which berth is only that tool.
const qemuImg = "qemu-img"

// imageWord is the command of berth that holds the image commands.
const imageWord = "image"

// imageArgs is what runImage takes for berth image with those arguments.
func imageArgs(args []string) []string { return append([]string{"berth " + imageWord}, args...) }

// startedAsQEMUImg tells whether the program was started under that name.
func startedAsQEMUImg(args []string) bool {
	return len(args) > 0 && filepath.Base(args[0]) == qemuImg
}

// runImage runs one of the image commands; args[0] is what messages call the
// program. SIGINT, SIGTERM and SIGHUP let a command put in order what it was
// writing; then the process dies of the signal, as qemu-img does at once.
func runImage(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	signal.Ignore(syscall.SIGPIPE)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	signals := make(chan os.Signal, 1)
	caught := make(chan syscall.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	go func() {
		s, _ := (<-signals).(syscall.Signal)
		signal.Reset(syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP) // a second one kills
		caught <- s
		cancel()
	}()
	status := image.Main(ctx, args, stdin, stdout, stderr)
	if ctx.Err() != nil {
		_ = syscall.Kill(os.Getpid(), <-caught)
		return 1
	}
	return status
}

func imageCommand(stdin io.Reader, stdout, stderr io.Writer) *cobra.Command {
	return &cobra.Command{
		Use:                imageWord,
		Short:              "Make, look at and change disk images: the commands and options of qemu-img",
		DisableFlagParsing: true,
		ValidArgsFunction: func(_ *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
			words, files := image.Complete(args, typed)
			if files {
				return words, cobra.ShellCompDirectiveDefault
			}
			return words, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(_ *cobra.Command, args []string) error {
			status := runImage(imageArgs(args), stdin, stdout, stderr)
			if status != statusOK {
				return &exitError{status: status}
			}
			return nil
		},
	}
}
