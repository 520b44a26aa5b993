package monitor

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"berth/block/formats"
	"berth/machine"
	"berth/qmp"
	"berth/spec"
)

// network is what the monitor keeps about NICs.
type network struct {
	mu        sync.Mutex
	told      map[string]bool          // NICs whose filter has changed, of which nobody has asked since
	announced map[string]*announcement // under way, by ID
	closed    bool
	sending   sync.Mutex // one round of announcements is sent; before mu
}

// close ends announcements: none is sent once it returns.
func (n *network) close() {
	n.sending.Lock()
	defer n.sending.Unlock()
	n.mu.Lock()
	defer n.mu.Unlock()
	n.closed = true
	for _, a := range n.announced {
		a.timer.Stop()
	}
}

// rxFilter is QEMU's RxFilterInfo.
type rxFilter struct {
	Name              string   `json:"name"`
	Promiscuous       bool     `json:"promiscuous"`
	Multicast         rxState  `json:"multicast"`
	Unicast           rxState  `json:"unicast"`
	VLAN              rxState  `json:"vlan"`
	Broadcast         bool     `json:"broadcast-allowed"`
	MulticastOverflow bool     `json:"multicast-overflow"`
	UnicastOverflow   bool     `json:"unicast-overflow"`
	MAC               string   `json:"main-mac"`
	VLANs             []int64  `json:"vlan-table"`
	Unicasts          []string `json:"unicast-table"`
	Multicasts        []string `json:"multicast-table"`
}

type rxState string

// Values implements qmp.Enum.
func (rxState) Values() []string { return []string{"normal", "none", "all"} }

// filterChanged is the data of NIC_RX_FILTER_CHANGED.
type filterChanged struct {
	Name *string `json:"name"`
	Path string  `json:"path"`
}

type (
	queryFilter struct {
		Name *string `json:"name"`
	}
	setLink struct {
		Name string `json:"name"`
		Up   bool   `json:"up"`
	}
	// announce is QEMU's AnnounceParameters, in milliseconds.
	announce struct {
		Initial    int64     `json:"initial"`
		Max        int64     `json:"max"`
		Rounds     int64     `json:"rounds"`
		Step       int64     `json:"step"`
		Interfaces *[]string `json:"interfaces"`
		ID         *string   `json:"id"`
	}
	netdevDel struct {
		ID string `json:"id"`
	}
)

// netCommands are those about NICs and what they are plugged into.
func (m *Monitor) netCommands() []qmp.Command {
	return []qmp.Command{
		qmp.Define("__berth_query-nics", "What the network cards have moved.", m.queryNICs),
		qmp.Define("query-rx-filter", "What the drivers of NICs have asked to receive.", m.queryRxFilter),
		qmp.Define("set_link", "Plugs the cable of a NIC in, or pulls it.", func(_ *qmp.Call, a *setLink) (none qmp.None, err error) {
			n := m.nic(a.Name)
			if n == nil {
				return none, &qmp.Error{Class: qmp.DeviceNotFound, Desc: fmt.Sprintf("Device '%s' not found", a.Name)}
			}
			n.SetLink(a.Up)
			return none, nil
		}),
		qmp.Define("announce-self", "Has NICs tell their networks where they are, several times, with pauses that grow.", func(_ *qmp.Call, a *announce) (none qmp.None, err error) {
			m.announce(a)
			return none, nil
		}),
		qmp.Define("netdev_add", "Makes what a NIC may be plugged into, by device_add.", m.addNetdev),
		qmp.Define("netdev_del", "Ends what a NIC is or was plugged into. One that still is has no link from now on.", func(_ *qmp.Call, a *netdevDel) (none qmp.None, err error) {
			err = m.vm.Do(func() error { return m.vm.RemoveCable(a.ID) })
			if errors.Is(err, machine.ErrNoDevice) {
				err = &qmp.Error{Class: qmp.DeviceNotFound, Desc: err.Error()}
			}
			return none, err
		}),
	}
}

// nic returns the NIC of a name, or nil.
func (m *Monitor) nic(name string) *machine.NIC {
	for _, n := range m.vm.NICs() {
		if n.Spec.ID == name || n.Name == name {
			return &n
		}
	}
	return nil
}

