// Package decode turns x86 instruction bytes into Inst values, driven by the instruction table.
package decode

import (
	"errors"

	"berth/x86/optab"
)

// Register numbers beyond 0-15 in Inst.Base and Inst.Index.
const (
	NoReg = 16
	// RIP as a base: Disp is relative to the end of the instruction.
	RIP = 17
)

// MaxLen is the longest legal instruction, in bytes.
const MaxLen = 15

// Errors of Decode.
var (
	// ErrTruncated: the instruction is longer than the bytes given. With
	// MaxLen bytes given it is an instruction over 15 bytes (#GP).
	ErrTruncated = errors.New("instruction is truncated")
	// ErrUndefined: the architecture says #UD for these bytes.
	ErrUndefined = errors.New("undefined instruction")
)

// Mode is what decoding depends on.
type Mode uint8

// The code-segment modes.
const (
	Mode16 Mode = iota
	Mode32
	Mode64
)

// Inst is one decoded instruction. Which fields mean something follows from
// Row.Args: an E, M, W or Q operand is RM or, if Mem, memory; a G, V, P, S, C or
// D operand is Reg. No register operand of a form leaves Base or Index at 0 by
// accident: a form without them says NoReg.
type Inst struct {
	Row    *optab.Row
	Op     optab.Op
	Len    uint8
	ModRM  uint8 // the byte itself, for the x87's FOP
	Opcode uint8 // last opcode byte; its low nibble is the condition of Jcc, SETcc, CMOVcc

	// OpSize is the operand size in bytes.
	//
	//   - Rows whose register, memory and string operands are all bytes: 1.
	//   - Other integer and system rows: 2, 4 or 8 after 66, REX.W and the row's
	//     Default64 or Force64. For MOVZX, MOVSX, LAR… it is the destination's size;
	//     the source's is in Args (Eb, Ew, Ed). Only y operands and no v: 4, or 8 with REX.W.
	//   - MOV to and from CR and DR, RDPID: 8 in 64-bit mode, else 4.
	//   - MMX, SSE and VEX rows: 8 with REX.W or VEX.W, else 4 (66 is part of the opcode there).
	//   - x87 rows: 2, 4 or 8 as for integers; it matters only to FLDENV, FNSTENV,
	//     FRSTOR and FNSAVE, where 8 acts as 4. Widths of x87 operands are in Args.
	OpSize   uint8
	AddrSize uint8 // 2, 4, 8
	Mode     Mode

	Lock bool // F0 present (and legal)
	Rep  bool // F3 is the last of F2 and F3 and the row is RepString
	RepN bool // F2 likewise; it means REP where the operation does not compare
	P66  bool // 66 present, whatever it means
	Rex  bool // any REX: byte registers 4-7 are SPL, BPL, SIL, DIL

	Vex bool  // a VEX prefix: Row.VEX
	L   uint8 // VEX.L: vectors are 16<<L bytes; 0 where it is ignored
	V   uint8 // the register in VEX.vvvv; the one in an immediate is Imm>>4

	// ModRM operands. Reg is modrm.reg with REX.R, or the register in the
	// opcode with REX.B for Zb and Zv rows. RM is modrm.rm with REX.B in the
	// register form. MMX and stack registers use the low three bits of either;
	// in FCMOVcc, bits 0-1 of Reg are the condition.
	Reg uint8
	RM  uint8
	Mem bool // the E/M/W/Q operand is memory: Base + Index<<Scale + Disp in Seg

	// Base is NoReg, RIP or a register. The sum is truncated to AddrSize. An O
	// operand (moffs) is Mem with Disp alone. Of Mvd and Mvq operands Index is a
	// vector register.
	Base, Index, Scale uint8
	// Seg is x86.ES…GS after overrides and the SS default of RSP and RBP
	// bases; DS or the override for instructions with an implied address (X
	// operands, XLAT, MASKMOVQ, MONITOR). Y operands are in ES whatever it says.
	Seg         uint8
	SegOverride bool
	Disp        int64 // sign-extended

	// Imm is zero-extended for Ib, Iw, Iv and Ap's offset, sign-extended to 64
	// bits for IbS, Iz and relative branches.
	Imm  uint64
	Imm2 uint64 // ENTER's level; a far pointer's selector
}
