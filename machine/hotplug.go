package machine

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"sync/atomic"
	"time"

	"berth/acpi"
	"berth/bus"
	"berth/device/pcihp"
	"berth/device/pm"
	"berth/pci"
	"berth/spec"
	"berth/virtio"
	"berth/virtio/blk"
)

// askAgain is how long a guest is left alone with one request for a device.
const askAgain = 5 * time.Second

// slots are the root ports and what is plugged into them.
//
//	empty --Plug--> plugged --guest lets go, asked by Unplug or not--> empty
//	                        --reset, if it was asked-----------------> empty
//
// Run's goroutine owns all but what is marked.
type slots struct {
	ports   []*pci.Port
	block   *pcihp.Block // nil: no slots
	plugged []*plugged   // by slot; nil: empty

	gone    atomic.Uint32 // bit n: the guest has let go of what was in slot n; vCPUs set it
	ejected chan struct{} // holds a token when gone has changed
}

// plugged is a device in a slot.
type plugged struct {
	id, path  string
	device    virtio.Device
	transport *virtio.PCI
	on        io.Closer // what the device stands on, its own; may be nil
	asked     time.Time // when the guest was asked to let go of it; zero: it was not
}

// addSlots makes n root ports with empty slots, and the registers about them.
func (b *board) addSlots(root *pci.RootComplex, n int) error {
	if n <= 0 {
		return nil
	}
	s := &b.slots
	s.plugged, s.ejected = make([]*plugged, n), make(chan struct{}, 1)
	for i := range n {
		p, err := root.AddPort(pci.Devfn(portSlot+uint8(i/8), uint8(i%8)), uint8(i+1))
		if err != nil {
			return err
		}
		s.ports = append(s.ports, p)
	}
	s.block = pcihp.New(pcihp.Config{Raise: func() { b.pm.RaiseGPE(pcihp.Event) }, Eject: s.eject})
	return b.mapPorts([]bus.Window{{Base: pcihp.Base, Size: pcihp.Size, Name: "slots", Handler: s.block}})
}

func (s *slots) describe(c *acpi.Config) {
	if s.block == nil {
		return
	}
	c.PM.GPE0, c.PM.GPE0Len, c.SlotPort = pm.Base+pm.GPE0, pm.GPE0Size, pcihp.Base
	for _, p := range s.ports {
		c.Slots = append(c.Slots, acpi.Slot{Port: p.Function().Devfn(), Number: uint8(p.Number())})
	}
}

// eject takes the device in slot n away from the guest at once; Run does the rest.
// It is called on a vCPU's thread.
func (s *slots) eject(n int) {
	if n >= len(s.ports) || s.ports[n].Unplug() == nil {
		return
	}
	s.gone.Or(1 << n)
	select {
	case s.ejected <- struct{}{}:
	default:
	}
}

func (s *slots) reset() {
	if s.block != nil {
		s.block.Reset()
	}
}

// close gives back what devices stand on. Their transports are closed.
func (s *slots) close() error {
	var errs []error
	for _, p := range s.plugged {
		if p == nil {
			continue
		}
		errs = append(errs, p.transport.Function().Close()) // the guest may have let go of it
		if p.on != nil {
			errs = append(errs, p.on.Close())
		}
	}
	return errors.Join(errs...)
}

// Place is where a device is plugged in, in QEMU's words.
type Place struct {
	ID   string // "": it has none, and cannot be unplugged from outside
	Bus  string // "pci.1" and on, one a slot; "": the first empty one
	Addr string // on that bus, on which there is 0 alone; "": that
}

// Plug puts dev into an empty slot. What it stands on, which may be nil, is closed
// once it has been unplugged, or if Plug fails. Call it within Do.
func (m *Machine) Plug(at Place, dev virtio.Device, on io.Closer) error {
	n, err := m.place(at)
	if err == nil {
		err = m.plug(n, at.ID, m.board.path(at.ID), dev, on)
	}
	if err != nil && on != nil {
		return errors.Join(err, on.Close())
	}
	return err
}

