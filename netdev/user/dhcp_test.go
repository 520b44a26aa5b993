package user

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// dhcpMessage is a client's message.
func dhcpMessage(mac [6]byte, kind byte, options ...byte) []byte {
	m := make([]byte, bootpSize)
	m[0], m[1], m[2] = 1, 1, 6
	copy(m[4:], "xid!")
	copy(m[28:], mac[:])
	m = append(append(m, dhcpCookie...), optMessage, 1, kind)
	return append(append(m, options...), optEnd)
}

// ask sends a client's message and returns the answer's address and options.
func ask(t testing.TB, n *Network, m []byte) (netip.Addr, map[byte][]byte) {
	t.Helper()
	send(t, n, udpFrame("0.0.0.0:68", "255.255.255.255:67", m))
	r := receive(t, n, 0x0800)[28:]
	if !bytes.Equal(r[4:8], []byte("xid!")) || r[0] != 2 {
		t.Fatalf("an answer to another: %x", r[:16])
	}
	return netip.AddrFrom4([4]byte(r[16:])), dhcpOptions(r[bootpSize+4:])
}

func TestDHCP(t *testing.T) {
	n := start(t, func(c *Config) {
		c.Hostname, c.Domain, c.Search, c.MTU = "vm", "example.org", []string{"example.org", "lab.example.org"}, 9000
	})
	addr, o := ask(t, n, dhcpMessage(guestMAC, dhcpDiscover))
	if addr.String() != "10.0.2.15" || o[optMessage][0] != dhcpOffer {
		t.Errorf("offer: %s, %v", addr, o)
	}
	addr, o = ask(t, n, dhcpMessage(guestMAC, dhcpRequest, optServer, 4, 10, 0, 2, 2, optAddress, 4, 10, 0, 2, 15))
	if addr.String() != "10.0.2.15" || o[optMessage][0] != dhcpAck {
		t.Errorf("ack: %s, %v", addr, o)
	}
	for code, want := range map[byte]string{
		optMask: "\xff\xff\xff\x00", optRouter: "\x0a\x00\x02\x02", optDNS: "\x0a\x00\x02\x03", optServer: "\x0a\x00\x02\x02",
		optHostname: "vm", optDomain: "example.org", optTime: "\x00\x01\x51\x80", optMTU: "\x23\x28",
		optSearch: "\x07example\x03org\x00\x03lab\x07example\x03org\x00",
	} {
		if string(o[code]) != want {
			t.Errorf("option %d: %q; want %q", code, o[code], want)
		}
	}
	other := [6]byte{2, 0, 0, 0, 0, 1}
	if addr, o = ask(t, n, dhcpMessage(other, dhcpRequest, optAddress, 4, 10, 0, 2, 15)); o[optMessage][0] != dhcpNak || addr.String() != "0.0.0.0" {
		t.Errorf("another's address: %s, %v", addr, o)
	}
	if addr, _ = ask(t, n, dhcpMessage(other, dhcpDiscover)); addr.String() != "10.0.2.16" {
		t.Errorf("the second guest's: %s", addr)
	}
	if addr, _ = ask(t, n, dhcpMessage(guestMAC, dhcpDiscover)); addr.String() != "10.0.2.15" {
		t.Errorf("the first one's again: %s", addr)
	}
}

// TestDHCPRenewal: who has an address and renews its lease is answered there, for its socket may hear no other.
func TestDHCPRenewal(t *testing.T) {
	n := start(t, nil)
	ask(t, n, dhcpMessage(guestMAC, dhcpRequest, optAddress, 4, 10, 0, 2, 15))
	m := dhcpMessage(guestMAC, dhcpRequest)
	copy(m[12:], []byte{10, 0, 2, 15})
	send(t, n, udpFrame("10.0.2.15:68", "10.0.2.2:67", m))
	h := header.IPv4(receive(t, n, 0x0800))
	if o := dhcpOptions(h[28+bootpSize+4:]); hostAddr(h.DestinationAddress()).String() != "10.0.2.15" || o[optMessage][0] != dhcpAck {
		t.Errorf("%s is told %v", hostAddr(h.DestinationAddress()), o)
	}
}

