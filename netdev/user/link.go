package user

import (
	"encoding/binary"
	"io"
	"net/netip"
	"sync"
	"sync/atomic"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"berth/netdev"
)

// What waits for the guest at most; more is dropped, as by a full switch.
const (
	maxQueue       = 4096    // frames
	maxQueuedBytes = 8 << 20 // bytes
)

// link is the stack's end of the cable, and the queue of frames to the guest. The stack's
// segments are up to 64 KiB long, with the checksum to be made; the guest gets them so, or cut
// up and summed if it does not take that.
type link struct {
	n          *Network
	offloads   atomic.Pointer[netdev.Offloads] // what the guest takes
	mu         sync.Mutex                      // guards what follows, and is held for moments
	dispatcher stack.NetworkDispatcher
	queue      []queued
	head       int // of queue
	bytes      int // in queue
	closed     bool
	some       chan struct{} // has an element when the queue may have one, or the end has come

	receiving sync.Mutex // held by the receiver
	cut       segmenter  // the rest of a segment that the guest does not take whole
}

// queued is a frame to the guest: the stack's packet, or a frame of our own.
type queued struct {
	pkt  *stack.PacketBuffer
	data []byte
}

func (q queued) size() int {
	if q.pkt != nil {
		return q.pkt.Size()
	}
	return len(q.data)
}

func newLink(n *Network) *link {
	l := &link{n: n, some: make(chan struct{}, 1)}
	l.offloads.Store(&netdev.Offloads{})
	return l
}

// put queues a frame, unless the queue is full. It takes over pkt's reference.
func (l *link) put(q queued) bool {
	l.mu.Lock()
	full := l.closed || len(l.queue)-l.head >= maxQueue || l.bytes >= maxQueuedBytes
	if !full {
		if l.head > 0 && len(l.queue) == cap(l.queue) {
			k := copy(l.queue, l.queue[l.head:])
			clear(l.queue[k:])
			l.queue, l.head = l.queue[:k], 0
		}
		l.queue = append(l.queue, q)
		l.bytes += q.size()
	}
	l.mu.Unlock()
	if full {
		if q.pkt != nil {
			q.pkt.DecRef()
		}
		return false
	}
	l.wake()
	return true
}

func (l *link) push(frame []byte) { l.put(queued{data: frame}) }

func (l *link) wake() {
	select {
	case l.some <- struct{}{}:
	default:
	}
}

// take returns the next frame; open is false at the end.
func (l *link) take() (q queued, ok, open bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return q, false, false
	}
	if l.head == len(l.queue) {
		l.queue, l.head = l.queue[:0], 0
		return q, false, true
	}
	q = l.queue[l.head]
	l.queue[l.head] = queued{}
	l.head++
	l.bytes -= q.size()
	return q, true, true
}

// receive waits for a frame and puts it into p.
func (l *link) receive(p []byte) (int, error) {
	l.receiving.Lock()
	defer l.receiving.Unlock()
	for {
		if size := l.cut.next(p); size > 0 {
			return size, nil
		}
		q, ok, open := l.take()
		switch {
		case !open:
			l.wake() // for the next receiver
			return 0, io.EOF
		case !ok:
			<-l.some
		case q.pkt == nil:
			return copy(p, q.data), nil
		default:
			size := l.write(p, q.pkt)
			q.pkt.DecRef()
			if size > 0 {
				return size, nil
			}
		}
	}
}

// write puts a packet of the stack's into p as the guest takes it; 0 is what the segmenter has
// to give instead.
func (l *link) write(p []byte, pkt *stack.PacketBuffer) int {
	clear(p[:netdev.HeaderSize])
	size := netdev.HeaderSize + flatten(p[netdev.HeaderSize:], pkt)
	if !pkt.GSOOptions.NeedsCsum {
		return size
	}
	takes := l.offloads.Load()
	g := segment{
		ip:  etherSize + netdev.HeaderSize,
		tcp: etherSize + netdev.HeaderSize + len(pkt.NetworkHeader().Slice()),
		mss: int(pkt.GSOOptions.MSS),
		v6:  pkt.NetworkProtocolNumber == header.IPv6ProtocolNumber,
	}
	g.data = g.tcp + len(pkt.TransportHeader().Slice())
	large := g.mss > 0 && size-g.data > g.mss
	switch {
	case large && takes.Checksum && (!g.v6 && takes.TSO4 || g.v6 && takes.TSO6):
		p[1] = gsoTCPv4
		if g.v6 {
			p[1] = gsoTCPv6
		}
		binary.LittleEndian.PutUint16(p[2:], uint16(g.data-netdev.HeaderSize))
		binary.LittleEndian.PutUint16(p[4:], uint16(g.mss))
	case large:
		l.cut.start(p[:size], g, takes.Checksum)
		return 0
	case !takes.Checksum:
		g.sum(p[:size])
		return size
	}
	g.needSum(p)
	return size
}

