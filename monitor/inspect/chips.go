package inspect

import (
	"fmt"
	"io"
	"math/bits"

	"berth/irq"
)

// Indices of a local APIC's registers (Intel SDM vol. 3A table 11-1).
const (
	apicID         = 0x02
	apicTPR        = 0x08
	apicAPR        = 0x09
	apicPPR        = 0x0a
	apicLDR        = 0x0d
	apicDFR        = 0x0e
	apicSPIV       = 0x0f
	apicISR        = 0x10
	apicTMR        = 0x18
	apicIRR        = 0x20
	apicESR        = 0x28
	apicICR        = 0x30
	apicICR2       = 0x31
	apicTimer      = 0x32
	apicThermal    = 0x33
	apicCounter    = 0x34
	apicLINT0      = 0x35
	apicLINT1      = 0x36
	apicError      = 0x37
	apicInitial    = 0x38
	apicCurrent    = 0x39
	apicDivide     = 0x3e
	apicX2Enabled  = 1 << 10 // in IA32_APIC_BASE
	deliveryNMI    = 4
	timerTSC       = 1 << 18
	timerPeriodic  = 1 << 17
	entryMasked    = 1 << 16
	entryLevel     = 1 << 15
	entryRemoteIRR = 1 << 14
	entryLow       = 1 << 13
	entryPending   = 1 << 12
	entryLogical   = 1 << 11
)

func choose(on bool, a, b string) string {
	if on {
		return a
	}
	return b
}

func deliveryMode(v uint64) string {
	return [8]string{"Fixed", "...", "SMI", "...", "NMI", "INIT", "...", "ExtINT"}[v>>8&7]
}

// LAPIC prints vCPU id's local APIC as QEMU's "info lapic" does.
func LAPIC(w io.Writer, id int, s *irq.LAPICState) {
	r := &s.Regs
	fmt.Fprintf(w, "dumping local APIC state for CPU %-2d\n\n", id)
	for _, l := range []struct {
		name string
		reg  int
	}{{"LVT0", apicLINT0}, {"LVT1", apicLINT1}, {"LVTPC", apicCounter}, {"LVTERR", apicError}, {"LVTTHMR", apicThermal}, {"LVTT", apicTimer}} {
		localVector(w, l.name, uint64(r[l.reg]), l.reg == apicTimer)
	}
	fmt.Fprintf(w, "Timer\t DCR=0x%x (divide by %d) initial_count = %d current_count = %d\n",
		r[apicDivide]&0xb, divisor(r[apicDivide]), r[apicInitial], r[apicCurrent])
	fmt.Fprintf(w, "SPIV\t 0x%08x APIC %s, focus=%s, spurious vec %d\n", r[apicSPIV],
		choose(r[apicSPIV]&(1<<8) != 0, "enabled", "disabled"), choose(r[apicSPIV]&(1<<9) != 0, "on", "off"), uint8(r[apicSPIV]))
	interruptCommand(w, s)
	fmt.Fprintf(w, "ESR\t 0x%08x\n", r[apicESR])
	vectors(w, "ISR", r[apicISR:apicISR+8], r[apicTMR:apicTMR+8])
	vectors(w, "IRR", r[apicIRR:apicIRR+8], r[apicTMR:apicTMR+8])
	flat := r[apicDFR]>>28 == 0xf
	fmt.Fprintf(w, "\nAPR 0x%02x TPR 0x%02x DFR 0x%02x LDR 0x%02x", r[apicAPR], uint8(r[apicTPR]), r[apicDFR]>>28, r[apicLDR]>>24)
	if !flat {
		fmt.Fprintf(w, "(cluster %d: id %d)", r[apicLDR]>>28, r[apicLDR]>>24&15)
	}
	fmt.Fprintf(w, " PPR 0x%02x\n", uint8(r[apicPPR]))
}

func localVector(w io.Writer, name string, v uint64, timer bool) {
	mode := ""
	switch {
	case timer && v&timerPeriodic != 0:
		mode = "periodic"
	case timer && v&timerTSC != 0:
		mode = "tsc-deadline"
	case timer:
		mode = "one-shot"
	}
	fmt.Fprintf(w, "%s\t 0x%08x %s %-5s %-6s %-7s %-12s %-6s", name, v, choose(v&entryLow != 0, "active-lo", "active-hi"),
		choose(v&entryLevel != 0, "level", "edge"), choose(v&entryMasked != 0, "masked", ""), choose(v&entryPending != 0, "pending", ""), mode, deliveryMode(v))
	if v>>8&7 != deliveryNMI {
		fmt.Fprintf(w, " (vec %d)", uint8(v))
	}
	fmt.Fprintln(w)
}

