// Package backend is what a disk device holds: a named place that counts and shapes what passes, and whose disk can be replaced.
package backend

import (
	"bytes"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"berth/block"
	"berth/block/throttle"
)

// DetectZeroes says what becomes of a write of nothing but zeros.
type DetectZeroes uint8

// The modes, as QEMU's detect-zeroes has them.
const (
	DetectOff   DetectZeroes = iota // it is written
	DetectOn                        // it becomes a write-zeroes
	DetectUnmap                     // and its storage may be given back
)

// Options says how a backend treats what passes.
type Options struct {
	ID           string // of the device, as its user named it; "" if nobody did
	DetectZeroes DetectZeroes
	Limits       throttle.Limits // which Check accepts
	// Failed gets the error of each request that failed, and whether it is the first:
	// what the guest is told is no more than that it failed. nil: nobody wants to
	// know. Does not block.
	Failed func(op block.Op, err error, first bool)
}

// Root is the top of a graph of block nodes.
type Root struct {
	Node string // its node-name
	Disk block.Disk
}

// Backend is a block.Disk over the root that it holds and owns. Safe for
// concurrent use. Submit never blocks: while the backend is drained requests
// wait in it, and else they are the root's or the throttle's.
type Backend struct {
	o        Options
	size     atomic.Int64
	topology block.Topology
	throttle *throttle.Disk
	limited  atomic.Bool // there are limits: requests go through throttle

	mu       sync.Mutex
	still    sync.Cond // inflight is 0
	root     Root
	inflight int
	drained  int              // how many wish for stillness
	parked   []*block.Request // came while drained
	gone     bool             // see Abandon
	closing  bool
	noZeroes bool // the root cannot write zeroes
	free     *op
	counts   counts
	failed   bool   // Options.Failed has been called before
	resized  func() // see OnResize
}

var (
	_ block.Disk   = (*Backend)(nil)
	_ block.Shaped = (*Backend)(nil)
)

// New returns a backend that holds root.
func New(root Root, o Options) *Backend {
	b := &Backend{o: o, root: root, topology: block.TopologyOf(root.Disk)}
	b.size.Store(root.Disk.Size())
	b.still.L = &b.mu
	b.throttle = throttle.New(seat{b}, o.Limits)
	b.limited.Store(o.Limits.Any())
	return b
}

// ID returns the name of the device, and Node that of the root it holds now.
func (b *Backend) ID() string { return b.o.ID }

// Node returns the node-name of the root.
func (b *Backend) Node() string { return b.current().Node }

func (b *Backend) current() Root {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.root
}

// Size returns the disk's length, which only Resize changes.
func (b *Backend) Size() int64 { return b.size.Load() }

// Topology returns the first root's.
func (b *Backend) Topology() block.Topology { return b.topology }

// op is a request on its way through. Ops are reused.
type op struct {
	b     *Backend
	outer *block.Request
	inner block.Request
	start time.Time
	next  *op // of those that are free
}

// Submit passes r on; see block.Disk.
func (b *Backend) Submit(r *block.Request) {
	b.mu.Lock()
	if b.gone || b.closing {
		b.mu.Unlock()
		r.Done(block.ErrClosed)
		return
	}
	if b.drained > 0 {
		r.Patience = 0 // Resume has more to do
		b.parked = append(b.parked, r)
		b.mu.Unlock()
		return
	}
	o := b.take(r)
	zeroes := r.Op == block.OpWrite && b.o.DetectZeroes != DetectOff && !b.noZeroes
	b.mu.Unlock()
	if zeroes && allZero(r.IOV) {
		o.inner.Op, o.inner.IOV = block.OpWriteZeroes, nil
		if b.o.DetectZeroes == DetectUnmap {
			o.inner.Flags |= block.FlagUnmap
		}
	}
	b.pass(&o.inner)
}

// pass gives r to the throttle, or to the root.
func (b *Backend) pass(r *block.Request) {
	if b.limited.Load() {
		b.throttle.Submit(r)
		return
	}
	b.current().Disk.Submit(r)
}

// Limits returns what the disk may be asked for now.
func (b *Backend) Limits() throttle.Limits { return b.throttle.Limits() }

// SetLimits replaces it by l, which Check accepts.
func (b *Backend) SetLimits(l throttle.Limits) {
	if l.Any() {
		b.throttle.SetLimits(l)
		b.limited.Store(true)
		return
	}
	b.limited.Store(false)
	b.throttle.SetLimits(l)
}

// take begins a request. Called with mu held.
func (b *Backend) take(r *block.Request) *op {
	o := b.free
	if o == nil {
		o = &op{b: b}
		o.inner.Done = o.done
	} else {
		b.free = o.next
	}
	o.outer, o.next, o.start = r, nil, time.Now()
	done := o.inner.Done
	o.inner = *r
	o.inner.Done = done
	b.inflight++
	return o
}

