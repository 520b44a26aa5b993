package interp

import (
	"slices"
	"testing"

	"berth/x86"
	"berth/x86/decode"
	"berth/x86/fp"
)

const testEnd = testRAM // the first address that is not mapped

// fpuCPU returns a CPU whose operating system has enabled everything.
func fpuCPU(t *testing.T) *CPU {
	t.Helper()
	c := newTestCPU(t, nil)
	c.CR4 |= x86.CR4OSFXSR | x86.CR4OSXMMEXCPT | x86.CR4OSXSAVE
	c.XCR0 = 3
	c.loadFPU(&x86.FPU{FCW: fcwReset, MXCSR: mxcsrReset})
	return c
}

// do executes one instruction at testCode.
func do(t *testing.T, c *CPU, code ...byte) status {
	t.Helper()
	var in decode.Inst
	if err := decode.Decode(code, decode.Mode64, &in); err != nil {
		t.Fatalf("% x: %v", code, err)
	}
	c.RIP, c.exc = testCode, exception{}
	return c.exec(&in)
}

func must(t *testing.T, c *CPU, code ...byte) {
	t.Helper()
	if st := do(t, c, code...); st != next {
		t.Fatalf("% x: status %d, exception %+v", code, st, c.exc)
	}
}

func mustFault(t *testing.T, c *CPU, vector uint8, code ...byte) {
	t.Helper()
	before := c.fpu
	if st := do(t, c, code...); st != faulted || c.exc.vector != vector {
		t.Errorf("% x: status %d, exception %+v, not vector %d", code, st, c.exc, vector)
	}
	before.scratch, before.mxcsr = c.fpu.scratch, c.fpu.mxcsr
	if c.fpu != before {
		t.Errorf("% x: state changed by a fault", code)
	}
}

// Instructions, with memory at RSI.
var (
	addps     = []byte{0x0f, 0x58, 0xc1}
	divps     = []byte{0x0f, 0x5e, 0xc1}
	paddb     = []byte{0x0f, 0xfc, 0xc1}
	fld1      = []byte{0xd9, 0xe8}
	fldz      = []byte{0xd9, 0xee}
	fdivp     = []byte{0xde, 0xf9}
	fwait     = []byte{0x9b}
	fnstsw    = []byte{0xdf, 0xe0}
	fxsave    = []byte{0x0f, 0xae, 0x06}
	fxrstor   = []byte{0x0f, 0xae, 0x0e}
	xsave     = []byte{0x0f, 0xae, 0x26}
	xrstor    = []byte{0x0f, 0xae, 0x2e}
	xsaveopt  = []byte{0x0f, 0xae, 0x36}
	ldmxcsr   = []byte{0x0f, 0xae, 0x16}
	movaps    = []byte{0x0f, 0x28, 0x06}
	movups    = []byte{0x0f, 0x10, 0x06}
	movupsTo  = []byte{0x0f, 0x11, 0x06}
	addpsMem  = []byte{0x0f, 0x58, 0x06}
	aesenc    = []byte{0x66, 0x0f, 0x38, 0xdc, 0xc1}
	pclmul    = []byte{0x66, 0x0f, 0x3a, 0x44, 0xc1, 0}
	xsavec    = []byte{0x0f, 0xc7, 0x26}
	fstpLong  = []byte{0xdb, 0x3e}
	fsaveMem  = []byte{0xdd, 0x36}
	cvtpi2ps  = []byte{0x0f, 0x2a, 0xc1}
	pmovsxbq  = []byte{0x66, 0x0f, 0x38, 0x22, 0x06}
	pmovsxbd  = []byte{0x66, 0x0f, 0x38, 0x21, 0x06}
	movsd     = []byte{0xf2, 0x0f, 0x10, 0x06}
	movss     = []byte{0xf3, 0x0f, 0x10, 0x06}
	movqMMX   = []byte{0x0f, 0x6f, 0x06}
	punpcklbw = []byte{0x0f, 0x60, 0x06}
	cvtps2pd  = []byte{0x0f, 0x5a, 0x06}
	insertps  = []byte{0x66, 0x0f, 0x3a, 0x21, 0x06, 0}
	pinsrw    = []byte{0x0f, 0xc4, 0x06, 0}
)

