package decode

import (
	"slices"
	"sync"

	"berth/x86/optab"
)

// table finds rows by opcode. A code is 0 (undefined), a row number plus 1, or
// with isGroup set the number of a group, or in a group with isRM set the
// number of an rm table.
type table struct {
	rows   []optab.Row
	info   []rowInfo
	wide   []uint16             // by row: the code REX.W turns it into, or 0
	index  [3][4][7][256]uint16 // by mode, prefix class, map, opcode
	groups [][16]uint16         // by ModRM.reg, plus 8 for the register form
	rms    [][8]uint16          // by ModRM.rm
	xchg8  uint16               // XCHG Zv, rAX at 90: what REX.B makes of NOP; PAUSE stays one on Intel
}

const (
	isGroup = 0x8000
	isRM    = 0x4000
)

// Prefix classes: which row prefix the bytes select.
const (
	classNone = iota
	class66
	classF3
	classF2
)

// rowInfo is what the decoder needs of a row, worked out once.
type rowInfo struct {
	modrm     bool
	opcodeReg bool // Zb or Zv
	onlyReg   bool // ModRM.mod is ignored: a register (MOV to and from CR and DR)
	str       bool // REP applies
	lockable  bool
	size      sizeRule
	imm       immKind
	imm2      bool // a second, byte immediate (ENTER)
	reg       regRule
	vex       vexInfo
}

// vexInfo is what a VEX row demands beside its opcode.
type vexInfo struct {
	vvvv    bool  // VEX.vvvv is an operand
	is4     bool  // so is the immediate's upper half
	w       bool  // VEX.W is an operand's width: it counts in 64-bit mode only
	vsib    bool  // ModRM.rm must be a SIB byte, whose index is a vector register
	l, wide uint8 // the value of VEX.L and VEX.W, or 2
	lig     bool
}

type sizeRule uint8

const (
	sizeNormal sizeRule = iota
	sizeByte
	sizeDefault64
	sizeForce64
	sizeMax32
	sizeMode // 8 in 64-bit mode, else 4
	sizeW    // 8 with REX.W, else 4
)

type immKind uint8

const (
	immNone immKind = iota
	immU8
	immS8
	immU16
	immZ
	immV
	immFar
	immMoffs
)

// regRule restricts ModRM.reg.
type regRule uint8

const (
	regAny regRule = iota
	regSegSource
	regSegDest
	regControl
	regDebug
)

// tab is the table, built when the first instruction is decoded: a VM on KVM
// never does, and its start does not pay for it.
var tab = sync.OnceValue(newTable)

func newTable() *table {
	t := &table{rows: optab.Rows()}
	t.info = make([]rowInfo, len(t.rows))
	t.wide = make([]uint16, len(t.rows))
	var byOpcode [7][256][]uint16 // codes of the rows, but for those that REX.W selects
	for i := range t.rows {
		r, code := &t.rows[i], uint16(i+1)
		t.info[i] = infoOf(r)
		if r.Op == optab.XCHG && r.Opcode == 0x90 {
			t.xchg8 = code
		}
		if r.Flags&optab.RexW != 0 {
			t.wide[t.narrow(r)] = code
			continue
		}
		for op := int(r.Opcode); op < int(r.Opcode)+span(r); op++ {
			byOpcode[r.Map][op] = append(byOpcode[r.Map][op], code)
		}
	}
	for opMap := range byOpcode {
		for op, codes := range byOpcode[opMap] {
			t.place(opMap, op, codes)
		}
	}
	t.index[Mode16] = t.index[Mode32] // no row tells them apart
	return t
}

// cell is one opcode's rows while the table is built, by register form, reg and rm.
type cell struct {
	modrm bool
	code  [16][8]uint16
}

// place enters the rows of one opcode for 32- and 64-bit mode and every prefix class.
func (t *table) place(opMap, op int, codes []uint16) {
	for mode := Mode32; mode <= Mode64; mode++ {
		without := optab.Only64
		if mode == Mode64 {
			without = optab.No64
		}
		for class := range 4 {
			if class > 0 && !t.exact(codes) {
				t.index[mode][class][opMap][op] = t.index[mode][0][opMap][op]
				continue
			}
			var c cell
			for _, want := range []optab.Prefix{optab.PAny, optab.PNone + optab.Prefix(class)} { // exact prefixes override PAny
				for _, code := range codes {
					if r := &t.rows[code-1]; r.Prefix == want && r.Flags&without == 0 {
						c.fill(r, code)
					}
				}
			}
			t.index[mode][class][opMap][op] = t.pack(&c)
		}
	}
}

// exact reports whether some of the rows demand a prefix, or that there is none.
func (t *table) exact(codes []uint16) bool {
	return slices.ContainsFunc(codes, func(code uint16) bool { return t.rows[code-1].Prefix != optab.PAny })
}

// span is how many opcodes a row covers.
func span(r *optab.Row) int {
	if r.Flags&optab.CondLow4 != 0 {
		return 16
	}
	for _, a := range r.Args {
		if a == optab.Zb || a == optab.Zv {
			return 8
		}
	}
	return 1
}

