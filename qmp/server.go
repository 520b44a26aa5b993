package qmp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"
)

// Server runs the commands of a table for its sessions and sends them events. Its
// methods may be called from any goroutine.
type Server struct {
	table *Table
	log   *slog.Logger

	running sync.Mutex // one command at a time that is not out of band

	mu       sync.Mutex
	sessions map[*Session]bool
	closed   bool
	held     map[string]*heldEvent
	done     sync.WaitGroup // of sessions
	alone    func()         // see OnAlone
}

// heldEvent is an event with a rate that was sent less than its time ago.
type heldEvent struct {
	message []byte // the last since, nil: none
}

// NewServer makes a server without sessions.
func NewServer(t *Table, log *slog.Logger) *Server {
	return &Server{table: t, log: log, sessions: map[*Session]bool{}, held: map[string]*heldEvent{}}
}

// OnAlone has f called whenever the last client has hung up, before another is
// served. Before the first session.
func (s *Server) OnAlone(f func()) { s.alone = f }

// leave notes that a client has hung up, and reports whether it was the last. mu is held.
func (s *Server) leave(session *Session) bool {
	if session.left {
		return false
	}
	session.left = true
	for other := range s.sessions {
		if !other.left {
			return false
		}
	}
	return s.alone != nil && !s.closed
}

// settle notes who has hung up and has not been served to the end.
func (s *Server) settle() {
	s.mu.Lock()
	last := false
	for other := range s.sessions {
		last = other.hungUp() && s.leave(other) || last
	}
	s.mu.Unlock()
	if last {
		s.alone()
	}
}

// Serve greets who is at the other end of conn and answers until that ends or the
// server is closed; it closes conn. Descriptors may come with commands if conn is a
// *net.UnixConn.
func (s *Server) Serve(conn net.Conn) {
	s.settle()
	session := newSession(s, conn)
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		_ = conn.Close()
		return
	}
	s.sessions[session] = true
	s.done.Add(1)
	s.mu.Unlock()
	session.run()
	s.mu.Lock()
	last := s.leave(session)
	delete(s.sessions, session)
	s.mu.Unlock()
	if last {
		s.alone()
	}
	s.done.Done()
}

// Close ends all sessions and waits for the commands that they run. What was
// answered before is sent first, for a second at most.
func (s *Server) Close() {
	s.mu.Lock()
	s.closed = true
	for session := range s.sessions {
		session.hangUp()
	}
	s.mu.Unlock()
	s.done.Wait()
}

// timestamp is when an event happened.
type timestamp struct {
	Seconds      int64 `json:"seconds"`
	Microseconds int64 `json:"microseconds"`
}

type eventMessage struct {
	Timestamp timestamp `json:"timestamp"`
	Event     string    `json:"event"`
	Data      any       `json:"data,omitempty"`
}

// Emit sends an event, which the table must have, to every session that has
// negotiated. data is of the type that the event was defined with, nil for None.
// It does not wait for clients.
func (s *Server) Emit(name string, data any) {
	e := s.table.event(name)
	if e == nil {
		panic("qmp: no event " + name)
	}
	now := time.Now()
	message, err := s.table.encode(eventMessage{timestamp{now.Unix(), int64(now.Nanosecond() / 1000)}, name, data})
	if err != nil {
		s.log.Error("an event cannot be sent", "event", name, "error", err)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if e.Rate == 0 {
		s.broadcast(message)
		return
	}
	key := name
	if k, ok := data.(interface{ Similar() string }); ok {
		key += " " + k.Similar()
	}
	if h := s.held[key]; h != nil {
		h.message = message
		return
	}
	s.broadcast(message)
	s.hold(key, e.Rate)
}

// hold keeps similar events back for a while. mu is held.
func (s *Server) hold(key string, rate time.Duration) {
	h := &heldEvent{}
	s.held[key] = h
	time.AfterFunc(rate, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.held, key)
		if h.message != nil {
			s.broadcast(h.message)
			s.hold(key, rate)
		}
	})
}

// broadcast sends to all that have negotiated. mu is held.
func (s *Server) broadcast(message []byte) {
	for session := range s.sessions {
		if session.negotiated.Load() {
			session.out.add(message)
		}
	}
}

// answer is what a request is answered, and what is to happen then.
type answer struct {
	members any // "return" or "error"
	id      any
	hasID   bool
	then    []func()
}

