package image

import "slices"

// model is what the images of one sequence read as: the last layer is the one worked on.
type model struct {
	layers []*layer
	twins  bool // both engines are to do the same
	named  int  // how many snapshots have been given a name
}

// layer is one image as its reader sees it, backing chain included.
type layer struct {
	layout
	name    string // file name
	bytes   []byte
	known   bool // bytes is what it must read as
	backing int  // index of its backing image; -1: none
	snaps   []snap
	bitmaps []string
	rebased bool           // it has had another backing image
	given   bool           // something was discarded, or committed: what is left of the L2 tables is each engine's own business
	leaky   bool           // clusters may be lost since a step failed
	zeroed  map[int64]bool // clusters where one may store zeros and the other leave nothing
}

// snap is an internal snapshot. What it reads as is not known once the backing chain has changed.
type snap struct {
	name  string
	bytes []byte
	known bool
}

func (m *model) top() *layer { return m.layers[len(m.layers)-1] }

// fragile tells whether QEMU 7.2 may repair the image: with a bitmap, it loses the snapshots over it.
func (l *layer) fragile() bool { return len(l.snaps) > 0 && len(l.bitmaps) > 0 }

func (l *layer) find(name string) int {
	return slices.IndexFunc(l.snaps, func(s snap) bool { return s.name == name })
}

// storesZeros tells whether zeros that are written may be stored: by berth in version 2 and above a backing image
// (another may come), by QEMU over a compressed cluster with subclusters in which the image ends.
func (l *layer) storesZeros() bool { return l.v2 || l.backing >= 0 || l.extended }

// growable tells whether QEMU 7.2 grows the image: in version 2 it has no zeros to hide a backing image with.
func (l *layer) growable() bool { return !l.v2 || l.backing < 0 }

// backingChanged forgets what depends on clusters that the image had not allocated.
func (l *layer) backingChanged() {
	for i := range l.snaps {
		l.snaps[i].known = false
	}
}

func (l *layer) resize(n int64) {
	if n <= int64(len(l.bytes)) {
		l.bytes = l.bytes[:n:n]
		return
	}
	l.bytes = append(l.bytes, make([]byte, n-int64(len(l.bytes)))...)
}

// ioKind is a request to an image.
type ioKind uint8

const (
	ioWrite ioKind = iota
	ioZero
	ioDiscard
	ioCompressed
	ioFlush
)

type request struct {
	kind  ioKind
	off   int64
	n     int64
	src   int // index into sources, or a byte to fill with if negative
	fua   bool
	unmap bool
}

// apply does a request that succeeded.
func (l *layer) apply(q request) {
	switch q.kind {
	case ioWrite, ioCompressed:
		copy(l.bytes[q.off:q.off+q.n], contents(q.src, q.n))
	case ioZero:
		clear(l.bytes[q.off : q.off+q.n])
		if !l.storesZeros() {
			return
		}
		if l.zeroed == nil {
			l.zeroed = map[int64]bool{}
		}
		for c := q.off / l.cluster; c*l.cluster < q.off+q.n; c++ {
			l.zeroed[c] = true
		}
	case ioDiscard:
		l.given = true
		l.discard(q.off, q.off+q.n)
	}
}

// discard is QEMU's: whole clusters become zeros, what remains of one stays, and version 2, which
// cannot tell zeros from what the backing image decides, discards only where there is none. A raw image loses every byte.
func (l *layer) discard(from, to int64) {
	if l.raw {
		clear(l.bytes[from:to])
		return
	}
	if l.v2 && l.backing >= 0 {
		return
	}
	size := int64(len(l.bytes))
	from = (from + l.cluster - 1) / l.cluster * l.cluster
	if to < size {
		to = to / l.cluster * l.cluster
	}
	if from < to {
		clear(l.bytes[from:to])
	}
}
