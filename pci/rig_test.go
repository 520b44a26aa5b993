package pci

import (
	"encoding/binary"
	"testing"

	"berth/bus"
	"berth/guestmem"
	"berth/irq"
)

// rig is a root complex with what a machine gives it, all of it observable.
type rig struct {
	*RootComplex
	t           testing.TB
	ports, mmio *bus.Space
	msi         *sources
	gsi         map[uint32]*gsi
	reset       pad
}

type gsi struct {
	shared *irq.Shared
	level  bool
}

// pad is a register window that remembers.
type pad struct {
	bytes         [256]byte
	reads, writes int
}

func (p *pad) Read(off uint64, b []byte) {
	p.reads++
	copy(b, p.bytes[off%256:])
}

func (p *pad) Write(off uint64, b []byte) {
	p.writes++
	copy(p.bytes[off%256:], b)
}

// sources is an allocator whose sources count.
type sources struct{ all []*source }

type source struct {
	msg    irq.MSI
	masked bool
	sent   []irq.MSI
	closed bool
}

func (s *sources) NewMSISource() (irq.MSISource, error) {
	x := &source{masked: true}
	s.all = append(s.all, x)
	return x, nil
}

func (s *source) Program(m irq.MSI, masked bool) error {
	s.msg, s.masked = m, masked
	return nil
}

func (s *source) Trigger() {
	if !s.masked {
		s.sent = append(s.sent, s.msg)
	}
}

func (s *source) Close() error {
	s.closed = true
	return nil
}

const ramSize = 64 << 20

func newRig(t testing.TB) *rig {
	t.Helper()
	mem := guestmem.New()
	if _, err := mem.AddRAM(0, ramSize); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = mem.Close() })
	r := &rig{t: t, ports: bus.New(1 << 16), mmio: bus.New(0), msi: &sources{}, gsi: map[uint32]*gsi{}}
	root, err := NewRootComplex(Config{
		Ports: r.ports, MMIO: r.mmio, Memory: mem, MSI: r.msi, Line: r.line, Reset: &r.reset,
		Mem64: Range{1 << 36, 1 << 32},
	})
	if err != nil {
		t.Fatal(err)
	}
	r.RootComplex = root
	return r
}

func (r *rig) line(n uint32) irq.Line {
	if r.gsi[n] == nil {
		g := &gsi{}
		g.shared = irq.NewShared(irq.LineFunc(func(l bool) { g.level = l }))
		r.gsi[n] = g
	}
	return r.gsi[n].shared.Source()
}

// add puts a function with the usual parts at a slot.
func (r *rig) add(slot uint8) (*Function, *pad) {
	r.t.Helper()
	f := NewFunction("test device", Identity{Vendor: 0x1234, Device: 0x5678, Class: 0xff0000, Revision: 7, SubsystemVendor: 1, SubsystemID: 2})
	p := &pad{}
	f.UseINTx()
	for i, k := range []BARKind{0: BARIO, 2: BAR32, 4: BAR64Prefetch} {
		size := []uint64{16, 0, 0x1000, 0, 0x4000}[i]
		if size != 0 {
			if err := f.AddBAR(i, k, size, p); err != nil {
				r.t.Fatal(err)
			}
		}
	}
	if _, err := f.AddMSIX(1, 3); err != nil {
		r.t.Fatal(err)
	}
	if err := r.AddFunction(Devfn(slot, 0), f); err != nil {
		r.t.Fatal(err)
	}
	return f, p
}

func (r *rig) read(devfn uint8, off, n int) uint64 {
	var b [8]byte
	r.ReadConfig(0, devfn, off, b[:n])
	return binary.LittleEndian.Uint64(b[:])
}

func (r *rig) write(devfn uint8, off, n int, v uint64) {
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], v)
	r.WriteConfig(0, devfn, off, b[:n])
}

func peek(s *bus.Space, addr uint64, n int) uint64 {
	var b [8]byte
	s.Read(addr, b[:n])
	return binary.LittleEndian.Uint64(b[:])
}

func poke(s *bus.Space, addr uint64, n int, v uint64) {
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], v)
	s.Write(addr, b[:n])
}
