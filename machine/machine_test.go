package machine

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"berth/accel"
	"berth/accel/soft"
	"berth/block"
	"berth/block/backend"
	"berth/block/blocktest"
	"berth/chardev"
	"berth/irq"
	"berth/spec"
	"berth/virtio"
	"berth/x86"
)

// script is an accelerator whose vCPU 0 does not run a guest but hands over the
// exits it is given, one a Run, and then waits for a kick. It injects what no
// guest of ours can cause.
type script struct {
	exits []accel.Exit
	err   error // of Run, once the exits are used up
	ports accel.IO
	vcpus []*scriptVCPU

	topology x86.Topology
}

func (s *script) Name() string { return "script" }
func (s *script) NewVM(c accel.Config) (accel.VM, error) {
	s.ports, s.topology = c.Ports, c.Topology
	return s, nil
}
func (s *script) NewVCPU(id int) (accel.VCPU, error) {
	v := &scriptVCPU{script: s, id: id}
	v.kicked = sync.NewCond(&v.mu)
	s.vcpus = append(s.vcpus, v)
	return v, nil
}
func (s *script) IRQChip() accel.IRQChip                 { return s }
func (s *script) Close() error                           { return nil }
func (s *script) SetGSI(uint32, bool)                    {}
func (s *script) SignalMSI(irq.MSI) error                { return nil }
func (s *script) NewMSISource() (irq.MSISource, error)   { return s, nil }
func (s *script) Program(irq.MSI, bool) error            { return nil }
func (s *script) Trigger()                               {}
func (s *script) SaveChip() (c irq.ChipState, err error) { return }
func (s *script) LoadChip(irq.ChipState) error           { return nil }

type scriptVCPU struct {
	script *script
	id     int
	mu     sync.Mutex
	kicked *sync.Cond
	kick   bool
	sets   int
}

