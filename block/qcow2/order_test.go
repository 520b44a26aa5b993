package qcow2

import (
	"encoding/binary"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"berth/block"
	"berth/block/blocktest"
)

var updateOrder = flag.Bool("order.update", false, "write testdata/order anew")

// act is a step of an operation whose order is recorded, and what it is called there.
type act struct {
	name string
	do   func(i *Image) error
}

var (
	flushed = act{"flush", (*Image).Flush}
	closed  = act{"close", (*Image).Close}
)

// ordered is an operation, what came before it on the image, and what it is made of.
type ordered struct {
	file, about, opts string
	size              int64
	before            []act
	acts              []act
	backing           bool
}

func writes(off, n int64) act {
	return act{fmt.Sprintf("write %d at %d", n, off), func(i *Image) error {
		return i.Writev([][]byte{pattern(n)}, off, 0)
	}}
}

func compresses(off, n int64) act {
	return act{fmt.Sprintf("compressed write %d at %d", n, off), func(i *Image) error {
		return i.WriteCompressed(pattern(n), off)
	}}
}

func zeroes(off, n int64, f block.Flags) act {
	name := "zero"
	if f != 0 {
		name = "zero and unmap"
	}
	return act{fmt.Sprintf("%s %d at %d", name, n, off), func(i *Image) error { return i.WriteZeroes(off, n, f) }}
}

func discards(off, n int64) act {
	return act{fmt.Sprintf("discard %d at %d", n, off), func(i *Image) error { return i.Discard(off, n) }}
}

func snaps(name string) act {
	return act{"snapshot -c " + name, func(i *Image) error {
		return i.CreateSnapshot(block.Snapshot{Name: name, Date: time.Unix(1e9, 0), ICount: -1})
	}}
}

func resizes(size int64) act {
	return act{fmt.Sprintf("resize to %d", size), func(i *Image) error { return i.Truncate(size) }}
}

func pattern(n int64) []byte {
	p := make([]byte, n)
	for k := range p {
		p[k] = byte(k%251) + 1
	}
	return p
}

const cluster = 64 << 10

