package interp

import (
	"testing"

	"berth/x86"
	"berth/x86/jit"
)

// avxCPU returns an x86-64-v3 CPU whose operating system has enabled everything.
func avxCPU(t *testing.T) *CPU {
	t.Helper()
	if !jit.AVX() {
		t.Skip("the host is no x86-64-v3 CPU")
	}
	c := newTestCPUOf(t, nil, x86.LevelV3)
	c.CR4 |= x86.CR4OSFXSR | x86.CR4OSXMMEXCPT | x86.CR4OSXSAVE
	c.XCR0 = 7
	c.loadFPU(&x86.FPU{FCW: fcwReset, MXCSR: mxcsrReset})
	return c
}

// Instructions, with memory at RSI.
var (
	vaddps     = []byte{0xc5, 0xf4, 0x58, 0xc2}             // ymm0, ymm1, ymm2
	vmulpsX    = []byte{0xc5, 0xf0, 0x59, 0xc2}             // xmm0, xmm1, xmm2
	vfmadd     = []byte{0xc4, 0xe2, 0x75, 0xb8, 0xc2}       // vfmadd231ps ymm0, ymm1, ymm2
	vmovapsTo  = []byte{0xc5, 0xfc, 0x29, 0x06}             // [rsi], ymm0
	vmovupsTo  = []byte{0xc5, 0xfc, 0x11, 0x06}             // [rsi], ymm0
	vmaskmovTo = []byte{0xc4, 0xe2, 0x75, 0x2e, 0x06}       // vmaskmovps [rsi], ymm1, ymm0
	vgatherdd  = []byte{0xc4, 0xe2, 0x6d, 0x90, 0x04, 0x8e} // vpgatherdd ymm0, [rsi+ymm1*4], ymm2
	vzeroupper = []byte{0xc5, 0xf8, 0x77}
	andn       = []byte{0xc4, 0xe2, 0xf0, 0xf2, 0xc2} // rax, rcx, rdx
	vaesenc    = []byte{0xc4, 0xe2, 0x71, 0xdc, 0xc2}
)

// Intel SDM vol. 2 tables 2-15 to 2-24: who may execute VEX instructions.
func TestAVXAvailability(t *testing.T) {
	for _, tc := range []struct {
		name          string
		cr0, cr4Clear uint64
		xcr0          uint64
		code          []byte
		vector        uint8 // 0: none
	}{
		{"enabled", 0, 0, 7, vaddps, 0},
		{"no OSXSAVE", 0, x86.CR4OSXSAVE, 7, vaddps, x86.UD},
		{"XCR0 without AVX", 0, 0, 3, vaddps, x86.UD},
		{"TS", x86.CR0TS, 0, 7, vaddps, x86.NM},
		{"TS, VZEROUPPER", x86.CR0TS, 0, 7, vzeroupper, x86.NM},
		{"TS without AVX in XCR0", x86.CR0TS, 0, 3, vaddps, x86.UD},
		{"EM", x86.CR0EM, 0, 7, vaddps, 0},
		{"no OSFXSR", 0, x86.CR4OSFXSR, 7, vaddps, 0},
		{"BMI needs no XSAVE", x86.CR0TS, x86.CR4OSXSAVE, 1, andn, 0},
		{"AES not offered", 0, 0, 7, vaesenc, x86.UD},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := avxCPU(t)
			c.CR0 |= tc.cr0
			c.CR4 &^= tc.cr4Clear
			c.XCR0 = tc.xcr0
			if tc.vector == 0 {
				must(t, c, tc.code...)
			} else {
				mustFault(t, c, tc.vector, tc.code...)
			}
		})
	}
	t.Run("v2", func(t *testing.T) {
		c := fpuCPU(t)
		mustFault(t, c, x86.UD, vaddps...)
		mustFault(t, c, x86.UD, andn...)
	})
	t.Run("virtual-8086", func(t *testing.T) {
		c := avxCPU(t)
		c.Flags |= x86.FlagVM
		mustFault(t, c, x86.UD, andn...)
	})
}

func TestVEX128ClearsTheUpperHalf(t *testing.T) {
	c := avxCPU(t)
	c.fpu.ymmh[0] = [2]uint64{1, 2}
	must(t, c, vmulpsX...)
	if c.fpu.ymmh[0] != [2]uint64{} {
		t.Errorf("%x is left", c.fpu.ymmh[0])
	}
}

