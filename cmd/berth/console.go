package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"sync"
)

const consoleHelp = `
berth: Ctrl-A X       leave%s
berth: Ctrl-A C       turn between console and monitor
berth: Ctrl-A H       this help
berth: Ctrl-A Ctrl-A  send Ctrl-A to the guest
`

// console joins the guest's serial port to standard input and output. It is
// the UART's chardev.Port. What is typed may go to the VM's human monitor instead,
// which has the same standard output.
type console struct {
	stdin       *os.File
	stdout      io.Writer
	interactive bool
	keys        escapes
	// Set before pump:
	leave  func()                   // what Ctrl-A X does
	attach func() (net.Conn, error) // connects to the monitor; nil: there is none
	alone  bool                     // only the monitor is here: the guest's bytes are elsewhere

	typed  chan []byte
	rest   []byte // of the chunk that Read took last
	closed chan struct{}
	once   sync.Once

	mu        sync.Mutex
	monitor   chan<- []byte // what is typed to the monitor; nil: it is not connected
	onMonitor bool
}

// chunks of typed input that wait for a guest that does not read.
const typedAhead = 64

func newConsole(stdin *os.File, stdout, stderr io.Writer, interactive bool) *console {
	c := &console{
		stdin: stdin, stdout: stdout, interactive: interactive,
		typed: make(chan []byte, typedAhead), closed: make(chan struct{}),
	}
	c.keys = escapes{
		leave: func() { c.leave() },
		help:  func() { fmt.Fprintf(stderr, consoleHelp, ": stop the VM at once") },
		turn:  c.turn,
	}
	return c
}

// Write passes the guest's bytes to standard output.
func (c *console) Write(p []byte) (int, error) { return c.stdout.Write(p) }

// Read waits for bytes for the guest.
func (c *console) Read(p []byte) (int, error) {
	for len(c.rest) == 0 {
		select {
		case chunk, ok := <-c.typed:
			if !ok {
				return 0, io.EOF
			}
			c.rest = chunk
		case <-c.closed:
			return 0, io.EOF
		}
	}
	n := copy(p, c.rest)
	c.rest = c.rest[n:]
	return n, nil
}

// Close ends a Read that waits.
func (c *console) Close() error {
	c.once.Do(func() { close(c.closed) })
	return nil
}

// pump reads standard input until it ends, whether the guest reads or not: on a
// terminal the escape sequences must always work, so what a deaf guest does not
// take is dropped there. Bytes from a file or a pipe all wait for the guest.
func (c *console) pump() {
	defer close(c.typed)
	if c.alone {
		c.turn(nil)
	}
	for {
		buf := make([]byte, 4096)
		n, err := c.stdin.Read(buf)
		if p := buf[:n]; c.interactive {
			c.deliver(c.keys.filter(p))
		} else if n > 0 && !c.wait(p) {
			return
		}
		if err != nil {
			return
		}
	}
}

// deliver gives what was typed to whom it is meant for, unless they are behind.
func (c *console) deliver(p []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	to := chan<- []byte(c.typed)
	if c.onMonitor {
		to = c.monitor
	}
	if len(p) > 0 {
		select {
		case to <- p:
		default:
		}
	}
}

// wait gives p to whom it is meant for and waits until they take it; false: they never will.
func (c *console) wait(p []byte) bool {
	c.mu.Lock()
	to := chan<- []byte(c.typed)
	if c.onMonitor {
		to = c.monitor
	}
	c.mu.Unlock()
	select {
	case to <- p:
		return true
	case <-c.closed:
		return false
	}
}

// turn has what is typed from now on go to the other of console and monitor.
func (c *console) turn(before []byte) {
	c.deliver(append([]byte(nil), before...))
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.attach == nil, c.onMonitor && c.alone:
	case c.onMonitor:
		c.onMonitor = false
		fmt.Fprint(c.stdout, "\r\n")
	case c.monitor != nil:
		c.onMonitor = true
		select {
		case c.monitor <- []byte("\r"): // for its prompt
		default:
		}
	default:
		c.connect()
	}
}

// connect begins a session with the monitor. mu is held.
func (c *console) connect() {
	conn, err := c.attach()
	if err != nil {
		fmt.Fprintf(c.stdout, "\r\nberth: the monitor does not answer: %v\r\n", err)
		return
	}
	typed := make(chan []byte, typedAhead)
	c.monitor, c.onMonitor = typed, true
	ended := make(chan struct{})
	go func() {
		for {
			select {
			case p := <-typed:
				_, _ = conn.Write(p)
			case <-ended:
				return
			}
		}
	}()
	go func() {
		if c.interactive {
			fmt.Fprint(c.stdout, "\r\n")
		}
		_, _ = io.Copy(c.stdout, conn)
		close(ended)
		_ = conn.Close()
		c.mu.Lock()
		defer c.mu.Unlock()
		c.monitor, c.onMonitor = nil, false
		fmt.Fprint(c.stdout, "\r\n")
	}()
}
