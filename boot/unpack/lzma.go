package unpack

import (
	"encoding/binary"
	"errors"
	"io"
)

// lzma decodes LZMA data (Igor Pavlov's LZMA specification, as in the SDK's
// lzma-specification.txt): a range coder over adaptive bit models, and a window
// that matches copy from. It is written for one pass over a kernel's payload:
// input that is wholly in memory, output limited by what the payload declares.
type lzma struct {
	// The range coder. in ends in inPad bytes that are not input, so that one
	// symbol may be read without looking where the input ends.
	in    []byte
	pos   int
	end   int // of the input in in
	rng   uint32
	code  uint32
	model model

	// The window: buf[:w] is output, of which [:r] has been read already and
	// [base:] may be matched. When buf is full its last dict bytes are kept.
	// Positions that models depend on count from origin, which may have left buf.
	buf        []byte
	r, w, base int
	origin     int
	dict       int
	left       uint64 // bytes still to decode
}

const (
	inPad       = 64 // no symbol takes as many bytes
	rangeTop    = 1 << 24
	modelBits   = 11
	modelShift  = 5
	modelHalf   = 1 << (modelBits - 1)
	maxMatch    = 273
	maxChunk    = 2 << 20 // of LZMA2, decompressed
	states      = 12
	posStates   = 16
	minMatch    = 2
	endDistance = 0xffffffff
)

var (
	errLZMAInput    = errors.New("data ends inside a symbol")
	errLZMADistance = errors.New("match reaches before the start")
	errLZMALength   = errors.New("match crosses the end of its chunk")
	errLZMAProps    = errors.New("impossible properties")
)

// model is the coder's adaptive state.
type model struct {
	lc               uint8
	litMask, posMask uint32
	state            uint32
	rep              [4]uint32
	isMatch          [states * posStates]uint16
	isRep            [states]uint16
	isRep0, isRep1   [states]uint16
	isRep2           [states]uint16
	isRep0Long       [states * posStates]uint16
	slot             [4][64]uint16
	special          [128]uint16
	align            [16]uint16
	length, repLen   lengths
	lit              []uint16
}

type lengths struct {
	choice, choice2 uint16
	low, mid        [posStates][8]uint16
	high            [256]uint16
}

func newLZMA(in []byte, dict, size uint64) *lzma {
	dict = max(min(dict, size), 4096)
	return &lzma{in: in, dict: int(dict), left: size, buf: make([]byte, min(size, dict*2+maxChunk))}
}

// setProps sets lc, lp and pb from their byte, (pb*5+lp)*9+lc, and resets the model.
func (d *lzma) setProps(b byte) error {
	if b >= 9*5*5 {
		return errLZMAProps
	}
	m := &d.model
	lc, lp, pb := b%9, b/9%5, b/45
	m.lc, m.litMask, m.posMask = lc, 1<<lp-1, 1<<pb-1
	if n := 0x300 << (lc + lp); cap(m.lit) < n {
		m.lit = make([]uint16, n)
	} else {
		m.lit = m.lit[:n]
	}
	m.reset()
	return nil
}

func (m *model) reset() {
	m.state, m.rep = 0, [4]uint32{}
	fill := func(p []uint16) {
		for i := range p {
			p[i] = modelHalf
		}
	}
	for _, p := range [][]uint16{m.isMatch[:], m.isRep[:], m.isRep0[:], m.isRep1[:], m.isRep2[:],
		m.isRep0Long[:], m.special[:], m.align[:], m.lit} {
		fill(p)
	}
	for i := range m.slot {
		fill(m.slot[i][:])
	}
	for _, l := range []*lengths{&m.length, &m.repLen} {
		l.choice, l.choice2 = modelHalf, modelHalf
		fill(l.high[:])
		for i := range l.low {
			fill(l.low[i][:])
			fill(l.mid[i][:])
		}
	}
}

// startCoder begins a range-coded run of n bytes at d.pos.
func (d *lzma) startCoder(n int) error {
	if n < 5 || n > len(d.in)-inPad-d.pos || d.in[d.pos] != 0 {
		return errLZMAInput
	}
	d.code, d.rng = binary.BigEndian.Uint32(d.in[d.pos+1:]), 0xffffffff
	d.end = d.pos + n
	d.pos += 5
	return nil
}

// bit decodes one bit with the model *p.
func (d *lzma) bit(p *uint16) uint32 {
	v := uint32(*p)
	bound := (d.rng >> modelBits) * v
	var b uint32
	if d.code < bound {
		d.rng = bound
		*p = uint16(v + (1<<modelBits-v)>>modelShift)
	} else {
		d.rng -= bound
		d.code -= bound
		*p = uint16(v - v>>modelShift)
		b = 1
	}
	if d.rng < rangeTop {
		d.rng <<= 8
		d.code = d.code<<8 | uint32(d.in[d.pos])
		d.pos++
	}
	return b
}

