package machine

import (
	"fmt"
	"slices"

	"berth/accel"
	"berth/irq"
	"berth/x86"
)

// initialState is the machine as the accelerator made it, before any
// instruction: what a reset returns to.
type initialState struct {
	chip  irq.ChipState
	vcpus []x86.State
}

func (m *Machine) saveInitial() error {
	var err error
	if m.initial.chip, err = m.board.chips.SaveChip(); err != nil {
		return fmt.Errorf("saving the interrupt controllers: %w", err)
	}
	m.initial.vcpus = make([]x86.State, len(m.vcpus))
	for i, c := range m.vcpus {
		if err := c.do(func(v accel.VCPU) error { return v.GetState(&m.initial.vcpus[i]) }); err != nil {
			return fmt.Errorf("state of vCPU %d: %w", i, err)
		}
	}
	return nil
}

// reset puts every device, chip and vCPU back as they were at power-on and
// boots again in cleared RAM. The vCPUs are paused, and so is guest time until
// their counters are set.
func (m *Machine) reset() error {
	m.dropEvents()
	if err := m.removeAsked(); err != nil {
		return err
	}
	if m.status == Running {
		m.board.clock.Pause()
		defer m.board.clock.Resume()
	}
	if err := m.board.reset(); err != nil {
		return err
	}
	if err := m.board.chips.LoadChip(m.initial.chip); err != nil {
		return fmt.Errorf("interrupt controllers: %w", err)
	}
	for i, c := range m.vcpus {
		if err := c.do(func(v accel.VCPU) error { return v.SetState(&m.initial.vcpus[i]) }); err != nil {
			return fmt.Errorf("vCPU %d: %w", i, err)
		}
	}
	return m.boot()
}

// dropEvents forgets what the guest asked for before the reset that is under way.
func (m *Machine) dropEvents() {
	for len(m.events) > 0 {
		<-m.events
	}
	for len(m.reports) > 0 {
		<-m.reports
	}
}

// boot loads the kernel and points the first vCPU at it; the others wait for SIPI.
func (m *Machine) boot() error {
	entry, err := m.board.load(m.cfg)
	if err != nil {
		return err
	}
	m.log.Debug("loaded", "protocol", entry.Protocol, "image", entry.Image)
	for _, p := range entry.Placed {
		m.log.Debug("placed", "at", p.String())
	}
	for i, c := range m.vcpus {
		first := entry.State
		if i > 0 {
			first = waiting(m.initial.vcpus[i], entry.State.MSRs)
		}
		if err := c.do(func(v accel.VCPU) error { return v.SetState(&first) }); err != nil {
			return fmt.Errorf("entry state of vCPU %d: %w", i, err)
		}
	}
	return nil
}

// waiting returns the first state of a vCPU that waits for SIPI: as the
// accelerator made it, but with the MTRRs that firmware would have given all
// processors alike (Intel SDM vol. 3A §12.11.8).
func waiting(s x86.State, boot []x86.MSR) x86.State {
	s.MSRs = slices.Clone(s.MSRs)
	for _, m := range boot {
		if m.Index != x86.MSRMTRRDefType {
			continue
		}
		for i := range s.MSRs {
			if s.MSRs[i].Index == m.Index {
				s.MSRs[i].Value = m.Value
			}
		}
	}
	return s
}