// MXCSR's flags are set and the destination is not when an exception is unmasked.
func TestUnmaskedAVXException(t *testing.T) {
	const one, tiny, huge = 0x3f800000, 0x00000001, 0x7f7fffff
	for _, tc := range []struct {
		name    string
		a, b    uint64
		code    []byte
		unmask  uint32
		flags   uint32
		faults  bool
		upper32 bool // the operands are in the topmost element
	}{
		{"overflow", huge, 0x7f7fffff, vmulpsX, 1 << 10, 1 << 3, true, false},
		{"exact tiny result", 0x00800000, 0x3f000000, vmulpsX, 1 << 11, 1 << 4, true, false},
		{"exact tiny result, masked", 0x00800000, 0x3f000000, vmulpsX, 0, 0, false, false},
		{"exact tiny FMA", 0x00800000, 0x3f000000, vfmadd, 1 << 11, 1 << 4, true, true},
		{"denormal operand first", tiny, one, vaddps, 1<<8 | 1<<12, 1 << 1, true, true},
		{"inexact", one, 0x2f800000, vaddps, 1 << 12, 1 << 5, true, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := avxCPU(t)
			c.fpu.mxcsr = mxcsrReset &^ tc.unmask
			if tc.upper32 {
				c.fpu.ymmh[1][1], c.fpu.ymmh[2][1] = tc.a<<32, tc.b<<32
			} else {
				c.fpu.xmm[1][0], c.fpu.xmm[2][0] = tc.a, tc.b
			}
			if tc.faults {
				mustFault(t, c, x86.XM, tc.code...)
			} else {
				must(t, c, tc.code...)
			}
			if f := c.fpu.mxcsr & 0x3f; f&tc.flags != tc.flags || f&^tc.flags&^(1<<5) != 0 {
				t.Errorf("flags %#x, want %#x", f, tc.flags)
			}
		})
	}
}

func TestAVXMemoryOperands(t *testing.T) {
	c := avxCPU(t)
	c.R[x86.RSI] = testData + 16
	mustFault(t, c, x86.GP, vmovapsTo...)
	must(t, c, vmovupsTo...)
	c.R[x86.RSI] = testEnd - 16
	mustFault(t, c, x86.PF, vmovupsTo...)
	// What the mask leaves out is not accessed.
	c.fpu.xmm[1] = [2]uint64{1<<63 | 1<<31, 1<<63 | 1<<31}
	must(t, c, vmaskmovTo...)
	c.fpu.ymmh[1][0] = 1 << 31
	mustFault(t, c, x86.PF, vmaskmovTo...)
}

// SDM vol. 2, VGATHERDPS: elements before the one that faults are loaded, the
// mask says of the rest whether they are to be, and the instruction goes on with these.
func TestGatherIsResumed(t *testing.T) {
	c := avxCPU(t)
	c.R[x86.RSI] = testData
	if err := c.cfg.Memory.Store64(testData, 0x0000000200000001); err != nil {
		t.Fatal(err)
	}
	c.fpu.xmm[1] = [2]uint64{1 << 32, 0} // indices 0, 1, 0, 0
	c.fpu.ymmh[1] = [2]uint64{testEnd, 0}
	c.fpu.xmm[2] = [2]uint64{^uint64(0), ^uint64(0)}
	c.fpu.ymmh[2] = [2]uint64{1<<31 | 5<<32, 0}
	if st := do(t, c, vgatherdd...); st != faulted || c.exc.vector != x86.PF {
		t.Fatalf("status %d, %+v", st, c.exc)
	}
	if c.fpu.xmm[0] != [2]uint64{0x0000000200000001, 0x0000000100000001} || c.fpu.xmm[2] != [2]uint64{} || c.fpu.ymmh[2][0] != 0xffffffff {
		t.Errorf("xmm0 %x, mask %x %x", c.fpu.xmm[0], c.fpu.xmm[2], c.fpu.ymmh[2])
	}
	c.fpu.ymmh[1][0] = 1
	must(t, c, vgatherdd...)
	if c.fpu.ymmh[0] != [2]uint64{2, 0} || c.fpu.ymmh[2] != [2]uint64{} {
		t.Errorf("ymm0's upper half %x, mask %x", c.fpu.ymmh[0], c.fpu.ymmh[2])
	}
}