func (v *scriptVCPU) Run(exit *accel.Exit) error {
	s := v.script
	if v.id == 0 && len(s.exits) > 0 {
		*exit = s.exits[0]
		s.exits = s.exits[1:]
		return nil
	}
	if v.id == 0 && s.err != nil {
		return s.err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	for !v.kick {
		v.kicked.Wait()
	}
	v.kick = false
	return nil // ExitKick
}
func (v *scriptVCPU) Kick() {
	v.mu.Lock()
	v.kick = true
	v.kicked.Broadcast()
	v.mu.Unlock()
}
func (v *scriptVCPU) GetState(*x86.State) error { return nil }
func (v *scriptVCPU) SetState(*x86.State) error {
	v.sets++
	return nil
}

// port is a console with nobody at it.
type port struct{ closed chan struct{} }

func (p port) Read([]byte) (int, error)    { <-p.closed; return 0, io.EOF }
func (p port) Write(b []byte) (int, error) { return len(b), nil }
func (p port) Close() error                { close(p.closed); return nil }

// kernel writes a PVH kernel that is never run.
func kernel(t *testing.T) string {
	t.Helper()
	le := func(v uint32) string { return string([]byte{byte(v), byte(v >> 8), byte(v >> 16), byte(v >> 24)}) }
	header := "\x7fELF\x01\x01\x01" + strings.Repeat("\x00", 9) + "\x02\x00\x03\x00" + le(1) + le(0x100000) + le(52) + le(0) + le(0) +
		"\x34\x00\x20\x00\x02\x00\x00\x00\x00\x00\x00\x00"
	load := le(1) + le(136) + le(0x100000) + le(0x100000) + le(1) + le(1) + le(7) + le(1)
	note := le(4) + le(116) + le(0) + le(0) + le(20) + le(20) + le(4) + le(4)
	image := header + load + note + le(4) + le(4) + le(18) + "Xen\x00" + le(0x100000) + "\xf4"
	path := filepath.Join(t.TempDir(), "kernel")
	if err := os.WriteFile(path, []byte(image), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func build(t *testing.T, s *script, cpus int) *Machine {
	t.Helper()
	return buildWith(t, s, cpus, port{make(chan struct{})})
}

func buildWith(t *testing.T, s *script, cpus int, console chardev.Port) *Machine {
	t.Helper()
	vm := newMachine(t, s, cpus, console)
	t.Cleanup(func() {
		if err := vm.Close(); err != nil {
			t.Error(err)
		}
	})
	return vm
}

// newMachine builds a machine that the caller closes.
func newMachine(t *testing.T, s accel.Accelerator, cpus int, console chardev.Port) *Machine {
	t.Helper()
	m := spec.Default()
	m.CPUs.Count, m.Boot.Kernel, m.Memory.Size = cpus, kernel(t), 64<<20
	vm, err := New(Config{Spec: m, Accelerator: s, Console: console, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return vm
}

func run(t *testing.T, m *Machine) Outcome {
	t.Helper()
	o, err := m.Run()
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func TestExitsBecomeOutcomes(t *testing.T) {
	for want, exit := range map[Kind]accel.Exit{
		PowerOff:      {Reason: accel.ExitPowerOff},
		TripleFault:   {Reason: accel.ExitShutdown, RIP: 0x1234, Bytes: []byte{0x0f, 0x0b}},
		InternalError: {Reason: accel.ExitInternal, Detail: "instruction not implemented: FROB"},
	} {
		o := run(t, build(t, &script{exits: []accel.Exit{exit}}, 1))
		if o.Kind != want || o.RIP != exit.RIP || (exit.Detail != "" && o.Detail != exit.Detail) {
			t.Errorf("%v: %+v", exit, o)
		}
	}
}

func TestEngineFailureIsAnError(t *testing.T) {
	broken := errors.New("the engine broke")
	_, err := build(t, &script{err: broken}, 1).Run()
	if !errors.Is(err, broken) || !strings.Contains(err.Error(), "vCPU 0") {
		t.Errorf("%v", err)
	}
}

func TestEveryBoardBootsAgain(t *testing.T) {
	for name, m := range boards(t, func(*spec.Machine) {}) {
		s := &script{exits: []accel.Exit{{Reason: accel.ExitReset}, {Reason: accel.ExitReset}, {Reason: accel.ExitPowerOff}}}
		if o := run(t, newFrom(t, m, s)); o.Kind != PowerOff || s.vcpus[0].sets != 5 {
			t.Errorf("%s: %+v after %d states", name, o, s.vcpus[0].sets)
		}
	}
}

func TestResetsBootAgainUntilTheyLoop(t *testing.T) {
	s := &script{}
	for range resetLoopCount - 1 {
		s.exits = append(s.exits, accel.Exit{Reason: accel.ExitReset})
	}
	s.exits = append(s.exits, accel.Exit{Reason: accel.ExitPowerOff})
	m := build(t, s, 2)
	if o := run(t, m); o.Kind != PowerOff {
		t.Errorf("%+v", o)
	}
	// A boot sets the entry state; each reset loads the first state and boots again.
	if got, want := s.vcpus[0].sets, 1+2*(resetLoopCount-1); got != want {
		t.Errorf("vCPU 0's state was set %d times, want %d", got, want)
	}
	for range resetLoopCount {
		s.exits = append(s.exits, accel.Exit{Reason: accel.ExitReset})
	}
	if o := run(t, build(t, s, 1)); o.Kind != ResetLoop {
		t.Errorf("%+v", o)
	}
}

// At power-on and after a reset all vCPUs' time-stamp counters show the same.
func TestTimeStampCountersAgree(t *testing.T) {
	m := newMachine(t, soft.New(slog.New(slog.DiscardHandler)), 4, port{make(chan struct{})})
	agree := func(when string) {
		t.Helper()
		m.board.clock.Pause()
		var first uint64
		for i, c := range m.vcpus {
			var s x86.State
			if err := c.do(func(v accel.VCPU) error { return v.GetState(&s) }); err != nil {
				t.Fatal(err)
			}
			at := slices.IndexFunc(s.MSRs, func(r x86.MSR) bool { return r.Index == x86.MSRTSC })
			if tsc := s.MSRs[at].Value; i == 0 {
				first = tsc
			} else if tsc != first {
				t.Errorf("%s: vCPU %d shows %d, vCPU 0 %d", when, i, tsc, first)
			}
		}
	}
	agree("power-on")
	m.board.clock.Resume()
	m.status = Running
	if err := m.reset(); err != nil {
		t.Fatal(err)
	}
	agree("reset")
	if err := m.Close(); err != nil {
		t.Error(err)
	}
}

func TestResetLoopForgetsOldResets(t *testing.T) {
	var l resetLoop
	now := time.Unix(0, 0)
	for i := range 10 * resetLoopCount {
		if l.again(now) {
			t.Fatalf("a reset each %s is a loop after %d", resetLoopWindow+1, i+1)
		}
		now = now.Add(resetLoopWindow + 1)
	}
}

func TestNoRebootEndsAtTheFirstReset(t *testing.T) {
	m := build(t, &script{exits: []accel.Exit{{Reason: accel.ExitReset}}}, 1)
	m.cfg.Spec.NoReboot = true
	if o := run(t, m); o.Kind != Rebooted {
		t.Errorf("%+v", o)
	}
}

func TestStopAndKillFromOutside(t *testing.T) {
	m := build(t, &script{}, 4)
	go m.Stop()
	if o := run(t, m); o.Kind != Left {
		t.Errorf("%+v", o)
	}
	m = build(t, &script{}, 4)
	go m.Kill("a test")
	if o := run(t, m); o.Kind != Killed || !strings.Contains(o.Detail, "a test") {
		t.Errorf("%+v", o)
	}
}

// A device may ask for the end from a vCPU's own thread, in the middle of an instruction.
func TestPowerOffByPort(t *testing.T) {
	s := &script{}
	m := build(t, s, 2)
	if err := m.vcpus[1].do(func(accel.VCPU) error {
		s.ports.Write(0x604, []byte{0, 0x20})
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if o := run(t, m); o.Kind != PowerOff {
		t.Errorf("%+v", o)
	}
}

func TestVCPUThreadsAreNamed(t *testing.T) {
	build(t, &script{}, 2)
	found := map[string]bool{}
	tasks, err := filepath.Glob("/proc/self/task/*/comm")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range tasks {
		b, _ := os.ReadFile(f)
		found[strings.TrimSpace(string(b))] = true
	}
	if !found["CPU 0/script"] || !found["CPU 1/script"] {
		t.Errorf("threads: %v", found)
	}
}

// stuck is a console whose reader has gone to sleep.
type stuck struct {
	port
	begun chan struct{}
}

func (s stuck) Write([]byte) (int, error) {
	close(s.begun)
	select {}
}

func TestKillDoesNotWaitForTheConsole(t *testing.T) {
	s, console := &script{}, stuck{port{make(chan struct{})}, make(chan struct{})}
	m := buildWith(t, s, 1, console)
	s.ports.Write(0x3f8, []byte{'x'})
	<-console.begun
	m.Stop() // waits for the console
	go m.Kill("a test")
	if o := run(t, m); o.Kind != Left && o.Kind != Killed {
		t.Errorf("%+v", o)
	}
}

// idle is a disk that never completes anything before it is abandoned.
type idle struct {
	block.Disk
	abandoned chan struct{}
}

func (d idle) Abandon()     { close(d.abandoned) }
func (d idle) Close() error { <-d.abandoned; return nil }

func TestKillDoesNotWaitForDisks(t *testing.T) {
	m := newMachine(t, &script{}, 1, port{make(chan struct{})})
	m.board.drives = append(m.board.drives, &Drive{Backend: backend.New(backend.Root{Disk: idle{blocktest.NewMem(512), make(chan struct{})}}, backend.Options{})})
	go m.Kill("a test")
	if o := run(t, m); o.Kind != Killed {
		t.Errorf("%+v", o)
	}
	if err := m.Close(); err != nil {
		t.Error(err)
	}
}

// A guest asks for resets faster than they are made, by REP OUTS for example.
func TestNoFloodOfEventsDrownsAWish(t *testing.T) {
	s := &script{}
	m := build(t, s, 1)
	for range 1000 {
		s.ports.Write(0xcf9, []byte{6})
	}
	m.Stop()
	m.Kill("a test")
	if o := run(t, m); o.Kind != Left {
		t.Errorf("%+v", o)
	}
}

// A queue that the guest has activated has a goroutine, which Close ends.
func TestCloseEndsQueueWorkers(t *testing.T) {
	m := newMachine(t, &script{}, 1, port{make(chan struct{})})
	const okay = virtio.StatusAcknowledge | virtio.StatusDriver | virtio.StatusFeaturesOK | virtio.StatusDriverOK
	rng := m.board.transports[0].(*virtio.PCI)
	rng.Pause()
	err := rng.Load(virtio.State{
		Version: virtio.StateVersion, ID: virtio.IDRNG, Status: okay, Acked: virtio.FeatureVersion1,
		Queues: []virtio.QueueState{{Size: 8, Enabled: true, Desc: 0x10000, Avail: 0x11000, Used: 0x12000}},
	})
	if err != nil {
		t.Fatal(err)
	}
	rng.Resume()
	awaitWorker(t, true)
	if err := m.Close(); err != nil {
		t.Error(err)
	}
	awaitWorker(t, false)
}

// awaitWorker waits until a queue's goroutine is there, or none is.
func awaitWorker(t *testing.T, want bool) {
	t.Helper()
	for tries := 0; workerRuns() != want; tries++ {
		if tries == 1000 {
			t.Fatalf("the queue's worker runs: %v, want %v", !want, want)
		}
		time.Sleep(time.Millisecond)
	}
}

func workerRuns() bool {
	b := make([]byte, 1<<20)
	return strings.Contains(string(b[:runtime.Stack(b, true)]), "virtio.(*Queue).run")
}

// boards is a machine of each board that there is, completed.
func boards(t *testing.T, change func(*spec.Machine)) map[string]spec.Machine {
	t.Helper()
	all := map[string]spec.Machine{}
	for _, b := range spec.Boards() {
		m := spec.Default()
		m.Board, m.Boot.Kernel, m.Memory.Size = b.Name, kernel(t), 64<<20
		change(&m)
		if err := m.Complete(); err != nil {
			t.Fatal(err)
		}
		if err := m.Validate(); err != nil {
			t.Fatal(err)
		}
		all[b.Name] = m
	}
	return all
}

func newFrom(t *testing.T, m spec.Machine, s accel.Accelerator) *Machine {
	t.Helper()
	vm, err := New(Config{Spec: m, Accelerator: s, Console: port{make(chan struct{})}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := vm.Close(); err != nil {
			t.Error(err)
		}
	})
	return vm
}

// Every board has the ports by which a guest resets, powers off and panics.
func TestEveryBoardEndsAsAsked(t *testing.T) {
	for name, m := range boards(t, func(m *spec.Machine) { m.NoReboot = true }) {
		for _, c := range []struct {
			port uint64
			data []byte
			want Kind
		}{
			{0x604, []byte{0, 0x20}, PowerOff},
			{0x505, []byte{1}, Panicked},
			{0xcf9, []byte{6}, Rebooted},
		} {
			s := &script{}
			vm := newFrom(t, m, s)
			err := vm.vcpus[0].do(func(accel.VCPU) error {
				s.ports.Write(c.port, c.data)
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			if o := run(t, vm); o.Kind != c.want {
				t.Errorf("%s: port 0x%x: %+v", name, c.port, o)
			}
		}
	}
}

// The guest's APIC IDs are the same in the tables and in the engine.
func TestTopologyReachesEngineAndTables(t *testing.T) {
	for name, m := range boards(t, func(m *spec.Machine) { m.CPUs = spec.CPUs{Count: 6, Sockets: 2} }) {
		s := &script{}
		vm := newFrom(t, m, s)
		want := x86.Topology{Sockets: 2, Cores: 3, Threads: 1}
		c := vm.board.acpiConfig(m)
		if s.topology != want || !slices.Equal(c.CPUs, []uint32{0, 1, 2, 4, 5, 6}) || c.SocketSize != 3 {
			t.Errorf("%s: engine %+v, tables %v, %d a socket", name, s.topology, c.CPUs, c.SocketSize)
		}
	}
}

func TestPanicsThatDoNotEndTheVM(t *testing.T) {
	for policy, want := range map[string]struct {
		kind Kind
		log  string
	}{"ignore": {PowerOff, "ignored"}, "reset": {Rebooted, "is reset"}} {
		var log bytes.Buffer
		m := boards(t, func(m *spec.Machine) { m.OnPanic, m.NoReboot = policy, true })["q35-1"]
		s := &script{}
		vm, err := New(Config{Spec: m, Accelerator: s, Console: port{make(chan struct{})}, Log: slog.New(slog.NewTextHandler(&log, nil))})
		if err != nil {
			t.Fatal(err)
		}
		err = vm.vcpus[0].do(func(accel.VCPU) error {
			for range 100 {
				s.ports.Write(0x505, []byte{1})
			}
			s.ports.Write(0x604, []byte{0, 0x20})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if o := run(t, vm); o.Kind != want.kind || strings.Count(log.String(), "panicked") != 1 || !strings.Contains(log.String(), want.log) {
			t.Errorf("%s: %+v, log %s", policy, o, log.String())
		}
		if err := vm.Close(); err != nil {
			t.Error(err)
		}
	}
}
