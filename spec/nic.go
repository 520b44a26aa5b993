package spec

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
)

// Limits of NICs.
const (
	MaxNICs      = 8
	MaxNICQueues = 16    // pairs of a NIC's queues
	minMTU       = 68    // virtio 1.2 §5.1.4.1
	maxMTU       = 65535 // likewise
)

// NIC is one virtio-net device and what its cable ends in.
type NIC struct {
	// Type is what the cable ends in: "user" is a network inside this process, "tap" and
	// "bridge" the host's, "stream" and "dgram" a peer behind a socket. "none" is no NIC.
	Type  string `json:"type" implied:"yes" words:"user tap bridge stream dgram none"`
	ID    string `json:"id,omitempty"`
	Model string `json:"model,omitempty" words:"virtio"`
	// MAC is the guest's address; "" is one that follows from the VM's name and the NIC's place.
	MAC string `json:"mac,omitempty" short:"macaddr"`
	// MTU is what the guest is told to keep to; 0: nothing.
	MTU int `json:"mtu,omitempty" short:"host_mtu"`
	// Queues is how many pairs of queues there are.
	Queues int `json:"queues,omitempty" min:"1"`
	// Speed is what the guest is told, in Mbit/s; 0: nothing.
	Speed int `json:"speed,omitempty"`
	// RSS offers receive-side scaling, with more than one pair of queues; Hash has frames
	// come with their hashes.
	RSS  bool `json:"rss,omitempty"`
	Hash bool `json:"hash,omitempty"`

	// IfName is the host's interface: tap's and bridge's, which is made if it is not there.
	IfName string `json:"ifname,omitempty"`
	// Bridge is the host's bridge that the interface becomes a port of.
	Bridge string `json:"br,omitempty"`
	// FDs are descriptors of an interface that is open already, one a queue.
	FDs FDs `json:"fds,omitempty" short:"fd"`

	// Server waits for a stream's peer; else it is there already.
	Server bool `json:"server,omitempty"`
	// Reconnect is after how many seconds a peer that is gone is looked for again; 0: never.
	Reconnect int           `json:"reconnect,omitempty"`
	Addr      SocketAddress `json:"addr,omitzero"`   // a stream's peer, or where one is waited for
	Local     SocketAddress `json:"local,omitzero"`  // where datagrams come
	Remote    SocketAddress `json:"remote,omitzero"` // where they go

	Limits FrameLimits `json:"limits,omitzero"`
	// Pcap is a file that keeps all frames, begun anew.
	Pcap string `json:"pcap,omitempty" path:"yes"`

	UserNet
}

// FDs are numbers of descriptors, as text with colons between them.
type FDs []int

// Set reads numbers with colons between them.
func (f *FDs) Set(s string) error {
	*f = nil
	for _, t := range strings.Split(s, ":") {
		n, err := strconv.Atoi(t)
		if err != nil || n < 0 {
			return fmt.Errorf("%q is not the number of an open descriptor", t)
		}
		*f = append(*f, n)
	}
	return nil
}

// SocketAddress is where a socket is, with QEMU's keys: a Unix socket's name, a host
// and a port, or an open descriptor.
type SocketAddress struct {
	Type string `json:"type,omitempty" words:"unix inet fd"`
	Path string `json:"path,omitempty" path:"yes"`
	Host string `json:"host,omitempty"`
	Port string `json:"port,omitempty"`
	FD   string `json:"str,omitempty"` // a descriptor's number
}

// FrameLimits are what passes a NIC in a second: towards the guest (in) and from it
// (out), bytes and packets, with what may pass at once. 0 stands for no limit.
type FrameLimits struct {
	BPSIn       int64 `json:"bpsIn,omitempty" short:"bps_in"`
	BPSInBurst  int64 `json:"bpsInBurst,omitempty" short:"bps_in_burst"`
	BPSOut      int64 `json:"bpsOut,omitempty" short:"bps_out"`
	BPSOutBurst int64 `json:"bpsOutBurst,omitempty" short:"bps_out_burst"`
	PPSIn       int64 `json:"ppsIn,omitempty" short:"pps_in"`
	PPSInBurst  int64 `json:"ppsInBurst,omitempty" short:"pps_in_burst"`
	PPSOut      int64 `json:"ppsOut,omitempty" short:"pps_out"`
	PPSOutBurst int64 `json:"ppsOutBurst,omitempty" short:"pps_out_burst"`
}

