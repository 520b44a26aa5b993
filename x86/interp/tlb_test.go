package interp

import (
	"testing"

	"berth/x86"
	"berth/x86/jit"
	"berth/x86/mmu"
)

// space is an address space: the lowest 2 MiB mapped onto themselves, and one
// page table and one page directory for spaceBase.
type space struct {
	t    *testing.T
	c    *CPU
	root uint64 // five pages: the levels, and the page table of spaceBase
}

// Where the spaces' own pages are, and memory for them.
const (
	spaceBase = 0x40000000 // 2 MiB by the page table; behind it the directory's
	spaceMem  = 0x400000
)

func newSpace(t *testing.T, c *CPU, root uint64) *space {
	s := &space{t, c, root}
	s.put(root, root+0x1000|7)
	s.put(root+0x1000, root+0x2000|7)
	s.put(root+0x1008, root+0x3000|7)
	s.put(root+0x2000, 0x83)
	s.put(root+0x3000, root+0x4000|7)
	return s
}

func (s *space) put(gpa, v uint64) {
	s.t.Helper()
	if err := s.c.cfg.Memory.Store64(gpa, v); err != nil {
		s.t.Fatal(err)
	}
}

// pte and pde set the entry of spaceBase's n-th page, and of its n-th 2 MiB, n > 0.
func (s *space) pte(n, v uint64) { s.put(s.root+0x4000+8*n, v) }
func (s *space) pde(n, v uint64) { s.put(s.root+0x3000+8*n, v) }

func (s *space) ptes(n uint64) uint64 {
	v, err := s.c.cfg.Memory.Load64(s.root + 0x4000 + 8*n)
	if err != nil {
		s.t.Fatal(err)
	}
	return v
}

// enter switches to the space; keep is bit 63.
func (s *space) enter(pcid uint64, keep bool) {
	s.t.Helper()
	exec1(s.t, s.c, "0f22d8", s.root|pcid|b2u(keep)<<63, 0) // mov cr3, rax
}

// exec1 runs one instruction with RAX and RBX.
func exec1(t *testing.T, c *CPU, hex string, rax, rbx uint64) {
	t.Helper()
	writeTest(t, c, testCode, append(unhex(t, hex), 0x0f, 0x0b))
	c.dropCode(testCode, 16)
	c.RIP, c.R[x86.RAX], c.R[x86.RBX] = testCode, rax, rbx
	runTest(t, c, false)
}

func invlpg(t *testing.T, c *CPU, va uint64) {
	t.Helper()
	exec1(t, c, "0f0138", va, 0)
}

func invpcid(t *testing.T, c *CPU, kind, pcid, va uint64) {
	t.Helper()
	for i, v := range []uint64{pcid, va} {
		if err := c.cfg.Memory.Store64(0x90000+8*uint64(i), v); err != nil {
			t.Fatal(err)
		}
	}
	exec1(t, c, "660f388203", kind, 0x90000)
}

// wantAt fails unless a load from va and code there give want.
func wantAt(t *testing.T, c *CPU, what string, va, want uint64) {
	t.Helper()
	if v, ok := c.ld64(va + 0x800); !ok || v != want {
		t.Fatalf("%s: a load from %#x gives %#x, %v, not %#x", what, va, v, ok, want)
	}
	exec1(t, c, "ffd0", va, 0) // call rax
	if c.R[x86.RAX] != want {
		t.Fatalf("%s: code at %#x gives %#x, not %#x", what, va, c.R[x86.RAX], want)
	}
	exec1(t, c, "ffd0", va, 0)
	if c.R[x86.RAX] != want {
		t.Fatalf("%s: code at %#x gives %#x the second time, not %#x", what, va, c.R[x86.RAX], want)
	}
}

// answer makes the page at gpa return n as code and hold it as data.
func answer(t *testing.T, c *CPU, gpa, n uint64) {
	t.Helper()
	writeTest(t, c, gpa, []byte{0xb8, byte(n), byte(n >> 8), 0, 0, 0xc3}) // mov eax, n; ret
	if err := c.cfg.Memory.Store64(gpa+0x800, n); err != nil {
		t.Fatal(err)
	}
}

// newTLBTest is a CPU with PCIDs and global pages, in the first of two spaces, and
// pages of 4 KiB that answer 1 and 2, of 2 MiB that answer 0x101 and 0x201 (and one
// more in each of their further pages).
func newTLBTest(t *testing.T) (c *CPU, a, b *space) {
	c = newTestCPU(t, nil)
	for n := range uint64(4) {
		answer(t, c, spaceMem+n<<12, n+1)
		answer(t, c, 0x600000+n<<12, n+0x101)
		answer(t, c, 0x800000+n<<12, n+0x201)
	}
	a, b = newSpace(t, c, 0x10000), newSpace(t, c, 0x20000)
	exec1(t, c, "0f22d8", a.root, 0)
	exec1(t, c, "0f22e0", c.CR4|x86.CR4PCIDE|x86.CR4PGE, 0) // mov cr4, rax
	a.enter(1, false)
	return c, a, b
}

