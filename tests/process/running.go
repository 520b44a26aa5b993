package process

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"time"
)

// Running is a program that has a time limit. Its standard input is open and,
// unless written to, silent, as an idle terminal is.
type Running struct {
	Stdin    io.Writer
	Stdout   io.Reader // to be read to its end before Wait
	cmd      *exec.Cmd
	said     bytes.Buffer
	watchdog *time.Timer
}

// Start starts a program, which is killed when the limit is over.
func Start(limit time.Duration, name string, args ...string) (*Running, error) {
	r := &Running{cmd: exec.Command(name, args...)}
	r.cmd.Stderr = &r.said
	in, err := r.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := r.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	r.Stdin, r.Stdout = in, out
	if err := r.cmd.Start(); err != nil {
		return nil, err
	}
	r.watchdog = time.AfterFunc(limit, func() { _ = r.cmd.Process.Kill() })
	return r, nil
}

// PID is the process's.
func (r *Running) PID() int { return r.cmd.Process.Pid }

// Wait waits for the program's end. The error is exec.Cmd.Wait's.
func (r *Running) Wait() (*os.ProcessState, error) {
	err := r.cmd.Wait()
	r.watchdog.Stop()
	return r.cmd.ProcessState, err
}

// Kill ends the program. It may have ended before.
func (r *Running) Kill() {
	_ = r.cmd.Process.Kill()
	_, _ = r.Wait() // it was killed
}

// Errors is what the program said to standard error, after Wait or Kill.
func (r *Running) Errors() string { return r.said.String() }
