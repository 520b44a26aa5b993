package monitor

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"berth/machine"
	"berth/spec"
	"berth/virtio/balloon"
	"berth/x86"
)

// qomObject is one of QEMU's tree of objects, as it is made for one look at the VM:
//
//	/ objects
//	  chardevs/ID
//	  machine/ unattached/device[N]      the vCPUs
//	           peripheral/ID             devices with an id
//	           peripheral-anon/device[N] those without; each has a child virtio-backend
type qomObject struct {
	kind       string
	properties []objectProperty
	children   []child
}

type child struct {
	name string
	*qomObject
}

type objectProperty struct {
	name, kind string
	value      any
	set        func(any) error // nil: it cannot be set
}

func (o *qomObject) add(name string, c *qomObject) *qomObject {
	o.children = append(o.children, child{name, c})
	return c
}

func (o *qomObject) child(name string) *qomObject {
	for _, c := range o.children {
		if c.name == name {
			return c.qomObject
		}
	}
	return nil
}

func container() *qomObject { return &qomObject{kind: "container"} }

// objects makes the tree. Call it within Do.
func (m *Monitor) objects() *qomObject {
	root := container()
	root.add("objects", container())
	board := root.add("machine", m.boardObject())
	chardevs := root.add("chardevs", container())
	for _, c := range m.vm.Chardevs() {
		chardevs.add(c.ID, &qomObject{kind: "chardev"})
	}
	unattached := board.add("unattached", container())
	for _, c := range m.vm.CPUs() {
		unattached.add(fmt.Sprintf("device[%d]", c.ID), m.cpuObject(c))
	}
	named, unnamed := board.add("peripheral", container()), board.add("peripheral-anon", container())
	for _, d := range m.vm.Devices() {
		under := named
		if d.ID == "" {
			under = unnamed
		}
		under.add(d.Path[strings.LastIndexByte(d.Path, '/')+1:], m.deviceObject(d))
	}
	for _, f := range m.vm.Functions() {
		if p := f.Port(); p != nil {
			named.add(fmt.Sprintf("pci.%d", p.Number()), &qomObject{kind: "pcie-root-port", properties: append(deviceState(false), placeOf(f.Devfn())...)})
		}
	}
	return root
}

func (m *Monitor) boardObject() *qomObject {
	s := m.cfg.Spec
	t := x86.Topology{Sockets: s.CPUs.Sockets, Cores: s.CPUs.Cores, Threads: s.CPUs.Threads}.Resolve(s.CPUs.Count)
	count := int64(s.CPUs.Count)
	return &qomObject{kind: machineType(s.Board), properties: []objectProperty{
		{name: "kernel", kind: "string", value: s.Boot.Kernel},
		{name: "initrd", kind: "string", value: strings.Join(s.Boot.Initrd, ",")},
		{name: "append", kind: "string", value: s.Boot.Cmdline},
		{name: "memory", kind: "MemorySizeConfiguration", value: memorySize{int64(s.Memory.Size)}},
		{name: "smp", kind: "SMPConfiguration", value: smp{count, int64(t.Sockets), 1, 1, int64(t.Cores), int64(t.Threads), count}},
		{name: "dump-guest-core", kind: "bool", value: true},
		{name: "graphics", kind: "bool", value: false},
		{name: "usb", kind: "bool", value: false},
	}}
}

type (
	memorySize struct {
		Size int64 `json:"size"`
	}
	// smp is QEMU's SMPConfiguration.
	smp struct {
		CPUs     int64 `json:"cpus"`
		Sockets  int64 `json:"sockets"`
		Dies     int64 `json:"dies"`
		Clusters int64 `json:"clusters"`
		Cores    int64 `json:"cores"`
		Threads  int64 `json:"threads"`
		Max      int64 `json:"maxcpus"`
	}
)

func machineType(board string) string { return board + "-machine" }

// cpuType is the type of the VM's vCPUs.
func (m *Monitor) cpuType() string { return cpuModelType(cmp.Or(m.cfg.Spec.CPU, "max")) }

func cpuModelType(model string) string { return model + "-x86_64-cpu" }

func (m *Monitor) cpuObject(c machine.CPU) *qomObject {
	o := &qomObject{kind: m.cpuType(), properties: append(deviceState(false),
		objectProperty{name: "apic-id", kind: "uint32", value: int64(m.vm.APICID(c.ID))},
		objectProperty{name: "socket-id", kind: "int32", value: int64(c.Socket)},
		objectProperty{name: "die-id", kind: "int32", value: int64(0)},
		objectProperty{name: "core-id", kind: "int32", value: int64(c.Core)},
		objectProperty{name: "thread-id", kind: "int32", value: int64(c.Sibling)},
	)}
	if c.Node >= 0 {
		o.properties = append(o.properties, objectProperty{name: "node-id", kind: "int32", value: int64(c.Node)})
	}
	return o
}

