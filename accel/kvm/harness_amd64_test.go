package kvm

import (
	"embed"
	"encoding/binary"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"berth/accel"
	"berth/guestmem"
	"berth/x86"
)

//go:embed testdata
var testdata embed.FS

// patience bounds a wait for something that must happen; nothing is measured against it.
const patience = 60 * time.Second

// open returns the host's KVM. Where the device exists it must work.
func open(t *testing.T) *Accelerator {
	t.Helper()
	if _, err := os.Stat(DefaultPath); errors.Is(err, fs.ErrNotExist) {
		t.Skip("there is no " + DefaultPath + " on this host")
	}
	a, err := New(DefaultPath, slog.New(slog.NewTextHandler(t.Output(), nil)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := a.Close(); err != nil {
			t.Error(err)
		}
	})
	return a
}

// access is one access to a space: a value written, or the width read.
type access struct {
	addr  uint64
	size  int
	value uint64 // written
	write bool
}

// space records accesses and answers reads with answer.
type space struct {
	mu     sync.Mutex
	log    []access
	answer func(addr uint64, size int) uint64
	hook   func(a access) // called without the lock, after recording
}

func (s *space) Read(addr uint64, p []byte) {
	var b [8]byte
	v := ^uint64(0)
	if s.answer != nil {
		v = s.answer(addr, len(p))
	}
	binary.LittleEndian.PutUint64(b[:], v)
	copy(p, b[:])
	s.record(access{addr: addr, size: len(p)})
}

func (s *space) Write(addr uint64, p []byte) {
	var b [8]byte
	copy(b[:], p)
	s.record(access{addr: addr, size: len(p), value: binary.LittleEndian.Uint64(b[:]), write: true})
}

func (s *space) record(a access) {
	s.mu.Lock()
	s.log = append(s.log, a)
	s.mu.Unlock()
	if s.hook != nil {
		s.hook(a)
	}
}

// writes returns the values written to addr.
func (s *space) writes(addr uint64) []uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	var v []uint64
	for _, a := range s.log {
		if a.write && a.addr == addr {
			v = append(v, a.value)
		}
	}
	return v
}

func (s *space) all() []access {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]access(nil), s.log...)
}

// guest is a VM with one of testdata's programs loaded.
type guest struct {
	t      *testing.T
	vm     accel.VM
	mem    *guestmem.Memory
	ports  *space
	mmio   *space
	logged chan uint64 // values written to port 0x80
	cpus   []*runner

	running []chan struct{} // one a vCPU, closed when its Run has returned
}

// runner is one vCPU with the thread that owns it. It runs when told, until it
// is kicked, ends or fails; calls of do run on the thread in between.
type runner struct {
	vcpu accel.VCPU
	todo chan func()
	exit accel.Exit
	err  error
}

func newGuest(t *testing.T, program string, cpus int) *guest {
	t.Helper()
	g := &guest{t: t, mem: guestmem.New(), ports: &space{}, mmio: &space{}, logged: make(chan uint64, 1024)}
	for _, r := range [][2]uint64{{0, 0xc0000}, {0x100000, 0x100000}} {
		if _, err := g.mem.AddRAM(r[0], r[1]); err != nil {
			t.Fatal(err)
		}
	}
	if program != "" {
		code, err := testdata.ReadFile("testdata/" + program + ".bin")
		if err != nil {
			t.Fatal(err)
		}
		if err := g.mem.Write(0x1000, code); err != nil {
			t.Fatal(err)
		}
	}
	var err error
	g.vm, err = open(t).NewVM(accel.Config{Memory: g.mem, Ports: g.ports, MMIO: g.mmio, CPUs: cpus})
	if err != nil {
		t.Fatal(err)
	}
	g.ports.hook = func(a access) {
		switch {
		case a.write && a.addr == 0xf4:
			g.kick()
		case a.write && a.addr == 0x80:
			g.logged <- a.value
		}
	}
	t.Cleanup(g.close)
	for id := range cpus {
		g.addCPU(id)
	}
	if program != "" {
		var s x86.State
		g.get(0, &s)
		s.Seg[x86.CS].Selector, s.Seg[x86.CS].Base, s.RIP = 0, 0, 0x1000
		g.set(0, &s)
	}
	return g
}

func (g *guest) addCPU(id int) {
	g.t.Helper()
	v, err := g.vm.NewVCPU(id)
	if err != nil {
		g.t.Fatal(err)
	}
	r := &runner{vcpu: v, todo: make(chan func())}
	g.cpus = append(g.cpus, r)
	go func() {
		runtime.LockOSThread()
		for f := range r.todo {
			f()
		}
	}()
}

