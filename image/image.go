// Package image is the command line of disk images: every command of qemu-img 7.2, its options, texts and exit statuses.
package image

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync/atomic"
)

// command is one of the tool's commands.
type command struct {
	name, usage string // usage: what may follow the name
	make        func() action
}

// action is one run of a command: it holds what its options have set.
type action interface {
	options(c *call) []option
	run(c *call, operands []string) error
}

// commands lists them in the order that help prints.
func commands() []command {
	return []command{
		{"amend", `[--object objectdef] [--image-opts] [-p] [-q] [-f fmt] [-t cache] [--force] -o options filename`, newAmend},
		{"bench", `[-c count] [-d depth] [-f fmt] [--flush-interval=flush_interval] [-i aio] [-n] [--no-drain] [-o offset] [--pattern=pattern] [-q] [-s buffer_size] [-S step_size] [-t cache] [-w] [-U] filename`, func() action { return &bench{} }},
		{"bitmap", `(--merge SOURCE | --add | --remove | --clear | --enable | --disable)... [-b source_file [-F source_fmt]] [-g granularity] [--object objectdef] [--image-opts | -f fmt] filename bitmap`, func() action { return &bitmap{} }},
		{"check", `[--object objectdef] [--image-opts] [-q] [-f fmt] [--output=ofmt] [-r [leaks | all]] [-T src_cache] [-U] filename`, newCheck},
		{"commit", `[--object objectdef] [--image-opts] [-q] [-f fmt] [-t cache] [-b base] [-r rate_limit] [-d] [-p] filename`, func() action { return &commit{} }},
		{"compare", `[--object objectdef] [--image-opts] [-f fmt] [-F fmt] [-T src_cache] [-p] [-q] [-s] [-U] filename1 filename2`, func() action { return &compare{} }},
		{"convert", `[--object objectdef] [--image-opts] [--target-image-opts] [--target-is-zero] [--bitmaps] [-U] [-C] [-c] [-p] [-q] [-n] [-f fmt] [-t cache] [-T src_cache] [-O output_fmt] [-B backing_file [-F backing_fmt]] [-o options] [-l snapshot_param] [-S sparse_size] [-r rate_limit] [-m num_coroutines] [-W] [--salvage] filename [filename2 [...]] output_filename`, newConvert},
		{"create", `[--object objectdef] [-q] [-f fmt] [-b backing_file [-F backing_fmt]] [-u] [-o options] filename [size]`, newCreate},
		{"dd", `[--image-opts] [-U] [-f fmt] [-O output_fmt] [bs=block_size] [count=blocks] [skip=blocks] if=input of=output`, newDD},
		{"info", `[--object objectdef] [--image-opts] [-f fmt] [--output=ofmt] [--backing-chain] [-U] filename`, newInfo},
		{"map", `[--object objectdef] [--image-opts] [-f fmt] [--start-offset=offset] [--max-length=len] [--output=ofmt] [-U] filename`, newMapping},
		{"measure", `[--output=ofmt] [-O output_fmt] [-o options] [--size N | [--object objectdef] [--image-opts] [-f fmt] [-l snapshot_param] filename]`, newMeasure},
		{"snapshot", `[--object objectdef] [--image-opts] [-U] [-q] [-l | -a snapshot | -c snapshot | -d snapshot] filename`, func() action { return &snapshot{} }},
		{"rebase", `[--object objectdef] [--image-opts] [-U] [-q] [-f fmt] [-t cache] [-T src_cache] [-p] [-u] -b backing_file [-F backing_fmt] filename`, func() action { return &rebase{} }},
		{"resize", `[--object objectdef] [--image-opts] [-f fmt] [--preallocation=prealloc] [-q] [--shrink] filename [+ | -]size`, func() action { return &resize{} }},
	}
}

// call is one command line being run.
type call struct {
	ctx     context.Context
	name    string // what messages and help call the program
	stdin   io.Reader
	stdout  *bufio.Writer
	stderr  io.Writer
	tty     bool        // stdout is a terminal
	objects []string    // ids of --object
	tidies  atomic.Bool // the command watches ctx, and ends itself when it is done
}

// Main runs one command line; args[0] is the name that messages begin with,
// "qemu-img" or "berth image". It returns the exit status. When ctx is done,
// commands that write stop, and leave nothing that looks whole but is not.
func Main(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	c := &call{ctx: ctx, name: filepath.Base(args[0]), stdin: stdin, stdout: bufio.NewWriter(stdout), stderr: stderr, tty: isTerminal(stdout)}
	err := c.mind(args)
	if errors.Is(err, errInterrupted) {
		return 1
	}
	status := c.finish(err)
	if err := c.stdout.Flush(); err != nil && status == 0 && !errors.Is(err, os.ErrClosed) {
		return 1
	}
	return status
}

// errInterrupted ends a command whose context is done.
var errInterrupted = errors.New("interrupted")

// mind runs the command line; it does not wait for a command that has nothing to put in order when
// ctx is done: whatever such a command is writing, it may be killed at any time.
func (c *call) mind(args []string) error {
	ended := make(chan error, 1)
	go func() { ended <- c.main(args) }()
	select {
	case err := <-ended:
		return err
	case <-c.ctx.Done():
	}
	if c.tidies.Load() {
		return <-ended
	}
	return errInterrupted
}

