package interp

import "berth/x86/decode"

// execInteger runs one instruction of the integer family.
func (c *CPU) execInteger(in *decode.Inst) status { return c.unimplemented(in) }
