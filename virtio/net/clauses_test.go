package net

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"testing"
	"time"

	"berth/netdev"
	"berth/netdev/netdevtest"
	"berth/virtio"
	"berth/virtio/virtiotest"
)

// control is what a driver accepts that uses all of the control queue.
const control = featureControl | featureRX | featureRXExtra | featureVLAN | featureSetMAC | featureAnnounce | featureStatus | featureMAC

func Test_5_1_4_1_ConfigurationSpace(t *testing.T) {
	r := newRig(t, Config{MTU: 9000, Queues: 4, Speed: 10000, RSS: true, Hash: true}, all, featureMultiqueue|control)
	if s := configBytes(r, 0, 6); !bytes.Equal(s, guestMAC[:]) {
		t.Errorf("mac % x", s)
	}
	for _, c := range []struct {
		off, n int
		want   uint64
	}{
		{6, 2, statusLinkUp}, {8, 2, 4}, {10, 2, 9000}, {12, 4, 10000}, {16, 1, 1}, {17, 1, 40}, {18, 2, 128}, {20, 4, 0x3f}, {24, 4, 0},
	} {
		if v := r.DeviceConfig(c.off, c.n); v != c.want {
			t.Errorf("%d bytes at %d: 0x%x, want 0x%x", c.n, c.off, v, c.want)
		}
	}
	want := featureMAC | featureStatus | featureMergeable | featureControl | featureRX | featureVLAN | featureRXExtra | featureSetMAC |
		featureAnnounce | featureMTU | featureSpeed | featureMultiqueue | featureRSS | featureHashReport | featureCSUM | featureGuestCSUM |
		featureGuestOffloads | featureHostTSO4 | featureHostTSO6 | featureHostECN | featureHostUFO | featureHostUSO | guestOffloads |
		allRings | virtio.FeatureVersion1
	if f := r.Offered(); f != want {
		t.Errorf("features 0x%x, want 0x%x", f, want)
	}
	if id := r.ReadConfig(0, 4); id != 0x1041_1af4 {
		t.Errorf("PCI ID 0x%x", id)
	}
	r.SetDeviceConfig(0, 4, 0) // all fields are read-only
	if s := configBytes(r, 0, 6); !bytes.Equal(s, guestMAC[:]) {
		t.Errorf("mac % x after a write", s)
	}
	if _, err := New(netdevtest.NewPipe(all), Config{Queues: MaxQueues + 1}); err == nil {
		t.Error("too many queues were accepted")
	}
}

func configBytes(r *rig, off, n int) (b []byte) {
	for i := range n {
		b = append(b, byte(r.DeviceConfig(off+i, 1)))
	}
	return b
}

// Without a port that can, nothing of offloads is offered, and its headers are zeros.
func Test_5_1_3_OffloadsAreThePorts(t *testing.T) {
	const plain = featureMAC | featureStatus | featureMergeable | featureControl | featureRX | featureVLAN | featureRXExtra | featureSetMAC |
		featureAnnounce | allRings | virtio.FeatureVersion1
	for _, c := range []struct {
		can  netdev.Offloads
		more uint64
	}{
		{netdev.Offloads{}, 0},
		{netdev.Offloads{TSO4: true}, 0}, // none goes without checksums
		{netdev.Offloads{Checksum: true}, featureCSUM | featureGuestCSUM | featureGuestOffloads},
		{netdev.Offloads{Checksum: true, TSOECN: true}, featureCSUM | featureGuestCSUM | featureGuestOffloads},
		{netdev.Offloads{Checksum: true, TSO6: true, TSOECN: true}, featureCSUM | featureGuestCSUM | featureGuestOffloads | featureHostTSO6 | featureGuestTSO6 | featureHostECN | featureGuestECN},
	} {
		if f := newRig(t, Config{}, c.can, 0).Offered(); f != plain|c.more {
			t.Errorf("%+v: features 0x%x, want 0x%x", c.can, f, plain|c.more)
		}
	}
}

// "The device MUST NOT pass received packets that exceed mtu […] with gso_type NONE."
func Test_5_1_4_1_NothingLongerThanTheMTUIsReceived(t *testing.T) {
	vlan := func(n int) []byte {
		f := frame(n)
		copy(f[12:], []byte{0x81, 0, 0, 5})
		return f
	}
	for _, c := range []struct {
		frame []byte
		gso   byte
		comes bool
	}{
		{frame(1014), 0, true}, {frame(1015), 0, false}, {vlan(1018), 0, true}, {vlan(1019), 0, false}, {frame(1400), gsoTCPv4, true},
	} {
		r := newRig(t, Config{MTU: 1000}, all, featureMTU|featureMergeable|featureGuestCSUM|featureGuestTSO4)
		r.offer(0, 2000)
		r.arrive(c.frame, flagNeedsChecksum, c.gso, 0, 0, 100)
		r.arrive(frame(77))
		got := r.take(0)
		if comes := len(got) == netdev.HeaderSize+len(c.frame); comes != c.comes {
			t.Errorf("%d bytes, gso_type %d: came %v", len(c.frame), c.gso, comes)
		}
	}
}

