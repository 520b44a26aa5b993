package qcow2

import (
	"errors"
	"fmt"
	"math"

	"berth/block"
)

// Truncate changes the virtual size.
func (i *Image) Truncate(size int64) error { return i.resize(size, "off") }

// TruncatePrealloc is Truncate with storage given to what is added: off,
// metadata, falloc or full.
func (i *Image) TruncatePrealloc(size int64, mode string) error { return i.resize(size, mode) }

func (i *Image) resize(size int64, prealloc string) error {
	i.ops.Lock()
	defer i.ops.Unlock()
	i.mu.Lock()
	defer i.mu.Unlock()
	if err := i.writable(); err != nil {
		return err
	}
	if size < 0 || size&511 != 0 {
		return errors.New("The new size must be a multiple of 512")
	}
	if i.hdr.snapshots > 0 && i.hdr.version < 3 {
		return errors.New("Can't resize a v2 image which has snapshots")
	}
	if err := i.resizableBitmaps(); err != nil {
		return err
	}
	if err := i.quiesce(); err != nil {
		return err
	}
	old := i.Size()
	if size < old {
		if prealloc != "off" {
			return errors.New("Preallocation can't be used for shrinking an image")
		}
		if err := i.shrink(size); err != nil {
			return err
		}
	} else if err := i.grow(old, size, prealloc); err != nil {
		return err
	}
	return i.storeSize(size)
}

// storeSize has the header say size, after all that it depends on.
func (i *Image) storeSize(size int64) error {
	if err := i.quiesce(); err != nil {
		return err
	}
	var b [8]byte
	be.PutUint64(b[:], uint64(size))
	if err := writeFull(i.file, b[:], 24); err != nil {
		return fmt.Errorf("Failed to update the image size: %w", err)
	}
	if err := i.sync(); err != nil {
		return fmt.Errorf("Failed to update the image size: %w", err)
	}
	i.hdr.size = uint64(size)
	i.size.Store(size)
	i.fitBitmaps()
	i.l2.max = max(i.l2Slices(), 4)
	return nil
}

// grow makes room in the tables for size, and gives clusters to what is added as the mode says.
func (i *Image) grow(old, size int64, prealloc string) error {
	if err := i.growL1(i.hdr.sizeToL1(uint64(size))); err != nil {
		return fmt.Errorf("Failed to grow the L1 table: %w", err)
	}
	if (prealloc == "falloc" || prealloc == "full") && !i.hdr.external() {
		if err := i.appendable(old, size); err != nil {
			return err
		}
	}
	if err := i.hideTail(old, size); err != nil {
		return fmt.Errorf("Failed to zero out the new area: %w", err)
	}
	if i.hdr.rawExternal() && prealloc == "off" {
		prealloc = "metadata"
	}
	if prealloc == "off" {
		if i.hdr.external() {
			return i.data.Truncate(size)
		}
		return nil
	}
	return i.preallocate(old, size, prealloc)
}

// growL1 makes the active L1 table n entries long, exactly.
func (i *Image) growL1(n uint64) error {
	if n <= uint64(len(i.l1)) {
		return nil
	}
	if n > maxL1Bytes/8 || n > math.MaxInt32 {
		return errTooBig
	}
	clusters := i.roundUp(int64(n)*8) >> i.clusterBits
	r, _, err := i.allocate(clusters, true, "L1 table")
	if err != nil {
		return err
	}
	table := make([]uint64, n)
	copy(table, i.l1)
	return i.replaceL1(table, r)
}

// replaceL1 writes table to the clusters r, has the header point there, and
// frees the old L1 table. Nothing of the old one is dirty.
func (i *Image) replaceL1(table []uint64, r run) error {
	err := i.flushRefcounts()
	if err == nil {
		err = writeFull(i.file, encodeTable(table), r.off) // no more: the file takes as much as QEMU's
	}
	if err == nil {
		err = i.sync()
	}
	old, n := int64(i.hdr.l1Offset), i.roundUp(int64(len(i.l1))*8)>>i.clusterBits
	if err == nil {
		h := i.hdr
		h.l1Size, h.l1Offset = uint32(len(table)), uint64(r.off)
		err = i.switchHeader(h, i.writeActive)
	}
	if err != nil {
		return errors.Join(err, i.unallocate(r))
	}
	i.l1 = table
	i.unsynced = false
	if n > 0 && old != 0 {
		i.free(old, n, false)
	}
	return nil
}

// hideTail makes what lies between the old size and the new read as zeros, where
// there might be other contents: in the rest of the last cluster, and in the backing image.
func (i *Image) hideTail(old, size int64) error {
	end := min(size, i.roundUp(old))
	if i.backing != nil && i.backing.Size() > old {
		end = size
	}
	if old >= end || size == old {
		return nil
	}
	i.mu.Unlock()
	defer i.mu.Lock()
	return i.zero(old, end-old, size, 0)
}

// preallocate gives a host cluster to every guest cluster from old to size.
func (i *Image) preallocate(old, size int64, mode string) error {
	end := int64(0)
	for off := i.clusterOf(old); off < size; {
		m, err := i.lookup(off, size-off)
		if err != nil {
			return err
		}
		if m.hasHost || m.contents == compressed {
			off = i.roundUp(off + m.n)
			continue
		}
		p, err := i.plan(off, m.n, m)
		if err != nil {
			return fmt.Errorf("Allocating clusters failed: %w", err)
		}
		p.prealloc = true
		if !i.hdr.external() { // first: what is linked must not show what freed clusters held
			if err := i.giveStorage(p, mode); err != nil {
				i.abandon(p)
				return err
			}
		}
		if err := i.link(p); err != nil {
			i.abandon(p)
			return fmt.Errorf("Mapping clusters failed: %w", err)
		}
		end = max(end, p.host+p.to-p.from)
		off = p.to
	}
	if i.hdr.external() {
		return i.giveExternal(old, size, mode)
	}
	if end > i.file.Size() {
		return i.file.Truncate(end)
	}
	return nil
}

