// Package pm is ACPI's fixed hardware as the ICH9 has it: power management events, timer, sleep and reset.
package pm

import (
	"fmt"
	"sync"

	"berth/bus"
	"berth/clock"
	"berth/irq"
)

// Ports. The block's registers lie at offsets from Base (ICH9 datasheet §13.8.3).
const (
	Base = 0x600
	Size = 0x80

	APMBase, APMSize = 0xb2, 2

	Event    = 0x00 // PM1a_EVT: status, enable
	Control  = 0x04 // PM1a_CNT
	Timer    = 0x08 // PM_TMR
	GPE0     = 0x20 // status, then enable
	GPE0Size = 16
	smiEn    = 0x30
)

// Values that the guest writes.
const (
	ACPIEnable  = 0x02 // to APMBase: SCI_EN on
	ACPIDisable = 0x03
	SleepS5     = 0 // SLP_TYP of soft off
	ResetValue  = 0x06
)

// Hz is the power management timer's frequency.
const Hz = 3579545

// PM1 status and enable (ACPI 6.5 §4.8.4.1).
const (
	eventTimer  = 1 << 0
	eventGlobal = 1 << 5
	eventPower  = 1 << 8
	eventSleep  = 1 << 9
	eventRTC    = 1 << 10
	eventWake   = 1 << 15
	eventsAll   = eventTimer | eventGlobal | eventPower | eventSleep | eventRTC
)

// PM1 control (ACPI 6.5 §4.8.4.2).
const (
	controlSCI   = 1 << 0
	controlBM    = 1 << 1
	controlType  = 7 << 10
	controlSleep = 1 << 13
	controlKept  = controlSCI | controlBM | controlType
)

// Config is what the block needs around it. PowerOff and Reset are called with
// no lock held, on the vCPU's thread, and must not block.
type Config struct {
	SCI   irq.Line // level
	Clock clock.Clock
	// ACPIOnly: the machine is always in ACPI mode; SCI_EN is 1 and stays it.
	ACPIOnly bool
	// Timer24 makes the timer 24 bits wide instead of 32.
	Timer24  bool
	PowerOff func()
	Reset    func()
}

// PM is the block. Safe for concurrent use.
type PM struct {
	cfg   Config
	timer clock.Timer

	mu    sync.Mutex // taken before the line's locks
	s     State
	level bool
}

// StateVersion is the version of State.
const StateVersion = 1

// State is the block's registers.
type State struct {
	Version                 uint32
	Status, Enable, Control uint16
	GPEStatus, GPEEnable    uint64
	SMIEnable               uint32
	APM                     [2]uint8
	ResetControl            uint8
	Toggle                  uint64 // timer tick, unwrapped, at which TMR_STS is set next
}

// New returns the block as after reset.
func New(cfg Config) *PM {
	p := &PM{cfg: cfg}
	p.timer = cfg.Clock.NewTimer(p.fire)
	p.Reset()
	return p
}

// Reset puts the registers into their state after the machine's reset.
func (p *PM) Reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.s = State{Version: StateVersion, Toggle: p.nextToggle()}
	if p.cfg.ACPIOnly {
		p.s.Control = controlSCI
	}
	p.settle()
}

// PowerButton presses it: the guest gets an SCI if it asked for one.
func (p *PM) PowerButton() { p.raise(eventPower, 0) }

// RaiseGPE sets general-purpose event n, 0-63.
func (p *PM) RaiseGPE(n uint) { p.raise(0, 1<<(n&63)) }

func (p *PM) raise(event uint16, gpe uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.s.Status |= event
	p.s.GPEStatus |= gpe
	p.settle()
}

func (p *PM) ticks() uint64 { return clock.Ticks(p.cfg.Clock.Now(), Hz) }

// half is how many ticks lie between two changes of the timer's highest bit.
func (p *PM) half() uint64 {
	if p.cfg.Timer24 {
		return 1 << 23
	}
	return 1 << 31
}

func (p *PM) nextToggle() uint64 { return (p.ticks()/p.half() + 1) * p.half() }

// sync sets the timer's status if its highest bit has changed.
func (p *PM) sync() {
	if p.ticks() >= p.s.Toggle {
		p.s.Status |= eventTimer
	}
}

// settle drives the SCI and arms the timer if it is to interrupt.
func (p *PM) settle() {
	p.sync()
	s := &p.s
	pending := s.Status&s.Enable&eventsAll != 0 || s.GPEStatus&s.GPEEnable != 0
	if level := pending && s.Control&controlSCI != 0; level != p.level {
		p.level = level
		p.cfg.SCI.Set(level)
	}
	if s.Enable&eventTimer != 0 && s.Status&eventTimer == 0 {
		p.timer.Set(clock.Nanos(s.Toggle, Hz))
	} else {
		p.timer.Stop()
	}
}

