package interp

import (
	"testing"

	"berth/x86"
)

// x87CPU is fpuCPU about to run code, with RSI at testData.
func x87CPU(t *testing.T, code string) *CPU {
	t.Helper()
	c := newTestCPU(t, unhex(t, code))
	c.CR4 |= x86.CR4OSFXSR
	c.loadFPU(&x86.FPU{FCW: fcwReset, MXCSR: mxcsrReset})
	c.R[x86.RSI] = testData
	return c
}

// x87 and MMX code stays translated: one exit to load the registers, one at the end.
func TestX87StaysTranslated(t *testing.T) {
	for _, e := range []struct{ name, code string }{
		// fldz; mov ecx, 1000; l: fld1; faddp; fist dword [rsi]; dec ecx; jnz l
		{"x87", "d9ee" + "b9e8030000" + "d9e8" + "dec1" + "db16" + "ffc9" + "75f6"},
		// mov ecx, 1000; mov eax, 1; movd mm1, eax; pxor mm0, mm0; l: paddd mm0, mm1; movd [rsi], mm0; dec ecx; jnz l; emms
		{"MMX", "b9e8030000" + "b801000000" + "0f6ec8" + "0fefc0" + "0ffec1" + "0f7e06" + "ffc9" + "75f6" + "0f77"},
	} {
		t.Run(e.name, func(t *testing.T) {
			c := x87CPU(t, e.code)
			runTest(t, c, false)
			if v, err := c.cfg.Memory.Load32(testData); err != nil || v != 1000 {
				t.Errorf("%d, %v", v, err)
			}
			if s, _ := c.Translation(); translate && s.Stepped > 3 {
				t.Errorf("%d instructions were not translated: %+v", s.Stepped, s)
			}
		})
	}
}

// The interpreter finds the state that translated code left, guest addresses in the
// pointers, and the other way round.
func TestX87StateChangesHands(t *testing.T) {
	// fld1; fldpi; fld dword [rsi+8]; fnstenv [rsi+64]; fldcw [rsi+64]; fchs; fxsave [rsi+512]; fstp qword [rsi]
	c := x87CPU(t, "d9e8"+"d9eb"+"d94608"+"d97640"+"d96e40"+"d9e0"+"0fae8600020000"+"dd1e")
	if err := c.cfg.Memory.Store64(testData+8, 0x40400000); err != nil { // 3.0
		t.Fatal(err)
	}
	runTest(t, c, false)
	load := func(at uint64) uint64 {
		var p [8]byte
		if err := c.cfg.Memory.Read(testData+at, p[:]); err != nil {
			t.Fatal(err)
		}
		return get64(p[:])
	}
	for _, e := range []struct {
		name           string
		at, mask, want uint64
	}{
		{"FNSTENV's FSW", 64 + 4, 0xffff, 5 << 11},
		{"FNSTENV's tags", 64 + 8, 0xffff, 0x03ff},
		{"FNSTENV's FIP", 64 + 12, 0xffffffff, testCode + 4},
		{"FNSTENV's FOP", 64 + 18, 0x7ff, 0x146},
		{"FNSTENV's FDP", 64 + 20, 0xffffffff, testData + 8},
		{"FXSAVE's FIP", 512 + 8, ^uint64(0), testCode + 13},
		{"FXSAVE's FOP", 512 + 6, 0x7ff, 0x1e0},
		{"FXSAVE's ST0", 512 + 32, ^uint64(0), 0xc000000000000000},
		{"FXSAVE's ST0's exponent", 512 + 40, 0xffff, 0xc000},
		{"the number stored", 0, ^uint64(0), 0xc008000000000000},
	} {
		if got := load(e.at) & e.mask; got != e.want {
			t.Errorf("%s: %#x, want %#x", e.name, got, e.want)
		}
	}
	var f x86.FPU
	c.saveFPU(&f)
	if f.FSW>>11&7 != 6 || f.FTW != 0xc0 || f.FIP != testCode+22 || f.FDP != testData {
		t.Errorf("%+v", f)
	}
}

// An exception that the guest unmasks is its own, at the next waiting instruction.
func TestX87UnmaskedInTranslatedCode(t *testing.T) {
	// fld1; fldcw [rsi]; fldz; fdivp; nop; fwait
	c := x87CPU(t, "d9e8"+"d92e"+"d9ee"+"def9"+"90"+"9b")
	if err := c.cfg.Memory.Store64(testData, fcwReset&^4); err != nil {
		t.Fatal(err)
	}
	if st := runToFault(c, false); st != faulted || c.exc.vector != x86.MF || c.RIP != testCode+9 {
		t.Fatalf("status %d, exception %+v at %#x", st, c.exc, c.RIP)
	}
	if sw := c.fpu.statusWord(); sw != fswES|fswB|4|6<<11 {
		t.Errorf("status word %#x", sw)
	}
}

// While CR0.TS or CR0.EM is set nothing runs, and the state waits.
func TestX87UnavailableInTranslatedCode(t *testing.T) {
	c := x87CPU(t, "d9e8")
	runTest(t, c, false)
	for _, e := range []struct {
		cr0    uint64
		code   string
		vector uint8
	}{
		{x86.CR0TS, "d9e0", x86.NM}, {x86.CR0TS, "0fefc0", x86.NM}, {x86.CR0EM, "d9e0", x86.NM}, {x86.CR0EM, "0fefc0", x86.UD},
		{x86.CR0TS | x86.CR0MP, "9b", x86.NM},
	} {
		writeTest(t, c, testCode+0x100, unhex(t, "90"+e.code))
		boundary(c)
		c.dropCode(testCode+0x100, 8)
		c.RIP, c.CR0 = testCode+0x100, c.CR0|e.cr0
		if st := runToFault(c, false); st != faulted || c.exc.vector != e.vector || c.RIP != testCode+0x101 {
			t.Errorf("%s with CR0 %#x: status %d, exception %+v at %#x", e.code, c.CR0, st, c.exc, c.RIP)
		}
		c.CR0 &^= e.cr0
	}
	writeTest(t, c, testCode+0x200, unhex(t, "dd1e0f0b")) // fstp qword [rsi]; ud2
	c.RIP = testCode + 0x200
	runTest(t, c, false)
	if v, err := c.cfg.Memory.Load64(testData); err != nil || v != 0x3ff0000000000000 {
		t.Errorf("%#x, %v", v, err)
	}
}
