package interp

import (
	"berth/x86"
	"berth/x86/decode"
	"berth/x86/fp"
	"berth/x86/optab"
)

// x87Data is the x87 instructions on data. They note where they are; control
// instructions do not (Intel SDM vol. 1 §8.1.8). Of the vendors' ways berth
// takes the 387's: FIP, FOP and, with a memory operand, FDP change at every
// such instruction, whether it raises an exception or not.
func (c *CPU) x87Data(in *decode.Inst) status {
	s := &c.fpu
	var va uint64
	if in.Mem {
		var ok bool
		if va, ok = c.memAddr(in, x87Size(in), x87Stores(in.Op)); !ok {
			return faulted
		}
	}
	fip, fdp, fop := s.fip, s.fdp, s.fop
	s.fip, s.fop = c.RIP, uint16(in.Opcode&7)<<8|uint16(in.ModRM)
	var st status
	if in.Mem {
		s.fdp = c.offset(in)
		st = c.x87Memory(in, va)
	} else {
		st = c.x87Register(in)
	}
	if st == faulted { // a page fault is not the instruction's end
		s.fip, s.fdp, s.fop = fip, fdp, fop
	}
	return st
}

// x87Size returns the bytes of the memory operand.
func x87Size(in *decode.Inst) uint8 {
	switch in.Row.Args[0] {
	case optab.Mw:
		return 2
	case optab.Md:
		return 4
	case optab.Mq:
		return 8
	}
	return 10
}

func x87Stores(op optab.Op) bool {
	switch op {
	case optab.FST, optab.FSTP, optab.FIST, optab.FISTP, optab.FISTTP, optab.FBSTP:
		return true
	}
	return false
}

// x87Flags sets what an operation raised and C1, and reports whether it may
// complete: no unmasked exception found before the operation.
func (c *CPU) x87Flags(sw uint16) bool {
	s := &c.fpu
	s.fsw = s.fsw&^fswC1 | sw&(fswC1|fswSF|uint16(fp.AllFlags))
	s.summarize()
	return sw&uint16(fp.PreFlags)&^s.fcw == 0
}

const (
	stackUnderflow = fswIE | fswSF
	stackOverflow  = fswIE | fswSF | fswC1
)

// underflow reports a stack underflow if any of the registers is empty: bad,
// and ok says that the masked response is due.
func (c *CPU) underflow(regs ...uint8) (bad, ok bool) {
	for _, i := range regs {
		if c.fpu.empty(i) {
			return true, c.x87Flags(stackUnderflow)
		}
	}
	return false, true
}

// set writes stack register i.
func (s *fpuState) set(i uint8, v x86.F80) {
	*s.st(i) = v
	s.setValid(i)
}

// x87Push makes v the new top, or the default NaN if its place is taken.
func (c *CPU) x87Push(v x86.F80) {
	s := &c.fpu
	if !s.empty(7) {
		if !c.x87Flags(stackOverflow) {
			return
		}
		v = fp.Indefinite()
	}
	s.top = (s.top - 1) & 7
	s.set(0, v)
}

// x87Arith stores dst op src in stack register dst; src denormal says that a
// memory operand was one before it was widened.
func (c *CPU) x87Arith(op optab.Op, dst uint8, src x86.F80, denormal bool) bool {
	s := &c.fpu
	r := [2]x86.F80{*s.st(dst), src}
	nan := fp.IsNaN(r[0])
	sw := s.arith.X87(op, &r, s.fcw)
	if denormal && !nan && sw&uint16(fp.IE|fp.ZE) == 0 {
		if sw |= uint16(fp.DE); s.fcw&uint16(fp.DE) == 0 {
			sw = uint16(fp.DE)
		}
	}
	if !c.x87Flags(sw) {
		return false
	}
	s.set(dst, r[0])
	return true
}

// x87Compare sets C0, C2 and C3 for ST0 against v, even if it may not complete.
func (c *CPU) x87Compare(v x86.F80, quiet, denormal bool) bool {
	a := *c.fpu.st(0)
	sw := fp.CompareX87(a, v, quiet)
	if denormal && sw&fp.C2 == 0 {
		sw |= uint16(fp.DE)
	}
	c.setCC(sw)
	return c.x87Flags(sw & uint16(fp.AllFlags))
}

func (c *CPU) setCC(sw uint16) {
	const cc = fswC0 | fswC2 | fswC3
	c.fpu.fsw = c.fpu.fsw&^cc | sw&cc
}

// x87Memory is the instructions with a memory operand.
func (c *CPU) x87Memory(in *decode.Inst, va uint64) status {
	switch in.Op {
	case optab.FST, optab.FSTP, optab.FIST, optab.FISTP, optab.FISTTP, optab.FBSTP:
		return c.x87Store(in, va)
	}
	v, denormal, ok := c.x87Load(in, va)
	if !ok {
		return faulted
	}
	switch op := in.Op; op {
	case optab.FLD, optab.FILD, optab.FBLD:
		c.x87LoadPush(in, v, denormal)
	case optab.FCOM, optab.FCOMP, optab.FICOM, optab.FICOMP:
		bad, done := c.underflow(0)
		if bad {
			c.setCC(fswC0 | fswC2 | fswC3)
		} else {
			done = c.x87Compare(v, false, denormal)
		}
		if done && (op == optab.FCOMP || op == optab.FICOMP) {
			c.fpu.pop()
		}
	default:
		if bad, masked := c.underflow(0); !bad {
			c.x87Arith(intForm(op), 0, v, denormal)
		} else if masked {
			c.fpu.set(0, fp.Indefinite())
		}
	}
	return next
}

