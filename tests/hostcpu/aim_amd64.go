package hostcpu

import (
	"encoding/binary"

	"berth/x86"
	"berth/x86/decode"
	"berth/x86/optab"
)

// setup gives the registers that an operation reads beside its operands values
// that make it do something.
func (b *builder) setup() {
	g, gpr := b.g, &b.c.State.GPR
	if b.at > 0 {
		return // a sequence's first instruction has its state
	}
	_, base := bases(b.c.Mode)
	code, _ := bases(b.c.Mode)
	switch op := b.in.Op; {
	case b.in.Row.Flags&optab.RepString != 0:
		if io := op == optab.INS || op == optab.OUTS; io || g.chance(90) {
			gpr[x86.RCX] = uint64(1 + g.rng.IntN(24)) // whether INS checks privilege before a count of 0 is not defined
		}
		if g.chance(5) && op != optab.INS && op != optab.OUTS {
			gpr[x86.RCX] = 0
		}
	case op == optab.DIV || op == optab.IDIV:
		if g.chance(60) {
			gpr[x86.RDX] = 0
			gpr[x86.RAX] &= 0xffffffffffff007f
			if g.chance(30) {
				gpr[x86.RAX], gpr[x86.RDX] = -gpr[x86.RAX], ^uint64(0)
			}
		}
	case op == optab.XLAT:
		gpr[x86.RBX] = sandboxBase - base + uint64(g.rng.IntN(sandboxSize-256))
	case op == optab.RET:
		if g.chance(70) {
			gpr[x86.RSP] = sandboxBase - base + imageTargets + uint64(8*g.rng.IntN(64))
		}
	case op == optab.PCMPESTRI || op == optab.PCMPESTRM:
		if g.chance(70) {
			gpr[x86.RAX], gpr[x86.RDX] = uint64(int64(g.rng.IntN(40)-20)), uint64(int64(g.rng.IntN(40)-20))
		}
	case op == optab.JMP || op == optab.CALL:
		if !b.in.Mem && g.chance(80) {
			gpr[b.in.RM] = codeBase - code + uint64(b.slot*codeSlot+maxCode+g.rng.IntN(12))
		}
	case op == optab.LOOP || op == optab.LOOPE || op == optab.LOOPNE || op == optab.JCXZ:
		if g.chance(60) {
			gpr[x86.RCX] = uint64(g.rng.IntN(3))
		}
	}
}

// target chooses the sandbox offset of a memory operand.
func (b *builder) target() uint64 {
	g := b.g
	t := uint64(g.rng.IntN(sandboxSize - 16))
	switch b.in.Op {
	case optab.FXRSTOR:
		t = imageFX
	case optab.FXSAVE:
		t &^= 15
	case optab.FRSTOR, optab.FLDENV:
		t = imageSave32
		if b.in.OpSize == 2 {
			t = imageSave16
		}
	case optab.LDMXCSR:
		t = imageMXCSR + uint64(4*g.rng.IntN(16))
	case optab.FBLD:
		t = imageBCD + uint64(16*g.rng.IntN(8))
	case optab.JMP, optab.CALL:
		t = imageTargets + uint64(8*g.rng.IntN(64))
	default:
		if g.chance(75) {
			t &^= 15
		}
	}
	switch {
	case g.chance(2): // across the end
		t = sandboxSize - uint64(g.rng.IntN(16))
	case g.chance(2): // before the start
		t = -uint64(g.rng.IntN(16))
	case g.chance(1):
		t = g.rng.Uint64()
	}
	return t
}

// aim sets registers or the displacement so that the memory operand is at a target.
func (b *builder) aim() {
	in, gpr := &b.in, &b.c.State.GPR
	_, segBase := bases(b.c.Mode)
	switch {
	case in.Seg == x86.FS && b.c.Mode == decode.Mode64:
		segBase = b.c.State.FSBase
	case in.Seg == x86.GS && b.c.Mode == decode.Mode64:
		segBase = b.c.State.GSBase
	}
	t := b.target()
	offset := sandboxBase + t - segBase
	b.operandValues(t, offset)
	hasBase, hasIndex := in.Base < decode.NoReg, in.Index < decode.NoReg
	if gathers(in.Row) {
		b.aimIndices()
		hasIndex = false
	}
	switch {
	case in.Base == decode.RIP:
		next := startRIP(b.slot, b.c.Mode) + uint64(b.at) + uint64(in.Len)
		b.setDisp(offset - next)
	case !hasBase && !hasIndex:
		b.setDisp(offset)
	case b.at > 0: // registers are as the instructions before leave them
	case hasBase && (in.Base != in.Index || !hasIndex):
		v := offset - uint64(in.Disp)
		if hasIndex {
			v -= gpr[in.Index] << in.Scale
		}
		gpr[in.Base] = b.widen(v)
	default:
		factor := uint64(1) << in.Scale
		if hasBase {
			factor++
		}
		gpr[in.Index] = b.widen((offset - uint64(in.Disp)) / factor)
	}
}

// widen puts garbage above an address narrower than the register.
func (b *builder) widen(v uint64) uint64 {
	switch {
	case b.in.AddrSize == 8:
		return v
	case b.in.AddrSize == 2:
		return v&0xffff | b.g.rng.Uint64()&0xffff0000
	case b.c.Mode == decode.Mode64:
		return v&0xffffffff | b.g.rng.Uint64()<<32
	}
	return v & 0xffffffff
}

// setDisp writes a displacement or a moffs address.
func (b *builder) setDisp(v uint64) {
	var p [8]byte
	binary.LittleEndian.PutUint64(p[:], v)
	if len(b.disp) > 0 {
		copy(b.disp, p[:])
		return
	}
	b.imm = append([]byte(nil), p[:b.in.AddrSize]...)
}

// operandValues makes register operands fit the memory operand at sandbox
// offset t: comparands that compare equal, bit offsets that stay near.
func (b *builder) operandValues(t, offset uint64) {
	in, gpr := &b.in, &b.c.State.GPR
	if b.at > 0 || t > sandboxSize-16 {
		return
	}
	le := binary.LittleEndian
	switch in.Op {
	case optab.CMPXCHG:
		if b.g.chance(50) {
			gpr[x86.RAX] = le.Uint64(b.g.image[t:])
		}
	case optab.CMPXCHG8B:
		if b.g.chance(50) {
			gpr[x86.RAX], gpr[x86.RDX] = uint64(le.Uint32(b.g.image[t:])), uint64(le.Uint32(b.g.image[t+4:]))
		}
	case optab.CMPXCHG16B:
		if b.g.chance(50) {
			gpr[x86.RAX], gpr[x86.RDX] = le.Uint64(b.g.image[t:]), le.Uint64(b.g.image[t+8:])
		}
	case optab.BT, optab.BTS, optab.BTR, optab.BTC:
		if b.g.chance(85) && in.Row.Args[1] == optab.Gv {
			gpr[in.Reg] = uint64(int64(b.g.rng.IntN(4096) - 2048))
		}
	}
}
