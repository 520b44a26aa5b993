package user

import (
	"encoding/binary"
	"net"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"

	"berth/netdev"
)

// inside has a packet go nowhere but into the guest's own networks, whose tests send to nobody
// else's, and puts its sums right if it is asked to.
func inside(f []byte, sums bool) {
	p := f[netdev.HeaderSize+etherSize:]
	switch kind := binary.BigEndian.Uint16(f[netdev.HeaderSize+12:]); {
	case kind == 0x0800 && len(p) >= header.IPv4MinimumSize:
		h := header.IPv4(p)
		if a := netip.AddrFrom4([4]byte(p[16:])); !a.IsMulticast() && p[16] != 255 {
			copy(p[16:], []byte{10, 0, 2})
		}
		if sums && int(h.HeaderLength()) <= len(p) && h.HeaderLength() >= header.IPv4MinimumSize {
			h.SetTotalLength(uint16(len(p)))
			h.SetChecksum(0)
			h.SetChecksum(^h.CalculateChecksum())
			if b := h.Payload(); h.Protocol() == 1 && len(b) >= 8 {
				b[2], b[3] = 0, 0
				binary.BigEndian.PutUint16(b[2:], ^checksum.Checksum(b, 0))
			}
		}
	case kind == 0x86dd && len(p) >= header.IPv6MinimumSize:
		h := header.IPv6(p)
		if a := h.DestinationAddress(); !netip.AddrFrom16(a.As16()).IsMulticast() {
			copy(p[24:], []byte{0xfe, 0xc0, 0, 0, 0, 0, 0, 0})
		}
		if b := p[header.IPv6MinimumSize:]; sums {
			h.SetPayloadLength(uint16(len(b)))
			if h.NextHeader() == 58 && len(b) >= 8 {
				b[2], b[3] = 0, 0
				pseudo := header.PseudoHeaderChecksum(58, h.SourceAddress(), h.DestinationAddress(), uint16(len(b)))
				binary.BigEndian.PutUint16(b[2:], ^checksum.Checksum(b, pseudo))
			}
		}
	}
}

// FuzzFrames: whatever frames a guest sends, the network answers the next one's DHCP, and ends.
func FuzzFrames(f *testing.F) {
	seed := func(frames ...[]byte) {
		var in []byte
		for _, fr := range frames {
			fr = fr[netdev.HeaderSize:]
			in = append(binary.BigEndian.AppendUint16(in, uint16(len(fr))|0x8000), fr...)
		}
		f.Add(in)
	}
	arp := make([]byte, header.ARPSize)
	header.ARP(arp).SetIPv4OverEthernet()
	seed(frame(0x0806, arp))
	seed(udpFrame("0.0.0.0:68", "255.255.255.255:67", dhcpMessage(guestMAC, dhcpDiscover)),
		udpFrame("0.0.0.0:68", "255.255.255.255:67", dhcpMessage(guestMAC, dhcpRequest, optAddress, 4, 10, 0, 2, 15)))
	seed(udpFrame("10.0.2.15:99", "10.0.2.3:53", question), udpFrame("10.0.2.15:99", "10.0.2.9:9", question))
	ip6 := func(next uint8, src, dst string, p ...byte) []byte {
		b := make([]byte, header.IPv6MinimumSize, header.IPv6MinimumSize+len(p))
		header.IPv6(b).Encode(&header.IPv6Fields{PayloadLength: uint16(len(p)), HopLimit: 255, SrcAddr: stackAddr(netip.MustParseAddr(src)), DstAddr: stackAddr(netip.MustParseAddr(dst))})
		b[6] = next
		return frame(0x86dd, append(b, p...))
	}
	seed(ip6(58, "::", "ff02::2", 133, 0, 0, 0, 0, 0, 0, 0),
		ip6(58, "fe80::1", "ff02::1:ff00:2", append([]byte{135, 0, 0, 0, 0, 0, 0, 0}, netip.MustParseAddr("fec0::2").AsSlice()...)...),
		ip6(58, "fec0::15", "fec0::2", 128, 0, 0, 0, 0, 1, 0, 1, 'x'),
		ip6(44, "fec0::15", "fec0::2", append([]byte{17, 0, 0, 1, 0, 0, 0, 1}, make([]byte, 16)...)...),
		ip6(44, "fec0::15", "fec0::2", append([]byte{17, 0, 0, 16, 0, 0, 0, 1}, make([]byte, 16)...)...))
	ping := udpFrame("10.0.2.15:1", "10.0.2.2:1", []byte("x"))
	ping[netdev.HeaderSize+etherSize+9] = 1
	ping[netdev.HeaderSize+etherSize+20] = 8
	seed(ping)
	part := udpFrame("10.0.2.15:1", "10.0.2.3:53", make([]byte, 64))
	part[netdev.HeaderSize+etherSize+6] = 0x20 // more follow
	seed(part, part)
	f.Fuzz(func(t *testing.T, in []byte) {
		n, err := New(Config{UserLayout: layout(t), Resolvers: func() []netip.AddrPort { return nil }})
		if err != nil {
			t.Fatal(err)
		}
		for k := 0; len(in) >= 2 && k < 64; k++ {
			size := int(binary.BigEndian.Uint16(in))
			sums := size&0x8000 != 0
			size = min(size&0x7fff, len(in)-2)
			fr := make([]byte, netdev.HeaderSize, netdev.HeaderSize+size)
			fr, in = append(fr, in[2:2+size]...), in[2+size:]
			if len(fr) >= netdev.HeaderSize+etherSize {
				if sums {
					fr[0] = flagCsum
					copy(fr[netdev.HeaderSize:], n.mac[:])
				}
				inside(fr, sums)
			}
			if err := n.Send([][]byte{fr}); err != nil {
				t.Fatal(err)
			}
		}
		n.Send([][]byte{udpFrame("0.0.0.0:68", "255.255.255.255:67", dhcpMessage([6]byte{2, 2, 2, 2, 2, 2}, dhcpInform))})
		for p := make([]byte, netdev.MaxFrame); ; {
			k, err := n.Receive(p)
			if err != nil {
				t.Fatal(err)
			}
			if k > netdev.HeaderSize+etherSize+28+240 && p[netdev.HeaderSize+etherSize+9] == 17 && p[netdev.HeaderSize+etherSize+28+28] == 2 {
				break
			}
		}
		n.Close()
	})
}

