// Package acpi builds the ACPI tables that describe the board to the guest, AML included.
package acpi

import (
	"encoding/binary"
	"fmt"
)

// Config is what the tables say of the machine.
type Config struct {
	// CPUs are the APIC IDs of the processors, the boot processor first. A
	// processor's ACPI UID is its index.
	CPUs       []uint32
	SocketSize int    // processors in a socket, of which each is a container; 0: all in one
	LAPIC      uint32 // address of the local APICs
	IOAPIC     uint32 // address of the IOAPIC with GSI 0
	IOAPICID   uint8
	PM         PM
	PIC        bool    // an 8259 pair, and an 8254 whose line arrives at GSI 2
	ECAM       Range   // 1 MiB per bus, from bus 0; empty: no PCI
	PCIWindows []Range // where PCI BARs may lie, besides all ports but 0xcf8-0xcff
	PCIRoutes  []Route // INTx of devices on bus 0
	// Slots are the root ports in whose slots devices come and go, at most 32, and
	// SlotPort is where their registers are (package pcihp), whose event is in GPE0.
	Slots    []Slot
	SlotPort uint16
	Serial   []Serial
	RTC      bool     // MC146818 at 0x70, IRQ 8
	I8042    bool     // keyboard controller at 0x60 and 0x64, IRQ 1 and 12
	VGA      bool     // legacy VGA ports and window
	Panic    uint16   // port of the ISA pvpanic; 0: none
	Virtio   []Virtio // memory-mapped ones
	// Nodes are the NUMA nodes, with the distance from each to each, 10 to itself.
	Nodes     []Node
	Distances [][]uint8
}

// PM is the fixed power-management hardware (ACPI §4.8). ACPI mode is always on.
type PM struct {
	SCI     uint8  // GSI, level-triggered and active high
	Base    uint16 // the ports that the hardware decodes, Size of them: all that follow but Reset lie there
	Size    uint8
	Event   uint16 // PM1a event block, 4 ports
	Control uint16 // PM1a control register, 2 ports
	Timer   uint16 // 32-bit PM timer, 4 ports
	GPE0    uint16 // general-purpose event block; 0: none
	GPE0Len uint8  // bytes, status and enable together
	Off     uint8  // SLP_TYP value of S5
	// Writing ResetValue to port Reset resets the machine.
	Reset      uint16
	ResetValue uint8
}

// Range is a range of guest-physical addresses.
type Range struct {
	Base, Size uint64
}

// Route is one PCI interrupt pin's wire.
type Route struct {
	Device uint8 // on bus 0
	Pin    uint8 // 0 is INTA
	GSI    uint32
}

// Slot is a slot behind a PCI Express root port.
type Slot struct {
	Port   uint8 // devfn of the root port
	Number uint8 // the slot's own
}

// Serial is a 16550 UART.
type Serial struct {
	Port uint16
	IRQ  uint8
}

// Virtio is a virtio device with memory-mapped registers.
type Virtio struct {
	Registers Range // below 4 GiB
	GSI       uint32
}

// Board returns the description of what all boards have, and processors with
// the given APIC IDs.
func Board(cpus []uint32) Config {
	return Config{
		CPUs:  cpus,
		LAPIC: 0xfee00000, IOAPIC: 0xfec00000,
		PM:     PM{SCI: 9, Base: 0x600, Size: 0x80, Event: 0x600, Control: 0x604, Timer: 0x608, Reset: 0xcf9, ResetValue: 6},
		Serial: []Serial{{0x3f8, 4}},
	}
}

// Tables are built tables, ready to be copied to guest memory.
type Tables struct {
	Base  uint64 // where Bytes goes
	Bytes []byte
	RSDP  uint64 // address of the root pointer, inside Bytes
	// Parts are the single tables by signature, as they lie in Bytes.
	Parts []Part
}

// Part is one table.
type Part struct {
	Signature string
	Addr      uint64
	Bytes     []byte
}

// tableAlign serves every table: the FACS wants 64 bytes, the RSDP 16.
const tableAlign = 64

// Build lays all tables out from base, which must be a multiple of 64; they
// must end at or below limit. The RSDP comes first.
func Build(c Config, base, limit uint64) (*Tables, error) {
	if err := c.check(); err != nil {
		return nil, fmt.Errorf("acpi: %w", err)
	}
	t := &Tables{Base: base, RSDP: base}
	t.Bytes = make([]byte, tableAlign) // the RSDP's place
	facs := t.add("FACS", facs())
	dsdt := t.add("DSDT", seal("DSDT", 2, c.dsdt()))
	roots := []uint64{
		t.add("FACP", seal("FACP", 6, c.fadt(facs, dsdt))),
		t.add("APIC", seal("APIC", 5, c.madt())),
		t.add("WAET", seal("WAET", 1, le32(waetPMTimer))),
	}
	if c.ECAM.Size > 0 {
		roots = append(roots, t.add("MCFG", seal("MCFG", 1, c.mcfg())))
	}
	if len(c.Nodes) > 0 {
		roots = append(roots, t.add("SRAT", seal("SRAT", 3, c.srat())), t.add("SLIT", seal("SLIT", 1, c.slit())))
	}
	var entries []byte
	for _, a := range roots {
		entries = append(entries, le64(a)...)
	}
	xsdt := t.add("XSDT", seal("XSDT", 1, entries))
	copy(t.Bytes, rsdp(xsdt))
	t.Parts = append([]Part{{"RSD PTR ", base, t.Bytes[:rsdpSize]}}, t.Parts...)
	if end := base + uint64(len(t.Bytes)); end > limit || limit > 1<<32 {
		return nil, fmt.Errorf("acpi: tables of %d bytes do not fit in 0x%x-0x%x", len(t.Bytes), base, limit)
	}
	for i, p := range t.Parts {
		off := p.Addr - base
		t.Parts[i].Bytes = t.Bytes[off : off+uint64(len(p.Bytes))]
	}
	return t, nil
}

