package interp

import "berth/x86/decode"

// systemState is what the operating system's side of the CPU needs beyond Core.
type systemState struct {
	mem memState
}

// execSystem runs one instruction of the system family.
func (c *CPU) execSystem(in *decode.Inst) status { return c.unimplemented(in) }

// cpuid, rdtsc and the others below serve operations of the integer family.
func (c *CPU) cpuid(in *decode.Inst) status  { return c.unimplemented(in) }
func (c *CPU) rdtsc(in *decode.Inst) status  { return c.unimplemented(in) }
func (c *CPU) rdtscp(in *decode.Inst) status { return c.unimplemented(in) }
func (c *CPU) rdpid(in *decode.Inst) status  { return c.unimplemented(in) }
func (c *CPU) rdrand(in *decode.Inst) status { return c.unimplemented(in) }
func (c *CPU) rdseed(in *decode.Inst) status { return c.unimplemented(in) }

// portIn and portOut are IN and OUT; ioAllowed checks IOPL and the I/O bitmap
// for them and for INS and OUTS: false: exc is set.
func (c *CPU) portIn(in *decode.Inst) status  { return c.unimplemented(in) }
func (c *CPU) portOut(in *decode.Inst) status { return c.unimplemented(in) }

func (c *CPU) ioAllowed(port uint16, size uint8) bool { return true }

// unimplemented stops the VM and names the instruction: it is never a silent #UD.
func (c *CPU) unimplemented(in *decode.Inst) status {
	return c.unimplementedText("instruction " + in.Op.String())
}

func (c *CPU) unimplementedText(what string) status {
	c.exit = Exit{Reason: Internal, Detail: "not implemented: " + what}
	return stopped
}
