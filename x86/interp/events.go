package interp

// Bits of Core.Pending.
const (
	pendKick  = 1 << iota // Run was asked to return
	pendIntr              // an interrupt may have become deliverable
	pendNMI               // an NMI waits
	pendInit              // INIT
	pendSIPI              // start-up IPI
	pendHalt              // the vCPU executed HLT or waits for INIT or SIPI
	pendFlush             // someone else changed page flags: forget write permissions
	pendCode              // host-side writes into pages with decoded code
	pendDebug             // single step or breakpoints: see needStep
	pendSleep = 1 << 31   // the vCPU sleeps on the word: wake it
)

// interrupts serves what Pending says; the run loop calls it at an instruction
// boundary when Pending is not 0. It sleeps here while the CPU is halted. With
// leave, Run returns with c.exit.
func (c *CPU) interrupts() (leave bool) { return false }
