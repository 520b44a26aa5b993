package interp

import (
	"berth/x86/decode"
)

// raise notes a fault without an error code.
func (c *CPU) raise(vector uint8) status {
	c.exc = exception{vector: vector}
	return faulted
}

// raiseErr notes a fault with an error code.
func (c *CPU) raiseErr(vector uint8, code uint32) status {
	c.exc = exception{vector: vector, hasError: true, code: code}
	return faulted
}

// deliver takes c.exc to its handler: jumped, or stopped with a shutdown.
func (c *CPU) deliver() status { return c.unimplementedText("exception delivery") }

// softInt is INT n, INT3, INTO and INT1; iret IRET; the others the far transfers.
func (c *CPU) softInt(in *decode.Inst) status { return c.unimplemented(in) }
func (c *CPU) iret(in *decode.Inst) status    { return c.unimplemented(in) }
func (c *CPU) farJump(in *decode.Inst) status { return c.unimplemented(in) }
func (c *CPU) farCall(in *decode.Inst) status { return c.unimplemented(in) }
func (c *CPU) farRet(in *decode.Inst) status  { return c.unimplemented(in) }
