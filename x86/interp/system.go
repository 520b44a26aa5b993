package interp

import "berth/x86/decode"

// systemState is what the operating system's side of the CPU needs beyond Core.
type systemState struct{}

// execSystem runs one instruction of the system family.
func (c *CPU) execSystem(in *decode.Inst) status { return c.unimplemented(in) }

// unimplemented stops the VM and names the instruction: it is never a silent #UD.
func (c *CPU) unimplemented(in *decode.Inst) status {
	c.exit = Exit{Reason: Internal, Detail: "instruction not implemented: " + in.Op.String()}
	return stopped
}
