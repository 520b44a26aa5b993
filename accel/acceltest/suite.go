package acceltest

import (
	"testing"

	"berth/accel"
	"berth/x86"
)

// Suite is an accelerator under test.
type Suite struct {
	// Open returns the accelerator; it makes one VM or two for each test.
	Open    func(t *testing.T) accel.Accelerator
	MaxCPUs int  // more vCPUs than this are not tried
	AVX     bool // guests have AVX
	// EmulatesKernel: KVM here is one that emulates kernel-mode code, so what the
	// hardware would make atomic is not.
	EmulatesKernel bool
	// Check, if set, is held against every state given to SetState and read
	// after it.
	Check func(*x86.State) error
}

// Run runs the whole suite. What an accelerator does not offer (Doorbells,
// DirtyLogger, Stater, NMIInjector, MachineCheckInjector, Debugger) is left out.
func (suite Suite) Run(t *testing.T) {
	for _, c := range []struct {
		name string
		test func(*testing.T)
	}{
		{"PortsAndMMIOInRealMode", suite.realMode},
		{"MMIOInProtectedMode", suite.protectedMode},
		{"LongMode", suite.longMode},
		{"AnIOExitIsCompleteBeforeStateIsRead", suite.ioIsComplete},
		{"Kicks", suite.kicks},
		{"ATripleFaultIsAShutdown", suite.tripleFault},
		{"ProcessorsStartByINITAndSIPI", suite.startUp},
		{"InterruptsThroughTheIOAPIC", suite.ioapic},
		{"AnInterruptThroughThe8259", suite.pic},
		{"TheIntervalTimerIsIOAPICPin2", suite.timerPin},
		{"MessageInterrupts", suite.messages},
		{"StateRoundTrip", suite.stateRoundTrip},
		{"StateOfAnotherVersionIsRefused", suite.stateVersion},
		{"AGuestMovesToAnotherVM", suite.move},
		{"Litmus", suite.litmus},
	} {
		t.Run(c.name, c.test)
	}
	g := suite.NewGuest(t, "", 1)
	vm, vcpu := g.VM, g.CPUs[0].VCPU
	if _, ok := vcpu.(accel.NMIInjector); ok {
		t.Run("NMIs", suite.nmi)
	}
	if _, ok := vcpu.(accel.Debugger); ok {
		t.Run("Debugging", suite.debugging)
	}
	if _, ok := vcpu.(accel.MachineCheckInjector); ok {
		t.Run("MachineChecks", suite.machineChecks)
		t.Run("AMachineCheckWithoutMCEIsAShutdown", suite.machineCheckWithoutMCE)
	}
	if _, ok := vm.(accel.DirtyLogger); ok {
		t.Run("DirtyLog", suite.dirtyLog)
	}
	if _, ok := vm.(accel.Doorbells); ok {
		t.Run("Doorbells", suite.doorbells)
	}
	if _, ok := vm.(accel.Stater); ok {
		t.Run("ChipStateRoundTrip", suite.chipRoundTrip)
	}
}

// fit is Check, if there is one.
func (suite Suite) fit(s *x86.State) error {
	if suite.Check == nil {
		return nil
	}
	return suite.Check(s)
}
