package spec

import (
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"strconv"
	"strings"
)

// UserNet is what a NIC of type "user" has besides, with the keys of QEMU's -netdev
// user. "" is what QEMU takes: see Layout.
type UserNet struct {
	IPv4      string `json:"ipv4,omitempty" words:"on off"`
	Net       string `json:"net,omitempty"`       // the guest's network, such as 10.0.2.0/24
	Host      string `json:"host,omitempty"`      // what the guest knows this process by
	DNS       string `json:"dns,omitempty"`       // its name server
	DHCPStart string `json:"dhcpstart,omitempty"` // the first address that DHCP gives away

	IPv6          string `json:"ipv6,omitempty" words:"on off"`
	IPv6Net       string `json:"ipv6Net,omitempty"`
	IPv6Prefix    string `json:"ipv6Prefix,omitempty"` // an older way to say ipv6-net
	IPv6PrefixLen int    `json:"ipv6Prefixlen,omitempty"`
	IPv6Host      string `json:"ipv6Host,omitempty"`
	IPv6DNS       string `json:"ipv6Dns,omitempty"`

	// Restrict leaves the guest DHCP and forwards, and nothing else.
	Restrict bool `json:"restrict,omitempty"`
	// Loopback lets the guest reach 127.0.0.1 and ::1 of the host by the host's address.
	Loopback bool `json:"loopback,omitempty"`

	Hostname   string   `json:"hostname,omitempty"`   // what DHCP calls the guest
	DomainName string   `json:"domainname,omitempty"` // its domain
	DNSSearch  Repeated `json:"dnssearch,omitempty"`

	HostFwd  Repeated `json:"hostfwd,omitempty"`  // as ParseHostForward reads them
	GuestFwd Repeated `json:"guestfwd,omitempty"` // as ParseGuestForward does
}

// UserLayout is a UserNet's addresses, all of them stated. A family that is off has a
// zero network.
type UserLayout struct {
	Net              netip.Prefix
	Host, DNS, First netip.Addr // First is the first address of DHCP's
	Net6             netip.Prefix
	Host6, DNS6      netip.Addr
}

// Leases is how many addresses DHCP gives away, from the first one on.
const Leases = 16

// HostForward is a way in: what comes to the host's Addr or Unix socket goes to the guest.
type HostForward struct {
	Proto string         // "tcp" or "udp"
	Addr  netip.AddrPort // an invalid address stands for all of IPv4's
	Unix  string         // a socket's name, of TCP alone
	Guest netip.AddrPort // an invalid address stands for DHCP's first one
}

// GuestForward is a way out: a connection of the guest's to Server goes to one of TCP, Unix and
// Command of the host's, restricted or not.
type GuestForward struct {
	Server  netip.AddrPort // an invalid address stands for the fourth of the network
	TCP     string         // HOST:PORT
	Unix    string         // a socket's name
	Command string         // its standard input and output are the connection
}

// Repeated is a list that grows with each key of a flag.
type Repeated []string

// Set reads one.
func (r *Repeated) Set(s string) error {
	*r = Repeated{s}
	return nil
}

// ParseHostForward reads a hostfwd in QEMU's form, [tcp|udp]:[HOSTADDR]:PORT-[GUESTADDR]:PORT,
// or unix:PATH-[GUESTADDR]:PORT. Addresses of IPv6 have brackets.
func ParseHostForward(s string) (HostForward, error) {
	var f HostForward
	dash := strings.LastIndexByte(s, '-')
	proto, at, ok := strings.Cut(s[:max(dash, 0)], ":")
	if !ok {
		return f, fmt.Errorf("hostfwd %q: write tcp:[HOSTADDR]:PORT-[GUESTADDR]:PORT, udp:… likewise, or unix:PATH-[GUESTADDR]:PORT", s)
	}
	var err error
	switch proto {
	case "", "tcp", "udp":
		f.Proto = proto
		if proto == "" {
			f.Proto = "tcp"
		}
		f.Addr, err = addrPort(at)
	case "unix":
		f.Proto, f.Unix = "tcp", at
		err = socketName(at)
	default:
		err = oneOf(proto, []string{"tcp", "udp", "unix"})
	}
	if err == nil {
		f.Guest, err = addrPort(s[dash+1:])
	}
	if err == nil && f.Guest.Port() == 0 {
		err = errors.New("no port of the guest")
	}
	if err != nil {
		return f, fmt.Errorf("hostfwd %q: %w", s, err)
	}
	return f, nil
}

