package net

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"testing"

	"berth/netdev"
)

// rssKey is the key of Microsoft's examples of RSS hashes ("Verifying the RSS Hash Calculation").
var rssKey, _ = hex.DecodeString("6d5a56da255b0ec24167253d43a38fb0d0ca2bcbae7b30b477cb2da38030f20c6a42b73bbeac01fa")

var rssExamples = []struct {
	from, to  string
	addresses uint32
	withPorts uint32
}{
	{"66.9.149.187:2794", "161.142.100.80:1766", 0x323e8fc2, 0x51ccc178},
	{"199.92.111.2:14230", "65.69.140.83:4739", 0xd718262a, 0xc626b0ea},
	{"24.19.198.95:12898", "12.22.207.184:38024", 0xd2d0a5de, 0x5c2b394a},
	{"[3ffe:2501:200:1fff::7]:2794", "[3ffe:2501:200:3::1]:1766", 0x2cc18cd5, 0x40207d3d},
	{"[3ffe:501:8::260:97ff:fe40:efab]:14230", "[ff02::1]:4739", 0x0f0c461c, 0xdde51bbf},
}

func between(from, to string) []byte {
	a, b := netip.MustParseAddrPort(from), netip.MustParseAddrPort(to)
	return tcp(a.Addr().AsSlice(), b.Addr().AsSlice(), binary.BigEndian.AppendUint16(nil, a.Port()), binary.BigEndian.AppendUint16(nil, b.Port()))
}

func Test_5_1_6_4_3_Hashes(t *testing.T) {
	for _, e := range rssExamples {
		f := between(e.from, e.to)
		kind, protocol := uint16(1), 14+9
		if f[12] == 0x86 {
			kind, protocol = 4, 14+6
		}
		datagram := bytes.Clone(f)
		datagram[protocol] = protocolUDP
		for _, c := range []struct {
			name  string
			frame []byte
			types uint32
			want  hashed
		}{
			{"TCP", f, 0x3f, hashed{e.withPorts, kind + 1}},
			{"UDP", datagram, 0x3f, hashed{e.withPorts, kind + 2}},
			{"addresses", f, 1<<hashIPv4 | 1<<hashIPv6, hashed{e.addresses, kind}},
			{"TCP when UDP is enabled", f, 1<<hashUDPv4 | 1<<(hashIPv6+2), hashed{}},
			{"nothing enabled", f, 0, hashed{}},
			{"with two VLAN tags", append(append(bytes.Clone(f[:12]), 0x88, 0xa8, 0, 1, 0x81, 0, 0, 2), f[12:]...), 0x3f, hashed{e.withPorts, kind + 1}},
		} {
			if got := newHasher(c.types, rssKey).sum(c.frame); got != c.want {
				t.Errorf("%s to %s, %s: %x, want %x", e.from, e.to, c.name, got, c.want)
			}
		}
	}
	// A fragment has no ports; extension headers are skipped.
	f := between(rssExamples[0].from, rssExamples[0].to)
	f[14+6] = 0x20
	if got := newHasher(0x3f, rssKey).sum(f); got != (hashed{rssExamples[0].addresses, 1}) {
		t.Errorf("fragment: %x", got)
	}
	six := between(rssExamples[3].from, rssExamples[3].to)
	extended := append(append(bytes.Clone(six[:54]), protocolTCP, 0, 0, 0, 0, 0, 0, 0), six[54:]...)
	extended[14+6] = 60
	if got := newHasher(0x3f, rssKey).sum(extended); got != (hashed{rssExamples[3].withPorts, 5}) {
		t.Errorf("extension header: %x", got)
	}
}

func rssCommand(types uint32, unclassified uint16, table []uint16, pairs uint16, key []byte) []byte {
	le := binary.LittleEndian
	b := le.AppendUint32(nil, types)
	b = le.AppendUint16(b, uint16(len(table)-1))
	b = le.AppendUint16(b, unclassified)
	for _, q := range table {
		b = le.AppendUint16(b, q)
	}
	b = le.AppendUint16(b, pairs)
	return append(append(b, byte(len(key))), key...)
}

