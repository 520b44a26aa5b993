package machine

import (
	"errors"

	"berth/accel"
	"berth/x86"
)

// Status is what a VM is doing, in QEMU's words (its RunState).
type Status string

// The statuses.
const (
	Prelaunch Status = "prelaunch" // nothing has run yet, or not since a reset
	Running   Status = "running"
	Paused    Status = "paused"
	ShutDown  Status = "shutdown"       // the guest powered off, and the VM is kept
	Panic     Status = "guest-panicked" // likewise its kernel panicked
	Debug     Status = "debug"          // halted for a debugger
)

// Notice is something that happened to a VM.
type Notice struct {
	Kind   NoticeKind
	Guest  bool  // the guest did it
	Cause  Cause // of a Reset or a Shutdown
	Action string
	ID     string // of a Port, a NIC or a device, "" if that has none
	Drive  DriveError
	Open   bool
	Size   uint64
	Path   string // of a device, its place in QEMU's tree of objects
	CPU    int    // of a Debug, the vCPU that stopped
	Stop   x86.Stop
}

// NoticeKind is a kind of Notice.
type NoticeKind uint8

// The kinds.
const (
	NoticeStop NoticeKind = iota
	NoticeResume
	NoticePowerDown // the power button was pressed
	NoticeReset
	NoticeShutdown
	NoticeDriveError
	NoticePanicked // Action is "pause", "reset", "none" or "poweroff"
	NoticePort     // the guest has opened or closed the virtio port ID
	NoticeRxFilter // the driver of the NIC ID has changed what it receives
	NoticeDeviceDeleted
	NoticeDebug   // a vCPU met what a debugger wants; a Stop follows unless the VM is halted already
	NoticeBalloon // the guest has Size bytes beside what is in the balloon
)

// Cause is why a VM was reset or shut down, in QEMU's words (its ShutdownCause).
type Cause string

// The causes.
const (
	ByQuit        Cause = "host-qmp-quit"
	ByReset       Cause = "host-qmp-system-reset"
	BySignal      Cause = "host-signal"
	ByUser        Cause = "host-ui"
	ByError       Cause = "host-error"
	GuestShutdown Cause = "guest-shutdown"
	GuestReset    Cause = "guest-reset"
	GuestPanic    Cause = "guest-panic"
)

// ErrEnded is the answer to whoever wants something of a VM that has ended.
var ErrEnded = errors.New("the VM has ended")

// Do runs f on the goroutine that owns the machine, between two events, and waits
// for it. Before Run it waits; once Run has returned, or Forgo has been called, it does
// not run f and returns ErrEnded.
func (m *Machine) Do(f func() error) error {
	done := make(chan error, 1)
	select {
	case m.requests <- func() { done <- f() }:
		return <-done
	case <-m.ended:
		return ErrEnded
	}
}

// Status returns what the VM is doing. Call it within Do.
func (m *Machine) Status() Status { return m.status }

// Pause halts vCPUs, devices and guest time. One that is halted already stays as
// it is. Call it within Do.
func (m *Machine) Pause() error { return m.halt(Paused) }

// Continue lets a halted VM go on. One that the guest has shut down needs a Reset
// first. Call it within Do.
func (m *Machine) Continue() error {
	if err := m.mayContinue(); err != nil || m.status == Running {
		return err
	}
	if err := m.endPlans(); err != nil {
		return err
	}
	return m.goOn()
}

func (m *Machine) mayContinue() error {
	switch m.status {
	case ShutDown, Panic:
		return errors.New("Resetting the Virtual Machine is required")
	}
	return nil
}

// Reset does what a PC's reset button does. A VM that the guest has shut down waits
// for Continue. Call it within Do.
func (m *Machine) Reset() error {
	m.pauseAll()
	err := m.reset()
	m.notify(Notice{Kind: NoticeReset, Cause: ByReset})
	if m.status == Running {
		m.askAll(running)
	} else {
		m.status = Prelaunch
	}
	return err
}

// Quit ends the VM at once. Safe from any goroutine.
func (m *Machine) Quit() { m.say(m.wishes, event{kind: eventStop, cause: ByQuit}) }

// Ended is closed when Run has returned, or will not be called.
func (m *Machine) Ended() <-chan struct{} { return m.ended }

func (m *Machine) notify(n Notice) {
	if m.cfg.Notify != nil {
		m.cfg.Notify(n)
	}
}

// halt stops vCPUs, devices and time, in this order: what a device has begun for a
// vCPU is done when it returns.
func (m *Machine) halt(s Status) error {
	if m.status != Running {
		if s != Paused {
			m.status = s
		}
		return nil
	}
	m.pauseAll()
	for _, t := range m.board.transports {
		t.Pause()
	}
	var err error
	if c, ok := m.board.vm.(accel.ClockPauser); ok {
		err = c.PauseClock()
	}
	m.board.clock.Pause()
	m.status, m.engineClock = s, true
	m.notify(Notice{Kind: NoticeStop})
	return err
}

// goOn undoes halt, or begins.
func (m *Machine) goOn() error {
	if m.status == Running {
		return nil
	}
	var err error
	m.board.clock.Resume()
	if c, ok := m.board.vm.(accel.ClockPauser); ok && m.engineClock {
		err = c.ResumeClock()
	}
	for _, t := range m.board.transports {
		t.Resume()
	}
	m.status, m.engineClock = Running, false
	m.notify(Notice{Kind: NoticeResume})
	m.askAll(running)
	return err
}
