package interp

import "berth/x86/decode"

// execSSE runs one instruction of the MMX and SSE family.
func (c *CPU) execSSE(in *decode.Inst) status { return c.unimplemented(in) }
