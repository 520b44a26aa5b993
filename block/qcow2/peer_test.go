package qcow2

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"berth/block"
)

// qemu runs one of QEMU's tools and returns what it prints.
func qemu(t testing.TB, args ...string) string {
	t.Helper()
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

func needQEMU(t testing.TB) {
	t.Helper()
	for _, tool := range []string{"qemu-img", "qemu-io"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip(tool + " is not installed")
		}
	}
}

// checkClean has qemu-img check the image, and finds neither errors nor leaks.
func checkClean(t testing.TB, path string) {
	t.Helper()
	out, err := exec.Command("qemu-img", "check", path).CombinedOutput()
	if err != nil {
		t.Fatalf("qemu-img check: %v\n%s", err, out)
	}
}

// variants are images of all the kinds that options make.
var variants = []string{
	"", "compat=0.10", "cluster_size=512", "cluster_size=4096,refcount_bits=1", "cluster_size=2097152",
	"refcount_bits=2", "refcount_bits=4", "refcount_bits=8", "refcount_bits=32", "refcount_bits=64,cluster_size=1024",
	"extended_l2=on", "extended_l2=on,cluster_size=16384", "lazy_refcounts=on",
	"compression_type=zstd", "preallocation=metadata", "preallocation=falloc", "preallocation=full,cluster_size=8192",
	"data_file=@", "data_file=@,data_file_raw=on", "preallocation=metadata,extended_l2=on",
	"compat=0.10,cluster_size=512",
}

// testName is a name without what option lists give a meaning to: it is part of paths.
func testName(opts string) string {
	return strings.NewReplacer(",", " ", "=", "-", "@", "x").Replace(opts)
}

func parseOptions(opts string, size int64) block.Values {
	v := block.Values{"size": fmt.Sprint(size)}
	for _, o := range strings.Split(opts, ",") {
		if k, val, ok := strings.Cut(o, "="); ok {
			v[k] = val
		}
	}
	return v
}

func (v variantImage) open(t testing.TB, o block.OpenOptions) *Image {
	t.Helper()
	img, err := openImage(openTestFile(t, v.path), o)
	if err != nil {
		t.Fatal(err)
	}
	img.report = func(s string) { t.Log(s) }
	if _, _, ok := img.DataFile(); ok {
		img.SetDataFile(openTestFile(t, v.data))
	}
	return img
}

// variantImage is an image with the options that it was made with.
type variantImage struct{ path, data string }

func createImage(t testing.TB, opts string, size int64) variantImage {
	t.Helper()
	dir := t.TempDir()
	v := variantImage{filepath.Join(dir, "x.qcow2"), filepath.Join(dir, "x.data")}
	c := block.Creation{Values: parseOptions(strings.ReplaceAll(opts, "@", v.data), size)}
	if c.Values["data_file"] != "" {
		d := openTestFile(t, v.data)
		defer d.Close()
		c.Data = d
	}
	f := openTestFile(t, v.path)
	defer f.Close()
	if err := create(f, c); err != nil {
		t.Fatal(err)
	}
	return v
}

func TestCreateAsQEMUDoes(t *testing.T) {
	needQEMU(t)
	for _, opts := range variants {
		t.Run(testName(opts), func(t *testing.T) {
			const size = 5<<20 + 512
			v := createImage(t, opts, size)
			checkClean(t, v.path)
			dir := t.TempDir()
			peer := filepath.Join(dir, "x.qcow2")
			args := []string{"qemu-img", "create", "-q", "-f", "qcow2"}
			if o := strings.ReplaceAll(opts, "@", filepath.Join(dir, "x.data")); o != "" {
				args = append(args, "-o", o)
			}
			qemu(t, append(args, peer, fmt.Sprint(size))...)
			if a, b := info(t, v.path), info(t, peer); a != b {
				t.Errorf("qemu-img info says\n%s, of QEMU's own\n%s", a, b)
			}
		})
	}
}

func info(t *testing.T, path string) string {
	var m map[string]any
	if err := json.Unmarshal([]byte(qemu(t, "qemu-img", "info", "--output=json", path)), &m); err != nil {
		t.Fatal(err)
	}
	delete(m, "filename")
	delete(m, "actual-size")
	b, _ := json.MarshalIndent(m, "", " ")
	return strings.ReplaceAll(string(b), filepath.Dir(path), "")
}

