package guestmem

import (
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
)

// twoRegions has RAM at [0, 2 pages) and [16 pages, 18 pages).
func twoRegions(t *testing.T) *Memory {
	t.Helper()
	m := New()
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	for _, gpa := range []uint64{16 * PageSize, 0} {
		if _, err := m.AddRAM(gpa, 2*PageSize); err != nil {
			t.Fatal(err)
		}
	}
	return m
}

func TestBounds(t *testing.T) {
	m := twoRegions(t)
	for _, c := range []struct {
		gpa, n uint64
		good   bool
	}{
		{0, 2 * PageSize, true}, {PageSize - 1, 2, true}, {2*PageSize - 1, 1, true}, {16 * PageSize, 1, true},
		{0, 2*PageSize + 1, false}, {2 * PageSize, 1, false}, {2*PageSize - 1, 2, false}, {15*PageSize + 4095, 2, false},
		{^uint64(0), 1, false}, {^uint64(0), 2, false}, {PageSize, ^uint64(0), false}, {0, ^uint64(0), false},
	} {
		b, err := m.Slice(c.gpa, c.n)
		if (err == nil) != c.good || (c.good && uint64(len(b)) != c.n) || (!c.good && !errors.Is(err, ErrBounds)) {
			t.Errorf("0x%x+0x%x: %d bytes, %v", c.gpa, c.n, len(b), err)
		}
	}
	b, err := m.Slice(0, 8)
	if err != nil || cap(b) != 8 {
		t.Errorf("a slice can grow past its range: cap %d, %v", cap(b), err)
	}
}

func TestAddRAMRefuses(t *testing.T) {
	m := twoRegions(t)
	for _, r := range [][2]uint64{{0, PageSize}, {PageSize, PageSize}, {15 * PageSize, 2 * PageSize}, {5, PageSize}, {8 * PageSize, 5}, {8 * PageSize, 0}, {^uint64(0) - PageSize + 1, 2 * PageSize}} {
		if _, err := m.AddRAM(r[0], r[1]); err == nil {
			t.Errorf("0x%x+0x%x was accepted", r[0], r[1])
		}
	}
}

func TestWordsKeepTheirNeighbours(t *testing.T) {
	m := twoRegions(t)
	if err := m.Store64(8, 0x1122334455667788); err != nil {
		t.Fatal(err)
	}
	if err := m.Store16(10, 0xaaaa); err != nil {
		t.Fatal(err)
	}
	if v, err := m.Load64(8); err != nil || v != 0x11223344aaaa7788 {
		t.Errorf("%x, %v", v, err)
	}
	if v, err := m.Load16(14); err != nil || v != 0x1122 {
		t.Errorf("%x, %v", v, err)
	}
	if v, err := m.Load32(12); err != nil || v != 0x11223344 {
		t.Errorf("%x, %v", v, err)
	}
	for _, err := range []error{m.Store16(1, 0), m.Store32(2, 0), m.Store64(4, 0), m.Store64(2*PageSize, 0)} {
		if err == nil {
			t.Error("a misaligned or stray store was accepted")
		}
	}
}

// Two writers of the two halves of a word lose nothing.
func TestStore16IsAtomic(t *testing.T) {
	m := twoRegions(t)
	const n = 10000
	var wg sync.WaitGroup
	for half := range uint64(2) {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for i := range uint16(n) {
				if err := m.Store16(half*2, i); err != nil {
					t.Error(err)
				}
				if v, _ := m.Load16(half * 2); v != i {
					t.Errorf("half %d: read %d after writing %d", half, v, i)
					return
				}
			}
		}()
	}
	wg.Wait()
}

func TestDirtyLog(t *testing.T) {
	m := twoRegions(t)
	if err := m.Write(0, []byte{1}); err != nil {
		t.Fatal(err)
	}
	m.SetDirtyLog(true)
	if err := m.Write(PageSize-1, []byte{1, 2}); err != nil {
		t.Fatal(err)
	}
	m.MarkWritten(17*PageSize, 1)
	m.MarkWritten(17*PageSize+100, ^uint64(0)) // a length past the end marks no stray page
	var got []uint64
	collect := func(gpa uint64) { got = append(got, gpa/PageSize) }
	m.CollectDirty(collect)
	if !slices.Equal(got, []uint64{0, 1, 17}) {
		t.Errorf("pages %d", got)
	}
	got = nil
	m.CollectDirty(collect)
	if got != nil {
		t.Errorf("pages %d are still dirty", got)
	}
}

func TestWritesToCodePagesAreTold(t *testing.T) {
	m := twoRegions(t)
	var told []uint64
	m.WatchCode(func(gpa uint64) { told = append(told, gpa) })
	atomic.OrUint32(m.Flags(PageSize), FlagCode)
	if err := m.Write(0, make([]byte, 2*PageSize)); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(told, []uint64{PageSize}) {
		t.Errorf("told %x", told)
	}
	told = nil
	if err := m.Clear(); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(told, []uint64{PageSize}) {
		t.Errorf("told of clearing: %x", told)
	}
}

func TestClearMakesZeroes(t *testing.T) {
	m := twoRegions(t)
	if err := m.Store32(16*PageSize, 7); err != nil {
		t.Fatal(err)
	}
	if err := m.Clear(); err != nil {
		t.Fatal(err)
	}
	if v, err := m.Load32(16 * PageSize); err != nil || v != 0 {
		t.Errorf("%d, %v", v, err)
	}
}

func TestSparse64GiB(t *testing.T) {
	m := New()
	defer m.Close()
	if _, err := m.AddRAM(4<<30, 64<<30); err != nil {
		t.Fatal(err)
	}
	if err := m.Store64(4<<30+64<<30-8, 1); err != nil {
		t.Error(err)
	}
}
