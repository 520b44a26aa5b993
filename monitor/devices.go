package monitor

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"

	"berth/machine"
	"berth/qmp"
	"berth/virtio/blk"
	"berth/virtio/rng"
)

// deviceAdd is QEMU's device_add: a driver, and the properties that it has.
type deviceAdd struct {
	Driver string         `json:"driver"`
	Bus    *string        `json:"bus"`
	ID     *string        `json:"id"`
	Given  map[string]any `qmp:"rest"`
}

type deviceDel struct {
	ID string `json:"id"`
}

// deviceDeleted is the data of DEVICE_DELETED.
type deviceDeleted struct {
	Device *string `json:"device"`
	Path   string  `json:"path"`
}

// deviceCommands are those that plug devices in and ask for them back.
func (m *Monitor) deviceCommands() []qmp.Command {
	return []qmp.Command{
		qmp.Define("device_add", "Plugs a device into a slot: its driver's name as QEMU has it, and its properties.", m.addDevice),
		qmp.Define("device_del", "Asks the guest to let go of a device. DEVICE_DELETED follows when it has, or at the next reset.", func(_ *qmp.Call, a *deviceDel) (none qmp.None, err error) {
			err = m.vm.Do(func() error { return m.vm.Unplug(a.ID) })
			if errors.Is(err, machine.ErrNoDevice) {
				err = &qmp.Error{Class: qmp.DeviceNotFound, Desc: err.Error()}
			}
			return none, err
		}),
	}
}

// plugQueues bounds the queues of a disk of which nobody says how many there are to be.
const plugQueues = 16

// driver is a device that can be plugged in. plug is called on the machine's goroutine.
type driver struct {
	name       string
	properties []property
	plug       func(m *Monitor, at machine.Place, p *properties) error
}

// property is one that a driver has besides addr.
type property struct{ name string }

// drivers is what can be plugged in.
func drivers() []driver {
	return []driver{
		{"virtio-blk-pci", []property{{"drive"}, {"serial"}, {"num-queues"}, {"write-cache"}}, plugDisk},
		{"virtio-balloon-pci", []property{{"deflate-on-oom"}, {"free-page-reporting"}}, plugBalloon},
		{"virtio-net-pci", []property{{"netdev"}, {"mac"}, {"host_mtu"}, {"mq"}, {"vectors"}, {"speed"}, {"rss"}, {"hash"}}, plugNIC},
		{"virtio-rng-pci", nil, func(m *Monitor, at machine.Place, _ *properties) error {
			return m.vm.Plug(at, rng.New(), nil)
		}},
	}
}

func plugDisk(m *Monitor, at machine.Place, p *properties) error {
	cfg := blk.Config{
		Serial: p.values["serial"], Queues: p.number("num-queues", min(m.cfg.Spec.CPUs.Count, plugQueues), 1, blk.MaxQueues),
		WriteThrough: !p.flag("write-cache", true),
	}
	switch {
	case p.err != nil:
		return p.err
	case p.values["drive"] == "":
		return errors.New("drive property not set")
	}
	return m.vm.PlugDisk(at, p.values["drive"], cfg)
}

// wellFormedID is QEMU's rule for names that people give.
var wellFormedID = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9._-]*$`)

func (m *Monitor) addDevice(_ *qmp.Call, a *deviceAdd) (none qmp.None, err error) {
	all := drivers()
	i := slices.IndexFunc(all, func(d driver) bool { return d.name == a.Driver })
	if i < 0 {
		return none, fmt.Errorf("'%s' is not a valid device model name", a.Driver)
	}
	var at machine.Place
	if a.ID != nil {
		if at.ID = *a.ID; !wellFormedID.MatchString(at.ID) {
			return none, errors.New("Parameter 'id' expects an identifier")
		}
	}
	if a.Bus != nil {
		at.Bus = *a.Bus
	}
	p := &properties{values: map[string]string{}}
	for name, v := range a.Given {
		if name != "addr" && !slices.ContainsFunc(all[i].properties, func(p property) bool { return p.name == name }) {
			return none, fmt.Errorf("Property '%s.%s' not found", a.Driver, name)
		}
		if p.values[name], err = propertyText(v); err != nil {
			return none, fmt.Errorf("Property '%s.%s' %w", a.Driver, name, err)
		}
	}
	at.Addr = p.values["addr"]
	return none, m.vm.Do(func() error { return all[i].plug(m, at, p) })
}

// propertyText is a value as QEMU's command line would have it, to which it brings all.
func propertyText(v any) (string, error) {
	switch v := v.(type) {
	case string:
		return v, nil
	case bool:
		if v {
			return "on", nil
		}
		return "off", nil
	case qmp.Number:
		return fmt.Sprint(v), nil
	}
	return "", errors.New("has a value of the wrong type")
}

// properties are a device's, as text. The first that is wrong is err.
type properties struct {
	values map[string]string
	err    error
}

func (p *properties) fail(format string, args ...any) {
	if p.err == nil {
		p.err = fmt.Errorf(format, args...)
	}
}

// flag reads a property that is on or off.
func (p *properties) flag(name string, without bool) bool {
	switch v, ok := p.values[name]; {
	case !ok, v == "auto":
		return without
	case v == "on" || v == "yes" || v == "true" || v == "y":
		return true
	case v != "off" && v != "no" && v != "false" && v != "n":
		p.fail("Parameter '%s' expects 'on' or 'off'", name)
	}
	return false
}

// number reads a property that is a number from least to most.
func (p *properties) number(name string, without, least, most int) int {
	v, ok := p.values[name]
	if !ok {
		return without
	}
	n, err := strconv.ParseInt(v, 0, 64)
	switch {
	case err != nil:
		p.fail("Parameter '%s' expects integer", name)
	case n < int64(least) || n > int64(most):
		p.fail("Parameter '%s': %s is not one of %d to %d", name, v, least, most)
	}
	return int(n)
}

func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
