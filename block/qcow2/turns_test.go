package qcow2

import (
	"fmt"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"berth/block"
)

// TestTakingTurns has qemu-io and this package change one image by turns: each
// finds what the other has left, and goes on with it.
func TestTakingTurns(t *testing.T) {
	needQEMU(t)
	for _, opts := range variants {
		t.Run(testName(opts), func(t *testing.T) {
			t.Parallel()
			for seed := range *seeds {
				takingTurns(t, opts, rand.New(rand.NewPCG(uint64(seed), 77)))
			}
		})
	}
}

func takingTurns(t *testing.T, opts string, r *rand.Rand) {
	const size = 700 << 10
	v := createImage(t, opts, size)
	want := make([]byte, size)
	for range 6 {
		byQEMU(t, v.path, opts, want, r)
		img := v.open(t, block.OpenOptions{})
		got := make([]byte, size)
		if err := img.Readv([][]byte{got}, 0); err != nil {
			t.Fatal(err)
		}
		same(t, want, got)
		for range 25 {
			oneOperation(t, img, want, r)
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

// byQEMU has qemu-io do some operations, of which one at most compresses: QEMU
// 7.2 goes on packing in a cluster even if that has been freed and given away.
func byQEMU(t *testing.T, path, opts string, want []byte, r *rand.Rand) {
	t.Helper()
	args := []string{"-f", "qcow2"}
	cs, packed := 65536, false
	if _, s, ok := strings.Cut(opts, "cluster_size="); ok {
		_, _ = fmt.Sscan(s, &cs)
	}
	for range 15 {
		off := r.IntN(len(want)) &^ 511
		n := min(len(want)-off, (r.IntN(1<<uint(r.IntN(8)))+1)*512)
		fill := byte(1 + r.IntN(255))
		switch r.IntN(5) {
		case 0, 1:
			args = append(args, "-c", fmt.Sprintf("write -P %d %d %d", fill, off, n))
		case 2:
			fill = 0
			args = append(args, "-c", fmt.Sprintf("write -z %d %d", off, n))
		case 3:
			fill = 0
			args = append(args, "-c", fmt.Sprintf("write -z -u %d %d", off, n))
		case 4:
			off = off / cs * cs
			n = min(cs, len(want)-off)
			if packed || strings.Contains(opts, "data_file") {
				continue
			}
			packed = true
			// QEMU writes nothing compressed over what is there uncompressed
			args = append(args, "-c", fmt.Sprintf("write -z -u %d %d", off, n), "-c", fmt.Sprintf("write -c -P %d %d %d", fill, off, n))
		}
		for k := range want[off : off+n] {
			want[off+k] = fill
		}
	}
	out, err := exec.Command("qemu-io", append(args, path)...).CombinedOutput()
	if err != nil || strings.Contains(string(out), "failed") || strings.Contains(string(out), "rror") {
		t.Fatalf("qemu-io: %v\n%s", err, out)
	}
}
