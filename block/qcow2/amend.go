package qcow2

import (
	"errors"
	"fmt"
	"math/bits"

	"berth/block"
)

func amendFunc() func(block.Image, block.Values, func(done, total int64)) error { return amend }

func amendOptions() []block.Option {
	return append([]block.Option{
		{Name: "encrypt.state", Help: "Select new state of affected keyslots (active/inactive)"},
		{Name: "encrypt.keyslot", Type: block.OptNumber, Help: "Select a single keyslot to modify explicitly"},
		{Name: "encrypt.old-secret", Help: "Select all keyslots that match this password"},
		{Name: "encrypt.new-secret", Help: "New secret to set in the matching keyslots. Empty string to erase"},
		{Name: "encrypt.iter-time", Type: block.OptNumber, Help: "Time to spend in PBKDF in milliseconds"},
	}, amendable(commonOptions())...)
}

// amendable are the options without their defaults: what is not given stays as it is.
func amendable(o []block.Option) []block.Option {
	for k := range o {
		o[k].Default = ""
	}
	return o
}

// amendment is what is asked for, checked.
type amendment struct {
	version uint32
	order   uint32 // of refcounts
	lazy    bool
	raw     bool
	size    int64 // 0: as it is
}

// hinted is an error with the line that QEMU prints after it.
type hinted struct{ text, hint string }

func (e *hinted) Error() string { return e.text }

// Hint is the line that is printed after the error.
func (e *hinted) Hint() string { return e.hint }

// amend changes the options in v of an open image. Each step leaves a whole
// image; those before one that fails have been done.
func amend(img block.Image, v block.Values, progress func(done, total int64)) error {
	i, ok := img.(*Image)
	if !ok {
		return block.ErrUnsupported
	}
	a, err := i.amendment(v)
	if err != nil {
		return err
	}
	p := &amendProgress{tell: progress, steps: a.steps(&i.hdr)}
	if err := i.alone(func() error { return i.amendHeader(a, v, p) }); err != nil {
		return err
	}
	if a.size > 0 {
		if err := i.Truncate(a.size); err != nil {
			return err
		}
	}
	if a.version < i.hdr.version {
		return i.alone(func() error { return i.downgrade(p.step()) })
	}
	return nil
}

// steps is how many of what takes time are asked for.
func (a *amendment) steps(h *header) (n int64) {
	if a.version != h.version {
		n++
	}
	if a.order != h.refcountOrder {
		n++
	}
	return n
}

// amendProgress tells of all steps as of one, as QEMU does: those that are to
// come are taken to be as long as those until now are on average.
type amendProgress struct {
	tell       func(done, total int64) // nil: nobody listens
	steps      int64                   // in all
	ended      int64                   // steps
	past, size int64                   // work of those that have ended, and of this one
}

// step begins a step, and returns what tells how much of it is done.
func (p *amendProgress) step() func(done, total int64) {
	if p.size > 0 {
		p.past, p.ended, p.size = p.past+p.size, p.ended+1, 0
	}
	return func(done, total int64) {
		p.size = total
		known := p.past + total
		if p.tell != nil {
			p.tell(p.past+done, known+known*(p.steps-p.ended-1)/(p.ended+1))
		}
	}
}

// alone runs f with nothing else going on and nothing in memory that is not in the file.
func (i *Image) alone(f func() error) error {
	i.ops.Lock()
	defer i.ops.Unlock()
	i.mu.Lock()
	defer i.mu.Unlock()
	if err := i.writable(); err != nil {
		return err
	}
	if err := i.quiesce(); err != nil {
		return err
	}
	return f()
}

// amendment checks v against the image, in QEMU's words.
func (i *Image) amendment(v block.Values) (a amendment, err error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	h := &i.hdr
	a = amendment{version: h.version, order: h.refcountOrder, size: v.Int("size", 0)}
	for _, o := range amendOptions() {
		if _, given := v[o.Name]; given && len(o.Name) > 8 && o.Name[:8] == "encrypt." {
			return a, errors.New("Can't amend encryption options - encryption not present")
		}
	}
	switch c, given := v["compat"]; {
	case !given:
	case c == "0.10" || c == "v2":
		a.version = 2
	case c == "1.1" || c == "v3":
		a.version = 3
	default:
		return a, fmt.Errorf("Unknown compatibility level %s", c)
	}
	if _, given := v["data_file"]; given && !h.external() {
		return a, errors.New("data-file can only be set for images that use an external data file")
	}
	if a.raw = v.On("data_file_raw", h.rawExternal()); a.raw && !h.rawExternal() {
		return a, errors.New("data-file-raw cannot be set on existing images")
	}
	a.lazy = v.On("lazy_refcounts", h.lazy())
	width := v.Int("refcount_bits", 1<<h.refcountOrder)
	if width < 1 || width > 64 || width&(width-1) != 0 {
		return a, errors.New("Refcount width must be a power of two and may not exceed 64 bits")
	}
	a.order = uint32(bits.TrailingZeros64(uint64(width)))
	return a, nil
}

