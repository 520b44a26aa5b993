package pci

import (
	"encoding/binary"
	"fmt"
	"sync"

	"berth/bus"
	"berth/irq"
)

// Offsets in a type 0 header (PCI Local Bus 3.0 §6.1).
const (
	regVendor     = 0x00
	regCommand    = 0x04
	regStatus     = 0x06
	regRevision   = 0x08
	regClass      = 0x09
	regCacheLine  = 0x0c
	regHeaderType = 0x0e
	regBAR0       = 0x10
	regSubsystem  = 0x2c
	regCapPtr     = 0x34
	regIntLine    = 0x3c
	regIntPin     = 0x3d
	firstCap      = 0x40
	configSize    = 256
	extendedSize  = 4096
)

const (
	cmdIO         = 1 << 0
	cmdMemory     = 1 << 1
	cmdBusMaster  = 1 << 2
	cmdINTxOff    = 1 << 10
	cmdWritable   = cmdIO | cmdMemory | cmdBusMaster | 1<<6 | 1<<8 | cmdINTxOff
	statusINTx    = 1 << 3
	statusCapList = 1 << 4
	multiFunction = 0x80
)

// Identity is what a function says it is.
type Identity struct {
	Vendor, Device               uint16
	Class                        uint32 // base class, subclass, programming interface: 24 bits
	Revision                     uint8
	SubsystemVendor, SubsystemID uint16
}

// Function is one PCI function with a type 0 header (a Port's has type 1). Build it (AddBAR,
// AddCapability, AddMSIX, UseINTx, …), then give it to RootComplex.AddFunction
// or Port.Plug; from then on the guest changes it, under the complex's lock.
//
//	0x00  device ID | vendor ID            0x2c  subsystem ID | subsystem vendor
//	0x04  status    | command              0x34  capabilities pointer
//	0x08  class code| revision             0x3c  -- | -- | interrupt pin | line
//	0x10  BAR 0 … BAR 5 (0x24)             0x40  capabilities, device registers
type Function struct {
	name     string
	cfg      [configSize]byte
	writable [configSize]byte // 1: the guest can change the bit
	reset    [configSize]byte // cfg after a reset
	nextCap  int
	lastCap  int // offset of the pointer to write the next capability's offset to
	bars     [6]bar
	hooks    []hook
	msix     *MSIX
	root     *RootComplex
	devfn    uint8
	bridge   *Port // the port that this function is, or nil
	behind   *Port // the port that it is plugged into; nil: it is on bus 0
	express  bool  // has configuration space up to 4 KiB, of which the rest reads 0

	irqMu sync.Mutex
	line  irq.Line
	intx  bool // the device asks for an interrupt
	quiet bool // command bit 10 or MSI-X keep the pin silent
}

// hook is a run of configuration bytes that a handler serves.
type hook struct {
	off, n int
	h      bus.Handler
}

// NewFunction returns a function with no BARs and no capabilities. name is for people.
func NewFunction(name string, id Identity) *Function {
	f := &Function{name: name, nextCap: firstCap, lastCap: regCapPtr}
	le := binary.LittleEndian
	le.PutUint16(f.reset[regVendor:], id.Vendor)
	le.PutUint16(f.reset[regVendor+2:], id.Device)
	le.PutUint32(f.reset[regRevision:], id.Class<<8|uint32(id.Revision))
	le.PutUint16(f.reset[regSubsystem:], id.SubsystemVendor)
	le.PutUint16(f.reset[regSubsystem+2:], id.SubsystemID)
	le.PutUint16(f.writable[regCommand:], cmdWritable)
	f.writable[regCacheLine] = 0xff
	f.writable[regIntLine] = 0xff
	f.cfg = f.reset
	return f
}

// Name returns the name given to NewFunction.
func (f *Function) Name() string { return f.name }

// Devfn returns the function's place: device number in bits 7-3, function number in 2-0.
func (f *Function) Devfn() uint8 { return f.devfn }

// SetRegister gives configuration bytes their reset value; mask has a 1 for
// each bit that the guest can change (nil: none).
func (f *Function) SetRegister(off int, value, mask []byte) {
	copy(f.reset[off:], value)
	copy(f.cfg[off:], value)
	copy(f.writable[off:], mask)
}

