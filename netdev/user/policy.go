package user

import (
	"net/netip"

	"berth/spec"
)

// Where what a guest sends ends.
type target struct {
	kind targetKind
	addr netip.AddrPort     // of toHost
	out  *spec.GuestForward // of toForward
}

type targetKind int

const (
	nowhere   targetKind = iota
	toHost               // the host's network, at addr
	toNames              // the host's name servers
	toForward            // a guestfwd
)

// target says where what a guest sends to dst ends, which holds for every protocol.
//
// Whoever runs berth trusts the host's loopback and link-local addresses to be nobody
// else's: services without passwords listen there, and clouds give keys to whom asks
// 169.254.169.254. So a guest has no way to them but Loopback.
func (n *Network) target(dst netip.AddrPort) target {
	if f := n.forwards.guest(dst); f != nil {
		return target{kind: toForward, out: f}
	}
	a := dst.Addr()
	switch {
	case n.cfg.Restrict || dst.Port() == 0:
		return target{}
	case a == n.cfg.Host || a == n.cfg.Host6:
		if !n.cfg.Loopback {
			return target{}
		}
		lo := netip.AddrFrom4([4]byte{127, 0, 0, 1})
		if a.Is6() {
			lo = netip.IPv6Loopback()
		}
		return target{kind: toHost, addr: netip.AddrPortFrom(lo, dst.Port())}
	case a == n.cfg.DNS || a == n.cfg.DNS6:
		if dst.Port() != 53 {
			return target{}
		}
		return target{kind: toNames}
	case !n.beyond(a):
		return target{}
	}
	return target{kind: toHost, addr: dst}
}

// beyond reports whether a is an address of the host's network that a guest may reach.
func (n *Network) beyond(a netip.Addr) bool {
	for _, p := range closedPrefixes {
		if p.Contains(a) {
			return false
		}
	}
	return !n.cfg.Net.Contains(a) && !n.cfg.Net6.Contains(a) &&
		(a.Is4() && n.cfg.Net.IsValid() || a.Is6() && n.cfg.Net6.IsValid())
}

// closedPrefixes are addresses that mean this host, its link or many hosts, and those at which
// clouds answer their own hosts alone.
var closedPrefixes = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"),
	netip.MustParsePrefix("127.0.0.0/8"),
	netip.MustParsePrefix("169.254.0.0/16"),
	netip.MustParsePrefix("224.0.0.0/3"), // groups, reserved ones and broadcast
	// Of IPv6, ::/8 has the unspecified address, loopback, and IPv4's in other clothes.
	netip.MustParsePrefix("::/8"),
	netip.MustParsePrefix("fe80::/10"),
	netip.MustParsePrefix("ff00::/8"),
	netip.MustParsePrefix("fd00:ec2::/32"),    // Amazon's metadata
	netip.MustParsePrefix("fd20:ce::254/128"), // Google's
}
