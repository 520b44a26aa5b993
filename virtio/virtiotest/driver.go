// Package virtiotest is a driver for tests: it finds a device behind PCI or a register window, sets up its queues in guest memory and works them; and the suite that every transport passes.
package virtiotest

import (
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

// Transport is what a machine does with a transport, whichever it is.
type Transport interface {
	Pause()
	Resume()
	Reset()
	Close() error
	ConfigChanged()
	Save() virtio.State
	Load(virtio.State) error
}

// registers is how a driver reaches a device through one kind of transport.
type registers interface {
	status() uint64
	setStatus(v uint64)
	// feature reads and acceptFeature writes 32 feature bits of either half.
	feature(half uint64) uint64
	acceptFeature(half, bits uint64)
	queueMax(i int) uint64
	queueReady(i int) bool
	setQueue(r *Ring)
	// bell is the notification register of queue i and its width in bytes.
	bell(i int) (gpa uint64, width int)
	// takeInterrupt reads the reasons for an interrupt and acknowledges them.
	takeInterrupt() uint64
	config(off, n int) uint64
	setConfig(off, n int, v uint64)
	generation() uint64
}

// Driver is a fake driver and the machine around one device.
type Driver struct {
	T        testing.TB
	Mem      *guestmem.Memory
	MMIO     *bus.Space
	Root     *pci.RootComplex // nil: not on PCI
	Dev      Transport
	MSIs     *MSIs
	GSI      *Levels
	Rings    []*Ring
	Features uint64

	registers
	line uint32 // the device's GSI while it has no MSI-X
	pci  pciRegisters
}

func newDriver(t testing.TB) *Driver {
	t.Helper()
	d := &Driver{T: t, Mem: guestmem.New(), MMIO: bus.New(0), MSIs: &MSIs{}, GSI: &Levels{}}
	if _, err := d.Mem.AddRAM(0, RAM); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		d.Dev.Resume()
		d.Dev.Reset()
		if err := d.Dev.Close(); err != nil {
			t.Error(err)
		}
		if d.Root != nil {
			if err := d.Root.Close(); err != nil {
				t.Error(err)
			}
		}
		if err := d.Mem.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

// Status reads the device's status.
func (d *Driver) Status() uint64 { return d.status() }

// SetStatus writes the device's status.
func (d *Driver) SetStatus(v uint64) { d.setStatus(v) }

// Offered reads the device's feature bits.
func (d *Driver) Offered() uint64 { return d.feature(0) | d.feature(1)<<32 }

// Negotiate resets the device and accepts features; it reports whether
// FEATURES_OK stuck.
func (d *Driver) Negotiate(features uint64) bool {
	d.SetStatus(0)
	d.SetStatus(1)
	d.SetStatus(3)
	d.Features = features
	for i := range uint64(2) {
		d.acceptFeature(i, features>>(32*i)&0xffffffff)
	}
	d.SetStatus(11)
	return d.Status()&8 != 0
}

// AddQueue sets up and enables queue i, with MSI-X vector i+1 on PCI.
func (d *Driver) AddQueue(i int, size uint16) *Ring {
	base := uint64(RingBase + i*ringArea)
	r := &Ring{d: d, Index: i, Size: size, Desc: base, Avail: base + 0x4000, Used: base + 0x5000}
	d.Put(base, make([]byte, ringArea))
	d.setQueue(r)
	d.Rings = append(d.Rings, r)
	return r
}

// Begin negotiates features with VERSION_1, sets up one queue, with MSI-X on
// PCI, and starts the device.
func (d *Driver) Begin(features uint64, size uint16) *Ring {
	d.T.Helper()
	d.Rings = nil
	if !d.Negotiate(features | virtio.FeatureVersion1) {
		d.T.Fatal("FEATURES_OK did not stick")
	}
	if d.Root != nil {
		d.EnableMSIX()
		d.Write(Common, 0x10, 2, 0)
	}
	r := d.AddQueue(0, size)
	d.SetStatus(15)
	return r
}

// DeviceConfig reads n bytes of the device configuration space.
func (d *Driver) DeviceConfig(off, n int) uint64 { return d.config(off, n) }

// SetDeviceConfig writes n bytes of the device configuration space.
func (d *Driver) SetDeviceConfig(off, n int, v uint64) { d.setConfig(off, n, v) }

// Generation reads the generation of the device configuration space.
func (d *Driver) Generation() uint64 { return d.generation() }

// Interrupted reports the level of the device's line; a device on PCI uses it
// until MSI-X is enabled.
func (d *Driver) Interrupted() bool { return d.GSI.High(d.line) }

// TakeInterrupt reads the reasons for an interrupt and acknowledges them.
func (d *Driver) TakeInterrupt() uint64 { return d.takeInterrupt() }

// Put writes guest memory.
func (d *Driver) Put(gpa uint64, b []byte) {
	d.T.Helper()
	if err := d.Mem.Write(gpa, b); err != nil {
		d.T.Fatal(err)
	}
}

// Get reads n bytes of guest memory.
func (d *Driver) Get(gpa uint64, n int) string {
	d.T.Helper()
	b := make([]byte, n)
	if err := d.Mem.Read(gpa, b); err != nil {
		d.T.Fatal(err)
	}
	return string(b)
}

// Healthy sends Echo one good chain and checks its answer.
func (d *Driver) Healthy(r *Ring) {
	d.T.Helper()
	d.Put(0x1000, []byte("hello, device"))
	d.Put(0x2000, make([]byte, 32))
	h := r.Send(Out(0x1000, 7), Out(0x1007, 6), In(0x2000, 5), In(0x2005, 20))
	if id, n := r.Wait(); id != uint32(h) || n != 13 {
		d.T.Errorf("used id %d (want %d), length %d", id, h, n)
	}
	if s := d.Get(0x2000, 14); s != "hello, device\x00" {
		d.T.Errorf("answer %q", s)
	}
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
