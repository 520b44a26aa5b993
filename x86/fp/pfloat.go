package fp

import (
	"math"

	"berth/x86/optab"
)

// lanes of a vector in one format
type lanes struct {
	n      int // how many the operation does
	double bool
}

func (l lanes) get(v *[2]uint64, i int) num {
	if l.double {
		return unpack64(v[i])
	}
	return unpack32(uint32(v[i>>1] >> (i & 1 * 32)))
}

func (l lanes) put(v *[2]uint64, i int, n num) {
	if l.double {
		v[i] = n.pack64()
		return
	}
	put32(v, i, n.pack32())
}

// again makes a result an operand: it may be a denormal.
func (l lanes) again(n num) num {
	var v [2]uint64
	l.put(&v, 0, n)
	return l.get(&v, 0)
}

func (l lanes) mask(v *[2]uint64, i int, on bool) {
	if l.double {
		v[i] = -b2u(on)
		return
	}
	put32(v, i, uint32(-b2u(on)))
}

func get32(v *[2]uint64, i int) uint32 { return uint32(v[i>>1] >> (i & 1 * 32)) }

func put32(v *[2]uint64, i int, x uint32) {
	s := i & 1 * 32
	v[i>>1] = v[i>>1]&^(0xffffffff<<s) | uint64(x)<<s
}

func (l lanes) format() *format {
	if l.double {
		return &f64
	}
	return &f32
}

var (
	ps = lanes{4, false}
	ss = lanes{1, false}
	pd = lanes{2, true}
	sd = lanes{1, true}
)

// softFloat is Float in software.
func softFloat(op optab.Op, dst, src *[2]uint64, imm uint8, mxcsr uint32) Flags {
	c := sseCtx(mxcsr)
	d, s := *dst, *src
	switch op {
	case optab.ADDPS:
		c.binary(ps, &d, &s, opAdd)
	case optab.ADDPD:
		c.binary(pd, &d, &s, opAdd)
	case optab.ADDSS:
		c.binary(ss, &d, &s, opAdd)
	case optab.ADDSD:
		c.binary(sd, &d, &s, opAdd)
	case optab.SUBPS:
		c.binary(ps, &d, &s, opSub)
	case optab.SUBPD:
		c.binary(pd, &d, &s, opSub)
	case optab.SUBSS:
		c.binary(ss, &d, &s, opSub)
	case optab.SUBSD:
		c.binary(sd, &d, &s, opSub)
	case optab.MULPS:
		c.binary(ps, &d, &s, opMul)
	case optab.MULPD:
		c.binary(pd, &d, &s, opMul)
	case optab.MULSS:
		c.binary(ss, &d, &s, opMul)
	case optab.MULSD:
		c.binary(sd, &d, &s, opMul)
	case optab.DIVPS:
		c.binary(ps, &d, &s, opDiv)
	case optab.DIVPD:
		c.binary(pd, &d, &s, opDiv)
	case optab.DIVSS:
		c.binary(ss, &d, &s, opDiv)
	case optab.DIVSD:
		c.binary(sd, &d, &s, opDiv)
	case optab.ADDSUBPS:
		c.addsub(ps, &d, &s)
	case optab.ADDSUBPD:
		c.addsub(pd, &d, &s)
	case optab.HADDPS, optab.HSUBPS:
		c.horizontal(ps, &d, &s, op == optab.HSUBPS)
	case optab.HADDPD, optab.HSUBPD:
		c.horizontal(pd, &d, &s, op == optab.HSUBPD)
	case optab.SQRTPS:
		c.sqrtLanes(ps, &d, &s)
	case optab.SQRTPD:
		c.sqrtLanes(pd, &d, &s)
	case optab.SQRTSS:
		c.sqrtLanes(ss, &d, &s)
	case optab.SQRTSD:
		c.sqrtLanes(sd, &d, &s)
	case optab.DPPS, optab.DPPD:
		c.dot(op == optab.DPPD, []*[2]uint64{&d}, []*[2]uint64{&s}, imm)
	default:
		c.others(op, &d, &s, imm)
	}
	*dst = d
	return c.flags()
}

