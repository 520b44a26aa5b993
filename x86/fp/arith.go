package fp

import "math/bits"

// add returns a + b.
func (c *ctx) add(a, b num, f *format) num {
	if r, done := c.operands(&a, &b); done {
		return r
	}
	if a.class == inf && b.class == inf && a.sign != b.sign {
		return c.invalid()
	}
	c.denormals(a, b)
	switch {
	case a.class == inf:
		return a
	case b.class == inf:
		return b
	case a.class == zero && b.class == zero:
		return num{sign: a.sign && b.sign || a.sign != b.sign && c.rc == toDown}
	case a.class == zero:
		return c.round(b.sign, b.exp, b.mant, 0, f)
	case b.class == zero:
		return c.round(a.sign, a.exp, a.mant, 0, f)
	}
	if a.exp < b.exp || a.exp == b.exp && a.mant < b.mant {
		a, b = b, a
	}
	bh, bl := shiftJam(b.mant, 0, uint(a.exp-b.exp))
	if a.sign == b.sign {
		hi, carry := bits.Add64(a.mant, bh, 0)
		if carry != 0 {
			hi, bl = shiftJam(hi, bl, 1)
			return c.round(a.sign, a.exp+1, hi|1<<63, bl, f)
		}
		return c.round(a.sign, a.exp, hi, bl, f)
	}
	lo, borrow := bits.Sub64(0, bl, 0)
	hi, _ := bits.Sub64(a.mant, bh, borrow)
	if hi|lo == 0 {
		return num{sign: c.rc == toDown}
	}
	return c.roundAny(a.sign, a.exp, hi, lo, f)
}

// roundAny is round for any hi:lo but 0.
func (c *ctx) roundAny(sign bool, exp int32, hi, lo uint64, f *format) num {
	if hi == 0 {
		hi, lo, exp = lo, 0, exp-64
	}
	z := uint(bits.LeadingZeros64(hi))
	if z > 0 {
		hi, lo = hi<<z|lo>>(64-z), lo<<z
	}
	return c.round(sign, exp-int32(z), hi, lo, f)
}

// sub returns a - b.
func (c *ctx) sub(a, b num, f *format) num {
	if !b.nan() {
		b.sign = !b.sign
	}
	return c.add(a, b, f)
}

// mul returns a * b.
func (c *ctx) mul(a, b num, f *format) num {
	if r, done := c.operands(&a, &b); done {
		return r
	}
	sign := a.sign != b.sign
	if a.class == inf && b.class == zero || a.class == zero && b.class == inf {
		return c.invalid()
	}
	c.denormals(a, b)
	switch {
	case a.class == inf || b.class == inf:
		return num{class: inf, sign: sign}
	case a.class == zero || b.class == zero:
		return num{sign: sign}
	}
	hi, lo := bits.Mul64(a.mant, b.mant)
	return c.roundAny(sign, a.exp+b.exp+1, hi, lo, f)
}

// div returns a / b.
func (c *ctx) div(a, b num, f *format) num {
	if r, done := c.operands(&a, &b); done {
		return r
	}
	sign := a.sign != b.sign
	if a.class == b.class && a.class != finite {
		return c.invalid() // 0/0 or ∞/∞
	}
	if b.class == zero && a.class == finite {
		c.raise(ZE)
		return num{class: inf, sign: sign}
	}
	c.denormals(a, b)
	switch {
	case a.class == inf:
		return num{class: inf, sign: sign}
	case a.class == zero || b.class == inf:
		return num{sign: sign}
	}
	exp := a.exp - b.exp
	hi, lo := a.mant>>1, a.mant<<63
	if a.mant < b.mant {
		hi, lo, exp = a.mant, 0, exp-1
	}
	q, r := bits.Div64(hi, lo, b.mant)
	q2, r := bits.Div64(r, 0, b.mant)
	return c.round(sign, exp, q, q2|b2u(r != 0), f)
}

// sqrt returns the square root of a.
func (c *ctx) sqrt(a num, f *format) num {
	b := num{}
	if r, done := c.operands(&a, &b); done {
		return r
	}
	if a.sign && a.class != zero {
		return c.invalid()
	}
	c.denormals(a, b)
	if a.class != finite {
		return a
	}
	// The root of the 128-bit mant << 63 or 64 has 64 bits.
	hi, lo := a.mant, uint64(0)
	if a.exp&1 == 0 {
		hi, lo = hi>>1, hi<<63
	}
	root, rest, over := sqrt128(hi, lo)
	sticky := b2u(rest != 0)
	if over || rest > root {
		sticky |= 1 << 63
	}
	return c.round(false, a.exp>>1, root, sticky, f)
}

