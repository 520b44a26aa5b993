package image

import (
	"errors"

	"berth/block"
	"berth/block/formats"
)

// commit is the command that writes what an image has allocated into an image
// below it, and empties it then.
type commit struct {
	source          source
	cache, base     string
	based           bool // base was given, which implies drop
	drop            bool // leave the image as it is
	progress, quiet bool
	rate            int64 // bytes a second; 0: no limit
}

func (m *commit) options(c *call) []option {
	m.cache = "writeback"
	base := func(v string) error {
		m.base, m.based, m.drop = v, true, true
		return nil
	}
	rate := func(v string) (err error) {
		m.rate, err = c.size("rate limit", v)
		return err
	}
	return append([]option{c.objectOption(), mark(0, "image-opts", &m.source.imageOpts)}, m.source.formatOption(""), word('t', "", &m.cache), option{short: 'b', set: base},
		mark('d', "", &m.drop), mark('p', "", &m.progress), mark('q', "", &m.quiet), option{short: 'r', set: rate})
}

func (m *commit) run(c *call, operands []string) error {
	if err := c.tidy(); err != nil {
		return err
	}
	name, err := oneImage(operands)
	if err != nil {
		return err
	}
	m.source.file = name
	cache, err := cacheMode(m.cache, "cache")
	if err != nil {
		return err
	}
	n, err := c.open(m.source, formats.Options{Cache: cache})
	if err != nil {
		return err
	}
	p := newProgress(c, m.progress && !m.quiet, 1)
	p.set(0)
	err = m.merge(c, n, p, cache)
	p.end()
	if e := n.Close(); err == nil && e != nil {
		err = failure("Block job failed: %s", strerror(errno(e)))
	}
	if err == nil && !m.quiet {
		c.printf("Image committed.\n")
	}
	return err
}

func (m *commit) merge(c *call, n *formats.Node, p *progress, cache string) error {
	base, overlay := n.Backing, n
	if m.based {
		if base, overlay = findBacking(n, m.base); base == nil {
			return failure("Did not find '%s' in the backing chain of '%s'", m.base, m.source.file)
		}
	}
	if base == nil {
		return failure("Image does not have a backing file")
	}
	all := chainOf(n)
	base, err := overlay.ReopenBacking(cache)
	if err != nil {
		return cause(err)
	}
	k := committer{chain: all[:len(all)-len(chainOf(base))], base: base.Image, limit: newLimiter(c.ctx, m.rate), progress: p}
	if err := k.run(c); err != nil {
		return err
	}
	p.set(100)
	if m.drop {
		return nil
	}
	return empty(n)
}

// empty frees what an image holds, all of which is on stable storage below it.
func empty(n *formats.Node) error {
	e, ok := n.Image.(block.Emptier)
	if !ok {
		return nil
	}
	if err := e.MakeEmpty(); err != nil && !errors.Is(err, block.ErrUnsupported) {
		return failure("Failed to empty %s: %s", n.Filename, strerror(errno(err)))
	}
	return nil
}

// committer copies what the images of chain have allocated into base, which
// lies under the last of them.
type committer struct {
	chain    chain
	base     block.Image
	limit    *limiter
	progress *progress

	size, off int64 // bytes
	known     span
}

func (k *committer) run(c *call) error {
	k.size = k.chain.image().Size()
	if k.size > k.base.Size() {
		r, ok := k.base.(block.Resizer)
		if !ok {
			return blockJobError(block.ErrUnsupported)
		}
		if err := r.Truncate(k.size); err != nil {
			return blockJobError(err)
		}
	}
	if err := inParallel(c.ctx, k.take, k.copy); err != nil {
		return err
	}
	// The base must be whole before the image above it is emptied.
	if err := k.base.Flush(); err != nil {
		return blockJobError(err)
	}
	return nil
}

func blockJobError(err error) error { return failure("Block job failed: %s", strerror(errno(err))) }

// take returns the next span that lies above the base.
func (k *committer) take() (span, bool, error) {
	for k.known.n == 0 {
		if k.off >= k.size {
			return span{}, false, nil
		}
		e, err := k.chain.statusOf(len(k.chain), k.off, min(k.size-k.off, mostBytes))
		if err != nil {
			return span{}, false, blockJobError(err)
		}
		if e.Allocated {
			k.known = span{off: k.off, n: e.Len, zero: e.Zero}
		}
		k.off += max(e.Len, 1)
		k.progress.set(float32(k.off) / float32(k.size) * 99)
	}
	s := k.known
	if !s.zero {
		s.n = min(s.n, pieceSize-s.off%pieceSize)
	}
	k.known.off, k.known.n = s.off+s.n, k.known.n-s.n
	return s, true, nil
}

func (k *committer) copy(h *hand, s span) error {
	if s.zero {
		if err := writeZeros(k.base, s.off, s.n, block.FlagUnmap); err != nil {
			return blockJobError(err)
		}
		return nil
	}
	p := h.room(s.n)
	if err := readSome(k.chain.image(), h.iov[:], p, s.off); err != nil {
		return blockJobError(err)
	}
	k.limit.take(s.n)
	if err := h.write(k.base, p, s.off); err != nil {
		return blockJobError(err)
	}
	return nil
}
