package fp

import (
	"encoding/binary"

	"berth/x86/optab"
)

// Vectors by element, lowest first.
func bytes(v *[2]uint64) (b [16]uint8) {
	binary.LittleEndian.PutUint64(b[:], v[0])
	binary.LittleEndian.PutUint64(b[8:], v[1])
	return b
}

func fromBytes(b [16]uint8) [2]uint64 {
	return [2]uint64{binary.LittleEndian.Uint64(b[:]), binary.LittleEndian.Uint64(b[8:])}
}

func words(v *[2]uint64) (w [8]uint16) {
	for i := range w {
		w[i] = uint16(v[i>>2] >> (i & 3 * 16))
	}
	return w
}

func fromWords(w [8]uint16) (v [2]uint64) {
	for i := range w {
		v[i>>2] |= uint64(w[i]) << (i & 3 * 16)
	}
	return v
}

func dwords(v *[2]uint64) [4]uint32 {
	return [4]uint32{uint32(v[0]), uint32(v[0] >> 32), uint32(v[1]), uint32(v[1] >> 32)}
}

func fromDwords(d [4]uint32) [2]uint64 {
	return [2]uint64{uint64(d[0]) | uint64(d[1])<<32, uint64(d[2]) | uint64(d[3])<<32}
}

func eachByte(d, s *[2]uint64, f func(a, b uint8) uint8) bool {
	a, b := bytes(d), bytes(s)
	for i := range a {
		a[i] = f(a[i], b[i])
	}
	*d = fromBytes(a)
	return true
}

func eachWord(d, s *[2]uint64, f func(a, b uint16) uint16) bool {
	a, b := words(d), words(s)
	for i := range a {
		a[i] = f(a[i], b[i])
	}
	*d = fromWords(a)
	return true
}

func eachDword(d, s *[2]uint64, f func(a, b uint32) uint32) bool {
	a, b := dwords(d), dwords(s)
	for i := range a {
		a[i] = f(a[i], b[i])
	}
	*d = fromDwords(a)
	return true
}

func eachQword(d, s *[2]uint64, f func(a, b uint64) uint64) bool {
	d[0], d[1] = f(d[0], s[0]), f(d[1], s[1])
	return true
}

// sat clamps v to a signed or unsigned range of the given width.
func sat(v int32, width uint, signed bool) int32 {
	lo, hi := int32(0), int32(1)<<width-1
	if signed {
		lo, hi = -(1 << (width - 1)), 1<<(width-1)-1
	}
	return max(lo, min(hi, v))
}

// softInt is Int in software.
func softInt(op optab.Op, d, s *[2]uint64) bool {
	return softLogic(op, d, s) || softByte(op, d, s) || softWord(op, d, s) || softDword(op, d, s) ||
		softShift(op, d, s) || softUnpack(op, d, s) || softPack(op, d, s) || softPairs(op, d, s) || softWiden(op, d, s)
}

func softLogic(op optab.Op, d, s *[2]uint64) bool {
	switch op {
	case optab.PAND, optab.ANDPS, optab.ANDPD:
		return eachQword(d, s, func(a, b uint64) uint64 { return a & b })
	case optab.PANDN, optab.ANDNPS, optab.ANDNPD:
		return eachQword(d, s, func(a, b uint64) uint64 { return ^a & b })
	case optab.POR, optab.ORPS, optab.ORPD:
		return eachQword(d, s, func(a, b uint64) uint64 { return a | b })
	case optab.PXOR, optab.XORPS, optab.XORPD:
		return eachQword(d, s, func(a, b uint64) uint64 { return a ^ b })
	case optab.PADDQ:
		return eachQword(d, s, func(a, b uint64) uint64 { return a + b })
	case optab.PSUBQ:
		return eachQword(d, s, func(a, b uint64) uint64 { return a - b })
	case optab.PCMPEQQ:
		return eachQword(d, s, func(a, b uint64) uint64 { return -b2u(a == b) })
	case optab.PCMPGTQ:
		return eachQword(d, s, func(a, b uint64) uint64 { return -b2u(int64(a) > int64(b)) })
	case optab.PMULUDQ:
		return eachQword(d, s, func(a, b uint64) uint64 { return a & 0xffffffff * (b & 0xffffffff) })
	case optab.PMULDQ:
		return eachQword(d, s, func(a, b uint64) uint64 { return uint64(int64(int32(a)) * int64(int32(b))) })
	case optab.PSADBW:
		return eachQword(d, s, sumAbsDiff)
	}
	return false
}

