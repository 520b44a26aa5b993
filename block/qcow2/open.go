package qcow2

import (
	"errors"
	"fmt"
	"math"

	"berth/block"
)

// Cache sizes in bytes: QEMU's defaults.
const (
	l2CacheBytes       = 32 << 20
	refcountCacheBytes = 4 << 20
)

// Format is the qcow2 format.
func Format() block.Format {
	return block.Format{
		Name:    "qcow2",
		Probe:   probe,
		Open:    open,
		Create:  create,
		Options: createOptions(),
		Amend:   amendFunc(),
		Amends:  amendOptions(),
		Measure: measureFunc(),
	}
}

func open(f block.File, o block.OpenOptions) (block.Image, error) {
	i, err := openImage(f, o)
	if err != nil {
		return nil, err // an *Image that is nil is no nil Image
	}
	return i, nil
}

// openImage opens the image in f. What may be repaired at open is, if o allows.
func openImage(f block.File, o block.OpenOptions) (*Image, error) {
	h, dropBitmaps, err := readHeader(f, o)
	if err != nil {
		return nil, err
	}
	i := &Image{file: f, readOnly: o.ReadOnly, check: o.Check, report: o.Report, hdr: *h, geometry: h.geometry()}
	i.settled.L = &i.mu
	i.size.Store(int64(h.size &^ 511))
	i.lazy = o.Values.On("lazy-refcounts", h.lazy())
	if i.lazy && h.version < 3 {
		return nil, errors.New("Lazy refcounts require a qcow2 image with at least qemu 1.1 compatibility level")
	}
	if !h.external() {
		i.data = f
	}
	if h.crypto.length != 0 {
		if i.luks, err = readLUKS(f, h.crypto); err != nil {
			return nil, err
		}
	}
	if err := i.loadTables(); err != nil {
		return nil, err
	}
	if !o.Check {
		if err := i.loadSnapshots(); err != nil {
			return nil, err
		}
	}
	if err := i.loadBitmaps(); err != nil {
		return nil, err
	}
	if err := i.cleanHeader(dropBitmaps); err != nil {
		return nil, err
	}
	if !o.Check && !o.ReadOnly && h.incompat&incompatDirty != 0 {
		if err := i.repairDirty(); err != nil {
			return nil, fmt.Errorf("Could not repair dirty image: %w", err)
		}
	}
	return i, nil
}

// loadTables reads the L1 and the refcount table and makes the caches.
func (i *Image) loadTables() error {
	b := make([]byte, int64(i.hdr.l1Size)*8)
	if err := readFull(i.file, b, int64(i.hdr.l1Offset)); err != nil {
		return fmt.Errorf("Could not read L1 table: %w", err)
	}
	i.l1 = decodeTable(b)
	b = make([]byte, int64(i.hdr.reftableClus)<<i.clusterBits)
	if err := readFull(i.file, b, int64(i.hdr.reftableOffset)); err != nil {
		return fmt.Errorf("Could not initialize refcount handling: %w", err)
	}
	a := &i.alloc
	a.table = decodeTable(b)
	a.order = uint(i.hdr.refcountOrder)
	a.blockBits = i.clusterBits + 3 - a.order
	a.high = i.file.Size()
	a.blocks = newCache(i.file, i.sliceBytes, refcountCacheBytes/i.sliceBytes)
	a.blocks.clean = a.blocks.flush
	a.blocks.allowed = func(off int64) error { return i.overlapBut(metaRefblock, off, int64(i.sliceBytes)) }
	a.blocks.wrote = func() { i.unsynced = true }
	i.l2 = newCache(i.file, i.sliceBytes, i.l2Slices())
	i.l2.clean = i.cleanL2
	i.l2.allowed = func(off int64) error { return i.overlapBut(metaL2, off, int64(i.sliceBytes)) }
	i.l2.wrote = func() { i.l2Wrote = true }
	i.noteTables()
	return nil
}

// l2Slices is how many L2 slices are cached: as many as map the image, within the limit.
func (i *Image) l2Slices() int {
	span := i.clusterSize << i.sliceBits
	return int(min(i.Size()/span+2, math.MaxInt32, l2CacheBytes/int64(i.sliceBytes)))
}

// cleanHeader drops from the header what this program does not keep true.
func (i *Image) cleanHeader(dropBitmaps bool) error {
	if i.readOnly || i.check || !dropBitmaps && i.hdr.autoclear&^autoclearKnown == 0 {
		return nil
	}
	h := i.hdr
	if dropBitmaps {
		i.say("warning: " + staleBitmaps(h.version))
		i.say("Some clusters may be leaked, run 'qemu-img check -r' on the image file to fix.")
	}
	h.autoclear &= autoclearKnown
	if err := i.writeHeader(h); err != nil {
		return fmt.Errorf("Could not update qcow2 header: %w", err)
	}
	return nil
}

func staleBitmaps(version uint32) string {
	if version < 3 {
		return "This qcow2 v2 image contains bitmaps, but they may have been modified by a program without persistent bitmap support; so now they must all be considered inconsistent"
	}
	return "a program lacking bitmap support modified this file, so all bitmaps are now considered inconsistent"
}
