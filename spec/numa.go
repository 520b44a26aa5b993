package spec

import (
	"fmt"
	"slices"
	"strings"

	"berth/internal/suggest"
)

// MaxNodes is the most NUMA nodes a machine can have.
const MaxNodes = 128

// Distances between nodes (ACPI 6.4 §5.2.17).
const (
	LocalDistance  = 10  // from a node to itself
	RemoteDistance = 20  // between others, unless stated
	Unreachable    = 255 // no way at all
)

// NUMA is how a guest's CPUs and memory are grouped into nodes; empty for a
// machine that says nothing of nodes.
type NUMA struct {
	Nodes     []Node     `json:"nodes,omitempty"`
	Distances []Distance `json:"distances,omitempty"`
}

// Node is one NUMA node. Its number is its place among the nodes.
type Node struct {
	CPUs   Set  `json:"cpus,omitempty"`
	Memory Size `json:"memory,omitempty"`
	// HostNodes and Policy are where the host takes the node's memory from.
	HostNodes Set    `json:"hostNodes,omitempty"`
	Policy    string `json:"policy,omitempty" words:"default bind preferred interleave"`
}

// Distance is how far node Dst is from node Src: 10 is local. One way stands
// for both unless the other is given too.
type Distance struct {
	Src int `json:"src"`
	Dst int `json:"dst"`
	Val int `json:"val"`
}

// Add reads one value of --numa, which begins with "node," or "dist,".
func (n *NUMA) Add(s string) error {
	kind, rest, more := strings.Cut(s, ",")
	switch kind {
	case "node":
		var node Node
		if more {
			if err := setKeys(rest, &node); err != nil {
				return fmt.Errorf("node: %w", err)
			}
		}
		n.Nodes = append(n.Nodes, node)
		return nil
	case "dist":
		d := Distance{Src: -1, Dst: -1, Val: -1}
		if err := setKeys(rest, &d); err != nil {
			return fmt.Errorf("dist: %w", err)
		}
		if d.Src < 0 || d.Dst < 0 || d.Val < 0 {
			return fmt.Errorf("%q: src, dst and val are needed: dist,src=0,dst=1,val=20", s)
		}
		n.Distances = append(n.Distances, d)
		return nil
	}
	if near := suggest.Closest(kind, []string{"node", "dist"}); near != "" {
		return fmt.Errorf("%q is not known: did you mean %q?", kind, near)
	}
	return fmt.Errorf("%q is not known: begin with node, or dist", kind)
}

// complete spreads CPUs and memory that no node claims: CPUs in equal runs,
// memory in equal parts, the last node taking the rest.
func (n *NUMA) complete(m *Machine) {
	count := len(n.Nodes)
	if count == 0 || count > MaxNodes {
		return
	}
	n.Nodes = slices.Clone(n.Nodes)
	cpus, memory := 0, Size(0)
	for i := range n.Nodes {
		n.Nodes[i].CPUs.tidy()
		n.Nodes[i].HostNodes.tidy()
		cpus += len(n.Nodes[i].CPUs)
		memory += n.Nodes[i].Memory
	}
	for cpu := 0; cpus == 0 && cpu < m.CPUs.Count; cpu++ {
		node := &n.Nodes[cpu*count/m.CPUs.Count]
		node.CPUs = append(node.CPUs, cpu)
	}
	if memory == 0 {
		unit := max(Size(m.Memory.PageSize()), memoryAlign)
		part := m.Memory.Size / Size(count) / unit * unit
		for i := range n.Nodes {
			n.Nodes[i].Memory = part
		}
		n.Nodes[count-1].Memory += m.Memory.Size - part*Size(count)
	}
}