var orders = []ordered{
	{file: "allocating-write", about: "a write to clusters that nothing is stored for", acts: []act{writes(0, 2*cluster), flushed, closed}},
	{file: "first-write-of-part", about: "a write to part of a cluster that only the backing image stores", backing: true, acts: []act{writes(4096, 512), flushed, closed}},
	{file: "overwrite", about: "a write to a cluster that is the image's own", before: []act{writes(0, cluster)}, acts: []act{writes(4096, 512), flushed, closed}},
	{file: "write-to-shared", about: "a write to a cluster that a snapshot has, too", before: []act{writes(0, cluster), snaps("a")}, acts: []act{writes(4096, 512), flushed, closed}},
	{file: "zero", about: "zeros over a cluster, whose storage is kept", before: []act{writes(0, cluster)}, acts: []act{zeroes(0, cluster, 0), flushed, closed}},
	{file: "zero-unmap", about: "zeros over a cluster, whose storage is given back", before: []act{writes(0, 2*cluster)}, acts: []act{zeroes(0, cluster, block.FlagUnmap), flushed, closed}},
	{file: "discard", about: "a discard of whole clusters", before: []act{writes(0, 3*cluster)}, acts: []act{discards(0, 2*cluster), flushed, closed}},
	{file: "discard-then-reuse", about: "what was discarded is written again at once", before: []act{writes(0, cluster)}, acts: []act{discards(0, cluster), writes(cluster, cluster), flushed, closed}},
	{file: "compressed-write", about: "two clusters stored compressed", acts: []act{compresses(0, cluster), compresses(cluster, cluster), flushed, closed}},
	{file: "overwrite-compressed", about: "a write to part of a compressed cluster", before: []act{compresses(0, cluster)}, acts: []act{writes(4096, 512), flushed, closed}},
	{file: "lazy-refcounts", about: "the first write of an image with lazy refcounts", opts: "lazy_refcounts=on", acts: []act{writes(0, cluster), flushed, closed}},
	{file: "snapshot-create", about: "a snapshot", before: []act{writes(0, cluster)}, acts: []act{snaps("a"), flushed, closed}},
	{file: "snapshot-apply", about: "going back to a snapshot", before: []act{writes(0, cluster), snaps("a"), writes(0, cluster)}, acts: []act{{"snapshot -a a", func(i *Image) error { return i.ApplySnapshot("a") }}, flushed, closed}},
	{file: "snapshot-delete", about: "the end of a snapshot that had a cluster of its own", before: []act{writes(0, cluster), snaps("a"), writes(0, cluster)}, acts: []act{{"snapshot -d a", func(i *Image) error { return i.DeleteSnapshot("a") }}, flushed, closed}},
	{file: "snapshot-create-v2", about: "a snapshot in version 2, which cannot say that it is not whole", opts: "compat=0.10", before: []act{writes(0, cluster)}, acts: []act{snaps("a"), flushed, closed}},
	{file: "snapshot-apply-v2", about: "going back to a snapshot in version 2", opts: "compat=0.10", before: []act{writes(0, cluster), snaps("a"), writes(0, cluster)}, acts: []act{{"snapshot -a a", func(i *Image) error { return i.ApplySnapshot("a") }}, flushed, closed}},
	{file: "snapshot-delete-v2", about: "the end of a snapshot in version 2", opts: "compat=0.10", before: []act{writes(0, 2*cluster), snaps("a"), writes(0, cluster)}, acts: []act{{"snapshot -d a", func(i *Image) error { return i.DeleteSnapshot("a") }}, flushed, closed}},
	{file: "grow", about: "a larger virtual size within the L1 table", acts: []act{resizes(16 << 20), flushed, closed}},
	{file: "l1-growth", about: "a larger virtual size than the L1 table has room for", opts: "cluster_size=512", size: 64 << 10, before: []act{writes(0, 512)}, acts: []act{resizes(4 << 20), flushed, closed}},
	{file: "shrink", about: "a smaller virtual size", before: []act{writes(0, cluster), writes(4<<20, cluster)}, acts: []act{resizes(1 << 20), flushed, closed}},
	{file: "refcount-table-growth", about: "a write for which the refcount table must grow", opts: "cluster_size=512,refcount_bits=64", size: 4 << 20, before: []act{writes(0, 1900<<10)}, acts: []act{writes(2<<20, 256<<10), flushed, closed}},
	{file: "commit-empties", about: "what commit does to the image once its backing image has all that it had", backing: true, before: []act{writes(0, 2*cluster)}, acts: []act{{"make empty", (*Image).MakeEmpty}, flushed, closed}},
	{file: "bitmap-store", about: "an image with a recording bitmap is opened, written and closed", before: []act{{"add bitmap", func(i *Image) error {
		return i.AddBitmap(block.BitmapInfo{Name: "b", Granularity: cluster, Auto: true})
	}}}, acts: []act{{"open", func(*Image) error { return nil }}, writes(0, cluster), flushed, closed}},
	{file: "external-data", about: "a write to an image whose data lies in a file of its own", opts: "data_file=d", acts: []act{writes(0, cluster), flushed, closed}},
}

// TestOrder compares the order of writes and flushes of each operation with the one agreed on.
func TestOrder(t *testing.T) {
	for _, o := range orders {
		t.Run(o.file, func(t *testing.T) {
			got := o.record(t)
			path := filepath.Join("testdata", "order", o.file+".txt")
			if *updateOrder {
				if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("order is\n%s\nagreed on was\n%s\nif the new one is as safe: go test ./block/qcow2 -run TestOrder -order.update", got, want)
			}
		})
	}
}

func (o ordered) record(t *testing.T) string {
	size := o.size
	if size == 0 {
		size = 8 << 20
	}
	meta, data := blocktest.NewMemFile(nil), blocktest.NewMemFile(nil)
	if err := create(meta, block.Creation{Values: parseOptions(o.opts, size), Data: data}); err != nil {
		t.Fatal(err)
	}
	o.run(t, meta, data, nil, append(slices.Clone(o.before), closed))
	// Closing has ended the files, so that copies are worked on.
	before := meta.Clone()
	meta, data = meta.Clone(), data.Clone()
	log := &blocktest.Log{}
	ends := o.run(t, log.Record("image", meta), log.Record("data file", data), log, o.acts)
	return o.text(log.Events(), ends, touches(before, meta.Clone()))
}

