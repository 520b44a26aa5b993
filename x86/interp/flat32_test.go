package interp

import (
	"testing"

	"berth/x86"
)

// testLow is where a branch whose operand is 16 bits gets to from the test's code.
const testLow = 0xffd

// flat32CPU makes c a protected-mode CPU without paging whose segments are flat, but for
// FS, which begins at testData and has 4 GiB, and GS, which has 16 bytes there.
func flat32CPU(t testing.TB, code string) *CPU {
	c := newTestCPU(t, unhex(t, code))
	c.CR0, c.CR4, c.EFER = x86.CR0PE|x86.CR0NE, 0, 0
	const attr = x86.AttrP | x86.AttrS | x86.AttrRW | x86.AttrAccessed | x86.AttrDB | x86.AttrG
	for s := range c.Seg {
		c.Seg[s] = x86.Segment{Selector: 16, Limit: 0xffffffff, Attr: attr}
	}
	c.Seg[x86.CS] = x86.Segment{Selector: 8, Limit: 0xffffffff, Attr: attr | x86.AttrCode}
	c.Seg[x86.FS].Base = testData
	c.Seg[x86.GS] = x86.Segment{Selector: 24, Base: testData, Limit: 15, Attr: attr &^ x86.AttrG}
	c.stateChanged(x86.FlagR1)
	c.Pending = 0
	return c
}

// Flat 32-bit code is translated, where there is a translator, and does the same.
func TestFlat32(t *testing.T) {
	const ax, cx, dx, bx, sp, bp, si, di = x86.RAX, x86.RCX, x86.RDX, x86.RBX, x86.RSP, x86.RBP, x86.RSI, x86.RDI
	type regs map[int]uint64
	for _, tt := range []struct {
		name, code string
		in, want   regs
	}{
		{"INC and DEC in one byte", "404966436648", regs{ax: 0xffff, cx: 0, bx: 0x1ffff}, regs{ax: 0x1ffff, cx: 0xffffffff, bx: 0x10000}},
		{"82 is 80", "82c0058213078203fe", regs{ax: 0xfe, bx: testData}, regs{ax: 3}},
		{"stack of four bytes", "6a8059505f685634120058", regs{ax: 7}, regs{cx: 0xffffff80, di: 7, ax: 0x123456, sp: testStack}},
		{"CALL, RET n, LEAVE", "6a05e802000000eb0b558bec8b4508408be0c9c20400" + "90", nil, regs{ax: 6, sp: testStack, bp: 0}},
		{"indirect CALL and JMP", "be0f001000ffd6be16001000ffe6f4" + "b805000000c3f4" + "90", nil, regs{ax: 5, sp: testStack}},
		{"addresses are of 32 bits", "8b0c108d1c100fa34c10088906", regs{ax: 0xfff00000, dx: testData + 0x100000, si: testData + 0x100}, regs{cx: 0x03020100, bx: testData}},
		{"second bytes", "88e088fd86c40fb6f5", regs{ax: 0x1234, bx: 0x56, cx: 0}, regs{ax: 0x1212, si: 0}},
		{"PUSHF and LAHF", "f99c58f89f", nil, regs{ax: 0x0203}},
		{"FS adds its base", "648b0364890d040000006464a104000000", regs{bx: 0x1c, cx: 5}, regs{ax: 5}},
		{"FS before its base", "65a10c000000648b1dfcffffff", nil, regs{ax: 0x0f0e0d0c, bx: 0xfffefdfc}},
		{"strings", "f3a5ab", regs{cx: 2, si: testData, di: testData + 0x20}, regs{cx: 0, si: testData + 8, di: testData + 0x2c}},
		{"16-bit addresses", "678b07" + "678d4710", regs{bx: 0x18000}, regs{ax: 0x8010}},
		{"16-bit branch", "66e9f90f", nil, nil}, // to testLow
		{"16-bit call", "66e8f90f", nil, regs{sp: testStack - 2}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, stepping := range []bool{false, true} {
				c := flat32CPU(t, tt.code)
				c.R[x86.RSP] = testStack
				writeTest(t, c, testLow, []byte{0x0f, 0x0b})
				writeTest(t, c, testData-7, []byte{0xf9, 0xfa, 0xfb, 0xfc, 0xfd, 0xfe, 0xff, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15})
				for r, v := range tt.in {
					c.R[r] = v
				}
				runTest(t, c, stepping)
				for r, v := range tt.want {
					if c.R[r] != v {
						t.Errorf("stepping %v: register %d is %#x, want %#x", stepping, r, c.R[r], v)
					}
				}
			}
		})
	}
}

