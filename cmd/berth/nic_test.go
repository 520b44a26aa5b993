package main

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"berth/qmp"
	"berth/tests/guest"
	"berth/tests/process"
)

// enterNamespace puts the test, and what it starts, into a network namespace of its own.
func enterNamespace(t *testing.T) {
	t.Helper()
	if _, err := os.Stat("/dev/net/tun"); err != nil {
		t.Skip("the host has no /dev/net/tun")
	}
	runtime.LockOSThread() // the thread ends with the test
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Skipf("no network namespace may be made here (CAP_SYS_ADMIN): %v", err)
	}
}

// typedGuest is a guest on soft that does what is typed.
func typedGuest(t *testing.T, flags ...string) *softGuest {
	t.Helper()
	g := startSoft(t, guest.Need(t).Initrd, "typed", flags...)
	return g
}

// ready waits until the guest listens.
func (g *softGuest) ready(t *testing.T) {
	t.Helper()
	if _, _, err := g.hand.Expect(`BERTH-TYPED\r\n`, patience); err != nil {
		t.Fatalf("%v\n%s%s", err, g.hand.Said(), g.errs.String())
	}
}

// run has the guest do something, and returns what it says to that.
func (g *softGuest) run(t *testing.T, format string, args ...any) string {
	t.Helper()
	out, err := g.hand.Run(fmt.Sprintf(format, args...), patience)
	if err != nil {
		t.Fatalf("%v\n%s%s", err, g.hand.Said(), g.errs.String())
	}
	return strings.TrimSpace(out)
}

// leave powers the guest off.
func (g *softGuest) leave(t *testing.T) float64 {
	t.Helper()
	if err := g.hand.Type("exit\n"); err != nil {
		t.Fatal(err)
	}
	return g.end(t)
}

// configure gives one of the guest's interfaces an address.
func (g *softGuest) configure(t *testing.T, nic, address string) {
	t.Helper()
	g.run(t, "ip link set %s up && ip addr add %s dev %s", nic, address, nic)
}

// reaches pings address until it answers, which bridges and links may take a while for.
func (g *softGuest) reaches(t *testing.T, address string) {
	t.Helper()
	g.run(t, "for i in $(seq 30); do ping -c 1 -W 1 %s >/dev/null && break; done; ping -c 3 %s", address, address)
}

// fetches downloads url and checks its sum.
func (g *softGuest) fetches(t *testing.T, url, sum string) {
	t.Helper()
	if got := g.run(t, "wget -q -O - %s | sha256sum | cut -c 1-64", url); got != sum {
		t.Errorf("%s has the sum %s, want %s", url, got, sum)
	}
}

// serves makes a file of a megabyte at the guest's port 80 and returns its sum.
func (g *softGuest) serves(t *testing.T) (sum string) {
	t.Helper()
	return g.run(t, "mkdir /tmp/www && head -c 1000000 /dev/urandom >/tmp/www/file && httpd -p 80 -h /tmp/www && sha256sum /tmp/www/file | cut -c 1-64")
}

// sizes are how many bytes the packets of one of the guest's interfaces have on average.
func (g *softGuest) sizes(t *testing.T, nic string) (received, sent float64) {
	t.Helper()
	out := g.run(t, "cd /sys/class/net/%s/statistics && cat rx_bytes rx_packets tx_bytes tx_packets; cd /", nic)
	var n []float64
	for _, f := range strings.Fields(out) {
		v, err := strconv.ParseFloat(f, 64)
		if err != nil {
			t.Fatal(err)
		}
		n = append(n, v)
	}
	if len(n) != 4 {
		t.Fatalf("statistics %q", out)
	}
	return n[0] / max(n[1], 1), n[2] / max(n[3], 1)
}

// hostServer serves size random bytes at address, and returns their sum.
func hostServer(t *testing.T, address string, size int) (sum string) {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	return serveOn(t, l, size)
}

