package qcow2

// metaKind is what metadata a cluster holds.
type metaKind uint8

const (
	metaL2 metaKind = iota + 1
	metaRefblock
)

// metaRange is metadata that lies in a row.
type metaRange struct {
	off, n int64  // bytes
	name   string // QEMU's
}

// overlap refuses to write n bytes at off for another use of them if they hold
// metadata: the image is corrupt then. mu is held.
func (i *Image) overlap(off, n int64) error {
	if name := i.overlaps(off, n); name != "" {
		return i.signalCorruption("Preventing invalid write on metadata (overlaps with %s)", name)
	}
	return nil
}

// overlaps names the metadata that lies in the n bytes at off, or "".
func (i *Image) overlaps(off, n int64) string {
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
	case hits(int64(h.l1Offset), int64(h.l1Size)*8):
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
		switch i.meta[c] {
		case metaL2:
			return "active L2 table"
		case metaRefblock:
			return "refcount block"
		}
	}
	if h.bitmaps.count > 0 && hits(int64(h.bitmaps.dirOffset), int64(h.bitmaps.dirSize)) {
		return "bitmap directory"
	}
	return ""
}

// noteTables records where the L2 tables and refcount blocks lie.
func (i *Image) noteTables() {
	i.meta = make(map[int64]metaKind)
	for _, e := range i.l1 {
		if off := int64(e & offsetMask); off != 0 {
			i.meta[off] = metaL2
		}
	}
	for _, e := range i.alloc.table {
		if off := int64(e & offsetMask); off != 0 {
			i.meta[off] = metaRefblock
		}
	}
}
