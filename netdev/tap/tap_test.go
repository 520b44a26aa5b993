package tap

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"berth/netdev"
	"berth/netdev/netdevtest"
)

// enter puts the test into a network namespace of its own, which ends with it.
func enter(t testing.TB) {
	t.Helper()
	if _, err := os.Stat("/dev/net/tun"); err != nil {
		t.Skip("the host has no /dev/net/tun")
	}
	runtime.LockOSThread() // the thread ends with the test's goroutine
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Skipf("no network namespace may be made here (CAP_SYS_ADMIN): %v", err)
	}
}

// wire is a raw socket on an interface: what is sent there the tap receives.
type wire struct{ fd int }

func newWire(t testing.TB, name string) wire {
	t.Helper()
	l, err := netlink.LinkByName(name)
	if err != nil {
		t.Fatal(err)
	}
	const everything = unix.ETH_P_ALL>>8 | unix.ETH_P_ALL&0xff<<8 // network byte order
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, everything)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	err = errors.Join(
		unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: everything, Ifindex: l.Attrs().Index}),
		unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 10}),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 4<<20),
	)
	if err != nil {
		t.Fatal(err)
	}
	return wire{fd}
}

func (w wire) Send(frame []byte) error {
	_, err := unix.Write(w.fd, frame)
	return err
}

func (w wire) Receive(p []byte) (int, error) { return unix.Read(w.fd, p) }

