package qcow2

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"berth/block"
)

// verdict is what a check finds: what it says, and the counts.
type verdict struct {
	lines []string
	res   block.CheckResult
	err   bool
}

// ours checks the image as qemu-img check does, a second time after a repair.
func ours(t testing.TB, path string, fix block.Fix) verdict {
	t.Helper()
	i, err := openImage(openTestFile(t, path), block.OpenOptions{Check: true, ReadOnly: fix == 0})
	if err != nil {
		return verdict{lines: []string{err.Error()}, err: true}
	}
	defer i.Close()
	var v verdict
	say := func(s string) { v.lines = append(v.lines, s) }
	i.report = say
	v.res, err = i.Check(fix, say)
	if err == nil && v.res.CorruptionsFixed+v.res.LeaksFixed > 0 {
		first := v.res
		v.res, err = i.Check(0, say)
		v.res.CorruptionsFixed, v.res.LeaksFixed = first.CorruptionsFixed, first.LeaksFixed
	}
	v.err = err != nil || v.res.CheckErrors > 0
	return v
}

var shared = regexp.MustCompile(`^qemu-img: `)

func theirs(t testing.TB, path string, fix block.Fix) verdict {
	t.Helper()
	args := []string{"check", "--output=json", path}
	switch fix {
	case block.FixLeaks:
		args = append(args, "-r", "leaks")
	case block.FixAll:
		args = append(args, "-r", "all")
	}
	var out, errs bytes.Buffer
	cmd := exec.Command("qemu-img", args...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var v verdict
	for _, l := range strings.Split(strings.TrimRight(errs.String(), "\n"), "\n") {
		if l == "" {
			continue
		}
		if strings.HasPrefix(l, "qemu-img: Check failed") || strings.HasPrefix(l, "qemu-img: Could not open") {
			v.err = true
			continue
		}
		if strings.Contains(l, "Lost persistent bitmaps") { // and why: it stores them even after a check
			v.lines = v.lines[:len(v.lines)-1]
			continue
		}
		v.lines = append(v.lines, shared.ReplaceAllString(l, ""))
	}
	var x *exec.ExitError
	if errors.As(err, &x) && x.ExitCode() == -1 {
		t.Skipf("qemu-img: %v", err)
	}
	var j struct {
		Corruptions, Leaks int64
		End                int64 `json:"image-end-offset"`
		Total              int64 `json:"total-clusters"`
		Allocated          int64 `json:"allocated-clusters"`
		Fragmented         int64 `json:"fragmented-clusters"`
		Compressed         int64 `json:"compressed-clusters"`
		CorruptionsFixed   int64 `json:"corruptions-fixed"`
		LeaksFixed         int64 `json:"leaks-fixed"`
		CheckErrors        int64 `json:"check-errors"`
	}
	if out.Len() > 0 {
		if err := json.Unmarshal(out.Bytes(), &j); err != nil {
			t.Fatalf("%v\n%s", err, out.String())
		}
	}
	v.res = block.CheckResult{Corruptions: j.Corruptions, Leaks: j.Leaks, CheckErrors: j.CheckErrors, CorruptionsFixed: j.CorruptionsFixed,
		LeaksFixed: j.LeaksFixed, Total: j.Total, Allocated: j.Allocated, Fragmented: j.Fragmented, Compressed: j.Compressed, ImageEnd: j.End}
	return v
}

func copyFile(t testing.TB, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, b, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// judgeCheck has both tools check, and repair, copies of the image, and compares.
func judgeCheck(t *testing.T, path string) {
	t.Helper()
	dir := t.TempDir()
	for _, fix := range []block.Fix{0, block.FixLeaks, block.FixAll} {
		a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
		copyFile(t, path, a)
		copyFile(t, path, b)
		got, want := ours(t, a, fix), theirs(t, b, fix)
		if fix == block.FixAll && strings.Contains(strings.Join(want.lines, " "), "as corrupt: Refblock") { // QEMU gives up half way
			continue
		}
		if got.err != want.err {
			t.Errorf("fix %d: failed: %v, QEMU: %v\nours  %q\nQEMU  %q", fix, got.err, want.err, got.lines, want.lines)
			continue
		}
		for k := range max(len(got.lines), len(want.lines)) {
			if k >= len(got.lines) || k >= len(want.lines) || got.lines[k] != want.lines[k] {
				t.Errorf("fix %d, line %d of %d and %d:\nours %q\nQEMU %q", fix, k, len(got.lines), len(want.lines), from(got.lines, k), from(want.lines, k))
				break
			}
		}
		if !got.err && got.res != want.res {
			t.Errorf("fix %d:\nours %+v\nQEMU %+v", fix, got.res, want.res)
		}
		if fix == block.FixAll && !got.err && got.res.Corruptions+got.res.Leaks+got.res.CheckErrors == 0 {
			checkClean(t, a)
		}
	}
}

func from(lines []string, k int) []string {
	return lines[min(k, len(lines)):min(k+4, len(lines))]
}

// filled is an image with data, compressed clusters, zeros, and a snapshot or a
// bitmap: qemu-img check -r loses the snapshots of an image that has both.
func filled(t testing.TB, opts string, bitmap bool) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "x.qcow2")
	args := []string{"qemu-img", "create", "-q", "-f", "qcow2"}
	if opts != "" {
		args = append(args, "-o", opts)
	}
	qemu(t, append(args, path, "8M")...)
	qemu(t, "qemu-io", "-c", "write -P 1 0 1M", "-c", "write -P 2 3M 200k", "-c", "write -c -P 3 2M 128k", "-c", "write -z 5M 256k", path)
	if !bitmap {
		qemu(t, "qemu-img", "snapshot", "-c", "s1", path)
		qemu(t, "qemu-io", "-c", "write -P 4 512k 256k", "-c", "write -P 5 6M 100k", path)
	}
	if bitmap {
		qemu(t, "qemu-img", "bitmap", "--add", path, "b0")
		qemu(t, "qemu-io", "-c", "write -P 6 7M 100k", path)
	}
	return path
}