// run does acts one after the other and returns how many events each had led to.
func (o ordered) run(t *testing.T, meta, data block.File, log *blocktest.Log, acts []act) []int {
	i, err := openImage(meta, block.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, ok := i.DataFile(); ok {
		i.SetDataFile(data)
	}
	if o.backing {
		b := blocktest.NewMemFile(pattern(i.Size()))
		i.SetBacking(b)
	}
	var ends []int
	for _, a := range acts {
		if err := a.do(i); err != nil {
			t.Fatalf("%s: %v", a.name, err)
		}
		if log != nil {
			ends = append(ends, log.Len())
		}
	}
	return ends
}

func (o ordered) text(events []blocktest.Event, ends []int, names map[int64]string) string {
	var s strings.Builder
	fmt.Fprintf(&s, "# %s", o.about)
	if o.opts != "" {
		fmt.Fprintf(&s, " (%s)", o.opts)
	}
	s.WriteString("\n")
	at := 0
	for k, a := range o.acts {
		fmt.Fprintf(&s, "\n%s:\n", a.name)
		last, count := "", 0
		say := func(l string) {
			if l == last {
				count++
				return
			}
			if count > 1 {
				fmt.Fprintf(&s, "\t%s (%d times)\n", last, count)
			} else if count == 1 {
				fmt.Fprintf(&s, "\t%s\n", last)
			}
			last, count = l, 1
		}
		for _, e := range events[at:ends[k]] {
			say(o.line(e, names))
		}
		say("")
		at = ends[k]
	}
	return s.String()
}

func (o ordered) line(e blocktest.Event, names map[int64]string) string {
	file := ""
	if e.File == "data file" {
		file = " of the data file"
	}
	switch e.Act {
	case blocktest.ActFlush:
		return "flush" + file
	case blocktest.ActTruncate:
		return "truncate" + file
	}
	what := "data"
	if n, ok := names[e.Off&^511]; ok && file == "" {
		what = n
	}
	if e.FUA {
		what += ", on stable storage"
	}
	return e.Act.String() + " " + what + file
}

// touches tells what each sector of an image was, or became, by the states before and after.
// It reads the tables by the specification alone (docs/interop/qcow2.txt of QEMU), not by this package.
func touches(states ...*blocktest.MemFile) map[int64]string {
	names := map[int64]string{}
	for _, m := range states {
		image(m.Bytes()).name(names)
	}
	return names
}

type image []byte

func (m image) u32(off int64) int64 { return int64(binary.BigEndian.Uint32(m[off:])) }
func (m image) u64(off int64) int64 { return int64(binary.BigEndian.Uint64(m[off:])) }

func (m image) name(names map[int64]string) {
	bits := m.u32(20)
	cs := int64(1) << bits
	mark := func(off, n int64, what string) {
		for s := off &^ 511; s < off+n; s += 512 {
			names[s] = what
		}
	}
	mark(0, cs, "header")
	table, clusters := m.u64(48), m.u32(56)
	mark(table, clusters*cs, "refcount table")
	for e := table; e < table+clusters*cs && e < int64(len(m)); e += 8 {
		if b := m.u64(e) &^ 511; b != 0 {
			mark(b, cs, "refcount block")
		}
	}
	m.l1(m.u64(40), m.u32(36), cs, "", mark)
	at := m.u64(64)
	start := at
	for range m.u32(60) {
		m.l1(m.u64(at), m.u32(at+8), cs, " of a snapshot", mark)
		id, name, extra := int64(binary.BigEndian.Uint16(m[at+12:])), int64(binary.BigEndian.Uint16(m[at+14:])), m.u32(at+36)
		at = (at + 40 + extra + id + name + 7) &^ 7
	}
	if at > start {
		mark(start, at-start, "snapshot table")
	}
	m.bitmaps(cs, mark)
}

// bitmaps names the bitmap directory, and each bitmap's table and data, if the header has that extension.
func (m image) bitmaps(cs int64, mark func(off, n int64, what string)) {
	if m.u32(4) < 3 {
		return
	}
	at := m.u32(100)
	for m.u32(at) != 0 && m.u32(at) != 0x23852875 {
		at += 8 + (m.u32(at+4)+7)&^7
	}
	if m.u32(at) == 0 {
		return
	}
	n, size, dir := m.u32(at+8), m.u64(at+16), m.u64(at+24)
	mark(dir, size, "bitmap directory")
	for range n {
		table, entries := m.u64(dir), m.u32(dir+8)
		mark(table, entries*8, "bitmap table")
		for e := table; e < table+entries*8; e += 8 {
			if b := m.u64(e) &^ 511; b != 0 {
				mark(b, cs, "bitmap data")
			}
		}
		dir += (24 + int64(binary.BigEndian.Uint16(m[dir+18:])) + m.u32(dir+20) + 7) &^ 7
	}
}

// l1 names an L1 table and its L2 tables, unless the active one has them.
func (m image) l1(off, entries, cs int64, whose string, mark func(off, n int64, what string)) {
	mark(off, entries*8, "L1 table"+whose)
	for e := off; e < off+entries*8 && e+8 <= int64(len(m)); e += 8 {
		if l2 := m.u64(e) & 0x00fffffffffffe00; l2 != 0 {
			mark(l2, cs, "L2 table")
		}
	}
}
