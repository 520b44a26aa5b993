package raw

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"berth/block"
)

func mustOpenFile(t *testing.T, path string, o FileOptions) *File {
	t.Helper()
	f, err := OpenFile(path, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// direct opens path with O_DIRECT, which tmpfs may not know.
func direct(t *testing.T, path string) *File {
	t.Helper()
	f, err := OpenFile(path, FileOptions{Direct: true})
	if errors.Is(err, unix.EINVAL) {
		t.Skip("no O_DIRECT here")
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// A random history of everything that a File does, compared with a slice of bytes.
func TestFileIsAFileWithoutAnEnd(t *testing.T) {
	open := map[string]func(t *testing.T) *File{
		"page cache": func(t *testing.T) *File { return mustOpenFile(t, image(t, 0), FileOptions{}) },
		"O_DIRECT":   func(t *testing.T) *File { return direct(t, image(t, 0)) },
	}
	for name, open := range open {
		t.Run(name, func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(7, 8))
			f := open(t)
			var model []byte
			reach := func(n int) {
				if n > len(model) {
					model = append(model, make([]byte, n-len(model))...)
				}
			}
			for i := range 400 {
				off, n := rnd.IntN(1<<20), rnd.IntN(1<<16)
				if rnd.IntN(3) == 0 {
					off, n = off&^4095, n&^4095
				}
				var err error
				switch rnd.IntN(8) {
				case 0, 1, 2:
					p := make([]byte, n)
					for i := range p {
						p[i] = byte(rnd.Uint32())
					}
					k := rnd.IntN(n + 1)
					err = f.Writev([][]byte{p[:k], nil, p[k:]}, int64(off), block.Flags(rnd.IntN(2)))
					if n > 0 {
						reach(off + n)
					}
					if n > 0 {
						copy(model[off:], p)
					}
				case 3, 4:
					err = f.WriteZeroes(int64(off), int64(n), block.Flags(rnd.IntN(4)))
					if n > 0 {
						reach(off + n)
						clear(model[off : off+n])
					}
				case 5:
					err = f.Truncate(int64(off))
					reach(off)
					model = model[:off:off]
				case 6:
					err = f.Preallocate(int64(len(model)), int64(n), rnd.IntN(4) == 0)
					reach(len(model) + n)
				case 7:
					err = f.Flush()
				}
				if err != nil {
					t.Fatal(err)
				}
				if f.Size() != int64(len(model)) {
					t.Fatalf("step %d: %d bytes long, want %d", i, f.Size(), len(model))
				}
				off, n = rnd.IntN(1<<20), rnd.IntN(1<<18)
				p := bytes.Repeat([]byte{0xa5}, n)
				k := rnd.IntN(n + 1)
				if err := f.Readv([][]byte{p[:k], p[k:]}, int64(off)); err != nil {
					t.Fatal(err)
				}
				want := make([]byte, n)
				if off < len(model) {
					copy(want, model[off:])
				}
				if !bytes.Equal(p, want) {
					t.Fatalf("step %d: %d bytes at %d differ", i, n, off)
				}
			}
			if info, err := f.OSFile().Stat(); err != nil || info.Size() != int64(len(model)) {
				t.Errorf("the file is %d bytes long (%v), want %d", info.Size(), err, len(model))
			}
		})
	}
}

func TestFileExtents(t *testing.T) {
	f := mustOpenFile(t, image(t, 0), FileOptions{})
	if err := f.Writev([][]byte{bytes.Repeat([]byte{1}, 64<<10)}, 1<<20, 0); err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(4 << 20); err != nil {
		t.Fatal(err)
	}
	if e, err := f.Extent(0, 4<<20); err != nil || e.Data {
		t.Skipf("a file system that does not tell holes: %+v, %v", e, err)
	}
	for _, c := range []struct {
		off, n int64
		want   block.Extent
	}{
		{0, 8 << 20, block.Extent{Len: 1 << 20, Allocated: true, Zero: true, HasOffset: true}},
		{1 << 20, 8 << 20, block.Extent{Len: 64 << 10, Allocated: true, Data: true, HasOffset: true, Off: 1 << 20}},
		{1 << 20, 4096, block.Extent{Len: 4096, Allocated: true, Data: true, HasOffset: true, Off: 1 << 20}},
		{1<<20 + 64<<10, 8 << 20, block.Extent{Len: 3<<20 - 64<<10, Allocated: true, Zero: true, HasOffset: true, Off: 1<<20 + 64<<10, EOF: true}},
		{4 << 20, 100, block.Extent{Len: 100, Zero: true, EOF: true}},
	} {
		if e, err := f.Extent(c.off, c.n); err != nil || e != c.want {
			t.Errorf("Extent(%d, %d) = %+v, %v; want %+v", c.off, c.n, e, err, c.want)
		}
	}
}

func TestFileThatIsReadOnly(t *testing.T) {
	f := mustOpenFile(t, image(t, 4096), FileOptions{ReadOnly: true})
	for name, err := range map[string]error{
		"write":       f.Writev([][]byte{make([]byte, 1)}, 0, 0),
		"zeroes":      f.WriteZeroes(0, 1, 0),
		"discard":     f.Discard(0, 1),
		"truncate":    f.Truncate(0),
		"preallocate": f.Preallocate(0, 1, false),
	} {
		if !errors.Is(err, block.ErrReadOnly) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestFileOfAbsurdOffsets(t *testing.T) {
	f := mustOpenFile(t, image(t, 4096), FileOptions{})
	p := [][]byte{make([]byte, 512)}
	const top = 1<<63 - 256
	for name, err := range map[string]error{
		"write":            f.Writev(p, top, 0),
		"write before it":  f.Writev(p, -1, 0),
		"read before it":   f.Readv(p, -1),
		"zeroes":           f.WriteZeroes(top, 512, 0),
		"discard":          f.Discard(top, 512),
		"truncate":         f.Truncate(-1),
		"zeroes before it": f.WriteZeroes(-512, 512, 0),
	} {
		if !errors.Is(err, block.ErrRange) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestFileGrowsFromManySidesAtOnce(t *testing.T) {
	f := mustOpenFile(t, image(t, 0), FileOptions{})
	errs := make(chan error)
	for g := range 16 {
		go func() {
			var err error
			for i := range 32 {
				off := int64(i*16+g) * 4096
				if i%4 == 3 {
					err = errors.Join(err, f.WriteZeroes(off, 4096, block.FlagUnmap))
				} else {
					err = errors.Join(err, f.Writev([][]byte{bytes.Repeat([]byte{byte(g + 1)}, 4096)}, off, 0))
				}
			}
			errs <- err
		}()
	}
	for range 16 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	p := make([]byte, 16*32*4096)
	if err := f.Readv([][]byte{p}, 0); err != nil || f.Size() != int64(len(p)) {
		t.Fatalf("%d bytes: %v", f.Size(), err)
	}
	for n := range len(p) / 4096 {
		want := byte(n%16 + 1)
		if n/16%4 == 3 {
			want = 0
		}
		if p[n*4096] != want || p[n*4096+4095] != want {
			t.Errorf("block %d was lost", n)
		}
	}
}

func TestAFIFOIsNotWaitedFor(t *testing.T) {
	path := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Use(f, FileOptions{ReadOnly: true}); err == nil {
		t.Error("a FIFO was taken for a disk")
	}
}

func TestCopyRangeIsAReadAndAWrite(t *testing.T) {
	from, to := mustOpenFile(t, image(t, 0), FileOptions{}), mustOpenFile(t, image(t, 0), FileOptions{})
	p := make([]byte, 300<<10+17)
	for i := range p {
		p[i] = byte(i * 7)
	}
	if err := from.Writev([][]byte{p}, 0, 0); err != nil {
		t.Fatal(err)
	}
	if err := to.Writev([][]byte{bytes.Repeat([]byte{9}, 1<<20)}, 0, 0); err != nil {
		t.Fatal(err)
	}
	const n = 400 << 10 // past the end of from
	if err := to.CopyRange(from, 5, 4096+3, n); errors.Is(err, block.ErrUnsupported) {
		t.Skip("not on this file system")
	} else if err != nil {
		t.Fatal(err)
	}
	want := bytes.Repeat([]byte{9}, 1<<20)
	clear(want[4096+3 : 4096+3+n])
	copy(want[4096+3:], p[5:])
	got := make([]byte, 1<<20)
	if err := to.Readv([][]byte{got}, 0); err != nil || !bytes.Equal(got, want) || to.Size() != 1<<20 {
		t.Errorf("%v, %d bytes long, equal: %v", err, to.Size(), bytes.Equal(got, want))
	}
	if err := to.CopyRange(from, 0, 2<<20, 4096); err != nil || to.Size() != 2<<20+4096 {
		t.Errorf("past the end: %v, %d bytes long", err, to.Size())
	}
}
