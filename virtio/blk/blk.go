// Package blk is the virtio block device over a block.Disk.
package blk

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"sync"
	"sync/atomic"

	"berth/block"
	"berth/virtio"
)

// Feature bits (virtio 1.2 §5.2.3).
const (
	featureSegMax      = uint64(1) << 2
	featureReadOnly    = uint64(1) << 5
	featureBlockSize   = uint64(1) << 6
	featureFlush       = uint64(1) << 9
	featureTopology    = uint64(1) << 10
	featureConfigWCE   = uint64(1) << 11
	featureMultiQueue  = uint64(1) << 12
	featureDiscard     = uint64(1) << 13
	featureWriteZeroes = uint64(1) << 14
)

const (
	sectorSize = 512
	serialSize = 20
	queueSize  = 256
)

// MaxQueues is how many request queues a device can have.
const MaxQueues = 64

// struct virtio_blk_config (§5.2.4):
//
//	 0 capacity 8             | 8 size_max 4             | 12 seg_max 4 | 16 geometry 4 | 20 blk_size 4
//	24 physical_block_exp 1   | 25 alignment_offset 1    | 26 min_io_size 2 | 28 opt_io_size 4
//	32 writeback 1            | 33 unused 1              | 34 num_queues 2
//	36 max_discard_sectors 4  | 40 max_discard_seg 4     | 44 discard_sector_alignment 4
//	48 max_write_zeroes_sectors 4 | 52 max_write_zeroes_seg 4 | 56 write_zeroes_may_unmap 1 | 57 unused 3
const (
	configSize   = 60
	writebackOff = 32
)

// Config is what the user chooses.
type Config struct {
	Serial   string // up to 20 bytes, given to the guest as they are
	ReadOnly bool
	Queues   int  // request queues, up to MaxQueues; 0: 1
	Discard  bool // the disk gives storage back
	// WriteThrough begins with the write cache off: every write is durable before
	// it completes, until the guest turns the cache on.
	WriteThrough bool
}

// Device is one virtio disk. The disk's requests complete on its own
// goroutines; nothing is ordered but what the driver orders by waiting.
type Device struct {
	disk   block.Disk
	cfg    Config
	config [configSize]byte // save for capacity and writeback
	lanes  []*lane

	writeback atomic.Bool // off: every write is durable before it completes
	flushes   atomic.Bool // the driver may turn writeback on: it knows flushes, or has not said yet
	settling  settler
}

// New returns a device over disk, which stays the caller's to close, after the
// device has been reset.
func New(disk block.Disk, cfg Config) (*Device, error) {
	if len(cfg.Serial) > serialSize {
		return nil, fmt.Errorf("virtio/blk: serial %q is longer than %d bytes", cfg.Serial, serialSize)
	}
	cfg.Queues = max(cfg.Queues, 1)
	if cfg.Queues > MaxQueues {
		return nil, fmt.Errorf("virtio/blk: %d queues: at most %d are possible", cfg.Queues, MaxQueues)
	}
	d := &Device{disk: disk, cfg: cfg}
	d.settling.disk = disk
	for range cfg.Queues {
		d.lanes = append(d.lanes, &lane{d: d})
	}
	d.describe()
	d.Reset()
	return d, nil
}

// describe fills the configuration space. The guest's blocks are of 512 bytes
// whatever the storage's are, so that a disk is the same wherever its image
// lies; what the storage does best is advice beside that.
func (d *Device) describe() {
	le := binary.LittleEndian
	le.PutUint32(d.config[12:], queueSize-2) // header and status take two
	le.PutUint32(d.config[20:], sectorSize)
	physical := 1 // sectors
	if s, ok := d.disk.(block.Shaped); ok {
		t := s.Topology()
		physical = max(t.Physical/sectorSize, 1)
		d.config[24] = byte(bits.Len(uint(physical)) - 1)
		le.PutUint16(d.config[26:], uint16(min(t.MinIO/sectorSize, 1<<16-1)))
		le.PutUint32(d.config[28:], uint32(t.OptIO/sectorSize))
	}
	le.PutUint16(d.config[34:], uint16(d.cfg.Queues))
	if d.cfg.ReadOnly {
		return
	}
	le.PutUint32(d.config[36:], maxZeroSectors)
	le.PutUint32(d.config[40:], maxZeroSegments)
	le.PutUint32(d.config[44:], uint32(physical))
	le.PutUint32(d.config[48:], maxZeroSectors)
	le.PutUint32(d.config[52:], maxZeroSegments)
	if d.cfg.Discard {
		d.config[56] = 1
	}
}

func (d *Device) sectors() uint64 { return uint64(d.disk.Size()) / sectorSize }

