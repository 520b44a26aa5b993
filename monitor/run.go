package monitor

import (
	"errors"

	"berth/machine"
	"berth/qmp"
)

// statusInfo is QEMU's StatusInfo.
type statusInfo struct {
	Running    bool     `json:"running"`
	SingleStep bool     `json:"singlestep"`
	Status     runState `json:"status"`
}

type runState string

// Values implements qmp.Enum.
func (runState) Values() []string {
	return []string{
		"debug", "inmigrate", "internal-error", "io-error", "paused", "postmigrate", "prelaunch", "finish-migrate", "restore-vm",
		"running", "save-vm", "shutdown", "suspended", "watchdog", "guest-panicked", "colo",
	}
}

// runCommands are those that have the VM run, halt and end.
func (m *Monitor) runCommands() []qmp.Command {
	type none = qmp.None
	return []qmp.Command{
		qmp.Define("query-status", "What the VM is doing.", func(*qmp.Call, *none) (s statusInfo, err error) {
			err = m.vm.Do(func() error {
				status := m.vm.Status()
				s = statusInfo{Running: status == machine.Running, Status: runState(status)}
				return nil
			})
			return s, err
		}),
		qmp.Define("stop", "Halts vCPUs, devices and guest time.", func(*qmp.Call, *none) (none, error) {
			return none{}, m.vm.Do(m.vm.Pause)
		}),
		qmp.Define("cont", "Lets a halted VM go on.", func(*qmp.Call, *none) (none, error) {
			if m.dump.get().Status == "active" {
				return none{}, errDumping
			}
			return none{}, m.vm.Do(m.vm.Continue)
		}),
		qmp.Define("system_powerdown", "Presses the power button.", func(c *qmp.Call, _ *none) (none, error) {
			c.Then(m.vm.PowerButton)
			return none{}, nil
		}),
		qmp.Define("system_reset", "Resets the VM.", func(c *qmp.Call, _ *none) (none, error) {
			c.Then(func() {
				if err := m.vm.Do(m.vm.Reset); err != nil {
					m.cfg.Log.Error("resetting the VM", "error", err)
				}
			})
			return none{}, nil
		}),
		qmp.Define("system_wakeup", "Wakes a suspended guest: berth's guests do not suspend.", func(*qmp.Call, *none) (none, error) {
			return none{}, errors.New("Unable to wake up: guest is not in suspended state")
		}),
		qmp.Define("quit", "Ends the VM at once.", func(c *qmp.Call, _ *none) (none, error) {
			c.Then(m.vm.Quit)
			return none{}, nil
		}),
		qmp.Define("inject-nmi", "Pulses the vCPUs' NMI pins.", func(*qmp.Call, *none) (none, error) {
			return none{}, m.vm.Do(m.vm.NMI)
		}),
	}
}
