package lapic

import (
	"fmt"

	"berth/irq"
)

// Save returns the state of all local APICs, by vCPU.
func (s *Set) Save() []irq.LAPICState {
	states := make([]irq.LAPICState, len(s.all))
	for i, l := range s.all {
		l.mu.Lock()
		states[i] = l.irqState()
		l.mu.Unlock()
	}
	return states
}

// Load replaces the state of all. The clock and the TSCs must already show the
// time to which the states belong; the 8259 is loaded separately.
func (s *Set) Load(states []irq.LAPICState) error {
	if len(states) != len(s.all) {
		return fmt.Errorf("lapic: %d states for %d vCPUs", len(states), len(s.all))
	}
	for i, l := range s.all {
		if err := l.check(&states[i]); err != nil {
			return fmt.Errorf("lapic: vCPU %d: %w", i, err)
		}
	}
	for i, l := range s.all {
		l.load(&states[i])
	}
	return nil
}

func (l *LAPIC) check(s *irq.LAPICState) error {
	id := l.id
	if s.Base&baseX2 == 0 {
		id <<= 24
	}
	if s.Base&baseReserved != 0 || s.Base&(baseX2|baseEnable) == baseX2 {
		return fmt.Errorf("base 0x%x is impossible", s.Base)
	}
	if s.Regs[regID] != id {
		return fmt.Errorf("state of APIC ID register 0x%x, want 0x%x", s.Regs[regID], id)
	}
	return nil
}

func (l *LAPIC) load(s *irq.LAPICState) {
	l.mu.Lock()
	defer l.leave()
	l.disarm()
	l.base.Store(s.Base)
	l.r, l.tscDue, l.errors, l.ext = s.Regs, s.TSCDeadline, s.Errors, s.ExtINT
	l.r[regVersion] = version
	l.r[regDivide] &= 0xb
	l.publish()
	left := l.r[regCurrent]
	l.r[regCurrent] = 0
	switch {
	case l.timerMode() == timerDeadline:
		l.armDeadline()
	case left != 0:
		l.arm(l.set.clock.Now() + uint64(left)*l.divisor())
	}
}
