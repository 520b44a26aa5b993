package raw

import (
	"golang.org/x/sys/unix"

	"berth/block"
)

// maxBounce is the most that one buffer of O_DIRECT takes, in bytes.
const maxBounce = 1 << 20

// directUnit is what offsets, lengths and addresses of O_DIRECT are multiples
// of: the device's logical block, or what statx(2) says of the file
// (STATX_DIOALIGN, Linux 6.1), or else a page, which every storage takes.
func (f *File) directUnit() int {
	if f.device {
		return f.topology.Logical
	}
	const fallback = 4096
	var st unix.Statx_t
	if err := unix.Statx(f.fd, "", unix.AT_EMPTY_PATH, statxDIOAlign, &st); err != nil || st.Mask&statxDIOAlign == 0 {
		return fallback
	}
	memory, offset := dioAlign(&st)
	unit := max(memory, offset)
	if unit < sectorSize || unit > maxBlock || unit&(unit-1) != 0 {
		return fallback
	}
	return unit
}

// bounce returns a buffer of n bytes, at most maxBounce, that O_DIRECT takes.
func (f *File) bounce(n int) *[]byte {
	p, ok := f.bounces.Get().(*[]byte)
	if !ok || len(*p) < n {
		b := alignedBuffer(max(n, 64<<10), max(f.align, 4096))
		p = &b
	}
	return p
}

// bounceRead reads whole blocks into a buffer and copies from there.
func (f *File) bounceRead(iov [][]byte, off int64) error {
	n, err := length(iov, off)
	if err != nil {
		return err
	}
	to := cursor{iov: iov}
	unit := int64(f.align)
	for end := off + n; off < end; {
		from := off / unit * unit
		whole := min((end-from+unit-1)/unit*unit, maxBounce)
		p := f.bounce(int(whole))
		err := f.readBlocks((*p)[:whole], from)
		if err == nil {
			stop := min(end, from+whole)
			to.put((*p)[off-from : stop-from])
			off = stop
		}
		f.bounces.Put(p)
		if err != nil {
			return err
		}
	}
	return nil
}

func (f *File) readBlocks(p []byte, off int64) error {
	v := f.vector([][]byte{p})
	defer f.vectors.Put(v)
	return f.read(v, off)
}

// bounceWrite writes whole blocks from a buffer; of the first and the last it
// reads first what is not to change. Nobody else writes meanwhile.
func (f *File) bounceWrite(iov [][]byte, off, n int64) error {
	f.growth.Lock()
	defer f.growth.Unlock()
	size, end := f.size.Load(), off+n
	from := cursor{iov: iov}
	unit := int64(f.align)
	for off < end {
		if f.gone.Load() {
			return block.ErrClosed
		}
		start := off / unit * unit
		whole := min((end-start+unit-1)/unit*unit, maxBounce)
		p := f.bounce(int(whole))
		stop := min(end, start+whole)
		err := f.rewrite((*p)[:whole], start, off, stop, &from)
		f.bounces.Put(p)
		if err != nil {
			return err
		}
		off = stop
	}
	if f.device || end <= size && size%unit == 0 {
		return nil
	}
	// Whole blocks may have been written past the end.
	if err := retry(func() error { return unix.Ftruncate(f.fd, max(end, size)) }); err != nil {
		return err
	}
	f.size.Store(max(end, size))
	return nil
}

// rewrite writes the blocks of p, which lie at start, after putting what from
// holds into [off, stop).
func (f *File) rewrite(p []byte, start, off, stop int64, from *cursor) error {
	unit := f.align
	if off > start {
		if err := f.readBlocks(p[:unit], start); err != nil {
			return err
		}
	}
	last := len(p) - unit
	if stop < start+int64(len(p)) && (last > 0 || off == start) {
		if err := f.readBlocks(p[last:], start+int64(last)); err != nil {
			return err
		}
	}
	from.get(p[off-start : stop-start])
	v := f.vector([][]byte{p})
	defer f.vectors.Put(v)
	return f.write(v, start)
}

// cursor is a place within a list of buffers.
type cursor struct {
	iov [][]byte
	at  int // within the first
}

// put copies p into the buffers; get copies from them into p.
func (c *cursor) put(p []byte) { c.move(p, func(b, p []byte) int { return copy(b, p) }) }
func (c *cursor) get(p []byte) { c.move(p, func(b, p []byte) int { return copy(p, b) }) }

func (c *cursor) move(p []byte, f func(b, p []byte) int) {
	for len(p) > 0 && len(c.iov) > 0 {
		n := f(c.iov[0][c.at:], p)
		p, c.at = p[n:], c.at+n
		if c.at == len(c.iov[0]) {
			c.iov, c.at = c.iov[1:], 0
		}
	}
}
