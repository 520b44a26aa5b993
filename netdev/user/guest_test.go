package user

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/link/ethernet"
	"gvisor.dev/gvisor/pkg/tcpip/network/arp"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"

	"berth/netdev"
	"berth/spec"
)

var guestMAC = [6]byte{0x52, 0x54, 0, 0x12, 0x34, 0x56}

// guest is a guest's network stack at the other end of a Network's cable.
type guest struct {
	*stack.Stack
	n    *Network
	link *guestLink
}

// guestLink is that stack's NIC, with or without offloads.
type guestLink struct {
	n       *Network
	large   bool // segments are long, and their checksums for the other end to make
	mtu     uint32
	mu      sync.Mutex
	up      stack.NetworkDispatcher
	badSums atomic.Int32 // frames with a checksum that is wrong
	tooLong atomic.Int32 // frames that the offloads do not allow
	any     atomic.Bool  // they may be as they like
	done    chan struct{}
}

// layout is QEMU's.
func layout(t testing.TB) spec.UserLayout {
	t.Helper()
	var u spec.UserNet
	l, err := u.Layout()
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// start starts a network that ends with the test.
func start(t testing.TB, change func(*Config)) *Network {
	t.Helper()
	cfg := Config{UserLayout: layout(t)}
	if change != nil {
		change(&cfg)
	}
	n, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close() })
	return n
}

// boot starts a guest with fixed addresses on n.
func boot(t testing.TB, n *Network, large bool) *guest {
	t.Helper()
	l := &guestLink{n: n, large: large, mtu: uint32(n.cfg.MTU), done: make(chan struct{})}
	s := stack.New(stack.Options{
		NetworkProtocols: []stack.NetworkProtocolFactory{arp.NewProtocol, ipv4.NewProtocol, ipv6.NewProtocolWithOptions(ipv6.Options{
			NDPConfigs: ipv6.NDPConfigurations{
				MaxRtrSolicitations: 3, RtrSolicitationInterval: time.Second, HandleRAs: ipv6.HandlingRAsEnabledWhenForwardingDisabled,
				DiscoverDefaultRouters: true, DiscoverOnLinkPrefixes: true, AutoGenGlobalAddresses: true,
			},
			AutoGenLinkLocal: true,
		})},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocolCUBIC, udp.NewProtocol, icmp.NewProtocol4, icmp.NewProtocol6},
	})
	if large {
		if err := n.SetOffloads(netdev.Offloads{Checksum: true, TSO4: true, TSO6: true}); err != nil {
			t.Fatal(err)
		}
	}
	g := &guest{Stack: s, n: n, link: l}
	if err := s.CreateNIC(nic, ethernet.New(l)); err != nil {
		t.Fatal(err)
	}
	for _, a := range []struct {
		addr  string
		proto tcpip.NetworkProtocolNumber
	}{{"10.0.2.15/24", ipv4.ProtocolNumber}, {"fec0::15/64", ipv6.ProtocolNumber}} {
		p := netip.MustParsePrefix(a.addr)
		err := s.AddProtocolAddress(nic, tcpip.ProtocolAddress{Protocol: a.proto, AddressWithPrefix: tcpip.AddressWithPrefix{
			Address: stackAddr(p.Addr()), PrefixLen: p.Bits()}}, stack.AddressProperties{})
		if err != nil {
			t.Fatal(err)
		}
	}
	s.SetRouteTable([]tcpip.Route{
		{Destination: header.IPv4EmptySubnet, Gateway: stackAddr(netip.MustParseAddr("10.0.2.2")), NIC: nic},
		{Destination: header.IPv6EmptySubnet, Gateway: stackAddr(netip.MustParseAddr("fec0::2")), NIC: nic},
	})
	go l.receive()
	t.Cleanup(func() {
		n.Close()
		<-l.done
		s.Destroy()
		if k := l.badSums.Load(); k > 0 {
			t.Errorf("%d frames with a wrong checksum", k)
		}
		if k := l.tooLong.Load(); k > 0 {
			t.Errorf("%d frames that the guest does not take", k)
		}
	})
	return g
}

