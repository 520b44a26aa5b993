// Package uring is a disk that serves deep queues of reads and writes by io_uring, and the rest by the disk it stands on.
package uring

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"berth/block"
)

const (
	entries   = 128
	unit      = 4096 // alignment of what O_DIRECT takes on all storage
	maxPieces = 256  // buffers of one request; the kernel takes 1024

	noRequest = ^uint64(0)
)

// DefaultDepth is how many requests have to be under way before io_uring serves
// further ones: below it a pool is as fast (docs/decisions/0066).
const DefaultDepth = 8

// Disk is a disk over another one and its file. Reads and writes that come while
// depth others are under way go through a ring of the kernel's, if they are
// aligned for O_DIRECT; the rest, and what the ring could not do whole, is the
// other disk's. Safe for concurrent use.
type Disk struct {
	block.Disk
	fd    int
	size  atomic.Int64 // of the file, in bytes
	depth int
	ring  *ring

	mu       sync.Mutex
	still    sync.Cond // nothing is in the ring
	under    int       // requests under way, here and below
	free     []int     // ids
	slots    [entries]*block.Request
	queued   []int                    // ids in the submission queue that the kernel has not taken, in order
	take     func(n int) (int, error) // has it take n of them
	entering bool
	closing  bool
	passed   int           // requests that the ring has served
	ended    chan struct{} // the reaper has
	below    *passage
}

var (
	_ block.Disk      = (*Disk)(nil)
	_ block.Shaped    = (*Disk)(nil)
	_ block.Resizable = (*Disk)(nil)
)

// New returns a disk over d, whose contents are those of the first size bytes of
// the file fd, which was opened with O_DIRECT and stays open while d is. The
// disk owns d. The error says that the kernel offers no io_uring.
func New(d block.Disk, fd int, size int64, depth int) (*Disk, error) {
	r, err := newRing(entries)
	if err != nil {
		return nil, err
	}
	u := &Disk{Disk: d, fd: fd, depth: depth, ring: r, ended: make(chan struct{})}
	u.size.Store(size)
	u.still.L = &u.mu
	u.take = r.enter
	for i := range entries {
		u.free = append(u.free, i)
	}
	go u.reap()
	return u, nil
}

// Topology returns that of the disk below.
func (d *Disk) Topology() block.Topology { return block.TopologyOf(d.Disk) }

// Resize sets the length of the disk below, and of what the ring may touch.
func (d *Disk) Resize(size int64) error {
	r, ok := d.Disk.(block.Resizable)
	if !ok {
		return block.ErrUnsupported
	}
	err := r.Resize(size)
	d.size.Store(d.Size())
	return err
}

// passage is a request on its way to the disk below: its end is counted.
type passage struct {
	d     *Disk
	outer *block.Request
	inner block.Request
	next  *passage // of those that are free
}

// Submit gives r to the ring or to the disk below; see block.Disk.
func (d *Disk) Submit(r *block.Request) {
	fits := d.fits(r)
	d.mu.Lock()
	if fits && !d.closing && d.under >= d.depth && len(d.free) > 0 {
		d.under++
		id := d.free[len(d.free)-1]
		d.free = d.free[:len(d.free)-1]
		d.slots[id] = r
		d.ring.put(id, d.fd, r)
		d.queued = append(d.queued, id)
		refused := d.enter()
		d.mu.Unlock()
		for _, p := range refused {
			d.Disk.Submit(&p.inner)
		}
		return
	}
	d.under++
	p := d.passage(r)
	d.mu.Unlock()
	d.Disk.Submit(&p.inner)
}

// fits reports whether the ring can do r.
func (d *Disk) fits(r *block.Request) bool {
	size := d.size.Load()
	return (r.Op == block.OpRead || r.Op == block.OpWrite) && r.Flags == 0 && r.Len > 0 && len(r.IOV) <= maxPieces &&
		r.Off >= 0 && r.Off%unit == 0 && r.Off <= size && r.Len <= size-r.Off && total(r.IOV) == r.Len && aligned(r.IOV, unit)
}

