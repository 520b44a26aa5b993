package user

import (
	"encoding/binary"
	"net/netip"
	"sync"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"berth/netdev"
)

const (
	etherSize = 14
	flagCsum  = 1 // the header's VIRTIO_NET_HDR_F_NEEDS_CSUM
)

// arrival is a frame of the guest's without its headers of virtio and Ethernet.
type arrival struct {
	partial bool    // its checksum is for us to make: nothing has damaged it
	src     [6]byte // the guest's MAC
	data    *buffer.View
}

// Send is that of netdev.Port. What is not well-formed, or for nobody here, is dropped.
func (n *Network) Send(frame [][]byte) error {
	if n.ctx.Err() != nil {
		return errClosed
	}
	size := 0
	for _, p := range frame {
		size += len(p)
	}
	if size < netdev.HeaderSize+etherSize || size > netdev.MaxFrame {
		return nil
	}
	var head [netdev.HeaderSize + etherSize]byte
	have := 0
	a := arrival{data: buffer.NewView(size - len(head))}
	defer a.data.Release()
	for _, p := range frame {
		if have < len(head) {
			k := copy(head[have:], p)
			have, p = have+k, p[k:]
		}
		a.data.Write(p)
	}
	eth := head[netdev.HeaderSize:]
	if n.stray != nil {
		n.stray(append(eth[:etherSize:etherSize], a.data.AsSlice()...))
	}
	if [6]byte(eth) != n.mac && eth[0]&1 == 0 || eth[6]&1 != 0 {
		return nil
	}
	a.partial = head[0]&flagCsum != 0
	a.src = [6]byte(eth[6:])
	switch binary.BigEndian.Uint16(eth[12:]) {
	case uint16(header.ARPProtocolNumber):
		n.arp(a)
	case uint16(header.IPv4ProtocolNumber):
		n.ipv4(a)
	case uint16(header.IPv6ProtocolNumber):
		n.ipv6(a)
	}
	return nil
}

// ipv4 takes a packet of IPv4's.
func (n *Network) ipv4(a arrival) {
	h := header.IPv4(a.data.AsSlice())
	if !n.cfg.Net.IsValid() || !h.IsValid(len(h)) || !h.IsChecksumValid() {
		return
	}
	a.data.CapLength(int(h.TotalLength()))
	h = h[:h.TotalLength()]
	src, dst := hostAddr(h.SourceAddress()), hostAddr(h.DestinationAddress())
	whole := !h.More() && h.FragmentOffset() == 0
	if h.Protocol() == uint8(header.UDPProtocolNumber) && whole && n.dhcp(a, h.Payload(), dst) {
		return
	}
	if !n.isGuest(src) {
		return
	}
	n.neighbours.learn(src, a.src)
	if dst.IsMulticast() || dst == netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
		return
	}
	switch tcpip.TransportProtocolNumber(h.Protocol()) {
	case header.ICMPv4ProtocolNumber:
		if whole {
			n.echo(src, dst, h.Payload())
		}
	case header.TCPProtocolNumber, header.UDPProtocolNumber:
		if !whole || a.partial || sumIsRight(h.Protocol(), h.Payload(), h.SourceAddress(), h.DestinationAddress()) {
			n.deliver(header.IPv4ProtocolNumber, a)
		}
	}
}

// ipv6 takes a packet of IPv6's. Of its extensions only fragments are known.
func (n *Network) ipv6(a arrival) {
	h := header.IPv6(a.data.AsSlice())
	if !n.cfg.Net6.IsValid() || !h.IsValid(len(h)) {
		return
	}
	a.data.CapLength(header.IPv6MinimumSize + int(h.PayloadLength()))
	h = h[:header.IPv6MinimumSize+int(h.PayloadLength())]
	src, dst := hostAddr(h.SourceAddress()), hostAddr(h.DestinationAddress())
	if n.isGuest(src) {
		n.neighbours.learn(src, a.src)
	}
	proto := h.TransportProtocol()
	switch {
	case proto == header.ICMPv6ProtocolNumber:
		if sumIsRight(h.NextHeader(), h.Payload(), h.SourceAddress(), h.DestinationAddress()) {
			n.icmp6(a, src, dst, h)
		}
	case !n.isGuest(src) || dst.IsMulticast():
	case proto == header.TCPProtocolNumber, proto == header.UDPProtocolNumber:
		if a.partial || sumIsRight(h.NextHeader(), h.Payload(), h.SourceAddress(), h.DestinationAddress()) {
			n.deliver(header.IPv6ProtocolNumber, a)
		}
	case h.NextHeader() == uint8(header.IPv6FragmentHeader):
		// The stack would answer pings for everybody.
		if p := h.Payload(); len(p) >= 8 && (p[0] == uint8(header.TCPProtocolNumber) || p[0] == uint8(header.UDPProtocolNumber)) {
			n.deliver(header.IPv6ProtocolNumber, a)
		}
	}
}

