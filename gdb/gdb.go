// Package gdb is a debugger's way into a running VM: gdb's remote serial protocol over package machine.
package gdb

import (
	"net"
	"sync"
	"time"

	"berth/machine"
)

// Monitor makes the interpreter of a session's "monitor" commands, which runs a line
// and returns what that prints.
type Monitor func() (run func(line string) string)

// Stub serves one debugger at a time. Its methods may be called from any goroutine.
type Stub struct {
	monitor Monitor
	vm      *machine.Machine

	mu      sync.Mutex
	session *session // nil: nobody debugs
	closed  bool
	serving sync.WaitGroup
}

// New makes the stub of a VM that is not there yet: machine.New wants Notice.
func New(m Monitor) *Stub { return &Stub{monitor: m} }

// Attach gives the stub its VM, before anybody is served.
func (s *Stub) Attach(vm *machine.Machine) { s.vm = vm }

// Notice passes on what happens to the VM. It does not wait.
func (s *Stub) Notice(n machine.Notice) {
	s.mu.Lock()
	session := s.session
	s.mu.Unlock()
	if session != nil {
		session.notice(n)
	}
}

// Serve lets who is at the other end of conn debug the VM, which halts, until they
// leave or the VM has ended; it closes conn. While somebody else debugs, it does
// nothing but that. A debugger that goes without a word leaves the VM as it is then,
// but for its breakpoints.
func (s *Stub) Serve(conn net.Conn) {
	defer conn.Close()
	session := s.begin(conn)
	if session == nil {
		return
	}
	defer s.serving.Done()
	session.serve()
	s.mu.Lock()
	s.session = nil
	s.mu.Unlock()
}

// begin makes the one session; nil: there is one, or the VM has ended.
func (s *Stub) begin(conn net.Conn) *session {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.session != nil {
		return nil
	}
	s.session = newSession(s, conn)
	s.serving.Add(1)
	return s.session
}

// Close ends the session, which tells its debugger if that listens. The VM has ended.
func (s *Stub) Close() {
	s.mu.Lock()
	s.closed = true
	if s.session != nil {
		_ = s.session.conn.SetDeadline(time.Now().Add(time.Second))
	}
	s.mu.Unlock()
	s.serving.Wait()
}
