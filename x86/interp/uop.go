package interp

import (
	"errors"
	"math"

	"berth/x86"
	"berth/x86/decode"
	"berth/x86/optab"
)

// uop is one micro-op: an instruction, or a comparison and the jump after it,
// in the form that the run loop executes. 24 bytes.
type uop struct {
	kind uint16
	off  uint16 // of the instruction in its page
	len  uint8  // of the instruction; of a conditional branch, its exit's index
	idx  uint8  // instructions of the block before it

	// Register operands; x is 8 if dst is the second byte of its register, plus
	// 0x80 if src is. In SETcc and CMOVcc with memory, src and x are the condition.
	dst, src, x        uint8
	base, index, scale uint8 // of the address; registers from regSeg are segment bases
	disp               int32
	imm                uint64
}

// regSeg is the number of ES's base among the registers of an address.
const regSeg = 18

// translator turns instructions into a block's micro-ops.
type translator struct {
	c    *CPU
	b    *block
	flat bool
	mode decode.Mode
	pos  uint16 // of the instruction in its page
	in   decode.Inst
	over bool // the block is complete
}

// run decodes from code until the block ends. again: the first instruction does
// not fit in code.
func (t *translator) run(code []byte) status {
	b := t.b
	for !t.over && b.n < maxInstructions {
		err := decode.Decode(code, t.mode, &t.in)
		if errors.Is(err, decode.ErrTruncated) && len(code) < decode.MaxLen {
			if b.n == 0 {
				return again
			}
			break
		}
		if err != nil { // the bytes looked at decide: the block covers them
			vector := uint8(x86.UD)
			if errors.Is(err, decode.ErrTruncated) {
				vector, t.in.Len = x86.GP, decode.MaxLen
			}
			t.in.Len = max(t.in.Len, 1)
			t.emit(uop{kind: uRaise, src: vector})
			t.over = true
		} else {
			t.instruction()
		}
		b.n++
		t.pos += uint16(t.in.Len)
		code = code[min(len(code), int(t.in.Len)):]
		if b.cross {
			break
		}
	}
	if !t.over {
		t.in.Len = 0
		t.emit(uop{kind: uEnd})
	}
	b.end = t.pos
	for i := range b.exits {
		b.exits[i].skipped = b.n - b.exits[i].skipped
	}
	t.simplify()
	b.fallInside = t.flat64() && b.end < pageSize
	return next
}

// simplify replaces micro-ops by cheaper ones: addresses without index, and
// arithmetic whose flags nobody can see, as each is overwritten before anything
// that reads flags, faults or leaves the block.
func (t *translator) simplify() {
	ops := t.b.ops
	seen := true // by what follows
	for i := len(ops) - 1; i >= 0; i-- {
		u := &ops[i]
		k := int(u.kind)
		if u.index == decode.NoReg && k < len(withoutIndex) && withoutIndex[k] != 0 {
			u.kind = withoutIndex[k]
		}
		switch {
		case k < len(withoutFlags) && withoutFlags[k] != 0:
			if !seen {
				u.kind = withoutFlags[k]
			}
			seen = false
		case k >= len(plain) || !plain[k]:
			seen = true
		}
	}
}

// flat64 reports that near branches need no segment checks: 64-bit mode, or flat 32-bit code.
func (t *translator) flat64() bool {
	return t.mode == decode.Mode64 || t.mode == decode.Mode32 && t.flat
}

func (t *translator) emit(u uop) {
	u.off, u.len, u.idx = t.pos, t.in.Len, t.b.n
	t.b.ops = append(t.b.ops, u)
}

// instruction emits the micro-op of t.in.
func (t *translator) instruction() {
	if !t.in.Lock && (t.specialise() || t.flow()) {
		return
	}
	u := uop{kind: t.generic(), imm: uint64(len(t.b.insts))}
	t.b.insts = append(t.b.insts, t.in)
	t.emit(u)
	t.over = t.over || u.kind != uGeneric
}

// generic returns how to run an instruction by its definition: within a block,
// as its last, or as the last before conditions may have changed.
func (t *translator) generic() uint16 {
	switch op := t.in.Op; {
	case op >= optab.JCC && op <= optab.LOOPNE:
		return uBranch
	case op >= optab.FirstSystem && op <= optab.LastSystem:
		switch op {
		case optab.CLI, optab.SWAPGS, optab.RDMSR, optab.RDFSBASE, optab.RDGSBASE, optab.WRFSBASE, optab.WRGSBASE,
			optab.CLTS, optab.SGDT, optab.SIDT, optab.SLDT, optab.STR, optab.SMSW, optab.LAR, optab.LSL, optab.VERR,
			optab.VERW, optab.XGETBV, optab.RDPMC:
			return uGeneric
		}
		return uSystem
	default:
		switch op {
		case optab.POPF, optab.POPSEG, optab.JMPFAR, optab.CALLFAR, optab.RETFAR, optab.IRET, optab.INT, optab.INT3,
			optab.INTO, optab.INT1, optab.UD0, optab.UD1, optab.UD2, optab.LDS, optab.LES, optab.LFS, optab.LGS,
			optab.LSS, optab.IN, optab.OUT, optab.INS, optab.OUTS, optab.CPUID:
			return uSystem
		}
	}
	return uGeneric
}

