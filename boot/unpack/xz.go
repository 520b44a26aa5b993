package unpack

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"hash/crc64"
	"io"
)

// xz reads the .xz container (The .xz File Format 1.1): one stream of blocks,
// each filtered by LZMA2 alone or x86 BCJ and LZMA2, as Linux's build makes it.
// The index and the footer, which repeat what the blocks said, are not read.
//
//	stream  magic [6] | flags u16 (second byte: type of check) | CRC32 | blocks | index | footer
//	block   header | LZMA2 data | padding to 4 | check
//	header  size/4-1 u8 | flags u8 (1..0 filters-1, 6 compressed size, 7 size) | sizes |
//	        filters (id, length of properties, properties) | padding | CRC32
type xz struct {
	d         *lzma
	size      uint64
	block     io.Reader // nil before the first header and after a block's end
	start     int       // of the block's data
	check     hash.Hash // nil: not verified
	checkSize int
}

const (
	xzStreamHeader = 12
	filterBCJx86   = 0x04
	filterLZMA2    = 0x21
	maxVarint      = 9 // bytes
)

var errXZHeader = errors.New("damaged header")

func openXZ(p *io.SectionReader, size uint64) (io.ReadCloser, error) {
	in, err := readAll(p)
	if err != nil {
		return nil, err
	}
	if p.Size() < xzStreamHeader || in[6] != 0 || in[7]&0xf0 != 0 ||
		crc32.ChecksumIEEE(in[6:8]) != binary.LittleEndian.Uint32(in[8:]) {
		return nil, errXZHeader
	}
	// The check's length by its type, §2.1.1.2.
	x := &xz{size: size, checkSize: [16]int{0, 4, 4, 4, 8, 8, 8, 16, 16, 16, 32, 32, 32, 64, 64, 64}[in[7]]}
	switch in[7] {
	case 1:
		x.check = crc32.NewIEEE()
	case 4:
		x.check = crc64.New(crc64.MakeTable(crc64.ECMA))
	}
	x.d = &lzma{in: in, pos: xzStreamHeader}
	if err := x.next(); err != nil {
		return nil, err
	}
	return io.NopCloser(x), nil
}

func (x *xz) Read(p []byte) (int, error) {
	for x.block != nil {
		n, err := x.block.Read(p)
		if x.check != nil {
			x.check.Write(p[:n])
		}
		if errors.Is(err, io.EOF) {
			if err = x.finishBlock(); err == nil {
				err = x.next()
			}
		}
		if n > 0 || err != nil {
			return n, err
		}
	}
	return 0, io.EOF
}

// finishBlock skips the padding and compares the check.
func (x *xz) finishBlock() error {
	d := x.d
	d.pos += -(d.pos - x.start) & 3
	if d.pos+x.checkSize > len(d.in)-inPad {
		return errLZMAInput
	}
	stored := d.in[d.pos : d.pos+x.checkSize]
	d.pos += x.checkSize
	if x.check == nil {
		return nil
	}
	sum := x.check.Sum(nil)
	for i, v := range stored { // the container stores it little-endian
		if v != sum[len(sum)-1-i] {
			return errors.New("checksum differs")
		}
	}
	return nil
}

// next reads a block header and prepares its readers; at the index, x.block is nil.
func (x *xz) next() error {
	x.block = nil
	d := x.d
	in := d.in[d.pos : len(d.in)-inPad]
	if len(in) == 0 {
		return errLZMAInput
	}
	if in[0] == 0 {
		return nil
	}
	n := (int(in[0]) + 1) * 4
	if n > len(in) || crc32.ChecksumIEEE(in[:n-4]) != binary.LittleEndian.Uint32(in[n-4:]) {
		return errXZHeader
	}
	dict, useBCJ, err := blockHeader(in[1 : n-4])
	if err != nil {
		return err
	}
	d.pos += n
	x.start = d.pos
	if d.buf == nil {
		pos := d.pos
		*d = *newLZMA(d.in, dict, x.size)
		d.pos = pos
	} else if dict > uint64(d.dict) && uint64(d.dict) < x.size {
		return errors.New("a later block has a larger dictionary")
	}
	x.block = &lzma2{d: d, needDict: true, needProps: true}
	if useBCJ {
		x.block = newBCJ(x.block)
	}
	if x.check != nil {
		x.check.Reset()
	}
	return nil
}

