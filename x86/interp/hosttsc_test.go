package interp

import (
	"testing"
	"time"

	"berth/clock"
	"berth/x86"
	"berth/x86/jit"
)

// RDTSC in translated code goes with the clock and never backwards, however it is read, and leaves seldom.
func TestTSCInTranslatedCode(t *testing.T) {
	if !translate || !jit.SteadyTSC() {
		t.Skip("nothing is translated, or the host's TSC is not steady")
	}
	now, err := clock.New()
	if err != nil {
		t.Fatal(err)
	}
	defer now.Close()
	// l: rdtsc; shl rdx,32; or rax,rdx; cmp rax,rbx; jb +0x20 (ud2); mov rbx,rax; rdtscp; shl rdx,32; or rax,rdx; cmp rax,rbx; jb (ud2);
	// mov rbx,rax; dec rsi; jnz l; at +0x30: ud2
	code := unhex(t, "0f3148c1e2204809d04839d87221"+"4889c3"+"0f01f948c1e2204809d04839d8720f"+"4889c3"+"48ffce75d8")
	for len(code) < 0x30 {
		code = append(code, 0x90)
	}
	code = append(code, 0x0f, 0x0b)
	c := newTestCPU(t, code)
	c.cfg.TSC = now.Now
	c.sys.hostTSC = hostTSC{steady: true, least: usualGap}
	const rounds = 1_000_000
	for range 2 { // the rate is known the second time
		c.RIP, c.R[x86.RBX], c.R[x86.RSI] = testCode, 0, rounds
		c.Frame.TSCAux = 0x1234
		c.tier1.stats.Exits[jit.Step] = 0
		runTest(t, c, false)
		if c.RIP != testCode+0x30 || c.R[x86.RSI] != 0 {
			t.Fatalf("RIP %#x: the TSC went from %d to %d, %d rounds before the end", c.RIP, c.R[x86.RBX], c.R[x86.RAX], c.R[x86.RSI])
		}
		if after := now.Now(); c.R[x86.RBX] > after || time.Duration(after-c.R[x86.RBX]) > 100*time.Millisecond {
			t.Errorf("the TSC is %d, the clock %d", c.R[x86.RBX], after)
		}
		wantReg(t, c, x86.RCX, 0x1234)
		now.Pause() // which no vCPU runs through
		now.Resume()
		c.tscMoved()
	}
	if n := c.tier1.stats.Exits[jit.Step]; n > rounds/10 {
		t.Errorf("%d of %d were not read in translated code", n, 2*rounds)
	}
}

// What the TSC is moved by counts at once, and CR4.TSD too.
func TestTSCMoved(t *testing.T) {
	if !translate {
		t.Skip("nothing is translated")
	}
	c := newTestCPU(t, unhex(t, "0f310f0b")) // rdtsc; ud2
	c.cfg.APIC, c.cfg.TSC = oneInterrupt{}, func() uint64 { return 1 << 40 }
	c.sys.hostTSC.steady = jit.SteadyTSC()
	f := &c.Frame
	f.TSCHost, f.TSCLimit, f.TSCRate, f.TSCBase = 0, ^uint64(0), 0, 5
	run := func() uint64 {
		c.RIP, c.R[x86.RAX], c.R[x86.RDX] = testCode, ^uint64(0), ^uint64(0)
		runTest(t, c, false)
		return c.R[x86.RDX]<<32 | c.R[x86.RAX]
	}
	if got := run(); got != 5 {
		t.Errorf("%#x", got)
	}
	c.setTSCAdjust(7)
	if got := run(); got != 1<<40+7 {
		t.Errorf("moved: %#x", got)
	}
	f.TSCLimit = ^uint64(0)
	c.CPL, c.CR4 = 3, c.CR4|x86.CR4TSD
	c.RIP = testCode
	if st := runToFault(c, false); st != faulted || c.exc.vector != x86.GP || c.RIP != testCode {
		t.Errorf("status %d, exception %+v at %#x", st, c.exc, c.RIP)
	}
}
