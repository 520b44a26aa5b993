package qcow2

import (
	"math/rand/v2"
	"path/filepath"
	"sync"
	"testing"

	"berth/block"
)

// TestManyAtOnce has several goroutines work on parts of an image that share
// clusters and tables with those of the others, and flush meanwhile.
func TestManyAtOnce(t *testing.T) {
	for _, opts := range []string{"", "cluster_size=4096", "extended_l2=on", "compat=0.10,cluster_size=512", "lazy_refcounts=on,cluster_size=2097152", "refcount_bits=1,cluster_size=8192", "data_file=@"} {
		for _, backed := range []bool{false, true} {
			t.Run(testName(opts), func(t *testing.T) {
				t.Parallel()
				manyAtOnce(t, opts, backed)
			})
		}
	}
}

func manyAtOnce(t *testing.T, opts string, backed bool) {
	const workers, unit, units = 6, 1536, 700
	v := createImage(t, opts, workers*unit*units)
	img := v.open(t, block.OpenOptions{})
	want := make([]byte, img.Size())
	if backed {
		for n := range want[:len(want)/2] {
			want[n] = byte(n >> 9)
		}
		base := openTestFile(t, filepath.Join(t.TempDir(), "base"))
		if err := base.Writev([][]byte{want[:len(want)/2]}, 0, 0); err != nil {
			t.Fatal(err)
		}
		img.SetBacking(base)
	}
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() { oneOfMany(t, img, want, w, workers, unit, units) })
	}
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

// oneOfMany works on every workers-th unit.
func oneOfMany(t *testing.T, img *Image, want []byte, w, workers, unit, units int) {
	r := rand.New(rand.NewPCG(uint64(w), 7))
	for step := range 400 {
		at := (r.IntN(units)*workers + w) * unit
		part := want[at : at+unit]
		var err error
		switch r.IntN(8) {
		case 0, 1, 2, 3:
			for k := range part {
				part[k] = byte(r.Uint32())
			}
			err = img.Writev([][]byte{part}, int64(at), 0)
		case 4:
			clear(part)
			err = img.WriteZeroes(int64(at), int64(unit), block.FlagUnmap)
		case 5:
			if step%5 == 0 {
				err = img.Flush()
			}
		default:
			got := make([]byte, unit)
			if err = img.Readv([][]byte{got}, int64(at)); err == nil {
				for k := range got {
					if got[k] != part[k] {
						t.Errorf("byte %#x differs", at+k)
						return
					}
				}
			}
		}
		if err != nil {
			t.Error(err)
			return
		}
	}
}

// TestFirstWritesAtOnce has the writes that mark an image dirty, and then one
// that finds it corrupt, meet others of all kinds: for the race detector.
func TestFirstWritesAtOnce(t *testing.T) {
	for range 20 {
		i, err := openImage(createInMemory(t, "lazy_refcounts=on", 8<<20), block.OpenOptions{})
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for w := range int64(8) {
			wg.Go(func() {
				p := pattern(64 << 10)
				off := w << 20
				_ = i.WriteCompressed(p, off)
				_ = i.WriteZeroes(off+64<<10, 64<<10, 0)
				_ = i.Writev([][]byte{p}, off+128<<10, 0)
				_ = i.Discard(off, 64<<10)
				if w == 7 {
					i.mu.Lock()
					_ = i.signalCorruption("for this test")
					i.mu.Unlock()
				}
			})
		}
		wg.Wait()
		_ = i.Close()
	}
}
