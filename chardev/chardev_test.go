package chardev

import (
	"bytes"
	"errors"
	"io"
	"os"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// pair makes two connected ports.
type pair func(t *testing.T) (a, b Port)

func fdPair(kind int) pair {
	return func(t *testing.T) (Port, Port) {
		s, err := unix.Socketpair(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(s[0]); unix.Close(s[1]) })
		var ends [2]Port
		for i := range s {
			if ends[i], err = NewFD(s[i], s[i]); err != nil {
				t.Fatal(err)
			}
		}
		return ends[0], ends[1]
	}
}

// TestPortConformance holds every connectable Port to the interface's promises.
func TestPortConformance(t *testing.T) {
	for name, mk := range map[string]pair{
		"Pipe":           func(*testing.T) (Port, Port) { return Pipe(100) },
		"Socket":         socketPair,
		"Socket dialled": dialledPair,
		"TCP":            tcpPair,
		"FIFO":           fifoPair,
		"PTY":            ptyPair,
		"FD":             fdPair(unix.SOCK_STREAM),
		"FD nonblocking": fdPair(unix.SOCK_STREAM | unix.SOCK_NONBLOCK),
	} {
		t.Run(name, func(t *testing.T) {
			t.Run("both ways at once", func(t *testing.T) { bothWays(t, mk) })
			t.Run("Close ends Read", func(t *testing.T) {
				a, _ := mk(t)
				ended := make(chan error)
				go func() { _, err := a.Read(make([]byte, 1)); ended <- err }()
				a.Close()
				if err := <-ended; err == nil {
					t.Error("Read returned without error")
				}
			})
			t.Run("Close ends Write", func(t *testing.T) {
				a, _ := mk(t)
				ended := make(chan error)
				go func() { _, err := a.Write(make([]byte, 8<<20)); ended <- err }()
				a.Close()
				if err := <-ended; err == nil {
					t.Error("Write returned without error")
				}
			})
			t.Run("closed", func(t *testing.T) {
				a, _ := mk(t)
				a.Close()
				a.Close()
				if _, err := a.Read(make([]byte, 1)); err == nil {
					t.Error("Read after Close")
				}
				if _, err := a.Write([]byte{1}); err == nil {
					t.Error("Write after Close")
				}
			})
		})
	}
}

func bothWays(t *testing.T, mk pair) {
	a, b := mk(t)
	want := bytes.Repeat([]byte("0123456789\n"), 20000)
	var wg sync.WaitGroup
	for _, e := range [][2]Port{{a, b}, {b, a}} {
		wg.Go(func() {
			if n, err := e[0].Write(want); n != len(want) || err != nil {
				t.Errorf("wrote %d: %v", n, err)
			}
		})
		wg.Go(func() {
			got := make([]byte, len(want))
			if _, err := io.ReadFull(e[1], got); err != nil || !bytes.Equal(got, want) {
				t.Errorf("read: %v, or damaged", err)
			}
		})
	}
	wg.Wait()
}

func TestFDReadsEndOfFile(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	w.WriteString("last")
	w.Close()
	f, err := NewFD(int(r.Fd()), -1)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if got, err := io.ReadAll(f); string(got) != "last" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	if n, err := f.Write([]byte("nowhere")); n != 7 || err != nil {
		t.Errorf("write to none: %d, %v", n, err)
	}
}

func TestFDReportsBrokenPipe(t *testing.T) {
	s, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(s[1])
	defer unix.Close(s[0])
	f, err := NewFD(-1, s[0])
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write([]byte("x")); !errors.Is(err, unix.EPIPE) {
		t.Errorf("got %v, want EPIPE", err)
	}
}

