package fp

import (
	"math/bits"

	"berth/x86"
	"berth/x86/optab"
)

func unpack80(v x86.F80) num {
	n := num{sign: v.SE>>15 != 0, mant: v.Mant}
	switch e := int32(v.SE & 0x7fff); {
	case e == 0 && v.Mant == 0:
	case e == 0:
		s := bits.LeadingZeros64(v.Mant)
		n.class, n.denorm, n.exp, n.mant = finite, true, f80.emin-int32(s), v.Mant<<s
	case v.Mant>>63 == 0:
		n.class = unsupported
	case e != 0x7fff:
		n.class, n.exp = finite, e-f80.emax
	case v.Mant == 1<<63:
		n.class = inf
	case v.Mant>>62 == 3:
		n.class = qnan
	default:
		n.class = snan
	}
	return n
}

func (n num) pack80() x86.F80 {
	v := x86.F80{Mant: n.mant, SE: uint16(b2u(n.sign) << 15)}
	switch {
	case n.class == zero:
		v.Mant = 0
	case n.class == finite && n.exp < f80.emin:
		v.Mant >>= uint(f80.emin - n.exp)
	case n.class == finite:
		v.SE |= uint16(n.exp + f80.emax)
	case n.class == inf:
		v.Mant = 1 << 63
		v.SE |= 0x7fff
	default:
		v.SE |= 0x7fff
	}
	return v
}

// Indefinite is the x87's default NaN.
func Indefinite() x86.F80 { return x86.F80{Mant: indefinite, SE: 0xffff} }

func x87Ctx(cw uint16) ctx {
	return ctx{rc: uint8(cw>>10) & 3, masked: Flags(cw) & AllFlags, x87: true, scale: true}
}

// precision returns the result format of add, subtract, multiply, divide and
// square root (Intel SDM vol. 1 table 8-2); the reserved setting acts as 64 bits.
func precision(cw uint16) *format {
	switch cw >> 8 & 3 {
	case 0:
		return &format{24, f80.emin, f80.emax}
	case 2:
		return &format{53, f80.emin, f80.emax}
	}
	return &f80
}

// status returns what c raised, with C1.
func (c *ctx) status() uint16 {
	sw := uint16(c.f)
	if c.up && c.f&PE != 0 {
		sw |= C1
	}
	return sw
}

// softX87 is X87 in software.
func softX87(op optab.Op, r *[2]x86.F80, cw uint16) uint16 {
	c := x87Ctx(cw)
	a, b := unpack80(r[0]), unpack80(r[1])
	var cc uint16
	switch op {
	case optab.FADD:
		a = c.add(a, b, precision(cw))
	case optab.FSUB:
		a = c.sub(a, b, precision(cw))
	case optab.FSUBR:
		a = c.sub(b, a, precision(cw))
	case optab.FMUL:
		a = c.mul(a, b, precision(cw))
	case optab.FDIV:
		a = c.div(a, b, precision(cw))
	case optab.FDIVR:
		a = c.div(b, a, precision(cw))
	case optab.FSQRT:
		a = c.sqrt(a, precision(cw))
	case optab.FRNDINT:
		a = c.roundInt(a, c.rc, false)
	case optab.FSCALE:
		a = c.scaleBy(a, b)
	case optab.FPREM:
		a, cc = c.remainder(a, b, false)
	case optab.FPREM1:
		a, cc = c.remainder(a, b, true)
	case optab.FXTRACT:
		a, b = c.extract(a)
		r[1] = b.pack80()
	default:
		var pushed bool
		if a, b, pushed = c.transcendental(op, a, b); pushed {
			r[1] = b.pack80()
		}
	}
	r[0] = a.pack80()
	return c.status() | cc
}

// scaleBy is FSCALE: a * 2^trunc(b).
func (c *ctx) scaleBy(a, b num) num {
	if r, done := c.operands(&a, &b); done {
		return r
	}
	if b.class == inf && (a.class == inf && b.sign || a.class == zero && !b.sign) {
		return c.invalid()
	}
	c.denormals(a, b)
	switch {
	case a.class != finite:
		return a
	case b.class == inf && b.sign:
		return num{sign: a.sign}
	case b.class == inf:
		return num{class: inf, sign: a.sign}
	}
	n := int64(1 << 17)
	if b.class == zero {
		n = 0
	} else if b.exp < 17 {
		m, _, _, _ := c.integral(b, toZero)
		n = int64(m)
	}
	if b.sign {
		n = -n
	}
	return c.roundScaled(a.sign, int64(a.exp)+n, a.mant)
}