// serveOn is hostServer on a socket that listens.
func serveOn(t *testing.T, l net.Listener, size int) (sum string) {
	t.Helper()
	b := make([]byte, size)
	if _, err := rand.Read(b); err != nil {
		t.Fatal(err)
	}
	s := &http.Server{ReadHeaderTimeout: patience, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(b))
	})}
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { _ = s.Close() })
	h := sha256.Sum256(b)
	return hex.EncodeToString(h[:])
}

// hostFetches downloads from a guest, on this thread and so from its namespace.
func hostFetches(t *testing.T, address string) (sum string, size int) {
	t.Helper()
	c, err := net.DialTimeout("tcp", address, patience)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(c, "GET /file HTTP/1.0\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	_, body, _ := bytes.Cut(b, []byte("\r\n\r\n"))
	h := sha256.Sum256(body)
	return hex.EncodeToString(h[:]), len(body)
}

// hostPings has the host ping a guest.
func hostPings(t *testing.T, address string) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMP)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 500000}); err != nil {
		t.Fatal(err)
	}
	to := &unix.SockaddrInet4{Addr: [4]byte(net.ParseIP(address).To4())}
	request := []byte{8, 0, 0, 0, 0x12, 0x34, 0, 1, 'b', 'e', 'r', 't', 'h', '.', '.', '.'}
	sum := uint32(0)
	for i := 0; i < len(request); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(request[i:]))
	}
	binary.BigEndian.PutUint16(request[2:], ^uint16(sum>>16+sum&0xffff))
	for range 30 {
		if err := unix.Sendto(fd, request, 0, to); err != nil {
			t.Fatal(err)
		}
		answer := make([]byte, 200)
		for {
			n, _, err := unix.Recvfrom(fd, answer, 0)
			if err != nil {
				break
			}
			if n == 20+len(request) && answer[20] == 0 && bytes.Equal(answer[24:n], request[4:]) {
				return
			}
		}
	}
	t.Errorf("%s answers no ping", address)
}

