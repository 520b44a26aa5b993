// Package jit is tier 1 of the soft engine: it translates blocks of 64-bit and flat 32-bit guest code to code of the host, which is amd64.
//
// A guest instruction is emitted again with its registers renamed and its memory
// operand replaced by a look into the software TLB. Whatever is not emitted, and
// every access that the TLB does not grant, leaves the translated code with the
// guest's state exact; the caller then runs that instruction by its definition.
// Single runs one AVX instruction for a caller that has only that.
package jit

// Frame is the part of a vCPU's state that translated code shares with its caller
// alone. It lies outside the Go heap.
type Frame struct {
	// FlagA, FlagB, FlagKind and FlagC say what the six status flags are: see the Flags constants.
	FlagA, FlagB uint64
	FlagKind     uint32

	Exit uint32 // index of the Exit that was taken
	VA   uint64 // of a Miss

	FlagC uint64

	Budget int64 // instructions left before translated code returns

	// Tags is what an entry of Jumps must have: for an address in the lower half, in the upper.
	// Their two low bits are the MMUIndex and 1.
	Tags  [2]uint64
	Jumps uintptr // address of the first Jump

	Scratch uint64           // a value between the two accesses of one instruction
	Hosts   [maxHosts]uint64 // host addresses within a block: see group

	System

	XMM   [16][2]uint64
	YMMH  [16][2]uint64 // the upper halves of YMM
	MXCSR uint32
	// FPLoaded: the host's registers hold XMM and MXCSR (1), and YMMH (2). FPUsable: what they may.
	FPLoaded, FPUsable uint8

	// X87Image is x87 and MMX state as FNSAVE of 64-bit mode stores it, its pointers
	// meaningless; FIP, FDP and FOP are those. X87 says whether they hold the guest's.
	X87Image [108]byte
	X87      uint8
	FOP      uint16
	FIP, FDP uint64

	hostMXCSR uint32 //nolint:unused // enter keeps the host's there
}

const maxHosts = 16

// Kinds of FlagKind: the low byte. Width bits follow.
const (
	// FlagsCore: the caller's own form holds.
	FlagsCore uint32 = iota
	// FlagsRaw: bits 8-15 of FlagA are SF ZF AF PF CF as LAHF gives them, bit 0 is OF.
	FlagsRaw
	FlagsLogic // of the result FlagA
	FlagsAdd   // of the sum FlagA, one operand of which is FlagB
	FlagsSub   // of the difference FlagA, whose subtrahend is FlagB
	FlagsCmp   // of FlagA - FlagB
	FlagsTest  // of FlagA AND FlagB

	FlagsKind = 0xff
	// FlagsWidth is log2 of the operands' bytes.
	FlagsWidth      = 3 << flagsWidthShift
	flagsWidthShift = 8

	// FlagsInc and FlagsDec: since then FlagC was the result of an INC or DEC, so only CF is as the
	// kind says. From FlagsStepWidth up is log2 of its bytes.
	FlagsInc       = 1 << stepShift
	FlagsDec       = 2 << stepShift
	FlagsStepWidth = stepShift + 2
	stepShift      = 16
)

// Jump is an entry of the table that maps linear addresses to translated code.
// Jumps holds JumpEntries of them; a look-up goes to the one at JumpIndex, then to
// that with the lowest bit of the index the other way.
//
//	0 RIP | 8 Tag | 16 Code | 24 Page
type Jump struct {
	RIP, Tag uint64
	Code     uintptr
	Page     uint64 // where RIP's begins
}

// JumpEntries is the size of the table, a power of two.
const JumpEntries = 1 << 15

// JumpIndex is where the table may hold rip.
func JumpIndex(rip uint64) uint64 { return (rip ^ rip>>12) & (JumpEntries - 1) }

// Layout says where translated code finds the vCPU's state: byte offsets from
// the Frame.
type Layout struct {
	R       int32 // sixteen general registers, a zero, and RIP of the current page's first byte
	SegBase int32
	SegEnd  int32 // six: of 32-bit code's FS and GS, one past the last offset, or 0
	RIP     int32
	Flags   int32 // RFLAGS without the status flags
	TLB     int32 // three mmu.TLBs
	CPL     int32
	// MMUIndex is which TLB accesses go through, which follows from CPL, AC and SMAP.
	MMUIndex int32
	CR       [5]int32 // CR0, CR2, CR3 and CR4
	EFER     int32
	Pending  int32 // not 0: see what to do at the next occasion
	Seg      int32 // six x86.Segments, SegSize apart
	SegSize  int32
	V3       bool // the guest's CPU is an x86-64-v3 one: see AVX
}

// Kind is why translated code returned.
type Kind uint8

// The kinds.
const (
	// Miss: the TLB does not grant the access to VA. Once it does, the caller may
	// enter again at Retry. Else the instruction at Off is to be run by its definition.
	Miss     Kind = iota
	Step          // the instruction at Off is to be run by its definition
	Edge          // control goes to Target in the same page, whose block is not linked yet
	Spent         // control goes to Target, the block's own start, and the budget is spent; also what an Edge is then
	Far           // control goes to Target, which is another page's, and the table does not have it
	Indirect      // it goes to RIP, likewise; the instruction at Off went there
	Dead          // the block to be entered, at Off, has been removed
	Lazy          // the flags are wanted as FlagsRaw; then Retry
	Split         // control goes to Target in the same page, a block whose accesses are checked each for itself
	Load          // Frame.X87 is to be X87Saved, then Retry; or it is a Step

	Kinds = iota // how many there are
)

// String is the kind's name in reports.
func (k Kind) String() string {
	return [...]string{"miss", "step", "edge", "spent", "far", "indirect", "dead", "lazy", "split", "load"}[k]
}

// Exit describes one way out of translated code.
type Exit struct {
	// Target is relative to the page; of an Indirect it is what RSP was moved by.
	Target int64
	// Retry is where Run enters to have the instruction begin again, and of a Step where it
	// may enter once that has been run, unless 0: if control got to the next instruction and
	// the block is still there.
	Retry Entry

	inst        int32  // of a Step: its number, from 1; 0 if its bytes are none
	patch, stub uint32 // of an Edge: its jump's displacement, and where that leads while not linked
	// Of a Far, which has patch too: where it has the page and the tag that it is linked for, and
	// which of Tags it looks at; the unit it is linked to.
	where, patchTag uint32
	to              Entry

	Off   uint16 // of the instruction in its page
	Kind  Kind
	Count uint8 // instructions of the block done, that the budget does not know of
	Size  uint8 // bytes of a Miss's access
	Write bool
}

// Entry is a place in a Cache where Run may enter.
type Entry uint32
