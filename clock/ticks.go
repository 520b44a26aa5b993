package clock

import "math/bits"

const second = 1_000_000_000

// Ticks returns how many whole periods of an hz-hertz oscillator, hz below
// 2^32, have passed after ns nanoseconds.
func Ticks(ns, hz uint64) uint64 {
	hi, lo := bits.Mul64(ns, hz)
	q, _ := bits.Div64(hi%second, lo, second) // the quotient modulo 2^64
	return q
}

// Nanos returns the first nanosecond at which Ticks(ns, hz) is ticks, or the
// greatest value if that lies beyond 64 bits.
func Nanos(ticks, hz uint64) uint64 {
	hi, lo := bits.Mul64(ticks, second)
	lo, carry := bits.Add64(lo, hz-1, 0)
	hi += carry
	if hi >= hz {
		return ^uint64(0)
	}
	q, _ := bits.Div64(hi, lo, hz)
	return q
}