// PlugDisk plugs in a disk over the block node of that name. Call it within Do.
func (m *Machine) PlugDisk(at Place, node string, cfg blk.Config) error {
	n, err := m.place(at) // before the node is taken
	if err != nil {
		return err
	}
	path := m.board.path(at.ID)
	if root := m.Nodes().Find(node); root != nil {
		cfg.ReadOnly = cfg.ReadOnly || root.ReadOnly
		cfg.Discard, cfg.WriteThrough = root.Discard, cfg.WriteThrough || root.WriteThrough
	}
	d, err := m.AttachDrive(node, path+backendPath, cfg.ReadOnly)
	if err != nil {
		return err
	}
	on := pluggedDrive{m, d}
	if d.device, err = blk.New(d.Backend, cfg); err == nil {
		err = m.plug(n, at.ID, path, d.device, on)
	}
	if err != nil {
		return errors.Join(err, on.Close())
	}
	return nil
}

// pluggedDrive is the drive that a plugged disk stands on.
type pluggedDrive struct {
	m *Machine
	d *Drive
}

func (p pluggedDrive) Close() error { return p.m.RemoveDrive(p.d) }

// place returns the slot that at means, which is empty.
func (m *Machine) place(at Place) (int, error) {
	s := &m.board.slots
	if at.ID != "" && m.named(at.ID) {
		return 0, fmt.Errorf("Duplicate device ID '%s'", at.ID)
	}
	n := slices.Index(s.plugged, nil)
	switch {
	case at.Bus == "pcie.0" || len(s.ports) == 0 && at.Bus == "":
		return 0, errors.New("Bus 'pcie.0' does not support hotplugging")
	case at.Bus != "":
		if n = slices.IndexFunc(s.ports, func(p *pci.Port) bool { return portName(p) == at.Bus }); n < 0 {
			return 0, fmt.Errorf("Bus '%s' not found", at.Bus)
		}
	case n < 0:
		return 0, fmt.Errorf("all %d slots are taken: unplug a device, or start the VM with more --hotplug-slots", len(s.ports))
	}
	if at.Addr != "" && !slices.Contains([]string{"0", "0x0", "0.0", "00.0", "0x0.0", "0x0.0x0", "00"}, at.Addr) {
		return 0, fmt.Errorf("PCI: slot %s is not on bus %s, which has slot 0 alone", at.Addr, portName(s.ports[n]))
	}
	if s.plugged[n] != nil {
		return 0, fmt.Errorf("PCI: slot 0 function 0 not available for a new device on bus %s, in use by %s", portName(s.ports[n]), s.plugged[n].path)
	}
	return n, nil
}

// portName is what QEMU would call the bus behind a root port.
func portName(p *pci.Port) string { return fmt.Sprintf("pci.%d", p.Number()) }

// named reports whether a device has this id already.
func (m *Machine) named(id string) bool {
	if m.fixed(id) {
		return true
	}
	return slices.ContainsFunc(m.board.slots.plugged, func(p *plugged) bool { return p != nil && p.id == id })
}

// fixed reports whether a device that was there from the start has this id: it
// stays where it is.
func (m *Machine) fixed(id string) bool {
	if id == "" {
		return false
	}
	for _, d := range m.cfg.Spec.Disks {
		if d.ID == id {
			return true
		}
	}
	if m.cfg.Spec.Balloon.ID == id {
		return true
	}
	return slices.ContainsFunc(m.cfg.Spec.NICs, func(n spec.NIC) bool { return n.ID == id })
}