// others is the operations that do not round in their operands' format.
func (c *ctx) others(op optab.Op, d, s *[2]uint64, imm uint8) {
	switch op {
	case optab.MINPS, optab.MAXPS:
		c.minmax(ps, d, s, op == optab.MAXPS)
	case optab.MINPD, optab.MAXPD:
		c.minmax(pd, d, s, op == optab.MAXPD)
	case optab.MINSS, optab.MAXSS:
		c.minmax(ss, d, s, op == optab.MAXSS)
	case optab.MINSD, optab.MAXSD:
		c.minmax(sd, d, s, op == optab.MAXSD)
	case optab.CMPPS:
		c.cmp(ps, d, s, imm)
	case optab.CMPPD:
		c.cmp(pd, d, s, imm)
	case optab.CMPSS:
		c.cmp(ss, d, s, imm)
	case optab.CMPSDX:
		c.cmp(sd, d, s, imm)
	case optab.ROUNDPS:
		c.roundLanes(ps, d, s, imm)
	case optab.ROUNDPD:
		c.roundLanes(pd, d, s, imm)
	case optab.ROUNDSS:
		c.roundLanes(ss, d, s, imm)
	case optab.ROUNDSD:
		c.roundLanes(sd, d, s, imm)
	case optab.RCPPS:
		c.estimate(ps, d, s, false)
	case optab.RCPSS:
		c.estimate(ss, d, s, false)
	case optab.RSQRTPS:
		c.estimate(ps, d, s, true)
	case optab.RSQRTSS:
		c.estimate(ss, d, s, true)
	default:
		c.conversions(op, d, s)
	}
}

// operation is an arithmetic operation on two operands.
type operation uint8

const (
	opAdd operation = iota
	opSub
	opMul
	opDiv
)

func (c *ctx) do(op operation, a, b num, f *format) num {
	switch op {
	case opAdd:
		return c.add(a, b, f)
	case opSub:
		return c.sub(a, b, f)
	case opMul:
		return c.mul(a, b, f)
	}
	return c.div(a, b, f)
}

func (c *ctx) binary(l lanes, d, s *[2]uint64, op operation) {
	for i := range l.n {
		l.put(d, i, c.do(op, l.get(d, i), l.get(s, i), l.format()))
	}
}

func (c *ctx) sqrtLanes(l lanes, d, s *[2]uint64) {
	for i := range l.n {
		l.put(d, i, c.sqrt(l.get(s, i), l.format()))
	}
}

func (c *ctx) addsub(l lanes, d, s *[2]uint64) {
	for i := range l.n {
		if i&1 == 0 {
			l.put(d, i, c.sub(l.get(d, i), l.get(s, i), l.format()))
		} else {
			l.put(d, i, c.add(l.get(d, i), l.get(s, i), l.format()))
		}
	}
}

func (c *ctx) horizontal(l lanes, d, s *[2]uint64, subtract bool) {
	op := opAdd
	if subtract {
		op = opSub
	}
	var r [2]uint64
	for i := range l.n {
		from, j := d, 2*i
		if j >= l.n {
			from, j = s, j-l.n
		}
		l.put(&r, i, c.do(op, l.get(from, j), l.get(from, j+1), l.format()))
	}
	*d = r
}

// minmax: the second operand wins for NaNs and for zeros of either sign.
func (c *ctx) minmax(l lanes, d, s *[2]uint64, largest bool) {
	for i := range l.n {
		a, b := l.get(d, i), l.get(s, i)
		if c.daz {
			a.flush()
			b.flush()
		}
		want := less
		if largest {
			want = greater
		}
		if c.compare(a, b, true) == want {
			l.put(d, i, a)
		} else {
			l.put(d, i, b)
		}
	}
}

