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

// addRAM maps the guest's memory.
func (b *board) addRAM(m spec.Machine) error {
	b.mem = guestmem.New()
	for _, r := range ramRanges(0, uint64(m.Memory.Size)) {
		if _, err := b.mem.AddRAM(r.Base, r.Size); err != nil {
			return err
		}
	}
	return nil
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
