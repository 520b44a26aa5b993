package chardev

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Plug is a Port whose other end comes and goes.
type Plug interface {
	Port
	// OnConnect says from now on when somebody is at the other end and when no
	// longer; f is called at once if somebody is. Call it once. Calls of f do not overlap.
	OnConnect(f func(connected bool))
	// Connected reports whether somebody is at the other end now.
	Connected() bool
}

// teller passes on whether somebody is at the other end. Its lock is taken
// before those of the port.
type teller struct {
	telling sync.Mutex // held while tell is called
	tell    func(bool)
	told    bool // what tell was last given
}

func (t *teller) say(connected bool) {
	t.telling.Lock()
	defer t.telling.Unlock()
	if t.tell != nil && t.told != connected {
		t.told = connected
		t.tell(connected)
	}
}

func (t *teller) to(f func(connected bool)) {
	t.telling.Lock()
	defer t.telling.Unlock()
	t.tell = f
}

// Socket is a Port on a Unix or TCP socket. One that listens has who connects as its
// other end, one at a time; the next waits for the one before to go. Without one,
// what is written is dropped and Read waits.
type Socket struct {
	teller
	listener net.Listener // nil: it has connected itself

	mu      sync.Mutex
	changed sync.Cond // conn, closed
	conn    net.Conn
	closed  bool
}

// maxPath is the longest name that a Unix socket can have (unix(7)).
const maxPath = 107

// Listen makes the socket at path, which only its owner may connect to. One that
// a process left there is replaced.
func Listen(path string) (*Socket, error) {
	l, err := ListenPrivate(path)
	if err != nil {
		return nil, err
	}
	return listening(l), nil
}

// ListenTCP listens on address, HOST:PORT; without a host on the loopback alone.
func ListenTCP(address string) (*Socket, error) {
	l, err := ListenLocal(address)
	if err != nil {
		return nil, err
	}
	return listening(l), nil
}

// ListenLocal is ListenTCP for who accepts connections itself.
func ListenLocal(address string) (net.Listener, error) {
	if strings.HasPrefix(address, ":") {
		address = "localhost" + address
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("address %s: %w", address, cause(err))
	}
	return l, nil
}

func listening(l net.Listener) *Socket {
	s := &Socket{listener: l}
	s.changed.L = &s.mu
	go s.serve()
	return s
}

// ListenPrivate is Listen for who accepts connections itself.
func ListenPrivate(path string) (*net.UnixListener, error) {
	if err := makeWay(path); err != nil {
		return nil, fmt.Errorf("socket %s: %w", path, err)
	}
	// The mode given to an unbound socket is that of the file that bind makes.
	private := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		if cerr := c.Control(func(fd uintptr) { err = unix.Fchmod(int(fd), 0o600) }); cerr != nil {
			return cerr
		}
		return err
	}}
	l, err := private.Listen(context.Background(), "unix", path)
	if err != nil {
		return nil, fmt.Errorf("socket %s: %w", path, cause(err))
	}
	return l.(*net.UnixListener), nil
}

// Dial connects to the socket that another process listens on at path. When that
// process goes, nobody comes in its place.
func Dial(path string) (*Socket, error) {
	if len(path) > maxPath {
		return nil, fmt.Errorf("socket %s: the name is longer than %d bytes", path, maxPath)
	}
	conn, err := net.Dial("unix", path)
	if err != nil {
		return nil, fmt.Errorf("socket %s: %w", path, cause(err))
	}
	return connected(conn), nil
}

// DialTCP connects to who listens on address, HOST:PORT. When that process goes,
// nobody comes in its place.
func DialTCP(address string) (*Socket, error) {
	conn, err := net.DialTimeout("tcp", address, dialTimeout)
	if err != nil {
		return nil, fmt.Errorf("address %s: %w", address, cause(err))
	}
	return connected(conn), nil
}

// dialTimeout is how long a host on the network has to answer.
const dialTimeout = 10 * time.Second

