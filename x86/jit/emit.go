package jit

import (
	"encoding/binary"
	"math"
)

// Host registers by their numbers.
const (
	rAX = iota
	rCX
	rDX
	rBX
	rSP
	rBP
	rSI
	rDI
	r8
	r9
	r10
	r11
	r12
	r13
	r14
	r15

	tmp1   = r12 // addresses
	tmp2   = r13 // values
	budget = r14
	state  = r15  // the address given to Enter
	noReg  = 0x40 // no register: REX and ModRM have nothing of it
)

// Opcode maps as they are written.
const (
	mapOne  = 0
	map0F   = 1
	map0F38 = 2
	map0F3A = 3
)

// rm is the register-or-memory operand of an instruction.
type rm struct {
	mem   bool
	reg   uint8 // the register, or the base; noReg: none
	index uint8 // noReg: none
	scale uint8
	disp  int32
}

func regRM(r uint8) rm { return rm{reg: r, index: noReg} }

// at is memory at base+disp.
func at(base uint8, disp int32) rm { return rm{mem: true, reg: base, index: noReg, disp: disp} }

// op is an instruction's encoding apart from its operands.
type op struct {
	prefix byte // 0, 66, F2 or F3: part of the opcode
	lock   bool
	p66    bool // operand size 16
	w      bool // REX.W
	opmap  byte
	opcode byte
	// rex forces the prefix: byte registers 4 to 7 are SPL to DIL.
	rex bool
}

// code is an op in one word: the opcode and its escape bytes as they lie in memory, and from
// codePrefix up the prefix, and the rest.
//
//	0 bytes | 24 their bits | 32 prefix | 40 W | 41 rex | 42 lock | 43 p66
type code uint64

const (
	codeBits   = 24
	codePrefix = 32
	codeW      = code(1) << 40
	codeREX    = code(1) << 41
	codeLock   = code(1) << 42
	codeP66    = code(1) << 43

	codeLegacy = codeLock | codeP66 | 0xff<<codePrefix
)

func (o op) code() code {
	c := code(o.opcode) | 8<<codeBits
	switch o.opmap {
	case map0F:
		c = code(o.opcode)<<8 | 0x0f | 16<<codeBits
	case map0F38:
		c = code(o.opcode)<<16 | 0x380f | 24<<codeBits
	case map0F3A:
		c = code(o.opcode)<<16 | 0x3a0f | 24<<codeBits
	}
	c |= code(o.prefix) << codePrefix
	for i, on := range [...]bool{o.w, o.rex, o.lock, o.p66} {
		if on {
			c |= codeW << i
		}
	}
	return c
}

// buf collects code that will run at base in the cache.
type buf struct {
	b    []byte // the room there is
	n    uint32 // of it, what is taken
	base uint32
	held uint8 // the group whose lo's host address is in tmp1; 0: none
}

// here is the position of what is emitted next; entry is the same in the cache.
func (e *buf) here() uint32 { return e.n }

func (e *buf) entry() Entry { return Entry(e.base + e.n) }

// code is what was emitted.
func (e *buf) code() []byte { return e.b[:e.n] }

func (e *buf) bytes(p ...byte) { e.n += uint32(copy(e.b[e.n:], p)) }

func (e *buf) u32(v uint32) { e.word(uint64(v), 4) }

func (e *buf) u64(v uint64) { e.word(v, 8) }

// word emits the lowest n bytes of v. What it stores beyond them is overwritten by
// what follows.
func (e *buf) word(v uint64, n uint) {
	binary.LittleEndian.PutUint64(e.b[e.n:], v)
	e.n += uint32(n)
}

// inst emits one instruction; reg is ModRM.reg, be it a register or a digit.
func (e *buf) inst(o op, reg uint8, m rm) { e.emit(o.code(), reg, m) }

// emit is inst of an op that is one word already.
func (e *buf) emit(c code, reg uint8, m rm) {
	w, n := uint64(0), uint(0) // what comes before the operands, n bits: seven bytes at most
	if c&codeLegacy != 0 {
		if c&codeLock != 0 {
			w, n = 0xf0, 8
		}
		if c&codeP66 != 0 {
			w, n = w|0x66<<n, n+8
		}
		if p := uint64(c >> codePrefix & 0xff); p != 0 {
			w, n = w|p<<n, n+8
		}
	}
	rex := uint64(c>>(40-3)&8) | uint64(reg>>3&1<<2|m.index>>3&1<<1|m.reg>>3&1)
	if rex != 0 || c&codeREX != 0 {
		w, n = w|(0x40|rex)<<n, n+8
	}
	w |= uint64(c&(1<<codeBits-1)) << (n & 63)
	n += uint(c >> codeBits & 0xff)
	e.word(w, n/8)
	if reg == tmp1 {
		e.held = 0
	}
	e.modrm(reg&7, m)
}

// touch says that a register may be written.
func (e *buf) touch(r uint8) {
	if r == tmp1 {
		e.held = 0
	}
}

// modrm emits the operands: ModRM, SIB and displacement. A register is touched.
func (e *buf) modrm(reg byte, m rm) {
	reg <<= 3
	if !m.mem {
		e.touch(m.reg)
		e.word(uint64(0xc0|reg|m.reg&7), 1)
		return
	}
	disp := uint64(uint32(m.disp))
	if m.reg == noReg {
		index := byte(4)
		if m.index != noReg {
			index = m.index & 7
		}
		e.word(uint64(reg|4)|uint64(m.scale<<6|index<<3|5)<<8|disp<<16, 6)
		return
	}
	mod, size := byte(0x80), uint(4)
	if int32(int8(m.disp)) == m.disp {
		mod, size = 0x40, 1
		if m.disp == 0 && m.reg&7 != 5 {
			mod, size = 0, 0
		}
	}
	switch {
	case m.index != noReg:
		e.word(uint64(mod|reg|4)|uint64(m.scale<<6|m.index&7<<3|m.reg&7)<<8|disp<<16, 2+size)
	case m.reg&7 == 4:
		e.word(uint64(mod|reg|4)|0x24<<8|disp<<16, 2+size)
	default:
		e.word(uint64(mod|reg|m.reg&7)|disp<<8, 1+size)
	}
}

