package interp

import (
	"berth/x86"
	"berth/x86/decode"
	"berth/x86/optab"
)

// execX87 runs one instruction of the x87 family.
func (c *CPU) execX87(in *decode.Inst) status {
	c.takeX87()
	if in.Op == optab.FWAIT {
		if c.CR0&(x86.CR0MP|x86.CR0TS) == x86.CR0MP|x86.CR0TS {
			return c.raise(x86.NM)
		}
	} else if c.CR0&(x86.CR0EM|x86.CR0TS) != 0 {
		return c.raise(x86.NM)
	}
	if c.fpu.fsw&fswES != 0 && !nonWaiting(in.Op) {
		if st := c.raiseX87(); st != next {
			return st
		}
	}
	st := c.runX87(in)
	c.settleFERR()
	return st
}

// runX87 is execX87 once nothing stands in the way.
func (c *CPU) runX87(in *decode.Inst) status {
	switch in.Op {
	case optab.FNSTCW:
		va, ok := c.memAddr(in, 2, true)
		return done(ok && c.st16(va, c.fpu.fcw))
	case optab.FNSTSW:
		va, ok := c.memAddr(in, 2, true)
		return done(ok && c.st16(va, c.fpu.statusWord()))
	case optab.FNSTSWAX:
		c.R[x86.RAX] = c.R[x86.RAX]&^0xffff | uint64(c.fpu.statusWord())
	case optab.FLDCW:
		return c.fldcw(in)
	case optab.FNCLEX:
		c.fpu.fsw &= fswCC
	case optab.FNINIT:
		c.fpu.initX87()
	case optab.FNSTENV, optab.FNSAVE, optab.FLDENV, optab.FRSTOR:
		return c.x87Image(in)
	case optab.FWAIT, optab.FNOP, optab.FNENI, optab.FNDISI, optab.FNSETPM:
	default:
		return c.x87Data(in)
	}
	return next
}

// nonWaiting reports whether op does not look at pending exceptions.
func nonWaiting(op optab.Op) bool {
	switch op {
	case optab.FNSTCW, optab.FNSTSW, optab.FNSTSWAX, optab.FNCLEX, optab.FNINIT, optab.FNSTENV, optab.FNSAVE,
		optab.FNENI, optab.FNDISI, optab.FNSETPM:
		return true
	}
	return false
}

func (c *CPU) fldcw(in *decode.Inst) status {
	va, ok := c.memAddr(in, 2, false)
	if !ok {
		return faulted
	}
	v, ok := c.ld16(va)
	if !ok {
		return faulted
	}
	c.fpu.setControlWord(v)
	return next
}
