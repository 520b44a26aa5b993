// Package blk is the virtio block device over a block.Disk.
package blk

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"berth/block"
	"berth/virtio"
)

// Feature bits (virtio 1.2 §5.2.3).
const (
	featureSegMax    = uint64(1) << 2
	featureReadOnly  = uint64(1) << 5
	featureBlockSize = uint64(1) << 6
	featureFlush     = uint64(1) << 9
)

// Request types and status bytes (§5.2.6).
const (
	typeIn    = 0
	typeOut   = 1
	typeFlush = 4
	typeGetID = 8

	statusOK          = 0
	statusIOErr       = 1
	statusUnsupported = 2
)

const (
	sectorSize = 512
	headerSize = 16
	serialSize = 20
	queueSize  = 256
	configSize = 60
)

// Config is what the user chooses.
type Config struct {
	Serial   string // up to 20 bytes, given to the guest as they are
	ReadOnly bool
}

// Device is one virtio disk with one queue. The disk's requests complete on
// its own goroutines; nothing is ordered but what the driver orders by waiting.
type Device struct {
	disk   block.Disk
	cfg    Config
	config [configSize]byte

	queue *virtio.Queue
	fua   bool // the driver knows no flush: every write is durable before it completes

	mu   sync.Mutex
	free []*request
}

// New returns a device over disk, which stays the caller's to close, after the
// device has been reset.
func New(disk block.Disk, cfg Config) (*Device, error) {
	if len(cfg.Serial) > serialSize {
		return nil, fmt.Errorf("virtio/blk: serial %q is longer than %d bytes", cfg.Serial, serialSize)
	}
	d := &Device{disk: disk, cfg: cfg}
	// struct virtio_blk_config (§5.2.4): 0 capacity 8 | 8 size_max 4 | 12 seg_max 4 | 16 geometry 4 | 20 blk_size 4 | …
	le := binary.LittleEndian
	le.PutUint64(d.config[0:], d.sectors())
	le.PutUint32(d.config[12:], queueSize-2) // header and status take two
	le.PutUint32(d.config[20:], sectorSize)
	return d, nil
}

func (d *Device) sectors() uint64 { return uint64(d.disk.Size()) / sectorSize }

// Info describes the device to its transport.
func (d *Device) Info() virtio.Info {
	f := featureSegMax | featureBlockSize | featureFlush
	if d.cfg.ReadOnly {
		f |= featureReadOnly
	}
	return virtio.Info{ID: virtio.IDBlock, Name: "virtio-blk", Features: f, Queues: []uint16{queueSize}, ConfigSize: configSize}
}

// ReadConfig reads struct virtio_blk_config.
func (d *Device) ReadConfig(p []byte, off int) { copy(p, d.config[off:]) }

// Activate starts serving the request queue.
func (d *Device) Activate(acked uint64, qs []*virtio.Queue) error {
	d.queue, d.fua = qs[0], acked&featureFlush == 0
	d.queue.Start(d.serve)
	return nil
}

// Reset forgets the driver; all requests have come back.
func (d *Device) Reset() { d.queue, d.fua = nil, false }

// request is one chain on its way to the disk and back. Requests are reused, as
// many as the queue has entries, so that a request costs no allocation.
type request struct {
	d     *Device
	q     *virtio.Queue
	chain virtio.Chain
	blk   block.Request
	iov   [][]byte
	last  []byte // the buffer that ends in the status byte
}

func (d *Device) take() *request {
	d.mu.Lock()
	defer d.mu.Unlock()
	if n := len(d.free); n > 0 {
		r := d.free[n-1]
		d.free = d.free[:n-1]
		return r
	}
	r := &request{d: d}
	r.blk.Done = r.done
	return r
}

func (d *Device) give(r *request) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.free = append(d.free, r)
}

// serve is the queue's worker.
func (d *Device) serve() {
	for {
		r := d.take()
		r.q = d.queue
		if !r.q.Pop(&r.chain) {
			d.give(r)
			return
		}
		r.start()
	}
}

