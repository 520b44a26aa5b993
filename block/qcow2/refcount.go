package qcow2

import (
	"cmp"
	"errors"
	"math"
	"slices"
	"syscall"

	"berth/block"
)

const offsetMask = 0x00fffffffffffe00 // of L1, L2 and refcount table entries

// allocator is the refcount structures and where to look for free clusters.
// It is guarded by the image's mu.
type allocator struct {
	table     []uint64 // the refcount table: offsets of refcount blocks
	dirty     dirtySpan
	blocks    *cache
	order     uint  // log2 of a refcount's bits
	blockBits uint  // log2 of the refcounts in a block
	next      int64 // cluster; none before it is free
	twice     int64 // a refcount block that the table names more than once, if there is one
	high      int64 // bytes: nothing has ever been written to the file from here on, so it reads as zeros
}

// run is n clusters beginning at the file's byte off.
type run struct {
	off, n int64
	punch  bool // give its storage back when it is free
}

func (a *allocator) max() uint64 {
	if a.order == 6 {
		return math.MaxUint64
	}
	return 1<<(1<<a.order) - 1
}

// load returns refcount n of the block's slice b.
func (a *allocator) load(b []byte, n int) uint64 {
	switch a.order {
	case 3:
		return uint64(b[n])
	case 4:
		return uint64(be.Uint16(b[n*2:]))
	case 5:
		return uint64(be.Uint32(b[n*4:]))
	case 6:
		return be.Uint64(b[n*8:])
	}
	width := 1 << a.order
	bit := n * width
	return uint64(b[bit/8]) >> (bit % 8) & (1<<width - 1)
}

// store sets refcount n of the block's slice b.
func (a *allocator) store(b []byte, n int, v uint64) {
	switch a.order {
	case 3:
		b[n] = byte(v)
	case 4:
		be.PutUint16(b[n*2:], uint16(v))
	case 5:
		be.PutUint32(b[n*4:], uint32(v))
	case 6:
		be.PutUint64(b[n*8:], v)
	default:
		width := 1 << a.order
		bit := n * width
		mask := byte(1<<width-1) << (bit % 8)
		b[bit/8] = b[bit/8]&^mask | byte(v)<<(bit%8)
	}
}

// refSlice returns the slice that holds cluster's refcount, the refcount's
// number in it, and how many more the slice holds; nil if there is no block for it.
func (i *Image) refSlice(cluster int64) (s *slice, n, more int, err error) {
	a := &i.alloc
	r := cluster >> a.blockBits
	if r >= int64(len(a.table)) || a.table[r]&offsetMask == 0 {
		return nil, 0, 0, nil
	}
	off := int64(a.table[r] & offsetMask)
	if i.inCluster(off) != 0 {
		return nil, 0, 0, i.signalCorruption("Refblock offset %#x unaligned (reftable index: %#x)", off, r)
	}
	perSlice := int64(a.blocks.bytes) * 8 >> a.order
	in := cluster & (1<<a.blockBits - 1)
	if s, err = a.blocks.get(off + in/perSlice*int64(a.blocks.bytes)); err != nil {
		return nil, 0, 0, err
	}
	return s, int(in % perSlice), int(perSlice - in%perSlice), nil
}

// refcount returns how often the cluster with that number is referenced.
func (i *Image) refcount(cluster int64) (uint64, error) {
	s, n, _, err := i.refSlice(cluster)
	if s == nil {
		return 0, err
	}
	return i.alloc.load(s.b, n), nil
}

// addRefcounts adds delta to the refcounts of n clusters beginning at
// the file's byte off. On an error nothing has changed.
func (i *Image) addRefcounts(off, n int64, delta int) error {
	first := off >> i.clusterBits
	for c := first; c < first+n; {
		done, err := i.addInSlice(c, first+n-c, delta)
		if err != nil {
			for u := first; u < c; {
				k, undo := i.addInSlice(u, c-u, -delta)
				if undo != nil {
					break
				}
				u += k
			}
			return err
		}
		c += done
	}
	return nil
}

