package machine

import (
	"errors"
	"fmt"
	"time"

	"berth/chardev"
	"berth/spec"
	"berth/virtio/console"
)

// lastWords is how long an ended guest's bytes wait for a host that takes none.
// Those for standard output wait as long as it takes: it is the user's to stop.
const lastWords = 2 * time.Second

// Terminal is a pseudo-terminal that was made for a device.
type Terminal struct {
	Device string // "serial", "console", "port NAME"
	Path   string
}

// chars are the byte devices beside the UART, and what they all say to the host.
type chars struct {
	console   *console.Device // nil: none
	named     *console.Device // nil: no named ports
	terminals []Terminal
	speakers  []speaker
}

// speaker is a byte device with bytes for the host.
type speaker struct {
	drainer
	patient bool // the host's end is standard output
}

// drainer is a byte device's way to be rid of its bytes: Drain waits until the
// host has them, Abandon ends the wait, now and from now on, and drops them.
type drainer interface {
	Drain()
	Abandon()
}

func (b *board) speaks(d drainer, hosts ...spec.Char) {
	s := speaker{drainer: d}
	for _, c := range hosts {
		s.patient = s.patient || onStdio(c)
	}
	b.speakers = append(b.speakers, s)
}

// drainChars returns when the hosts have the bytes of their devices, or have
// been given the time for it.
func (b *board) drainChars() {
	for _, s := range b.speakers {
		if !s.patient {
			defer time.AfterFunc(lastWords, s.Abandon).Stop()
		}
	}
	for _, s := range b.speakers {
		s.Drain()
	}
}

func (c *chars) close() error {
	var errs []error
	for _, d := range []*console.Device{c.console, c.named} {
		if d != nil {
			errs = append(errs, d.Close())
		}
	}
	return errors.Join(errs...)
}

// onStdio reports whether the host's end is Config.Console, as it is of a serial
// port of which nothing is said.
func onStdio(c spec.Char) bool { return c == spec.Char{} || c.To == "stdio" }

// plug opens the host's end of a byte device; nil is one with nothing plugged in.
func (b *board) plug(cfg Config, device string, c spec.Char) (chardev.Port, error) {
	var err error
	var p chardev.Port
	switch {
	case c.To == "null":
		return nil, nil
	case c.To == "pty":
		var t *chardev.PTY
		if t, err = chardev.NewPTY(); err == nil {
			b.terminals = append(b.terminals, Terminal{device, t.Path()})
			p = t
		}
	case c.File != "":
		p, err = chardev.NewFile(c.File)
	case c.Socket != "" && c.Server:
		p, err = chardev.Listen(c.Socket)
	case c.Socket != "":
		p, err = chardev.Dial(c.Socket)
	default: // onStdio
		p = cfg.Console
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", device, err)
	}
	return p, nil
}

// addConsoles makes the virtio console and the named ports.
func (b *board) addConsoles(cfg Config) error {
	m := cfg.Spec
	if m.Console != (spec.Char{}) {
		host, err := b.plug(cfg, "console", m.Console)
		if err != nil {
			return err
		}
		b.console = console.NewConsole(host, cfg.Log)
		b.speaks(b.console, m.Console)
		if err := b.add(cfg, b.console); err != nil {
			return err
		}
	}
	if len(m.Ports) == 0 {
		return nil
	}
	return b.addPorts(cfg)
}

func (b *board) addPorts(cfg Config) error {
	var named []console.Named
	var chars []spec.Char
	for _, p := range cfg.Spec.Ports {
		host, err := b.plug(cfg, "port "+p.Name, p.Char())
		if err != nil {
			for _, n := range named {
				if n.Host != nil {
					err = errors.Join(err, n.Host.Close())
				}
			}
			return err
		}
		named, chars = append(named, console.Named{Name: p.Name, Host: host}), append(chars, p.Char())
	}
	var err error
	if b.named, err = console.NewPorts(named, cfg.Log); err != nil {
		return err
	}
	b.speaks(b.named, chars...)
	return b.add(cfg, b.named)
}

// Terminals lists the pseudo-terminals that were made for byte devices.
func (m *Machine) Terminals() []Terminal { return m.board.terminals }

// Resize tells the guest the size of its virtio console, in characters.
func (m *Machine) Resize(cols, rows int) {
	if c := m.board.console; c != nil {
		c.Resize(uint16(min(max(cols, 0), 1<<16-1)), uint16(min(max(rows, 0), 1<<16-1)))
	}
}
