package interp

import (
	"math/bits"

	"berth/x86"
	"berth/x86/decode"
	"berth/x86/optab"
)

// move is the data movement that leaves flags alone.
func (c *CPU) move(in *decode.Inst) status {
	switch in.Op {
	case optab.LEA:
		c.setReg(in, in.Reg, in.OpSize, c.offset(in))
		return next
	case optab.XLAT:
		return c.xlat(in)
	case optab.CBW:
		c.setReg(in, x86.RAX, max(in.OpSize, 2), signExtend(c.R[x86.RAX], in.OpSize/2))
		return next
	case optab.CWD:
		c.setReg(in, x86.RDX, in.OpSize, uint64(int64(signExtend(c.R[x86.RAX], in.OpSize))>>63))
		return next
	case optab.SETCC:
		return done(c.write(in, 0, b2u(c.cond(in.Opcode))))
	case optab.BSWAP:
		v := bits.ReverseBytes64(c.R[in.Reg&15])
		switch in.OpSize {
		case 4:
			v >>= 32
		case 2:
			v = 0 // undefined by the architecture; what processors do
		}
		c.setReg(in, in.Reg, in.OpSize, v)
		return next
	}
	v, ok := c.read(in, 1)
	if !ok {
		return faulted
	}
	switch in.Op {
	case optab.MOVSX, optab.MOVSXD:
		v = signExtend(v, argSize(in, in.Row.Args[1]))
	case optab.MOVBE:
		v = bits.ReverseBytes64(v) >> (64 - 8*in.OpSize)
	case optab.CMOVCC:
		if !c.cond(in.Opcode) { // a 32-bit destination is zero-extended all the same
			v = c.reg(in, in.Reg, in.OpSize)
		}
	}
	return done(c.write(in, 0, v))
}

// xlat is XLAT: AL = [rBX + AL].
func (c *CPU) xlat(in *decode.Inst) status {
	va, ok := c.addr(in.Seg, truncate(c.R[x86.RBX]+c.R[x86.RAX]&0xff, in.AddrSize), 1, false)
	if !ok {
		return faulted
	}
	v, ok := c.ld8(va)
	if !ok {
		return faulted
	}
	c.R[x86.RAX] = c.R[x86.RAX]&^0xff | uint64(v)
	return next
}

// exchange is XCHG, XADD and the CMPXCHG family.
func (c *CPU) exchange(in *decode.Inst) status {
	switch in.Op {
	case optab.XCHG:
		return c.xchg(in)
	case optab.XADD:
		return c.xadd(in)
	case optab.CMPXCHG:
		return c.cmpxchg(in)
	case optab.CMPXCHG8B:
		return c.cmpxchg8b(in)
	default:
		return c.cmpxchg16b(in)
	}
}

// xchg is XCHG; with memory it is locked, prefix or not.
func (c *CPU) xchg(in *decode.Inst) status {
	size := argSize(in, in.Row.Args[0])
	n, _ := regOf(in, in.Row.Args[1])
	v := c.reg(in, n, size)
	var old uint64
	swap := func(m uint64) uint64 { old = m; return v }
	if _, mem := regOf(in, in.Row.Args[0]); mem {
		va, ok := c.memAddr(in, size, true)
		if !ok || !c.modifyMem(va, size, true, swap) {
			return faulted
		}
	} else {
		c.modify(in, swap)
	}
	c.setReg(in, n, size, old)
	return next
}

func (c *CPU) xadd(in *decode.Inst) status {
	size := argSize(in, in.Row.Args[0])
	b := c.reg(in, in.Reg, size)
	var a uint64
	if !in.Mem { // source first: with one register for both, the sum stays
		a = c.reg(in, in.RM, size)
		c.setReg(in, in.Reg, size, a)
		c.setReg(in, in.RM, size, a+b)
	} else {
		if !c.modify(in, func(old uint64) uint64 { a = old; return a + b }) {
			return faulted
		}
		c.setReg(in, in.Reg, size, a)
	}
	c.flagsAdd(b, a+b, log2(size))
	return next
}

