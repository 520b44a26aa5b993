package x86

import "testing"

func TestAPICIDs(t *testing.T) {
	for _, c := range []struct {
		topology Topology
		want     []uint32 // of CPUs 0, 1, …
	}{
		{Topology{}, []uint32{0, 1, 2, 3, 4}},
		{Topology{Sockets: 1, Cores: 5, Threads: 1}, []uint32{0, 1, 2, 3, 4}},
		{Topology{Sockets: 4, Cores: 1, Threads: 1}, []uint32{0, 1, 2, 3}},
		{Topology{Sockets: 2, Cores: 2, Threads: 2}, []uint32{0, 1, 2, 3, 4, 5, 6, 7}},
		{Topology{Sockets: 2, Cores: 3, Threads: 1}, []uint32{0, 1, 2, 4, 5, 6}},
		{Topology{Sockets: 2, Cores: 3, Threads: 2}, []uint32{0, 1, 2, 3, 4, 5, 8, 9, 10, 11, 12, 13}},
		{Topology{Sockets: 2, Cores: 1, Threads: 3}, []uint32{0, 1, 2, 4, 5, 6}},
	} {
		for cpu, want := range c.want {
			if got := c.topology.APICID(cpu); got != want {
				t.Errorf("%+v: CPU %d has APIC ID %d, want %d", c.topology, cpu, got, want)
			}
		}
	}
}

func TestZeroTopologyIsOneSocket(t *testing.T) {
	if got := (Topology{}).Resolve(6); got != (Topology{Sockets: 1, Cores: 6, Threads: 1}) {
		t.Errorf("%+v", got)
	}
	given := Topology{Sockets: 2, Cores: 2, Threads: 2}
	if got := given.Resolve(8); got != given {
		t.Errorf("%+v", got)
	}
}