// address puts t.in's memory operand into u; not ok: it has no short form.
func (t *translator) address(u *uop) bool {
	in := &t.in
	if in.Mode != decode.Mode64 || in.AddrSize != 8 {
		return false
	}
	u.base, u.index, u.scale = in.Base, in.Index, in.Scale
	disp := in.Disp
	if in.Base == decode.RIP {
		disp += int64(t.pos) + int64(in.Len)
	}
	if in.Seg >= x86.FS {
		switch {
		case in.Index == decode.NoReg:
			u.index, u.scale = regSeg+in.Seg, 0
		case in.Base == decode.NoReg:
			u.base = regSeg + in.Seg
		default:
			return false
		}
	}
	u.disp = int32(disp)
	return disp >= math.MinInt32 && disp <= math.MaxInt32
}

// setDst and setSrc put a register operand of size bytes into u.
func (t *translator) setDst(u *uop, n, size uint8) {
	u.dst = n
	if size == 1 && n&^3 == 4 && !t.in.Rex {
		u.dst, u.x = n&3, u.x|8
	}
}

func (t *translator) setSrc(u *uop, n, size uint8) {
	u.src = n
	if size == 1 && n&^3 == 4 && !t.in.Rex {
		u.src, u.x = n&3, u.x|0x80
	}
}

// Operand forms, in the order of the arithmetic micro-ops.
const (
	formRR = iota
	formRI
	formRM
	formMR
	formMI
	formNone
)

// form puts the two operands of t.in into u and says which form they make.
func (t *translator) form(u *uop, size uint8) int {
	in := &t.in
	a0, a1 := in.Row.Args[0], in.Row.Args[1]
	dst, dstMem := regOf(in, a0)
	if dstMem {
		if !t.address(u) {
			return formNone
		}
	} else {
		t.setDst(u, dst, size)
	}
	switch a1 {
	case optab.Ib, optab.IbS, optab.Iz, optab.Iv, optab.Iw:
		u.imm = in.Imm
		if dstMem {
			return formMI
		}
		return formRI
	case optab.One, optab.CL:
		return formNone
	}
	src, srcMem := regOf(in, a1)
	switch {
	case srcMem:
		if !t.address(u) {
			return formNone
		}
		return formRM
	case dstMem:
		t.setSrc(u, src, size)
		return formMR
	}
	t.setSrc(u, src, size)
	return formRR
}

// specialise emits t.in as a micro-op of its own if there is one.
func (t *translator) specialise() bool {
	in := &t.in
	var u uop
	ok := false
	switch op := in.Op; op {
	case optab.ADD, optab.OR, optab.ADC, optab.SBB, optab.AND, optab.SUB, optab.XOR, optab.CMP, optab.TEST:
		size := argSize(in, in.Row.Args[0])
		f := t.form(&u, size)
		u.kind = uAddRR8 + uint16(op-optab.ADD)*20 + uint16(f)*4 + uint16(log2(size))
		ok = f != formNone
	case optab.MOV:
		size := argSize(in, in.Row.Args[0])
		f := t.form(&u, size)
		u.kind = uMovRR8 + uint16(f)*4 + uint16(log2(size))
		ok = f != formNone
	case optab.INC, optab.DEC, optab.NEG, optab.NOT:
		ok = t.unary(&u)
	case optab.MOVZX, optab.MOVSX, optab.MOVSXD:
		ok = t.extend(&u)
	case optab.LEA:
		ok = t.lea(&u)
	case optab.SHL, optab.SHR, optab.SAR, optab.ROL, optab.ROR:
		ok = t.shift(&u)
	case optab.IMUL:
		ok = t.multiply(&u)
	case optab.SETCC, optab.CMOVCC:
		ok = t.conditional(&u)
	case optab.BT:
		ok = t.bitTest(&u)
	case optab.PUSH, optab.POP, optab.LEAVE:
		ok = t.stack(&u)
	case optab.NOP, optab.PREFETCH, optab.PREFETCHW, optab.LFENCE, optab.SFENCE:
		u.kind, ok = uNop, true
	case optab.CBW, optab.CWD:
		ok = t.widen(&u)
	}
	if ok {
		t.emit(u)
	}
	return ok
}

