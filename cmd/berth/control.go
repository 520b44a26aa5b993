package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"slices"
	"time"

	"berth/chardev"
	"berth/gdb"
	"berth/monitor"
	"berth/rundir"
	"berth/spec"
)

// controls are the sockets from which a VM is controlled.
type controls struct {
	monitor   *monitor.Monitor
	debugger  *gdb.Stub
	listeners []listener
	dialed    []dialed
}

type listener struct {
	net.Listener
	protocol string
	wait     bool // the VM begins once somebody has connected
}

type dialed struct {
	net.Conn
	protocol string
}

// openControls opens the sockets of a VM that is not there yet, one in its
// directory, if it has one, among them.
func openControls(list []spec.Control, dir *rundir.Dir, mon *monitor.Monitor, debugger *gdb.Stub) (*controls, error) {
	c := &controls{monitor: mon, debugger: debugger}
	if dir != nil {
		list = append(slices.Clone(list),
			spec.Control{Protocol: "qmp", Socket: dir.Path(rundir.QMPSocket), Server: true},
			spec.Control{Protocol: "hmp", Socket: dir.Path(rundir.HMPSocket), Server: true})
	}
	for _, s := range list {
		if s.To == "stdio" {
			continue // the terminal's
		}
		if err := c.open(s); err != nil {
			return nil, errors.Join(fmt.Errorf("%s: %w", s.Protocol, err), c.close())
		}
	}
	return c, nil
}

func (c *controls) open(s spec.Control) error {
	network, address := "unix", s.Socket
	if s.TCP != "" {
		network, address = "tcp", s.TCP
	}
	if !s.Server {
		conn, err := net.Dial(network, address)
		if err == nil {
			c.dialed = append(c.dialed, dialed{conn, s.Protocol})
		}
		return err
	}
	var l net.Listener
	var err error
	if network == "unix" {
		l, err = chardev.ListenPrivate(address)
	} else {
		l, err = chardev.ListenLocal(address)
	}
	if err != nil {
		return err
	}
	c.listeners = append(c.listeners, listener{l, s.Protocol, s.Wait})
	return nil
}

// serve begins to answer; it returns once those have connected that the VM waits for, or
// a signal asks berth to end.
func (c *controls) serve(stderr io.Writer) error {
	for _, d := range c.dialed {
		go c.converse(d.Conn, d.protocol)
	}
	for _, l := range c.listeners {
		if !l.wait {
			go c.accept(l)
			continue
		}
		conn, err := l.first(stderr)
		if err != nil {
			return fmt.Errorf("waiting for a connection to %s: %w", l.Addr(), err)
		}
		go c.converse(conn, l.protocol)
		go c.accept(l)
	}
	return nil
}

// first is the first connection, unless a signal comes before.
func (l listener) first(stderr io.Writer) (net.Conn, error) {
	ctx, stop := signal.NotifyContext(context.Background(), endingSignals...)
	defer stop()
	defer context.AfterFunc(ctx, func() { _ = l.Close() })()
	fmt.Fprintf(stderr, "berth: waiting for a connection to %s\n", l.Addr())
	conn, err := l.Accept()
	if ctx.Err() != nil {
		if conn != nil {
			_ = conn.Close()
		}
		return nil, errors.New("ended by a signal")
	}
	return conn, err
}

// converse answers who is at the other end of conn.
func (c *controls) converse(conn net.Conn, protocol string) {
	switch protocol {
	case "hmp":
		c.monitor.ServeHuman(conn)
	case "gdb":
		c.debugger.Serve(conn)
	default:
		c.monitor.Serve(conn)
	}
}

// acceptPause is how long nobody is accepted after that has failed.
const acceptPause = 100 * time.Millisecond

// accept does so for whoever connects.
func (c *controls) accept(l listener) {
	for {
		conn, err := l.Accept()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil: // too many descriptors are open: some are closed soon
			time.Sleep(acceptPause)
			continue
		}
		go c.converse(conn, l.protocol)
	}
}

// human is a connection to the human monitor.
func (c *controls) human() (net.Conn, error) {
	here, there := net.Pipe()
	go c.monitor.ServeHuman(there)
	return here, nil
}

// close ends all sessions.
func (c *controls) close() error {
	var errs []error
	for _, l := range c.listeners {
		errs = append(errs, l.Close())
	}
	c.debugger.Close()
	c.monitor.Close()
	return errors.Join(errs...)
}

// hostHasKVM reports that there is a /dev/kvm, used or not.
func hostHasKVM() bool {
	_, err := os.Stat("/dev/kvm")
	return err == nil
}
