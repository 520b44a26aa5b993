package interp

import (
	"sync"
	"sync/atomic"
	"testing"

	"berth/guestmem"
	"berth/x86"
)

// newPair returns two CPUs on one memory that tell each other of held and
// written code, as an accelerator with several vCPUs wires them.
func newPair(t *testing.T, code []byte) (a, b *CPU) {
	t.Helper()
	a = newTestCPU(t, code)
	mem := a.cfg.Memory
	var err error
	if b, err = New(Config{ID: 1, CPUs: 2, Memory: mem}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	b.CR0, b.CR4, b.EFER, b.CR3, b.Seg = a.CR0, a.CR4, a.EFER, a.CR3, a.Seg
	b.stateChanged(x86.FlagR1)
	b.R, b.RIP, b.Pending = a.R, a.RIP, 0
	a.cfg.CodeHeld, b.cfg.CodeHeld = b.CodeHeld, a.CodeHeld
	mem.WatchCode(func(gpa uint64) { a.CodeWritten(gpa); b.CodeWritten(gpa) })
	return a, b
}

// boundary is what a vCPU does between two blocks.
func boundary(c *CPU) {
	if atomic.LoadUint32(&c.Pending)&pendCode != 0 {
		c.dropWritten()
	}
}

func runAgain(t *testing.T, c *CPU) uint64 {
	t.Helper()
	boundary(c)
	c.RIP = testCode
	runTest(t, c, false)
	return c.R[x86.RAX]
}

// A vCPU may have direct access to a page before another decodes code of it. Its
// stores must reach that code, before and after it has heard of it.
func TestOtherCPUStoresIntoCode(t *testing.T) {
	patch := func(c *CPU, v uint8) {
		if !c.st8(testCode+1, v) {
			t.Fatal("store faulted")
		}
	}
	a, b := newPair(t, unhex(t, "b801000000")) // mov eax, 1
	patch(b, 2)
	if v := runAgain(t, a); v != 2 {
		t.Fatalf("%d, want 2", v)
	}
	patch(b, 3)
	boundary(b)
	if v := runAgain(t, a); v != 3 {
		t.Errorf("store before the other vCPU heard of the code: %d, want 3", v)
	}
	patch(b, 4)
	if v := runAgain(t, a); v != 4 {
		t.Errorf("store after it: %d, want 4", v)
	}
}

// Locked accesses are atomic on pages with code too.
func TestLockedAccessOnCodePage(t *testing.T) {
	const turns = 3000
	// mov ecx, turns; l: lock inc dword [rel testCode+0x800]; dec ecx; jnz l
	code := unhex(t, "b9b80b0000"+"f0ff05f4070000"+"ffc9"+"75f5")
	a, b := newPair(t, code)
	var wg sync.WaitGroup
	for _, c := range []*CPU{a, b} {
		wg.Go(func() {
			for {
				boundary(c)
				if st := c.runBlocks(); st == faulted || st == stopped {
					return
				}
			}
		})
	}
	wg.Wait()
	v, err := a.cfg.Memory.Load32(testCode + 0x800)
	if err != nil || v != 2*turns {
		t.Errorf("counter %d, want %d (%v)", v, 2*turns, err)
	}
}

// An instruction that crosses from a page into the same page, mapped behind
// itself: patching either end is noticed, and nothing is released twice.
func TestCrossingIntoSamePage(t *testing.T) {
	c := newTestCPU(t, nil)
	// 2 MiB at 4 MiB become 4 KiB pages, all of them testData's first.
	const table, base = 0x8000, 4 << 20
	for i := range uint64(512) {
		if err := c.cfg.Memory.Store64(table+8*i, testData|7); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.cfg.Memory.Store64(testTables+0x2000+8*(base>>21), table|7); err != nil {
		t.Fatal(err)
	}
	c.flushTLB(false)
	writeTest(t, c, testData+0xffe, unhex(t, "b805")) // mov eax, …
	writeTest(t, c, testData, unhex(t, "0600000f0b")) // … 0x605; ud2
	run := func(want uint64) {
		t.Helper()
		c.RIP = base + 0xffe
		c.blocks.changed = false
		runTest(t, c, false)
		wantReg(t, c, x86.RAX, want)
	}
	run(0x605)
	for i, p := range []struct{ at, v, want uint64 }{{0, 7, 0x705}, {0xfff, 8, 0x708}} {
		if !c.st8(testData+p.at, uint8(p.v)) {
			t.Fatalf("store %d faulted", i)
		}
		run(p.want)
	}
	c.clearBlocks()
	if f := *c.cfg.Memory.Flags(testData); f&guestmem.FlagCode != 0 || f >= guestmem.FlagHolder || c.blocks.held != 0 {
		t.Errorf("after everything was forgotten: flags %#x, weight %d", f, c.blocks.held)
	}
}

// A vCPU that does not run does not collect news without bound, and misses none.
func TestNewsOfCodeIsBounded(t *testing.T) {
	c := newTestCPU(t, unhex(t, "b801000000"))
	if v := runAgain(t, c); v != 1 {
		t.Fatal(v)
	}
	if !c.st8(testData, 1) { // direct access from now on
		t.Fatal("store faulted")
	}
	for i := range uint64(3 * maxNews) {
		c.CodeWritten(i % 2 * pageSize)
		c.CodeHeld(i % 2 * pageSize)
	}
	if n := &c.blocks.news; len(n.written) > maxNews || len(n.held) > maxNews {
		t.Errorf("%d and %d pages noted", len(n.written), len(n.held))
	}
	writeTest(t, c, testCode+1, []byte{5})
	if v := runAgain(t, c); v != 5 {
		t.Errorf("%d, want 5", v)
	}
	if c.writePtr(testData, 0) != nil {
		t.Error("a direct store is still possible")
	}
}

// Stores past the TLB, as under alignment checking, are in the dirty log.
func TestSlowStoresAreLogged(t *testing.T) {
	c := newTestCPU(t, nil)
	c.cfg.Memory.SetDirtyLog(true)
	c.sys.alignCheck = true
	if !c.st64(testData, 1) {
		t.Fatal("store faulted")
	}
	if *c.cfg.Memory.Flags(testData)&guestmem.FlagDirty == 0 {
		t.Error("page is not dirty")
	}
}

// A cache full of the smallest blocks weighs no more than one of large ones.
func TestSmallBlocksAreBounded(t *testing.T) {
	c := newTestCPU(t, nil)
	c.blocks.held = maxHeld - 100
	before := c.blocks.held
	c.RIP = testCode
	runTest(t, c, false)
	if c.blocks.held-before < 12 {
		t.Errorf("a block of one instruction weighs %d", c.blocks.held-before)
	}
}

// A vCPU makes progress though the page it runs in is written without pause, as
// where a lock that others spin on lies beside the code.
func TestProgressOnAPageThatOthersWrite(t *testing.T) {
	c := newTestCPU(t, unhex(t, "b805000000ffc0ffc0")) // mov eax, 5; inc eax; inc eax; ud2
	c.cfg.CodeHeld = c.CodeWritten
	if e := c.Run(); e.Reason != Shutdown { // there is no IDT
		t.Errorf("%+v", e)
	}
	wantReg(t, c, x86.RAX, 7)
}