// ParseNIC reads the value of --nic: as QEMU's -nic and, older, -net socket.
func ParseNIC(s string) (NIC, error) {
	var n NIC
	s, err := modernNIC(s)
	if err != nil {
		return n, fmt.Errorf("nic: %w", err)
	}
	if err := setKeys(s, &n); err != nil {
		return n, fmt.Errorf("nic: %w", err)
	}
	if n.Type == "" {
		return n, fmt.Errorf("nic %q: no type: begin with user, tap, bridge, stream, dgram or none", s)
	}
	return n, nil
}

// modernNIC rewrites what QEMU wrote otherwise before: socket with listen, connect,
// udp, localaddr and mcast; a device's name as the model; scripts and vhost, of which there are none.
func modernNIC(s string) (string, error) {
	var out []string
	for _, part := range splitParts(s) {
		key, value, _ := strings.Cut(part, "=")
		kept := []string{part}
		var err error
		switch {
		case part == "socket" || part == "type=socket":
			kept = nil
		case key == "script" || key == "downscript":
			if kept = nil; value != "no" {
				err = fmt.Errorf("%s: berth runs no scripts: set the interface up before, and say %s=no", key, key)
			}
		case key == "vhost" || key == "vnet_hdr":
			if kept = nil; key == "vhost" && value != "off" {
				err = errors.New("vhost: berth moves the frames of a tap itself: leave it out")
			}
		case key == "model" && (value == "virtio-net-pci" || value == "virtio-net-device" || value == "virtio-net"):
			kept = []string{"model=virtio"}
		case key == "listen":
			kept, err = hostPort("stream,server=on", "addr", value)
		case key == "connect":
			kept, err = hostPort("stream", "addr", value)
		case key == "udp" || key == "mcast":
			kept, err = hostPort("dgram", "remote", value)
		case key == "localaddr":
			kept, err = hostPort("", "local", value)
		}
		if err != nil {
			return "", err
		}
		out = append(out, kept...)
	}
	// The type comes first, wherever what it follows from stood.
	slices.SortStableFunc(out, func(a, b string) int {
		return cmp.Compare(typeRank(a), typeRank(b))
	})
	for i := range out {
		out[i] = strings.ReplaceAll(out[i], ",", ",,")
	}
	return strings.Join(out, ","), nil
}

func typeRank(part string) int {
	if slices.Contains([]string{"stream", "dgram"}, part) {
		return 0
	}
	return 1
}

// hostPort writes an address HOST:PORT, whose host may be missing, with today's keys.
func hostPort(before, key, value string) ([]string, error) {
	host, port, err := net.SplitHostPort(value)
	if err != nil {
		return nil, fmt.Errorf("%q: give HOST:PORT", value)
	}
	parts := []string{key + ".type=inet", key + ".host=" + host, key + ".port=" + port}
	if before != "" {
		parts = append(strings.Split(before, ","), parts...)
	}
	return parts, nil
}

// completeNICs drops those that are none, and gives the others what follows from the rest.
func (m *Machine) completeNICs() {
	m.NICs = slices.DeleteFunc(slices.Clone(m.NICs), func(n NIC) bool { return n.Type == "none" })
	taken := map[string]bool{}
	for _, n := range m.NICs {
		taken[n.ID], taken[n.MAC] = true, true
	}
	for i := range m.NICs {
		n := &m.NICs[i]
		n.Model, n.Queues = cmp.Or(n.Model, "virtio"), cmp.Or(n.Queues, max(len(n.FDs), 1))
		for k := i; n.ID == ""; k++ {
			if id := fmt.Sprintf("net%d", k); !taken[id] {
				n.ID, taken[id] = id, true
			}
		}
		if a, err := net.ParseMAC(n.MAC); err == nil {
			n.MAC = a.String()
		}
		for k := i; n.MAC == ""; k += MaxNICs {
			if a := generatedMAC(m.Name, k); !taken[a] {
				n.MAC, taken[a] = a, true
			}
		}
		for _, a := range []*SocketAddress{&n.Addr, &n.Local, &n.Remote} {
			a.complete()
		}
	}
	if len(m.NICs) == 0 {
		m.NICs = nil
	}
}

