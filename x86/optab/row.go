package optab

import "sync"

// VEX reports that the row's instruction has a VEX prefix.
func (r *Row) VEX() bool { return r.Map >= MapV0F }

// VEXAligned reports the operations whose memory operand, behind a VEX prefix, must stand at a multiple
// of its size (Intel SDM vol. 2 table 2-15, exceptions type 1).
func (o Op) VEXAligned() bool {
	switch o {
	case MOVAPS, MOVAPD, MOVDQA, MOVNTPS, MOVNTPD, MOVNTDQ, MOVNTDQA:
		return true
	}
	return false
}

// Row is one encoding of one operation.
type Row struct {
	Op     Op
	Map    Map
	Opcode uint8
	Prefix Prefix
	Digit  int8  // ModRM.reg that selects the row, or -1
	Mod    Mod   // which ModRM forms the row takes
	RM     int8  // ModRM.rm that selects the row (with Mod == ModReg), or -1
	Args   []Arg // operands in Intel's order
	Flags  Flags
}

// Map is an opcode map.
type Map uint8

// The opcode maps.
const (
	Map1    Map = iota // one byte
	Map0F              // 0F
	Map0F38            // 0F 38
	Map0F3A            // 0F 3A
	MapV0F             // the same three behind a VEX prefix
	MapV0F38
	MapV0F3A
)

// Prefix is a row's mandatory prefix.
type Prefix uint8

// Mandatory prefixes. PAny rows take 66 as an operand-size prefix, and F2/F3 as
// REP or not at all; the others tell rows of one opcode apart.
const (
	PAny  Prefix = iota
	PNone        // none of 66, F2, F3
	P66
	PF3
	PF2
)

// Mod restricts ModRM.mod.
type Mod uint8

// ModRM restrictions.
const (
	ModNone Mod = iota // the row has no ModRM byte
	ModAny
	ModMem
	ModReg
)

// Arg is an operand kind, in the letters of the Intel opcode maps (SDM vol. 2D
// appendix A): E and G are ModRM operands, W and V XMM, Q and P MMX, N and U
// register-only, I immediate, J relative, O moffs, Z the register in the opcode.
type Arg uint8

// Operand kinds.
const (
	ArgNone Arg = iota
	Eb
	Ew
	Ed
	Ev
	Ey // 32 or 64 bits: 64 with REX.W
	Ry // the register in ModRM.rm whatever mod says, 64 bits in 64-bit mode, else 32
	Gb
	Gw
	Gd
	Gv
	Gy
	Ib  // zero-extended
	IbS // sign-extended
	Iw  // zero-extended
	Iz  // 16 or 32 bits, sign-extended
	Iv  // up to 64 bits (MOV r64, imm64), zero-extended
	Jb
	Jz // 16 or 32 bits
	Ob // memory at the address in the instruction
	Ov
	Zb // register in the opcode's low bits
	Zv
	AL
	CL
	DX
	RAXv // accumulator of operand size
	One
	Sw // segment register in ModRM.reg
	SegES
	SegCS
	SegSS
	SegDS
	SegFS
	SegGS
	Cd // control register
	Dd // debug register
	M  // memory, size given by the operation
	Mb
	Mw
	Md
	Mq
	Mdq // 16 bytes
	Mt  // 10 bytes
	Mp  // far pointer
	Ms  // descriptor-table operand
	Ap  // far pointer in the instruction
	ST0
	STi
	Vx // XMM, ModRM.reg
	Wb // XMM or 8-bit memory
	Ww
	Wd
	Wq
	Wx // XMM or 16-byte memory
	Ux // XMM, register form only
	Pq // MMX, ModRM.reg
	Qd // MMX or 32-bit memory
	Qq // MMX or 64-bit memory
	Nq // MMX, register form only
	XMM0
	// VEX rows only; there Vx and Wx are XMM or YMM by VEX.L.
	Hx  // the vector register in VEX.vvvv
	Lx  // the one in the immediate's upper four bits
	By  // the general register in VEX.vvvv, 64 bits with VEX.W
	Vo  // XMM whatever VEX.L, ModRM.reg
	Wo  // XMM or 16-byte memory whatever VEX.L
	Wh  // XMM or half a vector of memory
	Wf  // XMM or a fourth of one
	We  // XMM or an eighth of one
	Wdp // XMM or 8-byte memory, with VEX.L YMM or 32-byte memory
	Mx  // memory, 16 or 32 bytes
	Mvd // memory at several 32-bit indices (VSIB)
	Mvq // and at 64-bit ones
	Xb  // byte at Seg:rSI (string source; XLAT's is at rBX+AL)
	Xv
	Yb // byte at ES:rDI (string destination)
	Yv
)

// Flags are a row's properties.
type Flags uint16

// Properties.
const (
	No64       Flags = 1 << iota // #UD in 64-bit mode
	Only64                       // #UD outside 64-bit mode
	Lockable                     // LOCK allowed with a memory destination
	Default64                    // operand size 64 in 64-bit mode, 66 makes it 16
	Force64                      // operand size 64 in 64-bit mode, whatever 66 says
	Privileged                   // #GP unless CPL 0
	RepString                    // F3/F2 repeat it
	CondLow4                     // the opcode's low four bits are a condition
	RexW                         // the row of its opcode that REX.W selects
	Max32                        // REX.W does not widen: operand size 2 or 4
	W0                           // #UD with VEX.W
	W1                           // #UD without
	L0                           // #UD with VEX.L
	L1                           // #UD without
	LIG                          // VEX.L is ignored
)

// Rows returns the whole table: the families' tables one after another. It is
// built at the first call, for a VM on KVM needs none; nobody may write to it.
func Rows() []Row { return rows() }

var rows = sync.OnceValue(func() []Row {
	return join(integerRows(), systemRows(), x87Rows(), sseRows(), vexRows(), bmiRows())
})
