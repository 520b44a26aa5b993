package qcow2

import (
	"berth/block"
)

// allocation is guest clusters whose L2 entries are about to change. Others that
// want to change them, or to write there, wait until it is gone.
type allocation struct{ from, to int64 } // bytes, whole clusters

// Writev writes iov. With FlagFUA it is on stable storage when it returns.
func (i *Image) Writev(iov [][]byte, off int64, f block.Flags) error {
	n := length(iov)
	err := i.shared(off, n, func() error { return i.write(iov, off, n) })
	if err == nil && f&block.FlagFUA != 0 {
		err = i.Flush()
	}
	return err
}

// shared runs f, which changes contents in the range, holding ops.
func (i *Image) shared(off, n int64, f func() error) error {
	i.ops.RLock()
	var err error
	if off < 0 || n < 0 || n > i.Size() || off > i.Size()-n {
		err = block.ErrRange
	} else if err = f(); err == nil {
		i.mu.Lock()
		crowded := i.crowded()
		i.mu.Unlock()
		i.ops.RUnlock()
		if crowded {
			return i.Flush()
		}
		return nil
	}
	i.ops.RUnlock()
	return err
}

func (i *Image) write(iov [][]byte, off, n int64) error {
	v := vector{iov: iov}
	for done := int64(0); done < n; {
		k, err := i.writeSome(&v, off+done, n-done)
		if err != nil {
			return err
		}
		done += k
	}
	return i.noteDirty(off, n)
}

// writeSome writes what can be written at once: a range that lies in one place, or is given one.
func (i *Image) writeSome(v *vector, off, n int64) (int64, error) {
	i.mu.Lock()
	n, err := i.await(off, n)
	if err != nil {
		i.mu.Unlock()
		return 0, err
	}
	m, err := i.lookup(off, n)
	if err != nil {
		i.mu.Unlock()
		return 0, err
	}
	if m.contents == stored && m.copied {
		if i.data == i.file {
			err = i.overlap(m.host, m.n)
		}
		i.mu.Unlock()
		if err != nil {
			return 0, err
		}
		return m.n, i.data.Writev(v.take(nil, m.n), m.host, 0)
	}
	p, err := i.plan(off, n, m)
	if err != nil {
		i.mu.Unlock()
		return 0, err
	}
	i.inFlight = append(i.inFlight, &p.allocation)
	i.mu.Unlock()

	err = i.fill(p, v)
	i.mu.Lock()
	defer i.mu.Unlock()
	defer i.settle(&p.allocation)
	if err == nil {
		err = i.link(p)
	}
	if err != nil {
		i.abandon(p)
		return 0, err
	}
	return p.n, nil
}

// await waits until nothing is being allocated where off lies, and returns how
// much of n lies before the next place where something is. mu is held, and let go meanwhile.
func (i *Image) await(off, n int64) (int64, error) {
	for {
		if err := i.writable(); err != nil {
			return 0, err
		}
		clear := true
		from, to := i.clusterOf(off), i.roundUp(off+n)
		for _, a := range i.inFlight {
			if a.from >= to || a.to <= from {
				continue
			}
			if a.from > from {
				to = a.from
				n = to - off
				continue
			}
			clear = false
		}
		if clear {
			return n, nil
		}
		i.settled.Wait()
	}
}

// settle takes a out of what is being allocated.
func (i *Image) settle(a *allocation) {
	for k, o := range i.inFlight {
		if o == a {
			i.inFlight = append(i.inFlight[:k], i.inFlight[k+1:]...)
			break
		}
	}
	i.settled.Broadcast()
}

// plan is how a range of the guest's bytes comes to lie in a host cluster of its own.
type plan struct {
	allocation
	off, n     int64 // what the guest writes
	head, tail int64 // bytes before and after it that are copied along
	host       int64 // where the byte at from lies
	fresh      bool  // nothing was ever written at host, so it is zero
	owned      bool  // host was allocated for this
	prealloc   bool  // nothing is written: the contents of subclusters stay where they are
	headZero   bool  // the head and tail read as zeros
	tailZero   bool
}

