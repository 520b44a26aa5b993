package qcow2

import (
	"bytes"
	"errors"
	"fmt"
	"math/bits"
	"slices"
	"sync"
	"sync/atomic"

	"berth/block"
)

// bitmapState is the persistent bitmaps. mu is taken last of all locks; what is
// in the directory changes only while ops is held exclusively, too.
type bitmapState struct {
	mu        sync.Mutex
	list      []*bitmap
	recording atomic.Bool // a bitmap records writes
	changed   bool        // the directory has to be written
}

// bitmap is a persistent dirty bitmap. Its bits are kept by clusters, as they
// are in the file; those that nobody has asked for stay there.
type bitmap struct {
	name         string
	bits         uint8 // log2 of the granularity
	enabled      bool  // records writes
	inconsistent bool  // was not stored when the image was last closed
	size         int64 // bytes of the image that it describes
	tableOff     int64 // where stored lies; 0: not in the file yet
	stored       []uint64
	table        []uint64             // stored, as it is to be but for loaded
	loaded       map[int]*bitmapChunk // clusters of bits in memory
}

// bitmapChunk is a cluster of bits: the first is the lowest of the first byte.
type bitmapChunk struct {
	b     []byte
	dirty bool // other than in the file
}

// loadBitmaps reads the bitmaps' directory and tables, and marks them in use if
// the image is open for writing: if it is not closed properly they are not to be trusted.
func (i *Image) loadBitmaps() error {
	if i.hdr.bitmaps.count == 0 {
		return nil
	}
	list, err := i.readBitmapDir()
	if err != nil {
		return err
	}
	total, mark, names := 0, false, map[string]bool{}
	for k := range list {
		e := &list[k]
		if total += int(e.tableSize); total > bitmapTablesReadable {
			return errors.New("The bitmaps' tables are too large")
		}
		if names[e.name] {
			return fmt.Errorf("Bitmap already exists: %s", e.name)
		}
		names[e.name] = true
		b, err := i.loadBitmap(e)
		if err != nil {
			return err
		}
		i.bits.list = append(i.bits.list, b)
		mark = mark || !b.inconsistent
	}
	if i.readOnly || i.check || !mark {
		return nil
	}
	return i.markInUse(list)
}

// markInUse has the directory in the file say of all bitmaps that they are not to be trusted.
func (i *Image) markInUse(list []bitmapDirEntry) error {
	for k := range list {
		list[k].flags |= bitmapInUse
	}
	// Nothing but flags changes in place, so that a directory written in part is whole.
	var err error
	dir := encodeBitmapDir(list)
	if uint64(len(dir)) != i.hdr.bitmaps.dirSize { // a name ends before its length
		err = errInvalid
	}
	if err == nil {
		err = writeFull(i.file, dir, int64(i.hdr.bitmaps.dirOffset))
	}
	if err == nil {
		err = i.file.Flush()
	}
	if err != nil {
		return fmt.Errorf("Can't update bitmap directory: %w", err)
	}
	i.noteRecording()
	return nil
}

func (i *Image) loadBitmap(e *bitmapDirEntry) (*bitmap, error) {
	b := &bitmap{name: e.name, bits: e.bits, enabled: e.flags&bitmapAuto != 0, size: i.Size(),
		tableOff: e.tableOff, inconsistent: e.flags&bitmapInUse != 0, loaded: map[int]*bitmapChunk{}}
	raw := make([]byte, int64(e.tableSize)*8)
	err := readFull(i.file, raw, e.tableOff)
	b.stored = decodeTable(raw)
	if err == nil && !b.inconsistent {
		for _, v := range b.stored {
			if !i.validBitmapEntry(v) {
				err = errInvalid
			}
		}
	}
	if err != nil {
		return nil, fmt.Errorf("Could not read bitmap_table table from image for bitmap '%s': %w", e.name, err)
	}
	if !b.inconsistent && int64(len(b.stored)) != i.bitmapClusters(b.size, b.bits) {
		return nil, fmt.Errorf("Could not read bitmap '%s' from image: %w", e.name, errInvalid)
	}
	if !b.inconsistent {
		b.table = append([]uint64(nil), b.stored...)
	}
	return b, nil
}

func (i *Image) noteRecording() {
	on := false
	for _, b := range i.bits.list {
		on = on || b.enabled && !b.inconsistent
	}
	i.bits.recording.Store(on && !i.readOnly)
}

