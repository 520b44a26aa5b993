package monitor

import (
	"fmt"
	"maps"
	"slices"

	"berth/qmp"
	"berth/spec"
)

type (
	// machineInfo is QEMU's MachineInfo.
	machineInfo struct {
		Name       string `json:"name"`
		Alias      string `json:"alias,omitempty"`
		Default    *bool  `json:"is-default"`
		MaxCPUs    int64  `json:"cpu-max"`
		CPUHotplug bool   `json:"hotpluggable-cpus"`
		NUMAMem    bool   `json:"numa-mem-supported"`
		Deprecated bool   `json:"deprecated"`
		CPUType    string `json:"default-cpu-type,omitempty"`
		RAMID      string `json:"default-ram-id,omitempty"`
	}
	// cpuDefinition is QEMU's CpuDefinitionInfo.
	cpuDefinition struct {
		Name        string    `json:"name"`
		Migratable  *bool     `json:"migration-safe"`
		Static      bool      `json:"static"`
		Unavailable *[]string `json:"unavailable-features"`
		Type        string    `json:"typename"`
		AliasOf     *string   `json:"alias-of"` // no model has another name
		Deprecated  bool      `json:"deprecated"`
	}
	cpuModel struct {
		Name  string `json:"name"`
		Props any    `json:"props,omitempty"`
	}
	expansion struct {
		Type  expansionType `json:"type"`
		Model cpuModel      `json:"model"`
	}
	expanded struct {
		Model cpuModel `json:"model"`
	}
	expansionType string

	memoryDevice struct {
		Type memoryDeviceType `json:"type" qmp:"tag"`
	}
	memoryDeviceType string
)

// Values implements qmp.Enum.
func (expansionType) Values() []string { return []string{"static", "full"} }

// Values implements qmp.Enum.
func (memoryDeviceType) Values() []string {
	return []string{"dimm", "nvdimm", "virtio-pmem", "virtio-mem", "sgx-epc"}
}

// modelCommands are those about boards and CPUs that there may be.
func (m *Monitor) modelCommands() []qmp.Command {
	type none = qmp.None
	return []qmp.Command{
		qmp.Define("query-machines", "The boards that there are.", func(*qmp.Call, *none) (list []machineInfo, err error) {
			newest := map[string]string{}
			for _, b := range spec.Boards() {
				newest[b.Alias] = b.Name
			}
			for _, b := range spec.Boards() {
				i := machineInfo{Name: b.Name, MaxCPUs: spec.MaxCPUs, CPUType: cpuModelType("max"), RAMID: ramName}
				if newest[b.Alias] == b.Name {
					i.Alias = b.Alias
					if is := b.Alias == spec.Default().Board; is {
						i.Default = &is
					}
				}
				list = append(list, i)
			}
			return list, nil
		}),
		qmp.Define("query-cpu-definitions", "The CPU models that there are.", func(*qmp.Call, *none) (list []cpuDefinition, err error) {
			for _, model := range spec.Words("cpu") {
				fixed := model != "max"
				list = append(list, cpuDefinition{Name: model, Type: cpuModelType(model), Migratable: &fixed, Unavailable: &[]string{}})
			}
			return list, nil
		}),
		qmp.Define("query-cpu-model-expansion", "What a CPU model is on this host.", m.expandModel),
		qmp.Define("query-memory-devices", "Memory that can be unplugged: there is none.", func(*qmp.Call, *none) ([]memoryDevice, error) {
			return []memoryDevice{}, nil
		}),
	}
}

func (m *Monitor) expandModel(_ *qmp.Call, a *expansion) (e expanded, err error) {
	name := a.Model.Name
	if !slices.Contains(spec.Words("cpu"), name) {
		return e, fmt.Errorf("CPU model '%s' not found", name)
	}
	var props map[string]any
	err = m.vm.Do(func() error {
		return m.vm.OnCPUID(func(read func(leaf, sub uint32) [4]uint32) { props = cpuProperties(name, read) })
	})
	if err != nil {
		return e, err
	}
	given, _ := a.Model.Props.(map[string]any)
	for _, k := range slices.Sorted(maps.Keys(given)) {
		if _, ok := props[k]; !ok {
			return e, fmt.Errorf("Property '%s.%s' not found", cpuModelType(name), k)
		}
		props[k] = given[k]
	}
	return expanded{cpuModel{name, props}}, nil
}