func connected(conn net.Conn) *Socket {
	s := &Socket{conn: conn}
	s.changed.L = &s.mu
	go s.hold(conn)
	return s
}

// makeWay removes a socket that nobody listens on any more.
func makeWay(path string) error {
	if len(path) > maxPath {
		return fmt.Errorf("the name is longer than %d bytes", maxPath)
	}
	st, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return cause(err)
	}
	if st.Mode()&fs.ModeSocket == 0 {
		return errors.New("there is a file of that name, which is no socket")
	}
	c, err := net.Dial("unix", path)
	if err == nil {
		_ = c.Close()
		return errors.New("in use by another process")
	}
	if !errors.Is(err, unix.ECONNREFUSED) {
		return cause(err)
	}
	return cause(os.Remove(path))
}

// cause returns what the system said, without the names that packages put in front.
func cause(err error) error {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return err
}

// serve takes connections, one after the other.
func (s *Socket) serve() {
	for {
		conn, err := s.listener.Accept()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil: // no descriptors left, or the like
			time.Sleep(10 * time.Millisecond)
		case !s.plug(conn):
			return
		}
	}
}

// plug makes conn the other end until it ends; false means that the socket is closed.
func (s *Socket) plug(conn net.Conn) bool {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		_ = conn.Close()
		return false
	}
	s.conn = conn
	s.changed.Broadcast()
	s.mu.Unlock()
	return s.hold(conn)
}

// hold returns when conn, which is the other end, has ended; false means that
// the socket is closed.
func (s *Socket) hold(conn net.Conn) bool {
	s.say(true)
	s.mu.Lock()
	for s.conn == conn {
		s.changed.Wait()
	}
	closed := s.closed
	s.mu.Unlock()
	s.say(false)
	return !closed
}

// Addr is where a socket that listens does so; nil if it has connected itself.
func (s *Socket) Addr() net.Addr {
	if s.listener == nil {
		return nil
	}
	return s.listener.Addr()
}

// Connected implements Plug.
func (s *Socket) Connected() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.conn != nil
}

// OnConnect implements Plug.
func (s *Socket) OnConnect(f func(connected bool)) {
	s.to(f)
	if s.Connected() {
		s.say(true)
	}
}

// unplug ends conn.
func (s *Socket) unplug(conn net.Conn) {
	s.mu.Lock()
	if s.conn == conn {
		s.conn = nil
		s.changed.Broadcast()
	}
	s.mu.Unlock()
	_ = conn.Close()
}

// peer returns who is connected; if wait, it waits for somebody. os.ErrClosed
// says that the socket is closed.
func (s *Socket) peer(wait bool) (net.Conn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for wait && s.conn == nil && !s.closed {
		s.changed.Wait()
	}
	if s.closed {
		return nil, os.ErrClosed
	}
	return s.conn, nil
}

// Read implements Port. It goes on with the next connection when one ends.
func (s *Socket) Read(p []byte) (int, error) {
	for {
		conn, err := s.peer(true)
		if err != nil {
			return 0, err
		}
		n, err := conn.Read(p)
		if n > 0 {
			return n, nil
		}
		if err != nil {
			s.unplug(conn)
		}
	}
}

// Write implements Port. What the other end does not take, because it is not
// there or goes, is dropped.
func (s *Socket) Write(p []byte) (int, error) {
	conn, err := s.peer(false)
	if err != nil {
		return 0, err
	}
	if conn == nil {
		return len(p), nil
	}
	if _, err := conn.Write(p); err != nil {
		s.unplug(conn)
		if _, err := s.peer(false); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}

// Close implements Port. It removes the file of a socket that listens.
func (s *Socket) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	conn := s.conn
	s.conn = nil
	s.changed.Broadcast()
	s.mu.Unlock()
	if conn != nil {
		_ = conn.Close()
	}
	if s.listener == nil {
		return nil
	}
	return s.listener.Close()
}