// Intel SDM vol. 3A table 2-2 and §14.1.
func TestAvailability(t *testing.T) {
	c := fpuCPU(t)
	c.R[x86.RSI] = testData
	for _, e := range []struct {
		name     string
		cr0, cr4 uint64 // bits set in CR0, cleared in CR4
		code     []byte
		vector   uint8
	}{
		{"EM, SSE", x86.CR0EM, 0, addps, x86.UD},
		{"EM, MMX", x86.CR0EM, 0, paddb, x86.UD},
		{"EM, x87", x86.CR0EM, 0, fld1, x86.NM},
		{"EM, FXSAVE", x86.CR0EM, 0, fxsave, x86.NM},
		{"TS, SSE", x86.CR0TS, 0, addps, x86.NM},
		{"TS, MMX", x86.CR0TS, 0, paddb, x86.NM},
		{"TS, x87", x86.CR0TS, 0, fld1, x86.NM},
		{"TS, FXRSTOR", x86.CR0TS, 0, fxrstor, x86.NM},
		{"TS, XSAVE", x86.CR0TS, 0, xsave, x86.NM},
		{"TS and MP, FWAIT", x86.CR0TS | x86.CR0MP, 0, fwait, x86.NM},
		{"no OSFXSR, SSE", 0, x86.CR4OSFXSR, addps, x86.UD},
		{"no OSFXSR, CVTPI2PS", 0, x86.CR4OSFXSR, cvtpi2ps, x86.UD},
		{"no OSFXSR, LDMXCSR", 0, x86.CR4OSFXSR, ldmxcsr, x86.UD},
		{"no OSXSAVE", 0, x86.CR4OSXSAVE, xrstor, x86.UD},
		{"AES not offered", 0, 0, aesenc, x86.UD},
		{"PCLMULQDQ not offered", 0, 0, pclmul, x86.UD},
		{"XSAVEC not offered", 0, 0, xsavec, x86.UD},
	} {
		t.Run(e.name, func(t *testing.T) {
			cr0, cr4 := c.CR0, c.CR4
			c.CR0, c.CR4 = cr0|e.cr0, cr4&^e.cr4
			mustFault(t, c, e.vector, e.code...)
			c.CR0, c.CR4 = cr0, cr4
		})
	}
	c.CR0 |= x86.CR0TS
	must(t, c, fwait...)
	c.CR0 &^= x86.CR0TS
	c.CR4 &^= x86.CR4OSFXSR
	must(t, c, paddb...)
}

// Intel SDM vol. 1 §11.5.3.
func TestUnmaskedSSEException(t *testing.T) {
	c := fpuCPU(t)
	c.fpu.mxcsr = mxcsrReset &^ (uint32(fp.ZE) << 7)
	c.fpu.xmm[0] = [2]uint64{0x3f800000_3f800000, 0x3f800000_3f800000}
	c.fpu.xmm[1] = [2]uint64{0x40400000_00000000, 0x3f800000_3f800000} // 1/3 is inexact, 1/0 traps first
	mustFault(t, c, x86.XM, divps...)
	if f := fp.Flags(c.fpu.mxcsr) & fp.AllFlags; f != fp.ZE {
		t.Errorf("flags %02x", f)
	}
	c.CR4 &^= x86.CR4OSXMMEXCPT
	mustFault(t, c, x86.UD, divps...)
}

func TestAlignment(t *testing.T) {
	c := fpuCPU(t)
	c.R[x86.RSI] = testData + 8
	for _, code := range [][]byte{movaps, addpsMem, fxsave, fxrstor, xsave} {
		mustFault(t, c, x86.GP, code...)
	}
	must(t, c, movups...)
	must(t, c, movupsTo...)
	c.R[x86.RSI] = testData + 16
	mustFault(t, c, x86.GP, xsave...)
	must(t, c, fxsave...)
}

// Intel SDM vol. 1 §8.6, §8.7: an unmasked exception waits for the next waiting instruction.
func TestPendingX87Exception(t *testing.T) {
	c := fpuCPU(t)
	c.fpu.setControlWord(fcwReset &^ uint16(fp.ZE))
	must(t, c, fld1...)
	must(t, c, fldz...)
	must(t, c, fdivp...)
	must(t, c, fnstsw...)
	if sw := uint16(c.R[x86.RAX]); sw != fswES|fswB|uint16(fp.ZE)|6<<11 { // nothing popped
		t.Errorf("status word %04x", sw)
	}
	for _, code := range [][]byte{fwait, fld1, paddb, cvtpi2ps} {
		mustFault(t, c, x86.MF, code...)
	}
	must(t, c, addps...)
	c.CR0 &^= x86.CR0NE
	must(t, c, fwait...) // nothing is wired to FERR#
	var ferr []bool
	c.cfg.FERR = func(on bool) { ferr = append(ferr, on) }
	for _, code := range [][]byte{fwait, fld1, paddb} {
		c.sys.mp, c.Pending = x86.MPRunnable, 0
		if st := do(t, c, code...); st != again || c.sys.mp != x86.MPHalted || c.Pending != pendHalt {
			t.Errorf("% x with CR0.NE clear: status %d, MP state %d", code, st, c.sys.mp)
		}
	}
	c.SetIGNNE(true)
	must(t, c, fwait...)
	must(t, c, fnstsw...)
	if !slices.Equal(ferr, []bool{true, true, true}) {
		t.Errorf("FERR#: %t", ferr)
	}
	must(t, c, 0xdb, 0xe2) // fnclex
	if !slices.Equal(ferr, []bool{true, true, true, false}) {
		t.Errorf("FERR# after FNCLEX: %t", ferr)
	}
}