// checkNUMA refuses nodes that do not share out all CPUs and all memory.
func (m *Machine) checkNUMA() error {
	nodes := m.NUMA.Nodes
	if len(nodes) > MaxNodes {
		return fmt.Errorf("%d NUMA nodes: at most %d are possible", len(nodes), MaxNodes)
	}
	if len(nodes) > 0 {
		if err := m.checkNodeCPUs(); err != nil {
			return err
		}
	}
	var sum Size
	for i, n := range nodes {
		if n.Memory%memoryAlign != 0 {
			return fmt.Errorf("NUMA node %d: memory of %d bytes is not a multiple of 1M", i, uint64(n.Memory))
		}
		if page := Size(m.Memory.PageSize()); page > 1 && n.Memory%page != 0 {
			return fmt.Errorf("NUMA node %d: memory of %s is not a multiple of its huge pages of %s", i, n.Memory, page)
		}
		if n.Memory > MaxMemory {
			return fmt.Errorf("NUMA node %d: memory of %s is too large: at most %s is possible", i, n.Memory, FormatSize(MaxMemory))
		}
		if err := checkPolicy(n.Policy, n.HostNodes); err != nil {
			return fmt.Errorf("NUMA node %d: %w", i, err)
		}
		sum += n.Memory
	}
	if len(nodes) > 0 && sum != m.Memory.Size {
		return fmt.Errorf("the NUMA nodes have %s of memory together, the machine has %s: give --memory %s", sum, m.Memory.Size, sum)
	}
	return m.checkDistances()
}

// checkNodeCPUs wants every CPU in exactly one node.
func (m *Machine) checkNodeCPUs() error {
	owner := make([]int, m.CPUs.Count)
	for i := range owner {
		owner[i] = -1
	}
	for i, n := range m.NUMA.Nodes {
		for _, cpu := range n.CPUs {
			switch {
			case cpu >= len(owner):
				return fmt.Errorf("NUMA node %d: there is no CPU %d: the machine has %d", i, cpu, len(owner))
			case owner[cpu] >= 0:
				return fmt.Errorf("CPU %d is in NUMA nodes %d and %d: it must be in one", cpu, owner[cpu], i)
			}
			owner[cpu] = i
		}
	}
	for cpu, node := range owner {
		if node < 0 {
			return fmt.Errorf("CPU %d is in no NUMA node: name it with cpus=", cpu)
		}
	}
	return nil
}

func (m *Machine) checkDistances() error {
	count := len(m.NUMA.Nodes)
	seen := map[[2]int]bool{}
	for _, d := range m.NUMA.Distances {
		for _, node := range []int{d.Src, d.Dst} {
			if node < 0 || node >= count {
				return fmt.Errorf("NUMA distance from %d to %d: there is no node %d: the machine has %s", d.Src, d.Dst, node, plural(count, "node"))
			}
		}
		switch {
		case seen[[2]int{d.Src, d.Dst}]:
			return fmt.Errorf("NUMA distance from %d to %d is given twice", d.Src, d.Dst)
		case d.Src == d.Dst && d.Val != LocalDistance:
			return fmt.Errorf("NUMA distance from node %d to itself is %d, not %d", d.Src, LocalDistance, d.Val)
		case d.Src != d.Dst && (d.Val <= LocalDistance || d.Val > Unreachable):
			return fmt.Errorf("NUMA distance from %d to %d: %d is not between %d and %d", d.Src, d.Dst, d.Val, LocalDistance+1, Unreachable)
		}
		seen[[2]int{d.Src, d.Dst}] = true
	}
	return nil
}

// Matrix returns the distance from each node to each, row by row.
func (n *NUMA) Matrix() [][]int {
	given := map[[2]int]int{}
	for _, d := range n.Distances {
		given[[2]int{d.Src, d.Dst}] = d.Val
	}
	rows := make([][]int, len(n.Nodes))
	for i := range rows {
		for j := range n.Nodes {
			v, ok := given[[2]int{i, j}]
			if !ok {
				v, ok = given[[2]int{j, i}]
			}
			switch {
			case i == j:
				v = LocalDistance
			case !ok:
				v = RemoteDistance
			}
			rows[i] = append(rows[i], v)
		}
	}
	return rows
}