// plan allocates clusters for a write at off, whose present mapping is m. mu is held.
func (i *Image) plan(off, n int64, m mapping) (*plan, error) {
	// The L2 table comes first, so that it lies before the data and a shrunk
	// image's file can be cut.
	if err := i.prepareLink(); err != nil {
		return nil, err
	}
	if _, _, err := i.l2ForWrite(off); err != nil {
		return nil, err
	}
	p := &plan{off: off}
	p.from = i.clusterOf(off)
	span := i.clusterSize << i.sliceBits
	end := min(i.roundUp(off+n), p.from&^(span-1)+span)
	clusters, reuse, err := i.alike(p.from, end)
	if err != nil {
		return nil, err
	}
	switch {
	case i.hdr.external():
		p.host = p.from
	case reuse:
		p.host = m.host - (off - p.from)
		if err := i.overlap(p.host, clusters<<i.clusterBits); err != nil {
			return nil, err
		}
	default:
		r, fresh, err := i.allocate(clusters, false, "data cluster")
		if err != nil {
			return nil, err
		}
		p.host, p.fresh, p.owned, clusters = r.off, fresh, true, r.n
	}
	p.to = p.from + clusters<<i.clusterBits
	p.n = min(n, p.to-off)
	if err := i.planCopy(p, reuse); err != nil {
		i.abandon(p)
		return nil, err
	}
	return p, nil
}

// alike counts the clusters from from on that all need new host clusters, or all
// have host clusters of their own that follow one another.
func (i *Image) alike(from, end int64) (n int64, reuse bool, err error) {
	s, at, err := i.l2Slice(from)
	if err != nil {
		return 0, false, err
	}
	if s == nil {
		return (end - from) >> i.clusterBits, false, nil
	}
	entry, _ := i.entryAt(s, at)
	host, has := i.hostCluster(entry)
	reuse = has && entry&flagCopied != 0
	for n = 1; from+n<<i.clusterBits < end; n++ {
		e, _ := i.entryAt(s, at+int(n))
		h, has := i.hostCluster(e)
		if (has && e&flagCopied != 0) != reuse || reuse && h != host+n<<i.clusterBits {
			break
		}
	}
	return n, reuse, nil
}

// planCopy decides what has to be copied before and after what is written.
func (i *Image) planCopy(p *plan, reuse bool) error {
	first, err := i.copyFrom(p.off, p.from, reuse)
	if err != nil {
		return err
	}
	last := p.off + p.n
	end, err := i.copyTo(last, p.to, reuse)
	if err != nil {
		return err
	}
	p.head, p.tail = p.off-first, end-last
	if p.headZero, err = i.readsZero(first, p.head); err != nil {
		return err
	}
	p.tailZero, err = i.readsZero(last, p.tail)
	return err
}

// copyFrom is where copying begins for a write that begins at off, in the cluster at from.
func (i *Image) copyFrom(off, from int64, reuse bool) (int64, error) {
	first := off &^ (i.subSize - 1)
	if !i.ext || reuse || first == from {
		return first, nil
	}
	held, err := i.holdsData(from, first)
	if held {
		first = from
	}
	return first, err
}

// copyTo is where copying ends for a write that ends at last, in the cluster that ends at to.
func (i *Image) copyTo(last, to int64, reuse bool) (int64, error) {
	end := (last + i.subSize - 1) &^ (i.subSize - 1)
	if !i.ext || reuse || end == to {
		return end, nil
	}
	held, err := i.holdsData(end, to)
	if held {
		end = to
	}
	return end, err
}

// holdsData tells whether any of the range is stored or compressed.
func (i *Image) holdsData(off, end int64) (bool, error) {
	for off < end {
		m, err := i.lookup(off, end-off)
		if err != nil || m.contents == stored || m.contents == compressed {
			return true, err
		}
		off += m.n
	}
	return false, nil
}

// readsZero tells whether n bytes at off are known to read as zeros. mu is held.
func (i *Image) readsZero(off, n int64) (bool, error) {
	for n > 0 {
		m, err := i.lookup(off, n)
		if err != nil {
			return false, err
		}
		switch m.contents {
		case zeroed:
		case unallocated:
			if i.backing != nil && off < min(i.backing.Size(), i.Size()) {
				return false, nil
			}
		default:
			return false, nil
		}
		off, n = off+m.n, n-m.n
	}
	return true, nil
}

