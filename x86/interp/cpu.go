// Package interp is tier 0 of the soft engine: an interpreter of pre-decoded basic blocks, and the oracle for the rest.
package interp

import (
	"berth/x86"
	"berth/x86/decode"
	"berth/x86/mmu"
)

// Core is the part of a vCPU's state that translated code will reach too. It
// holds no Go pointers and lives outside the Go heap (one anonymous mapping a
// vCPU). Only the vCPU's thread touches it, but for Pending.
type Core struct {
	// R holds the general registers; R[decode.NoReg] is always 0.
	R   [18]uint64
	RIP uint64

	// The six status flags are lazy. Res is the last result, sign-extended from
	// its width to 64 bits; Aux keeps what Res cannot say:
	//
	//	63 CF | 62 CF^OF | 15..8 parity difference | 3 AF | 0 SF difference
	//
	// ZF = Res == 0; SF = Res>>63 ^ Aux&1; CF = Aux>>63; OF = Aux>>63 ^ Aux>>62&1;
	// AF = Aux>>3&1; PF = even parity of byte(Res) ^ byte(Aux>>8).
	Res, Aux uint64
	// Flags holds RFLAGS without the six status flags (bit 1 set).
	Flags uint64

	// SegBase is what address calculation adds, by segment register: the
	// descriptor's base, or 0 for ES, CS, SS, DS in 64-bit mode.
	SegBase [6]uint64
	Seg     [8]x86.Segment
	GDT     x86.Table
	IDT     x86.Table

	CR0, CR2, CR3, CR4, EFER, XCR0 uint64
	DR                             [8]uint64
	CPL                            uint8
	Mode                           decode.Mode // of the code segment
	MMUIndex                       uint8       // which TLB: see the MMU constants

	// Pending, not 0, makes the engine leave straight-line execution at the
	// next block boundary. Atomic: any thread sets bits, the vCPU clears them.
	// It is also the futex word that a halted vCPU sleeps on.
	Pending uint32

	Instructions uint64 // executed since reset

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
	faulted               // exc says why; no state but exc changed; RIP is still the instruction's
	again                 // RIP stays: a repeated instruction paused between iterations, state consistent
	stopped               // leave Run: exit is filled
)