func (p *PM) fire() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.settle()
}

// Read implements bus.Handler for the block at Base.
func (p *PM) Read(off uint64, b []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sync()
	count := p.ticks()
	if p.cfg.Timer24 {
		count &= 1<<24 - 1
	}
	for i := range b {
		b[i] = p.get(off+uint64(i), uint32(count))
	}
}

func (p *PM) get(off uint64, count uint32) byte {
	s := &p.s
	switch {
	case off < Event+2:
		return byte(s.Status >> (off & 1 * 8))
	case off < Event+4:
		return byte(s.Enable >> (off & 1 * 8))
	case off < Control+2:
		return byte(s.Control >> (off & 1 * 8))
	case off >= Timer && off < Timer+4:
		return byte(count >> (off & 3 * 8))
	case off >= GPE0 && off < GPE0+8:
		return byte(s.GPEStatus >> (off & 7 * 8))
	case off >= GPE0+8 && off < GPE0+16:
		return byte(s.GPEEnable >> (off & 7 * 8))
	case off >= smiEn && off < smiEn+4:
		return byte(s.SMIEnable >> (off & 3 * 8))
	}
	return 0
}

// Write implements bus.Handler for the block at Base.
func (p *PM) Write(off uint64, b []byte) {
	if p.write(off, b) {
		p.cfg.PowerOff()
	}
}

// write reports whether the machine is to be switched off.
func (p *PM) write(off uint64, b []byte) (off5 bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sync()
	for i, v := range b {
		off5 = p.put(off+uint64(i), v) || off5
	}
	p.settle()
	return off5
}

// put writes one byte. The registers' bits are independent but for sleep enable
// and type, which share a byte.
func (p *PM) put(off uint64, v byte) (powerOff bool) {
	s := &p.s
	switch {
	case off < Event+2:
		s.Status &^= uint16(v) << (off & 1 * 8)
		if off == Event && v&eventTimer != 0 {
			s.Toggle = p.nextToggle()
		}
	case off < Event+4:
		s.Enable = setByte(s.Enable, off&1, v) & eventsAll
	case off < Control+2:
		powerOff = off == Control+1 && v&(controlSleep>>8) != 0 && v&(controlType>>8) == SleepS5<<2
		s.Control = setByte(s.Control, off&1, v) & controlKept
		if p.cfg.ACPIOnly {
			s.Control |= controlSCI
		}
	case off >= GPE0 && off < GPE0+8:
		s.GPEStatus &^= uint64(v) << (off & 7 * 8)
	case off >= GPE0+8 && off < GPE0+16:
		s.GPEEnable = setByte(s.GPEEnable, off&7, v)
	case off >= smiEn && off < smiEn+4:
		s.SMIEnable = setByte(s.SMIEnable, off&3, v)
	}
	return powerOff
}

func setByte[T uint16 | uint32 | uint64](reg T, i uint64, v byte) T {
	return reg&^(0xff<<(i*8)) | T(v)<<(i*8)
}

// APM is the window of the two ports at APMBase: the SMI command, by which
// firmware's tables switch ACPI mode on and off, and a scratch byte.
func (p *PM) APM() bus.Handler {
	return bus.Bytes{
		In: func(off uint64) byte {
			p.mu.Lock()
			defer p.mu.Unlock()
			return p.s.APM[off&1]
		},
		Out: func(off uint64, v byte) {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.s.APM[off&1] = v
			if off&1 == 0 && !p.cfg.ACPIOnly {
				switch v {
				case ACPIEnable:
					p.s.Control |= controlSCI
				case ACPIDisable:
					p.s.Control &^= controlSCI
				}
			}
			p.settle()
		},
	}
}

// ResetControl is the window of the reset control register, port 0xcf9 (ICH9
// datasheet §13.7.5): bit 2 resets, bits 1 and 3 say how thoroughly. The port is
// inside PCI's CONFIG_ADDRESS, so package pci hands its accesses on.
func (p *PM) ResetControl() bus.Handler {
	return bus.Bytes{
		In: func(uint64) byte {
			p.mu.Lock()
			defer p.mu.Unlock()
			return p.s.ResetControl
		},
		Out: func(_ uint64, v byte) {
			p.mu.Lock()
			p.s.ResetControl = v & 0x0a
			p.mu.Unlock()
			if v&4 != 0 {
				p.cfg.Reset()
			}
		},
	}
}

// Save returns the block's state.
func (p *PM) Save() State {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sync()
	return p.s
}

// Load replaces the block's state and drives the SCI accordingly. The clock must
// already show the guest time to which the state belongs.
func (p *PM) Load(s State) error {
	if s.Version != StateVersion {
		return fmt.Errorf("pm: state version %d, want %d", s.Version, StateVersion)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.s = s
	p.cfg.SCI.Set(false)
	p.level = false
	p.settle()
	return nil
}
