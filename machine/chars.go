package machine

import (
	"errors"
	"fmt"
	"strings"
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
	Device string // "serial", "console 1", "port NAME"
	Path   string
}

// chars are the byte devices beside the UARTs, and what they all say to the host.
type chars struct {
	consoles []*console.Device
	named    *console.Device // nil: no named ports
	hosts    chardevs
	speakers []speaker
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
	for _, d := range c.consoles {
		errs = append(errs, d.Close())
	}
	if c.named != nil {
		errs = append(errs, c.named.Close())
	}
	return errors.Join(append(errs, c.hosts.close())...)
}

// onStdio reports whether the host's end is Config.Console, as it is of a serial
// port of which nothing is said.
func onStdio(c spec.Char) bool { return c == spec.Char{} || c.To == "stdio" }

// plug opens the host's end of a byte device; nil is one with nothing plugged in.
func (b *board) plug(cfg Config, device, id string, c spec.Char) (chardev.Port, error) {
	var p chardev.Port
	if onStdio(c) {
		p = cfg.Console
	} else {
		var err error
		if p, err = openChar(c); err != nil {
			return nil, fmt.Errorf("%s: %w", device, err)
		}
	}
	return p, b.hosts.add(&host{id: id, device: device, char: c, port: p, open: !strings.HasPrefix(device, "port ")})
}

// addConsoles makes the virtio consoles and the named ports.
func (b *board) addConsoles(cfg Config) error {
	for i, c := range cfg.Spec.Console {
		host, err := b.plug(cfg, numbered("console", i), c.Label("console", i), c)
		if err != nil {
			return err
		}
		d := console.NewConsole(host, cfg.Log)
		b.consoles = append(b.consoles, d)
		b.speaks(d, c)
		if err := b.add(cfg, Device{Device: d}); err != nil {
			return err
		}
	}
	if len(cfg.Spec.Ports) == 0 {
		return nil
	}
	return b.addPorts(cfg)
}

// numbered names one of several devices; the first goes without a number.
func numbered(kind string, i int) string {
	if i == 0 {
		return kind
	}
	return fmt.Sprintf("%s %d", kind, i)
}

func (b *board) addPorts(cfg Config) error {
	var named []console.Named
	var chars []spec.Char
	for _, p := range cfg.Spec.Ports {
		id := p.Char().Label(p.Name, 0)
		end, err := b.plug(cfg, "port "+p.Name, id, p.Char())
		if err != nil {
			for _, n := range named {
				if n.Host != nil {
					err = errors.Join(err, n.Host.Close())
				}
			}
			return err
		}
		n := console.Named{Name: p.Name, Host: end, Opened: func(open bool) { b.portOpened(cfg, id, open) }}
		named, chars = append(named, n), append(chars, p.Char())
	}
	var err error
	if b.named, err = console.NewPorts(named, cfg.Log); err != nil {
		return err
	}
	b.speaks(b.named, chars...)
	return b.add(cfg, Device{Device: b.named})
}

// portOpened notes and tells that the guest has opened or closed a port.
func (b *board) portOpened(cfg Config, id string, open bool) {
	b.hosts.setOpen(id, open)
	if cfg.Notify != nil {
		cfg.Notify(Notice{Kind: NoticePort, ID: id, Open: open})
	}
}

// Terminals lists the pseudo-terminals that were made for byte devices.
func (m *Machine) Terminals() []Terminal { return m.board.hosts.terminals() }

// Resize tells the guest the size of the virtio console that is on standard
// output, in characters.
func (m *Machine) Resize(cols, rows int) {
	for i, c := range m.board.consoles {
		if onStdio(m.cfg.Spec.Console[i]) {
			c.Resize(uint16(min(max(cols, 0), 1<<16-1)), uint16(min(max(rows, 0), 1<<16-1)))
		}
	}
}