// sentHeaders are headers of frames that a driver sends, and what becomes of them.
func Test_5_1_6_2_2_SentHeaders(t *testing.T) {
	header := func(flags, gso byte, size, start, offset uint16) []byte {
		b := []byte{flags, gso, 66, 0}
		b = binary.LittleEndian.AppendUint16(b, size)
		b = binary.LittleEndian.AppendUint16(b, start)
		return binary.LittleEndian.AppendUint16(b, offset)
	}
	const everything = featureCSUM | featureHostTSO4 | featureHostTSO6 | featureHostECN | featureHostUFO | featureHostUSO
	for _, c := range []struct {
		name     string
		features uint64
		sent     []byte
		want     []byte // nil: dropped
	}{
		{"plain", 0, header(0, 0, 0, 0, 0), header(0, 0, 0, 0, 0)},
		{"flags that are not known are ignored", featureCSUM, header(0xfe, 0, 0, 0, 0), header(2, 0, 0, 0, 0)},
		{"offsets without NEEDS_CSUM are not used", featureCSUM, header(0, 0, 0, 34, 16), header(0, 0, 0, 0, 0)},
		{"a checksum", featureCSUM, header(1, 0, 0, 34, 16), header(1, 0, 0, 34, 16)},
		{"a checksum that was not negotiated", 0, header(1, 0, 0, 34, 16), nil},
		{"TSO4", everything, header(1, gsoTCPv4, 1448, 34, 16), header(1, gsoTCPv4, 1448, 34, 16)},
		{"TSO4 with ECN", everything, header(1, gsoTCPv4|gsoECN, 1448, 34, 16), header(1, gsoTCPv4|gsoECN, 1448, 34, 16)},
		{"TSO6", everything, header(1, gsoTCPv6, 1428, 54, 16), header(1, gsoTCPv6, 1428, 54, 16)},
		{"UFO", everything, header(1, gsoUDP, 1448, 34, 6), header(1, gsoUDP, 1448, 34, 6)},
		{"USO", everything, header(1, gsoUDPL4, 1448, 34, 6), header(1, gsoUDPL4, 1448, 34, 6)},
		{"TSO4 that was not negotiated", everything &^ featureHostTSO4, header(1, gsoTCPv4, 1448, 34, 16), nil},
		{"TSO6 that was not negotiated", everything &^ featureHostTSO6, header(1, gsoTCPv6, 1448, 34, 16), nil},
		{"ECN that was not negotiated", everything &^ featureHostECN, header(1, gsoTCPv4|gsoECN, 1448, 34, 16), nil},
		{"UFO that was not negotiated", everything &^ featureHostUFO, header(1, gsoUDP, 1448, 34, 6), nil},
		{"USO that was not negotiated", everything &^ featureHostUSO, header(1, gsoUDPL4, 1448, 34, 6), nil},
		{"ECN of UDP", everything, header(1, gsoUDPL4|gsoECN, 1448, 34, 6), nil},
		{"TSO4 without a checksum", everything, header(0, gsoTCPv4, 1448, 0, 0), nil},
		{"TSO4 without a size", everything, header(1, gsoTCPv4, 0, 34, 16), nil},
		{"a tunnel", everything, header(1, gsoTCPv4|0x20, 1448, 34, 16), nil},
		{"a type that there is not", everything, header(1, 7, 1448, 34, 16), nil},
	} {
		r := newRig(t, Config{}, all, c.features)
		r.send(0, netdevtest.WithHeader(frame(3000), append(c.sent, 9, 9)...))
		r.send(0, netdevtest.WithHeader(frame(80)))
		got := r.pipe.Take(t)
		if (len(got) == netdev.HeaderSize+80) != (c.want == nil) || c.want != nil && !bytes.Equal(got, netdevtest.WithHeader(frame(3000), c.want...)) {
			t.Errorf("%s: %d bytes, header % x, want % x", c.name, len(got), got[:netdev.HeaderSize], c.want)
		}
	}
}

