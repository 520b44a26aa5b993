// Package accel is what runs a guest's instructions: a VM, its interrupt controllers and its vCPUs.
package accel

import (
	"berth/bus"
	"berth/clock"
	"berth/guestmem"
	"berth/irq"
	"berth/x86"
)

// Accelerator makes VMs on one engine.
type Accelerator interface {
	// Name is the word after --accel: "kvm" or "soft".
	Name() string
	NewVM(Config) (VM, error)
}

// IO is a space that vCPUs reach synchronously, in the middle of an instruction.
type IO interface {
	Read(addr uint64, p []byte)
	Write(addr uint64, p []byte)
}

// Config is what a VM needs of the machine around it.
type Config struct {
	Memory *guestmem.Memory
	Ports  IO // 64 KiB of ports
	MMIO   IO // guest-physical space outside Memory
	CPUs   int
	// Topology groups the CPUs; CPUID shows it, and vCPU id has the APIC ID
	// Topology.APICID(id).
	Topology x86.Topology
	Clock    clock.Clock
	// APICOnly leaves out the 8254, and the 8259 pair where the engine can: the
	// guest uses its APICs alone.
	APICOnly bool
}

// VM is one guest's hardware as the engine provides it.
type VM interface {
	// NewVCPU makes vCPU id, a number from 0 on. VCPU 0 starts at the reset
	// vector until SetState says otherwise; others wait for INIT and SIPI.
	NewVCPU(id int) (VCPU, error)
	// IRQChip returns the interrupt controllers (8259 pair, IOAPIC, LAPICs, PIT).
	IRQChip() IRQChip
	Close() error
}

// IRQChip delivers interrupts to the VM's vCPUs.
type IRQChip interface {
	irq.Sink
	irq.MSIAllocator
}

// VCPU is one virtual CPU. Run, GetState and SetState are called by the one OS
// thread that owns the vCPU; Kick by anyone.
type VCPU interface {
	// Run executes the guest until something rare happens, and says what in
	// exit. I/O is served through Config's spaces without returning. An error
	// means that the engine, not the guest, failed.
	Run(exit *Exit) error
	// Kick makes a Run in progress, or else the next one, return ExitKick soon.
	Kick()
	GetState(*x86.State) error
	SetState(*x86.State) error
}

// Reason says why Run returned.
type Reason uint8

// The reasons for leaving Run.
const (
	ExitKick     Reason = iota // Kick was called
	ExitShutdown               // triple fault
	ExitInternal               // the engine cannot go on: Detail names why
	ExitReset                  // the guest asked the engine for a reset
	ExitPowerOff               // the guest asked the engine to power off
	ExitDebug                  // what a Debugger asked for: Stop says why
)

// String says what happened in a word or two.
func (r Reason) String() string {
	return [...]string{"kick", "triple fault", "internal error", "reset", "power-off", "debug"}[r]
}

// Exit is the report of one return from Run.
type Exit struct {
	Reason Reason
	Detail string // one line, for ExitInternal
	RIP    uint64
	Bytes  []byte // instruction bytes at CS:RIP, as many as could be read (up to 15)
	Stop   x86.Stop
}

// Optional abilities, found by type assertion on VM or VCPU.

// WallClock is a VM whose engine tells the guest the time of day, as kvmclock
// does, if it says so: such a guest needs no RTC.
type WallClock interface {
	WallClock() bool
}

// Doorbells lets a device's notification register ring an eventfd without
// leaving the guest (KVM's ioeventfd). size is the access width in bytes (0:
// any); a nil value matches every datum.
type Doorbells interface {
	AddDoorbell(addr uint64, size int, value *uint64, eventfd int) error
	RemoveDoorbell(addr uint64, size int, value *uint64, eventfd int) error
}

// InstructionCounter is a VCPU that counts the guest's instructions. Called by
// the thread that owns the vCPU.
type InstructionCounter interface {
	Instructions() uint64 // since the vCPU was made
}

// CPUIDReader is a VCPU that tells what CPUID says on it. Called by the thread that
// owns the vCPU.
type CPUIDReader interface {
	CPUID(leaf, sub uint32) [4]uint32 // EAX, EBX, ECX, EDX
}

// TranslationCounter is a VCPU that may run guest code translated. Called by the
// thread that owns the vCPU.
type TranslationCounter interface {
	// Translation returns the vCPU's counters; not ok: nothing is translated.
	Translation() (t Translation, ok bool)
}

// NMIInjector is a VCPU whose NMI pin can be pulsed: LINT1 of its local APIC, which
// the guest may have masked. Called by the thread that owns the vCPU.
type NMIInjector interface {
	InjectNMI() error
}

// MachineCheckInjector is a VCPU with machine-check banks. A corrected error is
// logged for the guest to find; an uncorrected one raises #MC at the next Run,
// or ends that with ExitShutdown if the guest cannot take it; one that the guest
// has disabled is lost. Called by the thread that owns the vCPU.
type MachineCheckInjector interface {
	InjectMachineCheck(x86.MachineCheck) error
}

// Spaces is a VM whose own chips can be reached by others than its vCPUs.
type Spaces interface {
	// Spaces are Config's with those chips in front, safe for concurrent use. Local
	// APICs, each of which only its vCPU sees, are not in them.
	Spaces() (ports, mmio IO)
	// ChipWindows lists where the chips are, by address.
	ChipWindows(ports bool) []bus.Window
}

// Debugger is a VCPU that stops where a debugger wants it to. Called by the thread
// that owns the vCPU.
type Debugger interface {
	// SetDebug replaces what Run returns ExitDebug for; the zero x86.Debug is nothing.
	// It comes after SetState and right before the Run of a step.
	SetDebug(x86.Debug) error
	DebugLimits() x86.DebugLimits
}

// InterruptCounter is a VM that counts how often its interrupt lines rose. Safe for
// concurrent use.
type InterruptCounter interface {
	Interrupts() [irq.Lines]uint64
}

// DirtyLogger reports pages that vCPUs wrote.
type DirtyLogger interface {
	SetDirtyLog(on bool) error
	// CollectDirty calls f for each page (GPA) written since the last call.
	CollectDirty(f func(gpa uint64)) error
}

// Stater saves and loads the interrupt controllers and timers in
// accelerator-neutral form. The VM is paused.
type Stater interface {
	SaveChip() (irq.ChipState, error)
	LoadChip(irq.ChipState) error
}

// ClockPauser stops and restarts the clocks that the engine itself gives the
// guest (TSC, kvmclock), so that a pause takes no guest time. Both are called
// while no vCPU is in Run; in between, GetState and SetState see and set the
// stopped values.
type ClockPauser interface {
	PauseClock() error
	ResumeClock() error
}
