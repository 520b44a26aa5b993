package fp

import (
	"bufio"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"berth/x86"
	"berth/x86/optab"
)

var update = flag.Bool("update", false, "write testdata/vectors.txt from this host's CPU")

var x87Vectors = []optab.Op{optab.FADD, optab.FSUB, optab.FSUBR, optab.FMUL, optab.FDIV, optab.FDIVR, optab.FSQRT, optab.FRNDINT,
	optab.FSCALE, optab.FPREM, optab.FPREM1, optab.FXTRACT}

// writeVectors records an x86 host's results, so that software is checked on
// every host. A line is an operation, its operands and environment, and the
// results: XMM values as two quadwords, x87 ones as significand and exponent.
func writeVectors(t *testing.T) {
	r := rand.New(rand.NewPCG(21, 22))
	var b strings.Builder
	for _, op := range floatOps() {
		for range 12 {
			d, s, csr, imm := randomVec(r), randomVec(r), randomCSR(r), uint8(r.IntN(16))
			v := d
			f := Native.Float(op, &v, &s, imm, csr)
			fmt.Fprintf(&b, "%v %x %x %x %x %x %x %x %x %x\n", op, d[0], d[1], s[0], s[1], imm, csr, v[0], v[1], f)
		}
	}
	for _, op := range x87Vectors {
		for range 24 {
			cw := 0x7f | uint16(r.IntN(4))<<10 | []uint16{0, 0x200, 0x300}[r.IntN(3)]
			in := [2]x86.F80{random80(r), random80(r)}
			v := in
			sw := Native.X87(op, &v, cw) & (C1 | uint16(AllFlags))
			fmt.Fprintf(&b, "%v %x %x %x %x 0 %x %x %x %x\n", op, in[0].Mant, in[0].SE, in[1].Mant, in[1].SE, cw, v[0].Mant, v[0].SE, sw)
		}
	}
	if err := os.WriteFile("testdata/vectors.txt", []byte(b.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestVectors(t *testing.T) {
	if *update && hasNative() {
		writeVectors(t)
	}
	ops := map[string]optab.Op{}
	for op := optab.FirstX87; op <= optab.LastSSE; op++ {
		ops[op.String()] = op
	}
	f, err := os.Open("testdata/vectors.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	lines := 0
	for sc := bufio.NewScanner(f); sc.Scan(); lines++ {
		var name string
		var a, b, want [2]uint64
		var imm uint8
		var env uint32
		var flags uint16
		if _, err := fmt.Sscanf(sc.Text(), "%s %x %x %x %x %x %x %x %x %x", &name, &a[0], &a[1], &b[0], &b[1], &imm, &env,
			&want[0], &want[1], &flags); err != nil {
			t.Fatalf("%q: %v", sc.Text(), err)
		}
		got := a
		var sw uint16
		if op := ops[name]; op <= optab.LastX87 {
			r := [2]x86.F80{{Mant: a[0], SE: uint16(a[1])}, {Mant: b[0], SE: uint16(b[1])}}
			sw = Soft.X87(op, &r, uint16(env)) & (C1 | uint16(AllFlags))
			got = [2]uint64{r[0].Mant, uint64(r[0].SE)}
		} else {
			sw = uint16(Soft.Float(op, &got, &b, imm, env))
		}
		if got != want || sw != flags {
			t.Errorf("%s: got %x, flags %03x", sc.Text(), got, sw)
		}
	}
	if lines < 500 {
		t.Errorf("only %d lines", lines)
	}
}

// Values that the manuals give or arithmetic makes obvious.
func TestKnownX87Values(t *testing.T) {
	one, three := FromInt80(1), FromInt80(3)
	for _, e := range []struct {
		name string
		op   optab.Op
		a, b x86.F80
		cw   uint16
		want x86.F80
		sw   uint16
	}{
		{"1/3", optab.FDIV, one, three, 0x37f, x86.F80{Mant: 0xaaaaaaaaaaaaaaab, SE: 0x3ffd}, C1 | uint16(PE)},
		{"1/3 down", optab.FDIV, one, three, 0x77f, x86.F80{Mant: 0xaaaaaaaaaaaaaaaa, SE: 0x3ffd}, uint16(PE)},
		{"1/3 in 24 bits", optab.FDIV, one, three, 0x07f, x86.F80{Mant: 0xaaaaab0000000000, SE: 0x3ffd}, C1 | uint16(PE)},
		{"1/3 in 53 bits", optab.FDIV, one, three, 0x27f, x86.F80{Mant: 0xaaaaaaaaaaaaa800, SE: 0x3ffd}, uint16(PE)},
		{"1/0", optab.FDIV, one, x86.F80{}, 0x37f, x86.F80{Mant: 1 << 63, SE: 0x7fff}, uint16(ZE)},
		{"0/0", optab.FDIV, x86.F80{}, x86.F80{}, 0x37f, Indefinite(), uint16(IE)},
		{"1-1 down", optab.FSUB, one, one, 0x77f, x86.F80{SE: 0x8000}, 0},
		{"pseudo-infinity", optab.FADD, one, x86.F80{SE: 0x7fff}, 0x37f, Indefinite(), uint16(IE)},
		{"unnormal", optab.FADD, one, x86.F80{Mant: 1, SE: 0x3fff}, 0x37f, Indefinite(), uint16(IE)},
		{"pseudo-denormal", optab.FADD, x86.F80{Mant: 1 << 63}, x86.F80{}, 0x37f, x86.F80{Mant: 1 << 63, SE: 1}, uint16(DE)},
		{"larger significand", optab.FADD, x86.F80{Mant: 3<<62 | 1, SE: 0x7fff}, x86.F80{Mant: 3<<62 | 2, SE: 0xffff}, 0x37f,
			x86.F80{Mant: 3<<62 | 2, SE: 0xffff}, 0},
		{"overflow unmasked", optab.FADD, x86.F80{Mant: 1 << 63, SE: 0x7ffe}, x86.F80{Mant: 1 << 63, SE: 0x7ffe}, 0x377,
			x86.F80{Mant: 1 << 63, SE: 0x7fff - wrap}, uint16(OE)},
		{"√2", optab.FSQRT, FromInt80(2), one, 0x37f, x86.F80{Mant: 0xb504f333f9de6484, SE: 0x3fff}, uint16(PE)},
		{"17 rem 5", optab.FPREM, FromInt80(17), FromInt80(5), 0x37f, FromInt80(2), C1 | C3},
		{"18 rem1 5", optab.FPREM1, FromInt80(18), FromInt80(5), 0x37f, FromInt80(-2), C0},
		{"sin 1", optab.FSIN, one, one, 0x37f, x86.F80{Mant: 0xd76aa47848677021, SE: 0x3ffe}, C1 | uint16(PE)},
		{"atan 1/1", optab.FPATAN, one, one, 0x37f, x86.F80{Mant: 0xc90fdaa22168c235, SE: 0x3ffe}, C1 | uint16(PE)},
		{"3 log2 8", optab.FYL2X, FromInt80(8), three, 0x37f, FromInt80(9), uint16(PE)},
	} {
		r := [2]x86.F80{e.a, e.b}
		sw := Soft.X87(e.op, &r, e.cw)
		if r[0] != e.want || sw != e.sw {
			t.Errorf("%s: %x, %04x; want %x, %04x", e.name, r[0], sw, e.want, e.sw)
		}
	}
}

func TestBCD(t *testing.T) {
	p := [10]byte{0x78, 0x56, 0x34, 0x12, 9: 0x80}
	v := FromBCD(p)
	if v != FromInt80(-12345678) {
		t.Errorf("from: %x", v)
	}
	if got, sw := ToBCD(v, 0x37f); got != p || sw != 0 {
		t.Errorf("to: %x, %x", got, sw)
	}
	if got, sw := ToBCD(FromInt80(1e18), 0x37f); got != IndefiniteBCD() || sw != uint16(IE) {
		t.Errorf("too large: %x, %x", got, sw)
	}
}

// Intel SDM vol. 2 §4.1, and the uses it is made for.
func TestCompareStrings(t *testing.T) {
	vec := func(s string) (v [2]uint64) {
		for i := range s {
			v[i>>3] |= uint64(s[i]) << (i & 7 * 8)
		}
		return v
	}
	for _, e := range []struct {
		name, a, b string
		imm        uint8
		index      uint64
	}{
		{"any of", "xyz", "hello, yes", 0x00, 7},
		{"none of", "xyz", "hello", 0x00, 16},
		{"ranges", "09", "abc5", 0x04, 3},
		{"equal each, first difference", "hello", "help!", 0x18, 3},
		{"substring", "lo", "hello", 0x0c, 3},
		{"substring, begun at the end", "lo", "xxxxxxxxxxxxxxxl", 0x0c, 15},
		{"last", "l", "hello", 0x40, 3},
	} {
		a, b := vec(e.a), vec(e.b)
		m := CompareStrings(a, b, StringLength(a, e.imm), StringLength(b, e.imm), e.imm)
		if i := m.Index(e.imm); i != e.index {
			t.Errorf("%s: %d, not %d", e.name, i, e.index)
		}
	}
}
