package soft

import (
	"fmt"
	"math"
	"sync"

	"berth/accel"
	"berth/clock"
	"berth/device/lapic"
	"berth/x86"
	"berth/x86/interp"
	"berth/x86/jit"
)

// cpu is one vCPU: the interpreter and its local APIC.
type cpu struct {
	vm  *VM
	id  int
	cpu *interp.CPU

	mu     sync.Mutex // between signals and close; the innermost lock
	closed bool
}

func (c *cpu) open(ports, mmio accel.IO) error {
	l := c.vm.lapics.APIC(c.id)
	_, host := c.vm.cfg.Clock.(*clock.Host)
	cfg := interp.Config{
		ID:         c.id,
		CPUs:       c.vm.cfg.CPUs,
		Topology:   c.vm.cfg.Topology,
		Memory:     c.vm.cfg.Memory,
		Ports:      ports,
		MMIO:       lapic.Overlay{APIC: l, Next: mmio},
		APIC:       l,
		TSC:        c.vm.cfg.Clock.Now,
		Steady:     host && c.vm.cfg.CPUs == 1, // several compare their TSCs, to the nanosecond
		Group:      c.vm.group,
		UnknownMSR: c.vm.unknownMSR,
		Freed:      c.vm.freed,
		Translate:  c.vm.engine != Interp,
		Lazy:       c.vm.engine == Auto,
		Level:      c.vm.cpu,
	}
	if c.id == 0 && !c.vm.cfg.APICOnly {
		cfg.FERR = c.vm.ferr.Set
	}
	i, err := interp.New(cfg)
	if err != nil && c.vm.engine == Auto {
		c.vm.log.Warn("guest code is interpreted: the host gives no memory for translated code", "err", err)
		cfg.Translate = false
		if c.vm.best && c.id == 0 { // nor for AVX
			c.vm.cpu = x86.LevelV2
			cfg.Level = c.vm.cpu
		}
		i, err = interp.New(cfg)
	}
	if err != nil {
		return fmt.Errorf("soft: vCPU %d: %w", c.id, err)
	}
	i.Reset()
	c.mu.Lock()
	c.cpu = i
	c.mu.Unlock()
	return nil
}

func (c *cpu) close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cpu == nil || c.closed {
		return nil
	}
	c.closed = true
	return c.cpu.Close()
}

// signal calls f unless the vCPU is gone: timers may still fire then.
func (c *cpu) signal(f func(*interp.CPU)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cpu != nil && !c.closed {
		f(c.cpu)
	}
}

// port is what the local APIC tells its vCPU.
type port struct{ *cpu }

func (p port) Kick()             { p.signal((*interp.CPU).Interrupt) }
func (p port) NMI()              { p.signal((*interp.CPU).NMI) }
func (p port) INIT()             { p.signal((*interp.CPU).INIT) }
func (p port) SIPI(vector uint8) { p.signal(func(i *interp.CPU) { i.SIPI(vector) }) }

// tscTime returns the clock's time at which the vCPU's TSC will read tsc.
func (c *cpu) tscTime(tsc uint64) uint64 {
	ahead, now := int64(tsc-c.cpu.TSC()), int64(c.vm.cfg.Clock.Now())
	if ahead > math.MaxInt64-now {
		return math.MaxInt64
	}
	return uint64(max(0, now+ahead))
}

// Kick implements accel.VCPU.
func (c *cpu) Kick() { c.signal((*interp.CPU).Kick) }

// Run implements accel.VCPU.
func (c *cpu) Run(exit *accel.Exit) error {
	e := c.cpu.Run()
	*exit = accel.Exit{Detail: e.Detail, RIP: c.cpu.RIP}
	switch e.Reason {
	case interp.Kicked:
		exit.Reason = accel.ExitKick
		return nil
	case interp.Debug:
		exit.Reason, exit.Stop = accel.ExitDebug, e.Stop
		return nil
	case interp.Shutdown:
		exit.Reason = accel.ExitShutdown
	default:
		exit.Reason = accel.ExitInternal
	}
	exit.Bytes = c.cpu.CodeBytes()
	return nil
}

// GetState implements accel.VCPU.
func (c *cpu) GetState(s *x86.State) error {
	c.cpu.GetState(s)
	return nil
}

// CPUID implements accel.CPUIDReader.
func (c *cpu) CPUID(leaf, sub uint32) [4]uint32 { return c.cpu.CPUID(leaf, sub) }

// Instructions implements accel.InstructionCounter.
func (c *cpu) Instructions() uint64 { return c.cpu.Instructions }

// Translation implements accel.TranslationCounter.
func (c *cpu) Translation() (a accel.Translation, ok bool) {
	t, ok := c.cpu.Translation()
	if !ok {
		return a, false
	}
	a = accel.Translation{
		Instructions: c.cpu.Instructions, Translated: t.Ran, CPU: interp.ThreadTime(), Translating: t.Time,
		Blocks: t.Blocks, BlockCode: t.Instructions, Crossing: t.Crossing, Removed: t.Removed, Flushes: t.Clears,
		Held: t.Held, Bytes: t.Bytes, Lookups: t.Lookups, Recent: t.Recent,
		TLBMisses: t.Exits[jit.Miss], JumpMisses: t.Exits[jit.Far] + t.Exits[jit.Indirect],
		Exits: map[string]uint64{},
	}
	for kind, n := range t.Exits {
		a.Exits[jit.Kind(kind).String()] = n
	}
	return a, true
}

// SetState implements accel.VCPU.
func (c *cpu) SetState(s *x86.State) error { return c.cpu.SetState(s) }

// SetDebug implements accel.Debugger.
func (c *cpu) SetDebug(d x86.Debug) error {
	c.cpu.SetDebug(d)
	return nil
}

// DebugLimits implements accel.Debugger: there are none.
func (c *cpu) DebugLimits() x86.DebugLimits { return x86.DebugLimits{} }

// InjectNMI implements accel.NMIInjector.
func (c *cpu) InjectNMI() error {
	c.vm.lapics.APIC(c.id).LINT1()
	return nil
}

// InjectMachineCheck implements accel.MachineCheckInjector.
func (c *cpu) InjectMachineCheck(m x86.MachineCheck) error {
	if err := c.cpu.InjectMachineCheck(m); err != nil {
		return fmt.Errorf("soft: vCPU %d: %w", c.id, err)
	}
	return nil
}
