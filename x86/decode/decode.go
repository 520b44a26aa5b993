package decode

import (
	"encoding/binary"

	"berth/x86"
	"berth/x86/optab"
)

// Decode decodes the instruction at the start of p for a code segment of the
// given mode. On an error *in is meaningless, but for Len after ErrUndefined: the
// bytes looked at. It does not allocate and keeps nothing of p. Intel SDM vol. 2
// chapter 2.
func Decode(p []byte, mode Mode, in *Inst) error {
	if len(p) > MaxLen {
		p = p[:MaxLen]
	}
	*in = Inst{Mode: mode, Base: NoReg, Index: NoReg, Seg: x86.DS}
	d := decoder{p: p, in: in, tab: tab()}
	if err := d.prefixes(); err != nil {
		return err
	}
	err := d.opcode()
	in.Len = uint8(d.pos)
	return err
}

// decoder is a walk over one instruction's bytes.
type decoder struct {
	p     []byte
	pos   int
	in    *Inst
	tab   *table
	rex   uint8
	rep   uint8 // the last of F2 and F3, or 0
	pp    int   // the prefix class that VEX.pp stands for
	a67   bool
	modrm uint8
}

const (
	rexB = 1 << iota
	rexX
	rexR
	rexW
)

// bit3 is a REX bit as bit 3 of a register number.
func (d *decoder) bit3(bit uint8) uint8 {
	if d.rex&bit != 0 {
		return 8
	}
	return 0
}

// isPrefix tells the legacy prefixes and REX from opcodes.
var isPrefix = [256]uint8{
	0x66: legacy, 0x67: legacy, 0xf0: legacy, 0xf2: legacy, 0xf3: legacy,
	0x26: legacy, 0x2e: legacy, 0x36: legacy, 0x3e: legacy, 0x64: legacy, 0x65: legacy,
	0x40: rex, 0x41: rex, 0x42: rex, 0x43: rex, 0x44: rex, 0x45: rex, 0x46: rex, 0x47: rex,
	0x48: rex, 0x49: rex, 0x4a: rex, 0x4b: rex, 0x4c: rex, 0x4d: rex, 0x4e: rex, 0x4f: rex,
}

const (
	legacy = 1 + iota
	rex    // in 64-bit mode
)

func (d *decoder) prefixes() error {
	for ; d.pos < len(d.p); d.pos++ {
		b := d.p[d.pos]
		switch isPrefix[b] {
		case legacy:
			d.legacy(b)
			d.rex = 0 // REX counts only right before the opcode
		case rex:
			if d.in.Mode != Mode64 {
				return nil
			}
			d.rex = b
		default:
			return nil
		}
	}
	return ErrTruncated
}

func (d *decoder) legacy(b uint8) {
	switch b {
	case 0x66:
		d.in.P66 = true
	case 0x67:
		d.a67 = true
	case 0xf0:
		d.in.Lock = true
	case 0xf2, 0xf3:
		d.rep = b
	case 0x26, 0x2e, 0x36, 0x3e:
		// 64-bit mode ignores them; an earlier FS or GS stays (SDM vol. 2 §2.1.1, AMD APM vol. 3 §1.2.4).
		if d.in.Mode != Mode64 {
			d.override(b >> 3 & 3)
		}
	case 0x64, 0x65:
		d.override(b - 0x64 + x86.FS)
	}
}

func (d *decoder) override(seg uint8) { d.in.Seg, d.in.SegOverride = seg, true }

// opcode decodes everything after the prefixes.
func (d *decoder) opcode() error {
	in := d.in
	opMap, err := d.escape()
	if err != nil {
		return err
	}
	class := d.class()
	if in.Vex {
		class = d.pp
	}
	code := d.tab.index[in.Mode][class][opMap][in.Opcode]
	if code == 0 {
		return ErrUndefined
	}
	if in.Opcode == 0x90 && opMap == optab.Map1 && d.rex&rexB != 0 && class != classF3 {
		code = d.tab.xchg8
	}
	if code, err = d.choose(code); err != nil {
		return err
	}
	if in.Vex && in.Mode != Mode64 && d.tab.info[code-1].vex.w {
		d.rex &^= rexW
	}
	if d.rex&rexW != 0 && d.tab.wide[code-1] != 0 {
		code = d.tab.wide[code-1]
	}
	row, info := &d.tab.rows[code-1], &d.tab.info[code-1]
	in.Row, in.Op = row, row.Op
	in.Rex = d.rex != 0 && !in.Vex
	if info.str {
		in.Rep, in.RepN = d.rep == 0xf3, d.rep == 0xf2
	}
	d.sizes(info)
	if err := d.operands(info); err != nil {
		return err
	}
	if err := d.immediates(info); err != nil {
		return err
	}
	if in.Lock && (!info.lockable || !in.Mem) || !d.regValid(info.reg) || in.Vex && !d.vexValid(&info.vex) {
		return ErrUndefined
	}
	return nil
}

