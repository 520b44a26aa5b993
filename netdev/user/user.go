// Package user is a network inside this process: a guest reaches the host's network by it, without privileges.
package user

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"

	"berth/netdev"
	"berth/spec"
)

// What a guest can have at once. A TCP flow holds up to maxSend and maxReceive bytes here (an
// eighth or less until it has shown that it moves them), what a socket of the host's holds, and two goroutines.
const (
	maxStreams    = 1024
	maxDials      = 256 // of them without an answer of the host's network yet
	maxDatagrams  = 1024
	maxQueries    = 128 // of the name server without an answer
	maxNeighbours = 64
	maxSend       = 2 << 20
	maxReceive    = 2 << 20
	defaultMTU    = 1500
)

const nic = 1 // the one that the stack has

// Config is what a network looks like.
type Config struct {
	spec.UserLayout
	MTU      int  // of the guest's link; 0 is 1500
	Restrict bool // only DHCP and forwards work
	Loopback bool // the host's address is its 127.0.0.1 and ::1

	Hostname, Domain string // told by DHCP unless ""
	Search           []string

	HostForwards  []spec.HostForward
	GuestForwards []spec.GuestForward // with all addresses stated

	// Resolvers says where names are asked for, in order; nil stands for /etc/resolv.conf's.
	Resolvers func() []netip.AddrPort
	Log       *slog.Logger // nil: nothing is logged
}

// Network is a guest's network: a netdev.Port with a netdev.Offloader's large TCP segments
// both ways.
//
//	guest ─ Send ─► Ethernet ─► ARP, NDP, DHCP, ping: answered at once
//	                         └► IP, TCP: gVisor's stack ─► stream  ◄─► host's socket
//	                         └► UDP, ping elsewhere     ─► datagram ◄─► host's socket
//	guest ◄─ Receive ─ link's queue ◄─ all of these
type Network struct {
	cfg   Config
	mac   [6]byte
	link  *link
	stack *stack.Stack
	ctx   context.Context // done when the network is closed
	stop  context.CancelFunc

	neighbours neighbours
	leases     leases
	datagrams  datagrams
	streams    streams
	forwards   forwards
	queries    chan struct{} // one element for each query that is under way

	stray func(frame []byte) // hears all frames of the guest's, in tests; else nil

	mu     sync.Mutex
	closed bool
	work   sync.WaitGroup // what runs in the background; none is added once closed
}

var _ netdev.Offloader = (*Network)(nil)

// New starts a network.
func New(cfg Config) (*Network, error) {
	if cfg.MTU == 0 {
		cfg.MTU = defaultMTU
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Resolvers == nil {
		cfg.Resolvers = hostResolvers
	}
	n := &Network{cfg: cfg, queries: make(chan struct{}, maxQueries)}
	n.mac = hostMAC(cfg.UserLayout)
	n.ctx, n.stop = context.WithCancel(context.Background())
	n.link = newLink(n)
	n.streams.init()
	n.datagrams.init()
	n.forwards.init(cfg.GuestForwards)
	if err := n.startStack(); err != nil {
		return nil, err
	}
	for _, f := range cfg.HostForwards {
		if err := n.Forward(f); err != nil {
			return nil, errors.Join(err, n.Close())
		}
	}
	n.background(n.tick)
	return n, nil
}

// hostMAC is the address of everything here, as slirp makes it: 52:55 and the host's address.
func hostMAC(l spec.UserLayout) [6]byte {
	mac := [6]byte{0x52, 0x55, 0x0a, 0x00, 0x02, 0x02}
	if l.Host.Is4() {
		b := l.Host.As4()
		copy(mac[2:], b[:])
	}
	return mac
}

// startStack makes gVisor's stack: it takes packets to any address, and sends from any.
func (n *Network) startStack() error {
	n.stack = stack.New(stack.Options{
		NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol, ipv6.NewProtocolWithOptions(ipv6.Options{})},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocolCUBIC, udp.NewProtocol},
	})
	if err := n.stack.CreateNIC(nic, n.link); err != nil {
		return fmt.Errorf("user network: %s", err)
	}
	n.stack.SetSpoofing(nic, true)
	n.stack.SetPromiscuousMode(nic, true)
	var routes []tcpip.Route
	for _, p := range []netip.Prefix{n.cfg.Net, n.cfg.Net6} {
		if p.IsValid() {
			to := tcpip.AddressWithPrefix{Address: stackAddr(p.Addr()), PrefixLen: p.Bits()}
			routes = append(routes, tcpip.Route{Destination: to.Subnet(), NIC: nic})
		}
	}
	n.stack.SetRouteTable(routes)
	if err := setTCPOptions(n.stack); err != nil {
		return err
	}
	n.stack.SetTransportProtocolHandler(tcp.ProtocolNumber, tcp.NewForwarder(n.stack, 0, maxDials, n.streamOut).HandlePacket)
	n.stack.SetTransportProtocolHandler(udp.ProtocolNumber, n.datagramOut)
	return nil
}