func sumAbsDiff(a, b uint64) (sum uint64) {
	for i := 0; i < 64; i += 8 {
		x, y := a>>i&0xff, b>>i&0xff
		sum += max(x, y) - min(x, y)
	}
	return sum
}

func softByte(op optab.Op, d, s *[2]uint64) bool {
	switch op {
	case optab.PADDB:
		return eachByte(d, s, func(a, b uint8) uint8 { return a + b })
	case optab.PSUBB:
		return eachByte(d, s, func(a, b uint8) uint8 { return a - b })
	case optab.PADDSB:
		return eachByte(d, s, func(a, b uint8) uint8 { return uint8(sat(int32(int8(a))+int32(int8(b)), 8, true)) })
	case optab.PSUBSB:
		return eachByte(d, s, func(a, b uint8) uint8 { return uint8(sat(int32(int8(a))-int32(int8(b)), 8, true)) })
	case optab.PADDUSB:
		return eachByte(d, s, func(a, b uint8) uint8 { return uint8(sat(int32(a)+int32(b), 8, false)) })
	case optab.PSUBUSB:
		return eachByte(d, s, func(a, b uint8) uint8 { return uint8(sat(int32(a)-int32(b), 8, false)) })
	case optab.PCMPEQB:
		return eachByte(d, s, func(a, b uint8) uint8 { return uint8(-b2u(a == b)) })
	case optab.PCMPGTB:
		return eachByte(d, s, func(a, b uint8) uint8 { return uint8(-b2u(int8(a) > int8(b))) })
	case optab.PAVGB:
		return eachByte(d, s, func(a, b uint8) uint8 { return uint8((uint(a) + uint(b) + 1) >> 1) })
	case optab.PMINUB:
		return eachByte(d, s, func(a, b uint8) uint8 { return min(a, b) })
	case optab.PMAXUB:
		return eachByte(d, s, func(a, b uint8) uint8 { return max(a, b) })
	case optab.PMINSB:
		return eachByte(d, s, func(a, b uint8) uint8 { return uint8(min(int8(a), int8(b))) })
	case optab.PMAXSB:
		return eachByte(d, s, func(a, b uint8) uint8 { return uint8(max(int8(a), int8(b))) })
	case optab.PABSB:
		return eachByte(d, s, func(_, b uint8) uint8 { return uint8(max(int8(b), -int8(b))) | b&0x80&-b })
	case optab.PSIGNB:
		return eachByte(d, s, func(a, b uint8) uint8 { return uint8(signed(int32(int8(a)), int32(int8(b)))) })
	case optab.PSHUFB:
		from := bytes(d)
		return eachByte(d, s, func(_, b uint8) uint8 {
			if b&0x80 != 0 {
				return 0
			}
			return from[b&15]
		})
	}
	return false
}

// signed gives a the sign of b (PSIGN).
func signed(a, b int32) int32 {
	switch {
	case b < 0:
		return -a
	case b == 0:
		return 0
	}
	return a
}

