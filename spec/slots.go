package spec

import (
	"fmt"
	"strconv"
)

// MaxSlots is the most slots for hot-plug of a board.
const MaxSlots = 16

// unsetSlots has Complete decide.
const unsetSlots = -1

// defaultSlots is what a board that has slots is given unless told otherwise.
const defaultSlots = 4

// Slots is a number of slots for hot-plug.
type Slots int

// Set reads a number.
func (s *Slots) Set(text string) error {
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 || n > MaxSlots {
		return fmt.Errorf("%q: 0 to %d are possible", text, MaxSlots)
	}
	*s = Slots(n)
	return nil
}

// slotted reports whether the machine, which is completed, is on a board that has
// slots: a q35 that is not the first.
func (m *Machine) slotted() bool { return !m.small() && m.Board != "q35-1" }

func (m *Machine) completeSlots() {
	switch {
	case m.HotplugSlots != unsetSlots:
	case m.slotted():
		m.HotplugSlots = defaultSlots
	default:
		m.HotplugSlots = 0
	}
}

func (m *Machine) checkSlots() error {
	switch {
	case m.HotplugSlots < 0 || m.HotplugSlots > MaxSlots:
		return fmt.Errorf("%d slots for hot-plug: 0 to %d are possible", m.HotplugSlots, MaxSlots)
	case m.HotplugSlots > 0 && m.small():
		return fmt.Errorf("machine %s has no slots for hot-plug: use --machine q35, or --hotplug-slots 0", m.Board)
	case m.HotplugSlots > 0 && !m.slotted():
		return fmt.Errorf("machine %s has no slots for hot-plug: use q35-2, or --hotplug-slots 0", m.Board)
	}
	return nil
}
