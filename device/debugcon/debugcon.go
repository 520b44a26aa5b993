// Package debugcon is the debug console: a port to which firmware writes its log.
package debugcon

import (
	"fmt"
	"io"

	"berth/chardev"
)

// Port window.
const (
	Base = 0x402
	Size = 1
)

const (
	present = 0xe9 // what the port reads, so that a guest can tell it is there
	limit   = 256 << 10
)

// Device is the port. The port has no way to say that it is full, and a vCPU
// must not wait for a slow reader: bytes beyond a buffer of 256 KiB are dropped.
type Device struct{ out *chardev.Queue }

// New returns a console that writes to w from a goroutine of its own.
func New(w io.Writer) *Device { return &Device{out: chardev.NewQueue(w, limit, nil)} }

// Read implements bus.Handler.
func (d *Device) Read(_ uint64, p []byte) {
	for i := range p {
		p[i] = present
	}
}

// Write implements bus.Handler.
func (d *Device) Write(_ uint64, p []byte) { d.out.Offer(p) }

// Drain returns when all that was kept has been written.
func (d *Device) Drain() { d.out.Drain() }

// Close drains the console and ends its goroutine.
func (d *Device) Close() error { return d.out.Close() }

// StateVersion is the version of State.
const StateVersion = 1

// State is the device's: nothing but the version.
type State struct{ Version uint32 }

// Save returns the device's state. Drain first, or what is not yet written is missing.
func (d *Device) Save() State { return State{StateVersion} }

// Load checks the version.
func (d *Device) Load(s State) error {
	if s.Version != StateVersion {
		return fmt.Errorf("debugcon: state version %d, want %d", s.Version, StateVersion)
	}
	return nil
}
