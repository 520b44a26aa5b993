// Package machine turns a spec into a running VM: memory, accelerator, chips, devices, and the one goroutine that owns them.
package machine

import (
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"time"

	"berth/accel"
	"berth/block/formats"
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
	// Descriptors are those that a disk's file may be named by; nil: none.
	Descriptors formats.DescriptorSets
	// Notify is told what happens to the VM, from any goroutine; it must not wait. nil: nobody is.
	Notify func(Notice)
}

// Machine is one VM. Run owns it; Do, PowerButton, Stop, Quit and Kill are safe
// from any goroutine.
type Machine struct {
	cfg      Config
	log      *slog.Logger
	board    *board
	vcpus    []*vcpu
	initial  initialState
	reports  chan report
	events   chan event  // of the guest
	wishes   chan event  // of the user
	requests chan func() // for Run's goroutine
	ended    chan struct{}
	forgone  sync.Once // closes ended

	// Run's own:
	status      Status
	debug       debugging
	engineClock bool // the engine's clock is paused
	loop        resetLoop
}

// event is something that ends or resets the VM, said by a device or a user.
type event struct {
	kind   eventKind
	code   int
	detail string
	cause  Cause // of a wish
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

		requests: make(chan func()),
		ended:    make(chan struct{}),
		status:   Prelaunch,
	}
	var err error
	if m.board, err = newBoard(cfg, m.post); err != nil {
		return nil, err
	}
	if _, comes := cfg.Console.(chardev.Plug); comes { // whose other end may never read again
		for i := range m.board.speakers {
			m.board.speakers[i].patient = false
		}
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
	m.setThreads()
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

// setThreads tells Go how many threads to run at once: a vCPU in the soft engine
// occupies one all the time, and must never keep a device's worker waiting.
func (m *Machine) setThreads() {
	runtime.GOMAXPROCS(m.cfg.Spec.CPUs.Count + m.board.workers(m.cfg.Spec) + 2)
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
func (m *Machine) PowerButton() {
	m.notify(Notice{Kind: NoticePowerDown})
	m.board.pm.PowerButton()
}

// Stop ends the VM at once at its user's wish.
func (m *Machine) Stop() { m.say(m.wishes, event{kind: eventStop, cause: ByUser}) }

// Kill ends the VM at once, even one whose console nobody reads any more and
// whose disks have hours of work to do; why is reported in the outcome. What was
// on its way to either is lost, as when the power fails.
func (m *Machine) Kill(why string) {
	m.board.abandon()
	m.say(m.wishes, event{kind: eventKill, detail: "stopped at once by " + why, cause: BySignal})
}

// Run starts the vCPUs, unless the spec says that somebody else will, and returns
// when the VM has ended. An error means that the host, not the guest, failed.
func (m *Machine) Run() (Outcome, error) {
	defer m.Forgo()
	defer m.logCounts()
	if err := m.board.start(); err != nil {
		return Outcome{}, err
	}
	if !m.cfg.Spec.Paused {
		if err := m.goOn(); err != nil {
			return Outcome{}, err
		}
	}
	for {
		outcome, over, err := m.wait()
		if err != nil {
			m.pauseAll()
			m.board.drain()
			return outcome, err
		}
		if over {
			m.pauseAll()
			m.board.drain()
			return outcome, nil
		}
	}
}

// Forgo says that Run will not be called: whoever waits in Do is answered. Once Run has
// returned it does nothing.
func (m *Machine) Forgo() { m.forgone.Do(func() { close(m.ended) }) }

// logCounts says what each disk did, and how many instructions each vCPU ran, where
// the accelerator counts them.
func (m *Machine) logCounts() {
	for i, d := range m.board.drives {
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
				if t, ok := t.Translation(); ok {
					m.log.Debug("ended", append([]any{"vCPU", c.id}, t.Ran()...)...)
					m.log.Debug("translation", append([]any{"vCPU", c.id}, t.Made()...)...)
				}
			}
			return nil
		})
	}
}

// wait acts on the next event or request; over: it was the VM's end. Wishes go
// first, so that a guest that resets itself without end is stopped all the same.
func (m *Machine) wait() (o Outcome, over bool, err error) {
	select {
	case e := <-m.wishes:
		o = m.wished(e)
		return o, true, nil
	default:
	}
	select {
	case e := <-m.wishes:
		return m.wished(e), true, nil
	case f := <-m.requests:
		f()
		return o, false, nil
	case <-m.board.slots.ejected:
		return o, false, m.removeEjected(m.status == Running)
	case e := <-m.events:
		return m.happened(e)
	case r := <-m.reports:
		return m.reported(r)
	}
}

