package qcow2

// tables calls f with the number of each entry of l1 that refers to an L2 table, and the table.
// A table that two entries refer to is a corruption: it has one refcount, and one place in the guest's disk.
func (i *Image) tables(l1 []uint64, f func(k int, table int64) error) error {
	met := map[int64]struct{}{}
	for k, e := range l1 {
		table := int64(e & offsetMask)
		if table == 0 {
			continue
		}
		if i.inCluster(table) != 0 {
			return i.signalCorruption("L2 table offset %#x unaligned (L1 index: %#x)", table, k)
		}
		if _, again := met[table]; again {
			return i.signalCorruption("L2 table offset %#x is used more than once (L1 index: %#x)", table, k)
		}
		met[table] = struct{}{}
		if err := f(k, table); err != nil {
			return err
		}
	}
	return nil
}

// slices calls f with each slice of an L2 table, and where in the table it
// begins. Past the file's end there are none: all of it is in the file.
func (i *Image) slices(table int64, f func(s *slice, at int64) error) error {
	if table >= i.file.Size() {
		return nil
	}
	for at := int64(0); at < i.clusterSize; at += int64(i.sliceBytes) {
		s, err := i.l2.get(table + at)
		if err != nil {
			return err
		}
		if err := f(s, at); err != nil {
			return err
		}
	}
	return nil
}

// unmark clears the COPIED flags in l1, which is the active table or not, and in
// the L2 tables below it: nothing there is written in place any more. In an image
// that is not marked dirty this is on stable storage before any refcount is
// raised: a cut leaves a flag missing, which costs a copy; one too many would
// have a shared cluster written.
func (i *Image) unmark(l1 []uint64, active bool) error {
	err := i.tables(l1, func(k int, table int64) error {
		if l1[k]&flagCopied != 0 {
			l1[k] &^= flagCopied
			if active {
				i.l1Dirty.add(k, k+1)
			}
		}
		return i.slices(table, func(s *slice, _ int64) error {
			for n := range 1 << i.sliceBits {
				if entry, bitmap := i.entryAt(s, n); entry&flagCopied != 0 {
					i.setEntry(s, n, entry&^flagCopied, bitmap)
				}
			}
			return nil
		})
	})
	if err != nil || i.hdr.incompat&incompatDirty != 0 || i.l2.dirty == 0 && i.l1Dirty.to == 0 && !i.l2Wrote {
		return err
	}
	return i.storeTables()
}

// tree adds delta to the refcounts of all that an L1 table refers to: L2 tables
// and, by their entries, clusters. Clusters that follow one another are one step.
type tree struct {
	i       *Image
	delta   int
	limit   int64 // steps; negative: all
	steps   int64
	off, n  int64 // clusters in a row, not yet counted
	stopped bool
}

// raiseTree raises the refcounts below l1, whose COPIED flags have been cleared.
// On an error it has undone that.
func (i *Image) raiseTree(l1 []uint64) error {
	w := tree{i: i, delta: 1, limit: -1}
	err := w.walk(l1)
	if err != nil && !i.corrupt.Load() {
		undo := tree{i: i, delta: -1, limit: w.steps}
		_ = undo.walk(l1) // a leak at worst
	}
	return err
}

// lowerTree lowers the refcounts below l1.
func (i *Image) lowerTree(l1 []uint64) error {
	i.packAt = 0 // its cluster may be among them
	w := tree{i: i, delta: -1, limit: -1}
	return w.walk(l1)
}

func (w *tree) walk(l1 []uint64) error {
	return w.i.tables(l1, func(_ int, table int64) error {
		if w.stopped {
			return nil
		}
		if err := w.i.slices(table, func(s *slice, at int64) error { return w.slice(s, table, at) }); err != nil {
			return err
		}
		if err := w.flush(); err != nil {
			return err
		}
		return w.add(table, 1)
	})
}

// slice counts what the entries of s, which begins at byte at of its table, refer to.
func (w *tree) slice(s *slice, table, at int64) error {
	i := w.i
	for n := range 1 << i.sliceBits {
		entry, _ := i.entryAt(s, n)
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

// markCopied sets the COPIED flags of the active tables by the refcounts, which
// are on stable storage before the flags are.
func (i *Image) markCopied() error {
	return i.tables(i.l1, func(k int, table int64) error {
		if err := i.slices(table, func(s *slice, _ int64) error { return i.markSlice(s) }); err != nil {
			return err
		}
		n, err := i.refcount(table >> i.clusterBits)
		if err == nil && (n == 1) != (i.l1[k]&flagCopied != 0) {
			i.l1[k] ^= flagCopied
			i.l1Dirty.add(k, k+1)
		}
		return err
	})
}

func (i *Image) markSlice(s *slice) error {
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
