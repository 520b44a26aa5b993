package spec

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// numa returns a machine of four CPUs and 4 GiB with nodes as --numa has them.
func numa(t *testing.T, values ...string) (Machine, error) {
	t.Helper()
	m := Default()
	m.Boot.Kernel, m.CPUs.Count, m.Memory.Size = "k", 4, 4<<30
	for _, v := range values {
		if err := m.NUMA.Add(v); err != nil {
			return m, err
		}
	}
	if err := m.Complete(); err != nil {
		return m, err
	}
	return m, m.Validate()
}

func TestNUMA(t *testing.T) {
	m, err := numa(t, "node,cpus=0,cpus=3,memory=1G,host-nodes=0-1,policy=interleave", "node,cpus=1-2,memory=3072", "dist,src=0,dst=1,val=31")
	if err != nil {
		t.Fatal(err)
	}
	want := NUMA{
		Nodes: []Node{
			{CPUs: Set{0, 3}, Memory: 1 << 30, HostNodes: Set{0, 1}, Policy: "interleave"},
			{CPUs: Set{1, 2}, Memory: 3 << 30},
		},
		Distances: []Distance{{0, 1, 31}},
	}
	if diff := cmp.Diff(want, m.NUMA); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([][]int{{10, 31}, {31, 10}}, m.NUMA.Matrix()); diff != "" {
		t.Error(diff)
	}
}

func TestNodesThatClaimNothingShareAlike(t *testing.T) {
	m, err := numa(t, "node", "node", "node")
	if err != nil {
		t.Fatal(err)
	}
	want := []Node{{CPUs: Set{0, 1}, Memory: 1365 << 20}, {CPUs: Set{2}, Memory: 1365 << 20}, {CPUs: Set{3}, Memory: 1366 << 20}}
	if diff := cmp.Diff(want, m.NUMA.Nodes); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([][]int{{10, 20, 20}, {20, 10, 20}, {20, 20, 10}}, m.NUMA.Matrix()); diff != "" {
		t.Error(diff)
	}
}

func TestDistancesMayDifferByDirection(t *testing.T) {
	m, err := numa(t, "node", "node", "dist,src=0,dst=1,val=255", "dist,src=1,dst=0,val=11", "dist,src=1,dst=1,val=10")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([][]int{{10, 255}, {11, 10}}, m.NUMA.Matrix()); diff != "" {
		t.Error(diff)
	}
}

func TestBadNUMA(t *testing.T) {
	for want, values := range map[string][]string{
		`"nod" is not known: did you mean "node"?`:                               {"nod"},
		`"" is not known: begin with node, or dist`:                              {""},
		`node: unknown key "cpu": did you mean "cpus"?`:                          {"node,cpu=0"},
		`node: unknown key "mem": the keys are cpus, memory, host-nodes`:         {"node,mem=1G"},
		`node: cpus: "3-1" is not a number or a range like 0-3`:                  {"node,cpus=3-1"},
		`node: cpus: "" is not a number or a range like 0-3`:                     {"node,cpus="},
		`node: cpus: "0-99999" is not a number or a range`:                       {"node,cpus=0-99999"},
		`node: policy: "bnid" is not known: did you mean "bind"?`:                {"node,host-nodes=0,policy=bnid"},
		"NUMA node 0: policy=bind needs the host's nodes: add host-nodes=0":      {"node,policy=bind"},
		"NUMA node 0: host-nodes says nothing without a policy":                  {"node,host-nodes=0"},
		"src, dst and val are needed":                                            {"node", "node", "dist,src=0,dst=1"},
		"dist: val: \"far\" is not a number":                                     {"node", "node", "dist,src=0,dst=1,val=far"},
		"there is no node 2: the machine has 2 nodes":                            {"node", "node", "dist,src=0,dst=2,val=20"},
		"there is no node 0: the machine has 0 nodes":                            {"dist,src=0,dst=1,val=20"},
		"NUMA distance from 0 to 1: 10 is not between 11 and 255":                {"node", "node", "dist,src=0,dst=1,val=10"},
		"NUMA distance from 0 to 1: 256 is not between 11 and 255":               {"node", "node", "dist,src=0,dst=1,val=256"},
		"NUMA distance from node 0 to itself is 10, not 20":                      {"node", "dist,src=0,dst=0,val=20"},
		"NUMA distance from 0 to 1 is given twice":                               {"node", "node", "dist,src=0,dst=1,val=20", "dist,src=0,dst=1,val=20"},
		"CPU 2 is in NUMA nodes 0 and 1: it must be in one":                      {"node,cpus=0-2", "node,cpus=2-3"},
		"CPU 3 is in no NUMA node: name it with cpus=":                           {"node,cpus=0-2"},
		"NUMA node 0: there is no CPU 4: the machine has 4":                      {"node,cpus=0-4"},
		"the NUMA nodes have 3G of memory together, the machine has 4G: give --": {"node,memory=1G", "node,memory=2G"},
		"NUMA node 1: memory of 524288 bytes is not a multiple of 1M":            {"node,memory=4G", "node,memory=512K"},
		"NUMA node 0: memory of 15P is too large":                                {"node,memory=15P"},
	} {
		if _, err := numa(t, values...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want %s", values, err, want)
		}
	}
}
