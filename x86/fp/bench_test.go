package fp

import (
	"testing"

	"berth/x86"
	"berth/x86/optab"
)

func BenchmarkFloat(b *testing.B) {
	for _, e := range []struct {
		name string
		a    Arith
		op   optab.Op
	}{{"native/ADDSD", Native, optab.ADDSD}, {"soft/ADDSD", Soft, optab.ADDSD}, {"native/MULPD", Native, optab.MULPD}, {"soft/MULPD", Soft, optab.MULPD}} {
		b.Run(e.name, func(b *testing.B) {
			d, s := [2]uint64{0x3ff8000000000000, 0x3ff8000000000000}, [2]uint64{0x3ff0000000000001, 0x3ff0000000000001}
			b.ReportAllocs()
			for b.Loop() {
				v := d
				e.a.Float(e.op, &v, &s, 0, 0x1fa0)
			}
		})
	}
}

func BenchmarkInt(b *testing.B) {
	for _, a := range []Arith{Native, Soft} {
		b.Run(map[Arith]string{Native: "native", Soft: "soft"}[a], func(b *testing.B) {
			d, s := [2]uint64{1, 2}, [2]uint64{3, 4}
			b.ReportAllocs()
			for b.Loop() {
				a.Int(optab.PADDB, &d, &s)
			}
		})
	}
}

func BenchmarkX87(b *testing.B) {
	for _, a := range []Arith{Native, Soft} {
		b.Run(map[Arith]string{Native: "native", Soft: "soft"}[a], func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				r := [2]x86.F80{FromInt80(3), FromInt80(7)}
				a.X87(optab.FDIV, &r, 0x37f)
			}
		})
	}
}
