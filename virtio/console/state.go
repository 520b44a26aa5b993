package console

import (
	"fmt"

	"berth/chardev"
)

// StateVersion is the version of State that this package writes and reads.
const StateVersion = 1

// State is the device's own state. Drain first, or what the hosts have not taken
// is missing.
type State struct {
	Version    uint32
	Cols, Rows uint16
	Ready      bool        // the driver waits for control messages
	Ports      []PortState // those that exist, in the order of their numbers
}

// PortState is one port's.
type PortState struct {
	Name      string
	Added     bool // what the driver has been told: that there is a port,
	Named     bool // its name,
	HostOpen  bool // that somebody is at the host's end;
	Hangup    bool // and not yet: that they went
	Ready     bool // what the driver has said: that it has the port,
	GuestOpen bool // and that a program has it open
	Sent      int64
	Input     []byte // read from the host, and not yet received
}

// Save returns the state of a paused device.
func (d *Device) Save() State {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.s
	s.Ports = nil
	for _, p := range d.all() {
		ps := p.s
		ps.Name, ps.Sent, ps.Input = p.name, p.sent, p.in.Save()
		s.Ports = append(s.Ports, ps)
	}
	return s
}

// Load puts a saved state into a device of the same ports that has been reset.
// Whoever was at a host's end is not there any more, which the driver is told.
func (d *Device) Load(s State) error {
	if s.Version != StateVersion {
		return fmt.Errorf("virtio/console: state version %d, want %d", s.Version, StateVersion)
	}
	ports := d.all()
	if len(s.Ports) != len(ports) {
		return fmt.Errorf("virtio/console: state of %d ports, want %d", len(s.Ports), len(ports))
	}
	for i, p := range ports {
		if s.Ports[i].Name != p.name || s.Ports[i].Sent < 0 {
			return fmt.Errorf("virtio/console: state of a port %q, want %q", s.Ports[i].Name, p.name)
		}
	}
	defer d.tellOpened()
	d.mu.Lock()
	defer d.mu.Unlock()
	for i, p := range ports {
		p.in.Load(s.Ports[i].Input)
		p.sent, p.s = s.Ports[i].Sent, s.Ports[i]
		p.s.Input = nil
		if _, plug := p.host.(chardev.Plug); plug {
			p.s.Hangup = p.s.HostOpen
		}
	}
	d.s = s
	d.s.Ports = nil
	return nil
}
