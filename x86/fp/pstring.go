package fp

import "math/bits"

// The string comparisons of SSE4.2 (Intel SDM vol. 2 §4.1). The immediate:
//
//	7 - | 6 which end / expand | 5..4 polarity | 3..2 aggregation | 1 signed | 0 words

// StringElements returns how many elements a vector holds.
func StringElements(imm uint8) int { return 16 >> (imm & 1) }

// element returns element i of v, extended as imm's format says.
func element(v *[2]uint64, i int, imm uint8) int32 {
	width := uint(8) << (imm & 1)
	at := uint(i) * width
	x := v[at>>6] >> (at & 63) << (64 - width)
	if imm&2 != 0 {
		return int32(int64(x) >> (64 - width))
	}
	return int32(x >> (64 - width))
}

// StringLength returns the elements of v before its first zero element.
func StringLength(v [2]uint64, imm uint8) int {
	n := StringElements(imm)
	for i := range n {
		if element(&v, i, imm) == 0 {
			return i
		}
	}
	return n
}

// ExplicitLength bounds the absolute value of a length register.
func ExplicitLength(v int64, imm uint8) int {
	n := int64(StringElements(imm))
	if v < 0 {
		v = -v
	}
	if v < 0 || v > n {
		return int(n)
	}
	return int(v)
}

// Matches is the result of a string comparison, one bit an element.
type Matches uint16

// CompareStrings compares a's first la elements with b's first lb; bits are b's elements.
func CompareStrings(a, b [2]uint64, la, lb int, imm uint8) Matches {
	n := StringElements(imm)
	var r Matches
	for j := range n {
		var hit bool
		switch imm >> 2 & 3 {
		case 0:
			hit = j < lb && equalAny(&a, la, element(&b, j, imm), imm)
		case 1:
			hit = j < lb && inRanges(&a, la, element(&b, j, imm), imm)
		case 2:
			hit = equalEach(&a, &b, la, lb, j, imm)
		case 3:
			hit = startsAt(&a, &b, la, lb, j, n, imm)
		}
		if hit {
			r |= 1 << j
		}
	}
	switch imm >> 4 & 3 {
	case 1:
		r ^= Matches(1<<n - 1)
	case 3:
		r ^= Matches(1<<lb - 1)
	}
	return r
}

func equalAny(a *[2]uint64, la int, x int32, imm uint8) bool {
	for i := range la {
		if element(a, i, imm) == x {
			return true
		}
	}
	return false
}

func inRanges(a *[2]uint64, la int, x int32, imm uint8) bool {
	for i := 0; i+1 < la; i += 2 {
		if element(a, i, imm) <= x && x <= element(a, i+1, imm) {
			return true
		}
	}
	return false
}

func equalEach(a, b *[2]uint64, la, lb, i int, imm uint8) bool {
	if i >= la || i >= lb {
		return i >= la && i >= lb
	}
	return element(a, i, imm) == element(b, i, imm)
}

// startsAt reports whether a stands in b at j, as far as b reaches: what lies
// past the vector counts as a match, what lies past b's end does not.
func startsAt(a, b *[2]uint64, la, lb, j, n int, imm uint8) bool {
	for i := 0; i < la && i+j < n; i++ {
		if i+j >= lb || element(a, i, imm) != element(b, i+j, imm) {
			return false
		}
	}
	return true
}

// Index returns the first or last match, or the number of elements.
func (m Matches) Index(imm uint8) uint64 {
	switch {
	case m == 0:
		return uint64(StringElements(imm))
	case imm&0x40 != 0:
		return uint64(bits.Len16(uint16(m))) - 1
	}
	return uint64(bits.TrailingZeros16(uint16(m)))
}

// Mask returns the matches as bits or, expanded, as elements.
func (m Matches) Mask(imm uint8) (v [2]uint64) {
	if imm&0x40 == 0 {
		return [2]uint64{uint64(m)}
	}
	n := StringElements(imm)
	width := uint(128 / n)
	for i := range n {
		if m>>i&1 != 0 {
			at := uint(i) * width
			v[at>>6] |= (1<<width - 1) << (at & 63)
		}
	}
	return v
}