// AddCapability appends a capability: body follows the ID and next-pointer
// bytes, mask has a 1 for each of its bits that the guest can change (nil:
// none). It returns the capability's offset.
func (f *Function) AddCapability(id uint8, body, mask []byte) (int, error) {
	off, n := f.nextCap, 2+len(body)
	if off+n > configSize {
		return 0, fmt.Errorf("pci: %s: no room for capability 0x%x of %d bytes", f.name, id, n)
	}
	f.SetRegister(off, []byte{id, 0}, nil)
	f.SetRegister(off+2, body, mask)
	f.SetRegister(f.lastCap, []byte{byte(off)}, nil)
	f.SetRegister(regStatus, []byte{statusCapList}, nil)
	f.lastCap, f.nextCap = off+1, (off+n+3)&^3
	return off, nil
}

// Hook lets h serve n configuration bytes from off. It is called with no lock held.
func (f *Function) Hook(off, n int, h bus.Handler) {
	f.hooks = append(f.hooks, hook{off, n, h})
}

// Peek copies configuration bytes from off, as a hook needs them.
func (f *Function) Peek(off int, p []byte) {
	if r := f.root; r != nil {
		r.mu.Lock()
		defer r.mu.Unlock()
	}
	copy(p, f.cfg[off:])
}

// UseINTx connects the function to pin INTA#.
func (f *Function) UseINTx() { f.SetRegister(regIntPin, []byte{1}, nil) }

// SetINTx raises or lowers the function's INTx request. Safe for concurrent
// use; nothing reaches the line while INTx is disabled or MSI-X is enabled.
func (f *Function) SetINTx(level bool) {
	f.irqMu.Lock()
	defer f.irqMu.Unlock()
	f.intx = level
	f.driveINTx()
}

// driveINTx is called with irqMu held.
func (f *Function) driveINTx() {
	if f.line != nil {
		f.line.Set(f.intx && !f.quiet)
	}
}

// updateINTx takes over a change of the bits that silence the pin.
func (f *Function) updateINTx() {
	f.irqMu.Lock()
	defer f.irqMu.Unlock()
	f.quiet = f.command()&cmdINTxOff != 0 || (f.msix != nil && f.msix.Enabled())
	f.driveINTx()
}

func (f *Function) command() uint16 { return binary.LittleEndian.Uint16(f.cfg[regCommand:]) }

// findHook returns the hook that holds the whole access.
func (f *Function) findHook(off, n int) *hook {
	for i := range f.hooks {
		if h := &f.hooks[i]; off >= h.off && off+n <= h.off+h.n {
			return h
		}
	}
	return nil
}

// read copies configuration bytes. Called with the complex's lock held; off+len(p) is inside the header.
func (f *Function) read(off int, p []byte) {
	copy(p, f.cfg[off:])
	if i := regStatus - off; i >= 0 && i < len(p) {
		f.irqMu.Lock()
		if f.intx {
			p[i] |= statusINTx
		}
		f.irqMu.Unlock()
	}
	if f.bridge != nil {
		f.bridge.show(off, p)
	}
}

// write stores configuration bytes and lets what depends on them follow.
// Called with the complex's lock held; it reports whether decoding may have changed.
func (f *Function) write(off int, p []byte) (moved bool) {
	for i, v := range p {
		m := f.writable[off+i]
		f.cfg[off+i] = f.cfg[off+i]&^m | v&m
	}
	end := off + len(p)
	if f.msix != nil && off < f.msix.cap+4 && end > f.msix.cap+2 {
		f.msix.control(binary.LittleEndian.Uint16(f.cfg[f.msix.cap+2:]))
		f.updateINTx()
	}
	if off < regCommand+2 && end > regCommand {
		f.updateINTx()
		moved = true
	}
	last := regBAR0 + 24
	if f.bridge != nil {
		last = regWindowsEnd
	}
	return moved || (off < last && end > regBAR0)
}

// resetConfig puts every register back. Called with the complex's lock held.
func (f *Function) resetConfig() {
	f.cfg = f.reset
	if f.msix != nil {
		f.msix.reset()
	}
	f.irqMu.Lock()
	f.intx = false
	f.irqMu.Unlock()
	f.updateINTx()
}