func TestSDM3A_4_10_4_INVLPG(t *testing.T) {
	c, a, _ := newTLBTest(t)
	for _, global := range []uint64{0, 0x100} {
		for n := range uint64(4) {
			a.pte(3, spaceMem+n<<12|7|global)
			invlpg(t, c, spaceBase+0x3123)
			wantAt(t, c, "after INVLPG", spaceBase+0x3000, n+1)
		}
	}
}

// Data's translations go without those that code was found by.
func TestINVLPGOfDataKeepsCode(t *testing.T) {
	c, a, _ := newTLBTest(t)
	a.pte(1, spaceMem|7)
	a.pte(2, spaceMem+0x1000|7)
	wantAt(t, c, "before", spaceBase+0x1000, 1)
	c.ld64(spaceBase + 0x2000)
	before := c.sys.mem.ages.Ages
	invlpg(t, c, spaceBase+0x2000)
	if now := &c.sys.mem.ages; now.Ages != before {
		t.Error("INVLPG of a page without code had all code looked up anew")
	}
	if c.readPtr(spaceBase+0x2000, 0) != nil {
		t.Error("the page is still there")
	}
	invlpg(t, c, spaceBase+0x1000)
	if c.sys.mem.ages.Current == before.Current {
		t.Error("code is still found by the translation that INVLPG dropped")
	}
}

func TestSDM3A_4_10_4_INVLPGLargePage(t *testing.T) {
	c, a, _ := newTLBTest(t)
	va := uint64(spaceBase + 2<<20)
	for _, global := range []uint64{0, 0x100} {
		for i, at := range []uint64{0x600000, 0x800000, 0x600000} {
			a.pde(1, at|0x87|global)
			invlpg(t, c, va+0x1ff123)
			for n := range uint64(4) {
				wantAt(t, c, "a piece", va+n<<12, []uint64{0x101, 0x201, 0x101}[i]+n)
			}
		}
	}
}

// A large page is split into small ones, and made of them again.
func TestLargePageSplit(t *testing.T) {
	c, a, _ := newTLBTest(t)
	va := uint64(spaceBase + 2<<20)
	for range 2 {
		a.pde(1, 0x600000|0x87)
		invlpg(t, c, va)
		invlpg(t, c, va+0x1000) // there may be one small page for each
		wantAt(t, c, "large", va, 0x101)
		wantAt(t, c, "large", va+0x1000, 0x102)
		a.pte(0, spaceMem|7)
		a.pte(1, spaceMem+0x1000|7)
		a.pde(1, a.root+0x4000|7)
		invlpg(t, c, va+0x1000)
		wantAt(t, c, "split", va+0x1000, 2)
		wantAt(t, c, "split", va, 1)
	}
}

// INVLPG of one of many pieces leaves other large pages alone.
func TestINVLPGLeavesOtherLargePages(t *testing.T) {
	c, a, _ := newTLBTest(t)
	a.pde(1, 0x600000|0x87)
	a.pde(2, 0x800000|0x87)
	for n := range uint64(4) {
		c.ld64(spaceBase + 2<<20 + n<<12)
		c.ld64(spaceBase + 4<<20 + n<<12)
	}
	invlpg(t, c, spaceBase+2<<20)
	for n := range uint64(4) {
		if c.readPtr(spaceBase+2<<20+n<<12, 0) != nil {
			t.Errorf("piece %d is still there", n)
		}
		if c.readPtr(spaceBase+4<<20+n<<12, 0) == nil {
			t.Errorf("piece %d of another page is gone", n)
		}
	}
}

