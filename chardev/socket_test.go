package chardev

import (
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

func listen(t *testing.T) (*Socket, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "port")
	s, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s, path
}

func dial(t *testing.T, path string) net.Conn {
	t.Helper()
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// socketPair is a socket and who is connected to it, as two ports.
func socketPair(t *testing.T) (Port, Port) {
	s, path := listen(t)
	connected := make(chan bool, 4)
	s.OnConnect(func(c bool) { connected <- c })
	c := dial(t, path)
	<-connected
	return s, c
}

func read(t *testing.T, r io.Reader, want string) {
	t.Helper()
	b := make([]byte, len(want))
	if _, err := io.ReadFull(r, b); err != nil || string(b) != want {
		t.Errorf("read %q, %v; want %q", b, err, want)
	}
}

func TestSocketServesOneAfterTheOther(t *testing.T) {
	s, path := listen(t)
	var mu sync.Mutex
	var events []bool
	changed := make(chan bool, 16)
	s.OnConnect(func(c bool) {
		mu.Lock()
		events = append(events, c)
		mu.Unlock()
		changed <- c
	})
	if n, err := s.Write([]byte("to nobody")); n != 9 || err != nil {
		t.Errorf("write to nobody: %d, %v", n, err)
	}
	first := dial(t, path)
	<-changed
	second := dial(t, path) // waits
	first.Write([]byte("one"))
	read(t, s, "one")
	s.Write([]byte("answer"))
	read(t, first, "answer")
	second.Write([]byte("two"))
	first.Close()
	read(t, s, "two")
	<-changed
	<-changed
	s.Write([]byte("again"))
	read(t, second, "again")
	mu.Lock()
	defer mu.Unlock()
	if len(events) != 3 || !events[0] || events[1] || !events[2] {
		t.Errorf("events %v", events)
	}
}

func TestOnConnectTellsOfWhoIsThere(t *testing.T) {
	s, path := listen(t)
	c := dial(t, path)
	c.Write([]byte("x"))
	read(t, s, "x")
	events := make(chan bool, 4)
	s.OnConnect(func(c bool) { events <- c })
	if !<-events {
		t.Error("not told of who was connected")
	}
	s.Close()
	if <-events {
		t.Error("told of a connection at the end")
	}
	select {
	case e := <-events:
		t.Errorf("told again: %v", e)
	case <-time.After(20 * time.Millisecond):
	}
}

func TestListenErrors(t *testing.T) {
	s, path := listen(t)
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	for p, want := range map[string]string{
		path:                       "in use by another process",
		file:                       "there is a file of that name, which is no socket",
		"/nowhere/at/all":          "no such file or directory",
		strings.Repeat("long", 40): "longer than 107 bytes",
	} {
		if _, err := Listen(p); err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "socket "+p+": ") {
			t.Errorf("Listen(%s): %v, want %q", p, err, want)
		}
	}
	if b, _ := os.ReadFile(file); string(b) != "precious" {
		t.Error("the file was touched")
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
	s.Close()
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("after Close: %v", err)
	}
}

func TestListenReplacesALeftSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "left")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	s, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	dial(t, path).Write([]byte("y"))
	read(t, s, "y")
}

func TestNewFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(path, []byte("of the last run, and longer"), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := NewFile(path, false)
	if err != nil {
		t.Fatal(err)
	}
	f.Write([]byte("new"))
	ended := make(chan error)
	go func() { _, err := f.Read(make([]byte, 1)); ended <- err }()
	f.Close()
	if err := <-ended; err == nil {
		t.Error("Read returned without error")
	}
	if b, err := os.ReadFile(path); string(b) != "new" {
		t.Errorf("%q, %v", b, err)
	}
	if f, err = NewFile(path, true); err != nil {
		t.Fatal(err)
	}
	f.Write([]byte(" and more"))
	f.Close()
	if b, err := os.ReadFile(path); string(b) != "new and more" {
		t.Errorf("%q, %v", b, err)
	}
	for p, want := range map[string]string{t.TempDir(): "is a directory", "/nowhere/log": "no such file or directory"} {
		if _, err := NewFile(p, true); err == nil || err.Error() != p+": "+want {
			t.Errorf("%v, want %s: %s", err, p, want)
		}
	}
}

