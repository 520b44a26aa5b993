package jit

import (
	"berth/x86"
	"berth/x86/decode"
	"berth/x86/optab"
)

// What 32-bit code has of its own. The host runs it as 64-bit code with 32-bit
// registers, whose upper halves are as the guest's: 0 once written.

// wordOf is the bytes of RIP, RSP and what is pushed.
func wordOf(m decode.Mode) uint8 {
	if m == decode.Mode64 {
		return 8
	}
	return 4
}

// modernise replaces an encoding that 64-bit code does not have by another of the same
// instruction: 40 to 4F, which became REX, and 82, which is 80.
func (in *inst) modernise() {
	switch {
	case in.Mode == decode.Mode64 || in.Row.Map != optab.Map1:
	case in.Opcode&0xf0 == 0x40:
		n := in.Len
		p := []byte{0x66, 0xff, 0xc0 | in.Opcode&15}
		if in.OpSize != 2 {
			p = p[1:]
		}
		_ = decode.Decode(p, in.Mode, &in.Inst) // it is there
		in.Len = n
	case in.Opcode == 0x82:
		in.Opcode = 0x80
	}
}

// stepped32 reports that 32-bit code's instruction is not translated, though 64-bit
// code's would be.
func stepped32(in *decode.Inst) bool {
	switch in.Op {
	case optab.JCC, optab.JMP, optab.CALL, optab.RET:
		if in.OpSize == 2 { // RIP is cut to 16 bits
			return true
		}
	case optab.NOP, optab.LEA:
		return in.Op == optab.LEA && in.AddrSize == 2
	}
	return in.AddrSize == 2 && (in.Mem || in.Row.Flags&optab.RepString != 0) || in.Mem && in.Seg == x86.CS
}

// inSegment makes tmp1, an offset in FS or GS of 32-bit code, the linear address of
// size bytes there; what the segment's kind or limit may not allow leaves. It uses
// tmp2 and the host's flags.
func (t *translation) inSegment(size uint8) {
	seg := 8 * int32(t.seg)
	t.seg = 0
	t.lea(8, tmp2, at(tmp1, int32(size)))
	t.alu(aluCmp, 8, tmp2, at(state, t.c.layout.SegEnd+seg))
	t.stub(t.jcc(ccA), t.c.step(&t.in.Inst, t.pos, t.count), stubLeave)
	t.alu(aluAdd, 4, tmp1, at(state, t.c.layout.SegBase+seg))
}

// zeroUpper is VZEROUPPER and VZEROALL where there are eight registers.
func (t *translation) zeroUpper() {
	for n := range uint8(8) {
		if t.in.L != 0 {
			t.vexInst(vexOp{mmmmm: 1, opcode: 0x57}, n, n, regRM(n)) // vxorps
		} else {
			t.vexInst(vexOp{mmmmm: 1, opcode: 0x28}, n, 0, regRM(n)) // vmovaps
		}
	}
}
