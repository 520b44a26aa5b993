package machine

import (
	"errors"

	"berth/acpi"
	"berth/boot"
	"berth/bus"
	"berth/device/i8042"
	"berth/device/pvpanic"
	"berth/irq"
	"berth/pci"
	"berth/virtio"
)

// The q35's map of guest-physical memory. ECAM, the 32-bit PCI window and the
// interrupt controllers lie where package pci and the architecture have them.
//
//	0          RAM, at most 2 GiB of it
//	0xb0000000 ECAM, 256 MiB
//	0xc0000000 32-bit PCI window
//	0xfec00000 IOAPIC     0xfee00000 LAPICs     0xfeffc000 KVM's own pages
//	4 GiB      the rest of RAM
//	mem64      64-bit PCI window, 64 GiB, aligned to its size, above RAM
const (
	mem64Size  = 64 << 30
	maxAddress = 1 << 40 // what every guest CPU reaches: soft has 40 bits of physical address

	panicSlot = 0x1e // beside the LPC bridge, where it moves nobody else
	portSlot  = 0x1c // and the next: of root ports, eight functions each
)

// q35 is the PC with PCI Express: virtio devices are PCI functions.
type q35 struct {
	root  *pci.RootComplex
	mem64 pci.Range
	next  uint8 // the next free slot for a virtio device
}

// newQ35 makes the chips and the root complex.
func (b *board) newQ35(cfg Config, post func(event)) error {
	if err := b.addChips(cfg, post); err != nil {
		return err
	}
	keyboard := i8042.New(func() { post(event{kind: eventReset}) })
	err := errors.Join(b.addRTC(cfg), b.mapPorts([]bus.Window{
		{Base: i8042.DataBase, Size: i8042.Size, Name: "i8042 data", Handler: keyboard.Data()},
		{Base: i8042.CommandBase, Size: i8042.Size, Name: "i8042 command", Handler: keyboard.Command()},
	}))
	if err != nil {
		return err
	}
	p := &q35{mem64: window64(b.ramEnd()), next: 1}
	chip := b.vm.IRQChip()
	shared := map[uint32]*irq.Shared{}
	p.root, err = pci.NewRootComplex(pci.Config{
		Ports: b.ports, MMIO: b.mmio, Memory: b.mem, MSI: chip, Mem64: p.mem64, Reset: b.pm.ResetControl(),
		Line: func(gsi uint32) irq.Line {
			if shared[gsi] == nil {
				shared[gsi] = irq.NewShared(irq.GSILine(chip, gsi))
			}
			return shared[gsi].Source()
		},
	})
	if err != nil {
		return err
	}
	b.platform = p
	if err := b.addSlots(p.root, int(cfg.Spec.HotplugSlots)); err != nil {
		return err
	}
	if cfg.Spec.PVPanic == "pci" {
		return p.addPanic(b.panicDevice(cfg, post))
	}
	return nil
}

// window64 is where 64-bit BARs lie behind RAM that ends at end: nowhere, if
// the CPUs do not reach so far.
func window64(end uint64) pci.Range {
	r := pci.Range{Base: (end + mem64Size - 1) &^ (mem64Size - 1), Size: mem64Size}
	if r.Base+r.Size > maxAddress {
		return pci.Range{}
	}
	return r
}

// addPanic puts pvpanic on PCI.
func (p *q35) addPanic(d *pvpanic.Device) error {
	f := pci.NewFunction("pvpanic", pci.Identity{
		Vendor: pvpanic.PCIVendor, Device: pvpanic.PCIDevice, Class: pvpanic.PCIClass, Revision: 1,
		SubsystemVendor: 0x1af4, SubsystemID: 0x1100,
	})
	if err := f.AddBAR(0, pci.BAR32, pvpanic.PCIBARSize, d); err != nil {
		return err
	}
	return p.root.AddFunction(pci.Devfn(panicSlot, 0), f)
}

func (p *q35) attach(b *board, cfg Config, dev virtio.Device) (transport, error) {
	if p.next == portSlot && len(b.slots.ports) > 0 {
		return nil, errors.New("no place left on the PCI bus: with --hotplug-slots 0 there are three more")
	}
	t, err := virtio.NewPCI(dev, virtio.PCIConfig{Memory: b.mem, Doorbells: b.doorbells(), Log: cfg.Log})
	if err != nil {
		return nil, err
	}
	p.next++
	return t, p.root.AddFunction(pci.Devfn(p.next-1, 0), t.Function())
}

func (p *q35) describe(c *acpi.Config) {
	c.PIC = true
	c.ECAM = acpi.Range{Base: pci.ECAMBase, Size: pci.ECAMSize}
	c.PCIWindows = []acpi.Range{{Base: pci.Mem32Base, Size: pci.Mem32Size}}
	if p.mem64.Size != 0 {
		c.PCIWindows = append(c.PCIWindows, acpi.Range(p.mem64))
	}
	for _, r := range pci.Routes() {
		c.PCIRoutes = append(c.PCIRoutes, acpi.Route{Device: r.Slot, Pin: r.Pin, GSI: r.GSI})
	}
}

func (p *q35) reserved() []boot.Range {
	return []boot.Range{{Addr: pci.ECAMBase, Size: pci.ECAMSize}}
}

func (p *q35) assign() error { return p.root.AssignResources() }
func (p *q35) reset()        { p.root.Reset() }
func (p *q35) close() error  { return p.root.Close() }