func (g *guest) close() {
	g.kick()
	for _, r := range g.cpus {
		r.do(func() {})
		close(r.todo)
	}
	if err := errors.Join(g.vm.Close(), g.mem.Close()); err != nil {
		g.t.Error(err)
	}
}

func (g *guest) kick() {
	for _, r := range g.cpus {
		r.vcpu.Kick()
	}
}

// do runs f on the vCPU's thread and waits for it.
func (r *runner) do(f func()) {
	done := make(chan struct{})
	r.todo <- func() { f(); close(done) }
	<-done
}

// start runs the vCPU in the background; the channel closes when Run has returned.
func (r *runner) start() chan struct{} {
	done := make(chan struct{})
	r.todo <- func() { r.err = r.vcpu.Run(&r.exit); close(done) }
	return done
}

func (g *guest) get(cpu int, s *x86.State) {
	g.t.Helper()
	var err error
	g.cpus[cpu].do(func() { err = g.cpus[cpu].vcpu.GetState(s) })
	if err != nil {
		g.t.Fatal(err)
	}
}

// set writes a state and holds it, as it goes to KVM and as it comes back to go
// there again, against VMX's entry rules.
func (g *guest) set(cpu int, s *x86.State) {
	g.t.Helper()
	var err error
	var now x86.State
	g.cpus[cpu].do(func() {
		if err = g.cpus[cpu].vcpu.SetState(s); err == nil {
			err = g.cpus[cpu].vcpu.GetState(&now)
		}
	})
	if err == nil {
		err = errors.Join(given(s).CheckVMXEntry(), given(&now).CheckVMXEntry())
	}
	if err != nil {
		g.t.Fatal(err)
	}
}

// given returns the state as SetState passes it to KVM.
func given(s *x86.State) *x86.State {
	out := *s
	k := makeSregs(s, 0)
	getSregs(&k, &out)
	r := makeRegs(s)
	getRegs(&r, &out)
	return &out
}

// start sets every vCPU running.
func (g *guest) start() {
	g.running = nil
	for _, r := range g.cpus {
		g.running = append(g.running, r.start())
	}
}

// stop waits until every vCPU has left Run, and wants each to have been kicked.
func (g *guest) stop() {
	g.t.Helper()
	for i, done := range g.running {
		select {
		case <-done:
		case <-time.After(patience):
			g.t.Fatalf("vCPU %d does not stop", i)
		}
		if r := g.cpus[i]; r.err != nil || r.exit.Reason != accel.ExitKick {
			g.t.Fatalf("vCPU %d: %v, %v %s, RIP 0x%x", i, r.err, r.exit.Reason, r.exit.Detail, r.exit.RIP)
		}
	}
}

// run runs the program to its end, which is a write to port 0xf4.
func (g *guest) run() {
	g.t.Helper()
	g.start()
	g.stop()
}

// expect waits for the values that the guest logs next.
func (g *guest) expect(want ...uint64) {
	g.t.Helper()
	for i, w := range want {
		var v uint64
		select {
		case v = <-g.logged:
		default:
			select {
			case v = <-g.logged:
			case <-g.running[0]:
				g.t.Fatalf("vCPU 0 ended before logging 0x%x: %v %+v", w, g.cpus[0].err, g.cpus[0].exit)
			case <-time.After(patience):
				g.t.Fatalf("log entry %d (0x%x) does not come", i, w)
			}
		}
		if v != w {
			g.t.Fatalf("log entry %d: 0x%x, want 0x%x", i, v, w)
		}
	}
}

// word waits until the guest's 32-bit word at gpa is v.
func (g *guest) word(gpa uint64, v uint32) {
	g.t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		got, err := g.mem.Load32(gpa)
		if err != nil {
			g.t.Fatal(err)
		}
		if got == v {
			return
		}
		select {
		case <-g.running[0]:
			g.t.Fatalf("vCPU 0 ended before word 0x%x was 0x%x: %v %+v", gpa, v, g.cpus[0].err, g.cpus[0].exit)
		default:
		}
		if time.Now().After(end) {
			g.t.Fatalf("word 0x%x is 0x%x, want 0x%x", gpa, got, v)
		}
	}
}

// numbers answers port 0x81 with list, one after the other, and 0 from then on.
func (g *guest) numbers(list ...uint64) {
	var n atomic.Int32
	g.ports.answer = func(addr uint64, size int) uint64 {
		if i := int(n.Add(1)) - 1; addr == 0x81 && i < len(list) {
			return list[i]
		}
		return 0
	}
}
