package pci

import "berth/irq"

// Route says which GSI one interrupt pin of one device on bus 0 drives.
type Route struct {
	Slot uint8 // device number
	Pin  uint8 // 0 is INTA#
	GSI  uint32
}

// pirqGSI is the IOAPIC input of PIRQA#; PIRQH# is 23 (ICH9 §13.1.17 and on).
const pirqGSI = 16

// INTxGSI returns the GSI of an interrupt pin (0 is INTA#) on bus 0: devices 0
// to 24 rotate over PIRQE-H, 25 to 31 are wired to PIRQA-D, as on QEMU's q35
// and as SeaBIOS assumes.
func INTxGSI(slot, pin uint8) uint32 {
	if slot > 24 {
		return pirqGSI + uint32(pin&3)
	}
	return pirqGSI + 4 + uint32((slot+pin)&3)
}

// Routes lists every pin of bus 0, for ACPI's _PRT.
func Routes() []Route {
	var t []Route
	for slot := range uint8(32) {
		for pin := range uint8(4) {
			t = append(t, Route{slot, pin, INTxGSI(slot, pin)})
		}
	}
	return t
}

// pirq is one of PIRQA-H#: it drives its IOAPIC input always, and the ISA
// interrupt that the LPC bridge's routing register names when that is enabled.
type pirq struct {
	level bool
	apic  irq.Line
	isa   [16]irq.Line // nil where a PIRQ cannot go
	route uint8        // routing register: bit 7 off, bits 3-0 the ISA interrupt
}

// Set drives the PIRQ; irq.Shared calls it under its own lock.
func (r *RootComplex) setPIRQ(n int, level bool) {
	r.pirqMu.Lock()
	defer r.pirqMu.Unlock()
	p := &r.pirqs[n]
	p.level = level
	p.apic.Set(level)
	if l := p.isaLine(); l != nil {
		l.Set(level)
	}
}

func (p *pirq) isaLine() irq.Line {
	if p.route&0x80 != 0 {
		return nil
	}
	return p.isa[p.route&15]
}

// routePIRQ moves PIRQ n to what its routing register now says.
func (r *RootComplex) routePIRQ(n int, route uint8) {
	r.pirqMu.Lock()
	defer r.pirqMu.Unlock()
	p := &r.pirqs[n]
	if l := p.isaLine(); l != nil {
		l.Set(false)
	}
	p.route = route
	if l := p.isaLine(); l != nil {
		l.Set(p.level)
	}
}

// isaRoutable are the ISA interrupts that a PIRQ can be routed to: not the
// timer, keyboard, cascade, RTC and FPU.
const isaRoutable = 1<<3 | 1<<4 | 1<<5 | 1<<6 | 1<<7 | 1<<9 | 1<<10 | 1<<11 | 1<<12 | 1<<14 | 1<<15

func (r *RootComplex) wirePIRQs() {
	for n := range r.pirqs {
		p := &r.pirqs[n]
		p.apic, p.route = r.cfg.Line(pirqGSI+uint32(n)), 0x80
		for i := range p.isa {
			if isaRoutable>>i&1 != 0 {
				p.isa[i] = r.cfg.Line(uint32(i))
			}
		}
		r.shared[n] = irq.NewShared(irq.LineFunc(func(l bool) { r.setPIRQ(n, l) }))
	}
}