func (m *Monitor) queryRxFilter(_ *qmp.Call, a *queryFilter) (list []rxFilter, err error) {
	for _, n := range m.vm.NICs() {
		if a.Name == nil || n.Name == *a.Name {
			m.net.mu.Lock()
			delete(m.net.told, n.Path) // first: what changes from now on is told of
			m.net.mu.Unlock()
			list = append(list, describeFilter(n))
		}
	}
	if a.Name != nil && list == nil {
		return nil, fmt.Errorf("invalid net client name: %s", *a.Name)
	}
	return list, nil
}

func describeFilter(n machine.NIC) rxFilter {
	f := n.RxFilter()
	r := rxFilter{
		Name: n.Name, Promiscuous: f.Promiscuous, Multicast: state(f.NoMulticast, f.AllMulticast), Unicast: state(f.NoUnicast, f.AllUnicast),
		VLAN: state(len(f.VLANs) == 0 && f.ByVLAN, !f.ByVLAN), Broadcast: !f.NoBroadcast,
		MulticastOverflow: f.MulticastOverflow, UnicastOverflow: f.UnicastOverflow, MAC: net.HardwareAddr(f.MAC[:]).String(),
		VLANs: []int64{}, Unicasts: []string{}, Multicasts: []string{},
	}
	for v := range 4096 {
		if !f.ByVLAN || slices.Contains(f.VLANs, v) {
			r.VLANs = append(r.VLANs, int64(v))
		}
	}
	for _, a := range f.Unicast {
		r.Unicasts = append(r.Unicasts, net.HardwareAddr(a[:]).String())
	}
	for _, a := range f.Multicast {
		r.Multicasts = append(r.Multicasts, net.HardwareAddr(a[:]).String())
	}
	slices.Reverse(r.VLANs) // QEMU has the last one first
	slices.Reverse(r.Unicasts)
	slices.Reverse(r.Multicasts)
	return r
}

func state(none, all bool) rxState {
	switch {
	case none:
		return "none"
	case all:
		return "all"
	}
	return "normal"
}

// filterChanged emits what happened to a NIC's filter, if somebody has asked since the last time.
func (m *Monitor) filterChanged(n machine.Notice) {
	m.net.mu.Lock()
	if m.net.told == nil {
		m.net.told = map[string]bool{}
	}
	told := m.net.told[n.Path]
	m.net.told[n.Path] = true
	m.net.mu.Unlock()
	if !told {
		m.server.Emit("NIC_RX_FILTER_CHANGED", filterChanged{optional(n.ID), n.Path})
	}
}

// announcement is one that is under way.
type announcement struct {
	announce
	timer *time.Timer
	round int64
}

// announce begins an announcement, in place of one of the same ID.
func (m *Monitor) announce(a *announce) {
	x := &announcement{announce: *a}
	id := ""
	if a.ID != nil {
		id = *a.ID
	}
	m.net.mu.Lock()
	defer m.net.mu.Unlock()
	if m.net.announced == nil {
		m.net.announced = map[string]*announcement{}
	}
	if old := m.net.announced[id]; old != nil {
		old.timer.Stop()
	}
	if m.net.closed {
		return
	}
	m.net.announced[id] = x
	x.timer = time.AfterFunc(0, func() { m.announceOnce(id, x) })
}

// announceOnce is one round: the pause after it is the initial one and a step for each
// round, but no longer than the longest.
func (m *Monitor) announceOnce(id string, x *announcement) {
	m.net.sending.Lock()
	defer m.net.sending.Unlock()
	m.net.mu.Lock()
	over := m.net.closed
	m.net.mu.Unlock()
	if over {
		return
	}
	for _, n := range m.vm.NICs() {
		if x.Interfaces == nil || slices.Contains(*x.Interfaces, n.Name) {
			_ = n.Announce() // one that cannot now may in the next round
		}
	}
	m.net.mu.Lock()
	defer m.net.mu.Unlock()
	x.round++
	switch {
	case m.net.announced[id] != x || m.net.closed:
	case x.round >= x.Rounds:
		delete(m.net.announced, id)
	default:
		pause := min(max(x.Initial, 0)+(x.round-1)*max(x.Step, 0), max(x.Max, 0))
		x.timer.Reset(time.Duration(min(pause, time.Hour.Milliseconds())) * time.Millisecond)
	}
}