// fifoPair is two ports on the same FIFOs, crossed over.
func fifoPair(t *testing.T) (Port, Port) {
	dir := t.TempDir()
	for _, n := range []string{"/a.in", "/a.out"} {
		if err := unix.Mkfifo(dir+n, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for old, name := range map[string]string{"/a.in": "/b.out", "/a.out": "/b.in"} {
		if err := os.Symlink(dir+old, dir+name); err != nil {
			t.Fatal(err)
		}
	}
	var ends [2]Port
	for i, n := range []string{"/a", "/b"} {
		var err error
		if ends[i], err = NewFIFO(dir + n); err != nil {
			t.Fatal(err)
		}
	}
	return ends[0], ends[1]
}

func TestFIFOOfOneName(t *testing.T) {
	path := t.TempDir() + "/p"
	if _, err := NewFIFO(path); !errors.Is(err, unix.ENOENT) {
		t.Errorf("no FIFO: %v", err)
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := NewFIFO(path); err == nil || !strings.Contains(err.Error(), "make one with mkfifo") {
		t.Errorf("a file: %v", err)
	}
	os.Remove(path)
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := NewFIFO(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write([]byte("for whoever comes")); err != nil {
		t.Error(err)
	}
}

func TestRingTakesTheOldest(t *testing.T) {
	r := NewRing(8)
	for _, c := range []struct {
		write string
		take  int
		want  string
	}{
		{"abc", 2, "ab"}, {"defghijk", 3, "def"}, {"", 0, ""}, {"lmn", 100, "ghijklmn"}, {"", 5, ""}, {"o", 1, "o"},
	} {
		r.Write([]byte(c.write))
		if got := string(r.Take(c.take)); got != c.want {
			t.Errorf("after %q: took %q, want %q", c.write, got, c.want)
		}
	}
}

func TestRingKeepsTheLast(t *testing.T) {
	r := NewRing(8)
	for _, s := range []string{"", "abc", "defgh", "ij", "0123456789abcdef", "x"} {
		if n, err := r.Write([]byte(s)); n != len(s) || err != nil {
			t.Fatal(n, err)
		}
	}
	if got := string(r.Bytes()); got != "9abcdefx" || r.Total() != 27 {
		t.Errorf("ring %q, total %d", got, r.Total())
	}
	r = NewRing(8)
	r.Write([]byte("abcde"))
	r.Write([]byte("fghij"))
	if got := string(r.Bytes()); got != "cdefghij" {
		t.Errorf("ring %q", got)
	}
	ended := make(chan error)
	go func() { _, err := r.Read(make([]byte, 1)); ended <- err }()
	r.Close()
	r.Close()
	if err := <-ended; !errors.Is(err, io.EOF) {
		t.Errorf("Read: %v", err)
	}
}

// sink counts writes and can be held.
type sink struct {
	hold   chan struct{}
	mu     sync.Mutex
	buf    []byte
	writes int
	err    error
}

func (s *sink) Write(p []byte) (int, error) {
	if s.hold != nil {
		<-s.hold
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return 0, s.err
	}
	s.buf = append(s.buf, p...)
	s.writes++
	return len(p), nil
}

func TestQueueGathersBytesIntoFewWrites(t *testing.T) {
	s := &sink{}
	q := NewQueue(s, 1<<20, nil)
	for i := range 100000 {
		if n := q.Offer([]byte{byte(i)}); n != 1 {
			t.Fatal("not taken")
		}
	}
	q.Drain()
	if len(s.buf) != 100000 || s.writes > 10000 {
		t.Errorf("%d bytes in %d writes", len(s.buf), s.writes)
	}
	if err := q.Close(); err != nil {
		t.Fatal(err)
	}
	if n := q.Offer([]byte("late")); n != 4 || len(s.buf) != 100000 {
		t.Error("an offer after Close")
	}
}

func TestQueueIsBoundedAndCallsSpace(t *testing.T) {
	s := &sink{hold: make(chan struct{})}
	space := make(chan struct{}, 100)
	q := NewQueue(s, 16, func() { space <- struct{}{} })
	taken := 0
	for n := 1; n > 0; {
		n = q.Offer(make([]byte, 10))
		taken += n
	}
	if taken > 32 {
		t.Errorf("took %d bytes with a limit of 16 and as many in the write", taken)
	}
	close(s.hold)
	<-space
	if n := q.Offer([]byte{1}); n != 1 {
		t.Error("no room after space was called")
	}
	q.Close()
	if len(s.buf) != taken+1 {
		t.Errorf("%d bytes written of %d", len(s.buf), taken+1)
	}
}

func TestQueueDropsAfterAnError(t *testing.T) {
	s := &sink{err: io.ErrClosedPipe, hold: make(chan struct{})}
	space := make(chan struct{}, 100)
	q := NewQueue(s, 4, func() { space <- struct{}{} })
	for q.Offer(make([]byte, 10)) > 0 {
	}
	close(s.hold)
	<-space
	q.Drain()
	if n := q.Offer(make([]byte, 1000)); n != 1000 {
		t.Errorf("took %d after an error", n)
	}
	if err := q.Close(); !errors.Is(err, io.ErrClosedPipe) || !errors.Is(q.Err(), err) {
		t.Errorf("Close: %v", err)
	}
}
