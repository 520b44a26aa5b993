package qcow2

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"berth/block"
	"berth/block/blocktest"
)

// state is what an image and its snapshots hold.
type state struct {
	active []byte
	snaps  map[string][]byte
}

func (s state) clone() state {
	c := state{bytes.Clone(s.active), map[string][]byte{}}
	for k, v := range s.snaps {
		c.snaps[k] = v
	}
	return c
}

// stateOf reads the whole image and all snapshots, as QEMU would find them.
func stateOf(t *testing.T, m *blocktest.MemFile) state {
	t.Helper()
	s := state{snaps: map[string][]byte{}}
	read := func(snapshot string) []byte {
		img, err := openImage(m.Clone(), block.OpenOptions{ReadOnly: true})
		if err != nil {
			t.Fatal(err)
		}
		if snapshot != "" {
			if err := img.LoadSnapshot(snapshot); err != nil {
				t.Fatal(err)
			}
		}
		b := make([]byte, img.Size())
		if err := img.Readv([][]byte{b}, 0); err != nil {
			t.Fatal(err)
		}
		if snapshot == "" {
			for _, sn := range img.Snapshots() {
				s.snaps[sn.Name] = nil
			}
		}
		return b
	}
	s.active = read("")
	for name := range s.snaps {
		s.snaps[name] = read(name)
	}
	return s
}

func (s state) equal(o state) bool {
	if len(s.snaps) != len(o.snaps) || !bytes.Equal(s.active, o.active) {
		return false
	}
	for name, b := range s.snaps {
		n := min(len(b), len(o.snaps[name]))
		if o.snaps[name] == nil || !bytes.Equal(b[:n], o.snaps[name][:n]) {
			return false
		}
	}
	return true
}

// snapshotStep makes, applies or deletes a snapshot, and keeps s the same.
func snapshotStep(img *Image, s *state, step int, r *rand.Rand) error {
	var names []string
	for _, sn := range img.Snapshots() {
		names = append(names, sn.Name)
	}
	op := r.IntN(5)
	if len(names) == 0 {
		op = 0
	}
	switch op {
	case 0, 1:
		name := fmt.Sprint("s", step)
		s.snaps[name] = bytes.Clone(s.active)
		return img.CreateSnapshot(block.Snapshot{Name: name, Date: time.Unix(1, 0), ICount: -1})
	case 2:
		name := names[r.IntN(len(names))]
		delete(s.snaps, name)
		return img.DeleteSnapshot(name)
	case 3:
		name := names[r.IntN(len(names))]
		s.active = bytes.Clone(s.snaps[name])
		return img.ApplySnapshot(name)
	}
	size := int64(200+r.IntN(6)*40) << 10 // what is cut off when it shrinks goes bit by bit
	size = max(size, int64(len(s.active)))
	if img.hdr.version < 3 {
		return nil
	}
	s.active = append(s.active, make([]byte, max(0, int(size)-len(s.active)))...)[:size]
	return img.Truncate(size)
}

// The power fails while snapshots are made, applied and deleted: each step is
// done or not done, and nothing is wrong after a repair, by us and by QEMU.
func TestSnapshotsCutOff(t *testing.T) {
	needQEMU(t)
	for _, opts := range []string{"", "cluster_size=512", "extended_l2=on,cluster_size=16384", "compat=0.10,cluster_size=1024"} {
		t.Run(testName(opts), func(t *testing.T) {
			t.Parallel()
			for seed := range 3 * *seeds {
				snapshotsCutOff(t, opts, rand.New(rand.NewPCG(uint64(seed), 17)))
			}
		})
	}
}

