package fp

import "math/bits"

// class is what an operand is.
type class uint8

const (
	zero class = iota
	finite
	inf
	qnan
	snan
	unsupported // x87: an encoding the CPU no longer takes
)

// num is an unpacked operand or result of any format. A finite one is
// mant/2^63 * 2^exp with bit 63 of mant set; a NaN has its significand in mant,
// left-justified, so that bit 62 is the quiet bit.
type num struct {
	class  class
	sign   bool
	denorm bool // was denormal before it was normalised here
	exp    int32
	mant   uint64
}

func (n num) nan() bool { return n.class >= qnan }

// format is a floating-point format's shape.
type format struct {
	prec       uint // bits of significand
	emin, emax int32
}

var (
	f32 = format{24, -126, 127}
	f64 = format{53, -1022, 1023}
	f80 = format{64, -16382, 16383}
)

// Rounding modes, as MXCSR and the control word number them.
const (
	toNearest = iota
	toDown
	toUp
	toZero
)

const indefinite = 3 << 62 // the default NaN's significand

// ctx is the environment of one operation and collects what it raises.
type ctx struct {
	rc       uint8
	daz, ftz bool
	masked   Flags
	x87      bool
	scale    bool // unmasked overflow and underflow give a scaled result
	f        Flags
	before   Flags // of the steps that came before, all masked
	up       bool  // the last rounding increased the magnitude (x87's C1)
}

func (c *ctx) raise(f Flags) { c.f |= f }

// step begins the next step of an operation; false: an unmasked exception keeps
// it from being taken.
func (c *ctx) step() bool {
	if c.f&^c.masked != 0 {
		return false
	}
	c.before, c.f = c.before|c.f, 0
	return true
}

// flags is what the operation leaves in MXCSR: all of the steps before, what
// visible lets through of the last.
func (c *ctx) flags() Flags {
	if c.f&PreFlags&^c.masked != 0 {
		return c.before | c.f&PreFlags
	}
	return c.before | c.f
}

func sseCtx(mxcsr uint32) ctx {
	return ctx{rc: uint8(mxcsr>>csrRCShift) & 3, daz: mxcsr&csrDAZ != 0, ftz: mxcsr&csrFTZ != 0, masked: Masked(mxcsr)}
}

// unpack takes apart an IEEE number of f: sign, biased exponent, fraction.
func unpack(sign bool, e int32, frac uint64, f *format) num {
	n := num{sign: sign, mant: frac << (64 - f.prec)}
	switch {
	case e == 0 && frac == 0:
	case e == 0:
		s := bits.LeadingZeros64(n.mant)
		n.class, n.denorm, n.exp, n.mant = finite, true, f.emin-int32(s), n.mant<<s
	case e == 2*f.emax+1 && frac == 0:
		n.class = inf
	case e == 2*f.emax+1:
		n.class = snan
		if n.mant>>62&1 != 0 {
			n.class = qnan
		}
		n.mant |= 1 << 63
	default:
		n.class, n.exp, n.mant = finite, e-f.emax, n.mant|1<<63
	}
	return n
}

func unpack32(v uint32) num {
	return unpack(v>>31 != 0, int32(v>>23&0xff), uint64(v&(1<<23-1)), &f32)
}

func unpack64(v uint64) num {
	return unpack(v>>63 != 0, int32(v>>52&0x7ff), v&(1<<52-1), &f64)
}

// pack returns biased exponent and fraction of a number that fits f.
func (n num) pack(f *format) (e, frac uint64) {
	switch n.class {
	case zero:
		return 0, 0
	case inf:
		return uint64(2*f.emax + 1), 0
	case finite:
		if n.exp < f.emin {
			return 0, n.mant >> (64 - f.prec + uint(f.emin-n.exp))
		}
		return uint64(n.exp + f.emax), n.mant << 1 >> (65 - f.prec)
	}
	return uint64(2*f.emax + 1), n.mant << 1 >> (65 - f.prec)
}

func (n num) pack32() uint32 {
	e, frac := n.pack(&f32)
	return uint32(b2u(n.sign)<<31 | e<<23 | frac)
}

func (n num) pack64() uint64 {
	e, frac := n.pack(&f64)
	return b2u(n.sign)<<63 | e<<52 | frac
}

func b2u(b bool) uint64 {
	if b {
		return 1
	}
	return 0
}

// defaultNaN raises invalid.
func (c *ctx) invalid() num {
	c.raise(IE)
	return num{class: qnan, sign: true, mant: indefinite}
}

func quiet(n num) num {
	n.class = qnan
	n.mant |= indefinite
	return n
}

// nans handles operands of which one is a NaN or unsupported (Intel SDM vol. 1 table 4-7).
func (c *ctx) nans(a, b num) num {
	if a.class == unsupported || b.class == unsupported {
		return c.invalid()
	}
	if a.class == snan || b.class == snan {
		c.raise(IE)
	}
	if !c.x87 {
		if a.nan() {
			return quiet(a)
		}
		return quiet(b)
	}
	switch {
	case !b.nan():
		return quiet(a)
	case !a.nan():
		return quiet(b)
	case a.class != b.class: // the quiet one
		if a.class == qnan {
			return a
		}
		return b
	}
	switch {
	case a.mant > b.mant, a.mant == b.mant && !a.sign:
		return quiet(a)
	}
	return quiet(b)
}

