package interp

import (
	"berth/x86"
	"berth/x86/decode"
	"berth/x86/optab"
)

// branch is the near control transfers.
func (c *CPU) branch(in *decode.Inst) status {
	after := c.RIP + uint64(in.Len)
	switch in.Op {
	case optab.JMP:
		return c.nearJump(in)
	case optab.CALL:
		return c.nearCall(in)
	case optab.RET:
		return c.nearReturn(in)
	case optab.JCC:
		if !c.cond(in.Opcode) {
			return next
		}
	default:
		if !c.loopTaken(in) {
			return next
		}
	}
	ok := c.jumpTo(after+in.Imm, in.OpSize)
	if !ok {
		c.undoLoop(in)
		return faulted
	}
	return jumped
}

// loopTaken decides JCXZ and LOOP, and counts for the latter.
func (c *CPU) loopTaken(in *decode.Inst) bool {
	if in.Op == optab.JCXZ {
		return truncate(c.R[x86.RCX], in.AddrSize) == 0
	}
	n := truncate(c.R[x86.RCX]-1, in.AddrSize)
	c.setReg(in, x86.RCX, in.AddrSize, n)
	switch in.Op {
	case optab.LOOPE:
		return n != 0 && c.zf()
	case optab.LOOPNE:
		return n != 0 && !c.zf()
	}
	return n != 0
}

// undoLoop takes the count back after a target that faulted.
func (c *CPU) undoLoop(in *decode.Inst) {
	if in.Op == optab.LOOP || in.Op == optab.LOOPE || in.Op == optab.LOOPNE {
		c.setReg(in, x86.RCX, in.AddrSize, c.R[x86.RCX]+1)
	}
}

// checkTarget cuts a near branch's target to the operand size and applies the
// checks of Intel SDM vol. 2 (JMP): code segment limit, or canonical in 64-bit mode.
func (c *CPU) checkTarget(rip uint64, size uint8) (uint64, bool) {
	rip = truncate(rip, size)
	if c.Mode == decode.Mode64 {
		if !c.canonical(rip) {
			c.raiseErr(x86.GP, 0)
			return 0, false
		}
	} else if rip > uint64(c.Seg[x86.CS].Limit) {
		c.raiseErr(x86.GP, 0)
		return 0, false
	}
	return rip, true
}

// jumpTo sets RIP; false: exc is set.
func (c *CPU) jumpTo(rip uint64, size uint8) bool {
	rip, ok := c.checkTarget(rip, size)
	if ok {
		c.RIP = rip
	}
	return ok
}

// target returns where a JMP or CALL goes, before the checks.
func (c *CPU) target(in *decode.Inst) (uint64, bool) {
	if a := in.Row.Args[0]; a == optab.Jb || a == optab.Jz {
		return c.RIP + uint64(in.Len) + in.Imm, true
	}
	return c.read(in, 0)
}

func (c *CPU) nearJump(in *decode.Inst) status {
	rip, ok := c.target(in)
	if !ok || !c.jumpTo(rip, in.OpSize) {
		return faulted
	}
	return jumped
}

func (c *CPU) nearCall(in *decode.Inst) status {
	rip, ok := c.target(in)
	if !ok {
		return faulted
	}
	if rip, ok = c.checkTarget(rip, in.OpSize); !ok {
		return faulted
	}
	if !c.push(c.RIP+uint64(in.Len), in.OpSize) {
		return faulted
	}
	c.RIP = rip
	return jumped
}

func (c *CPU) nearReturn(in *decode.Inst) status {
	rip, ok := c.top(in.OpSize)
	if !ok || !c.jumpTo(rip, in.OpSize) {
		return faulted
	}
	c.discard(uint64(in.OpSize))
	if len(in.Row.Args) > 0 {
		c.discard(in.Imm)
	}
	return jumped
}
