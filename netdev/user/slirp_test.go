package user

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"

	"berth/netdev"
)

// slirp is QEMU's user network, whose cable ends in a socket of ours.
type slirp struct{ conn *net.UDPConn }

func startSlirp(t *testing.T) slirp {
	t.Helper()
	qemu, err := exec.LookPath("qemu-system-x86_64")
	if err != nil {
		t.Skip("no qemu-system-x86_64: install qemu-system-x86")
	}
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	other, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	to := other.LocalAddr().(*net.UDPAddr)
	other.Close()
	c.Close()
	at := c.LocalAddr().(*net.UDPAddr)
	if c, err = net.DialUDP("udp4", at, to); err != nil {
		t.Fatal(err)
	}
	address := func(a *net.UDPAddr, key string) string {
		return fmt.Sprintf("%s.type=inet,%s.host=127.0.0.1,%s.port=%d", key, key, key, a.Port)
	}
	cmd := exec.Command(qemu, "-M", "none", "-display", "none", "-nodefaults", "-netdev", "user,id=u,hostname=vm,domainname=example.org,dnssearch=lab.example.org",
		"-netdev", "dgram,id=d,"+address(to, "local")+","+address(at, "remote"),
		"-netdev", "hubport,id=a,hubid=0,netdev=u", "-netdev", "hubport,id=b,hubid=0,netdev=d")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		c.Close()
	})
	return slirp{c}
}

// ask sends a frame until an answer comes that is one.
func (s slirp) ask(t *testing.T, f []byte, is func([]byte) bool) []byte {
	t.Helper()
	p := make([]byte, netdev.MaxFrame)
	for range 50 { // QEMU starts, meanwhile
		s.conn.Write(f[netdev.HeaderSize:])
		s.conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		for {
			k, err := s.conn.Read(p)
			if err != nil {
				time.Sleep(20 * time.Millisecond)
				break
			}
			if is(p[:k]) {
				return slices.Clone(p[etherSize:k])
			}
		}
	}
	t.Fatalf("QEMU does not answer %x", f)
	return nil
}

// askUs is the same of a Network.
func askUs(t *testing.T, n *Network, f []byte, is func([]byte) bool) []byte {
	t.Helper()
	send(t, n, f)
	p := make([]byte, netdev.MaxFrame)
	for {
		k, err := n.Receive(p)
		if err != nil {
			t.Fatal(err)
		}
		if is(p[netdev.HeaderSize:k]) {
			return slices.Clone(p[netdev.HeaderSize+etherSize : k])
		}
	}
}

// ndp is a message of neighbour discovery.
func ndp(src, dst string, m ...byte) []byte {
	p := make([]byte, header.IPv6MinimumSize, header.IPv6MinimumSize+len(m))
	h := header.IPv6(p)
	h.Encode(&header.IPv6Fields{PayloadLength: uint16(len(m)), TransportProtocol: 58, HopLimit: 255,
		SrcAddr: stackAddr(netip.MustParseAddr(src)), DstAddr: stackAddr(netip.MustParseAddr(dst))})
	p = append(p, m...)
	binary.BigEndian.PutUint16(p[42:], ^sum6(header.IPv6(p)))
	return frame(0x86dd, p)
}

