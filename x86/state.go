// Package x86 holds the x86-64 architecture's registers, CPU state, and the names of its CPUID leaves and MSRs.
package x86

// General-purpose register numbers, as instructions encode them.
const (
	RAX = iota
	RCX
	RDX
	RBX
	RSP
	RBP
	RSI
	RDI
	R8
	R9
	R10
	R11
	R12
	R13
	R14
	R15
)

// Segment register numbers, as instructions encode them.
const (
	ES = iota
	CS
	SS
	DS
	FS
	GS
	LDTR // not encodable; the state's order
	TR
)

// State is all architectural state of one vCPU, in accelerator-neutral form.
type State struct {
	Version uint32 // 1
	GPR     [16]uint64
	RIP     uint64
	RFLAGS  uint64
	Seg     [8]Segment // by ES…TR
	GDT     Table
	IDT     Table
	CR0     uint64
	CR2     uint64
	CR3     uint64
	CR4     uint64
	CR8     uint64
	EFER    uint64
	DR      [8]uint64 // 4 and 5 unused
	XCR0    uint64
	FPU     FPU
	XState  []XStateComponent // those not in their initial state
	MSRs    []MSR             // those not held elsewhere in State
	MP      MPState
	Events  Events
}

// Segment is a segment register with its descriptor cache.
type Segment struct {
	Selector uint16
	Attr     Attr
	Limit    uint32 // in bytes, granularity applied
	Base     uint64
}

// Attr is a descriptor's access rights in the layout of bits 40-55 of a
// descriptor (Intel SDM vol. 3A §3.4.5) with limit bits 8-11 zero, and
// AttrUnusable above.
//
//	15 G | 14 D/B | 13 L | 12 AVL | 11..8 0 | 7 P | 6..5 DPL | 4 S | 3..0 type
type Attr uint32

// Bits of Attr.
const (
	AttrTypeMask Attr = 0xf
	AttrAccessed Attr = 1 << 0
	AttrRW       Attr = 1 << 1 // data: writable; code: readable
	AttrDC       Attr = 1 << 2 // data: expand down; code: conforming
	AttrCode     Attr = 1 << 3
	AttrS        Attr = 1 << 4 // code or data, not system
	AttrP        Attr = 1 << 7
	AttrAVL      Attr = 1 << 12
	AttrL        Attr = 1 << 13
	AttrDB       Attr = 1 << 14
	AttrG        Attr = 1 << 15
	AttrUnusable Attr = 1 << 16
)

// DPL returns the descriptor privilege level.
func (a Attr) DPL() uint8 { return uint8(a>>5) & 3 }

// Type returns the four-bit type field.
func (a Attr) Type() uint8 { return uint8(a & AttrTypeMask) }

// Table is GDTR or IDTR.
type Table struct {
	Base  uint64
	Limit uint16
}

// FPU is the x87, MMX and SSE state. ST holds the physical stack relative to
// TOP, as FXSAVE stores it: ST[0] is the top.
type FPU struct {
	ST    [8]F80
	FCW   uint16
	FSW   uint16 // TOP included
	FTW   uint8  // abridged: a set bit is a valid physical register
	FOP   uint16
	FIP   uint64
	FDP   uint64
	MXCSR uint32
	XMM   [16][2]uint64 // low quadword first
	YMMH  [16][2]uint64 // upper halves
}

// XStateComponent is one component of the extended state beyond AVX, as XSAVE
// stores it (Intel SDM vol. 1 §13.4 and §13.5; 5-7 AVX-512, 9 PKRU).
type XStateComponent struct {
	Number uint8
	Data   []byte
}

// F80 is one 80-bit extended-precision value (Intel SDM vol. 1 §4.2.2).
type F80 struct {
	Mant uint64 // explicit integer bit 63
	SE   uint16 // sign bit 15, exponent 14..0
}

// MSR is one model-specific register's value.
type MSR struct {
	Index uint32
	Value uint64
}

// MPState is where a vCPU stands between reset and running.
type MPState uint8

// MP states (Intel SDM vol. 3A §9.4).
const (
	MPRunnable MPState = iota
	MPHalted
	MPWaitSIPI      // after INIT
	MPSIPI          // SIPI received, not started
	MPUninitialized // application processor before INIT
)

// Events are interrupts and exceptions on their way into the vCPU.
type Events struct {
	Exception   Pending // being delivered when the state was taken
	Interrupt   Pending // external interrupt acknowledged but not delivered
	NMIPending  bool
	NMIMasked   bool
	ShadowSTI   bool // interrupts blocked for one instruction after STI
	ShadowMovSS bool // likewise after MOV SS or POP SS
	SIPIVector  uint8
}

// Pending is one event.
type Pending struct {
	Valid    bool
	Vector   uint8
	HasError bool
	Error    uint32
	Soft     bool // INT n, INT3 or INTO
}

// RFLAGS bits.
const (
	FlagCF   = 1 << 0
	FlagR1   = 1 << 1 // always 1
	FlagPF   = 1 << 2
	FlagAF   = 1 << 4
	FlagZF   = 1 << 6
	FlagSF   = 1 << 7
	FlagTF   = 1 << 8
	FlagIF   = 1 << 9
	FlagDF   = 1 << 10
	FlagOF   = 1 << 11
	FlagIOPL = 3 << 12
	FlagNT   = 1 << 14
	FlagRF   = 1 << 16
	FlagVM   = 1 << 17
	FlagAC   = 1 << 18
	FlagVIF  = 1 << 19
	FlagVIP  = 1 << 20
	FlagID   = 1 << 21
)

// CR0, CR4 and EFER bits.
const (
	CR0PE = 1 << 0
	CR0MP = 1 << 1
	CR0EM = 1 << 2
	CR0TS = 1 << 3
	CR0ET = 1 << 4
	CR0NE = 1 << 5
	CR0WP = 1 << 16
	CR0AM = 1 << 18
	CR0NW = 1 << 29
	CR0CD = 1 << 30
	CR0PG = 1 << 31

	CR4VME        = 1 << 0
	CR4PVI        = 1 << 1
	CR4TSD        = 1 << 2
	CR4DE         = 1 << 3
	CR4PSE        = 1 << 4
	CR4PAE        = 1 << 5
	CR4MCE        = 1 << 6
	CR4PGE        = 1 << 7
	CR4PCE        = 1 << 8
	CR4OSFXSR     = 1 << 9
	CR4OSXMMEXCPT = 1 << 10
	CR4UMIP       = 1 << 11
	CR4LA57       = 1 << 12
	CR4FSGSBASE   = 1 << 16
	CR4PCIDE      = 1 << 17
	CR4OSXSAVE    = 1 << 18
	CR4SMEP       = 1 << 20
	CR4SMAP       = 1 << 21

	EFERSCE = 1 << 0
	EFERLME = 1 << 8
	EFERLMA = 1 << 10
	EFERNXE = 1 << 11
)

// Exception vectors (Intel SDM vol. 3A §6.3.1).
const (
	DE      = 0
	DB      = 1
	NMI     = 2
	BP      = 3
	OF      = 4
	BR      = 5
	UD      = 6
	NM      = 7
	DF      = 8
	TS      = 10
	NP      = 11
	SSFault = 12
	GP      = 13
	PF      = 14
	MF      = 16
	AC      = 17
	MC      = 18
	XM      = 19
)
