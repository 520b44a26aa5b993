// Package inflate uncompresses raw DEFLATE data (RFC 1951) into a buffer of known size, several times as fast as a stream can be.
package inflate

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/bits"
)

// ErrCorrupt is the error for what is no DEFLATE data.
var ErrCorrupt = errors.New("corrupt deflate data")

// errEndless is the ErrCorrupt of a block without a code for its end. zlib, and so QEMU, refuses it; compress/flate does not.
var errEndless = fmt.Errorf("%w: a block has no end", ErrCorrupt)

const (
	literalBits  = 11 // of codes that one look-up decodes
	distanceBits = 8
	longest      = 15  // bits of a code (RFC 1951, section 3.2.7)
	longestMatch = 258 // bytes
	// Room for a code table and the tables behind it, of which each is for codes that begin alike and are longer.
	literalRoom  = 1<<literalBits + 288<<(longest-literalBits)
	distanceRoom = 1<<distanceBits + 30<<(longest-distanceBits)
)

// An entry of a code table:
//
//	31          16 15  12 11     8 7     4 3      0
//	+-------------+------+--------+-------+--------+
//	| value       |      | extra  | kind  | length |
//	+-------------+------+--------+-------+--------+
//
// value is a literal, the least length or distance, or where the next table is;
// extra is the number of bits to add to value, or that the next table is indexed by;
// length is the code's in bits, less what the first table has taken. Zero is no code.
const (
	kindLiteral = 1 << 4
	kindBase    = 2 << 4 // of a length or distance
	kindEnd     = 4 << 4
	kindTable   = 8 << 4
)

// Decoder holds the tables of the block being decoded; its zero value is ready. Not safe for concurrent use.
type Decoder struct {
	literals  [literalRoom]uint32
	distances [distanceRoom]uint32
	lengths   [288 + 32]uint8
	isFixed   bool // the tables are those of section 3.2.6

	src  []byte
	pos  int
	bits uint64 // not yet used, the next one lowest
	n    uint   // how many they are
}

