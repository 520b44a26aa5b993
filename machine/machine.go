// Package machine turns a spec into a running VM: memory, accelerator, chips, devices, and the one goroutine that owns them.
package machine

import (
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"time"

	"berth/accel"
	"berth/chardev"
	"berth/spec"
)

// A guest that resets itself resetLoopCount times in a row, each time within
// resetLoopWindow of the time before, is in a loop.
const (
	resetLoopCount  = 5
	resetLoopWindow = 10 * time.Second
)

// Config is what a machine is built from.
type Config struct {
	Spec        spec.Machine
	Accelerator accel.Accelerator
	Console     chardev.Port // the host's end of the byte device that is on standard input and output
	Log         *slog.Logger
}

// Machine is one VM. Run owns it; PowerButton, Stop and Kill are safe from
// any goroutine.
type Machine struct {
	cfg     Config
	log     *slog.Logger
	board   *board
	vcpus   []*vcpu
	initial initialState
	reports chan report
	events  chan event // of the guest
	wishes  chan event // of the user
}

// event is something that ends or resets the VM, said by a device or a user.
type event struct {
	kind   eventKind
	code   int
	detail string
}

type eventKind uint8

const (
	eventPowerOff eventKind = iota
	eventReset
	eventDebugExit
	eventPanic
	eventStop
	eventKill
)

// New builds the machine; nothing runs yet. The error says in one line what
// cannot be had and, where there is one, the remedy.
func New(cfg Config) (*Machine, error) {
	m := &Machine{
		cfg:     cfg,
		log:     cfg.Log,
		reports: make(chan report, cfg.Spec.CPUs.Count),
		events:  make(chan event, 1), // the first of the guest's events decides
		wishes:  make(chan event, 2), // a stop, and a kill because that takes too long
	}
	var err error
	if m.board, err = newBoard(cfg, m.post); err != nil {
		return nil, err
	}
	// Guest time begins with Run. All vCPUs are given their state at one instant,
	// so that their time-stamp counters agree.
	m.board.clock.Pause()
	if err := m.startVCPUs(); err != nil {
		return nil, errors.Join(err, m.Close())
	}
	if err := m.saveInitial(); err != nil {
		return nil, errors.Join(err, m.Close())
	}
	if err := m.boot(); err != nil {
		return nil, errors.Join(err, m.Close())
	}
	return m, nil
}

func (m *Machine) startVCPUs() error {
	// Go runs as many threads at once as it is told: a vCPU in the soft engine
	// occupies one all the time, and must never keep a device's worker waiting.
	runtime.GOMAXPROCS(m.cfg.Spec.CPUs.Count + m.board.workers(m.cfg.Spec) + 2)
	name := m.cfg.Accelerator.Name()
	if name == "kvm" {
		name = "KVM"
	}
	for id := range m.cfg.Spec.CPUs.Count {
		c, err := startVCPU(id, m.board.vm, fmt.Sprintf("CPU %d/%s", id, name), m.reports)
		if err != nil {
			return fmt.Errorf("vCPU %d: %w", id, err)
		}
		m.vcpus = append(m.vcpus, c)
	}
	return nil
}

// post hands a device's event to Run and holds the vCPUs where they are. Called
// in the middle of an instruction, so it never waits.
func (m *Machine) post(e event) { m.say(m.events, e) }

// say puts e in one of the two channels unless that is full, in which case Run
// has reason enough to stop already. A guest cannot fill the one for wishes.
func (m *Machine) say(to chan<- event, e event) {
	select {
	case to <- e:
	default:
	}
	m.askAll(paused)
}

// PowerButton presses the ACPI power button; the guest decides what follows.
func (m *Machine) PowerButton() { m.board.pm.PowerButton() }

// Stop ends the VM at once at its user's wish.
func (m *Machine) Stop() { m.say(m.wishes, event{kind: eventStop}) }

// Kill ends the VM at once, even one whose console nobody reads any more and
// whose disks have hours of work to do; why is reported in the outcome. What was
// on its way to either is lost, as when the power fails.
func (m *Machine) Kill(why string) {
	m.board.abandon()
	m.say(m.wishes, event{kind: eventKill, detail: "stopped at once by " + why})
}

// Run starts the vCPUs and returns when the VM has ended. An error means that
// the host, not the guest, failed.
func (m *Machine) Run() (Outcome, error) {
	defer m.logCounts()
	if err := m.board.start(); err != nil {
		return Outcome{}, err
	}
	m.board.clock.Resume()
	m.askAll(running)
	var loop resetLoop
	for {
		outcome, reset, err := m.wait()
		m.pauseAll()
		if !reset || err != nil {
			m.board.drain()
			return outcome, err
		}
		if m.cfg.Spec.NoReboot {
			m.board.drain()
			return Outcome{Kind: Rebooted, Detail: "the guest reset itself"}, nil
		}
		if loop.again(time.Now()) {
			m.board.drain()
			return Outcome{Kind: ResetLoop, Detail: fmt.Sprintf("reset loop: the guest reset itself %d times, each within %s", resetLoopCount, resetLoopWindow)}, nil
		}
		m.log.Info("the guest reset itself")
		if err := m.reset(); err != nil {
			return Outcome{}, fmt.Errorf("resetting: %w", err)
		}
		m.askAll(running)
	}
}

