package qcow2

import (
	"errors"
	"fmt"
	"slices"
)

// closeBitmaps stores the bitmaps and says in the directory that they can be
// trusted. ops is held exclusively, and mu.
func (i *Image) closeBitmaps() error {
	if i.check {
		return nil
	}
	i.bits.mu.Lock()
	defer i.bits.mu.Unlock()
	usable := false
	var unused []run
	for _, b := range i.bits.list {
		if b.inconsistent {
			continue
		}
		usable = true
		old, err := i.storeBitmap(b)
		if err != nil {
			return fmt.Errorf("Lost persistent bitmaps: %w", err)
		}
		unused = append(unused, old...)
	}
	if !usable && !i.bits.changed {
		return nil
	}
	dir := encodeBitmapDir(directoryOf(i.bits.list, false))
	if i.bits.changed || uint64(len(dir)) != i.hdr.bitmaps.dirSize {
		if err := i.storeBitmapDir(i.bits.list, false); err != nil {
			return err
		}
		for _, r := range unused {
			i.free(r.off, r.n, r.punch)
		}
		return nil
	}
	if err := i.settleBitmaps(); err != nil {
		return err
	}
	return writeFull(i.file, dir, int64(i.hdr.bitmaps.dirOffset))
}

// settleBitmaps has everything that a directory refers to on stable storage.
func (i *Image) settleBitmaps() error {
	if err := i.flushRefcounts(); err != nil {
		return err
	}
	return i.sync()
}

// directoryOf describes the bitmaps as they are in the file; inUse: they are not
// to be trusted until the image is closed.
func directoryOf(list []*bitmap, inUse bool) []bitmapDirEntry {
	var dir []bitmapDirEntry
	for _, b := range list {
		e := bitmapDirEntry{tableOff: b.tableOff, tableSize: uint32(len(b.stored)), bits: b.bits, name: b.name}
		if b.enabled {
			e.flags |= bitmapAuto
		}
		if inUse || b.inconsistent {
			e.flags |= bitmapInUse
		}
		if b.tableOff != 0 {
			dir = append(dir, e)
		}
	}
	return dir
}

// storeBitmapDir puts a new directory in the place of the old one.
func (i *Image) storeBitmapDir(list []*bitmap, inUse bool) error {
	dir := directoryOf(list, inUse)
	b := encodeBitmapDir(dir)
	var r run
	var err error
	if len(b) > 0 {
		if r, _, err = i.allocate(i.roundUp(int64(len(b)))>>i.clusterBits, true, "bitmap directory"); err != nil {
			return err
		}
		err = writeFull(i.file, b, r.off)
	}
	if err == nil {
		err = i.settleBitmaps()
	}
	was, h := i.hdr, i.hdr
	h.bitmaps = bitmapExt{count: uint32(len(dir)), dirSize: uint64(len(b)), dirOffset: uint64(r.off)}
	h.autoclear &^= autoclearBitmaps
	if len(dir) > 0 {
		h.autoclear |= autoclearBitmaps
	}
	if err == nil {
		err = i.switchHeader(h, i.writeHeader)
	}
	if err != nil {
		return errors.Join(err, i.unallocate(r))
	}
	if old := was.bitmaps; old.dirSize > 0 {
		i.free(int64(old.dirOffset), i.roundUp(int64(old.dirSize))>>i.clusterBits, false)
	}
	i.bits.changed = false
	return nil
}

// inFile is what b takes in the file but for what keep, a table, refers to, too.
func (i *Image) inFile(b *bitmap, keep []uint64) []run {
	if b.tableOff == 0 {
		return nil
	}
	unused := []run{{off: b.tableOff, n: i.roundUp(int64(len(b.stored))*8) >> i.clusterBits}}
	for k, e := range b.stored {
		off := e & offsetMask
		if off != 0 && i.validBitmapEntry(e) && (k >= len(keep) || keep[k]&offsetMask != off) {
			unused = append(unused, run{off: int64(off), n: 1, punch: true})
		}
	}
	return unused
}

// storeBitmap writes what of b is not in the file, to free clusters, and returns
// what it replaces, which is to be freed once no directory in the file refers to it.
func (i *Image) storeBitmap(b *bitmap) (unused []run, err error) {
	table := append([]uint64(nil), b.table...)
	for k, c := range b.loaded {
		if !c.dirty {
			continue
		}
		if table[k], err = i.storeChunk(c); err != nil {
			return nil, err
		}
	}
	if b.tableOff != 0 && slices.Equal(table, b.stored) {
		return nil, nil
	}
	if len(table) == 0 { // of an image of no size: a table has an entry at least
		table = make([]uint64, 1)
	}
	r, _, err := i.allocate(i.roundUp(int64(len(table))*8)>>i.clusterBits, true, "bitmap table")
	if err != nil {
		return nil, err
	}
	if err := writeFull(i.file, encodeTable(table), r.off); err != nil {
		return nil, err
	}
	unused = i.inFile(b, table)
	b.tableOff, b.stored, b.table = r.off, table, append([]uint64(nil), table...)
	i.bits.changed = true
	clear(b.loaded)
	return unused, nil
}

// storeChunk writes a cluster of bits and returns its table entry.
func (i *Image) storeChunk(c *bitmapChunk) (uint64, error) {
	if !slices.ContainsFunc(c.b, func(v byte) bool { return v != 0 }) {
		return 0, nil
	}
	r, _, err := i.allocate(1, true, "bitmap data")
	if err != nil {
		return 0, err
	}
	return uint64(r.off), writeFull(i.file, c.b, r.off)
}
