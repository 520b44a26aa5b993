package qcow2

import (
	"cmp"
	"errors"

	"berth/block"
)

// errByWriting: part of a compressed cluster is to become zero.
var errByWriting = errors.New("no subclusters here")

const allZeroes = 0xffffffff << 32 // every subcluster reads as zeros

// WriteZeroes makes a range zero, by zero clusters where they exist. With
// FlagUnmap host clusters are given back.
func (i *Image) WriteZeroes(off, n int64, f block.Flags) error {
	err := i.shared(off, n, func() error { return i.zero(off, n, i.Size(), f) })
	if err == nil && f&block.FlagFUA != 0 {
		err = i.Flush()
	}
	return err
}

// zero is WriteZeroes of an image of size bytes, for those who hold ops.
func (i *Image) zero(off, n, size int64, f block.Flags) error {
	if i.v2 {
		return i.zeroByWriting(off, n, f)
	}
	end := off + n
	first, last := (off+i.subSize-1)&^(i.subSize-1), end&^(i.subSize-1)
	if end == size {
		last = i.roundUp(end) // no part of the last cluster need stay
	}
	if first >= end {
		if err := i.zeroPart(off, n, size, f); err != nil {
			return err
		}
		return i.noteDirty(off, n)
	}
	if f&block.FlagNoFallback != 0 && (first > off || last < end) {
		return block.ErrUnsupported
	}
	if err := i.zeroPart(off, first-off, size, f); err != nil {
		return err
	}
	if err := i.zeroPart(last, end-last, size, f); err != nil {
		return err
	}
	for o := first; o < last; {
		k, err := i.zeroSome(o, last-o, size, f)
		if errors.Is(err, errByWriting) {
			k = min(i.clusterSize-i.inCluster(o), last-o)
			err = i.zeroByWriting(o, min(k, end-o), f)
		}
		if err != nil {
			return err
		}
		o += k
	}
	return i.noteDirty(off, n)
}

// zeroPart makes n bytes of one subcluster zero, which is all of it that need not be already.
func (i *Image) zeroPart(off, n, size int64, f block.Flags) error {
	if n <= 0 {
		return nil
	}
	done, err := i.zeroAround(off, n, size, f)
	if err != nil || done {
		return err
	}
	return i.zeroByWriting(off, n, f)
}

// zeroAround makes the subcluster zero that n bytes at off are a part of, if nothing is stored in it
// and its rest is known to read as zeros.
func (i *Image) zeroAround(off, n, size int64, f block.Flags) (done bool, err error) {
	from := off &^ (i.subSize - 1)
	i.mu.Lock()
	defer i.mu.Unlock()
	if _, err := i.await(from, i.subSize); err != nil {
		return false, err
	}
	if held, err := i.holdsData(from, from+i.subSize); err != nil || held {
		return false, err
	}
	if zero, err := i.readsZero(from, off-from); err != nil || !zero {
		return false, err
	}
	if zero, err := i.readsZero(off+n, min(from+i.subSize, size)-(off+n)); err != nil || !zero {
		return false, err
	}
	_, err = i.zeroHeld(from, i.subSize, size, f)
	return true, err
}

// zeroByWriting writes zeros, except where there are zero clusters. What only reads as zeros because nothing
// is stored is written, too: the image may get another backing image.
func (i *Image) zeroByWriting(off, n int64, f block.Flags) error {
	if n == 0 {
		return nil
	}
	i.mu.Lock()
	is, err := i.zeroClusters(off, n)
	i.mu.Unlock()
	if err != nil {
		return err
	}
	if is {
		return i.noteDirty(off, n)
	}
	if f&block.FlagNoFallback != 0 {
		return block.ErrUnsupported
	}
	b := make([]byte, min(n, 1<<20))
	for n > 0 {
		k := min(n, int64(len(b)))
		if err := i.write([][]byte{b[:k]}, off, k); err != nil {
			return err
		}
		off, n = off+k, n-k
	}
	return nil
}

// zeroClusters tells whether n bytes at off are marked to be zeros. mu is held.
func (i *Image) zeroClusters(off, n int64) (bool, error) {
	for n > 0 {
		m, err := i.lookup(off, n)
		if err != nil || m.contents != zeroed {
			return false, err
		}
		off, n = off+m.n, n-m.n
	}
	return true, nil
}

// zeroSome makes whole subclusters of one L2 slice zero, in an image of size
// bytes, and returns how many bytes.
func (i *Image) zeroSome(off, n, size int64, f block.Flags) (int64, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.zeroHeld(off, n, size, f)
}

// zeroHeld is zeroSome with mu held.
func (i *Image) zeroHeld(off, n, size int64, f block.Flags) (int64, error) {
	n, err := i.await(off, n)
	if err != nil {
		return 0, err
	}
	span := i.clusterSize << i.sliceBits
	n = min(n, span-off&(span-1))
	if i.hdr.rawExternal() {
		if err := i.data.WriteZeroes(off, min(n, size-off), f&^block.FlagNoFallback); err != nil {
			return 0, err
		}
	}
	if i.inCluster(off) != 0 {
		n = min(n, i.clusterSize-i.inCluster(off))
	} else if n > i.clusterSize {
		n = i.clusterOf(n)
	}
	if is, err := i.alreadyZero(off, n, f); err != nil || is {
		return n, err
	}
	if m, err := i.lookup(off, n); err != nil || m.contents == compressed && n < i.clusterSize {
		return 0, cmp.Or(err, errByWriting)
	}
	if err := i.prepareLink(); err != nil {
		return 0, err
	}
	s, at, err := i.l2ForWrite(off)
	if err != nil {
		return 0, err
	}
	for o := off; o < off+n; at++ {
		k := min(i.clusterSize-i.inCluster(o), off+n-o)
		i.zeroEntry(s, at, o, k, f)
		o += k
	}
	return n, nil
}

