package interp

import (
	"testing"

	"berth/x86"
)

// 2 sockets of 3 cores of 2 threads: vCPU 9 is socket 1, core 1, thread 1.
func TestTopologyLeaves(t *testing.T) {
	c := newTestCPU(t, nil)
	c.cfg.APIC, c.cfg.ID, c.cfg.CPUs = oneInterrupt{}, 9, 12
	c.cfg.Topology = x86.Topology{Sockets: 2, Cores: 3, Threads: 2}
	if r := c.leaf(1, 0); r[1]>>24 != 11 || r[1]>>16&0xff != 8 || r[3]&feat1HTT == 0 {
		t.Errorf("leaf 1: %#x", r)
	}
	if r := c.leaf(0xb, 0); r[0] != 1 || r[1] != 2 || r[3] != 11 {
		t.Errorf("leaf 0xb.0: %#x", r)
	}
	if r := c.leaf(0xb, 1); r[0] != 3 || r[1] != 6 || r[3] != 11 {
		t.Errorf("leaf 0xb.1: %#x", r)
	}
	if r := c.leaf(4, 0); r[0]>>26 != 3 || r[0]>>14&0xfff != 1 {
		t.Errorf("leaf 4: %#x", r)
	}
}
