package acceltest

import (
	"testing"

	"berth/accel"
	"berth/x86"
)

// events returns a guest that waits for NMIs and machine checks, stopped.
func (suite Suite) events(t *testing.T) *Guest {
	g := suite.NewGuest(t, "events", 1)
	g.Start()
	g.Word(0x6000, 1)
	g.Kick()
	g.Stop()
	return g
}

// onThread runs f on vCPU 0's thread.
func (g *Guest) onThread(f func(accel.VCPU) error) {
	g.t.Helper()
	var err error
	g.CPUs[0].Do(func() { err = f(g.CPUs[0].VCPU) })
	if err != nil {
		g.t.Fatal(err)
	}
}

func injectNMI(v accel.VCPU) error { return v.(accel.NMIInjector).InjectNMI() }

func (suite Suite) nmi(t *testing.T) {
	g := suite.NewGuest(t, "", 1)
	g.onThread(injectNMI)
	var s x86.State
	if g.Get(0, &s); s.Events.NMIPending {
		t.Error("LINT1 is masked after a reset, and an NMI is pending")
	}
	g = suite.events(t)
	for range 3 {
		g.onThread(injectNMI)
		g.Start()
		g.Expect(2)
		g.Kick()
		g.Stop()
	}
}

// msr returns the value of an MSR of vCPU 0.
func (g *Guest) msr(index uint32) uint64 {
	g.t.Helper()
	var s x86.State
	g.Get(0, &s)
	for _, m := range s.MSRs {
		if m.Index == index {
			return m.Value
		}
	}
	g.t.Fatalf("MSR 0x%x is not in the state", index)
	return 0
}

func (suite Suite) machineChecks(t *testing.T) {
	g := suite.events(t)
	g.Numbers(1, 0)
	inject := func(m x86.MachineCheck) {
		g.onThread(func(v accel.VCPU) error { return v.(accel.MachineCheckInjector).InjectMachineCheck(m) })
	}
	const status = x86.MSRMC0Ctl + 1
	corrected := x86.MachineCheck{Bank: 2, Status: x86.MCStatusVal | x86.MCStatusEN | 0x151}
	inject(corrected)
	if v := g.msr(status + 4*2); v != corrected.Status {
		t.Errorf("a corrected error is logged as 0x%x, want 0x%x", v, corrected.Status)
	}
	inject(corrected)
	if v := g.msr(status + 4*2); v != corrected.Status|x86.MCStatusOver {
		t.Errorf("a second one is logged as 0x%x, want OVER", v)
	}
	uncorrected := x86.MachineCheck{
		Bank: 3, Status: x86.MCStatusVal | x86.MCStatusUC | x86.MCStatusEN | x86.MCStatusADDRV | 0x9f,
		Addr: 0x123000, MCGStatus: x86.MCGStatusMCIP | x86.MCGStatusRIPV,
	}
	inject(uncorrected)
	g.Start()
	g.Expect(18, uncorrected.MCGStatus, uncorrected.Status>>32, uncorrected.Addr, 0xee) // and cleared
	g.Kick()
	g.Stop()
	inject(uncorrected)
	// Before it reaches the guest, the state moves.
	var s x86.State
	g.Get(0, &s)
	if !s.Events.Exception.Valid || s.Events.Exception.Vector != x86.MC {
		t.Errorf("events of a vCPU with a machine check: %+v", s.Events)
	}
	g.Set(0, &s)
	g.Start()
	g.Expect(18, uncorrected.MCGStatus, uncorrected.Status>>32, uncorrected.Addr, 0xee) // and held
	g.Kick()
	g.Stop()
	inject(uncorrected)
	g.Start()
	g.Ended()
	if e := g.CPUs[0].Exit; e.Reason != accel.ExitShutdown {
		t.Errorf("a machine check within another: %+v", e)
	}
}

// machineCheckWithoutMCE: a CPU whose CR4.MCE is clear cannot take it.
func (suite Suite) machineCheckWithoutMCE(t *testing.T) {
	g := suite.NewGuest(t, "", 1)
	g.LoadCode([]byte{0xf4, 0xeb, 0xfd}) // hlt; jmp
	g.onThread(func(v accel.VCPU) error {
		return v.(accel.MachineCheckInjector).InjectMachineCheck(x86.MachineCheck{Status: x86.MCStatusUC, MCGStatus: x86.MCGStatusMCIP})
	})
	g.Start()
	g.Ended()
	if e := g.CPUs[0].Exit; e.Reason != accel.ExitShutdown {
		t.Errorf("%+v", e)
	}
}
