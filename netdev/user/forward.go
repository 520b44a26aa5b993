package user

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"

	"berth/spec"
)

// forwards are the ways in and out that were asked for.
type forwards struct {
	out    map[netip.AddrPort]*spec.GuestForward // as New has filled it
	server map[netip.Addr]bool                   // the addresses of out

	mu   sync.Mutex
	host []*hostForward
}

// hostForward is a way in, and what listens for it.
type hostForward struct {
	spec.HostForward
	listener net.Listener // of TCP and Unix sockets
	packets  *net.UDPConn
	raw      syscall.RawConn // of packets
}

func (h *hostForward) close() error {
	if h.listener != nil {
		return h.listener.Close()
	}
	return h.packets.Close()
}

func (s *forwards) init(out []spec.GuestForward) {
	s.out, s.server = map[netip.AddrPort]*spec.GuestForward{}, map[netip.Addr]bool{}
	for _, f := range out {
		s.out[f.Server], s.server[f.Server.Addr()] = &f, true
	}
}

// guest returns the way out that dst is.
func (s *forwards) guest(dst netip.AddrPort) *spec.GuestForward { return s.out[dst] }

// isServer reports whether a way out is at a.
func (s *forwards) isServer(a netip.Addr) bool { return s.server[a] }

func (s *forwards) close() {
	s.mu.Lock()
	all := s.host
	s.host = nil
	s.mu.Unlock()
	for _, h := range all {
		h.close()
	}
}

// Forward adds a way in, from now on. It may be called at any time.
func (n *Network) Forward(f spec.HostForward) error {
	f, err := n.cfg.Forward(f)
	if err != nil {
		return err
	}
	h := &hostForward{HostForward: f}
	switch {
	case f.Unix != "":
		h.listener, err = listenUnix(f.Unix)
	case f.Proto == "udp":
		if h.packets, err = net.ListenUDP(family("udp", f.Addr), net.UDPAddrFromAddrPort(f.Addr)); err == nil {
			h.raw, err = h.packets.SyscallConn()
		}
	default:
		h.listener, err = net.Listen(family("tcp", f.Addr), f.Addr.String())
	}
	if err != nil {
		return fmt.Errorf("hostfwd %s: %w", f, plainError(err))
	}
	if f.Unix == "" && f.Addr.Port() == 0 { // the host has chosen
		h.Addr = netip.AddrPortFrom(f.Addr.Addr(), h.port())
	}
	n.forwards.mu.Lock()
	n.forwards.host = append(n.forwards.host, h)
	n.forwards.mu.Unlock()
	serve := n.accept
	if h.packets != nil {
		serve = n.receiveDatagrams
	}
	if !n.background(func() { serve(h) }) {
		h.close()
		return errClosed
	}
	return nil
}

// family keeps an unspecified address from standing for both of IP's versions.
func family(network string, a netip.AddrPort) string {
	if a.Addr().Is4() {
		return network + "4"
	}
	return network + "6"
}

func (h *hostForward) port() uint16 {
	switch {
	case h.packets != nil:
		return h.packets.LocalAddr().(*net.UDPAddr).AddrPort().Port()
	default:
		return h.listener.Addr().(*net.TCPAddr).AddrPort().Port()
	}
}

// plainError is what the host says, without the names that Go puts in front.
func plainError(err error) error {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return err
}

// listenUnix makes a Unix socket, in the place of one that nobody listens on any more.
func listenUnix(path string) (net.Listener, error) {
	l, err := net.Listen("unix", path)
	if !errors.Is(err, unix.EADDRINUSE) {
		return l, err
	}
	if c, err := net.Dial("unix", path); err == nil {
		c.Close()
		return nil, unix.EADDRINUSE
	}
	if st, serr := os.Lstat(path); serr != nil || st.Mode().Type() != fs.ModeSocket {
		return nil, err
	}
	if rerr := os.Remove(path); rerr != nil {
		return nil, rerr
	}
	return net.Listen("unix", path)
}

// Unforward removes a way in, by what listens on the host: what has come by it stays.
func (n *Network) Unforward(f spec.HostForward) error {
	if f.Unix == "" && !f.Addr.Addr().IsValid() {
		f.Addr = netip.AddrPortFrom(netip.IPv4Unspecified(), f.Addr.Port())
	}
	s := &n.forwards
	s.mu.Lock()
	i := slices.IndexFunc(s.host, func(h *hostForward) bool { return h.Proto == f.Proto && h.Unix == f.Unix && h.Addr == f.Addr })
	if i < 0 {
		s.mu.Unlock()
		return fmt.Errorf("hostfwd %s %s: there is none", f.Proto, cmp.Or(f.Unix, f.Addr.String()))
	}
	h := s.host[i]
	s.host = slices.Delete(s.host, i, i+1)
	s.mu.Unlock()
	if h.packets != nil {
		n.datagrams.dropIf(func(d *datagram) bool { return d.raw == h.raw })
	}
	return h.close()
}

// accept takes connections until the forward is closed.
func (n *Network) accept(h *hostForward) {
	for {
		c, err := h.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // the host is out of descriptors, or the peer has gone
			n.cfg.Log.Warn("user network: a connection is not accepted", "hostfwd", h.String(), "err", err)
			select {
			case <-n.ctx.Done():
				return
			case <-time.After(100 * time.Millisecond):
			}
			continue
		}
		var from netip.AddrPort
		if a, ok := c.RemoteAddr().(*net.TCPAddr); ok {
			from = a.AddrPort()
		}
		if !n.background(func() { n.streamIn(c.(socket), h.Guest, from) }) {
			c.Close()
		}
	}
}

