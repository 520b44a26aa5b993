package user

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/waiter"

	"berth/netdev"
)

var writeOptions = tcpip.WriteOptions{}

// endpoint is a connection of the guest's that can be reset.
func (g *guest) endpoint(t testing.TB, a tcpip.FullAddress, proto tcpip.NetworkProtocolNumber) tcpip.Endpoint {
	t.Helper()
	var wq waiter.Queue
	ep, err := g.NewEndpoint(header.TCPProtocolNumber, proto, &wq)
	if err != nil {
		t.Fatal(err)
	}
	entry, ready := waiter.NewChannelEntry(waiter.WritableEvents)
	wq.EventRegister(&entry)
	defer wq.EventUnregister(&entry)
	ep.Connect(a)
	select {
	case <-ready:
	case <-time.After(5 * time.Second):
		t.Fatal("no connection")
	}
	if err := ep.LastError(); err != nil {
		t.Fatal(err)
	}
	return ep
}

func TestUDPToHost(t *testing.T) {
	leaks(t)
	c := packets(t, outside(t).String())
	go func() {
		b := make([]byte, 65536)
		for {
			k, from, err := c.ReadFrom(b)
			if err != nil {
				return
			}
			c.WriteTo(b[:k], from)
		}
	}()
	n := start(t, nil)
	g := boot(t, n, false)
	u := g.udp(t, c.LocalAddr().String())
	for _, size := range []int{1, 1472, 1473, 9000, 60000} { // in fragments, the last ones
		b, got := random(size), make([]byte, 65536)
		u.Write(b)
		if k, err := u.Read(got); err != nil || !bytes.Equal(got[:k], b) {
			t.Errorf("%d bytes: %d came back, %v", size, k, err)
		}
	}
	if f := n.Flows(); len(f) != 1 || f[0].Proto != "UDP" {
		t.Errorf("flows: %v", f)
	}
	n.datagrams.expire(time.Now().Add(answeredTime + time.Second))
	if f := n.Flows(); len(f) != 0 {
		t.Errorf("flows are kept: %v", f)
	}
	u.Write([]byte("x")) // begins anew
	if _, err := u.Read(make([]byte, 9)); err != nil {
		t.Error(err)
	}
	c.Close()
}

// TestUDPRefused: the guest hears that nobody is there, with the headers of what it sent.
func TestUDPRefused(t *testing.T) {
	c := packets(t, outside(t).String())
	at := c.LocalAddr().String()
	c.Close()
	n := start(t, nil)
	sent := udpFrame("10.0.2.15:1000", at, nil)
	send(t, n, sent)
	h := header.IPv4(receive(t, n, 0x0800))
	p := h.Payload()
	if h.Protocol() != 1 || p[0] != 3 || p[1] != 3 || checksum.Checksum(p, 0) != 0xffff {
		t.Fatalf("%x", []byte(h))
	}
	if !bytes.Equal(p[20:], sent[netdev.HeaderSize+etherSize+12:][:16]) {
		t.Errorf("about %x; want %x", p[20:], sent[netdev.HeaderSize+etherSize+12:])
	}
}

// TestUDPFlowsAreBounded: a guest that sends to everywhere holds so many sockets and no more.
func TestUDPFlowsAreBounded(t *testing.T) {
	leaks(t)
	n := start(t, nil)
	ip := outside(t)
	before := openFiles(t)
	for i := range maxDatagrams + 200 {
		src := fmt.Sprintf("10.0.2.15:%d", 1024+i)
		send(t, n, udpFrame(src, netip.AddrPortFrom(ip, 9).String(), []byte("x")))
	}
	if k := len(n.Flows()); k > maxDatagrams || k < maxDatagrams/2 {
		t.Errorf("%d flows", k)
	}
	if k := openFiles(t) - before; k > maxDatagrams+8 {
		t.Errorf("%d files", k)
	}
}

// TestTCPFlowsAreBounded: likewise for connections, of which no answer is too many.
func TestTCPFlowsAreBounded(t *testing.T) {
	leaks(t)
	n := start(t, nil)
	g := boot(t, n, false)
	at := serve(t, outside(t).String(), echoAll)
	for i := range maxStreams {
		if !n.streams.reserve() {
			t.Fatalf("no place for stream %d", i)
		}
	}
	g.refused(t, at)
	n.streams.free()
	exchangeAll(t, g.mustDial(t, at), []byte("one more"))
}

// question asks for the address of "a".
var question = []byte{0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, 'a', 0, 0, 1, 0, 1}

// nameServer answers every query with itself; asked hears of each.
func nameServer(t testing.TB, asked chan<- struct{}) netip.AddrPort {
	t.Helper()
	c := packets(t, "127.0.0.1")
	at := netip.MustParseAddrPort(c.LocalAddr().String())
	go func() {
		b := make([]byte, 512)
		for {
			k, from, err := c.ReadFrom(b)
			if err != nil {
				return
			}
			asked <- struct{}{}
			b[2] |= 0x80
			c.WriteTo(b[:k], from)
		}
	}()
	l, err := net.Listen("tcp", at.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			copyAll(c, c)
			c.Close()
		}
	}()
	return at
}

