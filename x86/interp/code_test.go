package interp

import (
	"encoding/binary"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"berth/guestmem"
	"berth/x86"
)

// newPair returns two CPUs of one group, both in guest code, as an accelerator
// with several vCPUs wires them.
func newPair(t *testing.T, code []byte) (a, b *CPU) {
	t.Helper()
	a = newTestCPU(t, code)
	mem := a.cfg.Memory
	var err error
	if b, err = New(Config{ID: 1, CPUs: 2, Memory: mem, Group: a.group, Translate: translate}); err != nil {
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

// meanwhile runs f while c, in guest code, does nothing but reach the ends of blocks.
func meanwhile(c *CPU, f func()) {
	done := make(chan struct{})
	go func() { f(); close(done) }()
	for {
		select {
		case <-done:
			return
		default:
			boundary(c)
		}
	}
}

// A vCPU may have direct access to a page before another decodes code of it. Its
// stores must reach that code, before and after it has heard of it.
func TestOtherCPUStoresIntoCode(t *testing.T) {
	a, b := newPair(t, unhex(t, "b801000000")) // mov eax, 1
	for i, v := range []uint8{2, 3, 4} {
		if !b.st8(testCode+1, v) {
			t.Fatal("store faulted")
		}
		if i == 0 && b.writePtr(testCode, 0) == nil {
			t.Fatal("the first store gives no direct access: nothing is tested")
		}
		meanwhile(b, func() {
			if got := runAgain(t, a); got != uint64(v) {
				t.Errorf("%d, want %d", got, v)
			}
		})
		if b.writePtr(testCode, 0) != nil {
			t.Error("direct access though another holds code")
		}
	}
	if f := *a.cfg.Memory.Flags(testCode); f&guestmem.FlagDirect != 0 {
		t.Errorf("flags %#x", f)
	}
}

// Whoever decodes a page waits for a vCPU that may store to it, and not for one
// that is outside guest code, which hears of it before it is back.
func TestDecodingWaitsForDirectStores(t *testing.T) {
	a, b := newPair(t, unhex(t, "b801000000"))
	if !b.st8(testCode+1, 2) {
		t.Fatal("store faulted")
	}
	done := make(chan uint64)
	go func() { done <- runAgain(t, a) }()
	for atomic.LoadUint32(&b.Pending)&pendCode == 0 {
		yield()
	}
	if p := b.writePtr(testCode+1, 0); p != nil {
		*(*uint8)(p) = 9 // the last direct store
	}
	select {
	case <-done:
		t.Fatal("code was decoded while another vCPU could store to it unheard")
	case <-time.After(10 * time.Millisecond):
	}
	b.depart()
	if v := <-done; v != 9 {
		t.Errorf("%d, want 9", v)
	}
	if b.arrive(); b.writePtr(testCode, 0) != nil {
		t.Error("direct access from before")
	}
}

// A locked access that crosses a page is atomic, and two of them at a time end.
func TestLockedAccessAcrossPages(t *testing.T) {
	const turns = 2000
	// mov ecx, turns; l: lock inc qword [testData+0xffd]; dec ecx; jnz l
	code := unhex(t, "b9d0070000"+"f048ff0425fd0f2000"+"ffc9"+"75f3")
	a, b := newPair(t, code)
	both(a, b)
	var p [8]byte
	if err := a.cfg.Memory.Read(testData+0xffd, p[:]); err != nil {
		t.Fatal(err)
	}
	if v := binary.LittleEndian.Uint64(p[:]); v != 2*turns {
		t.Errorf("counter %d, want %d", v, 2*turns)
	}
}

// both runs two vCPUs until each faults.
func both(a, b *CPU) {
	var wg sync.WaitGroup
	for _, c := range []*CPU{a, b} {
		wg.Go(func() {
			defer c.depart()
			for {
				boundary(c)
				if atomic.LoadUint32(&c.Pending)&pendPark != 0 {
					c.group.park(c)
				}
				if st := c.runAhead(); st == faulted || st == stopped {
					return
				}
			}
		})
	}
	wg.Wait()
}

// Locked accesses are atomic on pages with code too.
func TestLockedAccessOnCodePage(t *testing.T) {
	const turns = 3000
	// mov ecx, turns; l: lock inc dword [rel testCode+0x800]; dec ecx; jnz l
	code := unhex(t, "b9b80b0000"+"f0ff05f4070000"+"ffc9"+"75f5")
	a, b := newPair(t, code)
	both(a, b)
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
		c.codeHeld(i % 2 * pageSize)
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
	c.blocks.held = c.blocks.max - 100
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
	done := make(chan struct{})
	var writer sync.WaitGroup
	writer.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
				c.CodeWritten(testCode)
			}
		}
	})
	if e := c.Run(); e.Reason != Shutdown { // there is no IDT
		t.Errorf("%+v", e)
	}
	close(done)
	writer.Wait() // the vCPU is closed with the test
	wantReg(t, c, x86.RAX, 7)
}
