// Package monitor is the control of a running VM: QEMU's QMP commands and its human monitor over package machine.
package monitor

import (
	"log/slog"
	"net"
	"slices"
	"sync"
	"time"

	"berth/block/formats"
	"berth/machine"
	"berth/qmp"
	"berth/spec"
)

// The version of QEMU's protocol that commands and answers follow.
const major, minor, micro = 7, 2, 0

// Config is what a monitor knows of its VM beside the machine itself.
type Config struct {
	Spec        spec.Machine
	Accelerator string // "kvm" or "soft"
	KVM         bool   // the host has KVM, used or not
	Package     string // berth's own version
	Log         *slog.Logger
}

// Monitor answers QMP sessions about one VM. Its methods may be called from any
// goroutine.
type Monitor struct {
	cfg      Config
	vm       *machine.Machine
	commands *qmp.Table
	server   *qmp.Server

	dump    dump
	mu      sync.Mutex
	humans  map[net.Conn]bool // connections of the human monitor
	serving sync.WaitGroup    // of them, and of a dump
	closed  bool

	descriptors descriptors
	net         network
}

// New makes the monitor of a VM that is not there yet: machine.New wants Notice.
func New(c Config) (*Monitor, error) {
	m := &Monitor{cfg: c, humans: map[net.Conn]bool{}, dump: dump{info: dumpInfo{Status: "none"}}}
	var err error
	if m.commands, err = m.table(); err != nil {
		return nil, err
	}
	m.server = qmp.NewServer(m.commands, c.Log)
	m.server.OnAlone(func() { m.descriptors.alone(m.runs()) })
	return m, nil
}

// table is everything that the monitor understands and says.
func (m *Monitor) table() (*qmp.Table, error) {
	v := qmp.Version{QEMU: qmp.Triple{Major: major, Minor: minor, Micro: micro}, Package: m.cfg.Package}
	return qmp.NewTable(v, slices.Concat(
		m.runCommands(), m.cpuCommands(), m.hostCommands(), m.chardevCommands(),
		m.deviceCommands(), m.pciCommands(), m.dumpCommands(), m.humanQMP(),
		m.descriptorCommands(), m.blockCommands(),
		m.netCommands(),
		m.modelCommands(), m.qomCommands(), m.statsCommands(), m.balloonCommands(),
	), events())
}

// Documentation is what a monitor's QMP commands and events are, as Markdown.
func Documentation() (string, error) {
	m, err := New(Config{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return "", err
	}
	return m.commands.Documentation(), nil
}

// Descriptors are the files that clients pass on, which machine.New wants.
func (m *Monitor) Descriptors() formats.DescriptorSets { return &m.descriptors }

// Attach gives the monitor its VM, before any session begins.
func (m *Monitor) Attach(vm *machine.Machine) { m.vm = vm }

// Serve answers who is at the other end of conn until that ends.
func (m *Monitor) Serve(conn net.Conn) { m.server.Serve(conn) }

// Close ends the sessions. The VM has ended.
func (m *Monitor) Close() {
	m.net.close()
	m.closeHumans()
	m.server.Close()
	m.serving.Wait() // a dump that was asked for meanwhile
}

// events are those that a VM may emit.
func events() []qmp.Event {
	return []qmp.Event{
		qmp.DefineEvent[qmp.None]("STOP", "The VM's vCPUs and devices have stopped.", 0),
		qmp.DefineEvent[qmp.None]("RESUME", "They go on.", 0),
		qmp.DefineEvent[qmp.None]("POWERDOWN", "The power button was pressed.", 0),
		qmp.DefineEvent[ending]("RESET", "The VM was reset, by the guest or from outside.", 0),
		qmp.DefineEvent[ending]("SHUTDOWN", "The VM ends, or is kept halted if its spec says so.", 0),
		qmp.DefineEvent[deviceDeleted]("DEVICE_DELETED", "A device is gone: the guest has let go of it, or was reset after it was asked to.", 0),
		qmp.DefineEvent[dumpCompleted]("DUMP_COMPLETED", "A dump of the guest's memory is done, or has failed.", 0),
		qmp.DefineEvent[ioError]("BLOCK_IO_ERROR", "A request of a disk failed, which the guest is told; those that follow within a second are told of by the last.", ioErrorRate),
		qmp.DefineEvent[balloonInfo]("BALLOON_CHANGE", "The guest has more or less memory than before beside what is in the balloon.", balloonRate),
		qmp.DefineEvent[panicked]("GUEST_PANICKED", "The guest's kernel says that it panicked.", 0),
		qmp.DefineEvent[filterChanged]("NIC_RX_FILTER_CHANGED", "A driver has changed what its NIC receives: said once, until query-rx-filter asks.", 0),
		qmp.DefineEvent[portChange]("VSERPORT_CHANGE", "A program of the guest has opened or closed a virtio port.", time.Second),
	}
}

// ending is the data of RESET and SHUTDOWN.
type ending struct {
	Guest  bool          `json:"guest"`
	Reason shutdownCause `json:"reason"`
}

type shutdownCause string

// Values implements qmp.Enum.
func (shutdownCause) Values() []string {
	return []string{
		"none", "host-error", "host-qmp-quit", "host-qmp-system-reset", "host-signal", "host-ui", "guest-shutdown", "guest-reset",
		"guest-panic", "subsystem-reset", "snapshot-load",
	}
}

type panicked struct {
	Action panicAction `json:"action"`
}

type panicAction string

// Values implements qmp.Enum.
func (panicAction) Values() []string { return []string{"pause", "poweroff", "run"} }

// Notice emits what happens to the VM as an event.
func (m *Monitor) Notice(n machine.Notice) {
	switch n.Kind {
	case machine.NoticeStop:
		m.server.Emit("STOP", nil)
	case machine.NoticeResume:
		m.server.Emit("RESUME", nil)
	case machine.NoticePowerDown:
		m.server.Emit("POWERDOWN", nil)
	case machine.NoticeReset:
		m.server.Emit("RESET", ending{n.Guest, shutdownCause(n.Cause)})
	case machine.NoticeShutdown:
		m.server.Emit("SHUTDOWN", ending{n.Guest, shutdownCause(n.Cause)})
	case machine.NoticeBalloon:
		m.server.Emit("BALLOON_CHANGE", balloonInfo{n.Size})
	case machine.NoticeDeviceDeleted:
		m.server.Emit("DEVICE_DELETED", deviceDeleted{optional(n.ID), n.Path})
	case machine.NoticeDriveError:
		m.server.Emit("BLOCK_IO_ERROR", ioErrorOf(n.Drive))
	case machine.NoticePanicked:
		action := panicAction(n.Action)
		if n.Action == "reset" {
			action = "run"
		}
		m.server.Emit("GUEST_PANICKED", panicked{action})
	case machine.NoticeRxFilter:
		m.filterChanged(n)
	case machine.NoticePort:
		m.server.Emit("VSERPORT_CHANGE", portChange{n.ID, n.Open})
	}
}
