package qcow2

import (
	"errors"
	"fmt"

	"berth/block"
)

// store has the corrected refcounts on stable storage.
func (c *checker) store() error {
	if err := c.i.flushRefcounts(); err != nil {
		return err
	}
	return c.i.sync()
}

// markConsistent clears the dirty and the corrupt bit. mu is held.
func (i *Image) markConsistent() error {
	if i.hdr.incompat&(incompatDirty|incompatCorrupt) == 0 {
		return nil
	}
	if err := i.quiesce(); err != nil {
		return err
	}
	if err := i.sync(); err != nil {
		return err
	}
	h := i.hdr
	h.incompat &^= incompatDirty | incompatCorrupt
	if err := i.writeHeader(h); err != nil {
		return err
	}
	i.corrupt.Store(false)
	return i.sync()
}

// rebuildAndCompare makes new refcount structures of what has been counted, and
// then frees the old ones.
func (c *checker) rebuildAndCompare() error {
	old := c.res
	c.say("Rebuilding refcount structure")
	if err := c.rebuildRefcounts(); err != nil {
		return err
	}
	c.res.Corruptions, c.res.Leaks = 0, 0
	c.rebuild = false
	c.refs.clear()
	if err := c.count(0); err != nil {
		return err
	}
	fresh := int64(0)
	if c.fix&block.FixLeaks != 0 {
		saved := c.res
		c.res = block.CheckResult{}
		c.compare(block.FixLeaks)
		if c.rebuild {
			c.say("ERROR rebuilt refcount structure is still broken")
		}
		fresh, c.res = c.res.Leaks, saved
	}
	if c.res.Corruptions < old.Corruptions {
		c.res.CorruptionsFixed += old.Corruptions - c.res.Corruptions
	}
	if c.res.Leaks < old.Leaks {
		c.res.LeaksFixed += old.Leaks - c.res.Leaks
	}
	c.res.Leaks += fresh
	return nil
}

// takeFree finds n clusters in a row, from *first on, that nothing refers to,
// at the end of the file if need be, and counts a reference to each. *first
// becomes the first free cluster met.
func (c *checker) takeFree(n int64, first *int64) int64 {
	k, found, gap := *first, int64(0), true
	for ; k < c.refs.n && found < n; k++ {
		if c.refs.get(k) != 0 {
			found = 0
			continue
		}
		found++
		if gap {
			*first, gap = k, false
		}
	}
	k -= found
	c.refs.grow(max(c.refs.n, k+n))
	for m := range n {
		c.refs.set(k+m, 1)
	}
	return k
}

// newTable is a refcount table that is being made.
type newTable struct {
	entries []uint64
	grown   bool
}

// writeBlocks writes the refcount blocks for all clusters from first to end that
// are referred to, and for the blocks that this takes.
func (c *checker) writeBlocks(t *newTable, first, end int64) error {
	i := c.i
	per := int64(1) << i.alloc.blockBits
	free := int64(0)
	t.grown = false
	for k := first; k < end; k++ {
		if next, is := c.refs.empty(k); is {
			k = next - 1
			continue
		}
		if c.refs.get(k) == 0 {
			continue
		}
		r := k >> i.alloc.blockBits
		if r >= int64(len(t.entries)) || t.entries[r] == 0 {
			free = max(free, r*per) // not in a block that is written already
			at := c.takeFree(1, &free)
			end = max(end, at+1)
			if r >= int64(len(t.entries)) {
				n := i.roundUp((r+1)*8) / 8
				if n*8 > maxReftable {
					c.say("ERROR allocating reftable memory")
					return errTooBig
				}
				t.entries = append(t.entries, make([]uint64, n-int64(len(t.entries)))...)
				t.grown = true
			}
			t.entries[r] = uint64(at << i.clusterBits)
		}
		if err := c.writeBlock(r, int64(t.entries[r])); err != nil {
			return fmt.Errorf("ERROR writing refblock: %w", err)
		}
		k = (r+1)*per - 1
	}
	return nil
}

func (c *checker) writeBlock(r, off int64) error {
	i, a := c.i, &c.i.alloc
	if err := i.overlap(off, i.clusterSize); err != nil {
		return err
	}
	b := make([]byte, i.clusterSize)
	first := r << a.blockBits
	for k := first; k < min(first+1<<a.blockBits, c.refs.n); k++ {
		if n := c.refs.get(k); n != 0 {
			a.store(b, int(k-first), n)
		}
	}
	return writeFull(i.file, b, off)
}

