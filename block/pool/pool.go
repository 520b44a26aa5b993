// Package pool is a disk that serves its requests from an image by a bounded number of workers.
package pool

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"berth/block"
)

// DefaultWorkers is how many requests are on the image at once if Options do not say.
const DefaultWorkers = 8

// zeroPiece is how many zeros are written at once where the image knows nothing
// better, in bytes.
const zeroPiece = 1 << 20

// Options says how requests are served.
type Options struct {
	ReadOnly     bool // what would change the image is refused without asking it
	Workers      int  // requests on the image at once; 0: DefaultWorkers
	Discard      bool // discards give storage back; else they succeed and do nothing
	WriteThrough bool // every write is on stable storage before it completes

	Resize func(size int64) error // nil: the image's own Truncate
	Close  func() error           // closes the image and what it stands on; nil: the image's own
}

// Disk is a block.Disk over an image. Safe for concurrent use. Requests wait in
// a queue for one of a bounded number of workers, each in one call of the image
// at a time. A read or write whose submitter has the patience is done in Submit, which
// saves two hand-overs between threads.
type Disk struct {
	image   block.Image
	options Options
	gone    atomic.Bool  // see Abandon
	takes   atomic.Int64 // ns that a read or write takes at present; see timed

	mu      sync.Mutex
	work    sync.Cond // queue is not empty, or closing
	queue   ring
	idle    int
	workers int
	closing bool
	running sync.WaitGroup
}

var (
	_ block.Disk      = (*Disk)(nil)
	_ block.Shaped    = (*Disk)(nil)
	_ block.Resizable = (*Disk)(nil)
)

// New makes a disk of an image, which it owns from then on.
func New(i block.Image, o Options) *Disk {
	if o.Workers <= 0 {
		o.Workers = DefaultWorkers
	}
	d := &Disk{image: i, options: o}
	d.work.L = &d.mu
	return d
}

// Image returns what the requests are served from.
func (d *Disk) Image() block.Image { return d.image }

// Size returns the image's length in bytes.
func (d *Disk) Size() int64 { return d.image.Size() }

// Topology returns the image's.
func (d *Disk) Topology() block.Topology { return block.TopologyOf(d.image) }

// Resize sets the image's length; see block.Resizable.
func (d *Disk) Resize(size int64) error {
	i, ok := d.image.(block.Resizer)
	switch {
	case d.options.ReadOnly:
		return block.ErrReadOnly
	case d.options.Resize != nil:
		return d.options.Resize(size)
	case !ok:
		return block.ErrUnsupported
	}
	return i.Truncate(size)
}

// Submit queues r; see block.Disk.
func (d *Disk) Submit(r *block.Request) {
	if err := d.check(r); err != nil {
		r.Done(err)
		return
	}
	d.mu.Lock()
	if d.closing {
		d.mu.Unlock()
		r.Done(block.ErrClosed)
		return
	}
	if d.queue.n == 0 && time.Duration(d.takes.Load()) < r.Patience && d.isQuick(r) {
		d.running.Add(1)
		d.mu.Unlock()
		r.Done(d.timed(r))
		d.running.Done()
		return
	}
	d.queue.push(r)
	if d.queue.n > d.idle && d.workers < d.options.Workers {
		d.workers++
		d.running.Add(1)
		go d.serve()
	}
	d.work.Signal()
	d.mu.Unlock()
}

// maxQuick is the most bytes of a request that say something of how long others take.
const maxQuick = 128 << 10

// isQuick tells reads and writes from what may take long on any storage.
func (d *Disk) isQuick(r *block.Request) bool {
	if r.Len > maxQuick {
		return false
	}
	return r.Op == block.OpRead || r.Op == block.OpWrite && r.Flags&block.FlagFUA == 0 && !d.options.WriteThrough
}

// timed does r and learns from it: one that takes long is taken for the rule at
// once, those that do not for it by and by.
func (d *Disk) timed(r *block.Request) error {
	if !d.isQuick(r) {
		return d.do(r)
	}
	begin := time.Now()
	err := d.do(r)
	took, before := int64(time.Since(begin)), d.takes.Load()
	if took < before {
		took = before - (before-took)/16
	}
	d.takes.Store(took)
	return err
}