func softWord(op optab.Op, d, s *[2]uint64) bool {
	switch op {
	case optab.PADDW:
		return eachWord(d, s, func(a, b uint16) uint16 { return a + b })
	case optab.PSUBW:
		return eachWord(d, s, func(a, b uint16) uint16 { return a - b })
	case optab.PADDSW:
		return eachWord(d, s, func(a, b uint16) uint16 { return uint16(sat(int32(int16(a))+int32(int16(b)), 16, true)) })
	case optab.PSUBSW:
		return eachWord(d, s, func(a, b uint16) uint16 { return uint16(sat(int32(int16(a))-int32(int16(b)), 16, true)) })
	case optab.PADDUSW:
		return eachWord(d, s, func(a, b uint16) uint16 { return uint16(sat(int32(a)+int32(b), 16, false)) })
	case optab.PSUBUSW:
		return eachWord(d, s, func(a, b uint16) uint16 { return uint16(sat(int32(a)-int32(b), 16, false)) })
	case optab.PCMPEQW:
		return eachWord(d, s, func(a, b uint16) uint16 { return uint16(-b2u(a == b)) })
	case optab.PCMPGTW:
		return eachWord(d, s, func(a, b uint16) uint16 { return uint16(-b2u(int16(a) > int16(b))) })
	case optab.PAVGW:
		return eachWord(d, s, func(a, b uint16) uint16 { return uint16((uint(a) + uint(b) + 1) >> 1) })
	case optab.PMINSW:
		return eachWord(d, s, func(a, b uint16) uint16 { return uint16(min(int16(a), int16(b))) })
	case optab.PMAXSW:
		return eachWord(d, s, func(a, b uint16) uint16 { return uint16(max(int16(a), int16(b))) })
	case optab.PMINUW:
		return eachWord(d, s, func(a, b uint16) uint16 { return min(a, b) })
	case optab.PMAXUW:
		return eachWord(d, s, func(a, b uint16) uint16 { return max(a, b) })
	case optab.PMULLW:
		return eachWord(d, s, func(a, b uint16) uint16 { return a * b })
	case optab.PMULHW:
		return eachWord(d, s, func(a, b uint16) uint16 { return uint16(int32(int16(a)) * int32(int16(b)) >> 16) })
	case optab.PMULHUW:
		return eachWord(d, s, func(a, b uint16) uint16 { return uint16(uint32(a) * uint32(b) >> 16) })
	case optab.PMULHRSW:
		return eachWord(d, s, func(a, b uint16) uint16 { return uint16((int32(int16(a))*int32(int16(b))>>14 + 1) >> 1) })
	case optab.PABSW:
		return eachWord(d, s, func(_, b uint16) uint16 { return uint16(signed(int32(int16(b)), int32(int16(b)))) })
	case optab.PSIGNW:
		return eachWord(d, s, func(a, b uint16) uint16 { return uint16(signed(int32(int16(a)), int32(int16(b)))) })
	case optab.PHMINPOSUW:
		return minPos(d, s)
	}
	return false
}

func minPos(d, s *[2]uint64) bool {
	w := words(s)
	at := 0
	for i := range w {
		if w[i] < w[at] {
			at = i
		}
	}
	*d = [2]uint64{uint64(w[at]) | uint64(at)<<16}
	return true
}

func softDword(op optab.Op, d, s *[2]uint64) bool {
	switch op {
	case optab.PADDD:
		return eachDword(d, s, func(a, b uint32) uint32 { return a + b })
	case optab.PSUBD:
		return eachDword(d, s, func(a, b uint32) uint32 { return a - b })
	case optab.PCMPEQD:
		return eachDword(d, s, func(a, b uint32) uint32 { return uint32(-b2u(a == b)) })
	case optab.PCMPGTD:
		return eachDword(d, s, func(a, b uint32) uint32 { return uint32(-b2u(int32(a) > int32(b))) })
	case optab.PMINSD:
		return eachDword(d, s, func(a, b uint32) uint32 { return uint32(min(int32(a), int32(b))) })
	case optab.PMAXSD:
		return eachDword(d, s, func(a, b uint32) uint32 { return uint32(max(int32(a), int32(b))) })
	case optab.PMINUD:
		return eachDword(d, s, func(a, b uint32) uint32 { return min(a, b) })
	case optab.PMAXUD:
		return eachDword(d, s, func(a, b uint32) uint32 { return max(a, b) })
	case optab.PMULLD:
		return eachDword(d, s, func(a, b uint32) uint32 { return a * b })
	case optab.PABSD:
		return eachDword(d, s, func(_, b uint32) uint32 { return uint32(signed(int32(b), int32(b))) })
	case optab.PSIGND:
		return eachDword(d, s, func(a, b uint32) uint32 { return uint32(signed(int32(a), int32(b))) })
	case optab.PMADDWD:
		return eachDword(d, s, func(a, b uint32) uint32 {
			return uint32(int32(int16(a))*int32(int16(b)) + int32(a)>>16*(int32(b)>>16))
		})
	case optab.PMADDUBSW:
		return eachWord(d, s, func(a, b uint16) uint16 {
			return uint16(sat(int32(uint8(a))*int32(int8(b))+int32(a>>8)*int32(int8(b>>8)), 16, true))
		})
	}
	return false
}