// receiveDatagrams takes datagrams until the forward is closed. Each peer's are a flow.
func (n *Network) receiveDatagrams(h *hostForward) {
	b := make([]byte, 65536)
	for {
		k, from, err := h.packets.ReadFromUDPAddrPort(b)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil {
			n.datagramForward(h, netip.AddrPortFrom(from.Addr().Unmap(), from.Port()), b[:k])
		}
	}
}

func (n *Network) datagramForward(h *hostForward, from netip.AddrPort, p []byte) {
	far := netip.AddrPortFrom(n.seenFrom(from.Addr(), h.Guest.Addr()), from.Port())
	f := flow{proto: header.UDPProtocolNumber, guest: h.Guest, far: far}
	d := n.datagrams.find(f)
	if d == nil || d.raw != h.raw {
		if d != nil {
			n.datagrams.drop(d)
		}
		r, err := n.route(far.Addr(), h.Guest.Addr())
		if err != nil {
			return
		}
		d = &datagram{flow: f, route: r, raw: h.raw, to: sockaddr(from)}
		if !n.datagrams.add(d) {
			d.close()
			return
		}
	}
	n.answer(d, p)
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Addr: a.Addr().As4(), Port: int(a.Port())}
	}
	s := &unix.SockaddrInet6{Addr: a.Addr().As16(), Port: int(a.Port())}
	if z := a.Addr().Zone(); z != "" {
		if i, err := net.InterfaceByName(z); err == nil {
			s.ZoneId = uint32(i.Index)
		}
	}
	return s
}

// dialForward opens what a way out leads to.
func (n *Network) dialForward(ctx context.Context, f *spec.GuestForward) (socket, error) {
	switch {
	case f.TCP != "":
		return dialHost(ctx, "tcp", f.TCP)
	case f.Unix != "":
		return dialHost(ctx, "unix", f.Unix)
	}
	return n.startCommand(f.Command)
}

// startCommand starts a command whose standard input and output are the connection. It is
// split at spaces, as QEMU's is, and ends with the network at the latest. Until it ends it
// has a place among the streams: one that stays when its connection is gone is no way to more
// processes than that.
func (n *Network) startCommand(command string) (socket, error) {
	words := strings.Fields(command)
	if len(words) == 0 {
		return nil, errors.New("no command")
	}
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "guestfwd"), os.NewFile(uintptr(fds[1]), "guestfwd")
	defer ours.Close()
	defer theirs.Close()
	if err := unix.SetNonblock(fds[1], false); err != nil { // the command expects to wait
		return nil, err
	}
	c := exec.CommandContext(n.ctx, words[0], words[1:]...)
	c.Stdin, c.Stdout = theirs, theirs
	conn, err := net.FileConn(ours)
	if err != nil {
		return nil, err
	}
	if !n.streams.reserve() {
		conn.Close()
		return nil, errors.New("too many streams and commands")
	}
	if !n.enter() {
		n.streams.free()
		conn.Close()
		return nil, errClosed
	}
	if err := c.Start(); err != nil {
		n.work.Done()
		n.streams.free()
		conn.Close()
		return nil, err
	}
	go func() {
		defer n.work.Done()
		defer n.streams.free()
		c.Wait()
	}()
	return conn.(socket), nil
}

// Flow is what passes the network, or may: as QEMU's "info usernet" says it.
type Flow struct {
	Proto  string // "TCP", "UDP" or "ICMP"
	State  string // "HOST_FORWARD", a TCP state such as "ESTABLISHED", or ""
	Source string // addresses with ports: where it comes from,
	Dest   string // and goes to
	// RecvQ and SendQ are the bytes that have come from the guest, and that go to it, and wait here.
	RecvQ, SendQ int
}

// Flows lists the forwards and what passes just now.
func (n *Network) Flows() []Flow {
	var all []Flow
	n.forwards.mu.Lock()
	for _, h := range n.forwards.host {
		all = append(all, Flow{Proto: strings.ToUpper(h.Proto), State: "HOST_FORWARD", Source: cmp.Or(h.Unix, h.Addr.String()), Dest: h.Guest.String()})
	}
	n.forwards.mu.Unlock()
	n.streams.mu.Lock()
	for st := range n.streams.all {
		f := Flow{Proto: "TCP", State: stateName(st.ep), Source: st.guest.String(), Dest: st.far.String()}
		f.RecvQ, _ = st.ep.GetSockOptInt(tcpip.ReceiveQueueSizeOption)
		f.SendQ, _ = st.ep.GetSockOptInt(tcpip.SendQueueSizeOption)
		all = append(all, f)
	}
	n.streams.mu.Unlock()
	n.datagrams.mu.Lock()
	for _, d := range n.datagrams.all {
		proto := "UDP"
		if d.proto != header.UDPProtocolNumber {
			proto = "ICMP"
		}
		all = append(all, Flow{Proto: proto, Source: d.guest.String(), Dest: d.far.String()})
	}
	n.datagrams.mu.Unlock()
	slices.SortFunc(all, func(a, b Flow) int {
		return strings.Compare(a.Proto+a.Source+a.Dest, b.Proto+b.Source+b.Dest)
	})
	return all
}