// bitmapFields describes the bitmaps as the file has them, as qemu-img info does. mu is held.
func (i *Image) bitmapFields() [][]block.Field {
	i.bits.mu.Lock()
	defer i.bits.mu.Unlock()
	var all [][]block.Field
	for _, b := range i.bits.list {
		var flags []any
		if b.inconsistent || !i.readOnly && !i.check { // see loadBitmaps
			flags = append(flags, "in-use")
		}
		if b.enabled {
			flags = append(flags, "auto")
		}
		all = append(all, []block.Field{{Name: "flags", Value: flags}, {Name: "name", Value: b.name}, {Name: "granularity", Value: int64(1) << b.bits}})
	}
	return all
}

// Bitmaps lists the persistent bitmaps.
func (i *Image) Bitmaps() []block.BitmapInfo {
	i.bits.mu.Lock()
	defer i.bits.mu.Unlock()
	var all []block.BitmapInfo
	for _, b := range i.bits.list {
		all = append(all, block.BitmapInfo{Name: b.name, Granularity: 1 << b.bits, InUse: b.inconsistent, Auto: b.enabled})
	}
	return all
}

// find returns the bitmap of that name. bits.mu is held.
func (s *bitmapState) find(name string) (*bitmap, error) {
	for _, b := range s.list {
		if b.name == name {
			return b, nil
		}
	}
	return nil, &notFound{fmt.Sprintf("Dirty bitmap '%s' not found", name)}
}

// inconsistentBitmap says that a bitmap was not stored when the image was last closed.
type inconsistentBitmap struct{ name string }

func (e inconsistentBitmap) Error() string {
	return fmt.Sprintf("Bitmap '%s' is inconsistent and cannot be used", e.name)
}

// Hint is the line that QEMU prints after the error.
func (inconsistentBitmap) Hint() string {
	return "Try block-dirty-bitmap-remove to delete this bitmap from disk\n"
}

// changeBitmaps runs f, which changes the bitmaps, alone.
func (i *Image) changeBitmaps(f func() error) error {
	i.ops.Lock()
	defer i.ops.Unlock()
	i.mu.Lock()
	defer i.mu.Unlock()
	i.bits.mu.Lock()
	defer i.bits.mu.Unlock()
	if err := i.writable(); err != nil {
		return err
	}
	err := f()
	i.noteRecording()
	return err
}

// withBitmap runs f, which changes a bitmap that can be trusted, alone.
func (i *Image) withBitmap(name string, f func(b *bitmap) error) error {
	return i.changeBitmaps(func() error {
		b, err := i.bits.find(name)
		if err != nil {
			return err
		}
		if b.inconsistent {
			return inconsistentBitmap{name}
		}
		return f(b)
	})
}

// AddBitmap adds a bitmap without a dirty bit. A granularity of 0 is QEMU's
// default: the cluster size, but 4 to 64 KiB. It is in the file when the image is closed.
func (i *Image) AddBitmap(n block.BitmapInfo) error {
	return i.changeBitmaps(func() error {
		if n.Name == "" {
			return errors.New("Bitmap name cannot be empty")
		}
		if n.Granularity == 0 {
			n.Granularity = max(4096, min(65536, i.clusterSize))
		}
		if n.Granularity < 512 || n.Granularity&(n.Granularity-1) != 0 {
			return errors.New("Granularity must be power of 2 and at least 512")
		}
		if err := i.mayAddBitmap(n); err != nil {
			return err
		}
		b := &bitmap{name: n.Name, bits: uint8(bits.TrailingZeros64(uint64(n.Granularity))), enabled: n.Auto, size: i.Size(), loaded: map[int]*bitmapChunk{}}
		b.table = make([]uint64, i.bitmapClusters(b.size, b.bits))
		i.bits.list = append(i.bits.list, b)
		i.bits.changed = true
		return nil
	})
}

func (i *Image) mayAddBitmap(n block.BitmapInfo) error {
	if _, err := i.bits.find(n.Name); err == nil {
		return fmt.Errorf("Bitmap already exists: %s", n.Name)
	}
	err := i.checkBitmap(n.Name, n.Granularity, i.Size())
	dir := int64(bitmapDirFixed+len(n.Name)+7) &^ 7
	for _, b := range i.bits.list {
		dir += int64(bitmapDirFixed+len(b.name)+7) &^ 7
	}
	switch {
	case i.hdr.version < 3:
		err = errors.New("Cannot store dirty bitmaps in qcow2 v2 files")
	case err != nil:
	case len(i.bits.list) >= maxBitmaps:
		err = errors.New("Maximum number of persistent bitmaps is already reached")
	case dir > maxBitmapDir:
		err = errors.New("Not enough space in the bitmap directory")
	}
	return err
}