func Test_5_1_6_5_7_RSS(t *testing.T) {
	r := newRig(t, Config{Queues: 4, RSS: true}, netdev.Offloads{}, featureRSS|featureControl|featureMergeable)
	table := []uint16{0, 1, 2, 3, 3, 2, 1, 0}
	r.must(classMQ, mqRSS, rssCommand(0x3f, 2, table, 4, rssKey)...)
	for _, e := range rssExamples {
		q := int(table[e.withPorts&7])
		r.next = inAt
		r.offer(q, 2000)
		r.arrive(between(e.from, e.to))
		r.take(q)
	}
	r.offer(2, 2000)
	r.arrive(frame(100)) // not IP
	r.take(2)
	for name, bad := range map[string][]byte{
		"a table that is no power of two": rssCommand(0x3f, 0, []uint16{0, 1, 2}, 4, rssKey),
		"a table too large":               rssCommand(0x3f, 0, make([]uint16, 256), 4, rssKey),
		"a queue that is not there":       rssCommand(0x3f, 0, []uint16{4}, 4, rssKey),
		"no queue for what is not hashed": rssCommand(0x3f, 4, []uint16{0}, 4, rssKey),
		"no transmit queues":              rssCommand(0x3f, 0, []uint16{0}, 0, rssKey),
		"too many transmit queues":        rssCommand(0x3f, 0, []uint16{0}, 5, rssKey),
		"types that are not there":        rssCommand(0x40, 0, []uint16{0}, 4, rssKey),
		"a key too long":                  rssCommand(0x3f, 0, []uint16{0}, 4, make([]byte, 41)),
		"too short":                       rssCommand(0x3f, 0, []uint16{0}, 4, rssKey)[:30],
		"too long":                        append(rssCommand(0x3f, 0, []uint16{0}, 4, rssKey), 0),
		"nothing":                         nil,
	} {
		if ack := r.command(classMQ, mqRSS, bad...); ack != ackError {
			t.Errorf("%s: answer %d", name, ack)
		}
	}
	r.refused(classMQ, mqHash, make([]byte, 12)...) // HASH_REPORT was not negotiated
	r.begin(featureControl)
	r.refused(classMQ, mqRSS, rssCommand(0x3f, 0, []uint16{0}, 1, rssKey)...)
}

func Test_5_1_6_4_4_HashReports(t *testing.T) {
	r := newRig(t, Config{Hash: true}, netdev.Offloads{}, featureHashReport|featureControl|featureMergeable|featureRX)
	report := func(want hashed) {
		t.Helper()
		r.next = inAt
		r.offer(0, 2000)
		f := between(rssExamples[0].from, rssExamples[0].to)
		r.arrive(f)
		got := r.take(0)
		le := binary.LittleEndian
		if h := (hashed{le.Uint32(got[12:]), le.Uint16(got[16:])}); h != want || le.Uint16(got[10:]) != 1 || !bytes.Equal(got[hashHeaderSize:], f) {
			t.Errorf("report %x, want %x; header % x", h, want, got[:hashHeaderSize])
		}
	}
	report(hashed{}) // at first all types are disabled
	config := append(append(binary.LittleEndian.AppendUint32(nil, 0x3f), make([]byte, 8)...), 40)
	r.must(classMQ, mqHash, append(config, rssKey...)...)
	report(hashed{rssExamples[0].withPorts, 2})
	r.refused(classMQ, mqHash, config...)
	r.refused(classMQ, mqHash, config[:11]...)
	// Frames that the driver sends have the longer header too.
	sent := append(make([]byte, hashHeaderSize), frame(100)...)
	r.send(0, sent, 3, 7)
	if got := r.pipe.Take(t); !bytes.Equal(got, sent[hashHeaderSize-netdev.HeaderSize:]) {
		t.Errorf("% x", got)
	}
}
