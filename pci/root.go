// Package pci is a q35-like PCI root complex: configuration space by ports and ECAM, BARs, INTx and MSI-X.
package pci

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"berth/bus"
	"berth/guestmem"
	"berth/irq"
)

// Where the guest finds configuration space.
const (
	ConfigAddressPort = 0xcf8
	ConfigDataPort    = 0xcfc
	ECAMBase          = 0xb0000000
	ECAMSize          = 256 << 20 // 256 buses of 1 MiB
	ECAMBuses         = 256
	// ResetPort is the reset control register, a byte inside CONFIG_ADDRESS's dword.
	ResetPort = 0xcf9
)

// Where AssignResources puts 32-bit BARs and port BARs: the machine's ACPI
// tables give the same ranges to the root bridge's _CRS.
const (
	Mem32Base = 0xc0000000
	Mem32Size = chipsetBase - Mem32Base
	IOBase    = 0xc000
	IOSize    = 0x4000
)

// Range is a run of addresses.
type Range struct{ Base, Size uint64 }

// Config is what a root complex needs of the machine.
type Config struct {
	Ports, MMIO *bus.Space
	Memory      *guestmem.Memory          // BARs never cover RAM
	MSI         irq.MSIAllocator          // nil: AddFunction refuses MSI-X
	Line        func(gsi uint32) irq.Line // a new input of the wire-OR in front of a GSI
	Mem64       Range                     // above RAM, for 64-bit BARs; empty: none
	Reset       bus.Handler               // serves byte accesses to ResetPort; may be nil
}

// RootComplex is the host bridge, the ISA bridge, the functions on bus 0 and what
// is behind root ports.
// Safe for concurrent use.
type RootComplex struct {
	cfg Config

	mu        sync.Mutex // configuration space of every function, and what it maps
	address   uint32     // CONFIG_ADDRESS
	byDevfn   [256]*Function
	functions []*Function // in order of devfn, then those behind ports
	ports     []*Port

	pirqMu sync.Mutex
	pirqs  [8]pirq
	shared [8]*irq.Shared
}

// NewRootComplex maps configuration space and puts the host bridge at 00:00.0
// and the ISA bridge at 00:1f.0.
func NewRootComplex(cfg Config) (*RootComplex, error) {
	r := &RootComplex{cfg: cfg}
	r.wirePIRQs()
	if _, err := cfg.Ports.Map(ConfigAddressPort, 4, "pci config address", addressPort{r}); err != nil {
		return nil, err
	}
	if _, err := cfg.Ports.Map(ConfigDataPort, 4, "pci config data", dataPort{r}); err != nil {
		return nil, err
	}
	if _, err := cfg.MMIO.Map(ECAMBase, ECAMSize, "pci ecam", ecam{r}); err != nil {
		return nil, err
	}
	if err := r.AddFunction(Devfn(0, 0), newHostBridge()); err != nil {
		return nil, err
	}
	if err := r.AddFunction(Devfn(31, 0), r.newISABridge()); err != nil {
		return nil, err
	}
	return r, nil
}

// Devfn packs a device and a function number.
func Devfn(slot, fn uint8) uint8 { return slot<<3 | fn&7 }

// AddFunction puts f at devfn on bus 0, wires its interrupts and makes it
// visible. Function 0 of a device is what the guest looks for first.
func (r *RootComplex) AddFunction(devfn uint8, f *Function) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if g := r.byDevfn[devfn]; g != nil {
		return fmt.Errorf("pci: %s: 00:%02x.%d holds %s", f.name, devfn>>3, devfn&7, g.name)
	}
	if err := r.wire(f, devfn>>3); err != nil {
		return err
	}
	f.root, f.devfn = r, devfn
	r.byDevfn[devfn] = f
	r.list()
	return nil
}

// wire gives f its message sources and the interrupt line of a slot on bus 0.
func (r *RootComplex) wire(f *Function, slot uint8) error {
	if f.root != nil {
		return fmt.Errorf("pci: %s has a place already", f.name)
	}
	if f.msix != nil {
		if r.cfg.MSI == nil {
			return fmt.Errorf("pci: %s: this machine has no MSIs", f.name)
		}
		if err := f.msix.allocate(r.cfg.MSI); err != nil {
			return errors.Join(fmt.Errorf("pci: %s: %w", f.name, err), f.msix.close())
		}
	}
	if pin := f.reset[regIntPin]; pin != 0 {
		f.line = r.shared[INTxGSI(slot, pin-1)-pirqGSI].Source()
	}
	return nil
}

// list brings functions up to date. Called with the lock held.
func (r *RootComplex) list() {
	var all []*Function
	for _, f := range r.byDevfn {
		if f != nil {
			all = append(all, f)
		}
	}
	for _, p := range r.ports {
		if p.child != nil {
			all = append(all, p.child)
		}
	}
	r.functions = all
}

// Functions returns what is on bus 0, in order of devfn, then what is behind ports.
func (r *RootComplex) Functions() []*Function {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]*Function(nil), r.functions...)
}