func (c *call) main(args []string) error {
	if len(args) < 2 {
		return misuse("Not enough arguments")
	}
	s := newScanner(args, []option{
		{short: 'h', long: "help", on: c.help},
		{short: 'V', long: "version", on: c.showVersion},
		{short: 'T', long: "trace", set: c.trace},
	})
	s.inOrder = true
	if err := c.scan(s); err != nil {
		return err
	}
	rest := s.operands()
	if len(rest) == 0 {
		return nil
	}
	for _, cmd := range commands() {
		if cmd.name == rest[0] {
			return c.command(cmd.make(), rest)
		}
	}
	return misuse("Command not found: %s", rest[0])
}

// command runs a on argv, of which argv[0] is the command's name.
func (c *call) command(a action, argv []string) error {
	var last []string
	if _, ok := a.(interface{ endsWithOperand() }); ok {
		if len(argv) < 3 {
			return misuse("Not enough arguments")
		}
		last = argv[len(argv)-1:]
		argv = argv[:len(argv)-1]
	}
	help := option{short: 'h', long: "help", on: c.help}
	s := newScanner(append([]string(nil), argv...), append([]option{help}, a.options(c)...))
	if _, ok := a.(interface{ helpsOnMisuse() }); ok {
		s.noise = c.stderr
	}
	if err := c.scan(s); err != nil {
		return err
	}
	return a.run(c, append(s.operands(), last...))
}

// scan calls what belongs to each option, in order.
func (c *call) scan(s *scanner) error {
	for {
		i := s.next()
		switch {
		case i == foundEnd:
			return nil
		case i < 0 && s.noise != nil:
			return c.help()
		case i == foundNoValue:
			return misuse("missing argument for option '%s'", s.previous())
		case i == foundUnknown:
			return misuse("unrecognized option '%s'", s.previous())
		}
		o := s.options[i]
		var err error
		if o.takesValue() {
			err = o.set(s.value)
		} else {
			err = o.on()
		}
		if err != nil {
			return err
		}
	}
}

// message is an error in QEMU's words; hint is what is printed under it.
type message struct {
	text, hint string
	misused    bool
}

func (m *message) Error() string { return m.text }

// failure is the error that ends a command with that message and status 1.
func failure(format string, a ...any) error { return &message{text: fmt.Sprintf(format, a...)} }

// misuse is failure with a word on where help is.
func misuse(format string, a ...any) error {
	return &message{text: fmt.Sprintf(format, a...), misused: true}
}

// exit ends a command with that status and without a message.
type exit int

func (e exit) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

const (
	failed exit = 1
	done   exit = 0
)

// finish prints err and returns the exit status that it means.
func (c *call) finish(err error) int {
	if err == nil {
		return 0
	}
	var e exit
	if errors.As(err, &e) {
		return int(e)
	}
	c.reportError("", err)
	return 1
}

// reportError prints err behind prefix, with the hint that it may carry.
func (c *call) reportError(prefix string, err error) {
	c.report("%s%s", prefix, err.Error())
	var m *message
	if errors.As(err, &m) && m.misused {
		fmt.Fprintf(c.stderr, "Try '%s --help' for more information\n", c.name)
	}
	if h := hint(err); h != "" {
		fmt.Fprint(c.stderr, h)
	}
}

// hint returns the lines of advice that err carries, or "".
func hint(err error) string {
	var h interface{ Hint() string }
	if errors.As(err, &h) {
		return h.Hint()
	}
	return ""
}

// Hint returns the lines to print under the message.
func (m *message) Hint() string { return m.hint }

// prefixed puts words before err's own, and keeps its hint.
func prefixed(err error, format string, a ...any) error {
	return &message{text: fmt.Sprintf(format, a...) + err.Error(), hint: hint(err)}
}

// report prints one line of a message.
func (c *call) report(format string, a ...any) {
	if c.tty {
		_ = c.stdout.Flush() // Main reports what stdout does not take
	}
	fmt.Fprintf(c.stderr, "%s: %s\n", c.name, fmt.Sprintf(format, a...))
}

func (c *call) warn(format string, a ...any) { c.report("warning: "+format, a...) }

// plain prints a line of a message that does not begin with the program's name.
func (c *call) plain(format string, a ...any) { fmt.Fprintf(c.stderr, format+"\n", a...) }

// printf prints a result.
func (c *call) printf(format string, a ...any) { fmt.Fprintf(c.stdout, format, a...) }

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	i, err := f.Stat()
	return err == nil && i.Mode()&os.ModeCharDevice != 0
}

// outputJSON reads --output's value.
func outputJSON(value string) (bool, error) {
	switch value {
	case "json":
		return true, nil
	case "human":
		return false, nil
	}
	return false, failure("--output must be used with human or json as argument.")
}

// oneImage returns the only operand.
func oneImage(operands []string) (string, error) {
	if len(operands) != 1 {
		return "", misuse("Expecting one image file name")
	}
	return operands[0], nil
}
