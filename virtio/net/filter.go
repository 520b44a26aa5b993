package net

import (
	"encoding/binary"
	"slices"
)

// maxAddresses is how many addresses of either kind a driver's table keeps. When it names
// more, it receives all of that kind.
const maxAddresses = 64

// vlanSet has a bit for each VLAN.
type vlanSet [4096 / 64]uint64

func (v *vlanSet) has(id uint16) bool { return v[id/64]>>(id%64)&1 != 0 }

func (v *vlanSet) set(id uint16, on bool) {
	if v[id/64] &^= 1 << (id % 64); on {
		v[id/64] |= 1 << (id % 64)
	}
}

// filter decides what the driver receives (§5.1.6.5.1-3).
type filter struct {
	mac                           [6]byte
	promiscuous                   bool
	allMulticast, allUnicast      bool
	noMulticast, noUnicast, noAll bool
	unicast, multicast            [][6]byte // constant
	anyUnicast, anyMulticast      bool      // more than the table keeps
	byVLAN                        bool
	vlans                         vlanSet
}

// accepts reports whether the driver is to receive a frame, which has its addresses.
// Promiscuity comes before all else.
func (f *filter) accepts(frame []byte) bool {
	if f.promiscuous {
		return true
	}
	if f.byVLAN && tagged(frame) && !f.vlans.has(binary.BigEndian.Uint16(frame[14:])&0xfff) {
		return false
	}
	to := [6]byte(frame)
	switch {
	case to == broadcast:
		return !f.noAll
	case to[0]&1 != 0:
		return !f.noMulticast && (f.allMulticast || f.anyMulticast || slices.Contains(f.multicast, to))
	}
	return !f.noUnicast && (f.allUnicast || f.anyUnicast || to == f.mac || slices.Contains(f.unicast, to))
}

var broadcast = [6]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// RxFilter is what the driver receives, for who asks from outside.
type RxFilter struct {
	MAC                                [6]byte
	Promiscuous                        bool
	AllMulticast, NoMulticast          bool
	AllUnicast, NoUnicast              bool
	NoBroadcast                        bool
	UnicastOverflow, MulticastOverflow bool
	ByVLAN                             bool // else all VLANs
	VLANs                              []int
	Unicast, Multicast                 [][6]byte
}

// RxFilter returns what the driver receives.
func (d *Device) RxFilter() RxFilter {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := &d.s
	f := RxFilter{
		MAC: s.MAC, Promiscuous: s.Promiscuous, AllMulticast: s.AllMulticast, NoMulticast: s.NoMulticast,
		AllUnicast: s.AllUnicast, NoUnicast: s.NoUnicast, NoBroadcast: s.NoBroadcast,
		UnicastOverflow: s.AnyUnicast, MulticastOverflow: s.AnyMulticast, ByVLAN: d.acked&featureVLAN != 0,
		Unicast: slices.Clone(s.Unicast), Multicast: slices.Clone(s.Multicast),
	}
	for id := range uint16(4096) {
		if s.VLANs.has(id) {
			f.VLANs = append(f.VLANs, int(id))
		}
	}
	return f
}

func (s *State) filter(acked uint64) filter {
	return filter{
		mac: s.MAC, promiscuous: s.Promiscuous, allMulticast: s.AllMulticast, allUnicast: s.AllUnicast,
		noMulticast: s.NoMulticast, noUnicast: s.NoUnicast, noAll: s.NoBroadcast,
		unicast: s.Unicast, multicast: s.Multicast, anyUnicast: s.AnyUnicast, anyMulticast: s.AnyMulticast,
		byVLAN: acked&featureVLAN != 0, vlans: s.VLANs,
	}
}
