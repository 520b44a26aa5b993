// Package lapic is the local APICs of a machine's vCPUs, xAPIC and x2APIC, and the bus between them.
package lapic

import (
	"math/bits"
	"sync"
	"sync/atomic"

	"berth/clock"
	"berth/irq"
)

// Registers by index, offset / 16 in the xAPIC page (Intel SDM vol. 3A table 11-1).
const (
	regID       = 0x02
	regVersion  = 0x03
	regTPR      = 0x08
	regAPR      = 0x09
	regPPR      = 0x0a
	regEOI      = 0x0b
	regRRD      = 0x0c
	regLDR      = 0x0d
	regDFR      = 0x0e
	regSVR      = 0x0f
	regISR      = 0x10 // 8 of each
	regTMR      = 0x18
	regIRR      = 0x20
	regESR      = 0x28
	regICR      = 0x30
	regICRHigh  = 0x31
	regLVTTimer = 0x32
	regThermal  = 0x33
	regPerf     = 0x34
	regLINT0    = 0x35
	regLINT1    = 0x36
	regLVTError = 0x37
	regInitial  = 0x38
	regCurrent  = 0x39
	regDivide   = 0x3e
	regSelfIPI  = 0x3f
)

const (
	version    = 0x14 | (regLVTError-regLVTTimer)<<16
	svrEnable  = 1 << 8
	lvtMasked  = 1 << 16
	flatModel  = 0xffffffff // DFR
	lowestUser = 16         // vectors below are illegal

	errSendVector = 1 << 5
	errRecvVector = 1 << 6
	errRegister   = 1 << 7
)

// Delivery modes of ICR, LVT and messages.
const (
	modeFixed   = 0
	modeLowest  = 1
	modeNMI     = 4
	modeINIT    = 5
	modeStartUp = 6
	modeExtINT  = 7
)

// CPU is what a local APIC asks of its vCPU. Calls come from any thread, with no
// local APIC's lock held but perhaps a device's or the I/O APIC's; none may block.
type CPU interface {
	// Kick says that Deliverable has become true.
	Kick()
	// NMI delivers a non-maskable interrupt.
	NMI()
	// INIT puts the vCPU into its state after INIT; its local APIC is there already.
	INIT()
	// SIPI starts the vCPU at vector<<12 if it waits for that.
	SIPI(vector uint8)
}

// LAPIC is one vCPU's local APIC. The timer counts guest nanoseconds, a bus clock
// of 1 GHz, as CPUID leaf 0x15 must say. Safe for concurrent use.
type LAPIC struct {
	set *Set
	id  uint32
	cpu CPU
	tsc func(tsc uint64) (ns uint64)

	deliverable atomic.Bool
	base        atomic.Uint64 // IA32_APIC_BASE
	logical     atomic.Uint64 // LDR<<32 | DFR

	mu     sync.Mutex // of one LAPIC at a time; nothing is called with it but the clock
	r      [64]uint32 // as irq.LAPICState.Regs; PPR and current count are computed
	errors uint32     // not yet in ESR
	ext    bool       // an ExtINT message waits
	intr   bool       // the 8259's output
	nmi    bool       // to tell cpu on leaving
	timer  clock.Timer
	due    uint64 // guest time at which the timer fires; 0 disarmed
	tscDue uint64 // IA32_TSC_DEADLINE
}

// leave ends a critical section: it settles Deliverable, unlocks and tells the vCPU.
func (l *LAPIC) leave() {
	was, now := l.deliverable.Load(), l.pending()
	if was != now {
		l.deliverable.Store(now)
	}
	nmi := l.nmi
	l.nmi = false
	l.mu.Unlock()
	if now && !was {
		l.cpu.Kick()
	}
	if nmi {
		l.cpu.NMI()
	}
}

// pending reports whether an interrupt can be delivered now.
func (l *LAPIC) pending() bool { return l.candidate() >= 0 || l.extINT() }