// Whatever a driver sends that is no frame, its buffers come back, and the next frame goes.
func Test_5_1_6_2_NoFrames(t *testing.T) {
	r := newRig(t, Config{}, all, allRings)
	for _, n := range []int{0, 1, 11, 12, 13, 25, netdev.MaxFrame + 1, 100000} {
		r.Put(outAt, make([]byte, n))
		if n == 0 { // only what the device would write
			r.Rings[1].Send(virtiotest.In(inAt, 100))
		} else {
			r.Rings[1].Send(virtiotest.Out(outAt, uint32(n)))
		}
		if _, used := r.Rings[1].Wait(); used != 0 {
			t.Errorf("%d bytes: used length %d", n, used)
		}
	}
	big := netdevtest.Frame(peerMAC, guestMAC, netdev.MaxFrame-netdev.HeaderSize)
	r.send(0, netdevtest.WithHeader(big))
	if got := r.pipe.Take(t); !bytes.Equal(got[netdev.HeaderSize:], big) {
		t.Errorf("%d bytes of the longest frame", len(got))
	}
	if s := r.dev.Stats(); s.TransmitDropped != 8 || s.TransmittedFrames != 1 || r.Status() != 15 {
		t.Errorf("%+v, status %d", s, r.Status())
	}
}

// "The device MUST set num_buffers to the number of descriptors used", "MUST use all
// buffers but the last completely", "such that at least num_buffers are observed".
func Test_5_1_6_4_1_MergedBuffers(t *testing.T) {
	for _, features := range []uint64{featureMergeable, featureMergeable | allRings} {
		r := newRig(t, Config{}, netdev.Offloads{}, features)
		for _, size := range []uint32{100, 12, 13, 50, 500} {
			for _, n := range []int{60, 88, 89, 400} {
				need := (uint32(n) + netdev.HeaderSize + size - 1) / size
				r.next = inAt
				for range need - 1 {
					r.offer(0, size)
				}
				r.arrive(frame(n))
				if need > 1 {
					r.quiet(0) // not before there are enough
				}
				r.offer(0, size)
				r.Wait("all buffers", func() bool { return r.Rings[0].UsedIdx()%ringSize == uint16(r.total(int(need)))%ringSize })
				var got []byte
				for i := range need {
					part := r.one(0)
					if i < need-1 && len(part) != int(size) {
						t.Errorf("buffer %d of %d has %d bytes of %d", i, need, len(part), size)
					}
					got = append(got, part...)
				}
				if c := binary.LittleEndian.Uint16(got[10:]); c != uint16(need) || !bytes.Equal(got[netdev.HeaderSize:], frame(n)) {
					t.Errorf("%d bytes in buffers of %d: num_buffers %d, want %d", n, size, c, need)
				}
			}
		}
	}
}

// total counts buffers that were used of receive queue 0.
func (r *rig) total(n int) int {
	r.used += n
	return r.used
}

// "The device MUST use only a single descriptor if VIRTIO_NET_F_MRG_RXBUF was not
// negotiated": what does not fit is dropped, and the buffer serves the next frame.
func Test_5_1_6_3_2_SingleBuffers(t *testing.T) {
	r := newRig(t, Config{}, netdev.Offloads{}, 0)
	r.offer(0, 500)
	r.offer(0, 2000)
	r.arrive(frame(600))
	r.arrive(frame(300))
	if got := r.take(0); !bytes.Equal(got, netdevtest.WithHeader(frame(300), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1)) {
		t.Errorf("%d bytes", len(got))
	}
	r.arrive(frame(600))
	if got := r.take(0); len(got) != netdev.HeaderSize+600 {
		t.Errorf("%d bytes", len(got))
	}
}

// A frame that a whole ring does not hold is dropped; the ring serves the next.
func TestAFrameThatNoRingHolds(t *testing.T) {
	r := newRig(t, Config{}, all, featureMergeable)
	for range ringSize {
		r.offer(0, 20)
	}
	r.arrive(frame(ringSize * 20))
	r.arrive(frame(100))
	if got := r.take(0); len(got) != netdev.HeaderSize+100 {
		t.Errorf("%d bytes", len(got))
	}
}

