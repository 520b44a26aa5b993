package machine

import (
	"fmt"

	"berth/pci"
	"berth/virtio"
)

// Device is a virtio device of the machine, for who asks from outside.
type Device struct {
	virtio.Device
	ID         string        // "": it has none
	Path       string        // its place in QEMU's tree of objects
	Function   *pci.Function // nil: it is memory-mapped
	Hotplugged bool
}

// backendPath is, below a device on PCI, the device itself.
const backendPath = "/virtio-backend"

// path is where a new device is in QEMU's tree of objects.
func (b *board) path(id string) string {
	if id != "" {
		return "/machine/peripheral/" + id
	}
	b.unnamed++
	return fmt.Sprintf("/machine/peripheral-anon/device[%d]", b.unnamed-1)
}

// complete adds to d where it is.
func (b *board) complete(d Device, t transport) Device {
	if d.Path == "" {
		d.Path = b.path(d.ID)
	}
	if f, ok := t.(interface{ Function() *pci.Function }); ok {
		d.Function = f.Function()
	}
	return d
}

// Devices lists the virtio devices, those in slots last. Call it within Do.
func (m *Machine) Devices() []Device {
	list := append([]Device(nil), m.board.devices...)
	for _, p := range m.board.slots.plugged {
		if p != nil {
			list = append(list, Device{p.device, p.id, p.path, p.transport.Function(), true})
		}
	}
	return list
}
