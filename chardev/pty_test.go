package chardev

import (
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// openTerminal opens the other end of p.
func openTerminal(t *testing.T, p *PTY) int {
	t.Helper()
	fd, err := unix.Open(p.Path(), unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

func newPTY(t *testing.T) *PTY {
	t.Helper()
	p, err := NewPTY()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

// ptyPair is a terminal and who has it open.
func ptyPair(t *testing.T) (Port, Port) {
	p := newPTY(t)
	fd := openTerminal(t, p)
	t.Cleanup(func() { unix.Close(fd) })
	f, err := NewFD(fd, fd)
	if err != nil {
		t.Fatal(err)
	}
	return p, f
}

func TestPTYServesOneAfterTheOther(t *testing.T) {
	p := newPTY(t)
	if !strings.HasPrefix(p.Path(), "/dev/pts/") {
		t.Errorf("path %q", p.Path())
	}
	if n, err := p.Write(make([]byte, 1<<20)); n != 1<<20 || err != nil { // nobody is there: it is dropped
		t.Errorf("wrote %d: %v", n, err)
	}
	events := make(chan bool, 16)
	p.OnConnect(func(c bool) { events <- c })
	got := make(chan string)
	go func() {
		for {
			b := make([]byte, 16)
			n, err := p.Read(b)
			if err != nil {
				close(got)
				return
			}
			got <- string(b[:n])
		}
	}()
	for range 2 {
		fd := openTerminal(t, p)
		if !<-events {
			t.Fatal("nobody is connected")
		}
		if _, err := unix.Write(fd, []byte("\x03raw\r\n")); err != nil {
			t.Fatal(err)
		}
		if s := <-got; s != "\x03raw\r\n" {
			t.Errorf("read %q", s)
		}
		if _, err := p.Write([]byte("out\n")); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 16)
		if n, err := unix.Read(fd, b); string(b[:max(n, 0)]) != "out\n" {
			t.Errorf("it got %q, %v", b[:max(n, 0)], err)
		}
		unix.Close(fd)
		if <-events {
			t.Fatal("it is still connected")
		}
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	if _, open := <-got; open {
		t.Error("Read after Close")
	}
	if _, err := os.Stat(p.Path()); err == nil {
		t.Error("the terminal is still there")
	}
}
