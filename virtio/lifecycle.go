package virtio

import (
	"fmt"
	"math/bits"
)

// Start begins the machine's life; a device runs from the moment it is made.
func (t *transport) Start() error { return nil }

// Pause stops the device: it takes no more chains, and those it has taken are
// finished when Pause returns. A paused device must stop producing work but
// must accept new work: registers work, and rings are remembered.
func (t *transport) Pause() {
	for _, q := range t.queues {
		q.pause()
	}
	defer t.hasten()()
	for _, q := range t.queues {
		q.drain()
	}
}

// Resume lets a paused device go on. After Load it also notifies the driver
// once for every queue: a notification may have been under way when the state
// was saved, and a spurious one does no harm.
func (t *transport) Resume() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, q := range t.queues {
		q.resume()
		if t.loaded && t.active && q.enabled {
			t.wire.queueInterrupt(q)
		}
	}
	t.loaded = false
}

// Reset puts the device back to power-on, as the driver's own reset does; it
// stays paused if it was.
func (t *transport) Reset() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.reset()
}

// StateVersion is the version of State that this package writes and reads.
const StateVersion = 1

// State is the transport and its queues, the same for every transport: one
// without vectors saves NoVector. The rings are in guest memory; a PCI
// function's configuration space is in pci.State, the device's in its own.
type State struct {
	Version       uint32
	ID            DeviceID
	Status        uint32
	Acked         uint64
	FeatureSelect uint32
	DriverSelect  uint32
	QueueSelect   uint16
	ConfigVector  uint16
	Generation    uint8
	ISR           uint8
	Queues        []QueueState
}

// QueueState is one virtqueue's registers and indices.
type QueueState struct {
	Size, Vector        uint16
	Enabled             bool
	Desc, Avail, Used   uint64
	NextAvail, NextUsed uint16
}

// Save returns the state of a paused device.
func (t *transport) Save() State {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := State{
		Version: StateVersion, ID: t.info.ID, Status: t.status.Load(), Acked: t.acked,
		FeatureSelect: t.featureSel, DriverSelect: t.driverSel, QueueSelect: t.queueSel,
		Generation: t.generation,
	}
	for _, q := range t.queues {
		q.mu.Lock()
		s.Queues = append(s.Queues, QueueState{
			Size: q.size, Enabled: q.enabled,
			Desc: q.desc, Avail: q.avail, Used: q.used, NextAvail: q.nextAvail, NextUsed: q.nextUsed,
		})
		q.mu.Unlock()
	}
	t.wire.saveInterrupts(&s)
	return s
}

// Load puts a saved state into a paused device of the same kind, after the
// device's own state and the PCI function's. On an error the device is reset.
func (t *transport) Load(s State) error {
	if s.Version != StateVersion {
		return fmt.Errorf("virtio: %s: state version %d, want %d", t.info.Name, s.Version, StateVersion)
	}
	if s.ID != t.info.ID || len(s.Queues) != len(t.queues) {
		return fmt.Errorf("virtio: %s: state of device type %d with %d queues", t.info.Name, s.ID, len(s.Queues))
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.reset()
	if s.Status&StatusFeaturesOK != 0 && s.Acked&^t.offered != 0 {
		return fmt.Errorf("virtio: %s: state uses features 0x%x that this device lacks", t.info.Name, s.Acked&^t.offered)
	}
	for i, q := range t.queues {
		if err := q.load(s.Queues[i]); err != nil {
			t.reset()
			return err
		}
	}
	t.acked, t.featureSel, t.driverSel, t.queueSel = s.Acked, s.FeatureSelect, s.DriverSelect, s.QueueSelect
	t.generation = s.Generation
	t.wire.loadInterrupts(&s)
	t.status.Store(s.Status & 0xff)
	t.loaded = true
	if s.Status&StatusDriverOK != 0 {
		t.activate()
	}
	return nil
}

func (q *Queue) load(s QueueState) error {
	if s.Size == 0 || s.Size > q.max || bits.OnesCount16(s.Size) != 1 {
		return fmt.Errorf("virtio: queue %d: state has size %d", q.Index, s.Size)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.size, q.enabled = s.Size, s.Enabled
	q.desc, q.avail, q.used = s.Desc, s.Avail, s.Used
	q.nextAvail, q.nextUsed = s.NextAvail, s.NextUsed
	return nil
}
