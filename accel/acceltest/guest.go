// Package acceltest is the conformance suite of accelerators: small guests in real, protected and long mode that use what package accel promises.
package acceltest

import (
	"embed"
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"berth/accel"
	"berth/clock"
	"berth/guestmem"
	"berth/x86"
)

// testdata holds the programs' sources and what nasm makes of them.
//
//go:embed testdata
var testdata embed.FS

// patience bounds a wait for something that must happen; nothing is measured against it.
const patience = 60 * time.Second

// Program returns one of testdata's programs, assembled.
func Program(t *testing.T, name string) []byte {
	t.Helper()
	code, err := testdata.ReadFile("testdata/" + name + ".bin")
	if err != nil {
		t.Fatal(err)
	}
	return code
}

// Reassemble holds committed flat binaries against their nasm sources, which lie
// beside them with the suffix .asm. It skips where there is no assembler: test
// binaries also run in guests that have none.
func Reassemble(t *testing.T, sources ...string) {
	t.Helper()
	nasm, err := exec.LookPath("nasm")
	if err != nil {
		t.Skip("no nasm in PATH")
	}
	if len(sources) == 0 {
		t.Fatal("no sources")
	}
	for _, src := range sources {
		out := filepath.Join(t.TempDir(), "out")
		dir, file := filepath.Split(src)
		cmd := exec.Command(nasm, "-f", "bin", "-o", out, file)
		cmd.Dir = dir
		if msg, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", src, err, msg)
		}
		built, err := os.ReadFile(out)
		if err != nil {
			t.Fatal(err)
		}
		committed, err := os.ReadFile(src[:len(src)-len(".asm")] + ".bin")
		if err != nil || string(built) != string(committed) {
			t.Errorf("%s: the committed binary is not its source's (%v)", src, err)
		}
	}
}

// Access is one access to a Space.
type Access struct {
	Addr  uint64
	Size  int
	Value uint64 // if written
	Write bool
}

// Space records accesses. Answer, if set, gives what is read (all ones else);
// Hook, if set, is called after each access, on the vCPU's thread.
type Space struct {
	Answer func(addr uint64, size int) uint64
	Hook   func(Access)

	mu  sync.Mutex
	log []Access
}

// Read implements accel.IO.
func (s *Space) Read(addr uint64, p []byte) {
	v := ^uint64(0)
	if s.Answer != nil {
		v = s.Answer(addr, len(p))
	}
	copy(p, binary.LittleEndian.AppendUint64(nil, v))
	s.record(Access{Addr: addr, Size: len(p)})
}

// Write implements accel.IO.
func (s *Space) Write(addr uint64, p []byte) {
	var b [8]byte
	copy(b[:], p)
	s.record(Access{Addr: addr, Size: len(p), Value: binary.LittleEndian.Uint64(b[:]), Write: true})
}

func (s *Space) record(a Access) {
	s.mu.Lock()
	s.log = append(s.log, a)
	s.mu.Unlock()
	if s.Hook != nil {
		s.Hook(a)
	}
}

// All returns the accesses so far.
func (s *Space) All() []Access {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Access(nil), s.log...)
}

// Writes returns the values written to addr so far.
func (s *Space) Writes(addr uint64) []uint64 {
	var v []uint64
	for _, a := range s.All() {
		if a.Write && a.Addr == addr {
			v = append(v, a.Value)
		}
	}
	return v
}

// Guest is a VM with a program of testdata loaded, or an empty one.
type Guest struct {
	VM    accel.VM
	Mem   *guestmem.Memory
	Ports *Space
	MMIO  *Space
	CPUs  []*CPU

	t       *testing.T
	check   func(*x86.State) error
	logged  chan uint64     // values written to port 0x80
	running []chan struct{} // one a vCPU, closed when its Run has returned
}

// CPU is one vCPU and the thread that owns it.
type CPU struct {
	VCPU  accel.VCPU
	Exit  accel.Exit // of the last Run
	Err   error
	calls chan func()
}

// NewGuest returns a VM that is closed with the test. The program starts at
// 0x1000 in real mode; without one ("") the vCPUs are as made.
func (s Suite) NewGuest(t *testing.T, program string, cpus int) *Guest {
	t.Helper()
	g := &Guest{t: t, check: s.Check, Mem: guestmem.New(), Ports: &Space{}, MMIO: &Space{}, logged: make(chan uint64, 1024)}
	for _, r := range [][2]uint64{{0, 0xc0000}, {0x100000, 0x100000}} {
		if _, err := g.Mem.AddRAM(r[0], r[1]); err != nil {
			t.Fatal(err)
		}
	}
	g.Ports.Hook = func(a Access) {
		switch {
		case a.Write && a.Addr == 0xf4:
			g.Kick()
		case a.Write && a.Addr == 0x80:
			select {
			case g.logged <- a.Value:
			default: // a guest in a storm of interrupts must still see a kick
			}
		}
	}
	now, err := clock.New()
	if err != nil {
		t.Fatal(err)
	}
	g.VM, err = s.Open(t).NewVM(accel.Config{Memory: g.Mem, Ports: g.Ports, MMIO: g.MMIO, CPUs: cpus, Clock: now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		g.close()
		if err := now.Close(); err != nil {
			t.Error(err)
		}
	})
	for id := range cpus {
		g.addCPU(id)
	}
	if program != "" {
		g.Load(program)
	}
	return g
}

// Load puts a program into memory and vCPU 0 at its start, in real mode.
func (g *Guest) Load(program string) {
	g.t.Helper()
	g.LoadCode(Program(g.t, program))
}

