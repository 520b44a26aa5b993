package qcow2

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"berth/block"
	"berth/block/blocktest"
)

var cutRuns = flag.Int("cut.runs", 1000, "how many random runs are cut")
var cutFirst = flag.Int("cut.first", 1, "seed of the first of them")

// cutVariants have what else an image may keep: other widths, packing, files, a backing image.
var cutVariants = []string{
	"", "lazy_refcounts=on", "cluster_size=512", "cluster_size=4096,refcount_bits=1", "cluster_size=2048,refcount_bits=64,lazy_refcounts=on",
	"extended_l2=on,cluster_size=16384", "compat=0.10,cluster_size=1024", "cluster_size=4096,data_file=d", "cluster_size=4096,data_file=d,data_file_raw=on",
	"cluster_size=1024,compression_type=zstd", "backing,cluster_size=4096", "backing,extended_l2=on,cluster_size=32768",
}

// cutImage is an image in memory whose files' events are recorded.
type cutImage struct {
	opts       string
	meta, data *blocktest.MemFile // before the first event
	backing    []byte
	log        *blocktest.Log
	files      [2]block.File // recorded: the image's and the data file
	img        *Image
	bytes      []byte
	history    []cutMoment
	snaps      []cutSnapshot
	closes     []cutClose
}

// cutMoment is what the image holds once what began after so many events is done.
type cutMoment struct {
	events   int
	contents []byte
	flushed  bool
}

// cutSnapshot was there between two counts of events, for certain, and perhaps a little longer.
type cutSnapshot struct {
	name       string
	contents   []byte
	made, gone int // gone 0: never
}

// cutClose is a time when the image was closed and opened again: what its bitmaps were to say, and the counts of
// events when closing began and had ended, and when the bitmaps had been marked in use again.
type cutClose struct {
	from, to, opened int
	bitmaps          map[string]string
}

// TestCutSequences cuts random runs at random moments. What is left has leaks at most, holds what
// was flushed, and each later write wholly, in part or not at all; its snapshots are whole, and its bitmaps
// say what they were to say, or that they are in use.
func TestCutSequences(t *testing.T) {
	runs := *cutRuns
	if testing.Short() {
		runs /= 10
	}
	for seed := *cutFirst; seed < *cutFirst+runs; seed++ {
		r := rand.New(rand.NewPCG(uint64(seed), 12))
		c := newCutImage(t, cutVariants[seed%len(cutVariants)], r)
		for range 6 + r.IntN(14) {
			c.step(t, r)
		}
		events := c.log.Events()
		for n := range 3 {
			cut := blocktest.RandomCut(r, len(events))
			if err := c.judge(t, r, cut, n == 0 && seed%16 == 0); err != nil {
				t.Fatalf("%q, %+v of %d events: %v\nagain: go test ./block/qcow2 -run TestCutSequences -cut.first=%d -cut.runs=1", c.opts, cut, len(events), err, seed)
			}
		}
	}
}

