package qmp

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// queued is how many requests wait for the one before where out-of-band
	// execution is on; without it none does.
	queued = 8
	// maxUnread is how many bytes wait for a client that does not read: more than
	// that, and it is hung up on.
	maxUnread = 64 << 20
	// lastWords is how long a session that ends tries to send what it has.
	lastWords = time.Second
)

// Session is one client's connection to a Server.
type Session struct {
	server *Server
	conn   net.Conn
	out    *outbox
	fds    descriptors

	negotiated, oob atomic.Bool

	left bool // the client has hung up; the server's mu is held

	requests chan request
	idle     chan struct{} // one for each request done while OOB is off
}

// request is a value that was read, or why there is none.
type request struct {
	value any
	err   error
}

func newSession(s *Server, conn net.Conn) *Session {
	return &Session{server: s, conn: conn, out: newOutbox(conn), requests: make(chan request, queued), idle: make(chan struct{}, 1)}
}

// TakeFD returns the oldest descriptor that came with the latest bytes, which is
// the caller's to close; -1 if there is none. Only commands call it.
func (s *Session) TakeFD() int { return s.fds.take() }

type greeting struct {
	QMP struct {
		Version      Version  `json:"version"`
		Capabilities []string `json:"capabilities"`
	} `json:"QMP"`
}

// run serves the session until its connection ends.
func (s *Session) run() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var g greeting
	g.QMP.Version, g.QMP.Capabilities = s.server.table.version, []string{"oob"}
	s.send(g)
	worked := make(chan struct{})
	go func() {
		defer close(worked)
		for r := range s.requests {
			oob := s.oob.Load()
			s.serve(ctx, r)
			if !oob {
				s.idle <- struct{}{}
			}
		}
	}()
	s.read(ctx)
	close(s.requests)
	cancel()
	<-worked
	s.out.finish()
	s.fds.close()
}

// read parses what comes until nothing does.
func (s *Session) read(ctx context.Context) {
	p := newParser(func(v any, err error) { s.received(ctx, request{v, err}) })
	buf := make([]byte, 4096)
	for {
		n, err := s.fds.read(s.conn, buf)
		p.feed(buf[:n])
		if err != nil {
			return
		}
	}
}

// received queues a request, or runs it at once if it is to be run out of band.
func (s *Session) received(ctx context.Context, r request) {
	if m, ok := r.value.(map[string]any); ok && s.oob.Load() {
		_, execute := m["execute"]
		if _, oob := m["exec-oob"]; oob && !execute {
			s.serve(ctx, r)
			return
		}
	}
	oob := s.oob.Load()
	s.requests <- r
	if !oob {
		<-s.idle
	}
}

// serve answers a request.
func (s *Session) serve(ctx context.Context, r request) {
	if r.err != nil {
		s.send(errorAnswer(r.err))
		return
	}
	a := s.server.execute(ctx, s, r.value)
	switch members := a.members.(type) {
	case success:
		if a.hasID {
			s.send(struct {
				success
				ID any `json:"id"`
			}{members, a.id})
			break
		}
		s.send(members)
	case failure:
		if a.hasID {
			s.send(struct {
				ID any `json:"id"`
				failure
			}{a.id, members})
			break
		}
		s.send(members)
	}
	for _, f := range a.then {
		f()
	}
}

// send queues a message for the client.
func (s *Session) send(v any) {
	p, err := s.server.table.encode(v)
	if err != nil {
		s.server.log.Error("an answer cannot be sent", "error", err)
		p, _ = json.Marshal(errorAnswer(fmt.Errorf("internal error: %w", err)))
	}
	s.out.add(p)
}

// hungUp reports that the client at a socket has ended the connection.
func (s *Session) hungUp() bool {
	c, ok := s.conn.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return false
	}
	gone := false
	err = raw.Control(func(fd uintptr) {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
		n, err := unix.Poll(p, 0)
		gone = err == nil && n > 0 && p[0].Revents&(unix.POLLRDHUP|unix.POLLHUP) != 0
	})
	return gone || err != nil // closed on this side
}

// hangUp ends reading; what waits is still sent.
func (s *Session) hangUp() {
	_ = s.conn.SetReadDeadline(time.Now())
}

// negotiation is qmp_capabilities' arguments.
type negotiation struct {
	Enable []capability `json:"enable,omitempty"`
}

type capability string

// Values implements Enum.
func (capability) Values() []string { return []string{"oob"} }

func negotiate(c *Call, n *negotiation) (None, error) {
	s := c.Session
	if s.negotiated.Load() {
		return None{}, &Error{CommandNotFound, "Capabilities negotiation is already complete, command ignored"}
	}
	s.oob.Store(slices.Contains(n.Enable, "oob"))
	s.negotiated.Store(true)
	return None{}, nil
}

func sortedKeys(m map[string]any) []string { return slices.Sorted(maps.Keys(m)) }

// outbox holds what a client has not read yet.
type outbox struct {
	conn net.Conn

	mu      sync.Mutex
	changed sync.Cond
	bytes   []byte
	closed  bool
	done    chan struct{}
}

func newOutbox(conn net.Conn) *outbox {
	o := &outbox{conn: conn, done: make(chan struct{})}
	o.changed.L = &o.mu
	go o.write()
	return o
}

// add appends a message. It never waits: a client that lets too much wait is hung
// up on.
func (o *outbox) add(message []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return
	}
	if len(o.bytes)+len(message) > maxUnread {
		o.closed, o.bytes = true, nil
		_ = o.conn.Close()
	} else {
		o.bytes = append(append(o.bytes, message...), "\r\n"...)
	}
	o.changed.Signal()
}

func (o *outbox) write() {
	defer close(o.done)
	for {
		o.mu.Lock()
		for len(o.bytes) == 0 && !o.closed {
			o.changed.Wait()
		}
		p := o.bytes
		o.bytes = nil
		o.mu.Unlock()
		if len(p) == 0 {
			return
		}
		if _, err := o.conn.Write(p); err != nil {
			o.mu.Lock()
			o.closed, o.bytes = true, nil
			o.mu.Unlock()
			_ = o.conn.Close()
			return
		}
	}
}

// finish sends what is there, for a while, and closes the connection.
func (o *outbox) finish() {
	_ = o.conn.SetWriteDeadline(time.Now().Add(lastWords))
	o.mu.Lock()
	o.closed = true
	o.changed.Signal()
	o.mu.Unlock()
	<-o.done
	_ = o.conn.Close()
}
