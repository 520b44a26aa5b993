package acceltest

import (
	"errors"
	"testing"

	"berth/irq"
)

// interrupts returns a guest that waits for interrupts with all its handlers set up.
func (suite Suite) interrupts(t *testing.T) *Guest {
	g := suite.NewGuest(t, "interrupts", 1)
	g.Start()
	g.Word(0x6000, 1)
	return g
}

func (suite Suite) ioapic(t *testing.T) {
	g := suite.interrupts(t)
	chip := g.VM.IRQChip()
	for range 3 { // edges
		chip.SetGSI(4, true)
		g.Expect(0x44)
		chip.SetGSI(4, false)
	}
	// A level that stays comes again after EOI; the third delivery lowers it.
	n := 0
	log := g.Ports.Hook
	g.Ports.Hook = func(a Access) {
		if n++; n == 3 {
			chip.SetGSI(5, false)
		}
		log(a)
	}
	chip.SetGSI(5, true)
	g.Expect(0x45, 0x45, 0x45)
	chip.SetGSI(4, true)
	// One more may have been accepted before the level fell.
	if v := g.Logged(); v == 0x45 {
		g.Expect(0x44)
	} else if v != 0x44 {
		t.Fatalf("log entry 0x%x, want 0x44", v)
	}
	g.Kick()
	g.Stop()
}

func (suite Suite) pic(t *testing.T) {
	g := suite.interrupts(t)
	g.VM.IRQChip().SetGSI(3, true)
	g.Expect(0x4b)
	g.VM.IRQChip().SetGSI(3, false)
	g.Kick()
	g.Stop()
}

// timerPin raises GSI 0 as the in-kernel PIT does.
func (suite Suite) timerPin(t *testing.T) {
	g := suite.interrupts(t)
	g.VM.IRQChip().SetGSI(0, true)
	g.Expect(0x42)
	g.VM.IRQChip().SetGSI(0, false)
	g.Kick()
	g.Stop()
}

func message(vector uint32) irq.MSI { return irq.MSI{Addr: 0xfee00000, Data: vector} }

func (suite Suite) messages(t *testing.T) {
	g := suite.interrupts(t)
	chip := g.VM.IRQChip()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(chip.SignalMSI(message(0x46)))
	g.Expect(0x46)
	a, err := chip.NewMSISource()
	must(err)
	b, err := chip.NewMSISource()
	must(err)
	a.Trigger() // not programmed: nothing
	must(a.Program(message(0x47), false))
	must(b.Program(message(0x48), false))
	a.Trigger()
	g.Expect(0x47)
	b.Trigger()
	g.Expect(0x48)
	// Masked: nothing comes, then or after unmasking, and the pins still lead where they did.
	must(a.Program(message(0x47), true))
	a.Trigger()
	must(a.Program(message(0x49), false))
	chip.SetGSI(4, true)
	g.Expect(0x44)
	chip.SetGSI(4, false)
	a.Trigger()
	g.Expect(0x49)
	must(b.Close())
	must(b.Close())
	b.Trigger()
	if b.Program(message(0x48), false) == nil {
		t.Error("a closed source can be programmed")
	}
	c, err := chip.NewMSISource() // takes b's GSI again
	must(err)
	must(c.Program(message(0x4a), false))
	c.Trigger()
	g.Expect(0x4a)
	a.Trigger()
	g.Expect(0x49)
	g.Kick()
	g.Stop()
	must(errors.Join(a.Close(), c.Close()))
}
