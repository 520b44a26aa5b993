package qcow2

import (
	"bytes"
	"testing"

	"berth/block"
)

// TestZeroesAroundNothing writes zeros to a part of a cluster, or subcluster, in which nothing is stored: it
// becomes a zero cluster, and one in which something is stored keeps the rest.
func TestZeroesAroundNothing(t *testing.T) {
	for _, opts := range []string{"", "extended_l2=on,cluster_size=131072"} {
		t.Run(testName(opts), func(t *testing.T) {
			v := createImage(t, opts, 1<<20)
			img := v.open(t, block.OpenOptions{})
			want := make([]byte, 1<<20)
			write := func(off, n int64) {
				t.Helper()
				copy(want[off:], bytes.Repeat([]byte{7}, int(n)))
				if err := img.Writev([][]byte{want[off : off+n]}, off, 0); err != nil {
					t.Fatal(err)
				}
			}
			zero := func(off, n int64, f block.Flags) {
				t.Helper()
				clear(want[off : off+n])
				if err := img.WriteZeroes(off, n, f); err != nil {
					t.Fatal(err)
				}
			}
			write(600<<10, 512)
			zero(1000, 700, 0)
			zero(128<<10-512, 1024, block.FlagUnmap) // parts of two
			zero(256<<10+512, 128<<10, 0)
			zero(600<<10+100, 200, 0)
			zero(1<<20-1000, 500, block.FlagNoFallback)
			stored := int64(0)
			for off := int64(0); off < 1<<20; {
				e, err := img.Extent(off, 1<<20-off)
				if err != nil {
					t.Fatal(err)
				}
				if e.Data {
					stored += e.Len
				}
				off += e.Len
			}
			if stored != img.subSize {
				t.Errorf("%d bytes are stored, want %d", stored, img.subSize)
			}
			got := make([]byte, 1<<20)
			if err := img.Readv([][]byte{got}, 0); err != nil {
				t.Fatal(err)
			}
			same(t, want, got)
			if err := img.Close(); err != nil {
				t.Fatal(err)
			}
			checkClean(t, v.path)
		})
	}
}
