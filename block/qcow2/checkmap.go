package qcow2

import "math"

const refChunkBits = 8

// refMap counts references to clusters. Where nothing is referred to it takes no memory.
type refMap struct {
	n      int64 // clusters
	chunks []*[1 << refChunkBits]uint16
	more   map[int64]uint64 // counts that have outgrown a chunk's 16 bits, which say MaxUint16 then
	max    uint64           // the largest count that the image can store
}

func newRefMap(n int64, max uint64) *refMap {
	m := &refMap{max: max, more: map[int64]uint64{}}
	m.grow(n)
	return m
}

// grow makes room for n clusters.
func (m *refMap) grow(n int64) {
	m.n = n
	if want := int((n + 1<<refChunkBits - 1) >> refChunkBits); want > len(m.chunks) {
		m.chunks = append(m.chunks, make([]*[1 << refChunkBits]uint16, want-len(m.chunks))...)
	}
}

// get returns the count of cluster c; 0 past the end.
func (m *refMap) get(c int64) uint64 {
	k := c >> refChunkBits
	if k >= int64(len(m.chunks)) || m.chunks[k] == nil {
		return 0
	}
	v := m.chunks[k][c&(1<<refChunkBits-1)]
	if v == math.MaxUint16 {
		return m.more[c]
	}
	return uint64(v)
}

func (m *refMap) set(c int64, v uint64) {
	k := c >> refChunkBits
	if m.chunks[k] == nil {
		m.chunks[k] = new([1 << refChunkBits]uint16)
	}
	if v >= math.MaxUint16 {
		m.more[c] = v
		v = math.MaxUint16
	}
	m.chunks[k][c&(1<<refChunkBits-1)] = uint16(v)
}

// add counts times more references to cluster c, and tells whether they can be stored.
func (m *refMap) add(c int64, times uint64) bool {
	if c >= m.n {
		m.grow(c + 1)
	}
	v := m.get(c)
	if m.max-v < times {
		m.set(c, m.max)
		return false
	}
	m.set(c, v+times)
	return true
}

// empty tells whether nothing at all is referred to in c's chunk, and where the next begins.
func (m *refMap) empty(c int64) (next int64, is bool) {
	return (c>>refChunkBits + 1) << refChunkBits, m.chunks[c>>refChunkBits] == nil
}

func (m *refMap) clear() {
	clear(m.chunks)
	clear(m.more)
}
