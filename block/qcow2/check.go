package qcow2

import (
	"fmt"
	"math"
	"syscall"

	"berth/block"
)

// Reserved bits of table entries.
const (
	l1Reserved       = 0x7f000000000001ff
	l2Reserved       = 0x3f000000000001fe
	reftableReserved = 0x1ff
)

// checker counts the references to each cluster and compares them with the
// refcounts in the image. Its messages and their order are QEMU's.
type checker struct {
	i       *Image
	fix     block.Fix
	report  func(string)
	res     block.CheckResult
	end     int64 // bytes of the file, whole sectors
	refs    *refMap
	seen    map[int64]*tableFacts // L2 tables without fault, so that each is read but once
	order   []int64               // those of seen that are met more than once
	rebuild bool                  // the refcount structures are not to be trusted
	highest int64                 // the last cluster in use
	faults  int64                 // lines reported
	marked  bool                  // an unaligned refcount block has been told of
	left    int64                 // bytes of tables that may still be read
	buf     []byte                // an L2 table
}

// tableFacts is what has been found in an L2 table.
type tableFacts struct {
	allocated, fragmented, compressed int64
	next                              int64  // where the next cluster would be if the last had it for a neighbour
	again                             uint64 // references to the table that are not counted yet
}

// Check compares the refcounts with the references there are, and repairs what
// fix says. The image should be open for checking.
func (i *Image) Check(fix block.Fix, report func(string)) (block.CheckResult, error) {
	i.ops.Lock()
	defer i.ops.Unlock()
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.closed {
		return block.CheckResult{}, block.ErrClosed
	}
	if fix != 0 && i.readOnly {
		return block.CheckResult{}, block.ErrReadOnly
	}
	if !i.readOnly && !i.corrupt.Load() {
		if err := i.quiesce(); err != nil {
			return block.CheckResult{}, err
		}
	}
	return i.checkLocked(fix, report)
}

func (i *Image) checkLocked(fix block.Fix, report func(string)) (block.CheckResult, error) {
	table := checker{i: i, fix: fix, report: report}
	if err := table.readSnapshots(); err != nil {
		return table.res, err
	}
	c := checker{i: i, fix: fix, report: report}
	err := c.checkRefcounts()
	if err == nil && fix != 0 {
		err = c.store()
	}
	if err != nil {
		addResult(&c.res, &table.res)
		return c.res, err
	}
	if err := table.storeSnapshots(); err != nil {
		addResult(&c.res, &table.res)
		return c.res, err
	}
	addResult(&c.res, &table.res)
	if fix != 0 && c.res.CheckErrors == 0 && c.res.Corruptions == 0 {
		return c.res, i.markConsistent()
	}
	return c.res, nil
}

// repairDirty repairs the image at open after it was not closed properly.
func (i *Image) repairDirty() error {
	i.mu.Lock()
	defer i.mu.Unlock()
	res, err := i.checkLocked(block.FixAll, i.say)
	if err == nil && res.CheckErrors > 0 {
		err = errCorrupt
	}
	return err
}

func addResult(to, from *block.CheckResult) {
	to.Corruptions += from.Corruptions
	to.Leaks += from.Leaks
	to.CheckErrors += from.CheckErrors
	to.CorruptionsFixed += from.CorruptionsFixed
	to.LeaksFixed += from.LeaksFixed
}

func (c *checker) say(format string, args ...any) {
	c.faults++
	if c.report != nil {
		c.report(fmt.Sprintf(format, args...))
	}
}

// verb is how a fault is announced that is repaired if errors are to be.
func (c *checker) verb() string {
	if c.fix&block.FixErrors != 0 {
		return "Repairing"
	}
	return "ERROR"
}

func (c *checker) clustersOf(size int64) int64 {
	return (size-1)>>c.i.clusterBits + 1
}

