package blk

import (
	"encoding/binary"
	"errors"
	"sync"
	"time"

	"berth/block"
	"berth/virtio"
)

// Request types and status bytes (virtio 1.2 §5.2.6).
const (
	typeIn          = 0
	typeOut         = 1
	typeFlush       = 4
	typeGetID       = 8
	typeDiscard     = 11
	typeWriteZeroes = 13

	statusOK          = 0
	statusIOErr       = 1
	statusUnsupported = 2
)

const headerSize = 16

// patience is how long a queue's thread may be kept by a request that is all it has
// to do: as long as the next one can bear.
const patience = time.Millisecond

// lane is one request queue and the requests that travel on it.
type lane struct {
	d *Device
	q *virtio.Queue // nil: no driver

	mu   sync.Mutex
	free []*request
}

// request is one chain on its way to the disk and back. Requests are reused, as
// many as the queue has entries, so that a request costs no allocation.
type request struct {
	d     *Device
	l     *lane
	q     *virtio.Queue
	chain virtio.Chain
	blk   block.Request
	iov   [][]byte
	zero  zeroing
	last  []byte // the buffer that ends in the status byte
}

func (l *lane) take() *request {
	l.mu.Lock()
	defer l.mu.Unlock()
	if n := len(l.free); n > 0 {
		r := l.free[n-1]
		l.free = l.free[:n-1]
		return r
	}
	r := &request{d: l.d, l: l}
	r.blk.Done = r.done
	return r
}

func (l *lane) give(r *request) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.free = append(l.free, r)
}

// serve is the queue's worker.
func (l *lane) serve() {
	for {
		r := l.take()
		r.q = l.q
		if !r.q.Pop(&r.chain) {
			l.give(r)
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
		r.l.give(r)
		return
	}
	r.last = c.Writable[n-1]
	var header [headerSize]byte
	if !r.split(&header) {
		r.finish(statusIOErr, 0)
		return
	}
	kind, sector := binary.LittleEndian.Uint32(header[0:]), binary.LittleEndian.Uint64(header[8:])
	if r.d.cfg.ReadOnly && outward(kind) {
		r.finish(statusIOErr, 0)
		return
	}
	switch kind {
	case typeIn:
		r.transfer(block.OpRead, sector, c.WriteLen-1)
	case typeOut:
		r.transfer(block.OpWrite, sector, c.ReadLen-headerSize)
	case typeFlush:
		r.submit(block.OpFlush, 0, 0, 0)
	case typeGetID:
		r.getID()
	case typeDiscard:
		r.beginZeroing(block.OpDiscard)
	case typeWriteZeroes:
		r.beginZeroing(block.OpWriteZeroes)
	default:
		r.finish(statusUnsupported, 0)
	}
}

// outward reports whether data follows the header, which a read-only disk takes
// of nobody.
func outward(kind uint32) bool {
	return kind == typeOut || kind == typeDiscard || kind == typeWriteZeroes
}

// split copies the header out and leaves the data in iov: what follows the
// header if that is where it goes, else what precedes the status byte.
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
	if outward(binary.LittleEndian.Uint32(header[0:])) {
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
	if n%sectorSize != 0 || !r.d.holds(sector, uint64(n/sectorSize)) {
		r.d.invalid(op)
		r.finish(statusIOErr, 0)
		return
	}
	var flags block.Flags
	if op == block.OpWrite {
		flags = r.d.durable()
	}
	r.blk.Patience = 0
	if r.q.Alone() {
		r.blk.Patience = patience
	}
	r.submit(op, flags, int64(sector)*sectorSize, n)
}

// holds reports whether the disk has n sectors from sector on.
func (d *Device) holds(sector, n uint64) bool {
	all := d.sectors()
	return sector <= all && n <= all-sector
}

// durable returns the flag that makes a write durable, while that is needed.
func (d *Device) durable() block.Flags {
	if d.writeback.Load() {
		return 0
	}
	return block.FlagFUA
}

func (r *request) submit(op block.Op, flags block.Flags, off, n int64) {
	if op != block.OpRead && op != block.OpWrite {
		r.iov = r.iov[:0]
	}
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
	if err == nil && (r.nextSegment() || r.settle()) {
		return
	}
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

// settle makes durable what was written while that was not needed yet, and
// reports whether that has to be waited for.
func (r *request) settle() bool {
	b := &r.blk
	if (b.Op != block.OpWrite && b.Op != block.OpWriteZeroes) || b.Flags&block.FlagFUA != 0 || r.d.writeback.Load() {
		return false
	}
	r.submit(block.OpFlush, 0, 0, 0)
	return true
}

// finish stores the status byte and returns the chain, n bytes of data having
// been stored from the first writable byte on. The length says only what is
// certain (§2.7.8.2): all of it when the data is complete, else nothing.
func (r *request) finish(status byte, n int64) {
	c, q, l := &r.chain, r.q, r.l
	r.last[len(r.last)-1] = status
	q.Mark(c, c.WriteLen-1, 1)
	if n == c.WriteLen-1 {
		n++
	}
	q.Push(c, n)
	q.Notify()
	r.last, r.q, r.blk.IOV, r.zero.count = nil, nil, nil, 0
	l.give(r)
}