// netdev is QEMU's Netdev, of the types that there are. What it says is read by the rules
// of --nic, whose keys are the same.
type netdev struct {
	ID     string        `json:"id"`
	Type   netdevType    `json:"type" qmp:"tag"`
	User   *netdevUser   `json:"-" qmp:"case=user"`
	Tap    *netdevTap    `json:"-" qmp:"case=tap"`
	Bridge *netdevBridge `json:"-" qmp:"case=bridge"`
	Stream *netdevStream `json:"-" qmp:"case=stream"`
	Dgram  *netdevDgram  `json:"-" qmp:"case=dgram"`
	Socket *netdevSocket `json:"-" qmp:"case=socket"`
}

type netdevType string

// Values implements qmp.Enum.
func (netdevType) Values() []string {
	return []string{"user", "tap", "socket", "stream", "dgram", "bridge"}
}

type (
	text struct {
		Str string `json:"str"`
	}
	netdevUser struct {
		Hostname   *string `json:"hostname"`
		Restrict   *bool   `json:"restrict"`
		IPv4       *bool   `json:"ipv4"`
		IPv6       *bool   `json:"ipv6"`
		Net        *string `json:"net"`
		Host       *string `json:"host"`
		DHCPStart  *string `json:"dhcpstart"`
		DNS        *string `json:"dns"`
		DNSSearch  *[]text `json:"dnssearch"`
		DomainName *string `json:"domainname"`
		Prefix     *string `json:"ipv6-prefix"`
		PrefixLen  *int64  `json:"ipv6-prefixlen"`
		Host6      *string `json:"ipv6-host"`
		DNS6       *string `json:"ipv6-dns"`
		HostFwd    *[]text `json:"hostfwd"`
		GuestFwd   *[]text `json:"guestfwd"`
	}
	netdevTap struct {
		IfName     *string `json:"ifname"`
		FD         *string `json:"fd"`
		FDs        *string `json:"fds"`
		Script     *string `json:"script"`
		DownScript *string `json:"downscript"`
		Bridge     *string `json:"br"`
		VNetHdr    *bool   `json:"vnet_hdr"`
		Vhost      *bool   `json:"vhost"`
		Queues     *uint32 `json:"queues"`
	}
	netdevBridge struct {
		Bridge *string `json:"br"`
	}
	netdevStream struct {
		Addr   peerAddress `json:"addr"`
		Server *bool       `json:"server"`
	}
	netdevDgram struct {
		Local  *peerAddress `json:"local"`
		Remote *peerAddress `json:"remote"`
	}
	netdevSocket struct {
		Listen    *string `json:"listen"`
		Connect   *string `json:"connect"`
		Mcast     *string `json:"mcast"`
		LocalAddr *string `json:"localaddr"`
		UDP       *string `json:"udp"`
	}
	// peerAddress is QEMU's SocketAddress.
	peerAddress struct {
		Type peerKind     `json:"type" qmp:"tag"`
		Inet *inetAddress `json:"-" qmp:"case=inet"`
		Unix *unixAddress `json:"-" qmp:"case=unix"`
		FD   *text        `json:"-" qmp:"case=fd"`
	}
)

type peerKind string

// Values implements qmp.Enum.
func (peerKind) Values() []string { return []string{"inet", "unix", "fd"} }

// listed is an element of a list of strings, as QEMU wraps them: hostfwd.0.str.
var listed = regexp.MustCompile(`^(.*)\.\d+\.str$`)