// candidate returns the highest requested vector above the processor priority, or -1.
func (l *LAPIC) candidate() int {
	if !l.enabled() {
		return -1
	}
	if v := l.highest(regIRR); v >= 0 && v>>4 > int(l.ppr()>>4) {
		return v
	}
	return -1
}

// extINT reports whether the 8259 has an interrupt that reaches this vCPU: as
// LINT0 says, or directly where the APIC is off (SDM §11.4.3).
func (l *LAPIC) extINT() bool {
	if l.base.Load()&baseEnable == 0 {
		return l.intr
	}
	lint0 := l.r[regLINT0]
	return l.ext || l.intr && lint0&lvtMasked == 0 && lint0>>8&7 == modeExtINT
}

// enabled reports whether the APIC is enabled by hardware and software.
func (l *LAPIC) enabled() bool {
	return l.base.Load()&baseEnable != 0 && l.r[regSVR]&svrEnable != 0
}

// highest returns the highest vector of a 256-bit register, or -1.
func (l *LAPIC) highest(reg int) int {
	for i := 7; i >= 0; i-- {
		if w := l.r[reg+i]; w != 0 {
			return i*32 + 31 - bits.LeadingZeros32(w)
		}
	}
	return -1
}

func (l *LAPIC) setBit(reg int, vector uint8, on bool) {
	w := &l.r[reg+int(vector>>5)]
	if *w &^= 1 << (vector & 31); on {
		*w |= 1 << (vector & 31)
	}
}

func (l *LAPIC) bit(reg int, vector uint8) bool {
	return l.r[reg+int(vector>>5)]&(1<<(vector&31)) != 0
}

// ppr is the processor priority (SDM §11.8.3.1).
func (l *LAPIC) ppr() uint8 {
	tpr, serving := uint8(l.r[regTPR]), uint8(max(0, l.highest(regISR)))
	if tpr>>4 >= serving>>4 {
		return tpr
	}
	return serving & 0xf0
}

// Deliverable reports whether an interrupt waits that the priority allows. It is
// one atomic load.
func (l *LAPIC) Deliverable() bool { return l.deliverable.Load() }

// Acknowledge takes the highest deliverable interrupt and returns its vector;
// the 8259 comes after the APIC's own.
func (l *LAPIC) Acknowledge() (vector uint8, ok bool) {
	vector, ok, ext := l.take()
	if ext {
		vector, ok = l.set.inta(), true
	}
	if l.Deliverable() {
		l.cpu.Kick()
	}
	return vector, ok
}

func (l *LAPIC) take() (vector uint8, ok, ext bool) {
	l.mu.Lock()
	defer l.leave()
	if v := l.candidate(); v >= 0 {
		l.setBit(regIRR, uint8(v), false)
		l.setBit(regISR, uint8(v), true)
		return uint8(v), true, false
	}
	ext = l.extINT()
	l.ext = false
	return 0, false, ext
}

// TPR returns CR8, the upper half of the task priority.
func (l *LAPIC) TPR() uint8 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return uint8(l.r[regTPR] >> 4)
}

// SetTPR writes CR8; only its low four bits count.
func (l *LAPIC) SetTPR(v uint8) {
	l.mu.Lock()
	defer l.leave()
	l.r[regTPR] = uint32(v&15) << 4
}

// accept requests a fixed interrupt.
func (l *LAPIC) accept(vector uint8, level bool) {
	l.mu.Lock()
	defer l.leave()
	l.request(vector, level)
}

func (l *LAPIC) request(vector uint8, level bool) {
	if !l.enabled() {
		return
	}
	if vector < lowestUser {
		l.fail(errRecvVector)
		return
	}
	l.setBit(regIRR, vector, true)
	l.setBit(regTMR, vector, level)
}

// fail records an error and asks for the error interrupt (SDM §11.5.3).
func (l *LAPIC) fail(bit uint32) {
	l.errors |= bit
	lvt := l.r[regLVTError]
	switch {
	case lvt&lvtMasked != 0:
	case uint8(lvt) < lowestUser:
		l.errors |= errRecvVector
	default:
		l.request(uint8(lvt), false)
	}
}

