package jit

import "berth/x86/mmu"

// piece is code that many blocks have, emitted once and copied from then on, and the places
// in it that are to be filled in or bound.
type piece struct {
	code [96]byte
	n    uint32
	at   [5]uint32
}

// pieces are those of a cache.
type pieces struct {
	find  [3][2]piece // by TLB, for reads and writes
	miss  [3][2]piece
	host  [3]piece // by TLB
	leave piece
	near  piece    // the end of a block: its budget's byte, and the jumps
	far   [2]piece // likewise, by word
	jump  piece    // a look into the table of jumps
}

// record returns what f emits, with the places that f returns.
func record(f func(e *buf) [5]uint32) piece {
	var p piece
	e := buf{b: make([]byte, len(p.code)+8)}
	p.at = f(&e)
	p.n = uint32(copy(p.code[:], e.code()))
	return p
}

// piece emits p, which changes both temporaries, and returns where it begins.
func (e *buf) piece(p *piece) uint32 {
	const chunk = 32
	at := e.n
	for i := uint32(0); i < p.n; i += chunk { // what is copied beyond is overwritten by what follows
		*(*[chunk]byte)(e.b[at+i:]) = *(*[chunk]byte)(p.code[i:])
	}
	e.n += p.n
	e.held = 0
	return at
}

// recordPieces makes them.
func (c *Cache) recordPieces() {
	for i := range c.pieces.find {
		tlb := c.layout.TLB + int32(i)*int32(tlbBytes)
		for write, off := range [2]uintptr{tagRead, tagWrite} {
			tag := tlb + int32(off)
			c.pieces.find[i][write] = record(func(e *buf) (at [5]uint32) { e.find(tag, c.bmi2); return at })
			c.pieces.miss[i][write] = record(func(e *buf) (at [5]uint32) {
				e.alu(aluAdd, 8, tmp1, rm{mem: true, reg: state, index: tmp2, disp: tag})
				e.store(8, tmp1, frame(offVA))
				return at
			})
		}
		c.pieces.host[i] = record(func(e *buf) (at [5]uint32) {
			e.alu(aluAdd, 8, tmp1, rm{mem: true, reg: state, index: tmp2, disp: tlb + int32(tagHost)})
			return at
		})
	}
	c.pieces.leave = record(func(e *buf) (at [5]uint32) {
		e.storeImm(4, frame(offExit), 0)
		at[0] = e.here() - 4
		e.bytes(0xc3)
		return at
	})
	c.pieces.near = record(func(e *buf) (at [5]uint32) {
		e.aluImm(aluSub, 8, regRM(budget), 1)
		return [5]uint32{e.here() - 1, e.jcc(ccS), e.jmp()}
	})
	for i, word := range [2]uint8{4, 8} {
		c.pieces.far[i] = record(func(e *buf) [5]uint32 { return c.edgeFar(e, word) })
	}
	c.pieces.jump = record(func(e *buf) (at [5]uint32) {
		miss, reload := c.find(e)
		return [5]uint32{miss[0], miss[1], reload}
	})
}

// find takes the tag of the TLB's entry for the linear address in tmp1 from that, and
// has tmp2 be the entry's offset.
func (e *buf) find(tag int32, bmi2 bool) {
	if bmi2 {
		e.bytes(0xc4, 0x43, 0x7b, 0xf0, 0xec, 12-tlbShift) // rorx tmp2d, tmp1d
	} else {
		e.load(4, tmp2, regRM(tmp1))
		e.shift(5, 4, tmp2, 12-tlbShift)
	}
	e.aluImm(aluAnd, 4, regRM(tmp2), (mmu.TLBSize-1)<<tlbShift)
	e.alu(aluSub, 8, tmp1, rm{mem: true, reg: state, index: tmp2, disp: tag})
}

// What RORX brings to the top the mask clears.
var _ = [1]byte{}[(mmu.TLBSize-1)<<tlbShift>>(32-(12-tlbShift))]

// byTag chooses the piece for what is tagged at tag of the state.
func (c *Cache) byTag(p *[3][2]piece, tag int32) *piece {
	off := uint32(tag - c.layout.TLB)
	return &p[off/uint32(tlbBytes)][b2i(off%uint32(tlbBytes) == uint32(tagWrite))]
}

var _ = [1]byte{}[tagRead*8+tagWrite-8] // the tags are apart
