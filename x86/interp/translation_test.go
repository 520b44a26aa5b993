package interp

import (
	"testing"

	"berth/x86"
	"berth/x86/jit"
)

// lazyLoop is a test CPU about to count RCX down to 0, and the instructions of that:
// RAX counts up.
func lazyLoop(t *testing.T, lazy bool, rounds uint64) *CPU {
	t.Helper()
	if !translate {
		t.Skip("of translated code")
	}
	c := newTestCPU(t, unhex(t, "9048ffc048ffc975f8")) // nop; inc rax; dec rcx; jnz to the inc
	c.cfg.Lazy = lazy
	c.R[x86.RCX] = rounds
	return c
}

// A block that is met twice is translated the second time, one that runs once is not.
func TestLazyTranslatesWhatRunsAgain(t *testing.T) {
	c := lazyLoop(t, true, 1000)
	runTest(t, c, false)
	wantReg(t, c, x86.RAX, 1000)
	s, ok := c.Translation()
	if !ok || s.Blocks != 1 || s.Instructions != 4 || s.Held != 1 { // the loop and the UD2 behind it
		t.Errorf("after a loop: %+v", s)
	}
	if s.Ran < 2900 || s.Ran >= 3000 {
		t.Errorf("%d of 3001 instructions ran translated", s.Ran)
	}
	c.RIP, c.R[x86.RCX] = testCode, 1
	runTest(t, c, false)
	if s, _ := c.Translation(); s.Blocks != 2 {
		t.Errorf("the code before the loop was met again, and %d blocks are translated", s.Blocks)
	}
}

// What is written is translated when it runs next, however often that is.
func TestLazySeesWhatIsWritten(t *testing.T) {
	c := lazyLoop(t, true, 5)
	for i := range uint64(6) {
		c.RIP, c.R[x86.RAX], c.R[x86.RCX] = testCode, 0, 5
		if !c.st8(testCode+3, uint8(0xc0|i&1<<3)) { // inc or dec, of RAX
			t.Fatal("the store faulted")
		}
		runTest(t, c, false)
		wantReg(t, c, x86.RAX, []uint64{5, 1<<64 - 5}[i&1])
	}
	if s, _ := c.Translation(); s.Removed == 0 {
		t.Errorf("no block was removed: %+v", s)
	}
}

func TestTranslationCounts(t *testing.T) {
	c := lazyLoop(t, false, 1000)
	runTest(t, c, false)
	s, _ := c.Translation()
	if s.Blocks != 2 || s.Instructions != 9 || s.Ran != 3001 || s.Removed != 0 || s.Crossing != 0 || s.Bytes == 0 ||
		s.Exits[jit.Step] != 1 || s.Lookups < 2 || s.Time == 0 {
		t.Errorf("%+v", s)
	}
	c.clearBlocks()
	if now, _ := c.Translation(); now.Clears != s.Clears+1 || now.Held != 0 {
		t.Errorf("after all was forgotten: %+v", now)
	}
}