// roundScaled rounds a result whose exponent may be beyond what even the
// scaling of unmasked overflow and underflow brings back.
func (c *ctx) roundScaled(sign bool, exp int64, mant uint64) num {
	if exp-wrap > int64(f80.emax) && c.masked&OE == 0 {
		c.raise(OE | PE)
		c.up = true
		return num{class: inf, sign: sign}
	}
	if exp+wrap < int64(f80.emin) && c.masked&UE == 0 {
		c.raise(UE | PE)
		return num{sign: sign}
	}
	return c.round(sign, int32(exp), mant, 0, &f80)
}

// remainder is FPREM, and FPREM1 with near: the quotient is rounded to nearest.
// The condition codes hold the quotient's low bits, or C2 if the reduction is
// not complete (Intel SDM vol. 2, FPREM): then the exponents come nearer by 32 to
// 63, to a multiple of 32.
func (c *ctx) remainder(a, b num, near bool) (num, uint16) {
	if r, done := c.operands(&a, &b); done {
		return r, 0
	}
	if a.class == inf || b.class == zero {
		return c.invalid(), 0
	}
	c.denormals(a, b)
	if a.class == zero {
		return a, 0
	}
	if b.class == inf {
		return c.round(a.sign, a.exp, a.mant, 0, &f80), 0
	}
	d := a.exp - b.exp
	if d < -1 || d < 0 && !near {
		return c.round(a.sign, a.exp, a.mant, 0, &f80), 0
	}
	steps, partial := d, false
	if d >= 64 {
		steps, partial = d&31|32, true
	}
	rest, q := divide(a.mant, b.mant, steps)
	exp := b.exp + d - steps // the exponent of rest's bit 63
	if partial {
		if rest == 0 {
			return num{sign: a.sign}, C2
		}
		return c.roundAny(a.sign, exp, rest, 0, &f80), C2
	}
	sign := a.sign
	if near {
		rest, exp, q, sign = nearRest(a, b, rest, q, d)
	}
	cc := uint16(q>>2&1*C0 | q>>1&1*C3 | q&1*C1)
	if rest == 0 {
		return num{sign: a.sign}, cc
	}
	r := c.roundAny(sign, exp, rest, 0, &f80)
	c.up = false
	return r, cc
}

// divide does steps+1 steps of a binary long division of a by b: the remainder,
// at b's scale, and the quotient's low bits. With steps -1 nothing is done and
// a stands half as high as b.
func divide(a, b uint64, steps int32) (rest, q uint64) {
	rest = a
	over := false // rest's bit 64
	for i := int32(0); i <= steps; i++ {
		if i > 0 {
			over = rest>>63 != 0
			rest <<= 1
		}
		q <<= 1
		if over || rest >= b {
			rest -= b
			q |= 1
		}
	}
	return rest, q
}

// nearRest turns FPREM's remainder into FPREM1's.
func nearRest(a, b num, rest, q uint64, d int32) (uint64, int32, uint64, bool) {
	exp, sign := b.exp, a.sign
	if d < 0 { // a is at b.exp-1: compare it with b/2
		if a.mant > b.mant {
			// b - a, at a's scale, where b is 2*b.mant.
			return b.mant - (a.mant - b.mant), a.exp, 1, !sign
		}
		return a.mant, a.exp, 0, sign
	}
	other := b.mant - rest
	if rest > other || rest == other && q&1 != 0 {
		return other, exp, q + 1, !sign
	}
	return rest, exp, q, sign
}

// extract is FXTRACT: exponent and significand.
func (c *ctx) extract(a num) (exp, sig num) {
	b := num{}
	if r, done := c.operands(&a, &b); done {
		return r, r
	}
	switch a.class {
	case zero:
		c.raise(ZE)
		return num{class: inf, sign: true}, a
	case inf:
		return num{class: inf}, a
	}
	c.denormals(a, b)
	exp = fromInt(int64(a.exp))
	a.exp, a.denorm = 0, false
	return exp, a
}

// CompareX87 orders a and b as FCOM does, and as FUCOM (quiet). The result has
// the flags and, at their places, C0, C2 and C3.
func CompareX87(a, b x86.F80, quiet bool) uint16 {
	c := ctx{x87: true}
	var cc uint16
	switch c.compare(unpack80(a), unpack80(b), !quiet) {
	case less:
		cc = C0
	case equal:
		cc = C3
	case unordered:
		cc = C0 | C2 | C3
	}
	return uint16(c.f) | cc
}

// Examine returns FXAM's condition codes for a register that is not empty.
func Examine(v x86.F80) uint16 {
	n := unpack80(v)
	cc := uint16(b2u(n.sign) * C1)
	switch {
	case n.class == qnan || n.class == snan:
		cc |= C0
	case n.class == inf:
		cc |= C0 | C2
	case n.class == zero:
		cc |= C3
	case n.denorm:
		cc |= C2 | C3
	case n.class == finite:
		cc |= C2
	}
	return cc
}

// IsNaN reports a NaN or an unsupported encoding.
func IsNaN(v x86.F80) bool { return unpack80(v).nan() }

