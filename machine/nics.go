package machine

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"sync"
	"time"

	"berth/netdev"
	"berth/netdev/pcap"
	"berth/netdev/socket"
	"berth/netdev/tap"
	"berth/netdev/throttle"
	"berth/netdev/user"
	"berth/spec"
	virtionet "berth/virtio/net"
)

// cable is what a NIC may be plugged into: what QEMU calls a netdev.
type cable struct {
	given      spec.NIC          // what it was made as
	spec       spec.NIC          // that, and what belongs to the NIC that is plugged in or was
	port       netdev.Port       // nil: it is made when a NIC is plugged in
	user       *user.Network     // of type "user", else nil
	dev        *virtionet.Device // nil: no NIC is plugged in
	name, path string            // the NIC's
	gone       bool              // RemoveCable has been called, and the NIC is still there
}

// cables are those of a board, in the order in which they came.
type cables struct {
	mu   sync.Mutex // guards the list and what stands in it, which Run's goroutine changes
	list []*cable
}

// find returns the cable of an ID, or nil. Called with mu held.
func (c *cables) find(id string) *cable {
	i := slices.IndexFunc(c.list, func(c *cable) bool { return c.spec.ID == id })
	if i < 0 {
		return nil
	}
	return c.list[i]
}

// close closes NICs and ports. The NICs' transports are closed.
func (c *cables) close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var errs []error
	for _, x := range c.list {
		errs = append(errs, x.close())
	}
	c.list = nil
	return errors.Join(errs...)
}

// close closes the NIC, if there is one, and the port.
func (c *cable) close() (err error) {
	switch {
	case c.dev != nil:
		err = c.dev.Close()
	case c.port != nil:
		err = c.port.Close()
	}
	c.dev, c.port, c.user = nil, nil, nil
	return err
}

// addNICs makes the network cards.
func (b *board) addNICs(cfg Config) error {
	for _, n := range cfg.Spec.NICs {
		if err := b.addNIC(cfg, n); err != nil {
			return fmt.Errorf("nic %s: %w", n.ID, err)
		}
	}
	return nil
}

func (b *board) addNIC(cfg Config, n spec.NIC) error {
	c := &cable{given: n, spec: n, name: n.ID, path: b.path(n.ID)}
	b.cables.mu.Lock()
	b.cables.list = append(b.cables.list, c)
	err := c.open(cfg.Log)
	if err == nil {
		err = c.plug(func() { b.filterChanged(c.name, c.path) }, cfg.Log)
	}
	b.cables.mu.Unlock()
	if err != nil {
		return err
	}
	return b.add(cfg, Device{ID: n.ID, Device: c.dev})
}

// open makes the port.
func (c *cable) open(log *slog.Logger) error {
	if c.port != nil {
		return nil
	}
	mac, err := net.ParseMAC(c.spec.MAC)
	if err != nil {
		return err
	}
	log = log.With("nic", c.spec.ID)
	port, err := openPort(c.spec, [6]byte(mac), log)
	if err != nil {
		return err
	}
	c.user, _ = port.(*user.Network)
	c.port, err = alongTheCable(port, c.spec, log)
	return err
}

// plug makes a NIC at the cable, whose port is open.
func (c *cable) plug(changed func(), log *slog.Logger) error {
	n := c.spec
	mac, err := net.ParseMAC(n.MAC)
	if err != nil {
		return err
	}
	c.dev, err = virtionet.New(c.port, virtionet.Config{
		MAC: [6]byte(mac), MTU: uint16(n.MTU), Queues: n.Queues, Speed: uint32(n.Speed), RSS: n.RSS, Hash: n.Hash,
		FilterChanged: changed, Log: log.With("nic", n.ID),
	})
	return err
}

