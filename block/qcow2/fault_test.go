package qcow2

import (
	"bytes"
	"errors"
	"syscall"
	"testing"

	"berth/block"
	"berth/block/blocktest"
)

// unzeroable is a file that has no room for zeros while full is set.
type unzeroable struct {
	*blocktest.MemFile
	full bool
}

func (f *unzeroable) WriteZeroes(off, n int64, fl block.Flags) error {
	if f.full {
		return syscall.ENOSPC
	}
	return f.MemFile.WriteZeroes(off, n, fl)
}

// Discard does nothing, as it may: what is freed keeps its contents.
func (f *unzeroable) Discard(int64, int64) error { return nil }

// TestFailedPreallocationShowsNothingOld grows an image over clusters that were
// freed, on a file that cannot make them zero: what they held never shows.
func TestFailedPreallocationShowsNothingOld(t *testing.T) {
	const size = 2 << 20
	f := &unzeroable{MemFile: createInMemory(t, "", size)}
	i, err := open(f, block.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	img := i.(*Image)
	old := bytes.Repeat([]byte{0xaa}, size)
	for _, step := range []func() error{
		func() error { return img.Writev([][]byte{old[64<<10:]}, 64<<10, 0) },
		func() error { return img.Writev([][]byte{old[:64<<10]}, 0, 0) }, // the file's last cluster, so that it stays as long
		func() error { return img.Truncate(64 << 10) },
		img.Flush,
	} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
	f.full = true
	if err := img.TruncatePrealloc(size, "metadata"); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("growing without room: %v", err)
	}
	f.full = false
	if err := img.Truncate(size); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, size)
	if err := img.Readv([][]byte{got}, 0); err != nil {
		t.Fatal(err)
	}
	if i := bytes.IndexByte(got[64<<10:], 0xaa); i >= 0 {
		t.Errorf("byte %d shows what was freed", 64<<10+i)
	}
	if err := img.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestCorruptImageFlushesNothing: what was written before the corruption was met
// may be held in memory, so a flush must not say that it is safe.
func TestCorruptImageFlushesNothing(t *testing.T) {
	i, err := open(createInMemory(t, "", 1<<20), block.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	img := i.(*Image)
	if err := img.Writev([][]byte{make([]byte, 512)}, 0, 0); err != nil {
		t.Fatal(err)
	}
	img.mu.Lock()
	_ = img.signalCorruption("for this test")
	img.mu.Unlock()
	if err := img.Flush(); err == nil {
		t.Error("a flush of a corrupt image succeeds")
	}
	_ = img.Close()
}

// landing is a file whose write at a place gets there, once, and is said to have failed.
type landing struct {
	*blocktest.MemFile
	at int64
}

func (f *landing) Writev(iov [][]byte, off int64, fl block.Flags) error {
	err := f.MemFile.Writev(iov, off, fl)
	if err == nil && off == f.at {
		f.at = -1
		return syscall.EIO
	}
	return err
}

// TestFailedGrowthLeavesTheOldTable has the header's naming of a larger L1 table
// arrive and be said to have failed: what is flushed afterwards is in the table that the header names.
func TestFailedGrowthLeavesTheOldTable(t *testing.T) {
	f := &landing{createInMemory(t, "cluster_size=512", 1<<20), -1}
	img, err := openImage(f, block.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	f.at = 24 // of the size and the L1 table's place
	if err := img.Truncate(8 << 20); !errors.Is(err, syscall.EIO) {
		t.Fatalf("growing: %v", err)
	}
	want := pattern(512)
	if err := errors.Join(img.Writev([][]byte{want}, 900<<10, 0), img.Flush()); err != nil {
		t.Fatal(err)
	}
	after, err := openImage(f.Clone(), block.OpenOptions{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 512)
	if err := after.Readv([][]byte{got}, 900<<10); err != nil {
		t.Fatal(err)
	}
	same(t, want, got)
}
