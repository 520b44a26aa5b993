package interp

import (
	"testing"
	"time"

	"berth/guestmem"
	"berth/x86"
)

// What is reached between two sweeps stays, though links lead past find; the rest
// goes, its page is plainly writable again, and it runs as before when it is reached.
func TestSweep(t *testing.T) {
	if translate {
		t.Skip("of translated code all is dropped: TestReleaseCode")
	}
	// test edi, edi; jz +0x24; mov eax, 1; jmp +0x29; … at +0x24: mov eax, 2
	code := make([]byte, 0x29)
	copy(code, unhex(t, "85ff7420b801000000eb1e"))
	copy(code[0x24:], unhex(t, "b802000000"))
	c := newTestCPU(t, code)
	run := func(rdi, want uint64) {
		t.Helper()
		c.R[x86.RDI], c.RIP = rdi, testCode
		runTest(t, c, false)
		wantReg(t, c, x86.RAX, want)
	}
	run(0, 2)
	run(1, 1)
	all := len(c.blocks.byKey)
	c.sweep()
	if len(c.blocks.byKey) != all {
		t.Fatalf("%d of %d blocks after the first sweep", len(c.blocks.byKey), all)
	}
	for range 3 {
		run(1, 1)
	}
	c.sweep()
	kept := len(c.blocks.byKey)
	if kept == 0 || kept >= all {
		t.Errorf("%d of %d blocks after the second sweep", kept, all)
	}
	run(1, 1)
	run(0, 2)
	c.sweep()
	c.sweep()
	if len(c.blocks.byKey) != 0 || c.blocks.held != 0 || *c.cfg.Memory.Flags(testCode)&guestmem.FlagCode != 0 {
		t.Errorf("%d blocks of weight %d stay", len(c.blocks.byKey), c.blocks.held)
	}
	run(1, 1)
	run(0, 2)
}

// A vCPU sweeps only now and then, only when it holds much, and says so when much went.
func TestDropCold(t *testing.T) {
	if translate {
		t.Skip("of translated code all is dropped: TestReleaseCode")
	}
	c := newTestCPU(t, unhex(t, "b801000000"))
	told := 0
	c.cfg.Freed = func() { told++ }
	run := func() {
		t.Helper()
		c.RIP = testCode
		runTest(t, c, false)
	}
	holdMore := func() { c.blocks.held += coldHeld } // as if there were more blocks, all of them cold
	run()
	now := time.Unix(1000, 0)
	c.dropCold(now)
	if len(c.blocks.byKey) == 0 {
		t.Fatal("little is held, and it is gone")
	}
	holdMore()
	c.dropCold(now)
	if len(c.blocks.byKey) != 0 || c.blocks.held != 0 || told != 1 {
		t.Errorf("%d blocks stay where next to nothing is warm; told %d times", len(c.blocks.byKey), told)
	}
	run()
	holdMore()
	c.dropCold(now.Add(coldEvery - 1))
	if len(c.blocks.byKey) == 0 {
		t.Error("swept twice within a moment")
	}
	c.dropCold(now.Add(coldEvery))
	if len(c.blocks.byKey) != 0 || told != 2 {
		t.Errorf("not swept when it was time; told %d times", told)
	}
	run()
}

// A vCPU that works keeps its code, even at its first halt.
func TestOnlyIdleCPUsDropCode(t *testing.T) {
	var bc blockCache
	now := time.Unix(1000, 0)
	for _, look := range []struct {
		after        time.Duration
		instructions uint64
		slept        time.Duration
		idle         bool
	}{
		{0, 5e9, time.Hour, false}, // the first
		{idleFor - 1, 5e9, idleFor - 1, false},
		{1, 5e9 + idleWork - 1, 1, true},
		{idleFor, 6e9, idleFor, false},
		{idleFor, 6e9, idleFor / 2, false}, // it waited for the host's CPU
		{time.Hour, 6e9, time.Hour, true},
	} {
		now = now.Add(look.after)
		bc.slept += look.slept
		if got := bc.idle(now, look.instructions); got != look.idle {
			t.Errorf("%s later, at %d instructions: idle %t", look.after, look.instructions, got)
		}
	}
}

// What is translated anew after all code was given up runs as before, and pages
// without code take stores directly again.
func TestReleaseCode(t *testing.T) {
	if !translate {
		t.Skip("there is no translated code")
	}
	c := newTestCPU(t, unhex(t, "b801000000"))
	for range 2 {
		c.RIP, c.R[x86.RAX] = testCode, 0
		runTest(t, c, false)
		wantReg(t, c, x86.RAX, 1)
		c.forgetBlocks()
		c.tier1.release()
		if len(c.blocks.byKey) != 0 || *c.cfg.Memory.Flags(testCode)&guestmem.FlagCode != 0 {
			t.Fatalf("%d blocks stay", len(c.blocks.byKey))
		}
	}
}