func TestSDM3A_4_10_GlobalPages(t *testing.T) {
	c, a, b := newTLBTest(t)
	fill := func(n uint64) {
		t.Helper()
		for _, s := range []*space{a, b} {
			s.pte(1, spaceMem+n<<12|0x107)
		}
		wantAt(t, c, "global", spaceBase+0x1000, n+1)
	}
	a.pte(1, spaceMem|0x107)
	wantAt(t, c, "global", spaceBase+0x1000, 1)
	b.enter(2, false)
	if c.readPtr(spaceBase+0x1000, 0) == nil {
		t.Error("MOV to CR3 dropped a global page")
	}
	invlpg(t, c, spaceBase+0x1000)
	fill(1)
	b.pte(1, spaceMem|0x107)
	invpcid(t, c, 3, 0, 0)
	if c.readPtr(spaceBase+0x1000, 0) == nil {
		t.Error("INVPCID of type 3 dropped a global page")
	}
	invpcid(t, c, 2, 0, 0)
	fill(2)
	a.pte(1, spaceMem|0x107)
	b.pte(1, spaceMem|0x107)
	exec1(t, c, "0f22e0", c.CR4&^x86.CR4PGE, 0)
	wantAt(t, c, "CR4.PGE cleared", spaceBase+0x1000, 1)
	b.pte(1, spaceMem+0x3000|0x107)
	exec1(t, c, "0f22e0", c.CR4|x86.CR4PGE, 0)
	wantAt(t, c, "CR4.PGE set", spaceBase+0x1000, 4)
}

// What is remembered of an address space that is left is forgotten by each
// instruction that says so, and shows in no other.
func TestSDM3A_4_10_PCIDs(t *testing.T) {
	c, a, b := newTLBTest(t)
	const va = spaceBase + 0x1000
	for _, test := range []struct {
		name string
		drop func() // in b, or entering a
	}{
		{"MOV to CR3 without bit 63", func() { a.enter(1, false) }},
		{"INVPCID of type 0", func() { invpcid(t, c, 0, 1, va); a.enter(1, true) }},
		{"INVPCID of type 1", func() { invpcid(t, c, 1, 1, 0); a.enter(1, true) }},
		{"INVPCID of type 2", func() { invpcid(t, c, 2, 0, 0); a.enter(1, true) }},
		{"INVPCID of type 3", func() { invpcid(t, c, 3, 0, 0); a.enter(1, true) }},
		{"CR4.SMEP", func() { exec1(t, c, "0f22e0", c.CR4^x86.CR4SMEP, 0); a.enter(1, true) }},
		{"CR4.PGE", func() { exec1(t, c, "0f22e0", c.CR4^x86.CR4PGE, 0); a.enter(1, true) }},
		{"CR0.WP", func() { exec1(t, c, "0f22c0", c.CR0^x86.CR0WP, 0); a.enter(1, true) }},
		{"EFER.NXE", func() {
			c.R[x86.RCX], c.R[x86.RDX] = 0xc0000080, 0
			exec1(t, c, "0f30", c.EFER^x86.EFERNXE, 0)
			a.enter(1, true)
		}},
		{"CR4.PCIDE", func() {
			exec1(t, c, "0f22d8", b.root, 0)
			exec1(t, c, "0f22e0", c.CR4^x86.CR4PCIDE, 0)
			exec1(t, c, "0f22e0", c.CR4^x86.CR4PCIDE, 0)
			a.enter(1, true)
		}},
		{"the second space's PCID for the first", func() { a.enter(2, false) }},
	} {
		a.pte(1, spaceMem|3)
		b.pte(1, spaceMem+0x1000|3)
		exec1(t, c, "0f22e0", c.CR4&^x86.CR4SMEP, 0)
		a.enter(1, false)
		wantAt(t, c, test.name, va, 1)
		b.enter(2, false)
		wantAt(t, c, test.name, va, 2)
		a.enter(1, true)
		wantAt(t, c, test.name, va, 1)
		b.enter(2, true)
		wantAt(t, c, test.name, va, 2)
		a.pte(1, spaceMem+0x2000|3)
		test.drop()
		wantAt(t, c, test.name, va, 3)
	}
}

// INVLPG and INVPCID of one address space leave the others'.
func TestINVLPGIsOfOnePCID(t *testing.T) {
	c, a, b := newTLBTest(t)
	a.pte(1, spaceMem|7)
	b.pte(1, spaceMem+0x1000|7)
	wantAt(t, c, "a", spaceBase+0x1000, 1)
	b.enter(2, false)
	wantAt(t, c, "b", spaceBase+0x1000, 2)
	b.pte(1, spaceMem+0x2000|7)
	invlpg(t, c, spaceBase+0x1000)
	wantAt(t, c, "b again", spaceBase+0x1000, 3)
	a.enter(1, true)
	wantAt(t, c, "a again", spaceBase+0x1000, 1)
}