// String is ParseHostForward's inverse.
func (f HostForward) String() string {
	if f.Unix != "" {
		return "unix:" + f.Unix + "-" + portText(f.Guest)
	}
	return f.Proto + ":" + portText(f.Addr) + "-" + portText(f.Guest)
}

// ParseGuestForward reads a guestfwd as QEMU's, [tcp]:SERVER:PORT-WHERE, WHERE being
// tcp:HOST:PORT, unix:PATH or cmd:COMMAND.
func ParseGuestForward(s string) (GuestForward, error) {
	var f GuestForward
	server, where, ok := strings.Cut(s, "-")
	proto, at, ok2 := strings.Cut(server, ":")
	kind, what, ok3 := strings.Cut(where, ":")
	if !ok || !ok2 || !ok3 || proto != "" && proto != "tcp" || what == "" {
		return f, fmt.Errorf("guestfwd %q: write tcp:SERVER:PORT-tcp:HOST:PORT, or with -unix:PATH or -cmd:COMMAND", s)
	}
	var err error
	if f.Server, err = addrPort(at); err == nil && f.Server.Port() == 0 {
		err = errors.New("no port of the server")
	}
	if err == nil {
		switch kind {
		case "tcp":
			f.TCP = what
			if i := strings.LastIndexByte(what, ':'); i < 0 || number(what[i+1:]) == 0 {
				err = fmt.Errorf("%q: give HOST:PORT", what)
			}
		case "unix":
			f.Unix = what
			err = socketName(what)
		case "cmd":
			f.Command = what
		default:
			err = oneOf(kind, []string{"tcp", "unix", "cmd"})
		}
	}
	if err != nil {
		return f, fmt.Errorf("guestfwd %q: %w", s, err)
	}
	return f, nil
}

// addrPort reads ADDR:PORT, whose address may be missing.
func addrPort(s string) (netip.AddrPort, error) {
	i := strings.LastIndexByte(s, ':')
	if i < 0 {
		return netip.AddrPort{}, fmt.Errorf("%q: give ADDRESS:PORT or :PORT", s)
	}
	port := number(s[i+1:])
	if port < 0 {
		return netip.AddrPort{}, fmt.Errorf("%q: a port is a number up to 65535", s[i+1:])
	}
	var addr netip.Addr
	if host := s[:i]; host != "" {
		var err error
		bare, v6 := strings.CutPrefix(host, "[")
		bare = strings.TrimSuffix(bare, "]")
		if addr, err = netip.ParseAddr(bare); err != nil || addr.Zone() != "" || addr.Is6() != v6 || v6 != strings.HasSuffix(host, "]") {
			return netip.AddrPort{}, fmt.Errorf("%q is not an IP address: write 10.0.2.15, or [fec0::15]", host)
		}
	}
	return netip.AddrPortFrom(addr, uint16(port)), nil
}

func portText(a netip.AddrPort) string {
	if !a.Addr().IsValid() {
		return fmt.Sprintf(":%d", a.Port())
	}
	return a.String()
}

// number reads a port; -1 is none.
func number(s string) int {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil {
		return -1
	}
	return int(n)
}

func socketName(s string) error {
	if s == "" || len(s) > 107 {
		return fmt.Errorf("%q: a Unix socket's name has 1 to 107 bytes", s)
	}
	return nil
}

