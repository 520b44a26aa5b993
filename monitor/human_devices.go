package monitor

import (
	"cmp"
	"slices"
	"strings"
)

// humanDevices are the commands about devices and their hosts' ends.
func (m *Monitor) humanDevices() []humanCommand { return nil }

// infoCommands are the subcommands of info.
func (m *Monitor) infoCommands() []humanCommand {
	return slices.Concat(m.infoRun(), m.infoCPU(), []humanCommand{
		{name: "pci", help: "show PCI info", run: m.humanPCI},
		{name: "dump", help: "Display the latest dump status", run: func(h *human) error {
			m.infoDump(h)
			return nil
		}},
	})
}

// minimal reports that the board is the one without a chipset.
func (m *Monitor) minimal() bool { return strings.HasPrefix(m.cfg.Spec.Board, "microvm") }

func sortBy[T any, K cmp.Ordered](list []T, key func(T) K) {
	slices.SortStableFunc(list, func(a, b T) int { return cmp.Compare(key(a), key(b)) })
}