// Headers of frames to receive: nothing comes that the driver has not negotiated.
func Test_5_1_6_4_1_ReceivedHeaders(t *testing.T) {
	const guest = featureGuestCSUM | featureGuestTSO4 | featureGuestTSO6 | featureGuestECN | featureGuestUFO | featureGuestUSO4
	for _, c := range []struct {
		name       string
		features   uint64
		came       []byte
		flags, gso byte
		dropped    bool
	}{
		{"a checksum left to do", guest, []byte{1, 0, 0, 0, 0, 0, 34, 0, 16, 0}, 1, 0, false},
		{"a checksum that is good", guest, []byte{2}, 2, 0, false},
		{"without GUEST_CSUM flags are zero", 0, []byte{2}, 0, 0, false},
		{"a checksum left to a driver that cannot", 0, []byte{1, 0, 0, 0, 0, 0, 34, 0, 16, 0}, 0, 0, true},
		{"flags of which nothing was agreed", guest, []byte{0xfc}, 0, 0, false},
		{"TSO4", guest, []byte{1, gsoTCPv4, 66, 0, 100, 0, 34, 0, 16, 0}, 1, gsoTCPv4, false},
		{"TSO4 with ECN", guest, []byte{1, gsoTCPv4 | gsoECN, 66, 0, 100, 0, 34, 0, 16, 0}, 1, gsoTCPv4 | gsoECN, false},
		{"TSO6", guest, []byte{1, gsoTCPv6, 66, 0, 100, 0, 34, 0, 16, 0}, 1, gsoTCPv6, false},
		{"UFO", guest, []byte{1, gsoUDP, 66, 0, 100, 0, 34, 0, 6, 0}, 1, gsoUDP, false},
		{"USO", guest, []byte{1, gsoUDPL4, 66, 0, 100, 0, 34, 0, 6, 0}, 1, gsoUDPL4, false},
		{"TSO4, not negotiated", guest &^ featureGuestTSO4, []byte{1, gsoTCPv4, 66, 0, 100, 0, 34, 0, 16, 0}, 0, 0, true},
		{"ECN, not negotiated", guest &^ featureGuestECN, []byte{1, gsoTCPv4 | gsoECN, 66, 0, 100, 0, 34, 0, 16, 0}, 0, 0, true},
	} {
		r := newRig(t, Config{}, all, c.features|featureMergeable)
		r.offer(0, 4000)
		r.arrive(frame(2000), c.came...)
		r.arrive(frame(99))
		got := r.take(0)
		if dropped := len(got) == netdev.HeaderSize+99; dropped != c.dropped || got[0] != c.flags || got[1] != c.gso {
			t.Errorf("%s: %d bytes, header % x", c.name, len(got), got[:netdev.HeaderSize])
		}
	}
}

// filtered sends frames to several addresses and says which come.
func (r *rig) filtered(frames map[string][]byte) string {
	r.T.Helper()
	var got []byte
	for _, name := range []string{"own", "other", "bcast", "multi", "multi2", "vlan5", "vlan6"} {
		f, ok := frames[name]
		if !ok {
			continue
		}
		r.next = inAt
		r.offer(0, 2000)
		before := r.dev.Stats().ReceiveDropped
		r.arrive(f)
		r.Wait("a frame", func() bool {
			return r.Rings[0].UsedIdx() != uint16(r.used) || r.dev.Stats().ReceiveDropped != before
		})
		if r.Rings[0].UsedIdx() != uint16(r.used) {
			r.one(0)
			r.used++
			got = fmt.Appendf(got, "%s ", name)
		}
	}
	return string(bytes.TrimSpace(got))
}

func addressed(to ...byte) []byte { return netdevtest.Frame([6]byte(to), peerMAC, 100) }

func inVLAN(id byte) []byte {
	f := netdevtest.Frame(guestMAC, peerMAC, 100)
	copy(f[12:], []byte{0x81, 0, 0x60, id})
	return f
}

func Test_5_1_6_5_1_1_ReceiveModes(t *testing.T) {
	frames := map[string][]byte{
		"own": addressed(guestMAC[:]...), "other": addressed(peerMAC[:]...), "bcast": addressed(255, 255, 255, 255, 255, 255),
		"multi": addressed(1, 0, 0x5e, 0, 0, 1), "multi2": addressed(0x33, 0x33, 0, 0, 0, 1),
	}
	r := newRig(t, Config{}, netdev.Offloads{}, control|featureMergeable)
	check := func(what, want string) {
		t.Helper()
		if got := r.filtered(frames); got != want {
			t.Errorf("%s: %q came, want %q", what, got, want)
		}
	}
	check("at first, everything", "own other bcast multi multi2")
	r.must(classRX, rxPromiscuous, 0)
	check("not promiscuous", "own bcast")
	r.must(classRX, rxAllMulti, 1)
	check("all multicast", "own bcast multi multi2")
	r.must(classRX, rxNoMulti, 1)
	check("no multicast comes before all", "own bcast")
	r.must(classRX, rxNoMulti, 0)
	r.must(classRX, rxAllMulti, 0)
	r.must(classRX, rxAllUni, 1)
	check("all unicast", "own other bcast")
	r.must(classRX, rxNoUni, 1)
	check("no unicast comes before all", "bcast")
	r.must(classRX, rxNoBroadcast, 1)
	check("no broadcast", "")
	r.must(classRX, rxPromiscuous, 1)
	check("promiscuous comes before all", "own other bcast multi multi2")
	for command := range byte(6) {
		r.refused(classRX, command)
		r.refused(classRX, command, 1, 0)
	}
	r.refused(classRX, 6, 1)
	r.begin(control | featureMergeable)
	r.used = 0
	check("after a reset", "own other bcast multi multi2")
	r.begin(featureControl | featureRX)
	r.must(classRX, rxPromiscuous, 1)
	for command := byte(rxAllUni); command <= rxNoBroadcast; command++ {
		r.refused(classRX, command, 1) // CTRL_RX_EXTRA was not negotiated
	}
	r.begin(featureControl)
	r.refused(classRX, rxPromiscuous, 0)
}

