package monitor

import (
	"fmt"

	"berth/qmp"
)

// cpuInfo is QEMU's CpuInfoFast.
type cpuInfo struct {
	Index  int64    `json:"cpu-index"`
	Path   string   `json:"qom-path"`
	Thread int64    `json:"thread-id"`
	Props  cpuProps `json:"props,omitempty"`
	Target target   `json:"target"`
}

// cpuProps is QEMU's CpuInstanceProperties.
type cpuProps struct {
	Node   *int64 `json:"node-id"`
	Socket *int64 `json:"socket-id"`
	Die    *int64 `json:"die-id"`
	Core   *int64 `json:"core-id"`
	Sib    *int64 `json:"thread-id"`
}

type target string

// Values implements qmp.Enum.
func (target) Values() []string { return []string{"aarch64", "x86_64"} }

type targetInfo struct {
	Arch target `json:"arch"`
}

// cpuCommands are those about vCPUs.
func (m *Monitor) cpuCommands() []qmp.Command {
	return []qmp.Command{
		qmp.Define("query-cpus-fast", "The vCPUs and their threads.", m.queryCPUs),
		qmp.Define("query-target", "The guest's architecture.", func(*qmp.Call, *qmp.None) (targetInfo, error) {
			return targetInfo{"x86_64"}, nil
		}),
	}
}

func (m *Monitor) queryCPUs(*qmp.Call, *qmp.None) (list []cpuInfo, err error) {
	for _, c := range m.vm.CPUs() {
		i := cpuInfo{
			Index: int64(c.ID), Path: fmt.Sprintf("/machine/unattached/device[%d]", c.ID), Thread: int64(c.Thread), Target: "x86_64",
			Props: cpuProps{Socket: number(c.Socket), Core: number(c.Core), Sib: number(c.Sibling)},
		}
		if c.Node >= 0 {
			i.Props.Node = number(c.Node)
		}
		list = append(list, i)
	}
	return list, nil
}

// number is an optional member that is there.
func number(n int) *int64 {
	v := int64(n)
	return &v
}
