package monitor

import (
	"cmp"

	"berth/qmp"
	"berth/spec"
)

type (
	nameInfo struct {
		Name *string `json:"name"`
	}
	kvmInfo struct {
		Enabled bool `json:"enabled"`
		Present bool `json:"present"`
	}
	memoryInfo struct {
		Base    uint64  `json:"base-memory"`
		Plugged *uint64 `json:"plugged-memory"`
	}
	currentMachine struct {
		Wakeup bool `json:"wakeup-suspend-support"`
	}
	uuidInfo struct {
		UUID string `json:"UUID"`
	}
	ioThread struct {
		ID       string `json:"id"`
		Thread   int64  `json:"thread-id"`
		PollMax  int64  `json:"poll-max-ns"`
		Grow     int64  `json:"poll-grow"`
		Shrink   int64  `json:"poll-shrink"`
		MaxBatch int64  `json:"aio-max-batch"`
	}
)

// hostCommands are those about the VM as a whole.
func (m *Monitor) hostCommands() []qmp.Command {
	type none = qmp.None
	return []qmp.Command{
		qmp.Define("query-name", "The VM's name.", func(*qmp.Call, *none) (nameInfo, error) {
			if m.cfg.Spec.Name == spec.Default().Name { // nobody gave it one
				return nameInfo{}, nil
			}
			return nameInfo{&m.cfg.Spec.Name}, nil
		}),
		qmp.Define("query-uuid", "The VM's UUID; all zeros if it has none.", func(*qmp.Call, *none) (uuidInfo, error) {
			return uuidInfo{cmp.Or(m.cfg.Spec.UUID, "00000000-0000-0000-0000-000000000000")}, nil
		}),
		qmp.Define("query-kvm", "Whether the guest runs on KVM, and whether the host has it.", func(*qmp.Call, *none) (kvmInfo, error) {
			return kvmInfo{m.cfg.Accelerator == "kvm", m.cfg.KVM}, nil
		}),
		qmp.Define("query-memory-size-summary", "How much memory the guest has.", func(*qmp.Call, *none) (memoryInfo, error) {
			return memoryInfo{uint64(m.cfg.Spec.Memory.Size), new(uint64)}, nil
		}),
		qmp.Define("query-current-machine", "What the board can do.", func(*qmp.Call, *none) (currentMachine, error) {
			return currentMachine{}, nil
		}),
		qmp.Define("query-iothreads", "Threads made for disks by name: there are none.", func(*qmp.Call, *none) ([]ioThread, error) {
			return nil, nil
		}),
	}
}
