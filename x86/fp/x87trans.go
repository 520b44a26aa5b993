package fp

import (
	"math/big"
	"math/bits"
	"sync"

	"berth/x86/optab"
)

// The transcendental operations compute with more bits than the result has and
// round once. They serve hosts that are no x86; an x86's own results may differ
// in the last place.

const work = 256 // bits of intermediate results; arguments below 2^63 leave 190 after reduction

func bigNum() *big.Float              { return new(big.Float).SetPrec(work) }
func bigInt(v int64) *big.Float       { return bigNum().SetInt64(v) }
func sum(a, b *big.Float) *big.Float  { return bigNum().Add(a, b) }
func diff(a, b *big.Float) *big.Float { return bigNum().Sub(a, b) }
func prod(a, b *big.Float) *big.Float { return bigNum().Mul(a, b) }
func quot(a, b *big.Float) *big.Float { return bigNum().Quo(a, b) }

// toBig returns a finite number exactly.
func (n num) toBig() *big.Float {
	f := bigNum().SetUint64(n.mant)
	f.SetMantExp(f, int(n.exp)-63)
	if n.sign {
		f.Neg(f)
	}
	return f
}

// fromBig rounds x, which is not 0; exact says that x is no approximation (the
// result is reported as inexact all the same, as x86 CPUs do).
func (c *ctx) fromBig(x *big.Float, exact bool) num {
	m := bigNum()
	e := x.MantExp(m)
	m.Abs(m)
	m.SetMantExp(m, 64)
	hi, acc := m.Uint64()
	var lo uint64
	if acc != big.Exact || !exact {
		m.Sub(m, bigNum().SetUint64(hi))
		m.SetMantExp(m, 64)
		lo, _ = m.Uint64()
		lo |= 1
	}
	r := c.round(x.Signbit(), int32(e-1), hi, lo, &f80)
	c.raise(PE)
	return r
}

// atanhSeries is atanh(t) and, alternating, atan(t), for |t| < 1/2.
func atanhSeries(t *big.Float, alternating bool) *big.Float {
	square := prod(t, t)
	if alternating {
		square.Neg(square)
	}
	total, power := bigNum().Set(t), bigNum().Set(t)
	for k := int64(3); ; k += 2 {
		power.Mul(power, square)
		term := quot(power, bigInt(k))
		if term.Sign() == 0 || term.MantExp(nil) < total.MantExp(nil)-work {
			return total
		}
		total.Add(total, term)
	}
}

// constant values, each computed once
var (
	bigPi = sync.OnceValue(func() *big.Float { // Machin
		a := atanhSeries(quot(bigInt(1), bigInt(5)), true)
		b := atanhSeries(quot(bigInt(1), bigInt(239)), true)
		return diff(prod(bigInt(16), a), prod(bigInt(4), b))
	})
	bigLn2 = sync.OnceValue(func() *big.Float {
		return prod(bigInt(2), atanhSeries(quot(bigInt(1), bigInt(3)), false))
	})
)

// halfPi is what trigonometric operands are reduced by: x86 CPUs take π as 66
// bits (Intel SDM vol. 1 §8.3.8), and programs have seen the difference.
func halfPi() *big.Float {
	p := bigNum().SetUint64(0x243f6a8885a308d3)
	p.SetMantExp(p, -64)
	return quot(sum(p, bigInt(3)), bigInt(2))
}

// expm1 is e^t - 1 for |t| ≤ 1.
func expm1(t *big.Float) *big.Float {
	total, term := bigNum().Set(t), bigNum().Set(t)
	for k := int64(2); ; k++ {
		term.Mul(term, t)
		term.Quo(term, bigInt(k))
		if term.Sign() == 0 || term.MantExp(nil) < total.MantExp(nil)-work {
			return total
		}
		total.Add(total, term)
	}
}