// checkRefcounts does everything but the snapshot table itself.
func (c *checker) checkRefcounts() error {
	i := c.i
	c.end = (i.file.Size() + 511) &^ 511
	n := c.clustersOf(c.end)
	if n > math.MaxInt32 {
		c.res.CheckErrors++
		return errTooBig
	}
	c.res.Total = c.clustersOf(i.Size())
	c.refs = newRefMap(n, i.alloc.max())
	c.buf = make([]byte, i.clusterSize)
	if err := c.count(c.fix); err != nil {
		return err
	}
	before := c.res
	c.compare(0)
	switch {
	case c.rebuild && c.fix&block.FixErrors != 0:
		if err := c.rebuildAndCompare(); err != nil {
			return err
		}
	case c.fix != 0 && c.rebuild:
		c.say("ERROR need to rebuild refcount structures")
		c.res.CheckErrors++
		return errCorrupt
	case c.fix != 0 && (c.res.Leaks != 0 || c.res.Corruptions != 0):
		c.res = before
		c.compare(c.fix)
	}
	if c.fix != 0 {
		if err := c.store(); err != nil {
			return err
		}
	}
	c.left = c.enough()
	if err := c.checkCopied(); err != nil {
		return err
	}
	c.res.ImageEnd = (c.highest + 1) << i.clusterBits
	return nil
}

// count counts all references.
func (c *checker) count(fix block.Fix) error {
	i, h := c.i, &c.i.hdr
	c.seen, c.order = map[int64]*tableFacts{}, nil
	c.left = c.enough()
	c.refer(0, i.clusterSize)
	if err := c.countL1(int64(h.l1Offset), int64(h.l1Size), true, fix); err != nil {
		return err
	}
	if err := c.countSnapshots(fix); err != nil {
		return err
	}
	if err := c.countAgain(); err != nil {
		return err
	}
	c.refer(int64(h.reftableOffset), int64(len(i.alloc.table))*8)
	if err := c.countBitmaps(); err != nil {
		return err
	}
	return c.countRefblocks(fix)
}

func (c *checker) countSnapshots(fix block.Fix) error {
	i := c.i
	if n := len(i.snap.list); n > 0 && i.hdr.external() {
		c.say("ERROR %d snapshots in image with data file", n)
		c.res.Corruptions++
	}
	for k := range i.snap.list {
		e := &i.snap.list[k]
		switch {
		case e.l1Offset&uint64(i.clusterSize-1) != 0:
			c.say("ERROR snapshot %s (%s) l1_offset=%s: L1 table is not cluster aligned; snapshot table entry corrupted", e.id, e.name, cHex(e.l1Offset))
			c.res.Corruptions++
			continue
		case e.l1Size > maxL1Bytes/8:
			c.say("ERROR snapshot %s (%s) l1_size=%s: L1 table is too large; snapshot table entry corrupted", e.id, e.name, cHex(uint64(e.l1Size)))
			c.res.Corruptions++
			continue
		}
		if err := c.countL1(int64(e.l1Offset), int64(e.l1Size), false, fix); err != nil {
			return err
		}
	}
	c.refer(int64(i.hdr.snapshotsOffset), i.snap.bytes)
	return nil
}

// refer counts a reference to each cluster of n bytes at off.
func (c *checker) refer(off, n int64) { c.referTimes(off, n, 1) }

func (c *checker) referTimes(off, n int64, times uint64) {
	if n <= 0 {
		return
	}
	bits := c.i.clusterBits
	if off < 0 || off > math.MaxInt64-n || off+n-c.end >= c.i.clusterSize {
		c.say("ERROR: counting reference for region exceeding the end of the file by one cluster or more: offset %#x size %#x", uint64(off), uint64(n))
		c.res.Corruptions++
		return
	}
	for k := off >> bits; k <= (off+n-1)>>bits; k++ {
		if !c.refs.add(k, times) {
			c.say("ERROR: overflow cluster offset=%#x", k<<bits)
			c.say("Use qemu-img amend to increase the refcount entry width or qemu-img convert to create a clean copy if the image cannot be opened for writing")
			c.res.Corruptions++
		}
	}
}

// enough is how many bytes of tables a check reads if each is met a few times.
func (c *checker) enough() int64 { return 256<<20 + 4*c.end }

// spend notes that n bytes of a table are read. Of an image whose tables overlap
// and refer to the same faulty ones over and over there is no end of that: the check is given up.
func (c *checker) spend(n int64) error {
	if c.left -= n; c.left >= 0 {
		return nil
	}
	c.say("ERROR the tables overlap and are referred to too often for a check")
	c.res.CheckErrors++
	return errTooBig
}