func (c *CPU) cmpxchg(in *decode.Inst) status {
	size := argSize(in, in.Row.Args[0])
	acc := truncate(c.R[x86.RAX], size)
	v := c.reg(in, in.Reg, size)
	var old uint64
	ok := c.modify(in, func(m uint64) uint64 {
		old = m
		if m == acc {
			return v
		}
		return m
	})
	if !ok {
		return faulted
	}
	if old != acc {
		if size == 1 {
			c.R[x86.RAX] = c.R[x86.RAX]&^0xff | old
		} else {
			c.setReg(in, x86.RAX, size, old)
		}
	}
	c.flagsSub(old, acc-old, log2(size))
	return next
}

func (c *CPU) setZF(zf bool) { c.setStatus(c.status()&^x86.FlagZF | b2u(zf)<<6) }

func (c *CPU) cmpxchg8b(in *decode.Inst) status {
	want := c.R[x86.RDX]<<32 | c.R[x86.RAX]&0xffffffff
	v := c.R[x86.RCX]<<32 | c.R[x86.RBX]&0xffffffff
	va, ok := c.memAddr(in, 8, true)
	if !ok {
		return faulted
	}
	var old uint64
	ok = c.modifyMem(va, 8, in.Lock, func(m uint64) uint64 {
		old = m
		if m == want {
			return v
		}
		return m
	})
	if !ok {
		return faulted
	}
	if old != want {
		c.R[x86.RAX], c.R[x86.RDX] = old&0xffffffff, old>>32
	}
	c.setZF(old == want)
	return next
}

func (c *CPU) cmpxchg16b(in *decode.Inst) status {
	want := [2]uint64{c.R[x86.RAX], c.R[x86.RDX]}
	v := [2]uint64{c.R[x86.RBX], c.R[x86.RCX]}
	va, ok := c.memAddr(in, 16, true)
	if !ok {
		return faulted
	}
	if va&15 != 0 {
		return c.raiseErr(x86.GP, 0)
	}
	old, ok := c.compareSwap128(va, want, v)
	if !ok {
		return faulted
	}
	if old != want {
		c.R[x86.RAX], c.R[x86.RDX] = old[0], old[1]
	}
	c.setZF(old == want)
	return next
}

// compareSwap128 is atomic on RAM, LOCK or not.
func (c *CPU) compareSwap128(va uint64, want, v [2]uint64) (old [2]uint64, ok bool) {
	if p := c.hostPtr(va, 16, true); p != nil {
		old, _ = cas128(p, want, v)
		return old, true
	}
	if p, gpa := c.lockedPtr(va, 16); p != nil {
		old, _ = cas128(p, want, v)
		c.stored(gpa, 16)
		c.watchAccess(va, 16, true)
		return old, true
	}
	ok = c.group.alone(c, func() bool {
		if !c.probeWrite(va, 16) {
			return false
		}
		if old, ok = c.ld128(va); !ok {
			return false
		}
		if old != want {
			v = old
		}
		return c.st128(va, v)
	})
	return old, ok
}

// flagOp is the instructions that move and change single flags.
func (c *CPU) flagOp(in *decode.Inst) status {
	switch in.Op {
	case optab.LAHF:
		c.R[x86.RAX] = c.R[x86.RAX]&^0xff00 | (c.status()|x86.FlagR1)&0xff<<8
	case optab.SAHF:
		c.setStatus(c.status()&x86.FlagOF | c.R[x86.RAX]>>8&0xff)
	case optab.CLC:
		c.setCarry(false)
	case optab.STC:
		c.setCarry(true)
	case optab.CMC:
		c.setCarry(!c.cf())
	case optab.CLD:
		c.Flags &^= x86.FlagDF
	case optab.STD:
		c.Flags |= x86.FlagDF
	case optab.SALC:
		c.R[x86.RAX] = c.R[x86.RAX]&^0xff | b2u(c.cf())*0xff
	}
	return next
}