func table(unicast, multicast [][]byte) (b []byte) {
	for _, t := range [][][]byte{unicast, multicast} {
		b = binary.LittleEndian.AppendUint32(b, uint32(len(t)))
		for _, a := range t {
			b = append(b, a...)
		}
	}
	return b
}

func Test_5_1_6_5_2_1_MACTable(t *testing.T) {
	frames := map[string][]byte{
		"own": addressed(guestMAC[:]...), "other": addressed(peerMAC[:]...), "bcast": addressed(255, 255, 255, 255, 255, 255),
		"multi": addressed(1, 0, 0x5e, 0, 0, 1), "multi2": addressed(0x33, 0x33, 0, 0, 0, 1),
	}
	changes := 0
	r := newRig(t, Config{FilterChanged: func() { changes++ }}, netdev.Offloads{}, control|featureMergeable)
	check := func(what, want string) {
		t.Helper()
		if got := r.filtered(frames); got != want {
			t.Errorf("%s: %q came, want %q", what, got, want)
		}
	}
	r.must(classRX, rxPromiscuous, 0)
	check("an empty table", "own bcast")
	r.must(classMAC, macTableSet, table([][]byte{peerMAC[:]}, [][]byte{{0x33, 0x33, 0, 0, 0, 1}})...)
	check("one of each", "own other bcast multi2")
	r.must(classMAC, macTableSet, table(nil, [][]byte{{1, 0, 0x5e, 0, 0, 1}})...)
	check("another", "own bcast multi")
	many := make([][]byte, maxAddresses+1)
	for i := range many {
		many[i] = []byte{2, 9, 9, 9, 9, byte(i)}
	}
	r.must(classMAC, macTableSet, table(many[:maxAddresses], nil)...)
	check("a full table", "own bcast")
	r.must(classMAC, macTableSet, table(many, nil)...)
	check("more unicast than it keeps", "own other bcast")
	r.must(classMAC, macTableSet, table(nil, many)...)
	check("more multicast than it keeps", "own bcast multi multi2")
	f := r.dev.RxFilter()
	if !f.MulticastOverflow || f.UnicastOverflow || f.Promiscuous || f.MAC != guestMAC || changes == 0 {
		t.Errorf("%+v, %d changes", f, changes)
	}
	good := table([][]byte{peerMAC[:]}, nil)
	for _, bad := range [][]byte{nil, good[:3], good[:9], good[:13], append(bytes.Clone(good), 0), {0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0}} {
		r.refused(classMAC, macTableSet, bad...)
	}
	check("what is refused changes nothing", "own bcast multi multi2")
	r.must(classMAC, macAddrSet, peerMAC[:]...)
	if got := configBytes(r, 0, 6); !bytes.Equal(got, peerMAC[:]) {
		t.Errorf("mac % x in the configuration space", got)
	}
	check("another address", "other bcast multi multi2")
	r.refused(classMAC, macAddrSet, 1, 2, 3, 4, 5)
	r.refused(classMAC, macAddrSet, 1, 2, 3, 4, 5, 6, 7)
	r.refused(classMAC, 2)
	r.begin(control | featureMergeable)
	r.used = 0
	r.must(classRX, rxPromiscuous, 0)
	check("after a reset", "own bcast")
	if got := configBytes(r, 0, 6); !bytes.Equal(got, guestMAC[:]) {
		t.Errorf("mac % x after a reset", got)
	}
}

