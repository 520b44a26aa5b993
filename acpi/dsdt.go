package acpi

import "fmt"

// dsdt returns the definition block after its header: the PCI root, the legacy
// devices, memory-mapped virtio devices, the processors and the soft-off state.
func (c *Config) dsdt() []byte {
	sb := [][]byte{c.motherboard()}
	if c.ECAM.Size > 0 {
		sb = append(sb, c.pciRoot())
	}
	for i, s := range c.Serial {
		sb = append(sb, device(fmt.Sprintf("COM%d", i+1),
			name("_HID", eisaID("PNP0501")),
			name("_UID", integer(uint64(i+1))),
			name("_CRS", resources(ports(s.Port, 8), irqLine(s.IRQ)))))
	}
	if c.RTC {
		sb = append(sb, device("RTC",
			name("_HID", eisaID("PNP0B00")),
			name("_CRS", resources(ports(0x70, 2), irqLine(8)))))
	}
	if c.I8042 {
		sb = append(sb, device("KBD",
			name("_HID", eisaID("PNP0303")),
			name("_CRS", resources(ports(0x60, 1), ports(0x64, 1), irqLine(1)))),
			device("MOU",
				name("_HID", eisaID("PNP0F13")),
				name("_CRS", resources(irqLine(12)))))
	}
	if c.Panic != 0 {
		sb = append(sb, device("PEVT",
			name("_HID", text("QEMU0001")),
			name("_CRS", resources(ports(c.Panic, 1)))))
	}
	for i, v := range c.Virtio {
		sb = append(sb, device(fmt.Sprintf("VR%02X", i),
			name("_HID", text("LNRO0005")),
			name("_UID", integer(uint64(i))),
			name("_CRS", resources(fixedMemory(v.Registers), sharedInterrupt(v.GSI)))))
	}
	sb = append(sb, c.sockets()...)
	off := integer(uint64(c.PM.Off))
	return join(scope(`\_SB`, sb...),
		c.slotEvent(),
		name(`\_S5`, list(off, off, integer(0), integer(0))))
}

// sockets are containers with the processors in them.
func (c *Config) sockets() [][]byte {
	size := c.SocketSize
	if size == 0 {
		size = len(c.CPUs)
	}
	var all [][]byte
	for first := 0; first < len(c.CPUs); first += size {
		terms := [][]byte{name("_HID", text("ACPI0010")), name("_UID", integer(uint64(first/size)))}
		for uid := first; uid < min(first+size, len(c.CPUs)); uid++ {
			terms = append(terms, device(fmt.Sprintf("C%03X", uid),
				name("_HID", text("ACPI0007")),
				name("_UID", integer(uint64(uid)))))
		}
		all = append(all, device(fmt.Sprintf("S%03X", first/size), terms...))
	}
	return all
}

// pciRoot is the PCI Express root with its windows, wires and _OSC.
func (c *Config) pciRoot() []byte {
	crs := [][]byte{
		wordSpace(spaceBus, 0, 0, uint16(c.ECAM.Size>>20-1)),
		ports(0xcf8, 8),
		wordSpace(spaceIO, 3, 0, 0xcf7),
		wordSpace(spaceIO, 3, 0xd00, 0xffff),
	}
	if c.VGA {
		crs = append(crs, dwordMemory(Range{0xa0000, 0x20000}))
	}
	for _, w := range c.PCIWindows {
		if w.Base+w.Size <= 1<<32 {
			crs = append(crs, dwordMemory(w))
		} else {
			crs = append(crs, qwordMemory(w))
		}
	}
	terms := [][]byte{
		name("_HID", eisaID("PNP0A08")),
		name("_CID", eisaID("PNP0A03")),
		name("_SEG", integer(0)),
		name("_BBN", integer(0)),
		name("_UID", integer(0)),
		name("_CRS", resources(crs...)),
		c.osc(),
	}
	if len(c.Slots) > 0 {
		terms = append(terms, c.slots())
	}
	if len(c.Nodes) > 0 {
		terms = append(terms, name("_PXM", integer(0))) // Linux warns of a root whose node it does not know
	}
	if len(c.PCIRoutes) > 0 {
		var prt [][]byte
		for _, r := range c.PCIRoutes {
			prt = append(prt, list(integer(uint64(r.Device)<<16|0xffff), integer(uint64(r.Pin)),
				integer(0), integer(uint64(r.GSI))))
		}
		terms = append(terms, name("_PRT", list(prt...)))
	}
	return device("PCI0", terms...)
}

// motherboard claims what no driver owns: ECAM, which Linux trusts only if
// someone reserves it, and the power-management ports: all that the LPC bridge
// decodes, as Linux warns of a claim that covers a part of them.
func (c *Config) motherboard() []byte {
	crs := [][]byte{ports(c.PM.Base, c.PM.Size)}
	if len(c.Slots) > 0 {
		crs = append(crs, ports(c.SlotPort, slotPorts))
	}
	if c.ECAM.Size > 0 {
		crs = append(crs, fixedMemory(c.ECAM))
	}
	return device("MBRD",
		name("_HID", eisaID("PNP0C02")),
		name("_CRS", resources(crs...)))
}

// _OSC of a PCI root (PCI Firmware 3.0 §4.5.1).
const (
	oscControl     = 1<<0 | 1<<2 | 1<<3 | 1<<4 // native hotplug, PME, AER, the capability structure
	oscNoServices  = 1 << 4                    // root ports that have none of the others: hot-plug is this table's
	oscBadUUID     = 1 << 2
	oscBadRevision = 1 << 3
	oscMasked      = 1 << 4
)

// oscUUID is 33DB4D5B-1FF7-401C-9657-7441C03DD766 in a buffer's byte order.
const oscUUID = "\x5b\x4d\xdb\x33\xf7\x1f\x1c\x40\x96\x57\x74\x41\xc0\x3d\xd7\x66"

// osc hands the operating system native control of PCI Express features:
//
//	Arg0 UUID, Arg1 revision, Arg2 count, Arg3 dwords: status, support, control
func (c *Config) osc() []byte {
	granted := uint64(oscControl)
	if len(c.Slots) > 0 {
		granted = oscNoServices
	}
	status, control := path("CDW1"), path("CDW3")
	setStatus := func(bit uint64) []byte { return or(status, integer(bit), status) }
	return method("_OSC", 4,
		dwordField(arg(3), 0, "CDW1"),
		when(equal(arg(0), buffer([]byte(oscUUID))),
			dwordField(arg(3), 8, "CDW3"),
			and(control, integer(granted), local(0)),
			when(not(equal(arg(1), integer(1))), setStatus(oscBadRevision)),
			when(not(equal(control, local(0))), setStatus(oscMasked)),
			store(local(0), control)),
		otherwise(setStatus(oscBadUUID)),
		ret(arg(3)))
}