func (c *cell) fill(r *optab.Row, code uint16) {
	c.modrm = c.modrm || r.Mod != optab.ModNone
	for form := range 16 {
		isReg := form >= 8
		if isReg && r.Mod == optab.ModMem || !isReg && r.Mod == optab.ModReg ||
			r.Digit >= 0 && int(r.Digit) != form&7 {
			continue
		}
		for rm := range 8 {
			if r.RM < 0 || int(r.RM) == rm {
				c.code[form][rm] = code
			}
		}
	}
}

// pack turns a cell into a code, with tables only where the forms differ.
func (t *table) pack(c *cell) uint16 {
	if !c.modrm {
		return c.code[0][0]
	}
	var group [16]uint16
	same := true
	for form, rms := range c.code {
		group[form] = rms[0]
		for _, code := range rms[1:] {
			if code != rms[0] {
				group[form] = isRM | uint16(len(t.rms))
			}
		}
		if group[form]&isRM != 0 {
			t.rms = append(t.rms, rms)
		}
		same = same && group[form] == group[0] && group[form]&isRM == 0
	}
	if same {
		return group[0]
	}
	t.groups = append(t.groups, group)
	return isGroup | uint16(len(t.groups)-1)
}

// narrow finds the row that shares a RexW row's encoding without REX.W.
func (t *table) narrow(w *optab.Row) int {
	for i := range t.rows {
		r := &t.rows[i]
		if r.Map == w.Map && r.Opcode == w.Opcode && r.Digit == w.Digit && r.Mod == w.Mod &&
			r.Prefix == w.Prefix && r.Flags&optab.RexW == 0 {
			return i
		}
	}
	panic("decode: no row beside REX.W row " + w.Op.String())
}

func infoOf(r *optab.Row) rowInfo {
	in := rowInfo{
		modrm:    r.Mod != optab.ModNone,
		str:      r.Flags&optab.RepString != 0,
		lockable: r.Flags&optab.Lockable != 0,
		size:     sizeOf(r),
	}
	if r.VEX() {
		in.vex = vexInfoOf(r)
	}
	for i, a := range r.Args {
		switch a {
		case optab.Zb, optab.Zv:
			in.opcodeReg = true
		case optab.Lx:
			in.imm = immU8
		case optab.Ib:
			in.imm2 = in.imm != immNone
			if !in.imm2 {
				in.imm = immU8
			}
		case optab.IbS, optab.Jb:
			in.imm = immS8
		case optab.Iw:
			in.imm = immU16
		case optab.Iz, optab.Jz:
			in.imm = immZ
		case optab.Iv:
			in.imm = immV
		case optab.Ap:
			in.imm = immFar
		case optab.Ob, optab.Ov:
			in.imm = immMoffs
		case optab.Cd:
			in.onlyReg, in.reg = true, regControl
		case optab.Dd:
			in.onlyReg, in.reg = true, regDebug
		case optab.Sw:
			in.reg = regSegSource
			if i == 0 {
				in.reg = regSegDest
			}
		}
	}
	return in
}

// vexInfoOf is infoOf for the VEX prefix.
func vexInfoOf(r *optab.Row) vexInfo {
	v := vexInfo{l: 2, wide: 2, lig: r.Flags&optab.LIG != 0}
	switch {
	case r.Flags&optab.L0 != 0:
		v.l = 0
	case r.Flags&optab.L1 != 0:
		v.l = 1
	}
	switch {
	case r.Flags&optab.W0 != 0:
		v.wide = 0
	case r.Flags&optab.W1 != 0:
		v.wide = 1
	}
	for _, a := range r.Args {
		switch a {
		case optab.Hx:
			v.vvvv = true
		case optab.By:
			v.vvvv, v.w = true, true
		case optab.Ey, optab.Gy:
			v.w = true
		case optab.Lx:
			v.is4 = true
		case optab.Mvd, optab.Mvq:
			v.vsib = true
		}
	}
	return v
}

// sizeOf says what Inst.OpSize of a row means.
func sizeOf(r *optab.Row) sizeRule {
	var b, v, y, native bool
	for _, a := range r.Args {
		switch a {
		case optab.Eb, optab.Gb, optab.Zb, optab.AL, optab.Ob, optab.Xb, optab.Yb:
			b = true
		case optab.Ev, optab.Gv, optab.Zv, optab.Ov, optab.RAXv, optab.Xv, optab.Yv:
			v = true
		case optab.Ey, optab.Gy:
			y = true
		case optab.Ry:
			native = true
		}
	}
	sse := r.Op >= optab.FirstSSE && r.Op <= optab.LastSSE
	switch {
	case r.Flags&optab.Force64 != 0:
		return sizeForce64
	case native:
		return sizeMode
	case r.Flags&optab.Default64 != 0:
		return sizeDefault64
	case r.Flags&optab.Max32 != 0 && !b:
		return sizeMax32
	case sse, r.VEX(), y && !v:
		return sizeW
	case b && !v:
		return sizeByte
	}
	return sizeNormal
}
