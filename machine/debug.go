package machine

import (
	"errors"

	"berth/accel"
	"berth/x86"
)

// Plan is what a vCPU does while a debugger lets the VM run.
type Plan uint8

// The plans.
const (
	PlanRun  Plan = iota
	PlanStep      // one instruction, interrupts held back meanwhile
	PlanStay      // halted
)

// debugging is what a debugger wants of the vCPUs. It is Run's goroutine's own.
type debugging struct {
	want  x86.Debug
	plans []Plan // by vCPU; nil: all run
}

// errNoDebugger says that nothing can be debugged.
var errNoDebugger = errors.New("this engine cannot be debugged")

// SetState replaces the state of a vCPU of a VM that is halted. Call it within Do.
func (m *Machine) SetState(id int, s *x86.State) error {
	return m.onCPU(id, func(v accel.VCPU) error { return v.SetState(s) })
}

// DebugLimits says what Debug can be asked for. Call it within Do.
func (m *Machine) DebugLimits() (l x86.DebugLimits, err error) {
	err = m.onCPU(0, func(v accel.VCPU) error {
		d, ok := v.(accel.Debugger)
		if !ok {
			return errNoDebugger
		}
		l = d.DebugLimits()
		return nil
	})
	return l, err
}

// SetDebug replaces what the vCPUs stop for, of which the VM hears by NoticeDebug and
// is in status Debug then. It changes nothing if the engine cannot do it. Steps are
// DebugContinue's. Call it within Do, of a VM that is halted unless d is empty.
func (m *Machine) SetDebug(d x86.Debug) error {
	err := m.tellDebug(d, nil)
	if err != nil {
		return errors.Join(err, m.tellDebug(m.debug.want, nil))
	}
	m.debug.want = d
	return nil
}

// tellDebug tells the vCPUs.
func (m *Machine) tellDebug(d x86.Debug, plans []Plan) error {
	for i, c := range m.vcpus {
		own := d
		own.Step = plans != nil && plans[i] == PlanStep
		own.Hold = own.Step
		if err := c.do(func(v accel.VCPU) error {
			d, ok := v.(accel.Debugger)
			if !ok {
				return errNoDebugger
			}
			return d.SetDebug(own)
		}); err != nil {
			return err
		}
	}
	return nil
}

// DebugContinue is Continue with a plan for each vCPU, which holds until the VM
// halts. Call it within Do.
func (m *Machine) DebugContinue(plans []Plan) error {
	if err := m.mayContinue(); err != nil {
		return err
	}
	if err := m.halt(Debug); err != nil {
		return err
	}
	m.settleDebug(func(report) {}) // they are met again
	if err := m.tellDebug(m.debug.want, plans); err != nil {
		return err
	}
	m.debug.plans = plans
	return m.goOn()
}

// endPlans has all vCPUs run, and none step, when the VM goes on.
func (m *Machine) endPlans() error {
	if m.debug.plans == nil {
		return nil
	}
	m.debug.plans = nil
	return m.tellDebug(m.debug.want, nil)
}

// stoppedForDebugger acts on a vCPU's stop.
func (m *Machine) stoppedForDebugger(r report) error {
	if !m.debug.want.Any() && m.debug.plans == nil { // the debugger is gone since
		if m.status == Running {
			m.vcpus[r.id].ask(running)
		}
		return nil
	}
	tell := func(r report) { m.notify(Notice{Kind: NoticeDebug, CPU: r.id, Stop: r.exit.Stop}) }
	tell(r)
	err := m.halt(Debug)
	m.settleDebug(tell)
	return err
}

// settleDebug takes the stops that other vCPUs reported while the VM halted, lest they
// halt it when it has gone on. No vCPU runs.
func (m *Machine) settleDebug(f func(report)) {
	for range len(m.reports) {
		if r := <-m.reports; r.err == nil && r.exit.Reason == accel.ExitDebug {
			f(r)
		} else {
			m.reports <- r // there is room: it has just been taken
		}
	}
}