// TestAsSlirp asks QEMU's user network and ours the same, and expects the same.
func TestAsSlirp(t *testing.T) {
	q := startSlirp(t)
	n := start(t, func(c *Config) { c.Hostname, c.Domain, c.Search = "vm", "example.org", []string{"lab.example.org"} })
	request := func(target string) []byte {
		p := make([]byte, header.ARPSize)
		h := header.ARP(p)
		h.SetIPv4OverEthernet()
		h.SetOp(header.ARPRequest)
		copy(h.HardwareAddressSender(), guestMAC[:])
		copy(h.ProtocolAddressSender(), []byte{10, 0, 2, 15})
		copy(h.ProtocolAddressTarget(), netip.MustParseAddr(target).AsSlice())
		return frame(0x0806, p)
	}
	ping := udpFrame("10.0.2.15:0", "10.0.2.2:0", []byte("0123456789"))
	b := ping[netdev.HeaderSize+etherSize:]
	b[9] = 1
	copy(b[20:], []byte{8, 0, 0, 0, 0x12, 0x34, 0, 7})
	binary.BigEndian.PutUint16(b[22:], ^checksum.Checksum(b[20:], 0))
	b[10], b[11] = 0, 0
	header.IPv4(b).SetChecksum(^header.IPv4(b).CalculateChecksum())
	kind := func(k uint16) func([]byte) bool {
		return func(f []byte) bool { return len(f) > etherSize && binary.BigEndian.Uint16(f[12:]) == k }
	}
	transport := func(k uint16, off int, proto, typ byte) func([]byte) bool {
		return func(f []byte) bool {
			return kind(k)(f) && len(f) > etherSize+48 && f[etherSize+off] == proto && f[etherSize+40*int(k>>15)+20*int(1-k>>15)] == typ
		}
	}
	icmp6 := func(typ byte) func([]byte) bool { return transport(0x86dd, 6, 58, typ) }
	for _, c := range []struct {
		what string
		ask  []byte
		is   func([]byte) bool
		says func([]byte) string
	}{
		{"ARP for the host", request("10.0.2.2"), kind(0x0806), arpText},
		{"ARP for the name server", request("10.0.2.3"), kind(0x0806), arpText},
		{"DHCP discover", udpFrame("0.0.0.0:68", "255.255.255.255:67", dhcpMessage(guestMAC, dhcpDiscover)), udpTo(68), dhcpText},
		{"DHCP request", udpFrame("0.0.0.0:68", "255.255.255.255:67", dhcpMessage(guestMAC, dhcpRequest, optAddress, 4, 10, 0, 2, 15)), udpTo(68), dhcpText},
		{"ping of the host", ping, func(f []byte) bool { return kind(0x0800)(f) && f[etherSize+9] == 1 }, func(p []byte) string {
			h := header.IPv4(p)
			return fmt.Sprintf("%s %s %x", hostAddr(h.SourceAddress()), hostAddr(h.DestinationAddress()), h.Payload())
		}},
		{"router's solicitation", ndp("fe80::5054:ff:fe12:3456", "ff02::2", append([]byte{133, 0, 0, 0, 0, 0, 0, 0, 1, 1}, guestMAC[:]...)...), icmp6(134), routerText},
		{"neighbour's solicitation", ndp("fec0::5054:ff:fe12:3456", "ff02::1:ff00:2", append(append([]byte{135, 0, 0, 0, 0, 0, 0, 0},
			netip.MustParseAddr("fec0::2").AsSlice()...), append([]byte{1, 1}, guestMAC[:]...)...)...), icmp6(136), func(p []byte) string {
			m := header.IPv6(p).Payload()
			return fmt.Sprintf("from %s flags %x target %x option %x", hostAddr(header.IPv6(p).SourceAddress()), m[4], m[8:24], m[24:26])
		}},
	} {
		theirs, ours := c.says(q.ask(t, c.ask, c.is)), c.says(askUs(t, n, c.ask, c.is))
		t.Logf("%s: %s", c.what, theirs)
		if theirs != ours {
			t.Errorf("%s:\nQEMU  %s\nberth %s", c.what, theirs, ours)
		}
	}
}

func udpTo(port uint16) func([]byte) bool {
	return func(f []byte) bool {
		return len(f) > etherSize+28 && f[12] == 8 && f[13] == 0 && f[etherSize+9] == 17 && binary.BigEndian.Uint16(f[etherSize+22:]) == port
	}
}

func arpText(p []byte) string {
	h := header.ARP(p)
	return fmt.Sprintf("op %d from %x to %x", h.Op(), h.ProtocolAddressSender(), h.ProtocolAddressTarget())
}

func dhcpText(p []byte) string {
	r := p[28:]
	o := dhcpOptions(r[bootpSize+4:])
	var b strings.Builder
	fmt.Fprintf(&b, "to %x yours %x server %x", p[16:20], r[16:20], r[20:24])
	for _, code := range []byte{optMessage, optMask, optRouter, optDNS, optHostname, optDomain, optTime, optServer, optSearch} {
		fmt.Fprintf(&b, " %d=%x", code, o[code])
	}
	return b.String()
}

// routerText is what an advertisement says of the prefix and our address.
func routerText(p []byte) string {
	m := header.IPv6(p).Payload()
	var b strings.Builder
	fmt.Fprintf(&b, "from %s hops %d", hostAddr(header.IPv6(p).SourceAddress()), m[4])
	for o := m[16:]; len(o) >= 8 && o[1] > 0 && len(o) >= 8*int(o[1]); o = o[8*int(o[1]):] {
		switch o[0] {
		case 3:
			fmt.Fprintf(&b, " prefix %x/%d flags %x", o[16:32], o[2], o[3])
		case 1:
			fmt.Fprintf(&b, " source")
		}
	}
	return b.String()
}