// deviceState are the properties of every device.
func deviceState(hotplugged bool) []objectProperty {
	return []objectProperty{
		{name: "realized", kind: "bool", value: true}, {name: "hotplugged", kind: "bool", value: hotplugged}, {name: "hotpluggable", kind: "bool", value: hotplugged},
	}
}

func placeOf(devfn uint8) []objectProperty {
	return []objectProperty{
		{name: "addr", kind: "int32", value: int64(devfn)},
		{name: "legacy-addr", kind: "str", value: fmt.Sprintf("%02x.%x", devfn>>3, devfn&7)},
	}
}

// deviceType is QEMU's name for what a virtio device is.
func deviceType(d machine.Device) string {
	switch name := d.Info().Name; name {
	case "virtio-console", "virtio-ports":
		return "virtio-serial"
	default:
		return name
	}
}

func (m *Monitor) deviceObject(d machine.Device) *qomObject {
	o := &qomObject{kind: "virtio-mmio", properties: deviceState(d.Hotplugged)}
	if d.Function != nil {
		o.kind = deviceType(d) + "-pci"
		o.properties = append(o.properties, placeOf(d.Function.Devfn())...)
	}
	backend := &qomObject{kind: deviceType(d) + "-device", properties: deviceState(d.Hotplugged)}
	for _, v := range m.vm.Drives() {
		if v.Path == d.Path+"/virtio-backend" {
			backend.properties = append(backend.properties, objectProperty{name: "drive", kind: "str", value: cmp.Or(v.Name, v.Node())})
		}
	}
	backend.properties = append(backend.properties, m.specProperties(d.ID)...)
	if b, ok := d.Device.(*balloon.Device); ok {
		o.properties = append(o.properties, balloonProperties(b)...)
		backend.properties = append(backend.properties, balloonProperties(b)...)
	}
	o.add("virtio-backend", backend)
	return o
}

// specProperties are what the spec says of the device with an id.
func (m *Monitor) specProperties(id string) []objectProperty {
	if i := slices.IndexFunc(m.cfg.Spec.Disks, func(d spec.Disk) bool { return d.ID == id }); id != "" && i >= 0 {
		d := m.cfg.Spec.Disks[i]
		return []objectProperty{{name: "serial", kind: "str", value: d.Serial}, {name: "num-queues", kind: "uint16", value: int64(max(d.Queues, 1))}}
	}
	if i := slices.IndexFunc(m.cfg.Spec.NICs, func(n spec.NIC) bool { return n.ID == id }); id != "" && i >= 0 {
		n := m.cfg.Spec.NICs[i]
		return []objectProperty{{name: "mac", kind: "str", value: n.MAC}, {name: "netdev", kind: "str", value: n.ID}, {name: "host_mtu", kind: "uint16", value: int64(n.MTU)}}
	}
	return nil
}

// resolve finds an object by its path, or by the end of a path that only one has.
func (o *qomObject) resolve(path string) (*qomObject, error) {
	parts := strings.FieldsFunc(path, func(r rune) bool { return r == '/' })
	if strings.HasPrefix(path, "/") || path == "" {
		if found := o.walk(parts); found != nil {
			return found, nil
		}
		return nil, errNoObject
	}
	var found []*qomObject
	o.search(parts, &found)
	switch len(found) {
	case 0:
		return nil, errNoObject
	case 1:
		return found[0], nil
	}
	return nil, fmt.Errorf("Path '%s' does not uniquely identify an object", path)
}

var errNoObject = errors.New("no such object")

func (o *qomObject) walk(parts []string) *qomObject {
	for _, p := range parts {
		if o = o.child(p); o == nil {
			return nil
		}
	}
	return o
}

func (o *qomObject) search(parts []string, found *[]*qomObject) {
	if f := o.walk(parts); f != nil {
		*found = append(*found, f)
	}
	for _, c := range o.children {
		c.search(parts, found)
	}
}

// all are the object's properties: its type, its own, its children.
func (o *qomObject) all() []objectProperty {
	list := append([]objectProperty{{name: "type", kind: "string", value: o.kind}}, o.properties...)
	for _, c := range o.children {
		list = append(list, objectProperty{name: c.name, kind: "child<" + c.kind + ">", value: c.name})
	}
	return list
}

// property finds one of them.
func (o *qomObject) property(name string) (objectProperty, error) {
	for _, p := range o.all() {
		if p.name == name {
			return p, nil
		}
	}
	return objectProperty{}, fmt.Errorf("Property '%s.%s' not found", o.kind, name)
}
