package monitor

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"berth/machine"
	"berth/monitor/hmp"
	"berth/netdev/user"
	"berth/pci"
	"berth/qmp"
	"berth/spec"
)

// humanDevices are the commands about devices and their hosts' ends.
func (m *Monitor) humanDevices() []humanCommand {
	word := func(name string) hmp.Arg { return hmp.Arg{Name: name, Kind: hmp.Word} }
	options := hmp.Arg{Name: "options", Kind: hmp.Word, Optional: true}
	return []humanCommand{
		{
			name: "device_add", params: "driver[,prop=value][,...]", help: "add device, like -device on the command line", needs: "device_add",
			args: []hmp.Arg{{Name: "options", Kind: hmp.Word, Optional: true, Values: driverNames}}, run: func(h *human) error { return h.withOptions("device_add", "driver") },
		},
		{
			name: "device_del", params: "device", help: "remove device", needs: "device_del",
			args: []hmp.Arg{{Name: "id", Kind: hmp.Word, Values: m.deviceNames}}, run: func(h *human) error { return h.withID("device_del") },
		},
		{
			name: "netdev_add", params: "[user|tap|bridge|stream|dgram],id=str[,prop=value][,...]", help: "add host network device", needs: "netdev_add",
			args: []hmp.Arg{options}, run: func(h *human) error { return h.withOptions("netdev_add", "type") },
		},
		{name: "netdev_del", params: "id", help: "remove host network device", needs: "netdev_del", args: []hmp.Arg{word("id")}, run: func(h *human) error { return h.withID("netdev_del") }},
		{
			name: "set_link", params: "name on|off", help: "change the link status of a network adapter", needs: "set_link",
			args: []hmp.Arg{{Name: "name", Kind: hmp.Word, Values: m.nicNames}, {Name: "up", Kind: hmp.Switch}},
			run: func(h *human) error {
				_, err := h.do("set_link", "name", h.Text("name"), "up", h.On("up"))
				return err
			},
		},
		{
			name: "announce_self", params: "[interfaces] [id]", help: "Trigger GARP/RARP announcements", needs: "announce-self",
			args: []hmp.Arg{{Name: "interfaces", Kind: hmp.Word, Optional: true}, {Name: "id", Kind: hmp.Word, Optional: true}},
			run: func(h *human) error {
				args := []any{"initial", int64(50), "max", int64(550), "rounds", int64(5), "step", int64(100)} // QEMU's defaults
				if h.Has("interfaces") {
					var list []any
					for n := range strings.SplitSeq(h.Text("interfaces"), ",") {
						list = append(list, n)
					}
					args = append(args, "interfaces", list)
				}
				if h.Has("id") {
					args = append(args, "id", h.Text("id"))
				}
				_, err := h.do("announce-self", args...)
				return err
			},
		},
		{
			name: "hostfwd_add", params: "[netdev_id] [tcp|udp]:[hostaddr]:hostport-[guestaddr]:guestport", help: "redirect TCP or UDP connections from host to guest (requires a network of type user)",
			args: []hmp.Arg{word("arg1"), {Name: "arg2", Kind: hmp.Word, Optional: true}}, run: func(h *human) error { return m.humanForward(h, true) },
		},
		{
			name: "hostfwd_remove", params: "[netdev_id] [tcp|udp]:[hostaddr]:hostport", help: "remove host-to-guest TCP or UDP redirection",
			args: []hmp.Arg{word("arg1"), {Name: "arg2", Kind: hmp.Word, Optional: true}}, run: func(h *human) error { return m.humanForward(h, false) },
		},
		{
			name: "balloon", params: "target", help: "request VM to change its memory allocation (in MB)", needs: "balloon", args: []hmp.Arg{{Name: "value", Kind: hmp.Mega}},
			run: func(h *human) error {
				_, err := h.do("balloon", "value", h.Number("value"))
				return err
			},
		},
		{
			name: "block_resize", params: "device size", help: "resize a block image", needs: "block_resize",
			args: []hmp.Arg{{Name: "device", Kind: hmp.Block, Values: m.driveNames}, {Name: "size", Kind: hmp.Size}},
			run: func(h *human) error {
				_, err := h.do("block_resize", "device", h.Text("device"), "size", h.Number("size"))
				return err
			},
		},
		m.humanThrottle(),
		{name: "chardev-remove", params: "id", help: "remove chardev", needs: "chardev-remove", args: []hmp.Arg{word("id")}, run: func(h *human) error { return h.withID("chardev-remove") }},
		{
			name: "ringbuf_write", params: "device data", help: "Write to a ring buffer character device", needs: "ringbuf-write",
			args: []hmp.Arg{word("device"), word("data")},
			run: func(h *human) error {
				_, err := h.do("ringbuf-write", "device", h.Text("device"), "data", h.Text("data"))
				return err
			},
		},
		{
			name: "ringbuf_read", params: "device size", help: "Read from a ring buffer character device", needs: "ringbuf-read",
			args: []hmp.Arg{word("device"), {Name: "size", Kind: hmp.Index}},
			run: func(h *human) error {
				v, err := answer[string](h, "ringbuf-read", "device", h.Text("device"), "size", h.Number("size"))
				if err == nil {
					h.Printf("%s\n", printable(v))
				}
				return err
			},
		},
		{name: "closefd", params: "name", help: "close a file descriptor previously passed via SCM rights", needs: "closefd", args: []hmp.Arg{word("fdname")}, run: func(h *human) error {
			_, err := h.do("closefd", "fdname", h.Text("fdname"))
			return err
		}},
	}
}

