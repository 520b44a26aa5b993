package user

import (
	"encoding/binary"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"

	"berth/netdev"
)

// gso_type of virtio 1.2 §5.1.6.
const (
	gsoTCPv4 = 1
	gsoTCPv6 = 4
)

// segment is where the parts of a frame with TCP are, as offsets from the header of virtio on.
type segment struct {
	ip, tcp, data int
	mss           int // of the pieces, in bytes of data
	v6            bool
}

// needSum leaves the checksum to the guest: TCP's field has the sum of the pseudo header.
func (g segment) needSum(p []byte) {
	p[0] = flagCsum
	binary.LittleEndian.PutUint16(p[6:], uint16(g.tcp-netdev.HeaderSize))
	binary.LittleEndian.PutUint16(p[8:], header.TCPChecksumOffset)
}

// pseudo returns the sum of the pseudo header.
func (g segment) pseudo(p []byte) uint16 {
	var src, dst tcpip.Address
	if g.v6 {
		src, dst = header.IPv6(p[g.ip:]).SourceAddress(), header.IPv6(p[g.ip:]).DestinationAddress()
	} else {
		src, dst = header.IPv4(p[g.ip:]).SourceAddress(), header.IPv4(p[g.ip:]).DestinationAddress()
	}
	return header.PseudoHeaderChecksum(header.TCPProtocolNumber, src, dst, uint16(len(p)-g.tcp))
}

// sum makes TCP's checksum.
func (g segment) sum(p []byte) {
	t := header.TCP(p[g.tcp:])
	t.SetChecksum(0)
	t.SetChecksum(^checksum.Checksum(p[g.tcp:], g.pseudo(p)))
}

// segmenter cuts a long segment into frames as long as the link takes, as RFC 793's sender
// would have sent them.
type segmenter struct {
	segment
	whole    []byte // the frame, or nil
	off      int    // of what comes next, in whole
	checksum bool   // the guest makes it
}

func (s *segmenter) start(frame []byte, g segment, checksum bool) {
	s.segment, s.checksum = g, checksum
	s.whole, s.off = append(s.whole[:0], frame...), g.data
}

// next puts the next frame into p; 0 says that there is none.
func (s *segmenter) next(p []byte) int {
	if s.off >= len(s.whole) {
		return 0
	}
	first := s.off == s.data
	data := s.whole[s.off:min(s.off+s.mss, len(s.whole))]
	copy(p, s.whole[:s.data])
	size := s.data + copy(p[s.data:], data)
	p = p[:size]
	t := header.TCP(p[s.tcp:])
	t.SetSequenceNumber(t.SequenceNumber() + uint32(s.off-s.data))
	flags := t.Flags()
	if !first {
		flags &^= 0x80 // CWR says so once
	}
	if s.off += len(data); s.off < len(s.whole) {
		flags &^= header.TCPFlagFin | header.TCPFlagPsh
	}
	t.SetFlags(uint8(flags))
	if s.v6 {
		header.IPv6(p[s.ip:]).SetPayloadLength(uint16(size - s.tcp))
	} else {
		ip := header.IPv4(p[s.ip:])
		ip.SetTotalLength(uint16(size - s.ip))
		ip.SetChecksum(0)
		ip.SetChecksum(^ip.CalculateChecksum())
	}
	if s.checksum {
		t.SetChecksum(s.pseudo(p))
		s.needSum(p)
	} else {
		s.sum(p)
	}
	return size
}
