package user

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"
)

const (
	dialTime   = 2 * time.Minute  // for the host's network to answer
	acceptTime = 75 * time.Second // for the guest to
	lastTime   = 30 * time.Second // for the guest to acknowledge the end of a stream
)

// socket is the host's end of a stream: TCP's or a Unix one.
type socket interface {
	net.Conn
	syscall.Conn
	CloseWrite() error
}

// stream is a TCP connection of the guest's and the socket it is joined with.
//
//	guest ─► endpoint ─(outward)─► conn
//	guest ◄─ endpoint ◄─(inward)── conn
//
// Either direction ends by itself, with the FIN of the side that it comes from; a reset of one
// side resets the other.
type stream struct {
	guest, far netip.AddrPort // the two ends as the guest sees them
	ep         tcpip.Endpoint
	queue      *waiter.Queue
	conn       socket
	raw        syscall.RawConn
}

// streams are the guest's TCP connections, those being made among them.
type streams struct {
	mu    sync.Mutex
	all   map[*stream]bool
	count int
}

func (s *streams) init() { s.all = map[*stream]bool{} }

// reserve takes one of maxStreams places, which free gives back.
func (s *streams) reserve() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.count >= maxStreams {
		return false
	}
	s.count++
	return true
}

func (s *streams) free() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.count--
}

func (s *streams) set(st *stream, on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if on {
		s.all[st] = true
	} else {
		delete(s.all, st)
	}
}

func setTCPOptions(s *stack.Stack) error {
	moderate, timeWait := tcpip.TCPModerateReceiveBufferOption(true), tcpip.TCPTimeWaitTimeoutOption(2*time.Second)
	sack, retries := tcpip.TCPSACKEnabled(true), tcpip.TCPSynRetriesOption(4)
	for _, o := range []tcpip.SettableTransportProtocolOption{
		&tcpip.TCPReceiveBufferSizeRangeOption{Min: 4 << 10, Default: 256 << 10, Max: maxReceive},
		&tcpip.TCPSendBufferSizeRangeOption{Min: 4 << 10, Default: 128 << 10, Max: maxSend},
		&moderate, &timeWait, &sack, &retries,
	} {
		if err := s.SetTransportProtocolOption(tcp.ProtocolNumber, o); err != nil {
			return fmt.Errorf("user network: %T: %s", o, err)
		}
	}
	return nil
}

// streamOut answers a SYN of the guest's, once the host's network has answered ours. gVisor
// calls it on a goroutine of its own.
func (n *Network) streamOut(r *tcp.ForwarderRequest) {
	if !n.enter() {
		r.Complete(false)
		return
	}
	defer n.work.Done()
	id := r.ID()
	st := &stream{
		guest: netip.AddrPortFrom(hostAddr(id.RemoteAddress), id.RemotePort),
		far:   netip.AddrPortFrom(hostAddr(id.LocalAddress), id.LocalPort),
	}
	if !n.streams.reserve() {
		r.Complete(true)
		return
	}
	defer n.streams.free()
	ctx, cancel := context.WithTimeout(n.ctx, dialTime)
	conn, err := n.dial(ctx, st.far)
	cancel()
	if err != nil {
		var late net.Error
		r.Complete(!errors.As(err, &late) || !late.Timeout()) // who is not there does not refuse
		return
	}
	defer conn.Close()
	st.conn, st.queue = conn, new(waiter.Queue)
	ep, terr := r.CreateEndpoint(st.queue)
	r.Complete(false)
	if terr != nil {
		reset(conn)
		return
	}
	st.ep = ep
	n.join(st)
}

// dial connects to where what the guest sends to dst ends.
func (n *Network) dial(ctx context.Context, dst netip.AddrPort) (socket, error) {
	t := n.target(dst)
	switch t.kind {
	case toHost:
		return dialHost(ctx, "tcp", t.addr.String())
	case toForward:
		return n.dialForward(ctx, t.out)
	case toNames:
		err := errors.New("no name server")
		for _, r := range n.cfg.Resolvers() {
			var c socket
			if c, err = dialHost(ctx, "tcp", r.String()); err == nil {
				return c, nil
			}
		}
		return nil, err
	}
	return nil, fmt.Errorf("%s: not for the guest", dst)
}

func dialHost(ctx context.Context, network, addr string) (socket, error) {
	d := net.Dialer{KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 5 * time.Minute, Interval: 30 * time.Second, Count: 6}}
	c, err := d.DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	return c.(socket), nil
}

// reset has the peer of a socket see a reset.
func reset(c socket) {
	if t, ok := c.(*net.TCPConn); ok {
		t.SetLinger(0)
	}
	c.Close()
}