// escape reads the opcode and its map.
func (d *decoder) escape() (optab.Map, error) {
	m := optab.Map1
	b, ok := d.next()
	if ok && b&^1 == 0xc4 {
		if vex, known := d.isVEX(); vex || !known {
			return d.vexPrefix(b, known)
		}
	}
	if ok && b == 0x0f {
		m = optab.Map0F
		if b, ok = d.next(); ok && (b == 0x38 || b == 0x3a) {
			m = optab.Map0F38
			if b == 0x3a {
				m = optab.Map0F3A
			}
			b, ok = d.next()
		}
	}
	d.in.Opcode = b
	if !ok {
		return m, ErrTruncated
	}
	return m, nil
}

// class is which mandatory prefix the bytes carry: F2 and F3 win over 66.
func (d *decoder) class() int {
	switch {
	case d.rep == 0xf3:
		return classF3
	case d.rep == 0xf2:
		return classF2
	case d.in.P66:
		return class66
	}
	return classNone
}

// choose follows a code through its group, reading ModRM when it has one.
func (d *decoder) choose(code uint16) (uint16, error) {
	if code&isGroup == 0 && !d.tab.info[code-1].modrm {
		return code, nil
	}
	b, ok := d.next()
	if !ok {
		return 0, ErrTruncated
	}
	d.modrm = b
	d.in.ModRM = b
	if code&isGroup != 0 {
		form := b >> 3 & 7
		if b >= 0xc0 {
			form += 8
		}
		code = d.tab.groups[code&^isGroup][form]
		if code&isRM != 0 {
			code = d.tab.rms[code&^isRM][b&7]
		}
	}
	if code == 0 {
		return 0, ErrUndefined
	}
	return code, nil
}

// sizes sets OpSize and AddrSize.
func (d *decoder) sizes(info *rowInfo) {
	in := d.in
	size, wide := uint8(4), d.rex&rexW != 0
	if (in.Mode == Mode16) != in.P66 {
		size = 2
	}
	switch info.size {
	case sizeByte:
		size = 1
	case sizeNormal:
		if wide {
			size = 8
		}
	case sizeDefault64:
		if wide || in.Mode == Mode64 && !in.P66 {
			size = 8
		}
	case sizeForce64:
		if in.Mode == Mode64 {
			size = 8
		}
	case sizeMax32:
		if wide {
			size = 4
		}
	case sizeMode:
		size = 4
		if in.Mode == Mode64 {
			size = 8
		}
	case sizeW:
		size = 4
		if wide {
			size = 8
		}
	}
	in.OpSize = size
	in.AddrSize = 2 << in.Mode
	if d.a67 {
		in.AddrSize = [...]uint8{4, 2, 4}[in.Mode]
	}
}

// operands decodes the register and memory operands.
func (d *decoder) operands(info *rowInfo) error {
	in := d.in
	if info.opcodeReg {
		in.Reg = in.Opcode&7 | d.bit3(rexB)
	}
	if !info.modrm {
		return nil
	}
	in.Reg = d.modrm>>3&7 | d.bit3(rexR)
	if info.vex.vsib && (d.modrm >= 0xc0 || d.modrm&7 != 4 || in.AddrSize == 2) {
		return ErrUndefined
	}
	if d.modrm >= 0xc0 || info.onlyReg {
		in.RM = d.modrm&7 | d.bit3(rexB)
		return nil
	}
	in.Mem = true
	if in.AddrSize == 2 {
		return d.memory16()
	}
	return d.memory(info.vex.vsib)
}

