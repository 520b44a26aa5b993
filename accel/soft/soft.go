// Package soft is the accelerator that needs nothing of the host: vCPUs of x86/interp, translated or interpreted, with interrupt controllers of its own.
package soft

import (
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync/atomic"
	"time"

	"berth/accel"
	"berth/bus"
	"berth/device/ferr"
	"berth/device/ioapic"
	"berth/device/lapic"
	"berth/device/pic"
	"berth/device/pit"
	"berth/irq"
	"berth/x86"
	"berth/x86/interp"
	"berth/x86/jit"
	"berth/x86/mmu"
)

// MaxCPUs is how many vCPUs a VM may have.
const MaxCPUs = 64

// Engine is how guest code is run.
type Engine string

// The engines.
const (
	Auto   Engine = "auto"   // translated where the host can, if it runs more than once; else Interp
	Interp Engine = "interp" // interpreted
	JIT    Engine = "jit"    // all translated to the host's, but for what x86/jit leaves to the interpreter
)

// Accelerator makes VMs on the soft engine.
type Accelerator struct {
	engine Engine
	cpu    x86.Level
	best   bool // nobody asked for cpu
	log    *slog.Logger
}

// New returns the soft engine as it suits the host. It logs rare events only.
func New(log *slog.Logger) *Accelerator {
	a, _ := NewEngine(Auto, 0, log) // which suits every host
	return a
}

// NewEngine is New with code run as engine says, and vCPUs of a level; 0 is the best that the host has.
func NewEngine(engine Engine, cpu x86.Level, log *slog.Logger) (*Accelerator, error) {
	switch {
	case engine == JIT && !jit.Available():
		return nil, errors.New("soft: this host cannot run translated code: that takes an x86-64-v2 CPU; use --soft-engine interp")
	case engine == Auto && !jit.Available():
		engine = Interp
	}
	best := cpu == 0
	switch {
	case cpu == x86.LevelV3 && !jit.AVX():
		return nil, errors.New("soft: this host's CPU is below x86-64-v3 (AVX2, BMI2, FMA): use --cpu v2 or max")
	case cpu == 0 && jit.AVX():
		cpu = x86.LevelV3
	case cpu == 0:
		cpu = x86.LevelV2
	}
	return &Accelerator{engine: engine, cpu: cpu, best: best, log: log}, nil
}

// Name implements accel.Accelerator.
func (a *Accelerator) Name() string { return "soft" }

// VM is one guest's hardware.
type VM struct {
	cfg    accel.Config
	engine Engine
	cpu    x86.Level
	best   bool
	log    *slog.Logger
	cpus   []*cpu
	group  *interp.Group
	lapics *lapic.Set
	ioapic *ioapic.IOAPIC
	pic    *pic.PIC
	pit    *pit.PIT
	ferr   *ferr.FERR // of vCPU 0

	ports, mmio *bus.Space // Config's with the chips in front

	rises       irq.Counter
	unknownMSRs atomic.Int32 // reported so far
	giving      atomic.Bool  // memory is on its way back to the host
}

var (
	_ accel.VM          = (*VM)(nil)
	_ accel.DirtyLogger = (*VM)(nil)
	_ accel.Stater      = (*VM)(nil)
	_ accel.Spaces      = (*VM)(nil)

	_ accel.InterruptCounter = (*VM)(nil)
)

// addressLimit is one past the last guest-physical address of the CPU model.
const addressLimit = 1 << mmu.PhysBits

// NewVM implements accel.Accelerator.
func (a *Accelerator) NewVM(cfg accel.Config) (accel.VM, error) {
	if cfg.CPUs < 1 || cfg.CPUs > MaxCPUs {
		return nil, fmt.Errorf("soft: %d vCPUs; 1 to %d are possible", cfg.CPUs, MaxCPUs)
	}
	if cfg.Memory == nil || cfg.Ports == nil || cfg.MMIO == nil || cfg.Clock == nil {
		return nil, errors.New("soft: memory, ports, MMIO and clock are needed")
	}
	if all := cfg.Memory.Regions(); len(all) > 0 && all[len(all)-1].End() > addressLimit {
		return nil, errors.New("soft: its CPUs address 1 TiB, PCI below 4 GiB included: give the guest less memory")
	}
	v := &VM{cfg: cfg, engine: a.engine, cpu: a.cpu, best: a.best, log: a.log, group: &interp.Group{}}
	if err := v.newChips(); err != nil {
		return nil, err
	}
	var err error
	if v.ports, v.mmio, err = v.spaces(); err != nil {
		return nil, err
	}
	for _, c := range v.cpus {
		if err := c.open(v.ports, v.mmio); err != nil {
			return nil, errors.Join(err, v.Close())
		}
	}
	cfg.Memory.WatchCode(func(gpa uint64) {
		for _, c := range v.cpus {
			c.signal(func(i *interp.CPU) { i.CodeWritten(gpa) })
		}
	})
	return v, nil
}