// check bounds a request before it is queued.
func (d *Disk) check(r *block.Request) error {
	if r.Op == block.OpFlush {
		return nil
	}
	if size := d.Size(); r.Off < 0 || r.Len < 0 || r.Off > size || r.Len > size-r.Off {
		return block.ErrRange
	}
	if r.Op != block.OpRead && d.options.ReadOnly {
		return block.ErrReadOnly
	}
	if r.Op == block.OpRead || r.Op == block.OpWrite {
		var n int64
		for _, b := range r.IOV {
			n += int64(len(b))
		}
		if n != r.Len {
			return fmt.Errorf("request of %d bytes with buffers of %d", r.Len, n)
		}
	}
	return nil
}

// serve is one worker.
func (d *Disk) serve() {
	defer d.running.Done()
	d.mu.Lock()
	defer d.mu.Unlock()
	for {
		for d.queue.n == 0 {
			if d.closing {
				return
			}
			d.idle++
			d.work.Wait()
			d.idle--
		}
		r := d.queue.pop()
		d.mu.Unlock()
		r.Done(d.timed(r))
		d.mu.Lock()
	}
}

// Close completes what is queued, then closes the image; see Options.Close.
func (d *Disk) Close() error {
	d.mu.Lock()
	if d.closing {
		d.mu.Unlock()
		return block.ErrClosed
	}
	d.closing = true
	d.work.Broadcast()
	d.mu.Unlock()
	d.running.Wait()
	if d.options.Close != nil {
		return d.options.Close()
	}
	return d.image.Close()
}

// Abandon fails what is queued and what will be, and cuts short what is under
// way where the image can be abandoned too, so that Close need not wait for it.
// What the last flush covered is safe.
func (d *Disk) Abandon() {
	d.gone.Store(true)
	if i, ok := d.image.(interface{ Abandon() }); ok {
		i.Abandon()
	}
}

func (d *Disk) do(r *block.Request) error {
	if d.gone.Load() {
		return block.ErrClosed
	}
	flags := r.Flags
	if d.options.WriteThrough {
		flags |= block.FlagFUA
	}
	if !d.options.Discard {
		flags &^= block.FlagUnmap
	}
	switch r.Op {
	case block.OpRead:
		return d.image.Readv(r.IOV, r.Off)
	case block.OpWrite:
		return d.image.Writev(r.IOV, r.Off, flags)
	case block.OpFlush:
		return d.image.Flush()
	case block.OpDiscard:
		return d.discard(r)
	case block.OpWriteZeroes:
		return d.writeZeroes(r, flags)
	}
	return block.ErrUnsupported
}

func (d *Disk) discard(r *block.Request) error {
	if !d.options.Discard {
		return nil
	}
	if i, ok := d.image.(block.Discarder); ok {
		return i.Discard(r.Off, r.Len)
	}
	return block.ErrUnsupported
}

func (d *Disk) writeZeroes(r *block.Request, flags block.Flags) error {
	if i, ok := d.image.(block.ZeroWriter); ok {
		return i.WriteZeroes(r.Off, r.Len, flags)
	}
	if flags&block.FlagNoFallback != 0 {
		return block.ErrUnsupported
	}
	zeros := make([]byte, min(r.Len, zeroPiece))
	for off, left := r.Off, r.Len; left > 0; {
		if d.gone.Load() {
			return block.ErrClosed
		}
		n := min(left, int64(len(zeros)))
		if err := d.image.Writev([][]byte{zeros[:n]}, off, flags&block.FlagFUA); err != nil {
			return err
		}
		off, left = off+n, left-n
	}
	return nil
}

// ring is a queue of requests that grows to the most that ever waited.
type ring struct {
	buf     []*block.Request
	head, n int
}

func (q *ring) push(r *block.Request) {
	if q.n == len(q.buf) {
		next := make([]*block.Request, max(16, 2*q.n))
		for i := range q.n {
			next[i] = q.buf[(q.head+i)%len(q.buf)]
		}
		q.buf, q.head = next, 0
	}
	q.buf[(q.head+q.n)%len(q.buf)] = r
	q.n++
}

func (q *ring) pop() *block.Request {
	r := q.buf[q.head]
	q.buf[q.head] = nil
	q.head = (q.head + 1) % len(q.buf)
	q.n--
	return r
}
