package user

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"

	"berth/spec"
)

func openFiles(t testing.TB) int {
	t.Helper()
	d, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(d)
}

// random returns size bytes that no two calls have alike.
func random(size int) []byte {
	b := make([]byte, size)
	c := rand.NewChaCha8([32]byte{byte(size), byte(rand.IntN(256))})
	c.Read(b)
	return b
}

// exchangeAll sends b to an echo, and asserts that it comes back, to its end.
func exchangeAll(t testing.TB, c interface {
	io.ReadWriter
	CloseWrite() error
}, b []byte) {
	t.Helper()
	go func() {
		c.Write(b)
		c.CloseWrite()
	}()
	got, err := io.ReadAll(c)
	if err != nil || sha256.Sum256(got) != sha256.Sum256(b) {
		t.Fatalf("%d bytes of %d came back: %v", len(got), len(b), err)
	}
}

// TestTCPToHost: bytes and both ends of a stream pass, with and without offloads.
func TestTCPToHost(t *testing.T) {
	for _, large := range []bool{false, true} {
		t.Run(fmt.Sprintf("large=%v", large), func(t *testing.T) {
			leaks(t)
			n := start(t, nil)
			g := boot(t, n, large)
			c := g.mustDial(t, serve(t, outside(t).String(), echoAll))
			exchangeAll(t, c, random(3<<20))
			c.Close()
		})
	}
}

func TestTCPToHostIPv6(t *testing.T) {
	if l, err := net.Listen("tcp", "[::1]:0"); err != nil {
		t.Skip("this host has no IPv6")
	} else {
		l.Close()
	}
	for _, large := range []bool{false, true} {
		n := start(t, func(c *Config) { c.Loopback = true })
		g := boot(t, n, large)
		at := netip.MustParseAddrPort(serve(t, "::1", echoAll))
		exchangeAll(t, g.mustDial(t, fmt.Sprintf("[fec0::2]:%d", at.Port())), random(1<<20))
	}
}

// TestOffloadsChange: a guest that resets its NIC and takes less then loses no stream.
func TestOffloadsChange(t *testing.T) {
	n := start(t, nil)
	g := boot(t, n, true)
	c := g.mustDial(t, serve(t, outside(t).String(), echoAll))
	go func() {
		for i := range 20 {
			o := n.Offloads()
			if i%3 == 1 {
				o.TSO4, o.TSO6 = false, false
			}
			time.Sleep(2 * time.Millisecond)
			n.SetOffloads(o)
		}
	}()
	g.link.any.Store(true) // what the receiver took up before is nobody's fault
	exchangeAll(t, c, random(8<<20))
}

// TestHalfClose: the host's end may go on when the guest's is done, and the other way round.
func TestHalfClose(t *testing.T) {
	n := start(t, nil)
	g := boot(t, n, false)
	c := g.mustDial(t, serve(t, outside(t).String(), func(c *net.TCPConn) {
		copyAll(io.Discard, c)
		time.Sleep(50 * time.Millisecond)
		c.Write([]byte("late"))
	}))
	c.CloseWrite()
	if got, err := io.ReadAll(c); err != nil || string(got) != "late" {
		t.Errorf("%q, %v", got, err)
	}
	heard := make(chan string, 1)
	c = g.mustDial(t, serve(t, outside(t).String(), func(c *net.TCPConn) {
		c.CloseWrite()
		b, _ := io.ReadAll(c)
		heard <- string(b)
	}))
	if got, err := io.ReadAll(c); err != nil || len(got) > 0 {
		t.Errorf("%q, %v", got, err)
	}
	c.Write([]byte("still"))
	c.Close()
	if got := <-heard; got != "still" {
		t.Errorf("the host heard %q", got)
	}
}

// TestRefusedAndReset: a refusal and a reset of the host's end reach the guest, and the guest's the host.
func TestRefusedAndReset(t *testing.T) {
	n := start(t, nil)
	g := boot(t, n, false)
	l, err := net.Listen("tcp", net.JoinHostPort(outside(t).String(), "0"))
	if err != nil {
		t.Fatal(err)
	}
	nobody := l.Addr().String()
	l.Close()
	g.refused(t, nobody)

	c := g.mustDial(t, serve(t, outside(t).String(), func(c *net.TCPConn) {
		c.Read(make([]byte, 1))
		c.SetLinger(0)
	}))
	c.Write([]byte("x"))
	if _, err := c.Read(make([]byte, 1)); err == nil || !strings.Contains(err.Error(), "reset") {
		t.Errorf("the host's reset came as %v", err)
	}

	failed := make(chan error, 1)
	a, proto := full(serve(t, outside(t).String(), func(c *net.TCPConn) {
		_, err := c.Read(make([]byte, 1))
		failed <- err
	}))
	ep := g.endpoint(t, a, proto)
	ep.Abort()
	if err := <-failed; err == nil || !strings.Contains(err.Error(), "reset") {
		t.Errorf("the guest's reset came as %v", err)
	}
}