// newChips makes the interrupt controllers and the interval timer. The lock
// order is device, IOAPIC, LAPIC; no EOI callback holds an APIC's lock.
func (v *VM) newChips() (err error) {
	lc := lapic.Config{
		Clock: v.cfg.Clock,
		EOI:   func(vector uint8) { v.ioapic.EOI(vector) },
		Ended: func(vector uint8) {
			if v.pit.Serving() && v.ioapic.Sends(timerPin, vector) {
				v.pit.Ended()
			}
		},
		INTA: func() uint8 {
			vector := v.pic.Acknowledge()
			if v.pit.Serving() && vector == v.pic.Vector(0) {
				v.pit.Ended() // the next edge waits in the 8259
			}
			return vector
		},
	}
	for id := range v.cfg.CPUs {
		c := &cpu{vm: v, id: id}
		v.cpus = append(v.cpus, c)
		lc.CPUs = append(lc.CPUs, lapic.CPUConfig{ID: v.cfg.Topology.APICID(id), CPU: port{c}, TSCTime: c.tscTime})
	}
	if v.lapics, err = lapic.New(lc); err != nil {
		return fmt.Errorf("soft: %w", err)
	}
	v.ioapic = ioapic.New(ioapic.Version20, v.lapics.Deliver)
	v.pic = pic.New(irq.LineFunc(v.lapics.SetINTR))
	v.pit = pit.New(irq.GSILine(v, 0), v.cfg.Clock)
	v.pit.HearEnds()
	v.ferr = ferr.New(irq.GSILine(v, ferrGSI), func(on bool) {
		v.cpus[0].signal(func(i *interp.CPU) { i.SetIGNNE(on) })
	})
	return nil
}

// NewVCPU implements accel.VM.
func (v *VM) NewVCPU(id int) (accel.VCPU, error) {
	if id < 0 || id >= len(v.cpus) {
		return nil, fmt.Errorf("soft: vCPU %d of %d", id, len(v.cpus))
	}
	return v.cpus[id], nil
}

// IRQChip implements accel.VM.
func (v *VM) IRQChip() accel.IRQChip { return v }

// Close stops the timers and frees the vCPUs, which nobody may be running.
func (v *VM) Close() error {
	v.cfg.Memory.WatchCode(nil)
	v.lapics.Reset()
	v.pit.Reset()
	var err error
	for _, c := range v.cpus {
		err = errors.Join(err, c.close())
	}
	return err
}

// SetDirtyLog implements accel.DirtyLogger.
func (v *VM) SetDirtyLog(on bool) error {
	v.cfg.Memory.SetDirtyLog(on)
	v.revokeWrites()
	return nil
}

// CollectDirty implements accel.DirtyLogger. A page is reported after every vCPU
// has given up its direct access to it, so what was written before is in memory
// and what is written from now on will be reported next time.
func (v *VM) CollectDirty(f func(gpa uint64)) error {
	var pages []uint64
	v.cfg.Memory.CollectDirty(func(gpa uint64) { pages = append(pages, gpa) })
	v.revokeWrites()
	for _, gpa := range pages {
		f(gpa)
	}
	return nil
}

// revokeWrites takes the vCPUs' direct write access to pages and returns when
// none uses it any more.
func (v *VM) revokeWrites() {
	for _, c := range v.cpus {
		c.signal((*interp.CPU).RevokeWrites)
	}
	for _, c := range v.cpus {
		for c.cpu.RevokePending() {
			time.Sleep(20 * time.Microsecond)
		}
	}
}

// maxMSRReports bounds what a guest that probes MSRs can make the log say.
const maxMSRReports = 16

func (v *VM) unknownMSR(index uint32, write bool) {
	if v.unknownMSRs.Add(1) <= maxMSRReports {
		v.log.Debug("guest used an MSR that does not exist", "msr", fmt.Sprintf("0x%x", index), "write", write)
	}
}

// freed gives the host back what the vCPUs no longer hold. Go by itself keeps
// garbage for as long as a VM that idles makes no more of it, minutes at least.
func (v *VM) freed() {
	if !v.giving.CompareAndSwap(false, true) {
		return
	}
	go func() {
		debug.FreeOSMemory()
		v.giving.Store(false)
	}()
}
