package qcow2

import (
	"errors"
	"fmt"
)

// closeBitmaps stores the bitmaps and says in the directory that they can be
// trusted. ops is held exclusively, and mu.
func (i *Image) closeBitmaps() error {
	if i.check {
		return nil
	}
	i.bits.mu.Lock()
	defer i.bits.mu.Unlock()
	usable, moved := false, i.bits.changed
	for _, b := range i.bits.list {
		if b.inconsistent {
			continue
		}
		usable = true
		m, err := i.storeBitmap(b)
		if err != nil {
			return fmt.Errorf("Lost persistent bitmaps: %w", err)
		}
		moved = moved || m
	}
	if !usable && !moved {
		return nil
	}
	if moved {
		return i.storeBitmapDir(i.bits.list, false)
	}
	if err := i.settleBitmaps(); err != nil {
		return err
	}
	return writeFull(i.file, encodeBitmapDir(directoryOf(i.bits.list, false)), int64(i.hdr.bitmaps.dirOffset))
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
	h := i.hdr
	old := h.bitmaps
	h.bitmaps = bitmapExt{count: uint32(len(dir)), dirSize: uint64(len(b)), dirOffset: uint64(r.off)}
	h.autoclear &^= autoclearBitmaps
	if len(dir) > 0 {
		h.autoclear |= autoclearBitmaps
	}
	if err == nil {
		err = i.writeHeader(h)
	}
	if err == nil {
		err = i.sync()
	}
	if err != nil {
		if r.n > 0 {
			err = errors.Join(err, i.addRefcounts(r.off, r.n, -1))
		}
		return err
	}
	if old.dirSize > 0 {
		i.free(int64(old.dirOffset), i.roundUp(int64(old.dirSize))>>i.clusterBits, false)
	}
	i.bits.changed = false
	return nil
}

// freeBitmap gives back the clusters of a bitmap that is no longer in the directory.
func (i *Image) freeBitmap(b *bitmap) {
	for _, e := range b.stored {
		if off := int64(e & offsetMask); off != 0 && i.validBitmapEntry(e) {
			i.free(off, 1, true)
		}
	}
	i.free(b.tableOff, i.roundUp(int64(len(b.stored))*8)>>i.clusterBits, false)
}

// storeBitmap writes what of b is not in the file, to free clusters, and tells
// whether the directory has to say something else. What it replaces is freed
// with the next barrier, and lowered only after the directory is in the file.
func (i *Image) storeBitmap(b *bitmap) (moved bool, err error) {
	table := append([]uint64(nil), b.table...)
	for k, c := range b.loaded {
		if !c.dirty {
			continue
		}
		if table[k], err = i.storeChunk(c); err != nil {
			return false, err
		}
	}
	if b.tableOff != 0 && equalTables(table, b.stored) {
		return false, nil
	}
	if len(table) == 0 { // of an image of no size: a table has an entry at least
		table = make([]uint64, 1)
	}
	r, _, err := i.allocate(i.roundUp(int64(len(table))*8)>>i.clusterBits, true, "bitmap table")
	if err != nil {
		return false, err
	}
	if err := writeFull(i.file, encodeTable(table), r.off); err != nil {
		return false, err
	}
	if b.tableOff != 0 {
		i.freeReplaced(b, table)
	}
	b.tableOff, b.stored, b.table = r.off, table, append([]uint64(nil), table...)
	clear(b.loaded)
	return true, nil
}

// storeChunk writes a cluster of bits and returns its table entry.
func (i *Image) storeChunk(c *bitmapChunk) (uint64, error) {
	any := false
	for _, v := range c.b {
		any = any || v != 0
	}
	if !any {
		return 0, nil
	}
	r, _, err := i.allocate(1, true, "bitmap data")
	if err != nil {
		return 0, err
	}
	return uint64(r.off), writeFull(i.file, c.b, r.off)
}

// freeReplaced gives back what b has in the file and table does not refer to.
func (i *Image) freeReplaced(b *bitmap, table []uint64) {
	for k, e := range b.stored {
		if off := int64(e & offsetMask); off != 0 && (k >= len(table) || table[k]&offsetMask != e&offsetMask) {
			i.free(off, 1, true)
		}
	}
	i.free(b.tableOff, i.roundUp(int64(len(b.stored))*8)>>i.clusterBits, false)
}

func equalTables(a, b []uint64) bool {
	if len(a) != len(b) {
		return false
	}
	for k := range a {
		if a[k] != b[k] {
			return false
		}
	}
	return true
}
