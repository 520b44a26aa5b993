// Package pvpanic is the device by which a guest's kernel says that it has panicked.
package pvpanic

import (
	"fmt"

	"berth/bus"
)

// The ISA device is one port; on PCI the same register begins BAR 0 (QEMU,
// docs/specs/pvpanic).
const (
	Port = 0x505
	Size = 1

	PCIVendor  = 0x1b36
	PCIDevice  = 0x0011
	PCIClass   = 0x088000 // a system peripheral of no kind that has a number
	PCIBARSize = 16
)

// Event is what a guest says.
type Event uint8

// Events, as bits of the register. It reads as those that the device knows.
const (
	Panicked    Event = 1 << 0 // the kernel has panicked
	CrashLoaded Event = 1 << 1 // it has panicked, and a crash kernel takes over
)

// Device is the register. It has no state.
type Device struct{ tell func(Event) }

var _ bus.Handler = (*Device)(nil)

// New returns the device. Of a write with more than one event tell hears the
// worst, on the vCPU's thread; it must not block.
func New(tell func(Event)) *Device { return &Device{tell} }

// Read implements bus.Handler.
func (d *Device) Read(off uint64, p []byte) {
	clear(p)
	if off == 0 {
		p[0] = byte(Panicked | CrashLoaded)
	}
}

// Write implements bus.Handler. Events that are not known are dropped.
func (d *Device) Write(off uint64, p []byte) {
	if off != 0 {
		return
	}
	for _, e := range []Event{Panicked, CrashLoaded} {
		if Event(p[0])&e != 0 {
			d.tell(e)
			return
		}
	}
}

// StateVersion is the version of State.
const StateVersion = 1

// State is the device's: nothing but the version.
type State struct{ Version uint32 }

// Save returns the device's state.
func (d *Device) Save() State { return State{StateVersion} }

// Load checks the version.
func (d *Device) Load(s State) error {
	if s.Version != StateVersion {
		return fmt.Errorf("pvpanic: state version %d, want %d", s.Version, StateVersion)
	}
	return nil
}
