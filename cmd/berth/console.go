package main

import (
	"fmt"
	"io"
	"os"
	"sync"
)

const consoleHelp = `
berth: Ctrl-A X       leave: stop the VM at once
berth: Ctrl-A H       this help
berth: Ctrl-A Ctrl-A  send Ctrl-A to the guest
`

// console joins the guest's serial port to standard input and output. It is
// the UART's chardev.Port.
type console struct {
	stdin       *os.File
	stdout      io.Writer
	interactive bool
	keys        escapes
	leave       func() // what Ctrl-A X does; set before pump

	typed  chan []byte
	rest   []byte // of the chunk that Read took last
	closed chan struct{}
	once   sync.Once
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
		help:  func() { fmt.Fprint(stderr, consoleHelp) },
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
	for {
		buf := make([]byte, 4096)
		n, err := c.stdin.Read(buf)
		if p := buf[:n]; c.interactive {
			if p = c.keys.filter(p); len(p) > 0 {
				select {
				case c.typed <- p:
				default:
				}
			}
		} else if n > 0 {
			select {
			case c.typed <- p:
			case <-c.closed:
				return
			}
		}
		if err != nil {
			return
		}
	}
}
