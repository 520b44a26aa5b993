// Package rng is the virtio entropy device over the host's random source.
package rng

import (
	"crypto/rand"
	"fmt"

	"berth/virtio"
)

// maxRequest bounds the bytes that one request is given, so that a guest with
// huge buffers gets entropy no faster than it asks.
const maxRequest = 4096

// Device is one entropy source with one queue (virtio 1.2 §5.4).
type Device struct{}

// New returns an entropy device.
func New() *Device { return &Device{} }

// Info describes the device to its transport.
func (d *Device) Info() virtio.Info {
	return virtio.Info{ID: virtio.IDRNG, Name: "virtio-rng", Queues: []uint16{64}}
}

// ReadConfig has nothing to read: the device has no configuration space.
func (d *Device) ReadConfig([]byte, int) {}

// Activate starts serving the request queue.
func (d *Device) Activate(_ uint64, qs []*virtio.Queue) error {
	q := qs[0]
	var c virtio.Chain
	q.Start(func() {
		for q.Pop(&c) {
			q.Push(&c, fill(&c))
			q.Notify()
		}
	})
	return nil
}

// fill stores random bytes from the first writable byte on and returns how many.
func fill(c *virtio.Chain) int64 {
	left := maxRequest
	for _, b := range c.Writable {
		b = b[:min(len(b), left)]
		_, _ = rand.Read(b) // never fails (crypto/rand)
		left -= len(b)
	}
	return int64(maxRequest - left)
}

// Reset has nothing to forget.
func (d *Device) Reset() {}

// StateVersion is the version of State that this package writes and reads.
const StateVersion = 1

// State is the device's own state: none, but a version.
type State struct{ Version uint32 }

// Save returns the state of a paused device.
func (d *Device) Save() State { return State{StateVersion} }

// Load accepts a saved state.
func (d *Device) Load(s State) error {
	if s.Version != StateVersion {
		return fmt.Errorf("virtio/rng: state version %d, want %d", s.Version, StateVersion)
	}
	return nil
}