func newCutImage(t *testing.T, opts string, r *rand.Rand) *cutImage {
	c := &cutImage{opts: opts, meta: blocktest.NewMemFile(nil), data: blocktest.NewMemFile(nil), log: &blocktest.Log{}}
	size := 512 * (1 + r.Int64N(400))
	data := c.data.Clone()
	if err := create(c.meta, block.Creation{Values: parseOptions(opts, size), Data: data}); err != nil {
		t.Fatal(err)
	}
	c.data = data.Clone()
	c.bytes = make([]byte, size)
	if strings.HasPrefix(opts, "backing") {
		c.backing = pattern(size)
		c.bytes = pattern(size)
	}
	var err error
	c.files = [2]block.File{c.log.Record("image", c.meta.Clone()), c.log.Record("data file", c.data.Clone())}
	c.img, err = c.open(c.files[0], c.files[1], block.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	c.note(0, true)
	return c
}

func (c *cutImage) open(meta, data block.File, o block.OpenOptions) (*Image, error) {
	i, err := openImage(meta, o)
	if err != nil {
		return nil, err
	}
	if _, _, ok := i.DataFile(); ok {
		i.SetDataFile(data)
	}
	if c.backing != nil {
		i.SetBacking(blocktest.NewMemFile(c.backing))
	}
	return i, nil
}

func (c *cutImage) note(events int, flushed bool) {
	c.history = append(c.history, cutMoment{events, bytes.Clone(c.bytes), flushed})
}

// step does one operation. Those that the image refuses leave everything as it was.
func (c *cutImage) step(t *testing.T, r *rand.Rand) {
	start := c.log.Len()
	switch n := r.IntN(24); {
	case n < 3:
		if err := c.img.Flush(); err != nil {
			t.Fatal(err)
		}
		c.note(c.log.Len(), true)
		return
	case n == 3:
		c.snapshot(start, fmt.Sprint("s", len(c.snaps)))
	case n == 4:
		c.apply(r)
	case n == 5:
		c.delete(r, start)
	case n == 6:
		c.resize(r)
	case n < 10:
		c.bitmap(r, start)
	case n == 10:
		c.reopen(t, start)
		return
	default:
		before := bytes.Clone(c.bytes)
		if err := someOperation(c.img, c.bytes, r); err != nil {
			c.bytes = before // compressed writes to an external data file are refused
		}
	}
	c.note(start, false)
}

func (c *cutImage) snapshot(start int, name string) {
	s := cutSnapshot{name: name, contents: bytes.Clone(c.bytes), made: start}
	if c.img.CreateSnapshot(block.Snapshot{Name: s.name, Date: time.Unix(1e9, 0), ICount: -1}) == nil {
		s.made = c.log.Len()
		c.snaps = append(c.snaps, s)
	}
}

func (c *cutImage) apply(r *rand.Rand) {
	if len(c.snaps) == 0 {
		return
	}
	if s := c.snaps[r.IntN(len(c.snaps))]; s.gone == 0 && c.img.ApplySnapshot(s.name) == nil {
		c.bytes = bytes.Clone(s.contents)
	}
}

func (c *cutImage) delete(r *rand.Rand, start int) {
	if len(c.snaps) == 0 {
		return
	}
	if s := &c.snaps[r.IntN(len(c.snaps))]; s.gone == 0 && c.img.DeleteSnapshot(s.name) == nil {
		s.gone = start + 1
	}
}

// bitmap adds a bitmap, or does something to one.
func (c *cutImage) bitmap(r *rand.Rand, start int) {
	list := c.img.Bitmaps()
	if len(list) == 0 || r.IntN(3) == 0 {
		_ = c.img.AddBitmap(block.BitmapInfo{Name: fmt.Sprint("b", start), Granularity: 512 << r.IntN(4), Auto: true})
		return
	}
	b := list[r.IntN(len(list))]
	switch r.IntN(4) {
	case 0:
		_ = c.img.RemoveBitmap(b.Name)
	case 1:
		_ = c.img.ClearBitmap(b.Name)
	case 2:
		_ = c.img.EnableBitmap(b.Name, !b.Auto)
	default:
		off := r.Int64N(c.img.Size())
		_ = c.img.MarkBitmap(b.Name, off, r.Int64N(c.img.Size()-off+1))
	}
}

// reopen closes the image, but not its files, and opens it again.
func (c *cutImage) reopen(t *testing.T, start int) {
	k := cutClose{from: start, bitmaps: bitmapsOf(t, c.img)}
	err := storing.do(c.img)
	if err != nil {
		t.Fatal(err)
	}
	k.to = c.log.Len()
	c.note(k.to, true)
	if c.img, err = c.open(c.files[0], c.files[1], block.OpenOptions{}); err != nil {
		t.Fatal(err)
	}
	k.opened = c.log.Len()
	c.closes = append(c.closes, k)
}

// bitmapsOf tells what the bitmaps say that can be trusted.
func bitmapsOf(t *testing.T, i *Image) map[string]string {
	all := map[string]string{}
	for _, b := range i.Bitmaps() {
		if !b.InUse {
			all[b.Name] = fmt.Sprint(b.Granularity, b.Auto, dirtyByUs(t, i, b.Name))
		}
	}
	return all
}

// trusts finds in bitmaps that are not in use what they were to say at the close before the cut, or the one it is in.
func (c *cutImage) trusts(t *testing.T, meta, data *blocktest.MemFile, at int) error {
	i, err := c.open(meta.Clone(), data.Clone(), block.OpenOptions{ReadOnly: true})
	if err != nil {
		return err
	}
	got, may := bitmapsOf(t, i), map[string][]string{}
	for _, k := range c.closes {
		if k.from > at || k.opened <= at && k.opened > k.to {
			continue
		}
		for name, says := range k.bitmaps {
			may[name] = append(may[name], says)
			if _, there := got[name]; !there && k.to <= at && len(i.Bitmaps()) < len(k.bitmaps) {
				return fmt.Errorf("the bitmap %s is gone", name)
			}
		}
	}
	for name, says := range got {
		if !slices.Contains(may[name], says) {
			return fmt.Errorf("the bitmap %s says %s, which is none of %q", name, says, may[name])
		}
	}
	return nil
}

func (c *cutImage) resize(r *rand.Rand) {
	size := 512 * (1 + r.Int64N(600))
	if c.img.Truncate(size) != nil {
		return
	}
	if n := int64(len(c.bytes)); size > n {
		c.bytes = append(c.bytes, make([]byte, size-n)...)
	}
	c.bytes = c.bytes[:size:size]
}

// judge looks at what a cut leaves: by the check, QEMU's too if asked, and by reading it.
func (c *cutImage) judge(t *testing.T, r *rand.Rand, cut blocktest.Cut, byQEMU bool) error {
	meta, err := cut.Apply(r, c.meta, "image", c.log.Events())
	if err != nil {
		return err
	}
	data, err := cut.Apply(r, c.data, "data file", c.log.Events())
	if err != nil {
		return err
	}
	if err := c.trusts(t, meta, data, cut.At); err != nil {
		return err
	}
	if byQEMU {
		if err := judgedByQEMU(t, meta, data); err != nil {
			return err
		}
	}
	// A dirty image is repaired by opening it; another must need no repair.
	i, err := c.open(meta, data, block.OpenOptions{})
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	var said []string
	res, err := i.Check(0, func(l string) { said = append(said, l) })
	if err != nil || res.Corruptions+res.CheckErrors > c.flagsOnly(said) {
		return fmt.Errorf("check: %+v, %w: %q", res, err, said)
	}
	got := make([]byte, i.Size())
	if err := i.Readv([][]byte{got}, 0); err != nil {
		return err
	}
	if err := c.holds(got, cut.At); err != nil {
		return err
	}
	return c.keeps(i, meta, data, cut.At)
}

// flagsOnly counts the lines about missing flags. Version 2, which has no dirty bit, cannot be kept from having such
// while a snapshot is made, applied or deleted; they cost copies. A flag that is set where it must not be
// would have a snapshot's cluster written: there is none after any cut.
func (c *cutImage) flagsOnly(said []string) (n int64) {
	for _, l := range said {
		if strings.Contains(c.opts, "compat=0.10") && missingFlag.MatchString(l) {
			n++
		}
	}
	return n
}

// missingFlag is a check's line about a cluster that is the image's own and does not say so.
var missingFlag = regexp.MustCompile(`^ERROR OFLAG_COPIED .*refcount=1$`)

// missingFlagsOnly tells whether a check of an image of version 2 found leaks and missing flags, nothing worse.
func missingFlagsOnly(out []byte) bool {
	for l := range strings.Lines(string(out)) {
		if l = strings.TrimSpace(l); strings.HasPrefix(l, "ERROR") && !missingFlag.MatchString(l) {
			return false
		}
	}
	return true
}

// holds finds in every sector what it held at the last flush before the cut, or was given since.
func (c *cutImage) holds(got []byte, at int) error {
	first, last := 0, 0
	for k, h := range c.history {
		if h.events <= at {
			last = k
			if h.flushed {
				first = k
			}
		}
	}
	may := c.history[first : last+1]
	sized, least := false, len(got)
	for _, h := range may {
		sized, least = sized || len(h.contents) == len(got), min(least, len(h.contents))
	}
	if !sized {
		return fmt.Errorf("%d bytes are left, which the image never had", len(got))
	}
	for off := 0; off < least; off += 512 { // what shrinking has begun to cut off is given up
		ok := false
		for _, h := range may {
			ok = ok || bytes.Equal(got[off:off+512], h.contents[off:off+512])
		}
		if !ok {
			return fmt.Errorf("the sector at %#x holds what it was not given since the flush", off)
		}
	}
	return nil
}

// keeps finds the snapshots that must be there, and each with what it was made of.
func (c *cutImage) keeps(i *Image, meta, data *blocktest.MemFile, at int) error {
	if err := i.Close(); err != nil {
		return err
	}
	for _, s := range c.snaps {
		o, err := c.open(meta.Clone(), data.Clone(), block.OpenOptions{ReadOnly: true})
		if err != nil {
			return err
		}
		if err := o.LoadSnapshot(s.name); err != nil {
			if s.made <= at && (s.gone == 0 || s.gone > at) {
				return fmt.Errorf("snapshot %s: %w", s.name, err)
			}
			continue
		}
		got := make([]byte, min(o.Size(), int64(len(s.contents))))
		if err := o.Readv([][]byte{got}, 0); err != nil {
			return fmt.Errorf("snapshot %s: %w", s.name, err)
		}
		if !bytes.Equal(got, s.contents[:len(got)]) {
			return fmt.Errorf("snapshot %s holds other contents", s.name)
		}
	}
	return nil
}

// judgedByQEMU has qemu-img check find leaks at most, once a dirty image has been repaired.
func judgedByQEMU(t *testing.T, meta, data *blocktest.MemFile) error {
	dir := t.TempDir()
	path := filepath.Join(dir, "cut.qcow2")
	if err := os.WriteFile(path, meta.Bytes(), 0o644); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "d"), data.Bytes(), 0o644); err != nil {
		return err
	}
	name := "json:{\"driver\":\"qcow2\",\"backing\":null,\"file\":{\"driver\":\"file\",\"filename\":\"" + path + "\"}}"
	h, _, err := readHeader(meta, block.OpenOptions{ReadOnly: true})
	if err != nil {
		return err
	}
	if h.external() {
		name = name[:len(name)-1] + ",\"data-file\":{\"driver\":\"file\",\"filename\":\"" + filepath.Join(dir, "d") + "\"}}"
	}
	if h.incompat&incompatDirty != 0 {
		if out, err := exec.Command("qemu-img", "check", "-r", "all", name).CombinedOutput(); err != nil {
			return fmt.Errorf("qemu-img check -r all: %w: %s", err, out)
		}
	}
	out, err := exec.Command("qemu-img", "check", name).CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !(errors.As(err, &exit) && (exit.ExitCode() == 3 || exit.ExitCode() == 2 && h.version == 2 && missingFlagsOnly(out))) {
		return fmt.Errorf("qemu-img check: %w: %s", err, out)
	}
	return nil
}