// RemoveBitmap removes a bitmap from the file at once. It may be an inconsistent one.
func (i *Image) RemoveBitmap(name string) error {
	return i.changeBitmaps(func() error {
		b, err := i.bits.find(name)
		if err != nil {
			return err
		}
		rest := slices.DeleteFunc(slices.Clone(i.bits.list), func(o *bitmap) bool { return o == b })
		if b.tableOff != 0 {
			if err := i.storeBitmapDir(rest, true); err != nil {
				return fmt.Errorf("Failed to update bitmap extension: %w", err)
			}
			i.freeBitmap(b)
		}
		i.bits.list = rest
		return nil
	})
}

// freeBitmap gives back the clusters of a bitmap that is no longer in the directory.
func (i *Image) freeBitmap(b *bitmap) {
	for _, r := range i.inFile(b, nil) {
		i.free(r.off, r.n, r.punch)
	}
}

// ClearBitmap clears all bits.
func (i *Image) ClearBitmap(name string) error {
	return i.withBitmap(name, func(b *bitmap) error {
		clear(b.table)
		clear(b.loaded)
		return nil
	})
}

// EnableBitmap has a bitmap record writes, or no longer.
func (i *Image) EnableBitmap(name string, on bool) error {
	return i.withBitmap(name, func(b *bitmap) error {
		i.bits.changed = i.bits.changed || b.enabled != on
		b.enabled = on
		return nil
	})
}

// MarkBitmap sets the bits of a range, whether the bitmap records writes or not.
func (i *Image) MarkBitmap(name string, off, n int64) error {
	return i.withBitmap(name, func(b *bitmap) error {
		if off < 0 || n < 0 || n > b.size || off > b.size-n {
			return block.ErrRange
		}
		return i.mark(b, off, n)
	})
}

// noteDirty has the bitmaps record that the range has been written.
func (i *Image) noteDirty(off, n int64) error {
	if n == 0 || !i.bits.recording.Load() {
		return nil
	}
	i.bits.mu.Lock()
	defer i.bits.mu.Unlock()
	for _, b := range i.bits.list {
		if !b.enabled || b.inconsistent {
			continue
		}
		if end := min(off+n, b.size); off < end {
			if err := i.mark(b, off, end-off); err != nil {
				return err
			}
		}
	}
	return nil
}

// allDirty has the bitmaps record that everything has changed.
func (i *Image) allDirty() { _ = i.noteDirty(0, i.Size()) }

// span is how many of the image's bytes a cluster of bits describes.
func (i *Image) span(b *bitmap) int64 { return i.clusterSize * 8 << b.bits }

// mark sets the bits of a range that lies in the image. bits.mu is held.
func (i *Image) mark(b *bitmap, off, n int64) error {
	first, last := off>>b.bits, (off+n-1)>>b.bits
	per := i.clusterSize * 8
	for n > 0 && first <= last {
		k := int(first / per)
		end := min(last, int64(k+1)*per-1)
		if b.loaded[k] == nil && b.table[k] == bitmapAllOnes {
			first = end + 1
			continue
		}
		c, err := i.chunk(b, k)
		if err != nil {
			return err
		}
		if setBits(c.b, first%per, end%per) {
			c.dirty = true
		}
		first = end + 1
	}
	return nil
}

// setBits sets the bits from first to last, and tells whether any was not set.
func setBits(b []byte, first, last int64) (changed bool) {
	for k := first >> 3; k <= last>>3; k++ {
		m := byte(0xff)
		if k == first>>3 {
			m &= 0xff << (first & 7)
		}
		if k == last>>3 {
			m &= 0xff >> (7 - last&7)
		}
		if b[k]&m != m {
			b[k] |= m
			changed = true
		}
	}
	return changed
}

// chunk returns cluster k of b's bits in memory.
func (i *Image) chunk(b *bitmap, k int) (*bitmapChunk, error) {
	if c := b.loaded[k]; c != nil {
		return c, nil
	}
	c := &bitmapChunk{b: make([]byte, i.clusterSize)}
	switch off := int64(b.table[k] & offsetMask); {
	case off != 0:
		if err := readFull(i.file, c.b, off); err != nil {
			return nil, err
		}
	case b.table[k]&bitmapAllOnes != 0:
		for n := range c.b {
			c.b[n] = 0xff
		}
	}
	b.loaded[k] = c
	return c, nil
}