// TestDHCPLeasesEnd: there are so many addresses, and one that is given back goes to another.
func TestDHCPLeasesEnd(t *testing.T) {
	n := start(t, nil)
	for i := range 16 {
		if _, ok := n.leases.find([6]byte{2, 1: byte(i)}, n.cfg.First, n.cfg.Contains); !ok {
			t.Fatalf("no address for guest %d", i)
		}
	}
	if a, ok := n.leases.find([6]byte{4}, n.cfg.First, n.cfg.Contains); ok {
		t.Errorf("a guest too many has %s", a)
	}
	send(t, n, udpFrame("10.0.2.18:68", "10.0.2.2:67", dhcpMessage([6]byte{2, 3}, dhcpRelease)))
	if a, _ := ask(t, n, dhcpMessage([6]byte{4}, dhcpDiscover)); a.String() != "10.0.2.18" {
		t.Errorf("the address that came back: %s", a)
	}
}

// TestARP: the guest is answered for our addresses alone.
func TestARP(t *testing.T) {
	n := start(t, nil)
	for _, target := range []string{"10.0.2.15", "10.0.2.77", "10.0.3.2", "10.0.2.3"} {
		p := make([]byte, header.ARPSize)
		h := header.ARP(p)
		h.SetIPv4OverEthernet()
		h.SetOp(header.ARPRequest)
		copy(h.HardwareAddressSender(), guestMAC[:])
		copy(h.ProtocolAddressSender(), []byte{10, 0, 2, 15})
		copy(h.ProtocolAddressTarget(), netip.MustParseAddr(target).AsSlice())
		send(t, n, frame(0x0806, p))
	}
	h := header.ARP(receive(t, n, 0x0806)) // the first one is the last one's
	if h.Op() != header.ARPReply || !bytes.Equal(h.ProtocolAddressSender(), []byte{10, 0, 2, 3}) ||
		!bytes.Equal(h.HardwareAddressSender(), []byte{0x52, 0x55, 10, 0, 2, 2}) {
		t.Errorf("%x", []byte(h))
	}
}

// TestNeighboursAreBounded: a guest of many addresses fills no memory.
func TestNeighboursAreBounded(t *testing.T) {
	n := start(t, nil)
	for i := range 250 {
		n.neighbours.learn(netip.AddrFrom4([4]byte{10, 0, 2, byte(i)}), guestMAC)
	}
	if k := len(n.neighbours.macs); k > maxNeighbours {
		t.Errorf("%d neighbours", k)
	}
}

// TestSLAAC: a guest makes its address of IPv6's from the router's advertisement.
func TestSLAAC(t *testing.T) {
	n := start(t, nil)
	g := boot(t, n, false)
	within(t, 8*time.Second, "an address of fec0::/64", func() bool {
		for _, a := range g.AllAddresses()[nic] {
			if a.Protocol == header.IPv6ProtocolNumber && n.cfg.Net6.Contains(hostAddr(a.AddressWithPrefix.Address)) && a.AddressWithPrefix.Address != stackAddr(netip.MustParseAddr("fec0::15")) {
				return true
			}
		}
		return false
	})
}

// TestAdvertisement: what a router's solicitation is answered with.
func TestAdvertisement(t *testing.T) {
	n := start(t, func(c *Config) { c.Search = []string{"example.org"} })
	m := make([]byte, header.IPv6MinimumSize+8)
	h := header.IPv6(m)
	h.Encode(&header.IPv6Fields{PayloadLength: 8, TransportProtocol: 58, HopLimit: 255, SrcAddr: stackAddr(netip.IPv6Unspecified()), DstAddr: stackAddr(netip.MustParseAddr("ff02::2"))})
	m[40] = 133
	binary.BigEndian.PutUint16(m[42:], ^sum6(h))
	send(t, n, frame(0x86dd, m))
	r := header.IPv6(receive(t, n, 0x86dd))
	p := r.Payload()
	if p[0] != 134 || r.HopLimit() != 255 || sum6(r) != 0xffff {
		t.Fatalf("%x", []byte(r))
	}
	for _, option := range []string{
		"\x01\x01\x52\x55\x0a\x00\x02\x02", "\x05\x01\x00\x00\x00\x00\x05\xdc", "\x03\x04\x40\xc0", "\x19\x03\x00\x00\x00\x00\x07\x08\xfe\xc0", "\x07example\x03org\x00",
	} {
		if !bytes.Contains(p, []byte(option)) {
			t.Errorf("no option %x in %x", option, p)
		}
	}
}

func sum6(h header.IPv6) uint16 {
	return checksum.Checksum(h.Payload(), header.PseudoHeaderChecksum(tcpip.TransportProtocolNumber(58), h.SourceAddress(), h.DestinationAddress(), h.PayloadLength()))
}