// addInSlice does addRefcounts for those clusters whose refcounts lie in one slice.
func (i *Image) addInSlice(c, n int64, delta int) (done int64, err error) {
	a := &i.alloc
	s, at, more, err := i.refSlice(c)
	if err != nil {
		return 0, err
	}
	if s == nil {
		if delta < 0 {
			return 0, syscall.EINVAL
		}
		if err := i.coverCluster(c); err != nil {
			return 0, err
		}
		if s, at, more, err = i.refSlice(c); err != nil || s == nil {
			return 0, orEIO(err)
		}
	}
	n = min(n, int64(more))
	for k := range int(n) {
		v := a.load(s.b, at+k)
		if delta < 0 && v < uint64(-delta) || delta > 0 && a.max()-v < uint64(delta) {
			for u := range k {
				a.store(s.b, at+u, a.load(s.b, at+u)-uint64(delta))
			}
			return 0, syscall.EINVAL
		}
		a.store(s.b, at+k, v+uint64(delta))
		if v+uint64(delta) == 0 {
			a.next = min(a.next, c+int64(k))
			i.forgetTables((c + int64(k)) << i.clusterBits)
			if s.off < 0 {
				return 0, errCorrupt // a block has freed itself
			}
		}
	}
	a.blocks.touch(s, at<<a.order>>3, ((at+int(n))<<a.order+7)>>3)
	return n, nil
}

func orEIO(err error) error {
	if err == nil {
		return errCorrupt
	}
	return err
}

// forgetTables drops what is cached of a cluster that has become free.
func (i *Image) forgetTables(off int64) {
	if _, ok := i.meta[off]; !ok {
		return
	}
	i.l2.forget(off, i.clusterSize)
	i.forgetMeta(off, metaL2)
}

// allocate gives up to n free clusters in a row a refcount of 1; exactly n if
// whole. what names them in messages. fresh: nothing was ever written there.
func (i *Image) allocate(n int64, whole bool, what string) (r run, fresh bool, err error) {
	if err := i.writable(); err != nil {
		return run{}, false, err
	}
	r, err = i.findFree(n, whole)
	if err != nil {
		return run{}, false, err
	}
	if r.off == 0 {
		return run{}, false, i.signalCorruption("Preventing invalid allocation of %s at offset 0", what)
	}
	if err := i.overlap(r.off, r.n<<i.clusterBits); err != nil {
		return run{}, false, err
	}
	if err := i.addRefcounts(r.off, r.n, 1); err != nil {
		return run{}, false, err
	}
	return r, i.raise(r.off, r.n), nil
}

// raise notes that n clusters at off may be written from now on, and says
// whether nothing ever was before.
func (i *Image) raise(off, n int64) (fresh bool) {
	fresh = off >= i.alloc.high
	i.alloc.high = max(i.alloc.high, off+n<<i.clusterBits)
	return fresh
}

// findFree finds the first run of free clusters, n of them if whole, else 1 to n.
// It makes the refcount blocks that describe them.
func (i *Image) findFree(n int64, whole bool) (run, error) {
	a := &i.alloc
	if a.twice != 0 { // such a table describes more clusters than can be searched
		return run{}, i.signalCorruption("Refblock offset %#x is used more than once", a.twice)
	}
	c, first, found := a.next, int64(-1), int64(0)
	for found < n {
		if c+1 > offsetMask>>i.clusterBits {
			return run{}, errTooBig
		}
		s, at, more, err := i.refSlice(c)
		if err != nil {
			return run{}, err
		}
		if s == nil {
			if found > 0 && !whole {
				break
			}
			if err := i.newBlock(c); err != nil {
				return run{}, err
			}
			found = 0
			continue
		}
		k, free, run := a.freeRun(s.b, at, more, found, n, whole)
		if first < 0 && free >= 0 {
			first = c + int64(free)
		}
		found = run
		c += int64(k)
		if k < more {
			break
		}
	}
	if c-found == first || first < 0 {
		a.next = c
	} else {
		a.next = first
	}
	return run{off: (c - found) << i.clusterBits, n: found}, nil
}