func (l *guestLink) WritePackets(pkts stack.PacketBufferList) (int, tcpip.Error) {
	for _, pkt := range pkts.AsSlice() {
		var h [netdev.HeaderSize]byte
		if pkt.GSOOptions.NeedsCsum {
			h[0] = 1
			binary.LittleEndian.PutUint16(h[6:], uint16(etherSize+len(pkt.NetworkHeader().Slice())))
			binary.LittleEndian.PutUint16(h[8:], 16)
		}
		if l.n.Send(append([][]byte{h[:]}, pkt.AsSlices()...)) != nil {
			return 0, &tcpip.ErrClosedForSend{}
		}
	}
	return pkts.Len(), nil
}

// receive takes frames as the offloads allow, and checks them.
func (l *guestLink) receive() {
	defer close(l.done)
	p := make([]byte, netdev.MaxFrame)
	for {
		k, err := l.n.Receive(p)
		if err != nil {
			return
		}
		l.check(p[:k])
		v := buffer.NewViewWithData(p[netdev.HeaderSize:k])
		pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithView(v)})
		l.mu.Lock()
		up := l.up
		l.mu.Unlock()
		if up != nil {
			up.DeliverNetworkPacket(0, pkt)
		}
		pkt.DecRef()
	}
}

func (l *guestLink) check(p []byte) {
	takes := l.n.link.offloads.Load()
	ip := p[netdev.HeaderSize+etherSize:]
	if l.any.Load() {
		return
	}
	if len(ip) > int(l.mtu) && (p[1] == 0 || !takes.TSO4) || p[0]&1 != 0 && !takes.Checksum {
		l.tooLong.Add(1)
	}
	if p[0]&1 != 0 {
		return
	}
	switch binary.BigEndian.Uint16(p[netdev.HeaderSize+12:]) {
	case 0x0800:
		h := header.IPv4(ip)
		if !h.IsValid(len(ip)) || !h.IsChecksumValid() || !h.More() && h.FragmentOffset() == 0 && h.Protocol() != 1 &&
			!sumIsRight(h.Protocol(), h.Payload(), h.SourceAddress(), h.DestinationAddress()) {
			l.badSums.Add(1)
		}
	case 0x86dd:
		h := header.IPv6(ip)
		if !h.IsValid(len(ip)) || h.NextHeader() != 44 && !sumIsRight(h.NextHeader(), h.Payload(), h.SourceAddress(), h.DestinationAddress()) {
			l.badSums.Add(1)
		}
	}
}

func (l *guestLink) Attach(d stack.NetworkDispatcher) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.up = d
}

func (l *guestLink) IsAttached() bool { return true }
func (l *guestLink) Capabilities() stack.LinkEndpointCapabilities {
	return stack.CapabilityRXChecksumOffload
}

func (l *guestLink) SupportedGSO() stack.SupportedGSO {
	if l.large {
		return stack.HostGSOSupported
	}
	return stack.GSONotSupported
}
func (l *guestLink) GSOMaxSize() uint32                      { return 65535 }
func (l *guestLink) MTU() uint32                             { return l.mtu + etherSize }
func (l *guestLink) MaxHeaderLength() uint16                 { return 0 }
func (l *guestLink) LinkAddress() tcpip.LinkAddress          { return tcpip.LinkAddress(guestMAC[:]) }
func (l *guestLink) ARPHardwareType() header.ARPHardwareType { return header.ARPHardwareEther }
func (l *guestLink) ParseHeader(*stack.PacketBuffer) bool    { return true }
func (l *guestLink) AddHeader(*stack.PacketBuffer)           {}
func (l *guestLink) SetMTU(uint32)                           {}
func (l *guestLink) SetLinkAddress(tcpip.LinkAddress)        {}
func (l *guestLink) Wait()                                   {}
func (l *guestLink) Close()                                  {}
func (l *guestLink) SetOnCloseAction(func())                 {}