// openPort makes what a NIC's cable ends in.
func openPort(n spec.NIC, mac [6]byte, log *slog.Logger) (netdev.Port, error) {
	switch n.Type {
	case "tap", "bridge":
		t, err := tap.Open(tap.Config{Name: n.IfName, Queues: n.Queues, FDs: n.FDs, Bridge: n.Bridge, MTU: n.MTU, GuestMAC: mac})
		if err != nil {
			return nil, err
		}
		log.Debug("a NIC's interface", "interface", t.Name())
		return t, nil
	case "user":
		return openUser(n, log)
	case "stream":
		a, err := socketAddress(n.Addr)
		if err != nil {
			return nil, err
		}
		return socket.NewStream(socket.StreamConfig{
			Address: a, Server: n.Server, Reconnect: time.Duration(n.Reconnect) * time.Second, Log: log,
		})
	case "dgram":
		local, err := socketAddress(n.Local)
		if err != nil {
			return nil, err
		}
		remote, err := socketAddress(n.Remote)
		if err != nil {
			return nil, err
		}
		return socket.NewDatagram(local, remote)
	}
	return nil, fmt.Errorf("type %s is not there yet", n.Type)
}

func openUser(n spec.NIC, log *slog.Logger) (netdev.Port, error) {
	layout, err := n.Layout()
	if err != nil {
		return nil, err
	}
	in, out, err := n.Forwards(layout)
	if err != nil {
		return nil, err
	}
	return user.New(user.Config{
		UserLayout: layout, MTU: n.MTU, Restrict: n.Restrict, Loopback: n.Loopback,
		Hostname: n.Hostname, Domain: n.DomainName, Search: n.DNSSearch,
		HostForwards: in, GuestForwards: out, Log: log.With("nic", n.ID),
	})
}

// alongTheCable puts limits, and a file that keeps the frames, between a NIC and its port,
// which it closes after an error.
func alongTheCable(port netdev.Port, n spec.NIC, log *slog.Logger) (netdev.Port, error) {
	if l := n.Limits; l != (spec.FrameLimits{}) {
		port = netdev.Around(port, throttle.New(throttle.Limits{
			BytesIn: throttle.Rate{Rate: l.BPSIn, Burst: l.BPSInBurst}, PacketsIn: throttle.Rate{Rate: l.PPSIn, Burst: l.PPSInBurst},
			BytesOut: throttle.Rate{Rate: l.BPSOut, Burst: l.BPSOutBurst}, PacketsOut: throttle.Rate{Rate: l.PPSOut, Burst: l.PPSOutBurst},
		}))
	}
	if n.Pcap == "" {
		return port, nil
	}
	f, err := pcap.Create(n.Pcap, func(err error) { log.Warn("the NIC's capture has ended", "error", err) })
	if err != nil {
		return nil, errors.Join(err, port.Close())
	}
	return netdev.Around(port, f), nil
}

func socketAddress(a spec.SocketAddress) (socket.Address, error) {
	s := socket.Address{Network: a.Type, Path: a.Path, Host: a.Host, Port: a.Port}
	if a.Type != "fd" {
		return s, nil
	}
	var err error
	s.FD, err = strconv.Atoi(a.FD)
	return s, err
}

// filterChanged says that the driver of a NIC has changed what it receives.
func (b *board) filterChanged(id, path string) {
	b.notify(Notice{Kind: NoticeRxFilter, ID: id, Path: path + backendPath})
}

// NIC is what a network card is, for who asks from outside.
type NIC struct {
	Spec spec.NIC
	Name string // the device's, in QEMU's words
	Path string // its place in QEMU's tree of objects
	*virtionet.Device
	User *user.Network // of type "user", else nil
}

// NICs lists the network cards, in the order in which they came. Safe from any
// goroutine, as are the devices.
func (m *Machine) NICs() (list []NIC) {
	c := &m.board.cables
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, x := range c.list {
		if x.dev != nil {
			list = append(list, NIC{x.spec, x.name, x.path + backendPath, x.dev, x.user})
		}
	}
	return list
}

