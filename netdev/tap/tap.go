// Package tap is the ports that are interfaces of the host: TAP devices, alone or as ports of a bridge.
package tap

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"berth/netdev"
)

// Config is what a tap is made from: descriptors of one that is open, or a name.
type Config struct {
	// Name is the interface's. If there is none of that name it is made, and goes with the
	// port; "" has the host choose one.
	Name   string
	Queues int   // 0: 1
	FDs    []int // one a queue, which are the port's from now on
	// Bridge is one of the host's that the interface becomes a port of.
	Bridge string
	// MTU of an interface that is made; 0: the bridge's, or the host's own choice.
	MTU int
	// GuestMAC is the guest's address, which that of an interface on a bridge is made from.
	GuestMAC [6]byte
}

// Tap is a port of one or more queues.
type Tap struct {
	name   string
	queues []*queue
}

// Open opens or makes the interface.
func Open(c Config) (*Tap, error) {
	t := &Tap{}
	err := t.open(c)
	if err != nil {
		return nil, fmt.Errorf("tap%s: %w", prefixed(" ", cmp.Or(t.name, c.Name)), errors.Join(err, t.Close()))
	}
	return t, nil
}

func prefixed(before, s string) string {
	if s == "" {
		return ""
	}
	return before + s
}

func (t *Tap) open(c Config) error {
	if len(c.FDs) > 0 {
		return t.inherit(c.FDs)
	}
	there, several, err := existing(c.Name)
	if err != nil {
		return err
	}
	n := max(c.Queues, 1)
	if !there {
		several = n > 1
	}
	if n > 1 && !several {
		return fmt.Errorf("%d queues: the interface was made for one: make it with multi_queue", n)
	}
	for range n {
		if err := t.attach(c.Name, several); err != nil {
			return err
		}
		c.Name = t.name
	}
	if !there || c.Bridge != "" {
		return t.setUp(c, !there)
	}
	return nil
}

// Flags of an interface (linux/if_tun.h) beside those that package unix has.
const tapFlags = unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR

// existing says whether there is an interface of that name, which may have several queues.
func existing(name string) (there, several bool, err error) {
	if name == "" {
		return false, false, nil
	}
	l, err := netlink.LinkByName(name)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return false, false, nil
	}
	if err != nil {
		return false, false, err
	}
	t, ok := l.(*netlink.Tuntap)
	switch {
	case !ok:
		return true, false, errors.New("the host's interface of that name is no tap: choose another name")
	case t.Mode != netlink.TUNTAP_MODE_TAP:
		return true, false, errors.New("the interface is a tun, which has no Ethernet: choose another name")
	}
	return true, t.Flags&netlink.TUNTAP_MULTI_QUEUE != 0, nil
}

// attach opens one more queue.
func (t *Tap) attach(name string, several bool) error {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	switch {
	case errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENXIO):
		return fmt.Errorf("the host has no /dev/net/tun: load its module: modprobe tun: %w", err)
	case err != nil:
		return fmt.Errorf("/dev/net/tun: %w", err)
	}
	q, err := newQueue(fd)
	if err != nil {
		return err
	}
	t.queues = append(t.queues, q)
	r, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	flags := uint16(tapFlags)
	if several {
		flags |= unix.IFF_MULTI_QUEUE
	}
	r.SetUint16(flags)
	switch err := unix.IoctlIfreq(fd, unix.TUNSETIFF, r); {
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("only root may make one: have root make one for you: ip tuntap add %s mode tap user $USER: %w", cmp.Or(name, "tap0"), err)
	case errors.Is(err, unix.EBUSY):
		return fmt.Errorf("another process has it: %w", err)
	case err != nil:
		return err
	}
	t.name = r.Name()
	return q.prepare(true)
}

// inherit takes descriptors of queues, all of them after an error too.
func (t *Tap) inherit(fds []int) (err error) {
	taken := 0
	defer func() {
		if err != nil {
			for _, fd := range fds[taken:] {
				_ = unix.Close(fd) // nothing was written through it
			}
		}
	}()
	for _, fd := range fds {
		if err := unix.SetNonblock(fd, true); err != nil {
			return fmt.Errorf("descriptor %d: %w", fd, err)
		}
		unix.CloseOnExec(fd)
		taken++
		q, err := newQueue(fd)
		if err != nil {
			return err
		}
		t.queues = append(t.queues, q)
		r, err := unix.NewIfreq("")
		if err != nil {
			return err
		}
		if err := unix.IoctlIfreq(fd, unix.TUNGETIFF, r); err != nil {
			return fmt.Errorf("descriptor %d is not that of a tap: %w", fd, err)
		}
		if t.name != "" && r.Name() != t.name {
			return fmt.Errorf("descriptor %d is that of %s", fd, r.Name())
		}
		t.name = r.Name()
		if err := q.prepare(r.Uint16()&unix.IFF_VNET_HDR != 0); err != nil {
			return fmt.Errorf("descriptor %d: %w", fd, err)
		}
	}
	return nil
}

// Name is the interface's name.
func (t *Tap) Name() string { return t.name }

// Send implements netdev.Port.
func (t *Tap) Send(frame [][]byte) error { return t.queues[0].Send(frame) }

// Receive implements netdev.Port.
func (t *Tap) Receive(p []byte) (int, error) { return t.queues[0].Receive(p) }

// Offloads implements netdev.Offloader.
func (t *Tap) Offloads() netdev.Offloads { return t.queues[0].Offloads() }

// SetOffloads implements netdev.Offloader.
func (t *Tap) SetOffloads(o netdev.Offloads) error { return t.queues[0].SetOffloads(o) }

// Ports implements netdev.Multiqueue.
func (t *Tap) Ports() (ports []netdev.Port) {
	for _, q := range t.queues {
		ports = append(ports, q)
	}
	return ports
}

// Use implements netdev.Multiqueue.
func (t *Tap) Use(n int) error {
	if len(t.queues) == 1 {
		return nil
	}
	for i, q := range t.queues {
		if err := q.use(i < n); err != nil {
			return fmt.Errorf("tap %s: queue %d: %w", t.name, i, err)
		}
	}
	return nil
}

// Close implements netdev.Port. An interface that was made is gone then.
func (t *Tap) Close() error {
	var errs []error
	for _, q := range slices.Backward(t.queues) {
		errs = append(errs, q.Close())
	}
	return errors.Join(errs...)
}