// Decode fills dst from src. What comes after that is not looked at.
func (d *Decoder) Decode(dst, src []byte) error {
	d.src, d.pos, d.bits, d.n = src, 0, 0, 0
	defer func() { d.src = nil }()
	out := 0
	for last := false; out < len(dst); {
		if last {
			return io.ErrUnexpectedEOF
		}
		head, err := d.take(3)
		if err != nil {
			return err
		}
		last = head&1 != 0
		switch head >> 1 {
		case 0:
			out, err = d.stored(dst, out)
		case 1:
			if err = d.fixed(); err == nil {
				out, err = d.block(dst, out)
			}
		case 2:
			if err = d.dynamic(); err == nil {
				out, err = d.block(dst, out)
			}
		default:
			err = ErrCorrupt
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// refill makes n at least 56, or all that is left.
func (d *Decoder) refill() {
	if len(d.src)-d.pos >= 8 {
		d.bits |= binary.LittleEndian.Uint64(d.src[d.pos:]) << d.n
		d.pos += int((63 - d.n) >> 3)
		d.n |= 56
		return
	}
	for d.n < 56 && d.pos < len(d.src) {
		d.bits |= uint64(d.src[d.pos]) << d.n
		d.pos++
		d.n += 8
	}
}

// take returns the next n bits, at most 32.
func (d *Decoder) take(n uint) (uint, error) {
	d.refill()
	if d.n < n {
		return 0, io.ErrUnexpectedEOF
	}
	v := uint(d.bits & (1<<n - 1))
	d.drop(n)
	return v, nil
}

func (d *Decoder) drop(n uint) {
	d.bits >>= n
	d.n -= n
}

// stored copies a block that is not compressed (section 3.2.4).
func (d *Decoder) stored(dst []byte, out int) (int, error) {
	d.drop(d.n & 7)
	d.pos -= int(d.n >> 3) // whole bytes are read again
	d.bits, d.n = 0, 0
	if len(d.src)-d.pos < 4 {
		return out, io.ErrUnexpectedEOF
	}
	n, not := binary.LittleEndian.Uint16(d.src[d.pos:]), binary.LittleEndian.Uint16(d.src[d.pos+2:])
	if n != ^not {
		return out, ErrCorrupt
	}
	d.pos += 4
	want := min(int(n), len(dst)-out)
	got := copy(dst[out:out+want], d.src[d.pos:])
	d.pos += got
	if got < want {
		return out, io.ErrUnexpectedEOF
	}
	return out + got, nil
}

// fixed makes the tables of section 3.2.6, once for all blocks in a row: hostile
// data may be millions of them, each of ten bits.
func (d *Decoder) fixed() error {
	if d.isFixed {
		return nil
	}
	d.isFixed = true
	for i := range 288 {
		switch {
		case i < 144:
			d.lengths[i] = 8
		case i < 256:
			d.lengths[i] = 9
		case i < 280:
			d.lengths[i] = 7
		default:
			d.lengths[i] = 8
		}
	}
	for i := range 32 {
		d.lengths[288+i] = 5
	}
	if err := build(d.literals[:], literalBits, d.lengths[:288], literalEntry, false); err != nil {
		return err
	}
	return build(d.distances[:], distanceBits, d.lengths[288:], distanceEntry, false)
}

// codeOrder is the order in which the lengths of the code lengths' codes come (section 3.2.7).
var codeOrder = [19]uint8{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15}

// dynamic reads the tables that a block begins with (section 3.2.7).
func (d *Decoder) dynamic() error {
	d.isFixed = false
	head, err := d.take(14)
	if err != nil {
		return err
	}
	literals, distances, codes := int(head&31)+257, int(head>>5&31)+1, int(head>>10)+4
	if literals > 286 || distances > 30 {
		return ErrCorrupt
	}
	var order [19]uint8
	for _, at := range codeOrder[:codes] {
		n, err := d.take(3)
		if err != nil {
			return err
		}
		order[at] = uint8(n)
	}
	table := d.distances[:1<<7]
	if err := build(table, 7, order[:], func(i int) uint32 { return uint32(i)<<16 | kindLiteral }, false); err != nil {
		return err
	}
	if err := d.readLengths(table, literals+distances); err != nil {
		return err
	}
	if d.lengths[256] == 0 {
		return errEndless
	}
	if err := build(d.literals[:], literalBits, d.lengths[:literals], literalEntry, true); err != nil {
		return err
	}
	return build(d.distances[:], distanceBits, d.lengths[literals:literals+distances], distanceEntry, true)
}

// readLengths reads count code lengths, coded as table says.
func (d *Decoder) readLengths(table []uint32, count int) error {
	for i := 0; i < count; {
		d.refill()
		e := table[d.bits&(1<<7-1)]
		if e == 0 {
			return d.wrong()
		}
		if uint(e&15) > d.n {
			return io.ErrUnexpectedEOF
		}
		d.drop(uint(e & 15))
		value, repeat := uint8(e>>16), uint(1)
		var err error
		switch value {
		case 16:
			if i == 0 {
				return ErrCorrupt
			}
			value = d.lengths[i-1]
			repeat, err = d.take(2)
			repeat += 3
		case 17:
			value = 0
			repeat, err = d.take(3)
			repeat += 3
		case 18:
			value = 0
			repeat, err = d.take(7)
			repeat += 11
		}
		if err != nil {
			return err
		}
		if i+int(repeat) > count {
			return ErrCorrupt
		}
		for range repeat {
			d.lengths[i] = value
			i++
		}
	}
	return nil
}

// wrong is the error for bits that are no code: if there are few, more may be missing.
func (d *Decoder) wrong() error {
	if d.n < longest {
		return io.ErrUnexpectedEOF
	}
	return ErrCorrupt
}

// literalEntry is the table entry, but for the code's length, of a literal or length.
func literalEntry(i int) uint32 {
	switch {
	case i < 256:
		return uint32(i)<<16 | kindLiteral
	case i == 256:
		return kindEnd
	case i < 265:
		return uint32(i-254)<<16 | kindBase
	case i < 285:
		extra := uint32(i-261) / 4
		return (3+(4+uint32(i-265)%4)<<extra)<<16 | extra<<8 | kindBase
	case i == 285:
		return longestMatch<<16 | kindBase
	}
	return 0
}

// distanceEntry is the same of a distance.
func distanceEntry(i int) uint32 {
	switch {
	case i < 4:
		return uint32(i+1)<<16 | kindBase
	case i < 30:
		extra := uint32(i/2 - 1)
		return (1+(2+uint32(i)%2)<<extra)<<16 | extra<<8 | kindBase
	}
	return 0
}

// build makes the table of a canonical code (section 3.2.2) whose first part is
// indexed by width bits. Codes must use up all bit patterns; where one code is
// enough, its one bit need not.
func build(table []uint32, width uint, lengths []uint8, entry func(int) uint32, single bool) error {
	var count [longest + 1]int
	for _, n := range lengths {
		count[n]++
	}
	count[0] = 0
	left, most := 1, 0
	var next [longest + 1]uint32 // the next code of each length
	code := uint32(0)
	for n := 1; n <= longest; n++ {
		left = left<<1 - count[n]
		if left < 0 {
			return ErrCorrupt
		}
		code = (code + uint32(count[n-1])) << 1
		next[n] = code
		if count[n] != 0 {
			most = n
		}
	}
	if left > 0 && (!single || most > 1) {
		return ErrCorrupt
	}
	clear(table[:1<<width])
	free := 1 << width
	for i, n := range lengths {
		if n == 0 {
			continue
		}
		reversed := bits.Reverse32(next[n]) >> (32 - n)
		next[n]++
		e := entry(i)
		if e == 0 {
			continue // a code that stands for nothing
		}
		if uint(n) <= width {
			fillTable(table[:1<<width], reversed, uint(n), e|uint32(n))
			continue
		}
		free = buildLong(table, width, uint(most), free, reversed, uint(n), e)
	}
	return nil
}

// buildLong adds a code of more than width bits, in the table behind its first width bits.
func buildLong(table []uint32, width, most uint, free int, reversed uint32, n uint, e uint32) int {
	at := reversed & (1<<width - 1)
	wide := most - width
	if table[at] == 0 {
		table[at] = uint32(free)<<16 | uint32(wide)<<8 | kindTable | uint32(width)
		clear(table[free : free+1<<wide])
		free += 1 << wide
	}
	start := int(table[at] >> 16)
	fillTable(table[start:start+1<<wide], reversed>>width, n-width, e|uint32(n-width))
	return free
}

// fillTable puts e wherever the low n bits of the index are code.
func fillTable(table []uint32, code uint32, n uint, e uint32) {
	for i := int(code); i < len(table); i += 1 << n {
		table[i] = e
	}
}

// look returns the entry of the next code, and drops the code.
func (d *Decoder) look(table []uint32, width uint) (uint32, error) {
	d.refill()
	e := table[d.bits&(1<<width-1)]
	if e&kindTable != 0 && d.n >= width {
		d.drop(width)
		e = table[uint64(e>>16)+d.bits&(1<<(e>>8&15)-1)]
	}
	if e == 0 || e&kindTable != 0 {
		return 0, d.wrong()
	}
	if uint(e&15) > d.n {
		return 0, io.ErrUnexpectedEOF
	}
	d.drop(uint(e & 15))
	return e, nil
}

// block decodes a block that the tables are for, until its end or dst's.
func (d *Decoder) block(dst []byte, out int) (int, error) {
	out, ended, err := d.fast(dst, out)
	for err == nil && !ended && out < len(dst) {
		var e uint32
		if e, err = d.look(d.literals[:], literalBits); err != nil {
			break
		}
		switch {
		case e&kindLiteral != 0:
			dst[out] = byte(e >> 16)
			out++
		case e&kindEnd != 0:
			return out, nil
		default:
			out, err = d.match(dst, out, e)
		}
	}
	return out, err
}

// match copies what came before, as long as e says.
func (d *Decoder) match(dst []byte, out int, e uint32) (int, error) {
	extra, err := d.take(uint(e >> 8 & 15))
	if err != nil {
		return out, err
	}
	n := int(e>>16) + int(extra)
	if e, err = d.look(d.distances[:], distanceBits); err != nil {
		return out, err
	}
	if extra, err = d.take(uint(e >> 8 & 15)); err != nil {
		return out, err
	}
	dist := int(e>>16) + int(extra)
	if dist > out {
		return out, ErrCorrupt
	}
	for n = min(n, len(dst)-out); n > 0; n-- {
		dst[out] = dst[out-dist]
		out++
	}
	return out, nil
}