// TestResetOfAFullStream: a guest's reset ends a stream whose host's end takes nothing.
func TestResetOfAFullStream(t *testing.T) {
	leaks(t)
	n := start(t, nil)
	g := boot(t, n, true)
	stuck := make(chan struct{})
	a, proto := full(serve(t, outside(t).String(), func(c *net.TCPConn) { <-stuck }))
	ep := g.endpoint(t, a, proto)
	for range 64 { // more than all buffers hold
		ep.Write(bytes.NewReader(make([]byte, 1<<20)), writeOptions)
		time.Sleep(time.Millisecond)
	}
	ep.Abort()
	within(t, 5*time.Second, "the stream ends", func() bool { return len(n.Flows()) == 0 })
	close(stuck)
}

// within waits until f holds.
func within(t testing.TB, d time.Duration, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(d); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("after %v: not yet: %s", d, what)
		}
	}
}

// TestLoopbackRule: the guest gets to nothing that only this host may, unless allowed.
func TestLoopbackRule(t *testing.T) {
	at := netip.MustParseAddrPort(serve(t, "127.0.0.1", func(c *net.TCPConn) { c.Write([]byte("secret")) }))
	all := netip.MustParseAddrPort(serve(t, "0.0.0.0", func(c *net.TCPConn) { c.Write([]byte("secret")) }))
	n := start(t, nil)
	g := boot(t, n, false)
	for _, a := range []string{"10.0.2.2", "10.0.2.3", "10.0.2.77", "[fec0::2]", "[fec0::3]", "[fec0::77]",
		"0.0.0.1", "169.254.169.254", "240.0.0.1", "[::ffff:127.0.0.1]", "[::127.0.0.1]", "[fd00:ec2::254]"} {
		for _, port := range []uint16{at.Port(), all.Port()} {
			if c, err := g.dial(fmt.Sprintf("%s:%d", a, port), time.Second/2); err == nil {
				c.Close()
				t.Errorf("%s: the guest got there", a)
			}
		}
	}
	// A guest's stack does not send to some of these; ours decides by itself.
	for _, a := range []string{"127.0.0.1", "127.1.2.3", "0.0.0.0", "255.255.255.255", "224.0.0.1", "169.254.0.1", "::", "::1", "fe80::1", "ff02::1", "::ffff:10.0.0.1"} {
		if k := n.target(netip.AddrPortFrom(netip.MustParseAddr(a), 80)).kind; k != nowhere {
			t.Errorf("%s: %v; want nowhere", a, k)
		}
	}
	n = start(t, func(c *Config) { c.Loopback = true })
	g = boot(t, n, false)
	if b, err := io.ReadAll(g.mustDial(t, fmt.Sprintf("10.0.2.2:%d", at.Port()))); string(b) != "secret" {
		t.Errorf("with loopback: %q, %v", b, err)
	}
}

// TestRestrict: nothing but DHCP and forwards works.
func TestRestrict(t *testing.T) {
	ip := outside(t).String()
	hello := func(c *net.TCPConn) { c.Write([]byte("hello")) }
	open := serve(t, ip, hello)
	asked := make(chan struct{}, 8)
	names := nameServer(t, asked)
	heard := packets(t, ip)
	n := start(t, func(c *Config) {
		c.Restrict, c.Loopback = true, true
		c.Resolvers = func() []netip.AddrPort { return []netip.AddrPort{names} }
		c.HostForwards = []spec.HostForward{hostFwd(t, "tcp:127.0.0.1:0-:22")}
		c.GuestForwards = guestFwds(t, "tcp:10.0.2.100:7-tcp:"+open)
	})
	g := boot(t, n, false)
	g.refused(t, open)
	g.refused(t, "10.0.2.2:"+port(open))
	g.refused(t, "10.0.2.3:53")
	u := g.udp(t, heard.LocalAddr().String())
	u.Write([]byte("x"))
	d := g.udp(t, "10.0.2.3:53")
	d.Write(question)
	if b, err := io.ReadAll(g.mustDial(t, "10.0.2.100:7")); string(b) != "hello" {
		t.Errorf("guestfwd: %q, %v", b, err)
	}
	answer(g.listen(t, "10.0.2.15:22"), "ssh")
	if got := read(t, "tcp", source(n, 0)); got != "ssh" {
		t.Errorf("hostfwd: %q", got)
	}
	heard.SetReadDeadline(time.Now().Add(time.Second / 4))
	if k, _, err := heard.ReadFrom(make([]byte, 9)); err == nil {
		t.Errorf("a datagram of %d bytes got out", k)
	}
	if len(asked) > 0 {
		t.Error("a query got out")
	}
	_, offer := ask(t, start(t, func(c *Config) { c.Restrict = true }), dhcpMessage(guestMAC, dhcpDiscover))
	if len(offer[optRouter]) > 0 || len(offer[optDNS]) > 0 || len(offer[optMask]) != 4 {
		t.Errorf("DHCP says %v", offer)
	}
}

