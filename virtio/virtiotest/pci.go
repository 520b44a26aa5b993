package virtiotest

import (
	"encoding/binary"
	"testing"

	"berth/bus"
	"berth/pci"
	"berth/virtio"
)

const (
	slot    = 3
	slotGSI = 23 // INTA of that slot
)

// Regions of the register BAR, found through the capabilities.
const (
	Common = 1
	Notify = 2
	ISR    = 3
	Config = 4
)

// New puts dev into a machine of its own on PCI, with decoding enabled and the
// device's regions found. Closing is registered with t.
func New(t testing.TB, dev virtio.Device, bells virtio.Doorbells) *Driver {
	t.Helper()
	d := newDriver(t)
	var err error
	d.Root, err = pci.NewRootComplex(pci.Config{
		Ports: bus.New(1 << 16), MMIO: d.MMIO, Memory: d.Mem, MSI: d.MSIs, Line: d.GSI.Line,
		Mem64: pci.Range{Base: 1 << 40, Size: 1 << 30},
	})
	if err != nil {
		t.Fatal(err)
	}
	transport, err := virtio.NewPCI(dev, virtio.PCIConfig{Memory: d.Mem, Doorbells: bells})
	if err != nil {
		t.Fatal(err)
	}
	d.pci.d, d.registers, d.Dev, d.line = d, &d.pci, transport, slotGSI
	if err := d.Root.AddFunction(pci.Devfn(slot, 0), transport.Function()); err != nil {
		t.Fatal(err)
	}
	if err := d.Root.AssignResources(); err != nil {
		t.Fatal(err)
	}
	d.SetCommand(0x6)
	d.discover()
	return d
}

// ReadConfig reads n bytes of PCI configuration space.
func (d *Driver) ReadConfig(off, n int) uint64 {
	var b [8]byte
	d.Root.ReadConfig(0, pci.Devfn(slot, 0), off, b[:n])
	return binary.LittleEndian.Uint64(b[:])
}

// WriteConfig writes n bytes of PCI configuration space.
func (d *Driver) WriteConfig(off, n int, v uint64) {
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], v)
	d.Root.WriteConfig(0, pci.Devfn(slot, 0), off, b[:n])
}

// SetCommand writes the PCI command register.
func (d *Driver) SetCommand(v uint16) { d.WriteConfig(4, 2, uint64(v)) }

// Cap returns the offset of the first capability that match accepts, or 0.
func (d *Driver) Cap(match func(off int) bool) int {
	for off := int(d.ReadConfig(0x34, 1)); off != 0; off = int(d.ReadConfig(off+1, 1)) {
		if match(off) {
			return off
		}
	}
	return 0
}

// VirtioCap returns the offset of the capability of a type.
func (d *Driver) VirtioCap(kind uint64) int {
	return d.Cap(func(off int) bool { return d.ReadConfig(off, 1) == 9 && d.ReadConfig(off+3, 1) == kind })
}

func (d *Driver) discover() {
	d.T.Helper()
	p := &d.pci
	for _, kind := range []uint64{Common, Notify, ISR, Config} {
		off := d.VirtioCap(kind)
		if off == 0 {
			d.T.Fatalf("no capability of type %d", kind)
		}
		bar := 0x10 + 4*int(d.ReadConfig(off+4, 1))
		base := d.ReadConfig(bar, 4)
		if base&6 == 4 {
			base |= d.ReadConfig(bar+4, 4) << 32
		}
		p.regions[kind] = base&^15 + d.ReadConfig(off+8, 4)
		if kind == Notify {
			p.multiplier = d.ReadConfig(off+16, 4)
		}
	}
}

// Read reads n bytes of a region's register.
func (d *Driver) Read(region, off, n int) uint64 {
	var b [8]byte
	d.MMIO.Read(d.pci.regions[region]+uint64(off), b[:n])
	return binary.LittleEndian.Uint64(b[:])
}

// Write writes n bytes of a region's register.
func (d *Driver) Write(region, off, n int, v uint64) {
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], v)
	d.MMIO.Write(d.pci.regions[region]+uint64(off), b[:n])
}

// EnableMSIX switches to MSI-X with vector i sending data 0x40+i, all unmasked.
func (d *Driver) EnableMSIX() {
	off := d.Cap(func(off int) bool { return d.ReadConfig(off, 1) == 0x11 })
	table := d.MSIXTable()
	for i := range d.ReadConfig(off+2, 2)&0x7ff + 1 {
		for j, v := range []uint32{0xfee00000, 0, uint32(0x40 + i), 0} {
			var b [4]byte
			binary.LittleEndian.PutUint32(b[:], v)
			d.MMIO.Write(table+16*i+4*uint64(j), b[:])
		}
	}
	d.WriteConfig(off+2, 2, 0x8000)
}

// MSIXTable returns the guest-physical address of the MSI-X table.
func (d *Driver) MSIXTable() uint64 { return d.ReadConfig(0x14, 4) &^ 15 }

// pciRegisters reaches a device by its BAR.
type pciRegisters struct {
	d          *Driver
	regions    [8]uint64 // guest-physical address of each capability type's region
	multiplier uint64
}

func (p *pciRegisters) status() uint64     { return p.d.Read(Common, 0x14, 1) }
func (p *pciRegisters) setStatus(v uint64) { p.d.Write(Common, 0x14, 1, v) }
func (p *pciRegisters) generation() uint64 { return p.d.Read(Common, 0x15, 1) }

func (p *pciRegisters) feature(half uint64) uint64 {
	p.d.Write(Common, 0, 4, half)
	return p.d.Read(Common, 4, 4)
}

func (p *pciRegisters) acceptFeature(half, bits uint64) {
	p.d.Write(Common, 8, 4, half)
	p.d.Write(Common, 12, 4, bits)
}

func (p *pciRegisters) queueMax(i int) uint64 {
	p.d.Write(Common, 0x16, 2, uint64(i))
	return p.d.Read(Common, 0x18, 2)
}

func (p *pciRegisters) queueReady(i int) bool {
	p.d.Write(Common, 0x16, 2, uint64(i))
	return p.d.Read(Common, 0x1c, 2) == 1
}

func (p *pciRegisters) setQueue(r *Ring) {
	d := p.d
	d.Write(Common, 0x16, 2, uint64(r.Index))
	d.Write(Common, 0x18, 2, uint64(r.Size))
	d.Write(Common, 0x1a, 2, uint64(r.Index+1))
	d.Write(Common, 0x20, 8, r.Desc)
	d.Write(Common, 0x28, 4, r.Avail)
	d.Write(Common, 0x2c, 4, r.Avail>>32)
	d.Write(Common, 0x30, 8, r.Used)
	r.bell, r.width = p.bell(r.Index)
	d.Write(Common, 0x1c, 2, 1)
}

func (p *pciRegisters) bell(i int) (uint64, int) {
	p.d.Write(Common, 0x16, 2, uint64(i))
	return p.regions[Notify] + p.d.Read(Common, 0x1e, 2)*p.multiplier, 2
}

func (p *pciRegisters) takeInterrupt() uint64          { return p.d.Read(ISR, 0, 1) }
func (p *pciRegisters) config(off, n int) uint64       { return p.d.Read(Config, off, n) }
func (p *pciRegisters) setConfig(off, n int, v uint64) { p.d.Write(Config, off, n, v) }
