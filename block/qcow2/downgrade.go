package qcow2

import (
	"errors"
	"fmt"
	"math"
)

// downgrade makes an image of version 3 one of version 2.
func (i *Image) downgrade(progress func(done, total int64)) error {
	if err := i.mayDowngrade(); err != nil {
		return err
	}
	if i.hdr.incompat&incompatDirty != 0 {
		if err := i.markClean(); err != nil {
			return fmt.Errorf("Failed to make the image clean: %w", err)
		}
	}
	if bad := i.hdr.incompat &^ incompatCompression; bad != 0 {
		return fmt.Errorf("Cannot downgrade an image with incompatible features 0x%x set", bad)
	}
	x := expansion{i: i, progress: progress, seen: map[int64]bool{}}
	if err := i.whileDirty(x.all); err != nil {
		return fmt.Errorf("Failed to turn zero into data clusters: %w", err)
	}
	if i.hdr.incompat&incompatCompression != 0 && x.compressed {
		return errors.New("Cannot downgrade an image with zstd compression type and existing compressed clusters")
	}
	if err := i.dropBitmaps(); err != nil { // once nothing else can prevent it
		return err
	}
	h := i.hdr
	h.version, h.incompat, h.compat, h.autoclear, h.compression, h.unknownFields = 2, 0, 0, 0, compressZlib, nil
	if err := i.amendedHeader(h); err != nil {
		return err
	}
	i.lazy = false // there is no dirty bit
	return nil
}

func (i *Image) mayDowngrade() error {
	switch {
	case i.hdr.refcountOrder != 4:
		return errors.New("compat=0.10 requires refcount_bits=16")
	case i.hdr.external():
		return errors.New("Cannot downgrade an image with a data file")
	}
	read := uint64(0)
	for k := range i.snap.list {
		e := &i.snap.list[k]
		if read += uint64(e.l1Size) * 8; read > 1<<30+uint64(i.file.Size()) { // they overlap, so there is no end of reading
			return errTooBig
		}
		if e.vmStateSize > math.MaxUint32 || e.diskSize != uint64(i.Size()) {
			return errors.New("Internal snapshots prevent downgrade of image")
		}
	}
	return nil
}

// dropBitmaps removes all bitmaps: version 2 has none.
func (i *Image) dropBitmaps() error {
	i.bits.mu.Lock()
	defer i.bits.mu.Unlock()
	if i.hdr.bitmaps.count > 0 {
		if err := i.storeBitmapDir(nil, false); err != nil {
			return err
		}
	}
	for _, b := range i.bits.list {
		i.freeBitmap(b)
	}
	i.bits.list, i.bits.changed = nil, false
	i.noteRecording()
	return i.quiesce()
}

// expansion replaces zero clusters, which version 2 does not know, by
// unallocated ones where they read as zeros, else by clusters full of zeros.
type expansion struct {
	i           *Image
	progress    func(done, total int64)
	done, total int64
	seen        map[int64]bool // L2 tables
	unused      []replaced
	compressed  bool // there are compressed clusters
}

// replaced is a cluster that so many entries refer to no more.
type replaced struct {
	off    int64
	owners uint64
}

func (x *expansion) all() error {
	i := x.i
	x.total = int64(len(i.l1))
	for k := range i.snap.list {
		x.total += int64(i.snap.list[k].l1Size)
	}
	if err := x.tables(i.l1); err != nil {
		return err
	}
	for k := range i.snap.list {
		l1, err := i.snapshotL1(&i.snap.list[k])
		if err != nil {
			return err
		}
		if err := x.tables(l1); err != nil {
			return err
		}
	}
	if err := i.storeTables(); err != nil {
		return err
	}
	for _, r := range x.unused {
		if err := i.addRefcounts(r.off, 1, -int(r.owners)); err != nil {
			i.say("qcow2_free_clusters failed: " + strerror(err))
		}
	}
	return nil
}

// tables expands the zero clusters of the L2 tables that l1 refers to.
func (x *expansion) tables(l1 []uint64) error {
	for k, e := range l1 {
		if off := int64(e & offsetMask); off != 0 && !x.seen[off] {
			x.seen[off] = true
			if x.i.inCluster(off) != 0 {
				return x.i.signalCorruption("L2 table offset %#x unaligned (L1 index: %#x)", off, k)
			}
			if err := x.table(off); err != nil {
				return err
			}
		}
		x.done++
		x.progress(x.done, x.total)
	}
	return nil
}

// table expands the zero clusters of one L2 table, whatever refers to it.
func (x *expansion) table(off int64) error {
	i := x.i
	owners, err := i.refcount(off >> i.clusterBits)
	if err != nil {
		return err
	}
	return i.slices(off, func(s *slice, _ int64) error {
		for n := range 1 << i.sliceBits {
			entry, _ := i.entryAt(s, n)
			x.compressed = x.compressed || entry&flagCompressed != 0
			if entry&flagCompressed != 0 || entry&flagZero == 0 {
				continue
			}
			next, err := x.expand(entry, max(owners, 1))
			if err != nil {
				return err
			}
			i.setEntry(s, n, next, 0) // s is still cached: expanding touches no other L2 table
		}
		return nil
	})
}

// expand returns what a zero cluster's entry becomes in a table with so many owners.
func (x *expansion) expand(entry, owners uint64) (uint64, error) {
	i := x.i
	host := int64(entry & offsetMask)
	backed := i.backing != nil || i.hdr.backingFile != ""
	if host == 0 && !backed {
		return 0, nil
	}
	copied := uint64(0)
	if owners == 1 {
		copied = flagCopied
	}
	if host != 0 {
		if i.inCluster(host) != 0 {
			return 0, i.signalCorruption("Cluster allocation offset %#x unaligned", host)
		}
		refs, err := i.refcount(host >> i.clusterBits)
		if err != nil {
			return 0, err
		}
		if refs <= owners { // nobody else reads it
			if err := i.overlap(host, i.clusterSize); err != nil {
				return 0, err
			}
			i.unsynced = true
			return uint64(host) | copied, i.file.WriteZeroes(host, i.clusterSize, 0)
		}
	}
	next := uint64(0)
	if backed {
		off, err := x.zeros(owners)
		if err != nil {
			return 0, err
		}
		next = uint64(off) | copied
	}
	if host != 0 {
		x.unused = append(x.unused, replaced{host, owners})
	}
	return next, nil
}

// zeros is a new cluster full of zeros that so many tables refer to.
func (x *expansion) zeros(owners uint64) (off int64, err error) {
	i := x.i
	r, _, err := i.allocate(1, true, "data cluster")
	if err != nil {
		return 0, err
	}
	if err := i.addRefcounts(r.off, 1, int(owners-1)); err != nil {
		return 0, errors.Join(err, i.unallocate(r))
	}
	i.unsynced = true
	if err := i.file.WriteZeroes(r.off, i.clusterSize, 0); err != nil {
		return 0, errors.Join(err, i.addRefcounts(r.off, 1, -int(owners)))
	}
	return r.off, nil
}
