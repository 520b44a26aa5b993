package qcow2

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"

	"berth/block"
)

func TestMeasureAsQEMU(t *testing.T) {
	needQEMU(t)
	sources := map[string]string{"": ""}
	for _, opts := range []string{"", "cluster_size=4096", "compat=0.10", "extended_l2=on"} {
		sources[opts+" filled"] = filled(t, opts, opts != "compat=0.10")
	}
	pre := filepath.Join(t.TempDir(), "pre.qcow2")
	qemu(t, "qemu-img", "create", "-q", "-f", "qcow2", "-o", "preallocation=metadata", pre, "8M")
	qemu(t, "qemu-io", "-c", "write 1M 1M", "-c", "write 5M 4k", pre)
	sources["preallocated"] = pre
	over := filepath.Join(t.TempDir(), "over.qcow2")
	qemu(t, "qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", sources[" filled"], over, "20M")
	qemu(t, "qemu-io", "-c", "write 100k 9k", "-c", "write -z 0 64k", "-c", "write 15M 200k", over)
	sources["overlay"] = over
	for name, path := range sources {
		for _, opts := range []string{"", "cluster_size=512", "cluster_size=2097152", "compat=0.10", "refcount_bits=1", "refcount_bits=64,cluster_size=1024",
			"extended_l2=on", "preallocation=full", "preallocation=metadata", "cluster_size=1000", "refcount_bits=3", "compat=0.9"} {
			for _, size := range []string{"0", "1", "1000000007", "68719476736", "9223372036854774784"} {
				if path != "" && size != "0" {
					continue
				}
				args := []string{"qemu-img", "measure", "--output=json", "-O", "qcow2"}
				if opts != "" {
					args = append(args, "-o", opts)
				}
				var src block.Image
				if path != "" {
					args = append(args, "-f", "qcow2", path)
					i := variantImage{path: path}.open(t, block.OpenOptions{ReadOnly: true})
					if b, _ := i.BackingFile(); b != "" {
						i.SetBacking(variantImage{path: b}.open(t, block.OpenOptions{ReadOnly: true}))
					}
					src = i
				} else {
					args = append(args, "--size", size)
				}
				got, err := measure(parseOptions(opts, mustInt(size)), src)
				out, qerr := tryQEMU(args...)
				what := fmt.Sprintf("%s, %q, %s", name, opts, size)
				if (err != nil) != (qerr != nil) {
					t.Errorf("%s: %v, QEMU: %v %s", what, err, qerr, out)
					continue
				}
				if err != nil {
					if !strings.Contains(out, err.Error()) {
						t.Errorf("%s: %v, QEMU: %s", what, err, out)
					}
					continue
				}
				var want struct {
					Required int64
					Full     int64 `json:"fully-allocated"`
					Bitmaps  *int64
				}
				if err := json.Unmarshal([]byte(out), &want); err != nil {
					t.Fatal(err, out)
				}
				bitmaps := int64(-1)
				if want.Bitmaps != nil {
					bitmaps = *want.Bitmaps
				}
				if got != (block.Measurement{Required: want.Required, FullyAllocated: want.Full, Bitmaps: bitmaps}) {
					t.Errorf("%s: %+v, QEMU: %s", what, got, out)
				}
			}
		}
	}
}

func mustInt(s string) (n int64) {
	_, _ = fmt.Sscan(s, &n)
	return n
}

// Every change that amend makes leaves an image that QEMU finds whole, with the same contents.
func TestAmend(t *testing.T) {
	needQEMU(t)
	for _, c := range []struct{ opts, change, want string }{
		{"", "refcount_bits=1", "refcount bits: 1\n"}, {"", "refcount_bits=64", "refcount bits: 64\n"}, {"cluster_size=512", "refcount_bits=64", "refcount bits: 64\n"},
		{"refcount_bits=64,cluster_size=512", "refcount_bits=8", "refcount bits: 8\n"}, {"compat=0.10", "compat=1.1", "compat: 1.1\n"},
		{"compat=0.10", "compat=v3,lazy_refcounts=on,refcount_bits=32", "lazy refcounts: true\n"}, {"lazy_refcounts=on", "lazy_refcounts=off", "lazy refcounts: false\n"},
		{"", "compat=0.10", "compat: 0.10\n"}, {"lazy_refcounts=on,cluster_size=512", "compat=v2", "compat: 0.10\n"}, {"", "size=9437184", "virtual size: 9 MiB"},
		{"compression_type=zstd", "compat=v2", "!Cannot downgrade an image with zstd compression type and existing compressed clusters"},
		{"refcount_bits=8", "compat=v2", "!compat=0.10 requires refcount_bits=16"}, {"compat=0.10", "refcount_bits=8", "!Refcount widths other than 16 bits"},
		{"compat=0.10", "lazy_refcounts=on", "!Lazy refcounts only supported"}, {"", "compat=7", "!Unknown compatibility level 7"},
		{"", "refcount_bits=5", "!Refcount width must be"}, {"", "backing_file=x", "!Cannot amend the backing file"}, {"", "data_file=x", "!data-file can only be set"},
		{"", "data_file_raw=on", "!data-file-raw cannot be set"}, {"extended_l2=on", "compat=v2", "!Cannot downgrade an image with incompatible features 0x10 set"},
	} {
		t.Run(testName(c.opts)+" to "+testName(c.change), func(t *testing.T) {
			v := createImage(t, c.opts, 3<<20)
			model := make([]byte, 3<<20)
			i := v.open(t, block.OpenOptions{})
			scribble(t, i, rand.New(rand.NewPCG(3, 3)), model)
			if err := i.WriteZeroes(1<<20, 200<<10, 0); err != nil {
				t.Fatal(err)
			}
			clear(model[1<<20 : 1<<20+200<<10])
			snapshot := !strings.Contains(c.change, "refcount_bits=1")
			if snapshot {
				if err := i.CreateSnapshot(block.Snapshot{Name: "s", ICount: -1}); err != nil {
					t.Fatal(err)
				}
			}
			kept := bytes.Clone(model)
			if err := i.WriteZeroes(2<<20, 300<<10, 0); err != nil { // of what the snapshot has as data
				t.Fatal(err)
			}
			clear(model[2<<20 : 2<<20+300<<10])
			change := parseOptions(c.change, 0)
			if change["size"] == "0" {
				delete(change, "size")
			}
			err := amend(i, change, nil)
			if cerr := i.Close(); cerr != nil {
				t.Fatal(cerr)
			}
			checkClean(t, v.path)
			if want, refused := strings.CutPrefix(c.want, "!"); refused {
				if err == nil || !strings.HasPrefix(err.Error(), want) {
					t.Errorf("%v, want %s", err, want)
				}
			} else if err != nil {
				t.Fatal(err)
			} else if out := qemu(t, "qemu-img", "info", v.path); !strings.Contains(out, c.want) {
				t.Errorf("not %s:\n%s", c.want, out)
			}
			if got := contentsOf(t, v.path, ""); !bytes.Equal(got[:len(model)], model) {
				t.Error("contents differ")
			}
			if snapshot && !bytes.Equal(contentsOf(t, v.path, "s")[:len(kept)], kept) {
				t.Error("the snapshot's contents differ")
			}
		})
	}
}

