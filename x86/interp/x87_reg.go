package interp

import (
	"berth/x86"
	"berth/x86/decode"
	"berth/x86/fp"
	"berth/x86/optab"
)

// x87Register is the instructions on the register stack.
func (c *CPU) x87Register(in *decode.Inst) status {
	s := &c.fpu
	i := in.RM & 7
	switch op := in.Op; op {
	case optab.FADD, optab.FMUL, optab.FSUB, optab.FSUBR, optab.FDIV, optab.FDIVR,
		optab.FADDP, optab.FMULP, optab.FSUBP, optab.FSUBRP, optab.FDIVP, optab.FDIVRP:
		c.x87Binary(in, i)
	case optab.FCOM, optab.FCOMP, optab.FCOMPP, optab.FUCOM, optab.FUCOMP, optab.FUCOMPP:
		c.x87CompareStack(op, i)
	case optab.FCOMI, optab.FCOMIP, optab.FUCOMI, optab.FUCOMIP:
		c.x87CompareFlags(op, i)
	case optab.FLD:
		c.x87Dup(i)
	case optab.FST, optab.FSTP:
		c.x87StoreStack(in, i)
	case optab.FXCH:
		c.x87Exchange(i)
	case optab.FCMOVCC:
		c.x87CondMove(in, i)
	case optab.FLD1, optab.FLDL2T, optab.FLDL2E, optab.FLDPI, optab.FLDLG2, optab.FLDLN2, optab.FLDZ:
		if s.empty(7) {
			c.x87Flags(0)
		}
		c.x87Push(fp.Constant(op, s.fcw))
	case optab.FDECSTP:
		c.x87Flags(0)
		s.top = (s.top - 1) & 7
	case optab.FINCSTP:
		c.x87Flags(0)
		s.top = (s.top + 1) & 7
	case optab.FFREE:
		c.x87Flags(0)
		s.free(i)
	case optab.FFREEP:
		c.x87Flags(0)
		s.free(i)
		s.pop()
	case optab.FXAM:
		cc := fp.Examine(*s.st(0))
		if s.empty(0) {
			cc = cc&fswC1 | fswC0 | fswC3
		}
		s.fsw = s.fsw&^fswCC | cc
	default:
		c.x87Function(op)
	}
	return next
}

// x87Binary is the arithmetic between two stack registers.
func (c *CPU) x87Binary(in *decode.Inst, i uint8) {
	s := &c.fpu
	op := intForm(in.Op)
	dst, src := uint8(0), i
	if in.Row.Args[0] == optab.STi {
		dst, src = i, 0
	}
	bad, done := c.underflow(0, i)
	if !bad {
		done = c.x87Arith(op, dst, *s.st(src), false)
	} else if done {
		s.set(dst, fp.Indefinite())
	}
	if done && op != in.Op {
		s.pop()
	}
}

func (c *CPU) x87CompareStack(op optab.Op, i uint8) {
	s := &c.fpu
	quiet := op == optab.FUCOM || op == optab.FUCOMP || op == optab.FUCOMPP
	if op == optab.FCOMPP || op == optab.FUCOMPP {
		i = 1
	}
	bad, done := c.underflow(0, i)
	if bad {
		c.setCC(fswC0 | fswC2 | fswC3)
	} else {
		done = c.x87Compare(*s.st(i), quiet, false)
	}
	if !done {
		return
	}
	switch op {
	case optab.FCOMPP, optab.FUCOMPP:
		s.pop()
		s.pop()
	case optab.FCOMP, optab.FUCOMP:
		s.pop()
	}
}

// x87CompareFlags sets RFLAGS even if an unmasked exception stops the rest. C1
// is changed by stack faults alone.
func (c *CPU) x87CompareFlags(op optab.Op, i uint8) {
	s := &c.fpu
	sw := uint16(fp.C0 | fp.C2 | fp.C3)
	bad, done := c.underflow(0, i)
	if !bad {
		sw = fp.CompareX87(*s.st(0), *s.st(i), op == optab.FUCOMI || op == optab.FUCOMIP)
		done = c.x87Flags(sw&uint16(fp.AllFlags) | s.fsw&fswC1)
	}
	c.setCompareFlags(sw&fp.C3 != 0, sw&fp.C2 != 0, sw&fp.C0 != 0)
	if done && (op == optab.FCOMIP || op == optab.FUCOMIP) {
		s.pop()
	}
}

// x87Dup is FLD ST(i).
func (c *CPU) x87Dup(i uint8) {
	s := &c.fpu
	v := *s.st(i)
	bad, ok := c.underflow(i)
	switch {
	case !ok:
		return
	case bad:
		s.top = (s.top - 1) & 7
		s.set(0, fp.Indefinite())
		return
	}
	if s.empty(7) {
		c.x87Flags(0)
	}
	c.x87Push(v)
}

// x87StoreStack is FST and FSTP to a register. The 8087's alias D9 D8 stores
// nothing from an empty register and raises nothing.
func (c *CPU) x87StoreStack(in *decode.Inst, i uint8) {
	s := &c.fpu
	if in.Opcode == 0xd9 && s.empty(0) {
		c.x87Flags(0)
		s.pop()
		return
	}
	v := *s.st(0)
	bad, ok := c.underflow(0)
	switch {
	case !ok:
		return
	case bad:
		v = fp.Indefinite()
	default:
		c.x87Flags(0)
	}
	s.set(i, v)
	if in.Op == optab.FSTP {
		s.pop()
	}
}

