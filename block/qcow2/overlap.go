package qcow2

// metaKind is what metadata a cluster holds, as bits: of a hostile image more than one.
type metaKind uint8

const (
	metaL2 metaKind = 1 << iota
	metaRefblock
	metaL1 // only to say what may be overlapped
)

// metaRange is metadata that lies in a row.
type metaRange struct {
	off, n int64  // bytes
	name   string // QEMU's
}

// overlap refuses to write n bytes at off for another use of them if they hold
// metadata: the image is corrupt then. mu is held.
func (i *Image) overlap(off, n int64) error { return i.overlapBut(0, off, n) }

// overlapBut is overlap for the writing of metadata of the kind own.
func (i *Image) overlapBut(own metaKind, off, n int64) error {
	if name := i.overlaps(own, off, n); name != "" {
		return i.signalCorruption("Preventing invalid write on metadata (overlaps with %s)", name)
	}
	return nil
}

// overlaps names the metadata, other than of the kind own, that lies in the n bytes at off, or "".
func (i *Image) overlaps(own metaKind, off, n int64) string {
	if n == 0 {
		return ""
	}
	if off < i.clusterSize {
		return "qcow2_header"
	}
	end := i.roundUp(off + n)
	off = i.clusterOf(off)
	hits := func(at, bytes int64) bool { return bytes > 0 && at < end && off < at+bytes }
	h := &i.hdr
	switch {
	case own != metaL1 && hits(int64(h.l1Offset), int64(h.l1Size)*8):
		return "active L1 table"
	case hits(int64(h.reftableOffset), int64(h.reftableClus)<<i.clusterBits):
		return "refcount table"
	}
	for _, m := range i.extra {
		if hits(m.off, m.n) {
			return m.name
		}
	}
	for c := off; c < end; c += i.clusterSize {
		switch kind := i.meta[c] &^ own; {
		case kind&metaL2 != 0:
			return "active L2 table"
		case kind&metaRefblock != 0:
			return "refcount block"
		}
	}
	if h.bitmaps.count > 0 && hits(int64(h.bitmaps.dirOffset), int64(h.bitmaps.dirSize)) {
		return "bitmap directory"
	}
	return ""
}

// noteTables records where the L2 tables and refcount blocks lie: of an image that is written to.
func (i *Image) noteTables() {
	if i.readOnly {
		return
	}
	i.meta = make(map[int64]metaKind)
	i.alloc.twice = 0
	for _, e := range i.l1 {
		if off := int64(e & offsetMask); off != 0 {
			i.meta[off] |= metaL2
		}
	}
	for _, e := range i.alloc.table {
		if off := int64(e & offsetMask); off != 0 {
			if i.meta[off]&metaRefblock != 0 {
				i.alloc.twice = off
			}
			i.meta[off] |= metaRefblock
		}
	}
}

// forgetMeta notes that the cluster at off holds no metadata of that kind any more.
func (i *Image) forgetMeta(off int64, kind metaKind) {
	if k := i.meta[off] &^ kind; k != 0 {
		i.meta[off] = k
	} else {
		delete(i.meta, off)
	}
}
