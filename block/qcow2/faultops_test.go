package qcow2

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"syscall"
	"testing"

	"berth/block"
	"berth/block/blocktest"
)

// failing is an operation that changes the whole image, what came before it, and what may be read after it.
type failing struct {
	name, opts string
	size       int64
	before     []act
	acts       []act
	spoil      func(t *testing.T, m *blocktest.MemFile) // damages what before has left
	check      bool                                     // acts are done to an image that is opened to be checked
}

func applies(name string) act {
	return act{"snapshot -a " + name, func(i *Image) error { return i.ApplySnapshot(name) }}
}

func deletes(name string) act {
	return act{"snapshot -d " + name, func(i *Image) error { return i.DeleteSnapshot(name) }}
}

func addsBitmap(name string) act {
	return act{"add bitmap " + name, func(i *Image) error {
		return i.AddBitmap(block.BitmapInfo{Name: name, Granularity: 512, Auto: true})
	}}
}

func removesBitmap(name string) act {
	return act{"remove bitmap " + name, func(i *Image) error { return i.RemoveBitmap(name) }}
}

func amends(v string) act {
	return act{"amend " + v, func(i *Image) error { return amend(i, parseAmendment(v), nil) }}
}

func parseAmendment(v string) block.Values {
	values := block.Values{}
	for _, o := range strings.Split(v, ",") {
		name, value, _ := strings.Cut(o, "=")
		values[name] = value
	}
	return values
}

// storing writes back what is held in memory, as closing does, but the file stays open.
var storing = act{"store", func(i *Image) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.corrupt.Load() {
		return errGone
	}
	return errors.Join(i.inactivate(), i.sync())
}}

func repairs(fix block.Fix) act {
	return act{"check -r", func(i *Image) error {
		_, err := i.Check(fix, nil)
		return err
	}}
}

