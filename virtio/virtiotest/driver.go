// Package virtiotest is a driver for tests: it finds a device on PCI, sets up its queues in guest memory and works them.
package virtiotest

import (
	"encoding/binary"
	"sync"
	"testing"
	"time"

	"berth/bus"
	"berth/guestmem"
	"berth/irq"
	"berth/pci"
	"berth/virtio"
)

// RAM is the size of the driver's memory, which begins at 0. Rings are laid out
// from RingBase on; below is the test's.
const (
	RAM      = 4 << 20
	RingBase = 2 << 20
	ringArea = 0x8000
)

const slot = 3

// Regions of the register BAR, found through the capabilities.
const (
	Common = 1
	Notify = 2
	ISR    = 3
	Config = 4
)

// Driver is a fake driver and the machine around one device.
type Driver struct {
	T        testing.TB
	Mem      *guestmem.Memory
	MMIO     *bus.Space
	Root     *pci.RootComplex
	Dev      *virtio.PCI
	MSIs     *MSIs
	GSI      *Levels
	Rings    []*Ring
	Features uint64

	regions    [8]uint64 // guest-physical address of each capability type's region
	multiplier uint64
}

// New puts dev into a machine of its own, with decoding enabled and the
// device's regions found. Closing is registered with t.
func New(t testing.TB, dev virtio.Device, bells virtio.Doorbells) *Driver {
	t.Helper()
	d := &Driver{T: t, Mem: guestmem.New(), MMIO: bus.New(0), MSIs: &MSIs{}, GSI: &Levels{}}
	if _, err := d.Mem.AddRAM(0, RAM); err != nil {
		t.Fatal(err)
	}
	var err error
	d.Root, err = pci.NewRootComplex(pci.Config{
		Ports: bus.New(1 << 16), MMIO: d.MMIO, Memory: d.Mem, MSI: d.MSIs, Line: d.GSI.Line,
		Mem64: pci.Range{Base: 1 << 40, Size: 1 << 30},
	})
	if err != nil {
		t.Fatal(err)
	}
	d.Dev, err = virtio.NewPCI(dev, virtio.PCIConfig{Memory: d.Mem, Doorbells: bells})
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Root.AddFunction(pci.Devfn(slot, 0), d.Dev.Function()); err != nil {
		t.Fatal(err)
	}
	if err := d.Root.AssignResources(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		d.Dev.Resume()
		d.Dev.Reset()
		if err := d.Dev.Close(); err != nil {
			t.Error(err)
		}
		if err := d.Root.Close(); err != nil {
			t.Error(err)
		}
		if err := d.Mem.Close(); err != nil {
			t.Error(err)
		}
	})
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
		d.regions[kind] = base&^15 + d.ReadConfig(off+8, 4)
		if kind == Notify {
			d.multiplier = d.ReadConfig(off+16, 4)
		}
	}
}

// Read reads n bytes of a region's register.
func (d *Driver) Read(region, off, n int) uint64 {
	var b [8]byte
	d.MMIO.Read(d.regions[region]+uint64(off), b[:n])
	return binary.LittleEndian.Uint64(b[:])
}

// Write writes n bytes of a region's register.
func (d *Driver) Write(region, off, n int, v uint64) {
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], v)
	d.MMIO.Write(d.regions[region]+uint64(off), b[:n])
}

// Status reads device_status.
func (d *Driver) Status() uint64 { return d.Read(Common, 0x14, 1) }

// SetStatus writes device_status.
func (d *Driver) SetStatus(v uint64) { d.Write(Common, 0x14, 1, v) }

// Offered reads the device's feature bits.
func (d *Driver) Offered() uint64 {
	d.Write(Common, 0, 4, 0)
	lo := d.Read(Common, 4, 4)
	d.Write(Common, 0, 4, 1)
	return lo | d.Read(Common, 4, 4)<<32
}

