package qcow2

import (
	"errors"
	"syscall"
	"testing"

	"berth/block"
	"berth/block/blocktest"
)

// unreadable is a file of which one place cannot be read while bad is not 0.
type unreadable struct {
	*blocktest.MemFile
	bad int64
}

func (f *unreadable) Readv(iov [][]byte, off int64) error {
	if f.bad != 0 && off == f.bad {
		return syscall.EIO
	}
	return f.MemFile.Readv(iov, off)
}

// opened is an image in memory that acts have been done to, opened anew.
func opened(t *testing.T, opts string, size int64, acts ...act) (*Image, *unreadable) {
	t.Helper()
	f := &unreadable{MemFile: createInMemory(t, opts, size)}
	i, err := openImage(f, block.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range append(acts, storing) {
		if err := a.do(i); err != nil {
			t.Fatalf("%s: %v", a.name, err)
		}
	}
	if i, err = openImage(f, block.OpenOptions{}); err != nil {
		t.Fatal(err)
	}
	return i, f
}

// A snapshot is made although the old snapshot table cannot be freed, having no
// refcount: the new one is in force then, and what it refers to keeps its refcounts.
func TestSnapshotTableThatCannotBeFreed(t *testing.T) {
	i, f := opened(t, "cluster_size=1024", 100<<10, writes(0, 9000), snaps("a"))
	i.mu.Lock()
	err := i.addRefcounts(int64(i.hdr.snapshotsOffset), 1, -1)
	i.alloc.next = 40 // past the table
	i.mu.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range []act{snaps("b"), writes(0, 4096), storing} {
		if err := a.do(i); err != nil {
			t.Fatalf("%s: %v", a.name, err)
		}
	}
	leaksAtMost(t, f.MemFile, "after it")
}

// An L2 table cannot be read when a snapshot is deleted: the snapshot is gone,
// what it alone had is leaked, and nothing is wrong with what is left.
func TestSnapshotWhoseTableCannotBeRead(t *testing.T) {
	for _, opts := range []string{"cluster_size=512", "cluster_size=512,compat=0.10"} {
		i, f := opened(t, opts, 100<<10, writes(0, 90<<10), snaps("a"))
		f.bad = int64(i.l1[1] & offsetMask)
		if err := i.DeleteSnapshot("a"); !errors.Is(err, syscall.EIO) {
			t.Fatalf("%q: %v", opts, err)
		}
		f.bad = 0
		if err := storing.do(i); err != nil {
			t.Fatal(err)
		}
		repaired(t, f.MemFile, opts)
	}
}

// twice has two entries of the active L1 table refer to one L2 table, as only a hostile image does.
func twice(t *testing.T, i *Image) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.l1[1] = i.l1[0]
	i.l1Dirty.add(0, 2)
	if err := errors.Join(i.quiesce(), i.sync()); err != nil {
		t.Fatal(err)
	}
}

// An L2 table that two entries refer to is not walked as often as a hostile
// image likes: it is a corruption, and nothing is freed.
func TestSnapshotOfTableUsedTwice(t *testing.T) {
	i, _ := opened(t, "cluster_size=512", 100<<10, writes(0, 60<<10), snaps("a"), writes(0, 512))
	twice(t, i)
	if err := i.CreateSnapshot(block.Snapshot{Name: "b"}); !errors.Is(err, errCorrupt) {
		t.Errorf("create: %v", err)
	}
	if !i.corrupt.Load() {
		t.Error("the image is still used")
	}
}

// A snapshot of a damaged image says that the active L1 table is one of its clusters: deleting it leaves the table.
func TestDeletedSnapshotSparesTheTables(t *testing.T) {
	i, f := opened(t, "cluster_size=512", 100<<10, writes(0, 30<<10), snaps("a"), writes(0, 512))
	l1, err := i.snapshotL1(&i.snap.list[0])
	if err != nil {
		t.Fatal(err)
	}
	active := int64(i.hdr.l1Offset)
	if err := writeFull(f, be.AppendUint64(nil, uint64(active)), int64(l1[0]&offsetMask)); err != nil {
		t.Fatal(err)
	}
	i.l2.forgetAll()
	if err := i.DeleteSnapshot("a"); !errors.Is(err, errCorrupt) {
		t.Errorf("delete: %v", err)
	}
	got := make([]byte, 8)
	if err := readFull(f, got, active); err != nil || be.Uint64(got) == 0 {
		t.Errorf("the active table begins with %x, %v", got, err)
	}
}

