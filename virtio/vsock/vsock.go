// Package vsock is the virtio socket device: stream connections between programs of guest and host, by Unix sockets on the host.
package vsock

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"

	"berth/virtio"
)

// featureStream is VIRTIO_VSOCK_F_STREAM (virtio 1.2 §5.10.3).
const featureStream = uint64(1) << 0

const (
	queueReceive = iota // by the driver
	queueTransmit
	queueEvent

	queueSize  = 256
	eventSize  = 16
	configSize = 8 // guest_cid 8 (§5.10.4)
)

// HostCID is the host's context ID. MinCID to MaxCID may be a guest's (§5.10.4).
const (
	HostCID = 2
	MinCID  = 3
	MaxCID  = 0xfffffffe
)

// A guest's share of the host's memory is bounded by these: connections, what is
// under way in each to and from the host, and answers to packets that belong to none.
const (
	maxConnections = 512
	bufferToHost   = 128 << 10 // announced as buf_alloc
	bufferToGuest  = 64 << 10
	maxAnswers     = 256
	maxDialing     = 64
	maxPayload     = 64 << 10 // of one packet to the guest
)

// Conn is the host's end of a connection, such as a *net.UnixConn.
type Conn interface {
	io.ReadWriteCloser
	// CloseWrite says that nothing more will be written.
	CloseWrite() error
}

// Host is where connections of the guest lead.
type Host interface {
	// Dial connects to who listens on a port of the host's.
	Dial(port uint32) (Conn, error)
}

// Device is one socket device. Safe for concurrent use.
//
// The workers of the transmit and receive queues do all that concerns packets. Each
// connection has two goroutines of its own, which move bytes between its buffers and
// its Conn; everything is under one lock, with which nobody waits.
type Device struct {
	cid  uint64
	host Host

	mu          sync.Mutex
	conns       map[key]*conn
	ready       []*conn  // those with something for the guest, in the order of turns
	answers     []header // resets for what belongs to no connection
	dialing     int      // calls of host.Dial
	nextPort    uint32   // of the host, for its connections
	rx, tx      *virtio.Queue
	events      *virtio.Queue
	interrupted bool // the guest is to be told that its connections are gone
}

// key tells connections apart.
type key struct{ guest, host uint32 }

// New returns the device of a guest with a context ID.
func New(cid uint32, host Host) (*Device, error) {
	if cid < MinCID || cid > MaxCID {
		return nil, fmt.Errorf("virtio/vsock: a guest's context ID is not %d", cid)
	}
	return &Device{cid: uint64(cid), host: host, conns: map[key]*conn{}, nextPort: firstPort}, nil
}

// Info describes the device to its transport.
func (d *Device) Info() virtio.Info {
	return virtio.Info{
		ID: virtio.IDVsock, Name: "virtio-vsock", Features: featureStream,
		Queues: []uint16{queueSize, queueSize, eventSize}, ConfigSize: configSize,
	}
}

// ReadConfig reads the guest's context ID.
func (d *Device) ReadConfig(p []byte, off int) {
	var c [configSize]byte
	binary.LittleEndian.PutUint64(c[:], d.cid)
	copy(p, c[off:])
}

// Activate starts serving the queues.
func (d *Device) Activate(_ uint64, qs []*virtio.Queue) error {
	d.mu.Lock()
	d.rx, d.tx, d.events = qs[queueReceive], qs[queueTransmit], qs[queueEvent]
	d.mu.Unlock()
	qs[queueReceive].Start(d.serveReceive(qs[queueReceive]))
	qs[queueTransmit].Start(d.serveTransmit(qs[queueTransmit]))
	qs[queueEvent].Start(d.serveEvents(qs[queueEvent]))
	return nil
}

// Reset ends all connections.
func (d *Device) Reset() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.rx, d.tx, d.events = nil, nil, nil
	for _, c := range d.conns {
		d.remove(c)
	}
	d.ready, d.answers = nil, nil
}

// ErrNobody says that the guest takes no connections now.
var ErrNobody = errors.New("virtio/vsock: the guest's driver does not run, or has too many connections")

// Connect begins a connection of the host's to a port of the guest. established is
// called, with no lock held, when the guest has taken it, and what it returns decides
// whether it stays; host is closed when it ends, or if there is an error.
func (d *Device) Connect(port uint32, host Conn, established func(hostPort uint32) error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.rx == nil || len(d.conns) >= maxConnections {
		return errors.Join(ErrNobody, host.Close())
	}
	k := key{port, d.freePort(port)}
	c := d.newConn(k)
	c.host, c.established, c.request = host, established, true
	c.expire()
	d.enqueue(c)
	return nil
}

// firstPort begins the ports of the host's own connections, beyond those that
// programs listen on.
const firstPort = 1 << 30

