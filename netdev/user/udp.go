package user

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// How long a flow of datagrams is kept behind its last one.
const (
	askedTime    = 30 * time.Second // nothing has come back
	answeredTime = 3 * time.Minute
)

// flow names what belongs together: datagrams of UDP's between two ends, or pings with one
// identifier, which stands for the guest's port.
type flow struct {
	proto      tcpip.TransportProtocolNumber
	guest, far netip.AddrPort
}

// datagram is a flow and its socket: connected to the far end, or a UDP forward's, which is
// shared with other flows.
type datagram struct {
	flow
	route    *stack.Route // to the guest
	raw      syscall.RawConn
	own      io.Closer // the socket, unless it is a forward's
	to       unix.Sockaddr
	rawPing  *rawPing     // nil: the socket is not a raw one
	last     atomic.Int64 // when a datagram passed, in Unix's nanoseconds
	answered atomic.Bool
}

// datagrams are the flows, up to maxDatagrams: a new one drops that which has been idle longest.
type datagrams struct {
	mu     sync.Mutex
	all    map[flow]*datagram
	closed bool
}

func (s *datagrams) init() { s.all = map[flow]*datagram{} }

func (s *datagrams) find(f flow) *datagram {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.all[f]
}

// add keeps d; false says that there is another by now, or an end.
func (s *datagrams) add(d *datagram) bool {
	d.last.Store(time.Now().UnixNano())
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.all[d.flow] != nil {
		return false
	}
	if len(s.all) >= maxDatagrams {
		var oldest *datagram
		for _, o := range s.all {
			if oldest == nil || o.last.Load() < oldest.last.Load() {
				oldest = o
			}
		}
		s.dropLocked(oldest)
	}
	s.all[d.flow] = d
	return true
}

func (s *datagrams) dropLocked(d *datagram) {
	if s.all[d.flow] == d {
		delete(s.all, d.flow)
		d.close()
	}
}

func (s *datagrams) drop(d *datagram) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dropLocked(d)
}

// expire drops the flows that are idle at now.
func (s *datagrams) expire(now time.Time) {
	s.dropIf(func(d *datagram) bool {
		keep := askedTime
		if d.answered.Load() && d.proto == header.UDPProtocolNumber {
			keep = answeredTime
		}
		return now.Sub(time.Unix(0, d.last.Load())) > keep
	})
}

func (s *datagrams) dropIf(f func(*datagram) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range s.all {
		if f(d) {
			s.dropLocked(d)
		}
	}
}

func (s *datagrams) close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.dropIf(func(*datagram) bool { return true })
}

// close ends the reader of the socket, and lets the route go.
func (d *datagram) close() {
	if d.own != nil {
		d.own.Close()
	}
	if d.route != nil {
		d.route.Release()
	}
}

// send sends to the far end without waiting.
func (d *datagram) send(p []byte) error {
	var err error
	d.last.Store(time.Now().UnixNano())
	if d.rawPing != nil {
		p = d.rawPing.request(p)
	}
	if e := d.raw.Write(func(fd uintptr) bool {
		if d.to != nil {
			err = unix.Sendto(int(fd), p, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, d.to)
		} else {
			_, err = unix.SendmsgN(int(fd), p, nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		}
		return true
	}); e != nil {
		return e
	}
	return err
}

// datagramOut takes a datagram of the guest's, from within Send.
func (n *Network) datagramOut(id stack.TransportEndpointID, pkt *stack.PacketBuffer) bool {
	h := header.UDP(pkt.TransportHeader().Slice())
	size := int(h.Length()) - header.UDPMinimumSize
	p, ok := pkt.Data().PullUp(pkt.Data().Size())
	if size < 0 || size > pkt.Data().Size() || !ok && size > 0 {
		return true
	}
	p = p[:size]
	f := flow{
		proto: header.UDPProtocolNumber,
		guest: netip.AddrPortFrom(hostAddr(id.RemoteAddress), id.RemotePort),
		far:   netip.AddrPortFrom(hostAddr(id.LocalAddress), id.LocalPort),
	}
	d := n.datagrams.find(f)
	if d == nil {
		switch t := n.target(f.far); t.kind {
		case toNames:
			n.query(f, p)
			return true
		case toHost:
			d = n.openUDP(f, t.addr)
		}
	}
	if d != nil {
		n.sent(d, d.send(p))
	}
	return true
}

// sent tells the guest when nobody is at the far end.
func (n *Network) sent(d *datagram, err error) {
	gone := errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, unix.EHOSTUNREACH) || errors.Is(err, unix.ENETUNREACH)
	if gone && d.proto == header.UDPProtocolNumber {
		n.unreachable(d)
	}
}

// openUDP makes a flow of UDP's. Go lets every socket send to all hosts of a network at once,
// at an address that the host alone knows for such a one: a guest may not.
func (n *Network) openUDP(f flow, to netip.AddrPort) *datagram {
	d := net.Dialer{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		cerr := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_BROADCAST, 0) })
		return errors.Join(err, cerr)
	}}
	c, err := d.DialContext(n.ctx, "udp", to.String())
	if err != nil {
		return nil
	}
	raw, err := c.(*net.UDPConn).SyscallConn()
	return n.open(&datagram{flow: f, raw: raw, own: c}, err)
}

