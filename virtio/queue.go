package virtio

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"berth/guestmem"
)

// Descriptor flags (virtio 1.2 §2.7.5).
const (
	descNext     = 1
	descWrite    = 2
	descIndirect = 4
	descSize     = 16
)

const (
	availNoInterrupt = 1 // §2.7.6: the driver needs no used buffer notification
	usedNoNotify     = 1 // §2.7.8: the device needs no available buffer notification
)

// maxSegments bounds the buffers of one chain, indirect table included: what
// one preadv takes.
const maxSegments = 1024

// NoVector is the MSI-X vector of a queue that has none (§4.1.5.1.2.1).
const NoVector = 0xffff

// errChain is wrapped by every error about what the driver put into a ring.
var errChain = errors.New("driver error")

// Queue is one split virtqueue (virtio 1.2 §2.7), all of it in guest memory:
//
//	descriptor table  size × { addr 8 | len 4 | flags 2 | next 2 }
//	available ring    flags 2 | idx 2 | size × head 2 | used_event 2
//	used ring         flags 2 | idx 2 | size × { id 4 | len 4 } | avail_event 2
//
// Pop, Alone and Unpop belong to one goroutine at a time, that which serves the queue
// or another; Sleep belongs to serve; Push, PushAll, Mark, Notify, Beckon and Wake may come from any
// goroutine. After an error in the rings the queue gives nothing more until the
// driver resets the device.
type Queue struct {
	Index int

	mem     *guestmem.Memory
	max     uint16
	vector  atomic.Uint32
	trigger func(*Queue)        // sends the used buffer notification
	failed  func(*Queue, error) // the rings are broken

	// Set by the driver before DRIVER_OK, constant afterwards.
	size              uint16
	enabled           bool
	desc, avail, used uint64
	eventIdx          bool
	indirect          bool

	worker worker

	mu        sync.Mutex
	nextAvail uint16 // next entry of the available ring to take
	nextUsed  uint16 // next entry of the used ring to fill
	inflight  int    // chains popped and not pushed
	signalled uint16 // nextUsed at the last Notify that looked
	fresh     bool   // no Notify has looked yet
	broken    bool
}

// Size returns the number of entries that the driver chose.
func (q *Queue) Size() int { return int(q.size) }

// Enabled reports whether the driver uses this queue.
func (q *Queue) Enabled() bool { return q.enabled }

// Chain is one buffer of the driver, popped from a queue. It is reused: its
// slices keep their arrays from one Pop to the next.
type Chain struct {
	Readable [][]byte // from the driver
	Writable [][]byte // to the driver, after everything readable
	ReadLen  int64
	WriteLen int64

	head   uint16
	places []uint64 // GPA of each Writable
}

// Place is the guest-physical address of Writable[i].
func (c *Chain) Place(i int) uint64 { return c.places[i] }

func (c *Chain) clear() {
	clear(c.Readable)
	clear(c.Writable)
	c.Readable, c.Writable, c.places = c.Readable[:0], c.Writable[:0], c.places[:0]
	c.ReadLen, c.WriteLen = 0, 0
}

// checkRings says whether the ring areas can be used: aligned (§2.7) and each
// inside one region of RAM.
func (q *Queue) checkRings() error {
	for _, a := range [...]struct {
		name           string
		gpa, len, unit uint64
	}{
		{"descriptor table", q.desc, descSize * uint64(q.size), 16},
		{"available ring", q.avail, 6 + 2*uint64(q.size), 2},
		{"used ring", q.used, 6 + 8*uint64(q.size), 4},
	} {
		if a.gpa%a.unit != 0 {
			return fmt.Errorf("virtio: queue %d: %s at 0x%x is not aligned: %w", q.Index, a.name, a.gpa, errChain)
		}
		if _, err := q.mem.Slice(a.gpa, a.len); err != nil {
			return fmt.Errorf("virtio: queue %d: %s: %w", q.Index, a.name, err)
		}
	}
	if r := q.mem.Find(q.used); r.ReadOnly {
		return fmt.Errorf("virtio: queue %d: used ring is in ROM: %w", q.Index, errChain)
	}
	return nil
}

// load16 and its like read rings that checkRings has accepted.
func (q *Queue) load16(gpa uint64) uint16 {
	v, _ := q.mem.Load16(gpa)
	return v
}

// store16 publishes: everything stored before is visible first, and loads after
// it are not done earlier. sync/atomic promises that order (Go memory model);
// it is the fence that notification suppression rests on (§2.7.7.2, §2.7.10.2).
func (q *Queue) store16(gpa uint64, v uint16) { _ = q.mem.Store16(gpa, v) }