var checkVariants = []string{"", "compat=0.10", "cluster_size=512", "cluster_size=4096,refcount_bits=8", "refcount_bits=1,cluster_size=4096",
	"refcount_bits=64", "compression_type=zstd", "extended_l2=on", "lazy_refcounts=on"}

func bitmapsIn(opts string) bool {
	return strings.Contains(opts, "refcount_bits=1,") || opts == "compression_type=zstd"
}

func TestCheckAsQEMU(t *testing.T) {
	needQEMU(t)
	for _, opts := range checkVariants {
		t.Run(testName(opts), func(t *testing.T) { judgeCheck(t, filled(t, opts, bitmapsIn(opts))) })
	}
}

// Copies of an image with random damage in its metadata are judged alike by both tools.
func TestCheckOfDamageAsQEMU(t *testing.T) {
	needQEMU(t)
	for _, opts := range checkVariants {
		path := filled(t, opts, bitmapsIn(opts))
		for seed := range 12 {
			t.Run(fmt.Sprintf("%s %d", testName(opts), seed), func(t *testing.T) {
				bad := filepath.Join(t.TempDir(), "bad.qcow2")
				copyFile(t, path, bad)
				t.Log(damage(t, bad, rand.New(rand.NewPCG(uint64(seed), 3))))
				judgeCheck(t, bad)
			})
		}
	}
}

// damage changes one or two entries of the tables, and says which.
func damage(t testing.TB, path string, r *rand.Rand) (what string) {
	t.Helper()
	f := openTestFile(t, path)
	i, err := openImage(f, block.OpenOptions{Check: true, ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer i.Close()
	for range 1 + r.IntN(2) {
		var at int64
		l2 := int64(0)
		for _, e := range i.l1 {
			if e&offsetMask != 0 && (l2 == 0 || r.IntN(2) == 0) {
				l2 = int64(e & offsetMask)
			}
		}
		v := r.Uint64N(uint64(f.Size()) * 2)
		switch r.IntN(7) {
		case 0:
			at, what = int64(i.hdr.l1Offset), what+" L1"
			v = v&^uint64(i.clusterSize-1) | flagCopied
		case 1, 2:
			at, what = l2+r.Int64N(min(16, i.clusterSize/i.entry))*i.entry, what+" L2"
			if r.IntN(2) == 0 {
				v &^= uint64(i.clusterSize - 1)
			}
			if r.IntN(2) == 0 {
				v |= flagCopied
			}
			if r.IntN(6) == 0 {
				v |= flagZero
			}
		case 3:
			var b [8]byte
			at = l2 + r.Int64N(min(16, i.clusterSize/i.entry))*i.entry
			if err := readFull(f, b[:], at); err != nil {
				t.Fatal(err)
			}
			v, what = be.Uint64(b[:])^1<<(58+r.IntN(6)), what+" L2 bit"
		case 4, 5:
			at, what = int64(i.alloc.table[0]&offsetMask)+8*r.Int64N(min(i.clusterSize/8, 24)), what+" refcount"
			v = 0
			for k := 0; k < 64; k += 16 {
				v = v<<16 | r.Uint64N(3)
			}
		default:
			at, what = int64(i.hdr.reftableOffset)+8*r.Int64N(2), what+" reftable"
			if v &^= uint64(i.clusterSize - 1); r.IntN(3) == 0 {
				v |= 512
			}
		}
		var b [8]byte
		be.PutUint64(b[:], v)
		if err := writeFull(f, b[:], at); err != nil {
			t.Fatal(err)
		}
		what += fmt.Sprintf("@%#x=%#x", at, v)
	}
	return what
}

// tryQEMU runs one of QEMU's tools and returns what it prints.
func tryQEMU(args ...string) (string, error) {
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	return string(out), err
}
