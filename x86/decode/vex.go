package decode

import "berth/x86/optab"

// The VEX prefixes (Intel SDM vol. 2 §2.3.5): R, X, B and vvvv are inverted.
//
//	C5 | R vvvv L pp
//	C4 | R X B mmmmm | W vvvv L pp
//
// Outside 64-bit mode C4 and C5 are LES and LDS unless the next byte would be a
// ModRM of their undefined register form; there R and X are 1 so.

// isVEX reports whether the C4 or C5 just read begins a VEX prefix; not known: the
// bytes end.
func (d *decoder) isVEX() (vex, known bool) {
	if d.in.Mode == Mode64 {
		return true, true
	}
	if d.pos >= len(d.p) {
		return false, false
	}
	return d.p[d.pos] >= 0xc0, true
}

// vexPrefix reads what follows first, and the opcode.
func (d *decoder) vexPrefix(first uint8, known bool) (optab.Map, error) {
	in := d.in
	b, ok := d.next()
	if !known || !ok {
		return 0, ErrTruncated
	}
	// These prefixes are not allowed before VEX; neither is REX (§2.3.2 to §2.3.4).
	bad := in.P66 || in.Lock || d.rep != 0 || d.rex != 0
	in.Vex, in.P66, d.rep, d.rex = true, false, 0, 0
	m := optab.MapV0F
	if b&0x80 == 0 {
		d.rex |= rexR
	}
	if first == 0xc4 {
		if b&0x40 == 0 {
			d.rex |= rexX
		}
		if b&0x20 == 0 && in.Mode == Mode64 {
			d.rex |= rexB
		}
		bad = bad || b&0x1f == 0 || b&0x1f > 3
		m += optab.Map(b&0x1f) - 1
		if b, ok = d.next(); !ok {
			return 0, ErrTruncated
		}
		if b&0x80 != 0 {
			d.rex |= rexW
		}
	}
	in.V, in.L = ^b>>3&15, b>>2&1
	d.pp = [4]int{classNone, class66, classF3, classF2}[b&3]
	op, ok := d.next()
	switch {
	case !ok:
		return 0, ErrTruncated
	case bad:
		return 0, ErrUndefined
	}
	in.Opcode = op
	return m, nil
}

// vexValid applies what a row demands of L, W and vvvv. Outside 64-bit mode there
// are eight registers, and the fourth bits do not count.
func (d *decoder) vexValid(v *vexInfo) bool {
	in := d.in
	wide := uint8(0)
	if d.rex&rexW != 0 {
		wide = 1
	}
	if v.l < 2 && v.l != in.L || v.wide < 2 && v.wide != wide {
		return false
	}
	if in.Mode != Mode64 {
		in.V &= 7
		if v.is4 {
			in.Imm &= 0x7f
		}
	}
	if v.lig {
		in.L = 0
	}
	// A gather's three vector registers differ (SDM vol. 2, VGATHERDPS).
	if v.vsib && (in.Reg == in.V || in.Reg == in.Index || in.V == in.Index) {
		return false
	}
	return v.vvvv || in.V == 0
}