func total(iov [][]byte) (n int64) {
	for _, b := range iov {
		n += int64(len(b))
	}
	return n
}

// passage prepares r for the disk below. Called with mu held.
func (d *Disk) passage(r *block.Request) *passage {
	p := d.below
	if p == nil {
		p = &passage{d: d}
		p.inner.Done = p.done
	} else {
		d.below = p.next
	}
	done := p.inner.Done
	p.outer, p.inner = r, *r
	p.inner.Done = done
	return p
}

func (p *passage) done(err error) {
	d, r := p.d, p.outer
	d.mu.Lock()
	d.under--
	p.outer, p.inner.IOV = nil, nil
	p.next, d.below = d.below, p
	d.mu.Unlock()
	r.Done(err)
}

// enter has the kernel take what is queued. One caller at a time does it, for
// those who come meanwhile too. What the kernel refuses, it takes back and returns
// for the disk below: nothing waits for a later attempt. Called with mu held, which
// it gives up in between.
func (d *Disk) enter() (refused []*passage) {
	if d.entering {
		return nil
	}
	d.entering = true
	for len(d.queued) > 0 {
		n := len(d.queued)
		d.mu.Unlock()
		k, err := d.take(n)
		d.mu.Lock()
		d.queued = append(d.queued[:0], d.queued[k:]...)
		if err != nil && !errors.Is(err, unix.EINTR) {
			refused = d.takeBack(refused)
		}
	}
	d.entering = false
	return refused
}

// takeBack empties the submission queue, which the kernel looks at only in enter.
func (d *Disk) takeBack(refused []*passage) []*passage {
	d.ring.unput(len(d.queued))
	for _, id := range d.queued {
		d.slots[id].Patience = 0
		refused = append(refused, d.passage(d.slots[id]))
		d.slots[id] = nil
		d.free = append(d.free, id)
	}
	d.queued = d.queued[:0]
	if len(d.free) == entries {
		d.still.Broadcast()
	}
	return refused
}

// reap hands back what the kernel has done.
func (d *Disk) reap() {
	defer close(d.ended)
	for {
		user, res, ok := d.ring.take()
		if !ok {
			if d.ring.wait() != nil {
				return
			}
			continue
		}
		if user == noRequest {
			return
		}
		d.finish(int(user), res)
	}
}

// finish completes a request that the ring has done whole, and gives any other to
// the disk below, which does it again and has words for what is wrong.
func (d *Disk) finish(id int, res int32) {
	d.mu.Lock()
	r := d.slots[id]
	d.slots[id] = nil
	d.free = append(d.free, id)
	whole := int64(res) == r.Len
	var p *passage
	if whole {
		d.under--
		d.passed++
	} else {
		r.Patience = 0 // the reaper has more to do
		p = d.passage(r)
	}
	if len(d.free) == entries {
		d.still.Broadcast()
	}
	d.mu.Unlock()
	if whole {
		r.Done(nil)
		return
	}
	d.Disk.Submit(&p.inner)
}

// Abandon has the disk below give up what it waits for. What the kernel has is soon done.
func (d *Disk) Abandon() {
	if a, ok := d.Disk.(interface{ Abandon() }); ok {
		a.Abandon()
	}
}

// Close completes what is under way, then closes the disk below.
func (d *Disk) Close() error {
	d.mu.Lock()
	if d.closing {
		d.mu.Unlock()
		return block.ErrClosed
	}
	d.closing = true
	for len(d.free) < entries {
		d.still.Wait()
	}
	d.mu.Unlock()
	if err := d.ring.wake(); err != nil {
		// The reaper stays, and so does its ring.
		return errors.Join(d.Disk.Close(), fmt.Errorf("io_uring: %w", err))
	}
	<-d.ended
	return errors.Join(d.Disk.Close(), d.ring.close())
}
