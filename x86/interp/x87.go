package interp

import "berth/x86/decode"

// execX87 runs one instruction of the x87 family.
func (c *CPU) execX87(in *decode.Inst) status { return c.unimplemented(in) }