// Info describes the device to its transport.
func (d *Device) Info() virtio.Info {
	f := featureSegMax | featureBlockSize | featureFlush | featureTopology | featureConfigWCE
	if d.cfg.Queues > 1 {
		f |= featureMultiQueue
	}
	if d.cfg.ReadOnly {
		f |= featureReadOnly
	} else {
		f |= featureDiscard | featureWriteZeroes
	}
	info := virtio.Info{ID: virtio.IDBlock, Name: "virtio-blk", Features: f, ConfigSize: configSize}
	for range d.cfg.Queues {
		info.Queues = append(info.Queues, queueSize)
	}
	return info
}

// ReadConfig reads struct virtio_blk_config.
func (d *Device) ReadConfig(p []byte, off int) {
	c := d.config
	binary.LittleEndian.PutUint64(c[:], d.sectors())
	if d.writeback.Load() {
		c[writebackOff] = 1
	}
	copy(p, c[off:])
}

// OnConfigChange has changed called when the disk's length has changed, which the
// driver then reads (§5.2.4): a disk that can do that says so itself.
func (d *Device) OnConfigChange(changed func()) {
	if r, ok := d.disk.(interface{ OnResize(changed func()) }); ok {
		r.OnResize(changed)
	}
}

// WriteConfig takes a new value of writeback (§5.2.5).
func (d *Device) WriteConfig(p []byte, off int) {
	if off != writebackOff || len(p) != 1 {
		return
	}
	on := p[0] != 0 && d.flushes.Load()
	if d.writeback.Swap(on) && !on {
		d.settling.settle() // from now on no flush may come for what was written before
	}
}

// Activate starts serving the request queues.
func (d *Device) Activate(acked uint64, qs []*virtio.Queue) error {
	// Without a say in it writeback goes with flushes; with one, but without
	// flushes, it begins as off (§5.2.5.2, §5.2.6.2).
	switch {
	case acked&featureFlush == 0:
		d.flushes.Store(false)
		d.writeback.Store(false)
	case acked&featureConfigWCE == 0 && !d.cfg.WriteThrough:
		d.writeback.Store(true)
	}
	for i, l := range d.lanes {
		l.q = qs[i]
		l.q.Start(l.serve)
	}
	return nil
}

// Reset forgets the driver; all requests have come back.
func (d *Device) Reset() {
	d.writeback.Store(!d.cfg.WriteThrough)
	d.flushes.Store(true)
	for _, l := range d.lanes {
		l.q = nil
	}
}

// WriteCache reports whether writes that are completed may still be lost: the driver
// flushes. Safe from any goroutine.
func (d *Device) WriteCache() bool { return d.writeback.Load() }

// Hasten has a disk that keeps to limits let everything through while it is on.
func (d *Device) Hasten(on bool) {
	if h, ok := d.disk.(virtio.Hastener); ok {
		h.Hasten(on)
	}
}

// invalid tells a disk that counts of a request that never reaches it.
func (d *Device) invalid(op block.Op) {
	if c, ok := d.disk.(interface{ Invalid(block.Op) }); ok {
		c.Invalid(op)
	}
}

// settler flushes the disk by itself, one flush at a time however often it is asked.
type settler struct {
	disk block.Disk
	req  block.Request

	mu    sync.Mutex
	busy  bool
	again bool // asked while busy
}

func (s *settler) settle() {
	s.mu.Lock()
	start := !s.busy
	s.again, s.busy = s.busy, true
	s.mu.Unlock()
	if start {
		s.submit()
	}
}

func (s *settler) submit() {
	s.req = block.Request{Op: block.OpFlush, Done: s.done}
	s.disk.Submit(&s.req)
}

func (s *settler) done(error) {
	s.mu.Lock()
	next := s.again
	s.again, s.busy = false, next
	s.mu.Unlock()
	if next {
		s.submit()
	}
}

// StateVersion is the version of State that this package writes and reads.
const StateVersion = 2

// State is the device's own state; requests are drained before it is saved, and
// the negotiated features are the transport's.
type State struct {
	Version   uint32
	Capacity  uint64 // sectors; the disk of the loading side must have as many
	Writeback bool
}

// Save returns the state of a paused device.
func (d *Device) Save() State { return State{StateVersion, d.sectors(), d.writeback.Load()} }

// Load puts a saved state into a device that has been reset, before the
// transport's, if it belongs to a disk like this one.
func (d *Device) Load(s State) error {
	if s.Version != StateVersion {
		return fmt.Errorf("virtio/blk: state version %d, want %d", s.Version, StateVersion)
	}
	if s.Capacity != d.sectors() {
		return fmt.Errorf("virtio/blk: state has a disk of %d sectors, this one has %d", s.Capacity, d.sectors())
	}
	d.writeback.Store(s.Writeback)
	return nil
}