// LoadCode is Load for the program's bytes.
func (g *Guest) LoadCode(code []byte) {
	g.t.Helper()
	if err := g.Mem.Write(0x1000, code); err != nil {
		g.t.Fatal(err)
	}
	var s x86.State
	g.Get(0, &s)
	s.Seg[x86.CS].Selector, s.Seg[x86.CS].Base, s.RIP = 0, 0, 0x1000
	g.Set(0, &s)
}

func (g *Guest) addCPU(id int) {
	g.t.Helper()
	v, err := g.VM.NewVCPU(id)
	if err != nil {
		g.t.Fatal(err)
	}
	c := &CPU{VCPU: v, calls: make(chan func())}
	g.CPUs = append(g.CPUs, c)
	go func() {
		runtime.LockOSThread()
		for f := range c.calls {
			f()
		}
	}()
}

func (g *Guest) close() {
	g.Kick()
	for _, c := range g.CPUs {
		c.Do(func() {})
		close(c.calls)
	}
	if err := errors.Join(g.VM.Close(), g.Mem.Close()); err != nil {
		g.t.Error(err)
	}
}

// Kick kicks every vCPU.
func (g *Guest) Kick() {
	for _, c := range g.CPUs {
		c.VCPU.Kick()
	}
}

// Do runs f on the vCPU's thread, between two Runs, and waits for it.
func (c *CPU) Do(f func()) {
	done := make(chan struct{})
	c.calls <- func() { f(); close(done) }
	<-done
}

// Get reads a vCPU's state.
func (g *Guest) Get(cpu int, s *x86.State) {
	g.t.Helper()
	var err error
	g.CPUs[cpu].Do(func() { err = g.CPUs[cpu].VCPU.GetState(s) })
	if err != nil {
		g.t.Fatal(err)
	}
}

// Set writes a state, and holds it and what then comes back against the suite's Check.
func (g *Guest) Set(cpu int, s *x86.State) {
	g.t.Helper()
	var err error
	var now x86.State
	g.CPUs[cpu].Do(func() {
		if err = g.CPUs[cpu].VCPU.SetState(s); err == nil {
			err = g.CPUs[cpu].VCPU.GetState(&now)
		}
	})
	if err == nil && g.check != nil {
		err = errors.Join(g.check(s), g.check(&now))
	}
	if err != nil {
		g.t.Fatal(err)
	}
}

// Start sets every vCPU running.
func (g *Guest) Start() {
	g.running = nil
	for _, c := range g.CPUs {
		done := make(chan struct{})
		c.calls <- func() { c.Err = c.VCPU.Run(&c.Exit); close(done) }
		g.running = append(g.running, done)
	}
}

// Ended waits until every vCPU has left Run.
func (g *Guest) Ended() {
	g.t.Helper()
	for i, done := range g.running {
		select {
		case <-done:
		case <-time.After(patience):
			g.t.Fatalf("vCPU %d does not stop", i)
		}
	}
}

// Stop is Ended, and wants every vCPU to have left because of a kick.
func (g *Guest) Stop() {
	g.t.Helper()
	g.Ended()
	for i, c := range g.CPUs {
		if c.Err != nil || c.Exit.Reason != accel.ExitKick {
			g.t.Fatalf("vCPU %d: %v, %v %s, RIP 0x%x", i, c.Err, c.Exit.Reason, c.Exit.Detail, c.Exit.RIP)
		}
	}
}

// Run runs the program to its end, which is a write to port 0xf4.
func (g *Guest) Run() {
	g.t.Helper()
	g.Start()
	g.Stop()
}

// Logged waits for the value that the guest logs next.
func (g *Guest) Logged() uint64 {
	g.t.Helper()
	select {
	case v := <-g.logged:
		return v
	default:
	}
	select {
	case v := <-g.logged:
		return v
	case <-g.running[0]:
		g.t.Fatalf("vCPU 0 ended: %v %+v", g.CPUs[0].Err, g.CPUs[0].Exit)
	case <-time.After(patience):
		g.t.Fatal("the guest logs nothing")
	}
	return 0
}

// Expect waits for the values that the guest logs next.
func (g *Guest) Expect(want ...uint64) {
	g.t.Helper()
	for i, w := range want {
		if v := g.Logged(); v != w {
			g.t.Fatalf("log entry %d: 0x%x, want 0x%x", i, v, w)
		}
	}
}

// Word waits until the guest's 32-bit word at gpa is v.
func (g *Guest) Word(gpa uint64, v uint32) {
	g.t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		got, err := g.Mem.Load32(gpa)
		if err != nil {
			g.t.Fatal(err)
		}
		if got == v {
			return
		}
		select {
		case <-g.running[0]:
			g.t.Fatalf("vCPU 0 ended before word 0x%x was 0x%x: %v %+v", gpa, v, g.CPUs[0].Err, g.CPUs[0].Exit)
		default:
		}
		if time.Now().After(end) {
			g.t.Fatalf("word 0x%x is 0x%x, want 0x%x", gpa, got, v)
		}
	}
}

// Numbers answers port 0x81 with list, one after the other, and 0 from then on.
func (g *Guest) Numbers(list ...uint64) {
	var n atomic.Int32
	g.Ports.Answer = func(addr uint64, _ int) uint64 {
		if i := int(n.Add(1)) - 1; addr == 0x81 && i < len(list) {
			return list[i]
		}
		return 0
	}
}