// tree decodes a number of bits, highest first, with models numbered by the
// bits before.
func (d *lzma) tree(p []uint16, bits uint) uint32 {
	rng, code, in, pos := d.rng, d.code, d.in, d.pos
	m := uint32(1)
	for range bits {
		q := &p[m]
		v := uint32(*q)
		bound := (rng >> modelBits) * v
		if code < bound {
			rng = bound
			*q = uint16(v + (1<<modelBits-v)>>modelShift)
			m <<= 1
		} else {
			rng -= bound
			code -= bound
			*q = uint16(v - v>>modelShift)
			m = m<<1 | 1
		}
		if rng < rangeTop {
			rng <<= 8
			code = code<<8 | uint32(in[pos])
			pos++
		}
	}
	d.rng, d.code, d.pos = rng, code, pos
	return m - 1<<bits
}

// reverse is tree with the lowest bit first.
func (d *lzma) reverse(p []uint16, bits uint32) uint32 {
	m, v := uint32(1), uint32(0)
	for i := range bits {
		b := d.bit(&p[m])
		m = m<<1 | b
		v |= b << i
	}
	return v
}

// direct decodes bits that have no model.
func (d *lzma) direct(bits uint32) uint32 {
	var v uint32
	for range bits {
		d.rng >>= 1
		v <<= 1
		if d.code >= d.rng {
			d.code -= d.rng
			v |= 1
		}
		if d.rng < rangeTop {
			d.rng <<= 8
			d.code = d.code<<8 | uint32(d.in[d.pos])
			d.pos++
		}
	}
	return v
}

// literal decodes one byte; matched is the byte at the last distance, which
// steers the models after a match, until the first bit that differs.
func (d *lzma) literal(p []uint16, matched uint32, useMatched bool) byte {
	p = p[:0x300]
	if !useMatched {
		return byte(d.tree(p[:0x100], 8))
	}
	rng, code, in, pos := d.rng, d.code, d.in, d.pos
	m, offset := uint32(1), uint32(0x100)
	for m < 0x100 {
		matched <<= 1
		want := matched & offset
		q := &p[(offset+want+m)&0x3ff]
		v := uint32(*q)
		bound := (rng >> modelBits) * v
		if code < bound {
			rng = bound
			*q = uint16(v + (1<<modelBits-v)>>modelShift)
			m <<= 1
			offset &^= want
		} else {
			rng -= bound
			code -= bound
			*q = uint16(v - v>>modelShift)
			m = m<<1 | 1
			offset &= want
		}
		if rng < rangeTop {
			rng <<= 8
			code = code<<8 | uint32(in[pos])
			pos++
		}
	}
	d.rng, d.code, d.pos = rng, code, pos
	return byte(m)
}

func (d *lzma) matchLength(l *lengths, posState uint32) int {
	if d.bit(&l.choice) == 0 {
		return minMatch + int(d.tree(l.low[posState][:], 3))
	}
	if d.bit(&l.choice2) == 0 {
		return minMatch + 8 + int(d.tree(l.mid[posState][:], 3))
	}
	return minMatch + 16 + int(d.tree(l.high[:], 8))
}

func (d *lzma) distance(length int) uint32 {
	m := &d.model
	slot := d.tree(m.slot[min(length-minMatch, 3)][:], 6)
	if slot < 4 {
		return slot
	}
	bits := slot>>1 - 1
	dist := (2 | slot&1) << bits
	if slot < 14 {
		return dist + d.reverse(m.special[dist-slot:], bits)
	}
	return dist + d.direct(bits-4)<<4 + d.reverse(m.align[:], 4)
}

// run decodes symbols until d.w is at least soft, but never more than hard, or
// until an end marker.
func (d *lzma) run(soft, hard int) (ended bool, err error) {
	m := &d.model
	for d.w < soft {
		if d.pos > d.end {
			return false, errLZMAInput
		}
		posState := uint32(d.w-d.origin) & m.posMask
		ps := m.state*posStates + posState
		if d.bit(&m.isMatch[ps]) == 0 {
			if err := d.putLiteral(); err != nil {
				return false, err
			}
			continue
		}
		var n int
		if d.bit(&m.isRep[m.state]) == 0 {
			n = d.matchLength(&m.length, posState)
			m.rep[3], m.rep[2], m.rep[1] = m.rep[2], m.rep[1], m.rep[0]
			m.rep[0] = d.distance(n)
			if m.rep[0] == endDistance {
				return true, nil
			}
			m.state = after(m.state, 7, 10)
		} else {
			n = d.repeated(ps, posState)
		}
		if err := d.copyMatch(int(m.rep[0]), n, hard); err != nil {
			return false, err
		}
	}
	if d.pos > d.end {
		return false, errLZMAInput
	}
	return false, nil
}