func (q *Queue) usedEvent() uint64  { return q.avail + 4 + 2*uint64(q.size) }
func (q *Queue) availEvent() uint64 { return q.used + 4 + 8*uint64(q.size) }

// Pop takes the next chain into c and reports whether there was one. While the
// queue is paused, stopping or broken there is none. Every chain popped must be
// pushed. It never allocates once c has grown.
func (q *Queue) Pop(c *Chain) bool {
	q.mu.Lock()
	ok, err := q.pop(c)
	if err != nil {
		q.broken = true
	}
	q.mu.Unlock()
	if err != nil {
		q.failed(q, err)
	}
	return ok
}

func (q *Queue) pop(c *Chain) (bool, error) {
	if q.broken || !q.enabled || q.worker.halted() { // once drain has looked, nothing is in flight
		return false, nil
	}
	ready := q.load16(q.avail+2) - q.nextAvail
	if ready == 0 {
		return false, nil
	}
	if ready > q.size {
		return false, q.errorf("available index is %d ahead in a ring of %d", ready, q.size)
	}
	if q.inflight >= int(q.size) {
		return false, q.errorf("more than %d chains in flight", q.size)
	}
	head := q.load16(q.avail + 4 + 2*uint64(q.nextAvail&(q.size-1)))
	if err := q.gather(c, head); err != nil {
		return false, err
	}
	q.nextAvail++
	q.inflight++
	return true, nil
}

// Alone reports whether the chain that was just popped is all there is to do: no
// other is under way, and none waits.
func (q *Queue) Alone() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.inflight == 1 && q.load16(q.avail+2) == q.nextAvail
}

// Unpop takes back the last Pop, whose chain has not been pushed: the next Pop
// gives it again, as the driver has it by then. A device that cannot finish a
// chain for want of the host's end does not keep it, so that it can be paused.
func (q *Queue) Unpop() {
	q.mu.Lock()
	q.nextAvail--
	q.inflight--
	q.mu.Unlock()
	q.worker.wake()
}

func (q *Queue) errorf(format string, args ...any) error {
	return fmt.Errorf("virtio: queue %d: %w: %s", q.Index, errChain, fmt.Sprintf(format, args...))
}

// descriptor is one entry of a table, read once: the driver may change it under us.
type descriptor struct {
	addr  uint64
	len   uint32
	flags uint16
	next  uint16
}

func readDescriptor(table []byte, i uint16) descriptor {
	b := table[descSize*int(i):]
	rest := binary.LittleEndian.Uint64(b[8:])
	return descriptor{binary.LittleEndian.Uint64(b), uint32(rest), uint16(rest >> 32), uint16(rest >> 48)}
}

// gather walks the chain that begins at head. A walk takes at most as many
// steps as its table has entries, so a loop ends as an error.
func (q *Queue) gather(c *Chain, head uint16) error {
	c.clear()
	c.head = head
	table, err := q.mem.Slice(q.desc, descSize*uint64(q.size))
	inner := false
	for i, steps := head, 0; err == nil; steps++ {
		entries := len(table) / descSize
		if int(i) >= entries {
			return q.errorf("descriptor %d in a table of %d", i, entries)
		}
		if steps == entries {
			return q.errorf("descriptor chain loops")
		}
		d := readDescriptor(table, i)
		if d.flags&descIndirect != 0 {
			if inner || !q.indirect || d.flags&descNext != 0 {
				return q.errorf("indirect descriptor where none may be")
			}
			table, err = q.indirectTable(d)
			i, steps, inner = 0, -1, true
			continue
		}
		if err = q.add(c, d); err == nil && d.flags&descNext == 0 {
			return nil
		}
		i = d.next
	}
	return err
}

// indirectTable returns the table that d refers to (§2.7.5.3); it may stand anywhere in RAM.
func (q *Queue) indirectTable(d descriptor) ([]byte, error) {
	if d.len == 0 || d.len%descSize != 0 || d.len/descSize > 1<<16 {
		return nil, q.errorf("indirect table of %d bytes", d.len)
	}
	b, err := q.mem.Slice(d.addr, uint64(d.len))
	if err != nil {
		return nil, fmt.Errorf("virtio: queue %d: indirect table: %w", q.Index, err)
	}
	return b, nil
}

