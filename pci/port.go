package pci

import (
	"encoding/binary"
	"fmt"
)

// Registers of a type 1 header (PCI-to-PCI Bridge Architecture 1.2 §3.2).
//
//	0x18  -- | subordinate bus | secondary bus | primary bus
//	0x1c  secondary status | I/O limit | I/O base      no I/O is passed on: they read 0
//	0x20  memory limit     | memory base               bits 15-4: address bits 31-20
//	0x24  prefetchable limit | prefetchable base       likewise; bits 3-0 read 1: 64 bits
//	0x28  upper half of the prefetchable base
//	0x2c  upper half of the prefetchable limit
//	0x3c  bridge control | interrupt pin | line
const (
	regPrimaryBus    = 0x18
	regMemoryWindow  = 0x20
	regPrefetch      = 0x24
	regPrefetchUpper = 0x28
	regWindowsEnd    = 0x30
	regBridgeControl = 0x3e
	headerBridge     = 1
	window64         = 1
	windowUnit       = 1 << 20
)

// The capability of PCI Express (PCI Express 3.0 §7.8), from its own offset:
//
//	0x02 capabilities | 0x04 device: capabilities 4, control 2, status 2
//	0x0c link: capabilities 4, control 2, status 2 | 0x14 slot: the same
//	0x1c root: control 2, capabilities 2, status 4 | 0x24 the second of each
const (
	capExpress       = 0x10
	expressSize      = 0x3c
	expressEndpoint  = 0
	expressRootPort  = 4
	expressSlot      = 1 << 8
	expressSlotState = 0x1a
	slotPresent      = 1 << 6
)

// What a port's bus has room for. A guest finds 64-bit BARs in the prefetchable
// window, which lies above RAM where the machine has addresses there.
const (
	portMem32 = 2 << 20
	portMem64 = 1 << 30
)

// Port is a PCI Express root port on bus 0: a bridge to a bus with one slot, in
// which a function can come and go while the guest runs. How the guest is told is
// not the port's: it claims no hot-plug of its own.
type Port struct {
	fn     *Function
	number uint8 // of the slot, from 1
	cap    int
	child  *Function // devfn 0 of the bus behind; nil: the slot is empty
}

// AddPort makes a root port at devfn on bus 0. number is its slot's, unique and not 0.
func (r *RootComplex) AddPort(devfn, number uint8) (*Port, error) {
	f := NewFunction(fmt.Sprintf("root port %d", number), Identity{Vendor: 0x1b36, Device: 0x000c, Class: 0x060400})
	le := binary.LittleEndian
	f.SetRegister(regHeaderType, []byte{headerBridge}, nil)
	f.SetRegister(regPrimaryBus, make([]byte, 4), []byte{0xff, 0xff, 0xff, 0})
	f.SetRegister(regMemoryWindow, make([]byte, 4), []byte{0xf0, 0xff, 0xf0, 0xff})
	f.SetRegister(regPrefetch, []byte{window64, 0, window64, 0}, []byte{0xf0, 0xff, 0xf0, 0xff})
	f.SetRegister(regPrefetchUpper, make([]byte, 8), []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff})
	f.SetRegister(regBridgeControl, make([]byte, 2), []byte{0x1f, 0})
	p := &Port{fn: f, number: number}
	var err error
	if p.cap, err = f.addExpress(expressRootPort<<4 | expressSlot); err != nil {
		return nil, err
	}
	var slot [4]byte
	le.PutUint32(slot[:], uint32(number)<<19)
	f.SetRegister(p.cap+0x14, slot[:], nil)
	f.bridge = p
	if err := r.AddFunction(devfn, f); err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ports = append(r.ports, p)
	return p, nil
}

// AddExpress makes f an endpoint of PCI Express, as what is plugged into a port is.
func (f *Function) AddExpress() error {
	_, err := f.addExpress(expressEndpoint << 4)
	return err
}

func (f *Function) addExpress(kind uint16) (int, error) {
	const link = 1 | 1<<4 // 2.5 GT/s, one lane
	var body, mask [expressSize - 2]byte
	le := binary.LittleEndian
	le.PutUint16(body[0x00:], 2|kind)
	le.PutUint32(body[0x02:], 1<<15) // role-based error reporting
	le.PutUint16(mask[0x06:], 0x7fff)
	le.PutUint32(body[0x0a:], link)
	le.PutUint16(body[0x10:], link)
	le.PutUint32(body[0x2a:], 1<<1) // supported speeds
	le.PutUint16(body[0x2e:], 1)
	f.express = true
	return f.AddCapability(capExpress, body[:], mask[:])
}

// Number returns the slot's number.
func (p *Port) Number() int { return int(p.number) }

// Port returns the root port that f is, or nil.
func (f *Function) Port() *Port { return f.bridge }

// Function returns the bridge.
func (p *Port) Function() *Function { return p.fn }

// Device returns what is plugged in, or nil.
func (p *Port) Device() *Function {
	p.fn.root.mu.Lock()
	defer p.fn.root.mu.Unlock()
	return p.child
}

// Bus returns the number that the guest has given the bus behind the port; 0: none yet.
func (p *Port) Bus() uint8 {
	p.fn.root.mu.Lock()
	defer p.fn.root.mu.Unlock()
	return p.secondary()
}