// CompleteNIC gives a NIC that comes later what follows from the rest, and checks it. taken
// are the addresses that others have.
func (m *Machine) CompleteNIC(n NIC, taken []string) (NIC, error) {
	one := Machine{Name: m.Name, NICs: []NIC{n}}
	for k := MaxNICs; one.NICs[0].MAC == ""; k++ {
		if a := generatedMAC(m.Name, k); !slices.Contains(taken, a) {
			one.NICs[0].MAC = a
		}
	}
	one.completeNICs()
	if len(one.NICs) == 0 {
		return n, errors.New("type: none is no network card")
	}
	return one.NICs[0], one.checkNICs()
}

// generatedMAC is the address of a VM's n-th NIC, the same at every start: three bytes
// that KVM's guests have, and three of a sum of its name and the number.
func generatedMAC(name string, n int) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s\x00%d", name, n))
	return net.HardwareAddr{0x52, 0x54, 0x00, sum[0], sum[1], sum[2]}.String()
}

func (a *SocketAddress) complete() {
	switch {
	case a.Type != "":
	case a.Path != "":
		a.Type = "unix"
	case a.Host != "" || a.Port != "":
		a.Type = "inet"
	case a.FD != "":
		a.Type = "fd"
	}
}

func (m *Machine) checkNICs() error {
	if len(m.NICs) > MaxNICs {
		return fmt.Errorf("%d NICs: at most %d are possible", len(m.NICs), MaxNICs)
	}
	seen := map[string]bool{}
	for _, d := range m.Disks {
		seen[d.ID] = true
	}
	for i := range m.NICs {
		n := &m.NICs[i]
		err := n.check()
		switch {
		case err != nil:
		case !wellFormed(n.ID):
			err = fmt.Errorf("an id has up to %d letters, digits, -, . and _, a letter first", maxName)
		case seen[n.ID]:
			err = errors.New("there is a device of that id already")
		case seen[n.MAC]:
			err = fmt.Errorf("mac %s is that of another NIC", n.MAC)
		}
		if err != nil {
			return fmt.Errorf("nic %s: %w", cmp.Or(n.ID, strconv.Itoa(i)), err)
		}
		seen[n.ID], seen[n.MAC] = true, true
	}
	return nil
}

