package hostcpu

import (
	"encoding/binary"
	"math"
	"math/rand/v2"

	"berth/x86/jit"
)

// Pools of operand values: boundaries first, since that is where mistakes are.
var (
	intPool = []uint64{
		0, 1, 2, 3, 0xff, 0x7f, 0x80, 0x81, 0xffff, 0x7fff, 0x8000, 0x8001, 0xffffffff, 0x7fffffff, 0x80000000,
		0x80000001, math.MaxUint64, math.MaxInt64, 1 << 63, 1<<63 + 1, 1 << 32, 1<<32 - 2, 0x0f0f0f0f0f0f0f0f,
		0x5555555555555555, 0xaaaaaaaaaaaaaaaa, 0x0123456789abcdef, 10, 0x99, 0x9a, 0x66, 8, 16, 31, 32, 33, 63, 64,
	}
	f32Pool = []uint32{
		0, 1 << 31, 0x3f800000, 0xbf800000, 0x7f800000, 0xff800000, // 0, 1, infinity
		0x7fc00000, 0xffc00000, 0x7f800001, 0xffbfffff, 0x7fc12345, // QNaN, SNaN
		1, 0x80000001, 0x007fffff, 0x807fffff, 0x00800000, 0x80800000, // denormals, smallest normal
		0x7f7fffff, 0xff7fffff, 0x3f7fffff, 0x3f000000, 0x4b000000, 0x4effffff, 0x4f000000, 0xcf000000, 0xcf000001,
		0x5f000000, 0xdf000000, 0x40490fdb, 0x3fc00000, 0x40200000, 0x33800000, 0x00ffffff,
	}
	f64Pool = []uint64{
		0, 1 << 63, 0x3ff0000000000000, 0xbff0000000000000, 0x7ff0000000000000, 0xfff0000000000000,
		0x7ff8000000000000, 0xfff8000000000000, 0x7ff0000000000001, 0xfff7ffffffffffff, 0x7ff8123456789abc,
		1, 0x8000000000000001, 0x000fffffffffffff, 0x0010000000000000, 0x8010000000000000,
		0x7fefffffffffffff, 0xffefffffffffffff, 0x3fefffffffffffff, 0x41dfffffffc00000, 0x41e0000000000000,
		0xc1e0000000000000, 0xc1e0000000200000, 0x43e0000000000000, 0xc3e0000000000000, 0x43dfffffffffffff,
		0x3fe0000000000000, 0x4004000000000000, 0x3ff8000000000000, 0x36a0000000000000, 0x380fffffffffffff,
		0x47efffffe0000000, 0x47effffff0000000, 0x3c90000000000000, 0x400921fb54442d18,
	}
	// f80Exp pairs with f80Mant, most combinations legal, some not.
	f80Exp  = []uint16{0, 0x3fff, 0x7fff, 1, 0x3ffe, 0x4000, 0x7ffe, 0x403e, 0x401e, 0x400e, 0x3fbf, 0x3f80, 0x3c00, 0x4010}
	f80Mant = []uint64{
		1 << 63, 0, 3 << 62, math.MaxUint64, 1<<63 | 1, 1, math.MaxInt64, 1 << 62, 0xfffffffffffff800, 0xfffffffffffffc00,
		0xffffff0000000000, 0xffffff8000000000, 0xc90fdaa22168c235, 0xaaaaaaaaaaaaaaab,
	}
)

func pickOf[T any](r *rand.Rand, pool []T) T { return pool[r.IntN(len(pool))] }

// integer is a boundary value, a small one, a random one, or a neighbour of a power of two.
func integer(r *rand.Rand) uint64 {
	switch r.IntN(6) {
	case 0:
		return r.Uint64()
	case 1:
		return uint64(r.IntN(256))
	case 2:
		return uint64(1)<<r.IntN(64) + uint64(r.IntN(3)) - 1
	case 3:
		return uint64(int64(int8(r.Uint32())))
	}
	return pickOf(r, intPool)
}

func float32Bits(r *rand.Rand) uint32 {
	switch r.IntN(4) {
	case 0:
		return r.Uint32()
	case 1: // near 1
		return uint32(r.IntN(2))<<31 | uint32(120+r.IntN(16))<<23 | r.Uint32()>>9
	}
	return pickOf(r, f32Pool)
}

func float64Bits(r *rand.Rand) uint64 {
	switch r.IntN(4) {
	case 0:
		return r.Uint64()
	case 1:
		return uint64(r.IntN(2))<<63 | uint64(1000+r.IntN(48))<<52 | r.Uint64()>>12
	}
	return pickOf(r, f64Pool)
}

// float80 is an extended-precision value, legal or not.
func float80(r *rand.Rand) (mant uint64, se uint16) {
	sign := uint16(r.IntN(2)) << 15
	switch r.IntN(5) {
	case 0:
		return r.Uint64(), uint16(r.Uint32())
	case 1:
		return pickOf(r, f80Mant), sign | pickOf(r, f80Exp)
	case 2: // an integer
		return uint64(1+r.IntN(1000)) << 53, sign | uint16(0x3fff+r.IntN(20))
	}
	return r.Uint64() | 1<<63, sign | uint16(0x3fff-40+r.IntN(80))
}

