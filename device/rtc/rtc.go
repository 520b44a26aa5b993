// Package rtc is the PC's MC146818 real-time clock with its CMOS memory.
package rtc

import (
	"fmt"
	"sync"
	"time"

	"berth/bus"
	"berth/clock"
	"berth/irq"
)

// Ports: index, then data.
const (
	Base = 0x70
	Size = 2
)

// CMOS bytes (MC146818 datasheet, figure 10; the PC's own from 0x0e on).
const (
	regSeconds      = 0x00
	regSecondsAlarm = 0x01
	regMinutes      = 0x02
	regMinutesAlarm = 0x03
	regHours        = 0x04
	regHoursAlarm   = 0x05
	regWeekday      = 0x06
	regDay          = 0x07
	regMonth        = 0x08
	regYear         = 0x09
	regA            = 0x0a
	regB            = 0x0b
	regC            = 0x0c
	regD            = 0x0d
	regEquipment    = 0x14
	regCentury      = 0x32
)

const (
	aUpdating = 1 << 7 // UIP
	aDivReset = 0x60   // both: the divider chain is held in reset

	bSet      = 1 << 7
	bPeriodic = 1 << 6
	bAlarm    = 1 << 5
	bUpdate   = 1 << 4
	bBinary   = 1 << 2
	b24       = 1 << 1

	cRequest = 1 << 7 // the other flags stand at B's enables

	dValid = 1 << 7

	alarmAny = 0xc0 // an alarm byte that matches everything
)

const (
	second = 1_000_000_000
	// updateTime is how long before an update UIP shows it: t_BUC, 244 µs.
	updateTime = 244_000
	periodHz   = 32768
	size       = 128
)

// Config is what an RTC needs around it.
type Config struct {
	IRQ   irq.Line // ISA line 8
	Clock clock.Clock
	// Start is the time of day, in UTC, at the moment New is called. From there
	// on the RTC counts guest time.
	Start time.Time
	// Below4G and Above4G are bytes of RAM, for the CMOS bytes that firmware reads.
	Below4G, Above4G uint64
}

// RTC is one clock. Safe for concurrent use.
//
// Flags are worked out when somebody looks; the timer runs only for those that
// interrupt and are not set yet, so a guest that does not read register C costs nothing.
type RTC struct {
	bus.Bytes
	irq   irq.Line
	clock clock.Clock
	timer clock.Timer

	mu    sync.Mutex // taken before the line's locks
	s     State
	level bool
}

// StateVersion is the version of State.
const StateVersion = 1

// State is an RTC. The time bytes of CMOS count only while the clock is set.
type State struct {
	Version uint32
	Index   uint8
	CMOS    [size]byte
	// The second, Unix time, is Offset + (guest time + Phase) / 1e9.
	Offset int64
	Phase  uint64
	Synced uint64 // guest time up to which register C is worked out
}

// New returns an RTC that runs.
func New(cfg Config) *RTC {
	r := &RTC{irq: cfg.IRQ, clock: cfg.Clock}
	r.Bytes = bus.Bytes{In: r.in, Out: r.out}
	r.timer = cfg.Clock.NewTimer(r.fire)
	now := cfg.Clock.Now()
	r.s = State{Version: StateVersion, Synced: now}
	sub := uint64(cfg.Start.Nanosecond())
	r.s.Phase = (sub + second - now%second) % second
	r.s.Offset = cfg.Start.Unix() - int64((now+r.s.Phase)/second)
	m := &r.s.CMOS
	m[regA], m[regB], m[regD] = 0x26, b24, dValid
	m[regEquipment] = 1 << 1 // FPU
	const kib, mib = 1 << 10, 1 << 20
	r.size(0x15, 2, 640)
	extended := min((max(cfg.Below4G, mib)-mib)/kib, 0xffff)
	r.size(0x17, 2, extended)
	r.size(0x30, 2, extended)
	r.size(0x34, 2, min((max(cfg.Below4G, 16*mib)-16*mib)/(64*kib), 0xffff))
	r.size(0x5b, 3, min(cfg.Above4G/(64*kib), 0xffffff))
	return r
}

func (r *RTC) size(at, n int, v uint64) {
	for i := range n {
		r.s.CMOS[at+i] = byte(v >> (8 * i))
	}
}

// Reset is the chip's reset input: interrupts off, time and memory stay.
func (r *RTC) Reset() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.s.Index = 0
	r.s.CMOS[regB] &^= bPeriodic | bAlarm | bUpdate
	r.s.CMOS[regC] = 0
	r.settle(r.clock.Now())
}