// TestDNS: queries go to the host's name servers, the next one if the first does not answer.
func TestDNS(t *testing.T) {
	leaks(t)
	asked := make(chan struct{}, 8)
	names := nameServer(t, asked)
	dead := packets(t, "127.0.0.1")
	deadAt := netip.MustParseAddrPort(dead.LocalAddr().String())
	dead.Close()
	n := start(t, func(c *Config) { c.Resolvers = func() []netip.AddrPort { return []netip.AddrPort{deadAt, names} } })
	g := boot(t, n, false)
	for _, a := range []string{"10.0.2.3:53", "[fec0::3]:53"} {
		u := g.udp(t, a)
		u.Write(question)
		got := make([]byte, 512)
		k, err := u.Read(got)
		if err != nil || k != len(question) || got[0] != 0x12 || got[2]&0x80 == 0 {
			t.Errorf("%s: %x, %v", a, got[:k], err)
		}
		exchangeAll(t, g.mustDial(t, a), question)
	}
	u := g.udp(t, "10.0.2.3:53")
	u.Write([]byte("short"))
	u = g.udp(t, "10.0.2.3:54")
	u.Write(question)
}

func TestResolvers(t *testing.T) {
	for in, want := range map[string]string{
		"":                              "[127.0.0.1:53]",
		"search a\nnameserver\n#x\n":    "[127.0.0.1:53]",
		"nameserver 10.1.1.1\n":         "[10.1.1.1:53]",
		"nameserver fe80::1%eth0 # x":   "[[fe80::1%eth0]:53]",
		"options x\n nameserver\t::1\n": "[[::1]:53]",
		"nameserver 1.1.1.1\nnameserver x\nnameserver 2.2.2.2\nnameserver 3.3.3.3\nnameserver 4.4.4.4": "[1.1.1.1:53 2.2.2.2:53 3.3.3.3:53]",
	} {
		if got := fmt.Sprint(resolversOf(in)); got != want {
			t.Errorf("%q: %s; want %s", in, got, want)
		}
	}
}

// send sends a frame, with the headers of virtio and Ethernet, in odd pieces.
func send(t testing.TB, n *Network, frame []byte) {
	t.Helper()
	pieces := [][]byte{frame[:5], frame[5:13], frame[13:min(40, len(frame))], frame[min(40, len(frame)):]}
	if err := n.Send(pieces); err != nil {
		t.Fatal(err)
	}
}

// frame puts the headers of virtio and Ethernet in front.
func frame(kind uint16, p []byte) []byte {
	f := make([]byte, netdev.HeaderSize, netdev.HeaderSize+etherSize+len(p))
	f = append(f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff)
	f = append(f, guestMAC[:]...)
	f = binary.BigEndian.AppendUint16(f, kind)
	return append(f, p...)
}

// udpFrame is a datagram without a checksum over IPv4.
func udpFrame(from, to string, p []byte) []byte {
	src, dst := netip.MustParseAddrPort(from), netip.MustParseAddrPort(to)
	size := header.IPv4MinimumSize + header.UDPMinimumSize + len(p)
	b := make([]byte, size)
	h := header.IPv4(b)
	h.Encode(&header.IPv4Fields{TotalLength: uint16(size), TTL: 64, Protocol: 17, SrcAddr: stackAddr(src.Addr()), DstAddr: stackAddr(dst.Addr())})
	h.SetChecksum(^h.CalculateChecksum())
	header.UDP(b[header.IPv4MinimumSize:]).Encode(&header.UDPFields{SrcPort: src.Port(), DstPort: dst.Port(), Length: uint16(8 + len(p))})
	copy(b[header.IPv4MinimumSize+8:], p)
	return frame(0x0800, b)
}

// receive takes the next frame that is one of kind, without the headers of virtio and Ethernet.
func receive(t testing.TB, n *Network, kind uint16) []byte {
	t.Helper()
	got := make(chan []byte, 1)
	go func() {
		p := make([]byte, netdev.MaxFrame)
		for {
			k, err := n.Receive(p)
			if err != nil {
				return
			}
			if binary.BigEndian.Uint16(p[netdev.HeaderSize+12:]) == kind {
				got <- p[netdev.HeaderSize+etherSize : k]
				return
			}
		}
	}()
	select {
	case p := <-got:
		return p
	case <-time.After(3 * time.Second):
		t.Fatal("no frame came")
		return nil
	}
}