// divisor is what the timer's clock is divided by (Intel SDM vol. 3A figure 11-10).
func divisor(dcr uint32) int {
	if n := dcr&8>>1 | dcr&3; n != 7 {
		return 2 << n
	}
	return 1
}

func interruptCommand(w io.Writer, s *irq.LAPICState) {
	low, high := s.Regs[apicICR], s.Regs[apicICR2]
	logical := low&entryLogical != 0
	shorthand := low >> 18 & 3
	fmt.Fprintf(w, "ICR\t 0x%08x %s %s %s %s\n", low, choose(logical, "logical", "physical"), choose(low&entryLevel != 0, "level", "edge"),
		choose(low&(1<<14) != 0, "assert", "de-assert"), [4]string{"no-shorthand", "self", "all-self", "all"}[shorthand])
	fmt.Fprintf(w, "ICR2\t 0x%08x", high)
	x2 := s.Base&apicX2Enabled != 0
	switch {
	case shorthand != 0:
	case !logical && x2:
		fmt.Fprintf(w, " cpu %d (X2APIC ID)", high)
	case !logical:
		fmt.Fprintf(w, " cpu %d (APIC ID)", high>>24)
	case x2:
		fmt.Fprintf(w, " cluster %d mask %016b (X2APIC ID)", high>>16, uint16(high))
	case s.Regs[apicDFR]>>28 == 0xf:
		fmt.Fprintf(w, " mask %08b (APIC ID)", high>>24)
	default:
		fmt.Fprintf(w, " cluster %d mask %04b (APIC ID)", high>>28, high>>24&15)
	}
	fmt.Fprintln(w)
}

func vectors(w io.Writer, name string, set, level []uint32) {
	fmt.Fprintf(w, "%s\t ", name)
	none := true
	for i := range 256 {
		if set[i/32]>>(i%32)&1 != 0 {
			none = false
			fmt.Fprintf(w, "%d%s ", i, choose(level[i/32]>>(i%32)&1 != 0, "(level)", ""))
		}
	}
	fmt.Fprintln(w, choose(none, "(none)", ""))
}

// IOAPIC prints an I/O APIC as QEMU's "info pic" does.
func IOAPIC(w io.Writer, s *irq.IOAPICState) {
	fmt.Fprintf(w, "ioapic0: ver=0x20 id=0x%02x sel=0x%02x", s.ID, s.Select)
	if s.Select >= 0x10 && s.Select < 0x10+2*uint32(len(s.Redirect)) {
		fmt.Fprintf(w, " (redir[%d])", (s.Select-0x10)/2)
	}
	fmt.Fprintln(w)
	remote := uint32(0)
	modes := [8]string{"fixed", "lowest", "SMI", "...", "NMI", "INIT", "...", "extINT"}
	for pin, e := range s.Redirect {
		fmt.Fprintf(w, "  pin %-2d 0x%016x dest=%x vec=%-3d %s %-5s %-6s %-6s %s\n", pin, e, e>>56, uint8(e), choose(e&entryLow != 0, "active-lo", "active-hi"),
			choose(e&entryLevel != 0, "level", "edge"), choose(e&entryMasked != 0, "masked", ""), modes[e>>8&7], choose(e&entryLogical != 0, "logical", "physical"))
		if e&entryRemoteIRR != 0 && e&entryLevel != 0 {
			remote |= 1 << pin
		}
	}
	pins(w, "  IRR", s.IRR)
	pins(w, "  Remote IRR", remote)
}

func pins(w io.Writer, name string, set uint32) {
	fmt.Fprintf(w, "%-10s", name)
	if set == 0 {
		fmt.Fprint(w, " (none)")
	}
	for ; set != 0; set &= set - 1 {
		fmt.Fprintf(w, " %d", bits.TrailingZeros32(set))
	}
	fmt.Fprintln(w)
}

// PIC prints the pair of 8259As likewise.
func PIC(w io.Writer, s *[2]irq.PICState) {
	for n := 1; n >= 0; n-- {
		p := &s[n]
		fmt.Fprintf(w, "pic%d: irr=%02x imr=%02x isr=%02x hprio=%d irq_base=%02x rr_sel=%d elcr=%02x fnm=%d\n", n, p.IRR, p.IMR, p.ISR,
			p.PriorityAdd, p.VectorBase, bit(p.ReadISR), p.LevelTriggered, bit(p.SpecialFullyNested))
	}
}
