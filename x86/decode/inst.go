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

// Inst is one decoded instruction. The zero Index/Base mean RAX: a form without
// them says NoReg.
type Inst struct {
	Row      *optab.Row
	Op       optab.Op
	Len      uint8
	Opcode   uint8 // last opcode byte; its low nibble is the condition of Jcc, SETcc, CMOVcc
	OpSize   uint8 // effective operand size in bytes: 1 for byte forms, else 2, 4, 8
	AddrSize uint8 // 2, 4, 8
	Mode     Mode

	Lock bool
	Rep  bool // F3 present and meaning REP/REPE
	RepN bool // F2 present and meaning REPNE
	P66  bool // 66 present, whatever it means
	Rex  bool // any REX: byte registers 4-7 are SPL, BPL, SIL, DIL

	// ModRM operands. Reg is modrm.reg with REX.R, or the register in the
	// opcode with REX.B for Zb and Zv rows. RM is modrm.rm with REX.B in the register form.
	Reg uint8
	RM  uint8
	Mem bool // the E/M/W/Q operand is memory: Base + Index<<Scale + Disp in Seg

	Base, Index, Scale uint8
	Seg                uint8 // x86.ES…GS after overrides and the SS default of RSP/RBP
	SegOverride        bool
	Disp               int64

	Imm  uint64 // sign- or zero-extended as the operand says; relative branches: sign-extended displacement
	Imm2 uint64 // ENTER's level; a far pointer's selector
}
