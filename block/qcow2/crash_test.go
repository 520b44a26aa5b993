package qcow2

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"berth/block"
	"berth/block/blocktest"
)

// leaksAtMost has QEMU check the image that m holds, and finds at most leaks.
func leaksAtMost(t *testing.T, m *blocktest.MemFile, what string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "cut.qcow2")
	if err := os.WriteFile(path, m.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("qemu-img", "check", path).CombinedOutput()
	var exit *exec.ExitError
	if err != nil && (!errors.As(err, &exit) || exit.ExitCode() != 3) {
		t.Fatalf("%s: qemu-img check: %v\n%s", what, err, out)
	}
}

var crashVariants = []string{"", "cluster_size=512", "cluster_size=4096,refcount_bits=1", "extended_l2=on,cluster_size=16384", "compat=0.10,cluster_size=1024", "cluster_size=512,refcount_bits=64"}

func createInMemory(t *testing.T, opts string, size int64) *blocktest.MemFile {
	t.Helper()
	m := blocktest.NewMemFile(nil)
	if err := create(m, block.Creation{Values: parseOptions(opts, size)}); err != nil {
		t.Fatal(err)
	}
	return m
}

// TestEachWriteFails has every write, flush and discard fail, one of them in each
// round, with EIO and ENOSPC, which the error keeps: what is left must be consistent, and so must what the image
// makes of the file if it is used on.
func TestEachWriteFails(t *testing.T) {
	needQEMU(t)
	for _, opts := range crashVariants {
		t.Run(testName(opts), func(t *testing.T) {
			t.Parallel()
			m := createInMemory(t, opts, 300<<10)
			for at := 0; ; at += 1 + at/8 {
				hit := false
				for _, errno := range []syscall.Errno{syscall.EIO, syscall.ENOSPC} {
					hit = failAt(t, m.Clone(), at, at%2 == 0, errno) || hit
				}
				if !hit {
					return
				}
			}
		})
	}
}

// failAt tells whether there was a write number at to fail.
func failAt(t *testing.T, m *blocktest.MemFile, at int, forever bool, errno syscall.Errno) bool {
	n := 0
	hit := false
	f := &blocktest.FaultyFile{File: m, Fail: func(blocktest.Event) error {
		n++
		if n == at+1 || forever && n > at {
			hit = true
			return errno
		}
		return nil
	}}
	img, err := openImage(f, block.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(3, 4))
	want := make([]byte, img.Size())
	known := true
	for range 60 {
		before := hit
		err := someOperation(img, want, r)
		if err != nil && hit && !before && !errors.Is(err, errno) {
			t.Errorf("failure %d: %v is not %v", at, err, errno)
		}
		known = known && err == nil
	}
	if known {
		got := make([]byte, len(want))
		if err := img.Readv([][]byte{got}, 0); err != nil {
			t.Fatal(err)
		}
		same(t, want, got)
	}
	_ = img.inactivate()
	leaksAtMost(t, m, fmt.Sprintf("failure %d, forever %v", at, forever))
	return hit
}

// someOperation changes the image and want alike.
func someOperation(img *Image, want []byte, r *rand.Rand) error {
	off := r.IntN(len(want)) &^ 511
	part := want[off:min(len(want), off+(r.IntN(1<<uint(r.IntN(8)))+1)*512)]
	switch r.IntN(8) {
	case 0, 1, 2:
		for k := range part {
			part[k] = byte(r.Uint32())
		}
		return img.Writev([][]byte{part}, int64(off), 0)
	case 3:
		clear(part)
		return img.WriteZeroes(int64(off), int64(len(part)), block.FlagUnmap)
	case 4:
		clear(part)
		return img.WriteZeroes(int64(off), int64(len(part)), 0)
	case 5:
		return errors.Join(img.Discard(int64(off), int64(len(part))), img.Readv([][]byte{part}, int64(off)))
	case 6:
		cs := int(img.clusterSize)
		off = off / cs * cs
		part = want[off:min(off+cs, len(want))]
		for k := range part {
			part[k] = byte(off>>9) + byte(k>>6)
		}
		return writeCompressed(img, part, int64(off))
	}
	return img.Flush()
}

// TestCutOff has the power fail at random moments: what had been flushed is there.
func TestCutOff(t *testing.T) {
	needQEMU(t)
	for _, opts := range crashVariants {
		t.Run(testName(opts), func(t *testing.T) {
			t.Parallel()
			for seed := range 3 * *seeds {
				cutOff(t, opts, rand.New(rand.NewPCG(uint64(seed), 9)))
			}
		})
	}
}

// moment is what the image was to hold when so many events had happened.
type moment struct {
	events   int
	contents []byte
	flushed  bool
}

func cutOff(t *testing.T, opts string, r *rand.Rand) {
	before := createInMemory(t, opts, 200<<10)
	log := &blocktest.Log{}
	img, err := openImage(log.Record("image", before.Clone()), block.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	want := make([]byte, img.Size())
	history := []moment{{0, bytes.Clone(want), true}}
	for range 80 {
		start := log.Len()
		flush := r.IntN(6) == 0
		if flush {
			err = img.Flush()
			start = log.Len()
		} else {
			err = someOperation(img, want, r)
		}
		if err != nil {
			t.Fatal(err)
		}
		history = append(history, moment{start, bytes.Clone(want), flush})
	}
	events := log.Events()
	for range 12 {
		cut := blocktest.RandomCut(r, len(events))
		m, err := cut.Apply(r, before, "image", events)
		if err != nil {
			t.Fatal(err)
		}
		leaksAtMost(t, m, fmt.Sprintf("cut %+v", cut))
		judge(t, m, history, cut)
	}
}

// judge finds every sector to hold what it held at the last flush before the cut, or was given since.
func judge(t *testing.T, m *blocktest.MemFile, history []moment, cut blocktest.Cut) {
	t.Helper()
	img, err := openImage(m, block.OpenOptions{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, img.Size())
	if err := img.Readv([][]byte{got}, 0); err != nil {
		t.Fatal(err)
	}
	first, last := 0, 0
	for k, h := range history {
		if h.events <= cut.At {
			last = k
			if h.flushed {
				first = k
			}
		}
	}
	for off := 0; off < len(got); off += 512 {
		ok := false
		for _, h := range history[first : last+1] {
			ok = ok || bytes.Equal(got[off:off+512], h.contents[off:off+512])
		}
		if !ok {
			t.Fatalf("cut %+v: sector at %#x holds what it was not given since the flush", cut, off)
		}
	}
}
