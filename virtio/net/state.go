package net

import (
	"fmt"
	"sync/atomic"
)

// StateVersion is the version of State that this package writes and reads.
const StateVersion = 1

// State is the device's own state: what commands have set, and the link. Frames on their
// way are not part of it, for a network may lose frames.
type State struct {
	Version  uint32
	MAC      [6]byte
	Link     bool
	Announce bool // the driver has been asked to announce itself, and has not answered

	Promiscuous, AllMulticast, AllUnicast bool
	NoMulticast, NoUnicast, NoBroadcast   bool
	Unicast, Multicast                    [][6]byte
	AnyUnicast, AnyMulticast              bool // the driver named more than its table keeps
	VLANs                                 vlanSet

	Pairs       uint16     // of queues in use
	RSS         *RSSState  // nil: the device steers by itself
	Hash        *HashState // nil: as RSS has it, or none
	Offloads    uint64     // feature bits of what the driver receives
	OffloadsSet bool       // the driver chose them; else they follow from its features
}

// Save returns the state of a paused device.
func (d *Device) Save() State {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.s // what it points at is replaced, never changed
	s.OffloadsSet = s.OffloadsSet || d.live
	return s
}

// Load puts a saved state into a paused device, before the transport's, if it belongs to
// one with as many queues.
func (d *Device) Load(s State) error {
	if s.Version != StateVersion {
		return fmt.Errorf("virtio/net: state version %d, want %d", s.Version, StateVersion)
	}
	switch {
	case s.Pairs < 1 || int(s.Pairs) > d.cfg.Queues, s.RSS != nil && !s.RSS.valid(d.cfg.Queues):
		return fmt.Errorf("virtio/net: state uses queues that this device lacks: it has %d pairs", d.cfg.Queues)
	case len(s.Unicast) > maxAddresses || len(s.Multicast) > maxAddresses, s.Hash != nil && !s.Hash.valid(), s.Offloads&^(d.offers&guestOffloads) != 0:
		return fmt.Errorf("virtio/net: state is not that of a device such as this")
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.s = s
	d.prepareHash()
	d.publish()
	if d.live {
		return d.offload()
	}
	return nil
}

// counters are what a device has moved since it was made.
type counters struct {
	ReceivedFrames, ReceivedBytes, ReceiveDropped        atomic.Uint64
	TransmittedFrames, TransmittedBytes, TransmitDropped atomic.Uint64
}

// Stats are what a device has moved: frames and their bytes towards the driver and from it.
type Stats struct {
	ReceivedFrames, ReceivedBytes, ReceiveDropped        uint64
	TransmittedFrames, TransmittedBytes, TransmitDropped uint64
}

// Stats returns what the device has moved since it was made.
func (d *Device) Stats() Stats {
	c := &d.stats
	return Stats{
		c.ReceivedFrames.Load(), c.ReceivedBytes.Load(), c.ReceiveDropped.Load(),
		c.TransmittedFrames.Load(), c.TransmittedBytes.Load(), c.TransmitDropped.Load(),
	}
}

func (c *counters) received(n int) {
	c.ReceivedFrames.Add(1)
	c.ReceivedBytes.Add(uint64(n))
}

func (c *counters) transmitted(n int) {
	c.TransmittedFrames.Add(1)
	c.TransmittedBytes.Add(uint64(n))
}
