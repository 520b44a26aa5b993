package monitor

import (
	"fmt"
	"strconv"

	"berth/monitor/hmp"
)

// humanRun are the commands that have the VM run, halt and end.
func (m *Monitor) humanRun() []humanCommand {
	return []humanCommand{
		qmpAs("cont|c", "cont", "resume emulation"),
		qmpAs("stop|s", "stop", "stop emulation"),
		qmpAs("system_powerdown", "system_powerdown", "send system power down event"),
		qmpAs("system_reset", "system_reset", "reset the system"),
		qmpAs("system_wakeup", "system_wakeup", "wakeup guest from suspend"),
		qmpAs("quit|q", "quit", "end the VM at once"),
		qmpAs("nmi", "inject-nmi", "inject an NMI"),
		{name: "cpu", params: "index", help: "set the default CPU", args: []hmp.Arg{{Name: "index", Kind: hmp.Index, Values: m.cpuNumbers}}, run: func(h *human) error {
			n := h.Number("index")
			if n < 0 || n >= int64(len(m.vm.CPUs())) {
				h.Printf("invalid CPU index\n")
				return nil
			}
			h.State.CPU = int(n)
			return nil
		}},
	}
}

func (m *Monitor) cpuNumbers() (list []string) {
	for i := range m.vm.CPUs() {
		list = append(list, strconv.Itoa(i))
	}
	return list
}

// infoRun are those that say what the VM does and is.
func (m *Monitor) infoRun() []humanCommand {
	return []humanCommand{
		{name: "version", help: "show the version", run: func(h *human) error {
			h.Printf("%d.%d.%d%s\n", major, minor, micro, m.cfg.Package)
			return nil
		}},
		{name: "status", help: "show the current VM status", run: func(h *human) error {
			s, err := answer[statusInfo](h, "query-status")
			if err != nil {
				return err
			}
			text := "paused"
			if s.Running {
				text = "running"
			} else if s.Status != "paused" {
				text += fmt.Sprintf(" (%s)", s.Status)
			}
			h.Printf("VM status: %s\n", text)
			return nil
		}},
		{name: "name", help: "show the current VM name", run: func(h *human) error {
			n, err := answer[nameInfo](h, "query-name")
			if err == nil && n.Name != nil {
				h.Printf("%s\n", *n.Name)
			}
			return err
		}},
		{name: "uuid", help: "show the current VM UUID", needs: "query-uuid", run: func(h *human) error {
			u, err := answer[uuidInfo](h, "query-uuid")
			h.Printf("%s\n", u.UUID)
			return err
		}},
		{name: "kvm", help: "show KVM information", run: func(h *human) error {
			k, err := answer[kvmInfo](h, "query-kvm")
			text := "disabled"
			if k.Enabled {
				text = "enabled"
			}
			h.Printf("kvm support: %s\n", text)
			return err
		}},
		{name: "cpus", help: "show infos for each CPU", run: func(h *human) error {
			list, err := answer[[]cpuInfo](h, "query-cpus-fast")
			for _, c := range list {
				mark := ' '
				if int(c.Index) == h.State.CPU {
					mark = '*'
				}
				h.Printf("%c CPU #%d: thread_id=%d\n", mark, c.Index, c.Thread)
			}
			return err
		}},
		{name: "memory_size_summary", help: "show the amount of initially allocated and present hotpluggable (if enabled) memory in bytes", run: func(h *human) error {
			i, err := answer[memoryInfo](h, "query-memory-size-summary")
			h.Printf("base memory: %d\n", i.Base)
			if i.Plugged != nil {
				h.Printf("plugged memory: %d\n", *i.Plugged)
			}
			return err
		}},
		{name: "numa", help: "show NUMA information", run: m.humanNUMA},
		{name: "iothreads", help: "show iothreads", run: func(h *human) error {
			list, err := answer[[]ioThread](h, "query-iothreads")
			for _, t := range list {
				h.Printf("%s:\n  thread_id=%d\n", t.ID, t.Thread)
			}
			return err
		}},
		{name: "history", help: "show the command line history", run: func(h *human) error {
			for i, line := range h.State.History {
				h.Printf("%d: '%s'\n", i, line)
			}
			return nil
		}},
	}
}

func (m *Monitor) humanNUMA(h *human) error {
	nodes := m.cfg.Spec.NUMA.Nodes
	h.Printf("%d nodes\n", len(nodes))
	for i, n := range nodes {
		h.Printf("node %d cpus:", i)
		for _, c := range n.CPUs {
			h.Printf(" %d", c)
		}
		h.Printf("\nnode %d size: %d MB\nnode %d plugged: 0 MB\n", i, int64(n.Memory)>>20, i)
	}
	return nil
}

// answer is that of a QMP command, of type T.
func answer[T any](h *human, command string, args ...any) (v T, err error) {
	a, err := h.do(command, args...)
	if err != nil {
		return v, err
	}
	return a.(T), nil
}
