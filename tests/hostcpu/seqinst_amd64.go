package hostcpu

import (
	"encoding/binary"
	"slices"

	"berth/x86"
	"berth/x86/decode"
	"berth/x86/optab"
)

// row chooses a kind of instruction.
func (q *seqGen) row() *optab.Row {
	r := q.rows
	rows := r.any
	switch k := q.rng.IntN(100); {
	case k < 58:
		rows = r.common
	case k < 72:
		rows = r.sse
	case k < 82 && len(r.vex) > 0:
		rows = r.vex
	case k < 92:
		rows = r.x87
	}
	return &rows[q.rng.IntN(len(rows))]
}

// random adds a random instruction, and before it what its operands need.
func (q *seqGen) random() {
	for range 100 {
		b := builder{g: q.Generator, c: &Case{Mode: q.s.Mode, State: q.s.State}, at: 1, row: q.row()}
		if q.one(&b) {
			return
		}
	}
	q.emit([]byte{0x90})
}

// one adds the instruction that b builds, if that is one to be had.
func (q *seqGen) one(b *builder) bool {
	b.g.skip = func(r *optab.Row) bool { return Skipped(r) != "" || outOfSequence(r) }
	b.makePrefixes()
	b.prefixes = slices.DeleteFunc(b.prefixes, func(p byte) bool { return p == 0x67 && !q.chance(20) })
	b.makeOpcode()
	if b.row.Mod != optab.ModNone {
		if b.row.Mod == optab.ModReg || b.row.Mod == optab.ModAny && q.chance(50) {
			reg := byte(q.rng.IntN(8))
			rm := byte(q.rng.IntN(8))
			if b.row.Digit >= 0 {
				reg = byte(b.row.Digit)
			}
			if b.row.RM >= 0 {
				rm = byte(b.row.RM)
			}
			b.modrm = []byte{0xc0 | reg<<3 | rm}
		} else if !q.memory(b) {
			return false
		}
	}
	b.makeImmediates()
	b.join()
	if !b.decode() || q.unwanted(&b.in) {
		return false
	}
	return q.finish(b)
}

// memory chooses base and displacement.
func (q *seqGen) memory(b *builder) bool {
	reg := byte(q.rng.IntN(8))
	if b.row.Digit >= 0 {
		reg = byte(b.row.Digit)
	}
	base := q.ptr[q.rng.IntN(2)]
	switch k := q.rng.IntN(100); {
	case k < 12:
		b.modrm, b.disp = []byte{reg<<3 | 5}, make([]byte, 4) // RIP
		return true
	case k < 20:
		base = x86.RSP
	case k < 28:
		base = q.free()
	}
	index := uint8(4)
	if q.chance(12) {
		index = q.free()
	}
	if !b.extend(base>>3, index>>3) {
		return false
	}
	mod := byte(1 + q.rng.IntN(2))
	if base == x86.RSP {
		index = 4
	} else if base&7 != 5 && q.chance(25) {
		mod = 0
	}
	if base&7 == 4 || index != 4 {
		b.modrm = []byte{mod<<6 | reg<<3 | 4, byte(q.rng.IntN(4))<<6 | index&7<<3 | base&7}
	} else {
		b.modrm = []byte{mod<<6 | reg<<3 | base&7}
	}
	b.disp = make([]byte, [3]int{0, 1, 4}[mod])
	d := int64(q.rng.IntN(256) - 128)
	switch {
	case base == x86.RSP: // below what is on the stack
		d = -128 + int64(q.rng.IntN(80))
	case mod == 2:
		d *= 8
	}
	copy(b.disp, binary.LittleEndian.AppendUint64(nil, uint64(d)))
	return true
}

// extend makes the prefix say the upper bits of base and index.
func (b *builder) extend(base, index byte) bool {
	if b.row.VEX() {
		if b.opcode[0] != 0xc4 {
			return base == 0 && index == 0
		}
		b.opcode[1] |= 0x60
		b.opcode[1] &^= base<<5 | index<<6
		return true
	}
	n := len(b.prefixes) - 1
	switch rex := n >= 0 && b.prefixes[n]&0xf0 == 0x40; {
	case rex:
		b.prefixes[n] = b.prefixes[n]&^3 | base | index<<1
	case base|index != 0:
		b.prefixes = append(b.prefixes, 0x40|base|index<<1)
	}
	return true
}

