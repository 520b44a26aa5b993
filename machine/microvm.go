package machine

import (
	"fmt"

	"berth/accel"
	"berth/acpi"
	"berth/boot"
	"berth/bus"
	"berth/irq"
	"berth/pci"
	"berth/virtio"
)

// The microvm's map of guest-physical memory.
//
//	0          RAM, at most 2 GiB of it
//	0xd0000000 registers of virtio devices, a page each
//	0xfec00000 IOAPIC     0xfee00000 LAPICs     0xfeffc000 KVM's own pages
//	4 GiB      the rest of RAM
const (
	virtioBase = 0xd0000000
	virtioMax  = 64

	// Virtio devices take these inputs of the IOAPIC in turn, and share them
	// from the ninth device on.
	virtioGSI  = 16
	virtioGSIs = 8
)

// microvm is the board without a chipset: no PCI, no 8259 and 8254, no keyboard
// controller, no RTC where the engine tells the time. Virtio devices are
// memory-mapped, and ACPI names them.
type microvm struct {
	lines   [virtioGSIs]*irq.Shared
	devices []acpi.Virtio
}

// newMicroVM makes the few chips that there are.
func (b *board) newMicroVM(cfg Config, post func(event)) error {
	if err := b.addChips(cfg, post); err != nil {
		return err
	}
	if w, ok := b.vm.(accel.WallClock); !ok || !w.WallClock() {
		if err := b.addRTC(cfg); err != nil {
			return err
		}
	}
	p := &microvm{}
	for i := range p.lines {
		p.lines[i] = irq.NewShared(irq.GSILine(b.vm.IRQChip(), virtioGSI+uint32(i)))
	}
	b.platform = p
	return b.mapPorts([]bus.Window{{Base: pci.ResetPort, Size: 1, Name: "reset control", Handler: b.pm.ResetControl()}})
}

func (p *microvm) attach(b *board, cfg Config, dev virtio.Device) (transport, error) {
	n := len(p.devices)
	if n == virtioMax {
		return nil, fmt.Errorf("more than %d virtio devices", virtioMax)
	}
	at := acpi.Virtio{Registers: acpi.Range{Base: virtioBase + uint64(n)*virtio.MMIOSize, Size: virtio.MMIOSize}, GSI: virtioGSI + uint32(n%virtioGSIs)}
	t, err := virtio.NewMMIO(dev, virtio.MMIOConfig{
		Memory: b.mem, Base: at.Registers.Base, Line: p.lines[n%virtioGSIs].Source(), Doorbells: b.doorbells(), Log: cfg.Log,
	})
	if err != nil {
		return nil, err
	}
	p.devices = append(p.devices, at)
	_, err = b.mmio.Map(at.Registers.Base, at.Registers.Size, dev.Info().Name, t)
	return t, err
}

func (p *microvm) describe(c *acpi.Config) { c.Virtio = p.devices }
func (p *microvm) reserved() []boot.Range  { return nil }
func (p *microvm) assign() error           { return nil }
func (p *microvm) reset()                  {}
func (p *microvm) close() error            { return nil }