// cmp: predicates 0 EQ, 1 LT, 2 LE, 3 UNORD and their negations 4 to 7.
func (c *ctx) cmp(l lanes, d, s *[2]uint64, imm uint8) {
	for i := range l.n {
		o := c.compare(l.get(d, i), l.get(s, i), imm&3 == 1 || imm&3 == 2)
		var on bool
		switch imm & 3 {
		case 0:
			on = o == equal
		case 1:
			on = o == less
		case 2:
			on = o == less || o == equal
		case 3:
			on = o == unordered
		}
		l.mask(d, i, on != (imm&4 != 0))
	}
}

func (c *ctx) roundLanes(l lanes, d, s *[2]uint64, imm uint8) {
	rc := c.rc
	if imm&4 == 0 {
		rc = imm & 3
	}
	for i := range l.n {
		l.put(d, i, c.roundInt(l.get(s, i), rc, imm&8 != 0))
	}
}

// estimate is the reciprocal, or that of the square root, to 12 bits. It raises
// nothing and takes denormals as zeros (Intel SDM vol. 2, RCPPS).
func (c *ctx) estimate(l lanes, d, s *[2]uint64, root bool) {
	short := format{12, f32.emin, f32.emax}
	one := num{class: finite, mant: 1 << 63}
	for i := range l.n {
		t := ctx{daz: true, ftz: true, masked: AllFlags}
		v := l.get(s, i)
		if root {
			v = t.sqrt(v, &f64)
		}
		l.put(d, i, t.div(one, v, &short))
	}
}

// dot is DPPS and DPPD, or VDPPS, of one or two halves that go through the steps
// together: products that imm's high half selects are added in pairs, and imm's low
// half says which elements get the sum.
func (c *ctx) dot(double bool, d, s []*[2]uint64, imm uint8) {
	l := ps
	if double {
		l = pd
	}
	var p [2][4]num
	for h := range d {
		for i := range l.n {
			if imm>>(4+i)&1 != 0 {
				p[h][i] = l.again(c.mul(l.get(d[h], i), l.get(s[h], i), l.format()))
			}
		}
	}
	if !c.step() {
		return
	}
	var low, high [2]num
	for h := range d {
		low[h] = c.add(p[h][0], p[h][1], l.format())
		if !double {
			high[h] = c.add(p[h][2], p[h][3], l.format())
		}
	}
	if !double && !c.step() {
		return
	}
	for h := range d {
		sum := low[h]
		if !double {
			sum = c.add(l.again(sum), l.again(high[h]), l.format())
		}
		for i := range l.n {
			if imm>>i&1 != 0 {
				l.put(d[h], i, sum)
			} else {
				l.put(d[h], i, num{})
			}
		}
	}
}

// DotFlags is the flags that a VDPPS of 256 bits raises, as Arith.Float's: both halves
// go through its steps together.
func DotFlags(a, b *[4]uint64, imm uint8, mxcsr uint32) Flags {
	c := sseCtx(mxcsr)
	d, s := [2][2]uint64{{a[0], a[1]}, {a[2], a[3]}}, [2][2]uint64{{b[0], b[1]}, {b[2], b[3]}}
	c.dot(false, []*[2]uint64{&d[0], &d[1]}, []*[2]uint64{&s[0], &s[1]}, imm)
	return c.flags()
}

