package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"

	"berth/chardev"
	"berth/machine"
	"berth/monitor"
	"berth/rundir"
	"berth/spec"
)

// controls are the sockets from which a VM is controlled.
type controls struct {
	monitor   *monitor.Monitor
	listeners []net.Listener
	waits     []net.Listener // that the VM begins after
	dialed    []net.Conn
}

// openControls opens the sockets of a VM that is not there yet, one in its
// directory, if it has one, among them.
func openControls(list []spec.Control, dir *rundir.Dir, mon *monitor.Monitor) (*controls, error) {
	c := &controls{monitor: mon}
	if dir != nil {
		list = append(slices.Clone(list), spec.Control{Protocol: "qmp", Socket: dir.Path(rundir.QMPSocket), Server: true})
	}
	for _, s := range list {
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
			c.dialed = append(c.dialed, conn)
		}
		return err
	}
	var l net.Listener
	var err error
	if network == "unix" {
		l, err = chardev.ListenPrivate(address)
	} else {
		l, err = net.Listen(network, address)
	}
	if err != nil {
		return err
	}
	if s.Wait {
		c.waits = append(c.waits, l)
	} else {
		c.listeners = append(c.listeners, l)
	}
	return nil
}

// serve begins to answer; it returns once those have connected that the VM waits for.
func (c *controls) serve(vm *machine.Machine, stderr io.Writer) error {
	c.monitor.Attach(vm)
	for _, conn := range c.dialed {
		go c.monitor.Serve(conn)
	}
	for _, l := range c.listeners {
		go c.monitor.Accept(l)
	}
	for _, l := range c.waits {
		fmt.Fprintf(stderr, "berth: waiting for a connection to %s\n", l.Addr())
		conn, err := l.Accept()
		if err != nil {
			return fmt.Errorf("waiting for a connection to %s: %w", l.Addr(), err)
		}
		go c.monitor.Serve(conn)
		go c.monitor.Accept(l)
	}
	return nil
}

// close ends all sessions.
func (c *controls) close() error {
	var errs []error
	for _, l := range append(c.listeners, c.waits...) {
		errs = append(errs, l.Close())
	}
	c.monitor.Close()
	return errors.Join(errs...)
}

// hostHasKVM reports that there is a /dev/kvm, used or not.
func hostHasKVM() bool {
	_, err := os.Stat("/dev/kvm")
	return err == nil
}
