package user

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"

	"berth/spec"
)

// Messages and options of RFC 2132.
const (
	dhcpDiscover = 1
	dhcpOffer    = 2
	dhcpRequest  = 3
	dhcpDecline  = 4
	dhcpAck      = 5
	dhcpNak      = 6
	dhcpRelease  = 7
	dhcpInform   = 8

	optMask     = 1
	optRouter   = 3
	optDNS      = 6
	optHostname = 12
	optDomain   = 15
	optMTU      = 26
	optAddress  = 50
	optTime     = 51
	optMessage  = 53
	optServer   = 54
	optSearch   = 119 // RFC 3397
	optEnd      = 255
)

const (
	leaseTime = 24 * time.Hour
	bootpSize = 236 // without options
)

var dhcpCookie = []byte{99, 130, 83, 99}

// leases are the MACs that have the network's addresses from the first one on.
type leases struct {
	mu   sync.Mutex
	macs [spec.Leases][6]byte // zero: free
}

// find returns mac's address, a new one from first on if need be, of those that may be given.
func (l *leases) find(mac [6]byte, first netip.Addr, may func(netip.Addr) bool) (netip.Addr, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, wanted := range [][6]byte{mac, {}} {
		addr := first
		for i := range l.macs {
			if l.macs[i] == wanted && may(addr) {
				l.macs[i] = mac
				return addr, true
			}
			addr = addr.Next()
		}
	}
	return first, false
}

func (l *leases) free(mac [6]byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if i := slices.Index(l.macs[:], mac); i >= 0 {
		l.macs[i] = [6]byte{}
	}
}

// dhcp takes a datagram if it is for a DHCP server, of RFC 2131, and answers it.
//
//	UDP, 8 | 0 op | 1 hardware type, size | 4 transaction | 10 flags | 12 client's, your, server's, relay's
//	address | 28 client's MAC, 16 | 44 server's name, 64 | 108 file, 128 | 236 cookie | 240 options
func (n *Network) dhcp(a arrival, udp []byte, dst netip.Addr) bool {
	all := netip.AddrFrom4([4]byte{255, 255, 255, 255})
	if len(udp) < 8 || header.UDP(udp).DestinationPort() != 67 || dst != all && dst != n.cfg.Host {
		return false
	}
	q := udp[8:]
	if len(q) < bootpSize+4 || q[0] != 1 || q[1] != 1 || q[2] != 6 || !slices.Equal(q[bootpSize:bootpSize+4], dhcpCookie) {
		return true
	}
	mac := [6]byte(q[28:])
	opts := dhcpOptions(q[bootpSize+4:])
	if len(opts[optMessage]) != 1 || mac == [6]byte{} || mac[0]&1 != 0 {
		return true
	}
	if id := opts[optServer]; len(id) == 4 && netip.AddrFrom4([4]byte(id)) != n.cfg.Host {
		return true // it has chosen another server
	}
	switch kind := opts[optMessage][0]; kind {
	case dhcpDiscover, dhcpRequest:
		n.lease(a, q, mac, kind, opts)
	case dhcpInform:
		n.sendDHCP(a, q, dhcpAck, netip.Addr{})
	case dhcpRelease, dhcpDecline:
		n.leases.free(mac)
	}
	return true
}

// lease answers who wants an address.
func (n *Network) lease(a arrival, q []byte, mac [6]byte, kind byte, opts map[byte][]byte) {
	addr, ok := n.leases.find(mac, n.cfg.First, func(a netip.Addr) bool { return n.cfg.Contains(a) && !n.isOurs(a) })
	if !ok {
		return
	}
	if kind == dhcpDiscover {
		n.sendDHCP(a, q, dhcpOffer, addr)
		return
	}
	wanted := opts[optAddress]
	if len(wanted) != 4 {
		wanted = q[12:16]
	}
	if netip.AddrFrom4([4]byte(wanted)) != addr {
		n.sendDHCP(a, q, dhcpNak, netip.Addr{})
		return
	}
	n.neighbours.learn(addr, mac)
	n.sendDHCP(a, q, dhcpAck, addr)
}

