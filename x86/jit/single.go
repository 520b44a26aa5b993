package jit

import (
	"fmt"

	"berth/x86/decode"
	"berth/x86/optab"
)

// Operands is what one VEX instruction works on. Each vector is a YMM register.
//
//	0 Reg | 32 V | 64 RM | 96 Is4 | 128 Mem | 160 GPR | 168 GPRM | 176 MXCSR | 180 Flags
type Operands struct {
	Reg, V, RM, Is4 [4]uint64 // the registers in ModRM.reg, VEX.vvvv, ModRM.rm and the immediate
	Mem             [4]uint64 // the memory operand, zero-extended
	GPR, GPRM       uint64    // the general registers in ModRM.reg and ModRM.rm
	MXCSR           uint32    // with every exception masked; after it, what it has become
	Flags           uint32    // RFLAGS after it
}

// Single runs VEX instructions one at a time on the host, each re-encoded for the
// same registers. Only one thread may use it.
type Single struct {
	mem  mapping
	used int
	code map[singleKey]Entry
}

// singleKey is what tells encodings apart.
type singleKey struct {
	row          *optab.Row
	imm, l, size uint8
	mem          bool
}

const (
	singleSize = 64 << 10 // of the code
	singleMax  = 16       // bytes of one instruction with its return
)

// NewSingle returns a Single for a host with AVX2 and FMA: see AVX.
func NewSingle() (*Single, error) {
	mem, err := mapTwice(singleSize)
	if err != nil {
		return nil, fmt.Errorf("jit: %w", err)
	}
	return &Single{mem: mem, code: map[singleKey]Entry{}}, nil
}

// Close unmaps the code.
func (s *Single) Close() error {
	if s == nil {
		return nil
	}
	return s.mem.close()
}

// Run executes in, which has a VEX prefix, no vector index and no implicit operand.
func (s *Single) Run(in *decode.Inst, o *Operands) {
	key := singleKey{in.Row, uint8(in.Imm), in.L, in.OpSize, in.Mem}
	e, ok := s.code[key]
	if !ok {
		e = s.add(in)
		s.code[key] = e
	}
	runSingle(s.mem.address(e), o)
}

// add emits the instruction with registers 0 in ModRM.reg, 1 in vvvv, 2 in ModRM.rm,
// 3 in the immediate, and its memory at RSI.
func (s *Single) add(in *decode.Inst) Entry {
	if s.used+2*singleMax > singleSize { // an instruction is emitted by words, which reach further
		s.used = 0
		clear(s.code)
	}
	e := buf{b: s.mem.rw[s.used:]}
	v, rm := uint8(0), regRM(2)
	imm, hasImm := uint8(in.Imm), false
	for _, a := range in.Row.Args {
		switch a {
		case optab.Hx, optab.By:
			v = 1
		case optab.Ib:
			hasImm = true
		case optab.Lx:
			hasImm, imm = true, 3<<4|imm&15
		}
	}
	if in.Mem {
		rm = at(rSI, 0)
	}
	e.vexInst(vexOf(in), uint8(max(in.Row.Digit, 0)), v, rm)
	if in.Row.Op == optab.VZEROUPPER {
		e.n--
	}
	if hasImm {
		e.bytes(imm)
	}
	e.bytes(0xc3)
	at := Entry(s.used)
	s.used += singleMax
	return at
}

// vexOp is a VEX instruction's encoding apart from its operands.
type vexOp struct {
	pp, mmmmm, opcode byte
	w, l              bool
}

func vexOf(in *decode.Inst) vexOp {
	return vexOp{
		pp:     [...]byte{optab.PAny: 0, optab.PNone: 0, optab.P66: 1, optab.PF3: 2, optab.PF2: 3}[in.Row.Prefix],
		mmmmm:  byte(in.Row.Map-optab.MapV0F) + 1,
		opcode: in.Opcode, w: in.OpSize == 8, l: in.L != 0,
	}
}

// vexInst emits one instruction with a VEX prefix.
func (e *buf) vexInst(o vexOp, reg, v uint8, m rm) {
	e.touch(reg)
	e.touch(v)
	first := o.mmmmm | 0xe0
	if reg >= 8 {
		first &^= 0x80
	}
	if m.index != noReg && m.index >= 8 {
		first &^= 0x40
	}
	if m.reg != noReg && m.reg >= 8 {
		first &^= 0x20
	}
	second := o.pp | ^v&15<<3
	if o.w {
		second |= 0x80
	}
	if o.l {
		second |= 4
	}
	e.bytes(0xc4, first, second, o.opcode)
	e.modrm(reg&7, m)
}