func (m *Machine) plug(n int, id, path string, dev virtio.Device, on io.Closer) error {
	b := m.board
	t, err := virtio.NewPCI(dev, virtio.PCIConfig{Memory: b.mem, Doorbells: b.doorbells(), Log: m.log, Express: true})
	if err != nil {
		return err
	}
	if m.status != Running {
		t.Pause() // goOn has it work
	}
	if err := b.slots.ports[n].Plug(t.Function()); err != nil {
		return errors.Join(err, t.Close())
	}
	p := &plugged{id: id, path: path, device: dev, transport: t, on: on}
	b.slots.plugged[n] = p
	b.transports = append(b.transports, t)
	m.setThreads()
	b.slots.block.Plugged(n)
	return t.Start()
}

// ErrNoDevice is wrapped by the error for an id that no device has.
var ErrNoDevice = errors.New("no such device")

// noDevice is that error in QEMU's words.
type noDevice struct{ id string }

func (e noDevice) Error() string { return fmt.Sprintf("Device '%s' not found", e.id) }
func (e noDevice) Unwrap() error { return ErrNoDevice }

// Unplug asks the guest to let go of the device with an id, or with a path in the
// tree of objects. It is gone when NoticeDeviceDeleted says so: once the guest has
// let go of it, or with the next reset. Call it within Do.
func (m *Machine) Unplug(id string) error {
	s := &m.board.slots
	n := slices.IndexFunc(s.plugged, func(p *plugged) bool { return p != nil && id != "" && (p.id == id || p.path == id) })
	switch {
	case n < 0 && m.fixed(id):
		return errors.New("Bus 'pcie.0' does not support hotplugging")
	case n < 0:
		return noDevice{id}
	}
	p := s.plugged[n]
	if !p.asked.IsZero() && time.Since(p.asked) < askAgain || s.gone.Load()>>n&1 != 0 {
		return fmt.Errorf("Device %s is already in the process of unplug", id)
	}
	p.asked = time.Now()
	s.block.Want(n)
	return nil
}

// removeEjected removes the devices that the guest has let go of. resume says that
// the vCPUs run, and are to run afterwards.
func (m *Machine) removeEjected(resume bool) error {
	gone := m.board.slots.gone.Swap(0)
	var errs []error
	for n := range m.board.slots.plugged {
		if gone>>n&1 != 0 {
			errs = append(errs, m.remove(n, resume))
		}
	}
	return errors.Join(errs...)
}

// removeAsked removes, at a reset, the devices that the guest was asked for and
// those it has let go of. The vCPUs are paused.
func (m *Machine) removeAsked() error {
	s := &m.board.slots
	for n, p := range s.plugged {
		if p != nil && !p.asked.IsZero() {
			s.eject(n)
		}
	}
	return m.removeEjected(false)
}

// remove ends the device in slot n, which the guest does not reach any more: its
// requests are finished, its workers end, and what it had of the host is given back.
func (m *Machine) remove(n int, resume bool) error {
	b := m.board
	p := b.slots.plugged[n]
	p.transport.Reset()
	if resume {
		resume = m.holdVCPUs()
	}
	// No vCPU is in the middle of an access to the device now, nor will be.
	p.transport.Reset()
	err := errors.Join(p.transport.Close(), p.transport.Function().Close())
	if resume {
		m.askAll(running)
	}
	b.transports = slices.DeleteFunc(b.transports, func(t transport) bool { return t == transport(p.transport) })
	b.slots.plugged[n] = nil
	b.slots.block.Forget(n)
	if p.on != nil {
		err = errors.Join(err, p.on.Close())
	}
	if err != nil {
		m.log.Warn("a device left something behind", "device", p.path, "error", err)
	}
	m.setThreads()
	m.notify(Notice{Kind: NoticeDeviceDeleted, Path: p.path + backendPath})
	m.notify(Notice{Kind: NoticeDeviceDeleted, ID: p.id, Path: p.path})
	return nil
}

// holdVCPUs returns when no vCPU runs, and reports whether they are to run again
// afterwards: not if something has happened that decides about that.
func (m *Machine) holdVCPUs() (resume bool) {
	m.pauseAll()
	return len(m.events) == 0 && len(m.wishes) == 0 && len(m.reports) == 0
}