// operands applies DAZ, raises DE, and deals with NaNs: done means r is the result.
func (c *ctx) operands(a, b *num) (r num, done bool) {
	if c.daz {
		a.flush()
		b.flush()
	}
	if a.nan() || b.nan() {
		return c.nans(*a, *b), true
	}
	return num{}, false
}

func (n *num) flush() {
	if n.denorm {
		*n = num{sign: n.sign}
	}
}

func (c *ctx) denormals(a, b num) {
	if a.denorm || b.denorm {
		c.raise(DE)
	}
}

// increment reports whether rounding rest (the bits below the last one kept,
// left-justified, sticky) away from zero is due.
func (c *ctx) increment(sign, odd bool, rest uint64) bool {
	switch c.rc {
	case toNearest:
		return rest > 1<<63 || rest == 1<<63 && odd
	case toDown:
		return sign && rest != 0
	case toUp:
		return !sign && rest != 0
	}
	return false
}

// cut rounds hi:lo (bit 63 of hi set) to prec bits: a significand with its low
// bits clear, whether it overflowed to the next power of two, and exactness.
func (c *ctx) cut(sign bool, hi, lo uint64, prec uint) (m uint64, carry, inexact, up bool) {
	shift := 64 - prec
	rest := lo
	if shift > 0 {
		rest = hi<<prec | b2u(lo != 0)
		hi = hi >> shift << shift
	}
	if rest == 0 {
		return hi, false, false, false
	}
	if !c.increment(sign, hi>>shift&1 != 0, rest) {
		return hi, false, true, false
	}
	m = hi + 1<<shift
	if m == 0 {
		return 1 << 63, true, true, true
	}
	return m, false, true, true
}

// round brings the finite hi:lo * 2^exp into f (Intel SDM vol. 1 §4.9.1.4 to
// §4.9.1.6): hi has bit 63 set, lo holds the bits below, the last one sticky.
func (c *ctx) round(sign bool, exp int32, hi, lo uint64, f *format) num {
	m, carry, inexact, up := c.cut(sign, hi, lo, f.prec)
	e := exp
	if carry {
		e++
	}
	if e < f.emin {
		return c.tiny(sign, exp, hi, lo, f, num{finite, sign, false, e, m}, inexact, up)
	}
	if e > f.emax {
		return c.overflow(num{finite, sign, false, e, m}, inexact, up, f)
	}
	c.up = up
	if inexact {
		c.raise(PE)
	}
	return num{finite, sign, false, e, m}
}

// wrap is the exponent's bias adjustment of a scaled result.
const wrap = 24576

// overflow handles a rounded result r above f.
func (c *ctx) overflow(r num, inexact, up bool, f *format) num {
	c.raise(OE)
	if c.masked&OE == 0 {
		c.up = up
		if inexact {
			c.raise(PE)
		}
		if c.scale {
			r.exp -= wrap
		}
		return r
	}
	c.raise(PE)
	if c.rc == toZero || c.rc == toDown && !r.sign || c.rc == toUp && r.sign {
		c.up = false
		return num{finite, r.sign, false, f.emax, ^uint64(0) << (64 - f.prec)}
	}
	c.up = true
	return num{class: inf, sign: r.sign}
}

// tiny handles a result below f's normal range: r is what an unbounded exponent gives.
func (c *ctx) tiny(sign bool, exp int32, hi, lo uint64, f *format, r num, inexact, up bool) num {
	if c.masked&UE == 0 {
		c.raise(UE)
		c.up = up
		if inexact {
			c.raise(PE)
		}
		if c.scale {
			r.exp += wrap
		}
		return r
	}
	if c.ftz {
		c.raise(UE | PE)
		return num{sign: sign}
	}
	hi, lo = shiftJam(hi, lo, uint(f.emin-exp))
	m, _, inexact, up := c.cut(sign, hi, lo, f.prec)
	c.up = up
	if inexact {
		c.raise(UE | PE)
	}
	if m == 0 {
		return num{sign: sign}
	}
	z := bits.LeadingZeros64(m)
	return num{finite, sign, false, f.emin - int32(z), m << z}
}

// shiftJam shifts hi:lo right by n; what falls out stays as the lowest bit.
func shiftJam(hi, lo uint64, n uint) (uint64, uint64) {
	switch {
	case n == 0:
		return hi, lo
	case n < 64:
		return hi >> n, hi<<(64-n) | lo>>n | b2u(lo<<(64-n) != 0)
	case n < 128:
		n -= 64
		return 0, hi>>n | b2u(hi<<(64-n)|lo != 0)
	}
	return 0, b2u(hi|lo != 0)
}