func snapshotsCutOff(t *testing.T, opts string, r *rand.Rand) {
	before := createInMemory(t, opts, 200<<10)
	log := &blocktest.Log{}
	img, err := openImage(log.Record("image", before.Clone()), block.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	s := state{make([]byte, img.Size()), map[string][]byte{}}
	type point struct {
		from, to int // events before and after the step
		old, new state
	}
	var points []point
	for step := range 10 {
		for range 6 {
			if err := someOperation(img, s.active, r); err != nil {
				t.Fatal(err)
			}
		}
		if err := img.Flush(); err != nil {
			t.Fatal(err)
		}
		p := point{from: log.Len(), old: s.clone()}
		if err := snapshotStep(img, &s, step, r); err != nil {
			t.Fatal(err)
		}
		p.to, p.new = log.Len(), s.clone()
		points = append(points, p)
	}
	events := log.Events()
	for range 10 {
		p := points[r.IntN(len(points))]
		if p.from == p.to {
			continue
		}
		cut := blocktest.RandomCut(r, p.to-p.from)
		cut.At += p.from
		m, err := cut.Apply(r, before, "image", events)
		if err != nil {
			t.Fatal(err)
		}
		what := fmt.Sprintf("cut %+v", cut)
		if got := stateOf(t, m); !got.equal(p.old) && !got.equal(p.new) {
			t.Fatalf("%s: neither as before nor as after", what)
		}
		repaired(t, m, what)
		if got := stateOf(t, m); !got.equal(p.old) && !got.equal(p.new) {
			t.Fatalf("%s: neither as before nor as after, once repaired", what)
		}
	}
}

// repaired opens the image for writing, which repairs it if it is marked dirty,
// and has QEMU check it. Version 2 has no mark, so there flags may be missing, which QEMU repairs.
func repaired(t *testing.T, m *blocktest.MemFile, what string) {
	t.Helper()
	img, err := openImage(m, block.OpenOptions{})
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	img.mu.Lock()
	err = img.inactivate()
	img.mu.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	if img.hdr.version >= 3 {
		leaksAtMost(t, m, what)
		return
	}
	path := filepath.Join(t.TempDir(), "cut.qcow2")
	if err := os.WriteFile(path, m.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, _ := tryQEMU("qemu-img", "check", path); !missingFlagsOnly([]byte(out)) {
		t.Fatalf("%s: more than flags are missing:\n%s", what, out)
	}
	if out, err := tryQEMU("qemu-img", "check", "-r", "all", path); err != nil {
		t.Fatalf("%s: %v\n%s", what, err, out)
	}
}

// Every write of a step fails, one in each round.
func TestSnapshotsSurviveFailingWrites(t *testing.T) {
	needQEMU(t)
	for _, opts := range []string{"", "cluster_size=512", "compat=0.10,cluster_size=1024"} {
		t.Run(testName(opts), func(t *testing.T) {
			t.Parallel()
			m := createInMemory(t, opts, 100<<10)
			for at := 0; failSnapshots(t, m.Clone(), at); at += 1 + at/6 {
			}
		})
	}
}

func failSnapshots(t *testing.T, m *blocktest.MemFile, at int) bool {
	n := 0
	f := &blocktest.FaultyFile{File: m, Fail: func(blocktest.Event) error {
		if n++; n == at+1 {
			return errors.New("injected")
		}
		return nil
	}}
	img, err := openImage(f, block.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(5, 6))
	s := state{make([]byte, img.Size()), map[string][]byte{}}
	for step := range 12 {
		for range 3 {
			part := s.active[:512*(1+r.IntN(len(s.active)/512))]
			_ = img.Writev([][]byte{part}, 0, 0)
		}
		_ = snapshotStep(img, &s, step, r)
		if len(s.active) == 0 || img.corrupt.Load() {
			break
		}
		s.active = make([]byte, img.Size())
	}
	_ = img.inactivate()
	repaired(t, m, fmt.Sprintf("failure %d", at))
	return n > at
}

// Every write of snapshot steps, resizes both ways and the storing of a bitmap fails with EIO
// or ENOSPC, one in each round: the error that is reported keeps its number.
func TestFailingWritesKeepTheirErrno(t *testing.T) {
	needQEMU(t)
	for _, opts := range []string{"", "cluster_size=512", "compat=0.10,cluster_size=1024"} {
		for _, errno := range []syscall.Errno{syscall.EIO, syscall.ENOSPC} {
			t.Run(testName(opts)+"/"+errno.Error(), func(t *testing.T) {
				m := createInMemory(t, opts, 100<<10)
				for at := 0; failWith(t, m.Clone(), at, errno); at += 1 + at/6 {
				}
			})
		}
	}
}

func failWith(t *testing.T, m *blocktest.MemFile, at int, errno syscall.Errno) bool {
	n := 0
	f := &blocktest.FaultyFile{File: m, Fail: func(blocktest.Event) error {
		if n++; n == at+1 {
			return errno
		}
		return nil
	}}
	img, err := openImage(f, block.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	write := func() error { return img.Writev([][]byte{pattern(40 << 10)}, 4096, 0) }
	for _, s := range []act{
		{"grow", func(i *Image) error { return i.Truncate(300 << 10) }},
		{"write", func(*Image) error { return write() }},
		{"shrink", func(i *Image) error { return i.Truncate(20 << 10) }},
		{"grow again", func(i *Image) error { return i.Truncate(100 << 10) }},
		{"write again", func(*Image) error { return write() }},
		snaps("a"),
		{"write over it", func(*Image) error { return write() }},
		{"apply", func(i *Image) error { return i.ApplySnapshot("a") }},
		{"delete", func(i *Image) error { return i.DeleteSnapshot("a") }},
		{"add bitmap", func(i *Image) error { return i.AddBitmap(block.BitmapInfo{Name: "b", Granularity: 4096, Auto: true}) }},
		{"write marked", func(*Image) error { return write() }},
		{"close", func(i *Image) error {
			i.mu.Lock()
			defer i.mu.Unlock()
			return i.inactivate()
		}},
	} {
		before := n
		if err := s.do(img); err != nil && before <= at && n > at && !errors.Is(err, errno) {
			t.Errorf("failure %d in %s: %v is not %v", at, s.name, err, errno)
		}
	}
	repaired(t, m, fmt.Sprintf("failure %d", at))
	return n > at
}
