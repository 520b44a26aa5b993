// Package balloon is the virtio memory balloon: a guest puts pages into it, and reports free ones, which go back to the host.
package balloon

import (
	"encoding/binary"
	"fmt"
	"sync"

	"berth/virtio"
)

// Feature bits (virtio 1.2 §5.5.3). Neither MUST_TELL_HOST nor FREE_PAGE_HINT is
// offered: a page that the guest takes back needs no word, as it is there when it is
// touched, and hints are for migration.
const (
	featureStats        = uint64(1) << 1
	featureDeflateOnOOM = uint64(1) << 2
	featurePagePoison   = uint64(1) << 4
	featureReporting    = uint64(1) << 5
)

// Queues. §5.5.2 numbers the last one 4, behind one for hints; Linux counts only
// queues that are there, so that it is 3. Without hints there is no other use for 3,
// and both are served alike.
const (
	queueInflate = iota
	queueDeflate
	queueStats
	queueReporting
	queueReportingToo

	queueSize = 128
)

// struct virtio_balloon_config (§5.5.4):
//
//	0 num_pages 4 | 4 actual 4, written by the driver | 8 free_page_hint_cmd_id 4
//	12 poison_val 4, written by the driver
const (
	configSize = 16
	actualOff  = 4
	poisonOff  = 12
)

const pageSize = 4096

// Memory is the guest's RAM. Discard gives the whole pages in a range back to the
// host; an error says that the range is not RAM, or that the host refused.
type Memory interface {
	Discard(gpa, n uint64) error
}

// Config is what the user chooses, and what the device needs of the machine.
type Config struct {
	Memory Memory
	Size   uint64 // of all RAM, in bytes
	// DeflateOnOOM has a guest take pages back before it kills processes.
	DeflateOnOOM bool
	// Reporting has a guest report pages that it does not use.
	Reporting bool
	// Changed is told how many bytes of RAM the guest has left, when that has changed.
	// It must not wait. nil: nobody is told.
	Changed func(actual uint64)
}

// Device is one balloon. Safe for concurrent use.
type Device struct {
	cfg     Config
	changed func() // the configuration; nil before there is a transport
	stats   stats

	mu      sync.Mutex
	target  uint32 // pages that should be in the balloon
	actual  uint32 // pages that are, as the driver says
	poison  uint32 // what the driver fills free pages with
	poisons bool   // the driver has accepted PAGE_POISON
}

// New returns an empty balloon.
func New(cfg Config) *Device { return &Device{cfg: cfg} }

// Info describes the device to its transport.
func (d *Device) Info() virtio.Info {
	f := featureStats | featurePagePoison
	queues := []uint16{queueSize, queueSize, queueSize}
	if d.cfg.DeflateOnOOM {
		f |= featureDeflateOnOOM
	}
	if d.cfg.Reporting {
		f |= featureReporting
		queues = append(queues, queueSize, queueSize)
	}
	return virtio.Info{ID: virtio.IDBalloon, Name: "virtio-balloon", Features: f, Queues: queues, ConfigSize: configSize}
}

// ReadConfig reads struct virtio_balloon_config.
func (d *Device) ReadConfig(p []byte, off int) {
	c := d.config()
	copy(p, c[off:])
}

func (d *Device) config() (c [configSize]byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	le := binary.LittleEndian
	le.PutUint32(c[0:], d.target)
	le.PutUint32(c[actualOff:], d.actual)
	le.PutUint32(c[poisonOff:], d.poison)
	return c
}

// WriteConfig takes what the driver says of the balloon.
func (d *Device) WriteConfig(p []byte, off int) {
	c := d.config()
	copy(c[off:], p)
	le := binary.LittleEndian
	d.mu.Lock()
	before := d.actual
	d.actual, d.poison = le.Uint32(c[actualOff:]), le.Uint32(c[poisonOff:])
	now := d.actual
	d.mu.Unlock()
	if now != before && d.cfg.Changed != nil {
		d.cfg.Changed(d.left(now))
	}
}

// left is how much RAM the guest has beside pages in the balloon.
func (d *Device) left(pages uint32) uint64 {
	return d.cfg.Size - min(uint64(pages)*pageSize, d.cfg.Size)
}

// OnConfigChange has changed called when the target is another.
func (d *Device) OnConfigChange(changed func()) { d.changed = changed }