// amendHeader does all but change the size and downgrade.
func (i *Image) amendHeader(a amendment, v block.Values, p *amendProgress) error {
	if a.version > i.hdr.version {
		progress := p.step()
		progress(0, 2)
		progress(1, 2)
		if err := i.upgrade(); err != nil {
			return err
		}
		progress(2, 2)
	}
	if a.order != i.hdr.refcountOrder {
		if a.version < 3 && a.order != 4 {
			return errors.New("Refcount widths other than 16 bits require compatibility level 1.1 or above (use compat=1.1 or greater)")
		}
		if err := i.changeRefcountOrder(uint(a.order), p.step()); err != nil {
			return err
		}
	}
	h := i.hdr
	h.autoclear &^= autoclearDataFileRaw
	if a.raw {
		h.autoclear |= autoclearDataFileRaw
	}
	if name, given := v["data_file"]; given {
		h.dataFile = name
	}
	if err := i.amendedHeader(h); err != nil {
		return err
	}
	if err := i.sameBacking(v); err != nil {
		return err
	}
	return i.amendLazy(a)
}

// amendLazy has refcounts be written late, or no longer.
func (i *Image) amendLazy(a amendment) error {
	if a.lazy == i.hdr.lazy() {
		return nil
	}
	if a.lazy && a.version < 3 {
		return errors.New("Lazy refcounts only supported with compatibility level 1.1 and above (use compat=1.1 or greater)")
	}
	if i.hdr.incompat&incompatDirty != 0 {
		if err := i.markClean(); err != nil {
			return fmt.Errorf("Failed to make the image clean: %w", err)
		}
	}
	h := i.hdr
	h.compat ^= compatLazyRefcounts
	if err := i.amendedHeader(h); err != nil {
		return err
	}
	i.lazy = a.lazy
	return nil
}

func (i *Image) amendedHeader(h header) error {
	if err := i.writeHeader(h); err != nil {
		return fmt.Errorf("Failed to update the image header: %w", err)
	}
	i.v2 = h.version < 3
	return i.sync()
}

// sameBacking refuses to change the backing file, which is for rebase to do.
func (i *Image) sameBacking(v block.Values) error {
	file, a := v["backing_file"]
	format, b := v["backing_fmt"]
	if !a && !b || a == (i.hdr.backingFile != "") && file == i.hdr.backingFile &&
		b == (i.hdr.backingFormat != "") && format == i.hdr.backingFormat {
		return nil
	}
	return &hinted{"Cannot amend the backing file", "You can use 'qemu-img rebase' instead.\n"}
}

// upgrade makes an image of version 2 one of version 3.
func (i *Image) upgrade() error {
	for k := range i.snap.list {
		if i.snap.list[k].extraSize >= 16 {
			continue
		}
		if err := i.storeSnapshots(append([]snapshotEntry(nil), i.snap.list...)); err != nil {
			return fmt.Errorf("Failed to update the snapshot table: %w", err)
		}
		for n := range i.snap.list {
			i.snap.list[n].extraSize = max(i.snap.list[n].extraSize, knownExtra)
		}
		if err := i.quiesce(); err != nil {
			return err
		}
		break
	}
	h := i.hdr
	h.version = 3
	return i.amendedHeader(h)
}

// changeRefcountOrder makes new refcount blocks and a new table with refcounts
// of another width, has the header point there, and frees the old ones. QEMU
// walks through the table three times: progress tells of as many.
func (i *Image) changeRefcountOrder(order uint, progress func(done, total int64)) error {
	a := &i.alloc
	next := allocator{order: order}
	c := checker{i: i, end: (i.file.Size() + 511) &^ 511, report: i.say}
	c.refs = newRefMap(c.clustersOf(c.end), next.max())
	entries := int64(len(a.table))
	walk := func(n int64) {
		for k := range entries + 1 {
			progress(n*entries+k, 3*entries)
		}
	}
	if err := c.readRefcounts(order); err != nil {
		return err
	}
	walk(0)
	old := []run{{off: int64(i.hdr.reftableOffset), n: int64(i.hdr.reftableClus)}}
	for _, e := range a.table {
		if off := int64(e & offsetMask); off != 0 {
			old = append(old, run{off: off, n: 1})
		}
	}
	was, table, blockBits := a.order, a.table, a.blockBits
	a.order, a.blockBits = order, i.clusterBits+3-order
	if err := c.rebuildRefcounts(); err != nil {
		if i.hdr.refcountOrder != uint32(order) {
			a.order, a.table, a.blockBits = was, table, blockBits
			a.blocks.forgetAll()
		}
		return err
	}
	walk(1)
	a.blocks.forgetAll()
	for _, r := range old {
		if err := i.addRefcounts(r.off, r.n, -1); err != nil {
			return err
		}
	}
	if err := i.flushRefcounts(); err != nil {
		return err
	}
	walk(2)
	return i.sync()
}

// readRefcounts takes the refcounts from the image, all of which have to fit the new width.
func (c *checker) readRefcounts(order uint) error {
	a := &c.i.alloc
	for n := int64(0); n < c.refs.n; {
		s, at, more, err := c.block(n)
		if err != nil {
			return fmt.Errorf("Failed to retrieve refblock: %w", err)
		}
		end := min(n+more, c.refs.n)
		for ; s != nil && n < end; n, at = n+1, at+1 {
			v := a.load(s.b, at)
			if v == 0 {
				continue
			}
			if !c.refs.add(n, v) {
				return fmt.Errorf("Cannot decrease refcount entry width to %d bits: Cluster at offset %#x has a refcount of %d",
					1<<order, n<<c.i.clusterBits, v)
			}
		}
		n = end
	}
	return nil
}