// intForm returns the operation of an integer or popping form.
func intForm(op optab.Op) optab.Op {
	switch op {
	case optab.FIADD, optab.FADDP:
		return optab.FADD
	case optab.FIMUL, optab.FMULP:
		return optab.FMUL
	case optab.FISUB, optab.FSUBP:
		return optab.FSUB
	case optab.FISUBR, optab.FSUBRP:
		return optab.FSUBR
	case optab.FIDIV, optab.FDIVP:
		return optab.FDIV
	case optab.FIDIVR, optab.FDIVRP:
		return optab.FDIVR
	}
	return op
}

// x87Load loads and widens the memory operand exactly.
func (c *CPU) x87Load(in *decode.Inst, va uint64) (v x86.F80, denormal, ok bool) {
	var u uint64
	size := x87Size(in)
	if size == 10 {
		var hi uint16
		if !c.probeRead(va, 10) {
			return v, false, false
		}
		u, ok = c.ld64(va)
		if ok {
			hi, ok = c.ld16(c.after(va, 8))
		}
		v = x86.F80{Mant: u, SE: hi}
		if in.Op == optab.FBLD {
			var p [10]byte
			putF80(p[:], v)
			v = fp.FromBCD(p)
		}
		return v, false, ok
	}
	if u, ok = c.load(va, size); !ok {
		return v, false, false
	}
	switch op := in.Op; {
	case op == optab.FILD || op >= optab.FIADD && op <= optab.FIDIVR:
		v = fp.FromInt80(int64(signExtend(u, size)))
	case size == 4:
		v, denormal = fp.Extend32(uint32(u))
	default:
		v, denormal = fp.Extend64(u)
	}
	return v, denormal, true
}

// x87LoadPush is FLD, FILD and FBLD from memory. The 80-bit form raises nothing.
func (c *CPU) x87LoadPush(in *decode.Inst, v x86.F80, denormal bool) {
	if c.fpu.empty(7) {
		var f fp.Flags
		if in.Op == optab.FLD && x87Size(in) != 10 {
			v, f = fp.Quiet(v)
			if denormal {
				f |= fp.DE
			}
		}
		if c.x87Flags(uint16(f)); f&fp.IE != 0 && c.fpu.fcw&fswIE == 0 {
			return // an unmasked denormal operand is loaded all the same
		}
	}
	c.x87Push(v)
}

// x87Store is FST, FIST, FBSTP and their kin to memory.
func (c *CPU) x87Store(in *decode.Inst, va uint64) status {
	s := &c.fpu
	var v x86.F80
	var sw uint16
	if s.empty(0) {
		if s.fcw&fswIE == 0 {
			return c.x87NoStore(in, va, stackUnderflow)
		}
		v, sw = fp.Indefinite(), stackUnderflow
	} else {
		v = *s.st(0)
	}
	u, p, f := c.x87Narrow(in, v)
	if sw == 0 {
		sw = f
	}
	const stops = uint16(fp.AllFlags &^ fp.PE)
	if sw&stops&^s.fcw == 0 {
		if size := x87Size(in); size == 10 {
			if !c.probeWrite(va, 10) || !c.aligned(va, 10) || !c.stBytes(va, s.tenBytes(p)) {
				return faulted
			}
		} else if !c.store(va, u, size) {
			return faulted
		}
		c.x87Flags(sw)
		if in.Op != optab.FST && in.Op != optab.FIST {
			s.pop()
		}
		return next
	}
	return c.x87NoStore(in, va, sw)
}

// x87NoStore ends a store that an unmasked exception stops: the memory operand
// still faults first.
func (c *CPU) x87NoStore(in *decode.Inst, va uint64, sw uint16) status {
	if size := uint64(x87Size(in)); !c.probeWrite(va, size) || !c.aligned(va, size) {
		return faulted
	}
	c.x87Flags(sw)
	return next
}

// tenBytes keeps p where the memory side may take its address.
func (s *fpuState) tenBytes(p [10]byte) []byte {
	copy(s.scratch[:], p[:])
	return s.scratch[:10]
}

// x87Narrow converts v to the memory operand's form: u, or p if it has ten bytes.
func (c *CPU) x87Narrow(in *decode.Inst, v x86.F80) (u uint64, p [10]byte, sw uint16) {
	cw := c.fpu.fcw
	size := x87Size(in)
	switch {
	case in.Op == optab.FBSTP:
		p, sw = fp.ToBCD(v, cw)
	case in.Op != optab.FST && in.Op != optab.FSTP:
		i, w := fp.ToInt80(v, uint(size)*8, cw, in.Op == optab.FISTTP)
		u, sw = uint64(i), w
	case size == 4:
		x, w := fp.To32(v, cw)
		u, sw = uint64(x), w
	case size == 8:
		u, sw = fp.To64(v, cw)
	default:
		putF80(p[:], v)
	}
	return u, p, sw
}
