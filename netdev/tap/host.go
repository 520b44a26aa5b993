package tap

import (
	"cmp"
	"fmt"

	"github.com/vishvananda/netlink"
)

// setUp makes the interface a port of a bridge and, if it is ours, ready for use. A bridge
// takes the least of its ports' addresses and MTUs for its own unless it was given them: an
// interface that is made has a high address and the bridge's MTU, so that neither changes.
func (t *Tap) setUp(c Config, made bool) error {
	link, err := netlink.LinkByName(t.name)
	if err != nil {
		return err
	}
	if c.Bridge == "" {
		return t.bringUp(link, c.MTU)
	}
	bridge, err := findBridge(c.Bridge)
	if err != nil {
		return err
	}
	mtu := bridge.Attrs().MTU
	if c.MTU > mtu {
		return fmt.Errorf("mtu %d is more than bridge %s has: give at most %d", c.MTU, c.Bridge, mtu)
	}
	if made {
		mac := append([]byte{0xfe}, c.GuestMAC[1:]...)
		if err := netlink.LinkSetHardwareAddr(link, mac); err != nil {
			return fmt.Errorf("its address: %w", err)
		}
		if err := netlink.LinkSetMTU(link, mtu); err != nil {
			return fmt.Errorf("its MTU %d: %w", mtu, err)
		}
	}
	if master := link.Attrs().MasterIndex; master != bridge.Attrs().Index {
		if master != 0 {
			return fmt.Errorf("it is a port of another bridge than %s already", c.Bridge)
		}
		if err := netlink.LinkSetMaster(link, bridge); err != nil {
			return fmt.Errorf("making it a port of bridge %s, which only root may: %w", c.Bridge, err)
		}
	}
	return t.bringUp(link, 0)
}

func (t *Tap) bringUp(link netlink.Link, mtu int) error {
	if mtu = cmp.Or(mtu, link.Attrs().MTU); mtu != link.Attrs().MTU {
		if err := netlink.LinkSetMTU(link, mtu); err != nil {
			return fmt.Errorf("its MTU %d: %w", mtu, err)
		}
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("bringing it up: %w", err)
	}
	return nil
}

// findBridge finds a bridge of the host by its name.
func findBridge(name string) (netlink.Link, error) {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return nil, fmt.Errorf("bridge %s: %w: make it first: ip link add %s type bridge", name, err, name)
	}
	if l.Type() != "bridge" {
		return nil, fmt.Errorf("%s is no bridge", name)
	}
	return l, nil
}
