package machine

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"

	"berth/chardev"
	"berth/spec"
)

// Errors of chardevs, for who has a class for them.
var (
	ErrNoChardev   = errors.New("chardev not found")
	ErrChardevBusy = errors.New("chardev is in use")
)

// Chardev is the host's end of a byte device as it is now.
type Chardev struct {
	ID string
	// Filename says what it is, in QEMU's words.
	Filename string
	// Open: a device has it, and where that is a port, a program of the guest.
	Open bool
}

// host is the host's end of a byte device.
type host struct {
	id     string
	device string // that has it; "" is none
	char   spec.Char
	port   chardev.Port // nil: nothing is plugged in
	open   bool         // guarded by the lock of chardevs
}

// chardevs are the hosts' ends of a VM. Safe for concurrent use.
type chardevs struct {
	mu   sync.Mutex
	list []*host
}

// openChar opens the host's end of a byte device other than standard input and output.
func openChar(c spec.Char) (chardev.Port, error) {
	switch {
	case c.To == "null":
		return nil, nil
	case c.To == "ringbuf":
		return chardev.NewRing(int(c.Size)), nil
	case c.To == "pty":
		return opened(chardev.NewPTY())
	case c.File != "":
		return opened(chardev.NewFile(c.File, c.Append))
	case c.Pipe != "":
		return opened(chardev.NewFIFO(c.Pipe))
	case c.TCP != "" && c.Server:
		return opened(chardev.ListenTCP(c.TCP))
	case c.TCP != "":
		return opened(chardev.DialTCP(c.TCP))
	case c.Server:
		return opened(chardev.Listen(c.Socket))
	}
	return opened(chardev.Dial(c.Socket))
}

// opened is p as the interface, nil after an error.
func opened[P chardev.Port](p P, err error) (chardev.Port, error) {
	if err != nil {
		return nil, err
	}
	return p, nil
}

func (h *chardevs) add(n *host) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if n.id != "" && h.find(n.id) != nil {
		return fmt.Errorf("chardev %s is there already", n.id)
	}
	h.list = append(h.list, n)
	return nil
}

// find returns the host's end of an id, or nil. The lock is held.
func (h *chardevs) find(id string) *host {
	for _, n := range h.list {
		if n.id == id {
			return n
		}
	}
	return nil
}

func (h *chardevs) setOpen(id string, open bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if n := h.find(id); n != nil {
		n.open = open
	}
}

// remove takes one that no device has out of the list.
func (h *chardevs) remove(id string) (*host, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := h.find(id)
	switch {
	case n == nil:
		return nil, fmt.Errorf("chardev %s: %w", id, ErrNoChardev)
	case n.device != "":
		return nil, fmt.Errorf("chardev %s: %w", id, ErrChardevBusy)
	}
	h.list = slices.DeleteFunc(h.list, func(o *host) bool { return o == n })
	return n, nil
}

// close closes those that no device has; the others are their devices' to close.
func (h *chardevs) close() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	var errs []error
	for _, n := range h.list {
		if n.device == "" && n.port != nil {
			errs = append(errs, n.port.Close())
		}
	}
	h.list = nil
	return errors.Join(errs...)
}

func (h *chardevs) terminals() (list []Terminal) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, n := range h.list {
		if t, ok := n.port.(*chardev.PTY); ok && n.device != "" {
			list = append(list, Terminal{n.device, t.Path()})
		}
	}
	return list
}

// filename says what a host's end is as QEMU 7.2 does.
func (n *host) filename() string {
	c := n.char
	if p, ok := n.port.(*chardev.PTY); ok {
		return "pty:" + p.Path()
	}
	// What takes the place of standard input and output of a VM in the background has
	// a socket too.
	if p, ok := n.port.(listener); ok {
		return socketName(p, c)
	}
	switch {
	case c.File != "":
		return "file"
	case c.Pipe != "":
		return "pipe"
	case onStdio(c):
		return "stdio"
	}
	return c.To
}

// listener is a port that may listen somewhere: a chardev.Socket and what is made of one.
type listener interface {
	chardev.Plug
	Addr() net.Addr // nil: it has connected itself
}

func socketName(p listener, c spec.Char) string {
	name := "unix:" + c.Socket
	if c.TCP != "" {
		name = "tcp:" + c.TCP
	}
	if a := p.Addr(); a != nil {
		name = a.Network() + ":" + a.String() + ",server=on"
	}
	if !p.Connected() {
		name = "disconnected:" + name
	}
	return name
}

// Chardevs lists the hosts' ends of byte devices. Safe for concurrent use, as are
// the other methods about them.
func (m *Machine) Chardevs() (list []Chardev) {
	h := &m.board.hosts
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, n := range h.list {
		list = append(list, Chardev{n.id, n.filename(), n.open})
	}
	return list
}

// AddChardev opens a host's end, checked and with an ID, that no device has yet. It returns
// the name of a pseudo-terminal that it made for it, or "".
func (m *Machine) AddChardev(c spec.Char) (terminal string, err error) {
	if onStdio(c) {
		return "", errors.New("standard input and output are given when the VM starts")
	}
	p, err := openChar(c)
	if err != nil {
		return "", err
	}
	if err := m.board.hosts.add(&host{id: c.ID, char: c, port: p}); err != nil {
		if p != nil {
			err = errors.Join(err, p.Close())
		}
		return "", err
	}
	if t, ok := p.(*chardev.PTY); ok {
		terminal = t.Path()
	}
	return terminal, nil
}

// RemoveChardev closes a host's end that no device has.
func (m *Machine) RemoveChardev(id string) error {
	n, err := m.board.hosts.remove(id)
	if err != nil || n.port == nil {
		return err
	}
	return n.port.Close()
}

// Ring returns the memory of a ringbuf.
func (m *Machine) Ring(id string) (*chardev.Ring, error) {
	h := &m.board.hosts
	h.mu.Lock()
	defer h.mu.Unlock()
	n := h.find(id)
	if n == nil {
		return nil, fmt.Errorf("chardev %s: %w", id, ErrNoChardev)
	}
	r, ok := n.port.(*chardev.Ring)
	if !ok {
		return nil, fmt.Errorf("chardev %s is not a ringbuf", id)
	}
	return r, nil
}