// FuzzStream: whatever segments a guest sends on a connection and besides, the network ends.
// Each nine bytes of the input are a segment relative to where the connection is: flags, the
// distances of its sequence and acknowledgement, window, size, options' size.
func FuzzStream(f *testing.F) {
	f.Add([]byte{0x02, 0, 0, 0, 0, 255, 255, 0, 0, 0x10, 0, 0, 0, 0, 255, 255, 0, 0, 0x18, 0, 0, 0, 0, 255, 255, 100, 0, 0x11, 0, 0, 0, 0, 255, 255, 0, 0})
	f.Add([]byte{0x02, 0, 0, 0, 0, 0, 0, 0, 20, 0x10, 0, 0, 0, 0, 0, 0, 0, 12, 0x18, 1, 0, 0, 1, 0, 0, 200, 12, 0x14, 0, 0, 0, 0, 0, 1, 0, 0, 0x02, 0, 0, 0, 0, 0, 9, 0, 0})
	dir := f.TempDir()
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				copyAll(c, c)
				c.Close()
			}()
		}
	}()
	f.Fuzz(func(t *testing.T, in []byte) {
		n, err := New(Config{UserLayout: layout(t), Restrict: true, GuestForwards: guestFwds(t, "tcp:10.0.2.100:7-unix:"+filepath.Join(dir, "s"))})
		if err != nil {
			t.Fatal(err)
		}
		defer n.Close()
		seq, ack := uint32(1000), uint32(0)
		heard := make(chan uint32, 64)
		go func() {
			for p := make([]byte, netdev.MaxFrame); ; {
				k, err := n.Receive(p)
				if err != nil {
					return
				}
				if b := p[netdev.HeaderSize+etherSize : k]; len(b) >= 40 && b[9] == 6 {
					select {
					case heard <- header.TCP(b[20:]).SequenceNumber() + 1:
					default:
					}
				}
			}
		}()
		for k := 0; len(in) >= 9 && k < 32; k++ {
			op := in[:9]
			in = in[9:]
			options := make([]byte, min(int(op[8]&^3), 40))
			in = in[copy(options, in):]
			data := make([]byte, int(op[7])*17)
			b := make([]byte, header.IPv4MinimumSize+header.TCPMinimumSize, 2048)
			b = append(append(b, options...), data...)
			h := header.IPv4(b)
			h.Encode(&header.IPv4Fields{TotalLength: uint16(len(b)), TTL: 64, Protocol: 6,
				SrcAddr: stackAddr(netip.MustParseAddr("10.0.2.15")), DstAddr: stackAddr(netip.MustParseAddr("10.0.2.100"))})
			h.SetChecksum(^h.CalculateChecksum())
			header.TCP(b[20:]).Encode(&header.TCPFields{
				SrcPort: 1000, DstPort: 7, SeqNum: seq + uint32(int16(binary.BigEndian.Uint16(op[1:]))), AckNum: ack + uint32(int16(binary.BigEndian.Uint16(op[3:]))),
				DataOffset: uint8(20 + len(options)), Flags: header.TCPFlags(op[0]), WindowSize: binary.BigEndian.Uint16(op[5:]),
			})
			fr := frame(0x0800, b)
			fr[0] = flagCsum
			if err := n.Send([][]byte{fr}); err != nil {
				t.Fatal(err)
			}
			seq += uint32(len(data))
			if op[0]&0x02 != 0 { // an answer may come
				seq++
				select {
				case ack = <-heard:
				case <-time.After(2 * time.Millisecond):
				}
			}
		}
	})
}
