package image

import (
	"bytes"
	"errors"
	"syscall"

	"berth/block"
	"berth/block/formats"
)

// rebase is the command that gives an image another backing image. Unless it
// is unsafe, what the two backing images differ in is first copied into the
// image, which reads the same at any time.
type rebase struct {
	source          source
	cache, srcCache string
	base            string
	based           bool // base was given, if only as ""
	baseFormat      string
	unsafe          bool
	progress, quiet bool
}

func (r *rebase) options(c *call) []option {
	r.cache, r.srcCache = "writeback", "writeback"
	base := func(v string) error {
		r.base, r.based = v, true
		return nil
	}
	return append([]option{c.objectOption(), mark(0, "image-opts", &r.source.imageOpts)}, r.source.formatOption(""), word('F', "", &r.baseFormat), option{short: 'b', set: base},
		mark('u', "", &r.unsafe), mark('p', "", &r.progress), word('t', "", &r.cache), word('T', "", &r.srcCache),
		mark('q', "", &r.quiet), mark('U', "force-share", &r.source.share))
}

func (r *rebase) run(c *call, operands []string) error {
	if err := c.tidy(); err != nil {
		return err
	}
	name, err := oneImage(operands)
	if err != nil {
		return err
	}
	if !r.unsafe && !r.based {
		return misuse("Must specify backing file (-b) or use unsafe mode (-u)")
	}
	r.source.file = name
	p := newProgress(c, r.progress && !r.quiet, 2)
	defer p.end()
	p.set(0)
	cache, err := cacheMode(r.cache, "cache")
	if err != nil {
		return err
	}
	srcCache, err := cacheMode(r.srcCache, "source cache")
	if err != nil {
		return err
	}
	share := r.source.share // of the new backing image alone
	r.source.share = false
	n, err := c.open(r.source, formats.Options{NoBacking: r.unsafe, Cache: cache})
	if err != nil {
		return err
	}
	err = r.change(c, n, p, formats.Options{ReadOnly: true, Format: r.baseFormat, ForceShare: share, Cache: srcCache})
	if e := n.Close(); err == nil && e != nil {
		err = failure("Error while writing to COW image: %s", strerror(errno(e)))
	}
	return err
}

// change makes n stand on its new backing image, which is opened as o says.
func (r *rebase) change(c *call, n *formats.Node, p *progress, o formats.Options) error {
	if r.baseFormat != "" {
		if _, ok := formats.Find(r.baseFormat); !ok {
			return failure("Invalid format name: '%s'", r.baseFormat)
		}
	}
	if !r.unsafe {
		if err := r.copy(c, n, p, o); err != nil {
			return err
		}
	}
	err := r.store(n.Image)
	p.set(100)
	return err
}

// copy copies into n what its old and its new backing image differ in.
func (r *rebase) copy(c *call, n *formats.Node, p *progress, o formats.Options) error {
	k := rebaser{top: n.Image, own: chainOf(n), old: chainOf(n.Backing), depth: -1, progress: p}
	if r.base != "" {
		full, err := formats.FullName(fileOf(n), r.base)
		if err != nil {
			return prefixed(err, "Could not resolve backing filename: ")
		}
		if under, _ := findBacking(n, full); under != nil {
			k.new = chainOf(under)
			k.depth = len(k.old) - len(k.new)
		} else {
			o.Filename = full
			base, err := formats.Open(o)
			if err != nil {
				return prefixed(cause(err), "Could not open new backing file '%s': ", r.base)
			}
			defer func() { _ = base.Close() }() // opened read-only
			k.new = chainOf(base)
		}
	}
	k.size = (n.Image.Size() + sector - 1) / sector * sector
	if k.size != 0 {
		k.share = 100 / float32(k.size/min(k.size, mostCopied))
	}
	k.unit = mostCopied
	if i, ok := n.Image.(block.Informer); ok {
		if s := i.Info().ClusterSize; s > 0 {
			k.unit = min(s, mostCopied)
		}
	}
	if err := inParallel(c.ctx, k.take, k.merge); err != nil {
		return err
	}
	// The copies must be there before the name that makes them count.
	if err := n.Image.Flush(); err != nil {
		return failure("Error while writing to COW image: %s", strerror(errno(err)))
	}
	return nil
}

// store writes the new name into the image.
func (r *rebase) store(image block.Image) error {
	b, ok := image.(block.Backed)
	var err error
	switch {
	case r.base != "" && r.baseFormat == "":
		return failure("Could not change the backing file to '%s': backing format must be specified", r.base)
	case !ok:
		err = syscall.ENOTSUP
	case r.base == "":
		err = b.ChangeBackingFile("", "")
	default:
		err = b.ChangeBackingFile(r.base, r.baseFormat)
	}
	name := r.base
	if !r.based {
		name = "(null)"
	}
	if errors.Is(err, syscall.ENOSPC) {
		return failure("Could not change the backing file to '%s': No space left in the file header", name)
	}
	if err != nil {
		return failure("Could not change the backing file to '%s': %s", name, strerror(errno(err)))
	}
	return nil
}