// A snapshot with the ID of another is refused, as by QEMU.
func TestSnapshotsHaveIDsOfTheirOwn(t *testing.T) {
	i, _ := opened(t, "", 1<<20, snaps("a"))
	if err := i.CreateSnapshot(block.Snapshot{ID: "1", Name: "b"}); !errors.Is(err, syscall.EEXIST) {
		t.Errorf("a second snapshot 1: %v", err)
	}
}

// An image that cannot become one of version 2 keeps its bitmaps.
func TestRefusedDowngradeKeepsBitmaps(t *testing.T) {
	i, _ := opened(t, "compression_type=zstd", 1<<20, compresses(0, cluster), addsBitmap("a"))
	if err := amend(i, block.Values{"compat": "0.10"}, nil); err == nil {
		t.Error("zstd in version 2")
	}
	if len(i.Bitmaps()) != 1 {
		t.Error("the bitmap is gone")
	}
}

// Tables that overlap, and refer to a faulty table over and over, have the check given up.
func TestCheckOfEndlessTablesEnds(t *testing.T) {
	i, f := opened(t, "cluster_size=2097152", 1<<20, writes(0, 4096))
	table := i.l1[0]
	fault := be.AppendUint64(nil, 1<<61)
	if err := writeFull(f, fault, int64(table&offsetMask)+8); err != nil { // reserved bits: it is read again each time
		t.Fatal(err)
	}
	l1 := make([]uint64, 4096)
	for k := range l1 {
		l1[k] = table
	}
	at := (f.Size() + i.clusterSize - 1) &^ (i.clusterSize - 1)
	if err := writeFull(f, encodeTable(l1), at); err != nil {
		t.Fatal(err)
	}
	h := i.hdr
	h.l1Offset, h.l1Size = uint64(at), uint32(len(l1))
	if err := i.writeActive(h); err != nil {
		t.Fatal(err)
	}
	c, err := openImage(f, block.OpenOptions{Check: true})
	if err != nil {
		t.Fatal(err)
	}
	res, err := c.Check(0, nil)
	if !errors.Is(err, errTooBig) || res.CheckErrors == 0 {
		t.Errorf("%+v, %v", res, err)
	}
}

// A zero cluster that a hostile image says thousands have is given back at once, not as often.
func TestDowngradeOfManyOwners(t *testing.T) {
	i, f := opened(t, "cluster_size=512", 100<<10, writes(0, 30<<10), snaps("a"), zeroes(0, 30<<10, 0))
	i.mu.Lock()
	table := int64(i.l1[0] & offsetMask)
	err := i.addRefcounts(table, 1, 60000)
	for off := int64(0); off < 30<<10 && err == nil; off += 512 {
		var s *slice
		var at int
		if s, at, err = i.l2Slice(off); err == nil && s != nil {
			if e, _ := i.entryAt(s, at); e&offsetMask != 0 {
				err = i.addRefcounts(int64(e&offsetMask), 1, 61000)
			}
		}
	}
	i.mu.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	pending := 0
	err = amend(i, block.Values{"compat": "0.10"}, func(int64, int64) { pending = max(pending, len(i.pending)) })
	if err != nil {
		t.Fatal(err)
	}
	if pending > 1000 {
		t.Errorf("%d runs wait to be freed", pending)
	}
	_ = f
}

// Snapshots' L1 tables that overlap are not all read for a downgrade.
func TestDowngradeOfOverlappingTables(t *testing.T) {
	i, _ := opened(t, "", 1<<20, writes(0, 4096))
	for k := range 64 {
		i.snap.list = append(i.snap.list, snapshotEntry{id: string(rune('a' + k)), l1Offset: i.hdr.l1Offset, l1Size: maxL1Bytes / 8, diskSize: 1 << 20})
	}
	if err := amend(i, block.Values{"compat": "0.10"}, nil); !errors.Is(err, errTooBig) {
		t.Error(err)
	}
}