// Intel SDM vol. 1 §13.4.2, §13.5.3: the AVX component of XSAVE.
func TestXSaveOfYMM(t *testing.T) {
	c := avxCPU(t)
	for i := range c.fpu.ymmh {
		c.fpu.ymmh[i] = [2]uint64{uint64(i), ^uint64(i)}
	}
	saved := *c.fpu.ymmh
	c.R[x86.RSI], c.R[x86.RAX], c.R[x86.RDX] = testData, 7, 0
	must(t, c, xsave...)
	if v, err := c.cfg.Memory.Load64(testData + ymmOffset + 16*5); err != nil || v != 5 {
		t.Errorf("YMM5 is %#x, %v", v, err)
	}
	*c.fpu.ymmh = [16][2]uint64{}
	must(t, c, xrstor...)
	if *c.fpu.ymmh != saved {
		t.Error("XRSTOR did not bring YMM back")
	}
	*c.fpu.ymmh = [16][2]uint64{}
	must(t, c, xsaveopt...)
	if v, err := c.cfg.Memory.Load64(testData + fxsaveSize); err != nil || v&xcr0AVX != 0 {
		t.Errorf("XSTATE_BV %#x, %v of a state in which YMM is 0", v, err)
	}
	*c.fpu.ymmh = saved
	must(t, c, xrstor...)
	if *c.fpu.ymmh != [16][2]uint64{} {
		t.Error("XRSTOR did not initialise YMM")
	}
}

// XCR0 takes AVX only with SSE, and only where there is AVX.
func TestXCR0OfAVX(t *testing.T) {
	xsetbv := []byte{0x0f, 0x01, 0xd1}
	c := avxCPU(t)
	c.R[x86.RCX], c.R[x86.RDX], c.R[x86.RAX] = 0, 0, 5
	mustFault(t, c, x86.GP, xsetbv...)
	c.R[x86.RAX] = 7
	must(t, c, xsetbv...)
	c = fpuCPU(t)
	c.R[x86.RCX], c.R[x86.RDX], c.R[x86.RAX] = 0, 0, 7
	mustFault(t, c, x86.GP, xsetbv...)
}

// Each level offers what the psABI lists for it, and no more.
func TestLevelsInCPUID(t *testing.T) {
	for _, tc := range []struct {
		level x86.Level
		ecx1  uint32
		ebx7  uint32
		ecxEx uint32
		xcr0  uint32
	}{
		{x86.LevelV1, 0, 0, 0, 3},
		{0, feat1V2, 0, 1, 3},
		{x86.LevelV2, feat1V2, 0, 1, 3},
		{x86.LevelV3, feat1V2 | feat1V3, feat7V3, 1 | featExtV3, 7},
	} {
		if tc.level == x86.LevelV3 && !jit.AVX() {
			continue
		}
		c := newTestCPUOf(t, nil, tc.level)
		c.cfg.APIC, c.cfg.CPUs = oneInterrupt{}, 1
		if r := c.leaf(1, 0); r[2]&(feat1V2|feat1V3) != tc.ecx1 {
			t.Errorf("level %d: leaf 1 ECX %#x", tc.level, r[2])
		}
		if r := c.leaf(7, 0); r[1]&feat7V3 != tc.ebx7 {
			t.Errorf("level %d: leaf 7 EBX %#x", tc.level, r[1])
		}
		if r := c.leaf(0x80000001, 0); r[2]&(1|featExtV3) != tc.ecxEx {
			t.Errorf("level %d: leaf 0x80000001 ECX %#x", tc.level, r[2])
		}
		c.XCR0 = uint64(tc.xcr0)
		size := uint32(xsaveSize(uint64(tc.xcr0)))
		if r := c.leaf(0xd, 0); r != (regs4{tc.xcr0, size, size}) {
			t.Errorf("level %d: leaf 0xd %#x", tc.level, r)
		}
		c.XCR0 = 1
		if r := c.leaf(0xd, 0); r[1] != headerEnd || r[2] != size {
			t.Errorf("level %d: leaf 0xd %#x with XCR0 1", tc.level, r)
		}
	}
}
