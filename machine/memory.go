package machine

import (
	"berth/acpi"
	"berth/guestmem"
	"berth/spec"
)

// On every board at most lowRAM bytes of RAM lie below 4 GiB, the rest from
// there up: what is between belongs to devices.
const (
	lowRAM   = 2 << 30
	highBase = 4 << 30
)

// ramRanges returns where bytes [off, off+size) of the guest's RAM lie, around
// the hole below 4 GiB.
func ramRanges(off, size uint64) []acpi.Range {
	var r []acpi.Range
	if off < lowRAM {
		low := min(size, lowRAM-off)
		r = append(r, acpi.Range{Base: off, Size: low})
		off, size = off+low, size-low
	}
	if size > 0 {
		r = append(r, acpi.Range{Base: highBase + off - lowRAM, Size: size})
	}
	return r
}

// ramEnd returns the first address past all RAM.
func (b *board) ramEnd() uint64 {
	all := b.mem.Regions()
	return all[len(all)-1].End()
}

// addRAM maps the guest's memory, where and as m wants it.
func (b *board) addRAM(m spec.Machine) error {
	var err error
	size := uint64(m.Memory.Size)
	b.mem, err = guestmem.NewBacked(guestmem.Backing{
		Size: size, HugePages: m.Memory.PageSize(), Share: m.Memory.Share, File: m.Memory.File,
	})
	if err != nil {
		return err
	}
	for _, r := range ramRanges(0, size) {
		if _, err := b.mem.AddRAM(r.Base, r.Size); err != nil {
			return err
		}
	}
	bound, err := b.bindRAM(m)
	if err != nil {
		return err
	}
	// Huge pages are reserved of the whole host, not of a node: only taking them
	// tells whether the node has them.
	b.prefault = m.Memory.Prefault || bound && m.Memory.PageSize() != 0
	return b.takeRAM()
}

// takeRAM takes all memory from the host at once, if that is wanted. RAM is zero.
func (b *board) takeRAM() error {
	if !b.prefault {
		return nil
	}
	return b.mem.Prefault()
}

// bindRAM sets the host's policy for the memory of each node, or all of it, and
// reports whether some must come from certain nodes or not at all.
func (b *board) bindRAM(m spec.Machine) (bound bool, err error) {
	nodes := m.NUMA.Nodes
	if len(nodes) == 0 {
		nodes = []spec.Node{{Memory: m.Memory.Size}}
	}
	off := uint64(0)
	for _, n := range nodes {
		policy, hosts := n.Policy, n.HostNodes
		if policy == "" {
			policy, hosts = m.Memory.Policy, m.Memory.HostNodes
		}
		for _, r := range ramRanges(off, uint64(n.Memory)) {
			if err := b.mem.Bind(r.Base, r.Size, hostPolicy(policy), hosts); err != nil {
				return false, err
			}
		}
		bound = bound || policy == "bind"
		off += uint64(n.Memory)
	}
	return bound, nil
}

// hostPolicy returns the policy that a word of spec names.
func hostPolicy(word string) guestmem.Policy {
	switch word {
	case "bind":
		return guestmem.PolicyBind
	case "preferred":
		return guestmem.PolicyPreferred
	case "interleave":
		return guestmem.PolicyInterleave
	}
	return guestmem.PolicyDefault
}

// nodes describes the NUMA nodes. Their memory follows one after the other.
func (b *board) nodes(m spec.Machine) ([]acpi.Node, [][]uint8) {
	var nodes []acpi.Node
	var distances [][]uint8
	off := uint64(0)
	for _, n := range m.NUMA.Nodes {
		node := acpi.Node{CPUs: n.CPUs}
		if n.Memory > 0 {
			node.Memory = ramRanges(off, uint64(n.Memory))
		}
		nodes = append(nodes, node)
		off += uint64(n.Memory)
	}
	for _, row := range m.NUMA.Matrix() {
		var b []uint8
		for _, d := range row {
			b = append(b, uint8(d))
		}
		distances = append(distances, b)
	}
	return nodes, distances
}
