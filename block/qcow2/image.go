// Package qcow2 is the qcow2 disk image format, versions 2 and 3, read and written.
package qcow2

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"

	"berth/block"
)

// Errors of the package; several are met by QEMU as an errno.
var (
	errNotQcow2 = block.NotThisFormat("Image is not in qcow2 format")
	errNoSpace  = error(syscall.ENOSPC) // the header does not fit its cluster
	errTooBig   = error(syscall.EFBIG)
	errCorrupt  = error(syscall.EIO)
	errGone     = error(syscall.ENOMEDIUM) // marked corrupt before
	errInvalid  = error(syscall.EINVAL)
)

// Image is an open qcow2 image. Safe for concurrent use.
//
// Locks, in the order in which they are taken: ops is held shared by each read
// and write for as long as it lasts, and exclusively by what changes the whole
// image (snapshots, resize, check, releasing freed clusters). mu guards all
// metadata and is never held during the I/O of guest data.
type Image struct {
	file     block.File
	data     block.File  // file, unless there is an external data file
	owned    bool        // data is another file than file
	luks     *luksHeader // nil: the image is not encrypted with LUKS
	readOnly bool
	check    bool
	lazy     bool // refcounts are written at the end, under the dirty bit
	report   func(string)
	geometry

	around sync.Pool // *[]byte of two clusters: what is copied around a write

	ops sync.RWMutex

	mu       sync.Mutex
	hdr      header
	l1       []uint64 // the active L1 table, entries as on disk
	l1Dirty  dirtySpan
	l2       *cache
	alloc    allocator
	meta     map[int64]metaKind // clusters of L2 tables and refcount blocks, by offset
	extra    []metaRange        // other metadata: snapshot table, inactive L1 tables, bitmap directory
	inFlight []*allocation      // guest clusters that are being allocated
	settled  sync.Cond          // one of inFlight has gone
	pending  []run              // freed clusters whose refcounts are lowered after the next barrier
	pendingN int64              // clusters in pending
	sealed   int                // runs of pending that grow no more
	lowered  uint64             // how often pending has been emptied
	unsynced bool               // refcounts or copied data have been written since the last sync
	l2Wrote  bool               // L2 tables have been written since the last sync
	prealloc int                // whether there are clusters without storage
	signaled bool               // a corruption has been reported
	packAt   int64              // host byte after the last compressed cluster; 0: none to continue
	corrupt  atomic.Bool        // marked corrupt: unusable
	closed   bool

	size     atomic.Int64 // bytes
	backing  block.Image
	inflated inflateCache
	codecs   codecs
	snap     snapshotState
	bits     bitmapState
}

// geometry is what follows from the header and never changes while an image is open
// (amend makes a new one while it holds all locks).
type geometry struct {
	clusterBits uint
	clusterSize int64
	v2          bool  // version 2
	zstd        bool  // clusters are compressed by zstd, not zlib
	ext         bool  // extended L2 entries
	entry       int64 // bytes of an L2 entry
	l2Bits      uint  // log2 of the entries of an L2 table
	sliceBytes  int   // bytes of an L2 table cached together
	sliceBits   uint  // log2 of the entries of a slice
	subBits     uint  // log2 of the subcluster size
	subSize     int64
	subs        int // subclusters in a cluster
}

func (h *header) geometry() geometry {
	g := geometry{v2: h.version < 3, zstd: h.compression == compressZstd, clusterBits: uint(h.clusterBits), clusterSize: h.clusterSize(), ext: h.extL2(), entry: 8, subs: 1}
	entryBits := uint(3)
	g.subBits = g.clusterBits
	if g.ext {
		g.entry, g.subs, entryBits = 16, 32, 4
		g.subBits -= 5
	}
	g.subSize = 1 << g.subBits
	g.l2Bits = g.clusterBits - entryBits
	g.sliceBytes = int(min(g.clusterSize, maxSlice))
	g.sliceBits = min(g.clusterBits, maxSliceBits) - entryBits
	return g
}

// inCluster is off's distance from the beginning of its cluster.
func (g *geometry) inCluster(off int64) int64 { return off & (g.clusterSize - 1) }

// clusterOf is where off's cluster begins.
func (g *geometry) clusterOf(off int64) int64 { return off &^ (g.clusterSize - 1) }

// roundUp rounds n up to whole clusters.
func (g *geometry) roundUp(n int64) int64 { return (n + g.clusterSize - 1) &^ (g.clusterSize - 1) }

// l1Index is the L1 entry that maps the guest's byte off.
func (g *geometry) l1Index(off int64) int { return int(off >> (g.clusterBits + g.l2Bits)) }

