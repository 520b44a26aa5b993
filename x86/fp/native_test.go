package fp

import (
	"math/big"
	"math/rand/v2"
	"testing"

	"berth/x86"
	"berth/x86/optab"
)

// edge32 and edge64 are operands at the formats' boundaries.
var edge32 = []uint32{0, 1, 2, 0x7fffff, 0x800000, 0x800001, 0xffffff, 0x3f800000, 0x3f7fffff, 0x3f800001, 0x3f000000,
	0x40000000, 0x40400000, 0x4b000000, 0x4b7fffff, 0x4effffff, 0x4f000000, 0x5effffff, 0x5f000000, 0x7f7fffff, 0x7f800000,
	0x7f800001, 0x7fa00000, 0x7fc00000, 0x7fc12345, 0x7fffffff, 0x3fc00000, 0x3effffff, 0x33800000, 0x34000000}

var edge64 = []uint64{0, 1, 2, 1<<52 - 1, 1 << 52, 1<<52 + 1, 0x3ff0000000000000, 0x3fefffffffffffff, 0x3ff0000000000001,
	0x3fe0000000000000, 0x4000000000000000, 0x4008000000000000, 0x4330000000000000, 0x433fffffffffffff, 0x41dfffffffc00000,
	0x41dfffffffe00000, 0x41e0000000000000, 0x43dfffffffffffff, 0x43e0000000000000, 0x7fefffffffffffff, 0x7ff0000000000000,
	0x7ff0000000000001, 0x7ff4000000000000, 0x7ff8000000000000, 0x7ff8123456789abc, 0x7fffffffffffffff, 0x3810000000000000,
	0x380fffffffffffff, 0x36a0000000000000, 0x3690000000000000, 0x3690000000000001, 0x47efffffe0000000, 0x47efffffefffffff, 0x47effffff0000000}

func random32(r *rand.Rand) uint32 {
	switch r.IntN(4) {
	case 0:
		return edge32[r.IntN(len(edge32))] | uint32(r.IntN(2))<<31
	case 1:
		return r.Uint32()
	case 2:
		return r.Uint32()&0x807fffff | uint32(120+r.IntN(16))<<23
	}
	return edge32[r.IntN(len(edge32))] + uint32(r.IntN(9)) - 4 | uint32(r.IntN(2))<<31
}

func random64(r *rand.Rand) uint64 {
	switch r.IntN(5) {
	case 0:
		return edge64[r.IntN(len(edge64))] | uint64(r.IntN(2))<<63
	case 1:
		return r.Uint64()
	case 2:
		return r.Uint64()&0x800fffffffffffff | uint64(1015+r.IntN(16))<<52
	case 3: // exactly representable in 32 bits, or nearly
		return r.Uint64()&0x800fffffe0000000 | uint64(1023-150+r.IntN(300))<<52 | uint64(r.IntN(3))
	}
	return edge64[r.IntN(len(edge64))] + uint64(r.IntN(9)) - 4 | uint64(r.IntN(2))<<63
}

func randomVec(r *rand.Rand) [2]uint64 {
	if r.IntN(2) == 0 {
		return [2]uint64{random64(r), random64(r)}
	}
	return [2]uint64{uint64(random32(r)) | uint64(random32(r))<<32, uint64(random32(r)) | uint64(random32(r))<<32}
}

func randomCSR(r *rand.Rand) uint32 {
	csr := uint32(csrMasks) | uint32(r.IntN(4))<<csrRCShift
	if r.IntN(3) == 0 {
		csr |= csrDAZ
	}
	if r.IntN(3) == 0 {
		csr |= csrFTZ
	}
	return csr
}

const rounds = 3000