func TestSDM3A_4_8_AccessedAndDirtyThroughTheTLB(t *testing.T) {
	c, a, b := newTLBTest(t)
	const va, accessed, dirty = spaceBase + 0x1000, 0x20, 0x40
	want := func(what string, bits uint64) {
		t.Helper()
		if v := a.ptes(1) & (accessed | dirty); v != bits {
			t.Fatalf("%s: %#x, not %#x", what, v, bits)
		}
	}
	a.pte(1, spaceMem|7)
	a.pte(2, spaceMem+0x1000|7)
	c.ld64(spaceBase + 0x2000) // what leads to the page table may be remembered
	want("untouched", 0)
	c.ld64(va)
	want("read", accessed)
	c.st64(va, 0)
	want("written", accessed|dirty)
	for name, drop := range map[string]func(){
		"INVLPG": func() { invlpg(t, c, va) },
		"CR3":    func() { b.enter(2, true); a.enter(1, false) },
	} {
		a.pte(1, spaceMem|7)
		drop()
		c.st64(va, 0)
		want(name+", written", accessed|dirty)
		a.pte(1, spaceMem|7)
		drop()
		c.ld64(va)
		want(name+", read", accessed)
	}
}

// A page that is made present, or writable, is found without an INVLPG.
func TestNoFaultIsRemembered(t *testing.T) {
	c, a, _ := newTLBTest(t)
	const va = spaceBase + 0x1000
	a.pte(2, spaceMem|7)
	c.ld64(va + 0x1000)
	if _, ok := c.ld64(va); ok {
		t.Fatal("a page that is not there")
	}
	a.pte(1, spaceMem+0x1000|5)
	wantAt(t, c, "made present", va, 2)
	exec1(t, c, "0f22c0", c.CR0|x86.CR0WP, 0)
	if c.st64(va, 0) {
		t.Fatal("a page that is not writable")
	}
	a.pte(1, spaceMem+0x1000|7)
	if !c.st64(va, 0) {
		t.Error("made writable")
	}
	a.pde(0, a.root+0x4000|5)
	invlpg(t, c, va)
	if c.st64(va, 0) {
		t.Fatal("a directory that is not writable")
	}
	a.pde(0, a.root+0x4000|7)
	if !c.st64(va, 0) {
		t.Error("the directory made writable")
	}
}

// The age of what is held grows old with too many pages of code, not wrong.
func TestAgesOfManyPages(t *testing.T) {
	var a ages
	a.forgetAll()
	pg := mmu.Page{Shift: 12}
	for n := range uint64(2 * maxHeldPages) {
		a.limit()
		age := a.hold(n<<12, &pg)
		if age != a.of(false) {
			t.Fatalf("page %d holds under %d, and now is %d", n, age, a.of(false))
		}
		if n%64 == 0 {
			a.forgetPage(n << 12)
			if a.of(false) == age {
				t.Fatalf("page %d is still held", n)
			}
		}
	}
}

// Two targets that want one place in the table of jumps do not drive each other out.
func TestTwoJumpsOfOneIndex(t *testing.T) {
	if !translate {
		t.Skip("of translated code")
	}
	const first, second = 0x201000, 0x209008
	if jit.JumpIndex(first) != jit.JumpIndex(second) {
		t.Fatal("the addresses are not of one index any more")
	}
	// mov ecx, 1000; 1: mov eax, first; call rax; mov eax, second; call rax; dec ecx; jnz 1b
	c := newTestCPU(t, unhex(t, "b9e8030000"+"b800102000ffd0"+"b808902000ffd0"+"ffc975ee"))
	writeTest(t, c, first, []byte{0xc3})
	writeTest(t, c, second, []byte{0xc3})
	runTest(t, c, false)
	if now, _ := c.Translation(); now.Exits[jit.Indirect] > 20 {
		t.Errorf("%d of 4000 jumps were not found", now.Exits[jit.Indirect])
	}
}

// The pages of a crossing instruction are held under one age, also when the second is
// one too many.
func TestCrossingInstructionAtTheLimitOfAges(t *testing.T) {
	c, a, _ := newTLBTest(t)
	const va = spaceBase + 0x1fff
	a.pte(1, spaceMem|7)
	a.pte(2, spaceMem+0x1000|7)
	writeTest(t, c, spaceMem+0xffe, []byte{0xc3, 0xb8})
	writeTest(t, c, spaceMem+0x1000, []byte{1, 0, 0, 0, 0xc3}) // mov eax, 1; ret
	writeTest(t, c, spaceMem+0x2fff, []byte{0xb0})             // mov al, 1; add …
	writeTest(t, c, spaceMem+0x1005, []byte{0xc3})
	exec1(t, c, "ffd0", va-1, 0)
	c.sys.mem.ages.held.n = maxHeldPages
	exec1(t, c, "ffd0", va, 0)
	wantReg(t, c, x86.RAX, 1)
	a.pte(1, spaceMem+0x2000|7)
	invlpg(t, c, spaceBase+0x1000)
	exec1(t, c, "ffd0", va, 0)
	if c.R[x86.RAX] == 1 {
		t.Error("the code of the page that was there before")
	}
}
