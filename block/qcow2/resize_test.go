package qcow2

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"berth/block"
)

// TestResizing grows and shrinks images between other operations: what comes
// back into the image reads as zeros, even where the backing image has more.
func TestResizing(t *testing.T) {
	needQEMU(t)
	for _, opts := range variants {
		for _, backed := range []bool{false, true} {
			if backed && (strings.Contains(opts, "preallocation") || strings.Contains(opts, "raw")) {
				continue
			}
			t.Run(testName(fmt.Sprintf("%s,backed=%v", opts, backed)), func(t *testing.T) {
				t.Parallel()
				for seed := range *seeds {
					resizing(t, opts, backed, rand.New(rand.NewPCG(uint64(seed), 55)))
				}
			})
		}
	}
}

func resizing(t *testing.T, opts string, backed bool, r *rand.Rand) {
	const most = 900 << 10
	want := make([]byte, most/2)
	base := filepath.Join(t.TempDir(), "base.raw")
	if backed {
		b := bytes.Repeat([]byte("backing."), most/8)
		copy(want, b)
		if err := os.WriteFile(base, b, 0o644); err != nil {
			t.Fatal(err)
		}
		opts = strings.TrimPrefix(opts+",backing_file="+base+",backing_fmt=raw", ",")
	}
	v := createImage(t, opts, most/2)
	for range 5 {
		img := v.open(t, block.OpenOptions{})
		if backed {
			img.SetBacking(openTestFile(t, base))
		}
		for range 12 {
			size := (1 + r.IntN(most/512)) * 512
			mode := "off"
			if size > len(want) && !backed && r.IntN(3) == 0 {
				mode = []string{"metadata", "falloc", "full"}[r.IntN(3)]
			}
			if err := img.TruncatePrealloc(int64(size), mode); err != nil {
				t.Fatalf("from %d to %d, %s: %v", len(want), size, mode, err)
			}
			want = append(want[:min(size, len(want)):min(size, len(want))], make([]byte, max(0, size-len(want)))...)
			for range r.IntN(6) {
				oneOperation(t, img, want, r)
			}
			got := make([]byte, size)
			if err := img.Readv([][]byte{got}, 0); err != nil {
				t.Fatal(err)
			}
			same(t, want, got)
		}
		if err := img.Close(); err != nil {
			t.Fatal(err)
		}
		checkClean(t, v.path)
		out := filepath.Join(t.TempDir(), "out")
		qemu(t, "qemu-img", "convert", "-O", "raw", v.path, out)
		same(t, want, readFile(t, out))
	}
}

// TestMakeEmpty empties images with and without a backing image.
func TestMakeEmpty(t *testing.T) {
	needQEMU(t)
	for _, opts := range variants {
		if strings.Contains(opts, "data_file") {
			continue
		}
		t.Run(testName(opts), func(t *testing.T) {
			v := createImage(t, opts, 400<<10)
			img := v.open(t, block.OpenOptions{})
			want := make([]byte, img.Size())
			r := rand.New(rand.NewPCG(1, 1))
			for range 40 {
				oneOperation(t, img, want, r)
			}
			if err := img.MakeEmpty(); err != nil {
				t.Fatal(err)
			}
			e, err := img.Extent(0, img.Size())
			if err != nil || e.Allocated || e.Len != img.Size() {
				t.Errorf("afterwards: %+v, %v", e, err)
			}
			if err := img.Close(); err != nil {
				t.Fatal(err)
			}
			checkClean(t, v.path)
		})
	}
}