// TestAlignmentChecks: which operands are checked at CPL 3, and to what (Intel SDM
// vol. 3A table 6-7).
func TestAlignmentChecks(t *testing.T) {
	at := func(offset uint64, code ...byte) status {
		c := fpuCPU(t)
		c.CR0 |= x86.CR0AM
		c.CPL = 3
		c.setRFlags(x86.FlagR1 | x86.FlagAC)
		c.modeChanged()
		c.R[x86.RSI], c.R[x86.RSP] = testData+0x100+offset, testStack+offset
		st := do(t, c, code...)
		if st == faulted && (c.exc.vector != x86.AC || !c.exc.hasError || c.exc.code != 0) {
			t.Errorf("% x: %+v", code, c.exc)
		}
		return st
	}
	for _, x := range []struct {
		name     string
		boundary uint64
		code     []byte
	}{
		{"byte", 1, []byte{0x8a, 0x06}}, {"word", 2, []byte{0x66, 0x8b, 0x06}}, {"doubleword", 4, []byte{0x8b, 0x06}},
		{"quadword", 8, []byte{0x48, 0x8b, 0x06}}, {"store", 8, []byte{0x48, 0x89, 0x06}}, {"locked", 4, []byte{0xf0, 0xff, 0x06}},
		{"exchange", 4, []byte{0x87, 0x06}}, {"bit string", 4, []byte{0x0f, 0xa3, 0x06}}, {"CMPXCHG8B", 8, []byte{0x0f, 0xc7, 0x0e}},
		{"push", 8, []byte{0x50}}, {"push of memory", 8, []byte{0xff, 0x36}}, {"pop", 8, []byte{0x58}}, {"ENTER", 8, []byte{0xc8, 0, 0, 0}}, {"PUSHF", 8, []byte{0x9c}},
		{"LODSD", 4, []byte{0xad}}, {"OUTS's like, MOVSX", 2, []byte{0x0f, 0xbf, 0x06}}, {"32-bit FLD", 4, []byte{0xd9, 0x06}},
		{"64-bit FLD", 8, []byte{0xdd, 0x06}}, {"80-bit FLD", 8, []byte{0xdb, 0x2e}}, {"80-bit FSTP", 8, []byte{0xdb, 0x3e}},
		{"FBLD", 8, []byte{0xdf, 0x26}}, {"FBSTP", 8, []byte{0xdf, 0x36}}, {"16-bit FILD", 2, []byte{0xdf, 0x06}}, {"FLDCW", 2, []byte{0xd9, 0x2e}},
		{"FNSTENV", 4, []byte{0xd9, 0x36}}, {"16-bit FNSTENV", 2, []byte{0x66, 0xd9, 0x36}}, {"FNSAVE", 4, []byte{0xdd, 0x36}},
		{"FRSTOR", 4, []byte{0xdd, 0x26}}, {"16-bit FLDENV", 2, []byte{0x66, 0xd9, 0x26}},
		{"MOVUPS", 8, []byte{0x0f, 0x10, 0x06}}, {"MOVUPS store", 8, []byte{0x0f, 0x11, 0x06}}, {"MOVSS", 4, []byte{0xf3, 0x0f, 0x10, 0x06}},
		{"MOVQ mm", 8, []byte{0x0f, 0x6f, 0x06}}, {"LDMXCSR", 4, []byte{0x0f, 0xae, 0x16}}, {"PINSRW", 2, []byte{0x66, 0x0f, 0xc4, 0x06, 0}},
		{"SIDT", 0, []byte{0x0f, 0x01, 0x0e}},
	} {
		for offset := range uint64(9) {
			want := next
			if x.boundary != 0 && offset%x.boundary != 0 || x.boundary == 0 && offset%8 != 6 {
				want = faulted
			}
			if st := at(offset, x.code...); st != want {
				t.Errorf("%s at offset %d: status %d, want %d", x.name, offset, st, want)
			}
		}
	}
}