func TestIntSoftAgainstHost(t *testing.T) {
	if !hasNative() {
		return
	}
	r := rand.New(rand.NewPCG(1, 2))
	ops := 0
	for op := optab.FirstSSE; op <= optab.LastSSE; op++ {
		var v [2]uint64
		if !softInt(op, &v, &v) {
			continue
		}
		ops++
		if !nativeInt(uintptr(op-optab.FirstSSE), &v, &v) {
			t.Errorf("%v has no native form", op)
			continue
		}
		for range rounds {
			d, s := randomVec(r), randomVec(r)
			if r.IntN(2) == 0 {
				s[0] &= 0x8f
			}
			soft, native := d, d
			softInt(op, &soft, &s)
			nativeInt(uintptr(op-optab.FirstSSE), &native, &s)
			if soft != native {
				t.Errorf("%v %x, %x: soft %x, host %x", op, d, s, soft, native)
				break
			}
		}
	}
	if ops < 100 {
		t.Errorf("only %d operations", ops)
	}
}

// floatOps are the operations of Float whose bits are the same everywhere: not the
// estimates, and not DPPS and DPPD, of which see TestDotSoftAgainstHost.
func floatOps() (ops []optab.Op) {
	for op := optab.ADDPS; op <= optab.ROUNDSS; op++ {
		var v [2]uint64
		switch op {
		case optab.RCPPS, optab.RCPSS, optab.RSQRTPS, optab.RSQRTSS, optab.DPPS, optab.DPPD,
			optab.CVTSI2SS, optab.CVTSI2SD, optab.CVTSS2SI, optab.CVTTSS2SI, optab.CVTSD2SI, optab.CVTTSD2SI:
			continue
		}
		stub, csr := floatStub(op, 0, csrMasks)
		if _, ok := nativeFloat(stub, &v, &v, csr); ok && !softInt(op, &v, &v) {
			ops = append(ops, op)
		}
	}
	return ops
}

func TestFloatSoftAgainstHost(t *testing.T) {
	if !hasNative() {
		return
	}
	r := rand.New(rand.NewPCG(3, 4))
	ops := floatOps()
	if len(ops) < 52 {
		t.Errorf("only %d operations: %v", len(ops), ops)
	}
	for _, op := range ops {
		bad := 0
		for range rounds * 5 {
			d, s, csr, imm := randomVec(r), randomVec(r), randomCSR(r), uint8(r.IntN(16))
			soft, native := d, d
			fs := Soft.Float(op, &soft, &s, imm, csr)
			fn := Native.Float(op, &native, &s, imm, csr)
			if soft != native || fs != fn {
				t.Errorf("%v %x, %x, %d under %x: soft %x %02x, host %x %02x", op, d, s, imm, csr, soft, fs, native, fn)
				if bad++; bad == 2 {
					break
				}
			}
		}
	}
}

// TestDotSoftAgainstHost: where the result is a NaN, which one is the processor's choice.
func TestDotSoftAgainstHost(t *testing.T) {
	if !hasNative() {
		return
	}
	r := rand.New(rand.NewPCG(7, 8))
	for op, l := range map[optab.Op]lanes{optab.DPPS: ps, optab.DPPD: pd} {
		for range rounds * 10 {
			d, s, csr, imm := randomVec(r), randomVec(r), randomCSR(r), uint8(r.Uint32())
			soft, native := d, d
			fs := Soft.Float(op, &soft, &s, imm, csr)
			fn := Native.Float(op, &native, &s, imm, csr)
			if fs&^Masked(csr) != 0 {
				native = soft // nothing is stored
			}
			for i := range l.n {
				if l.get(&soft, i).nan() && l.get(&native, i).nan() {
					l.put(&native, i, l.get(&soft, i))
				}
			}
			if soft != native || fs != fn {
				t.Fatalf("%v %x, %x, %#x under %x: soft %x %02x, host %x %02x", op, d, s, imm, csr, soft, fs, native, fn)
			}
		}
	}
}

