package machine

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"berth/acpi"
	"berth/spec"
)

const (
	mib = 1 << 20
	gib = 1 << 30
)

// Wherever the size crosses the hole below 4 GiB, no byte is lost or doubled.
func TestRAMAroundTheHole(t *testing.T) {
	for _, c := range []struct {
		off, size uint64
		want      []acpi.Range
	}{
		{0, 16 * mib, []acpi.Range{{Base: 0, Size: 16 * mib}}},
		{0, 2*gib - mib, []acpi.Range{{Base: 0, Size: 2*gib - mib}}},
		{0, 2 * gib, []acpi.Range{{Base: 0, Size: 2 * gib}}},
		{0, 2*gib + mib, []acpi.Range{{Base: 0, Size: 2 * gib}, {Base: 4 * gib, Size: mib}}},
		{0, 3 * gib, []acpi.Range{{Base: 0, Size: 2 * gib}, {Base: 4 * gib, Size: gib}}},
		{0, 4 * gib, []acpi.Range{{Base: 0, Size: 2 * gib}, {Base: 4 * gib, Size: 2 * gib}}},
		{gib, gib, []acpi.Range{{Base: gib, Size: gib}}},
		{gib, 2 * gib, []acpi.Range{{Base: gib, Size: gib}, {Base: 4 * gib, Size: gib}}},
		{2*gib - mib, 2 * mib, []acpi.Range{{Base: 2*gib - mib, Size: mib}, {Base: 4 * gib, Size: mib}}},
		{2 * gib, mib, []acpi.Range{{Base: 4 * gib, Size: mib}}},
		{5 * gib, gib, []acpi.Range{{Base: 7 * gib, Size: gib}}},
	} {
		if diff := cmp.Diff(c.want, ramRanges(c.off, c.size)); diff != "" {
			t.Errorf("%d MiB at %d MiB: %s", c.size/mib, c.off/mib, diff)
		}
	}
}

func TestNodesLieOneAfterTheOther(t *testing.T) {
	b := &board{}
	m := spec.Machine{NUMA: spec.NUMA{
		Nodes:     []spec.Node{{CPUs: spec.Set{0, 1}, Memory: gib}, {CPUs: spec.Set{2}}, {CPUs: spec.Set{3}, Memory: 2 * gib}, {Memory: mib}},
		Distances: []spec.Distance{{Src: 0, Dst: 2, Val: 40}},
	}}
	nodes, distances := b.nodes(m)
	want := []acpi.Node{
		{CPUs: []int{0, 1}, Memory: []acpi.Range{{Base: 0, Size: gib}}},
		{CPUs: []int{2}},
		{CPUs: []int{3}, Memory: []acpi.Range{{Base: gib, Size: gib}, {Base: 4 * gib, Size: gib}}},
		{Memory: []acpi.Range{{Base: 5 * gib, Size: mib}}},
	}
	if diff := cmp.Diff(want, nodes); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([][]uint8{{10, 20, 40, 20}, {20, 10, 20, 20}, {40, 20, 10, 20}, {20, 20, 20, 10}}, distances); diff != "" {
		t.Error(diff)
	}
}