func (m *Monitor) addNetdev(c *qmp.Call, a *netdev) (none qmp.None, err error) {
	if !wellFormedID.MatchString(a.ID) {
		return none, errors.New("Parameter 'id' expects an identifier")
	}
	var taken []int // descriptors that getfd brought
	handed := false // the machine has them
	defer func() {
		for _, fd := range taken {
			if !handed {
				_ = unix.Close(fd) // nothing was written through it
			}
		}
	}()
	parts := []string{string(a.Type)}
	values := formats.Flatten(c.Raw)
	for _, key := range slices.Sorted(maps.Keys(values)) {
		value := values[key]
		if key == "type" {
			continue
		}
		if key == "fd" || key == "fds" || strings.HasSuffix(key, ".str") && !listed.MatchString(key) {
			if value, err = m.numbers(value, &taken); err != nil {
				return none, err
			}
		}
		if l := listed.FindStringSubmatch(key); l != nil {
			key = l[1]
		}
		parts = append(parts, strings.ReplaceAll(key+"="+value, ",", ",,"))
	}
	n, err := spec.ParseNIC(strings.Join(parts, ","))
	if err != nil {
		return none, err
	}
	return none, m.vm.Do(func() error {
		handed, err = m.vm.AddCable(n)
		return err
	})
}

// numbers replaces names that getfd gave by the numbers of their descriptors, which are
// added to taken.
func (m *Monitor) numbers(names string, taken *[]int) (string, error) {
	parts := strings.Split(names, ":")
	for i, name := range parts {
		if _, err := strconv.Atoi(name); err == nil {
			continue
		}
		fd, err := m.descriptors.take(name)
		if err != nil {
			return "", err
		}
		*taken = append(*taken, fd)
		parts[i] = strconv.Itoa(fd)
	}
	return strings.Join(parts, ":"), nil
}

// plugNIC plugs a NIC in. It has as many pairs of queues as its netdev, with mq=on; the
// number of vectors follows from that, whatever is asked for.
func plugNIC(m *Monitor, at machine.Place, p *properties) error {
	cable := p.values["netdev"]
	mtu, speed := p.number("host_mtu", 0, 0, 65535), p.number("speed", 0, 0, 1<<31-1)
	several, rss, hash := p.flag("mq", false), p.flag("rss", false), p.flag("hash", false)
	p.number("vectors", 0, 0, 2048)
	switch {
	case p.err != nil:
		return p.err
	case cable == "":
		return errors.New("netdev property not set")
	}
	return m.vm.PlugNIC(at, cable, func(n spec.NIC) (spec.NIC, error) {
		if mac, ok := p.values["mac"]; ok {
			if a, err := net.ParseMAC(mac); err != nil || len(a) != 6 {
				return n, fmt.Errorf("Property 'virtio-net-device.mac' doesn't take value '%s'", mac)
			}
			n.MAC = mac
		}
		if mtu > 0 {
			n.MTU = mtu
		}
		if speed > 0 {
			n.Speed = speed
		}
		if !several && len(n.FDs) == 0 {
			n.Queues = 1
		}
		n.RSS, n.Hash = rss, hash
		return n, nil
	})
}

// nicStats is what a network card has moved since it was made; QEMU does not tell.
type nicStats struct {
	ID        string `json:"id"`
	MAC       string `json:"mac"`
	Type      string `json:"type"`
	RxBytes   uint64 `json:"rx-bytes"` // towards the guest
	RxPackets uint64 `json:"rx-packets"`
	RxDropped uint64 `json:"rx-dropped"`
	TxBytes   uint64 `json:"tx-bytes"`
	TxPackets uint64 `json:"tx-packets"`
	TxDropped uint64 `json:"tx-dropped"`
}

// queryNICs answers __berth_query-nics. The name is berth's own, in the way of QEMU's
// documentation for such (docs/interop/qmp-spec, downstream extension).
func (m *Monitor) queryNICs(*qmp.Call, *qmp.None) (list []nicStats, err error) {
	for _, n := range m.vm.NICs() {
		s := n.Stats()
		list = append(list, nicStats{
			ID: n.Spec.ID, MAC: n.Spec.MAC, Type: n.Spec.Type,
			RxBytes: s.ReceivedBytes, RxPackets: s.ReceivedFrames, RxDropped: s.ReceiveDropped,
			TxBytes: s.TransmittedBytes, TxPackets: s.TransmittedFrames, TxDropped: s.TransmitDropped,
		})
	}
	return list, nil
}
