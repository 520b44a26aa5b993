package virtio

import (
	"errors"
	"fmt"
	"log/slog"
	"math/bits"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"berth/guestmem"
)

const (
	maxQueues    = 1024
	maxQueueSize = 1024
)

// Reasons for an interrupt, as both transports' status registers number them
// (virtio 1.2 §4.1.4.5, §4.2.2).
const (
	isrQueue  = 1
	isrConfig = 2
)

// transport is what all transports have in common: the device, its queues, and
// what the driver has negotiated. It has the machine's device lifecycle: Start,
// Pause, Resume, Reset.
type transport struct {
	dev    Device
	info   Info
	log    *slog.Logger // may be nil
	queues []*Queue
	wire   wire

	status      atomic.Uint32 // written under mu, save for NEEDS_RESET
	configEpoch atomic.Uint32 // changes of the device configuration
	faulted     atomic.Bool   // a broken ring has been logged

	mu         sync.Mutex // registers below; held while the device is activated or reset
	offered    uint64
	acked      uint64
	featureSel uint32
	driverSel  uint32
	queueSel   uint16
	generation uint8
	seenEpoch  uint32
	active     bool
	loaded     bool // state was loaded and Resume has not been called since
}

// wire is a transport's way of interrupting the driver.
type wire interface {
	queueInterrupt(*Queue)
	configInterrupt()
	// clearInterrupts takes back what has not been delivered, and all vectors.
	clearInterrupts()
	// saveInterrupts and loadInterrupts fill and read State's vectors and ISR.
	saveInterrupts(*State)
	loadInterrupts(*State)
}

// open makes the queues of dev. On an error nothing is left open.
func (t *transport) open(dev Device, mem *guestmem.Memory, log *slog.Logger, w wire) error {
	t.dev, t.info, t.log, t.wire = dev, dev.Info(), log, w
	t.offered = t.info.Features | ringFeatures
	if n := len(t.info.Queues); n < 1 || n > maxQueues || t.info.ConfigSize > regionSize {
		return fmt.Errorf("virtio: %s: %d queues, %d bytes of configuration", t.info.Name, n, t.info.ConfigSize)
	}
	for i, size := range t.info.Queues {
		if size == 0 || size&(size-1) != 0 || size > maxQueueSize {
			return errors.Join(fmt.Errorf("virtio: %s: queue %d of size %d", t.info.Name, i, size), t.Close())
		}
		q := &Queue{Index: i, mem: mem, max: size, trigger: w.queueInterrupt, failed: t.queueFailed}
		if err := q.worker.open(); err != nil {
			return errors.Join(err, t.Close())
		}
		q.clear()
		t.queues = append(t.queues, q)
	}
	if c, ok := dev.(ConfigChanger); ok {
		c.OnConfigChange(t.ConfigChanged)
	}
	return nil
}

// Close releases the queues' eventfds.
func (t *transport) Close() error {
	var err error
	for _, q := range t.queues {
		err = errors.Join(err, unix.Close(q.worker.fd))
	}
	return err
}

// half returns the 32 feature bits that a selector names.
func half(features uint64, sel uint32) uint32 {
	if sel > 1 {
		return 0
	}
	return uint32(features >> (32 * sel))
}

// accept takes the half of the driver's features that its selector names.
func (t *transport) accept(v uint32) {
	if t.status.Load()&StatusFeaturesOK != 0 || t.driverSel > 1 {
		return
	}
	shift := 32 * t.driverSel
	t.acked = t.acked&^(0xffffffff<<shift) | uint64(v)<<shift
}

// selected returns the queue that the queue selector names, or nil.
func (t *transport) selected() *Queue {
	if int(t.queueSel) < len(t.queues) {
		return t.queues[t.queueSel]
	}
	return nil
}

// setSize, setArea and enable change what the driver says of a queue, until it
// is enabled or the device runs.

func (t *transport) setSize(q *Queue, v uint64) {
	if !t.frozen(q) && v != 0 && v <= uint64(q.max) && bits.OnesCount64(v) == 1 {
		q.mu.Lock()
		q.size = uint16(v)
		q.mu.Unlock()
	}
}

