package machine

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
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

// nic is a network card of the machine.
type nic struct {
	spec spec.NIC
	dev  *virtionet.Device
	port netdev.Port
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
	mac, err := net.ParseMAC(n.MAC)
	if err != nil {
		return err
	}
	log := cfg.Log.With("nic", n.ID)
	port, err := openPort(n, [6]byte(mac), log)
	if err != nil {
		return err
	}
	if port, err = alongTheCable(port, n, log); err != nil {
		return err
	}
	dev, err := virtionet.New(port, virtionet.Config{
		MAC: [6]byte(mac), MTU: uint16(n.MTU), Queues: n.Queues, Speed: uint32(n.Speed),
		FilterChanged: func() { b.filterChanged(n.ID) }, Log: log,
	})
	if err != nil {
		return errors.Join(err, port.Close())
	}
	b.nics = append(b.nics, nic{n, dev, port})
	return b.add(cfg, Device{ID: n.ID, Device: dev})
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

// filterChanged says that a driver has changed what its NIC receives.
func (b *board) filterChanged(id string) { b.notify(Notice{Kind: NoticeRxFilter, ID: id}) }

// NIC is what a network card is, for who asks from outside.
type NIC struct {
	Spec spec.NIC
	*virtionet.Device
	User *user.Network // of type "user", else nil
}

// NICs lists the network cards, in the order in which guests find them. Safe from any
// goroutine, as are the devices.
func (m *Machine) NICs() (list []NIC) {
	for _, n := range m.board.nics {
		u, _ := n.port.(*user.Network)
		list = append(list, NIC{n.spec, n.dev, u})
	}
	return list
}
