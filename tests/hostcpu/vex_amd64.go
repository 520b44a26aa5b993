package hostcpu

import (
	"encoding/binary"
	"slices"

	"berth/x86/decode"
	"berth/x86/optab"
)

// gathers reports the rows with a vector of indices.
func gathers(r *optab.Row) bool {
	return slices.Contains(r.Args, optab.Mvd) || slices.Contains(r.Args, optab.Mvq)
}

// vexPrefix makes one for the row, of two bytes where that can be and else of three.
func (b *builder) vexPrefix() []byte {
	g, r := b.g, b.row
	vvvv := byte(15)
	if slices.Contains(r.Args, optab.Hx) || slices.Contains(r.Args, optab.By) || g.chance(2) {
		vvvv = byte(g.rng.IntN(16))
	}
	if b.c.Mode != decode.Mode64 {
		vvvv |= 8
	}
	bit := func(clear, set optab.Flags) byte {
		switch {
		case g.chance(2):
		case r.Flags&clear != 0:
			return 0
		case r.Flags&set != 0:
			return 1
		}
		return byte(g.rng.IntN(2))
	}
	l, w := bit(optab.L0, optab.L1), bit(optab.W0, optab.W1|optab.RexW)
	last := vvvv<<3 | l<<2 | map[optab.Prefix]byte{optab.P66: 1, optab.PF3: 2, optab.PF2: 3}[r.Prefix]
	first := byte(g.rng.IntN(8)) << 5
	if b.c.Mode != decode.Mode64 {
		first |= 0xc0
	}
	if r.Map == optab.MapV0F && w == 0 && g.chance(50) {
		return []byte{0xc5, first&0x80 | last}
	}
	return []byte{0xc4, first | byte(r.Map-optab.MapV0F) + 1, w<<7 | last}
}

// aimIndices makes a gather's indices small, and its mask's elements mostly whole.
func (b *builder) aimIndices() {
	g, in := b.g, &b.in
	if b.at > 0 {
		return
	}
	size := 4
	if in.Row.Args[1] == optab.Mvq {
		size = 8
	}
	fill := func(n uint8, size int, value func() uint64) {
		for i := 0; i < 32; i += size {
			p := b.c.State.FX[160+16*int(n)+(i&15):]
			if i >= 16 {
				p = b.c.State.YMMH[16*int(n)+(i&15):]
			}
			if size == 4 {
				binary.LittleEndian.PutUint32(p, uint32(value()))
			} else {
				binary.LittleEndian.PutUint64(p, value())
			}
		}
	}
	if g.chance(90) {
		fill(in.Index, size, func() uint64 { return uint64(int64(g.rng.IntN(200) - 100)) })
	}
	fill(in.V, int(max(in.OpSize, 4)), func() uint64 { return -uint64(g.rng.IntN(4) &^ 2 & 1) })
}
