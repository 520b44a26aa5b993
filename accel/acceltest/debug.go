package acceltest

import (
	"encoding/binary"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"berth/accel"
	"berth/irq"
	"berth/x86"
)

// debugged is a guest of testdata/debug.asm under a debugger.
type debugged struct {
	*Guest
	t      *testing.T
	limits x86.DebugLimits
	places
	planted map[uint64]byte
	answer  atomic.Uint64 // at port 0x81

	// What works in guests here. A KVM that emulates kernel-mode code knows no INT3;
	// QEMU's TCG, on which a KVM may run, tells an SVM host of none and has no
	// debug registers for its guests.
	breakpoints, registers bool
}

// What port 0x81 answers.
const (
	ownTraps = 1 << iota
	noUserMode
)

// places are addresses in it.
type places struct {
	Turn, Store, Read, Own, After, Trap, Halt, Resume, String, Tail, User, Sys uint64
}

func (suite Suite) debugged(t *testing.T) *debugged {
	g := &debugged{Guest: suite.NewGuest(t, "debug", 1), t: t, planted: map[uint64]byte{}}
	g.Ports.Answer = func(uint64, int) uint64 { return g.answer.Load() }
	if !suite.EmulatesKernel {
		g.answer.Store(ownTraps)
	}
	table, err := g.Mem.Slice(0x1040, 12*8)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := binary.Decode(table, binary.LittleEndian, &g.places); err != nil {
		t.Fatal(err)
	}
	g.CPUs[0].Do(func() { g.limits = g.CPUs[0].VCPU.(accel.Debugger).DebugLimits() })
	g.registers = g.stopsAt(x86.Breakpoint{Addr: g.Read, Hardware: true})
	g.breakpoints = !suite.EmulatesKernel && g.stopsAt(x86.Breakpoint{Addr: g.Own})
	if !g.breakpoints && !g.registers { // steps are lost where the CPU itself delivers an exception
		g.answer.Store(noUserMode)
	}
	return g
}

// stopsAt reports whether a breakpoint stops the guest in this turn, at whose end it then is.
func (g *debugged) stopsAt(b x86.Breakpoint) bool {
	g.t.Helper()
	turn := g.word(0x6000) + 1
	if turn > 1 {
		g.interrupt()
	}
	g.put(0x6010, 0)
	g.start(x86.Debug{Breakpoints: []x86.Breakpoint{b}})
	for g.word(0x6000) != turn || g.word(0x6010) != 0x123 {
		select {
		case <-g.running[0]:
			if _, rip := g.stopped(); rip != b.Addr {
				g.t.Fatalf("stopped at 0x%x, want 0x%x", rip, b.Addr)
			}
			g.start(x86.Debug{})
			g.Word(0x6010, 0x123)
			g.Kick()
			g.Stop()
			return true
		case <-time.After(time.Millisecond):
		}
	}
	g.Kick()
	g.Stop()
	return false
}

func (g *debugged) put(gpa uint64, v uint32) {
	g.t.Helper()
	if err := g.Mem.Store32(gpa, v); err != nil {
		g.t.Fatal(err)
	}
}

// plant has guest memory hold an INT3 for each breakpoint that needs one.
func (g *debugged) plant(list []x86.Breakpoint) {
	for at, b := range g.planted {
		if err := g.Mem.Write(at, []byte{b}); err != nil {
			g.t.Fatal(err)
		}
		delete(g.planted, at)
	}
	for _, b := range list {
		if !g.limits.Plants || b.Hardware {
			continue
		}
		var old [1]byte
		if err := g.Mem.Read(b.Addr, old[:]); err != nil {
			g.t.Fatal(err)
		}
		g.planted[b.Addr] = old[0]
		if err := g.Mem.Write(b.Addr, []byte{0xcc}); err != nil {
			g.t.Fatal(err)
		}
	}
}

// debug runs the guest under d until it stops for that, and returns why and where.
func (g *debugged) debug(d x86.Debug) (x86.Stop, uint64) {
	g.t.Helper()
	g.start(d)
	return g.stopped()
}

func (g *debugged) start(d x86.Debug) {
	g.t.Helper()
	g.plant(d.Breakpoints)
	g.onThread(func(v accel.VCPU) error { return v.(accel.Debugger).SetDebug(d) })
	g.Start()
}

