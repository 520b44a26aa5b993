package net

import (
	"encoding/binary"
	"runtime"
	"sync"

	"berth/internal/thread"
	"berth/netdev"
	"berth/virtio"
)

// keptChains is how many chains a receiver keeps for the next frame: as many as one
// takes from a driver that means well. A hostile one's are the collector's.
const keptChains = 64

// receiver is one receive queue. Frames are stored by whichever goroutine has received
// them; the queue's own listens to the driver for it:
//
//	port --> listen --> steer --> put: pop, store, push --> driver
//	                               | too few buffers: beckon, wait
//	driver rings --> serve --> bell
type receiver struct {
	d *Device

	mu     sync.Mutex // held while a frame is stored; nobody waits with it
	q      *virtio.Queue
	size   int // of the queue
	chains []virtio.Chain
	header [hashHeaderSize]byte

	bellMu sync.Mutex
	rung   sync.Cond
	bells  uint64
}

func newReceiver(d *Device) *receiver {
	r := &receiver{d: d}
	r.rung.L = &r.bellMu
	return r
}

// use gives the receiver its queue, or takes it away.
func (r *receiver) use(q *virtio.Queue) {
	r.mu.Lock()
	if r.q, r.size = q, 0; q != nil {
		r.size = q.Size()
	}
	r.mu.Unlock()
	r.bell()
}

// settle returns when no frame is being stored, and has those that wait look again.
func (r *receiver) settle() {
	r.mu.Lock()
	r.mu.Unlock() //nolint:staticcheck // a barrier
	r.bell()
}

// serve is the queue's worker: it listens.
func (r *receiver) serve() {
	r.mu.Lock()
	q := r.q
	r.mu.Unlock()
	r.bell()
	for q != nil && q.Sleep() {
		r.bell()
	}
}

// bell has whoever waits for buffers look again.
func (r *receiver) bell() {
	r.bellMu.Lock()
	r.bells++
	r.rung.Broadcast()
	r.bellMu.Unlock()
}

func (r *receiver) heard() uint64 {
	r.bellMu.Lock()
	defer r.bellMu.Unlock()
	return r.bells
}

// await returns when the bell has rung after the first n times.
func (r *receiver) await(n uint64) {
	r.bellMu.Lock()
	for r.bells == n {
		r.rung.Wait()
	}
	r.bellMu.Unlock()
}

// listen receives what comes by way number n until there will be nothing any more. Guests wait for
// it to wake, so its thread comes before those that compute; the thread ends with it.
func (d *Device) listen(n int, way netdev.Port) {
	runtime.LockOSThread()
	thread.Prompt()
	p := make([]byte, netdev.MaxFrame)
	for {
		k, err := way.Receive(p)
		if err != nil {
			d.broken(err)
			return
		}
		d.deliver(n, p[:k])
	}
}

// deliver gives the driver a frame, if it is there and wants it. While it has too few
// buffers, and while the device is paused, the frame waits.
func (d *Device) deliver(way int, frame []byte) {
	for {
		p := d.plan.Load()
		if p == nil || d.closed.Load() || !d.wanted(p, frame) {
			d.stats.ReceiveDropped.Add(1)
			return
		}
		sum := p.hash.sum(frame[netdev.HeaderSize:])
		r := d.rx[d.steer(p, way, frame, sum)]
		bells := r.heard()
		if d.plan.Load() != p || d.closed.Load() {
			continue // the bell that said so may have been one of those
		}
		if r.put(p, frame, sum) {
			return
		}
		r.beckon()
		if r.put(p, frame, sum) {
			return
		}
		r.await(bells)
	}
}

// wanted reports whether the driver is to have the frame, and makes of its header what
// the driver understands.
func (d *Device) wanted(p *plan, frame []byte) bool {
	if len(frame) < netdev.HeaderSize+minFrame || !p.link || !p.filter.accepts(frame[netdev.HeaderSize:]) {
		return false
	}
	if !understood(frame[:netdev.HeaderSize], p.offload) {
		return false
	}
	return p.longest == 0 || frame[1] != gsoNone || len(frame)-netdev.HeaderSize <= p.longest+headerLength(frame[netdev.HeaderSize:])
}

// put stores a frame in as few chains as hold it and gives them to the driver together.
// False: there are too few, or what was planned is not any more. What is too large for
// the driver's buffers is dropped.
func (r *receiver) put(p *plan, frame []byte, sum hashed) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.q == nil || r.d.plan.Load() != p {
		return false
	}
	total := int64(p.header + len(frame) - netdev.HeaderSize)
	n, enough := r.collect(total, p.acked&featureMergeable != 0)
	if !enough {
		for range n {
			r.q.Unpop()
		}
		full := n > 0 && (p.acked&featureMergeable == 0 || n == r.size)
		if full { // nor would any others do
			r.d.stats.ReceiveDropped.Add(1)
		}
		return full
	}
	header := r.header[:p.header]
	copy(header, frame[:netdev.HeaderSize])
	binary.LittleEndian.PutUint16(header[10:], uint16(n))
	if p.header == hashHeaderSize {
		sum.report(header[netdev.HeaderSize:])
	}
	w := writer{chains: r.chains[:n]}
	w.write(header)
	w.write(frame[netdev.HeaderSize:])
	r.q.PushAll(r.chains[:n], total)
	r.q.Notify()
	r.d.stats.received(len(frame) - netdev.HeaderSize)
	return true
}

// collect pops chains with room for total bytes, one if they must not be merged.
func (r *receiver) collect(total int64, merge bool) (n int, enough bool) {
	if len(r.chains) > keptChains {
		clear(r.chains[keptChains:])
		r.chains = r.chains[:keptChains:keptChains]
	}
	for room := int64(0); room < total; n++ {
		if n == 1 && !merge {
			return n, false
		}
		if n == len(r.chains) {
			r.chains = append(r.chains, virtio.Chain{})
		}
		if n == r.size || !r.q.Pop(&r.chains[n]) {
			return n, false
		}
		room += r.chains[n].WriteLen
	}
	return n, true
}

// beckon asks the driver to ring for more buffers.
func (r *receiver) beckon() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.q != nil {
		r.q.Beckon()
	}
}

// writer stores bytes in chains, one behind the other.
type writer struct {
	chains []virtio.Chain
	buffer int // of the first chain
	off    int // in that
}

func (w *writer) write(p []byte) {
	for len(p) > 0 && len(w.chains) > 0 {
		bs := w.chains[0].Writable
		if w.buffer == len(bs) {
			w.chains, w.buffer = w.chains[1:], 0
			continue
		}
		k := copy(bs[w.buffer][w.off:], p)
		p = p[k:]
		if w.off += k; w.off == len(bs[w.buffer]) {
			w.buffer, w.off = w.buffer+1, 0
		}
	}
}