// Negotiate resets the device and accepts features; it reports whether
// FEATURES_OK stuck.
func (d *Driver) Negotiate(features uint64) bool {
	d.SetStatus(0)
	d.SetStatus(1)
	d.SetStatus(3)
	d.Features = features
	for i := range uint64(2) {
		d.Write(Common, 8, 4, i)
		d.Write(Common, 12, 4, features>>(32*i)&0xffffffff)
	}
	d.SetStatus(11)
	return d.Status()&8 != 0
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

// AddQueue sets up and enables queue i with MSI-X vector i+1.
func (d *Driver) AddQueue(i int, size uint16) *Ring {
	base := uint64(RingBase + i*ringArea)
	r := &Ring{d: d, Index: i, Size: size, Desc: base, Avail: base + 0x4000, Used: base + 0x5000}
	d.Write(Common, 0x16, 2, uint64(i))
	d.Write(Common, 0x18, 2, uint64(size))
	d.Write(Common, 0x1a, 2, uint64(i+1))
	d.Write(Common, 0x20, 8, r.Desc)
	d.Write(Common, 0x28, 4, r.Avail)
	d.Write(Common, 0x2c, 4, 0)
	d.Write(Common, 0x30, 8, r.Used)
	r.notify = d.Read(Common, 0x1e, 2) * d.multiplier
	d.Write(Common, 0x1c, 2, 1)
	zero := make([]byte, ringArea)
	if err := d.Mem.Write(base, zero); err != nil {
		d.T.Fatal(err)
	}
	d.Rings = append(d.Rings, r)
	return r
}

// Begin negotiates features with VERSION_1, sets up one queue with MSI-X and starts the device.
func (d *Driver) Begin(features uint64, size uint16) *Ring {
	d.T.Helper()
	d.Rings = nil
	if !d.Negotiate(features | virtio.FeatureVersion1) {
		d.T.Fatal("FEATURES_OK did not stick")
	}
	d.EnableMSIX()
	d.Write(Common, 0x10, 2, 0)
	r := d.AddQueue(0, size)
	d.SetStatus(15)
	return r
}

// Wait polls until cond holds.
func (d *Driver) Wait(what string, cond func() bool) {
	d.T.Helper()
	for i := 0; !cond(); i++ {
		if i > 200000 {
			d.T.Fatalf("waited in vain for %s (status 0x%x)", what, d.Status())
		}
		time.Sleep(50 * time.Microsecond)
	}
}

// MSIs allocates sources that record what they send.
type MSIs struct {
	mu   sync.Mutex
	sent []irq.MSI
	Live int // sources not closed
}

type source struct {
	m      *MSIs
	msg    irq.MSI
	masked bool
}

// NewMSISource returns a masked source.
func (m *MSIs) NewMSISource() (irq.MSISource, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.Live++
	return &source{m: m, masked: true}, nil
}

func (s *source) Program(msg irq.MSI, masked bool) error {
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	s.msg, s.masked = msg, masked
	return nil
}

func (s *source) Trigger() {
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	if !s.masked {
		s.m.sent = append(s.m.sent, s.msg)
	}
}

func (s *source) Close() error {
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	s.m.Live--
	return nil
}

// Count returns how many messages with this data have been sent.
func (m *MSIs) Count(data uint32) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := 0
	for _, s := range m.sent {
		if s.Data == data {
			n++
		}
	}
	return n
}

// Levels is the state of 24 GSIs, each a wire-OR.
type Levels struct {
	mu     sync.Mutex
	level  [24]bool
	shared [24]*irq.Shared
}

// Line returns a new input of a GSI.
func (l *Levels) Line(gsi uint32) irq.Line {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.shared[gsi] == nil {
		l.shared[gsi] = irq.NewShared(irq.LineFunc(func(v bool) {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.level[gsi] = v
		}))
	}
	return l.shared[gsi].Source()
}

// High reports a GSI's level.
func (l *Levels) High(gsi uint32) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.level[gsi]
}