// lostRefcounts makes the refcount table say that there are no refcounts.
func lostRefcounts(t *testing.T, m *blocktest.MemFile) {
	h, _, err := readHeader(m, block.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := writeZeros(m, int64(h.reftableOffset), 512); err != nil {
		t.Fatal(err)
	}
}

// wrongRefcounts makes each refcount 2 that is a byte.
func wrongRefcounts(t *testing.T, m *blocktest.MemFile) {
	h, _, err := readHeader(m, block.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 512)
	if err := readFull(m, b, int64(h.reftableOffset)); err != nil {
		t.Fatal(err)
	}
	at := int64(be.Uint64(b))
	if err := readFull(m, b, at); err != nil {
		t.Fatal(err)
	}
	for k := range b {
		if b[k] != 0 {
			b[k] = 2
		}
	}
	if err := writeFull(m, b, at); err != nil {
		t.Fatal(err)
	}
}

var failings = []failing{
	{name: "snapshots", before: []act{writes(0, 40<<10), snaps("a"), writes(4096, 9000)}, acts: []act{snaps("b"), writes(0, 4096), applies("a"), deletes("b"), snaps("c"), storing}},
	{name: "snapshots of version 2", opts: "compat=0.10", before: []act{writes(0, 40<<10), snaps("a"), writes(4096, 9000)}, acts: []act{snaps("b"), writes(0, 4096), applies("a"), deletes("b"), snaps("c"), storing}},
	{name: "snapshots with subclusters", opts: "extended_l2=on,cluster_size=16384", before: []act{writes(0, 40<<10), snaps("a"), writes(4096, 9000)}, acts: []act{snaps("b"), applies("a"), deletes("b"), deletes("a"), storing}},
	{name: "snapshots of large clusters", opts: "cluster_size=2097152,extended_l2=on", before: []act{writes(0, 40<<10), snaps("a")}, acts: []act{applies("a"), deletes("a"), storing}},
	{name: "first snapshot", opts: "refcount_bits=64", before: []act{writes(0, 9000)}, acts: []act{snaps("a"), deletes("a"), storing}},
	{name: "snapshots of another size", before: []act{writes(0, 40<<10), snaps("a"), resizes(200 << 10)}, acts: []act{applies("a"), storing}},
	{name: "bitmaps", before: []act{addsBitmap("a"), addsBitmap("b"), writes(0, 9000)}, acts: []act{
		writes(30<<10, 4096), {"clear", func(i *Image) error { return i.ClearBitmap("b") }}, writes(50<<10, 4096), storing}},
	{name: "bitmaps removed and added", before: []act{addsBitmap("a"), addsBitmap("b"), writes(0, 9000)}, acts: []act{
		writes(30<<10, 4096), removesBitmap("a"), addsBitmap("c"), writes(50<<10, 4096), removesBitmap("b"), writes(60<<10, 4096), storing}},
	{name: "bitmaps resized", before: []act{addsBitmap("a"), writes(0, 9000)}, acts: []act{resizes(200 << 10), writes(150<<10, 4096), storing}},
	{name: "amend refcounts", before: []act{writes(0, 40<<10), snaps("a")}, acts: []act{amends("refcount_bits=64"), writes(0, 4096), amends("refcount_bits=2"), storing}},
	{name: "amend to version 2", before: []act{addsBitmap("a"), writes(0, 40<<10), zeroes(0, 4096, 0), snaps("a"), writes(8192, 4096), zeroes(8192, 9000, 0)}, acts: []act{amends("compat=0.10"), storing}},
	{name: "amend to version 3", opts: "compat=0.10", before: []act{writes(0, 40<<10), snaps("a")}, acts: []act{amends("compat=1.1,lazy_refcounts=on"), writes(0, 4096), storing}},
	{name: "amend the size", opts: "lazy_refcounts=on", before: []act{writes(0, 40<<10)}, acts: []act{amends("size=8388608,lazy_refcounts=off"), storing}},
	{name: "rebuild", before: []act{writes(0, 40<<10), snaps("a"), writes(0, 4096)}, spoil: lostRefcounts, acts: []act{repairs(block.FixAll)}, check: true},
	{name: "repair", opts: "refcount_bits=8", before: []act{writes(0, 40<<10), snaps("a"), writes(0, 4096)}, spoil: wrongRefcounts, acts: []act{repairs(block.FixAll)}, check: true},
	{name: "repair leaks", opts: "refcount_bits=8", before: []act{writes(0, 40<<10), writes(0, 4096)}, spoil: wrongRefcounts, acts: []act{repairs(block.FixLeaks), repairs(block.FixAll)}, check: true},
}

// Each write, flush, discard and change of size of an operation on the whole image fails, once or for ever,
// with EIO and ENOSPC. The error keeps its number. What is left has leaks at most once it has been opened, holds
// what it held before or after one of the steps, and so do its snapshots.
func TestFailingOperations(t *testing.T) {
	needQEMU(t)
	for _, f := range failings {
		t.Run(testName(f.name), func(t *testing.T) {
			t.Parallel()
			f.run(t)
		})
	}
}

// create makes the image of before, and returns what it may hold.
func (f failing) create(t *testing.T) (*blocktest.MemFile, []state) {
	opts := "cluster_size=1024," + f.opts
	if strings.Contains(f.opts, "cluster_size") {
		opts = f.opts
	}
	m := createInMemory(t, strings.TrimSuffix(opts, ","), max(f.size, 100<<10))
	states := f.prepare(t, m)
	if f.spoil != nil {
		f.spoil(t, m)
	}
	return m, states
}

func (f failing) run(t *testing.T) {
	m, states := f.create(t)
	for at := 0; ; at++ {
		hit := false
		for _, forever := range []bool{false, true} {
			for _, errno := range []syscall.Errno{syscall.EIO, syscall.ENOSPC} {
				hit = f.failAt(t, m.Clone(), at, forever, errno, states) || hit
			}
		}
		if !hit || t.Failed() {
			return
		}
	}
}

// prepare does what comes before, and returns what the image holds after each step, with no fault.
func (f failing) prepare(t *testing.T, m *blocktest.MemFile) (states []state) {
	img, err := openImage(m, block.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range append(slices.Clone(f.before), storing) {
		if err := a.do(img); err != nil {
			t.Fatalf("%s: %v", a.name, err)
		}
	}
	states = []state{stateOf(t, m)}
	if f.check {
		return states
	}
	whole := m.Clone()
	if img, err = openImage(whole, block.OpenOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, a := range f.acts {
		if err := errors.Join(a.do(img), img.Flush()); err != nil {
			t.Fatalf("%s: %v", a.name, err)
		}
		states = append(states, stateOf(t, whole))
	}
	return states
}

// failAt tells whether there was an event number at to fail.
func (f failing) failAt(t *testing.T, m *blocktest.MemFile, at int, forever bool, errno syscall.Errno, states []state) bool {
	n := 0
	img, err := openImage(&blocktest.FaultyFile{File: m, Fail: func(blocktest.Event) error {
		if n++; n == at+1 || forever && n > at {
			return errno
		}
		return nil
	}}, block.OpenOptions{Check: f.check})
	goOn := !forever && errno == syscall.ENOSPC
	what := fmt.Sprintf("failure %d, for ever %v, %v", at, forever, errno)
	if err != nil {
		if !errors.Is(err, errno) {
			t.Errorf("%s: open: %v", what, err)
		}
		return true
	}
	for _, a := range f.acts {
		before := n
		if err := a.do(img); err != nil && before <= at && n > at && !errors.Is(err, errno) {
			t.Errorf("%s in %s: %v", what, a.name, err)
		}
		if n > at && !goOn {
			break
		}
	}
	if goOn { // what followed was done to another state than the one that is compared
		states = nil
	}
	_ = storing.do(img)
	f.judge(t, m, what, at%4 == 0 && !forever, states)
	return n > at
}

func (f failing) judge(t *testing.T, m *blocktest.MemFile, what string, byQEMU bool, states []state) {
	t.Helper()
	img, err := openImage(m, block.OpenOptions{Check: f.check})
	if err != nil {
		t.Errorf("%s: open: %v", what, err)
		return
	}
	if f.check {
		if _, err := img.Check(block.FixAll, nil); err != nil {
			t.Errorf("%s: repair: %v", what, err)
		}
	}
	var said []string
	res, err := img.Check(0, func(l string) { said = append(said, l) })
	missing := 0
	for _, l := range said {
		if img.hdr.version == 2 && missingFlag.MatchString(l) {
			missing++
		}
	}
	if err != nil || res.CheckErrors > 0 || int(res.Corruptions) > missing {
		t.Errorf("%s: %+v %v: %q", what, res, err, said)
		return
	}
	if err := storing.do(img); err != nil {
		t.Errorf("%s: store: %v", what, err)
	}
	if states == nil {
		return
	}
	got := stateOf(t, m)
	if !slices.ContainsFunc(states, func(s state) bool { return bytes.Equal(s.active, got.active) }) {
		t.Errorf("%s: the image holds what it never held", what)
	}
	for name, b := range got.snaps {
		if !slices.ContainsFunc(states, func(s state) bool { return s.snaps[name] != nil && bytes.Equal(s.snaps[name], b) }) {
			t.Errorf("%s: the snapshot %s holds what it never held", what, name)
		}
	}
	if byQEMU && missing == 0 {
		leaksAtMost(t, m, what)
	}
}

// The power goes at each moment of an operation on the whole image, and takes any part of what was not flushed:
// what is left has leaks at most once it has been opened, and holds what it held before or after one of the steps.
func TestCutOperations(t *testing.T) {
	needQEMU(t)
	for _, f := range failings {
		t.Run(testName(f.name), func(t *testing.T) {
			t.Parallel()
			f.cut(t)
		})
	}
}

func (f failing) cut(t *testing.T) {
	before, states := f.create(t)
	log := &blocktest.Log{}
	img, err := openImage(log.Record("image", before.Clone()), block.OpenOptions{Check: f.check})
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range f.acts {
		if err := a.do(img); err != nil {
			t.Fatalf("%s: %v", a.name, err)
		}
		if strings.HasPrefix(a.name, "write") { // a cut may leave part of it
			states = nil
		}
	}
	events := log.Events()
	r := rand.New(rand.NewPCG(uint64(len(events)), 31))
	for at := range len(events) + 1 {
		for k, keep := range []float64{0, 0.3, 0.7} {
			cut := blocktest.Cut{At: at, Keep: keep, Torn: k > 0}
			m, err := cut.Apply(r, before, "image", events)
			if err != nil {
				t.Fatal(err)
			}
			f.judge(t, m, fmt.Sprintf("%+v of %d", cut, len(events)), at%4 == 0 && k == 1, states)
		}
	}
}