// add bounds one buffer and appends it to the chain.
func (q *Queue) add(c *Chain, d descriptor) error {
	if d.len == 0 {
		return nil
	}
	if len(c.Readable)+len(c.Writable) == maxSegments {
		return q.errorf("more than %d buffers in a chain", maxSegments)
	}
	if c.ReadLen+c.WriteLen+int64(d.len) > 1<<32 {
		return q.errorf("descriptor chain of more than 2^32 bytes")
	}
	b, err := q.mem.Slice(d.addr, uint64(d.len))
	if err != nil {
		return fmt.Errorf("virtio: queue %d: buffer: %w", q.Index, err)
	}
	if d.flags&descWrite == 0 {
		if len(c.Writable) > 0 {
			return q.errorf("device-readable buffer after a device-writable one")
		}
		c.Readable = append(c.Readable, b)
		c.ReadLen += int64(d.len)
		return nil
	}
	if q.mem.Find(d.addr).ReadOnly {
		return q.errorf("device-writable buffer at 0x%x in ROM", d.addr)
	}
	c.Writable = append(c.Writable, b)
	c.places = append(c.places, d.addr)
	c.WriteLen += int64(d.len)
	return nil
}

// Mark notes that the device has stored into writable bytes [off, off+n) of c,
// for what the length given to Push does not cover.
func (q *Queue) Mark(c *Chain, off, n int64) {
	for i, b := range c.Writable {
		size := int64(len(b))
		if off < size && n > 0 {
			k := min(n, size-off)
			q.mem.MarkWritten(c.places[i]+uint64(off), uint64(k))
			off, n = off+k, n-k
		}
		off -= size
		if n <= 0 {
			return
		}
	}
}

// Push gives c back to the driver: its first n writable bytes hold an answer.
// Notify follows, once for as many chains as were pushed.
func (q *Queue) Push(c *Chain, n int64) {
	n = min(n, c.WriteLen, 1<<32-1)
	q.Mark(c, 0, n)
	q.mu.Lock()
	at := q.used + 4 + 8*uint64(q.nextUsed&(q.size-1))
	_ = q.mem.Store32(at, uint32(c.head))
	_ = q.mem.Store32(at+4, uint32(n))
	q.nextUsed++
	q.store16(q.used+2, q.nextUsed)
	q.inflight--
	q.mu.Unlock()
	q.worker.wake()
}

// PushAll gives several chains back at once: the driver sees all of them used, or none.
// Their first n writable bytes, one chain's after the other's, hold an answer.
func (q *Queue) PushAll(cs []Chain, n int64) {
	q.mu.Lock()
	for i := range cs {
		c := &cs[i]
		k := min(n, c.WriteLen, 1<<32-1)
		q.Mark(c, 0, k)
		n -= k
		at := q.used + 4 + 8*uint64((q.nextUsed+uint16(i))&(q.size-1))
		_ = q.mem.Store32(at, uint32(c.head))
		_ = q.mem.Store32(at+4, uint32(k))
	}
	q.nextUsed += uint16(len(cs))
	q.store16(q.used+2, q.nextUsed)
	q.inflight -= len(cs)
	q.mu.Unlock()
	q.worker.wake()
}

// Notify tells the driver about pushed chains unless it said that it need not know (§2.7.7.2).
func (q *Queue) Notify() {
	q.mu.Lock()
	send := q.enabled && q.wantsInterrupt()
	q.mu.Unlock()
	if send {
		q.trigger(q)
	}
}

func (q *Queue) wantsInterrupt() bool {
	if !q.eventIdx {
		return q.load16(q.avail)&availNoInterrupt == 0
	}
	old, fresh := q.signalled, q.fresh
	q.signalled, q.fresh = q.nextUsed, false
	event := q.load16(q.usedEvent())
	return fresh || q.nextUsed-event-1 < q.nextUsed-old
}

// suppress asks the driver not to ring while the queue is being served anyway.
func (q *Queue) suppress() {
	if !q.eventIdx { // with event-idx, not moving avail_event says the same
		q.store16(q.used, usedNoNotify)
	}
}

// Beckon asks the driver to ring for chains beyond those that wait, which are too few:
// look once more at those afterwards. The bell ends serve's Sleep.
func (q *Queue) Beckon() {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case q.broken || !q.enabled || q.worker.halted():
	case q.eventIdx:
		q.store16(q.availEvent(), q.load16(q.avail+2))
	default:
		q.store16(q.used, 0)
	}
}

// listen asks the driver to ring for the next chain, and reports whether one
// has come already, so that the ring for it may never be heard (§2.7.10.2).
func (q *Queue) listen() (more bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.broken {
		return false
	}
	if q.eventIdx {
		q.store16(q.availEvent(), q.nextAvail)
	} else {
		q.store16(q.used, 0)
	}
	return q.load16(q.avail+2) != q.nextAvail
}
