package lapic

import (
	"fmt"
	"sync/atomic"

	"berth/clock"
	"berth/irq"
)

// CPUConfig is one vCPU's part.
type CPUConfig struct {
	ID  uint32 // APIC ID, unique
	CPU CPU
	// TSCTime returns the guest time in ns at which this vCPU's TSC will read
	// tsc, or any time past if it already has.
	TSCTime func(tsc uint64) (ns uint64)
}

// Config is what the local APICs need around them.
type Config struct {
	Clock clock.Clock
	// EOI tells the I/O APIC of the end of a level-triggered interrupt.
	EOI func(vector uint8)
	// Ended, if not nil, tells of the end of an edge-triggered one, with no APIC's lock held.
	Ended func(vector uint8)
	// INTA acknowledges the 8259's interrupt and returns its vector.
	INTA func() (vector uint8)
	CPUs []CPUConfig // the first is the bootstrap processor
}

// Set is all local APICs of a machine and routes interrupts between them. Its
// members do not change. Safe for concurrent use.
type Set struct {
	clock clock.Clock
	eoi   func(vector uint8)
	ended func(vector uint8)
	inta  func() uint8
	all   []*LAPIC
	byID  map[uint32]*LAPIC
	turn  atomic.Uint32 // where the search for the lowest priority starts
}

// New returns the local APICs as after power-on.
func New(cfg Config) (*Set, error) {
	s := &Set{clock: cfg.Clock, eoi: cfg.EOI, ended: cfg.Ended, inta: cfg.INTA, byID: make(map[uint32]*LAPIC)}
	for _, c := range cfg.CPUs {
		if s.byID[c.ID] != nil || c.ID == broadcast32 {
			return nil, fmt.Errorf("lapic: APIC ID %d cannot be used", c.ID)
		}
		l := &LAPIC{set: s, id: c.ID, cpu: c.CPU, tsc: c.TSCTime}
		l.timer = cfg.Clock.NewTimer(l.fire)
		s.all = append(s.all, l)
		s.byID[c.ID] = l
	}
	s.Reset()
	return s, nil
}

// Reset puts all into their state after power-on.
func (s *Set) Reset() {
	for _, l := range s.all {
		l.powerOn()
	}
}

// APIC returns the n-th vCPU's.
func (s *Set) APIC(n int) *LAPIC { return s.all[n] }

// SetINTR drives every LINT0 with the 8259's output.
func (s *Set) SetINTR(level bool) {
	for _, l := range s.all {
		l.setINTR(level)
	}
}

// NMI pulses every LINT1.
func (s *Set) NMI() {
	for _, l := range s.all {
		l.LINT1()
	}
}

const (
	broadcast8  = 0xff
	broadcast32 = 0xffffffff
)

// message is an interrupt on its way.
type message struct {
	dest      uint32
	vector    uint8
	mode      uint8
	logical   bool
	broadcast bool
	level     bool // trigger mode
	lowest    bool // to one of the destinations only
}

// Deliver sends a message-signalled interrupt. A destination of 0xff is all.
func (s *Set) Deliver(m irq.MSI) {
	s.route(message{
		dest:      uint32(m.Dest()),
		vector:    m.Vector(),
		mode:      m.DeliveryMode(),
		logical:   m.Logical(),
		broadcast: m.Dest() == broadcast8,
		level:     m.LevelTriggered(),
		lowest:    m.DeliveryMode() == modeLowest || m.Addr&(1<<3) != 0, // redirection hint
	})
}

func (s *Set) route(m message) {
	if !m.logical && !m.broadcast {
		if l := s.byID[m.dest]; l != nil {
			l.receive(m)
		}
		return
	}
	if m.lowest {
		if l := s.lowest(m); l != nil {
			l.receive(m)
		}
		return
	}
	for _, l := range s.all {
		if l.matches(m) {
			l.receive(m)
		}
	}
}

// lowest picks the enabled destination of the lowest priority, in turn among equals.
func (s *Set) lowest(m message) *LAPIC {
	var best *LAPIC
	var least uint8
	start := int(s.turn.Add(1) % uint32(len(s.all)))
	for i := range s.all {
		l := s.all[(start+i)%len(s.all)]
		if !l.matches(m) {
			continue
		}
		if p, ok := l.priority(); ok && (best == nil || p < least) {
			best, least = l, p
		}
	}
	return best
}

func (l *LAPIC) priority() (uint8, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ppr(), l.enabled()
}

// matches reports whether l is a destination of m, which is logical or a
// broadcast (SDM §11.6.2.2, §11.12.10.2).
func (l *LAPIC) matches(m message) bool {
	base := l.base.Load()
	if base&baseEnable == 0 {
		return false
	}
	if m.broadcast {
		return true
	}
	w := l.logical.Load()
	ldr, dfr := uint32(w>>32), uint32(w)
	if base&baseX2 != 0 {
		return m.dest>>16 == ldr>>16 && m.dest&ldr&0xffff != 0
	}
	if m.dest > 0xff {
		return false
	}
	ldr >>= 24
	if dfr == flatModel {
		return m.dest&ldr != 0
	}
	return (m.dest>>4 == ldr>>4 || m.dest>>4 == 15) && m.dest&ldr&15 != 0
}

// receive takes a message that is for l.
func (l *LAPIC) receive(m message) {
	if l.base.Load()&baseEnable == 0 {
		return
	}
	switch m.mode {
	case modeFixed, modeLowest:
		l.accept(m.vector, m.level)
	case modeNMI:
		l.cpu.NMI()
	case modeINIT:
		l.init()
	case modeStartUp:
		l.cpu.SIPI(m.vector)
	case modeExtINT:
		l.mu.Lock()
		l.ext = true
		l.leave()
	}
}

// Interrupt command register (SDM §11.6.1):
//
//	19..18 shorthand | 15 trigger (1 level) | 14 assert | 12 delivery status (read-only)
//	| 11 logical | 10..8 delivery mode | 7..0 vector
const (
	icrKept     = 0xccfff
	icrStatus   = 1 << 12
	icrAssert   = 1 << 14
	icrLevel    = 1 << 15
	shortSelf   = 1
	shortAll    = 2
	shortOthers = 3
)

// send carries out a write of ICR's lower half; dest and all are its destination.
func (l *LAPIC) send(icr, dest uint32, all bool) {
	m := message{
		dest: dest, broadcast: all,
		vector:  uint8(icr),
		mode:    uint8(icr >> 8 & 7),
		logical: icr&(1<<11) != 0,
	}
	m.lowest = m.mode == modeLowest
	if m.mode <= modeLowest && m.vector < lowestUser {
		l.mu.Lock()
		l.fail(errSendVector)
		l.leave()
		return
	}
	if m.mode == modeINIT && icr&(icrLevel|icrAssert) == icrLevel || m.mode == modeExtINT {
		return // INIT's de-assertion does nothing today; ExtINT cannot be sent
	}
	switch icr >> 18 & 3 {
	case shortSelf:
		l.receive(m)
	case shortAll, shortOthers:
		for _, t := range l.set.all {
			if t != l || icr>>18&3 == shortAll {
				t.receive(m)
			}
		}
	default:
		l.set.route(m)
	}
}