// printable is text with what a terminal would act on written out, as QEMU does.
func printable(s string) string {
	var b strings.Builder
	for _, r := range s {
		switch {
		case r == '\\':
			b.WriteString(`\\`)
		case r < ' ' && r != '\n' || r == 0x7f:
			fmt.Fprintf(&b, `\u%04X`, r)
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// humanThrottle is block_set_io_throttle.
func (m *Monitor) humanThrottle() humanCommand {
	c := humanCommand{
		name: "block_set_io_throttle", params: "device bps bps_rd bps_wr iops iops_rd iops_wr", help: "change I/O throttle limits for a block drive", needs: "block_set_io_throttle",
		args: []hmp.Arg{{Name: "device", Kind: hmp.Block, Values: m.driveNames}},
	}
	limits := []string{"bps", "bps_rd", "bps_wr", "iops", "iops_rd", "iops_wr"}
	for _, l := range limits {
		c.args = append(c.args, hmp.Arg{Name: l, Kind: hmp.Number})
	}
	c.run = func(h *human) error {
		args := []any{"device", h.Text("device")}
		for _, l := range limits {
			args = append(args, l, h.Number(l))
		}
		_, err := h.do("block_set_io_throttle", args...)
		return err
	}
	return c
}

// withID runs a QMP command that takes an id alone.
func (h *human) withID(command string) error {
	_, err := h.do(command, "id", h.Text("id"))
	return err
}

// withOptions runs a QMP command of options in QEMU's form: implied[,name=value…],
// with a comma in a value doubled.
func (h *human) withOptions(command, implied string) error {
	args := map[string]any{}
	for i, part := range splitOptions(h.Text("options")) {
		name, value, ok := strings.Cut(part, "=")
		switch {
		case !ok && i == 0:
			name, value = implied, part
		case !ok && strings.HasPrefix(name, "no"):
			name, value = name[2:], "off"
		case !ok:
			value = "on"
		}
		putOption(args, name, value)
	}
	_, err := h.m.server.DoText(h.call, command, args)
	return err
}

// putOption adds an option: names with periods are members of objects, and those that
// may be given several times elements of lists.
func putOption(args map[string]any, name, value string) {
	for {
		outer, inner, ok := strings.Cut(name, ".")
		if !ok {
			break
		}
		m, ok := args[outer].(map[string]any)
		if !ok {
			m = map[string]any{}
			args[outer] = m
		}
		args, name = m, inner
	}
	if slices.Contains([]string{"hostfwd", "guestfwd", "dnssearch"}, name) {
		list, _ := args[name].([]any)
		args[name] = append(list, map[string]any{"str": value})
		return
	}
	args[name] = value
}

func splitOptions(s string) (parts []string) {
	if s == "" {
		return nil
	}
	const comma = "\x00"
	for part := range strings.SplitSeq(strings.ReplaceAll(s, ",,", comma), ",") {
		parts = append(parts, strings.ReplaceAll(part, comma, ","))
	}
	return parts
}

func driverNames() (list []string) {
	for _, d := range drivers() {
		list = append(list, d.name)
	}
	return list
}

func (m *Monitor) deviceNames() (list []string) {
	_ = m.vm.Do(func() error {
		for _, d := range m.vm.Devices() {
			if d.ID != "" {
				list = append(list, d.ID)
			}
		}
		return nil
	})
	return list
}

func (m *Monitor) driveNames() (list []string) {
	_ = m.vm.Do(func() error {
		for _, d := range m.vm.Drives() {
			if d.Name != "" {
				list = append(list, d.Name)
			}
		}
		return nil
	})
	return list
}

func (m *Monitor) nicNames() (list []string) {
	for _, n := range m.vm.NICs() {
		list = append(list, n.Spec.ID)
	}
	return list
}

// humanForward adds or removes a way in to a network of type user.
func (m *Monitor) humanForward(h *human, add bool) error {
	id, rule := h.Text("arg1"), h.Text("arg2")
	if !h.Has("arg2") {
		id, rule = "", id
	}
	n, err := m.userNetwork(id)
	if err != nil {
		h.Printf("%s\n", err)
		return nil
	}
	if add {
		f, err := spec.ParseHostForward(rule)
		if err == nil {
			err = n.Forward(f)
		}
		if err != nil {
			h.Printf("%s\n", err)
		}
		return nil
	}
	f, err := spec.ParseHostForward(rule + "-:1") // of which only the host's side matters
	switch {
	case err != nil:
		h.Printf("invalid format\n")
	case n.Unforward(f) != nil:
		h.Printf("host forwarding rule for %s not found\n", rule)
	default:
		h.Printf("host forwarding rule for %s removed\n", rule)
	}
	return nil
}

// userNetwork finds a network of type user; without an id the only one, or the first.
func (m *Monitor) userNetwork(id string) (*user.Network, error) {
	for _, n := range m.vm.NICs() {
		if n.User != nil && (id == "" || n.Spec.ID == id) {
			return n.User, nil
		}
	}
	if id != "" {
		return nil, fmt.Errorf("unrecognized netdev id '%s'", id)
	}
	return nil, errors.New("user mode network stack not in use")
}

// infoCommands are the subcommands of info.
func (m *Monitor) infoCommands() []humanCommand {
	return slices.Concat(m.infoRun(), m.infoCPU(), m.infoBlock(), []humanCommand{
		{name: "pci", help: "show PCI info", run: m.humanPCI},
		{name: "dump", help: "Display the latest dump status", run: func(h *human) error {
			m.infoDump(h)
			return nil
		}},
		{name: "chardev", help: "show the character devices", run: func(h *human) error {
			list, err := answer[[]chardevInfo](h, "query-chardev")
			for _, c := range list {
				h.Printf("%s: filename=%s\n", c.Label, c.Filename)
			}
			return err
		}},
		{name: "network", help: "show the network state", run: m.humanNetwork},
		{name: "usernet", help: "show user network stack connection states", run: m.humanFlows},
		{name: "memory-devices", help: "show memory devices", run: func(h *human) error {
			_, err := h.do("query-memory-devices")
			return err
		}},
		{name: "qtree", help: "show device tree", run: m.humanTree},
		{name: "qom-tree", params: "[path]", help: "show QOM composition tree", args: []hmp.Arg{{Name: "path", Kind: hmp.Word, Optional: true}}, run: m.humanObjects},
		{name: "balloon", help: "show balloon information", needs: "query-balloon", run: func(h *human) error {
			b, err := answer[balloonInfo](h, "query-balloon")
			if err == nil {
				h.Printf("balloon: actual=%d\n", b.Actual>>20)
			}
			return err
		}},
	})
}

func (m *Monitor) humanNetwork(h *human) error {
	for _, n := range m.vm.NICs() {
		s := n.Spec
		h.Printf("%s: index=0,type=nic,model=virtio-net-pci,macaddr=%s\n \\ %s: index=0,type=%s", s.ID, s.MAC, s.ID, s.Type)
		switch {
		case n.User != nil:
			l, err := s.Layout()
			if err != nil {
				return err
			}
			restrict := "off"
			if s.Restrict {
				restrict = "on"
			}
			h.Printf(",net=%s,restrict=%s", l.Net.Masked().Addr(), restrict)
		case s.IfName != "":
			h.Printf(",ifname=%s", s.IfName)
		}
		h.Printf("\n")
	}
	return nil
}

// humanFlows prints what passes networks of type user. What it stands on has no number
// of its own.
func (m *Monitor) humanFlows(h *human) error {
	for _, n := range m.vm.NICs() {
		if n.User == nil {
			continue
		}
		h.Printf("Hub -1 (%s):\n  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ\n", n.Spec.ID)
		for _, f := range n.User.Flows() {
			proto := "  " + f.Proto
			if f.State != "" {
				proto += "[" + f.State + "]"
			}
			source, from := endpoint(f.Source)
			dest, to := endpoint(f.Dest)
			h.Printf("%-19s %3s %15s %5s %15s %5s %5d %5d\n", proto, "-", source, from, dest, to, f.RecvQ, f.SendQ)
		}
	}
	return nil
}

// endpoint is an address and a port in two columns; * is every address.
func endpoint(s string) (addr, port string) {
	a, err := netip.ParseAddrPort(s)
	switch {
	case err != nil: // a Unix socket
		return s, "-"
	case a.Addr().IsUnspecified():
		return "*", fmt.Sprint(a.Port())
	}
	return a.Addr().String(), fmt.Sprint(a.Port())
}

// humanTree prints buses and the devices on them.
func (m *Monitor) humanTree(h *human) error {
	return m.vm.Do(func() error {
		h.Printf("bus: main-system-bus\n  type System\n")
		functions := m.vm.Functions()
		devices := m.vm.Devices()
		if len(functions) == 0 {
			for _, d := range devices {
				h.Printf("  dev: virtio-mmio, id \"%s\"\n    bus: virtio-bus\n      type virtio-mmio-bus\n      dev: %s-device, id \"\"\n", d.ID, deviceType(d))
			}
			return nil
		}
		h.Printf("  dev: q35-pcihost, id \"\"\n    bus: pcie.0\n      type PCIE\n")
		behind := map[*pci.Function]bool{}
		for _, f := range functions {
			if p := f.Port(); p != nil && p.Device() != nil {
				behind[p.Device()] = true
			}
		}
		for _, f := range functions {
			if !behind[f] {
				h.branch("      ", f, 0, devices)
			}
		}
		return nil
	})
}

// branch prints a PCI function and what is behind it.
func (h *human) branch(indent string, f *pci.Function, bus uint8, devices []machine.Device) {
	var config [64]byte
	f.Peek(0, config[:])
	le := binary.LittleEndian
	d := describeFunction(f, "")
	name, id, inner := strings.ReplaceAll(f.Name(), " ", "-"), "", ""
	if i := slices.IndexFunc(devices, func(d machine.Device) bool { return d.Function == f }); i >= 0 {
		name, id, inner = deviceType(devices[i])+"-pci", devices[i].ID, deviceType(devices[i])+"-device"
	}
	port := f.Port()
	if port != nil {
		name, id = "pcie-root-port", fmt.Sprintf("pci.%d", port.Number())
	}
	h.Printf("%sdev: %s, id \"%s\"\n", indent, name, id)
	indent += "  "
	class := cmp.Or(d.Class.Text, fmt.Sprintf("Class %04x", d.Class.Class))
	h.Printf("%saddr = %02x.%x\n", indent, f.Devfn()>>3, f.Devfn()&7)
	subsystem, subvendor := le.Uint16(config[0x2e:]), le.Uint16(config[0x2c:])
	if port != nil {
		subsystem, subvendor = 0, 0
	}
	h.Printf("%sclass %s, addr %02x:%02x.%x, pci id %04x:%04x (sub %04x:%04x)\n", indent, class, bus, f.Devfn()>>3, f.Devfn()&7, d.ID.Vendor, d.ID.Device, subvendor, subsystem)
	for _, r := range d.Regions {
		kind := "mem"
		if r.Type == "io" {
			kind = "i/o"
		}
		h.Printf("%sbar %d: %s at 0x%x [0x%x]\n", indent, r.BAR, kind, r.Address, r.Address+r.Size-1)
	}
	switch {
	case port != nil:
		h.Printf("%sbus: %s\n%s  type PCIE\n", indent, id, indent)
		if child := port.Device(); child != nil {
			h.branch(indent+"  ", child, port.Bus(), devices)
		}
	case inner != "":
		h.Printf("%sbus: virtio-bus\n%s  type virtio-pci-bus\n%s  dev: %s, id \"\"\n", indent, indent, indent, inner)
	}
}

// humanObjects prints QEMU's tree of objects from a path on.
func (m *Monitor) humanObjects(h *human) error {
	path := cmp.Or(h.Text("path"), "/machine")
	return m.vm.Do(func() error {
		o, err := m.objects().resolve(path)
		if err != nil {
			h.Printf("Path '%s' could not be resolved.\n", path)
			return nil
		}
		h.objects("", path[strings.LastIndexByte(path, '/')+1:], o)
		return nil
	})
}

func (h *human) objects(indent, name string, o *qomObject) {
	h.Printf("%s/%s (%s)\n", indent, name, o.kind)
	children := slices.Clone(o.children)
	sortBy(children, func(c child) string { return c.name })
	for _, c := range children {
		h.objects(indent+"  ", c.name, c.qomObject)
	}
}

// humanQOM are qom-list, qom-get and qom-set.
func (m *Monitor) humanQOM() []humanCommand {
	path := hmp.Arg{Name: "path", Kind: hmp.Word}
	property := hmp.Arg{Name: "property", Kind: hmp.Word}
	return []humanCommand{
		{name: "qom-list", params: "path", help: "list QOM properties", args: []hmp.Arg{{Name: "path", Kind: hmp.Word, Optional: true}}, run: func(h *human) error {
			list, err := answer[[]objectPropertyInfo](h, "qom-list", "path", cmp.Or(h.Text("path"), "/"))
			for _, p := range list {
				h.Printf("%s (%s)\n", p.Name, p.Type)
			}
			return err
		}},
		{name: "qom-get", params: "path property", help: "print QOM property", args: []hmp.Arg{path, property}, run: func(h *human) error {
			v, err := h.do("qom-get", "path", h.Text("path"), "property", h.Text("property"))
			if err == nil {
				h.Printf("%s\n", m.commands.Text(v))
			}
			return err
		}},
		{
			name: "qom-set", params: "[-j] path property value", help: "set QOM property.\n\t\t\t-j: the value is specified in json format.",
			args: []hmp.Arg{{Name: "j", Kind: hmp.Flag}, path, property, {Name: "value", Kind: hmp.Rest}},
			run: func(h *human) error {
				var v any = h.Text("value")
				if h.On("j") {
					var err error
					if v, err = qmp.ParseValue(h.Text("value")); err != nil {
						return err
					}
				}
				_, err := h.do("qom-set", "path", h.Text("path"), "property", h.Text("property"), "value", v)
				return err
			},
		},
	}
}

// minimal reports that the board is the one without a chipset.
func (m *Monitor) minimal() bool { return strings.HasPrefix(m.cfg.Spec.Board, "microvm") }

func sortBy[T any, K cmp.Ordered](list []T, key func(T) K) {
	slices.SortStableFunc(list, func(a, b T) int { return cmp.Compare(key(a), key(b)) })
}