func (n *NIC) check() error {
	for _, w := range []struct{ key, value, allowed string }{
		{"type", n.Type, "user tap bridge stream dgram"},
		{"model", n.Model, "virtio"},
	} {
		if err := oneOf(w.value, strings.Fields(w.allowed)); err != nil {
			return fmt.Errorf("%s: %w", w.key, err)
		}
	}
	for _, check := range []func() error{n.checkKeys, n.checkDevice, n.checkCable, n.UserNet.check} {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

// checkKeys refuses keys that say nothing of the NIC's type.
func (n *NIC) checkKeys() error {
	for _, k := range []struct {
		key, types string
		given      bool
	}{
		{"ifname", "tap bridge", n.IfName != ""},
		{"br", "tap bridge", n.Bridge != ""},
		{"fds", "tap", len(n.FDs) > 0},
		{"server", "stream", n.Server},
		{"reconnect", "stream", n.Reconnect != 0},
		{"addr", "stream", n.Addr != SocketAddress{}},
		{"local", "dgram", n.Local != SocketAddress{}},
		{"remote", "dgram", n.Remote != SocketAddress{}},
		{n.UserNet.given(), "user", n.UserNet.given() != ""},
	} {
		if k.given && !slices.Contains(strings.Fields(k.types), n.Type) {
			return fmt.Errorf("%s says nothing of type %s: it belongs to %s", k.key, n.Type, strings.ReplaceAll(k.types, " ", " and "))
		}
	}
	return nil
}

// checkDevice checks what the guest sees.
func (n *NIC) checkDevice() error {
	a, err := net.ParseMAC(n.MAC)
	switch {
	case err != nil || len(a) != 6:
		return fmt.Errorf("mac %q: give six bytes, such as 52:54:00:12:34:56", n.MAC)
	case a[0]&1 != 0:
		return fmt.Errorf("mac %s is a group's address: its first byte must be even", n.MAC)
	case bytes.Equal(a, make([]byte, 6)):
		return errors.New("mac 00:00:00:00:00:00 is no address")
	case n.MTU != 0 && (n.MTU < minMTU || n.MTU > maxMTU):
		return fmt.Errorf("mtu %d: %d to %d are possible", n.MTU, minMTU, maxMTU)
	case n.Queues < 1 || n.Queues > MaxNICQueues:
		return fmt.Errorf("%d queues: 1 to %d are possible", n.Queues, MaxNICQueues)
	case n.Speed < 0 || n.Speed > 1<<31-1:
		return fmt.Errorf("speed %d: give Mbit/s", n.Speed)
	case n.Reconnect < 0:
		return fmt.Errorf("reconnect=%d: give seconds", n.Reconnect)
	}
	return n.Limits.check()
}

// checkCable checks what the cable ends in.
func (n *NIC) checkCable() error {
	if len(n.IfName) > 15 || strings.ContainsAny(n.IfName, "/ \t\n") {
		return fmt.Errorf("ifname %q: up to 15 letters without slash or space", n.IfName)
	}
	switch n.Type {
	case "tap":
		return n.checkTap()
	case "bridge":
		if n.Bridge == "" {
			return errors.New("no bridge: give br=NAME of one that is there")
		}
	case "stream":
		switch {
		case n.Addr == SocketAddress{}:
			return errors.New("no address: give addr.path=PATH of a Unix socket, or addr.host=HOST,addr.port=PORT")
		case n.Server && n.Reconnect != 0:
			return errors.New("reconnect says nothing of a server, to which peers come by themselves")
		}
		return n.Addr.check("addr")
	case "dgram":
		return n.checkDgram()
	}
	return nil
}

func (n *NIC) checkTap() error {
	switch {
	case len(n.FDs) > 0 && (n.IfName != "" || n.Bridge != ""):
		return errors.New("fds are of an interface that is there: leave ifname and br out")
	case len(n.FDs) > 0 && n.Queues != len(n.FDs):
		return fmt.Errorf("%d descriptors for %d queues: give one a queue", len(n.FDs), n.Queues)
	}
	return nil
}

func (n *NIC) checkDgram() error {
	switch {
	case n.Local == SocketAddress{} && n.Remote == SocketAddress{}:
		return errors.New("no address: give local.path=PATH,remote.path=PATH of Unix sockets, or local.host, local.port, remote.host and remote.port")
	case n.Local != SocketAddress{} && n.Remote != SocketAddress{} && n.Local.Type != n.Remote.Type:
		return errors.New("local and remote are of different types")
	case n.Local.Type == "fd" || n.Remote.Type == "inet" && multicast(n.Remote.Host):
	case n.Local == SocketAddress{} || n.Remote == SocketAddress{}:
		return errors.New("local and remote are needed both, unless remote is a multicast address")
	}
	if n.Local != (SocketAddress{}) {
		if err := n.Local.check("local"); err != nil {
			return err
		}
	}
	if n.Remote != (SocketAddress{}) {
		return n.Remote.check("remote")
	}
	return nil
}

func multicast(host string) bool {
	a := net.ParseIP(host)
	return a != nil && a.IsMulticast()
}

func (a SocketAddress) check(key string) error {
	given := SocketAddress{Type: a.Type}
	switch a.Type {
	case "unix":
		given.Path = a.Path
		if a.Path == "" || len(a.Path) > 107 {
			return fmt.Errorf("%s.path %q: a Unix socket's name has 1 to 107 bytes", key, a.Path)
		}
	case "inet":
		given.Host, given.Port = a.Host, a.Port
		if p, err := strconv.ParseUint(a.Port, 10, 16); err != nil || p == 0 && a.Port != "0" {
			return fmt.Errorf("%s.port %q: give a number up to 65535", key, a.Port)
		}
	case "fd":
		given.FD = a.FD
		if n, err := strconv.Atoi(a.FD); err != nil || n < 0 {
			return fmt.Errorf("%s.str %q: give the number of an open descriptor", key, a.FD)
		}
	default:
		return fmt.Errorf("%s.type: %w", key, oneOf(a.Type, []string{"unix", "inet", "fd"}))
	}
	if a != given {
		return fmt.Errorf("%s: more than type %s needs: it is path for unix, host and port for inet, str for fd", key, a.Type)
	}
	return nil
}

func (l FrameLimits) check() error {
	for _, p := range []struct {
		key         string
		rate, burst int64
	}{
		{"bps-in", l.BPSIn, l.BPSInBurst}, {"bps-out", l.BPSOut, l.BPSOutBurst}, {"pps-in", l.PPSIn, l.PPSInBurst}, {"pps-out", l.PPSOut, l.PPSOutBurst},
	} {
		switch {
		case p.rate < 0 || p.burst < 0:
			return fmt.Errorf("limits.%s is negative", p.key)
		case p.burst > 0 && p.rate == 0:
			return fmt.Errorf("limits.%s-burst says nothing without limits.%s", p.key, p.key)
		}
	}
	return nil
}