// rebaser copies what differs between two backing chains into the image above them.
type rebaser struct {
	top      block.Image
	own      chain // the top image's
	old, new chain
	depth    int   // how many of old lie above new; -1: new is not part of old
	size     int64 // bytes
	unit     int64 // bytes: what is copied if a part of it differs
	off      int64
	known    span // what is left of the run that differs, or may
	progress *progress
	share    float32 // percent of the work that a step is
}

// take returns the next span that the chains may differ in.
func (k *rebaser) take() (span, bool, error) {
	for k.known.n == 0 {
		if k.off >= k.size {
			return span{}, false, nil
		}
		s, differs, err := k.look()
		if err != nil {
			return span{}, false, failure("error while reading image metadata: %s", strerror(errno(err)))
		}
		k.off += s.n
		if differs {
			k.known = s
		}
	}
	s := k.known
	s.n = min(s.n, mostCopied-s.off%mostCopied)
	k.known.off, k.known.n = s.off+s.n, k.known.n-s.n
	k.progress.add(k.share)
	return s, true, nil
}

// look describes the run at k.off: whether the chains may differ there, and whether the old one is zero.
func (k *rebaser) look() (s span, differs bool, err error) {
	s = span{off: k.off, n: min(k.size-k.off, mostBytes)}
	e, err := k.own.statusOf(1, s.off, s.n)
	if err != nil || e.Len == 0 || e.Allocated {
		return span{off: s.off, n: max(e.Len, sector)}, false, err
	}
	s.n = e.Len
	if k.depth >= 0 && s.off < k.old.image().Size() {
		s.n = min(s.n, k.old.image().Size()-s.off) // past its end the old one has zeros, whatever is below it
		e, err := k.old.statusOf(k.depth, s.off, s.n)
		if err != nil {
			return s, false, err
		}
		if k.depth == 0 || !e.Allocated {
			s.n = e.Len
			return s, false, nil
		}
		s.n = e.Len
	}
	oldZero, n, err := zeroAt(k.old, s.off, s.n)
	if err != nil {
		return s, false, err
	}
	newZero, n, err := zeroAt(k.new, s.off, n)
	s.n, s.zero = n, oldZero
	return s, !oldZero || !newZero, err
}

// zeroAt tells whether the run at off is known to be zero, and how long it is.
func zeroAt(ch chain, off, n int64) (zero bool, length int64, err error) {
	if len(ch) == 0 || off >= ch.image().Size() {
		return true, n, nil
	}
	e, err := ch.status(off, n)
	return e.Zero || !e.Allocated, e.Len, err
}

// merge copies what differs in s.
func (k *rebaser) merge(h *hand, s span) error {
	for s.n > 0 {
		n := min(s.n, pieceSize/2) // both are in the cache
		if err := k.mergePiece(h, span{off: s.off, n: n, zero: s.zero}); err != nil {
			return err
		}
		s.off, s.n = s.off+n, s.n-n
	}
	return nil
}

func (k *rebaser) mergePiece(h *hand, s span) error {
	room := h.room(2 * s.n)
	a, b := room[:s.n], room[s.n:]
	if err := readChain(k.old, h, a, s.off); err != nil {
		return failure("error while reading from old backing file")
	}
	if err := readChain(k.new, h, b, s.off); err != nil {
		return failure("error while reading from new backing file")
	}
	if bytes.Equal(a, b) {
		return nil
	}
	for at := int64(0); at < s.n; {
		n, differs := k.differing(a[at:], b[at:], s.off+at)
		if differs {
			var err error
			if s.zero {
				err = writeZeros(k.top, s.off+at, n, 0)
			} else {
				err = h.write(k.top, a[at:at+n], s.off+at)
			}
			if err != nil {
				return failure("Error while writing to COW image: %s", strerror(errno(err)))
			}
		}
		at += n
	}
	return nil
}

// differing returns how many bytes at the beginning of a and b, which belong at
// off, lie in units that all differ or are all equal, and which.
func (k *rebaser) differing(a, b []byte, off int64) (n int64, differs bool) {
	for n < int64(len(a)) {
		end := min(n+k.unit-(off+n)%k.unit, int64(len(a)))
		d := !bytes.Equal(a[n:end], b[n:end])
		if n > 0 && d != differs {
			break
		}
		n, differs = end, d
	}
	return n, differs
}

// readChain reads p from the top of ch; there are zeros if it has none.
func readChain(ch chain, h *hand, p []byte, off int64) error {
	if len(ch) == 0 {
		clear(p)
		return nil
	}
	return readSome(ch.image(), h.iov[:], p, off)
}
