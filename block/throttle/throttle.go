// Package throttle is a disk that lets requests through to another one no faster than it is told.
package throttle

import (
	"sync"
	"time"

	"berth/block"
)

// direction tells reads from what changes the disk.
type direction uint8

const (
	reads direction = iota
	writes
	directions
)

// Disk passes requests on to another disk, which it owns, and holds back those
// that come too fast. Submit never blocks: what has to wait stays in a queue,
// reads and writes each in their order, and a timer lets it go; where both wait
// for the same limit they take turns.
//
// Write zeroes count as writes of as many bytes. A discard counts as a write of
// none. A flush is not counted and never waits.
type Disk struct {
	under block.Disk

	mu      sync.Mutex
	limits  Limits
	total   buckets
	each    [directions]buckets
	last    time.Time // to which the buckets have leaked
	waiting [directions]queue
	turn    direction // whose request goes first if both could
	timer   *time.Timer
	hurried int  // see Hasten
	gone    bool // see Abandon
	closing bool
	passing sync.WaitGroup // who is just passing on what had to wait
}

// queue is what waits in one direction: requests from head on.
type queue struct {
	requests []*block.Request
	head     int
}

var (
	_ block.Disk   = (*Disk)(nil)
	_ block.Shaped = (*Disk)(nil)
)

// New returns a disk over under that keeps to l, which Check accepts.
func New(under block.Disk, l Limits) *Disk {
	d := &Disk{under: under, last: time.Now()}
	d.keepTo(l)
	return d
}

func (d *Disk) keepTo(l Limits) {
	d.limits = l
	d.total = buckets{newBucket(l.Bytes.Total), newBucket(l.Operations.Total)}
	d.each[reads] = buckets{newBucket(l.Bytes.Read), newBucket(l.Operations.Read)}
	d.each[writes] = buckets{newBucket(l.Bytes.Write), newBucket(l.Operations.Write)}
}

// SetLimits has the disk keep to l, which Check accepts, from now on, as if nothing
// had been asked of it before; what waits does so by the new limits.
func (d *Disk) SetLimits(l Limits) {
	d.mu.Lock()
	d.leak()
	d.keepTo(l)
	d.mu.Unlock()
	d.due()
}

// Limits returns what the disk keeps to.
func (d *Disk) Limits() Limits {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.limits
}

// Size returns the size of the disk below.
func (d *Disk) Size() int64 { return d.under.Size() }

// Topology returns that of the disk below.
func (d *Disk) Topology() block.Topology { return block.TopologyOf(d.under) }

// Submit passes r on, now or when it is due; see block.Disk.
func (d *Disk) Submit(r *block.Request) {
	if r.Op == block.OpFlush {
		d.under.Submit(r)
		return
	}
	dir := directionOf(r)
	d.mu.Lock()
	if d.closing || d.gone {
		d.mu.Unlock()
		r.Done(block.ErrClosed)
		return
	}
	if d.hurried == 0 {
		d.leak()
		if d.wait(dir) > 0 || d.waiting[dir].len() > 0 || d.waiting[1-dir].len() > 0 && d.total.limit() {
			r.Patience = 0 // the timer has more to do
			d.waiting[dir].push(r)
			if d.waiting[dir].len() == 1 {
				d.arm()
			}
			d.mu.Unlock()
			return
		}
	}
	d.account(dir, r)
	d.mu.Unlock()
	d.under.Submit(r)
}

func directionOf(r *block.Request) direction {
	if r.Op == block.OpRead {
		return reads
	}
	return writes
}

// leak brings the buckets up to now. Called with mu held, as are those below.
func (d *Disk) leak() {
	now := time.Now()
	passed := now.Sub(d.last)
	if passed <= 0 {
		return
	}
	d.last = now
	d.total.leak(passed)
	for i := range d.each {
		d.each[i].leak(passed)
	}
}

func (d *Disk) wait(dir direction) time.Duration { return max(d.total.wait(), d.each[dir].wait()) }