// execute runs a request.
func (s *Server) execute(ctx context.Context, session *Session, request any) (a answer) {
	m, ok := request.(map[string]any)
	if !ok {
		return answer{members: errorAnswer(fmt.Errorf("QMP input must be a JSON object"))}
	}
	a.id, a.hasID = m["id"]
	name, args, oob, err := checkRequest(m, session.oob.Load())
	if err != nil {
		a.members = errorAnswer(err)
		return a
	}
	c := &Call{Context: ctx, Session: session, Raw: args}
	v, err := s.call(c, name, args, oob)
	if a.members = (success{v}); err != nil {
		a.members = errorAnswer(err)
	}
	a.then = c.then
	return a
}

type success struct {
	Return any `json:"return"`
}

type failure struct {
	Error *Error `json:"error"`
}

func errorAnswer(err error) failure { return failure{asError(err)} }

// checkRequest takes a request apart.
func checkRequest(m map[string]any, allowOOB bool) (name string, args map[string]any, oob bool, err error) {
	given := ""
	for _, k := range sortedKeys(m) {
		v := m[k]
		switch {
		case k == "execute", k == "exec-oob" && allowOOB:
			n, ok := v.(string)
			if !ok {
				return "", nil, false, fmt.Errorf("QMP input member '%s' must be a string", k)
			}
			if given != "" {
				return "", nil, false, fmt.Errorf("QMP input member '%s' clashes with '%s'", k, given)
			}
			name, given = n, k
		case k == "arguments":
			a, ok := v.(map[string]any)
			if !ok {
				return "", nil, false, fmt.Errorf("QMP input member 'arguments' must be an object")
			}
			args = a
		case k != "id":
			return "", nil, false, fmt.Errorf("QMP input member '%s' is unexpected", k)
		}
	}
	if given == "" {
		return "", nil, false, fmt.Errorf("QMP input lacks member 'execute'")
	}
	return name, args, given == "exec-oob", nil
}

// call runs a command by name.
func (s *Server) call(call *Call, name string, args map[string]any, oob bool) (any, error) {
	c := s.table.command(name)
	switch {
	case !call.Session.negotiated.Load() && name != "qmp_capabilities":
		return nil, &Error{CommandNotFound, "Expecting capabilities negotiation with 'qmp_capabilities'"}
	case c == nil:
		return nil, &Error{CommandNotFound, fmt.Sprintf("The command %s has not been found", name)}
	case oob && !c.OOB:
		return nil, fmt.Errorf("The command %s does not support OOB", name)
	}
	v, err := s.table.arguments(c, args, false)
	if err != nil {
		return nil, err
	}
	if !oob {
		s.running.Lock()
		defer s.running.Unlock()
	}
	return c.run(call, v)
}

// Exclusive runs f as a command is run that is not out of band: no other runs at the
// same time. What f's call wants to happen afterwards is the caller's to do. It must
// not be called from a command.
func (s *Server) Exclusive(ctx context.Context, f func(*Call)) (then []func()) {
	s.running.Lock()
	defer s.running.Unlock()
	c := &Call{Context: ctx}
	f(c)
	return c.then
}

// Has reports whether there is a command of a name.
func (t *Table) Has(name string) bool { return t.command(name) != nil }

// Text is a value of a command as the wire has it.
func (t *Table) Text(v any) string {
	p, err := t.encode(v)
	if err != nil {
		return err.Error()
	}
	return string(p)
}

// ParseValue reads one value in JSON.
func ParseValue(text string) (v any, err error) {
	read := false
	p := newParser(func(got any, wrong error) {
		if !read || wrong != nil {
			v, err = got, wrong
		}
		read = true
	})
	p.feed([]byte(text + " "))
	if !read {
		err = errors.New("JSON parse error: no value")
	}
	return v, err
}

// Do runs a command on behalf of another, or of Exclusive, and returns its answer.
func (s *Server) Do(c *Call, name string, args map[string]any) (any, error) {
	return s.do(c, name, args, false)
}

// DoText is Do with arguments that may be text where the command takes numbers and
// booleans.
func (s *Server) DoText(c *Call, name string, args map[string]any) (any, error) {
	return s.do(c, name, args, true)
}

func (s *Server) do(c *Call, name string, args map[string]any, text bool) (any, error) {
	command := s.table.command(name)
	if command == nil {
		return nil, &Error{CommandNotFound, fmt.Sprintf("The command %s has not been found", name)}
	}
	v, err := s.table.arguments(command, args, text)
	if err != nil {
		return nil, err
	}
	inner := &Call{Context: c.Context, Session: c.Session, Raw: args}
	answer, err := command.run(inner, v)
	c.then = append(c.then, inner.then...)
	return answer, err
}