func open(t testing.TB, c Config) *Tap {
	t.Helper()
	p, err := Open(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	return p
}

// persistent makes an interface that is there before and after, which is up.
func persistent(t testing.TB, name string, flags netlink.TuntapFlag) netlink.Link {
	t.Helper()
	l := &netlink.Tuntap{LinkAttrs: netlink.LinkAttrs{Name: name}, Mode: netlink.TUNTAP_MODE_TAP, Flags: flags | netlink.TUNTAP_NO_PI, Queues: 1}
	if err := netlink.LinkAdd(l); err != nil {
		t.Fatal(err)
	}
	for _, f := range l.Fds {
		_ = f.Close()
	}
	if err := netlink.LinkSetUp(l); err != nil {
		t.Fatal(err)
	}
	return l
}

func TestPorts(t *testing.T) {
	for name, how := range map[string]func(testing.TB) *Tap{
		"made":       func(t testing.TB) *Tap { return open(t, Config{Name: "made"}) },
		"no name":    func(t testing.TB) *Tap { return open(t, Config{}) },
		"two queues": func(t testing.TB) *Tap { return open(t, Config{Queues: 2}) },
		"there": func(t testing.TB) *Tap {
			persistent(t, "there", 0)
			return open(t, Config{Name: "there"})
		},
		"there with queues": func(t testing.TB) *Tap {
			persistent(t, "there", netlink.TUNTAP_MULTI_QUEUE)
			return open(t, Config{Name: "there"})
		},
		"descriptor": func(t testing.TB) *Tap { return open(t, Config{FDs: []int{descriptor(t, tapFlags)}}) },
		"descriptor without headers": func(t testing.TB) *Tap {
			return open(t, Config{FDs: []int{descriptor(t, unix.IFF_TAP|unix.IFF_NO_PI)}})
		},
	} {
		t.Run(name, func(t *testing.T) {
			netdevtest.Conformance(t, func(t testing.TB) (netdev.Port, netdevtest.Far) {
				enter(t)
				p := how(t)
				if len(p.queues) > 1 {
					if err := p.Use(1); err != nil {
						t.Fatal(err)
					}
				}
				return p, newWire(t, p.Name())
			})
		})
	}
}

// descriptor is that of a tap that somebody else has made and brought up.
func descriptor(t testing.TB, flags uint16) int {
	t.Helper()
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	r, _ := unix.NewIfreq("given%d")
	r.SetUint16(flags)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, r); err != nil {
		t.Fatal(err)
	}
	l, err := netlink.LinkByName(r.Name())
	if err == nil {
		err = netlink.LinkSetUp(l)
	}
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

// udp is an IPv4 UDP frame with a checksum that the other end is to finish.
func udp(payload int) (frame []byte, header []byte) {
	f := append([]byte{2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0}, make([]byte, 28+payload)...)
	ip := f[14:]
	ip[0], ip[8], ip[9] = 0x45, 64, 17
	binary.BigEndian.PutUint16(ip[2:], uint16(28+payload))
	copy(ip[12:], []byte{10, 0, 0, 1, 10, 0, 0, 2})
	binary.BigEndian.PutUint16(ip[10:], ^sum(ip[:20], 0))
	u := ip[20:]
	binary.BigEndian.PutUint16(u[0:], 1000)
	binary.BigEndian.PutUint16(u[2:], 2000)
	binary.BigEndian.PutUint16(u[4:], uint16(8+payload))
	for i := range payload {
		u[8+i] = byte(i)
	}
	binary.BigEndian.PutUint16(u[6:], sum(ip[12:20], 17+uint32(8+payload)))
	return f, []byte{1, 0, 0, 0, 0, 0, 34, 0, 6, 0}
}

func sum(b []byte, with uint32) uint16 {
	for i := 0; i+1 < len(b); i += 2 {
		with += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for with>>16 != 0 {
		with = with>>16 + with&0xffff
	}
	return uint16(with)
}

// The kernel finishes checksums for a guest that cannot, and leaves them to one that can.
func TestOffloads(t *testing.T) {
	enter(t)
	p := open(t, Config{Name: "t0"})
	o := p.Offloads()
	t.Logf("the host can %+v", o)
	if !o.Checksum || !o.TSO4 || !o.TSO6 {
		t.Fatalf("the host can only %+v", o)
	}
	// Frames between two taps of a bridge keep what the first one leaves to do.
	bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br0"}}
	if err := errors.Join(netlink.LinkAdd(bridge), netlink.LinkSetUp(bridge)); err != nil {
		t.Fatal(err)
	}
	a, b := open(t, Config{Bridge: "br0", GuestMAC: [6]byte{2, 0, 0, 0, 0, 1}}), open(t, Config{Bridge: "br0", GuestMAC: [6]byte{2, 0, 0, 0, 0, 2}})
	frame, header := udp(100)
	for _, able := range []bool{false, true} {
		if err := b.SetOffloads(netdev.Offloads{Checksum: able}); err != nil {
			t.Fatal(err)
		}
		got := exchange(t, a, b, netdevtest.WithHeader(frame, header...))
		left := got[0]&1 != 0
		udp := got[netdev.HeaderSize+34:]
		complete := sum(udp, uint32(sum(got[netdev.HeaderSize+26:][:8], 17+108))) == 0xffff
		if left != able || complete == able {
			t.Errorf("a guest that can (%v): header % x, complete %v", able, got[:netdev.HeaderSize], complete)
		}
	}
}

// exchange sends a frame until it comes: a bridge begins to forward when it is ready.
func exchange(t *testing.T, from, to netdev.Port, frame []byte) []byte {
	t.Helper()
	done := make(chan []byte)
	go func() {
		for {
			p := make([]byte, netdev.MaxFrame)
			n, err := to.Receive(p)
			if err != nil {
				t.Error(err)
				close(done)
				return
			}
			if bytes.Contains(p[:n], frame[netdev.HeaderSize:][:12]) {
				done <- p[:n]
				return
			}
		}
	}()
	for range 500 {
		if err := from.Send([][]byte{bytes.Clone(frame)}); err != nil {
			t.Fatal(err)
		}
		select {
		case p := <-done:
			return p
		case <-time.After(20 * time.Millisecond):
		}
	}
	t.Fatal("no frame came")
	return nil
}

// A bridge's own address, MTU and state are the same before, while, and after it has a
// port of ours; the port is gone with the NIC.
func TestABridgeStaysAsItIs(t *testing.T) {
	enter(t)
	bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br0"}}
	other := persistent(t, "eth9", 0)
	if err := errors.Join(netlink.LinkSetMTU(other, 9000), netlink.LinkSetHardwareAddr(other, net.HardwareAddr{2, 0, 0, 0, 0, 0x77})); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(netlink.LinkAdd(bridge), netlink.LinkSetMaster(other, bridge), netlink.LinkSetUp(other), netlink.LinkSetUp(bridge)); err != nil {
		t.Fatal(err)
	}
	look := func() netlink.LinkAttrs {
		l, err := netlink.LinkByName("br0")
		if err != nil {
			t.Fatal(err)
		}
		a := *l.Attrs()
		return netlink.LinkAttrs{Name: a.Name, MTU: a.MTU, HardwareAddr: a.HardwareAddr, Flags: a.Flags, Index: a.Index, TxQLen: a.TxQLen}
	}
	before := look()
	if before.MTU != 9000 || before.HardwareAddr.String() != "02:00:00:00:00:77" {
		t.Fatalf("%+v", before)
	}
	p, err := Open(Config{Bridge: "br0", GuestMAC: [6]byte{0x52, 0x54, 0, 0, 0, 1}})
	if err != nil {
		t.Fatal(err)
	}
	if while := look(); !equal(before, while) {
		t.Errorf("%+v became %+v", before, while)
	}
	l, err := netlink.LinkByName(p.Name())
	if err != nil || l.Attrs().MasterIndex != before.Index || l.Attrs().MTU != 9000 || l.Attrs().HardwareAddr.String() != "fe:54:00:00:00:01" {
		t.Errorf("the port: %+v, %v", l, err)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if after := look(); !equal(before, after) {
		t.Errorf("%+v became %+v", before, after)
	}
	if _, err := netlink.LinkByName(p.Name()); err == nil {
		t.Error("the port is still there")
	}
}

func equal(a, b netlink.LinkAttrs) bool {
	return a.MTU == b.MTU && a.HardwareAddr.String() == b.HardwareAddr.String() && a.Flags == b.Flags && a.TxQLen == b.TxQLen
}

// An interface that its owner has made is left as it was.
func TestAnInterfaceThatIsThereStays(t *testing.T) {
	enter(t)
	before := persistent(t, "t0", 0)
	if err := open(t, Config{Name: "t0", MTU: 1400}).Close(); err != nil {
		t.Fatal(err)
	}
	after, err := netlink.LinkByName("t0")
	if err != nil || after.Attrs().MTU != 1500 || after.Attrs().HardwareAddr.String() != before.Attrs().HardwareAddr.String() && before.Attrs().HardwareAddr != nil {
		t.Errorf("%+v, %v", after, err)
	}
}

// Queues that are not used carry nothing, and what waits in Receive stays there until
// they are used again.
func TestQueues(t *testing.T) {
	enter(t)
	p := open(t, Config{Name: "t0", Queues: 3})
	w := newWire(t, "t0")
	came := make(chan int, 1000)
	for i, q := range p.Ports() {
		go func() {
			b := make([]byte, netdev.MaxFrame)
			for {
				n, err := q.Receive(b)
				if err != nil {
					return
				}
				if n == netdev.HeaderSize+300 {
					came <- i
				}
			}
		}()
	}
	// flows sends frames of many flows and says which queues they came by.
	flows := func() map[int]bool {
		by := map[int]bool{}
		for flow := range byte(60) {
			f, _ := udp(300 - 42)
			f[26], f[30] = 10, flow
			if err := w.Send(f); err != nil {
				t.Fatal(err)
			}
		}
		for range 60 {
			select {
			case i := <-came:
				by[i] = true
			case <-time.After(5 * time.Second):
				t.Fatal("a frame is missing")
			}
		}
		return by
	}
	for _, n := range []int{1, 3, 2, 3, 1} {
		if err := p.Use(n); err != nil {
			t.Fatal(err)
		}
		by := flows()
		if len(by) > n || n > 1 && len(by) < 2 {
			t.Errorf("%d queues are used, and frames came by %v", n, by)
		}
		for i := range by {
			if i >= n {
				t.Errorf("frames came by queue %d of %d", i, n)
			}
		}
		for _, q := range p.Ports() {
			if err := q.Send([][]byte{netdevtest.WithHeader(netdevtest.Frame([6]byte{2}, [6]byte{2}, 60))}); err != nil {
				t.Error(err)
			}
		}
	}
}

func TestRefusals(t *testing.T) {
	enter(t)
	persistent(t, "one", 0)
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth9"}, PeerName: "eth8"}); err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br0"}}); err != nil {
		t.Fatal(err)
	}
	open(t, Config{Name: "taken"})
	for want, c := range map[string]Config{
		"tap one: 2 queues: the interface was made for one": {Name: "one", Queues: 2},
		"is no tap":                {Name: "eth9"},
		"another process has it":   {Name: "taken"},
		"bridge br7":               {Bridge: "br7"},
		"eth9 is no bridge":        {Bridge: "eth9"},
		"mtu 9000 is more than br": {Bridge: "br0", MTU: 9000},
		"is not that of a tap":     {FDs: []int{devNull(t)}},
	} {
		p, err := Open(c)
		if err == nil {
			_ = p.Close()
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v; want %q", c, err, want)
		}
	}
	if _, err := netlink.LinkByName("tap0"); err == nil {
		t.Error("an interface is left of a port that was not made")
	}
}

func devNull(t *testing.T) int {
	fd, err := unix.Open(os.DevNull, unix.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

// Who was told that the host does not use a queue, and asks when it does again, goes on;
// when the interface is gone it does not.
func TestAQueueUsedAgainAtOnce(t *testing.T) {
	enter(t)
	p := open(t, Config{Name: "t0", Queues: 2})
	for n := range 2 {
		if err := p.Use(1 + n); err != nil {
			t.Fatal(err)
		}
	}
	if !p.queues[1].resting() {
		t.Error("a queue that is used again is given up")
	}
	l, err := netlink.LinkByName("t0")
	if err == nil {
		err = netlink.LinkDel(l)
	}
	if err != nil {
		t.Fatal(err)
	}
	if p.queues[1].resting() {
		t.Error("a queue of an interface that is gone is not given up")
	}
}

// Descriptors that a tap is not made of are closed, the second like the first.
func TestDescriptorsOfNoTapAreClosed(t *testing.T) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(Config{FDs: fds[:]}); err == nil {
		t.Fatal("a pipe is a tap")
	}
	for _, fd := range fds {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); !errors.Is(err, unix.EBADF) {
			t.Errorf("descriptor %d: %v", fd, err)
		}
	}
}
