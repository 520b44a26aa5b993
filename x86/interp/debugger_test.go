package interp

import (
	"testing"

	"berth/x86"
)

// debugProgram sums 1 to 5 into RAX and stores each sum at testData; its instructions begin at debugStarts.
//
//	mov ecx, 5; xor eax, eax
//	again: add eax, ecx; mov [0x200000], eax; dec ecx; jnz again
const debugProgram = "b905000000" + "31c0" + "01c8" + "890425" + "00002000" + "ffc9" + "75f3"

var debugStarts = map[uint64]int{0: 1, 5: 1, 7: 5, 9: 5, 16: 5, 18: 5, 20: 1} // offsets, and how often each is reached

// debugRun runs c from the program's start to its end, which is a triple fault, and
// returns what it stopped for; each may end it.
func debugRun(t *testing.T, c *CPU, each func() (ended bool)) (stops []x86.Stop) {
	t.Helper()
	c.RIP, c.exit = testCode, Exit{}
	for {
		switch e := c.Run(); e.Reason {
		case Debug:
			if stops = append(stops, e.Stop); len(stops) > 1000 {
				t.Fatal("it stops without end")
			}
			if each() {
				return stops
			}
		case Shutdown:
			wantReg(t, c, x86.RAX, 15)
			return stops
		default:
			t.Fatalf("%+v at %#x", e, c.RIP)
		}
	}
}

func goOn() bool { return false }

// A breakpoint at every instruction stops before each, every time; one in the middle of
// an instruction never does. The code has run before, in blocks across them all.
func TestDebuggersBreakpoints(t *testing.T) {
	for _, before := range []bool{false, true} {
		c := newTestCPU(t, unhex(t, debugProgram))
		if before {
			debugRun(t, c, goOn)
		}
		var all, others x86.Debug
		for off := range uint64(len(debugProgram)/2 + 1) {
			b := x86.Breakpoint{Addr: testCode + off}
			if debugStarts[off] > 0 {
				all.Breakpoints = append(all.Breakpoints, b)
			} else {
				others.Breakpoints = append(others.Breakpoints, b)
			}
		}
		c.SetDebug(others)
		c.SetDebug(all)
		met := map[uint64]int{}
		stops := debugRun(t, c, func() bool {
			// As gdb goes on: a step without breakpoints, and then with them.
			c.SetDebug(x86.Debug{Step: true})
			e := c.Run()
			if e.Reason != Debug && e.Reason != Shutdown {
				t.Fatalf("a step ends with %+v", e)
			}
			c.SetDebug(all)
			return e.Reason == Shutdown
		})
		for _, s := range stops {
			met[s.Breakpoint.Addr-testCode]++
		}
		for off, n := range debugStarts {
			if met[off] != n {
				t.Errorf("ran before %t: the instruction at %d is met %d times, want %d", before, off, met[off], n)
			}
		}
		if len(met) != len(debugStarts) {
			t.Errorf("ran before %t: met %v", before, met)
		}
	}
}

// Breakpoints in the middle of instructions change nothing.
func TestDebuggersBreakpointsWithinInstructions(t *testing.T) {
	c := newTestCPU(t, unhex(t, debugProgram))
	var d x86.Debug
	for off := range uint64(pageSize) {
		if debugStarts[off] == 0 {
			d.Breakpoints = append(d.Breakpoints, x86.Breakpoint{Addr: testCode + off})
		}
	}
	c.SetDebug(d)
	if stops := debugRun(t, c, goOn); len(stops) != 0 {
		t.Errorf("stopped for %+v", stops)
	}
}

// Every store to a watched word stops behind it, and nothing else.
func TestDebuggersWatchpoints(t *testing.T) {
	c := newTestCPU(t, unhex(t, debugProgram))
	for range 2 { // the TLB knows the page by the second time
		c.SetDebug(x86.Debug{Watchpoints: []x86.Watchpoint{{Addr: testData + 3, Len: 1, Kind: x86.WatchWrite}, {Addr: testData, Len: 8, Kind: x86.WatchRead}}})
		stops := debugRun(t, c, func() bool {
			if c.RIP != testCode+16 {
				t.Errorf("stopped at %#x", c.RIP)
			}
			return false
		})
		if len(stops) != 5 {
			t.Errorf("%d stops, want 5", len(stops))
		}
	}
}