// sinCos is for |t| ≤ π/4.
func sinCos(t *big.Float) (sin, cos *big.Float) {
	square := prod(t, t)
	series := func(first *big.Float, k int64) *big.Float {
		total, term := bigNum().Set(first), bigNum().Set(first)
		for ; ; k += 2 {
			term.Mul(term, square)
			term.Quo(term, bigInt(-k*(k+1)))
			if term.Sign() == 0 || term.MantExp(nil) < total.MantExp(nil)-work {
				return total
			}
			total.Add(total, term)
		}
	}
	return series(t, 2), series(bigInt(1), 1)
}

// atan is for t ≥ 0.
func atan(t *big.Float) *big.Float {
	if t.Cmp(bigInt(1)) > 0 {
		return diff(quot(bigPi(), bigInt(2)), atan(quot(bigInt(1), t)))
	}
	doublings := 0
	for ; t.Sign() != 0 && t.MantExp(nil) > -3; doublings++ {
		root := bigNum().Sqrt(sum(bigInt(1), prod(t, t)))
		t = quot(t, sum(bigInt(1), root))
	}
	r := atanhSeries(t, true)
	return r.SetMantExp(r, doublings)
}

// log2 is for x > 0 finite; exact: x is a power of two.
func log2(a num) (x *big.Float, exact bool) {
	m, e := a, a.exp
	m.exp, m.sign = 0, false
	if m.mant > 0xb504f333f9de6484 { // √2
		m.exp, e = -1, e+1
	}
	f := m.toBig()
	t := quot(diff(f, bigInt(1)), sum(f, bigInt(1)))
	ln := prod(bigInt(2), atanhSeries(t, false))
	return sum(bigInt(int64(e)), quot(ln, bigLn2())), a.mant == 1<<63
}

// log2p1 is log2(1+x) for |x| < 1/2.
func log2p1(x *big.Float) *big.Float {
	t := quot(x, sum(bigInt(2), x))
	return quot(prod(bigInt(2), atanhSeries(t, false)), bigLn2())
}

// transcendental computes op; push says that there is a second result.
func (c *ctx) transcendental(op optab.Op, a, b num) (r, pushed num, push bool) {
	switch op {
	case optab.FYL2X:
		return c.yl2x(a, b), b, false
	case optab.FYL2XP1:
		return c.yl2xp1(a, b), b, false
	case optab.FPATAN:
		return c.patan(a, b), b, false
	case optab.F2XM1:
		return c.f2xm1(a), b, false
	}
	return c.trigonometric(op, a)
}

func (c *ctx) f2xm1(a num) num {
	b := num{}
	if r, done := c.operands(&a, &b); done {
		return r
	}
	c.denormals(a, b)
	switch {
	case a.class == inf && a.sign:
		return num{class: finite, sign: true, mant: 1 << 63}
	case a.class != finite:
		return a
	case a.exp >= 0 && (a.exp > 0 || a.mant<<1 != 0): // beyond ±1: undefined
		return a
	case a.exp == 0 && !a.sign:
		return a // 1
	case a.exp == 0:
		a.exp = -1
		return a // -1/2
	}
	return c.fromBig(expm1(prod(a.toBig(), bigLn2())), false)
}

// trigonometric is FSIN, FCOS, FSINCOS and FPTAN for operands below 2^63.
func (c *ctx) trigonometric(op optab.Op, a num) (r, pushed num, push bool) {
	b := num{}
	push = op == optab.FSINCOS || op == optab.FPTAN
	if r, done := c.operands(&a, &b); done {
		return r, r, push
	}
	if a.class == inf {
		r = c.invalid()
		return r, r, push
	}
	c.denormals(a, b)
	one := num{class: finite, mant: 1 << 63}
	if a.class == zero {
		if op == optab.FCOS {
			return one, b, false
		}
		return a, one, push
	}
	x := a.toBig()
	half := halfPi()
	q := quot(x, half)
	q.Add(q, bigNum().SetFloat64(map[bool]float64{false: 0.5, true: -0.5}[a.sign]))
	turns, _ := q.Int(nil)
	sin, cos := sinCos(diff(x, prod(half, bigNum().SetInt(turns))))
	n := new(big.Int).And(turns, big.NewInt(3)).Int64()
	if n&1 != 0 {
		sin, cos = cos, sin
		cos.Neg(cos)
	}
	if n&2 != 0 {
		sin.Neg(sin)
		cos.Neg(cos)
	}
	switch op {
	case optab.FCOS:
		return c.fromBig(cos, false), b, false
	case optab.FPTAN:
		return c.fromBig(quot(sin, cos), false), one, true
	case optab.FSINCOS:
		pushed = c.fromBig(cos, false)
	}
	return c.fromBig(sin, false), pushed, push
}