// conversions between formats and packed integers.
func (c *ctx) conversions(op optab.Op, d, s *[2]uint64) {
	switch op {
	case optab.CVTPS2PD:
		*d = [2]uint64{c.convert(ps.get(s, 0), &f64).pack64(), c.convert(ps.get(s, 1), &f64).pack64()}
	case optab.CVTSS2SD:
		d[0] = c.convert(ps.get(s, 0), &f64).pack64()
	case optab.CVTPD2PS:
		*d = [2]uint64{uint64(c.convert(pd.get(s, 0), &f32).pack32()) | uint64(c.convert(pd.get(s, 1), &f32).pack32())<<32}
	case optab.CVTSD2SS:
		put32(d, 0, c.convert(pd.get(s, 0), &f32).pack32())
	case optab.CVTDQ2PS:
		for i := range 4 {
			put32(d, i, c.convert(fromInt(int64(int32(get32(s, i)))), &f32).pack32())
		}
	case optab.CVTDQ2PD:
		*d = [2]uint64{fromInt(int64(int32(s[0]))).pack64(), fromInt(int64(s[0]) >> 32).pack64()}
	case optab.CVTPS2DQ, optab.CVTTPS2DQ:
		rc := c.rc
		if op == optab.CVTTPS2DQ {
			rc = toZero
		}
		for i := range 4 {
			put32(d, i, uint32(c.toInt(ps.get(s, i), 32, rc)))
		}
	case optab.CVTPD2DQ, optab.CVTTPD2DQ:
		rc := c.rc
		if op == optab.CVTTPD2DQ {
			rc = toZero
		}
		*d = [2]uint64{uint64(uint32(c.toInt(pd.get(s, 0), 32, rc))) | uint64(c.toInt(pd.get(s, 1), 32, rc))<<32}
	}
}

func softToInt(op optab.Op, v uint64, wide bool, mxcsr uint32) (uint64, Flags) {
	c := sseCtx(mxcsr)
	if op == optab.CVTTSS2SI || op == optab.CVTTSD2SI {
		c.rc = toZero
	}
	n := unpack64(v)
	if op == optab.CVTSS2SI || op == optab.CVTTSS2SI {
		n = unpack32(uint32(v))
	}
	if !wide {
		return uint64(uint32(c.toInt(n, 32, c.rc))), c.f
	}
	return uint64(c.toInt(n, 64, c.rc)), c.f
}

func softFromInt(op optab.Op, dst *[2]uint64, v uint64, wide bool, mxcsr uint32) Flags {
	c := sseCtx(mxcsr)
	if !wide {
		v = uint64(int64(int32(v)))
	}
	n := fromInt(int64(v))
	if op == optab.CVTSI2SS {
		put32(dst, 0, c.convert(n, &f32).pack32())
	} else {
		dst[0] = c.convert(n, &f64).pack64()
	}
	return c.f
}

// Compare orders the low elements a and b as COMISS, UCOMISS, COMISD and
// UCOMISD do, in the flags ZF, PF and CF.
func Compare(op optab.Op, a, b uint64, mxcsr uint32) (zf, pf, cf bool, f Flags) {
	single := op == optab.COMISS || op == optab.UCOMISS
	if x, y, ok := plain(a, b, single); ok {
		return x == y, false, x < y, 0
	}
	c := sseCtx(mxcsr)
	x, y := unpack64(a), unpack64(b)
	if single {
		x, y = unpack32(uint32(a)), unpack32(uint32(b))
	}
	o := c.compare(x, y, op == optab.COMISS || op == optab.COMISD)
	return o == equal || o == unordered, o == unordered, o == less || o == unordered, c.f
}

// plain returns two operands as Go's numbers if both are normal or zero.
func plain(a, b uint64, single bool) (x, y float64, ok bool) {
	if single {
		const exponent = 0xff << 23
		ea, eb := a&exponent, b&exponent
		if ea == 0 && uint32(a)<<1 != 0 || eb == 0 && uint32(b)<<1 != 0 || ea == exponent || eb == exponent {
			return 0, 0, false
		}
		return float64(math.Float32frombits(uint32(a))), float64(math.Float32frombits(uint32(b))), true
	}
	const exponent = 0x7ff << 52
	ea, eb := a&exponent, b&exponent
	if ea == 0 && a<<1 != 0 || eb == 0 && b<<1 != 0 || ea == exponent || eb == exponent {
		return 0, 0, false
	}
	return math.Float64frombits(a), math.Float64frombits(b), true
}