// freePort returns a port of the host's that has no connection to the guest's.
func (d *Device) freePort(guest uint32) uint32 {
	for {
		p := d.nextPort
		if d.nextPort++; d.nextPort == 0 {
			d.nextPort = firstPort
		}
		if d.conns[key{guest, p}] == nil {
			return p
		}
	}
}

// enqueue gives c a turn at the receive queue. Called with mu held.
func (d *Device) enqueue(c *conn) {
	if !c.queued {
		c.queued = true
		d.ready = append(d.ready, c)
	}
	if d.rx != nil {
		d.rx.Wake()
	}
}

// answer resets what belongs to no connection.
func (d *Device) answer(h header) {
	if h.op == opReset {
		return // no reset for a reset
	}
	d.answers = append(d.answers, header{
		srcCID: h.dstCID, dstCID: h.srcCID, srcPort: h.dstPort, dstPort: h.srcPort, kind: h.kind, op: opReset,
	})
	if d.rx != nil {
		d.rx.Wake()
	}
}

// serveReceive gives packets to the driver: the answers first, then the connections in turn.
func (d *Device) serveReceive(q *virtio.Queue) func() {
	var c virtio.Chain
	buf := make([]byte, 0, headerSize+maxPayload)
	return func() {
		for {
			for !d.pending() {
				if !q.Sleep() {
					return
				}
			}
			if !q.Pop(&c) {
				return
			}
			packet := d.next(buf[:0], int(min(c.WriteLen, headerSize+maxPayload)))
			if packet == nil && c.WriteLen >= headerSize { // gone meanwhile
				q.Unpop()
				continue
			}
			q.Push(&c, fill(&c, packet))
			q.Notify()
		}
	}
}

// fill stores a packet into a chain.
func fill(c *virtio.Chain, packet []byte) int64 {
	n := 0
	for _, b := range c.Writable {
		n += copy(b, packet[n:])
	}
	return int64(n)
}

func (d *Device) pending() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.answers) > 0 || len(d.ready) > 0
}

// next makes the next packet of at most size bytes in buf, nil if there is none, or
// no room for a header.
func (d *Device) next(buf []byte, size int) []byte {
	if size < headerSize {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.answers) > 0 {
		h := d.answers[0]
		d.answers = d.answers[1:]
		if len(d.answers) == maxAnswers-1 && d.tx != nil {
			d.tx.Wake() // it waited
		}
		return h.append(buf)
	}
	for len(d.ready) > 0 {
		c := d.ready[0]
		d.ready = d.ready[1:]
		c.queued = false
		if packet := c.next(buf, size); packet != nil {
			if c.ready() {
				d.enqueue(c)
			}
			return packet
		}
	}
	return nil
}

// serveTransmit takes packets from the driver. It waits while there are too many
// answers that the driver does not take (§5.10.6.1).
func (d *Device) serveTransmit(q *virtio.Queue) func() {
	var c virtio.Chain
	return func() {
		for {
			for d.flooded() {
				if !q.Sleep() {
					return
				}
			}
			if !q.Pop(&c) {
				return
			}
			d.handle(&c)
			q.Push(&c, 0)
			q.Notify()
		}
	}
}

func (d *Device) flooded() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.answers) >= maxAnswers
}

// serveEvents says once after Load that connections are gone (§5.10.6.7).
func (d *Device) serveEvents(q *virtio.Queue) func() {
	var c virtio.Chain
	return func() {
		for {
			for !d.wasInterrupted() {
				if !q.Sleep() {
					return
				}
			}
			if !q.Pop(&c) {
				return
			}
			d.mu.Lock()
			d.interrupted = false
			d.mu.Unlock()
			q.Push(&c, fill(&c, make([]byte, 4))) // VIRTIO_VSOCK_EVENT_TRANSPORT_RESET
			q.Notify()
		}
	}
}

func (d *Device) wasInterrupted() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.interrupted
}

// Connections is how many there are.
func (d *Device) Connections() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.conns)
}

// StateVersion is the version of State that this package writes and reads.
const StateVersion = 1

// State is the device's own state. Connections do not outlive it: a guest whose
// device is loaded is told that they are gone.
type State struct {
	Version uint32
	CID     uint64
}

// Save returns the state of a paused device.
func (d *Device) Save() State { return State{StateVersion, d.cid} }

// Load puts a saved state into a device that has been reset, before the transport's.
func (d *Device) Load(s State) error {
	if s.Version != StateVersion {
		return fmt.Errorf("virtio/vsock: state version %d, want %d", s.Version, StateVersion)
	}
	if s.CID != d.cid {
		return fmt.Errorf("virtio/vsock: state of context ID %d, this one is %d", s.CID, d.cid)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.interrupted = true
	return nil
}
