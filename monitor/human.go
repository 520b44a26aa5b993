package monitor

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"

	"berth/monitor/hmp"
	"berth/monitor/inspect"
	"berth/qmp"
	"berth/x86"
)

// The human monitor. Its commands are QEMU's, in the order of their names; those
// that change something do it by the QMP command of the same effect.

// human is one execution of a human command.
type human struct {
	*hmp.Call
	m    *Monitor
	call *qmp.Call
}

// do runs a QMP command; args are names and values by turns.
func (h *human) do(command string, args ...any) (any, error) {
	m := map[string]any{}
	for i := 0; i < len(args); i += 2 {
		m[args[i].(string)] = args[i+1]
	}
	return h.m.server.Do(h.call, command, m)
}

// humanCommand is a command of the human monitor.
type humanCommand struct {
	name, params, help string
	args               []hmp.Arg
	needs              string // the QMP command without which there is no such command
	run                func(*human) error
}

// qmpAs is a command that is a QMP command without arguments.
func qmpAs(name, command, help string) humanCommand {
	return humanCommand{name: name, help: help, needs: command, run: func(h *human) error {
		_, err := h.do(command)
		return err
	}}
}

// interpreter makes the human monitor's commands. current is what they are run for.
func (m *Monitor) interpreter(call *qmp.Call) *hmp.Interpreter {
	info := m.bind(call, m.infoCommands())
	list := append(m.bind(call, slices.Concat(m.humanRun(), m.humanMemory(), m.humanDevices(), m.humanQOM())),
		hmp.HelpCommand(),
		hmp.Command{Name: "info", Params: "[subcommand]", Help: "show various information about the system state", Sub: info, Run: hmp.HelpOn("info")})
	byName := func(a, b hmp.Command) int { return strings.Compare(a.Name, b.Name) }
	slices.SortFunc(info, byName)
	slices.SortFunc(list, byName)
	return &hmp.Interpreter{Commands: list, Register: m.register}
}

// bind has commands run for call, those that there are.
func (m *Monitor) bind(call *qmp.Call, commands []humanCommand) (list []hmp.Command) {
	for _, c := range commands {
		if c.needs != "" && !m.commands.Has(c.needs) {
			continue
		}
		list = append(list, hmp.Command{Name: c.name, Args: c.args, Params: c.params, Help: c.help, Run: func(hc *hmp.Call) error {
			return c.run(&human{hc, m, call})
		}})
	}
	return list
}

func (m *Monitor) register(cpu int, name string) (uint64, bool) {
	var s x86.State
	if m.state(cpu, &s) != nil {
		return 0, false
	}
	return inspect.Register(&s, name)
}

// state is that of a vCPU now.
func (m *Monitor) state(cpu int, s *x86.State) error {
	return m.vm.Do(func() error { return m.vm.State(cpu, s) })
}

// run runs a line of a session that is not one of QMP.
func (m *Monitor) run(s *hmp.State, line string) (out string, then []func()) {
	after := m.server.Exclusive(context.Background(), func(call *qmp.Call) {
		out, then = m.interpreter(call).Run(s, m.vm.Ended(), line)
	})
	return out, append(after, then...)
}

// Human makes an interpreter of the human monitor for who has a line at a time: it
// runs one and returns what that prints.
func (m *Monitor) Human() func(line string) string {
	s := hmp.NewState()
	return func(line string) string {
		out, after := m.run(s, line)
		for _, f := range after {
			f()
		}
		return out
	}
}

// ServeHuman joins who is at the other end of conn, a terminal in raw mode perhaps, to
// the human monitor until they leave it or the VM has ended; it closes conn.
func (m *Monitor) ServeHuman(conn net.Conn) {
	defer conn.Close()
	if !m.join(conn) {
		return
	}
	defer m.leave(conn)
	s := hmp.Session{
		Interpreter: m.interpreter(nil), Run: m.run,
		Banner: fmt.Sprintf("%s monitor with the commands of QEMU %d.%d - type 'help' for more information\n", m.cfg.Package, major, minor),
	}
	_ = s.Serve(conn) // it ended, however
}

// join notes a connection of the human monitor; false: the monitor has ended.
func (m *Monitor) join(conn net.Conn) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return false
	}
	m.humans[conn] = true
	m.serving.Add(1)
	return true
}

func (m *Monitor) leave(conn net.Conn) {
	m.mu.Lock()
	delete(m.humans, conn)
	m.mu.Unlock()
	m.serving.Done()
}

// closeHumans ends the sessions of the human monitor.
func (m *Monitor) closeHumans() {
	m.mu.Lock()
	m.closed = true
	for conn := range m.humans {
		_ = conn.Close()
	}
	m.mu.Unlock()
	m.serving.Wait()
}

// humanQMP is the human monitor in QMP.
func (m *Monitor) humanQMP() []qmp.Command {
	type arguments struct {
		Line string `json:"command-line"`
		CPU  *int64 `json:"cpu-index"`
	}
	return []qmp.Command{
		qmp.Define("human-monitor-command", "Runs a line of the human monitor and returns what it prints.", func(c *qmp.Call, a *arguments) (string, error) {
			s := hmp.NewState()
			if a.CPU != nil {
				if *a.CPU < 0 || *a.CPU >= int64(len(m.vm.CPUs())) {
					return "", fmt.Errorf("Parameter 'cpu-index' expects a CPU number")
				}
				s.CPU = int(*a.CPU)
			}
			out, then := m.interpreter(c).Run(s, m.vm.Ended(), a.Line)
			for _, f := range then {
				c.Then(f)
			}
			return strings.ReplaceAll(out, "\n", "\r\n"), nil
		}),
	}
}