// freeRun looks through more refcounts of b from at on, with found free clusters
// in a row before them, until there are n, or fewer come to an end and need not be
// whole. It returns how many it has seen, which of them was the first that is
// free, or -1, and how many in a row there are now.
func (a *allocator) freeRun(b []byte, at, more int, found, n int64, whole bool) (seen, first int, run int64) {
	first = -1
	for ; seen < more && found < n; seen++ {
		if a.load(b, at+seen) != 0 {
			if found > 0 && !whole {
				break
			}
			found = 0
			continue
		}
		if first < 0 {
			first = seen
		}
		found++
	}
	return seen, first, found
}

// coverCluster makes the refcount block that describes cluster c, in a free cluster.
func (i *Image) coverCluster(c int64) error {
	if c>>i.alloc.blockBits >= int64(len(i.alloc.table)) {
		return syscall.EINVAL // far past everything that this image refers to
	}
	r := c >> i.alloc.blockBits
	free, err := i.findFree(1, true)
	if err != nil {
		return err
	}
	if i.alloc.table[r]&offsetMask != 0 {
		return nil // it was made to describe the free cluster
	}
	if err := i.overlap(free.off, i.clusterSize); err != nil {
		return err
	}
	if err := i.addRefcounts(free.off, 1, 1); err != nil {
		return err
	}
	return i.linkBlock(r, free.off)
}

// newBlock makes the refcount block that describes cluster c, in c itself:
// where there is no block, everything is free.
func (i *Image) newBlock(c int64) error {
	r := c >> i.alloc.blockBits
	if r >= int64(len(i.alloc.table)) {
		return i.growReftable(c)
	}
	off := c << i.clusterBits
	if off == 0 {
		return i.signalCorruption("Preventing invalid allocation of refcount block at offset 0")
	}
	if err := i.overlap(off, i.clusterSize); err != nil {
		return err
	}
	if err := i.linkBlock(r, off); err != nil {
		return err
	}
	return i.addRefcounts(off, 1, 1)
}

// linkBlock makes an empty refcount block at off and enters it in the table.
func (i *Image) linkBlock(r, off int64) error {
	a := &i.alloc
	if !i.raise(off, 1) {
		if err := writeZeros(i.file, off, i.clusterSize); err != nil {
			return err
		}
		i.unsynced = true
	} else if err := i.reserve(off); err != nil {
		return err
	}
	a.blocks.forget(off, i.clusterSize)
	if s, err := a.blocks.get(off); err != nil {
		return err
	} else { // what is fresh has to be there after a crash, too
		a.blocks.touch(s, 0, a.blocks.bytes)
	}
	a.table[r] = uint64(off)
	a.dirty.add(int(r), int(r)+1)
	i.meta[off] |= metaRefblock
	return nil
}

// reserve gives the table in the cluster at off its storage. It is written at the next flush: on a disk that
// is full until then, a guest would lose all that it had written before, and not just what has no room.
func (i *Image) reserve(off int64) error {
	p, ok := i.file.(block.Preallocator)
	if !ok {
		return nil
	}
	err := p.Preallocate(off, i.clusterSize, false)
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.EFBIG) {
		return err
	}
	return nil // storage that reserves nothing
}

// growReftable makes a larger refcount table, beginning at cluster c, which no
// block describes, with the blocks that describe it behind it.
func (i *Image) growReftable(c int64) error {
	a := &i.alloc
	p, err := i.planReftable(c)
	if err != nil {
		return err
	}
	off, bytes := c<<i.clusterBits, (p.tableClusters+p.blocks)<<i.clusterBits
	if err := i.overlap(off, bytes); err != nil {
		return err
	}
	if err := a.blocks.flush(); err != nil {
		return err
	}
	table := make([]uint64, p.tableClusters<<i.clusterBits/8)
	copy(table, a.table)
	blocksAt := off + p.tableClusters<<i.clusterBits
	for k := range p.blocks {
		table[p.firstBlock+k] = uint64(blocksAt + k<<i.clusterBits)
	}
	i.raise(off, p.tableClusters+p.blocks) // what follows may fail
	if err := i.writeGrown(c, p, table); err != nil {
		return err
	}
	was, h := i.hdr, i.hdr
	h.reftableOffset, h.reftableClus = uint64(off), uint32(p.tableClusters)
	if err := i.switchHeader(h, i.writeReftablePlace); err != nil {
		return err
	}
	a.table, a.dirty = table, dirtySpan{}
	for k := range p.blocks {
		i.meta[blocksAt+k<<i.clusterBits] |= metaRefblock
		a.blocks.forget(blocksAt+k<<i.clusterBits, i.clusterSize)
	}
	i.unsynced = false
	i.drop(int64(was.reftableOffset), int64(was.reftableClus))
	return nil
}