func TestInputReadsAheadUpToItsLimit(t *testing.T) {
	host, dev := Pipe(1)
	in := NewInput(dev, 16)
	arrived := make(chan int, 1000)
	in.Start(func() { arrived <- in.Len() })
	sent := make(chan int)
	go func() { n, _ := host.Write(make([]byte, 500)); sent <- n }()
	for n := 0; n < 16; n = <-arrived {
	}
	time.Sleep(10 * time.Millisecond)
	if n := in.Len(); n < 16 || n > 32 {
		t.Errorf("%d bytes ahead", n)
	}
	select {
	case n := <-sent:
		t.Fatalf("the host wrote all %d bytes", n)
	default:
	}
	in.Load(append(in.Save(), 7))
	got := 0
	for p := make([]byte, 50); got < 501; {
		got += in.Take(p)
	}
	if n := <-sent; n != 500 || in.Len() != 0 {
		t.Errorf("%d bytes written, %d left", n, in.Len())
	}
	in.Close()
	dev.Close()
}

// dialledPair is a socket that connected and the one it connected to.
func dialledPair(t *testing.T) (Port, Port) {
	s, path := listen(t)
	connected := make(chan bool, 4)
	s.OnConnect(func(c bool) { connected <- c })
	d, err := Dial(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	<-connected
	return d, s
}

// tcpPair is a listening TCP port and one that has connected to it.
func tcpPair(t *testing.T) (Port, Port) {
	s, err := ListenTCP(":0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	if host, _, _ := net.SplitHostPort(s.Addr().String()); !net.ParseIP(host).IsLoopback() {
		t.Errorf("without a host it listens on %s", s.Addr())
	}
	connected := make(chan bool, 4)
	s.OnConnect(func(c bool) { connected <- c })
	d, err := DialTCP(s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	<-connected
	return s, d
}

func TestDialledSocketOutlivesItsOtherEnd(t *testing.T) {
	path := filepath.Join(t.TempDir(), "host")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	s, err := Dial(path)
	if err != nil {
		t.Fatal(err)
	}
	events := make(chan bool, 4)
	s.OnConnect(func(c bool) { events <- c })
	host, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if !<-events {
		t.Error("it is not connected")
	}
	if _, err := host.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	read(t, s, "hello")
	ended := make(chan error)
	go func() { _, err := s.Read(make([]byte, 1)); ended <- err }()
	host.Close()
	if <-events {
		t.Error("it is connected to nobody")
	}
	if n, err := s.Write([]byte("dropped")); n != 7 || err != nil {
		t.Errorf("write to nobody: %d, %v", n, err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := <-ended; err == nil {
		t.Error("Read returned without error")
	}
}

func TestDialErrorsAreOneClearLine(t *testing.T) {
	dir := t.TempDir()
	long := filepath.Join(dir, strings.Repeat("x", 120))
	for path, want := range map[string]string{
		filepath.Join(dir, "none"): "no such file or directory",
		long:                       "the name is longer than 107 bytes",
	} {
		if _, err := Dial(path); err == nil || err.Error() != "socket "+path+": "+want {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

// shortListener cannot accept at first, as if there were no descriptors left.
type shortListener struct {
	net.Listener
	failed bool
}

func (l *shortListener) Accept() (net.Conn, error) {
	if !l.failed {
		l.failed = true
		return nil, &net.OpError{Op: "accept", Err: syscall.EMFILE}
	}
	return l.Listener.Accept()
}

func TestASocketOutlivesAWantOfDescriptors(t *testing.T) {
	path := filepath.Join(t.TempDir(), "port")
	l, err := ListenPrivate(path)
	if err != nil {
		t.Fatal(err)
	}
	s := listening(&shortListener{Listener: l})
	defer s.Close()
	c := dial(t, path)
	if _, err := c.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	came := make(chan int, 1)
	go func() {
		n, _ := s.Read(make([]byte, 8))
		came <- n
	}()
	select {
	case n := <-came:
		if n != 1 {
			t.Errorf("%d bytes", n)
		}
	case <-time.After(5 * time.Second):
		t.Error("nobody is connected any more")
	}
}

// An address without a host is this host's alone.
func TestNoHostIsLoopback(t *testing.T) {
	l, err := ListenLocal(":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if a := l.Addr().(*net.TCPAddr); !a.IP.IsLoopback() {
		t.Errorf("listens on %s", a)
	}
}