// isGuest reports whether the guest may send from a, an address of its networks that is none of ours.
func (n *Network) isGuest(a netip.Addr) bool {
	switch {
	case a == n.cfg.Host, a == n.cfg.DNS, a == n.cfg.Host6, a == n.cfg.DNS6, n.forwards.isServer(a):
		return false
	}
	return n.cfg.Net.Contains(a) || n.cfg.Net6.Contains(a)
}

// isOurs reports whether a is an address in the guest's networks that answers here.
func (n *Network) isOurs(a netip.Addr) bool {
	return a.IsValid() && (a == n.cfg.Host || a == n.cfg.DNS || a == n.cfg.Host6 || a == n.cfg.DNS6 || n.forwards.isServer(a))
}

// sumIsRight checks the checksum of a whole transport packet; one of UDP's over IPv4 may have none.
func sumIsRight(proto uint8, p []byte, src, dst tcpip.Address) bool {
	at := map[uint8]int{6: 16, 17: 6, 58: 2}[proto]
	if len(p) < at+2 {
		return false
	}
	if proto == 17 && p[at] == 0 && p[at+1] == 0 {
		return src.Len() == 4
	}
	if proto == 17 { // what follows the datagram is not summed
		l := int(header.UDP(p).Length())
		if l < header.UDPMinimumSize || l > len(p) {
			return false
		}
		p = p[:l]
	}
	pseudo := header.PseudoHeaderChecksum(tcpip.TransportProtocolNumber(proto), src, dst, uint16(len(p)))
	return checksum.Checksum(p, pseudo) == 0xffff
}

// deliver hands a packet to the stack.
func (n *Network) deliver(proto tcpip.NetworkProtocolNumber, a arrival) {
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithView(a.data.Clone())})
	n.link.deliver(proto, pkt)
	pkt.DecRef()
}

// neighbours are the MACs behind the guest's addresses.
type neighbours struct {
	mu   sync.RWMutex
	macs map[netip.Addr][6]byte
	last [6]byte // the last one that was heard
}

func (s *neighbours) learn(a netip.Addr, mac [6]byte) {
	s.mu.RLock()
	known := s.macs[a] == mac && s.last == mac
	s.mu.RUnlock()
	if known {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.macs == nil {
		s.macs = map[netip.Addr][6]byte{}
	}
	if _, ok := s.macs[a]; !ok && len(s.macs) >= maxNeighbours {
		for old := range s.macs { // any one: it is learnt again with its next packet
			delete(s.macs, old)
			break
		}
	}
	s.macs[a], s.last = mac, mac
}

// find returns the MAC of a, or the likeliest one.
func (s *neighbours) find(a netip.Addr) (mac [6]byte, known bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	mac, known = s.macs[a]
	if !known {
		mac = s.last
	}
	if mac == [6]byte{} {
		mac = [6]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	}
	return mac, known
}

// arp answers for our addresses, and learns the guest's.
//
//	0 hardware type | 2 protocol | 4 sizes | 6 operation | 8 sender's MAC, IP | 18 target's MAC, IP
func (n *Network) arp(a arrival) {
	h := header.ARP(a.data.AsSlice())
	if !n.cfg.Net.IsValid() || !h.IsValid() {
		return
	}
	sender := netip.AddrFrom4([4]byte(h.ProtocolAddressSender()))
	target := netip.AddrFrom4([4]byte(h.ProtocolAddressTarget()))
	if n.isGuest(sender) {
		n.neighbours.learn(sender, [6]byte(h.HardwareAddressSender()))
	}
	if h.Op() == header.ARPRequest && n.isOurs(target) {
		n.sendARP(header.ARPReply, target, [6]byte(h.HardwareAddressSender()), sender)
	}
}

// sendARP sends from one of our addresses.
func (n *Network) sendARP(op header.ARPOp, from netip.Addr, mac [6]byte, to netip.Addr) {
	f := n.newFrame(mac, uint16(header.ARPProtocolNumber), header.ARPSize)
	h := header.ARP(f[len(f)-header.ARPSize:])
	h.SetIPv4OverEthernet()
	h.SetOp(op)
	copy(h.HardwareAddressSender(), n.mac[:])
	copy(h.ProtocolAddressSender(), from.AsSlice())
	copy(h.HardwareAddressTarget(), mac[:])
	copy(h.ProtocolAddressTarget(), to.AsSlice())
	n.link.push(f)
}

// newFrame makes a frame of size bytes behind the headers of virtio and Ethernet.
func (n *Network) newFrame(to [6]byte, kind uint16, size int) []byte {
	f := make([]byte, netdev.HeaderSize+etherSize+size)
	eth := f[netdev.HeaderSize:]
	copy(eth, to[:])
	copy(eth[6:], n.mac[:])
	binary.BigEndian.PutUint16(eth[12:], kind)
	return f
}

// resolve asks the guest for the MAC behind an address of its own.
func (n *Network) resolve(a netip.Addr) {
	switch {
	case a.Is4() && n.cfg.Net.Contains(a):
		n.sendARP(header.ARPRequest, n.cfg.Host, [6]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, a)
	case a.Is6():
		n.solicit(a)
	}
}