func softShift(op optab.Op, d, s *[2]uint64) bool {
	n := uint(min(s[0], 64))
	switch op {
	case optab.PSLLW:
		return eachWord(d, s, func(a, _ uint16) uint16 { return a << n })
	case optab.PSLLD:
		return eachDword(d, s, func(a, _ uint32) uint32 { return a << n })
	case optab.PSLLQ:
		return eachQword(d, s, func(a, _ uint64) uint64 { return a << n })
	case optab.PSRLW:
		return eachWord(d, s, func(a, _ uint16) uint16 { return a >> n })
	case optab.PSRLD:
		return eachDword(d, s, func(a, _ uint32) uint32 { return a >> n })
	case optab.PSRLQ:
		return eachQword(d, s, func(a, _ uint64) uint64 { return a >> n })
	case optab.PSRAW:
		return eachWord(d, s, func(a, _ uint16) uint16 { return uint16(int16(a) >> n) })
	case optab.PSRAD:
		return eachDword(d, s, func(a, _ uint32) uint32 { return uint32(int32(a) >> n) })
	}
	return false
}

func softUnpack(op optab.Op, d, s *[2]uint64) bool {
	half := 0
	switch op {
	case optab.PUNPCKHBW, optab.PUNPCKHWD, optab.PUNPCKHDQ, optab.PUNPCKHQDQ, optab.UNPCKHPS, optab.UNPCKHPD:
		half = 1
	}
	a, b := d[half], s[half]
	var width uint
	switch op {
	case optab.PUNPCKHBW, optab.PUNPCKLBW:
		width = 8
	case optab.PUNPCKHWD, optab.PUNPCKLWD:
		width = 16
	case optab.PUNPCKHDQ, optab.PUNPCKLDQ, optab.UNPCKHPS, optab.UNPCKLPS:
		width = 32
	case optab.PUNPCKHQDQ, optab.PUNPCKLQDQ, optab.UNPCKHPD, optab.UNPCKLPD:
		*d = [2]uint64{a, b}
		return true
	default:
		return false
	}
	*d = [2]uint64{interleave(a, b, width), interleave(a>>32, b>>32, width)}
	return true
}

// interleave alternates the low halves' elements of a and b.
func interleave(a, b uint64, width uint) (r uint64) {
	for i := uint(0); i < 32; i += width {
		r |= (a>>i&(1<<width-1) | b>>i&(1<<width-1)<<width) << (2 * i)
	}
	return r
}

func softPack(op optab.Op, d, s *[2]uint64) bool {
	switch op {
	case optab.PACKSSWB, optab.PACKUSWB:
		a, b := words(d), words(s)
		var r [16]uint8
		for i := range 8 {
			r[i] = uint8(sat(int32(int16(a[i])), 8, op == optab.PACKSSWB))
			r[i+8] = uint8(sat(int32(int16(b[i])), 8, op == optab.PACKSSWB))
		}
		*d = fromBytes(r)
	case optab.PACKSSDW, optab.PACKUSDW:
		a, b := dwords(d), dwords(s)
		var r [8]uint16
		for i := range 4 {
			r[i] = uint16(sat(int32(a[i]), 16, op == optab.PACKSSDW))
			r[i+4] = uint16(sat(int32(b[i]), 16, op == optab.PACKSSDW))
		}
		*d = fromWords(r)
	default:
		return false
	}
	return true
}

// softPairs is the horizontal additions.
func softPairs(op optab.Op, d, s *[2]uint64) bool {
	var f func(a, b uint16) uint16
	switch op {
	case optab.PHADDW:
		f = func(a, b uint16) uint16 { return a + b }
	case optab.PHSUBW:
		f = func(a, b uint16) uint16 { return a - b }
	case optab.PHADDSW:
		f = func(a, b uint16) uint16 { return uint16(sat(int32(int16(a))+int32(int16(b)), 16, true)) }
	case optab.PHSUBSW:
		f = func(a, b uint16) uint16 { return uint16(sat(int32(int16(a))-int32(int16(b)), 16, true)) }
	case optab.PHADDD, optab.PHSUBD:
		a, b := dwords(d), dwords(s)
		if op == optab.PHADDD {
			*d = fromDwords([4]uint32{a[0] + a[1], a[2] + a[3], b[0] + b[1], b[2] + b[3]})
		} else {
			*d = fromDwords([4]uint32{a[0] - a[1], a[2] - a[3], b[0] - b[1], b[2] - b[3]})
		}
		return true
	default:
		return false
	}
	a, b := words(d), words(s)
	var r [8]uint16
	for i := range 4 {
		r[i], r[i+4] = f(a[2*i], a[2*i+1]), f(b[2*i], b[2*i+1])
	}
	*d = fromWords(r)
	return true
}