var seeds = flag.Int("seeds", 1, "how many sequences of random operations are run on each kind of image")

// TestRandomOperations does the same to an image and to a copy of its contents
// in memory, and has QEMU read and check the image now and then.
func TestRandomOperations(t *testing.T) {
	needQEMU(t)
	for _, opts := range variants {
		for _, backed := range []bool{false, true} {
			if backed && (strings.Contains(opts, "preallocation") && !strings.Contains(opts, "extended") || strings.Contains(opts, "raw")) {
				continue
			}
			t.Run(testName(fmt.Sprintf("%s,backed=%v", opts, backed)), func(t *testing.T) {
				t.Parallel()
				for seed := range *seeds {
					randomOperations(t, opts, backed, rand.New(rand.NewPCG(uint64(seed), uint64(len(opts)))))
				}
			})
		}
	}
}

func randomOperations(t *testing.T, opts string, backed bool, r *rand.Rand) {
	const size = 1<<20 + 3*512
	want := make([]byte, size)
	dir := t.TempDir()
	base := filepath.Join(dir, "base.raw")
	if backed {
		b := want[:size-70000]
		for n := range b {
			b[n] = byte(n>>9) ^ byte(n)
		}
		if err := os.WriteFile(base, b, 0o644); err != nil {
			t.Fatal(err)
		}
		opts = strings.TrimPrefix(opts+",backing_file="+base+",backing_fmt=raw", ",")
	}
	v := createImage(t, opts, size)
	open := func() *Image {
		img := v.open(t, block.OpenOptions{})
		if backed {
			img.SetBacking(openTestFile(t, base))
		}
		return img
	}
	img := open()
	for step := range 300 {
		oneOperation(t, img, want, r)
		if r.IntN(20) == 0 {
			if err := img.Flush(); err != nil {
				t.Fatal(err)
			}
		}
		if step%60 == 59 {
			if err := img.Close(); err != nil {
				t.Fatal(err)
			}
			checkClean(t, v.path)
			out := filepath.Join(dir, "out")
			qemu(t, "qemu-img", "convert", "-O", "raw", v.path, out)
			same(t, want, readFile(t, out))
			img = open()
		}
	}
	if err := img.Close(); err != nil {
		t.Fatal(err)
	}
}

func readFile(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func same(t *testing.T, want, got []byte) {
	t.Helper()
	if bytes.Equal(want, got) {
		return
	}
	for n := range want {
		if n >= len(got) || want[n] != got[n] {
			t.Fatalf("contents differ from byte %#x on (of %#x and %#x)", n, len(want), len(got))
		}
	}
	t.Fatalf("length %#x, want %#x", len(got), len(want))
}

func oneOperation(t *testing.T, img *Image, want []byte, r *rand.Rand) {
	t.Helper()
	off := r.IntN(len(want)) &^ 511
	n := min(len(want)-off, (r.IntN(1<<uint(r.IntN(9)))+1)*512)
	part := want[off : off+n]
	var err error
	what := ""
	switch r.IntN(8) {
	case 0, 1, 2:
		what = "write"
		for k := range part {
			part[k] = byte(r.Uint32())
		}
		err = img.Writev([][]byte{part[:n/2], part[n/2:]}, int64(off), 0)
	case 3:
		what = "zero"
		clear(part)
		err = img.WriteZeroes(int64(off), int64(n), 0)
	case 4:
		what = "zero and unmap"
		clear(part)
		err = img.WriteZeroes(int64(off), int64(n), block.FlagUnmap)
	case 5:
		what = "discard"
		if err = img.Discard(int64(off), int64(n)); err == nil {
			err = img.Readv([][]byte{part}, int64(off)) // what it then reads as is left open
		}
	case 6:
		what = "compressed"
		cs := int(img.Info().ClusterSize)
		off = off / cs * cs
		part = want[off:min(off+cs, len(want))]
		if _, _, ext := img.DataFile(); ext {
			return
		}
		for k := range part {
			part[k] = byte(off>>12) ^ byte(k>>5)
		}
		err = writeCompressed(img, part, int64(off))
	case 7:
		what = "read"
		got := make([]byte, n)
		if err = img.Readv([][]byte{got[:n/3], got[n/3:]}, int64(off)); err == nil {
			same(t, part, got)
		}
	}
	if err != nil {
		t.Fatalf("%s of %#x at %#x: %v", what, n, off, err)
	}
}
