package machine

import (
	"slices"

	"berth/accel"
)

// CPU is what a vCPU looks like from outside. Node is -1 where the machine has no NUMA nodes.
type CPU struct {
	ID, Thread            int // Thread is the host's, as gettid(2) has it
	Socket, Core, Sibling int // Sibling is the hardware thread in the core
	Node                  int
}

// CPUs lists the vCPUs. Safe from any goroutine.
func (m *Machine) CPUs() (list []CPU) {
	t := m.board.topology.Resolve(len(m.vcpus))
	for i, c := range m.vcpus {
		cpu := CPU{ID: i, Thread: c.thread, Socket: i / (t.Cores * t.Threads), Core: i / t.Threads % t.Cores, Sibling: i % t.Threads, Node: -1}
		for n, node := range m.cfg.Spec.NUMA.Nodes {
			if slices.Contains(node.CPUs, i) {
				cpu.Node = n
			}
		}
		list = append(list, cpu)
	}
	return list
}

// APICID is that of a vCPU.
func (m *Machine) APICID(id int) uint32 { return m.board.topology.APICID(id) }

// NMI pulses every vCPU's NMI pin. Call it within Do.
func (m *Machine) NMI() error {
	for _, c := range m.vcpus {
		if err := c.do(func(v accel.VCPU) error {
			if n, ok := v.(accel.NMIInjector); ok {
				return n.InjectNMI()
			}
			return nil
		}); err != nil {
			return err
		}
	}
	return nil
}
