// Package debugexit is a port by which a test guest ends the monitor with a status of its choice.
package debugexit

import "fmt"

// Port window.
const (
	Base = 0xf4
	Size = 4
)

// Device is the port. It has no state.
type Device struct{ exit func(status int) }

// New returns the device. A write of v calls exit(v<<1|1), never 0, on the
// vCPU's thread; v counts as many bytes as were written.
func New(exit func(status int)) *Device { return &Device{exit: exit} }

// Read implements bus.Handler: it reads 0.
func (d *Device) Read(_ uint64, p []byte) { clear(p) }

// Write implements bus.Handler.
func (d *Device) Write(_ uint64, p []byte) {
	var v uint32
	for i, b := range p[:min(4, len(p))] {
		v |= uint32(b) << (8 * i)
	}
	d.exit(int(v)<<1 | 1)
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
		return fmt.Errorf("debugexit: state version %d, want %d", s.Version, StateVersion)
	}
	return nil
}