// Nothing is read beyond the operand, and a store that faults changes nothing.
func TestOperandsAtTheEndOfMemory(t *testing.T) {
	c := fpuCPU(t)
	for _, e := range []struct {
		size uint64
		code []byte
	}{
		{2, pmovsxbq}, {2, pinsrw}, {4, pmovsxbd}, {4, movss}, {4, punpcklbw}, {4, insertps}, {4, []byte{0xd8, 0x06}},
		{8, movsd}, {8, movqMMX}, {8, cvtps2pd}, {8, []byte{0xdc, 0x06}}, {10, []byte{0xdb, 0x2e}}, {16, movups}, {512, fxrstor},
		{28, []byte{0xd9, 0x26}}, {108, []byte{0xdd, 0x26}},
		{16, movupsTo}, {512, fxsave}, {10, fstpLong}, {28, []byte{0xd9, 0x36}}, {108, fsaveMem}, {10, []byte{0xdf, 0x36}},
	} {
		c.R[x86.RSI] = testEnd - e.size
		must(t, c, e.code...)
		if e.size >= 512 {
			continue // would be misaligned
		}
		c.loadFPU(&x86.FPU{FCW: fcwReset, MXCSR: mxcsrReset, FTW: 0x0f, FSW: 0})
		c.R[x86.RSI]++
		mustFault(t, c, x86.PF, e.code...)
	}
}

func TestStateRoundTrip(t *testing.T) {
	c := fpuCPU(t)
	f := x86.FPU{FCW: 0x27f, FSW: 5<<11 | 0x4123, FTW: 0xa5, FOP: 0x123, FIP: 1 << 40, FDP: 2 << 40, MXCSR: 0x9fc1}
	for i := range f.ST {
		f.ST[i] = x86.F80{Mant: uint64(i) + 1<<63, SE: uint16(0x3fff + i)}
	}
	for i := range f.XMM {
		f.XMM[i] = [2]uint64{uint64(i), ^uint64(i)}
	}
	c.loadFPU(&f)
	var got x86.FPU
	c.saveFPU(&got)
	if got != f {
		t.Errorf("got %+v, not %+v", got, f)
	}
	for _, pair := range [][2][]byte{{fxsave, fxrstor}, {xsave, xrstor}, {xsaveopt, xrstor}} {
		c.R[x86.RSI], c.R[x86.RAX], c.R[x86.RDX] = testData, 3, 0
		wide := func(code []byte) []byte { return append([]byte{0x48}, code...) }
		must(t, c, wide(pair[0])...)
		c.loadFPU(&x86.FPU{FCW: fcwReset, MXCSR: mxcsrReset})
		must(t, c, wide(pair[1])...)
		c.saveFPU(&got)
		if got != f {
			t.Errorf("% x: got %+v, not %+v", pair[0], got, f)
		}
	}
}

// Intel SDM vol. 1 §13.6 to §13.9.
func TestXSaveHeader(t *testing.T) {
	c := fpuCPU(t)
	mem := c.cfg.Memory
	bv := func() uint64 {
		v, err := mem.Load64(testData + fxsaveSize)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	put := func(off, v uint64) {
		if err := mem.Store64(testData+off, v); err != nil {
			t.Fatal(err)
		}
	}
	c.R[x86.RSI], c.R[x86.RDX] = testData, 0
	c.fpu.xmm[1][0] = 5
	put(fxsaveSize, 0x7c)
	c.R[x86.RAX] = 3
	must(t, c, xsaveopt...)
	if v := bv(); v != 0x7e { // x87 in its initial state; bits not asked for stay
		t.Errorf("XSTATE_BV %#x", v)
	}
	mustFault(t, c, x86.GP, xrstor...) // components beyond XCR0
	put(fxsaveSize, 0)
	put(fxsaveSize+8, 1<<63)
	mustFault(t, c, x86.GP, xrstor...) // the compacted form
	put(fxsaveSize+8, 0)
	put(24, 1<<16)
	mustFault(t, c, x86.GP, xrstor...) // MXCSR
	put(24, mxcsrReset)
	must(t, c, xrstor...)
	if c.fpu.xmm[1][0] != 0 {
		t.Error("SSE state was not initialised")
	}
}

// Intel SDM vol. 1 §8.5.1.1.
func TestStackFaults(t *testing.T) {
	c := fpuCPU(t)
	must(t, c, 0xd9, 0xc9) // FXCH of two empty registers
	if sw := c.fpu.statusWord(); sw != fswIE|fswSF {
		t.Errorf("underflow: %04x", sw)
	}
	if *c.fpu.st(0) != fp.Indefinite() || *c.fpu.st(1) != fp.Indefinite() {
		t.Error("no default NaN")
	}
	must(t, c, 0xdb, 0xe3) // FNINIT
	for range 9 {
		must(t, c, fld1...)
	}
	if sw := c.fpu.statusWord(); sw != fswIE|fswSF|fswC1|7<<11 {
		t.Errorf("overflow: %04x", sw)
	}
	if *c.fpu.st(0) != fp.Indefinite() {
		t.Error("no default NaN")
	}
}