// given returns the first key that says something; "" is none.
func (u *UserNet) given() string {
	for _, f := range fieldsOf(reflect.TypeFor[UserNet]()) {
		if !reflect.ValueOf(u).Elem().FieldByIndex(f.index).IsZero() {
			return f.flag
		}
	}
	return ""
}

// Layout returns the network's addresses: what is stated, and QEMU's for the rest, which
// are 10.0.2.0/24 with host .2, name server .3 and leases from .15 on, and fec0::/64 with
// ::2 and ::3.
func (u *UserNet) Layout() (UserLayout, error) {
	var l UserLayout
	var err error
	if u.IPv4 != "off" {
		if l.Net, err = prefix("net", u.Net, "10.0.2.0/24", 24); err != nil {
			return l, err
		}
		err = addresses(l.Net, []address{
			{"host", u.Host, 2, &l.Host}, {"dns", u.DNS, 3, &l.DNS}, {"dhcpstart", u.DHCPStart, 15, &l.First},
		})
		if err != nil {
			return l, err
		}
	}
	if u.IPv6 == "off" {
		return l, nil
	}
	net6, bits := u.IPv6Net, 64
	if u.IPv6Prefix != "" {
		net6 = u.IPv6Prefix
	}
	if u.IPv6PrefixLen != 0 {
		bits = u.IPv6PrefixLen
	}
	if l.Net6, err = prefix("ipv6-net", net6, "fec0::", bits); err != nil {
		return l, err
	}
	return l, addresses(l.Net6, []address{{"ipv6-host", u.IPv6Host, 2, &l.Host6}, {"ipv6-dns", u.IPv6DNS, 3, &l.DNS6}})
}

// prefix reads a network, whose length may be missing.
func prefix(key, s, otherwise string, bits int) (netip.Prefix, error) {
	if s == "" {
		s = otherwise
	}
	if !strings.Contains(s, "/") {
		s = fmt.Sprintf("%s/%d", s, bits)
	}
	p, err := netip.ParsePrefix(s)
	want6 := strings.Contains(otherwise, ":")
	switch {
	case err != nil || p.Addr().Is6() != want6:
		return p, fmt.Errorf("%s %q: give a network such as %s", key, s, otherwise)
	case !want6 && (p.Bits() < 8 || p.Bits() > 27):
		return p, fmt.Errorf("%s %s: /8 to /27 are possible", key, s)
	case want6 && p.Bits() != 64:
		return p, fmt.Errorf("%s %s: guests make their addresses of IPv6 of /64 alone", key, s)
	case p.Addr().IsLoopback() || p.Addr().IsMulticast() || p.Addr().IsLinkLocalUnicast() || p.Addr().IsUnspecified():
		return p, fmt.Errorf("%s %s: not a network that a guest can have", key, s)
	}
	return p.Masked(), nil
}

// address is one key of a network's: n-th of it unless stated.
type address struct {
	key, value string
	n          int
	into       *netip.Addr
}

func addresses(net netip.Prefix, list []address) error {
	seen := map[netip.Addr]string{}
	for _, a := range list {
		at := nth(net, a.n)
		if a.value != "" {
			var err error
			if at, err = netip.ParseAddr(a.value); err != nil || !net.Contains(at) || at == net.Addr() || at == broadcast(net) {
				return fmt.Errorf("%s %q: give an address within %s", a.key, a.value, net)
			}
		}
		if other := seen[at]; other != "" {
			return fmt.Errorf("%s %s is %s already", a.key, at, other)
		}
		*a.into, seen[at] = at, a.key
	}
	return nil
}

// nth returns the n-th address of a network, n below 256.
func nth(net netip.Prefix, n int) netip.Addr {
	b := net.Addr().AsSlice()
	b[len(b)-1] += byte(n)
	a, _ := netip.AddrFromSlice(b)
	return a
}