// memory16 decodes 16-bit addressing (SDM vol. 2 table 2-1).
func (d *decoder) memory16() error {
	in, mod := d.in, d.modrm>>6
	base := [8]uint8{x86.RBX, x86.RBX, x86.RBP, x86.RBP, x86.RSI, x86.RDI, x86.RBP, x86.RBX}
	index := [8]uint8{x86.RSI, x86.RDI, x86.RSI, x86.RDI, NoReg, NoReg, NoReg, NoReg}
	rm := d.modrm & 7
	in.Base, in.Index = base[rm], index[rm]
	if mod == 0 && rm == 6 {
		in.Base, mod = NoReg, 2
	}
	d.stackDefault()
	switch mod {
	case 1:
		return d.disp(1)
	case 2:
		return d.disp(2)
	}
	return nil
}

// memory decodes 32- and 64-bit addressing (SDM vol. 2 tables 2-2, 2-3 and §2.2.1.6).
func (d *decoder) memory(vsib bool) error {
	in, mod := d.in, d.modrm>>6
	in.Base = d.modrm&7 | d.bit3(rexB)
	if d.modrm&7 == 4 {
		sib, ok := d.next()
		if !ok {
			return ErrTruncated
		}
		in.Scale = sib >> 6
		if in.Index = sib>>3&7 | d.bit3(rexX); in.Index == x86.RSP && !vsib {
			in.Index = NoReg
		}
		in.Base = sib&7 | d.bit3(rexB)
		if mod == 0 && sib&7 == 5 {
			in.Base, mod = NoReg, 2
		}
	} else if mod == 0 && d.modrm&7 == 5 {
		in.Base, mod = NoReg, 2
		if in.Mode == Mode64 {
			in.Base = RIP
		}
	}
	d.stackDefault()
	switch mod {
	case 1:
		return d.disp(1)
	case 2:
		return d.disp(4)
	}
	return nil
}

// stackDefault makes SS the segment of stack-based addresses.
func (d *decoder) stackDefault() {
	if b := d.in.Base; (b == x86.RSP || b == x86.RBP) && !d.in.SegOverride {
		d.in.Seg = x86.SS
	}
}

func (d *decoder) disp(n int) error {
	v, ok := d.bytes(n)
	d.in.Disp = signed(v, n)
	if !ok {
		return ErrTruncated
	}
	return nil
}

func (d *decoder) immediates(info *rowInfo) error {
	in, n := d.in, 0
	switch info.imm {
	case immNone:
		return nil
	case immU8, immS8:
		n = 1
	case immU16:
		n = 2
	case immZ, immFar:
		n = int(min(in.OpSize, 4))
	case immV:
		n = int(in.OpSize)
	case immMoffs:
		n = int(in.AddrSize)
	}
	v, ok := d.bytes(n)
	switch info.imm {
	case immS8, immZ:
		in.Imm = uint64(signed(v, n))
	case immMoffs:
		in.Mem, in.Disp = true, int64(v)
	default:
		in.Imm = v
	}
	if info.imm == immFar && ok {
		in.Imm2, ok = d.bytes(2)
	}
	if info.imm2 && ok {
		in.Imm2, ok = d.bytes(1)
	}
	if !ok {
		return ErrTruncated
	}
	return nil
}

// regValid applies ModRM.reg's restrictions, some after dropping REX.R.
func (d *decoder) regValid(rule regRule) bool {
	in := d.in
	switch rule {
	case regSegSource:
		in.Reg &= 7
		return in.Reg <= x86.GS
	case regSegDest:
		in.Reg &= 7
		return in.Reg <= x86.GS && in.Reg != x86.CS
	case regControl:
		return in.Reg == 0 || in.Reg >= 2 && in.Reg <= 4 || in.Reg == 8
	case regDebug:
		return in.Reg < 8
	}
	return true
}

func (d *decoder) next() (uint8, bool) {
	if d.pos >= len(d.p) {
		return 0, false
	}
	d.pos++
	return d.p[d.pos-1], true
}

// bytes reads n bytes, little-endian: 1, 2, 4 or 8.
func (d *decoder) bytes(n int) (uint64, bool) {
	if len(d.p)-d.pos < n {
		d.pos = len(d.p)
		return 0, false
	}
	p := d.p[d.pos:]
	d.pos += n
	switch n {
	case 1:
		return uint64(p[0]), true
	case 2:
		return uint64(binary.LittleEndian.Uint16(p)), true
	case 4:
		return uint64(binary.LittleEndian.Uint32(p)), true
	}
	return binary.LittleEndian.Uint64(p), true
}

// signed sign-extends the low n bytes of v.
func signed(v uint64, n int) int64 {
	shift := uint(64 - 8*n)
	return int64(v<<shift) >> shift
}