// Plug puts f into the slot and makes it visible.
func (p *Port) Plug(f *Function) error {
	r := p.fn.root
	r.mu.Lock()
	defer r.mu.Unlock()
	if p.child != nil {
		return fmt.Errorf("pci: %s: slot %d holds %s", f.name, p.number, p.child.name)
	}
	if !f.express {
		return fmt.Errorf("pci: %s is no endpoint of PCI Express", f.name)
	}
	if err := r.wire(f, p.fn.devfn>>3); err != nil {
		return err
	}
	f.root, f.behind = r, p
	p.child = f
	r.list()
	return nil
}

// Unplug takes out what is plugged in, or returns nil: the guest does not find it
// any more and nothing of it decodes. Accesses that are under way may still reach
// its handlers; when there are none, the owner calls its Close.
func (p *Port) Unplug() *Function {
	r := p.fn.root
	r.mu.Lock()
	defer r.mu.Unlock()
	f := p.child
	if f == nil {
		return nil
	}
	for i := range f.bars {
		if f.bars[i].window != nil {
			r.unmap(f, i)
		}
	}
	p.child = nil
	r.list()
	r.remap() // another may have waited for the addresses
	f.irqMu.Lock()
	if f.line != nil {
		f.line.Set(false)
		f.line = nil
	}
	f.irqMu.Unlock()
	return f
}

// Close releases the message sources of a function that has been unplugged.
func (f *Function) Close() error {
	if f.msix == nil {
		return nil
	}
	return f.msix.close()
}

// port is the number of the port that f is plugged into, or 0.
func (f *Function) port() uint8 {
	if f.behind == nil {
		return 0
	}
	return f.behind.number
}

func (p *Port) secondary() uint8 { return p.fn.cfg[regPrimaryBus+1] }

// behindBus returns the function on a bus that is not 0: the first port with that
// number has it. A link leads to device 0 alone. Called with the lock held.
func (r *RootComplex) behindBus(bus, devfn uint8) *Function {
	if devfn != 0 {
		return nil
	}
	for _, p := range r.ports {
		if p.secondary() == bus {
			return p.child
		}
	}
	return nil
}

// show adds the slot's state to what is read of the port's registers.
func (p *Port) show(off int, b []byte) {
	if i := p.cap + expressSlotState - off; i >= 0 && i < len(b) && p.child != nil {
		b[i] |= slotPresent
	}
}

// forwards reports whether the port passes memory accesses to a range on.
func (p *Port) forwards(base, size uint64) bool {
	if p.fn.command()&cmdMemory == 0 {
		return false
	}
	for _, w := range []Range{p.window(regMemoryWindow, false), p.window(regPrefetch, true)} {
		if base >= w.Base && size <= w.Size && base-w.Base <= w.Size-size {
			return true
		}
	}
	return false
}

// window returns the range that the registers at off select, empty if they are shut.
func (p *Port) window(off int, upper bool) Range {
	le := binary.LittleEndian
	base := uint64(le.Uint16(p.fn.cfg[off:])&0xfff0) << 16
	limit := uint64(le.Uint16(p.fn.cfg[off+2:])&0xfff0)<<16 | (windowUnit - 1)
	if upper {
		base |= uint64(le.Uint32(p.fn.cfg[regPrefetchUpper:])) << 32
		limit |= uint64(le.Uint32(p.fn.cfg[regPrefetchUpper+4:])) << 32
	}
	if limit < base || limit+1 == 0 {
		return Range{}
	}
	return Range{base, limit + 1 - base}
}

// assign gives the port a bus number and windows out of s, and returns what is in them.
func (p *Port) assign(s *space) (behind space, err error) {
	p.fn.cfg[regPrimaryBus] = 0
	p.fn.cfg[regPrimaryBus+1], p.fn.cfg[regPrimaryBus+2] = p.number, p.number
	base, ok := s.mem32.take(portMem32)
	if !ok {
		return behind, fmt.Errorf("pci: %s: no address space left for its memory window", p.fn.name)
	}
	behind.mem32 = Range{base, portMem32}
	p.setWindow(regMemoryWindow, behind.mem32)
	size := uint64(portMem64)
	if base, ok = s.mem64.take(size); !ok {
		size = portMem32
		if base, ok = s.mem32.take(size); !ok {
			return behind, fmt.Errorf("pci: %s: no address space left for its prefetchable window", p.fn.name)
		}
	}
	behind.mem64 = Range{base, size}
	p.setWindow(regPrefetch, behind.mem64)
	return behind, nil
}

func (p *Port) setWindow(off int, w Range) {
	le := binary.LittleEndian
	last := w.Base + w.Size - 1
	kind := p.fn.reset[off] & 0xf
	le.PutUint16(p.fn.cfg[off:], uint16(w.Base>>16)&0xfff0|uint16(kind))
	le.PutUint16(p.fn.cfg[off+2:], uint16(last>>16)&0xfff0|uint16(kind))
	if off == regPrefetch {
		le.PutUint32(p.fn.cfg[regPrefetchUpper:], uint32(w.Base>>32))
		le.PutUint32(p.fn.cfg[regPrefetchUpper+4:], uint32(last>>32))
	}
}
