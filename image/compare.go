package image

import (
	"bytes"
	"errors"
	"sync"

	"berth/block"
	"berth/block/formats"
)

// Exit statuses of compare.
const (
	compareDiffers exit = 1
	compareOpens   exit = 2 // an image or an option is not to be used
	compareStatus  exit = 3 // no block status
	compareReads   exit = 4 // cannot be read
)

// compare is the command that tells whether two images have the same contents.
type compare struct {
	first, second   source
	cache           string
	progress, quiet bool
	strict          bool
}

func (m *compare) options(c *call) []option {
	m.cache = "writeback"
	object := c.objectOption()
	object.set = func(v string) error {
		err := c.object(v)
		if err != nil && !errors.Is(err, error(done)) {
			return c.ends(compareOpens, err)
		}
		return err
	}
	second := m.second.formatOption("")
	second.short = 'F'
	return append([]option{object, mark(0, "image-opts", &m.first.imageOpts)},
		m.first.formatOption(""), second, word('T', "", &m.cache),
		mark('p', "", &m.progress), mark('q', "", &m.quiet), mark('s', "", &m.strict), mark('U', "force-share", &m.first.share))
}

func (m *compare) run(c *call, operands []string) error {
	if len(operands) != 2 {
		return misuse("Expecting two image file names")
	}
	m.first.file, m.second.file = operands[0], operands[1]
	m.second.share, m.second.imageOpts = m.first.share, m.first.imageOpts
	p := newProgress(c, m.progress && !m.quiet, 2)
	defer p.end()
	cache, err := cacheMode(m.cache, "source cache")
	if err != nil {
		return c.ends(compareOpens, err)
	}
	var nodes [2]*formats.Node
	for i, s := range []source{m.first, m.second} {
		n, err := c.open(s, formats.Options{ReadOnly: true, Cache: cache})
		if err != nil {
			return c.ends(compareOpens, err)
		}
		defer func() { _ = n.Close() }() // opened read-only
		nodes[i] = n
	}
	k := comparison{c: c, quiet: m.quiet, strict: m.strict, progress: p}
	for i, s := range []source{m.first, m.second} {
		k.sides[i] = side{chain: chainOf(nodes[i]), name: s.file, buf: alignedBuffer(mostCopied)}
	}
	return k.run()
}

// ends prints err and ends the command with that status.
func (c *call) ends(status exit, err error) error {
	c.finish(err)
	return status
}

// side is one of the images compared.
type side struct {
	chain chain
	name  string
	buf   []byte
	iov   [1][]byte
}

func (s *side) size() int64 { return (s.chain.image().Size() + sector - 1) / sector * sector }

type comparison struct {
	c             *call
	sides         [2]side
	quiet, strict bool
	progress      *progress
	total         int64 // bytes, of the longer image
}

func (k *comparison) say(format string, a ...any) {
	if !k.quiet {
		k.c.printf(format, a...)
	}
}

func (k *comparison) run() error {
	a, b := k.sides[0].size(), k.sides[1].size()
	k.total = max(a, b)
	k.progress.set(0)
	if k.strict && a != b {
		k.say("Strict mode: Image size mismatch!\n")
		return compareDiffers
	}
	for off := int64(0); off < min(a, b); {
		n, err := k.both(off)
		if err != nil {
			return err
		}
		off += n
		k.advance(n)
	}
	if a != b {
		k.say("Warning: Image size mismatch!\n")
		over := &k.sides[0]
		if b > a {
			over = &k.sides[1]
		}
		if err := k.rest(over, min(a, b)); err != nil {
			return err
		}
	}
	k.say("Images are identical.\n")
	return nil
}

func (k *comparison) advance(n int64) { k.progress.add(float32(n) / float32(k.total) * 100) }

func (k *comparison) status(s *side, off int64) (block.Extent, error) {
	e, err := s.chain.status(off, s.size()-off)
	if err != nil || e.Len == 0 {
		return e, k.c.ends(compareStatus, failure("Sector allocation test failed for %s", s.name))
	}
	return e, nil
}

// both compares what is at off and returns how much it has compared.
func (k *comparison) both(off int64) (int64, error) {
	var e [2]block.Extent
	for i := range e {
		var err error
		if e[i], err = k.status(&k.sides[i], off); err != nil {
			return 0, err
		}
	}
	n := min(e[0].Len, e[1].Len)
	if k.strict && !alike(e[0], e[1]) {
		k.say("Strict mode: Offset %d block status mismatch!\n", off)
		return 0, compareDiffers
	}
	if e[0].Zero && e[1].Zero || !e[0].Allocated && !e[1].Allocated {
		return n, nil
	}
	n = min(n, mostCopied)
	switch {
	case e[0].Allocated && e[1].Allocated:
		return n, k.contents(off, n)
	case e[0].Allocated:
		return n, k.zeros(&k.sides[0], off, n)
	}
	return n, k.zeros(&k.sides[1], off, n)
}

// alike tells whether two runs have come about in the same way.
func alike(a, b block.Extent) bool {
	a.Len, a.Off, b.Len, b.Off = 0, 0, 0, 0
	return a == b
}

// contents compares n bytes of both, read a piece at a time by both at once.
func (k *comparison) contents(off, n int64) error {
	for n > 0 {
		m := min(n, pieceSize)
		if err := k.readBoth(off, m); err != nil {
			return err
		}
		a, b := k.sides[0].buf[:m], k.sides[1].buf[:m]
		if !bytes.Equal(a, b) {
			at, equal := equalRun(a, b)
			if !equal {
				at = 0
			}
			k.say("Content mismatch at offset %d!\n", off+int64(at))
			return compareDiffers
		}
		off, n = off+m, n-m
	}
	return nil
}

func (k *comparison) readBoth(off, n int64) error {
	var errs [2]error
	var second sync.WaitGroup
	second.Go(func() { errs[1] = k.sides[1].read(off, n) })
	errs[0] = k.sides[0].read(off, n)
	second.Wait()
	for i, err := range errs {
		if err != nil {
			return k.readError(&k.sides[i], off, err)
		}
	}
	return nil
}

func (s *side) read(off, n int64) error { return readSome(s.chain.image(), s.iov[:], s.buf[:n], off) }

func (k *comparison) readError(s *side, off int64, err error) error {
	return k.c.ends(compareReads, failure("Error while reading offset %d of %s: %s", off, s.name, strerror(errno(err))))
}

// zeros checks that s reads as zeros.
func (k *comparison) zeros(s *side, off, n int64) error {
	if err := s.read(off, n); err != nil {
		return k.readError(s, off, err)
	}
	if at := firstNonzero(s.buf[:n]); at >= 0 {
		k.say("Content mismatch at offset %d!\n", off+int64(at))
		return compareDiffers
	}
	return nil
}

// rest checks that s reads as zeros from off to its end.
func (k *comparison) rest(s *side, off int64) error {
	for off < k.total {
		e, err := k.status(s, off)
		if err != nil {
			return err
		}
		n := e.Len
		if e.Allocated && !e.Zero {
			n = min(n, mostCopied)
			if err := k.zeros(s, off, n); err != nil {
				return err
			}
		}
		off += n
		k.advance(n)
	}
	return nil
}