// l2Index is the entry of its L2 table that maps the guest's byte off.
func (g *geometry) l2Index(off int64) int { return int(off>>g.clusterBits) & (1<<g.l2Bits - 1) }

// Size is the virtual size in bytes.
func (i *Image) Size() int64 { return i.size.Load() }

// SetBacking sets what unallocated clusters are read from.
func (i *Image) SetBacking(b block.Image) {
	i.ops.Lock()
	defer i.ops.Unlock()
	i.backing = b
}

// BackingFile returns the name and format of the backing file, as stored.
func (i *Image) BackingFile() (name, format string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.hdr.backingFile, i.hdr.backingFormat
}

// ChangeBackingFile stores another backing file's name and format.
func (i *Image) ChangeBackingFile(name, format string) error {
	i.ops.Lock()
	defer i.ops.Unlock()
	i.mu.Lock()
	defer i.mu.Unlock()
	if err := i.writable(); err != nil {
		return err
	}
	if name != "" && i.hdr.rawExternal() || len(name) > maxBackingName {
		return syscall.EINVAL
	}
	h := i.hdr
	h.backingFile, h.backingFormat = name, format
	return i.writeHeader(h)
}

// DataFile returns the name of the external data file, as stored.
func (i *Image) DataFile() (name string, raw, ok bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.hdr.dataFile, i.hdr.rawExternal(), i.hdr.external()
}

// SetDataFile sets the external data file; the image closes it.
func (i *Image) SetDataFile(f block.File) { i.data, i.owned = f, f != i.file }

// Info describes the image as qemu-img info does.
func (i *Image) Info() block.Info {
	i.mu.Lock()
	defer i.mu.Unlock()
	h := &i.hdr
	in := block.Info{
		ClusterSize: i.clusterSize,
		Dirty:       h.incompat&incompatDirty != 0,
		Corrupt:     h.incompat&incompatCorrupt != 0,
		Encrypted:   h.crypt != 0,
	}
	kind := "zlib"
	if h.compression == compressZstd {
		kind = "zstd"
	}
	if h.version == 2 {
		in.Specific = []block.Field{{Name: "compat", Value: "0.10"}, {Name: "compression-type", Value: kind}, {Name: "refcount-bits", Value: int64(1) << h.refcountOrder}}
		in.Specific = append(in.Specific, i.encryptField()...)
		return in
	}
	f := []block.Field{{Name: "compat", Value: "1.1"}, {Name: "compression-type", Value: kind}, {Name: "lazy-refcounts", Value: h.lazy()}}
	if b := i.bitmapFields(); len(b) > 0 {
		f = append(f, block.Field{Name: "bitmaps", Value: b})
	}
	f = append(f, block.Field{Name: "refcount-bits", Value: int64(1) << h.refcountOrder})
	f = append(f, i.encryptField()...)
	if h.external() && h.dataFile != "" {
		f = append(f, block.Field{Name: "data-file", Value: h.dataFile})
	}
	if h.external() {
		f = append(f, block.Field{Name: "data-file-raw", Value: h.rawExternal()})
	}
	f = append(f, block.Field{Name: "corrupt", Value: in.Corrupt}, block.Field{Name: "extended-l2", Value: h.extL2()})
	in.Specific = f
	return in
}

// writable is the error that a write meets before it begins, if any.
func (i *Image) writable() error {
	switch {
	case i.closed:
		return block.ErrClosed
	case i.readOnly:
		return block.ErrReadOnly
	case i.corrupt.Load():
		return errGone
	}
	return nil
}

// signalCorruption reports what is wrong with the metadata and, if the image is
// open for writing, marks it corrupt, after which nothing more is read from it
// or written to it. It returns the error for the caller to give. mu is held.
func (i *Image) signalCorruption(format string, args ...any) error {
	return i.signal(true, format, args...)
}

func (i *Image) signal(fatal bool, format string, args ...any) error {
	fatal = fatal && !i.readOnly
	if i.signaled && (!fatal || i.hdr.incompat&incompatCorrupt != 0) {
		return errCorrupt
	}
	msg := strings.NewReplacer(" 0x0,", " 0,", " 0x0)", " 0)", " 0x0 ", " 0 ").Replace(fmt.Sprintf(format, args...)) // as C has %#x
	i.signaled = true
	if !fatal {
		i.say(fmt.Sprintf("qcow2: Image is corrupt: %s; further non-fatal corruption events will be suppressed", msg))
		return errCorrupt
	}
	i.say(fmt.Sprintf("qcow2: Marking image as corrupt: %s; further corruption events will be suppressed", msg))
	if i.hdr.version >= 3 {
		if err := i.setIncompat(incompatCorrupt); err != nil {
			i.say("qcow2: " + err.Error())
		}
	}
	i.corrupt.Store(true)
	return errCorrupt
}