// dhcpOptions are the options by their numbers; a broken rest is left out.
func dhcpOptions(p []byte) map[byte][]byte {
	m := map[byte][]byte{}
	for len(p) > 0 && p[0] != optEnd {
		if p[0] == 0 {
			p = p[1:]
			continue
		}
		if len(p) < 2 || len(p) < 2+int(p[1]) {
			break
		}
		m[p[0]] = p[2 : 2+int(p[1])]
		p = p[2+int(p[1]):]
	}
	return m
}

// sendDHCP answers q. An invalid address is none.
func (n *Network) sendDHCP(a arrival, q []byte, kind byte, addr netip.Addr) {
	r := make([]byte, bootpSize, 548)
	copy(r, q[:12]) // transaction, flags
	r[0], r[3] = 2, 0
	clear(r[8:10])
	copy(r[28:44], q[28:44])
	host := n.cfg.Host.AsSlice()
	if addr.IsValid() {
		copy(r[16:], addr.AsSlice())
	}
	copy(r[20:], host)
	r = append(r, dhcpCookie...)
	add := func(code byte, value []byte) {
		if len(value) > 0 && len(value) < 256 {
			r = append(append(r, code, byte(len(value))), value...)
		}
	}
	add(optMessage, []byte{kind})
	add(optServer, host)
	if kind != dhcpNak {
		n.addLease(add, addr.IsValid())
	}
	r = append(r, optEnd)
	r = append(r, make([]byte, max(0, 300-len(r)))...) // as short as BOOTP's are
	// Who has an address may hear that alone; who has none hears all (RFC 2131 §4.1).
	dst, mac := netip.AddrFrom4([4]byte{255, 255, 255, 255}), a.src
	if has := netip.AddrFrom4([4]byte(q[12:])); kind != dhcpNak && n.isGuest(has) {
		dst = has
	} else if kind == dhcpNak || q[10]&0x80 != 0 {
		mac = [6]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	}
	n.sendBootp(mac, dst, r)
}

// addLease adds what a lease says of the network. A restricted one has no way out.
func (n *Network) addLease(add func(byte, []byte), timed bool) {
	mask := binary.BigEndian.AppendUint32(nil, ^uint32(0)<<(32-n.cfg.Net.Bits()))
	add(optMask, mask)
	if !n.cfg.Restrict {
		add(optRouter, n.cfg.Host.AsSlice())
		add(optDNS, n.cfg.DNS.AsSlice())
	}
	if timed {
		add(optTime, binary.BigEndian.AppendUint32(nil, uint32(leaseTime/time.Second)))
	}
	if n.cfg.MTU != defaultMTU {
		add(optMTU, binary.BigEndian.AppendUint16(nil, uint16(n.cfg.MTU)))
	}
	add(optHostname, []byte(n.cfg.Hostname))
	add(optDomain, []byte(n.cfg.Domain))
	var names []byte
	for _, s := range n.cfg.Search {
		names = append(names, domainBytes(s)...)
	}
	add(optSearch, names)
}

// domainBytes is a name as DNS has it, of RFC 1035 §3.1.
func domainBytes(name string) []byte {
	var b []byte
	for label := range strings.SplitSeq(name, ".") {
		b = append(append(b, byte(len(label))), label...)
	}
	return append(b, 0)
}

// sendBootp sends a server's datagram.
func (n *Network) sendBootp(mac [6]byte, dst netip.Addr, p []byte) {
	size := header.IPv4MinimumSize + header.UDPMinimumSize + len(p)
	f := n.newFrame(mac, uint16(header.IPv4ProtocolNumber), size)
	ip := header.IPv4(f[len(f)-size:])
	ip.Encode(&header.IPv4Fields{
		TotalLength: uint16(size), TTL: 64, Protocol: uint8(header.UDPProtocolNumber),
		SrcAddr: stackAddr(n.cfg.Host), DstAddr: stackAddr(dst),
	})
	ip.SetChecksum(^ip.CalculateChecksum())
	u := header.UDP(ip[header.IPv4MinimumSize:])
	u.Encode(&header.UDPFields{SrcPort: 67, DstPort: 68, Length: uint16(header.UDPMinimumSize + len(p))})
	copy(u[header.UDPMinimumSize:], p)
	pseudo := header.PseudoHeaderChecksum(header.UDPProtocolNumber, stackAddr(n.cfg.Host), stackAddr(dst), u.Length())
	u.SetChecksum(^checksum.Checksum(u, pseudo))
	n.link.push(f)
}
