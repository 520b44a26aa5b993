package socket

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"berth/netdev"
	"berth/netdev/netdevtest"
)

const patience10 = 10 * time.Second

// farStream is a stream's peer.
type farStream struct{ net.Conn }

func (f farStream) Send(frame []byte) error {
	_, err := f.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(frame))), frame...))
	return err
}

func (f farStream) Receive(p []byte) (int, error) {
	if err := f.SetReadDeadline(time.Now().Add(patience10)); err != nil {
		return 0, err
	}
	var n [4]byte
	if _, err := io.ReadFull(f, n[:]); err != nil {
		return 0, err
	}
	return io.ReadFull(f, p[:binary.BigEndian.Uint32(n[:])])
}

// farDatagram is a datagram's peer.
type farDatagram struct {
	net.PacketConn
	to net.Addr
}

func (f farDatagram) Send(frame []byte) error {
	_, err := f.WriteTo(frame, f.to)
	return err
}

func (f farDatagram) Receive(p []byte) (int, error) {
	if err := f.SetReadDeadline(time.Now().Add(patience10)); err != nil {
		return 0, err
	}
	n, _, err := f.ReadFrom(p)
	return n, err
}

func openStream(t testing.TB, c StreamConfig) *Stream {
	t.Helper()
	s, err := NewStream(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// accept waits for l's peer.
func accept(t testing.TB, l net.Listener) net.Conn {
	t.Helper()
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func listen(t testing.TB, network, address string) net.Listener {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// dial connects to a server, and returns once that knows it.
func dial(t testing.TB, network, address string, s *Stream) net.Conn {
	t.Helper()
	c, err := net.Dial(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if _, err := s.peer(); err != nil {
		t.Fatal(err)
	}
	return c
}

func freePort(t testing.TB) string {
	l := listen(t, "tcp", "127.0.0.1:0")
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

// opens are the ways to a peer.
var opens = map[string]netdevtest.Open{
	"unix client": func(t testing.TB) (netdev.Port, netdevtest.Far) {
		path := filepath.Join(t.TempDir(), "s")
		l := listen(t, "unix", path)
		return openStream(t, StreamConfig{Address: Address{Network: "unix", Path: path}}), farStream{accept(t, l)}
	},
	"unix server": func(t testing.TB) (netdev.Port, netdevtest.Far) {
		path := filepath.Join(t.TempDir(), "s")
		s := openStream(t, StreamConfig{Address: Address{Network: "unix", Path: path}, Server: true})
		return s, farStream{dial(t, "unix", path, s)}
	},
	"tcp client": func(t testing.TB) (netdev.Port, netdevtest.Far) {
		l := listen(t, "tcp", "127.0.0.1:0")
		host, port, _ := net.SplitHostPort(l.Addr().String())
		return openStream(t, StreamConfig{Address: Address{Network: "inet", Host: host, Port: port}}), farStream{accept(t, l)}
	},
	"tcp server": func(t testing.TB) (netdev.Port, netdevtest.Far) {
		port := freePort(t)
		s := openStream(t, StreamConfig{Address: Address{Network: "inet", Host: "127.0.0.1", Port: port}, Server: true})
		return s, farStream{dial(t, "tcp", "127.0.0.1:"+port, s)}
	},
	"stream descriptor": func(t testing.TB) (netdev.Port, netdevtest.Far) {
		l := listen(t, "tcp", "127.0.0.1:0")
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		f, err := c.(*net.TCPConn).File()
		if err != nil {
			t.Fatal(err)
		}
		_ = c.Close()
		fd := dup(t, f)
		return openStream(t, StreamConfig{Address: Address{Network: "fd", FD: fd}}), farStream{accept(t, l)}
	},
	"unix datagrams": func(t testing.TB) (netdev.Port, netdevtest.Far) {
		dir := t.TempDir()
		a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
		far, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: b, Net: "unixgram"})
		if err != nil {
			t.Fatal(err)
		}
		return openDatagram(t, Address{Network: "unix", Path: a}, Address{Network: "unix", Path: b}),
			farDatagram{closed(t, far), &net.UnixAddr{Name: a, Net: "unixgram"}}
	},
	"udp": func(t testing.TB) (netdev.Port, netdevtest.Far) {
		far, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Fatal(err)
		}
		port := freePort(t)
		_, remote, _ := net.SplitHostPort(far.LocalAddr().String())
		to, err := net.ResolveUDPAddr("udp", "127.0.0.1:"+port)
		if err != nil {
			t.Fatal(err)
		}
		return openDatagram(t, Address{Network: "inet", Host: "127.0.0.1", Port: port}, Address{Network: "inet", Host: "127.0.0.1", Port: remote}),
			farDatagram{closed(t, far), to}
	},
}

func closed(t testing.TB, c net.PacketConn) net.PacketConn {
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func openDatagram(t testing.TB, local, remote Address) *Datagram {
	t.Helper()
	d, err := NewDatagram(local, remote)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	return d
}

func TestPorts(t *testing.T) {
	for name, open := range opens {
		t.Run(name, func(t *testing.T) { netdevtest.Conformance(t, open) })
	}
}

// One peer goes, and the next one comes, at a server and at a client that looks for it.
func TestReconnect(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	frame := netdevtest.Frame([6]byte{2}, [6]byte{4}, 100)
	exchange := func(s *Stream, far farStream) {
		t.Helper()
		if err := far.Send(frame); err != nil {
			t.Fatal(err)
		}
		p := make([]byte, netdev.MaxFrame)
		if n, err := s.Receive(p); err != nil || !bytes.Equal(p[:n], netdevtest.WithHeader(frame)) {
			t.Fatalf("%d bytes, %v", n, err)
		}
		if err := s.Send([][]byte{netdevtest.WithHeader(frame)}); err != nil {
			t.Fatal(err)
		}
		if n, err := far.Receive(p); err != nil || !bytes.Equal(p[:n], frame) {
			t.Fatalf("%d bytes, %v", n, err)
		}
	}
	server := openStream(t, StreamConfig{Address: Address{Network: "unix", Path: path}, Server: true})
	if err := server.Send([][]byte{netdevtest.WithHeader(frame)}); err != nil {
		t.Error("a server without a peer:", err)
	}
	for range 3 {
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		exchange(server, farStream{c})
		_ = c.Close()
	}
	_ = server.Close()
	client := openStream(t, StreamConfig{Address: Address{Network: "unix", Path: path}, Reconnect: 5 * time.Millisecond})
	for range 3 {
		time.AfterFunc(20*time.Millisecond, func() {
			l, err := net.Listen("unix", path)
			if err != nil {
				t.Error(err)
				return
			}
			c, err := l.Accept()
			_ = l.Close()
			if err != nil {
				t.Error(err)
				return
			}
			_ = farStream{c}.Send(frame)
			p := make([]byte, netdev.MaxFrame)
			if n, err := (farStream{c}).Receive(p); err != nil || !bytes.Equal(p[:n], frame) {
				t.Errorf("%d bytes, %v", n, err)
			}
			_ = c.Close()
		})
		p := make([]byte, netdev.MaxFrame)
		if n, err := client.Receive(p); err != nil || !bytes.Equal(p[:n], netdevtest.WithHeader(frame)) {
			t.Fatalf("%d bytes, %v", n, err)
		}
		if err := client.Send([][]byte{netdevtest.WithHeader(frame)}); err != nil {
			t.Fatal(err)
		}
	}
}

// A peer whose lengths make no sense is let go; so is none of the others.
func TestBadLengths(t *testing.T) {
	for _, size := range []uint32{0, netdev.MaxFrame, 1 << 31, 1<<32 - 1} {
		port, far := opens["unix server"](t)
		c := far.(farStream)
		if _, err := c.Write(binary.BigEndian.AppendUint32(nil, size)); err != nil {
			t.Fatal(err)
		}
		go func() { _, _ = port.Receive(make([]byte, netdev.MaxFrame)) }()
		if err := c.SetReadDeadline(time.Now().Add(patience10)); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, io.EOF) && !strings.Contains(err.Error(), "reset") {
			t.Errorf("length %d: %v", size, err)
		}
		_ = port.Close()
	}
}

// A frame that the peer has in part is finished, however long that takes.
func TestAFrameIsWrittenWhole(t *testing.T) {
	port, far := opens["unix client"](t)
	frames := 0
	for range 600 {
		if err := port.Send([][]byte{netdevtest.WithHeader(netdevtest.Frame([6]byte{2}, [6]byte{4}, 60000))}); err != nil {
			t.Fatal(err)
		}
	}
	go func() {
		for range 50 {
			time.Sleep(10 * time.Millisecond)
			_ = port.Send([][]byte{netdevtest.WithHeader(netdevtest.Frame([6]byte{2}, [6]byte{4}, 60))})
		}
		_ = port.Close()
	}()
	p := make([]byte, netdev.MaxFrame)
	for {
		n, err := far.Receive(p)
		if err != nil {
			break
		}
		if frames++; !bytes.Equal(p[:n], netdevtest.Frame([6]byte{2}, [6]byte{4}, n)) {
			t.Fatalf("frame %d of %d bytes is another one", frames, n)
		}
	}
	if frames < 10 {
		t.Errorf("%d frames came", frames)
	}
}

func TestNobodyThere(t *testing.T) {
	dir := t.TempDir()
	for _, c := range []StreamConfig{
		{Address: Address{Network: "unix", Path: filepath.Join(dir, "none")}},
		{Address: Address{Network: "inet", Host: "127.0.0.1", Port: freePort(t)}},
		{Address: Address{Network: "unix", Path: filepath.Join(dir, "none", "none")}, Server: true},
	} {
		if _, err := NewStream(c); err == nil || !strings.Contains(err.Error(), c.Address.String()) {
			t.Errorf("%s: %v", c.Address, err)
		}
	}
}

// dup is a copy of f's descriptor that the port may close.
func dup(t testing.TB, f *os.File) int {
	t.Helper()
	fd, err := dupFD(f)
	_ = f.Close()
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

func dupFD(f *os.File) (int, error) { return unix.Dup(int(f.Fd())) }

// shortListener cannot accept at first, as if there were no descriptors left.
type shortListener struct {
	net.Listener
	failed bool
}

func (l *shortListener) Accept() (net.Conn, error) {
	if !l.failed {
		l.failed = true
		return nil, &net.OpError{Op: "accept", Err: unix.EMFILE}
	}
	return l.Listener.Accept()
}

func TestAServerOutlivesAWantOfDescriptors(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	s := openStream(t, StreamConfig{Address: Address{Network: "unix", Path: path}, Server: true})
	s.listener = &shortListener{Listener: s.listener}
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := (farStream{c}).Send(netdevtest.Frame([6]byte{2}, [6]byte{4}, 100)); err != nil {
		t.Fatal(err)
	}
	if n, err := s.Receive(make([]byte, netdev.MaxFrame)); err != nil || n != netdev.HeaderSize+100 {
		t.Errorf("%d bytes, %v", n, err)
	}
}

// Close does not wait for a host that does not answer.
func TestCloseEndsACall(t *testing.T) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), unix.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	at, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	port := strconv.Itoa(at.(*unix.SockaddrInet4).Port)
	for { // until its backlog is full
		c, err := net.DialTimeout("tcp", "127.0.0.1:"+port, 100*time.Millisecond)
		if err != nil {
			break
		}
		defer c.Close()
	}
	s := openStream(t, StreamConfig{Address: Address{Network: "inet", Host: "127.0.0.1", Port: port}, Reconnect: time.Second})
	ended := make(chan error, 1)
	go func() {
		_, err := s.Receive(make([]byte, netdev.MaxFrame))
		ended <- err
	}()
	time.Sleep(50 * time.Millisecond)
	_ = s.Close()
	select {
	case err := <-ended:
		if !errors.Is(err, io.EOF) {
			t.Error(err)
		}
	case <-time.After(3 * time.Second):
		t.Error("Receive goes on")
	}
}

// A connected UDP socket hears by ICMP what anybody says of its frames, and goes on.
func TestWhatICMPSaysEndsNoPort(t *testing.T) {
	far, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer far.Close()
	near, err := net.DialUDP("udp4", nil, far.LocalAddr().(*net.UDPAddr))
	if err != nil {
		t.Fatal(err)
	}
	own := near.LocalAddr().(*net.UDPAddr)
	f, err := near.File()
	if err != nil {
		t.Fatal(err)
	}
	_ = near.Close()
	d, err := NewDatagram(Address{Network: "fd", FD: dup(t, f)}, Address{})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	raw, err := net.DialIP("ip4:icmp", nil, &net.IPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Skipf("no raw socket may be made here (CAP_NET_RAW): %v", err)
	}
	defer raw.Close()
	// type 3, code 2: protocol unreachable | checksum | 0, 4 | headers of the datagram
	m := []byte{3, 2, 0, 0, 0, 0, 0, 0, 0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0, 127, 0, 0, 1, 127, 0, 0, 1}
	m = binary.BigEndian.AppendUint16(m, uint16(own.Port))
	m = binary.BigEndian.AppendUint16(m, uint16(far.LocalAddr().(*net.UDPAddr).Port))
	m = append(m, 0, 8, 0, 0)
	sum := uint32(0)
	for i := 0; i < len(m); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(m[i:]))
	}
	binary.BigEndian.PutUint16(m[2:], ^uint16(sum%0xffff))
	if _, err := raw.Write(m); err != nil {
		t.Fatal(err)
	}
	frame := netdevtest.Frame([6]byte{2}, [6]byte{4}, 100)
	if _, err := far.WriteToUDP(frame, own); err != nil {
		t.Fatal(err)
	}
	if n, err := d.Receive(make([]byte, netdev.MaxFrame)); err != nil || n != netdev.HeaderSize+100 {
		t.Errorf("%d bytes, %v", n, err)
	}
}