func Test_5_1_6_5_3_1_VLANs(t *testing.T) {
	frames := map[string][]byte{"own": addressed(guestMAC[:]...), "vlan5": inVLAN(5), "vlan6": inVLAN(6)}
	r := newRig(t, Config{}, netdev.Offloads{}, control&^featureVLAN)
	r.must(classRX, rxPromiscuous, 0)
	if got := r.filtered(frames); got != "own vlan5 vlan6" {
		t.Errorf("without VLAN filtering %q came", got)
	}
	r.refused(classVLAN, vlanAdd, 5, 0)
	r.begin(control)
	r.used = 0
	r.must(classRX, rxPromiscuous, 0)
	for _, step := range []struct {
		command byte
		id      uint16
		want    string
	}{
		{vlanAdd, 5, "own vlan5"}, {vlanAdd, 4095, "own vlan5"}, {vlanAdd, 6, "own vlan5 vlan6"}, {vlanDel, 5, "own vlan6"}, {vlanDel, 5, "own vlan6"},
	} {
		r.must(classVLAN, step.command, byte(step.id), byte(step.id>>8))
		if got := r.filtered(frames); got != step.want {
			t.Errorf("command %d VLAN %d: %q came, want %q", step.command, step.id, got, step.want)
		}
	}
	if v := r.dev.RxFilter().VLANs; len(v) != 2 || v[0] != 6 || v[1] != 4095 {
		t.Errorf("VLANs %v", v)
	}
	r.refused(classVLAN, vlanAdd, 0, 16) // 4096
	r.refused(classVLAN, vlanAdd, 5)
	r.refused(classVLAN, 2, 5, 0)
}

func Test_5_1_6_5_4_2_Announcement(t *testing.T) {
	r := newRig(t, Config{}, netdev.Offloads{}, control)
	r.refused(classAnnounce, announceAck) // nobody has asked
	g := r.Generation()
	if err := r.dev.Announce(); err != nil {
		t.Fatal(err)
	}
	if s := r.DeviceConfig(6, 2); s != statusLinkUp|statusAnnounce {
		t.Errorf("status %d", s)
	}
	if r.Generation() == g {
		t.Error("the configuration has not changed")
	}
	r.Wait("an interrupt", func() bool { return r.MSIs.Count(0x40) > 0 })
	r.must(classAnnounce, announceAck)
	if s := r.DeviceConfig(6, 2); s != statusLinkUp {
		t.Errorf("status %d", s)
	}
	r.refused(classAnnounce, 1)
	// A driver that cannot is announced by the device.
	r.begin(0)
	if err := r.dev.Announce(); err != nil {
		t.Fatal(err)
	}
	f := r.pipe.Take(t)[netdev.HeaderSize:]
	if len(f) != 60 || [6]byte(f) != broadcast || [6]byte(f[6:]) != guestMAC || f[12] != 0x80 || f[13] != 0x35 || [6]byte(f[22:]) != guestMAC {
		t.Errorf("announcement % x", f)
	}
}

func TestLink(t *testing.T) {
	r := newRig(t, Config{}, netdev.Offloads{}, control)
	r.dev.SetLink(false)
	r.Wait("an interrupt", func() bool { return r.MSIs.Count(0x40) > 0 })
	if s := r.DeviceConfig(6, 2); s != 0 || r.dev.Link() {
		t.Errorf("status %d", s)
	}
	r.offer(0, 2000)
	r.arrive(frame(100))
	r.send(0, netdevtest.WithHeader(frame(100)))
	r.quiet(0)
	if n := len(r.pipe.FromGuest); n != 0 {
		t.Errorf("%d frames were sent", n)
	}
	r.begin(control) // a reset leaves the cable where it is
	if s := r.DeviceConfig(6, 2); s != 0 {
		t.Errorf("status %d after a reset", s)
	}
	r.dev.SetLink(true)
	r.dev.SetLink(true)
	r.offer(0, 2000)
	r.arrive(frame(100))
	r.take(0)
	if s := r.DeviceConfig(6, 2); s != statusLinkUp {
		t.Errorf("status %d", s)
	}
}

