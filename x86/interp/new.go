package interp

import (
	"errors"

	"berth/guestmem"
	"berth/x86"
	"berth/x86/decode"
	"berth/x86/jit"
	"berth/x86/optab"
)

// CPU is one vCPU of the interpreter. All methods but Kick belong to the one OS
// thread that runs it.
type CPU struct {
	*Core
	cfg   Config
	group *Group

	exc  exception // set by whoever returns faulted
	exit Exit      // set by whoever returns stopped

	sys    systemState // privileged state beyond Core: MSRs, events, the APIC's view
	fpu    fpuState    // x87, MMX and SSE registers
	sse    *sseTable
	blocks blockCache
	tier1  *tier1      // nil: everything is interpreted
	single *jit.Single // runs VEX instructions; nil: the CPU is below x86.LevelV3
	vex    jit.Operands
	inst   decode.Inst // the instruction that step runs

	debug *debugger // nil: nobody debugs

	tickets []uint64 // Group.endDirect's
	turns   turns
}

// exception is a fault on its way to delivery.
type exception struct {
	vector   uint8
	hasError bool
	code     uint32
	cr2      uint64 // for #PF
	dr6      uint64 // for a #DB that is a fault: its causes
	// nonCanonical: a #GP(0) that is #SS(0) if the access was through SS.
	nonCanonical bool
}

// addExt sets the EXT bit of an error code that has one: all but a page fault's.
func (e *exception) addExt(ext uint32) {
	if e.vector != x86.PF {
		e.code |= ext
	}
}

// IO is a space reached synchronously in the middle of an instruction.
type IO interface {
	Read(addr uint64, p []byte)
	Write(addr uint64, p []byte)
}

// APIC is this vCPU's view of its local APIC and the 8259 behind it. Safe for
// concurrent use; it calls the CPU's Interrupt when Deliverable may have become true.
type APIC interface {
	// Deliverable reports whether an interrupt waits that the task priority allows.
	Deliverable() bool
	// Acknowledge takes the highest such interrupt and returns its vector.
	Acknowledge() (vector uint8, ok bool)
	// ReadMSR and WriteMSR serve IA32_APIC_BASE, IA32_TSC_DEADLINE and the x2APIC range; not ok is #GP(0).
	ReadMSR(index uint32) (value uint64, ok bool)
	WriteMSR(index uint32, value uint64) (ok bool)
	// TSCChanged tells that the CPU's TSC was moved against the clock.
	TSCChanged()
	// TPR and SetTPR are CR8: the task priority's upper four bits.
	TPR() uint8
	SetTPR(uint8)
}

// Config is what a CPU needs around it.
type Config struct {
	ID   int // the vCPU's number; its APIC ID follows from Topology
	CPUs int // how many the machine has, for CPUID
	// Topology groups them.
	Topology x86.Topology
	Memory   *guestmem.Memory
	Ports    IO // 64 KiB of ports
	MMIO     IO // guest-physical space outside Memory
	APIC     APIC
	TSC      func() uint64 // guest TSC before TSC_ADJUST
	// Steady: while Run runs, TSC advances as time on the host does, so that it can be had from the host's own.
	Steady bool
	// Group is what the machine's vCPUs have in common; nil for a machine of one.
	Group *Group
	// FERR, if set, is the pin that reports x87 exceptions while CR0.NE is clear.
	// Without it they are ignored.
	FERR func(asserted bool)
	// UnknownMSR, if set, is told of accesses to MSRs that do not exist; they raise #GP.
	UnknownMSR func(index uint32, write bool)
	// Level is what CPUID offers; 0 is x86.LevelV2. LevelV3 takes a host that has it: see jit.AVX.
	Level x86.Level
	// Translate has 64-bit code translated to the host's: see jit.Available.
	Translate bool
	// Lazy has a block translated when it is met for the second time, not the first.
	Lazy bool
	// Freed, if set, is told that much of what the vCPU held on the Go heap is
	// garbage now, while the vCPU halts. It must not wait.
	Freed func()
}

// Reason says why Run returned.
type Reason uint8

// Reasons to leave Run.
const (
	Kicked   Reason = iota
	Shutdown        // triple fault
	Internal        // something not implemented or impossible: Detail names it
	Debug           // Stop says why: see SetDebug
)

// Exit is Run's report.
type Exit struct {
	Reason Reason
	Detail string
	Stop   x86.Stop
}

// New makes a vCPU in its power-on state. Close releases it.
func New(cfg Config) (*CPU, error) {
	core, err := newCore()
	if err != nil {
		return nil, err
	}
	c := &CPU{Core: core, cfg: cfg, group: cfg.Group, sse: sseKinds()}
	c.fpu.xmm, c.fpu.ymmh = &core.Frame.XMM, &core.Frame.YMMH
	if cfg.Level == x86.LevelV3 {
		if !jit.AVX() {
			return nil, errors.Join(errors.New("interp: this host is no x86-64-v3 CPU"), freeCore(core))
		}
		if c.single, err = jit.NewSingle(); err != nil {
			return nil, errors.Join(err, freeCore(core))
		}
	}
	if cfg.Translate {
		if err := c.newTier1(); err != nil {
			return nil, errors.Join(err, c.single.Close(), freeCore(core))
		}
	}
	if c.group == nil {
		c.group = &Group{}
	}
	c.group.cpus = append(c.group.cpus, c)
	c.blocks.max = maxHeld(max(1, cfg.CPUs))
	c.sys.hostTSC = hostTSC{steady: cfg.Translate && cfg.Steady && jit.SteadyTSC(), least: usualGap}
	c.depart()
	c.clearBlocks()
	c.Reset()
	return c, nil
}

// Close releases the vCPU's memory. Nobody may use it any more.
func (c *CPU) Close() error {
	c.clearBlocks()
	return errors.Join(c.tier1.close(), c.single.Close(), freeCore(c.Core))
}

// exec runs one decoded instruction of any family, at RIP.
func (c *CPU) exec(in *decode.Inst) status {
	switch op := in.Op; {
	case op <= optab.LastInteger:
		return c.execInteger(in)
	case op <= optab.LastSystem:
		return c.execSystem(in)
	case op <= optab.LastX87:
		return c.execX87(in)
	case in.Vex:
		return c.execVEX(in)
	default:
		return c.execSSE(in)
	}
}