// vector is 16 bytes of floats, packed integers or both.
func vector(r *rand.Rand, p []byte) {
	le := binary.LittleEndian
	switch r.IntN(4) {
	case 0:
		for i := 0; i < 16; i += 4 {
			le.PutUint32(p[i:], float32Bits(r))
		}
	case 1:
		le.PutUint64(p, float64Bits(r))
		le.PutUint64(p[8:], float64Bits(r))
	case 2:
		le.PutUint64(p, integer(r))
		le.PutUint64(p[8:], integer(r))
	default:
		le.PutUint64(p, r.Uint64())
		le.PutUint64(p[8:], r.Uint64())
	}
}

// Places in a memory image with contents that some instructions want.
const (
	imageFX      = 0x400 // an FXSAVE image
	imageSave32  = 0x600 // FNSAVE images
	imageSave16  = 0x680
	imageMXCSR   = 0x700  // values without reserved bits
	imageBCD     = 0x780  // packed BCD, 16 bytes each
	imageTargets = 0x1800 // code addresses, to 0x1c00
	imageStack   = 0x1400 // where RSP mostly points
)

// Image makes a sandbox's contents.
func Image(seed uint64) []byte {
	r := rand.New(rand.NewPCG(seed, 1))
	p := make([]byte, sandboxSize)
	for i := 0; i < sandboxSize; i += 16 {
		if r.IntN(6) == 0 {
			m, se := float80(r)
			binary.LittleEndian.PutUint64(p[i:], m)
			binary.LittleEndian.PutUint16(p[i+8:], se)
			continue
		}
		vector(r, p[i:])
	}
	le := binary.LittleEndian
	var s State
	randomFX(r, &s)
	copy(p[imageFX:], s.FX[:])
	clear(p[imageFX+28 : imageFX+32])
	for at, width := range map[int]int{imageSave32: 4, imageSave16: 2} {
		copy(p[at:], s.FX[0:2])
		copy(p[at+width:], s.FX[2:4])
		le.PutUint16(p[at+2*width:], pickOf(r, []uint16{0, 0xffff, uint16(r.Uint32())}))
	}
	for i := range 16 {
		le.PutUint32(p[imageMXCSR+4*i:], randomMXCSR(r))
	}
	for i := range 8 {
		for j := range 9 {
			p[imageBCD+16*i+j] = byte(r.IntN(10)<<4 | r.IntN(10))
		}
		p[imageBCD+16*i+9] = byte(r.IntN(2) << 7)
	}
	for i := imageTargets; i < imageTargets+0x400; i += 8 {
		le.PutUint64(p[i:], codeBase+uint64(r.IntN(maxCases))*codeSlot+codeSlot-4)
	}
	return p
}

func randomMXCSR(r *rand.Rand) uint32 {
	v := uint32(0x1f80) | uint32(r.IntN(4))<<13
	switch r.IntN(6) {
	case 0:
		v = r.Uint32() & 0xffff
	case 1:
		v |= 1 << 15
	case 2:
		v |= 1 << 6
	case 3:
		v |= uint32(r.IntN(64))
	}
	return v
}

// randomFX makes x87 and SSE registers.
func randomFX(r *rand.Rand, s *State) {
	le, p := binary.LittleEndian, s.FX[:]
	fcw := uint16(0x37f)
	if r.IntN(2) == 0 {
		fcw = 0x7f | uint16(r.IntN(16))<<8
	}
	if r.IntN(10) == 0 {
		fcw = 0x40 | uint16(r.Uint32())&0x1f3f
	}
	fsw := uint16(r.IntN(8)) << 11
	if r.IntN(3) == 0 {
		fsw |= uint16(r.Uint32()) & 0x477f
	}
	if fsw&^fcw&0x3f != 0 {
		if r.IntN(4) != 0 {
			fsw &^= 0x3f
		} else {
			fsw |= 0x8080
		}
	}
	le.PutUint16(p, fcw)
	le.PutUint16(p[2:], fsw)
	p[4] = 0xff
	switch r.IntN(4) {
	case 0:
		p[4] = uint8(r.Uint32())
	case 1:
		p[4] = 0
	}
	le.PutUint32(p[24:], randomMXCSR(r))
	for i := range 8 {
		m, se := float80(r)
		le.PutUint64(p[32+16*i:], m)
		le.PutUint16(p[40+16*i:], se)
	}
	for i := range 16 {
		vector(r, p[160+16*i:])
	}
}

// randomState makes a state to start in.
func randomState(r *rand.Rand) State {
	s := State{RFLAGS: 0x202 | uint64(r.Uint32())&0x8d5}
	if r.IntN(8) == 0 {
		s.RFLAGS |= 1 << 10
	}
	for i := range s.GPR {
		s.GPR[i] = integer(r)
	}
	randomFX(r, &s)
	if r.IntN(4) != 0 && jit.AVX() {
		for i := range 16 {
			vector(r, s.YMMH[16*i:])
		}
	}
	if r.IntN(2) == 0 {
		s.FSBase, s.GSBase = uint64(r.IntN(0x2000)), sandboxBase
	}
	return s
}