func (t *translator) unary(u *uop) bool {
	in := &t.in
	size := argSize(in, in.Row.Args[0])
	kind := map[optab.Op]uint16{optab.INC: uIncR8, optab.DEC: uDecR8, optab.NEG: uNegR8, optab.NOT: uNotR8}[in.Op]
	n, mem := regOf(in, in.Row.Args[0])
	if mem {
		u.kind = kind + 4 + uint16(log2(size))
		return t.address(u)
	}
	t.setDst(u, n, size)
	u.kind = kind + uint16(log2(size))
	return true
}

// extend is MOVZX, MOVSX and MOVSXD to 32 and 64 bits.
func (t *translator) extend(u *uop) bool {
	in := &t.in
	from := argSize(in, in.Row.Args[1])
	if in.OpSize < 4 || from > 4 || from >= in.OpSize {
		return false
	}
	kind := uMovZxR8
	if in.Op != optab.MOVZX {
		kind = uMovSx32R8
		if in.OpSize == 8 {
			kind = uMovSx64R8
		}
	}
	u.dst = in.Reg
	if in.Mem {
		u.kind = kind + 3 + uint16(log2(from))
		return t.address(u)
	}
	t.setSrc(u, in.RM, from)
	u.kind = kind + uint16(log2(from))
	return true
}

func (t *translator) lea(u *uop) bool {
	in := &t.in
	seg := in.Seg
	in.Seg = x86.DS // LEA ignores segments
	ok := t.address(u)
	in.Seg = seg
	u.dst, u.kind = in.Reg, uLea64
	if in.OpSize == 4 {
		u.kind = uLea32
	}
	return ok && in.OpSize >= 4
}

func (t *translator) shift(u *uop) bool {
	in := &t.in
	if in.Mem || in.OpSize < 4 {
		return false
	}
	u.dst = in.RM
	w := uint16(log2(in.OpSize) - 2)
	arg := in.Row.Args[1]
	if arg == optab.CL {
		u.kind = map[optab.Op]uint16{optab.SHL: uShlC32, optab.SHR: uShrC32, optab.SAR: uSarC32}[in.Op]
		if u.kind == 0 {
			return false
		}
		u.kind += w
		return true
	}
	u.imm = 1
	if arg == optab.Ib {
		u.imm = in.Imm & countMask(in.OpSize)
	}
	u.kind = map[optab.Op]uint16{optab.SHL: uShlI32, optab.SHR: uShrI32, optab.SAR: uSarI32, optab.ROL: uRolI32, optab.ROR: uRorI32}[in.Op] + w
	return u.imm != 0
}

func (t *translator) multiply(u *uop) bool {
	in := &t.in
	if len(in.Row.Args) < 2 || in.OpSize < 4 {
		return false
	}
	u.dst, u.src, u.imm = in.Reg, in.RM, in.Imm
	u.kind = uImulRR32
	if len(in.Row.Args) == 3 {
		u.kind = uImulRRI32
	}
	if in.Mem {
		u.kind += 2
	}
	u.kind += uint16(log2(in.OpSize) - 2)
	return !in.Mem || t.address(u)
}

// conditional is SETcc and CMOVcc.
func (t *translator) conditional(u *uop) bool {
	in := &t.in
	if in.Op == optab.SETCC {
		u.kind = uSetRO + uint16(in.Opcode&15)
		if in.Mem {
			u.kind = uSetM
		}
		t.setDst(u, in.RM, 1)
		u.src = in.Opcode & 15
		return !in.Mem || t.address(u)
	}
	if in.OpSize < 4 {
		return false
	}
	u.dst, u.src, u.x = in.Reg, in.RM, in.Opcode&15
	w := uint16(log2(in.OpSize) - 2)
	if in.Mem {
		u.kind = uCmovRM32 + w
		return t.address(u)
	}
	u.kind = uCmovRR32O + 16*w + uint16(in.Opcode&15)
	return true
}

func (t *translator) bitTest(u *uop) bool {
	in := &t.in
	if in.Mem || in.OpSize < 4 {
		return false
	}
	w := uint16(log2(in.OpSize)-2) * 2
	u.dst, u.src, u.kind = in.RM, in.Reg, uBtRR32+w
	if in.Row.Args[1] == optab.Ib {
		u.imm, u.kind = in.Imm&(uint64(in.OpSize)*8-1), uBtRI32+w
	}
	return true
}

func (t *translator) stack(u *uop) bool {
	in := &t.in
	if in.Mode != decode.Mode64 || in.OpSize != 8 {
		return false
	}
	if in.Op == optab.LEAVE {
		u.kind = uLeave
		return true
	}
	switch in.Row.Args[0] {
	case optab.Iz, optab.IbS:
		u.kind, u.imm = uPushI, in.Imm
		return true
	}
	n, mem := regOf(in, in.Row.Args[0])
	if in.Op == optab.PUSH {
		u.kind, u.src = uPushR, n
	} else {
		u.kind, u.dst = uPopR, n
	}
	return !mem
}