// broadcast is the last address of a network of IPv4.
func broadcast(net netip.Prefix) netip.Addr {
	if !net.Addr().Is4() {
		return netip.Addr{}
	}
	b := net.Addr().As4()
	for i := net.Bits(); i < 32; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	return netip.AddrFrom4(b)
}

// Forwards returns the ways in and out, with what stands for missing addresses.
func (u *UserNet) Forwards(l UserLayout) (in []HostForward, out []GuestForward, err error) {
	for _, s := range u.HostFwd {
		f, err := ParseHostForward(s)
		if err == nil {
			f, err = l.Forward(f)
		}
		if err != nil {
			return nil, nil, err
		}
		in = append(in, f)
	}
	seen := map[netip.AddrPort]bool{}
	for _, s := range u.GuestFwd {
		f, err := ParseGuestForward(s)
		if err == nil {
			err = l.complete(&f)
		}
		if err == nil && seen[f.Server] {
			err = fmt.Errorf("guestfwd %s is given twice", f.Server)
		}
		if err != nil {
			return nil, nil, err
		}
		out = append(out, f)
		seen[f.Server] = true
	}
	return in, out, nil
}

// Forward returns f with what stands for a missing address of the guest's and the server's.
func (l UserLayout) Forward(f HostForward) (HostForward, error) {
	if !f.Guest.Addr().IsValid() {
		f.Guest = netip.AddrPortFrom(l.First, f.Guest.Port())
	}
	if f.Unix == "" && !f.Addr.Addr().IsValid() {
		f.Addr = netip.AddrPortFrom(netip.IPv4Unspecified(), f.Addr.Port())
	}
	if !l.Contains(f.Guest.Addr()) {
		return f, fmt.Errorf("hostfwd %s: the guest's address is not one of its network", f)
	}
	return f, nil
}

// complete puts in what stands for a missing address.
func (l UserLayout) complete(f *GuestForward) error {
	if !f.Server.Addr().IsValid() && l.Net.IsValid() {
		f.Server = netip.AddrPortFrom(nth(l.Net, 4), f.Server.Port())
	}
	a := f.Server.Addr()
	if !l.Contains(a) || a == l.Host || a == l.DNS || a == l.Host6 || a == l.DNS6 {
		return fmt.Errorf("guestfwd %s: the server's address must be a free one of the guest's network", f.Server)
	}
	return nil
}

// Contains reports whether a is an address that something in the guest's networks can have.
func (l UserLayout) Contains(a netip.Addr) bool {
	for _, n := range []netip.Prefix{l.Net, l.Net6} {
		if n.IsValid() && n.Contains(a) && a != n.Addr() && a != broadcast(n) {
			return true
		}
	}
	return false
}

func (u *UserNet) check() error {
	l, err := u.Layout()
	if err != nil {
		return err
	}
	if !l.Net.IsValid() && !l.Net6.IsValid() {
		return errors.New("ipv4 and ipv6 are both off: leave one of them on")
	}
	if _, _, err := u.Forwards(l); err != nil {
		return err
	}
	return u.checkNames()
}

// checkNames checks what DHCP says of names.
func (u *UserNet) checkNames() error {
	if len(u.Hostname) > 63 || strings.ContainsAny(u.Hostname, " \t\n") {
		return fmt.Errorf("hostname %q: up to 63 letters", u.Hostname)
	}
	total := 0
	for _, name := range append(Repeated{u.DomainName}, u.DNSSearch...) {
		for _, label := range strings.Split(name, ".") {
			if len(label) > 63 || label == "" && name != "" || strings.ContainsAny(label, " \t\n") {
				return fmt.Errorf("domain %q: parts of up to 63 letters with dots between them", name)
			}
		}
		if total += len(name) + 2; total > 240 {
			return errors.New("domainname and dnssearch: more than 240 letters do not fit into DHCP's answers")
		}
	}
	return nil
}
