package qcow2

import "berth/block"

// Readv reads the image's contents.
func (i *Image) Readv(iov [][]byte, off int64) error {
	i.ops.RLock()
	defer i.ops.RUnlock()
	n := length(iov)
	if off < 0 || n > i.Size() || off > i.Size()-n {
		return block.ErrRange
	}
	return i.read(iov, off, n)
}

// read is Readv for those who hold ops. It may reach past the end of the image, into
// what rounds it up to whole clusters, and further, where VM state is.
func (i *Image) read(iov [][]byte, off, n int64) error {
	v := vector{iov: iov}
	var maps [16]mapping
	var part [][]byte
	for n > 0 {
		k, err := i.gatherMaps(maps[:], off, n)
		if err != nil {
			return err
		}
		for _, m := range maps[:k] {
			part = v.take(part[:0], m.n)
			if err := i.readMapped(m, part, off); err != nil {
				return err
			}
			off, n = off+m.n, n-m.n
		}
	}
	return nil
}

// gatherMaps fills maps with where the guest's bytes are from off on.
func (i *Image) gatherMaps(maps []mapping, off, n int64) (k int, err error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.closed {
		return 0, block.ErrClosed
	}
	if i.corrupt.Load() {
		return 0, errGone
	}
	if i.hdr.crypt != 0 {
		return 0, errEncrypted(i.hdr.crypt)
	}
	for n > 0 && k < len(maps) {
		m, err := i.lookup(off, n)
		if err != nil {
			if k > 0 {
				return k, nil // what comes before is to be had
			}
			return 0, err
		}
		off, n = off+m.n, n-m.n
		if k > 0 && maps[k-1].follows(m) {
			maps[k-1].n += m.n
			continue
		}
		maps[k] = m
		k++
	}
	return k, nil
}

// follows tells whether what m maps continues in o.
func (m *mapping) follows(o mapping) bool {
	if m.contents != o.contents || m.contents == compressed {
		return false
	}
	return m.contents != stored || o.host == m.host+m.n
}

func (i *Image) readMapped(m mapping, iov [][]byte, off int64) error {
	switch m.contents {
	case stored:
		return i.data.Readv(iov, m.host)
	case compressed:
		return i.readCompressed(m.entry, iov, i.inCluster(off))
	case unallocated:
		return readBacking(i.backing, iov, off, i.Size())
	}
	clearAll(iov)
	return nil
}