// Extend32 and Extend64 widen a memory operand exactly: signalling NaNs stay
// signalling, and denormal says that the operand was one.
func Extend32(v uint32) (x x86.F80, denormal bool) {
	n := unpack32(v)
	return n.pack80(), n.denorm
}

// Extend64 is documented with Extend32.
func Extend64(v uint64) (x x86.F80, denormal bool) {
	n := unpack64(v)
	return n.pack80(), n.denorm
}

// Quiet makes a NaN quiet; the flag says that it was signalling.
func Quiet(v x86.F80) (x86.F80, Flags) {
	if unpack80(v).class == snan {
		v.Mant |= indefinite
		return v, IE
	}
	return v, 0
}

// FromInt80 widens an integer.
func FromInt80(v int64) x86.F80 { return fromInt(v).pack80() }

// narrow rounds v for FST; with an unmasked flag other than PE nothing is to be stored.
func narrow(v x86.F80, cw uint16, f *format) (num, uint16) {
	c := x87Ctx(cw)
	c.scale = false
	a := unpack80(v)
	a.denorm = false // FST does not report it
	n := c.convert(a, f)
	if left := c.f & (OE | UE) &^ c.masked; left != 0 {
		return n, uint16(left) // inexactness goes unreported
	}
	return n, visible87(c.status(), cw)
}

// To32 converts for FST to memory under cw; the result is as X87's.
func To32(v x86.F80, cw uint16) (uint32, uint16) {
	n, sw := narrow(v, cw, &f32)
	if sw&uint16(OE|UE)&^cw != 0 {
		return 0, sw
	}
	return n.pack32(), sw
}

// To64 is To32 for the 64-bit format.
func To64(v x86.F80, cw uint16) (uint64, uint16) {
	n, sw := narrow(v, cw, &f64)
	if sw&uint16(OE|UE)&^cw != 0 {
		return 0, sw
	}
	return n.pack64(), sw
}

// ToInt80 converts to an integer of width bits, for FIST and (chop) FISTTP.
func ToInt80(v x86.F80, width uint, cw uint16, chop bool) (int64, uint16) {
	c := x87Ctx(cw)
	rc := c.rc
	if chop {
		rc = toZero
	}
	r := c.toInt(unpack80(v), width, rc)
	return r, c.status()
}

// constants are FLD1 to FLDZ: 64 bits and one more with what follows as sticky.
var constants = [...]struct {
	exp    int32
	hi, lo uint64
}{
	optab.FLDL2T - optab.FLD1: {1, 0xd49a784bcd1b8afe, 1 << 62},
	optab.FLDL2E - optab.FLD1: {0, 0xb8aa3b295c17f0bb, 3 << 62},
	optab.FLDPI - optab.FLD1:  {1, 0xc90fdaa22168c234, 3 << 62},
	optab.FLDLG2 - optab.FLD1: {-2, 0x9a209a84fbcff798, 3 << 62},
	optab.FLDLN2 - optab.FLD1: {-1, 0xb17217f7d1cf79ab, 3 << 62},
}

// Constant returns what FLD1, FLDL2T, FLDL2E, FLDPI, FLDLG2, FLDLN2 and FLDZ load.
func Constant(op optab.Op, cw uint16) x86.F80 {
	switch op {
	case optab.FLDZ:
		return x86.F80{}
	case optab.FLD1:
		return FromInt80(1)
	}
	c := x87Ctx(cw)
	k := &constants[op-optab.FLD1]
	return c.round(false, k.exp, k.hi, k.lo, &f80).pack80()
}

// FromBCD converts FBLD's operand: 18 digits, lowest first, and a sign byte.
func FromBCD(p [10]byte) x86.F80 {
	var v uint64
	for i := 8; i >= 0; i-- {
		v = v*100 + uint64(p[i]>>4)*10 + uint64(p[i]&15)
	}
	r := FromInt80(int64(v))
	r.SE |= uint16(p[9]&0x80) << 8
	return r
}

// ToBCD converts for FBSTP.
func ToBCD(v x86.F80, cw uint16) (p [10]byte, sw uint16) {
	c := x87Ctx(cw)
	n := c.toInt(unpack80(v), 64, c.rc)
	if c.f&IE != 0 || n > 999999999999999999 || n < -999999999999999999 {
		return IndefiniteBCD(), uint16(IE)
	}
	if v.SE>>15 != 0 {
		p[9] = 0x80
		n = -n
	}
	for i := range 9 {
		p[i] = uint8(n%10) | uint8(n/10%10)<<4
		n /= 100
	}
	return p, c.status()
}

// IndefiniteBCD is what FBSTP stores for an invalid operand.
func IndefiniteBCD() [10]byte { return [10]byte{7: 0xc0, 8: 0xff, 9: 0xff} }