// sqrt128 returns floor(sqrt(hi:lo)) and the remainder, whose 65th bit is over.
func sqrt128(hi, lo uint64) (root, rest uint64, over bool) {
	var restHi uint64
	for range 64 {
		// Two bits of the radicand come down; the trial subtrahend is 4*root+1.
		restHi = restHi<<2 | rest>>62
		rest = rest<<2 | hi>>62
		hi, lo = hi<<2|lo>>62, lo<<2
		th, tl := root>>62, root<<2|1
		root <<= 1
		if restHi > th || restHi == th && rest >= tl {
			var borrow uint64
			rest, borrow = bits.Sub64(rest, tl, 0)
			restHi, _ = bits.Sub64(restHi, th, borrow)
			root |= 1
		}
	}
	return root, rest, restHi != 0
}

// convert returns a in another format.
func (c *ctx) convert(a num, f *format) num {
	b := num{}
	if r, done := c.operands(&a, &b); done {
		return r
	}
	c.denormals(a, b)
	if a.class != finite {
		return a
	}
	return c.round(a.sign, a.exp, a.mant, 0, f)
}

// order is how two operands compare.
type order uint8

const (
	equal order = iota
	less
	greater
	unordered
)

// compare orders a and b; a signalling comparison raises invalid for any NaN.
func (c *ctx) compare(a, b num, signalling bool) order {
	if c.daz {
		a.flush()
		b.flush()
	}
	if a.nan() || b.nan() {
		if signalling || a.class >= snan || b.class >= snan {
			c.raise(IE)
		}
		return unordered
	}
	c.denormals(a, b)
	return a.order(b)
}

// order compares numbers that are no NaNs.
func (a num) order(b num) order {
	if a.class == zero && b.class == zero {
		return equal
	}
	if a.sign != b.sign && a.class != zero && b.class != zero || a.class == zero || b.class == zero {
		if a.class == zero && b.sign || a.class != zero && !a.sign {
			return greater
		}
		return less
	}
	smaller, larger := less, greater
	if a.sign {
		smaller, larger = larger, smaller
	}
	switch {
	case a.class == b.class && (a.class == inf || a.exp == b.exp && a.mant == b.mant):
		return equal
	case b.class == inf, a.class == finite && (a.exp < b.exp || a.exp == b.exp && a.mant < b.mant):
		return smaller
	}
	return larger
}

// integral rounds a to an integer value: m * 2^0 if it fits 64 bits (big says it does not).
func (c *ctx) integral(a num, rc uint8) (m uint64, big, inexact, up bool) {
	if a.class == zero {
		return 0, false, false, false
	}
	if a.exp > 63 || a.class == inf {
		return 0, true, false, false
	}
	if a.exp == 63 {
		return a.mant, false, false, false
	}
	hi, lo := shiftJam(a.mant, 0, uint(63-a.exp))
	t := ctx{rc: rc}
	if t.increment(a.sign, hi&1 != 0, lo) {
		return hi + 1, hi+1 == 0, true, true
	}
	return hi, false, lo != 0, false
}

// toInt converts a to a signed integer of 16, 32 or 64 bits; out of range is
// invalid and the integer indefinite.
func (c *ctx) toInt(a num, width uint, rc uint8) int64 {
	if c.daz {
		a.flush()
	}
	indef := int64(-1) << (width - 1)
	if a.nan() {
		c.raise(IE)
		return indef
	}
	m, big, inexact, up := c.integral(a, rc)
	limit := uint64(1) << (width - 1)
	if big || m > limit || m == limit && !a.sign {
		c.raise(IE)
		return indef
	}
	c.up = up
	if inexact {
		c.raise(PE)
	}
	if a.sign {
		return -int64(m)
	}
	return int64(m)
}

// fromInt unpacks an integer.
func fromInt(v int64) num {
	if v == 0 {
		return num{}
	}
	m := uint64(v)
	if v < 0 {
		m = -m
	}
	z := bits.LeadingZeros64(m)
	return num{class: finite, sign: v < 0, exp: int32(63 - z), mant: m << z}
}

// roundInt rounds a to an integral value in its own format; quiet hides inexact.
func (c *ctx) roundInt(a num, rc uint8, quiet bool) num {
	b := num{}
	if r, done := c.operands(&a, &b); done {
		return r
	}
	if c.x87 {
		c.denormals(a, b)
	}
	if a.class != finite || a.exp >= 63 {
		return a
	}
	m, _, inexact, up := c.integral(a, rc)
	c.up = up
	if inexact && !quiet {
		c.raise(PE)
	}
	if m == 0 {
		return num{sign: a.sign}
	}
	r := fromInt(int64(m))
	r.sign = a.sign
	if m>>63 != 0 {
		r = num{finite, a.sign, false, 63, m}
	}
	return r
}
