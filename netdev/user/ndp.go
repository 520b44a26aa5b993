package user

import (
	"encoding/binary"
	"net/netip"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// Our address on the link, as slirp's, and groups of RFC 4291 §2.7.1.
var (
	linkLocal = netip.MustParseAddr("fe80::2")
	allNodes  = netip.MustParseAddr("ff02::1")
)

const (
	routerTime = 30 * time.Minute // for which an advertisement makes us the guest's router
	prefixTime = 24 * time.Hour
)

// icmp6 takes a message of ICMP's for IPv6: neighbour discovery of RFC 4861, and pings.
func (n *Network) icmp6(a arrival, src, dst netip.Addr, h header.IPv6) {
	p := h.Payload()
	if len(p) < 8 {
		return
	}
	if kind := header.ICMPv6Type(p[0]); kind == header.ICMPv6EchoRequest {
		if n.isGuest(src) && !dst.IsMulticast() {
			n.ping(header.ICMPv6ProtocolNumber, src, dst, p)
		} else if dst == linkLocal && src.IsLinkLocalUnicast() {
			n.echoOnLink(a.src, src, p)
		}
		return
	} else if h.HopLimit() != header.NDPHopLimit || p[1] != 0 { // it has come from beyond the link
		return
	} else {
		switch kind {
		case header.ICMPv6RouterSolicit:
			n.sendAdvertisement(a.src, allNodes)
		case header.ICMPv6NeighborSolicit:
			n.solicited(a.src, src, p)
		case header.ICMPv6NeighborAdvert:
			if len(p) >= 24 {
				if at := netip.AddrFrom16([16]byte(p[8:24])); n.isGuest(at) {
					n.neighbours.learn(at, a.src)
				}
			}
		}
	}
}

// solicited answers for our addresses, to which another's probe for duplicates belongs.
//
//	0 type | 1 code | 2 checksum | 4 flags | 8 target, 16 | 24 option: type, size, MAC
func (n *Network) solicited(mac [6]byte, src netip.Addr, p []byte) {
	if len(p) < 24 {
		return
	}
	target := netip.AddrFrom16([16]byte(p[8:24]))
	if target != linkLocal && !n.isOurs(target) {
		return
	}
	m := make([]byte, 32)
	m[0], m[4] = byte(header.ICMPv6NeighborAdvert), 0xe0 // router, solicited, override
	to := src
	if src.IsUnspecified() {
		to, m[4] = allNodes, 0xa0
	}
	b := target.As16()
	copy(m[8:], b[:])
	m[24], m[25] = 2, 1 // target's address
	copy(m[26:], n.mac[:])
	n.sendOnLink(mac, target, to, m)
}

// advertise sends the guest an advertisement that it has not asked for.
func (n *Network) advertise() {
	if n.cfg.Net6.IsValid() {
		n.sendAdvertisement([6]byte{0x33, 0x33, 0, 0, 0, 1}, allNodes)
	}
}

// sendAdvertisement says which network this is, and who its router and name server are. In a
// restricted network there are neither.
//
//	0 type | 1 code | 2 checksum | 4 hop limit | 5 flags | 6 router's seconds | 8 timers | 16 options
func (n *Network) sendAdvertisement(mac [6]byte, to netip.Addr) {
	if !n.cfg.Net6.IsValid() {
		return
	}
	m := make([]byte, 16, 128)
	m[0], m[4] = byte(header.ICMPv6RouterAdvert), 64
	m = append(append(m, 1, 1), n.mac[:]...) // source's address
	m = append(m, 5, 1, 0, 0)                // MTU
	m = binary.BigEndian.AppendUint32(m, uint32(n.cfg.MTU))
	m = append(m, 3, 4, byte(n.cfg.Net6.Bits()), 0xc0) // prefix: on the link, for addresses
	m = binary.BigEndian.AppendUint32(m, uint32(prefixTime/time.Second))
	m = binary.BigEndian.AppendUint32(m, uint32(prefixTime/time.Second))
	m = append(append(m, 0, 0, 0, 0), n.cfg.Net6.Addr().AsSlice()...)
	if !n.cfg.Restrict {
		binary.BigEndian.PutUint16(m[6:], uint16(routerTime/time.Second))
		m = append(m, 25, 3, 0, 0) // name server, RFC 8106 §5.1
		m = binary.BigEndian.AppendUint32(m, uint32(routerTime/time.Second))
		m = append(m, n.cfg.DNS6.AsSlice()...)
		m = n.appendSearch(m)
	}
	n.sendOnLink(mac, linkLocal, to, m)
}

// appendSearch adds the option of RFC 8106 §5.2, whose names fill eights of bytes.
func (n *Network) appendSearch(m []byte) []byte {
	var names []byte
	for _, s := range n.cfg.Search {
		names = append(names, domainBytes(s)...)
	}
	if len(names) == 0 {
		return m
	}
	for len(names)%8 != 0 {
		names = append(names, 0)
	}
	m = append(m, 31, byte(1+len(names)/8), 0, 0)
	m = binary.BigEndian.AppendUint32(m, uint32(routerTime/time.Second))
	return append(m, names...)
}

// solicit asks for the MAC behind an address of IPv6's.
func (n *Network) solicit(a netip.Addr) {
	m := make([]byte, 32)
	m[0] = byte(header.ICMPv6NeighborSolicit)
	b := a.As16()
	copy(m[8:], b[:])
	m[24], m[25] = 1, 1 // source's address
	copy(m[26:], n.mac[:])
	group := netip.AddrFrom16([16]byte{0: 0xff, 1: 0x02, 11: 1, 12: 0xff, 13: b[13], 14: b[14], 15: b[15]})
	n.sendOnLink([6]byte{0x33, 0x33, 0xff, b[13], b[14], b[15]}, linkLocal, group, m)
}

// echoOnLink answers a ping of our address on the link.
func (n *Network) echoOnLink(mac [6]byte, src netip.Addr, p []byte) {
	m := append([]byte(nil), p...)
	m[0], m[1], m[2], m[3] = byte(header.ICMPv6EchoReply), 0, 0, 0
	n.sendOnLink(mac, linkLocal, src, m)
}

// sendOnLink sends a message of ICMP's whose checksum is 0 yet.
func (n *Network) sendOnLink(mac [6]byte, from, to netip.Addr, m []byte) {
	f := n.newFrame(mac, uint16(header.IPv6ProtocolNumber), header.IPv6MinimumSize+len(m))
	ip := f[len(f)-header.IPv6MinimumSize-len(m):]
	header.IPv6(ip).Encode(&header.IPv6Fields{
		PayloadLength: uint16(len(m)), TransportProtocol: header.ICMPv6ProtocolNumber, HopLimit: header.NDPHopLimit,
		SrcAddr: stackAddr(from), DstAddr: stackAddr(to),
	})
	pseudo := header.PseudoHeaderChecksum(header.ICMPv6ProtocolNumber, stackAddr(from), stackAddr(to), uint16(len(m)))
	binary.BigEndian.PutUint16(m[2:], ^checksum.Checksum(m, pseudo))
	copy(ip[header.IPv6MinimumSize:], m)
	n.link.push(f)
}