// blockHeader parses a header between its size and its CRC and returns the
// dictionary's size and whether BCJ follows LZMA2.
func blockHeader(b []byte) (dict uint64, bcj bool, err error) {
	flags := b[0]
	b = b[1:]
	varint := func() uint64 {
		v, n := binary.Uvarint(b[:min(len(b), maxVarint)])
		if n <= 0 {
			err, n = errXZHeader, 0
		}
		b = b[n:]
		return v
	}
	for _, present := range []uint8{1 << 6, 1 << 7} {
		if flags&present != 0 {
			varint()
		}
	}
	filters := int(flags&3) + 1
	for i := range filters {
		id, n := varint(), varint()
		if err != nil || n > uint64(len(b)) {
			return 0, false, errXZHeader
		}
		props := b[:n]
		b = b[n:]
		last := i == filters-1
		switch {
		case id == filterLZMA2 && last && n == 1 && props[0] <= 40:
			// 4 KiB, 6 KiB, 8 KiB, 12 KiB, … (§5.3.1)
			dict = uint64(2|props[0]&1) << (props[0]/2 + 11)
		case id == filterBCJx86 && i == 0 && !last && n == 0:
			bcj = true
		default:
			return 0, false, fmt.Errorf("filter 0x%x: %w", id, ErrFormat)
		}
	}
	if dict > maxWindow {
		return 0, false, fmt.Errorf("dictionary of %d MiB: %w", dict>>20, ErrFormat)
	}
	return dict, bcj, nil
}

// lzma2 reads LZMA2 data: chunks of LZMA, or of bytes as they are.
//
//	0                            end
//	1 or 2    size-1 u16         bytes as they are; 1 forgets the window
//	1RRSSSSS  size-1 (low u16)   LZMA, S the size's high bits; R 1 resets the models, 2 has new
//	          length-1 u16       properties too, 3 forgets the window too
//	          properties u8 (R 2, 3)
type lzma2 struct {
	d                   *lzma
	needDict, needProps bool
	ended               bool
}

func (l *lzma2) Read(p []byte) (int, error) {
	for {
		if n := l.d.take(p); n > 0 || len(p) == 0 {
			return n, nil
		}
		if l.ended {
			return 0, io.EOF
		}
		if err := l.chunk(); err != nil {
			return 0, err
		}
	}
}

// chunk decodes the next chunk into the window.
func (l *lzma2) chunk() error {
	d := l.d
	in := d.in[min(d.pos, len(d.in)-inPad) : len(d.in)-inPad]
	if len(in) == 0 {
		return errLZMAInput
	}
	control := in[0]
	if control == 0 {
		d.pos++
		l.ended = true
		return nil
	}
	if len(in) < 6 || control > 2 && control < 0x80 {
		return errLZMAInput
	}
	size := int(binary.BigEndian.Uint16(in[1:])) + 1
	if control >= 0x80 {
		size += int(control&0x1f) << 16
	}
	if uint64(size) > d.left {
		return errors.New("more data than declared")
	}
	d.left -= uint64(size)
	d.room(size)
	if control == 1 || control >= 0xe0 {
		d.base, d.origin, l.needDict = d.w, d.w, false
	}
	if l.needDict {
		return errLZMAInput
	}
	if control < 0x80 {
		return d.stored(size)
	}
	return l.compressed(control, size, int(binary.BigEndian.Uint16(in[3:]))+1)
}

// stored copies a chunk of bytes as they are.
func (d *lzma) stored(size int) error {
	d.pos += 3
	if size > len(d.in)-inPad-d.pos {
		return errLZMAInput
	}
	d.w += copy(d.buf[d.w:d.w+size], d.in[d.pos:])
	d.pos += size
	return nil
}

// compressed decodes a chunk of n bytes of LZMA to size bytes.
func (l *lzma2) compressed(control byte, size, n int) error {
	d := l.d
	d.pos += 5
	switch control >> 5 & 3 {
	case 2, 3:
		props := d.in[d.pos]
		d.pos++
		if props < 9*5*5 && props%9+props/9%5 > 4 {
			return errLZMAProps
		}
		if err := d.setProps(props); err != nil {
			return err
		}
		l.needProps = false
	case 1:
		d.model.reset()
	}
	if l.needProps {
		return errLZMAInput
	}
	if err := d.startCoder(n); err != nil {
		return err
	}
	ended, err := d.run(d.w+size, d.w+size)
	if err == nil && (ended || d.pos != d.end) {
		err = errors.New("chunk does not end where it says")
	}
	return err
}
