package blocktest

import (
	"errors"
	"math/rand/v2"
	"sync"
	"testing"

	"berth/block"
)

// ranges are [from, length): whole blocks, parts of blocks, blocks cut at either
// end, single bytes, everything.
var ranges = [][2]int{
	{1024, 40 << 10}, {512, 512}, {0, 4096}, {4096 - 512, 8192 + 1024}, {512, 4096}, {4096 + 512, 3072},
	{1, 1}, {4095, 2}, {4097, 8190}, {100, 65000}, {Size - 512, 512}, {Size - 1, 1}, {0, Size},
}

// optional passes on an error unless it says that the disk has no such operation.
func optional(t *testing.T, err error) (done bool) {
	t.Helper()
	if err != nil && !errors.Is(err, block.ErrUnsupported) {
		t.Fatal(err)
	}
	return err == nil
}

// writeZeroes clears its range, to the byte, and nothing else.
func writeZeroes(t *testing.T, d block.Disk) {
	for _, flags := range []block.Flags{0, block.FlagUnmap, block.FlagFUA, block.FlagUnmap | block.FlagFUA} {
		for _, r := range ranges {
			p := pattern(4+r[0], Size)
			write(t, d, p, 0)
			req := block.Request{Op: block.OpWriteZeroes, Flags: flags, Off: int64(r[0]), Len: int64(r[1])}
			if optional(t, Do(t, d, req)) {
				clear(p[r[0] : r[0]+r[1]])
			}
			expect(t, d, p, 0)
		}
	}
}

// discard leaves all but its range alone, and what is written there afterwards stays.
func discard(t *testing.T, d block.Disk) {
	for _, r := range ranges {
		from, to := r[0], r[0]+r[1]
		p := pattern(r[1], Size)
		write(t, d, p, 0)
		done := optional(t, Do(t, d, block.Request{Op: block.OpDiscard, Off: int64(from), Len: int64(r[1])}))
		expect(t, d, p[:from], 0)
		expect(t, d, p[to:], int64(to))
		if !done {
			expect(t, d, p, 0)
		}
		copy(p[from:to], pattern(77, r[1]))
		write(t, d, p[from:to], int64(from))
		expect(t, d, p, 0)
	}
	if d.Size() != Size {
		t.Errorf("Size() = %d after discards", d.Size())
	}
}

// zeroesBesideWrites has eight hands in every block, each with a sector of its own.
func zeroesBesideWrites(t *testing.T, d block.Disk) {
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 64 {
				p := pattern(g+i, 512)
				off := int64(i%16)*4096 + int64(g)*512
				if _, err := block.WriteAt(d, p, off); err != nil {
					t.Error(err)
				}
				if (g+i)%2 == 0 && Do(t, d, block.Request{Op: block.OpWriteZeroes, Flags: block.FlagUnmap, Off: off, Len: 512}) == nil {
					clear(p)
				}
				q := make([]byte, 512)
				if _, err := block.ReadAt(d, q, off); err != nil || string(p) != string(q) {
					t.Errorf("sector %d lost what was done to it (%v)", off/512, err)
				}
			}
		})
	}
	wg.Wait()
}

func topology(t *testing.T, d block.Disk) {
	s, ok := d.(block.Shaped)
	if !ok {
		return
	}
	x := s.Topology()
	power := func(n int) bool { return n > 0 && n&(n-1) == 0 }
	if !power(x.Logical) || x.Logical < 512 || !power(x.Physical) || x.Physical < x.Logical {
		t.Errorf("blocks of %d, %d stored at once", x.Logical, x.Physical)
	}
	if x.MinIO < x.Logical || x.MinIO%x.Logical != 0 || x.OptIO < 0 || x.OptIO%x.Logical != 0 {
		t.Errorf("at least %d, best %d, in blocks of %d", x.MinIO, x.OptIO, x.Logical)
	}
}

// randomModel compares the disk with a byte slice over a random history.
func randomModel(t *testing.T, d block.Disk) {
	rnd := rand.New(rand.NewPCG(1, 2))
	model := make([]byte, Size)
	for i := range 500 {
		n := 512 * (1 + rnd.IntN(64))
		off := 512 * rnd.IntN((Size-n)/512+1)
		if rnd.IntN(4) == 0 {
			n, off = n-rnd.IntN(512), off+rnd.IntN(2)
		}
		n = min(n, Size-off)
		r := block.Request{Flags: block.Flags(rnd.IntN(4)), Off: int64(off), Len: int64(n)}
		switch rnd.IntN(6) {
		case 0:
			expect(t, d, model[off:off+n], int64(off))
		case 1:
			if r.Op = block.OpWriteZeroes; optional(t, Do(t, d, r)) {
				clear(model[off : off+n])
			}
		case 2:
			r.Op, r.Flags = block.OpDiscard, 0
			optional(t, Do(t, d, r))
			if _, err := block.ReadAt(d, model[off:off+n], int64(off)); err != nil { // whatever it is now
				t.Fatal(err)
			}
		default:
			p := pattern(i, n)
			write(t, d, p, int64(off))
			copy(model[off:], p)
		}
	}
	expect(t, d, model, 0)
}
