package interp

// The following belong to the system side; they stand here until it has them.

// needStep reports that the next instruction must run by itself: an interrupt
// shadow covers it, TF is set, or breakpoints are armed. The run loop asks
// whenever it left straight-line execution, after interrupts.
func (c *CPU) needStep() bool { return false }

// stepped is told how the one instruction that followed needStep ended: it ends
// the interrupt shadow and raises the single-step or breakpoint trap (which it
// delivers itself). It returns st, or jumped after a delivery, or stopped.
func (c *CPU) stepped(st status) status { return st }

// updateMMUIndex works out MMUIndex after a change of CPL, AC, VM or CR4.SMAP.
func (c *CPU) updateMMUIndex() {}

// post sets bits of Pending and wakes the vCPU if it sleeps.
func (c *CPU) post(bits uint32) {}
