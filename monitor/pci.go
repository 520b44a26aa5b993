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
		Bridge   *pciBridge  `json:"pci_bridge"`
		Regions  []pciRegion `json:"regions"`
	}
	// pciBridge is QEMU's PciBridgeInfo.
	pciBridge struct {
		Bus     pciBehind   `json:"bus"`
		Devices []pciDevice `json:"devices,omitempty"`
	}
	// pciBehind is QEMU's PciBusInfo.
	pciBehind struct {
		Number      int64    `json:"number"`
		Secondary   int64    `json:"secondary"`
		Subordinate int64    `json:"subordinate"`
		IO          pciRange `json:"io_range"`
		Memory      pciRange `json:"memory_range"`
		Prefetch    pciRange `json:"prefetchable_range"`
	}
	pciRange struct {
		Base  int64 `json:"base"`
		Limit int64 `json:"limit"`
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
			return m.queryPCI()
		}),
	}
}

func (m *Monitor) queryPCI() ([]pciBus, error) {
	var functions []*pci.Function
	names := map[*pci.Function]string{}
	behind := map[*pci.Function]bool{} // a root port
	err := m.vm.Do(func() error {
		functions = m.vm.Functions()
		for _, d := range m.vm.Devices() {
			names[d.Function] = d.ID
		}
		return nil
	})
	if err != nil || len(functions) == 0 {
		return []pciBus{}, err
	}
	bus := pciBus{}
	for _, f := range functions {
		d := describeFunction(f, names[f])
		if p := f.Port(); p != nil {
			d.Name = fmt.Sprintf("pci.%d", p.Number())
			d.Bridge = describeBridge(f)
			if child := p.Device(); child != nil {
				behind[child] = true
				c := describeFunction(child, names[child])
				c.Bus = d.Bridge.Bus.Secondary
				d.Bridge.Devices = []pciDevice{c}
			}
		}
		if !behind[f] {
			bus.Devices = append(bus.Devices, d)
		}
	}
	return []pciBus{bus}, nil
}

// describeBridge reads the rest of a bridge's header (PCI-to-PCI Bridge Architecture 1.2 §3.2).
func describeBridge(f *pci.Function) *pciBridge {
	var h [64]byte
	f.Peek(0, h[:])
	le := binary.LittleEndian
	window := func(at int, mask, shift, unit int64) pciRange {
		return pciRange{int64(le.Uint16(h[at:])) & mask << shift, int64(le.Uint16(h[at+2:]))&mask<<shift | (unit - 1)}
	}
	b := &pciBridge{Bus: pciBehind{Number: int64(h[0x18]), Secondary: int64(h[0x19]), Subordinate: int64(h[0x1a])}}
	b.Bus.Memory, b.Bus.Prefetch = window(0x20, 0xfff0, 16, 1<<20), window(0x24, 0xfff0, 16, 1<<20)
	b.Bus.Prefetch.Base |= int64(le.Uint32(h[0x28:])) << 32
	b.Bus.Prefetch.Limit |= int64(le.Uint32(h[0x2c:])) << 32
	b.Bus.IO = pciRange{int64(h[0x1c]&0xf0) << 8, int64(h[0x1d]&0xf0)<<8 | 0xfff}
	return b
}

// describeFunction reads a function's header (PCI Local Bus 3.0 §6.1).
func describeFunction(f *pci.Function, name string) pciDevice {
	var h [64]byte
	f.Peek(0, h[:])
	le := binary.LittleEndian
	class := int(le.Uint16(h[0x0a:]))
	d := pciDevice{
		Slot: int64(f.Devfn() >> 3), Function: int64(f.Devfn() & 7), Class: pciClass{classText(class), int64(class)},
		ID:   pciID{Device: int64(le.Uint16(h[2:])), Vendor: int64(le.Uint16(h[0:]))},
		Name: name, Pin: int64(h[0x3d]), Regions: []pciRegion{},
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
	if err == nil && len(buses) == 0 {
		h.Printf("PCI devices not supported\n")
	}
	for _, b := range buses {
		for _, d := range b.Devices {
			h.function(d)
		}
	}
	return err
}

// function prints a PCI function, and what is behind it if it is a bridge.
func (h *human) function(d pciDevice) {
	h.Printf("  Bus %2d, device %3d, function %d:\n    %s: PCI device %04x:%04x\n", d.Bus, d.Slot, d.Function, d.Class, d.ID.Vendor, d.ID.Device)
	if d.ID.Subsystem != nil {
		h.Printf("      PCI subsystem %04x:%04x\n", *d.ID.SubsystemVendor, *d.ID.Subsystem)
	}
	if d.IRQ != nil {
		h.Printf("      IRQ %d, pin %c\n", *d.IRQ, 'A'+d.Pin-1)
	}
	if b := d.Bridge; b != nil {
		h.Printf("      BUS %d.\n      secondary bus %d.\n      subordinate bus %d.\n", b.Bus.Number, b.Bus.Secondary, b.Bus.Subordinate)
		h.Printf("      IO range [0x%04x, 0x%04x]\n", b.Bus.IO.Base, b.Bus.IO.Limit)
		h.Printf("      memory range [0x%08x, 0x%08x]\n", b.Bus.Memory.Base, b.Bus.Memory.Limit)
		h.Printf("      prefetchable memory range [0x%08x, 0x%08x]\n", b.Bus.Prefetch.Base, b.Bus.Prefetch.Limit)
	}
	for _, r := range d.Regions {
		h.Printf("      %s\n", r)
	}
	h.Printf("      id \"%s\"\n", d.Name)
	if d.Bridge != nil {
		for _, c := range d.Bridge.Devices {
			h.function(c)
		}
	}
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