func port(addr string) string {
	_, p, _ := net.SplitHostPort(addr)
	return p
}

func hostFwd(t testing.TB, s string) spec.HostForward {
	t.Helper()
	f, err := spec.ParseHostForward(s)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// guestFwds are forwards as they are typed.
func guestFwds(t testing.TB, list ...string) []spec.GuestForward {
	t.Helper()
	u := spec.UserNet{GuestFwd: list}
	_, out, err := u.Forwards(layout(t))
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// source is the i-th address at which forwards listen.
func source(n *Network, i int) string {
	var all []string
	for _, f := range n.Flows() {
		if f.State == "HOST_FORWARD" && !strings.HasPrefix(f.Source, "/") {
			all = append(all, f.Source)
		}
	}
	return all[i]
}

// answer has a server of the guest's say s to everybody.
func answer(l *gonet.TCPListener, s string) {
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Write([]byte(s))
			c.Close()
		}
	}()
}

func read(t testing.TB, network, addr string) string {
	t.Helper()
	c, err := net.Dial(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(5 * time.Second))
	b, err := io.ReadAll(c)
	if err != nil {
		t.Errorf("%s: %v", addr, err)
	}
	return string(b)
}

// packets is a UDP socket of the host's.
func packets(t testing.TB, ip string) net.PacketConn {
	t.Helper()
	c, err := net.ListenPacket("udp", net.JoinHostPort(ip, "0"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// TestHostForward: TCP, UDP and Unix sockets of the host's lead to the guest, by the address of
// who comes; forwards come and go while the network runs.
func TestHostForward(t *testing.T) {
	leaks(t)
	path := filepath.Join(t.TempDir(), "s")
	n := start(t, func(c *Config) {
		c.HostForwards = []spec.HostForward{hostFwd(t, "tcp:127.0.0.1:0-:80"), hostFwd(t, "unix:"+path+"-10.0.2.15:80")}
	})
	g := boot(t, n, true)
	from := make(chan string, 8)
	l := g.listen(t, "10.0.2.15:80")
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			host, _, _ := net.SplitHostPort(c.RemoteAddr().String())
			from <- host
			c.Write([]byte("web"))
			c.Close()
		}
	}()
	at := source(n, 0)
	if got := read(t, "tcp", at); got != "web" {
		t.Errorf("tcp: %q", got)
	}
	if got := read(t, "unix", path); got != "web" {
		t.Errorf("unix: %q", got)
	}
	for range 2 {
		if got := <-from; got != "10.0.2.2" {
			t.Errorf("seen from %s; want the host's address", got)
		}
	}
	ip := outside(t)
	f := hostFwd(t, fmt.Sprintf("tcp:%s:0-:80", ip))
	if err := n.Forward(f); err != nil {
		t.Fatal(err)
	}
	other := ""
	for _, f := range n.Flows() {
		if f.State == "HOST_FORWARD" && strings.HasPrefix(f.Source, ip.String()) {
			other = f.Source
		}
	}
	if got := read(t, "tcp", other); got != "web" {
		t.Errorf("added: %q", got)
	}
	if got := <-from; got != ip.String() {
		t.Errorf("seen from %s; want %s", got, ip)
	}
	if err := n.Forward(hostFwd(t, "tcp:"+other+"-:80")); err == nil || !strings.Contains(err.Error(), "address already in use") {
		t.Errorf("twice: %v", err)
	}
	gone := hostFwd(t, "tcp:"+other+"-:80")
	if err := n.Unforward(gone); err != nil {
		t.Error(err)
	}
	if _, err := net.Dial("tcp", other); err == nil {
		t.Error("a forward that was removed listens")
	}
	if err := n.Unforward(gone); err == nil || !strings.Contains(err.Error(), "there is none") {
		t.Errorf("removed twice: %v", err)
	}
	l.Close()
	l.Shutdown()
}

func TestHostForwardIPv6(t *testing.T) {
	if l, err := net.Listen("tcp", "[::1]:0"); err != nil {
		t.Skip("this host has no IPv6")
	} else {
		l.Close()
	}
	n := start(t, func(c *Config) { c.HostForwards = []spec.HostForward{hostFwd(t, "tcp:[::1]:0-[fec0::15]:80")} })
	g := boot(t, n, true)
	answer(g.listen(t, "[fec0::15]:80"), "six")
	if got := read(t, "tcp", source(n, 0)); got != "six" {
		t.Errorf("%q", got)
	}
}

// TestHostForwardRefused: when nobody in the guest listens, who came is told.
func TestHostForwardRefused(t *testing.T) {
	n := start(t, func(c *Config) { c.HostForwards = []spec.HostForward{hostFwd(t, "tcp:127.0.0.1:0-:81")} })
	boot(t, n, false)
	c, err := net.Dial("tcp", source(n, 0))
	if err == nil {
		defer c.Close()
		c.SetDeadline(time.Now().Add(5 * time.Second))
		_, err = c.Read(make([]byte, 1))
	}
	if err == nil || !strings.Contains(err.Error(), "reset") {
		t.Errorf("%v; want a reset", err)
	}
}

func TestHostForwardUDP(t *testing.T) {
	n := start(t, func(c *Config) { c.HostForwards = []spec.HostForward{hostFwd(t, "udp:127.0.0.1:0-:9")} })
	g := boot(t, n, false)
	a, proto := full("10.0.2.15:9")
	s, err := gonet.DialUDP(g.Stack, &a, nil, proto)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		b := make([]byte, 65536)
		for {
			k, from, err := s.ReadFrom(b)
			if err != nil {
				return
			}
			s.WriteTo(append([]byte(from.(*net.UDPAddr).IP.String()+" "), b[:k]...), from)
		}
	}()
	for range 2 { // two peers
		c, err := net.Dial("udp", source(n, 0))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(5 * time.Second))
		for _, size := range []int{1, 1400, 9000} { // the last one in fragments
			b := random(size)
			c.Write(b)
			got := make([]byte, 65536)
			k, err := c.Read(got)
			if want := append([]byte("10.0.2.2 "), b...); err != nil || !bytes.Equal(got[:k], want) {
				t.Errorf("%d bytes: %d came, %v", size, k, err)
			}
		}
	}
	s.Close()
}

