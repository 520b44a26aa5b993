package blocktest

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"berth/block"
)

func TestMemFile(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	m, want := NewMemFile(nil), []byte{}
	grow := func(n int) {
		if n > len(want) {
			want = append(want, make([]byte, n-len(want))...)
		}
	}
	for i := range 2000 {
		off, n := r.IntN(50000), r.IntN(20000)
		switch r.IntN(5) {
		case 0, 1:
			p := pattern(i, n)
			if err := m.Writev([][]byte{p[:n/3], p[n/3:]}, int64(off), 0); err != nil {
				t.Fatal(err)
			}
			if n > 0 {
				grow(off + n)
			}
			copy(want[min(off, len(want)):], p)
		case 2:
			if err := m.WriteZeroes(int64(off), int64(n), 0); err != nil {
				t.Fatal(err)
			}
			grow(off + n)
			clear(want[off : off+n])
		case 3:
			if err := m.Discard(int64(off), int64(n)); err != nil {
				t.Fatal(err)
			}
			if off < len(want) {
				clear(want[off:min(off+n, len(want))])
			}
		case 4:
			if err := m.Truncate(int64(off)); err != nil {
				t.Fatal(err)
			}
			grow(off)
			want = want[:off:off]
		}
		if got := m.Bytes(); !bytes.Equal(got, want) {
			t.Fatalf("step %d: contents differ", i)
		}
	}
}

func TestCutKeepsWhatWasFlushed(t *testing.T) {
	r := rand.New(rand.NewPCG(2, 2))
	for range 500 {
		before, log := NewMemFile(nil), &Log{}
		f := log.Record("image", before.Clone())
		last := map[int64][]byte{} // by sector: what may be there
		for i := range 40 {
			if r.IntN(5) == 0 {
				if err := f.Flush(); err != nil {
					t.Fatal(err)
				}
			}
			if err := f.Writev([][]byte{bytes.Repeat([]byte{byte(i + 1)}, Sector*(1+r.IntN(3)))}, int64(r.IntN(8))*Sector, block.Flags(r.IntN(2))); err != nil {
				t.Fatal(err)
			}
		}
		cut := RandomCut(r, log.Len())
		got, err := cut.Apply(r, before, "image", log.Events())
		if err != nil {
			t.Fatal(err)
		}
		flushed := 0
		for i, e := range log.Events()[:cut.At] {
			if e.Act == ActFlush {
				flushed = i
			}
		}
		for i, e := range log.Events()[:cut.At] {
			for s := e.Off / Sector; e.Act == ActWrite && s < (e.Off+e.Len)/Sector; s++ {
				if last[s] == nil {
					last[s] = []byte{0}
				}
				if i < flushed || e.FUA {
					last[s] = nil
				}
				last[s] = append(last[s], e.Data[0])
			}
		}
		for s, may := range last {
			p := make([]byte, Sector)
			if err := got.Readv([][]byte{p}, s*Sector); err != nil {
				t.Fatal(err)
			}
			if !bytes.Contains(may, p[:1]) || !bytes.Equal(p, bytes.Repeat(p[:1], Sector)) {
				t.Fatalf("sector %d holds %d, which is none of %d", s, p[0], may)
			}
		}
	}
}
