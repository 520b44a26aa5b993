// Package console is the virtio console device: a console, or named ports between the guest's programs and the host's.
package console

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"berth/chardev"
	"berth/virtio"
)

// Feature bits (virtio 1.2 §5.3.3).
const (
	featureSize      = uint64(1) << 0
	featureMultiport = uint64(1) << 1
	featureEmergency = uint64(1) << 2
)

// Queues (§5.3.2): port 0 has the first two, the control queues come next, and
// port n > 0 has 2n+2 and 2n+3. Of each two the first is the driver's input.
const (
	controlIn  = 2
	controlOut = 3
	queueSize  = 64
)

// MaxPorts is how many named ports a device can have.
const MaxPorts = 30

// MaxName is the longest name of a port, in bytes.
const MaxName = 128

// struct virtio_console_config (§5.3.4):
//
//	0 cols 2 | 2 rows 2 | 4 max_nr_ports 4 | 8 emerg_wr 4
const (
	configSize   = 12
	emergencyOff = 8
)

// Device is one virtio console device (virtio 1.2 §5.3), of one of two kinds: a
// console is port 0 without the means for more; a device of named ports has
// ports from 1 on and the control queues. Safe for concurrent use.
type Device struct {
	info    virtio.Info
	log     *slog.Logger
	ports   []*port // by number; nil where there is none
	changed func()  // tells the driver of a new size

	mu      sync.Mutex // guards what follows and the ports' state; taken before the hosts' locks
	s       State      // save for Ports, which is in ports
	control *virtio.Queue
}

// NewConsole returns a console whose host's end is host; nil is a console with
// nothing plugged in. The device closes host.
func NewConsole(host chardev.Port, log *slog.Logger) *Device {
	d := &Device{log: log, info: virtio.Info{
		ID: virtio.IDConsole, Name: "virtio-console", Features: featureSize | featureEmergency,
		Queues: []uint16{queueSize, queueSize}, ConfigSize: configSize,
	}}
	d.ports = []*port{newPort(d, 0, Named{Host: host})}
	d.start()
	return d
}

// Named is a port between a program in the guest, which finds it as
// /dev/virtio-ports/NAME, and the host. If Host is a chardev.Plug, the guest is
// told when somebody is there; nil is a port with nothing plugged in. Opened, if it is
// not nil, is told when a program of the guest opens the port and closes it; its calls
// for one port do not overlap. It must not wait: the device may be in the middle of a reset.
type Named struct {
	Name   string
	Host   chardev.Port
	Opened func(open bool)
}

// NewPorts returns a device of named ports, numbered from 1 on. The device closes
// their hosts' ends, also when it returns an error.
func NewPorts(named []Named, log *slog.Logger) (*Device, error) {
	if err := checkNames(named); err != nil {
		for _, n := range named {
			if n.Host != nil {
				err = errors.Join(err, n.Host.Close())
			}
		}
		return nil, err
	}
	d := &Device{log: log, ports: []*port{nil}, info: virtio.Info{
		ID: virtio.IDConsole, Name: "virtio-ports", Features: featureMultiport,
		Queues: []uint16{queueSize, queueSize, queueSize, queueSize}, ConfigSize: configSize,
	}}
	for i, n := range named {
		d.ports = append(d.ports, newPort(d, i+1, n))
		d.info.Queues = append(d.info.Queues, queueSize, queueSize)
	}
	d.start()
	return d, nil
}

func checkNames(named []Named) error {
	if len(named) == 0 || len(named) > MaxPorts {
		return fmt.Errorf("virtio/console: %d ports: 1 to %d are possible", len(named), MaxPorts)
	}
	seen := map[string]bool{}
	for _, n := range named {
		if n.Name == "" || len(n.Name) > MaxName || seen[n.Name] {
			return fmt.Errorf("virtio/console: port name %q: a name of 1 to %d bytes is needed, given once", n.Name, MaxName)
		}
		seen[n.Name] = true
	}
	return nil
}

// start begins to read the hosts' ends.
func (d *Device) start() {
	d.s.Version = StateVersion
	for _, p := range d.all() {
		p.start()
	}
}

// all returns the ports that exist.
func (d *Device) all() []*port {
	if d.ports[0] == nil {
		return d.ports[1:]
	}
	return d.ports
}

// Info describes the device to its transport.
func (d *Device) Info() virtio.Info { return d.info }

// OnConfigChange takes the function that tells the driver of a new size.
func (d *Device) OnConfigChange(changed func()) { d.changed = changed }

// ReadConfig reads struct virtio_console_config.
func (d *Device) ReadConfig(p []byte, off int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var c [configSize]byte
	le := binary.LittleEndian
	le.PutUint16(c[0:], d.s.Cols)
	le.PutUint16(c[2:], d.s.Rows)
	le.PutUint32(c[4:], uint32(len(d.ports)))
	copy(p, c[off:])
}

// WriteConfig takes an emergency write: the lower byte of emerg_wr is console
// output, at any time (§5.3.5.1). What the host has no room for is lost.
func (d *Device) WriteConfig(p []byte, off int) {
	if off == emergencyOff && d.info.Features&featureEmergency != 0 {
		d.ports[0].out.offer(p[:1])
	}
}

// Resize tells the driver of the console's size in characters.
func (d *Device) Resize(cols, rows uint16) {
	d.mu.Lock()
	same := d.s.Cols == cols && d.s.Rows == rows
	d.s.Cols, d.s.Rows = cols, rows
	d.mu.Unlock()
	if !same && d.changed != nil {
		d.changed()
	}
}

// Activate starts serving the queues of the ports that exist. Linux reads a
// console's size when it has changed, and not before: so it has, if there is one.
func (d *Device) Activate(acked uint64, qs []*virtio.Queue) error {
	if d.ports[0] != nil {
		d.ports[0].serve(qs[0], qs[1])
		if d.sized() && acked&featureSize != 0 {
			d.changed()
		}
		return nil
	}
	if acked&featureMultiport == 0 {
		return nil // a driver that knows one port only: here it is not connected to anything
	}
	d.mu.Lock()
	d.control = qs[controlIn]
	d.mu.Unlock()
	d.serveControl(qs[controlIn], qs[controlOut])
	for _, p := range d.all() {
		p.serve(qs[2*p.id+2], qs[2*p.id+3])
	}
	return nil
}

func (d *Device) sized() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.s.Cols != 0 || d.s.Rows != 0
}

// Reset forgets the driver. Input that waits at the host stays.
func (d *Device) Reset() {
	d.mu.Lock()
	d.s.Ready, d.control = false, nil
	for _, p := range d.all() {
		p.reset()
	}
	d.mu.Unlock()
	d.tellOpened()
}

func (d *Device) tellOpened() {
	for _, p := range d.all() {
		p.tellOpened()
	}
}

// Drain returns when what the guest has sent has reached the hosts' ends. The
// device is paused; what a named port's host has no room for stays in the ring.
func (d *Device) Drain() {
	for _, p := range d.all() {
		p.out.drain()
	}
}

// Abandon drops output that the hosts have not taken, now and from now on, so
// that neither Drain nor Close waits for a host that never will.
func (d *Device) Abandon() {
	for _, p := range d.all() {
		p.out.abandon()
	}
}

// Close waits until the hosts have taken all output, then closes their ends. The
// device has been reset.
func (d *Device) Close() error {
	var errs []error
	for _, p := range d.all() {
		errs = append(errs, p.close())
	}
	return errors.Join(errs...)
}