// open keeps a flow with a socket of its own, and reads that.
func (n *Network) open(d *datagram, err error) *datagram {
	if err == nil {
		d.route, err = n.route(d.far.Addr(), d.guest.Addr())
	}
	if err != nil || !n.datagrams.add(d) {
		d.close()
		return nil
	}
	if !n.background(func() { n.datagramIn(d) }) {
		n.datagrams.drop(d)
		return nil
	}
	return d
}

// openPing makes a flow of echo requests. The host's kernel may not let it.
func (n *Network) openPing(f flow) *datagram {
	family, proto := unix.AF_INET, unix.IPPROTO_ICMP
	var to unix.Sockaddr = &unix.SockaddrInet4{Addr: [4]byte(f.far.Addr().AsSlice())}
	if f.far.Addr().Is6() {
		family, proto = unix.AF_INET6, unix.IPPROTO_ICMPV6
		to = &unix.SockaddrInet6{Addr: f.far.Addr().As16()}
	}
	fd, rawPing, err := pingSocket(family, proto)
	if err != nil {
		return nil
	}
	if err := unix.Connect(fd, to); err != nil {
		unix.Close(fd)
		return nil
	}
	file := os.NewFile(uintptr(fd), "ping")
	raw, err := file.SyscallConn()
	return n.open(&datagram{flow: f, raw: raw, own: file, rawPing: rawPing}, err)
}

// route is the way to the guest from an address that it takes for the far end's.
func (n *Network) route(from, guest netip.Addr) (*stack.Route, error) {
	r, terr := n.stack.FindRoute(nic, stackAddr(from), stackAddr(guest), netProto(guest), false)
	if terr != nil {
		return nil, net.ErrClosed
	}
	return r, nil
}

// buffers are for the longest datagrams.
var buffers = sync.Pool{New: func() any { return new([65536]byte) }}

// datagramIn moves what the far end sends, until the flow's socket is closed.
func (n *Network) datagramIn(d *datagram) {
	defer n.datagrams.drop(d)
	for {
		var failed error
		err := d.raw.Read(func(fd uintptr) bool {
			b := buffers.Get().(*[65536]byte)
			defer buffers.Put(b)
			k, err := unix.Read(int(fd), b[:])
			if err == unix.EAGAIN {
				return false
			}
			if failed = err; err == nil {
				n.answer(d, b[:k])
			}
			return true
		})
		if err != nil {
			return
		}
		n.sent(d, failed)
	}
}

// answer passes on what the far end sent.
func (n *Network) answer(d *datagram, p []byte) {
	if d.rawPing != nil {
		p = d.rawPing.reply(p)
	}
	d.last.Store(time.Now().UnixNano())
	d.answered.Store(true)
	if d.proto == header.UDPProtocolNumber {
		n.sendUDP(d.route, d.far.Port(), d.guest.Port(), p)
		return
	}
	if len(p) < 8 || p[0] != byte(header.ICMPv4EchoReply) && p[0] != byte(header.ICMPv6EchoReply) {
		return
	}
	n.sendEcho(d.route, d.proto, p[0], d.guest.Port(), p)
}

// sendUDP sends a datagram to the guest.
func (n *Network) sendUDP(r *stack.Route, from, to uint16, p []byte) {
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{
		ReserveHeaderBytes: header.UDPMinimumSize + int(r.MaxHeaderLength()),
		Payload:            buffer.MakeWithData(p),
	})
	defer pkt.DecRef()
	size := uint16(header.UDPMinimumSize + len(p))
	h := header.UDP(pkt.TransportHeader().Push(header.UDPMinimumSize))
	h.Encode(&header.UDPFields{SrcPort: from, DstPort: to, Length: size})
	sum := ^h.CalculateChecksum(checksum.Combine(r.PseudoHeaderChecksum(header.UDPProtocolNumber, size), checksum.Checksum(p, 0)))
	if sum == 0 { // which would say that there is none
		sum = 0xffff
	}
	h.SetChecksum(sum)
	pkt.TransportProtocolNumber = header.UDPProtocolNumber
	n.send(r, header.UDPProtocolNumber, pkt)
}

func (n *Network) send(r *stack.Route, proto tcpip.TransportProtocolNumber, pkt *stack.PacketBuffer) {
	r.WritePacket(stack.NetworkHeaderParams{Protocol: proto, TTL: r.DefaultTTL()}, pkt)
}

// sendBytes sends a packet of a protocol's to the guest.
func (n *Network) sendBytes(r *stack.Route, proto tcpip.TransportProtocolNumber, p []byte) {
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{
		ReserveHeaderBytes: int(r.MaxHeaderLength()),
		Payload:            buffer.MakeWithData(p),
	})
	defer pkt.DecRef()
	n.send(r, proto, pkt)
}