func (i *Image) say(line string) {
	if i.report != nil {
		i.report(line)
	}
}

// writeHeader writes h as the image's header and keeps it. mu is held.
func (i *Image) writeHeader(h header) error {
	b, err := i.headerSector(&h)
	if err != nil {
		return err
	}
	if err := writeFull(i.file, b, 0); err != nil {
		return err
	}
	i.hdr = h
	return nil
}

// headerSector is what of the header to write so that the file says what h does:
// its first sector, since storage writes that whole or not at all. If more would
// change, the names of features, which nothing depends on, are left out for the
// rest to fit that sector. Where it does not, for the length of files' names, it
// is the whole header, and a power failure may leave half of it.
func (i *Image) headerSector(h *header) ([]byte, error) {
	const sector = 512
	if _, alone := i.file.(unsynced); alone { // nobody depends on it yet
		return h.encode()
	}
	for _, h.nameless = range []bool{h.nameless, true} {
		b, err := h.content()
		if err != nil {
			return nil, err
		}
		if len(b) <= sector {
			return append(b, make([]byte, sector-len(b))...), nil
		}
		old := make([]byte, len(b))
		if err := readFull(i.file, old, 0); err != nil {
			return nil, err
		}
		if bytes.Equal(old[sector:], b[sector:]) {
			return b[:sector], nil
		}
	}
	return h.encode()
}

// Flush puts everything written before it on stable storage.
func (i *Image) Flush() error {
	i.mu.Lock()
	if i.readOnly {
		i.mu.Unlock()
		return nil
	}
	if i.corrupt.Load() { // what was acknowledged before may never get to the file
		i.mu.Unlock()
		return errGone
	}
	err := i.flushMetadata()
	n, seq := len(i.pending), i.lowered
	i.sealed = n
	i.mu.Unlock()
	if err != nil {
		return err
	}
	if err := i.sync(); err != nil {
		return err
	}
	return i.release(n, seq)
}

// sync puts what has been written to the files on stable storage.
func (i *Image) sync() error {
	if i.owned {
		if err := i.data.Flush(); err != nil {
			return err
		}
	}
	return i.file.Flush()
}

// Close writes back what is held in memory, puts it on stable storage, as QEMU
// does, and closes the files.
func (i *Image) Close() error {
	i.ops.Lock()
	defer i.ops.Unlock()
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.closed {
		return block.ErrClosed
	}
	var err error
	if !i.readOnly && !i.corrupt.Load() {
		err = errors.Join(i.inactivate(), i.sync())
	}
	i.closed = true
	i.codecs.close()
	if i.owned && i.data != nil {
		err = errors.Join(err, i.data.Close())
	}
	return errors.Join(err, i.file.Close())
}

// inactivate writes everything back and clears the dirty bit.
func (i *Image) inactivate() error {
	if i.data == nil {
		return nil // nothing was read or written
	}
	err := errors.Join(i.closeBitmaps(), i.quiesce())
	if err != nil {
		return err
	}
	if i.hdr.incompat&incompatDirty != 0 && !i.check {
		return i.markClean()
	}
	return nil
}

// quiesce leaves nothing in memory that is not in the file: caches are written,
// and the refcounts of what has been freed are lowered. ops is held exclusively, and mu.
func (i *Image) quiesce() error {
	if err := i.flushMetadata(); err != nil {
		return err
	}
	if len(i.pending) > 0 {
		if err := i.sync(); err != nil {
			return err
		}
		i.unsynced, i.l2Wrote = false, false
		if err := i.lowerPending(len(i.pending)); err != nil {
			return err
		}
	}
	return i.flushRefcounts()
}

// markClean clears the dirty bit after all refcounts are in the file. mu is held.
func (i *Image) markClean() error {
	if err := i.sync(); err != nil {
		return err
	}
	h := i.hdr
	h.incompat &^= incompatDirty
	if err := i.writeHeader(h); err != nil {
		return err
	}
	return i.sync()
}

// markDirty sets the dirty bit, and is done when it is on stable storage. mu is held.
func (i *Image) markDirty() error {
	if i.hdr.incompat&incompatDirty != 0 {
		return nil
	}
	return i.setIncompat(incompatDirty)
}

// setIncompat sets an incompatible feature bit, and is done when it is on stable
// storage. No more of i.hdr than the bits changes: others may read the rest. mu is held.
func (i *Image) setIncompat(bit uint64) error {
	var b [8]byte
	be.PutUint64(b[:], i.hdr.incompat|bit)
	if err := writeFull(i.file, b[:], 72); err != nil {
		return err
	}
	if err := i.file.Flush(); err != nil {
		return err
	}
	i.hdr.incompat |= bit
	return nil
}