func (g *debugged) stopped() (x86.Stop, uint64) {
	g.t.Helper()
	g.Ended()
	c := g.CPUs[0]
	if c.Err != nil || c.Exit.Reason != accel.ExitDebug {
		g.t.Fatalf("%v, %v %s, RIP 0x%x", c.Err, c.Exit.Reason, c.Exit.Detail, c.Exit.RIP)
	}
	var s x86.State
	g.Get(0, &s)
	if s.DR[7]&^0x400 != 0 || s.RFLAGS&x86.FlagTF != 0 && (s.RIP < g.Trap || s.RIP > g.Trap+0x20) {
		g.t.Errorf("the debugger shows in the guest's state: DR7 0x%x, flags 0x%x at 0x%x", s.DR[7], s.RFLAGS, s.RIP)
	}
	return c.Exit.Stop, s.RIP
}

// to runs the guest to a place, by the breakpoint that works, or step by step.
func (g *debugged) to(at uint64) {
	g.t.Helper()
	if g.breakpoints || g.registers {
		g.toBreakpoint(x86.Breakpoint{Addr: at, Hardware: !g.breakpoints})
		return
	}
	for range 10_000 {
		if _, rip := g.debug(x86.Debug{Step: true, Hold: true}); rip == at {
			return
		}
	}
	g.t.Fatalf("no step leads to 0x%x", at)
}

func (g *debugged) toBreakpoint(b x86.Breakpoint) {
	g.t.Helper()
	s, rip := g.debug(x86.Debug{Breakpoints: []x86.Breakpoint{b}})
	if s.Kind != x86.StopBreakpoint || s.Breakpoint != b || rip != b.Addr {
		g.t.Fatalf("stopped at 0x%x for %+v, want breakpoint 0x%x", rip, s, b.Addr)
	}
}

// step runs one instruction and wants to be at one of these addresses then.
func (g *debugged) step(hold bool, want ...uint64) {
	g.t.Helper()
	s, rip := g.debug(x86.Debug{Step: true, Hold: hold})
	if s.Kind != x86.StopStep || !slices.Contains(want, rip) {
		g.t.Fatalf("a step ends at 0x%x for %+v, want one of %x", rip, s, want)
	}
}

func (g *debugged) word(gpa uint64) uint32 {
	g.t.Helper()
	v, err := g.Mem.Load32(gpa)
	if err != nil {
		g.t.Fatal(err)
	}
	return v
}

// interrupt ends a halt of the guest.
func (g *debugged) interrupt() {
	g.t.Helper()
	if err := g.VM.IRQChip().SignalMSI(irq.MSI{Addr: 0xfee00000, Data: 0x40}); err != nil {
		g.t.Fatal(err)
	}
}

func (suite Suite) debugging(t *testing.T) {
	for _, c := range []struct {
		name string
		test func(*testing.T)
	}{
		{"PlantedBreakpoints", suite.planted},
		{"HardwareBreakpoints", suite.hardware},
		{"Steps", suite.steps},
		{"Watchpoints", suite.watchpoints},
		{"TheGuestsOwnTraps", suite.ownTraps},
		{"NothingStopsAfterwards", suite.undebugged},
	} {
		t.Run(c.name, c.test)
	}
}

// planted meets breakpoints in the guest's memory, one of them turn after turn.
func (suite Suite) planted(t *testing.T) {
	g := suite.debugged(t)
	if !g.breakpoints {
		t.Skip("INT3 does not stop guests here")
	}
	g.meet(false)
}

// hardware is the same with debug registers.
func (suite Suite) hardware(t *testing.T) {
	g := suite.debugged(t)
	if !g.registers {
		t.Skip("debug registers do not stop guests here")
	}
	g.meet(true)
}

func (g *debugged) meet(hardware bool) {
	at := func(addr uint64) x86.Breakpoint { return x86.Breakpoint{Addr: addr, Hardware: hardware} }
	for range 3 {
		g.interrupt()
		g.toBreakpoint(at(g.Read))
		g.step(true, g.Read+7)
		g.toBreakpoint(at(g.Halt))
		g.toBreakpoint(at(g.Halt)) // it is met again, and nothing has run
	}
}

// steps goes instruction by instruction: over a repeated one, into a halt and out of
// it with the interrupt held, and into the handler of a fault in user mode.
func (suite Suite) steps(t *testing.T) {
	g := suite.debugged(t)
	g.interrupt()
	g.to(g.Store)
	g.step(true, g.Store+7)
	g.step(true, g.Read)
	if suite.EmulatesKernel {
		return // the rest it steps wrongly
	}
	g.to(g.String)
	for range 4 {
		g.step(true, g.String, g.Tail)
	}
	var s x86.State
	if g.Get(0, &s); s.RIP != g.Tail || s.GPR[x86.RCX] != 0 {
		t.Fatalf("four steps of REP MOVSD end at 0x%x with RCX %d", s.RIP, s.GPR[x86.RCX])
	}
	if g.limits.NoHold {
		t.Log("interrupts are not held while it steps")
		return
	}
	taken := g.word(0x600c)
	if g.limits.Plants {
		g.step(true, g.Halt, g.Resume) // a CPU may not trap behind STI
	} else {
		g.step(true, g.Halt)
	}
	if g.Get(0, &s); s.RIP == g.Halt {
		g.step(true, g.Resume) // HLT is done, the vCPU halts
	}
	g.start(x86.Debug{Step: true, Hold: true})
	g.interrupt()
	if _, rip := g.stopped(); rip != g.Resume+1 || g.word(0x600c) != taken { // past CLI
		t.Errorf("a step out of HLT ends at 0x%x, %d interrupts taken", rip, g.word(0x600c)-taken)
	}
	if !g.breakpoints && !g.registers {
		return
	}
	g.to(g.Sys)
	if !g.limits.Plants { // hardware runs the handler's first instruction as well, or all of it
		g.step(true, (g.Sys+2+15)&^15)
	}
}