// done is the root's completion.
func (o *op) done(err error) {
	b := o.b
	r := o.outer
	if r.Op == block.OpWrite && o.inner.Op == block.OpWriteZeroes && errors.Is(err, block.ErrUnsupported) {
		b.mu.Lock()
		b.noZeroes = true
		b.mu.Unlock()
		o.inner.Op, o.inner.Flags, o.inner.IOV, o.inner.Patience = r.Op, r.Flags, r.IOV, 0
		b.pass(&o.inner)
		return
	}
	b.mu.Lock()
	b.counts.add(r, time.Now(), o.start, err)
	failed := err != nil && b.o.Failed != nil && !b.gone && !errors.Is(err, block.ErrUnsupported)
	first := failed && !b.failed
	b.failed = b.failed || failed
	o.outer, o.inner.IOV = nil, nil
	o.next, b.free = b.free, o
	b.mu.Unlock()
	if failed {
		b.o.Failed(r.Op, err, first)
	}
	r.Done(err)
	b.mu.Lock()
	if b.inflight--; b.inflight == 0 {
		b.still.Broadcast()
	}
	b.mu.Unlock()
}

// allZero reports whether all buffers hold nothing but zeros: each byte is like
// the next, and the first is zero.
func allZero(iov [][]byte) bool {
	for _, p := range iov {
		if len(p) > 0 && (p[0] != 0 || !bytes.Equal(p[1:], p[:len(p)-1])) {
			return false
		}
	}
	return true
}

// Hasten lets throttled requests through at once while it is on; see throttle.Disk.
func (b *Backend) Hasten(on bool) { b.throttle.Hasten(on) }

// Drain returns when no request is under way, with none held back by limits
// either, and keeps those that come until Resume has been called as often. It
// waits for the storage, so it is not for a vCPU or a request's completion.
func (b *Backend) Drain() {
	b.mu.Lock()
	b.drained++
	b.mu.Unlock()
	b.Hasten(true)
	b.mu.Lock()
	for b.inflight > 0 {
		b.still.Wait()
	}
	b.mu.Unlock()
	b.Hasten(false)
}

// Resume lets requests pass again.
func (b *Backend) Resume() {
	b.mu.Lock()
	b.drained--
	var parked []*block.Request
	if b.drained == 0 {
		parked, b.parked = b.parked, nil
	}
	b.mu.Unlock()
	for _, r := range parked {
		b.Submit(r)
	}
}

// Replace gives a drained backend another root of the same size, and the caller
// the old one, to close or to keep.
func (b *Backend) Replace(root Root) (old Root, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.drained == 0 || b.inflight > 0:
		return old, errors.New("the backend is not drained")
	case b.closing:
		return old, block.ErrClosed
	case root.Disk.Size() != b.Size():
		return old, fmt.Errorf("node %q has %d bytes, the device's disk has %d", root.Node, root.Disk.Size(), b.Size())
	}
	old, b.root, b.noZeroes = b.root, root, false
	return old, nil
}

// OnResize has changed called after each change of Size. Before the first request.
func (b *Backend) OnResize(changed func()) { b.resized = changed }

// Resize makes the disk size bytes long while it is drained. Requests that came
// meanwhile and lie beyond a new end fail. Not for a vCPU or a request's completion.
func (b *Backend) Resize(size int64) error {
	if size <= 0 || size%512 != 0 {
		return fmt.Errorf("a disk of %d bytes: it has to be a multiple of 512", size)
	}
	b.Drain()
	defer b.Resume()
	root := b.current()
	r, ok := root.Disk.(block.Resizable)
	if !ok {
		return block.ErrUnsupported
	}
	err := r.Resize(size)
	if now := root.Disk.Size(); b.size.Swap(now) != now && b.resized != nil {
		b.resized()
	}
	return err
}

// abandoner is a disk that can be made to give up what it waits for.
type abandoner interface{ Abandon() }

// Abandon fails what waits, here and below, and what comes.
func (b *Backend) Abandon() {
	b.mu.Lock()
	b.gone = true
	root, parked := b.root, b.parked
	b.parked = nil
	b.mu.Unlock()
	for _, r := range parked {
		r.Done(block.ErrClosed)
	}
	b.throttle.Abandon()
	if a, ok := root.Disk.(abandoner); ok {
		a.Abandon()
	}
}

// Close completes what is under way and closes the root. Nobody drains it.
func (b *Backend) Close() error {
	b.mu.Lock()
	if b.closing {
		b.mu.Unlock()
		return block.ErrClosed
	}
	b.closing = true
	b.mu.Unlock()
	return b.throttle.Close()
}

// seat is the root, whichever it is, as the throttle sees it.
type seat struct{ b *Backend }

func (s seat) Submit(r *block.Request) { s.b.current().Disk.Submit(r) }
func (s seat) Size() int64             { return s.b.Size() }
func (s seat) Close() error            { return s.b.current().Disk.Close() }
