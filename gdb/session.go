package gdb

import (
	"bufio"
	"net"
	"sync"

	"berth/machine"
	"berth/x86"
)

// session is one debugger's connection.
//
//	halted -- c, s, vCont --> running -- Ctrl-C, a stop, a packet --> halted
//
// gdb is in one of the two, and told of the way back by a stop reply. The VM itself
// may also be halted and continued by a monitor.
type session struct {
	vm     *machine.Machine
	stub   *Stub
	conn   net.Conn
	limits x86.DebugLimits

	// Of the session's goroutine:
	noAck    bool
	last     []byte // the last answer, framed
	running  bool
	thread   int // the vCPU that registers and memory are read of (Hg)
	stepper  int // the vCPU that s steps (Hc); -1: any
	physical bool
	swBreak  bool // gdb wants to know which kind of breakpoint it was
	hwBreak  bool
	points   points
	monitor  func(line string) string // nil: not asked for yet

	mu     sync.Mutex
	wake   chan struct{}
	stops  []stop         // that the VM has told of, and gdb not been
	halted bool           // the VM has halted since it was let run
	status machine.Status // then
}

// stop is a vCPU's.
type stop struct {
	cpu int
	x86.Stop
}

func newSession(s *Stub, conn net.Conn) *session {
	return &session{vm: s.vm, stub: s, conn: conn, wake: make(chan struct{}, 1), stepper: -1, points: newPoints(s.vm)}
}

// notice is told by the VM's own goroutine.
func (s *session) notice(n machine.Notice) {
	s.mu.Lock()
	switch n.Kind {
	case machine.NoticeDebug:
		if len(s.stops) < len(s.vm.CPUs()) {
			s.stops = append(s.stops, stop{n.CPU, n.Stop})
		}
	case machine.NoticeStop:
		s.halted, s.status = true, s.vm.Status()
	default:
		s.mu.Unlock()
		return
	}
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// serve answers until the connection or the VM ends.
func (s *session) serve() {
	if s.do(s.vm.Pause) != nil || s.do(s.findLimits) != nil {
		return
	}
	s.takeStop()
	messages := make(chan message)
	done := make(chan struct{})
	defer close(done)
	defer s.forget()
	go receive(s.conn, messages, done)
	for {
		var err error
		select {
		case m, ok := <-messages:
			if !ok {
				return
			}
			err = s.message(m)
		case <-s.wake:
			err = s.woken()
		case <-s.vm.Ended():
			_ = s.send([]byte("W00"))
			return
		}
		if err != nil {
			return
		}
	}
}

// receive passes messages on until there are no more.
func receive(conn net.Conn, to chan<- message, done <-chan struct{}) {
	defer close(to)
	r := bufio.NewReader(conn)
	for {
		m, err := readMessage(r)
		if err != nil {
			return
		}
		select {
		case to <- m:
		case <-done:
			return
		}
	}
}

func (s *session) do(f func() error) error { return s.vm.Do(f) }

func (s *session) findLimits() (err error) {
	s.limits, err = s.vm.DebugLimits()
	return err
}

// forget takes all breakpoints out. The VM stays halted, or goes on.
func (s *session) forget() {
	_ = s.do(func() error { // it fails only if the VM has ended
		s.points.clear()
		return s.vm.SetDebug(x86.Debug{})
	})
}

// message serves one message. The error is the connection's.
func (s *session) message(m message) error {
	switch m.kind {
	case interrupt:
		_ = s.do(s.vm.Pause)
		return nil // the notice answers
	case again:
		if s.noAck || s.last == nil {
			return nil
		}
		return s.write(s.last)
	case damaged:
		if !s.noAck {
			return s.write([]byte("-"))
		}
	}
	if !s.noAck {
		if err := s.write([]byte("+")); err != nil {
			return err
		}
	}
	if s.running { // as for Ctrl-C: gdb in all-stop mode sends nothing then
		_ = s.do(s.vm.Pause)
		return nil
	}
	if m.kind == long {
		return s.send(failed(badArgument))
	}
	answer, then := s.execute(m.text)
	if answer != nil {
		if err := s.send(answer); err != nil {
			return err
		}
	}
	if then != nil {
		return then()
	}
	return nil
}

// send sends a packet.
func (s *session) send(text []byte) error {
	s.last = frame(text)
	return s.write(s.last)
}

func (s *session) write(p []byte) error {
	_, err := s.conn.Write(p)
	return err
}