func TestIntegerConversionsAgainstHost(t *testing.T) {
	if !hasNative() {
		return
	}
	r := rand.New(rand.NewPCG(5, 6))
	for _, op := range []optab.Op{optab.CVTSI2SS, optab.CVTSI2SD, optab.CVTSS2SI, optab.CVTTSS2SI, optab.CVTSD2SI, optab.CVTTSD2SI} {
		for range rounds {
			v, csr, wide := random64(r), randomCSR(r), r.IntN(2) == 0
			if r.IntN(2) == 0 {
				v = r.Uint64() >> r.IntN(64)
			}
			var a, b [2]uint64
			var fa, fb Flags
			if op == optab.CVTSI2SS || op == optab.CVTSI2SD {
				fa = Soft.FromInt(op, &a, v, wide, csr)
				fb = Native.FromInt(op, &b, v, wide, csr)
			} else {
				a[0], fa = Soft.ToInt(op, v, wide, csr)
				b[0], fb = Native.ToInt(op, v, wide, csr)
			}
			if a != b || fa != fb {
				t.Fatalf("%v %x wide %t under %x: soft %x %02x, host %x %02x", op, v, wide, csr, a, fa, b, fb)
			}
		}
	}
}

var edge80 = []x86.F80{{}, {Mant: 1}, {Mant: 1<<63 - 1}, {Mant: 1 << 63}, {Mant: 1 << 63, SE: 1}, {Mant: 1<<63 + 1, SE: 1}, {Mant: ^uint64(0), SE: 1},
	{Mant: 1 << 63, SE: 0x3fff}, {Mant: 1<<63 + 1, SE: 0x3fff}, {Mant: ^uint64(0), SE: 0x3ffe}, {Mant: 3 << 62, SE: 0x3fff}, {Mant: 1 << 63, SE: 0x3ffe},
	{Mant: 1 << 63, SE: 0x4000}, {Mant: 1 << 63, SE: 0x403e}, {Mant: ^uint64(0), SE: 0x403d}, {Mant: 1 << 63, SE: 0x7ffe}, {Mant: ^uint64(0), SE: 0x7ffe},
	{Mant: 1 << 63, SE: 0x7fff}, {Mant: 1<<63 | 1, SE: 0x7fff}, {Mant: 5 << 61, SE: 0x7fff}, {Mant: 3 << 62, SE: 0x7fff}, {Mant: ^uint64(0), SE: 0x7fff},
	{Mant: 3<<62 | 5, SE: 0x7fff}, {SE: 0x7fff}, {Mant: 1 << 62, SE: 0x7fff}, {SE: 0x3fff}, {Mant: 1 << 62, SE: 0x4000},
	{Mant: 0xde0b6b3a763ffff0 << 0, SE: 0x403a}, {Mant: 0xffffff0000000000, SE: 0x407e}, {Mant: 0xfffffffffffff800, SE: 0x43fe}}

func random80(r *rand.Rand) x86.F80 {
	var v x86.F80
	switch r.IntN(6) {
	case 0, 1:
		v = edge80[r.IntN(len(edge80))]
	case 2:
		v = x86.F80{Mant: r.Uint64(), SE: uint16(r.Uint32())}
	case 3:
		v = x86.F80{Mant: r.Uint64() | 1<<63, SE: uint16(0x3fff - 70 + r.IntN(140))}
	case 4: // few significant bits
		v = x86.F80{Mant: r.Uint64()<<r.IntN(64) | 1<<63, SE: uint16(0x3fff - 70 + r.IntN(140))}
	case 5:
		v = x86.F80{Mant: r.Uint64() | 1<<63, SE: uint16(r.Uint32())}
	}
	v.SE ^= uint16(r.IntN(2)) << 15
	return v
}

