// Package interp is the soft engine's vCPU: an interpreter of pre-decoded basic blocks, which runs 64-bit and flat 32-bit code through x86/jit if asked to.
package interp

import (
	"berth/x86"
	"berth/x86/decode"
	"berth/x86/jit"
	"berth/x86/mmu"
)

// Core is the part of a vCPU's state that translated code will reach too. It
// holds no Go pointers and lives outside the Go heap (one anonymous mapping a
// vCPU). Only the vCPU's thread touches it, but for Pending.
type Core struct {
	// R holds the general registers; R[decode.NoReg] is always 0. R[decode.RIP]
	// belongs to the run loop: the RIP of the current page's first byte.
	R [18]uint64
	// SegBase is what address calculation adds, by segment register: the
	// descriptor's base, or 0 for ES, CS, SS, DS in 64-bit mode. It follows R:
	// the run loop indexes both as one array (regSeg).
	SegBase [6]uint64
	_       [8]uint64 // so that any five-bit register number stays inside

	// SegEnd is one past the last offset in a segment that loads and stores may touch
	// outside 64-bit mode without any other check; 0: all need one.
	SegEnd [6]uint64

	RIP uint64

	// The six status flags are lazy: CC says what Res and Src mean.
	//
	// Res is the last result, shifted left so that its sign is bit 63: ZF is
	// always Res == 0. Src depends on the kind in CC's upper bits:
	//
	//	ccAdd   second operand, shifted like Res: CF, OF, AF follow from Res - Src
	//	ccAdc   the same of an addition with a carry in
	//	ccSub   subtrahend, shifted likewise: they follow from Res + Src
	//	ccSbb   the same of a subtraction with a borrow in
	//	ccInc   CF, unchanged, in bit 0; ccDec likewise
	//	ccLogic unused: CF = OF = AF = 0
	//	ccShl   the operand one shift before the last: CF is its top bit, OF that and Res's sign differing
	//	ccShr   likewise for SHR and SAR: CF is its bottom bit, OF as for ccShl
	//	ccMul   upper half of a signed product: CF and OF unless it only repeats Res's sign
	//	ccAux   CF, OF and AF at their places in RFLAGS
	//	ccFlags all six at their places in RFLAGS (Res agrees about ZF)
	//
	// SF and PF come from Res but for ccFlags. CC's two low bits are the
	// operand's width: log2 of its bytes.
	Res, Src uint64
	CC       uint8

	// Flags holds RFLAGS without the six status flags (bit 1 set).
	Flags uint64

	Seg [8]x86.Segment
	GDT x86.Table
	IDT x86.Table

	CR0, CR2, CR3, CR4, EFER, XCR0 uint64
	DR                             [8]uint64
	CPL                            uint8
	Mode                           decode.Mode // of the code segment
	MMUIndex                       uint8       // which TLB: see the MMU constants

	// Pending, not 0, makes the engine leave straight-line execution at the
	// next block boundary. Its bits are the pending constants. Atomic: any
	// thread sets bits, the vCPU clears them. It is also the futex word that a
	// halted vCPU sleeps on.
	Pending uint32

	Instructions uint64 // executed since reset
	TurnEnd      uint64 // the Instructions after which the host's CPU is offered to others: see turns

	// Frame is translated code's: see tier1. XMM and YMM registers live there always.
	Frame jit.Frame

	TLB [3]mmu.TLB // by MMUIndex
}

// Values of Core.MMUIndex: what the current privilege and AC flag may reach.
const (
	mmuSupervisor   = iota // CPL 0-2, SMAP enforced
	mmuSupervisorAC        // CPL 0-2 with user pages allowed (SMAP off or AC set)
	mmuUser                // CPL 3
)

// status is how an instruction ended.
type status uint8

const (
	next    status = iota // done: RIP moves past it
	jumped                // done: RIP was set
	faulted               // exc says why; no state but exc changed; RIP is still the instruction's.
	// Or the instruction is complete, and exc comes before the one at RIP
	again   // RIP stays: a repeated instruction paused between iterations, state consistent
	stopped // leave Run: exit is filled
)