// flatten copies a packet with its headers into p.
func flatten(p []byte, pkt *stack.PacketBuffer) (size int) {
	views, skip := pkt.AsViewList()
	for v := views.Front(); v != nil; v = v.Next() {
		b := v.AsSlice()
		k := min(skip, len(b))
		size += copy(p[size:], b[k:])
		skip -= k
	}
	return size
}

// close ends receive.
func (l *link) close() {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	l.wake()
}

// drain lets go of what nobody has received.
func (l *link) drain() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, q := range l.queue[l.head:] {
		if q.pkt != nil {
			q.pkt.DecRef()
		}
	}
	l.queue, l.head, l.bytes = nil, 0, 0
}

func (l *link) deliver(proto tcpip.NetworkProtocolNumber, pkt *stack.PacketBuffer) {
	l.mu.Lock()
	d := l.dispatcher
	l.mu.Unlock()
	if d != nil {
		d.DeliverNetworkPacket(proto, pkt)
	}
}

// What follows is gVisor's stack.LinkEndpoint and GSOEndpoint.

// WritePackets queues the stack's packets. A full queue looks to the stack like loss.
func (l *link) WritePackets(pkts stack.PacketBufferList) (int, tcpip.Error) {
	for _, pkt := range pkts.AsSlice() {
		l.put(queued{pkt: pkt.IncRef()})
	}
	return pkts.Len(), nil
}

// AddHeader writes the header of Ethernet.
func (l *link) AddHeader(pkt *stack.PacketBuffer) {
	var to netip.Addr
	if pkt.NetworkProtocolNumber == header.IPv4ProtocolNumber {
		to = hostAddr(header.IPv4(pkt.NetworkHeader().Slice()).DestinationAddress())
	} else {
		to = hostAddr(header.IPv6(pkt.NetworkHeader().Slice()).DestinationAddress())
	}
	mac, known := l.n.neighbours.find(to)
	if !known {
		l.n.resolve(to)
	}
	eth := pkt.LinkHeader().Push(etherSize)
	copy(eth, mac[:])
	copy(eth[6:], l.n.mac[:])
	binary.BigEndian.PutUint16(eth[12:], uint16(pkt.NetworkProtocolNumber))
}

// Attach is the stack's way to give its end.
func (l *link) Attach(d stack.NetworkDispatcher) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dispatcher = d
}

// IsAttached reports whether the stack has given its end.
func (l *link) IsAttached() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.dispatcher != nil
}

// Capabilities says that Send has checked what arrives.
func (l *link) Capabilities() stack.LinkEndpointCapabilities {
	return stack.CapabilityRXChecksumOffload
}

// SupportedGSO has the stack make long segments.
func (l *link) SupportedGSO() stack.SupportedGSO { return stack.HostGSOSupported }

// GSOMaxSize is the longest segment, in bytes of IP.
func (l *link) GSOMaxSize() uint32 { return 65535 }

// MTU is in bytes of IP.
func (l *link) MTU() uint32 { return uint32(l.n.cfg.MTU) }

// MaxHeaderLength is what AddHeader needs.
func (l *link) MaxHeaderLength() uint16 { return etherSize }

// LinkAddress is our MAC.
func (l *link) LinkAddress() tcpip.LinkAddress { return tcpip.LinkAddress(l.n.mac[:]) }

// ARPHardwareType says nothing: Ethernet's neighbours are known here.
func (l *link) ARPHardwareType() header.ARPHardwareType { return header.ARPHardwareNone }

// ParseHeader has nothing to parse.
func (l *link) ParseHeader(*stack.PacketBuffer) bool { return true }

// The others say nothing here.

func (l *link) SetMTU(uint32)                    {}
func (l *link) SetLinkAddress(tcpip.LinkAddress) {}
func (l *link) Wait()                            {}
func (l *link) Close()                           {}
func (l *link) SetOnCloseAction(func())          {}

var (
	_ stack.LinkEndpoint = (*link)(nil)
	_ stack.GSOEndpoint  = (*link)(nil)
)
