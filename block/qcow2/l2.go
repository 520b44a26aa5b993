package qcow2

// Flags of L1 and L2 entries (qcow2 specification, "Cluster mapping").
const (
	flagCopied     = 1 << 63 // refcount is exactly 1
	flagCompressed = 1 << 62
	flagZero       = 1 << 0
)

// contents is where a range of the guest's bytes is to be found.
type contents uint8

const (
	unallocated contents = iota // in the backing image
	zeroed
	stored // at a host offset
	compressed
)

// mapping is a range of guest bytes, alike.
type mapping struct {
	contents
	hasHost bool   // a host cluster is there, even if the contents are not in it
	copied  bool   // and it is this entry's alone
	host    int64  // byte in the data file that is the range's first; compressed: none
	n       int64  // bytes
	entry   uint64 // the first L2 entry
}

// l2Slice returns the L2 slice that maps the guest's byte off, and the entry's
// number in it; nil if there is no L2 table. mu is held.
func (i *Image) l2Slice(off int64) (s *slice, n int, err error) {
	l1 := i.l1Index(off)
	if l1 >= len(i.l1) {
		return nil, 0, nil
	}
	table := int64(i.l1[l1] & offsetMask)
	if table == 0 {
		return nil, 0, nil
	}
	if i.inCluster(table) != 0 {
		return nil, 0, i.signalCorruption("L2 table offset %#x unaligned (L1 index: %#x)", table, l1)
	}
	at, n := i.sliceOf(off)
	s, err = i.l2.get(table + at)
	return s, n, err
}

// sliceOf is where in its L2 table the slice begins that maps off, and the entry's number in it.
func (g *geometry) sliceOf(off int64) (at int64, n int) {
	x := g.l2Index(off)
	return int64(x>>g.sliceBits) * int64(g.sliceBytes), x & (1<<g.sliceBits - 1)
}

// l2ForWrite is l2Slice for an L2 table that is this image's alone: it makes one
// or copies a shared one. The L1 entry is written after the table. mu is held.
func (i *Image) l2ForWrite(off int64) (*slice, int, error) {
	l1 := i.l1Index(off)
	if l1 >= len(i.l1) {
		return nil, 0, errCorrupt
	}
	if i.l1[l1]&offsetMask != 0 && i.l1[l1]&flagCopied != 0 {
		return i.l2Slice(off)
	}
	old := int64(i.l1[l1] & offsetMask)
	if i.inCluster(old) != 0 {
		return nil, 0, i.signalCorruption("L2 table offset %#x unaligned (L1 index: %#x)", old, l1)
	}
	r, _, err := i.allocate(1, true, "L2 table")
	if err != nil {
		return nil, 0, err
	}
	if err = i.reserve(r.off); err == nil {
		err = i.copyTable(r.off, old)
	}
	if err != nil {
		i.l2.forget(r.off, i.clusterSize)
		i.free(r.off, 1, false)
		return nil, 0, err
	}
	i.l1[l1] = uint64(r.off) | flagCopied
	i.l1Dirty.add(l1, l1+1)
	i.meta[r.off] |= metaL2
	if old != 0 {
		i.forgetMeta(old, metaL2)
		i.free(old, 1, false)
	}
	return i.l2Slice(off)
}

// copyTable puts an L2 table into the cache at to: a copy of the one at from,
// or an empty one if from is 0.
func (i *Image) copyTable(to, from int64) error {
	var tmp []byte
	for o := int64(0); o < i.clusterSize; o += int64(i.sliceBytes) {
		if from != 0 {
			s, err := i.l2.get(from + o)
			if err != nil {
				return err
			}
			tmp = append(tmp[:0], s.b...)
		}
		s, err := i.l2.insert(to + o)
		if err != nil {
			return err
		}
		if from != 0 {
			copy(s.b, tmp)
		} else {
			clear(s.b)
		}
	}
	return nil
}

// entryAt returns entry n of s and its subcluster bitmap.
func (g *geometry) entryAt(s *slice, n int) (entry, bitmap uint64) {
	if g.ext {
		return s.u64(2 * n), s.u64(2*n + 1)
	}
	return s.u64(n), 0
}

func (i *Image) setEntry(s *slice, n int, entry, bitmap uint64) {
	if i.ext {
		i.l2.put(s, 2*n, entry)
		i.l2.put(s, 2*n+1, bitmap)
		return
	}
	i.l2.put(s, n, entry)
}

// hostCluster tells whether an entry names a host cluster, and which.
func (i *Image) hostCluster(entry uint64) (off int64, ok bool) {
	if entry&flagCompressed != 0 {
		return 0, false
	}
	off = int64(entry & offsetMask)
	return off, off != 0 || i.hdr.external() && entry&flagCopied != 0
}

// classify tells what subcluster sub of an entry is. ok is false if that makes no sense.
func (i *Image) classify(entry, bitmap uint64, sub int) (c contents, ok bool) {
	if entry&flagCompressed != 0 {
		return compressed, bitmap == 0
	}
	_, host := i.hostCluster(entry)
	if !i.ext {
		switch {
		case entry&flagZero != 0:
			return zeroed, true
		case host:
			return stored, true
		}
		return unallocated, true
	}
	alloc, zero := bitmap>>sub&1 != 0, bitmap>>(32+sub)&1 != 0
	switch {
	case alloc && zero || alloc && !host:
		return 0, false
	case alloc:
		return stored, true
	case zero:
		return zeroed, true
	}
	return unallocated, true
}

