package interp

import (
	"encoding/hex"
	"testing"

	"berth/guestmem"
	"berth/x86"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	p, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// bothWays runs code by blocks and by single steps and checks registers after each.
func bothWays(t *testing.T, code string, setUp func(c *CPU), check func(t *testing.T, c *CPU)) {
	for _, stepping := range []bool{false, true} {
		name := map[bool]string{false: "blocks", true: "steps"}[stepping]
		t.Run(name, func(t *testing.T) {
			c := newTestCPU(t, unhex(t, code))
			if setUp != nil {
				setUp(c)
			}
			runTest(t, c, stepping)
			check(t, c)
		})
	}
}

func wantReg(t *testing.T, c *CPU, n int, want uint64) {
	t.Helper()
	if c.R[n] != want {
		t.Errorf("register %d is %#x, want %#x", n, c.R[n], want)
	}
}

// A store into the running block counts from the next instruction on.
func TestStoreIntoRunningBlock(t *testing.T) {
	// mov byte [rel t+1], 7; nop; t: mov eax, 1; mov ebx, eax
	bothWays(t, "c605020000000790b80100000089c3", nil, func(t *testing.T, c *CPU) {
		wantReg(t, c, x86.RBX, 7)
		if c.Instructions != 4 {
			t.Errorf("%d instructions, want 4", c.Instructions)
		}
	})
}

// A function that is patched between two calls.
func TestStoreIntoOtherBlock(t *testing.T) {
	bothWays(t, "e81300000089c1c7050800000034120000e802000000eb06b801000000c3", nil, func(t *testing.T, c *CPU) {
		wantReg(t, c, x86.RCX, 1)
		wantReg(t, c, x86.RAX, 0x1234)
	})
}

// A loop that patches its own body on its third turn.
func TestStoreIntoLoop(t *testing.T) {
	bothWays(t, "31c931c083c001ffc183f9037507c605f1ffffff6483f90572ea", nil, func(t *testing.T, c *CPU) {
		wantReg(t, c, x86.RAX, 3+2*100)
	})
}

// An instruction across a page boundary, patched on either side.
func TestStoreIntoCrossingInstruction(t *testing.T) {
	c := newTestCPU(t, nil)
	at := uint64(testCode + 0x1000 - 2)
	code := unhex(t, "b8010000000f0b") // mov eax, 1; ud2
	for _, patch := range []struct{ at, v, want uint64 }{{0, 0xb8, 1}, {1, 5, 5}, {2, 6, 0x605}, {4, 9, 0x9000605}, {0, 0xb9, 0x9000605}} {
		if patch.at == 0 && patch.v == 0xb8 {
			writeTest(t, c, at, code)
		} else if !c.st8(at+patch.at, uint8(patch.v)) {
			t.Fatal("store faulted")
		}
		c.RIP = at
		c.blocks.changed = false
		runTest(t, c, false)
		if patch.v == 0xb9 {
			wantReg(t, c, x86.RCX, patch.want)
		} else {
			wantReg(t, c, x86.RAX, patch.want)
		}
	}
}

// The second page of a crossing instruction is remapped: the same bytes before
// the boundary then mean something else.
func TestCrossingInstructionRemapped(t *testing.T) {
	c := newTestCPU(t, nil)
	// A page table for the 2 MiB at testData: page 0 and 1 as they are.
	const table, code = 0x8000, testData
	put := func(gpa, v uint64) {
		if err := c.cfg.Memory.Store64(gpa, v); err != nil {
			t.Fatal(err)
		}
	}
	put(table, code|7)
	put(table+8, code+0x1000|7)
	put(testTables+0x2000+8, table|7)
	writeTest(t, c, code+0xffe, unhex(t, "b801000000"+"0f0b"))
	writeTest(t, c, code+0x2000, unhex(t, "020000"+"0f0b"))
	for _, want := range []uint64{1, 0x201} {
		c.flushTLB(false)
		c.RIP = code + 0xffe
		runTest(t, c, false)
		wantReg(t, c, x86.RAX, want)
		put(table+8, code+0x2000|7)
	}
}

// DMA into a page with decoded code reaches the vCPU through the watcher.
func TestDMAIntoCode(t *testing.T) {
	c := newTestCPU(t, unhex(t, "b801000000"))
	c.cfg.Memory.WatchCode(guestmem.CodeWatcher(c.CodeWritten))
	runTest(t, c, false)
	writeTest(t, c, testCode+1, []byte{2})
	if c.Pending&pendCode == 0 {
		t.Fatal("nothing pending after the write")
	}
	c.dropWritten()
	c.RIP = testCode
	runTest(t, c, false)
	wantReg(t, c, x86.RAX, 2)
}

// A page whose last block went is plainly writable again.
func TestCodeFlagDropped(t *testing.T) {
	c := newTestCPU(t, unhex(t, "b801000000"))
	runTest(t, c, false)
	if *c.cfg.Memory.Flags(testCode)&guestmem.FlagCode == 0 {
		t.Fatal("flag not set while the page holds blocks")
	}
	if !c.st8(testCode+0x100, 1) || *c.cfg.Memory.Flags(testCode)&guestmem.FlagCode == 0 {
		t.Fatal("a store beside the code dropped it")
	}
	if !c.st8(testCode+1, 1) {
		t.Fatal("store faulted")
	}
	if *c.cfg.Memory.Flags(testCode)&guestmem.FlagCode != 0 || len(c.blocks.byKey) != 0 || c.blocks.held != 0 {
		t.Error("the block outlived a store into it")
	}
}

// A repeated instruction pauses for pending events with exact registers.
func TestRepeatPauses(t *testing.T) {
	for _, code := range []string{"f3aa", "f3a4", "f348ab", "f348a5", "f3a6", "f2ae"} {
		c := newTestCPU(t, unhex(t, code))
		const n = 3 * pageSize
		c.R[x86.RCX], c.R[x86.RDI], c.R[x86.RSI] = n, testData+0x10, testData+0x100000
		if code == "f2ae" {
			c.R[x86.RAX] = 0xff
		}
		turns := 0
		for ; c.RIP == testCode && turns < 2*n; turns++ {
			c.Pending = pendIntr
			before := c.R[x86.RCX]
			st := c.step()
			if st == next {
				break
			}
			if st != again {
				t.Fatalf("%s: status %d", code, st)
			}
			width := (c.R[x86.RDI] - testData - 0x10) / (n - c.R[x86.RCX])
			if c.R[x86.RCX] >= before || width != 1 && width != 8 {
				t.Fatalf("%s: rcx %#x after %#x, rdi %#x", code, c.R[x86.RCX], before, c.R[x86.RDI])
			}
		}
		if turns < 3 || c.R[x86.RCX] != 0 {
			t.Errorf("%s: %d turns, rcx %#x", code, turns, c.R[x86.RCX])
		}
	}
}

// A repeated store that meets an unmapped page stops at its first byte.
func TestRepeatFaults(t *testing.T) {
	c := newTestCPU(t, unhex(t, "f3aa"))
	c.R[x86.RCX], c.R[x86.RDI] = 0x1000, testRAM-0x123
	if st := runToFault(c, false); st != faulted || c.exc.vector != x86.PF || c.exc.cr2 != testRAM {
		t.Fatalf("status %d, %+v", st, c.exc)
	}
	if c.RIP != testCode || c.R[x86.RDI] != testRAM || c.R[x86.RCX] != 0x1000-0x123 {
		t.Errorf("rip %#x rdi %#x rcx %#x", c.RIP, c.R[x86.RDI], c.R[x86.RCX])
	}
}

// Overlapping forward copies repeat the pattern, as byte by byte.
func TestRepeatOverlap(t *testing.T) {
	c := newTestCPU(t, unhex(t, "f3a4"))
	writeTest(t, c, testData, []byte("abc"))
	c.R[x86.RCX], c.R[x86.RSI], c.R[x86.RDI] = 9, testData, testData+3
	runTest(t, c, false)
	var p [12]byte
	if err := c.cfg.Memory.Read(testData, p[:]); err != nil || string(p[:]) != "abcabcabcabc" {
		t.Errorf("%q %v", p, err)
	}
}

// Non-canonical operands are #GP, through the stack #SS.
func TestNonCanonical(t *testing.T) {
	for code, vector := range map[string]uint8{
		"488b03":   x86.GP,      // mov rax, [rbx]
		"488b4500": x86.SSFault, // mov rax, [rbp]
		"50":       x86.SSFault, // push rax
		"c3":       x86.SSFault, // ret
		"ffe3":     x86.GP,      // jmp rbx
		"488703":   x86.GP,      // xchg [rbx], rax
	} {
		for _, stepping := range []bool{false, true} {
			c := newTestCPU(t, unhex(t, code))
			c.R[x86.RBX], c.R[x86.RBP], c.R[x86.RSP] = 1<<60, 1<<60, 1<<60
			if st := runToFault(c, stepping); st != faulted || c.exc.vector != vector || c.RIP != testCode || !c.exc.hasError || c.exc.code != 0 {
				t.Errorf("%s stepping %v: status %d, %+v at %#x", code, stepping, st, c.exc, c.RIP)
			}
		}
	}
}

// Two vCPUs hold code of one page: a store by one reaches the other, and the
// page stays marked until both have let go.
func TestCodeHeldByTwo(t *testing.T) {
	a := newTestCPU(t, unhex(t, "b801000000"))
	b, err := New(Config{ID: 1, Memory: a.cfg.Memory, Translate: translate})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	}()
	a.cfg.Memory.WatchCode(func(gpa uint64) { a.CodeWritten(gpa); b.CodeWritten(gpa) })
	b.CR0, b.CR4, b.EFER, b.CR3, b.Seg = a.CR0, a.CR4, a.EFER, a.CR3, a.Seg
	b.stateChanged(x86.FlagR1)
	b.RIP, b.Pending = testCode, 0
	runTest(t, a, false)
	runTest(t, b, false)
	if !a.st8(testCode+1, 2) {
		t.Fatal("store faulted")
	}
	if b.Pending&pendCode == 0 || *a.cfg.Memory.Flags(testCode)&guestmem.FlagCode == 0 {
		t.Fatal("the other vCPU has not heard of the store, or the page is unmarked")
	}
	b.dropWritten()
	if *a.cfg.Memory.Flags(testCode) != 0 {
		t.Errorf("flags %#x after both let go", *a.cfg.Memory.Flags(testCode))
	}
	b.RIP = testCode
	runTest(t, b, false)
	wantReg(t, b, x86.RAX, 2)
}

// Undefined bytes are decoded anew when any of those looked at changes.
func TestUndefinedInstructionPatched(t *testing.T) {
	c := newTestCPU(t, unhex(t, "0f3800000f04")) // no such instruction at the end
	c.RIP = testCode + 4
	runTest(t, c, false)
	if !c.st8(testCode+5, 0x0b) || len(c.blocks.byKey) != 0 {
		t.Error("the block outlived a store into its second byte")
	}
}
