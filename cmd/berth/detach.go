package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"

	"golang.org/x/sys/unix"

	"berth/chardev"
	"berth/rundir"
	"berth/spec"
)

// A VM in the background is a process of its own, begun by the one that was typed:
//
//	berth run --detach …          berth run --detached …
//	  checks the command line
//	  starts ------------------->  makes the VM; what it says goes to the terminal
//	  waits      <-- "ready" ----  has its output go to the log from now on, runs
//	  prints the name, ends
//
// readyFD is the descriptor on which the process in the background says that it is
// ready; it says nothing if it could not be.
const readyFD = 3

// detach runs the VM of the command line args in the background.
func detach(args []string, m spec.Machine, stdout, stderr io.Writer) error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	self, err := os.Executable()
	if err != nil {
		return err
	}
	c := exec.Command(self, append([]string{"run", "--detached"}, args...)...)
	c.Args[0] = "berth"
	c.Stdout, c.Stderr = stderr, stderr
	c.ExtraFiles = []*os.File{w}
	c.SysProcAttr = &unix.SysProcAttr{Setsid: true}
	err = c.Start()
	_ = w.Close()
	if err != nil {
		return err
	}
	said, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	if len(said) > 0 {
		fmt.Fprintln(stdout, m.Name)
		return nil
	}
	err = c.Wait()
	var status *exec.ExitError
	if errors.As(err, &status) {
		return &exitError{status: max(status.ExitCode(), statusUsage)} // it has said why
	}
	return errors.Join(errors.New("the VM ended before it began"), err)
}

// background has a VM in the background say that it is ready. From now on what it
// says goes to its log.
func background(d *rundir.Dir) error {
	log, err := os.OpenFile(d.Path(rundir.Log), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		return errors.Join(err, log.Close())
	}
	for to, from := range []*os.File{null, log, log} {
		if err := unix.Dup3(int(from.Fd()), to, 0); err != nil {
			return fmt.Errorf("standard output becomes the log: %w", err)
		}
	}
	ready := os.NewFile(readyFD, "ready")
	_, err = ready.WriteString("ready")
	return errors.Join(err, ready.Close(), log.Close(), null.Close())
}

// loggedConsole is the socket of a serial port whose bytes are kept in a file too.
type loggedConsole struct {
	*chardev.Socket
	mu   sync.Mutex
	log  *os.File
	size int // of the log, bytes
}

// maxConsoleLog is how long the log of a serial port gets, in bytes: a guest must not
// fill its host's disk. Then the older half of it goes.
const maxConsoleLog = 16 << 20

// newLoggedConsole makes the serial port's host end of a VM in the background.
func newLoggedConsole(d *rundir.Dir) (*loggedConsole, error) {
	log, err := os.OpenFile(d.Path(rundir.ConsoleText), os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	s, err := chardev.Listen(d.Path(rundir.Console))
	if err != nil {
		return nil, errors.Join(err, log.Close())
	}
	return &loggedConsole{Socket: s, log: log}, nil
}

// Write implements chardev.Port. A log that cannot be written, for the disk is full,
// is no reason to hold the guest.
func (c *loggedConsole) Write(p []byte) (int, error) {
	c.mu.Lock()
	c.keep(p)
	c.mu.Unlock()
	return c.Socket.Write(p)
}

// keep adds p to the log. mu is held.
func (c *loggedConsole) keep(p []byte) {
	if c.size+len(p) > maxConsoleLog {
		half := make([]byte, min(c.size, maxConsoleLog/2))
		n, _ := c.log.ReadAt(half, int64(c.size-len(half)))
		if c.log.Truncate(0) != nil {
			return
		}
		c.size, _ = c.log.Write(half[:n])
	}
	n, _ := c.log.Write(p)
	c.size += n
}

// Close implements chardev.Port.
func (c *loggedConsole) Close() error {
	err := c.Socket.Close()
	c.mu.Lock()
	defer c.mu.Unlock()
	return errors.Join(err, c.log.Close())
}
