package acpi

import "fmt"

// Node is one NUMA node. Its proximity domain is its place among the nodes.
type Node struct {
	CPUs   []int // indices into Config.CPUs
	Memory []Range
}

// SRAT entry types (ACPI §5.2.16).
const (
	sratLAPIC   = 0
	sratMemory  = 1
	sratX2APIC  = 2
	sratEnabled = 1
)

func (c *Config) checkNodes() error {
	if len(c.Distances) != len(c.Nodes) {
		return fmt.Errorf("distances of %d nodes for %d", len(c.Distances), len(c.Nodes))
	}
	for i, row := range c.Distances {
		if len(row) != len(c.Nodes) || row[i] != 10 {
			return fmt.Errorf("distances of node %d", i)
		}
	}
	for i, n := range c.Nodes {
		for _, cpu := range n.CPUs {
			if cpu < 0 || cpu >= len(c.CPUs) {
				return fmt.Errorf("node %d has processor %d of %d", i, cpu, len(c.CPUs))
			}
		}
		for _, r := range n.Memory {
			if r.Size == 0 || r.Base+r.Size < r.Base {
				return fmt.Errorf("node %d has memory 0x%x+0x%x", i, r.Base, r.Size)
			}
		}
	}
	return nil
}

// srat returns the affinity table after its header (ACPI §5.2.16): which
// processors and which memory belong to which node.
//
//	header    reserved u32 (1) | reserved u64
//	LAPIC     type u8 | length u8 | domain 7..0 | APIC ID u8 | flags u32 | SAPIC EID u8 | domain 31..8 | clock domain u32
//	x2APIC    type u8 | length u8 | reserved u16 | domain u32 | ID u32 | flags u32 | clock domain u32 | reserved u32
//	memory    type u8 | length u8 | domain u32 | reserved u16 | base u64 | size u64 | reserved u32 | flags u32 | reserved u64
func (c *Config) srat() []byte {
	b := append(le32(1), le64(0)...)
	for domain, n := range c.Nodes {
		for _, uid := range n.CPUs {
			if id := c.CPUs[uid]; c.isX2APIC(uid) {
				b = append(b, sratX2APIC, 24, 0, 0)
				b = append(b, join(le32(uint32(domain)), le32(id), le32(sratEnabled), le32(0), le32(0))...)
			} else {
				b = append(b, sratLAPIC, 16, uint8(domain), uint8(id))
				b = append(b, join(le32(sratEnabled), le32(uint32(domain)&^0xff), le32(0))...)
			}
		}
		for _, r := range n.Memory {
			b = append(b, sratMemory, 40)
			b = append(b, join(le32(uint32(domain)), le16(0), le64(r.Base), le64(r.Size), le32(0), le32(sratEnabled), le64(0))...)
		}
	}
	return b
}

// slit returns the distance table after its header (ACPI §5.2.17): the number
// of nodes u64, then their distances row by row.
func (c *Config) slit() []byte {
	b := le64(uint64(len(c.Nodes)))
	for _, row := range c.Distances {
		b = append(b, row...)
	}
	return b
}