func Test_5_1_6_5_8_GuestOffloads(t *testing.T) {
	set := func(bits uint64) []byte { return binary.LittleEndian.AppendUint64(nil, bits) }
	r := newRig(t, Config{}, all, featureControl|featureGuestOffloads|featureGuestCSUM|featureGuestTSO4)
	if got := r.pipe.Gets(); got != (netdev.Offloads{Checksum: true, TSO4: true}) {
		t.Errorf("at first %+v", got)
	}
	r.must(classGuestOffloads, guestOffloadsSet, set(featureGuestCSUM)...)
	if got := r.pipe.Gets(); got != (netdev.Offloads{Checksum: true}) {
		t.Errorf("%+v", got)
	}
	r.offer(0, 2000)
	r.arrive(frame(1000), 1, gsoTCPv4, 0, 0, 100, 0, 34, 0, 16, 0)
	r.arrive(frame(88))
	if got := r.take(0); len(got) != netdev.HeaderSize+88 {
		t.Error("a segmentation came after it was switched off")
	}
	r.must(classGuestOffloads, guestOffloadsSet, set(0)...)
	if got := r.pipe.Gets(); got != (netdev.Offloads{}) {
		t.Errorf("%+v", got)
	}
	r.refused(classGuestOffloads, guestOffloadsSet, set(featureGuestCSUM|featureGuestTSO6)...) // not negotiated
	r.refused(classGuestOffloads, guestOffloadsSet, set(featureCSUM)...)
	r.refused(classGuestOffloads, guestOffloadsSet, set(0)[:7]...)
	r.refused(classGuestOffloads, 1, set(0)...)
	r.begin(0)
	if got := r.pipe.Gets(); got != (netdev.Offloads{}) {
		t.Errorf("a driver that accepts none gets %+v", got)
	}
}

// Test_5_1_6_5_6_2: "the device MUST queue packets only on receiveq1" at first, and not
// "on receive queues greater than virtqueue_pairs"; a flow comes to the queue beside the
// one it was sent from.
func Test_5_1_6_5_6_2_AutomaticReceiveSteering(t *testing.T) {
	const pairs = 4
	r := newRig(t, Config{Queues: pairs}, netdev.Offloads{}, featureMultiqueue|featureControl)
	flow := func(i byte, back bool) []byte {
		a, b := []byte{10, 0, 0, 1}, []byte{10, 0, 0, 2}
		pa, pb := []byte{0x20, i}, []byte{0x30, i}
		if back {
			a, b, pa, pb = b, a, pb, pa
		}
		return tcp(a, b, pa, pb)
	}
	spread := func(n int) {
		t.Helper()
		for i := range byte(24) {
			q := int(i) % n
			r.send(q, netdevtest.WithHeader(flow(i, false)))
			r.pipe.Take(t)
			r.next = inAt
			r.offer(q, 2000)
			r.arrive(flow(i, true))
			r.take(q)
		}
	}
	r.must(classMQ, mqPairs, 1, 0)
	spread(1)
	r.must(classMQ, mqPairs, pairs, 0)
	spread(pairs)
	r.must(classMQ, mqPairs, 2, 0)
	for q := range pairs {
		r.offer(q, 2000)
	}
	for i := range byte(24) {
		r.arrive(flow(i, true))
	}
	r.quiet(2)
	r.quiet(3)
	r.refused(classMQ, mqPairs, 0, 0)
	r.refused(classMQ, mqPairs, pairs+1, 0)
	r.refused(classMQ, mqPairs, 1)
	r.refused(classMQ, 3, 1, 0)
	// Without multiqueue the control queue is the third (§5.1.2).
	r.begin(featureControl | featureRX)
	r.refused(classMQ, mqPairs, 2, 0)
	r.must(classRX, rxPromiscuous, 1)
}

// tcp is an IPv4 or IPv6 frame with a TCP header's first bytes.
func tcp(from, to, fromPort, toPort []byte) []byte {
	f := append(append([]byte{}, guestMAC[:]...), peerMAC[:]...)
	if len(from) == 4 {
		f = append(f, 8, 0, 0x45, 0, 0, 60, 0, 0, 0, 0, 64, protocolTCP, 0, 0)
	} else {
		f = append(f, 0x86, 0xdd, 0x60, 0, 0, 0, 0, 20, protocolTCP, 64)
	}
	f = append(append(f, from...), to...)
	f = append(append(f, fromPort...), toPort...)
	return append(f, make([]byte, 40)...)
}