// start decodes a request (§5.2.6) whatever way its bytes are cut into buffers:
//
//	readable: type 4 | reserved 4 | sector 8 | data to write …
//	writable: data to read … | status 1
func (r *request) start() {
	c := &r.chain
	n := len(c.Writable)
	if n == 0 {
		// There is nowhere to say that this is no request.
		r.q.Push(c, 0)
		r.q.Notify()
		r.d.give(r)
		return
	}
	r.last = c.Writable[n-1]
	var header [headerSize]byte
	if !r.split(&header) {
		r.finish(statusIOErr, 0)
		return
	}
	sector := binary.LittleEndian.Uint64(header[8:])
	switch binary.LittleEndian.Uint32(header[0:]) {
	case typeIn:
		r.transfer(block.OpRead, sector, c.WriteLen-1)
	case typeOut:
		if r.d.cfg.ReadOnly {
			r.finish(statusIOErr, 0)
			return
		}
		r.transfer(block.OpWrite, sector, c.ReadLen-headerSize)
	case typeFlush:
		r.iov = r.iov[:0]
		r.submit(block.OpFlush, 0, 0, 0)
	case typeGetID:
		r.getID()
	default:
		r.finish(statusUnsupported, 0)
	}
}

// split copies the header out and leaves the data in iov: what follows the
// header if there is any, else what precedes the status byte.
func (r *request) split(header *[headerSize]byte) bool {
	c := &r.chain
	if c.ReadLen < headerSize {
		return false
	}
	r.iov = r.iov[:0]
	got := 0
	for _, b := range c.Readable {
		k := copy(header[got:], b)
		got += k
		if k < len(b) {
			r.iov = append(r.iov, b[k:])
		}
	}
	if binary.LittleEndian.Uint32(header[0:]) == typeOut {
		return true
	}
	r.iov = append(r.iov[:0], c.Writable...)
	last := len(r.iov) - 1
	if r.iov[last] = r.iov[last][:len(r.last)-1]; len(r.iov[last]) == 0 {
		r.iov = r.iov[:last]
	}
	return true
}

// transfer bounds a read or write of n bytes and hands it to the disk.
func (r *request) transfer(op block.Op, sector uint64, n int64) {
	sectors := r.d.sectors()
	if n%sectorSize != 0 || sector > sectors || uint64(n/sectorSize) > sectors-sector {
		r.finish(statusIOErr, 0)
		return
	}
	var flags block.Flags
	if op == block.OpWrite && r.d.fua {
		flags = block.FlagFUA
	}
	r.submit(op, flags, int64(sector)*sectorSize, n)
}

func (r *request) submit(op block.Op, flags block.Flags, off, n int64) {
	r.blk.Op, r.blk.Flags, r.blk.Off, r.blk.Len, r.blk.IOV = op, flags, off, n, r.iov
	r.d.disk.Submit(&r.blk)
}

// getID answers with the serial, padded with zeros, as far as the buffer goes.
func (r *request) getID() {
	var id [serialSize]byte
	copy(id[:], r.d.cfg.Serial)
	n := 0
	for _, b := range r.iov {
		n += copy(b, id[n:])
	}
	r.finish(statusOK, int64(n))
}

// done is the disk's completion, on any goroutine.
func (r *request) done(err error) {
	status := byte(statusOK)
	switch {
	case err == nil:
	case errors.Is(err, block.ErrUnsupported):
		status = statusUnsupported
	default:
		status = statusIOErr
	}
	var n int64
	if r.blk.Op == block.OpRead {
		if n = r.blk.Len; err != nil {
			r.q.Mark(&r.chain, 0, n) // some of it may have been stored
			n = 0
		}
	}
	r.finish(status, n)
}

// finish stores the status byte and returns the chain, n bytes of data having
// been stored from the first writable byte on. The length says only what is
// certain (§2.7.8.2): all of it when the data is complete, else nothing.
func (r *request) finish(status byte, n int64) {
	c, q, d := &r.chain, r.q, r.d
	r.last[len(r.last)-1] = status
	q.Mark(c, c.WriteLen-1, 1)
	if n == c.WriteLen-1 {
		n++
	}
	q.Push(c, n)
	q.Notify()
	r.last, r.q, r.blk.IOV = nil, nil, nil
	d.give(r)
}

// StateVersion is the version of State that this package writes and reads.
const StateVersion = 1

// State is the device's own state; requests are drained before it is saved, and
// the negotiated features are the transport's.
type State struct {
	Version  uint32
	Capacity uint64 // sectors; the disk of the loading side must have as many
}

// Save returns the state of a paused device.
func (d *Device) Save() State { return State{StateVersion, d.sectors()} }

// Load checks that a saved state belongs to a disk like this one.
func (d *Device) Load(s State) error {
	if s.Version != StateVersion {
		return fmt.Errorf("virtio/blk: state version %d, want %d", s.Version, StateVersion)
	}
	if s.Capacity != d.sectors() {
		return fmt.Errorf("virtio/blk: state has a disk of %d sectors, this one has %d", s.Capacity, d.sectors())
	}
	return nil
}
