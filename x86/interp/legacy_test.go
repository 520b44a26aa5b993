package interp

import (
	"testing"

	"berth/x86"
)

// legacyCPU makes c a protected-mode CPU without paging: CS at testCode, SS at
// testStack, the others at testData, of 16 or 32 bits and 64 KiB each.
func legacyCPU(t *testing.T, code string, bits int) *CPU {
	c := newTestCPU(t, unhex(t, code))
	c.CR0, c.CR4, c.EFER = x86.CR0PE|x86.CR0NE, 0, 0
	attr := x86.AttrP | x86.AttrS | x86.AttrRW | x86.AttrAccessed
	if bits == 32 {
		attr |= x86.AttrDB
	}
	for s := range c.Seg {
		c.Seg[s] = x86.Segment{Selector: 16, Limit: 0xffff, Attr: attr, Base: testData}
	}
	c.Seg[x86.SS].Base = testStack
	c.Seg[x86.CS] = x86.Segment{Selector: 8, Limit: 0xffff, Attr: attr | x86.AttrCode, Base: testCode}
	c.stateChanged(x86.FlagR1)
	c.Pending = 0
	c.R[x86.RSP] = 0x8000
	c.RIP = 0
	return c
}

func TestLegacyModes(t *testing.T) {
	const ax, cx, dx, bx, sp, bp, si, di = x86.RAX, x86.RCX, x86.RDX, x86.RBX, x86.RSP, x86.RBP, x86.RSI, x86.RDI
	type regs map[int]uint64
	for _, tt := range []struct {
		name, code string
		bits       int
		in, want   regs
	}{
		{"stack wraps at 64 KiB", "bc02005053595a", 16, regs{ax: 0x1111, bx: 0x2222}, regs{cx: 0x2222, dx: 0x1111, sp: 2}},
		{"addresses wrap at 64 KiB", "bbffffbe03008a008a63fe", 16, nil, regs{ax: 0x0102}},
		{"CALL and RET n", "e80200eb0889e3368b17c20200", 16, nil, regs{dx: 3, bx: 0x7ffe, sp: 0x8002}},
		{"LOOP and JCXZ", "b9030031c040e2fde303b86300", 16, nil, regs{ax: 3, cx: 0}},
		{"REP MOVS downwards", "fdbe0100bf0100b90200f3a4", 16, nil, regs{cx: 0, si: 0xffff, di: 0xffff}},
		{"ENTER with levels, LEAVE", "c808000389e8c9", 16, regs{bp: 0x9000}, regs{ax: 0x7ffe, sp: 0x8000, bp: 0x9000}},
		{"PUSHA and POPA", "606166606661", 16, regs{ax: 1, cx: 2, dx: 3, bx: 4, si: 5, di: 6}, regs{ax: 1, cx: 2, dx: 3, bx: 4, si: 5, di: 6, sp: 0x8000}},
		{"32-bit push, 16-bit pops", "66b87856341266505b59", 16, nil, regs{bx: 0x5678, cx: 0x1234}},
		{"SALC", "b83412d6", 16, nil, regs{ax: 0x1200}},
		{"DAA and DAS", "b89900000004282789c3b8150000002c282f", 32, nil, regs{bx: 0x27, ax: 0x87}},
		{"AAA, AAM, AAD, AAS", "b80f0200003789c3b84d000000d40a89c1b805030000d50a89c2b8030200002c053f", 32, nil,
			regs{bx: 0x305, cx: 0x707, dx: 0x23, ax: 0x108}},
		{"32-bit addresses and pushes", "40496878563412" + "5ee8000000005f", 32, regs{ax: 0xffffffff, cx: 0}, regs{ax: 0, cx: 0xffffffff, si: 0x12345678, di: 13, sp: 0x8000}},
		{"16-bit jump in 32-bit code", "66eb00", 32, nil, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, stepping := range []bool{false, true} {
				c := legacyCPU(t, tt.code, tt.bits)
				writeTest(t, c, testData, []byte{0, 1, 2, 3})
				writeTest(t, c, testStack+0xfffe, []byte{1})
				for r, v := range tt.in {
					c.R[r] = v
				}
				runTest(t, c, stepping)
				for r, v := range tt.want {
					if c.R[r] != v {
						t.Errorf("stepping %v: register %d is %#x, want %#x", stepping, r, c.R[r], v)
					}
				}
				if c.RIP != uint64(len(tt.code)/2) {
					t.Errorf("stepping %v: ended at %#x", stepping, c.RIP)
				}
			}
		})
	}
}

// Code, stack and data limits are checked, and faults leave registers alone.
func TestLegacyLimits(t *testing.T) {
	for _, tt := range []struct {
		name, code string
		bits       int
		vector     uint8
		rip        uint64
		setUp      func(c *CPU)
	}{
		{"data past the limit", "8b4304", 32, x86.GP, 0, func(c *CPU) { c.R[x86.RBX] = 0xfffa }},
		{"push past the limit", "50", 32, x86.SSFault, 0, func(c *CPU) { c.R[x86.RSP] = 0x10002 }},
		{"jump past the limit", "e9fffeffff", 32, x86.GP, 0, nil},
		{"loop past the limit", "e280", 32, x86.GP, 0, func(c *CPU) { c.R[x86.RCX] = 5 }},
		{"execution past the limit", "90", 32, x86.GP, 0xffff, func(c *CPU) {
			c.RIP = 0xffff
			c.st8(testCode+0xffff, 0xb8)
		}},
		{"BOUND", "6203b9010000006213", 32, x86.BR, 7, func(c *CPU) {
			c.R[x86.RAX], c.R[x86.RDX] = 5, 11
			c.st32(testData+4, 10)
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, stepping := range []bool{false, true} {
				c := legacyCPU(t, tt.code, tt.bits)
				if tt.setUp != nil {
					tt.setUp(c)
				}
				cx, sp := c.R[x86.RCX], c.R[x86.RSP]
				if st := runToFault(c, stepping); st != faulted || c.exc.vector != tt.vector || c.RIP != tt.rip {
					t.Errorf("stepping %v: status %d, %+v at %#x", stepping, st, c.exc, c.RIP)
				}
				if c.R[x86.RSP] != sp || tt.vector != x86.BR && c.R[x86.RCX] != cx {
					t.Errorf("stepping %v: registers changed", stepping)
				}
			}
		})
	}
}