func full(a string) (tcpip.FullAddress, tcpip.NetworkProtocolNumber) {
	p := netip.MustParseAddrPort(a)
	return tcpip.FullAddress{Addr: stackAddr(p.Addr()), Port: p.Port()}, netProto(p.Addr())
}

// dial connects the guest to addr.
func (g *guest) dial(addr string, d time.Duration) (*gonet.TCPConn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	a, proto := full(addr)
	c, err := gonet.DialContextTCP(ctx, g.Stack, a, proto)
	if err == nil {
		c.SetDeadline(time.Now().Add(20 * time.Second))
	}
	return c, err
}

func (g *guest) mustDial(t testing.TB, addr string) *gonet.TCPConn {
	t.Helper()
	c, err := g.dial(addr, 5*time.Second)
	if err != nil {
		t.Fatalf("%s: %v", addr, err)
	}
	return c
}

func (g *guest) listen(t testing.TB, addr string) *gonet.TCPListener {
	t.Helper()
	a, proto := full(addr)
	l, err := gonet.ListenTCP(g.Stack, a, proto)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// udp is a socket of the guest's, connected to addr.
func (g *guest) udp(t testing.TB, addr string) *gonet.UDPConn {
	t.Helper()
	a, proto := full(addr)
	c, err := gonet.DialUDP(g.Stack, nil, &a, proto)
	if err != nil {
		t.Fatal(err)
	}
	c.SetDeadline(time.Now().Add(10 * time.Second))
	return c
}

// refused asserts that the guest's connection is reset at once.
func (g *guest) refused(t testing.TB, addr string) {
	t.Helper()
	c, err := g.dial(addr, 3*time.Second)
	if err == nil {
		c.Close()
		t.Fatalf("%s: the guest got there", addr)
	}
	if !strings.Contains(err.Error(), "refused") {
		t.Errorf("%s: %v; want a refusal", addr, err)
	}
}

// outside is an address of this host that is not a loopback one, at which tests listen for guests.
func outside(t testing.TB) netip.Addr {
	t.Helper()
	all, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range all {
		p, ok := a.(*net.IPNet)
		if ip, ok2 := netip.AddrFromSlice(p.IP.To4()); ok && ok2 && !ip.IsLoopback() && !ip.IsLinkLocalUnicast() {
			return ip
		}
	}
	t.Skip("this host has no address of IPv4 but loopback's")
	return netip.Addr{}
}

// serve runs a TCP server of the host's at ip, until the test ends.
func serve(t testing.TB, ip string, handle func(*net.TCPConn)) string {
	t.Helper()
	l, err := net.Listen("tcp", net.JoinHostPort(ip, "0"))
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
			go func() {
				defer c.Close()
				handle(c.(*net.TCPConn))
			}()
		}
	}()
	return l.Addr().String()
}

func echoAll(c *net.TCPConn) { copyAll(c, c) }

// copyAll is io.Copy without pipes, which Go keeps.
func copyAll(w io.Writer, r io.Reader) { io.Copy(struct{ io.Writer }{w}, struct{ io.Reader }{r}) }

// leaks asserts at the test's end that goroutines and descriptors are those of its beginning.
func leaks(t *testing.T) {
	goroutines, fds := runtime.NumGoroutine(), openFiles(t)
	t.Cleanup(func() {
		deadline := time.Now().Add(5 * time.Second)
		for runtime.NumGoroutine() > goroutines || openFiles(t) > fds {
			if time.Now().After(deadline) {
				b := make([]byte, 1<<20)
				t.Fatalf("%d goroutines, then %d; %d files, then %d\n%s", goroutines, runtime.NumGoroutine(), fds, openFiles(t), b[:runtime.Stack(b, true)])
			}
			time.Sleep(10 * time.Millisecond)
		}
	})
}
