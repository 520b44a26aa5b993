package guestmem

import (
	"bytes"
	"errors"
	"path/filepath"
	"sync/atomic"
	"testing"
)

// residentPages counts the pages of b that take host memory.
func residentPages(t *testing.T, b []byte) (n int) {
	t.Helper()
	in := make([]byte, (len(b)+PageSize-1)/PageSize)
	if err := mincore(b, in); err != nil {
		t.Fatal(err)
	}
	for _, v := range in {
		n += int(v & 1)
	}
	return n
}

func TestDiscard(t *testing.T) {
	for name, b := range map[string]Backing{
		"anonymous": {Size: 1 << 20}, "memfd": {Size: 1 << 20, Share: true},
		"private file": {Size: 1 << 20, File: filepath.Join(t.TempDir(), "private")}, "file": {Size: 1 << 20, Share: true, File: filepath.Join(t.TempDir(), "shared")},
	} {
		m, err := NewBacked(b)
		if err != nil {
			t.Fatal(err)
		}
		r, err := m.AddRAM(0, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		for i := range r.Host {
			r.Host[i] = 0x5a
		}
		var told []uint64
		m.WatchCode(func(gpa uint64) { told = append(told, gpa) })
		HoldCode(m.Flags(0x5000))
		m.SetDirtyLog(true)
		if err := m.Discard(0x3001, 0x3fff); err != nil { // 0x4000 to 0x7000
			t.Fatal(err)
		}
		m.SetDirtyLog(false)
		if name == "file" {
			if bytes.Count(r.Host, []byte{0x5a}) != len(r.Host) || told != nil {
				t.Errorf("%s: what a file holds is discarded", name)
			}
			_ = m.Close()
			continue
		}
		if !bytes.Equal(r.Host[0x4000:0x7000], make([]byte, 0x3000)) || r.Host[0x3fff] != 0x5a || r.Host[0x7000] != 0x5a {
			t.Errorf("%s: not exactly the whole pages are zero", name)
		}
		if len(told) != 1 || told[0] != 0x5000 {
			t.Errorf("%s: holders of code were told of %x", name, told)
		}
		for page, want := range map[uint64]uint32{0x3000: 0, 0x4000: FlagDirty, 0x6000: FlagDirty, 0x7000: 0} {
			if got := atomic.LoadUint32(m.Flags(page)) & FlagDirty; got != want {
				t.Errorf("%s: page 0x%x: dirty %d", name, page, got)
			}
		}
		if err := m.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestDiscardGivesMemoryBack(t *testing.T) {
	for _, share := range []bool{false, true} {
		m, err := NewBacked(Backing{Size: 4 << 20, Share: share})
		if err != nil {
			t.Fatal(err)
		}
		r, err := m.AddRAM(0, 4<<20)
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; i < len(r.Host); i += PageSize {
			r.Host[i] = 1
		}
		if err := m.Discard(1<<20, 2<<20); err != nil {
			t.Fatal(err)
		}
		if n := residentPages(t, r.Host[1<<20:3<<20]); n != 0 {
			t.Errorf("shared %v: %d pages are still there", share, n)
		}
		if n := residentPages(t, r.Host[:1<<20]); n != 256 {
			t.Errorf("shared %v: %d of 256 pages before are there", share, n)
		}
		if err := m.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestDiscardStaysInside(t *testing.T) {
	m := New()
	if _, err := m.AddRAM(0x10000, 0x10000); err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	for _, c := range [][2]uint64{{0, 0x1000}, {0x10000, 0x10001}, {0x1f000, 0x2000}, {0x20000, 0x1000}, {0x10000, 1<<64 - 1}, {1<<64 - 0x1000, 0x1000}} {
		if err := m.Discard(c[0], c[1]); !errors.Is(err, ErrBounds) {
			t.Errorf("0x%x+0x%x: %v", c[0], c[1], err)
		}
	}
	if err := m.Discard(0x10001, 0x1ffe); err != nil {
		t.Errorf("no whole page: %v", err)
	}
}