func (c *Config) check() error {
	if len(c.CPUs) == 0 || len(c.CPUs) > 4096 {
		return fmt.Errorf("%d processors", len(c.CPUs))
	}
	if buses := c.ECAM.Size >> 20; buses > 256 || c.ECAM.Size&(1<<20-1) != 0 {
		return fmt.Errorf("ECAM of 0x%x bytes is not whole buses, 256 at most", c.ECAM.Size)
	}
	if c.ECAM.Base+c.ECAM.Size > 1<<32 {
		return fmt.Errorf("ECAM at 0x%x is not below 4 GiB", c.ECAM.Base)
	}
	for _, w := range c.PCIWindows {
		if w.Size == 0 || w.Base+w.Size < w.Base {
			return fmt.Errorf("PCI window 0x%x+0x%x", w.Base, w.Size)
		}
	}
	if len(c.PCIRoutes) > 255 {
		return fmt.Errorf("%d PCI routes; a package holds 255", len(c.PCIRoutes))
	}
	for _, r := range c.PCIRoutes {
		if r.Device > 31 || r.Pin > 3 {
			return fmt.Errorf("PCI route of device %d pin %d", r.Device, r.Pin)
		}
	}
	if len(c.Slots) > 32 {
		return fmt.Errorf("%d slots: their registers have 32 bits", len(c.Slots))
	}
	for _, s := range c.Serial {
		if s.IRQ > 15 {
			return fmt.Errorf("serial port on IRQ %d", s.IRQ)
		}
	}
	for _, v := range c.Virtio {
		if v.Registers.Base+v.Registers.Size > 1<<32 {
			return fmt.Errorf("virtio registers at 0x%x are not below 4 GiB", v.Registers.Base)
		}
	}
	return c.checkNodes()
}

// add appends a table and returns its address.
func (t *Tables) add(sig string, b []byte) uint64 {
	for len(t.Bytes)%tableAlign != 0 {
		t.Bytes = append(t.Bytes, 0)
	}
	addr := t.Base + uint64(len(t.Bytes))
	t.Bytes = append(t.Bytes, b...)
	t.Parts = append(t.Parts, Part{sig, addr, b})
	return addr
}

const (
	headerSize = 36
	rsdpSize   = 36
	facsSize   = 64
	oemID      = "BERTH "
	oemTable   = "BERTH   "
	creator    = "BRTH"
)

// seal puts the common header before body (ACPI §5.2.6).
//
//	0 signature | 4 length u32 | 8 revision u8 | 9 checksum u8 | 10 OEM ID [6]
//	16 OEM table ID [8] | 24 OEM revision u32 | 28 creator ID [4] | 32 creator revision u32
func seal(sig string, revision uint8, body []byte) []byte {
	b := make([]byte, headerSize, headerSize+len(body))
	copy(b, sig)
	binary.LittleEndian.PutUint32(b[4:], uint32(headerSize+len(body)))
	b[8] = revision
	copy(b[10:], oemID)
	copy(b[16:], oemTable)
	binary.LittleEndian.PutUint32(b[24:], 1)
	copy(b[28:], creator)
	binary.LittleEndian.PutUint32(b[32:], 1)
	b = append(b, body...)
	b[9] = checksum(b)
	return b
}

// checksum returns the byte that makes b, with that byte zero, sum to zero.
func checksum(b []byte) uint8 {
	var sum uint8
	for _, v := range b {
		sum += v
	}
	return -sum
}

// rsdp builds the root pointer, revision 2 (ACPI §5.2.5.3).
//
//	0 "RSD PTR " | 8 checksum of 0-19 | 9 OEM ID [6] | 15 revision | 16 RSDT u32
//	20 length u32 | 24 XSDT u64 | 32 checksum of all | 33 reserved [3]
func rsdp(xsdt uint64) []byte {
	b := make([]byte, rsdpSize)
	copy(b, "RSD PTR ")
	copy(b[9:], oemID)
	b[15] = 2
	binary.LittleEndian.PutUint32(b[20:], rsdpSize)
	binary.LittleEndian.PutUint64(b[24:], xsdt)
	b[8] = checksum(b[:20])
	b[32] = checksum(b)
	return b
}

// facs builds the firmware control structure (ACPI §5.2.10): no waking vector.
func facs() []byte {
	b := make([]byte, facsSize)
	copy(b, "FACS")
	binary.LittleEndian.PutUint32(b[4:], facsSize)
	b[32] = 2 // version
	return b
}

func le16(v uint16) []byte { return binary.LittleEndian.AppendUint16(nil, v) }
func le32(v uint32) []byte { return binary.LittleEndian.AppendUint32(nil, v) }
func le64(v uint64) []byte { return binary.LittleEndian.AppendUint64(nil, v) }