func (r *RTC) in(off uint64) byte {
	if off&1 == 0 {
		return 0xff // the index cannot be read
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.clock.Now()
	r.sync(now)
	m := &r.s.CMOS
	switch i := r.s.Index; {
	case i == regA:
		v := m[regA]
		if r.running() && (now+r.s.Phase)%second >= second-updateTime {
			v |= aUpdating
		}
		return v
	case i == regC:
		r.settle(now) // the timer may be late with a flag's request
		v := m[regC]
		m[regC] = 0
		r.settle(now)
		return v
	case isTime(i) && r.running():
		return r.encode(now)[i]
	default:
		return m[i]
	}
}

func (r *RTC) out(off uint64, v byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if off&1 == 0 {
		r.s.Index = v & (size - 1) // bit 7 masks NMIs, of which there are none
		return
	}
	now := r.clock.Now()
	r.sync(now)
	m := &r.s.CMOS
	switch i := r.s.Index; {
	case i == regC || i == regD:
	case i == regA || i == regB:
		r.writeControl(i, v, now)
	case isTime(i) && r.running():
		t := r.encode(now)
		t[i] = v
		r.setTime(t, now)
	default:
		m[i] = v
	}
	r.settle(now)
}

// writeControl writes A or B. Stopping the clock leaves the time in memory,
// starting it takes it from there; the first update after the divider's reset
// comes half a second later (MC146818 datasheet, divider control).
func (r *RTC) writeControl(i, v byte, now uint64) {
	m := &r.s.CMOS
	was := r.running()
	if was {
		r.freeze(now)
	}
	held := m[regA]&aDivReset == aDivReset
	if i == regA {
		m[regA] = v &^ aUpdating
	} else {
		if v&bSet != 0 {
			v &^= bUpdate
		}
		if was {
			// The new format is for the time that runs, not for bytes in memory.
			m[regB] = v
			r.freeze(now)
		}
		m[regB] = v
	}
	if held && m[regA]&aDivReset != aDivReset {
		r.s.Phase = (second + second/2 - now%second) % second
	}
	if !was && r.running() {
		r.setTime(*m, now)
	}
}

// running reports whether the clock counts.
func (r *RTC) running() bool {
	return r.s.CMOS[regB]&bSet == 0 && r.s.CMOS[regA]&aDivReset != aDivReset
}

// sync sets in register C what has happened since the last call.
func (r *RTC) sync(now uint64) {
	m, was := &r.s.CMOS, r.s.Synced
	if now <= was {
		return
	}
	r.s.Synced = now
	if r.running() {
		if from, to := r.unix(was), r.unix(now); to > from {
			m[regC] |= bUpdate
			if at, ok := r.nextAlarm(from); ok && at <= to {
				m[regC] |= bAlarm
			}
		}
	}
	if p := r.period(); p != 0 && clock.Ticks(now, periodHz)/p > clock.Ticks(was, periodHz)/p {
		m[regC] |= bPeriodic
	}
}

// settle drives the line and arms the timer for the next interrupt.
func (r *RTC) settle(now uint64) {
	m := &r.s.CMOS
	m[regC] &^= cRequest
	if m[regC]&m[regB]&(bPeriodic|bAlarm|bUpdate) != 0 {
		m[regC] |= cRequest
	}
	if level := m[regC]&cRequest != 0; level != r.level {
		r.level = level
		r.irq.Set(level)
	}
	if at := r.next(now); at != 0 {
		r.timer.Set(at)
	} else {
		r.timer.Stop()
	}
}

// next returns the guest time of the next flag to set among those that are
// enabled and clear, or 0.
func (r *RTC) next(now uint64) uint64 {
	m := &r.s.CMOS
	wait := m[regB] &^ m[regC]
	at := ^uint64(0)
	if p := r.period(); p != 0 && wait&bPeriodic != 0 {
		at = clock.Nanos((clock.Ticks(now, periodHz)/p+1)*p, periodHz)
	}
	if r.running() {
		s := r.unix(now)
		if wait&bUpdate != 0 {
			at = min(at, r.guestTime(s+1))
		}
		if wait&bAlarm != 0 {
			if alarm, ok := r.nextAlarm(s); ok {
				at = min(at, r.guestTime(alarm))
			}
		}
	}
	if at == ^uint64(0) {
		return 0
	}
	return at
}

func (r *RTC) fire() {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.clock.Now()
	r.sync(now)
	r.settle(now)
}

// period returns the periodic interrupt's period in 1/32768 s, or 0 (MC146818
// datasheet, table 5, for the 32.768 kHz time base).
func (r *RTC) period() uint64 {
	a := r.s.CMOS[regA]
	rate := a & 15
	if rate == 0 || a&aDivReset == aDivReset {
		return 0
	}
	if rate <= 2 {
		rate += 7
	}
	return 1 << (rate - 1)
}

// Save returns the RTC's state.
func (r *RTC) Save() State {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.clock.Now()
	r.sync(now)
	r.settle(now)
	return r.s
}

// Load replaces the RTC's state. The clock must already show the guest time to
// which the state belongs.
func (r *RTC) Load(s State) error {
	if s.Version != StateVersion {
		return fmt.Errorf("rtc: state version %d, want %d", s.Version, StateVersion)
	}
	if s.Index >= size || s.Phase >= second {
		return fmt.Errorf("rtc: impossible state: index %d, phase %d", s.Index, s.Phase)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.s = s
	r.level = s.CMOS[regC]&cRequest != 0
	r.irq.Set(r.level)
	r.settle(r.clock.Now())
	return nil
}