// setArea writes half a ring address: areas 0 to 2 are the descriptor table,
// the available ring and the used ring.
func (t *transport) setArea(q *Queue, area, half int, v uint32) {
	if t.frozen(q) {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	a, shift := [...]*uint64{&q.desc, &q.avail, &q.used}[area], 32*half
	*a = *a&^(0xffffffff<<shift) | uint64(v)<<shift
}

func (t *transport) enable(q *Queue, on bool) {
	if !t.frozen(q) {
		q.mu.Lock()
		q.enabled = on
		q.mu.Unlock()
	}
}

func (t *transport) frozen(q *Queue) bool { return q.enabled || t.active }

// setStatus follows the driver through initialisation (§3.1.1):
//
//	0 --ACKNOWLEDGE, DRIVER--> negotiating --FEATURES_OK--> set up --DRIVER_OK--> active
//	any --0--> 0
//
// Bits are only ever added; FEATURES_OK stays clear if the device cannot work
// with the accepted features (§2.1.2, §2.2.2).
func (t *transport) setStatus(v uint32) {
	if v == 0 {
		t.reset()
		return
	}
	old := t.status.Load()
	v &= StatusAcknowledge | StatusDriver | StatusFeaturesOK | StatusDriverOK | StatusFailed
	if v&^old&StatusFeaturesOK != 0 && (t.acked&^t.offered != 0 || t.acked&FeatureVersion1 == 0) {
		v &^= StatusFeaturesOK
	}
	if (v|old)&StatusFeaturesOK == 0 {
		v &^= StatusDriverOK
	}
	t.status.Or(v)
	if v&^old&StatusDriverOK != 0 {
		t.activate()
	}
}

// activate hands the queues to the device; rings that cannot be used, and a
// device that refuses, end in DEVICE_NEEDS_RESET.
func (t *transport) activate() {
	t.active = true
	for _, q := range t.queues {
		q.mu.Lock()
		q.eventIdx, q.indirect = t.acked&FeatureEventIdx != 0, t.acked&FeatureIndirect != 0
		var err error
		if q.enabled {
			err = q.checkRings()
		}
		if err != nil {
			q.enabled, q.broken = false, true
		}
		q.mu.Unlock()
		if err != nil {
			t.queueFailed(q, err)
		}
	}
	if t.status.Load()&StatusNeedsReset != 0 {
		return
	}
	if err := t.dev.Activate(t.acked, t.queues); err != nil {
		t.queueFailed(nil, err)
	}
}

// reset stops everything and forgets the driver (§2.4.1). Called with mu held.
func (t *transport) reset() {
	defer t.hasten()()
	for _, q := range t.queues {
		q.stop()
	}
	if t.active {
		t.dev.Reset()
	}
	t.active, t.acked, t.featureSel, t.driverSel, t.queueSel = false, 0, 0, 0, 0
	t.status.Store(0)
	t.wire.clearInterrupts()
}

// hasten makes the device hold nothing back until the function it returns is called.
func (t *transport) hasten() func() {
	h, ok := t.dev.(Hastener)
	if !ok {
		return func() {}
	}
	h.Hasten(true)
	return func() { h.Hasten(false) }
}

// ring tells queue n's worker that the driver has made chains available.
func (t *transport) ring(n int) {
	if n < len(t.queues) {
		t.queues[n].worker.ring()
	}
}

// readDevice reads the device's configuration space; p is zeroed.
func (t *transport) readDevice(p []byte, off int) {
	if off >= t.info.ConfigSize {
		return
	}
	if n := t.info.ConfigSize - off; len(p) > n {
		p = p[:n]
	}
	t.mu.Lock()
	// §4.1.4.3.1: a changed value that was read is followed by a changed generation.
	if e := t.configEpoch.Load(); e != t.seenEpoch {
		t.seenEpoch = e
		t.generation++
	}
	t.mu.Unlock()
	t.dev.ReadConfig(p, off)
}

func (t *transport) writeDevice(p []byte, off int) {
	w, ok := t.dev.(ConfigWriter)
	if !ok || off >= t.info.ConfigSize || len(p) > t.info.ConfigSize-off {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	w.WriteConfig(p, off)
}

// ConfigChanged tells the driver that the device configuration space is
// different. The device's ReadConfig gives the new values by then.
func (t *transport) ConfigChanged() {
	t.configEpoch.Add(1)
	if t.status.Load()&StatusDriverOK != 0 {
		t.wire.configInterrupt()
	}
}

// queueFailed is called by a queue whose rings make no sense.
func (t *transport) queueFailed(_ *Queue, err error) {
	if t.log != nil && !t.faulted.Swap(true) {
		t.log.Warn("device needs a reset", "device", t.info.Name, "error", err)
	}
	t.needReset()
}

// needReset sets DEVICE_NEEDS_RESET and says so (§2.1.2). It takes no lock: a
// reset in progress may be waiting for the caller.
func (t *transport) needReset() {
	t.status.Or(StatusNeedsReset)
	if t.status.Load()&StatusDriverOK != 0 {
		t.wire.configInterrupt()
	}
}
