package interp

import (
	"testing"

	"berth/x86"
)

// TestAlignmentFaultsOnTheWayEnd: #AC while #AC is delivered is a double fault,
// not the same again for ever.
func TestAlignmentFaultsOnTheWayEnd(t *testing.T) {
	for _, vector := range []uint8{x86.AC, x86.GP, x86.TS} {
		if faultClass(&event{vector: vector}) != contributory {
			t.Errorf("vector %d does not make a double fault", vector)
		}
	}
	if faultClass(&event{vector: x86.AC, source: fromExternal}) != benign {
		t.Error("an external interrupt is no fault")
	}
}

// TestHaltedInAShadowWakes: a state that is halted at an instruction in an STI
// shadow takes the interrupt that waits instead of spinning on it.
func TestHaltedInAShadowWakes(t *testing.T) {
	c := newTestCPU(t, nil)
	c.cfg.APIC = oneInterrupt{}
	c.Flags |= x86.FlagIF
	c.sys.mp, c.sys.shadow, c.sys.shadowRIP = x86.MPHalted, shadowSTI, c.RIP
	c.post(pendHalt | pendIntr)
	if !c.interrupts() || c.exit.Reason != Shutdown { // there is no IDT
		t.Errorf("exit %+v", c.exit)
	}
}

// oneInterrupt always has vector 0x20.
type oneInterrupt struct{}

func (oneInterrupt) Deliverable() bool             { return true }
func (oneInterrupt) Acknowledge() (uint8, bool)    { return 0x20, true }
func (oneInterrupt) ReadMSR(uint32) (uint64, bool) { return 0, false }
func (oneInterrupt) WriteMSR(uint32, uint64) bool  { return false }
func (oneInterrupt) TSCChanged()                   {}
func (oneInterrupt) TPR() uint8                    { return 0 }
func (oneInterrupt) SetTPR(uint8)                  {}

// TestSysretWithTFTrapsAtItsTarget: the single-step trap comes before the first
// instruction there, as Linux counts on when it returns by IRET instead.
func TestSysretWithTFTrapsAtItsTarget(t *testing.T) {
	c := newTestCPU(t, unhex(t, "480f07ffc3")) // sysretq; inc ebx
	c.EFER |= x86.EFERSCE
	c.R[x86.RCX], c.R[x86.R11] = testCode+3, x86.FlagTF
	c.Run()
	if c.R[x86.RBX] != 0 || c.RIP != testCode+3 || c.exit.Reason != Shutdown { // there is no IDT
		t.Errorf("RBX %d, RIP %#x, exit %+v", c.R[x86.RBX], c.RIP, c.exit)
	}
}