// streamIn joins a connection that has come to the host with one to the guest.
func (n *Network) streamIn(conn socket, guest netip.AddrPort, from netip.AddrPort) {
	defer conn.Close()
	if !n.streams.reserve() {
		reset(conn)
		return
	}
	defer n.streams.free()
	st := &stream{guest: guest, conn: conn, queue: new(waiter.Queue)}
	if err := n.connectIn(st, n.seenFrom(from.Addr(), guest.Addr())); err != nil {
		reset(conn)
		return
	}
	n.join(st)
}

// seenFrom is the address that a peer of the host's has for the guest: its own, or the host's
// where its own would mean something else to the guest.
func (n *Network) seenFrom(peer, guest netip.Addr) netip.Addr {
	peer = peer.Unmap()
	if peer.Is4() == guest.Is4() && n.beyond(peer) {
		return peer
	}
	if guest.Is4() {
		return n.cfg.Host
	}
	return n.cfg.Host6
}

// connectIn makes the connection to the guest.
func (n *Network) connectIn(st *stream, from netip.Addr) error {
	ep, terr := n.stack.NewEndpoint(tcp.ProtocolNumber, netProto(st.guest.Addr()), st.queue)
	if terr != nil {
		return errors.New(terr.String())
	}
	entry, notified := waiter.NewChannelEntry(waiter.WritableEvents | waiter.EventHUp | waiter.EventErr)
	st.queue.EventRegister(&entry)
	defer st.queue.EventUnregister(&entry)
	terr = ep.Bind(tcpip.FullAddress{NIC: nic, Addr: stackAddr(from)})
	if terr == nil {
		terr = ep.Connect(tcpip.FullAddress{NIC: nic, Addr: stackAddr(st.guest.Addr()), Port: st.guest.Port()})
	}
	if _, started := terr.(*tcpip.ErrConnectStarted); started {
		late := time.NewTimer(acceptTime)
		defer late.Stop()
		select {
		case <-notified:
			terr = ep.LastError()
		case <-n.ctx.Done():
			terr = &tcpip.ErrAborted{}
		case <-late.C:
			terr = &tcpip.ErrTimeout{}
		}
	}
	if terr != nil {
		ep.Abort()
		ep.Close()
		return errors.New(terr.String())
	}
	if a, err := ep.GetLocalAddress(); err == nil {
		st.far = netip.AddrPortFrom(from, a.Port)
	}
	st.ep = ep
	return nil
}

func netProto(a netip.Addr) tcpip.NetworkProtocolNumber {
	if a.Is4() {
		return header.IPv4ProtocolNumber
	}
	return header.IPv6ProtocolNumber
}

// join moves bytes both ways until both ends are done.
func (n *Network) join(st *stream) {
	defer st.ep.Close()
	var err error
	if st.raw, err = st.conn.SyscallConn(); err != nil {
		st.ep.Abort()
		return
	}
	keepAlive(st.ep)
	n.streams.set(st, true)
	defer n.streams.set(st, false)
	// A reset by the guest ends a wait for the host's end, too.
	broken := waiter.NewFunctionEntry(waiter.EventHUp|waiter.EventErr, func(waiter.EventMask) {
		if tcp.EndpointState(st.ep.State()) == tcp.StateError {
			st.conn.SetDeadline(time.Unix(1, 0))
		}
	})
	st.queue.EventRegister(&broken)
	defer st.queue.EventUnregister(&broken)
	out := make(chan error, 1)
	either := func(move func() error) error {
		err := move()
		if err != nil {
			st.ep.Abort() // which ends the other
		}
		return err
	}
	go func() { out <- either(st.outward) }()
	in := either(st.inward)
	if err := errors.Join(in, <-out); err != nil {
		reset(st.conn)
		return
	}
	st.conn.Close()
	n.linger(st)
}

func keepAlive(ep tcpip.Endpoint) {
	idle, interval := tcpip.KeepaliveIdleOption(5*time.Minute), tcpip.KeepaliveIntervalOption(30*time.Second)
	ep.SetSockOpt(&idle)
	ep.SetSockOpt(&interval)
	ep.SetSockOptInt(tcpip.KeepaliveCountOption, 6)
	ep.SocketOptions().SetKeepAlive(true)
}

// linger waits until the guest has acknowledged everything, or for lastTime: what a guest
// leaves unacknowledged keeps its place among the streams.
func (n *Network) linger(st *stream) {
	entry, notified := waiter.NewChannelEntry(waiter.EventHUp | waiter.EventErr | waiter.WritableEvents)
	st.queue.EventRegister(&entry)
	defer st.queue.EventUnregister(&entry)
	late := time.NewTimer(lastTime)
	defer late.Stop()
	look := time.NewTicker(time.Second / 4)
	defer look.Stop()
	for {
		switch tcp.EndpointState(st.ep.State()) {
		case tcp.StateClose, tcp.StateError, tcp.StateTimeWait:
			return
		}
		select {
		case <-notified:
		case <-look.C:
		case <-late.C:
			st.ep.Abort()
			return
		}
	}
}

