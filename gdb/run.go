package gdb

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"berth/machine"
	"berth/x86"
)

// Signals, by gdb's numbers (its include/gdb/signals.def).
const (
	interrupted = 2   // SIGINT
	quit        = 3   // SIGQUIT
	trap        = 5   // SIGTRAP
	abort       = 6   // SIGABRT
	unknown     = 143 // one that has no number
)

// stopReply says that the VM has halted, and by which vCPU's doing.
func (s *session) stopReply(signal int, why string) []byte {
	return fmt.Appendf(nil, "T%02xthread:%02x;%s", signal, s.thread+1, why)
}

// woken tells gdb that the VM has halted, if it waits for that.
func (s *session) woken() error {
	answer := s.takeStop()
	if answer == nil || !s.running {
		return nil
	}
	s.running = false
	return s.send(answer)
}

// takeStop is why the VM has halted; nil: it has not. A watchpoint that another vCPU
// met at the same time is told of when gdb lets the VM go on: it would not be met
// again, as a breakpoint is.
func (s *session) takeStop() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.halted {
		return nil
	}
	s.halted = false
	if s.status != machine.Debug || len(s.stops) == 0 {
		return s.stopReply(signalOf(s.status), "")
	}
	return s.firstStop()
}

// firstStop tells of the first stop. The caller holds mu.
func (s *session) firstStop() []byte {
	first := s.stops[0]
	s.stops = s.stops[1:]
	s.thread = first.cpu
	return s.stopReply(trap, s.why(&first))
}

// signalOf is what QEMU says of a halt by other causes than a debugger's.
func signalOf(status machine.Status) int {
	switch status {
	case machine.Paused:
		return interrupted
	case machine.ShutDown:
		return quit
	case machine.Panic:
		return abort
	case machine.Debug:
		return trap
	}
	return unknown
}

// why is the stop reply's reason.
func (s *session) why(o *stop) string {
	switch o.Kind {
	case x86.StopWatchpoint:
		word := map[x86.Watch]string{x86.WatchRead: "rwatch", x86.WatchWrite: "watch", x86.WatchAccess: "awatch"}[o.Watchpoint.Kind]
		return fmt.Sprintf("%s:%x;", word, o.Watchpoint.Addr)
	case x86.StopBreakpoint:
		switch {
		case o.Breakpoint.Hardware && s.hwBreak:
			return "hwbreak:;"
		case !o.Breakpoint.Hardware && s.swBreak:
			return "swbreak:;"
		}
	}
	return ""
}

// goOn lets the VM run, each vCPU by its plan, unless there is a stop left to tell of.
func (s *session) goOn(plans []machine.Plan) (answer []byte, then func() error) {
	s.mu.Lock()
	s.stops = slices.DeleteFunc(s.stops, func(o stop) bool { return o.Kind != x86.StopWatchpoint })
	if len(s.stops) > 0 {
		defer s.mu.Unlock()
		return s.firstStop(), nil
	}
	s.mu.Unlock()
	err := s.do(func() error {
		err := s.vm.DebugContinue(plans)
		s.mu.Lock()
		s.halted = false // before it went on
		s.mu.Unlock()
		return err
	})
	if err != nil && !errors.Is(err, machine.ErrEnded) { // it needs a reset first
		return s.stopReply(trap, ""), nil
	}
	s.running = true
	return nil, nil
}

func (s *session) plans(all machine.Plan) []machine.Plan {
	p := make([]machine.Plan, len(s.vm.CPUs()))
	for i := range p {
		p[i] = all
	}
	return p
}

// continueAt is c: all vCPUs run, the selected one from an address, if there is one.
func (s *session) continueAt(args string) ([]byte, func() error) {
	if e := s.jump(args); e != nil {
		return e, nil
	}
	return s.goOn(s.plans(machine.PlanRun))
}

// stepAt is s: one vCPU steps, as the others run.
func (s *session) stepAt(args string) ([]byte, func() error) {
	if e := s.jump(args); e != nil {
		return e, nil
	}
	p := s.plans(machine.PlanRun)
	p[s.stepping()] = machine.PlanStep
	return s.goOn(p)
}

func (s *session) stepping() int {
	if s.stepper < 0 {
		return s.thread
	}
	return s.stepper
}

// continueSignalled and stepSignalled are C and S: a vCPU takes no signals.
func (s *session) continueSignalled(args string) ([]byte, func() error) {
	_, at, _ := strings.Cut(args, ";")
	return s.continueAt(at)
}

func (s *session) stepSignalled(args string) ([]byte, func() error) {
	_, at, _ := strings.Cut(args, ";")
	return s.stepAt(at)
}

// jump has the vCPU go on elsewhere; not nil: it could not be.
func (s *session) jump(text string) []byte {
	if text == "" {
		return nil
	}
	at, ok := number(text)
	if !ok {
		return failed(badArgument)
	}
	return s.change(s.stepping(), func(v *x86.State) { v.RIP = at })
}

// change replaces part of a vCPU's state; not nil: it could not be, and is as it was.
func (s *session) change(cpu int, f func(*x86.State)) []byte {
	err := s.do(func() error {
		var old x86.State
		if err := s.vm.State(cpu, &old); err != nil {
			return err
		}
		v := old
		f(&v)
		err := s.vm.SetState(cpu, &v)
		if err != nil {
			_ = s.vm.SetState(cpu, &old)
		}
		return err
	})
	if err != nil {
		return failed(badArgument)
	}
	return nil
}

// resume is vCont: ACTION[:THREAD];…, of which the first that fits a thread is its own;
// a thread that none fits stays halted.
func (s *session) resume(args string) ([]byte, func() error) {
	p := s.plans(machine.PlanStay)
	given := make([]bool, len(p))
	for action := range strings.SplitSeq(args, ";") {
		verb, thread, named := strings.Cut(action, ":")
		plan := machine.PlanRun
		switch {
		case verb == "c", len(verb) == 3 && verb[0] == 'C':
		case verb == "s", len(verb) == 3 && verb[0] == 'S':
			plan = machine.PlanStep
		default:
			return failed(badArgument), nil
		}
		cpu, all, ok := 0, true, true
		if named {
			cpu, all, ok = s.threadNumber(thread)
		}
		if !ok {
			return failed(badArgument), nil
		}
		for i := range p {
			if (all || i == cpu) && !given[i] {
				p[i], given[i] = plan, true
			}
		}
	}
	return s.goOn(p)
}