// hostAddress gives one of the host's interfaces an address.
func hostAddress(t *testing.T, nic, address string) {
	t.Helper()
	l, err := netlink.LinkByName(nic)
	if err != nil {
		t.Fatal(err)
	}
	a, err := netlink.ParseAddr(address)
	if err == nil {
		err = errors.Join(netlink.AddrAdd(l, a), netlink.LinkSetUp(l))
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestHostNetworksOnSoft has one guest on a tap of two queues, and both it and a second
// one on a bridge and at either end of a pair of datagram sockets: pings both ways,
// downloads both ways with their sums, with the segmentation left to the host.
func TestHostNetworksOnSoft(t *testing.T) {
	enterNamespace(t)
	if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br0"}}); err != nil {
		t.Skipf("no bridge may be made here: %v", err)
	}
	hostAddress(t, "lo", "127.0.0.1/8")
	hostAddress(t, "br0", "10.2.0.254/24")
	dir := t.TempDir()
	pair := func(local, remote string) string {
		return "dgram,local.path=" + filepath.Join(dir, local) + ",remote.path=" + filepath.Join(dir, remote)
	}
	capture := filepath.Join(dir, "a.pcap")
	a := typedGuest(t, "--name", "a", "--cpus", "2", "--nic", "tap,ifname=t0,queues=2,pcap="+capture, "--nic", "bridge,br=br0", "--nic", pair("a", "b"))
	b := typedGuest(t, "--name", "b", "--nic", "bridge,br=br0", "--nic", pair("b", "a"), "--machine", "microvm")
	a.ready(t)
	b.ready(t)

	hostAddress(t, "t0", "10.1.0.254/24")
	a.configure(t, "eth0", "10.1.0.1/24")
	a.reaches(t, "10.1.0.254")
	hostPings(t, "10.1.0.1")
	a.fetches(t, "http://10.1.0.254:8000/", hostServer(t, "10.1.0.254:8000", 8<<20))
	want := a.serves(t)
	if got, n := hostFetches(t, "10.1.0.1:80"); got != want {
		t.Errorf("%d bytes from the guest have the sum %s, want %s", n, got, want)
	}
	if in, out := a.sizes(t, "eth0"); in < 3000 || out < 3000 {
		t.Errorf("packets have %.0f bytes in and %.0f out on average: nothing is left to the host", in, out)
	}
	if n := strings.Count(a.run(t, "grep virtio /proc/interrupts"), "input"); n < 4 { // two pairs, and one of each other NIC
		t.Errorf("%d receive queues have interrupts", n)
	}

	a.configure(t, "eth1", "10.2.0.1/24")
	b.configure(t, "eth0", "10.2.0.2/24")
	b.reaches(t, "10.2.0.254")
	hostPings(t, "10.2.0.2")
	b.reaches(t, "10.2.0.1")
	b.fetches(t, "http://10.2.0.1/file", want)
	b.fetches(t, "http://10.2.0.254:8000/", hostServer(t, "10.2.0.254:8000", 1<<20))
	if in, _ := b.sizes(t, "eth0"); in < 3000 {
		t.Errorf("packets have %.0f bytes in on average: nothing is left to the other guest", in)
	}

	a.configure(t, "eth2", "10.3.0.1/24")
	b.configure(t, "eth1", "10.3.0.2/24")
	b.reaches(t, "10.3.0.1")
	b.fetches(t, "http://10.3.0.1/file", want)
	t.Logf("%.1f and %.1f CPU-seconds", a.leave(t), b.leave(t))
	if _, err := netlink.LinkByName("t0"); err == nil {
		t.Error("the tap is there after its VM")
	}
	if st, err := os.Stat(capture); err != nil || st.Size() < 8<<20 {
		t.Errorf("the capture: %v, %v", st, err)
	}
}

// TestAPeerInQEMU has a guest of ours and one of QEMU's at either end of a stream, and of
// a pair of UDP sockets.
func TestAPeerInQEMU(t *testing.T) {
	qemu, err := exec.LookPath("qemu-system-x86_64")
	if err != nil {
		t.Fatalf("%v: tests/guest/setup --test installs it", err)
	}
	sock := filepath.Join(t.TempDir(), "s")
	ours, theirs := freeUDPPort(t), freeUDPPort(t)
	a := typedGuest(t, "--nic", "stream,server=on,addr.type=unix,addr.path="+sock,
		"--nic", fmt.Sprintf("socket,udp=127.0.0.1:%s,localaddr=127.0.0.1:%s", theirs, ours))
	files := guest.Need(t)
	b := &softGuest{cmd: exec.Command(qemu, "-M", "q35", "-accel", "tcg", "-m", "256", "-nodefaults", "-display", "none", "-serial", "stdio",
		"-kernel", files.Kernel, "-initrd", files.Initrd, "-append", "console=ttyS0 quiet berth.script=typed",
		"-netdev", "stream,id=n0,addr.type=unix,addr.path="+sock, "-device", "virtio-net-pci,netdev=n0,mac=52:54:00:00:00:02,romfile=",
		"-netdev", fmt.Sprintf("dgram,id=n1,local.type=inet,local.host=127.0.0.1,local.port=%s,remote.type=inet,remote.host=127.0.0.1,remote.port=%s", theirs, ours),
		"-device", "virtio-net-pci,netdev=n1,mac=52:54:00:00:00:03,romfile=")}
	b.cmd.Stderr = &b.errs
	keys, err := b.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	screen, err := b.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; ; i++ {
		if _, err := os.Stat(sock); err == nil {
			break
		}
		if i > 1000 {
			t.Fatalf("no socket: %s", a.errs.String())
		}
		time.Sleep(10 * time.Millisecond)
	}
	b.start(t, screen, keys)
	a.ready(t)
	b.ready(t)
	for i := range 2 {
		a.configure(t, fmt.Sprintf("eth%d", i), fmt.Sprintf("10.%d.0.1/24", 4+i))
		b.configure(t, fmt.Sprintf("eth%d", i), fmt.Sprintf("10.%d.0.2/24", 4+i))
	}
	sums := [2]string{a.serves(t), b.serves(t)}
	for i := range 2 {
		b.reaches(t, fmt.Sprintf("10.%d.0.1", 4+i))
		a.reaches(t, fmt.Sprintf("10.%d.0.2", 4+i))
		b.fetches(t, fmt.Sprintf("http://10.%d.0.1/file", 4+i), sums[0])
		a.fetches(t, fmt.Sprintf("http://10.%d.0.2/file", 4+i), sums[1])
	}
	t.Logf("%.1f CPU-seconds here, %.1f in QEMU", a.leave(t), b.leave(t))
}

func freeUDPPort(t *testing.T) string {
	t.Helper()
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, port, _ := net.SplitHostPort(c.LocalAddr().String())
	return port
}

// TestAPeerThatIsPasst has a guest on the network that Debian's passt makes for QEMU: an
// address by DHCP, and a file of the host's.
func TestAPeerThatIsPasst(t *testing.T) {
	passt, err := exec.LookPath("passt")
	if err != nil {
		t.Skipf("%v: tests/guest/setup --test installs it", err)
	}
	outside := outside(t)
	dir := t.TempDir()
	for d := dir; d != "/" && d != os.TempDir(); d = filepath.Dir(d) { // passt, started by root, becomes nobody
		if err := os.Chmod(d, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	sock := filepath.Join(dir, "passt")
	p := exec.Command(passt, "--foreground", "--one-off", "--socket", sock)
	var said bytes.Buffer
	p.Stderr = &said
	if err := process.Tie(p).Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = p.Process.Kill()
		_ = p.Wait()
	})
	for i := 0; ; i++ {
		if _, err := os.Stat(sock); err == nil {
			break
		}
		if i > 1000 {
			t.Skipf("passt does not work here: %s", said.String())
		}
		time.Sleep(10 * time.Millisecond)
	}
	g := typedGuest(t, "--nic", "stream,reconnect=1,addr.path="+sock)
	g.ready(t)
	l, err := net.Listen("tcp", "127.0.0.1:0") // passt has its router's address stand for that
	if err != nil {
		t.Fatal(err)
	}
	sum := serveOn(t, l, 1<<20)
	_, port, _ := net.SplitHostPort(l.Addr().String())
	g.run(t, `ip link set eth0 up; printf '#!/bin/busybox sh\n[ "$1" = bound ] || exit 0\nip addr add $ip/$mask dev eth0; ip route add default via $router; echo $router >/tmp/router\n' >/tmp/lease; chmod 755 /tmp/lease; udhcpc -i eth0 -n -q -t 10 -T 1 -s /tmp/lease`)
	if got := g.run(t, "ip -4 addr show dev eth0"); !strings.Contains(got, outside) { // passt gives the guest the host's address
		t.Errorf("the guest has %s, want %s", got, outside)
	}
	g.fetches(t, fmt.Sprintf("http://$(cat /tmp/router):%s/", port), sum)
	t.Logf("%.1f CPU-seconds", g.leave(t))
}

// TestANICByQMP pulls a guest's cable and plugs it in again, has it announce itself, sees
// what its driver has asked to receive, and plugs a second NIC in and out.
func TestANICByQMP(t *testing.T) {
	dir := t.TempDir()
	control, capture := filepath.Join(dir, "q"), filepath.Join(dir, "pcap")
	g := typedGuest(t, "--nic", "user,id=net0,mac=52:54:00:00:00:07,pcap="+capture, "--qmp", "unix:"+control+",server=on,wait=off")
	g.ready(t)
	events := make(chan qmp.ClientEvent, 100)
	c, err := qmp.Dial(t.Context(), control, func(e qmp.ClientEvent) { events <- e })
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	do := func(command string, args, answer any) {
		t.Helper()
		if err := c.Do(t.Context(), command, args, answer); err != nil {
			t.Fatalf("%s: %v", command, err)
		}
	}
	await := func(name string) {
		t.Helper()
		limit := time.After(patience)
		for {
			select {
			case e := <-events:
				if e.Event == name {
					return
				}
			case <-limit:
				t.Fatalf("no %s\n%s", name, g.hand.Said())
			}
		}
	}
	var filters []struct {
		Name        string   `json:"name"`
		MAC         string   `json:"main-mac"`
		Promiscuous bool     `json:"promiscuous"`
		Multicasts  []string `json:"multicast-table"`
	}
	do("query-rx-filter", nil, &filters)
	g.configure(t, "eth0", "10.0.2.15/24")
	await("NIC_RX_FILTER_CHANGED")
	g.run(t, "ip maddr add 01:00:5e:11:22:33 dev eth0 2>/dev/null; ip link set eth0 address 52:54:00:00:00:08; ip link set eth0 promisc off")
	do("query-rx-filter", map[string]any{"name": "net0"}, &filters)
	if len(filters) != 1 || filters[0].MAC != "52:54:00:00:00:08" || filters[0].Promiscuous || len(filters[0].Multicasts) == 0 {
		t.Errorf("filters %+v", filters)
	}
	carrier := func(want string) {
		t.Helper()
		g.run(t, "for i in $(seq 100); do [ $(cat /sys/class/net/eth0/carrier) = %s ] && break; sleep 0.1; done; [ $(cat /sys/class/net/eth0/carrier) = %s ]", want, want)
	}
	do("set_link", map[string]any{"name": "net0", "up": false}, nil)
	carrier("0")
	if err := c.Do(t.Context(), "set_link", map[string]any{"name": "none", "up": false}, nil); err == nil {
		t.Error("a NIC that is not there has a link")
	}
	do("set_link", map[string]any{"name": "net0", "up": true}, nil)
	carrier("1")
	g.reaches(t, "10.0.2.2")
	before := gratuitous(t, capture)
	do("announce-self", map[string]any{"initial": 10, "max": 100, "rounds": 3, "step": 10}, nil)
	for i := 0; gratuitous(t, capture) == before; i++ {
		if i == 500 {
			t.Fatal("the guest has not announced itself")
		}
		time.Sleep(10 * time.Millisecond)
	}
	do("netdev_add", map[string]any{"type": "user", "id": "more", "net": "10.9.0.0/24"}, nil)
	do("device_add", map[string]any{"driver": "virtio-net-pci", "id": "nic1", "netdev": "more", "mac": "52:54:00:00:00:09"}, nil)
	g.run(t, "for i in $(seq 100); do [ -e /sys/class/net/eth1 ] && break; sleep 0.1; done; grep 52:54:00:00:00:09 /sys/class/net/eth1/address")
	g.configure(t, "eth1", "10.9.0.15/24")
	g.reaches(t, "10.9.0.2")
	do("device_del", map[string]any{"id": "nic1"}, nil)
	await("DEVICE_DELETED")
	g.run(t, "[ ! -e /sys/class/net/eth1 ]")
	do("netdev_del", map[string]any{"id": "more"}, nil)
	t.Logf("%.1f CPU-seconds", g.leave(t))
}

// gratuitous counts the ARP frames of a capture by which a guest tells of its own address.
func gratuitous(t *testing.T, capture string) (n int) {
	t.Helper()
	b, err := os.ReadFile(capture)
	if err != nil {
		t.Fatal(err)
	}
	for b = b[min(24, len(b)):]; len(b) >= 16; {
		size := int(binary.NativeEndian.Uint32(b[8:]))
		if len(b) < 16+size {
			break
		}
		f := b[16 : 16+size]
		if size >= 42 && f[12] == 8 && f[13] == 6 && bytes.Equal(f[28:32], f[38:42]) {
			n++
		}
		b = b[16+size:]
	}
	return n
}