// An image with lazy refcounts that has become one of version 2 sets no dirty
// bit any more: there is none, and its place is another's.
func TestDowngradeForgetsLazyRefcounts(t *testing.T) {
	i, f := opened(t, "lazy_refcounts=on", 1<<20, writes(0, 4096))
	for _, a := range []act{{"back", func(i *Image) error { return i.ChangeBackingFile("base", "raw") }}, amends("compat=0.10"), writes(200<<10, 4096)} {
		if err := a.do(i); err != nil {
			t.Fatalf("%s: %v", a.name, err)
		}
	}
	h, _, err := readHeader(f, block.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if h.backingFile != "base" || h.backingFormat != "raw" {
		t.Errorf("backing file %q, %q", h.backingFile, h.backingFormat)
	}
}

// FuzzOperations patches images that have snapshots and bitmaps, as FuzzTables
// does, and has the whole image changed and repaired. That may fail, and must end.
func FuzzOperations(f *testing.F) {
	kinds := []string{"cluster_size=512", "cluster_size=16384,extended_l2=on", "cluster_size=512,compat=0.10", "cluster_size=512,refcount_bits=64"}
	var images []*blocktest.MemFile
	for _, k := range kinds {
		m := usedImage(f, k).Clone()
		i, err := openImage(m, block.OpenOptions{})
		if err != nil {
			f.Fatal(err)
		}
		for _, a := range []act{snaps("a"), writes(0, 2048), snaps("b"), zeroes(0, 1024, 0)} {
			if err := a.do(i); err != nil {
				f.Fatal(err)
			}
		}
		_ = addsBitmap("a").do(i) // version 2 has none
		if err := errors.Join(writes(0, 9000).do(i), storing.do(i)); err != nil {
			f.Fatal(err)
		}
		images = append(images, m)
	}
	for k := range kinds {
		for op := range byte(len(hostileActs)) {
			f.Add([]byte{byte(k), op})
			for cluster := range byte(40) {
				f.Add([]byte{byte(k), op, cluster, 0, 0x80, 0, 0, 0, 0, 0, 2, 0, cluster, 1, 0, 0, 0, 0, 0, 1, 0, 0})
			}
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < 2 {
			return
		}
		k := int(b[0]) % len(images)
		m := images[k].Clone()
		size := int64(512)
		if k == 1 {
			size = 16384
		}
		for p := b[2:]; len(p) >= 10; p = p[10:] { // cluster, word in it, value
			if err := writeFull(m, p[2:10], int64(p[0])*size+int64(p[1])*8%size); err != nil {
				t.Fatal(err)
			}
		}
		a := hostileActs[int(b[1])%len(hostileActs)]
		i, err := openImage(m, block.OpenOptions{Check: a.check})
		if err != nil {
			return
		}
		if i.data == nil {
			i.SetDataFile(blocktest.NewMemFile(nil))
		}
		for _, a := range a.acts {
			_ = a.do(i)
		}
		_ = i.Close()
	})
}

// hostileActs is what FuzzOperations does.
var hostileActs = []struct {
	check bool
	acts  []act
}{
	{false, []act{snaps("c"), writes(0, 4096), deletes("c"), writes(0, 9000)}},
	{false, []act{applies("a"), writes(0, 4096), deletes("b"), deletes("a")}},
	{false, []act{removesBitmap("a"), addsBitmap("b"), writes(0, 9000), resizes(300 << 10)}},
	{false, []act{amends("compat=0.10"), amends("compat=1.1"), writes(0, 9000)}},
	{false, []act{amends("refcount_bits=1"), amends("refcount_bits=8"), writes(0, 9000)}},
	{true, []act{repairs(block.FixLeaks), repairs(block.FixAll), repairs(0)}},
	{false, []act{{"empty", (*Image).MakeEmpty}, snaps("c")}},
}