// lookup tells where the guest's bytes from off on are, at most n of them; it
// does not look past one L2 slice. mu is held.
func (i *Image) lookup(off, n int64) (mapping, error) {
	s, at, err := i.l2Slice(off)
	if err != nil {
		return mapping{}, err
	}
	within := i.clusterSize << i.sliceBits
	n = min(n, within-off&(within-1))
	if s == nil {
		whole := i.l1EntrySpan()
		return mapping{n: min(n, whole-off&(whole-1))}, nil
	}
	first, err := i.mapOne(s, at, off)
	if err != nil {
		return first, err
	}
	m := first
	at += i.alikeEntries(s, at, off, n, &m)
	for m.n < n && m.contents != compressed {
		next := off + m.n
		if i.inCluster(next) == 0 {
			at++
		}
		o, err := i.mapOne(s, at, next)
		if err != nil {
			break // it is for who reads from there to meet it
		}
		if o.contents != m.contents || o.hasHost != m.hasHost || o.copied != m.copied || o.hasHost && o.host != m.host+m.n {
			break
		}
		m.n += o.n
	}
	m.n = min(m.n, n)
	return m, nil
}

// alikeEntries lengthens m, which entry at of s maps from off on, by the
// clusters after it, as long as their entries say the same but for the place,
// which goes on; it returns how many they are. What it leaves is for mapOne.
func (i *Image) alikeEntries(s *slice, at int, off, n int64, m *mapping) (count int) {
	if i.subs != 1 || m.contents == compressed {
		return 0
	}
	step := uint64(0)
	if m.hasHost {
		step = uint64(i.clusterSize)
	}
	for want := m.entry + step; m.n < n; want += step {
		if e, _ := i.entryAt(s, at+count+1); e != want {
			break
		}
		m.n += i.clusterSize
		count++
	}
	return count
}

func (g *geometry) l1EntrySpan() int64 { return g.clusterSize << g.l2Bits }

// mapOne maps the rest of off's subcluster, and those after it in the cluster
// that are alike, by entry at of s.
func (i *Image) mapOne(s *slice, at int, off int64) (mapping, error) {
	entry, bitmap := i.entryAt(s, at)
	in := i.inCluster(off)
	sub := int(in >> i.subBits)
	c, ok := i.classify(entry, bitmap, sub)
	if err := i.sane(entry, c, ok, off); err != nil {
		return mapping{}, err
	}
	m := mapping{contents: c, entry: entry, n: i.subSize - off&(i.subSize-1)}
	if c == compressed {
		m.n = i.clusterSize - in
		return m, nil
	}
	host, has := i.hostCluster(entry)
	m.hasHost, m.copied = has, has && entry&flagCopied != 0
	if has {
		m.host = host + in
	}
	for sub++; sub < i.subs; sub++ {
		if d, ok := i.classify(entry, bitmap, sub); !ok || d != c {
			break
		}
		m.n += i.subSize
	}
	return m, nil
}

// sane refuses an entry that no program may have written.
func (i *Image) sane(entry uint64, c contents, ok bool, off int64) error {
	host, has := i.hostCluster(entry)
	if ok && !(c == zeroed && i.hdr.version < 3) && !(c == compressed && i.hdr.external()) &&
		(!has || i.inCluster(host) == 0 && (!i.hdr.external() || host == i.clusterOf(off))) {
		return nil
	}
	table, index := i.l1[i.l1Index(off)]&offsetMask, i.l2Index(off)
	switch {
	case ok && c == zeroed && i.hdr.version < 3:
		return i.signalCorruption("Zero cluster entry found in pre-v3 image (L2 offset: %#x, L2 index: %#x)", table, index)
	case ok && c == compressed && i.hdr.external():
		return i.signalCorruption("Compressed cluster entry found in image with external data file (L2 offset: %#x, L2 index: %#x)", table, index)
	case has && i.inCluster(host) != 0:
		return i.signalCorruption("Cluster allocation offset %#x unaligned (L2 offset: %#x, L2 index: %#x)", host, table, index)
	case has && i.hdr.external() && host != i.clusterOf(off):
		return i.signalCorruption("External data file host cluster offset %#x does not match guest cluster offset: %#x, L2 index: %#x)", host, i.clusterOf(off), index)
	}
	return i.signalCorruption("Invalid cluster entry found  (L2 offset: %#x, L2 index: %#x)", table, index)
}

// freeEntry gives back what an L2 entry that is no longer used refers to. mu is held.
func (i *Image) freeEntry(entry uint64, punch bool) {
	if entry&flagCompressed != 0 {
		off, n := i.compressedPlace(entry)
		first := i.clusterOf(off)
		i.free(first, (i.clusterOf(off+n-1)-first)>>i.clusterBits+1, false)
		return
	}
	host, ok := i.hostCluster(entry)
	switch {
	case !ok:
	case i.hdr.external():
		if punch && !i.hdr.rawExternal() {
			_ = i.data.Discard(host, i.clusterSize) // advice
		}
	case i.inCluster(host) != 0:
		_ = i.signal(false, "Cannot free unaligned cluster %#x", host)
	default:
		i.free(host, 1, punch)
	}
}

// packedShift is how many bits of a compressed cluster's descriptor tell where it
// begins; above them is how many more sectors it reaches into.
func (g *geometry) packedShift() uint { return 62 - (g.clusterBits - 8) }

// compressedPlace decodes a compressed cluster's descriptor: where its bytes
// begin, and how many there may be, to the end of the last sector.
func (g *geometry) compressedPlace(entry uint64) (off, n int64) {
	shift := g.packedShift()
	off = int64(entry & (1<<shift - 1))
	sectors := int64(entry>>shift&(1<<(g.clusterBits-8)-1)) + 1
	return off, sectors*512 - off&511
}