// tablePlan is the size of a refcount table and of the blocks that describe it.
type tablePlan struct{ tableClusters, blocks, firstBlock int64 }

func (i *Image) planReftable(c int64) (tablePlan, error) {
	a := &i.alloc
	perCluster := i.clusterSize / 8
	p := tablePlan{firstBlock: c >> a.blockBits, blocks: 1}
	want := max(p.firstBlock+2, int64(len(a.table))*3/2)
	for {
		p.tableClusters = (want + perCluster - 1) / perCluster
		if p.tableClusters<<i.clusterBits > maxReftable {
			return p, errTooBig
		}
		last := (c + p.tableClusters + p.blocks - 1) >> a.blockBits
		blocks := last - p.firstBlock + 1
		if blocks == p.blocks && last < p.tableClusters*perCluster {
			return p, nil
		}
		p.blocks = max(p.blocks, blocks)
		want = max(want, last+1)
	}
}

// writeGrown puts the new blocks and table on stable storage.
func (i *Image) writeGrown(c int64, p tablePlan, table []uint64) error {
	a := &i.alloc
	used := p.tableClusters + p.blocks
	b := make([]byte, i.clusterSize)
	for k := range p.blocks {
		clear(b)
		first := (p.firstBlock + k) << a.blockBits
		for n := max(c, first); n < min(c+used, first+1<<a.blockBits); n++ {
			a.store(b, int(n-first), 1)
		}
		if err := writeFull(i.file, b, (c+p.tableClusters+k)<<i.clusterBits); err != nil {
			return err
		}
	}
	if err := writeFull(i.file, encodeTable(table), c<<i.clusterBits); err != nil {
		return err
	}
	return i.sync()
}

// free gives n clusters at off back, once what refers to them is no longer in
// the file: their refcounts are lowered after the next barrier. mu is held.
func (i *Image) free(off, n int64, punch bool) {
	i.pendingN += n
	if k := len(i.pending) - 1; k >= i.sealed {
		p := &i.pending[k]
		if p.off+p.n<<i.clusterBits == off && p.punch == punch {
			p.n += n
			return
		}
	}
	i.pending = append(i.pending, run{off, n, punch})
}

// lowerPending lowers the refcounts of the first n runs of what was freed, all
// before the last barrier. No request may be using it: ops is held exclusively, and mu.
func (i *Image) lowerPending(n int) error {
	p := i.pending[:n:n]
	i.pending = append([]run(nil), i.pending[n:]...)
	i.pendingN, i.sealed = 0, 0
	for _, r := range i.pending {
		i.pendingN += r.n
	}
	i.lowered++
	i.inflated.clear()
	i.packAt = 0 // its cluster may be among them
	for _, r := range i.joined(p) {
		if err := i.addRefcounts(r.off, r.n, -1); err != nil {
			i.say("qcow2_free_clusters failed: " + strerror(err))
			if i.corrupt.Load() {
				return err
			}
			continue
		}
		if r.punch {
			if err := i.punchFree(r); err != nil {
				return err
			}
		}
	}
	return nil
}

// joined sorts runs, which it changes, and makes one of those that lie side by
// side: what was freed in the guest's order becomes few changes and few holes.
func (i *Image) joined(runs []run) []run {
	slices.SortStableFunc(runs, func(a, b run) int { return cmp.Compare(a.off, b.off) })
	var all []run
	for _, r := range runs {
		if k := len(all) - 1; k >= 0 && all[k].off+all[k].n<<i.clusterBits == r.off && all[k].punch == r.punch {
			all[k].n += r.n
			continue
		}
		all = append(all, r)
	}
	return all
}

