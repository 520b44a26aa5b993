package acpi

import "fmt"

// Hot-plug as package pcihp's registers have it: a bit for each slot in each.
const (
	slotPorts   = 12
	slotPlugged = "SLTP" // read: something was plugged in
	slotWanted  = "SLTW" // read: somebody wants it back
	slotEject   = "SLTE" // written: the guest has let go
	notifyCheck = 1      // ACPI §5.6.6: device check
	notifyEject = 3      // eject request
	slotMethod  = "_E01" // package pcihp's Event, edge-triggered
)

func (s Slot) bridge() string { return fmt.Sprintf("RP%02X", s.Port) }

// slots are the registers, and the root ports with what may be plugged in.
func (c *Config) slots() []byte {
	terms := portRegisters("SLTR", c.SlotPort, slotPlugged, slotWanted, slotEject)
	for i, s := range c.Slots {
		terms = join(terms, device(s.bridge(),
			name("_ADR", integer(uint64(s.Port>>3)<<16|uint64(s.Port&7))),
			device("S00",
				name("_ADR", integer(0)),
				name("_SUN", integer(uint64(s.Number))),
				method("_EJ0", 1, store(integer(1<<i), path(`\_SB.PCI0.`+slotEject))))))
	}
	return terms
}

// slotEvent asks the registers what is new and says it to the devices.
func (c *Config) slotEvent() []byte {
	if len(c.Slots) == 0 {
		return nil
	}
	terms := [][]byte{
		store(path(`\_SB.PCI0.`+slotPlugged), local(0)),
		store(path(`\_SB.PCI0.`+slotWanted), local(1)),
	}
	for i, s := range c.Slots {
		object, bit := `\_SB.PCI0.`+s.bridge()+".S00", integer(1<<i)
		terms = append(terms,
			when(and(local(0), bit, integer(0)), notify(object, notifyCheck)),
			when(and(local(1), bit, integer(0)), notify(object, notifyEject)))
	}
	return scope(`\_GPE`, method(slotMethod, 0, terms...))
}
