package machine

import (
	"errors"
	"fmt"

	"berth/accel"
	"berth/bus"
	"berth/guestmem"
	"berth/irq"
	"berth/pci"
	"berth/x86"
)

// State reads vCPU id's state between two of its instructions, whether it runs or
// not. Call it within Do.
func (m *Machine) State(id int, s *x86.State) error {
	return m.onCPU(id, func(v accel.VCPU) error { return v.GetState(s) })
}

// Translation returns what vCPU id has counted of translated code; not ok: nothing
// is translated. Call it within Do.
func (m *Machine) Translation(id int) (t accel.Translation, ok bool, err error) {
	err = m.onCPU(id, func(v accel.VCPU) error {
		if c, counts := v.(accel.TranslationCounter); counts {
			t, ok = c.Translation()
		}
		return nil
	})
	return t, ok, err
}

// Instructions returns how many instructions vCPU id ran; not ok: nobody counts.
// Call it within Do.
func (m *Machine) Instructions(id int) (n uint64, ok bool, err error) {
	err = m.onCPU(id, func(v accel.VCPU) error {
		var c accel.InstructionCounter
		if c, ok = v.(accel.InstructionCounter); ok {
			n = c.Instructions()
		}
		return nil
	})
	return n, ok, err
}

// OnCPUID calls f with a function that reads what the guest's CPUID says on the first
// vCPU. Call it within Do.
func (m *Machine) OnCPUID(f func(read func(leaf, sub uint32) [4]uint32)) error {
	return m.onCPU(0, func(v accel.VCPU) error {
		c, ok := v.(accel.CPUIDReader)
		if !ok {
			return errors.New("the accelerator does not say what its CPUs have")
		}
		f(c.CPUID)
		return nil
	})
}

func (m *Machine) onCPU(id int, f func(accel.VCPU) error) error {
	if id < 0 || id >= len(m.vcpus) {
		return fmt.Errorf("no vCPU %d", id)
	}
	return m.vcpus[id].do(f)
}

// Memory is the guest's RAM, until Close.
func (m *Machine) Memory() *guestmem.Memory { return m.board.mem }

// Ports are the guest's I/O ports as its vCPUs reach them, those of chips in the
// host's kernel left out.
func (m *Machine) Ports() accel.IO {
	ports, _ := m.board.spaces()
	return ports
}

// spaces are the machine's I/O spaces with the accelerator's own chips, if they can be reached.
func (b *board) spaces() (ports, mmio accel.IO) {
	if s, ok := b.vm.(accel.Spaces); ok {
		return s.Spaces()
	}
	return b.ports, b.mmio
}

// ReadPhysical reads guest-physical memory, RAM or devices' registers as a vCPU
// would. Where neither is, it fails.
func (m *Machine) ReadPhysical(gpa uint64, p []byte) error {
	for len(p) > 0 {
		n := uint64(len(p))
		if r := m.board.mem.Find(gpa); r != nil {
			n = min(n, r.End()-gpa)
			if err := m.board.mem.Read(gpa, p[:n]); err != nil {
				return err
			}
		} else {
			w := m.window(gpa)
			if w == nil {
				return fmt.Errorf("nothing is at 0x%x", gpa)
			}
			n = min(n, w.Base+w.Size-gpa)
			_, mmio := m.board.spaces()
			readRegisters(mmio, gpa, p[:n])
		}
		gpa, p = gpa+n, p[n:]
	}
	return nil
}

// readRegisters reads in pieces that registers know: aligned, of 4 bytes at most.
func readRegisters(io accel.IO, addr uint64, p []byte) {
	for len(p) > 0 {
		n := 4
		for uint64(n) > uint64(len(p)) || addr%uint64(n) != 0 {
			n /= 2
		}
		io.Read(addr, p[:n])
		addr, p = addr+uint64(n), p[n:]
	}
}

// window is what decodes an address outside RAM, or nil.
func (m *Machine) window(gpa uint64) *Window {
	for _, w := range m.MMIO() {
		if gpa-w.Base < w.Size {
			return &w
		}
	}
	return nil
}

// Window is a run of addresses that a device decodes.
type Window struct {
	Base, Size uint64
	Name       string
}

// MMIO lists what decodes guest-physical memory beside RAM, by address.
func (m *Machine) MMIO() []Window { return windows(m.board.mmio, m.board.chipWindows(false)) }

// PortWindows lists what decodes I/O ports.
func (m *Machine) PortWindows() []Window { return windows(m.board.ports, m.board.chipWindows(true)) }

func (b *board) chipWindows(ports bool) []bus.Window {
	s, ok := b.vm.(accel.Spaces)
	if !ok {
		return nil
	}
	return s.ChipWindows(ports)
}

// windows merges those of the machine with those of the accelerator, which come first where both are.
func windows(s *bus.Space, chips []bus.Window) (list []Window) {
	for _, w := range s.Windows() {
		for len(chips) > 0 && chips[0].Base <= w.Base {
			list = append(list, Window{chips[0].Base, chips[0].Size, chips[0].Name})
			chips = chips[1:]
		}
		list = append(list, Window{w.Base, w.Size, w.Name})
	}
	for _, w := range chips {
		list = append(list, Window{w.Base, w.Size, w.Name})
	}
	return list
}

// Chips reads the interrupt controllers; vCPUs that run halt for it. Call it within Do.
func (m *Machine) Chips() (irq.ChipState, error) {
	if m.status == Running && m.holdVCPUs() {
		defer m.askAll(running)
	}
	return m.board.chips.SaveChip()
}

// Interrupts returns how often each interrupt line rose that a device drives: of
// chips in the host's kernel nobody knows. Not ok: nobody counts. Safe from any goroutine.
func (m *Machine) Interrupts() (n [irq.Lines]uint64, ok bool) {
	c, ok := m.board.vm.(accel.InterruptCounter)
	if ok {
		n = c.Interrupts()
	}
	return n, ok
}

// Functions lists the PCI functions; a board without PCI has none.
func (m *Machine) Functions() []*pci.Function {
	if p, ok := m.board.platform.(*q35); ok {
		return p.root.Functions()
	}
	return nil
}