// alreadyZero tells whether nothing need be done to the range, which lies in one slice.
func (i *Image) alreadyZero(off, n int64, f block.Flags) (bool, error) {
	for n > 0 {
		m, err := i.lookup(off, n)
		if err != nil {
			return false, err
		}
		switch {
		case m.contents == zeroed && (!m.hasHost || f&block.FlagUnmap == 0):
		default:
			return false, nil
		}
		off, n = off+m.n, n-m.n
	}
	return true, nil
}

// zeroEntry makes n bytes of one cluster zero, by entry at of s.
func (i *Image) zeroEntry(s *slice, at int, off, n int64, f block.Flags) {
	old, bitmap := i.entryAt(s, at)
	_, host := i.hostCluster(old)
	whole := n == i.clusterSize
	unmap := old&flagCompressed != 0 || host && f&block.FlagUnmap != 0 && !i.hdr.rawExternal()
	if !i.ext {
		entry := old | flagZero
		if unmap {
			entry = flagZero
		}
		i.setEntry(s, at, entry, 0)
		if unmap {
			i.freeEntry(old, true)
		}
		return
	}
	if whole {
		entry := old
		if unmap {
			entry = 0
		}
		i.setEntry(s, at, entry, allZeroes)
		if unmap {
			i.freeEntry(old, true)
		}
		return
	}
	a := uint(i.inCluster(off) >> i.subBits)
	mask := (uint64(1)<<uint(n>>i.subBits) - 1) << a
	i.setEntry(s, at, old, bitmap&^mask|mask<<32)
}

// Discard gives whole clusters of the range back. What was allocated reads as
// zeros afterwards.
func (i *Image) Discard(off, n int64) error {
	return i.shared(off, n, func() error {
		if i.v2 && i.backing != nil {
			return nil // the backing image would be seen
		}
		end := off + n
		first, last := i.roundUp(off), i.clusterOf(end)
		if end == i.Size() {
			last = i.roundUp(end)
		}
		for o := first; o < last; {
			k, err := i.discardSome(o, last-o)
			if err != nil {
				return err
			}
			o += k
		}
		return i.noteDirty(off, n)
	})
}

func (i *Image) discardSome(off, n int64) (int64, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	n, err := i.await(off, n)
	if err != nil {
		return 0, err
	}
	return i.discardSlice(off, n, false)
}

// discardSlice frees the clusters of one slice, and returns how many bytes were
// dealt with. full: they become unallocated, whatever they then read as. mu is held.
func (i *Image) discardSlice(off, n int64, full bool) (int64, error) {
	span := i.clusterSize << i.sliceBits
	n = min(n, span-off&(span-1))
	return n, func() error { _, err := i.discardRange(off, n, full); return err }()
}

// discardRange is discardSlice for a range known to lie in one slice.
func (i *Image) discardRange(off, n int64, full bool) (changed bool, err error) {
	s, at, err := i.l2Slice(off)
	if err != nil || s == nil && (full || i.backing == nil) {
		return false, err
	}
	if s != nil {
		any := false
		for k := range int(n >> i.clusterBits) {
			e, b := i.entryAt(s, at+k)
			ne, nb := i.discarded(e, b, full)
			any = any || e != ne || b != nb
		}
		if !any {
			return false, nil
		}
	}
	if err := i.prepareLink(); err != nil {
		return false, err
	}
	if s, at, err = i.l2ForWrite(off); err != nil {
		return false, err
	}
	if i.hdr.rawExternal() && !full { // what is not allocated reads as zeros, and so must the raw file
		if err := i.data.WriteZeroes(off, min(n, i.Size()-off), block.FlagUnmap); err != nil {
			return false, err
		}
	}
	for k := range int(n >> i.clusterBits) {
		e, b := i.entryAt(s, at+k)
		ne, nb := i.discarded(e, b, full)
		if e == ne && b == nb {
			continue
		}
		i.setEntry(s, at+k, ne, nb)
		if ne&offsetMask == 0 {
			i.freeEntry(e, !full || !i.hdr.external()) // who empties or shrinks the image does it when the tables are stable
		}
	}
	return true, nil
}

// discarded is what an entry becomes when its cluster is discarded.
func (i *Image) discarded(entry, bitmap uint64, full bool) (uint64, uint64) {
	_, host := i.hostCluster(entry)
	allocated := host || entry&flagCompressed != 0
	switch {
	case full:
		return 0, 0
	case !allocated && i.backing == nil:
		return entry, bitmap
	case i.v2:
		return 0, 0
	case i.ext:
		return 0, allZeroes
	}
	return flagZero, 0
}