// giveStorage makes the clusters of p zero, and gives them storage if mode says so.
func (i *Image) giveStorage(p *plan, mode string) error {
	n := p.to - p.from
	if !p.fresh {
		if err := i.file.WriteZeroes(p.host, n, 0); err != nil {
			return err
		}
	}
	return giveStorage(i.file, p.host, n, mode)
}

func (i *Image) giveExternal(old, size int64, mode string) error {
	if err := i.data.Truncate(size); err != nil {
		return err
	}
	return giveStorage(i.data, old, size-old, mode)
}

func giveStorage(f block.File, off, n int64, mode string) error {
	if mode == "metadata" || n == 0 {
		return nil
	}
	if p, ok := f.(block.Preallocator); ok {
		err := p.Preallocate(off, n, mode == "full")
		if !errors.Is(err, block.ErrUnsupported) {
			return err
		}
	}
	return writeZeros(f, off, n)
}

// MakeEmpty frees all clusters: the image reads as its backing image again.
func (i *Image) MakeEmpty() error {
	i.ops.Lock()
	defer i.ops.Unlock()
	i.mu.Lock()
	defer i.mu.Unlock()
	if err := i.writable(); err != nil {
		return err
	}
	end := i.roundUp(i.Size())
	for off := int64(0); off < end; {
		n, err := i.discardSlice(off, end-off, true)
		if err != nil {
			return err
		}
		off += n
	}
	if err := i.quiesce(); err != nil {
		return err
	}
	if err := i.sync(); err != nil {
		return err
	}
	switch {
	case i.hdr.rawExternal():
		return i.data.WriteZeroes(0, i.Size(), block.FlagUnmap)
	case i.hdr.external():
		_ = i.data.Discard(0, end) // advice
		return nil
	}
	return i.cutTail()
}

// shrink frees everything past size.
func (i *Image) shrink(size int64) error {
	old := i.Size()
	first := i.roundUp(size)
	for off := first; off < i.roundUp(old); {
		n, err := i.discardSlice(off, i.roundUp(old)-off, true)
		if err != nil {
			return fmt.Errorf("Failed to discard cropped clusters: %w", err)
		}
		off += n
	}
	if err := i.shrinkL1(int(i.hdr.sizeToL1(uint64(size)))); err != nil {
		return fmt.Errorf("Failed to reduce the number of L2 tables: %w", err)
	}
	if err := i.quiesce(); err != nil {
		return err
	}
	if i.hdr.external() {
		return i.data.Truncate(size)
	}
	return i.cutTail()
}

// shrinkL1 frees the L2 tables from entry n of the L1 table on. The table keeps
// its length, as in QEMU.
func (i *Image) shrinkL1(n int) error {
	for k := n; k < len(i.l1); k++ {
		off := int64(i.l1[k] & offsetMask)
		if off == 0 {
			continue
		}
		i.l1[k] = 0
		i.l1Dirty.add(k, k+1)
		i.forgetMeta(off, metaL2)
		i.l2.forget(off, i.clusterSize)
		if i.inCluster(off) == 0 {
			i.free(off, 1, false)
		}
	}
	return nil
}

// cutTail cuts the free clusters at the end of the file off.
func (i *Image) cutTail() error {
	last, err := i.lastUsed()
	if err != nil {
		return err
	}
	if end := (last + 1) << i.clusterBits; end < i.file.Size() {
		if err := i.file.Truncate(end); err != nil {
			i.say("warning: Failed to truncate the tail of the image: " + strerror(err))
		}
	}
	return nil
}

// lastUsed is the number of the file's last cluster that is not free.
func (i *Image) lastUsed() (int64, error) {
	last := min((i.file.Size()-1)>>i.clusterBits, int64(len(i.alloc.table))<<i.alloc.blockBits-1)
	for ; last > 0; last-- {
		if r := last >> i.alloc.blockBits; i.alloc.table[r]&offsetMask == 0 {
			last = r << i.alloc.blockBits // to the last of the block before, where there may be one
			continue
		}
		n, err := i.refcount(last)
		if err != nil {
			return 0, err
		}
		if n != 0 {
			break
		}
	}
	return last, nil
}

// appendable fails if the file would still be longer than its last cluster in use with a new refcount table and
// all new clusters behind that, which is where QEMU puts them: it has no preallocation for such an image.
func (i *Image) appendable(old, size int64) error {
	last, err := i.lastUsed()
	if err != nil {
		return err
	}
	first := last + 1
	data := (i.roundUp(size) - i.clusterOf(old)) >> i.clusterBits
	perL2 := int64(i.hdr.l2Entries())
	blocks, added := refcountClusters(first+data+(data+perL2-1)/perL2+1, i.clusterSize, int(i.alloc.order))
	for r := first >> i.alloc.blockBits; r < blocks; r++ {
		if r >= int64(len(i.alloc.table)) || i.alloc.table[r]&offsetMask == 0 {
			added++
		}
	}
	if (first+added+data)<<i.clusterBits < i.file.Size() {
		return errors.New("Failed to resize underlying file: Cannot use preallocation for shrinking files")
	}
	return nil
}