// enter has Close wait for work.Done, unless the network is closed.
func (n *Network) enter() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return false
	}
	n.work.Add(1)
	return true
}

// background runs f, whose end Close waits for, unless the network is closed.
func (n *Network) background(f func()) bool {
	if !n.enter() {
		return false
	}
	go func() {
		defer n.work.Done()
		f()
	}()
	return true
}

// tick does what time brings: unsolicited router advertisements and the end of idle flows.
func (n *Network) tick() {
	t := time.NewTicker(5 * time.Second)
	defer t.Stop()
	for round := 0; ; round++ {
		select {
		case <-n.ctx.Done():
			return
		case <-t.C:
		}
		n.datagrams.expire(time.Now())
		if round%60 == 0 { // within the 30 minutes that one holds
			n.advertise()
		}
	}
}

// Receive is that of netdev.Port.
func (n *Network) Receive(p []byte) (int, error) { return n.link.receive(p) }

// Offloads is that of netdev.Offloader.
func (n *Network) Offloads() netdev.Offloads {
	return netdev.Offloads{Checksum: true, TSO4: true, TSO6: true, TSOECN: true}
}

// SetOffloads is that of netdev.Offloader.
func (n *Network) SetOffloads(o netdev.Offloads) error {
	n.link.offloads.Store(&o)
	return nil
}

// Close ends all flows and forwards, and waits for what runs in the background.
func (n *Network) Close() error {
	n.mu.Lock()
	first := !n.closed
	n.closed = true
	n.mu.Unlock()
	if !first {
		n.work.Wait()
		return nil
	}
	n.stop()
	n.link.close()
	n.forwards.close()
	n.datagrams.close()
	done := make(chan struct{})
	go func() {
		n.work.Wait()
		close(done)
	}()
	// A handshake may begin behind an abortion of all: none begins once nothing runs.
	for open := true; open; {
		for _, e := range n.stack.RegisteredEndpoints() {
			e.Abort()
		}
		select {
		case <-done:
			open = false
		case <-time.After(10 * time.Millisecond):
		}
	}
	n.stack.Destroy()
	n.link.drain()
	return nil
}

// stackAddr is a as gVisor has it.
func stackAddr(a netip.Addr) tcpip.Address {
	if a.Is4() {
		return tcpip.AddrFrom4(a.As4())
	}
	return tcpip.AddrFrom16(a.As16())
}

// hostAddr is stackAddr's inverse.
func hostAddr(a tcpip.Address) netip.Addr {
	if a.Len() == 4 {
		return netip.AddrFrom4(a.As4())
	}
	return netip.AddrFrom16(a.As16())
}

// errClosed is Send's answer once the network is closed.
var errClosed = fmt.Errorf("user network: %w", net.ErrClosed)
