package monitor

import (
	"encoding/binary"
	"fmt"

	"berth/pci"
	"berth/qmp"
)

type (
	// pciBus is QEMU's PciInfo.
	pciBus struct {
		Bus     int64       `json:"bus"`
		Devices []pciDevice `json:"devices"`
	}
	// pciDevice is QEMU's PciDeviceInfo.
	pciDevice struct {
		Bus      int64       `json:"bus"`
		Slot     int64       `json:"slot"`
		Function int64       `json:"function"`
		Class    pciClass    `json:"class_info"`
		ID       pciID       `json:"id"`
		IRQ      *int64      `json:"irq"`
		Pin      int64       `json:"irq_pin"`
		Name     string      `json:"qdev_id"`
		Regions  []pciRegion `json:"regions"`
	}
	pciClass struct {
		Text  string `json:"desc,omitempty"`
		Class int64  `json:"class"`
	}
	pciID struct {
		Device          int64  `json:"device"`
		Vendor          int64  `json:"vendor"`
		Subsystem       *int64 `json:"subsystem"`
		SubsystemVendor *int64 `json:"subsystem-vendor"`
	}
	// pciRegion is QEMU's PciMemoryRegion.
	pciRegion struct {
		BAR      int64  `json:"bar"`
		Type     string `json:"type"`
		Address  int64  `json:"address"`
		Size     int64  `json:"size"`
		Prefetch *bool  `json:"prefetch"`
		Wide     *bool  `json:"mem_type_64"`
	}
)

// pciCommands are those about PCI.
func (m *Monitor) pciCommands() []qmp.Command {
	return []qmp.Command{
		qmp.Define("query-pci", "The PCI buses and what is on them.", func(*qmp.Call, *qmp.None) ([]pciBus, error) {
			functions := m.vm.Functions()
			if len(functions) == 0 {
				return []pciBus{}, nil
			}
			bus := pciBus{}
			for _, f := range functions {
				bus.Devices = append(bus.Devices, describeFunction(f))
			}
			return []pciBus{bus}, nil
		}),
	}
}

// describeFunction reads a function's header (PCI Local Bus 3.0 §6.1).
func describeFunction(f *pci.Function) pciDevice {
	var h [64]byte
	f.Peek(0, h[:])
	le := binary.LittleEndian
	class := int(le.Uint16(h[0x0a:]))
	d := pciDevice{
		Slot: int64(f.Devfn() >> 3), Function: int64(f.Devfn() & 7), Class: pciClass{classText(class), int64(class)},
		ID:  pciID{Device: int64(le.Uint16(h[2:])), Vendor: int64(le.Uint16(h[0:]))},
		Pin: int64(h[0x3d]), Regions: []pciRegion{},
	}
	if h[0x0e]&0x7f == 0 {
		d.ID.Subsystem, d.ID.SubsystemVendor = number(int(le.Uint16(h[0x2e:]))), number(int(le.Uint16(h[0x2c:])))
	}
	if d.Pin != 0 {
		d.IRQ = number(int(h[0x3c]))
	}
	for i := range 6 {
		_, size := f.BAR(i)
		if size == 0 {
			continue
		}
		v := uint64(le.Uint32(h[0x10+4*i:]))
		r := pciRegion{BAR: int64(i), Type: "io", Address: int64(v &^ 3), Size: int64(size)}
		if v&1 == 0 {
			wide, prefetch := v&4 != 0, v&8 != 0
			if wide && i < 5 {
				v |= uint64(le.Uint32(h[0x14+4*i:])) << 32
			}
			r.Type, r.Address, r.Wide, r.Prefetch = "memory", int64(v&^15), &wide, &prefetch
		}
		d.Regions = append(d.Regions, r)
	}
	return d
}

// classText is QEMU's name for a class and subclass; empty: it has none.
func classText(class int) string {
	return map[int]string{
		0x0100: "SCSI controller", 0x0200: "Ethernet controller", 0x0600: "Host bridge", 0x0601: "ISA bridge", 0x0604: "PCI bridge",
	}[class]
}

// humanPCI prints the functions as QEMU does.
func (m *Monitor) humanPCI(h *human) error {
	buses, err := answer[[]pciBus](h, "query-pci")
	for _, b := range buses {
		for _, d := range b.Devices {
			h.Printf("  Bus %2d, device %3d, function %d:\n    %s: PCI device %04x:%04x\n", d.Bus, d.Slot, d.Function, d.Class, d.ID.Vendor, d.ID.Device)
			if d.ID.Subsystem != nil {
				h.Printf("      PCI subsystem %04x:%04x\n", *d.ID.SubsystemVendor, *d.ID.Subsystem)
			}
			if d.IRQ != nil {
				h.Printf("      IRQ %d, pin %c\n", *d.IRQ, 'A'+d.Pin-1)
			}
			for _, r := range d.Regions {
				h.Printf("      %s\n", r)
			}
			h.Printf("      id \"%s\"\n", d.Name)
		}
	}
	return err
}

// String is the class in words.
func (c pciClass) String() string {
	if c.Text != "" {
		return c.Text
	}
	return fmt.Sprintf("Class %04d", c.Class)
}

// String is the region as the human monitor shows it.
func (r pciRegion) String() string {
	last := r.Address + r.Size - 1
	if r.Type == "io" {
		return fmt.Sprintf("BAR%d: I/O at 0x%04x [0x%04x].", r.BAR, r.Address, last)
	}
	bits, prefetch := 32, ""
	if *r.Wide {
		bits = 64
	}
	if *r.Prefetch {
		prefetch = " prefetchable"
	}
	return fmt.Sprintf("BAR%d: %d bit%s memory at 0x%08x [0x%08x].", r.BAR, bits, prefetch, r.Address, last)
}
