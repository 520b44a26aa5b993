package qcow2

import (
	"math/rand/v2"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"berth/block"
	"berth/block/blocktest"
)

// TestGrowingInUse grows images, also by a little, while others read, write,
// zero and flush them: what is added reads as zeros from the moment at which
// Size tells of it, whatever the backing image holds there, and can be used at once.
func TestGrowingInUse(t *testing.T) {
	for _, opts := range []string{"", "lazy_refcounts=on", "cluster_size=512", "extended_l2=on", "refcount_bits=1,cluster_size=4096", "data_file=@", "data_file=@,data_file_raw=on"} {
		t.Run(testName(opts), func(t *testing.T) {
			t.Parallel()
			growingInUse(t, opts)
		})
	}
}

func growingInUse(t *testing.T, opts string) {
	const workers, part, most = 4, 16 << 10, 3 << 20
	v := createImage(t, opts, workers*part)
	img := v.open(t, block.OpenOptions{})
	raw := img.hdr.rawExternal()
	if !raw {
		img.SetBacking(backing(t, most))
	}
	var done atomic.Bool
	var wg sync.WaitGroup
	want := make([]byte, workers*part)
	for w := range workers {
		wg.Go(func() {
			workWhile(t, img, want[w*part:(w+1)*part], int64(w*part), rand.New(rand.NewPCG(uint64(w), 3)), &done)
		})
	}
	wg.Go(func() { // what has come is zeros
		for !done.Load() {
			size := img.Size()
			got := make([]byte, size-workers*part)
			if err := img.Readv([][]byte{got}, workers*part); err != nil {
				t.Error(err)
				return
			}
			same(t, make([]byte, len(got)), got)
		}
	})
	r := rand.New(rand.NewPCG(9, 9))
	for size := img.Size(); size < most; {
		size += 512 * (1 + r.Int64N(300))
		mode := "off"
		if r.IntN(4) == 0 && raw {
			mode = "metadata"
		}
		if err := img.TruncatePrealloc(size, mode); err != nil {
			t.Error(err)
			break
		}
	}
	done.Store(true)
	wg.Wait()
	got := make([]byte, len(want))
	if err := img.Readv([][]byte{got}, 0); err != nil {
		t.Fatal(err)
	}
	same(t, want, got)
	if err := img.Close(); err != nil {
		t.Fatal(err)
	}
	needQEMU(t)
	checkClean(t, v.path)
}

func backing(t *testing.T, size int64) block.Image {
	base := openTestFile(t, filepath.Join(t.TempDir(), "base"))
	if err := base.Writev([][]byte{pattern(size)}, 0, 0); err != nil {
		t.Fatal(err)
	}
	return base
}

// workWhile changes want and the same bytes of img at off, which nobody else does, until done is set.
func workWhile(t *testing.T, img *Image, want []byte, off int64, r *rand.Rand, done *atomic.Bool) {
	if err := img.WriteZeroes(off, int64(len(want)), 0); err != nil {
		t.Error(err)
		return
	}
	for !done.Load() {
		at := r.IntN(len(want))
		p := want[at:min(len(want), at+1+r.IntN(6000))]
		var err error
		switch r.IntN(6) {
		case 0:
			clear(p)
			err = img.WriteZeroes(off+int64(at), int64(len(p)), block.FlagUnmap)
		case 1:
			err = img.Flush()
		default:
			for k := range p {
				p[k] = byte(r.Uint32())
			}
			err = img.Writev([][]byte{p}, off+int64(at), 0)
		}
		if err != nil {
			t.Error(err)
			return
		}
	}
}

// TestSizeTellsOfNothingUnhidden has Size asked while growing hides what the
// backing image holds behind the old end: it tells of the new end only afterwards.
func TestSizeTellsOfNothingUnhidden(t *testing.T) {
	const old, size = 100 << 10, 400 << 10
	var img *Image
	seen := int64(0)
	f := &blocktest.FaultyFile{File: createInMemory(t, "compat=0.10", old), Fail: func(blocktest.Event) error {
		if img != nil {
			seen = max(seen, img.Size())
		}
		return nil
	}}
	i, err := openImage(f, block.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	i.SetBacking(blocktest.NewMemFile(pattern(size)))
	img = i
	if err := i.Truncate(size); err != nil {
		t.Fatal(err)
	}
	if seen != old {
		t.Errorf("the size was %d before the tail was hidden", seen)
	}
	got := make([]byte, size-old)
	if err := i.Readv([][]byte{got}, old); err != nil {
		t.Fatal(err)
	}
	same(t, make([]byte, size-old), got)
}