// repeated decodes which of the last four distances is used again, and the
// length.
func (d *lzma) repeated(ps, posState uint32) int {
	m := &d.model
	if d.bit(&m.isRep0[m.state]) == 0 {
		if d.bit(&m.isRep0Long[ps]) == 0 {
			m.state = after(m.state, 9, 11)
			return 1
		}
	} else {
		r := &m.rep
		if d.bit(&m.isRep1[m.state]) == 0 {
			r[0], r[1] = r[1], r[0]
		} else if d.bit(&m.isRep2[m.state]) == 0 {
			r[0], r[1], r[2] = r[2], r[0], r[1]
		} else {
			r[0], r[1], r[2], r[3] = r[3], r[0], r[1], r[2]
		}
	}
	m.state = after(m.state, 8, 11)
	return d.matchLength(&m.repLen, posState)
}

// after is the next state: one if the last symbol was a literal, else the other.
func after(state, literal, match uint32) uint32 {
	if state < 7 {
		return literal
	}
	return match
}

func (d *lzma) putLiteral() error {
	m := &d.model
	var prev, matched uint32
	if d.w > d.base {
		prev = uint32(d.buf[d.w-1])
	}
	sub := (uint32(d.w-d.origin)&m.litMask)<<m.lc | prev>>(8-m.lc)
	if m.state >= 7 {
		from := d.w - 1 - int(m.rep[0])
		if from < d.base {
			return errLZMADistance
		}
		matched = uint32(d.buf[from])
	}
	d.buf[d.w] = d.literal(m.lit[sub*0x300:], matched, m.state >= 7)
	d.w++
	switch {
	case m.state < 4:
		m.state = 0
	case m.state < 10:
		m.state -= 3
	default:
		m.state -= 6
	}
	return nil
}

// copyMatch copies n bytes from dist+1 bytes back; source and target may overlap.
func (d *lzma) copyMatch(dist, n, hard int) error {
	from := d.w - 1 - dist
	if from < d.base {
		return errLZMADistance
	}
	if n > hard-d.w {
		return errLZMALength
	}
	dst := d.buf[d.w : d.w+n]
	if dist+1 >= n {
		copy(dst, d.buf[from:])
	} else {
		src := d.buf[from : from+n]
		for i := range dst {
			dst[i] = src[i]
		}
	}
	d.w += n
	return nil
}

// room makes space in buf for n more bytes, keeping what matches may need. All
// of buf has been read by then.
func (d *lzma) room(n int) {
	if d.w+n <= len(d.buf) {
		return
	}
	cut := d.w - d.dict
	copy(d.buf, d.buf[cut:d.w])
	d.w -= cut
	d.r -= cut
	d.origin -= cut
	d.base = max(d.origin, 0)
}

// take copies decoded bytes that nobody has read yet.
func (d *lzma) take(p []byte) int {
	n := copy(p, d.buf[d.r:d.w])
	d.r += n
	return n
}

// readAll returns the bytes of r with inPad zeros after them.
func readAll(r *io.SectionReader) ([]byte, error) {
	b := make([]byte, r.Size()+inPad)
	if _, err := r.ReadAt(b[:r.Size()], 0); err != nil && err != io.EOF {
		return nil, err
	}
	return b, nil
}

// lzmaAlone reads the .lzma format:
//
//	properties u8 | dictionary size u32 | uncompressed size u64 (all ones: end marker) | data
type lzmaAlone struct {
	*lzma
	ended bool
}

const lzmaHeader = 13

func openLZMA(p *io.SectionReader, size uint64) (io.ReadCloser, error) {
	in, err := readAll(p)
	if err != nil {
		return nil, err
	}
	if p.Size() < lzmaHeader {
		return nil, errLZMAInput
	}
	dict := uint64(binary.LittleEndian.Uint32(in[1:]))
	if dict > maxWindow {
		return nil, errLZMAProps
	}
	d := newLZMA(in, dict, size)
	if err := d.setProps(in[0]); err != nil {
		return nil, err
	}
	d.pos = lzmaHeader
	if err := d.startCoder(int(p.Size()) - lzmaHeader); err != nil {
		return nil, err
	}
	return io.NopCloser(&lzmaAlone{lzma: d}), nil
}

func (d *lzmaAlone) Read(p []byte) (int, error) {
	if n := d.take(p); n > 0 || len(p) == 0 {
		return n, nil
	}
	if d.left == 0 || d.ended {
		return 0, io.EOF
	}
	step := int(min(d.left, maxChunk))
	d.room(step)
	hard := d.w + step
	soft := hard
	if uint64(step) < d.left {
		soft -= maxMatch
	}
	before := d.w
	ended, err := d.run(soft, hard)
	d.ended = ended
	d.left -= uint64(d.w - before)
	return d.take(p), err
}