// pinger is a ping socket of the guest's.
func (g *guest) ping(t testing.TB, to string, size int) ([]byte, error) {
	t.Helper()
	dst := netip.MustParseAddr(to)
	proto, kind := header.ICMPv4ProtocolNumber, byte(header.ICMPv4Echo)
	if dst.Is6() {
		proto, kind = header.ICMPv6ProtocolNumber, byte(header.ICMPv6EchoRequest)
	}
	var wq waiter.Queue
	ep, terr := g.NewEndpoint(proto, netProto(dst), &wq)
	if terr != nil {
		t.Fatal(terr)
	}
	defer ep.Close()
	entry, ready := waiter.NewChannelEntry(waiter.ReadableEvents)
	wq.EventRegister(&entry)
	defer wq.EventUnregister(&entry)
	m := append([]byte{kind, 0, 0, 0, 0, 0, 0, 1}, random(size)...)
	if _, err := ep.Write(bytes.NewReader(m), tcpip.WriteOptions{To: &tcpip.FullAddress{NIC: nic, Addr: stackAddr(dst)}}); err != nil {
		return nil, fmt.Errorf("%s", err)
	}
	select {
	case <-ready:
	case <-time.After(2 * time.Second):
		return nil, os.ErrDeadlineExceeded
	}
	var got bytes.Buffer
	if _, err := ep.Read(&got, tcpip.ReadOptions{}); err != nil {
		return nil, fmt.Errorf("%s", err)
	}
	if !bytes.Equal(got.Bytes()[8:], m[8:]) {
		return nil, fmt.Errorf("%d bytes came back otherwise", got.Len())
	}
	return got.Bytes(), nil
}

func TestPing(t *testing.T) {
	n := start(t, nil)
	g := boot(t, n, false)
	for _, a := range []string{"10.0.2.2", "10.0.2.3", "fec0::2", "fec0::3"} {
		if _, err := g.ping(t, a, 56); err != nil {
			t.Errorf("%s: %v", a, err)
		}
	}
	if _, err := g.ping(t, "10.0.2.9", 56); err == nil {
		t.Error("an address that nobody has answered")
	}
}

// TestFragmentedPing: a ping in a fragment is not answered for an address that nobody has.
func TestFragmentedPing(t *testing.T) {
	n := start(t, nil)
	whole := ndp("fec0::15", "fec0::77", 128, 0, 0, 0, 0, 1, 0, 1, 'x', 'y', 'z', 'u')
	p := whole[netdev.HeaderSize+etherSize:]
	f := append(append(bytes.Clone(p[:header.IPv6MinimumSize]), 58, 0, 0, 0, 0, 0, 0, 9), p[header.IPv6MinimumSize:]...)
	f[5], f[6] = byte(len(f)-header.IPv6MinimumSize), 44
	send(t, n, frame(0x86dd, f))
	time.Sleep(20 * time.Millisecond)
	if q, ok, _ := n.link.take(); ok {
		t.Errorf("an answer of %d bytes", q.size())
	}
}

// TestPingElsewhere pings an address of the host's network, in a namespace whose kernel lets
// everybody do that, and in one where it takes privileges.
func TestPingElsewhere(t *testing.T) {
	runtime.LockOSThread() // and ends with the test: nobody else gets its namespace
	for _, groups := range []string{"0 2147483647", "1 0"} {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			t.Skipf("a network namespace: %v", err)
		}
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			t.Fatal(err)
		}
		addr, _ := netlink.ParseAddr("198.51.100.1/32")
		if err := errors.Join(netlink.LinkSetUp(lo), netlink.AddrAdd(lo, addr)); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile("/proc/sys/net/ipv4/ping_group_range", []byte(groups), 0); err != nil {
			t.Skip(err)
		}
		n := start(t, nil)
		m := append([]byte{8, 0, 0, 0, 0x12, 0x34, 0, 7}, random(1000)...)
		binary.BigEndian.PutUint16(m[2:], ^checksum.Checksum(m, 0))
		f := udpFrame("10.0.2.15:0", "198.51.100.1:0", m[8:])
		h := header.IPv4(f[netdev.HeaderSize+etherSize:])
		h[9] = 1
		h.SetChecksum(0)
		h.SetChecksum(^h.CalculateChecksum())
		copy(h.Payload(), m)
		send(t, n, f)
		got := header.IPv4(receive(t, n, 0x0800))
		m[0] = 0
		if p := got.Payload(); hostAddr(got.SourceAddress()).String() != "198.51.100.1" || !bytes.Equal(p[4:], m[4:]) || p[0] != 0 || checksum.Checksum(p, 0) != 0xffff {
			t.Errorf("groups %s: %x", groups, []byte(got))
		}
	}
}

// A guest does not reach all hosts of a network at once: 127.255.255.255 is such an address
// of every host's.
func TestNothingIsBroadcastOnTheHost(t *testing.T) {
	n := start(t, nil)
	f := flow{proto: header.UDPProtocolNumber, guest: netip.AddrPortFrom(n.cfg.First, 5000), far: netip.MustParseAddrPort("192.0.2.255:9")}
	if n.openUDP(f, netip.MustParseAddrPort("127.255.255.255:9")) != nil {
		t.Error("a flow of broadcasts was opened")
	}
	if n.openUDP(f, netip.MustParseAddrPort("127.0.0.1:9")) == nil {
		t.Error("a flow to one host was not opened")
	}
}