func TestX87SoftAgainstHost(t *testing.T) {
	if !hasNative() {
		return
	}
	r := rand.New(rand.NewPCG(7, 8))
	for _, op := range []optab.Op{optab.FADD, optab.FSUB, optab.FSUBR, optab.FMUL, optab.FDIV, optab.FDIVR, optab.FSQRT,
		optab.FRNDINT, optab.FSCALE, optab.FPREM, optab.FPREM1, optab.FXTRACT} {
		results, cc := 1, uint16(C1)
		switch op {
		case optab.FPREM, optab.FPREM1:
			cc = C0 | C1 | C2 | C3
		case optab.FXTRACT:
			results = 2
		}
		bad := 0
		for range rounds * 5 {
			cw := 0x7f | uint16(r.IntN(4))<<10 | []uint16{0, 0x200, 0x300}[r.IntN(3)]
			in := [2]x86.F80{random80(r), random80(r)}
			if r.IntN(3) == 0 { // near one another
				in[1] = in[0]
				in[1].SE = in[1].SE&0x8000 | (in[1].SE+uint16(r.IntN(129))-64)&0x7fff
				in[1].Mant = r.Uint64() | 1<<63
			}
			if op == optab.FSCALE && r.IntN(2) == 0 {
				in[1] = FromInt80(int64(r.IntN(70000) - 35000))
			}
			soft, native := in, in
			fs, fn := Soft.X87(op, &soft, cw), Native.X87(op, &native, cw)
			mask := cc | uint16(AllFlags)
			if IsNaN(soft[0]) {
				mask &^= C0 | C3 // undefined, and the host's left from before
			}
			if soft[0] != native[0] || results == 2 && soft[1] != native[1] || (fs^fn)&mask != 0 {
				t.Errorf("%v %x under %x: soft %x %04x, host %x %04x", op, in, cw, soft, fs&mask, native, fn&mask)
				if bad++; bad == 4 {
					break
				}
			}
		}
	}
}

// place returns v's position among the numbers of its sign, for distances in ulps.
func place(v x86.F80) *big.Int {
	p := new(big.Int).SetUint64(v.Mant &^ (1 << 63))
	e := int64(v.SE & 0x7fff)
	if e == 0 && v.Mant>>63 != 0 {
		e = 1
	}
	p.Add(p, new(big.Int).Lsh(big.NewInt(e), 63))
	if v.SE>>15 != 0 {
		p.Neg(p)
	}
	return p
}

func TestTranscendentalsWithinOneUlpOfHost(t *testing.T) {
	if !hasNative() {
		return
	}
	r := rand.New(rand.NewPCG(11, 12))
	for _, op := range []optab.Op{optab.F2XM1, optab.FYL2X, optab.FYL2XP1, optab.FPATAN, optab.FSIN, optab.FCOS, optab.FSINCOS, optab.FPTAN} {
		bad, results := 0, 1
		if op == optab.FSINCOS || op == optab.FPTAN {
			results = 2
		}
		for range 1000 {
			in := [2]x86.F80{random80(r), random80(r)}
			switch e := in[0].SE & 0x7fff; {
			case e == 0x7fff, in[0].Mant>>63 == 0:
			case op == optab.F2XM1 && e >= 0x3fff:
				in[0].SE -= e - uint16(0x3fff-r.IntN(70)-1)
			case op == optab.FYL2XP1 && e >= 0x3ffd:
				in[0].SE -= e - uint16(0x3ffd-r.IntN(70)-1)
			case op >= optab.FSINCOS && op != optab.FSCALE || op == optab.FPTAN:
				if e >= 0x403e {
					in[0].SE -= e - uint16(0x403d-r.IntN(130))
				}
			}
			cw := 0x37f &^ (uint16(r.IntN(4)) << 3) // overflow and underflow unmasked at times
			soft, native := in, in
			fs, fn := Soft.X87(op, &soft, cw)&uint16(AllFlags), Native.X87(op, &native, cw)&uint16(AllFlags)
			ok := fs == fn
			for i := range results {
				d := new(big.Int).Sub(place(soft[i]), place(native[i]))
				if d.Abs(d).Cmp(big.NewInt(1)) > 0 {
					ok = false
				}
			}
			if !ok {
				t.Errorf("%v %x: soft %x %02x, host %x %02x", op, in, soft, fs, native, fn)
				if bad++; bad == 6 {
					break
				}
			}
		}
	}
}
