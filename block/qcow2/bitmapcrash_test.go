package qcow2

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"berth/block"
	"berth/block/blocktest"
)

// The power fails while an image with bitmaps is used and closed: what they say
// is true, or they are marked in use, and the image has leaks at most.
func TestBitmapsCutOff(t *testing.T) {
	needQEMU(t)
	for _, opts := range []string{"", "cluster_size=512", "cluster_size=4096,refcount_bits=1"} {
		t.Run(testName(opts), func(t *testing.T) {
			t.Parallel()
			for seed := range 4 * *seeds {
				bitmapsCutOff(t, opts, rand.New(rand.NewPCG(uint64(seed), 23)))
			}
		})
	}
}

func bitmapsCutOff(t *testing.T, opts string, r *rand.Rand) {
	const granularity = 512
	before := createInMemory(t, opts, 200<<10)
	log := &blocktest.Log{}
	f := log.Record("image", before.Clone())
	want := make([]byte, 200<<10)
	m := &model{granularity: granularity, on: true}
	m.resize(int64(len(want)))
	type point struct {
		events int
		spans  string // what was dirty when the image had been closed
	}
	var closed []point
	var used [][2]int // the events after which the image was open, and was about to be closed
	for round := range 5 {
		img, err := openImage(f, block.OpenOptions{})
		if err != nil {
			t.Fatal(err)
		}
		from := log.Len()
		switch round {
		case 0:
			err = img.AddBitmap(block.BitmapInfo{Name: "b", Granularity: granularity, Auto: true})
		case 2:
			clear(m.bits)
			err = img.ClearBitmap("b")
		}
		if err != nil {
			t.Fatal(err)
		}
		for range 5 {
			off := r.Int64N(int64(len(want))) &^ 511
			n := min(int64(len(want))-off, 512+r.Int64N(20<<10))
			if err := img.Writev([][]byte{want[off : off+n]}, off, 0); err != nil {
				t.Fatal(err)
			}
			m.mark(off, n)
		}
		if round > 0 {
			used = append(used, [2]int{from, log.Len()})
		}
		img.mu.Lock()
		err = img.inactivate()
		img.mu.Unlock()
		if err == nil {
			err = f.Flush()
		}
		if err != nil {
			t.Fatal(err)
		}
		closed = append(closed, point{log.Len(), fmt.Sprint(m.spans())})
	}
	events := log.Events()
	for _, u := range used {
		cut := blocktest.RandomCut(r, len(events))
		cut.At = u[0] + r.IntN(u[1]-u[0]+1)
		at, err := cut.Apply(r, before, "image", events)
		if err != nil {
			t.Fatal(err)
		}
		img, err := openImage(at, block.OpenOptions{ReadOnly: true})
		if err != nil {
			t.Fatalf("cut %+v: %v", cut, err)
		}
		if b := img.Bitmaps(); len(b) != 1 || !b[0].InUse {
			t.Fatalf("cut %+v while the bitmap recorded: it comes back as %+v", cut, b)
		}
	}
	for range 14 {
		cut := blocktest.RandomCut(r, len(events))
		at, err := cut.Apply(r, before, "image", events)
		if err != nil {
			t.Fatal(err)
		}
		what := fmt.Sprintf("cut %+v", cut)
		img, err := openImage(at.Clone(), block.OpenOptions{ReadOnly: true})
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if b := img.Bitmaps(); len(b) > 0 && !b[0].InUse {
			got, known := fmt.Sprint(dirtyByUs(t, img, "b")), false
			for k, p := range closed {
				// True at the close before the cut, or at the one that the cut is in.
				known = known || got == p.spans && (p.events >= cut.At || k == len(closed)-1 || closed[k+1].events > cut.At)
			}
			if !known {
				t.Fatalf("%s: the bitmap says %s, which is of no close", what, got)
			}
		}
		leaksAtMost(t, at, what)
	}
}

// L1 tables that overlap, and refer to the same L2 tables thousands of times,
// take no more time to check than there is to read, and little memory.
func TestCheckOfAnImageThatSharesEverything(t *testing.T) {
	v := createImage(t, "cluster_size=512", 1<<20)
	i := v.open(t, block.OpenOptions{})
	if err := i.Writev([][]byte{make([]byte, 1<<20)}, 0, 0); err != nil {
		t.Fatal(err)
	}
	l1, size := i.hdr.l1Offset, i.hdr.l1Size
	i.Close()
	list := make([]snapshotEntry, 20000)
	for k := range list {
		list[k] = snapshotEntry{id: fmt.Sprint(k), l1Offset: l1, l1Size: size, diskSize: 1 << 20}
	}
	b, err := encodeSnapshots(list)
	if err != nil {
		t.Fatal(err)
	}
	f := openTestFile(t, v.path)
	defer f.Close()
	at := (f.Size() + 511) &^ 511
	if err := writeFull(f, b, at); err != nil {
		t.Fatal(err)
	}
	var h [12]byte
	be.PutUint32(h[:], uint32(len(list)))
	be.PutUint64(h[4:], uint64(at))
	if err := writeFull(f, h[:], 60); err != nil {
		t.Fatal(err)
	}
	got := ours(t, v.path, 0)
	if got.err || got.res.Corruptions == 0 {
		t.Errorf("%+v", got.res)
	}
	// The active table cannot be corrected where it is an inactive one, too.
	if got := ours(t, v.path, block.FixAll); got.res.CorruptionsFixed == 0 {
		t.Errorf("%+v", got.res)
	}
}