func (c *CPU) x87Exchange(i uint8) {
	s := &c.fpu
	a, b := *s.st(0), *s.st(i)
	bad, ok := c.underflow(0, i)
	if !ok {
		return
	}
	if !bad {
		c.x87Flags(0)
	}
	if s.empty(0) {
		a = fp.Indefinite()
	}
	if s.empty(i) {
		b = fp.Indefinite()
	}
	s.set(0, b)
	s.set(i, a)
}

func (c *CPU) x87CondMove(in *decode.Inst, i uint8) {
	s := &c.fpu
	bad, ok := c.underflow(0, i)
	if bad {
		if ok {
			s.set(0, fp.Indefinite())
		}
		return
	}
	var on bool
	switch in.Reg & 3 {
	case 0:
		on = c.cf()
	case 1:
		on = c.zf()
	case 2:
		on = c.cf() || c.zf()
	case 3:
		on = c.pf()
	}
	if on == (in.Opcode&1 == 0) {
		*s.st(0) = *s.st(i)
	}
}

// x87Function is the functions of ST0, and of ST0 and ST1.
func (c *CPU) x87Function(op optab.Op) {
	s := &c.fpu
	switch op {
	case optab.FCHS, optab.FABS:
		bad, ok := c.underflow(0)
		switch {
		case bad && ok:
			s.set(0, fp.Indefinite())
		case !bad && op == optab.FCHS:
			c.x87Flags(0)
			s.st(0).SE ^= 0x8000
		case !bad:
			c.x87Flags(0)
			s.st(0).SE &= 0x7fff
		}
	case optab.FTST:
		if bad, _ := c.underflow(0); bad {
			c.setCC(fswC0 | fswC2 | fswC3)
		} else {
			c.x87Compare(x86.F80{}, false, false)
		}
	case optab.FPTAN, optab.FSINCOS, optab.FXTRACT:
		c.x87Push2(op)
	case optab.FYL2X, optab.FYL2XP1, optab.FPATAN:
		bad, ok := c.underflow(0, 1)
		r := [2]x86.F80{fp.Indefinite()}
		if !bad {
			r = [2]x86.F80{*s.st(0), *s.st(1)}
			ok = c.x87Flags(s.arith.X87(op, &r, s.fcw))
		}
		if ok {
			s.set(1, r[0])
			s.pop()
		}
	case optab.FPREM, optab.FPREM1, optab.FSCALE:
		c.x87Remainder(op)
	default: // F2XM1, FSQRT, FRNDINT, FSIN, FCOS
		c.x87Unary(op)
	}
}

func (c *CPU) x87Unary(op optab.Op) {
	s := &c.fpu
	trig := op == optab.FSIN || op == optab.FCOS
	if trig {
		s.fsw &^= fswC2
	}
	bad, ok := c.underflow(0)
	if bad {
		if ok {
			s.set(0, fp.Indefinite())
		}
		return
	}
	if trig && c.outOfRange() {
		return
	}
	r := [2]x86.F80{*s.st(0)}
	ok = c.x87Flags(s.arith.X87(op, &r, s.fcw))
	if ok {
		s.set(0, r[0])
	}
}

// outOfRange refuses a trigonometric operand of 2^63 or more: C2, nothing else.
func (c *CPU) outOfRange() bool {
	s := &c.fpu
	v := *s.st(0)
	if e := v.SE & 0x7fff; e < 0x3fff+63 || e == 0x7fff || v.Mant>>63 == 0 {
		return false
	}
	s.fsw = s.fsw&^fswC1 | fswC2
	return true
}

// x87Remainder is FPREM, FPREM1 and FSCALE.
func (c *CPU) x87Remainder(op optab.Op) {
	s := &c.fpu
	if op != optab.FSCALE {
		s.fsw &^= fswC2
	}
	bad, ok := c.underflow(0, 1)
	if bad {
		if ok {
			s.set(0, fp.Indefinite())
		}
		return
	}
	r := [2]x86.F80{*s.st(0), *s.st(1)}
	sw := s.arith.X87(op, &r, s.fcw)
	ok = c.x87Flags(sw)
	if op != optab.FSCALE && ok && !fp.IsNaN(r[0]) {
		c.setCC(sw)
	}
	if ok {
		s.set(0, r[0])
	}
}

// x87Push2 is the functions with two results.
func (c *CPU) x87Push2(op optab.Op) {
	s := &c.fpu
	trig := op != optab.FXTRACT
	if trig {
		s.fsw &^= fswC2
	}
	if s.empty(0) || !s.empty(7) {
		sw := uint16(stackOverflow)
		if s.empty(0) {
			sw = stackUnderflow
		}
		if c.x87Flags(sw) {
			s.set(0, fp.Indefinite())
			s.top = (s.top - 1) & 7
			s.set(0, fp.Indefinite())
		}
		return
	}
	if trig && c.outOfRange() {
		return
	}
	r := [2]x86.F80{*s.st(0)}
	if c.x87Flags(s.arith.X87(op, &r, s.fcw)) {
		s.set(0, r[0])
		s.top = (s.top - 1) & 7
		s.set(0, r[1])
	}
}