// The power fails, and tears at sectors, while the header is written anew: it says what it did, or what it is to say.
func TestTornHeader(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(i *Image) error
	}{
		{"another backing file", func(i *Image) error { return i.ChangeBackingFile("the/other/one", "qcow2") }},
		{"a first bitmap", func(i *Image) error { return errors.Join(addsBitmap("a").do(i), storing.do(i)) }},
	} {
		t.Run(testName(c.name), func(t *testing.T) {
			before := createInMemory(t, "", 1<<20)
			i, err := openImage(before, block.OpenOptions{})
			if err != nil {
				t.Fatal(err)
			}
			i.hdr.unknownExts = []extension{{0x12345678, bytes.Repeat([]byte("x"), 200)}}
			if err := i.ChangeBackingFile("one", "raw"); err != nil {
				t.Fatal(err)
			}
			log := &blocktest.Log{}
			if i, err = openImage(log.Record("image", before.Clone()), block.OpenOptions{}); err != nil {
				t.Fatal(err)
			}
			if err := c.do(i); err != nil {
				t.Fatal(err)
			}
			events := log.Events()
			r := rand.New(rand.NewPCG(1, 2))
			for range 200 {
				cut := blocktest.Cut{At: r.IntN(len(events) + 1), Keep: 0.5, Torn: true}
				m, err := cut.Apply(r, before, "image", events)
				if err != nil {
					t.Fatal(err)
				}
				h, _, err := readHeader(m, block.OpenOptions{})
				if err != nil {
					t.Fatalf("%+v: %v", cut, err)
				}
				if n := h.backingFile; n != "one" && n != i.hdr.backingFile || len(h.unknownExts) != 1 || len(h.unknownExts[0].data) != 200 {
					t.Fatalf("%+v: backing file %q, extensions %v", cut, n, h.unknownExts)
				}
			}
		})
	}
}