// fill writes the guest's bytes, and around them what is copied.
func (i *Image) fill(p *plan, v *vector) error {
	at := p.host + (p.off - p.from)
	head, tail := p.head, p.tail
	if p.fresh && p.headZero {
		head = 0
	}
	if p.fresh && p.tailZero {
		tail = 0
	}
	if head+tail == 0 {
		return i.data.Writev(v.take(nil, p.n), at, 0)
	}
	room, _ := i.around.Get().(*[]byte)
	if room == nil {
		b := make([]byte, 2*i.clusterSize) // each of the two is less than a cluster
		room = &b
	}
	defer i.around.Put(room)
	before, after := (*room)[:head], (*room)[head:head+tail]
	if err := i.copied(before, p.off-head, p.headZero); err != nil {
		return err
	}
	if err := i.copied(after, p.off+p.n, p.tailZero); err != nil {
		return err
	}
	var iov [][]byte
	if head > 0 {
		iov = append(iov, before)
	}
	iov = v.take(iov, p.n)
	if tail > 0 {
		iov = append(iov, after)
	}
	return i.data.Writev(iov, at-head, 0)
}

// copied fills b with the guest's bytes at off as they are now; zeros past the end of the image.
func (i *Image) copied(b []byte, off int64, zero bool) error {
	n := int64(len(b))
	in := max(0, min(n, i.Size()-off))
	if off >= i.Size() { // VM state
		in = n
	}
	if zero {
		in = 0
	}
	clear(b[in:])
	if in == 0 {
		return nil
	}
	return i.read([][]byte{b[:in]}, off, in)
}

// link has the L2 entries point at p's host clusters, and frees what they pointed at. mu is held.
func (i *Image) link(p *plan) error {
	if err := i.prepareLink(); err != nil {
		return err
	}
	s, at, err := i.l2ForWrite(p.from)
	if err != nil {
		return err
	}
	i.unsynced = true
	first, last := p.off-p.head, p.off+p.n+p.tail
	for k, c := 0, p.from; c < p.to; k, c = k+1, c+i.clusterSize {
		old, bitmap := i.entryAt(s, at+k)
		entry := uint64(p.host+c-p.from) | flagCopied
		if i.ext {
			bitmap = i.linkedBitmap(bitmap, old, entry, max(first, c)-c, min(last, c+i.clusterSize)-c, p.prealloc)
		}
		i.setEntry(s, at+k, entry, bitmap)
		if h, ok := i.hostCluster(old); (ok || old&flagCompressed != 0) && (h != p.host+c-p.from || old&flagCompressed != 0) {
			i.freeEntry(old, false)
		}
	}
	return nil
}

// linkedBitmap is the subcluster bitmap after the cluster's bytes from:to have been written.
func (i *Image) linkedBitmap(bitmap, old, entry uint64, from, to int64, prealloc bool) uint64 {
	if old&flagCompressed != 0 {
		bitmap = 0
	}
	if old&offsetMask != entry&offsetMask {
		bitmap &^= 1<<32 - 1
	}
	if prealloc || from >= to {
		return bitmap
	}
	a, b := uint(from>>i.subBits), uint((to+i.subSize-1)>>i.subBits)
	mask := (uint64(1)<<(b-a) - 1) << a
	return bitmap&^(mask<<32) | mask
}

// prepareLink does what comes before any L2 entry changes. mu is held.
func (i *Image) prepareLink() error {
	if err := i.writable(); err != nil {
		return err
	}
	if i.lazy {
		return i.markDirty()
	}
	return nil
}

// abandon gives back what p allocated: nothing refers to it. mu is held.
func (i *Image) abandon(p *plan) {
	if !p.owned {
		return
	}
	n := max((p.to-p.from)>>i.clusterBits, 1)
	if err := i.addRefcounts(p.host, n, -1); err != nil {
		i.say("qcow2_free_clusters failed: " + strerror(err))
	}
}
