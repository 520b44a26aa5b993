package mapped_test

import (
	"bytes"
	"encoding/binary"
	"errors"
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
