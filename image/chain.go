package image

import (
	"berth/block"
	"berth/block/formats"
)

// chain is an image and its backing images, the top one first.
type chain []*formats.Node

// mostBytes is the longest run asked about at once: what a signed 32-bit
// number of bytes holds in whole sectors, as in QEMU.
const mostBytes = (1<<31 - 1) / sector * sector

// status is statusOf all of the chain.
func (ch chain) status(off, n int64) (block.Extent, error) { return ch.statusOf(len(ch), off, n) }

// statusOf tells how the run at off comes about, at most n bytes of it, as
// QEMU's block status does: the first image that has allocated it decides;
// what a short backing image lacks counts as zeros allocated there. Only the
// first depth images are asked: not allocated means that none of them has it.
func (ch chain) statusOf(depth int, off, n int64) (block.Extent, error) {
	var eof int64
	for i := range ch[:depth] {
		e, err := ch.own(i, off, n)
		if err != nil {
			return e, err
		}
		switch {
		case e.Len == 0 && i > 0:
			e = block.Extent{Len: n, Zero: true, Allocated: true}
			e.EOF = off+n == eof
			return e, nil
		case e.Allocated || i == depth-1 || e.Len == 0:
			if i > 0 && e.Allocated {
				e.EOF = false
			}
			e.EOF = e.EOF || off+e.Len == eof
			return e, nil
		}
		n = e.Len
		if e.EOF {
			eof = off + n
		}
	}
	return block.Extent{Len: n}, nil
}

// own is the extent of the i'th image alone; its length is 0 past the image's end.
func (ch chain) own(i int, off, n int64) (block.Extent, error) {
	size := ch[i].Image.Size()
	if off >= size {
		return block.Extent{EOF: true}, nil
	}
	n = min(n, size-off)
	e, _, err := extentAt(ch[i], off, n)
	if err != nil {
		return e, err
	}
	e.Len = min(e.Len, n)
	e.EOF = off+e.Len == size
	return e, nil
}

// stored tells which file holds the run at off as it is read, where in it, and how much of n bytes;
// ok is false if none does.
func (ch chain) stored(off, n int64) (file block.Image, at, length int64, ok bool) {
	for i := range ch {
		e, err := ch.own(i, off, n)
		lower := ch[i].File
		if ch[i].Data != nil {
			lower = ch[i].Data
		}
		switch {
		case err != nil || e.Len == 0:
			return nil, 0, 0, false
		case e.Allocated:
			if !e.Data || e.Zero || !e.HasOffset || e.File != "" || lower == nil {
				return nil, 0, 0, false
			}
			if size := (lower.Image.Size() + 511) &^ 511; e.Off > size-e.Len {
				return nil, 0, 0, false // what is behind the file's end, the format knows: zeros, or lost data
			}
			return lower.Image, e.Off, e.Len, true
		}
		n = e.Len
	}
	return nil, 0, 0, false
}

// chainOf returns n and what it stands on.
func chainOf(n *formats.Node) chain {
	var ch chain
	for ; n != nil; n = n.Backing {
		ch = append(ch, n)
	}
	return ch
}

// image is the top image.
func (ch chain) image() block.Image { return ch[0].Image }

// readSome reads p at off, with zeros for what lies past the end.
func readSome(image block.Image, iov [][]byte, p []byte, off int64) error {
	if size := image.Size(); off+int64(len(p)) > size {
		keep := max(size-off, 0)
		clear(p[keep:])
		p = p[:keep]
	}
	if len(p) == 0 {
		return nil
	}
	iov[0] = p
	return image.Readv(iov, off)
}
