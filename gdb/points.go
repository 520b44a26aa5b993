package gdb

import (
	"slices"
	"strings"

	"berth/machine"
	"berth/monitor/inspect"
	"berth/x86"
)

// maxPoints is how many breakpoints and watchpoints there may be.
const maxPoints = 1024

// maxWatched is how many bytes one watchpoint may have.
const maxWatched = 1 << 20

// int3 is the instruction of a planted breakpoint.
const int3 = 0xcc

// points are the breakpoints and watchpoints that gdb has inserted. It takes them out
// while the VM is halted and inserts them again, so the vCPUs hear of them only as the
// VM goes on.
type points struct {
	vm *machine.Machine
	x86.Debug
	planted []plant
}

// plant is an INT3 in guest memory.
type plant struct {
	va, gpa uint64
	was     byte // what the guest has there
}

func newPoints(vm *machine.Machine) points { return points{vm: vm} }

// read reads guest memory as the guest has it; write writes it beneath the INT3s.
func (p *points) read(gpa uint64, to []byte) error {
	if err := p.vm.Memory().Read(gpa, to); err != nil {
		return err
	}
	for _, b := range p.planted {
		if i := b.gpa - gpa; i < uint64(len(to)) && to[i] == int3 {
			to[i] = b.was
		}
	}
	return nil
}

func (p *points) write(gpa uint64, from []byte) error {
	now := slices.Clone(from)
	for i := range p.planted {
		if at := p.planted[i].gpa - gpa; at < uint64(len(from)) {
			p.planted[i].was = from[at]
			now[at] = int3
		}
	}
	return p.vm.Memory().Write(gpa, now)
}

// plant puts an INT3 where va leads on a vCPU; false: it leads nowhere.
func (p *points) plant(cpu int, va uint64) bool {
	var s x86.State
	if p.vm.State(cpu, &s) != nil {
		return false
	}
	gpa, ok := inspect.Translate(p.vm.Memory(), &s, va)
	var was [1]byte
	if !ok || p.read(gpa, was[:]) != nil || p.vm.Memory().Write(gpa, []byte{int3}) != nil {
		return false
	}
	p.planted = append(p.planted, plant{va, gpa, was[0]})
	return true
}

// uproot undoes plant. What the guest has written there since stays.
func (p *points) uproot(va uint64) {
	i := slices.IndexFunc(p.planted, func(b plant) bool { return b.va == va })
	if i < 0 {
		return
	}
	b := p.planted[i]
	p.planted = slices.Delete(p.planted, i, i+1)
	if slices.ContainsFunc(p.planted, func(o plant) bool { return o.gpa == b.gpa }) {
		return // by another address
	}
	var now [1]byte
	if p.vm.Memory().Read(b.gpa, now[:]) == nil && now[0] == int3 {
		_ = p.vm.Memory().Write(b.gpa, []byte{b.was}) // it could be read
	}
}

// clear takes all out of guest memory. It is within Do.
func (p *points) clear() {
	for len(p.planted) > 0 {
		p.uproot(p.planted[0].va)
	}
	p.Debug = x86.Debug{}
}

// point is what Z and z name: TYPE,ADDR,KIND.
type point struct {
	watch bool
	b     x86.Breakpoint
	w     x86.Watchpoint
}

// parsePoint reads one. Conditions and commands, which gdb is not offered, are left out.
func parsePoint(args string) (p point, known, ok bool) {
	args, _, _ = strings.Cut(args, ";")
	kind, where, _ := strings.Cut(args, ",")
	addr, n, ok := span(where)
	if !ok {
		return p, true, false
	}
	switch kind {
	case "0", "1":
		p.b = x86.Breakpoint{Addr: addr, Hardware: kind == "1"}
		return p, true, true
	case "2", "3", "4":
		p.watch = true
		p.w = x86.Watchpoint{Addr: addr, Len: n, Kind: [...]x86.Watch{x86.WatchWrite, x86.WatchRead, x86.WatchAccess}[kind[0]-'2']}
		return p, true, n > 0 && n <= maxWatched && addr+n-1 >= addr
	}
	return p, false, true
}

// addPoint is Z. To insert what is there already changes nothing.
func (s *session) addPoint(args string) []byte {
	p, known, good := parsePoint(args)
	switch {
	case !known, p.watch && p.w.Kind == x86.WatchRead && s.limits.Registers > 0:
		return none() // gdb makes do without
	case !good:
		return failed(badArgument)
	case s.points.has(p):
		return ok()
	case len(s.points.Breakpoints)+len(s.points.Watchpoints) == maxPoints:
		return failed(noRoom)
	}
	answer := failed(noRoom)
	if s.do(func() error {
		if !p.watch && !p.b.Hardware && s.limits.Plants && !s.points.plant(s.thread, p.b.Addr) {
			answer = failed(noMemory)
			return nil
		}
		s.points.add(p)
		if err := s.vm.SetDebug(s.points.copy()); err != nil {
			s.points.remove(p)
			return err
		}
		answer = ok()
		return nil
	}) != nil {
		return failed(noRoom)
	}
	return answer
}

// removePoint is z. To remove what is not there changes nothing.
func (s *session) removePoint(args string) []byte {
	p, known, good := parsePoint(args)
	switch {
	case !known:
		return none()
	case !good:
		return failed(badArgument)
	case !s.points.has(p):
		return ok()
	}
	if s.do(func() error {
		s.points.remove(p)
		return s.vm.SetDebug(s.points.copy())
	}) != nil {
		return failed(noRoom)
	}
	return ok()
}

func (p *points) has(o point) bool {
	if o.watch {
		return slices.Contains(p.Watchpoints, o.w)
	}
	return slices.Contains(p.Breakpoints, o.b)
}

func (p *points) add(o point) {
	if o.watch {
		p.Watchpoints = append(p.Watchpoints, o.w)
	} else {
		p.Breakpoints = append(p.Breakpoints, o.b)
	}
}

func (p *points) remove(o point) {
	if o.watch {
		p.Watchpoints = slices.DeleteFunc(p.Watchpoints, func(w x86.Watchpoint) bool { return w == o.w })
		return
	}
	p.Breakpoints = slices.DeleteFunc(p.Breakpoints, func(b x86.Breakpoint) bool { return b == o.b })
	if !o.b.Hardware {
		p.uproot(o.b.Addr)
	}
}

// copy is for the vCPUs, who keep it.
func (p *points) copy() x86.Debug {
	return x86.Debug{Breakpoints: slices.Clone(p.Breakpoints), Watchpoints: slices.Clone(p.Watchpoints)}
}
