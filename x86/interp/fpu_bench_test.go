package interp

import (
	"testing"

	"berth/x86"
	"berth/x86/decode"
)

func BenchmarkSSE(b *testing.B) {
	for _, e := range []struct {
		name string
		code []byte
	}{
		{"MOVAPS reg", []byte{0x0f, 0x28, 0xc1}}, {"MOVUPS load", movups}, {"MOVUPS store", movupsTo}, {"PXOR", []byte{0x66, 0x0f, 0xef, 0xc1}},
		{"PADDB", []byte{0x66, 0x0f, 0xfc, 0xc1}}, {"ADDSD", []byte{0xf2, 0x0f, 0x58, 0xc1}}, {"MULPD load", []byte{0x66, 0x0f, 0x59, 0x06}},
		{"UCOMISD", []byte{0x66, 0x0f, 0x2e, 0xc1}}, {"CVTSI2SD", []byte{0xf2, 0x0f, 0x2a, 0xc0}}, {"PSHUFD", []byte{0x66, 0x0f, 0x70, 0xc1, 0x1b}},
		{"MOVQ load", []byte{0xf3, 0x0f, 0x7e, 0x06}}, {"MOVD from", []byte{0x66, 0x48, 0x0f, 0x7e, 0xc0}}, {"PMOVMSKB", []byte{0x66, 0x0f, 0xd7, 0xc1}},
		{"FXSAVE", fxsave}, {"FLD m64", []byte{0xdd, 0x06}}, {"FADD ST1", []byte{0xd8, 0xc1}},
	} {
		b.Run(e.name, func(b *testing.B) {
			c := newTestCPU(b, nil)
			c.CR4 |= x86.CR4OSFXSR
			c.loadFPU(&x86.FPU{FCW: fcwReset, MXCSR: mxcsrReset, FTW: 0xff})
			c.R[x86.RSI] = testData
			var in decode.Inst
			if err := decode.Decode(e.code, decode.Mode64, &in); err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				if c.exec(&in) != next {
					b.Fatal(c.exc)
				}
				c.fpu.valid = 7
			}
		})
	}
}
