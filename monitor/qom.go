package monitor

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"berth/qmp"
	"berth/spec"
)

type (
	// objectPropertyInfo is QEMU's ObjectPropertyInfo.
	objectPropertyInfo struct {
		Name        string `json:"name"`
		Type        string `json:"type"`
		Description string `json:"description,omitempty"`
		Default     any    `json:"default-value,omitempty"`
	}
	// objectTypeInfo is QEMU's ObjectTypeInfo.
	objectTypeInfo struct {
		Name     string `json:"name"`
		Abstract *bool  `json:"abstract"`
		Parent   string `json:"parent,omitempty"`
	}
	qomPath struct {
		Path string `json:"path"`
	}
	qomGet struct {
		Path     string `json:"path"`
		Property string `json:"property"`
	}
	qomSet struct {
		Path     string `json:"path"`
		Property string `json:"property"`
		Value    any    `json:"value"`
	}
	qomTypes struct {
		Implements *string `json:"implements"`
		Abstract   *bool   `json:"abstract"`
	}
	qomType struct {
		Name string `json:"typename"`
	}
)

// qomCommands are those about QEMU's tree of objects.
func (m *Monitor) qomCommands() []qmp.Command {
	return []qmp.Command{
		qmp.Define("qom-list", "An object's properties and children.", func(_ *qmp.Call, a *qomPath) (list []objectPropertyInfo, err error) {
			err = m.object(a.Path, func(o *qomObject) error {
				for _, p := range o.all() {
					list = append(list, objectPropertyInfo{Name: p.name, Type: p.kind})
				}
				return nil
			})
			return list, err
		}),
		qmp.Define("qom-get", "The value of an object's property.", func(_ *qmp.Call, a *qomGet) (v any, err error) {
			err = m.object(a.Path, func(o *qomObject) error {
				p, err := o.property(a.Property)
				v = p.value
				if strings.HasPrefix(p.kind, "child<") {
					v = strings.TrimSuffix(a.Path, "/") + "/" + p.name
				}
				return err
			})
			return v, err
		}),
		qmp.Define("qom-set", "Sets an object's property.", func(_ *qmp.Call, a *qomSet) (none qmp.None, err error) {
			return none, m.object(a.Path, func(o *qomObject) error {
				p, err := o.property(a.Property)
				switch {
				case err != nil:
					return err
				case p.set == nil:
					return fmt.Errorf("Property '%s.%s' is not writable", o.kind, p.name)
				}
				return p.set(a.Value)
			})
		}),
		qmp.Define("qom-list-types", "The types of objects that there may be.", m.listTypes),
		qmp.Define("device-list-properties", "The properties that device_add takes for a driver.", m.listProperties),
	}
}

// object calls f with what is at path.
func (m *Monitor) object(path string, f func(*qomObject) error) error {
	return m.vm.Do(func() error {
		o, err := m.objects().resolve(path)
		if errors.Is(err, errNoObject) {
			return &qmp.Error{Class: qmp.DeviceNotFound, Desc: fmt.Sprintf("Device '%s' not found", path)}
		}
		if err != nil {
			return err
		}
		return f(o)
	})
}

// types lists the types, each after its parent.
func (m *Monitor) types() []objectTypeInfo {
	yes := true
	list := []objectTypeInfo{
		{"object", &yes, ""}, {"container", nil, "object"}, {"machine", &yes, "object"}, {"chardev", &yes, "object"}, {"device", &yes, "object"},
		{"cpu", &yes, "device"}, {"x86_64-cpu", &yes, "cpu"}, {"pci-device", &yes, "device"}, {"virtio-device", &yes, "device"}, {"virtio-pci", &yes, "pci-device"},
		{"pcie-root-port", nil, "pci-device"},
	}
	for _, b := range spec.Boards() {
		list = append(list, objectTypeInfo{machineType(b.Name), nil, "machine"})
	}
	for _, model := range spec.Words("cpu") {
		list = append(list, objectTypeInfo{cpuModelType(model), nil, "x86_64-cpu"})
	}
	for _, d := range []string{"balloon", "blk", "net", "rng", "serial"} {
		list = append(list, objectTypeInfo{"virtio-" + d + "-device", nil, "virtio-device"}, objectTypeInfo{"virtio-" + d + "-pci", nil, "virtio-pci"})
	}
	for _, d := range drivers() {
		if !slices.ContainsFunc(list, func(t objectTypeInfo) bool { return t.Name == d.name }) {
			list = append(list, objectTypeInfo{d.name, nil, "virtio-pci"})
		}
	}
	return list
}

func (m *Monitor) listTypes(_ *qmp.Call, a *qomTypes) ([]objectTypeInfo, error) {
	is := map[string]bool{} // an implementation of what is asked for
	list := []objectTypeInfo{}
	for _, t := range m.types() {
		is[t.Name] = a.Implements == nil || t.Name == *a.Implements || is[t.Parent]
		if is[t.Name] && (t.Abstract == nil || a.Abstract != nil && *a.Abstract) {
			list = append(list, t)
		}
	}
	return list, nil
}

func (m *Monitor) listProperties(_ *qmp.Call, a *qomType) ([]objectPropertyInfo, error) {
	for _, d := range drivers() {
		if d.name != a.Name {
			continue
		}
		list := []objectPropertyInfo{{Name: "addr", Type: "int32", Description: "Slot and optional function number, example: 06.0 or 06", Default: int64(-1)}}
		for _, p := range d.properties {
			list = append(list, objectPropertyInfo{Name: p.name, Type: cmp.Or(propertyTypes()[p.name], "str")})
		}
		return list, nil
	}
	if slices.ContainsFunc(m.types(), func(t objectTypeInfo) bool { return t.Name == a.Name }) {
		return nil, errors.New("Parameter 'typename' expects a non-abstract device type")
	}
	return nil, &qmp.Error{Class: qmp.DeviceNotFound, Desc: fmt.Sprintf("Device '%s' not found", a.Name)}
}

// propertyTypes are the types of properties that are not text.
func propertyTypes() map[string]string {
	return map[string]string{
		"num-queues": "uint16", "queue-size": "uint16", "host_mtu": "uint16", "rx_queue_size": "uint16", "tx_queue_size": "uint16", "speed": "int32",
		"mq": "bool", "share-rw": "bool", "deflate-on-oom": "bool", "free-page-reporting": "bool", "guest-stats-polling-interval": "int",
		"max-bytes": "uint64", "period": "uint32", "bootindex": "int32", "discard": "bool", "write-zeroes": "bool", "config-wce": "bool",
	}
}