// softWiden is PMOVSX and PMOVZX.
func softWiden(op optab.Op, d, s *[2]uint64) bool {
	var from, to uint
	var sign bool
	switch op {
	case optab.PMOVSXBW, optab.PMOVZXBW:
		from, to, sign = 8, 16, op == optab.PMOVSXBW
	case optab.PMOVSXBD, optab.PMOVZXBD:
		from, to, sign = 8, 32, op == optab.PMOVSXBD
	case optab.PMOVSXBQ, optab.PMOVZXBQ:
		from, to, sign = 8, 64, op == optab.PMOVSXBQ
	case optab.PMOVSXWD, optab.PMOVZXWD:
		from, to, sign = 16, 32, op == optab.PMOVSXWD
	case optab.PMOVSXWQ, optab.PMOVZXWQ:
		from, to, sign = 16, 64, op == optab.PMOVSXWQ
	case optab.PMOVSXDQ, optab.PMOVZXDQ:
		from, to, sign = 32, 64, op == optab.PMOVSXDQ
	default:
		return false
	}
	var r [2]uint64
	for i := uint(0); i < 128/to; i++ {
		v := s[0] >> (i * from) << (64 - from)
		if sign {
			v = uint64(int64(v) >> (64 - from))
		} else {
			v >>= 64 - from
		}
		r[i*to/64] |= v << (64 - to) >> (64 - to) << (i * to % 64)
	}
	*d = r
	return true
}

// ShuffleDwords is PSHUFD (of s twice) and SHUFPS (the low two from a).
func ShuffleDwords(a, s [2]uint64, imm uint8) [2]uint64 {
	return [2]uint64{dword(&a, imm) | dword(&a, imm>>2)<<32, dword(&s, imm>>4) | dword(&s, imm>>6)<<32}
}

func dword(v *[2]uint64, i uint8) uint64 { return v[i>>1&1] >> (i & 1 * 32) & 0xffffffff }

// ShuffleWords is PSHUFW and what PSHUFLW and PSHUFHW do to one half.
func ShuffleWords(v uint64, imm uint8) (r uint64) {
	for i := range 4 {
		r |= v >> (imm >> (2 * i) & 3 * 16) & 0xffff << (16 * i)
	}
	return r
}

// ShiftRight shifts hi:lo, 32 bytes, right by n bytes and returns the low 16.
func ShiftRight(hi, lo [2]uint64, n uint8) [2]uint64 {
	if n >= 32 {
		return [2]uint64{}
	}
	q := [6]uint64{lo[0], lo[1], hi[0], hi[1]}
	i, s := n/8, n%8*8
	return [2]uint64{q[i]>>s | q[i+1]<<(64-s), q[i+1]>>s | q[i+2]<<(64-s)}
}

// MultiSumAbsDiff is MPSADBW.
func MultiSumAbsDiff(d, s [2]uint64, imm uint8) [2]uint64 {
	a, b := bytes(&d), bytes(&s)
	at, from := int(imm>>2&1)*4, int(imm&3)*4
	var r [8]uint16
	for i := range r {
		for j := range 4 {
			x, y := a[at+i+j], b[from+j]
			r[i] += uint16(max(x, y) - min(x, y))
		}
	}
	return fromWords(r)
}

// SignBits gathers the sign bits of v's elements of the given width.
func SignBits(v [2]uint64, width uint) uint64 {
	switch width {
	case 8: // the multiplication moves bit 8i to bit 56+i
		const ones, gather = 0x0101010101010101, 0x0102040810204080
		return v[0]>>7&ones*gather>>56 | v[1]>>7&ones*gather>>56<<8
	case 32:
		return v[0]>>31&1 | v[0]>>63<<1 | v[1]>>31&1<<2 | v[1]>>63<<3
	}
	return v[0]>>63 | v[1]>>63<<1
}

// Blend takes from s the elements of the given width whose bit in pick is set, the others from d.
func Blend(d, s [2]uint64, pick uint64, width uint) [2]uint64 {
	n := 64 / width
	for i := range n {
		m := uint64(1)<<(width-1)<<1 - 1
		m <<= i * width
		if pick>>i&1 != 0 {
			d[0] = d[0]&^m | s[0]&m
		}
		if pick>>(i+n)&1 != 0 {
			d[1] = d[1]&^m | s[1]&m
		}
	}
	return d
}