// A refcount that does not fit is named, and nothing changes.
func TestAmendRefusesTooNarrowRefcounts(t *testing.T) {
	needQEMU(t)
	path := filled(t, "", false)
	i := variantImage{path: path}.open(t, block.OpenOptions{})
	err := amend(i, block.Values{"refcount_bits": "1"}, nil)
	i.Close()
	out, _ := tryQEMU("qemu-img", "amend", "-o", "refcount_bits=1", path)
	if err == nil || !strings.Contains(out, err.Error()) {
		t.Errorf("%v, QEMU: %s", err, out)
	}
	checkClean(t, path)
}

// Zero clusters over a backing file become clusters of zeros in version 2.
func TestDowngradeOverABackingFile(t *testing.T) {
	needQEMU(t)
	base := filled(t, "", false)
	over := filepath.Join(t.TempDir(), "over.qcow2")
	qemu(t, "qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", base, over)
	qemu(t, "qemu-io", "-c", "write -z 0 512k", "-c", "write -P 9 6M 64k", over)
	qemu(t, "qemu-img", "snapshot", "-c", "s", over)
	qemu(t, "qemu-io", "-c", "write -z 6M 128k", over)
	want, kept := contentsOf(t, over, ""), contentsOf(t, over, "s")
	i := variantImage{path: over}.open(t, block.OpenOptions{})
	i.SetBacking(variantImage{path: base}.open(t, block.OpenOptions{ReadOnly: true}))
	if err := amend(i, block.Values{"compat": "0.10"}, nil); err != nil {
		t.Fatal(err)
	}
	if err := i.Close(); err != nil {
		t.Fatal(err)
	}
	checkClean(t, over)
	if !bytes.Equal(contentsOf(t, over, ""), want) || !bytes.Equal(contentsOf(t, over, "s"), kept) {
		t.Error("contents differ")
	}
}

// Amending tells of its progress in the steps in which qemu-img amend -p does.
func TestAmendProgressAsQEMU(t *testing.T) {
	needQEMU(t)
	for _, c := range [][2]string{
		{"compat=1.1", "compat=0.10"}, {"compat=0.10", "compat=1.1"}, {"compat=1.1", "refcount_bits=64"},
		{"compat=0.10", "compat=1.1,refcount_bits=1"}, {"compat=1.1,refcount_bits=64", "compat=0.10,refcount_bits=16"},
	} {
		path := filepath.Join(t.TempDir(), "x.qcow2")
		qemu(t, "qemu-img", "create", "-q", "-f", "qcow2", "-o", "cluster_size=512,"+c[0], path, "4M")
		qemu(t, "qemu-io", "-f", "qcow2", "-c", "write 0 1M", "-c", "write -z 1M 1M", "-c", "write -z 0 64k", path)
		ours := filepath.Join(t.TempDir(), "y.qcow2")
		qemu(t, "cp", path, ours)
		out, err := tryQEMU("qemu-img", "amend", "-p", "-f", "qcow2", "-o", c[1], path)
		if err != nil {
			t.Fatal(out)
		}
		var got strings.Builder
		last := float32(0)
		show := func(p float32) { // as QEMU's util/qemu-progress.c: each per cent, and the ends
			if p > last+1 || p < last-1 || p == 0 || p == 100 {
				last = p
				fmt.Fprintf(&got, "    (%3.2f/100%%)\r", p)
			}
		}
		i := variantImage{path: ours}.open(t, block.OpenOptions{})
		show(0)
		if err := amend(i, parseAmendment(c[1]), func(done, total int64) { show(100 * float32(done) / float32(total)) }); err != nil {
			t.Fatal(err)
		}
		show(100)
		if strings.TrimSpace(out) != strings.TrimSpace(got.String()) {
			t.Errorf("%s to %s:\n%q\nQEMU:\n%q", c[0], c[1], got.String(), out)
		}
	}
}
