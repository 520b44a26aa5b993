package user

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip/header"

	"berth/netdev"
)

// TestMain is the benchmarks' peer, too, in a process of its own whose CPU does not count: it
// takes or gives bytes on the connection that it is asked for.
func TestMain(m *testing.M) {
	if what := os.Getenv("BERTH_NETDEV_PEER"); what != "" {
		peer(what)
	}
	os.Exit(m.Run())
}

func peer(what string) {
	l, err := net.Listen("tcp", net.JoinHostPort(os.Getenv("BERTH_NETDEV_ADDR"), "0"))
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println(l.Addr())
	c, err := l.Accept()
	if err != nil {
		os.Exit(1)
	}
	b := make([]byte, 1<<20)
	if what == "sink" {
		for err == nil {
			_, err = c.Read(b)
		}
	} else {
		for err == nil {
			_, err = c.Write(b)
		}
	}
	os.Exit(0)
}

// startPeer starts the peer, and returns where it is.
func startPeer(b *testing.B, what string) string {
	b.Helper()
	c := exec.Command(os.Args[0])
	c.Env = append(os.Environ(), "BERTH_NETDEV_PEER="+what, "BERTH_NETDEV_ADDR="+outside(b).String())
	out, err := c.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := c.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		c.Process.Kill()
		c.Wait()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		b.Fatal(err)
	}
	return strings.TrimSpace(line)
}

// plain is a guest's end of one TCP connection that costs next to nothing: it has no timers and
// loses no frame.
type plain struct {
	n        *Network
	dst      netip.AddrPort
	mu       sync.Mutex
	moved    *sync.Cond
	seq, ack uint32 // what it has sent, and heard
	acked    uint32
	window   uint32
	shift    uint8
	got      int64
}

func connect(b *testing.B, n *Network, to string) *plain {
	b.Helper()
	p := &plain{n: n, dst: netip.MustParseAddrPort(to), seq: 1}
	p.moved = sync.NewCond(&p.mu)
	go p.receive()
	p.send(header.TCPFlagSyn, nil, 2, 4, 5, 180, 3, 3, 10, 0)
	p.mu.Lock()
	for p.ack == 0 {
		p.moved.Wait()
	}
	p.seq++
	p.mu.Unlock()
	p.send(header.TCPFlagAck, nil)
	return p
}

// send sends a segment with options.
func (p *plain) send(flags header.TCPFlags, data []byte, options ...byte) {
	size := header.IPv4MinimumSize + header.TCPMinimumSize + len(options)
	f := make([]byte, netdev.HeaderSize+etherSize+size)
	f[0] = flagCsum
	if len(data) > 1460 {
		f[1] = gsoTCPv4
		binary.LittleEndian.PutUint16(f[4:], 1460)
	}
	copy(f[netdev.HeaderSize:], p.n.mac[:])
	copy(f[netdev.HeaderSize+6:], guestMAC[:])
	f[netdev.HeaderSize+12], f[netdev.HeaderSize+13] = 8, 0
	ip := header.IPv4(f[netdev.HeaderSize+etherSize:])
	ip.Encode(&header.IPv4Fields{TotalLength: uint16(size + len(data)), TTL: 64, Protocol: 6,
		SrcAddr: stackAddr(netip.MustParseAddr("10.0.2.15")), DstAddr: stackAddr(p.dst.Addr())})
	ip.SetChecksum(^ip.CalculateChecksum())
	p.mu.Lock()
	header.TCP(ip[header.IPv4MinimumSize:]).Encode(&header.TCPFields{
		SrcPort: 1000, DstPort: p.dst.Port(), SeqNum: p.seq, AckNum: p.ack, DataOffset: uint8(header.TCPMinimumSize + len(options)), Flags: flags, WindowSize: 4096,
	})
	p.seq += uint32(len(data))
	p.mu.Unlock()
	copy(ip[header.IPv4MinimumSize+header.TCPMinimumSize:], options)
	p.n.Send([][]byte{f, data})
}

// may waits until the window lets it send a segment worth sending (RFC 1122 §4.2.3.4), and
// returns how many bytes.
func (p *plain) may() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	for int32(p.acked+p.window-p.seq) < 1460 {
		p.moved.Wait()
	}
	return int(p.acked + p.window - p.seq)
}

func (p *plain) receive() {
	f := make([]byte, netdev.MaxFrame)
	for {
		k, err := p.n.Receive(f)
		if err != nil {
			return
		}
		ip := header.IPv4(f[netdev.HeaderSize+etherSize : k])
		if f[netdev.HeaderSize+12] != 8 || f[netdev.HeaderSize+13] != 0 || ip.Protocol() != 6 {
			continue
		}
		t := header.TCP(ip.Payload())
		data := uint32(len(t) - int(t.DataOffset()))
		p.mu.Lock()
		if t.Flags()&header.TCPFlagSyn != 0 {
			p.ack = t.SequenceNumber() + 1
			p.acked = 2
			if o := header.ParseSynOptions(t.Options(), true); o.WS > 0 {
				p.shift = uint8(o.WS)
			}
			p.window = uint32(t.WindowSize())
		} else {
			p.acked, p.window = t.AckNumber(), uint32(t.WindowSize())<<p.shift
			if t.SequenceNumber() == p.ack {
				p.ack += data
				p.got += int64(data)
			}
		}
		p.moved.Broadcast()
		p.mu.Unlock()
		if data > 0 {
			p.send(header.TCPFlagAck, nil)
		}
	}
}

// cpu is what this process has used.
func cpu() time.Duration {
	var u unix.Rusage
	unix.Getrusage(unix.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func report(b *testing.B, bytes int64, begun time.Time, used time.Duration) {
	gib := float64(bytes) / (1 << 30)
	b.ReportMetric(used.Seconds()/gib, "cpu-s/GiB")
	b.ReportMetric(float64(bytes)*8/1e9/time.Since(begun).Seconds(), "Gbit/s")
	b.ReportMetric(0, "ns/op")
}

const benchBytes = 1 << 30

// BenchmarkOut moves bytes from the guest to a process of the host's, a GiB each time.
func BenchmarkOut(b *testing.B) {
	n := start(b, nil)
	p := connect(b, n, startPeer(b, "sink"))
	data := make([]byte, 65160)
	begun, used := time.Now(), cpu()
	for range b.N {
		for left := benchBytes; left > 0; {
			may := min(p.may(), len(data), left)
			p.send(header.TCPFlagAck|header.TCPFlagPsh, data[:may])
			left -= may
		}
	}
	report(b, int64(b.N)*benchBytes, begun, cpu()-used)
}

// BenchmarkIn moves them from there to the guest, which takes large segments, or does not.
func BenchmarkIn(b *testing.B) {
	for _, large := range []bool{true, false} {
		b.Run(fmt.Sprintf("large=%v", large), func(b *testing.B) {
			n := start(b, nil)
			if large {
				n.SetOffloads(n.Offloads())
			}
			p := connect(b, n, startPeer(b, "source"))
			begun, used := time.Now(), cpu()
			p.mu.Lock()
			first := p.got
			for p.got-first < int64(b.N)*benchBytes {
				p.moved.Wait()
			}
			got := p.got - first
			p.mu.Unlock()
			report(b, got, begun, cpu()-used)
		})
	}
}