// A paused device stores nothing and forgets nothing; what it has goes on elsewhere.
func TestPauseSaveLoad(t *testing.T) {
	r := newRig(t, Config{Queues: 2}, all, control|featureMultiqueue|featureGuestCSUM|featureGuestOffloads|featureMergeable)
	r.must(classRX, rxPromiscuous, 0)
	r.must(classVLAN, vlanAdd, 7, 0)
	r.must(classMQ, mqPairs, 2, 0)
	r.must(classMAC, macTableSet, table([][]byte{peerMAC[:]}, nil)...)
	r.must(classGuestOffloads, guestOffloadsSet, make([]byte, 8)...)
	r.Dev.Pause()
	r.offer(0, 2000)
	r.arrive(netdevtest.Frame(peerMAC, peerMAC, 100))
	r.Put(outAt, netdevtest.WithHeader(frame(100)))
	r.Rings[1].Send(virtiotest.Out(outAt, 112))
	used := [2]uint16{r.Rings[0].UsedIdx(), r.Rings[1].UsedIdx()}
	time.Sleep(20 * time.Millisecond)
	if now := [2]uint16{r.Rings[0].UsedIdx(), r.Rings[1].UsedIdx()}; now != used || len(r.pipe.FromGuest) != 0 {
		t.Errorf("a paused device worked: %v, %v", used, now)
	}
	s, ts := r.dev.Save(), r.Dev.Save()

	other := netdevtest.NewPipe(all)
	dev, err := New(other, Config{MAC: [6]byte{2, 2, 2, 2, 2, 2}, Queues: 2})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = dev.Close() })
	there := virtiotest.New(t, dev, nil)
	there.Dev.Pause()
	b := make([]byte, virtiotest.RAM)
	if err := r.Mem.Read(0, b); err != nil {
		t.Fatal(err)
	}
	there.Put(0, b)
	if err := there.Root.Load(r.Root.Save()); err != nil {
		t.Fatal(err)
	}
	if err := dev.Load(s); err != nil {
		t.Fatal(err)
	}
	if err := there.Dev.Load(ts); err != nil {
		t.Fatal(err)
	}
	if got := dev.Save(); fmt.Sprint(got) != fmt.Sprint(s) {
		t.Errorf("%+v became %+v", s, got)
	}
	there.Dev.Resume()
	if got := other.Take(t); len(got) != 112 {
		t.Errorf("%d bytes were sent from there", len(got))
	}
	other.ToGuest <- netdevtest.WithHeader(netdevtest.Frame(peerMAC, peerMAC, 100))
	there.Wait("a frame", func() bool { v, _ := there.Mem.Load16(r.Rings[0].Used + 2); return v != used[0] })
	r.Dev.Resume()
	r.Rings[1].Wait()
	r.take(0)

	for name, change := range map[string]func(*State){
		"version":   func(s *State) { s.Version++ },
		"pairs":     func(s *State) { s.Pairs = 3 },
		"no pairs":  func(s *State) { s.Pairs = 0 },
		"addresses": func(s *State) { s.Unicast = make([][6]byte, maxAddresses+1) },
		"offloads":  func(s *State) { s.Offloads = featureCSUM },
		"rss":       func(s *State) { s.RSS = &RSSState{Pairs: 1, Table: []uint16{9}} },
		"hash":      func(s *State) { s.Hash = &HashState{Types: 1 << 20} },
	} {
		bad := s
		change(&bad)
		if err := dev.Load(bad); err == nil {
			t.Errorf("%s: loaded", name)
		}
	}
}

// Everything that a guest, its host and the network can do at once: nothing may hang,
// panic or race.
func TestEverythingAtOnce(t *testing.T) {
	r := newRig(t, Config{Queues: 2}, all, control|featureMultiqueue|featureMergeable|allRings)
	stop := make(chan struct{})
	done := make(chan struct{}, 3)
	loop := func(f func()) {
		for {
			select {
			case <-stop:
				done <- struct{}{}
				return
			default:
				f()
			}
		}
	}
	go loop(func() {
		select {
		case r.pipe.ToGuest <- netdevtest.WithHeader(tcp([]byte{1, 2, 3, 4}, []byte{4, 3, 2, 1}, []byte{1, 2}, []byte{3, byte(time.Now().UnixNano())})):
		case <-r.pipe.FromGuest:
		case <-time.After(time.Millisecond):
		}
	})
	go loop(func() { r.Dev.Pause(); r.dev.Save(); r.Dev.Save(); r.Dev.Resume(); time.Sleep(time.Millisecond) })
	go loop(func() {
		r.dev.SetLink(false)
		_ = r.dev.Announce()
		r.dev.RxFilter()
		r.dev.Stats()
		r.dev.SetLink(true)
		time.Sleep(time.Millisecond)
	})
	for range 30 {
		r.begin(control | featureMultiqueue | featureMergeable | allRings)
		for i := range byte(10) {
			r.next = inAt
			r.command(classMQ, mqPairs, 1+i%2, 0)
			r.offer(int(i%2), 200)
			r.send(int(i%2), netdevtest.WithHeader(frame(100)))
			r.command(classVLAN, vlanAdd, i, 0)
		}
	}
	close(stop)
	for range 3 {
		<-done
	}
	if r.Status() != 15 {
		t.Errorf("status %d", r.Status())
	}
}
