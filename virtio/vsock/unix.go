package vsock

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Unix is a guest's ports as Unix sockets, by Firecracker's convention: a program of
// the host connects to PATH and says "CONNECT PORT\n"; when somebody in the guest has
// taken the connection, it is told "OK PORT\n", the port being its own, and the rest
// are the connection's bytes. The guest's connections to port N go to PATH_N.
type Unix struct {
	path     string
	listener *net.UnixListener
	slots    chan struct{} // one for each that is being greeted

	mu     sync.Mutex
	closed bool
	early  map[net.Conn]bool // those that have not said where they want to go
}

const (
	maxGreetings = 64
	greetingTime = 10 * time.Second
	maxGreeting  = 32 // bytes of "CONNECT PORT\n"
)

// NewUnix takes a listener at path, which it closes.
func NewUnix(path string, l *net.UnixListener) *Unix {
	return &Unix{path: path, listener: l, slots: make(chan struct{}, maxGreetings), early: map[net.Conn]bool{}}
}

// Dial implements Host.
func (u *Unix) Dial(port uint32) (Conn, error) {
	c, err := net.DialTimeout("unix", fmt.Sprintf("%s_%d", u.path, port), greetingTime)
	if err != nil {
		return nil, err
	}
	return c.(*net.UnixConn), nil
}

// Serve gives who connects to d, until Close.
func (u *Unix) Serve(d *Device) {
	for {
		c, err := u.listener.AcceptUnix()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil: // no descriptors left, or the like
			time.Sleep(10 * time.Millisecond)
			continue
		}
		u.slots <- struct{}{}
		go func() {
			defer func() { <-u.slots }()
			u.greet(c, d)
		}()
	}
}

// greet reads where c wants to go and has d connect it.
func (u *Unix) greet(c *net.UnixConn, d *Device) {
	u.mu.Lock()
	closed := u.closed
	u.early[c] = true
	u.mu.Unlock()
	port, err := uint32(0), net.ErrClosed
	if !closed {
		_ = c.SetDeadline(time.Now().Add(greetingTime))
		port, err = readGreeting(c)
		_ = c.SetDeadline(time.Time{})
	}
	u.mu.Lock()
	delete(u.early, c)
	u.mu.Unlock()
	if err != nil {
		_ = c.Close()
		return
	}
	_ = d.Connect(port, c, func(own uint32) error {
		_, err := fmt.Fprintf(c, "OK %d\n", own)
		return err
	})
}

// readGreeting reads "CONNECT PORT\n" and not a byte more.
func readGreeting(r io.Reader) (uint32, error) {
	var line []byte
	for len(line) < maxGreeting {
		var b [1]byte
		if _, err := io.ReadFull(r, b[:]); err != nil {
			return 0, err
		}
		if b[0] != '\n' {
			line = append(line, b[0])
			continue
		}
		text, ok := strings.CutPrefix(strings.TrimSuffix(string(line), "\r"), "CONNECT ")
		if !ok {
			break
		}
		port, err := strconv.ParseUint(text, 10, 32)
		return uint32(port), err
	}
	return 0, errors.New("virtio/vsock: not a greeting: say CONNECT and a port")
}

// Close takes no more connections; those that there are end with the device's reset.
func (u *Unix) Close() error {
	u.mu.Lock()
	u.closed = true
	for c := range u.early {
		_ = c.Close()
	}
	u.mu.Unlock()
	err := u.listener.Close()
	if rm := os.Remove(u.path); rm != nil && !errors.Is(rm, os.ErrNotExist) {
		err = errors.Join(err, rm)
	}
	return err
}
