package qcow2

import "berth/block"

// Extent tells where the contents of the range come from.
func (i *Image) Extent(off, n int64) (block.Extent, error) {
	i.ops.RLock()
	defer i.ops.RUnlock()
	size := i.Size()
	if off < 0 || n < 0 || off > size {
		return block.Extent{}, block.ErrRange
	}
	n = min(n, size-off)
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.corrupt.Load() {
		return block.Extent{}, errGone
	}
	if err := i.detectPreallocation(); err != nil {
		return block.Extent{}, err
	}
	m, err := i.lookup(off, n)
	if err != nil {
		return block.Extent{}, err
	}
	e := i.extentOf(m)
	for e.Len < n {
		m, err := i.lookup(off+e.Len, n-e.Len)
		if err != nil {
			break
		}
		o := i.extentOf(m)
		if o.Allocated != e.Allocated || o.Data != e.Data || o.Zero != e.Zero || o.Compressed != e.Compressed ||
			o.HasOffset != e.HasOffset || e.HasOffset && o.Off != e.Off+e.Len {
			break
		}
		e.Len += o.Len
	}
	e.EOF = off+e.Len == size
	return e, nil
}

func (i *Image) extentOf(m mapping) block.Extent {
	return block.Extent{
		Len:        m.n,
		Allocated:  m.contents != unallocated,
		Data:       m.contents == stored || m.contents == compressed,
		Zero:       m.contents == zeroed,
		Compressed: m.contents == compressed,
		HasOffset:  m.hasHost,
		Off:        m.host,
		Deeper:     m.contents == stored && i.prealloc == preallocYes,
	}
}

// Whether clusters have been given to guest clusters that were never written.
const (
	preallocUnknown = iota
	preallocNo
	preallocYes
)

// detectPreallocation finds out whether more clusters are in use than the file
// has storage for. It is asked once, when the first extent is.
func (i *Image) detectPreallocation() error {
	if i.prealloc != preallocUnknown {
		return nil
	}
	i.prealloc = preallocNo
	o, ok := i.file.(block.Occupier)
	if !ok || i.hdr.external() {
		return nil
	}
	occupied, err := o.Occupied()
	if err != nil {
		return nil // it is no more than a hint
	}
	have := occupied >> i.clusterBits
	threshold := max(have*10/9, have+2)
	end := i.roundUp(i.file.Size()) >> i.clusterBits
	used := int64(0)
	for c := int64(0); c < end && used < threshold; {
		s, at, more, err := i.refSlice(c)
		if err != nil {
			return err
		}
		if s == nil {
			c = (c>>i.alloc.blockBits + 1) << i.alloc.blockBits
			continue
		}
		k := 0
		for ; k < more && c < end && used < threshold; k, c = k+1, c+1 {
			if i.alloc.load(s.b, at+k) != 0 {
				used++
			}
		}
	}
	if used >= threshold {
		i.prealloc = preallocYes
	}
	return nil
}