// What flat segments do not allow either faults, and so do FS and GS where they are not flat.
func TestFlat32Faults(t *testing.T) {
	for _, tt := range []struct {
		name, code string
		vector     uint8
		setUp      func(c *CPU)
	}{
		{"GS past its limit", "658b030f0b", x86.GP, func(c *CPU) { c.R[x86.RBX] = 13 }},
		{"FS across 4 GiB", "648b030f0b", x86.GP, func(c *CPU) { c.R[x86.RBX] = 0xfffffffe }},
		{"DS across 4 GiB", "8b030f0b", x86.GP, func(c *CPU) { c.R[x86.RBX] = 0xfffffffd }},
		{"SS across 4 GiB", "500f0b", x86.SSFault, func(c *CPU) { c.R[x86.RSP] = 2 }},
		{"FS null", "64a1000000000f0b", x86.GP, func(c *CPU) { c.setSeg(x86.FS, nullSegment(0)) }},
		{"GS read-only", "65a3000000000f0b", x86.GP, func(c *CPU) {
			s := c.Seg[x86.GS]
			s.Attr &^= x86.AttrRW
			c.setSeg(x86.GS, s)
		}},
		{"GS expands down", "65a1000000000f0b", x86.GP, func(c *CPU) {
			s := c.Seg[x86.GS]
			s.Attr |= x86.AttrDC
			c.setSeg(x86.GS, s)
		}},
		{"CS is not written", "2ea3000000000f0b", x86.GP, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, stepping := range []bool{false, true} {
				c := flat32CPU(t, tt.code)
				if tt.setUp != nil {
					tt.setUp(c)
				}
				before := c.R
				if st := runToFault(c, stepping); st != faulted || c.exc.vector != tt.vector || c.RIP != testCode {
					t.Errorf("stepping %v: status %d, %+v at %#x", stepping, st, c.exc, c.RIP)
				}
				if [16]uint64(c.R[:16]) != [16]uint64(before[:16]) {
					t.Errorf("stepping %v: registers changed", stepping)
				}
			}
		})
	}
}

// In compatibility mode code runs over the end of 4 GiB to address 0, as one instruction
// that lies on both sides, as one after the other, and by a branch there and back.
func TestFlat32Wraps(t *testing.T) {
	const top = 0xffe00000 // its page is that of testData
	for _, code := range []string{"40404040b878563412" + "90", "4090909090909040", "eb06" + "0f0b0f0b0f0b" + "ebf8"} {
		for _, stepping := range []bool{false, true} {
			c := flat32CPU(t, "")
			c.CR0, c.CR4, c.EFER = x86.CR0PE|x86.CR0PG|x86.CR0NE, x86.CR4PAE, x86.EFERLME|x86.EFERLMA
			if err := c.cfg.Memory.Store64(testTables+0x1000+8*3, testTables+0x3000|7); err != nil {
				t.Fatal(err)
			}
			if err := c.cfg.Memory.Store64(testTables+0x3000+8*511, testData|0x87); err != nil {
				t.Fatal(err)
			}
			c.stateChanged(x86.FlagR1)
			c.Pending = 0
			p := append(unhex(t, code), 0x0f, 0x0b)
			writeTest(t, c, testData+0x1ffffa, p[:6])
			writeTest(t, c, 0, p[6:])
			c.RIP = top + 0x1ffffa
			runTest(t, c, stepping)
			if want := uint64(len(p) - 2 - 6); c.RIP != want && c.RIP != top+0x1ffffc {
				t.Errorf("%s, stepping %v: ended at %#x", code, stepping, c.RIP)
			}
		}
	}
}

// Blocks of the two modes at one address are not mistaken for each other.
func TestModesDoNotShareCode(t *testing.T) {
	c := newTestCPU(t, unhex(t, "4890")) // xchg rax, rax; or dec eax, nop
	run := func(code x86.Attr, want uint64) {
		c.Seg[x86.CS].Attr = c.Seg[x86.CS].Attr&^(x86.AttrL|x86.AttrDB) | code
		c.modeChanged()
		c.R[x86.RAX], c.RIP = 7, testCode
		runTest(t, c, false)
		if c.R[x86.RAX] != want {
			t.Errorf("RAX is %d, not %d", c.R[x86.RAX], want)
		}
	}
	for range 3 {
		run(x86.AttrL, 7)
		run(x86.AttrDB, 6)
	}
}