// watchpoints stop behind the instruction, whose access may be a part of a larger
// one, in kernel and in user mode.
func (suite Suite) watchpoints(t *testing.T) {
	g := suite.debugged(t)
	if !g.registers || suite.EmulatesKernel {
		t.Skip("debug registers do not watch data here")
	}
	watch := func(kind x86.Watch, at, n, want uint64) {
		t.Helper()
		w := x86.Watchpoint{Addr: at, Len: n, Kind: kind}
		s, rip := g.debug(x86.Debug{Watchpoints: []x86.Watchpoint{{Addr: 0x8100, Len: 4, Kind: x86.WatchAccess}, w}})
		if s.Kind != x86.StopWatchpoint || s.Watchpoint != w || rip != want {
			t.Fatalf("watchpoint %+v: stopped at 0x%x for %+v, want 0x%x", w, rip, s, want)
		}
	}
	g.interrupt()
	watch(x86.WatchWrite, 0x8002, 2, g.Store+7)
	watch(x86.WatchAccess, 0x8000, 4, g.Read+7)
	if g.limits.Registers == 0 {
		g.interrupt()
		g.to(g.Turn)
		watch(x86.WatchRead, 0x8000, 1, g.Read+7)
		watch(x86.WatchWrite, 0xa008, 3, g.String)
		if v := g.word(0x8000); v != g.word(0x6000)-1 {
			t.Errorf("the word holds %d in turn %d", v, g.word(0x6000))
		}
	}
	g.interrupt()
	watch(x86.WatchWrite, 0x8008, 8, g.Sys)
}

// ownTraps: the guest's INT3, TF and debug registers are its own while a debugger
// has what it needs of the same.
func (suite Suite) ownTraps(t *testing.T) {
	if suite.EmulatesKernel {
		t.Skip("KVM here emulates kernel-mode code, and neither INT3 nor TF with it")
	}
	g := suite.debugged(t)
	g.answer.Store(ownTraps)
	first := g.word(0x6000)
	for turn := first + 1; turn <= first+3; turn++ {
		g.put(0x6010, 0)
		g.interrupt()
		d := x86.Debug{Watchpoints: []x86.Watchpoint{{Addr: 0x8200, Len: 4, Kind: x86.WatchWrite}}}
		if g.breakpoints {
			d.Breakpoints = []x86.Breakpoint{{Addr: g.Own + 0x800}}
		}
		g.start(d)
		g.Word(0x6010, 0x123)
		g.Kick()
		g.Stop()
		if n := g.word(0x6004); n != turn {
			t.Errorf("%d INT3s in turn %d", n, turn)
		}
		if n := g.word(0x6008); n != 4*turn {
			t.Errorf("%d single-step traps in turn %d", n, turn)
		}
		var s x86.State
		if g.Get(0, &s); s.DR[0] != 0x123 || s.DR[3] != 0x789 || s.DR[7] != 0x400 || g.word(0x6014) != 0x789 || g.word(0x601c) != 0x400 {
			t.Errorf("DR0 is 0x%x, DR3 0x%x, DR7 0x%x; the guest reads 0x%x from DR3, 0x%x from DR7", s.DR[0], s.DR[3], s.DR[7], g.word(0x6014), g.word(0x601c))
		}
		if g.word(0x6018)&(1<<14) == 0 {
			t.Errorf("the guest reads 0x%x from DR6 after a single step", g.word(0x6018))
		}
	}
}

// undebugged: once the debugger is gone nothing stops.
func (suite Suite) undebugged(t *testing.T) {
	g := suite.debugged(t)
	g.interrupt()
	g.to(g.Read)
	g.step(true, g.Read+7)
	g.start(x86.Debug{})
	for turn := g.word(0x6000) + 1; turn < 200; turn++ {
		g.interrupt()
		g.Word(0x6000, turn)
	}
	g.Kick()
	g.Stop()
}
