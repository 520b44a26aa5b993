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

// TestZeroesToTheEnd gives the last cluster back, though the image ends within it and it has subclusters.
func TestZeroesToTheEnd(t *testing.T) {
	for _, opts := range []string{"", "extended_l2=on,cluster_size=131072"} {
		v := createImage(t, opts, 300<<10)
		img := v.open(t, block.OpenOptions{})
		if err := img.Writev([][]byte{bytes.Repeat([]byte{7}, 300<<10)}, 0, 0); err != nil {
			t.Fatal(err)
		}
		if err := img.WriteZeroes(300<<10-512, 512, 0); err != nil { // less than its last subcluster
			t.Fatal(err)
		}
		from := img.clusterOf(300<<10 - 1)
		if err := img.WriteZeroes(from, 300<<10-from, block.FlagUnmap); err != nil {
			t.Fatal(err)
		}
		if e, err := img.Extent(from, 300<<10-from); err != nil || !e.Zero || e.HasOffset || e.Len != 300<<10-from {
			t.Errorf("%s: %+v, %v", opts, e, err)
		}
		if err := img.Close(); err != nil {
			t.Fatal(err)
		}
		checkClean(t, v.path)
	}
}

// TestZeroesOfCompressedToTheEnd makes a part of a compressed cluster zero, in which the image ends.
func TestZeroesOfCompressedToTheEnd(t *testing.T) {
	const size = 300 << 10
	v := createImage(t, "extended_l2=on,cluster_size=131072", size)
	img := v.open(t, block.OpenOptions{})
	want := make([]byte, size)
	copy(want[256<<10:], bytes.Repeat([]byte{7}, 44<<10))
	if err := img.WriteCompressed(want[256<<10:], 256<<10); err != nil {
		t.Fatal(err)
	}
	clear(want[280<<10:])
	if err := img.WriteZeroes(280<<10, 20<<10, block.FlagUnmap); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, size)
	if err := img.Readv([][]byte{got}, 0); err != nil {
		t.Fatal(err)
	}
	same(t, want, got)
	if err := img.Close(); err != nil {
		t.Fatal(err)
	}
	checkClean(t, v.path)
}
