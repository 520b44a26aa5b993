package qcow2

// tree adds delta to the refcounts of all that an L1 table refers to: L2 tables
// and, by their entries, clusters. Clusters that follow one another are one step.
type tree struct {
	i       *Image
	delta   int
	limit   int64 // steps; negative: all
	steps   int64
	off, n  int64 // clusters in a row, not yet counted
	unmark  bool  // clear COPIED on the way
	stopped bool
}

// raiseTree raises the refcounts below l1 and clears the COPIED flags in its
// L2 tables, and in l1 itself if it is the active one. On an error it has undone that.
func (i *Image) raiseTree(l1 []uint64, active bool) error {
	w := tree{i: i, delta: 1, limit: -1, unmark: true}
	err := w.walk(l1)
	if err != nil {
		if !i.corrupt.Load() {
			undo := tree{i: i, delta: -1, limit: w.steps}
			_ = undo.walk(l1) // a leak at worst
		}
		return err
	}
	for k, e := range l1 {
		if e&flagCopied == 0 {
			continue
		}
		l1[k] = e &^ flagCopied
		if active {
			i.l1Dirty.add(k, k+1)
		}
	}
	return nil
}

// lowerTree lowers the refcounts below l1.
func (i *Image) lowerTree(l1 []uint64) error {
	i.packAt = 0 // its cluster may be among them
	w := tree{i: i, delta: -1, limit: -1}
	return w.walk(l1)
}

func (w *tree) walk(l1 []uint64) error {
	i := w.i
	for k, e := range l1 {
		off := int64(e & offsetMask)
		if off == 0 {
			continue
		}
		if i.inCluster(off) != 0 {
			return i.signalCorruption("L2 table offset %#x unaligned (L1 index: %#x)", off, k)
		}
		for o := int64(0); o < i.clusterSize && !w.stopped; o += int64(i.sliceBytes) {
			if err := w.slice(off, o); err != nil {
				return err
			}
		}
		if err := w.flush(); err != nil || w.stopped {
			return err
		}
		if err := w.add(off, 1); err != nil || w.stopped {
			return err
		}
	}
	return nil
}

// slice counts what the entries of one slice refer to.
func (w *tree) slice(table, at int64) error {
	i := w.i
	s, err := i.l2.get(table + at)
	if err != nil {
		return err
	}
	for n := range 1 << i.sliceBits {
		entry, bitmap := i.entryAt(s, n)
		if entry&flagCompressed != 0 {
			off, bytes := i.compressedPlace(entry)
			first := i.clusterOf(off)
			if err := w.flush(); err != nil {
				return err
			}
			if err := w.add(first, (i.clusterOf(off+bytes-1)-first)>>i.clusterBits+1); err != nil {
				return err
			}
			continue
		}
		host := int64(entry & offsetMask)
		if host == 0 {
			continue
		}
		if i.inCluster(host) != 0 {
			return i.signalCorruption("Cluster allocation offset %#x unaligned (L2 offset: %#x, L2 index: %#x)",
				host, table, int64(n)+at/i.entry)
		}
		if w.unmark && entry&flagCopied != 0 {
			i.setEntry(s, n, entry&^flagCopied, bitmap)
		}
		if w.n > 0 && w.off+w.n<<i.clusterBits == host {
			w.n++
			continue
		}
		if err := w.flush(); err != nil {
			return err
		}
		w.off, w.n = host, 1
	}
	return nil
}

func (w *tree) flush() error {
	if w.n == 0 {
		return nil
	}
	n := w.n
	w.n = 0
	return w.add(w.off, n)
}

func (w *tree) add(off, n int64) error {
	if w.stopped || w.steps == w.limit {
		w.stopped = true
		return nil
	}
	if err := w.i.addRefcounts(off, n, w.delta); err != nil {
		return err
	}
	if w.delta < 0 { // what referred to them is gone from the file, or was never there
		if err := w.i.punchFree(run{off: off, n: n}); err != nil {
			return err
		}
	}
	w.steps++
	return nil
}

// markCopied sets the COPIED flags of the active tables by the refcounts.
func (i *Image) markCopied() error {
	for k, e := range i.l1 {
		off := int64(e & offsetMask)
		if off == 0 {
			continue
		}
		if i.inCluster(off) != 0 {
			return i.signalCorruption("L2 table offset %#x unaligned (L1 index: %#x)", off, k)
		}
		for o := int64(0); o < i.clusterSize; o += int64(i.sliceBytes) {
			if err := i.markSlice(off + o); err != nil {
				return err
			}
		}
		n, err := i.refcount(off >> i.clusterBits)
		if err != nil {
			return err
		}
		if (n == 1) != (e&flagCopied != 0) {
			i.l1[k] = e ^ flagCopied
			i.l1Dirty.add(k, k+1)
		}
	}
	return nil
}

func (i *Image) markSlice(off int64) error {
	s, err := i.l2.get(off)
	if err != nil {
		return err
	}
	for n := range 1 << i.sliceBits {
		entry, bitmap := i.entryAt(s, n)
		host, ok := i.hostCluster(entry)
		if !ok {
			continue
		}
		refs, err := i.refcount(host >> i.clusterBits)
		if err != nil {
			return err
		}
		if (refs == 1) != (entry&flagCopied != 0) {
			i.setEntry(s, n, entry^flagCopied, bitmap)
		}
	}
	return nil
}
