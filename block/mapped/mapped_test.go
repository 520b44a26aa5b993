package mapped_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"syscall"
	"testing"

	"berth/block"
	"berth/block/blocktest"
	"berth/block/mapped"
)

// TestCacheIsBounded reads, in an order that defeats it, what a cache does not hold.
func TestCacheIsBounded(t *testing.T) {
	b := make([]byte, 4<<20)
	for i := 0; i < len(b); i += 4 {
		binary.LittleEndian.PutUint32(b[i:], uint32(i))
	}
	c := mapped.NewCache(blocktest.NewMemFile(b))
	for i := range 1000 {
		off := int64(i*7919*4) % int64(len(b))
		if v, err := c.Uint32(off, binary.LittleEndian); err != nil || v != uint32(off) {
			t.Fatalf("at %d: %d %v", off, v, err)
		}
	}
	p := make([]byte, 40000)
	if err := c.ReadAt(p, 16<<10-7); err != nil || !bytes.Equal(p, b[16<<10-7:][:len(p)]) {
		t.Errorf("across blocks: %v", err)
	}
	if v, err := c.Uint64(int64(len(b)), binary.BigEndian); err != nil || v != 0 {
		t.Errorf("past the end: %d %v", v, err)
	}
	if err := c.ReadAt(p, -1); !errors.Is(err, block.ErrRange) {
		t.Errorf("before the beginning: %v", err)
	}
}

// TestCachesOfOneImageShareMemory: each still reads its own file.
func TestCachesOfOneImageShareMemory(t *testing.T) {
	a := mapped.NewCache(blocktest.NewMemFile(bytes.Repeat([]byte{1}, 100<<10)))
	b := a.Of(blocktest.NewMemFile(bytes.Repeat([]byte{2}, 100<<10)))
	for range 3 {
		for off := int64(0); off < 100<<10; off += 10 << 10 {
			v, err := a.Uint32(off, binary.LittleEndian)
			w, err2 := b.Uint32(off, binary.LittleEndian)
			if v != 0x01010101 || w != 0x02020202 || err != nil || err2 != nil {
				t.Fatalf("at %d: %#x %#x %v %v", off, v, w, err, err2)
			}
		}
	}
}

type one struct{ f block.File }

func (o one) Run(off, n int64) (mapped.Run, error) {
	return mapped.Run{Len: n, Kind: mapped.Data, File: o.f, Off: off, Recurse: off >= 4096}, nil
}

// TestDataBeyondTheEnd: a run that begins in the file and ends behind it is an
// error, as is one of data whose file may know that it is zeros. Of the last
// sector, what is missing are zeros.
func TestDataBeyondTheEnd(t *testing.T) {
	i := mapped.New(one{blocktest.NewMemFile(make([]byte, 8000))}, 1<<20)
	for _, c := range []struct {
		off, n int64
		fails  bool
	}{{0, 8000, false}, {0, 8192, false}, {0, 8193, true}, {8191, 1, false}, {8192, 1, true}, {4096, 1 << 19, true}} {
		if err := i.Readv([][]byte{make([]byte, c.n)}, c.off); errors.Is(err, syscall.EIO) != c.fails || (err != nil) != c.fails {
			t.Errorf("%d bytes at %d: %v", c.n, c.off, err)
		}
	}
	for off := int64(4096); off < 1<<20; {
		e, err := i.Extent(off, 1<<20-off)
		if err != nil || e.Zero && off+e.Len > 8192 {
			t.Fatalf("at %d: %+v, %v: what is lost is called zeros", off, e, err)
		}
		off += e.Len
	}
}

func TestCutLeavesWhatItDivides(t *testing.T) {
	iov := [][]byte{[]byte("abc"), []byte("defg"), []byte("h")}
	for n := range int64(9) {
		head, tail := mapped.Cut(iov, n)
		if h, all := bytes.Join(head, nil), bytes.Join(append(head[:len(head):len(head)], tail...), nil); int64(len(h)) != n || string(all) != "abcdefgh" {
			t.Errorf("after %d: %q of %q", n, h, all)
		}
	}
	if string(bytes.Join(iov, nil)) != "abcdefgh" || len(iov[1]) != 4 {
		t.Error("what was divided has changed")
	}
}

func TestScanStaysInTheFile(t *testing.T) {
	f := blocktest.NewMemFile(make([]byte, 200<<10))
	var n int
	if err := mapped.Scan(f, 100, 199<<10, func(p []byte) error { n += len(p); return nil }); err != nil || n != 199<<10 {
		t.Errorf("%d %v", n, err)
	}
	for _, r := range [][2]int64{{-1, 1}, {1, 200 << 10}, {1 << 62, 1 << 62}, {0, -1}} {
		if err := mapped.Scan(f, r[0], r[1], func([]byte) error { return nil }); err == nil {
			t.Errorf("%d bytes at %d: no error", r[1], r[0])
		}
	}
}