// rebuildRefcounts writes blocks and a table anew, to free clusters, and then
// has the header point there. Until that the old ones are in force.
func (c *checker) rebuildRefcounts() error {
	i, a := c.i, &c.i.alloc
	a.blocks.forgetAll()
	a.dirty = dirtySpan{}
	defer func() { a.high = max(a.high, i.file.Size()) }() // also of what was written in vain
	var t newTable
	if err := c.writeBlocks(&t, 0, c.refs.n); err != nil {
		c.res.CheckErrors++
		return err
	}
	var at, n int64
	for again := true; again; again = t.grown {
		n = i.roundUp(int64(len(t.entries))*8) >> i.clusterBits
		first := int64(0)
		at = c.takeFree(n, &first)
		if err := c.writeBlocks(&t, at, at+n); err != nil {
			c.res.CheckErrors++
			return err
		}
	}
	err := i.overlap(at<<i.clusterBits, n<<i.clusterBits)
	if err == nil {
		err = writeFull(i.file, encodeTable(t.entries), at<<i.clusterBits)
	}
	if err == nil {
		err = i.sync()
	}
	if err != nil {
		return fmt.Errorf("ERROR writing reftable: %w", err)
	}
	h := i.hdr
	h.reftableOffset, h.reftableClus, h.refcountOrder = uint64(at<<i.clusterBits), uint32(n), uint32(a.order)
	write := i.writeReftablePlace
	if h.refcountOrder != i.hdr.refcountOrder {
		write = i.writeHeader
	}
	if err := i.switchHeader(h, write); err != nil {
		return fmt.Errorf("ERROR setting reftable: %w", err)
	}
	a.table, a.next = t.entries, 0
	c.end = (i.file.Size() + 511) &^ 511
	i.noteTables()
	return nil
}

// readSnapshots reads the snapshot table, which is not read when an image is
// opened to be checked, and cuts off what makes it unreadable.
func (c *checker) readSnapshots() error {
	i, h := c.i, &c.i.hdr
	if err := c.placeSnapshots(); err != nil {
		return err
	}
	t, err := readSnapshotTable(i.file, int64(h.snapshotsOffset), h.snapshots, uint64(i.Size()), c.fix&block.FixErrors != 0)
	for _, l := range t.lines {
		c.say("%s", l)
	}
	if err != nil {
		c.res.CheckErrors++
		c.say("ERROR failed to read the snapshot table: %s", err)
		var e *snapshotError
		if errors.As(err, &e) {
			c.say("%s", e.hint)
		}
		return err
	}
	c.res.Corruptions += int64(t.cut)
	if t.dropped > 0 {
		c.res.Corruptions += int64(t.dropped)
		h.snapshots = uint32(len(t.list))
		if err := c.storeCount(int64(t.dropped)); err != nil {
			return err
		}
	}
	i.snap = snapshotState{t.list, t.bytes}
	i.noteSnapshots()
	for k := range t.list {
		if h.version >= 3 && t.list[k].extraSize < 16 {
			c.res.Corruptions++
			c.say("%s snapshot table entry %d is incomplete", c.verb(), k)
		}
	}
	return nil
}

// placeSnapshots checks what the header says of the snapshot table, and cuts off
// what makes it too long.
func (c *checker) placeSnapshots() error {
	h := &c.i.hdr
	if h.snapshots > maxSnapshots && c.fix&block.FixErrors != 0 {
		c.say("Discarding %d overhanging snapshots", h.snapshots-maxSnapshots)
		c.res.Corruptions += int64(h.snapshots - maxSnapshots)
		h.snapshots = maxSnapshots
		if err := c.storeCount(c.res.Corruptions); err != nil {
			return err
		}
	}
	err := h.validTable(h.snapshotsOffset, uint64(h.snapshots), snapshotMinimum, snapshotMinimum*maxSnapshots, "snapshot table")
	if err == nil {
		return nil
	}
	c.res.CheckErrors++
	c.say("ERROR %s", err)
	if h.snapshots > maxSnapshots {
		c.say("You can force-remove all %d overhanging snapshots with qemu-img check -r all", h.snapshots-maxSnapshots)
	}
	return errInvalidTable(h.snapshots > maxSnapshots)
}

func errInvalidTable(tooLarge bool) error {
	if tooLarge {
		return errTooBig
	}
	return errInvalid
}

// storeCount writes the number of snapshots, which repairs n corruptions.
func (c *checker) storeCount(n int64) error {
	var b [4]byte
	be.PutUint32(b[:], c.i.hdr.snapshots)
	err := writeFull(c.i.file, b[:], 60)
	if err == nil {
		err = c.i.sync()
	}
	if err != nil {
		c.res.CheckErrors++
		c.say("ERROR failed to update the snapshot count in the image header: %s", cError(err))
		return err
	}
	c.res.CorruptionsFixed += n
	c.res.Corruptions -= n
	return nil
}

// storeSnapshots writes the snapshot table as it was read, if it has to be repaired.
func (c *checker) storeSnapshots() error {
	i := c.i
	if c.res.Corruptions == 0 || c.fix&block.FixErrors == 0 {
		return nil
	}
	list := append([]snapshotEntry(nil), i.snap.list...)
	if err := i.storeSnapshots(list); err != nil {
		c.res.CheckErrors++
		c.say("ERROR failed to update snapshot table: %s", cError(err))
		return err
	}
	for k := range i.snap.list {
		i.snap.list[k].extraSize = max(i.snap.list[k].extraSize, knownExtra)
	}
	c.res.CorruptionsFixed += c.res.Corruptions
	c.res.Corruptions = 0
	return i.quiesce()
}
