package net

import (
	"encoding/binary"
	"math/bits"
	"slices"
)

// Hash types (§5.1.6.4.3.1); a report's number is one more than the bit's.
const (
	hashIPv4  = 0
	hashTCPv4 = 1
	hashUDPv4 = 2
	hashIPv6  = 3 // TCP and UDP follow likewise

	// hashTypes are those that the device has: packets with extension headers are
	// hashed as those without, their extension headers skipped.
	hashTypes = 1<<6 - 1
)

const (
	hashHeaderSize = 20 // of a header with a hash report
	maxHashKey     = 40
	maxIndirection = 128
	hashInput      = 36 // two IPv6 addresses and two ports
)

const (
	protocolTCP = 6
	protocolUDP = 17
)

// packet is what tells an IP packet's flow; its slices are of the frame.
type packet struct {
	source, destination []byte
	protocol            byte
	ports               []byte // source and destination; nil: not TCP or UDP, or a fragment
}

// parse finds IP in an Ethernet frame, behind VLAN tags. ok is false if there is none.
func parse(frame []byte) (p packet, ok bool) {
	off := 12
	for range 3 {
		if len(frame) < off+2 {
			return p, false
		}
		switch kind := binary.BigEndian.Uint16(frame[off:]); kind {
		case 0x8100, 0x88a8:
			off += 4
			continue
		case 0x0800:
			return parseIPv4(frame[off+2:])
		case 0x86dd:
			return parseIPv6(frame[off+2:])
		}
		break
	}
	return p, false
}

func parseIPv4(b []byte) (p packet, ok bool) {
	if len(b) < 20 || b[0]>>4 != 4 {
		return p, false
	}
	p = packet{source: b[12:16], destination: b[16:20], protocol: b[9]}
	fragment := binary.BigEndian.Uint16(b[6:])&0x3fff != 0
	p.findPorts(b, 4*int(b[0]&15), fragment)
	return p, true
}

func parseIPv6(b []byte) (p packet, ok bool) {
	if len(b) < 40 || b[0]>>4 != 6 {
		return p, false
	}
	p = packet{source: b[8:24], destination: b[24:40], protocol: b[6]}
	off, fragment := 40, false
	for range 8 {
		if len(b) < off+8 {
			return p, true
		}
		switch p.protocol {
		case 0, 43, 60: // hop-by-hop and destination options, routing
			p.protocol, off = b[off], off+8+8*int(b[off+1])
			continue
		case 44:
			fragment = binary.BigEndian.Uint16(b[off+2:])&0xfff9 != 0
			p.protocol, off = b[off], off+8
			continue
		}
		break
	}
	p.findPorts(b, off, fragment)
	return p, true
}

func (p *packet) findPorts(b []byte, off int, fragment bool) {
	if (p.protocol == protocolTCP || p.protocol == protocolUDP) && !fragment && len(b) >= off+4 {
		p.ports = b[off : off+4]
	}
}

// hashed is a frame's hash and its kind as reports number it; 0: none.
type hashed struct {
	value uint32
	kind  uint16
}

// report fills a header's last fields: hash_value 4 | hash_report 2 | padding 2.
func (h hashed) report(b []byte) {
	binary.LittleEndian.PutUint32(b, h.value)
	binary.LittleEndian.PutUint16(b[4:], h.kind)
	binary.LittleEndian.PutUint16(b[6:], 0)
}

// hasher computes Toeplitz hashes: of an input's bits that are set, the 32 bits of the key
// that begin at their places are added without carry. parts has the sum for every value
// of every byte.
type hasher struct {
	types uint32
	parts [hashInput][256]uint32
}

// newHasher prepares a key of up to maxHashKey bytes, behind which are zeros.
func newHasher(types uint32, key []byte) *hasher {
	h := &hasher{types: types}
	var k [maxHashKey + 8]byte
	copy(k[:maxHashKey], key)
	for i := range h.parts {
		window := binary.BigEndian.Uint64(k[i:])
		for v := 1; v < 256; v++ {
			low := bits.TrailingZeros(uint(v)) // the last of the byte's bits
			h.parts[i][v] = h.parts[i][v&(v-1)] ^ uint32(window<<(7-low)>>32)
		}
	}
	return h
}

