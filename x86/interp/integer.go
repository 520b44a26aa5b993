package interp

import (
	"berth/x86"
	"berth/x86/decode"
	"berth/x86/optab"
)

// execInteger runs one instruction of the integer family at RIP. It is the
// definition of each; the run loop has shortcuts for the frequent forms.
func (c *CPU) execInteger(in *decode.Inst) status {
	switch in.Op {
	case optab.ADD, optab.OR, optab.ADC, optab.SBB, optab.AND, optab.SUB, optab.XOR:
		return c.arith(in)
	case optab.CMP, optab.TEST:
		return c.compare(in)
	case optab.INC, optab.DEC, optab.NEG, optab.NOT:
		return c.unary(in)
	case optab.MUL, optab.IMUL:
		return c.multiply(in)
	case optab.DIV, optab.IDIV:
		return c.divide(in)
	case optab.ROL, optab.ROR, optab.RCL, optab.RCR, optab.SHL, optab.SHR, optab.SAR:
		return c.shift(in)
	case optab.SHLD, optab.SHRD:
		return c.doubleShift(in)
	case optab.BT, optab.BTS, optab.BTR, optab.BTC:
		return c.bitTest(in)
	case optab.BSF, optab.BSR, optab.TZCNT, optab.LZCNT, optab.POPCNT:
		return c.bitScan(in)
	case optab.CRC32:
		return c.crc32(in)
	case optab.MOV, optab.MOVZX, optab.MOVSX, optab.MOVSXD, optab.MOVBE, optab.MOVNTI,
		optab.LEA, optab.BSWAP, optab.SETCC, optab.CMOVCC, optab.XLAT, optab.CBW, optab.CWD:
		return c.move(in)
	case optab.XCHG, optab.XADD, optab.CMPXCHG, optab.CMPXCHG8B, optab.CMPXCHG16B:
		return c.exchange(in)
	case optab.PUSH, optab.POP, optab.PUSHA, optab.POPA, optab.PUSHF, optab.POPF, optab.PUSHSEG, optab.POPSEG,
		optab.ENTER, optab.LEAVE:
		return c.stackOp(in)
	case optab.LAHF, optab.SAHF, optab.CLC, optab.STC, optab.CMC, optab.CLD, optab.STD, optab.SALC:
		return c.flagOp(in)
	case optab.JCC, optab.JMP, optab.CALL, optab.RET, optab.JCXZ, optab.LOOP, optab.LOOPE, optab.LOOPNE:
		return c.branch(in)
	case optab.MOVS, optab.CMPS, optab.STOS, optab.LODS, optab.SCAS, optab.INS, optab.OUTS:
		return c.stringOp(in)
	case optab.AAA, optab.AAS, optab.AAD, optab.AAM, optab.DAA, optab.DAS:
		return c.bcd(in)
	default:
		return c.integerSystem(in)
	}
}

// integerSystem runs what touches segments, other privilege levels or nothing.
func (c *CPU) integerSystem(in *decode.Inst) status {
	switch in.Op {
	case optab.NOP, optab.PREFETCH, optab.PREFETCHW, optab.LFENCE, optab.SFENCE:
		return next // the engine runs in order, on a host that orders at least as strongly
	case optab.MFENCE:
		c.fence()
		return next
	case optab.PAUSE:
		c.pause()
		return next
	case optab.CLFLUSH, optab.CLFLUSHOPT:
		return c.cacheFlush(in)
	case optab.BOUND:
		return c.bound(in)
	case optab.ARPL:
		return c.arpl(in)
	case optab.LDS, optab.LES, optab.LFS, optab.LGS, optab.LSS:
		return c.loadFarPointer(in)
	case optab.JMPFAR:
		return c.farJump(in)
	case optab.CALLFAR:
		return c.farCall(in)
	case optab.RETFAR:
		return c.farRet(in)
	case optab.IRET:
		c.fence()
		return c.iret(in)
	case optab.INT, optab.INT3, optab.INTO, optab.INT1:
		return c.softInt(in)
	case optab.UD0, optab.UD1, optab.UD2, optab.ADCX, optab.ADOX: // this CPU has no ADX
		return c.raise(x86.UD)
	case optab.IN:
		return c.portIn(in)
	case optab.OUT:
		return c.portOut(in)
	case optab.CPUID:
		c.fence()
		return c.cpuid(in)
	case optab.RDTSC:
		return c.rdtsc(in)
	case optab.RDTSCP:
		return c.rdtscp(in)
	case optab.RDPID:
		return c.rdpid(in)
	case optab.RDRAND:
		return c.rdrand(in)
	case optab.RDSEED:
		return c.rdseed(in)
	}
	return c.unimplemented(in)
}

// cacheFlush is CLFLUSH and CLFLUSHOPT: a load's checks and no more, but for
// execute-only segments, which are allowed.
func (c *CPU) cacheFlush(in *decode.Inst) status {
	off, s := c.offset(in), &c.Seg[in.Seg]
	if c.Mode != decode.Mode64 && (!isCode(s.Attr) || !inLimit(s, off, 1)) && !c.checkSeg(in.Seg, off, 1, false) {
		return faulted
	}
	return done(c.probeRead(c.segLinear(in.Seg, off, c.Mode), 1))
}

// bound is BOUND: #BR unless the signed index lies within the pair in memory.
func (c *CPU) bound(in *decode.Inst) status {
	size := in.OpSize
	va, ok := c.memAddr(in, 2*size, false)
	if !ok {
		return faulted
	}
	low, ok := c.load(va, size)
	if !ok {
		return faulted
	}
	high, ok := c.load(c.after(va, uint64(size)), size)
	if !ok {
		return faulted
	}
	i := int64(signExtend(c.R[in.Reg&15], size))
	if i < int64(signExtend(low, size)) || i > int64(signExtend(high, size)) {
		return c.raise(x86.BR)
	}
	return next
}

// arpl is ARPL: raises the destination's RPL to the source's.
func (c *CPU) arpl(in *decode.Inst) status {
	if c.CR0&x86.CR0PE == 0 || c.Flags&x86.FlagVM != 0 {
		return c.raise(x86.UD)
	}
	rpl := c.R[in.Reg&15] & 3
	raised := false
	ok := c.modify(in, func(old uint64) uint64 {
		if raised = old&3 < rpl; raised {
			return old&^3 | rpl
		}
		return old
	})
	if !ok {
		return faulted
	}
	c.setStatus(c.status()&^x86.FlagZF | b2u(raised)<<6)
	return next
}

// loadFarPointer is LDS, LES, LFS, LGS and LSS.
func (c *CPU) loadFarPointer(in *decode.Inst) status {
	va, ok := c.memAddr(in, in.OpSize+2, false)
	if !ok {
		return faulted
	}
	off, ok := c.load(va, in.OpSize)
	if !ok {
		return faulted
	}
	sel, ok := c.ld16(c.after(va, uint64(in.OpSize)))
	if !ok {
		return faulted
	}
	seg := map[optab.Op]uint8{optab.LDS: x86.DS, optab.LES: x86.ES, optab.LFS: x86.FS, optab.LGS: x86.GS, optab.LSS: x86.SS}[in.Op]
	if !c.loadSeg(seg, sel) {
		return faulted
	}
	c.setReg(in, in.Reg, in.OpSize, off)
	return next
}