// Reset puts every function's configuration space back: nothing decodes. The
// devices behind are reset by their owners.
func (r *RootComplex) Reset() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.address = 0
	for _, f := range r.functions {
		f.resetConfig()
	}
	for n := range r.pirqs {
		r.routePIRQ(n, 0x80)
	}
	r.remap()
}

// Close releases the message sources. The VM no longer runs.
func (r *RootComplex) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	var err error
	for _, f := range r.functions {
		if f.msix != nil {
			err = errors.Join(err, f.msix.close())
		}
	}
	return err
}

// ReadConfig reads configuration bytes of a function on a bus; what is not there reads as ones.
func (r *RootComplex) ReadConfig(bus, devfn uint8, off int, p []byte) {
	f := r.at(bus, devfn, off, len(p))
	if f == nil {
		for i := range p {
			p[i] = 0xff
		}
		return
	}
	if off > configSize-len(p) { // no extended capability (PCI Express 3.0 §7.9.1)
		clear(p)
		return
	}
	if h := f.findHook(off, len(p)); h != nil {
		h.h.Read(uint64(off-h.off), p)
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	f.read(off, p)
	if i := regHeaderType - off; i >= 0 && i < len(p) && f.behind == nil && r.hasSiblings(devfn) {
		p[i] |= multiFunction
	}
}

// WriteConfig writes configuration bytes of a function on a bus.
func (r *RootComplex) WriteConfig(bus, devfn uint8, off int, p []byte) {
	f := r.at(bus, devfn, off, len(p))
	if f == nil || off > configSize-len(p) {
		return
	}
	h := f.findHook(off, len(p))
	if h == nil {
		r.mu.Lock()
		defer r.mu.Unlock()
		if f.write(off, p) {
			r.remap()
		}
		return
	}
	h.h.Write(uint64(off-h.off), p)
}

// at returns the function that an access reaches, or nil. A function's hooks never
// change, and may be called for a moment after it was unplugged.
func (r *RootComplex) at(bus, devfn uint8, off, n int) *Function {
	if off < 0 || n > configSize || off > extendedSize-n {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	f := r.byDevfn[devfn]
	if bus != 0 {
		f = r.behindBus(bus, devfn)
	}
	if f == nil || !f.express && off > configSize-n {
		return nil
	}
	return f
}

func (r *RootComplex) hasSiblings(devfn uint8) bool {
	for fn := range uint8(8) {
		if d := devfn&^7 | fn; d != devfn && r.byDevfn[d] != nil {
			return true
		}
	}
	return false
}

// addressPort is CONFIG_ADDRESS (PCI Local Bus 3.0 §3.2.2.3.2):
//
//	31 enable | 23..16 bus | 15..8 devfn | 7..2 register | 1..0 zero
type addressPort struct{ r *RootComplex }

func (a addressPort) Read(off uint64, p []byte) {
	switch {
	case off == 0 && len(p) == 4:
		a.r.mu.Lock()
		binary.LittleEndian.PutUint32(p, a.r.address)
		a.r.mu.Unlock()
	case off == ResetPort-ConfigAddressPort && len(p) == 1 && a.r.cfg.Reset != nil:
		a.r.cfg.Reset.Read(0, p)
	default:
		for i := range p {
			p[i] = 0xff
		}
	}
}

func (a addressPort) Write(off uint64, p []byte) {
	switch {
	case off == 0 && len(p) == 4:
		a.r.mu.Lock()
		a.r.address = binary.LittleEndian.Uint32(p) & 0x80fffffc
		a.r.mu.Unlock()
	case off == ResetPort-ConfigAddressPort && len(p) == 1 && a.r.cfg.Reset != nil:
		a.r.cfg.Reset.Write(0, p)
	}
}

// dataPort is CONFIG_DATA: the bytes of the register that CONFIG_ADDRESS selects.
type dataPort struct{ r *RootComplex }

func (d dataPort) selected() (bus, devfn uint8, reg int, ok bool) {
	d.r.mu.Lock()
	defer d.r.mu.Unlock()
	a := d.r.address
	return uint8(a >> 16), uint8(a >> 8), int(a & 0xfc), a&(1<<31) != 0
}

func (d dataPort) Read(off uint64, p []byte) {
	bus, devfn, reg, ok := d.selected()
	if !ok {
		reg = -extendedSize // nothing is there: reads as ones
	}
	d.r.ReadConfig(bus, devfn, reg+int(off), p)
}

func (d dataPort) Write(off uint64, p []byte) {
	if bus, devfn, reg, ok := d.selected(); ok {
		d.r.WriteConfig(bus, devfn, reg+int(off), p)
	}
}

// ecam is the memory-mapped form (PCI Express 3.0 §7.2.2):
//
//	27..20 bus | 19..12 devfn | 11..0 register
type ecam struct{ r *RootComplex }

func (e ecam) Read(off uint64, p []byte) {
	e.r.ReadConfig(uint8(off>>20), uint8(off>>12), int(off&0xfff), p)
}

func (e ecam) Write(off uint64, p []byte) {
	e.r.WriteConfig(uint8(off>>20), uint8(off>>12), int(off&0xfff), p)
}
