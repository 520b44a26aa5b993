// Package ioapic is the 82093AA I/O APIC with the EOI register of later ones.
package ioapic

import (
	"encoding/binary"
	"fmt"
	"sync"

	"berth/irq"
)

// Where the PC has its first I/O APIC.
const (
	Base = 0xfec00000
	Size = 0x1000
)

// Pins is the number of inputs.
const Pins = 24

// Versions: 0x20 has the EOI register.
const (
	Version11 = 0x11
	Version20 = 0x20
)

const (
	regSelect = 0x00 // IOREGSEL
	regWindow = 0x10 // IOWIN
	regEOI    = 0x40
)

// A redirection entry (82093AA datasheet §3.2.4):
//
//	63..56 destination | 16 mask | 15 trigger (1 level) | 14 remote IRR | 13 polarity
//	| 12 delivery status | 11 destination mode (1 logical) | 10..8 delivery mode | 7..0 vector
const (
	entryStatus    = 1 << 12
	entryRemoteIRR = 1 << 14
	entryLevel     = 1 << 15
	entryMasked    = 1 << 16
	entryReadOnly  = entryStatus | entryRemoteIRR
	entryKept      = 0xff<<56 | 0x1ffff
)

// IOAPIC is one controller. Safe for concurrent use.
type IOAPIC struct {
	version uint8
	deliver func(irq.MSI)

	mu sync.Mutex // taken before the local APICs' locks
	s  irq.IOAPICState
}

// New returns an I/O APIC of the given version as after reset. deliver sends a
// message to the local APICs; it is called with the I/O APIC's lock held and must
// not call back.
func New(version uint8, deliver func(irq.MSI)) *IOAPIC {
	a := &IOAPIC{version: version, deliver: deliver}
	a.reset()
	return a
}

// Reset masks all pins. The inputs keep their levels.
func (a *IOAPIC) Reset() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.reset()
}

func (a *IOAPIC) reset() {
	a.s = irq.IOAPICState{IRR: a.s.IRR}
	for i := range a.s.Redirect {
		a.s.Redirect[i] = entryMasked
	}
}

// Set drives pin n; n of Pins and up is ignored.
func (a *IOAPIC) Set(n uint32, level bool) {
	if n >= Pins {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	was := a.s.IRR&(1<<n) != 0
	if level == was {
		return
	}
	a.s.IRR ^= 1 << n
	if level {
		a.service(n)
	}
}

// service sends pin n's message: n has just risen, or is level triggered and
// may be high. An edge at a masked pin is lost (82093AA §3.2.4, interrupt mask).
func (a *IOAPIC) service(n uint32) {
	e := &a.s.Redirect[n]
	if *e&entryMasked != 0 {
		return
	}
	if *e&entryLevel != 0 {
		if a.s.IRR&(1<<n) == 0 || *e&entryRemoteIRR != 0 {
			return
		}
		*e |= entryRemoteIRR
	}
	a.deliver(message(*e))
}

// message is the entry as the I/O APIC puts it on the bus.
func message(e uint64) irq.MSI {
	return irq.MSI{
		Addr: 0xfee00000 | e>>56<<12 | e>>11&1<<2,
		Data: uint32(e&0x7ff | e&entryLevel | 1<<14),
	}
}

// EOI tells of the end of a level-triggered interrupt with the given vector:
// pins that wait for it and are still high send again.
func (a *IOAPIC) EOI(vector uint8) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for n := range uint32(Pins) {
		e := &a.s.Redirect[n]
		if uint8(*e) == vector && *e&(entryLevel|entryRemoteIRR) == entryLevel|entryRemoteIRR {
			*e &^= entryRemoteIRR
			a.service(n)
		}
	}
}

// Sends reports that pin n's interrupt has the given vector.
func (a *IOAPIC) Sends(n uint32, vector uint8) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	e := a.s.Redirect[n]
	return uint8(e) == vector && e&entryMasked == 0
}

// Read implements bus.Handler. The select register has one byte, the window four;
// the rest reads 0.
func (a *IOAPIC) Read(off uint64, p []byte) {
	a.mu.Lock()
	defer a.mu.Unlock()
	var v uint32
	switch off {
	case regSelect:
		v = a.s.Select
	case regWindow:
		v = a.get(a.s.Select)
	}
	var b [8]byte
	binary.LittleEndian.PutUint32(b[:], v)
	copy(p, b[:])
}

// Write implements bus.Handler. Other than 32-bit writes reach only the select register.
func (a *IOAPIC) Write(off uint64, p []byte) {
	a.mu.Lock()
	if off == regSelect {
		a.s.Select = uint32(p[0])
	} else if len(p) >= 4 && off == regWindow {
		a.put(a.s.Select, binary.LittleEndian.Uint32(p))
	}
	a.mu.Unlock()
	if len(p) >= 4 && off == regEOI && a.version >= Version20 {
		a.EOI(p[0])
	}
}

// get reads an indirect register (82093AA §3.2).
func (a *IOAPIC) get(reg uint32) uint32 {
	switch {
	case reg == 0 || reg == 2: // ID, arbitration
		return uint32(a.s.ID) << 24
	case reg == 1:
		return (Pins-1)<<16 | uint32(a.version)
	case reg >= 0x10 && reg < 0x10+2*Pins:
		return uint32(a.s.Redirect[(reg-0x10)/2] >> (reg & 1 * 32))
	}
	return 0
}

func (a *IOAPIC) put(reg, v uint32) {
	switch {
	case reg == 0:
		a.s.ID = uint8(v>>24) & 0x0f
	case reg >= 0x10 && reg < 0x10+2*Pins:
		n := (reg - 0x10) / 2
		shift := reg & 1 * 32
		a.redirect(n, a.s.Redirect[n]&^(0xffffffff<<shift)|uint64(v)<<shift)
	}
}

// redirect writes the writable bits of entry n. Making a pin edge triggered
// clears its remote IRR, which is how systems end an interrupt on version 0x11.
func (a *IOAPIC) redirect(n uint32, v uint64) {
	e := &a.s.Redirect[n]
	*e = v&entryKept&^entryReadOnly | *e&entryReadOnly
	if *e&entryLevel == 0 {
		*e &^= entryRemoteIRR
		return
	}
	a.service(n)
}

// Save returns the controller's state.
func (a *IOAPIC) Save() irq.IOAPICState {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.s
}

// Load replaces the controller's state and sends nothing: what was sent is in
// the local APICs' state.
func (a *IOAPIC) Load(s irq.IOAPICState) error {
	if s.Select > 0xff || s.ID > 0x0f || s.IRR>>Pins != 0 {
		return fmt.Errorf("ioapic: impossible state: select 0x%x, ID 0x%x, IRR 0x%x", s.Select, s.ID, s.IRR)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.s = s
	for i := range a.s.Redirect {
		a.s.Redirect[i] &= entryKept
	}
	return nil
}