// countL1 counts what an L1 table of n entries refers to, and the table itself.
func (c *checker) countL1(off, n int64, active bool, fix block.Fix) error {
	i := c.i
	if n == 0 {
		return nil
	}
	c.refer(off, n*8)
	b := make([]byte, min(n*8, 1<<20))
	for at := int64(0); at < n*8; at += int64(len(b)) {
		if off > c.end-at {
			break // zeros
		}
		b = b[:min(int64(len(b)), n*8-at)]
		if err := c.spend(int64(len(b))); err != nil {
			return err
		}
		if err := readFull(i.file, b, off+at); err != nil {
			c.say("ERROR: I/O error in check_refcounts_l1")
			c.res.CheckErrors++
			return err
		}
		for k := 0; k < len(b); k += 8 {
			if err := c.countL1Entry(be.Uint64(b[k:]), active, fix); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *checker) countL1Entry(e uint64, active bool, fix block.Fix) error {
	if e == 0 {
		return nil
	}
	if e&l1Reserved != 0 {
		c.say("ERROR found L1 entry with reserved bits set: %x", e)
		c.res.Corruptions++
	}
	table := int64(e & offsetMask)
	if f := c.seen[table]; f != nil {
		c.repeat(table, f, active)
		return nil
	}
	c.refer(table, c.i.clusterSize)
	if c.i.inCluster(table) != 0 {
		c.say("ERROR l2_offset=%x: Table is not cluster aligned; L1 entry corrupted", table)
		c.res.Corruptions++
	}
	return c.countL2(table, active, fix)
}

// repeat notes another reference to a table that is known.
func (c *checker) repeat(table int64, f *tableFacts, active bool) {
	if f.again == 0 {
		c.order = append(c.order, table)
	}
	f.again++
	if active {
		c.addFacts(f)
	}
}

func (c *checker) addFacts(f *tableFacts) {
	c.res.Allocated += f.allocated
	c.res.Fragmented += f.fragmented
	c.res.Compressed += f.compressed
}

// countAgain counts the references from tables that were met more than once,
// so that the time does not grow with how often.
func (c *checker) countAgain() error {
	i := c.i
	for _, table := range c.order {
		times := c.seen[table].again
		c.referTimes(table, i.clusterSize, times)
		if err := readFull(i.file, c.buf, table); err != nil {
			c.say("ERROR: I/O error in check_refcounts_l2")
			c.res.CheckErrors++
			return err
		}
		for at := int64(0); at < i.clusterSize; at += i.entry {
			e := be.Uint64(c.buf[at:])
			if e&flagCompressed != 0 {
				off, n := i.compressedPlace(e)
				c.referTimes(off, n, times)
			} else if host, ok := i.hostCluster(e); ok && !i.hdr.external() {
				c.referTimes(host, i.clusterSize, times)
			}
		}
	}
	return nil
}

// countL2 counts what the entries of an L2 table refer to.
func (c *checker) countL2(table int64, active bool, fix block.Fix) error {
	i := c.i
	if table >= c.end {
		return nil // zeros
	}
	if err := c.spend(i.clusterSize); err != nil {
		return err
	}
	if err := readFull(i.file, c.buf, table); err != nil {
		c.say("ERROR: I/O error in check_refcounts_l2")
		c.res.CheckErrors++
		return err
	}
	faults := c.faults
	f := &tableFacts{}
	for n := 0; n < len(c.buf); n += int(i.entry) {
		l := l2Entry{table: table, index: n / int(i.entry), entry: be.Uint64(c.buf[n:]), active: active, fix: fix}
		if i.ext {
			l.bitmap = be.Uint64(c.buf[n+8:])
		} else if l.entry == 0 {
			continue
		}
		if err := c.countEntry(l, f); err != nil {
			c.keepFacts(table, f, active, true)
			return err
		}
	}
	c.keepFacts(table, f, active, c.faults != faults)
	return nil
}

// countEntry counts what an entry refers to, and enters it in f. An error ends the table.
func (c *checker) countEntry(l l2Entry, f *tableFacts) error {
	i := c.i
	if l.entry&flagCompressed != 0 {
		if !c.compressedFaults(l) {
			off, bytes := i.compressedPlace(l.entry)
			c.refer(off, bytes)
			f.allocated, f.compressed, f.fragmented = f.allocated+1, f.compressed+1, f.fragmented+1
		}
		return nil
	}
	if l.entry&l2Reserved != 0 {
		c.say("ERROR found l2 entry with reserved bits set: %x", l.entry)
		c.res.Corruptions++
	}
	host, ok := i.hostCluster(l.entry)
	if !ok {
		c.unallocatedFaults(l)
		return nil
	}
	if l.bitmap>>32&l.bitmap != 0 || i.inCluster(host) != 0 {
		if skip, err := c.clusterFaults(l, host); skip || err != nil {
			return err
		}
	}
	f.allocated++
	if f.next != 0 && host != f.next {
		f.fragmented++
	}
	f.next = host + i.clusterSize
	if !i.hdr.external() {
		c.refer(host, i.clusterSize)
	}
	return nil
}

func (c *checker) keepFacts(table int64, f *tableFacts, active, faulty bool) {
	if active {
		c.addFacts(f)
	}
	if !faulty {
		c.seen[table] = f
	}
}

// countBitmaps counts the bitmap directory, the tables and what they refer to.
func (c *checker) countBitmaps() error {
	i := c.i
	x := i.hdr.bitmaps
	if x.count == 0 {
		return nil
	}
	c.refer(int64(x.dirOffset), int64(x.dirSize))
	list, err := i.readBitmapDir()
	if err != nil {
		c.res.Corruptions++
		return syscall.EINVAL
	}
	for _, e := range list {
		n := int64(e.tableSize) * 8
		c.refer(e.tableOff, n)
		if e.tableOff >= c.end {
			continue // zeros
		}
		b := make([]byte, min(n, 1<<20))
		for at := int64(0); at < n; at += int64(len(b)) {
			b = b[:min(int64(len(b)), n-at)]
			if err := readFull(i.file, b, e.tableOff+at); err != nil {
				c.res.Corruptions++
				return err
			}
			for k := 0; k < len(b); k += 8 {
				v := be.Uint64(b[k:])
				if !i.validBitmapEntry(v) {
					c.res.Corruptions++
					return syscall.EINVAL
				}
				if off := int64(v & offsetMask); off != 0 {
					c.refer(off, i.clusterSize)
				}
			}
		}
	}
	return nil
}

// countRefblocks counts the refcount blocks, each of which has to be referred to once.
func (c *checker) countRefblocks(fix block.Fix) error {
	i := c.i
	for k, e := range i.alloc.table {
		if e == 0 {
			continue
		}
		off := e &^ reftableReserved
		cluster := int64(off >> i.clusterBits)
		switch {
		case e&reftableReserved != 0:
			c.say("ERROR refcount table entry %d has reserved bits set", k)
			c.res.Corruptions++
			c.rebuild = true
		case off&uint64(i.clusterSize-1) != 0:
			c.say("ERROR refcount block %d is not cluster aligned; refcount table entry corrupted", k)
			c.res.Corruptions++
			c.rebuild = true
		case cluster >= c.refs.n:
			c.res.Corruptions++
			c.say("%s refcount block %d is outside image", verbOf(fix), k)
			if fix&block.FixErrors != 0 {
				c.lengthenFile(off)
			}
		default:
			c.refer(int64(off), i.clusterSize)
			if n := c.refs.get(cluster); n != 1 {
				c.say("ERROR refcount block %d refcount=%d", k, n)
				c.res.Corruptions++
				c.rebuild = true
			}
		}
	}
	return nil
}

func verbOf(fix block.Fix) string {
	if fix&block.FixErrors != 0 {
		return "Repairing"
	}
	return "ERROR"
}

// lengthenFile makes the file long enough for a refcount block at off.
func (c *checker) lengthenFile(off uint64) {
	i := c.i
	err := error(syscall.EINVAL)
	if off <= math.MaxInt64-uint64(i.clusterSize) {
		err = errTooBig
		if size := int64(off) + i.clusterSize; size>>i.clusterBits <= math.MaxInt32 {
			err = i.file.Truncate(size)
		}
	}
	if err != nil {
		c.rebuild = true
		c.say("ERROR could not resize image: %s", cError(err))
		return
	}
	c.end = (i.file.Size() + 511) &^ 511
	c.refs.grow(max(c.refs.n, c.clustersOf(c.end)))
	c.res.Corruptions--
	c.res.CorruptionsFixed++
	c.refer(int64(off), i.clusterSize)
}