// unwanted reports what would leave something undefined, is not the same on all
// processors, or spoils what the sequence needs.
func (q *seqGen) unwanted(in *decode.Inst) bool {
	switch in.Op {
	case optab.BSWAP, optab.SHLD, optab.SHRD:
		if in.OpSize == 2 {
			return true
		}
	case optab.CMPXCHG:
		if !in.Mem && !q.s.Soft {
			return true // see differ.registers
		}
	case optab.PUSHSEG:
		if in.OpSize == 4 && !q.s.Soft {
			return true // see differ.otherBytes
		}
	case optab.LODS, optab.SCAS:
		if in.Mode == decode.Mode64 && repeatsShort(in) && !q.s.Soft {
			return true // see differ.stringMask
		}
	case optab.CMPS:
		return true // see isCMPS
	case optab.STD:
		return q.chance(80)
	case optab.LEAVE, optab.ENTER:
		return q.chance(70)
	}
	if q.s.Kernel && kernelSkips(in) {
		return true
	}
	if in.Row.Flags&optab.Privileged != 0 && !q.chance(5) {
		return true
	}
	if in.Mem && in.AddrSize == 2 {
		return true
	}
	for n := range uint8(16) {
		if q.avoid(n) && writes(in, n) && (q.reserved>>n&1 != 0 || !q.chance(5)) {
			return true
		}
	}
	return false
}

// writes reports, on the safe side, whether an instruction may write register n.
func writes(in *decode.Inst, n uint8) bool {
	switch in.Op {
	case optab.MUL, optab.IMUL, optab.DIV, optab.IDIV, optab.CWD, optab.CMPXCHG, optab.CMPXCHG8B, optab.CMPXCHG16B:
		if n == x86.RAX || n == x86.RDX {
			return true
		}
	case optab.CBW, optab.LAHF, optab.XLAT, optab.FNSTSWAX:
		if n == x86.RAX {
			return true
		}
	case optab.MOVS, optab.CMPS, optab.STOS, optab.LODS, optab.SCAS:
		if n == x86.RSI || n == x86.RDI || n == x86.RAX || n == x86.RCX && (in.Rep || in.RepN) {
			return true
		}
	case optab.PCMPISTRI, optab.PCMPESTRI:
		return n == x86.RCX
	case optab.LEAVE, optab.ENTER:
		return n == x86.RBP
	case optab.CMP, optab.TEST, optab.BT, optab.PUSH:
		return false
	}
	for i, a := range in.Row.Args {
		if i > 0 && in.Op != optab.XCHG && in.Op != optab.XADD && in.Op != optab.MULX {
			break
		}
		switch a {
		case optab.Eb, optab.Ew, optab.Ed, optab.Ev, optab.Ey, optab.Ry:
			if !in.Mem && lowByte(in, a == optab.Eb, in.RM) == n {
				return true
			}
		case optab.Gb, optab.Gw, optab.Gd, optab.Gv, optab.Gy, optab.Zb, optab.Zv:
			if lowByte(in, a == optab.Gb || a == optab.Zb, in.Reg) == n {
				return true
			}
		case optab.By:
			if in.V == n {
				return true
			}
		case optab.AL, optab.RAXv:
			if n == x86.RAX {
				return true
			}
		}
	}
	return false
}

// lowByte is the register that a byte register is part of.
func lowByte(in *decode.Inst, isByte bool, r uint8) uint8 {
	if isByte && !in.Rex && r >= 4 && r < 8 {
		return r - 4
	}
	return r
}

// finish aims the memory operand, has the flags defined that are read, and adds.
func (q *seqGen) finish(b *builder) bool {
	in := &b.in
	out := seqInst{}
	if in.Mem && in.Op != optab.LEA && in.Op != optab.NOP {
		if !q.point(b, &out) {
			return false
		}
	} else if in.Mem && in.Base == decode.RIP {
		out.ref, out.to, out.tail = refData, sandboxBase, len(b.imm)
	}
	if q.undef&flagsRead(in) != 0 {
		q.define()
	}
	if in.Op == optab.DIV || in.Op == optab.IDIV {
		q.dividend(in)
	}
	b.join()
	at := b.in
	if !b.decode() || b.in.Op != at.Op {
		return false
	}
	out.code = slices.Clone(b.bytes)
	if out.ref != refNone {
		out.tail = len(b.bytes) - len(b.prefixes) - len(b.opcode) - len(b.modrm) - 4
	}
	q.append(out)
	q.after(in)
	return true
}

// dividend mostly makes a quotient fit.
func (q *seqGen) dividend(in *decode.Inst) {
	if q.chance(20) || q.avoid(x86.RAX) || q.avoid(x86.RDX) {
		return
	}
	q.emit(movImm(x86.RAX, q.rng.Uint32()&0x7f))
	if in.OpSize > 1 {
		q.emit(movImm(x86.RDX, 0))
	}
}

// after works out what is known after an instruction.
func (q *seqGen) after(in *decode.Inst) {
	q.undef = undefinedAfter(q.undef, in)
	for n := range uint8(16) {
		if writes(in, n) {
			q.clobber(n)
		}
	}
}

// undefinedAfter is the flags not defined after an instruction, given those before.
func undefinedAfter(undef uint64, in *decode.Inst) uint64 {
	u := undefined(in, &State{}, false)
	switch in.Op {
	case optab.ADD, optab.OR, optab.ADC, optab.SBB, optab.AND, optab.SUB, optab.XOR, optab.CMP, optab.TEST, optab.NEG, optab.POPF:
		return u
	case optab.INC, optab.DEC:
		return undef & cf
	}
	return undef | u
}