// wished is the end that the user wants.
func (m *Machine) wished(e event) Outcome {
	m.notify(Notice{Kind: NoticeShutdown, Cause: e.cause})
	if e.kind == eventKill {
		return Outcome{Kind: Killed, Detail: e.detail}
	}
	return Outcome{Kind: Left}
}

// happened acts on what a device says of the guest.
func (m *Machine) happened(e event) (o Outcome, over bool, err error) {
	switch e.kind {
	case eventReset:
		return m.guestReset()
	case eventDebugExit:
		return m.end(Outcome{Kind: DebugExit, Code: e.code}, GuestShutdown)
	case eventPanic:
		return m.panicked()
	}
	return m.poweredOff()
}

func (m *Machine) panicked() (o Outcome, over bool, err error) {
	switch {
	case m.cfg.Spec.OnPanic == "reset":
		m.log.Warn("the guest's kernel panicked, and is reset")
		m.notify(Notice{Kind: NoticePanicked, Guest: true, Action: "reset"})
		return m.guestReset()
	case m.cfg.Spec.NoShutdown:
		m.notify(Notice{Kind: NoticePanicked, Guest: true, Action: "pause"})
		return o, false, m.halt(Panic)
	}
	m.notify(Notice{Kind: NoticePanicked, Guest: true, Action: "poweroff"})
	return m.end(Outcome{Kind: Panicked, Detail: "the guest's kernel panicked"}, GuestPanic)
}

func (m *Machine) poweredOff() (o Outcome, over bool, err error) {
	if m.cfg.Spec.NoShutdown {
		m.notify(Notice{Kind: NoticeShutdown, Guest: true, Cause: GuestShutdown})
		return o, false, m.halt(ShutDown)
	}
	return m.end(Outcome{Kind: PowerOff}, GuestShutdown)
}

// end is the guest's end of the VM.
func (m *Machine) end(o Outcome, cause Cause) (Outcome, bool, error) {
	m.notify(Notice{Kind: NoticeShutdown, Guest: true, Cause: cause})
	return o, true, nil
}

// guestReset is the guest's reset of itself.
func (m *Machine) guestReset() (o Outcome, over bool, err error) {
	m.pauseAll()
	if m.cfg.Spec.NoReboot {
		if m.cfg.Spec.NoShutdown {
			return m.poweredOff()
		}
		return m.end(Outcome{Kind: Rebooted, Detail: "the guest reset itself"}, GuestReset)
	}
	if m.loop.again(time.Now()) {
		return m.end(Outcome{Kind: ResetLoop, Detail: fmt.Sprintf("reset loop: the guest reset itself %d times, each within %s", resetLoopCount, resetLoopWindow)}, GuestReset)
	}
	m.log.Info("the guest reset itself")
	if err := m.reset(); err != nil {
		return o, false, fmt.Errorf("resetting: %w", err)
	}
	m.notify(Notice{Kind: NoticeReset, Guest: true, Cause: GuestReset})
	if m.status == Running { // not halted between the guest's wish and now
		m.askAll(running)
	}
	return o, false, nil
}

// reported acts on why a vCPU left its engine.
func (m *Machine) reported(r report) (o Outcome, over bool, err error) {
	if r.err != nil {
		return o, false, fmt.Errorf("vCPU %d: %w", r.id, r.err)
	}
	if r.exit.Reason == accel.ExitDebug {
		return o, false, m.stoppedForDebugger(r)
	}
	o = Outcome{VCPU: r.id, Detail: r.exit.Detail, RIP: r.exit.RIP, Bytes: r.exit.Bytes}
	switch r.exit.Reason {
	case accel.ExitPowerOff:
		return m.poweredOff()
	case accel.ExitReset:
		return m.guestReset()
	case accel.ExitShutdown:
		o.Kind, o.Detail = TripleFault, "triple fault: the guest could not deliver an exception"
	default:
		o.Kind = InternalError
		if o.Detail == "" {
			o.Detail = r.exit.Reason.String()
		}
	}
	return m.end(o, ByError)
}

// askAll asks all vCPUs, but for those that a debugger wants to stay halted.
func (m *Machine) askAll(s runState) {
	for i, c := range m.vcpus {
		if s != running || m.debug.plans == nil || m.debug.plans[i] != PlanStay {
			c.ask(s)
		}
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