// TestGuestForward: a way out to TCP, a Unix socket and a command.
func TestGuestForward(t *testing.T) {
	leaks(t)
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
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
	t.Cleanup(func() { l.Close() })
	n := start(t, func(c *Config) {
		c.GuestForwards = guestFwds(t, "tcp:10.0.2.100:1-tcp:"+serve(t, "127.0.0.1", echoAll), "tcp:10.0.2.100:2-unix:"+path,
			"tcp::3-cmd:cat -u", "tcp:[fec0::64]:4-cmd:cat", "tcp:10.0.2.100:5-cmd:/nonexistent/program")
	})
	g := boot(t, n, true)
	for _, a := range []string{"10.0.2.100:1", "10.0.2.100:2", "10.0.2.4:3", "[fec0::64]:4"} {
		exchangeAll(t, g.mustDial(t, a), random(300<<10))
	}
	g.refused(t, "10.0.2.100:5")
	g.refused(t, "10.0.2.100:6")
}

// A guest cannot have more commands than streams by leaving those that do not end.
func TestACommandThatStaysHasAPlace(t *testing.T) {
	n := start(t, nil)
	places := func() int {
		n.streams.mu.Lock()
		defer n.streams.mu.Unlock()
		return n.streams.count
	}
	for range 3 {
		c, err := n.startCommand("sleep 1000")
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
	}
	if k := places(); k != 3 {
		t.Errorf("3 commands have %d places", k)
	}
	if _, err := n.startCommand("/nowhere"); err == nil || places() != 3 {
		t.Errorf("%v; %d places", err, places())
	}
	if err := n.Close(); err != nil || places() != 0 {
		t.Errorf("%v; %d places in the end", err, places())
	}
}