// DirtyRanges calls f with each run of dirty bytes. What changes meanwhile is
// told of as it was or as it is.
func (i *Image) DirtyRanges(name string, f func(off, n int64) bool) error {
	r := runs{f: f}
	for k := 0; !r.stop; k++ {
		p, all, b, err := i.bitsOf(name, k)
		if err != nil {
			return err
		}
		if b == nil {
			break
		}
		r.size = b.size
		at := int64(k) * i.span(b)
		if all {
			r.add(at, i.span(b))
		}
		r.addBits(p, at, b.bits)
	}
	r.end()
	return nil
}

// bitsOf returns a copy of cluster k of a bitmap's bits, or none, and tells whether they are all set
// then; and a copy of what else is known of it, nil past its end.
func (i *Image) bitsOf(name string, k int) (p []byte, all bool, b *bitmap, err error) {
	i.ops.RLock()
	defer i.ops.RUnlock()
	i.bits.mu.Lock()
	defer i.bits.mu.Unlock()
	found, err := i.bits.find(name)
	switch {
	case err != nil:
		return nil, false, nil, err
	case found.inconsistent:
		return nil, false, nil, inconsistentBitmap{name}
	case k >= len(found.table):
		return nil, false, nil, nil
	}
	b = &bitmap{bits: found.bits, size: found.size}
	if c := found.loaded[k]; c != nil {
		return bytes.Clone(c.b), false, b, nil
	}
	off := int64(found.table[k] & offsetMask)
	if off == 0 {
		return nil, found.table[k]&bitmapAllOnes != 0, b, nil
	}
	p = make([]byte, i.clusterSize)
	return p, false, b, readFull(i.file, p, off)
}

// runs joins dirty ranges.
type runs struct {
	f      func(off, n int64) bool
	size   int64
	off, n int64
	stop   bool
}

func (r *runs) add(off, n int64) {
	if r.n > 0 && r.off+r.n == off {
		r.n += n
		return
	}
	r.end()
	r.off, r.n = off, n
}

func (r *runs) end() {
	if n := min(r.n, r.size-r.off); n > 0 && !r.stop {
		r.stop = !r.f(r.off, n)
	}
	r.n = 0
}

func (r *runs) addBits(p []byte, at int64, shift uint8) {
	for k, v := range p {
		for v != 0 && !r.stop {
			n := bits.TrailingZeros8(v)
			ones := bits.TrailingZeros8(^(v >> n))
			r.add(at+int64(k*8+n)<<shift, int64(ones)<<shift)
			v &^= byte((1<<ones - 1) << n)
		}
	}
}

// resizableBitmaps tells why the image cannot be resized with the bitmaps it has.
func (i *Image) resizableBitmaps() error {
	i.bits.mu.Lock()
	defer i.bits.mu.Unlock()
	for _, b := range i.bits.list {
		if b.inconsistent {
			return inconsistentBitmap{b.name}
		}
	}
	return nil
}

// fitBitmaps gives the bitmaps the image's size. What is added is clean.
func (i *Image) fitBitmaps() {
	i.bits.mu.Lock()
	defer i.bits.mu.Unlock()
	for _, b := range i.bits.list {
		if b.inconsistent || b.size == i.Size() {
			continue
		}
		i.cutBits(b, min(b.size, i.Size()))
		n := int(i.bitmapClusters(i.Size(), b.bits))
		table := make([]uint64, n)
		copy(table, b.table)
		b.table, b.size = table, i.Size()
		for k := range b.loaded {
			if k >= n {
				delete(b.loaded, k)
			}
		}
		i.bits.changed = true
	}
}

// cutBits clears the bits in the cluster in which size ends that are past it.
func (i *Image) cutBits(b *bitmap, size int64) {
	n := (size + 1<<b.bits - 1) >> b.bits
	per := i.clusterSize * 8
	k := int(n / per)
	if k >= len(b.table) || b.loaded[k] == nil && b.table[k] == 0 {
		return
	}
	c, err := i.chunk(b, k)
	if err != nil {
		b.inconsistent = true // and so not stored
		return
	}
	at := n % per
	c.b[at>>3] &= 1<<(at&7) - 1
	clear(c.b[at>>3+1:])
	c.dirty = true
}
