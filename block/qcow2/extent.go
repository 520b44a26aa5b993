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
		return block.Extent{}, errCorrupt
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
	}
}