// SetTarget asks the guest to get along with so many bytes of RAM; all that it has
// and more empties the balloon.
func (d *Device) SetTarget(left uint64) {
	d.mu.Lock()
	d.target = uint32((d.cfg.Size - min(left, d.cfg.Size)) / pageSize)
	d.mu.Unlock()
	if d.changed != nil {
		d.changed()
	}
}

// Actual is how many bytes of RAM the guest has left, as it says.
func (d *Device) Actual() uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.left(d.actual)
}

// Activate starts serving the queues.
func (d *Device) Activate(acked uint64, qs []*virtio.Queue) error {
	d.mu.Lock()
	d.poisons = acked&featurePagePoison != 0
	d.mu.Unlock()
	d.serve(qs[queueInflate], d.inflate)
	d.serve(qs[queueDeflate], func(*virtio.Chain) {})
	if acked&featureStats != 0 {
		d.stats.serve(qs[queueStats])
	} else if acked&featureReporting != 0 { // Linux's way to count, to its end
		d.serve(qs[queueStats], d.report)
	}
	if acked&featureReporting != 0 {
		d.serve(qs[queueReporting], d.report)
		d.serve(qs[queueReportingToo], d.report)
	}
	return nil
}

// serve gives every chain of q back when f has done with it.
func (d *Device) serve(q *virtio.Queue, f func(*virtio.Chain)) {
	var c virtio.Chain
	q.Start(func() {
		for q.Pop(&c) {
			f(&c)
			q.Push(&c, 0)
			q.Notify()
		}
	})
}

// maxPages bounds the page numbers of one chain: a driver's mistake costs it pages
// that stay with it. Linux sends 256.
const maxPages = 1 << 16

// inflate gives the pages whose numbers c holds back to the host. Numbers of what is
// no RAM are passed over.
func (d *Device) inflate(c *virtio.Chain) {
	var number [4]byte
	have, left := 0, maxPages
	var first, n uint64 // the run of pages that grows
	flush := func() {
		if n > 0 {
			_ = d.cfg.Memory.Discard(first*pageSize, n*pageSize) // not RAM, or kept: nothing is lost
		}
		n = 0
	}
	for _, b := range c.Readable {
		for _, v := range b {
			number[have] = v
			if have++; have < len(number) {
				continue
			}
			have = 0
			page := uint64(binary.LittleEndian.Uint32(number[:]))
			switch {
			case n > 0 && page == first+n:
				n++
			case n > 0 && page+1 == first:
				first, n = page, n+1
			default:
				flush()
				first, n = page, 1
			}
			if left--; left == 0 {
				flush()
				return
			}
		}
	}
	flush()
}

// report gives the free pages that c's buffers are back to the host, unless the
// guest is sure of what they hold (§5.5.6.7.2): discarded pages hold zeros.
func (d *Device) report(c *virtio.Chain) {
	d.mu.Lock()
	keep := d.poisons && d.poison != 0
	d.mu.Unlock()
	if keep {
		return
	}
	for i, b := range c.Writable {
		_ = d.cfg.Memory.Discard(c.Place(i), uint64(len(b)))
	}
}

// Reset forgets the driver. What it had put into the balloon is the guest's again.
func (d *Device) Reset() {
	d.mu.Lock()
	before := d.actual
	d.actual, d.poison, d.poisons = 0, 0, false
	d.mu.Unlock()
	d.stats.reset()
	if before != 0 && d.cfg.Changed != nil {
		d.cfg.Changed(d.cfg.Size)
	}
}

// Close ends the polling of statistics.
func (d *Device) Close() error {
	d.stats.setInterval(0)
	return nil
}

// StateVersion is the version of State that this package writes and reads.
const StateVersion = 1

// State is the device's own state.
type State struct {
	Version                uint32
	Target, Actual, Poison uint32
}

// Save returns the state of a paused device.
func (d *Device) Save() State {
	d.mu.Lock()
	defer d.mu.Unlock()
	return State{StateVersion, d.target, d.actual, d.poison}
}

// Load puts a saved state into a device that has been reset, before the transport's.
func (d *Device) Load(s State) error {
	if s.Version != StateVersion {
		return fmt.Errorf("virtio/balloon: state version %d, want %d", s.Version, StateVersion)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.target, d.actual, d.poison = s.Target, s.Actual, s.Poison
	return nil
}