// local delivers what a local vector table entry says. ExtINT is a level that
// extINT reads.
func (l *LAPIC) local(reg int) {
	lvt := l.r[reg]
	if lvt&lvtMasked != 0 || l.base.Load()&baseEnable == 0 {
		return
	}
	switch lvt >> 8 & 7 {
	case modeFixed:
		l.request(uint8(lvt), false)
	case modeNMI:
		l.nmi = true
	}
}

// setINTR drives LINT0 with the 8259's output. A fixed LINT0 heeds rising edges only.
func (l *LAPIC) setINTR(level bool) {
	l.mu.Lock()
	defer l.leave()
	if level && !l.intr {
		l.local(regLINT0)
	}
	l.intr = level
}

// LINT1 pulses that pin: an NMI, unless the guest has programmed it otherwise.
// Where the APIC is off it is the processor's NMI pin (SDM §11.4.3).
func (l *LAPIC) LINT1() {
	l.mu.Lock()
	defer l.leave()
	if l.base.Load()&baseEnable == 0 {
		l.nmi = true
		return
	}
	l.local(regLINT1)
}

// endOfInterrupt retires the highest interrupt in service and tells of it, with no
// APIC lock held.
func (l *LAPIC) endOfInterrupt() {
	switch v, level := l.retire(); {
	case level:
		l.set.eoi(v)
	case v != 0 && l.set.ended != nil:
		l.set.ended(v)
	}
}

func (l *LAPIC) retire() (vector uint8, level bool) {
	l.mu.Lock()
	defer l.leave()
	v := l.highest(regISR)
	if v < 0 {
		return 0, false
	}
	l.setBit(regISR, uint8(v), false)
	return uint8(v), l.bit(regTMR, uint8(v))
}

// reset puts the registers into their state after INIT (SDM §11.4.7.3); the base
// register stays.
func (l *LAPIC) reset() {
	l.disarm()
	l.tscDue, l.errors, l.ext = 0, 0, false
	l.r = [64]uint32{regVersion: version, regDFR: flatModel, regSVR: 0xff}
	for reg := regLVTTimer; reg <= regLVTError; reg++ {
		l.r[reg] = lvtMasked
	}
	l.setID()
}

// setID derives what depends on the mode: the ID's place and the x2APIC's LDR (SDM §11.12.10.2).
func (l *LAPIC) setID() {
	if l.base.Load()&baseX2 != 0 {
		l.r[regID] = l.id
		l.r[regLDR] = l.id>>4<<16 | 1<<(l.id&15)
	} else {
		l.r[regID] = l.id << 24
	}
	l.publish()
}

// publish shows LDR and DFR to senders.
func (l *LAPIC) publish() { l.logical.Store(uint64(l.r[regLDR])<<32 | uint64(l.r[regDFR])) }

// powerOn is the state after power-on: xAPIC mode, and on the bootstrap processor
// LINT0 passes the 8259 through, which is firmware's work where there is any.
func (l *LAPIC) powerOn() {
	l.mu.Lock()
	defer l.leave()
	base := uint64(DefaultBase | baseEnable)
	if l.bsp() {
		base |= baseBSP
	}
	l.base.Store(base)
	l.reset()
	if l.bsp() {
		l.r[regLINT0] = modeExtINT << 8
	}
}

func (l *LAPIC) bsp() bool { return l.set.all[0] == l }

func (l *LAPIC) init() {
	l.mu.Lock()
	l.reset()
	l.leave()
	l.cpu.INIT()
}

// irqState is l as irq.LAPICState has it.
func (l *LAPIC) irqState() irq.LAPICState {
	s := irq.LAPICState{Regs: l.r, Base: l.base.Load(), TSCDeadline: l.tscDue, Errors: l.errors, ExtINT: l.ext}
	s.Regs[regPPR] = uint32(l.ppr())
	s.Regs[regCurrent] = l.current(l.set.clock.Now())
	return s
}
