package raw

import (
	"bytes"
	"errors"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"berth/block"
	"berth/block/blocktest"
	"berth/block/pool"
)

// stored returns how many bytes of storage the file at path has.
func stored(t *testing.T, path string) int64 {
	t.Helper()
	var st syscall.Stat_t
	if err := syscall.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st.Blocks * 512
}

// full is a disk of 4 MiB of ones that has all its storage.
func full(t *testing.T, o options) (*pool.Disk, string) {
	t.Helper()
	path := image(t, 4<<20)
	d := mustOpen(t, path, o)
	t.Cleanup(func() { d.Close() })
	if _, err := block.WriteAt(d, bytes.Repeat([]byte{1}, 4<<20), 0); err != nil {
		t.Fatal(err)
	}
	if err := block.Flush(d); err != nil {
		t.Fatal(err)
	}
	if n := stored(t, path); n < 4<<20 {
		t.Fatalf("%d bytes of storage", n)
	}
	return d, path
}

func contents(t *testing.T, d block.Disk) []byte {
	t.Helper()
	p := make([]byte, d.Size())
	if _, err := block.ReadAt(d, p, 0); err != nil {
		t.Fatal(err)
	}
	return p
}

func TestDiscardAndUnmapFreeStorage(t *testing.T) {
	for _, r := range []block.Request{
		{Op: block.OpDiscard, Off: 1 << 20, Len: 2 << 20},
		{Op: block.OpWriteZeroes, Flags: block.FlagUnmap, Off: 1 << 20, Len: 2 << 20},
	} {
		d, path := full(t, options{Discard: true})
		err := blocktest.Do(t, d, r)
		if errors.Is(err, block.ErrUnsupported) {
			t.Skip("a file system without holes")
		}
		if n := stored(t, path); err != nil || n > 2<<20+64<<10 {
			t.Errorf("op %d: %v, %d bytes of storage left", r.Op, err, n)
		}
		if p := contents(t, d); bytes.Count(p, []byte{1}) != 2<<20 || bytes.Count(p[1<<20:3<<20], []byte{0}) != 2<<20 {
			t.Errorf("op %d: the wrong bytes are gone", r.Op)
		}
	}
}

// discard=ignore: the guest may say what it likes, the image keeps its storage.
func TestStorageIsKeptUnlessDiscardsAreWanted(t *testing.T) {
	d, path := full(t, options{})
	for _, r := range []block.Request{
		{Op: block.OpDiscard, Len: 4 << 20},
		{Op: block.OpWriteZeroes, Flags: block.FlagUnmap, Len: 1 << 20},
		{Op: block.OpWriteZeroes, Off: 1 << 20, Len: 1 << 20},
	} {
		if err := blocktest.Do(t, d, r); err != nil {
			t.Errorf("op %d: %v", r.Op, err)
		}
	}
	if n := stored(t, path); n < 4<<20 {
		t.Errorf("%d bytes of storage left", n)
	}
	if p := contents(t, d); bytes.Count(p[:2<<20], []byte{0}) != 2<<20 || bytes.Count(p[2<<20:], []byte{1}) != 2<<20 {
		t.Error("the wrong bytes are zero")
	}
}

// The last sector of a file that does not fill it.
func TestZeroesPastTheEndOfTheFile(t *testing.T) {
	f := mustOpenFile(t, image(t, 1000), FileOptions{})
	defer f.Close()
	for _, flags := range []block.Flags{0, block.FlagUnmap} {
		if err := f.Writev([][]byte{bytes.Repeat([]byte{1}, 1000)}, 0, 0); err != nil {
			t.Fatal(err)
		}
		if err := f.WriteZeroes(512, 512, flags); err != nil {
			t.Error(err)
		}
		p := make([]byte, 1024)
		if err := f.Readv([][]byte{p}, 0); err != nil || bytes.Count(p[:512], []byte{1}) != 512 || bytes.Count(p[512:], []byte{0}) != 512 {
			t.Errorf("flags %d: the wrong bytes are zero (%v)", flags, err)
		}
	}
}

func TestCannot(t *testing.T) {
	if cannot(nil) || cannot(unix.EIO) || cannot(unix.ENOSPC) || !cannot(unix.EOPNOTSUPP) {
		t.Error("what is an error, and what is not")
	}
}

func TestTopologyOfAFile(t *testing.T) {
	d := mustOpen(t, image(t, 4096), options{})
	defer d.Close()
	if x := d.Topology(); x.Logical != 512 || x.Physical != x.MinIO || x.OptIO != 0 {
		t.Errorf("%+v", x)
	}
	for _, c := range [][3]int{{4096, 512, 4096}, {0, 512, 512}, {-1, 512, 512}, {3000, 512, 512}, {1 << 20, 512, 512}, {512, 4096, 4096}} {
		if got := blockSize(int64(c[0]), c[1]); got != c[2] {
			t.Errorf("blockSize(%d, %d) = %d", c[0], c[1], got)
		}
	}
}

// A write of part of a block past the page cache rewrites the block: zeroes beside it must stay.
func TestZeroesBesideARewrittenBlock(t *testing.T) {
	f := direct(t, image(t, 4096))
	f.align = 4096
	ones := alignedBuffer(4096, 4096)
	for i := range ones {
		ones[i] = 1
	}
	for range 300 {
		if err := f.Writev([][]byte{ones}, 0, 0); err != nil {
			t.Fatal(err)
		}
		written := make(chan error)
		go func() { written <- f.Writev([][]byte{ones[:512]}, 0, 0) }()
		if err := errors.Join(f.WriteZeroes(512, 512, 0), <-written); err != nil {
			t.Fatal(err)
		}
		p := make([]byte, 4096)
		if err := f.Readv([][]byte{p}, 0); err != nil || bytes.Count(p[512:1024], []byte{0}) != 512 {
			t.Fatalf("the zeroes are gone (%v)", err)
		}
	}
}
