package net

import (
	"encoding/binary"

	"berth/netdev"
)

// Values of a frame's header (§5.1.6); package netdev draws it.
const (
	flagNeedsChecksum = 1
	flagDataValid     = 2

	gsoNone  = 0
	gsoTCPv4 = 1
	gsoUDP   = 3
	gsoTCPv6 = 4
	gsoUDPL4 = 5
	gsoECN   = 0x80
)

// minFrame is the least that has addresses and a type.
const minFrame = 14

// understood makes a frame's header one that says nothing but what o allows; false means
// that the frame cannot go without what it does not allow. Flags that are not known are
// ignored (§5.1.6.2.2), and so are offsets of a checksum that is not needed.
func understood(h []byte, o netdev.Offloads) bool {
	flags, gso := h[0], h[1]
	if h[0] = flags & (flagNeedsChecksum | flagDataValid); !o.Checksum {
		h[0] = 0
		if flags&flagNeedsChecksum != 0 {
			return false
		}
	}
	h[10], h[11] = 0, 0
	if h[0]&flagNeedsChecksum == 0 {
		clear(h[6:10])
	}
	if gso == gsoNone {
		h[4], h[5] = 0, 0
		return true
	}
	ecn := gso&gsoECN != 0
	allowed := false
	switch gso &^ gsoECN {
	case gsoTCPv4:
		allowed = o.TSO4 && (!ecn || o.TSOECN)
	case gsoTCPv6:
		allowed = o.TSO6 && (!ecn || o.TSOECN)
	case gsoUDP:
		allowed = o.UFO && !ecn
	case gsoUDPL4:
		allowed = (o.USO4 || o.USO6) && !ecn
	}
	return allowed && h[0]&flagNeedsChecksum != 0 && binary.LittleEndian.Uint16(h[4:]) != 0
}

// headerLength is how many bytes precede what the MTU counts: an Ethernet header, with
// a VLAN's tag if there is one.
func headerLength(frame []byte) int {
	if tagged(frame) {
		return minFrame + 4
	}
	return minFrame
}

// tagged reports whether a frame has an 802.1Q tag.
func tagged(frame []byte) bool { return len(frame) >= 18 && frame[12] == 0x81 && frame[13] == 0 }