// sum hashes what the enabled types take of a frame: addresses and ports, or addresses
// (§5.1.6.4.3.2-4). A nil hasher has none enabled.
func (h *hasher) sum(frame []byte) hashed {
	if h == nil || h.types == 0 {
		return hashed{}
	}
	p, ok := parse(frame)
	if !ok {
		return hashed{}
	}
	kind := hashIPv4
	if len(p.source) == 16 {
		kind = hashIPv6
	}
	ports := p.ports
	switch {
	case ports != nil && p.protocol == protocolTCP && h.types>>(kind+1)&1 != 0:
		kind++
	case ports != nil && p.protocol == protocolUDP && h.types>>(kind+2)&1 != 0:
		kind += 2
	case h.types>>kind&1 != 0:
		ports = nil
	default:
		return hashed{}
	}
	at, v := 0, uint32(0)
	for _, part := range [...][]byte{p.source, p.destination, ports} {
		for _, b := range part {
			v ^= h.parts[at][b]
			at++
		}
	}
	return hashed{v, uint16(kind + 1)}
}

// HashState is what the driver wants hashed, and how.
type HashState struct {
	Types uint32
	Key   []byte
}

// RSSState is how the driver wants frames spread over the receive queues.
type RSSState struct {
	HashState
	Unclassified uint16
	Table        []uint16 // a power of two of them
	Pairs        uint16
}

// parseHash reads struct virtio_net_hash_config:
//
//	hash_types 4 | reserved 8 | hash_key_length 1 | hash_key_data
func parseHash(b []byte) (*HashState, bool) {
	if len(b) < 12 {
		return nil, false
	}
	h := &HashState{Types: binary.LittleEndian.Uint32(b)}
	return h, h.takeKey(b[12:]) && h.valid()
}

// takeKey reads the key's length and the key, the last of a command.
func (h *HashState) takeKey(b []byte) bool {
	if len(b) < 1 || len(b) != 1+int(b[0]) {
		return false
	}
	h.Key = slices.Clone(b[1:])
	return true
}

func (h *HashState) valid() bool { return h.Types&^hashTypes == 0 && len(h.Key) <= maxHashKey }

// parseRSS reads struct virtio_net_rss_config:
//
//	hash_types 4 | indirection_table_mask 2 | unclassified_queue 2 | indirection_table 2 each | max_tx_vq 2 |
//	hash_key_length 1 | hash_key_data
func parseRSS(b []byte, queues int) (*RSSState, bool) {
	le := binary.LittleEndian
	if len(b) < 8 {
		return nil, false
	}
	n := int(le.Uint16(b[4:])) + 1
	if n > maxIndirection || len(b) < 8+2*n+2 {
		return nil, false
	}
	r := &RSSState{HashState: HashState{Types: le.Uint32(b)}, Unclassified: le.Uint16(b[6:])}
	for i := range n {
		r.Table = append(r.Table, le.Uint16(b[8+2*i:]))
	}
	b = b[8+2*n:]
	r.Pairs = le.Uint16(b)
	return r, r.takeKey(b[2:]) && r.valid(queues)
}

// valid reports whether all queues that r names exist.
func (r *RSSState) valid(queues int) bool {
	n := len(r.Table)
	ok := r.HashState.valid() && n > 0 && n <= maxIndirection && n&(n-1) == 0 &&
		int(r.Unclassified) < queues && r.Pairs >= 1 && int(r.Pairs) <= queues
	for _, q := range r.Table {
		ok = ok && int(q) < queues
	}
	return ok
}

// queue is the receive queue for a frame (§5.1.6.5.7.1).
func (r *RSSState) queue(sum hashed) int {
	if sum.kind == 0 {
		return int(r.Unclassified)
	}
	return int(r.Table[sum.value&uint32(len(r.Table)-1)])
}
