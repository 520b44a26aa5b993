package console

import (
	"log/slog"
	"sync"
	"time"

	"berth/chardev"
	"berth/virtio"
)

const (
	outputSize = 64 << 10 // bytes on their way to the host
	inputSize  = 16 << 10 // bytes read ahead from the host
)

// patience is how long a console waits for a host that takes nothing. Linux
// prints with interrupts off and spins until its buffer comes back: to wait
// longer would stop the guest.
const patience = 200 * time.Millisecond

// port is one port: the queues on one side, the host's end on the other.
type port struct {
	d    *Device
	id   int
	name string
	host chardev.Port
	in   *chardev.Input
	out  output

	opened   func(bool)
	telling  sync.Mutex // held while opened is called; taken before d.mu
	toldOpen bool

	// Of the transmit queue's goroutine, and of Reset, Save and Load, which do not run beside it.
	sent int64 // bytes of the next chain that the host has

	// Guarded by d.mu.
	rx        *virtio.Queue
	s         PortState // save for Sent and Input
	connected bool      // somebody is at the host's end
}

func newPort(d *Device, id int, n Named) *port {
	p := &port{d: d, id: id, name: n.Name, host: n.Host, opened: n.Opened, in: chardev.NewInput(n.Host, inputSize)}
	p.out.hurried, p.out.log = n.Name == "", d.log
	if n.Host != nil {
		p.out.queue = chardev.NewQueue(n.Host, outputSize, p.out.wake)
	}
	return p
}

func (p *port) start() {
	plug, ok := p.host.(chardev.Plug)
	p.connected = !ok
	if ok {
		plug.OnConnect(p.connect)
	}
	p.in.Start(p.arrived)
}

// connect is the host's word that somebody came or went.
func (p *port) connect(connected bool) {
	p.d.mu.Lock()
	defer p.d.mu.Unlock()
	p.connected = connected
	if !connected && p.s.HostOpen {
		p.s.Hangup = true // the guest must see it, however soon the next one comes
	}
	p.d.wakeControl()
}

// arrived is the input's word that bytes have come.
func (p *port) arrived() {
	p.d.mu.Lock()
	defer p.d.mu.Unlock()
	if p.rx != nil {
		p.rx.Wake()
	}
}

// serve starts the queues.
func (p *port) serve(rx, tx *virtio.Queue) {
	p.d.mu.Lock()
	p.rx = rx
	p.d.mu.Unlock()
	p.out.serve(tx)
	rx.Start(func() { p.receive(rx) })
	tx.Start(func() { p.transmit(tx) })
}

// reset forgets the driver. Called with d.mu held, and no queue is served.
func (p *port) reset() {
	p.rx, p.sent, p.s = nil, 0, PortState{}
	p.out.serve(nil)
}

// transmit serves the transmit queue. A chain that the host has no room for goes
// back and is taken up again where it was left.
func (p *port) transmit(q *virtio.Queue) {
	var c virtio.Chain
	for q.Pop(&c) {
		if p.send(&c) {
			p.sent = 0
			q.Push(&c, 0)
			q.Notify()
			continue
		}
		q.Unpop()
		if !q.Sleep() {
			return
		}
	}
}

// send passes on what the host does not have of c yet, and reports whether that
// is all.
func (p *port) send(c *virtio.Chain) bool {
	skip := p.sent
	for _, b := range c.Readable {
		if skip >= int64(len(b)) {
			skip -= int64(len(b))
			continue
		}
		b = b[skip:]
		skip = 0
		n := p.out.offer(b)
		p.sent += int64(n)
		if n < len(b) {
			return p.out.gaveUp()
		}
	}
	return true
}

// receive serves the receive queue: one chain for what has come, as far as it has room.
func (p *port) receive(q *virtio.Queue) {
	var c virtio.Chain
	for {
		for !p.readable() {
			if !q.Sleep() {
				return
			}
		}
		if !q.Pop(&c) {
			return
		}
		var n int64
		for _, b := range c.Writable {
			k := p.in.Take(b)
			if n += int64(k); k < len(b) {
				break
			}
		}
		q.Push(&c, n)
		q.Notify()
	}
}

// readable reports whether there is input for the guest and the guest wants it:
// who opens a port later than the host writes loses nothing.
func (p *port) readable() bool {
	if p.in.Len() == 0 {
		return false
	}
	p.d.mu.Lock()
	defer p.d.mu.Unlock()
	return p.s.GuestOpen || p.id == 0
}

func (p *port) close() error {
	p.in.Close()
	if p.out.queue == nil {
		return nil
	}
	err := p.out.queue.Close()
	if cerr := p.host.Close(); err == nil {
		err = cerr
	}
	return err
}

// output is the way to the host. A program's port waits for its host as long as
// it takes. A console is hurried: once the host has taken nothing for patience,
// what it has no room for is dropped until it has.
type output struct {
	queue   *chardev.Queue // nil: nothing plugged in
	hurried bool
	log     *slog.Logger // may be nil

	mu   sync.Mutex
	tx   *virtio.Queue
	full time.Time // since when the host has taken nothing; zero while it keeps up
	gone bool      // for longer than patience
}

func (o *output) serve(tx *virtio.Queue) {
	o.mu.Lock()
	o.tx = tx
	o.mu.Unlock()
}

// offer returns how much of b was taken. Whenever something was, patience is whole again.
func (o *output) offer(b []byte) int {
	if o.queue == nil {
		return len(b)
	}
	n := o.queue.Offer(b)
	if n > 0 && o.hurried {
		o.mu.Lock()
		o.full, o.gone = time.Time{}, false
		o.mu.Unlock()
	}
	return n
}

// gaveUp reports whether the rest of an offer that was cut short is to be
// forgotten. If not, the transmit queue is woken when it may have become so.
func (o *output) gaveUp() bool {
	if !o.hurried {
		return false
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.full.IsZero() {
		o.full = time.Now()
		time.AfterFunc(patience, o.wake)
	}
	if !o.gone && time.Since(o.full) >= patience {
		o.gone = true
		if o.log != nil {
			o.log.Warn("nobody reads the virtio console: output is dropped")
		}
	}
	return o.gone
}

// wake makes the transmit queue try again: the host has room, or patience has ended.
func (o *output) wake() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.tx != nil {
		o.tx.Wake()
	}
}

func (o *output) drain() {
	if o.queue != nil {
		o.queue.Drain()
	}
}

func (o *output) abandon() {
	if o.queue != nil {
		o.queue.Abandon()
	}
}
