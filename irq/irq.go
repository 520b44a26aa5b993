// Package irq names interrupt lines and message-signalled interrupts, the two ways a device asks for a CPU's attention.
package irq

import "sync"

// Line is one level-triggered interrupt input. Set is idempotent and safe for
// concurrent use; it may be called with a device's lock held, so an
// implementation must never call back into the device from it.
type Line interface {
	Set(level bool)
}

// LineFunc adapts a function to Line.
type LineFunc func(level bool)

// Set calls f(level).
func (f LineFunc) Set(level bool) { f(level) }

// MSI is a message-signalled interrupt as a device writes it (Intel SDM vol. 3A
// §11.11): Addr selects the destination, Data the vector and delivery mode.
//
//	Addr  31..20 0xfee | 19..12 destination ID | 3 redirection hint | 2 destination mode (1 logical)
//	Data  15 trigger (1 level) | 14 assert | 10..8 delivery mode | 7..0 vector
type MSI struct {
	Addr uint64
	Data uint32
}

// Dest returns the destination APIC ID field.
func (m MSI) Dest() uint8 { return uint8(m.Addr >> 12) }

// Logical reports whether Dest is a logical destination.
func (m MSI) Logical() bool { return m.Addr&(1<<2) != 0 }

// Vector returns the interrupt vector.
func (m MSI) Vector() uint8 { return uint8(m.Data) }

// DeliveryMode returns the three-bit delivery mode (0 fixed, 1 lowest priority,
// 2 SMI, 4 NMI, 5 INIT, 6 start-up, 7 ExtINT).
func (m MSI) DeliveryMode() uint8 { return uint8(m.Data>>8) & 7 }

// LevelTriggered reports the trigger-mode bit.
func (m MSI) LevelTriggered() bool { return m.Data&(1<<15) != 0 }

// Sink accepts interrupts on behalf of a VM. GSI n is the n-th input of the
// interrupt controllers: 0-15 are the ISA lines (both 8259 and IOAPIC), 16-23
// the IOAPIC's others. Safe for concurrent use.
type Sink interface {
	SetGSI(gsi uint32, level bool)
	SignalMSI(m MSI) error
}

// MSISource is one programmable message source of a device, backed by an irqfd
// where the accelerator has them. Safe for concurrent use.
type MSISource interface {
	// Program sets the message that Trigger sends; a masked source sends nothing.
	Program(m MSI, masked bool) error
	// Trigger sends the programmed message.
	Trigger()
	// Close releases the source; Trigger afterwards does nothing.
	Close() error
}

// MSIAllocator makes message sources.
type MSIAllocator interface {
	NewMSISource() (MSISource, error)
}

// Doorbell is something to ring: a queue's notification.
type Doorbell interface {
	Ring()
}

// GSILine returns the Line that drives one GSI of a sink.
func GSILine(s Sink, gsi uint32) Line {
	return LineFunc(func(level bool) { s.SetGSI(gsi, level) })
}

// Shared ORs several sources onto one line, as PCI's INTx pins are wired.
type Shared struct {
	mu       sync.Mutex
	line     Line
	asserted int
}

// NewShared returns a wire-OR in front of line.
func NewShared(line Line) *Shared { return &Shared{line: line} }

// Source returns a new input of the wire-OR.
func (s *Shared) Source() Line {
	level := false
	return LineFunc(func(l bool) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if l == level {
			return
		}
		level = l
		if l {
			s.asserted++
		} else {
			s.asserted--
		}
		if (l && s.asserted == 1) || (!l && s.asserted == 0) {
			s.line.Set(l)
		}
	})
}