// AddCable makes what a NIC may be plugged into later: n's type and ID, and what belongs
// to that type. owned says that n's descriptors are the machine's from now on, after an
// error too. Call it within Do.
func (m *Machine) AddCable(n spec.NIC) (owned bool, err error) {
	c := &m.board.cables
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.find(n.ID) != nil {
		return false, fmt.Errorf("Duplicate ID '%s'", n.ID)
	}
	if n, err = m.cfg.Spec.CompleteNIC(n, m.macs()); err != nil {
		return false, err
	}
	x := &cable{given: n, spec: n}
	if err := x.open(m.log); err != nil {
		return true, err
	}
	c.list = append(c.list, x)
	return true, nil
}

// macs are the addresses that NICs have. Called with the cables' lock held.
func (m *Machine) macs() (taken []string) {
	for _, x := range m.board.cables.list {
		taken = append(taken, x.spec.MAC)
	}
	return taken
}

// RemoveCable ends a cable. A NIC that is still plugged into it has no link from now on.
// Call it within Do.
func (m *Machine) RemoveCable(id string) error {
	c := &m.board.cables
	c.mu.Lock()
	defer c.mu.Unlock()
	x := c.find(id)
	if x == nil || x.gone {
		return noDevice{id}
	}
	if x.dev == nil {
		c.list = slices.DeleteFunc(c.list, func(y *cable) bool { return x == y })
		return x.close()
	}
	x.gone = true
	x.dev.SetLink(false)
	return x.port.Close()
}

// PlugNIC plugs in a NIC at the cable of that ID, with the MAC, MTU and so on that change
// returns for what the cable has. Call it within Do.
func (m *Machine) PlugNIC(at Place, id string, change func(spec.NIC) (spec.NIC, error)) error {
	c := &m.board.cables
	c.mu.Lock()
	defer c.mu.Unlock()
	x := c.find(id)
	switch {
	case x == nil || x.gone:
		return fmt.Errorf("Property 'virtio-net-device.netdev' can't find value '%s'", id)
	case x.dev != nil:
		return fmt.Errorf("Property 'virtio-net-device.netdev' can't take value '%s', it's in use", id)
	}
	slot, err := m.place(at)
	if err != nil {
		return err
	}
	n, err := change(x.given)
	if err == nil {
		n, err = m.cfg.Spec.CompleteNIC(n, nil)
	}
	if err != nil {
		return err
	}
	if slices.Contains(m.macs(), n.MAC) && n.MAC != x.spec.MAC {
		return fmt.Errorf("mac %s is that of another NIC", n.MAC)
	}
	x.spec = n
	name, path := at.ID, m.board.path(at.ID)
	if x.name, x.path = name, path; name == "" {
		x.name = fmt.Sprintf("virtio-net-pci.%d", slot)
	}
	if err = x.open(m.log); err == nil {
		err = x.plug(func() { m.board.filterChanged(name, path) }, m.log)
	}
	if err == nil {
		err = m.plug(slot, at.ID, path, x.dev, pluggedCable{m, x})
	}
	if err != nil && x.dev != nil {
		err = errors.Join(err, c.end(x))
	}
	return err
}

// pluggedCable is the cable of a NIC that was plugged in.
type pluggedCable struct {
	m *Machine
	c *cable
}

// Close ends the NIC.
func (p pluggedCable) Close() error {
	c := &p.m.board.cables
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.end(p.c)
}

// end ends the NIC at a cable. The cable stays, and is made anew for the next, unless it
// was made of descriptors, which are closed: their numbers may be others' by then. Called
// with mu held.
func (c *cables) end(x *cable) error {
	err := x.close()
	if n := x.spec; x.gone || len(n.FDs) > 0 || n.Addr.Type == "fd" || n.Local.Type == "fd" {
		c.list = slices.DeleteFunc(c.list, func(y *cable) bool { return x == y })
	}
	return err
}