// patan is atan(y/x) in the quadrant of the point x, y.
func (c *ctx) patan(x, y num) num {
	if r, done := c.operands(&x, &y); done {
		return r
	}
	c.denormals(x, y)
	quarters := int64(-1) // a multiple of π/4 is the result
	switch {
	case y.class == zero && !x.sign, y.class != inf && x.class == inf && !x.sign:
		return num{sign: y.sign}
	case y.class == zero, y.class != inf && x.class == inf:
		quarters = 4
	case y.class == inf && x.class == inf && x.sign:
		quarters = 3
	case y.class == inf && x.class == inf:
		quarters = 1
	case y.class == inf, x.class == zero:
		quarters = 2
	}
	var r *big.Float
	if quarters >= 0 {
		r = quot(prod(bigPi(), bigInt(quarters)), bigInt(4))
	} else {
		q := quot(y.toBig(), x.toBig())
		r = atan(q.Abs(q))
		if x.sign {
			r = diff(bigPi(), r)
		}
	}
	if y.sign {
		r.Neg(r)
	}
	return c.fromBig(r, false)
}

// yl2x is y * log2(x).
func (c *ctx) yl2x(x, y num) num {
	if r, done := c.operands(&x, &y); done {
		return r
	}
	if x.sign && x.class != zero {
		return c.invalid()
	}
	isOne := x.class == finite && x.exp == 0 && x.mant == 1<<63
	if x.class == zero && y.class == zero || x.class == inf && y.class == zero || isOne && y.class == inf {
		return c.invalid()
	}
	if x.class == zero && y.class == finite {
		c.raise(ZE)
		return num{class: inf, sign: !y.sign}
	}
	c.denormals(x, y)
	negative := x.class == zero || x.class == finite && x.exp < 0
	switch {
	case x.class == zero || x.class == inf || y.class == inf:
		return num{class: inf, sign: y.sign != negative}
	case y.class == zero || isOne:
		return num{sign: y.sign != negative}
	}
	l, exact := log2(x)
	return c.fromBig(prod(l, y.toBig()), exact)
}

// yl2xp1 is y * log2(x+1).
func (c *ctx) yl2xp1(x, y num) num {
	if r, done := c.operands(&x, &y); done {
		return r
	}
	belowMinusOne := x.sign && (x.class == inf || x.class == finite && x.exp >= 0)
	if belowMinusOne || x.class == zero && y.class == inf || x.class == inf && y.class == zero {
		return c.invalid()
	}
	c.denormals(x, y)
	switch {
	case x.class == inf || y.class == inf:
		return num{class: inf, sign: x.sign != y.sign}
	case x.class == zero || y.class == zero:
		return num{sign: x.sign != y.sign}
	}
	if x.exp >= -1 { // outside the defined range: 1+x is a number of moderate size
		f := sum(x.toBig(), bigInt(1))
		m := bigNum()
		e := f.MantExp(m)
		m.SetMantExp(m, 64)
		hi, _ := m.Uint64()
		hi |= 1 << 63 >> bits.LeadingZeros64(hi)
		l, _ := log2(num{class: finite, exp: int32(e - 1), mant: hi})
		return c.fromBig(prod(l, y.toBig()), false)
	}
	return c.fromBig(prod(log2p1(x.toBig()), y.toBig()), false)
}