func (d *Disk) account(dir direction, r *block.Request) {
	bytes, operations := float64(r.Len), 1.0
	if r.Op == block.OpDiscard {
		bytes = 0
	}
	if one := float64(d.limits.OperationSize); one > 0 && bytes > one {
		operations = bytes / one
	}
	d.total.add(bytes, operations)
	d.each[dir].add(bytes, operations)
}

// next takes out what is due, if anything is, by turns.
func (d *Disk) next() *block.Request {
	for _, dir := range [directions]direction{d.turn, 1 - d.turn} {
		if d.waiting[dir].len() == 0 || d.wait(dir) > 0 {
			continue
		}
		r := d.waiting[dir].pop()
		d.account(dir, r)
		d.turn = 1 - dir
		return r
	}
	return nil
}

// arm has the timer look when the next of what waits is due.
func (d *Disk) arm() {
	first := time.Duration(-1)
	for dir := range d.waiting {
		if d.waiting[dir].len() == 0 {
			continue
		}
		if w := d.wait(direction(dir)); first < 0 || w < first {
			first = w
		}
	}
	switch {
	case first < 0:
	case d.timer == nil:
		d.timer = time.AfterFunc(first, d.due)
	default:
		d.timer.Reset(first)
	}
}

// due is the timer: it lets go what is due, and comes back for the rest.
func (d *Disk) due() {
	for {
		d.mu.Lock()
		d.leak()
		r := d.next()
		if r == nil {
			d.arm()
			d.mu.Unlock()
			return
		}
		d.passing.Add(1)
		d.mu.Unlock()
		d.under.Submit(r)
		d.passing.Done()
	}
}

// Hasten(true) lets everything through at once, what waits and what comes, until
// Hasten(false) has been called as often: somebody waits for the disk to be still.
func (d *Disk) Hasten(on bool) {
	d.mu.Lock()
	var waiting []*block.Request
	if on {
		d.hurried++
		waiting = d.takeAll()
	} else {
		d.hurried--
	}
	d.passing.Add(1)
	d.mu.Unlock()
	d.pass(waiting)
	d.passing.Done()
}

func (d *Disk) pass(rs []*block.Request) {
	for _, r := range rs {
		d.under.Submit(r)
	}
}

// takeAll empties the queues, due or not. Called with mu held.
func (d *Disk) takeAll() []*block.Request {
	var all []*block.Request
	for dir := range d.waiting {
		for q := &d.waiting[dir]; q.len() > 0; {
			r := q.pop()
			d.account(direction(dir), r)
			all = append(all, r)
		}
	}
	if d.timer != nil {
		d.timer.Stop()
	}
	return all
}

// Abandon fails what waits and what comes, and has the disk below do the same if it can.
func (d *Disk) Abandon() {
	d.mu.Lock()
	d.gone = true
	waiting := d.takeAll()
	d.mu.Unlock()
	for _, r := range waiting {
		r.Done(block.ErrClosed)
	}
	if a, ok := d.under.(interface{ Abandon() }); ok {
		a.Abandon()
	}
}

// Close lets through what waits and closes the disk below, which completes it.
func (d *Disk) Close() error {
	d.mu.Lock()
	if d.closing {
		d.mu.Unlock()
		return block.ErrClosed
	}
	d.closing = true
	waiting := d.takeAll()
	d.mu.Unlock()
	d.pass(waiting)
	d.passing.Wait()
	return d.under.Close()
}

func (q *queue) len() int { return len(q.requests) - q.head }

func (q *queue) push(r *block.Request) {
	if q.head > len(q.requests)/2 { // room at the front before more room
		n := copy(q.requests, q.requests[q.head:])
		clear(q.requests[n:])
		q.requests, q.head = q.requests[:n], 0
	}
	q.requests = append(q.requests, r)
}

func (q *queue) pop() *block.Request {
	r := q.requests[q.head]
	q.requests[q.head] = nil
	if q.head++; q.head == len(q.requests) {
		q.requests, q.head = q.requests[:0], 0
	}
	return r
}