// The instructions that translation itself needs; size is 1, 2, 4 or 8.

func sized(size uint8, opcode byte) op {
	o := op{opcode: opcode, p66: size == 2, w: size == 8}
	if size == 1 {
		o.opcode--
		o.rex = true
	}
	return o
}

// sizedCode is its code.
func sizedCode(size uint8, opcode byte) code {
	c := code(opcode) | 8<<codeBits
	switch size {
	case 1:
		return c - 1 | codeREX
	case 2:
		return c | codeP66
	case 8:
		return c | codeW
	}
	return c
}

// load and store are plain moves of size bytes between a register and m.
func (e *buf) load(size, r uint8, m rm)  { e.emit(sizedCode(size, 0x8b), r, m) }
func (e *buf) store(size, r uint8, m rm) { e.emit(sizedCode(size, 0x89), r, m) }

// loadZX loads size bytes, zero-extended to 64 bits.
func (e *buf) loadZX(size, r uint8, m rm) {
	switch size {
	case 1:
		e.inst(op{opmap: map0F, opcode: 0xb6, rex: true}, r, m)
	case 2:
		e.inst(op{opmap: map0F, opcode: 0xb7}, r, m)
	default:
		e.load(size, r, m)
	}
}

// mov copies 64 bits between registers.
func (e *buf) mov(dst, src uint8) {
	if dst != src {
		e.emit(sizedCode(8, 0x8b), dst, regRM(src))
	}
}

// alu is one of the eight two-operand operations by number, ADD to CMP.
func (e *buf) alu(n, size, r uint8, m rm) { e.emit(sizedCode(size, n<<3|3), r, m) }

const (
	aluAdd = 0
	aluOr  = 1
	aluAnd = 4
	aluSub = 5
	aluXor = 6
	aluCmp = 7
)

// aluImm is one with a sign-extended immediate of 32 bits.
func (e *buf) aluImm(n, size uint8, m rm, imm int32) {
	switch {
	case size == 1:
		e.emit(sizedCode(1, 0x81), n, m)
		e.word(uint64(imm), 1)
	case imm >= math.MinInt8 && imm <= math.MaxInt8:
		e.emit(sizedCode(size, 0x83), n, m)
		e.word(uint64(imm), 1)
	default:
		e.emit(sizedCode(size, 0x81), n, m)
		e.word(uint64(imm), min(uint(size), 4))
	}
}

// test is TEST of a register with m.
func (e *buf) test(size, r uint8, m rm) { e.emit(sizedCode(size, 0x85), r, m) }

// shift is a shift group's operation (4 SHL, 5 SHR, 7 SAR) by a count.
func (e *buf) shift(n, size, r, count uint8) {
	e.emit(sizedCode(size, 0xc1), n, regRM(r))
	e.word(uint64(count), 1)
}

func (e *buf) lea(size, r uint8, m rm) {
	if size == 8 && m.mem && m.index == noReg && m.disp == 0 && m.reg != noReg {
		e.mov(r, m.reg)
		return
	}
	if size != 8 {
		size = 4
	}
	e.emit(sizedCode(size, 0x8d), r, m)
}

// constant puts v into a register.
func (e *buf) constant(r uint8, v uint64) {
	e.touch(r)
	switch {
	case v>>32 == 0:
		if r >= 8 {
			e.bytes(0x41)
		}
		e.bytes(0xb8 | r&7)
		e.u32(uint32(v))
	case int64(v) == int64(int32(v)):
		e.inst(op{opcode: 0xc7, w: true}, 0, regRM(r))
		e.u32(uint32(v))
	default:
		e.bytes(0x48|r>>3, 0xb8|r&7)
		e.u64(v)
	}
}

// storeImm stores a sign-extended immediate.
func (e *buf) storeImm(size uint8, m rm, imm int32) {
	e.emit(sizedCode(size, 0xc7), 0, m)
	e.word(uint64(imm), min(uint(size), 4))
}

// jcc emits a near conditional jump and returns where its displacement is.
func (e *buf) jcc(cc byte) uint32 {
	e.word(0x0f|uint64(0x80|cc)<<8, 6)
	return e.here() - 4
}

// jmp likewise.
func (e *buf) jmp() uint32 {
	e.word(0xe9, 5)
	return e.here() - 4
}

// bind has the jump whose displacement is at pos lead here.
func (e *buf) bind(pos uint32) { e.bindTo(pos, e.here()) }

func (e *buf) bindTo(pos, target uint32) { e.patch(pos, target-pos-4) }

// patch fills in four bytes.
func (e *buf) patch(pos, v uint32) { binary.LittleEndian.PutUint32(e.b[pos:], v) }

// jumpTo and callTo go to code elsewhere in the cache.
func (e *buf) jumpTo(target Entry) {
	e.bytes(0xe9)
	e.u32(uint32(target-e.entry()) - 4)
}

func (e *buf) callTo(target Entry) {
	e.held = 0
	e.bytes(0xe8)
	e.u32(uint32(target-e.entry()) - 4)
}

// Condition codes.
const (
	ccB  = 2
	ccAE = 3
	ccZ  = 4
	ccNZ = 5
	ccBE = 6
	ccA  = 7
	ccS  = 8
)
