package qcow2

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"testing"

	"berth/block"
	"berth/block/blocktest"
)

// TestEmptyingCutKeepsExternalData cuts the emptying of a committed image whose
// data lies in a file of its own: each of its clusters is still there or shows
// the backing image, which has the same; none is discarded that is still named.
func TestEmptyingCutKeepsExternalData(t *testing.T) {
	const size = 300 << 10
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 5))
		c := &cutImage{opts: "cluster_size=4096,data_file=d", backing: pattern(size), log: &blocktest.Log{}}
		c.meta, c.data = blocktest.NewMemFile(nil), blocktest.NewMemFile(nil)
		data := c.data.Clone()
		if err := create(c.meta, block.Creation{Values: parseOptions(c.opts, size), Data: data}); err != nil {
			t.Fatal(err)
		}
		i, err := c.open(c.log.Record("image", c.meta.Clone()), c.log.Record("data file", data.Clone()), block.OpenOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for range 5 {
			off := r.Int64N(size)
			n := min(size-off, 1+r.Int64N(40<<10))
			if err := i.Writev([][]byte{c.backing[off : off+n]}, off, 0); err != nil {
				t.Fatal(err)
			}
		}
		if err := i.Flush(); err != nil {
			t.Fatal(err)
		}
		start := c.log.Len()
		if err := i.MakeEmpty(); err != nil {
			t.Fatal(err)
		}
		for at := start; at <= c.log.Len(); at++ {
			cut := blocktest.Cut{At: at, Keep: []float64{0, 0.5, 1}[r.IntN(3)]}
			meta, err := cut.Apply(r, c.meta, "image", c.log.Events())
			left, e := cut.Apply(r, c.data, "data file", c.log.Events())
			if err := errors.Join(err, e); err != nil {
				t.Fatal(err)
			}
			o, err := c.open(meta, left, block.OpenOptions{ReadOnly: true})
			if err != nil {
				t.Fatal(err)
			}
			got := make([]byte, size)
			if err := o.Readv([][]byte{got}, 0); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, c.backing) {
				t.Fatalf("seed %d, %+v of %d: something else is read", seed, cut, c.log.Len())
			}
		}
	}
}

// undiscardable is a file that keeps what is discarded, as it may.
type undiscardable struct{ *blocktest.MemFile }

func (undiscardable) Discard(int64, int64) error { return block.ErrUnsupported }

// TestDiscardKeepsRawFileTrue discards in an image whose data file is to stay
// valid as a raw image, where the storage knows no discard: both read as zeros.
func TestDiscardKeepsRawFileTrue(t *testing.T) {
	const size = 300<<10 + 512
	meta, data := blocktest.NewMemFile(nil), undiscardable{blocktest.NewMemFile(nil)}
	if err := create(meta, block.Creation{Values: parseOptions("data_file=d,data_file_raw=on", size), Data: undiscardable{data.Clone()}}); err != nil {
		t.Fatal(err)
	}
	i, err := openImage(meta, block.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	i.SetDataFile(data)
	if err := errors.Join(i.Writev([][]byte{pattern(size)}, 0, 0), i.Discard(0, 64<<10), i.Discard(256<<10, size-256<<10)); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, size)
	if err := errors.Join(i.Readv([][]byte{got}, 0), i.Flush()); err != nil {
		t.Fatal(err)
	}
	same(t, got, data.Bytes())
}
