package bus

import (
	"bytes"
	"strings"
	"sync"
	"testing"
)

// log is a handler that notes its accesses and answers reads with their offsets.
type log struct {
	mu       sync.Mutex
	accesses []string
}

func (l *log) note(kind byte, off uint64, n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.accesses = append(l.accesses, string([]byte{kind, '0' + byte(off), ':', '0' + byte(n)}))
}

func (l *log) Read(off uint64, p []byte) {
	l.note('r', off, len(p))
	for i := range p {
		p[i] = byte(off) + byte(i)
	}
}
func (l *log) Write(off uint64, p []byte) { l.note('w', off, len(p)) }

func TestAccessesReachTheirWindow(t *testing.T) {
	s := New(1 << 16)
	a, b := &log{}, &log{}
	for base, h := range map[uint64]*log{0x10: a, 0x14: b} {
		if _, err := s.Map(base, 4, "test", h); err != nil {
			t.Fatal(err)
		}
	}
	p := make([]byte, 8)
	s.Read(0x12, p) // two bytes of a, four of b, two of nobody
	if want := []byte{2, 3, 0, 1, 2, 3, 0xff, 0xff}; !bytes.Equal(p, want) {
		t.Errorf("read % x, want % x", p, want)
	}
	s.Write(0x0f, p[:2])
	if got := strings.Join(append(a.accesses, b.accesses...), " "); got != "r2:2 w0:1 r0:4" {
		t.Error(got)
	}
}

func TestUnmappedReadsAsOnes(t *testing.T) {
	s := New(0)
	p := []byte{1, 2}
	s.Read(^uint64(0)-1, p)
	s.Write(^uint64(0)-1, p)
	if p[0] != 0xff || p[1] != 0xff {
		t.Errorf("% x", p)
	}
}

func TestMapRefusesOverlapAndOverflow(t *testing.T) {
	s := New(1 << 16)
	w, err := s.Map(0x100, 0x10, "first", &log{})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		base, size uint64
		want       string
	}{
		{0x10f, 1, "overlaps first"}, {0xf0, 0x11, "overlaps first"}, {0x0, 0x1000, "overlaps first"},
		{0xffff, 2, "does not fit"}, {0x10, 0, "does not fit"}, {^uint64(0), 2, "does not fit"},
	} {
		if _, err := s.Map(c.base, c.size, "second", &log{}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("0x%x+0x%x: %v, want %q", c.base, c.size, err, c.want)
		}
	}
	s.Unmap(w)
	if _, err := s.Map(0x0, 0x1000, "second", &log{}); err != nil {
		t.Errorf("after Unmap: %v", err)
	}
}

// A handler may map and unmap windows, its own too: no lock is held around it.
func TestHandlerMayChangeTheMap(t *testing.T) {
	s := New(1 << 16)
	var w *Window
	remap := Bytes{In: func(uint64) byte {
		s.Unmap(w)
		return 7
	}}
	var err error
	if w, err = s.Map(0x10, 1, "remap", remap); err != nil {
		t.Fatal(err)
	}
	p := make([]byte, 1)
	s.Read(0x10, p)
	if p[0] != 7 || len(s.Windows()) != 0 {
		t.Errorf("read %d, %d windows left", p[0], len(s.Windows()))
	}
}