func (t *translator) widen(u *uop) bool {
	switch in := &t.in; {
	case in.OpSize == 2:
		return false
	case in.Op == optab.CBW:
		u.kind = uCwde
		if in.OpSize == 8 {
			u.kind = uCdqe
		}
	case in.OpSize == 8:
		u.kind = uCqo
	default:
		u.kind = uCdq
	}
	return true
}

// flow emits near branches that need no segment checks.
func (t *translator) flow() bool {
	in := &t.in
	if !t.flat64() || in.OpSize < 4 {
		return false
	}
	long := t.mode == decode.Mode64
	u := uop{}
	switch in.Op {
	case optab.JCC:
		t.condition()
		return true
	case optab.JMP:
		if !t.jump(&u) {
			return false
		}
	case optab.CALL:
		if !long || !t.call(&u) {
			return false
		}
	case optab.RET:
		if !long || len(in.Row.Args) > 0 {
			return false
		}
		u.kind = uRet
	default:
		return false
	}
	t.emit(u)
	t.over = true
	return true
}

// condition emits a Jcc, fused with the comparison before it if there is one.
func (t *translator) condition() {
	b := t.b
	target := uint64(t.pos) + uint64(t.in.Len) + t.in.Imm
	b.exits = append(b.exits, exit{target: target, inside: target < pageSize, skipped: b.n + 1})
	if !t.fuse() {
		t.emit(uop{kind: uJO + uint16(t.in.Opcode&15)})
	}
	b.ops[len(b.ops)-1].len = uint8(len(b.exits) - 1)
}

// direct notes the branch's target in the block.
func (t *translator) direct() {
	b := t.b
	b.target = uint64(t.pos) + uint64(t.in.Len) + t.in.Imm
	b.takenInside = b.target < pageSize
}

func (t *translator) jump(u *uop) bool {
	in := &t.in
	n, mem := regOf(in, in.Row.Args[0])
	switch a := in.Row.Args[0]; {
	case a == optab.Jb || a == optab.Jz:
		u.kind = uJmp
		t.direct()
		return true
	case t.mode != decode.Mode64:
		return false
	case mem:
		u.kind = uJmpM
		return t.address(u)
	}
	u.kind, u.src = uJmpR, n
	return true
}

func (t *translator) call(u *uop) bool {
	in := &t.in
	n, mem := regOf(in, in.Row.Args[0])
	switch a := in.Row.Args[0]; {
	case a == optab.Jz:
		u.kind = uCall
		t.direct()
		return true
	case mem:
		u.kind = uCallM
		return t.address(u)
	}
	u.kind, u.src = uCallR, n
	return true
}

// fuse turns the comparison before the Jcc at hand into one micro-op with it.
func (t *translator) fuse() bool {
	ops := t.b.ops
	if len(ops) == 0 || ops[len(ops)-1].idx+1 != t.b.n {
		return false
	}
	u := &ops[len(ops)-1]
	cmp := [16]int{-1, -1, 0, 1, 2, 3, 4, 5, -1, -1, -1, -1, 6, 7, 8, 9}[t.in.Opcode&15]
	test := [16]int{-1, -1, -1, -1, 0, 1, -1, -1, 2, 3, -1, -1, -1, -1, 4, 5}[t.in.Opcode&15]
	var base, n int
	switch u.kind {
	case uCmpRR32, uCmpRR64:
		base, n = int(uFCmpRR32B+10*(u.kind-uCmpRR32)), cmp
	case uCmpRI32, uCmpRI64:
		base, n = int(uFCmpRI32B+10*(u.kind-uCmpRI32)), cmp
	case uCmpRM32, uCmpRM64:
		base, n = int(uFCmpRM32B+10*(u.kind-uCmpRM32)), cmp
	case uCmpMR32, uCmpMR64:
		base, n = int(uFCmpMR32B+10*(u.kind-uCmpMR32)), cmp
	case uCmpMI32, uCmpMI64:
		base, n = int(uFCmpMI32B+10*(u.kind-uCmpMI32)), cmp
	case uCmpRI8:
		base, n = int(uFCmpRI8B), cmp
	case uCmpMI8:
		base, n = int(uFCmpMI8B), cmp
	case uTestRR32, uTestRR64:
		base, n = int(uFTestRR32Z+6*(u.kind-uTestRR32)), test
	case uTestRI32, uTestRI64:
		base, n = int(uFTestRI32Z+6*(u.kind-uTestRI32)), test
	case uTestRR8:
		base, n = int(uFTestRR8Z), test
	case uTestRI8:
		base, n = int(uFTestRI8Z), test
	case uTestMI8:
		base, n = int(uFTestMI8Z), test
	default:
		return false
	}
	if n < 0 {
		return false
	}
	u.kind = uint16(base + n)
	return true
}
