package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// guardCommand is the hidden command that terminalGuard runs.
const guardCommand = "terminal-guard"

// rawTerminal is a terminal in raw mode. A small child process holds the
// terminal's old settings and puts them back when this process is gone
// without having done so itself: after a crash or a SIGKILL as well.
type rawTerminal struct {
	fd    int
	old   *term.State
	guard *exec.Cmd
	pipe  *os.File
	once  sync.Once
}

// makeRaw switches the terminal f to raw mode until restore.
func makeRaw(f *os.File) (*rawTerminal, error) {
	t := &rawTerminal{fd: int(f.Fd())}
	if err := t.startGuard(f); err != nil {
		return nil, fmt.Errorf("guarding the terminal: %w", err)
	}
	old, err := term.MakeRaw(t.fd)
	if err != nil {
		t.restore()
		return nil, fmt.Errorf("setting the terminal to raw mode: %w", err)
	}
	t.old = old
	return t, nil
}

// startGuard returns once the guard has read the terminal's settings.
func (t *rawTerminal) startGuard(f *os.File) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	t.pipe = w
	t.guard = &exec.Cmd{Path: self, Args: []string{"berth", guardCommand}}
	t.guard.Stdin = f
	t.guard.ExtraFiles = []*os.File{r}
	t.guard.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	ready, err := t.guard.StdoutPipe()
	if err == nil {
		err = t.guard.Start()
	}
	if err == nil {
		_, err = io.ReadFull(ready, make([]byte, 1))
	}
	return err
}

// restore puts the terminal back and lets the guard go. It may be called more than once.
func (t *rawTerminal) restore() {
	t.once.Do(func() {
		if t.old != nil {
			_ = term.Restore(t.fd, t.old)
		}
		_, _ = t.pipe.Write([]byte{'k'})
		t.pipe.Close()
		if t.guard.Process != nil {
			_ = t.guard.Wait()
		}
	})
}

// terminalGuard is the child's side: it says on standard output that it has the
// settings of the terminal on standard input, then waits on descriptor 3. A
// byte means that all is well, its end without one that berth is gone.
func terminalGuard() error {
	signal.Ignore(unix.SIGTTOU, unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT, unix.SIGTSTP)
	old, err := term.GetState(0)
	if err != nil {
		return err
	}
	if _, err := os.Stdout.Write([]byte{'r'}); err != nil {
		return err
	}
	if n, _ := os.NewFile(3, "pipe").Read(make([]byte, 1)); n == 0 {
		return term.Restore(0, old)
	}
	return nil
}

// crlfWriter ends lines as a terminal in raw mode needs it.
type crlfWriter struct{ w io.Writer }

func (c crlfWriter) Write(p []byte) (int, error) {
	if _, err := c.w.Write(bytes.ReplaceAll(p, []byte("\n"), []byte("\r\n"))); err != nil {
		return 0, err
	}
	return len(p), nil
}