// logCounts says what each disk did, and how many instructions each vCPU ran, where
// the accelerator counts them.
func (m *Machine) logCounts() {
	for i, d := range m.board.disks {
		s := d.Stats()
		m.log.Debug("ended", "disk", i, "node", d.Node(),
			"reads", s.Read.Operations, "read bytes", s.Read.Bytes, "read time", s.Read.Time, "writes", s.Write.Operations, "written bytes", s.Write.Bytes, "write time", s.Write.Time,
			"flushes", s.Flush.Operations, "flush time", s.Flush.Time, "discards", s.Unmap.Operations, "discarded bytes", s.Unmap.Bytes,
			"failed", s.Read.Failed+s.Write.Failed+s.Flush.Failed+s.Unmap.Failed)
	}
	for _, c := range m.vcpus {
		_ = c.do(func(v accel.VCPU) error {
			if n, ok := v.(accel.InstructionCounter); ok {
				m.log.Debug("ended", "vCPU", c.id, "instructions", n.Instructions())
			}
			if t, ok := v.(accel.TranslationCounter); ok {
				if ran, exits := t.Translated(); exits != nil {
					m.log.Debug("ended", "vCPU", c.id, "translated", ran, "exits", exits)
				}
			}
			return nil
		})
	}
}

// wait returns at the first event: an outcome, or reset. Wishes go first, so
// that a guest that resets itself without end is stopped all the same.
func (m *Machine) wait() (o Outcome, reset bool, err error) {
	select {
	case e := <-m.wishes:
		o, reset = m.happened(e)
		return o, reset, nil
	default:
	}
	select {
	case e := <-m.wishes:
		o, reset = m.happened(e)
	case e := <-m.events:
		o, reset = m.happened(e)
	case r := <-m.reports:
		return m.reported(r)
	}
	return o, reset, nil
}

// happened turns an event into an outcome, or a reset.
func (m *Machine) happened(e event) (o Outcome, reset bool) {
	switch e.kind {
	case eventReset:
		return o, true
	case eventDebugExit:
		return Outcome{Kind: DebugExit, Code: e.code}, false
	case eventPanic:
		if m.cfg.Spec.OnPanic == "reset" {
			m.log.Warn("the guest's kernel panicked, and is reset")
			return o, true
		}
		return Outcome{Kind: Panicked, Detail: "the guest's kernel panicked"}, false
	case eventStop:
		return Outcome{Kind: Left}, false
	case eventKill:
		return Outcome{Kind: Killed, Detail: e.detail}, false
	}
	return Outcome{Kind: PowerOff}, false
}

// reported turns a vCPU's report into an outcome, or a reset.
func (m *Machine) reported(r report) (o Outcome, reset bool, err error) {
	if r.err != nil {
		return o, false, fmt.Errorf("vCPU %d: %w", r.id, r.err)
	}
	o = Outcome{VCPU: r.id, Detail: r.exit.Detail, RIP: r.exit.RIP, Bytes: r.exit.Bytes}
	switch r.exit.Reason {
	case accel.ExitPowerOff:
		o.Kind = PowerOff
	case accel.ExitReset:
		return o, true, nil
	case accel.ExitShutdown:
		o.Kind, o.Detail = TripleFault, "triple fault: the guest could not deliver an exception"
	default:
		o.Kind = InternalError
		if o.Detail == "" {
			o.Detail = r.exit.Reason.String()
		}
	}
	return o, false, nil
}

func (m *Machine) askAll(s runState) {
	for _, c := range m.vcpus {
		c.ask(s)
	}
}

// pauseAll returns when no vCPU runs.
func (m *Machine) pauseAll() {
	m.askAll(paused)
	for _, c := range m.vcpus {
		c.await(paused)
	}
}

// Close stops the vCPUs and releases everything. Run has returned, or was never called.
func (m *Machine) Close() error {
	m.askAll(stopped)
	for _, c := range m.vcpus {
		c.await(stopped)
	}
	return m.board.close()
}

// resetLoop recognises a guest that does nothing but reset itself.
type resetLoop struct {
	last  time.Time
	count int
}

// again notes a reset and reports whether it is one too many.
func (l *resetLoop) again(now time.Time) bool {
	if l.count > 0 && now.Sub(l.last) > resetLoopWindow {
		l.count = 0
	}
	l.last = now
	l.count++
	return l.count >= resetLoopCount
}