// punchFree gives the storage of those of r's clusters back that are free now.
func (i *Image) punchFree(r run) error {
	first := int64(-1)
	c := r.off >> i.clusterBits
	for k := c; k <= c+r.n; k++ {
		n := uint64(1)
		if k < c+r.n {
			var err error
			if n, err = i.refcount(k); err != nil {
				return err
			}
		}
		if n == 0 && first < 0 {
			first = k
		}
		if n != 0 && first >= 0 {
			off, n := first<<i.clusterBits, (k-first)<<i.clusterBits
			if err := i.overlap(off, n); err != nil { // wrong refcounts must not cost the tables
				return err
			}
			_ = i.file.Discard(off, n) // advice
			first = -1
		}
	}
	return nil
}

// release makes the first n runs free of what was freed before the barrier that
// ended since seq was read from i.lowered.
func (i *Image) release(n int, seq uint64) error {
	if n == 0 {
		return nil
	}
	i.ops.Lock()
	defer i.ops.Unlock()
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.closed || i.corrupt.Load() || i.lowered != seq {
		return nil
	}
	return i.lowerPending(n)
}

// crowded says whether so much waits to be freed that it is time for a barrier.
func (i *Image) crowded() bool {
	return len(i.pending) > 16384 || i.pendingN<<i.clusterBits > 1<<30
}

// flushRefcounts writes the refcount blocks, then the table. mu is held.
func (i *Image) flushRefcounts() error {
	a := &i.alloc
	if err := a.blocks.flush(); err != nil {
		return err
	}
	if a.dirty.to == 0 {
		return nil
	}
	if err := i.sync(); err != nil {
		return err
	}
	i.unsynced = true // by the table
	from, to := a.dirty.from&^63, min((a.dirty.to+63)&^63, len(a.table))
	if err := writeFull(i.file, encodeTable(a.table[from:to]), int64(i.hdr.reftableOffset)+int64(from)*8); err != nil {
		return err
	}
	a.dirty = dirtySpan{}
	return nil
}

// flushMetadata writes everything that is held in memory, each thing after what
// it refers to: refcount blocks, refcount table, L2 tables, L1 table. It leaves
// the last of it to be synced by the caller. mu is held.
func (i *Image) flushMetadata() error {
	if i.l2.dirty == 0 && i.l1Dirty.to == 0 && i.alloc.blocks.dirty == 0 && i.alloc.dirty.to == 0 {
		return nil
	}
	if i.hdr.incompat&incompatDirty == 0 {
		if err := i.flushRefcounts(); err != nil {
			return err
		}
	}
	if err := i.flushL2(); err != nil {
		return err
	}
	if i.l1Dirty.to == 0 {
		return nil
	}
	if i.l2Wrote {
		if err := i.sync(); err != nil {
			return err
		}
		i.l2Wrote, i.unsynced = false, false
	}
	return i.writeL1()
}

// flushL2 writes the L2 tables, after what they refer to is on stable storage.
func (i *Image) flushL2() error {
	if i.l2.dirty == 0 && i.l1Dirty.to == 0 {
		return nil
	}
	if i.unsynced {
		if err := i.sync(); err != nil {
			return err
		}
		i.unsynced = false
	}
	return i.l2.flush()
}

// cleanL2 makes L2 slices droppable.
func (i *Image) cleanL2() error {
	if i.hdr.incompat&incompatDirty == 0 {
		if err := i.flushRefcounts(); err != nil {
			return err
		}
	}
	return i.flushL2()
}

// writeL1 writes the changed part of the active L1 table.
func (i *Image) writeL1() error {
	if err := i.overlapBut(metaL1, int64(i.hdr.l1Offset), int64(len(i.l1))*8); err != nil {
		return err
	}
	from, to := i.l1Dirty.from&^63, min((i.l1Dirty.to+63)&^63, len(i.l1))
	if err := writeFull(i.file, encodeTable(i.l1[from:to]), int64(i.hdr.l1Offset)+int64(from)*8); err != nil {
		return err
	}
	i.l1Dirty = dirtySpan{}
	return nil
}

func encodeTable(t []uint64) []byte {
	b := make([]byte, len(t)*8)
	for n, v := range t {
		be.PutUint64(b[n*8:], v)
	}
	return b
}

func decodeTable(b []byte) []uint64 {
	t := make([]uint64, len(b)/8)
	for n := range t {
		t[n] = be.Uint64(b[n*8:])
	}
	return t
}