// errBlocked says that the host's socket takes nothing more just now.
var errBlocked = errors.New("blocked")

// fdWriter writes to a socket without waiting.
type fdWriter struct {
	fd  int
	err error
}

func (w *fdWriter) Write(p []byte) (int, error) {
	done := 0
	for done < len(p) {
		k, err := unix.SendmsgN(w.fd, p[done:], nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		switch err {
		case nil:
			done += k
			continue
		case unix.EINTR:
			continue
		case unix.EAGAIN:
			err = errBlocked
		}
		w.err = err
		return done, err
	}
	return done, nil
}

// outward moves what the guest sends, up to its FIN.
func (st *stream) outward() error {
	entry, notified := waiter.NewChannelEntry(waiter.ReadableEvents | waiter.EventHUp | waiter.EventErr | waiter.EventRdHUp)
	st.queue.EventRegister(&entry)
	defer st.queue.EventUnregister(&entry)
	for {
		var terr tcpip.Error
		w := fdWriter{}
		err := st.raw.Write(func(fd uintptr) bool {
			w = fdWriter{fd: int(fd)}
			var res tcpip.ReadResult
			res, terr = st.ep.Read(&w, tcpip.ReadOptions{})
			if res.Count > 0 {
				st.ep.ModerateRecvBuf(res.Count)
			}
			return !errors.Is(w.err, errBlocked)
		})
		if err == nil {
			err = w.err
		}
		if err != nil {
			return err
		}
		switch terr.(type) {
		case nil:
		case *tcpip.ErrWouldBlock:
			<-notified
		case *tcpip.ErrClosedForReceive:
			if tcp.EndpointState(st.ep.State()) == tcp.StateError {
				return errors.New("reset")
			}
			if err := st.conn.CloseWrite(); err != nil && !errors.Is(err, unix.ENOTCONN) {
				return err
			}
			return nil
		default:
			return errors.New(terr.String())
		}
	}
}

// fdReader is size bytes that a socket has.
type fdReader struct {
	fd   int
	size int
	err  error
}

func (r *fdReader) Len() int { return r.size }

func (r *fdReader) Read(p []byte) (int, error) {
	for len(p) > 0 {
		k, err := unix.Read(r.fd, p)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			r.err = err
			return 0, err
		case k == 0: // EOF would have gVisor wait for more
			return 0, io.ErrUnexpectedEOF
		}
		return k, nil
	}
	return 0, nil
}

// inward moves what the host's end sends, up to its FIN.
func (st *stream) inward() error {
	entry, notified := waiter.NewChannelEntry(waiter.WritableEvents | waiter.EventHUp | waiter.EventErr)
	st.queue.EventRegister(&entry)
	defer st.queue.EventUnregister(&entry)
	for {
		var terr tcpip.Error
		var end bool
		var failed error
		err := st.raw.Read(func(fd uintptr) bool {
			r := fdReader{fd: int(fd)}
			if r.size, failed = waiting(int(fd)); failed != nil || r.size < 0 {
				end = failed == nil
				return true
			}
			if r.size == 0 {
				return false
			}
			_, terr = st.ep.Write(&r, tcpip.WriteOptions{})
			failed = r.err
			return true
		})
		if err == nil {
			err = failed
		}
		switch {
		case err != nil:
			return err
		case end:
			st.ep.Shutdown(tcpip.ShutdownWrite)
			return nil
		}
		switch terr.(type) {
		case nil:
		case *tcpip.ErrWouldBlock:
			<-notified
		default:
			return errors.New(terr.String())
		}
	}
}

// waiting returns how many bytes a socket has; -1 stands for its end, 0 for none yet.
func waiting(fd int) (int, error) {
	size, err := unix.IoctlGetInt(fd, unix.TIOCINQ)
	if err != nil || size > 0 {
		return size, err
	}
	var one [1]byte
	switch k, _, err := unix.Recvfrom(fd, one[:], unix.MSG_PEEK|unix.MSG_DONTWAIT); {
	case err == unix.EAGAIN || err == unix.EINTR:
		return 0, nil
	case err != nil:
		return 0, err
	case k == 0:
		return -1, nil
	}
	return unix.IoctlGetInt(fd, unix.TIOCINQ)
}

// stateName is an endpoint's state as QEMU writes it.
func stateName(ep tcpip.Endpoint) string {
	return strings.ReplaceAll(strings.ReplaceAll(tcp.EndpointState(ep.State()).String(), "-", "_"), " ", "_")
}
