package user

import (
	"encoding/binary"
	"net/netip"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// echo takes a message of ICMP's for IPv4, of which it knows echo requests.
//
//	0 type | 1 code | 2 checksum | 4 identifier | 6 sequence | 8 data
func (n *Network) echo(src, dst netip.Addr, p []byte) {
	if len(p) < header.ICMPv4MinimumSize || p[0] != byte(header.ICMPv4Echo) || checksum.Checksum(p, 0) != 0xffff {
		return
	}
	n.ping(header.ICMPv4ProtocolNumber, src, dst, p)
}

// ping answers for our own addresses; what is for others goes to the host's network.
func (n *Network) ping(proto tcpip.TransportProtocolNumber, src, dst netip.Addr, p []byte) {
	id := binary.BigEndian.Uint16(p[4:])
	if n.isOurs(dst) || dst == linkLocal {
		if r, err := n.route(dst, src); err == nil {
			reply := byte(header.ICMPv4EchoReply)
			if proto == header.ICMPv6ProtocolNumber {
				reply = byte(header.ICMPv6EchoReply)
			}
			n.sendEcho(r, proto, reply, id, p)
			r.Release()
		}
		return
	}
	if n.cfg.Restrict || !n.beyond(dst) {
		return
	}
	f := flow{proto: proto, guest: netip.AddrPortFrom(src, id), far: netip.AddrPortFrom(dst, 0)}
	d := n.datagrams.find(f)
	if d == nil {
		d = n.openPing(f)
	}
	if d != nil {
		d.send(p)
	}
}

// sendEcho sends p, an echo request or reply, to the guest as what kind says.
func (n *Network) sendEcho(r *stack.Route, proto tcpip.TransportProtocolNumber, kind byte, id uint16, p []byte) {
	m := append([]byte(nil), p...)
	m[0], m[1], m[2], m[3] = kind, 0, 0, 0
	binary.BigEndian.PutUint16(m[4:], id)
	n.sendICMP(r, proto, m)
}

// sendICMP sends a message whose checksum is 0 yet.
func (n *Network) sendICMP(r *stack.Route, proto tcpip.TransportProtocolNumber, m []byte) {
	sum := uint16(0)
	if proto == header.ICMPv6ProtocolNumber {
		sum = r.PseudoHeaderChecksum(proto, uint16(len(m)))
	}
	binary.BigEndian.PutUint16(m[2:], ^checksum.Checksum(m, sum))
	n.sendBytes(r, proto, m)
}

// unreachable tells the guest that nobody takes a flow's datagrams, with the headers of one.
//
//	0 type | 1 code | 2 checksum | 4 unused, 4 | 8 headers of IP and UDP
func (n *Network) unreachable(d *datagram) {
	var ip []byte
	if d.guest.Addr().Is4() {
		ip = make([]byte, 8+header.IPv4MinimumSize+header.UDPMinimumSize)
		ip[0], ip[1] = byte(header.ICMPv4DstUnreachable), byte(header.ICMPv4PortUnreachable)
		h := header.IPv4(ip[8:])
		h.Encode(&header.IPv4Fields{
			TotalLength: header.IPv4MinimumSize + header.UDPMinimumSize, TTL: 64, Protocol: uint8(header.UDPProtocolNumber),
			SrcAddr: stackAddr(d.guest.Addr()), DstAddr: stackAddr(d.far.Addr()),
		})
		h.SetChecksum(^h.CalculateChecksum())
	} else {
		ip = make([]byte, 8+header.IPv6MinimumSize+header.UDPMinimumSize)
		ip[0], ip[1] = byte(header.ICMPv6DstUnreachable), byte(header.ICMPv6PortUnreachable)
		header.IPv6(ip[8:]).Encode(&header.IPv6Fields{
			PayloadLength: header.UDPMinimumSize, HopLimit: 64, TransportProtocol: header.UDPProtocolNumber,
			SrcAddr: stackAddr(d.guest.Addr()), DstAddr: stackAddr(d.far.Addr()),
		})
	}
	header.UDP(ip[len(ip)-header.UDPMinimumSize:]).Encode(&header.UDPFields{
		SrcPort: d.guest.Port(), DstPort: d.far.Port(), Length: header.UDPMinimumSize,
	})
	proto := header.ICMPv4ProtocolNumber
	if d.guest.Addr().Is6() {
		proto = header.ICMPv6ProtocolNumber
	}
	n.sendICMP(d.route, proto, ip)
}