// flagsRead is the status flags that an instruction reads.
func flagsRead(in *decode.Inst) uint64 {
	switch in.Op {
	case optab.ADC, optab.SBB, optab.RCL, optab.RCR, optab.CMC:
		return cf
	case optab.SETCC, optab.CMOVCC, optab.FCMOVCC:
		return status &^ af
	case optab.PUSHF, optab.LAHF, optab.SYSCALL:
		return status
	case optab.JCC, optab.JMP, optab.CALL, optab.RET:
		return status &^ af // or what is there does
	}
	return 0
}

// define works out again which flags are not defined, and reports that none such is read.
func (s *Sequence) define() bool {
	labelled := map[seqPlace]bool{}
	for _, p := range s.Labels {
		labelled[p] = true
	}
	for c := range s.Chunks {
		undef := uint64(af)
		for i := range s.Chunks[c].insts {
			in := &s.Chunks[c].insts[i]
			if labelled[seqPlace{c, i}] {
				undef |= af
			}
			in.undef = undef
			var d decode.Inst
			if len(in.code) == 0 || decode.Decode(in.code, s.Mode, &d) != nil {
				continue
			}
			if undef&flagsRead(&d) != 0 {
				return false
			}
			undef = undefinedAfter(undef, &d)
		}
	}
	return true
}

// point has the memory operand lie in the sandbox, mostly.
func (q *seqGen) point(b *builder, out *seqInst) bool {
	in := &b.in
	t := b.target()
	if t >= 0x1300 && t < 0x1700 {
		t -= 0x400 // not the stack: a return address that is changed leads into the middle of instructions
	}
	want := sandboxBase + t
	if q.soft && q.chance(2) {
		want = seqDevice + uint64(q.rng.IntN(256))
	}
	seg := uint64(0)
	switch in.Seg {
	case x86.FS:
		seg = q.s.State.FSBase
	case x86.GS:
		seg = q.s.State.GSBase
	}
	if in.Base == decode.RIP {
		if want-seg > 1<<31 {
			return false
		}
		out.ref, out.to = refData, want-seg
		return true
	}
	if in.Base == decode.NoReg && in.Index == decode.NoReg {
		if len(b.disp) == 0 && in.AddrSize < 8 && want-seg >= 1<<32 {
			return false
		}
		b.setDisp(want - seg)
		return true
	}
	if b.row.Args != nil && (in.Op == optab.BT || in.Op == optab.BTS || in.Op == optab.BTR || in.Op == optab.BTC) && b.row.Args[1] == optab.Gv {
		if q.avoid(in.Reg) || in.Reg == in.Base || in.Reg == in.Index {
			return false
		}
		q.emit(movImm(in.Reg, uint32(q.rng.IntN(512))))
	}
	return q.aimAt(in, b, want-seg)
}

// aimAt sets registers, or the displacement, for the address wanted.
func (q *seqGen) aimAt(in *decode.Inst, b *builder, want uint64) bool {
	if in.Base == x86.RSP || want >= 1<<31 {
		if in.Base == x86.RSP && in.Op == optab.POP || want < 1<<31 {
			return true
		}
		if q.reserved>>in.Base&1 != 0 || in.Base == x86.RSP || in.Base >= decode.NoReg || in.AddrSize != 8 {
			return false
		}
		q.emit(binary.LittleEndian.AppendUint64([]byte{0x48 | in.Base>>3, 0xb8 | in.Base&7}, want-uint64(in.Disp)))
		q.clobber(in.Base)
		return true
	}
	scaled := uint64(0)
	if in.Index < decode.NoReg {
		if in.Index == in.Base || q.avoid(in.Index) {
			return false
		}
		v := uint64(q.rng.IntN(32))
		scaled = v << in.Scale
		q.emit(movImm(in.Index, uint32(v)))
	}
	if in.Base >= decode.NoReg {
		return false
	}
	for i, p := range q.ptr {
		if p != in.Base || q.val[i] == 0 {
			continue
		}
		if len(b.disp) == 4 {
			b.setDisp(want - scaled - q.val[i])
			return true
		}
		if d := want - scaled - q.val[i]; len(b.disp) == 1 && d == uint64(int64(int8(d))) {
			b.setDisp(d)
			return true
		}
		if q.chance(50) { // wherever that is
			return true
		}
	}
	if q.reserved>>in.Base&1 != 0 {
		return false
	}
	v := want - scaled - uint64(in.Disp)
	if v>>32 != 0 {
		return false
	}
	q.emit(movImm(in.Base, uint32(v)))
	for i, p := range q.ptr {
		if p == in.Base {
			q.val[i] = v
		}
	}
	return true
}
