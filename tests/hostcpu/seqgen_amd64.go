package hostcpu

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"slices"

	"berth/x86"
	"berth/x86/decode"
	"berth/x86/optab"
)

// seqRows is the rows that sequences are made of, by kind.
type seqRows struct{ common, sse, vex, x87, any []optab.Row }

// commonOps is what most code consists of.
var commonOps = []optab.Op{
	optab.ADD, optab.OR, optab.ADC, optab.SBB, optab.AND, optab.SUB, optab.XOR, optab.CMP, optab.TEST, optab.INC, optab.DEC, optab.NEG,
	optab.NOT, optab.MUL, optab.IMUL, optab.ROL, optab.ROR, optab.RCL, optab.RCR, optab.SHL, optab.SHR, optab.SAR, optab.SHLD, optab.SHRD,
	optab.BT, optab.BTS, optab.BTR, optab.BTC, optab.BSF, optab.BSR, optab.MOV, optab.MOVZX, optab.MOVSX, optab.MOVSXD, optab.LEA,
	optab.XCHG, optab.XADD, optab.CMPXCHG, optab.PUSH, optab.POP, optab.PUSHF, optab.CBW, optab.CWD, optab.LAHF, optab.SAHF,
	optab.SETCC, optab.CMOVCC, optab.CLC, optab.STC, optab.CMC, optab.BSWAP, optab.POPCNT,
}

func newSeqRows() seqRows {
	var s seqRows
	for _, r := range optab.Rows() {
		if Skipped(&r) != "" || outOfSequence(&r) {
			continue
		}
		s.any = append(s.any, r)
		switch {
		case r.VEX():
			s.vex = append(s.vex, r)
		case slices.Contains(commonOps, r.Op):
			s.common = append(s.common, r)
		case r.Op >= optab.FirstSSE && r.Op <= optab.LastSSE:
			s.sse = append(s.sse, r)
		case r.Op > optab.LastSystem && r.Op <= optab.LastX87:
			s.x87 = append(s.x87, r)
		}
	}
	return s
}

// outOfSequence reports the rows that a sequence has in a form of their own, or not at all.
func outOfSequence(r *optab.Row) bool {
	switch r.Op {
	case optab.JCC, optab.JMP, optab.CALL, optab.RET, optab.LOOP, optab.LOOPE, optab.LOOPNE, optab.JCXZ, optab.INT3, optab.INTO,
		optab.POPF, optab.MOVS, optab.STOS, optab.MASKMOVQ, optab.MASKMOVDQU, optab.SYSRET, optab.SYSEXIT, optab.PUSHA, optab.POPA, optab.ARPL, optab.BOUND, optab.SALC,
		optab.AAA, optab.AAS, optab.AAM, optab.AAD, optab.DAA, optab.DAS:
		return true
	}
	return gathers(r)
}

// seqGen makes one sequence.
type seqGen struct {
	*Generator
	rows *seqRows
	s    *Sequence
	kind seqKind
	soft bool

	chunk    int    // that code is added to
	places   []int  // offsets for more chunks
	funcs    []int  // labels of functions
	undef    uint64 // flags that are not defined here
	left     int    // instructions
	groups   int
	counters int
	fixed    bool // no other chunk may be begun

	ptr      [2]uint8  // registers that point into the sandbox
	val      [2]uint64 // where; 0: not known
	reserved uint16    // registers that count loops
}

// seqKind is what sequences are made for.
type seqKind uint8

const (
	seqPlain seqKind = iota // three ways; every fourth for the soft engine only
	seqLong                 // for the soft engine, with loops to be interrupted
)

// sequence makes sequence n of a seed, over a sandbox with the contents of image.
func (g *seqRows) sequence(seed, n uint64, image []byte, kind seqKind) *Sequence {
	rng := rand.New(rand.NewPCG(seed, n<<1|uint64(kind)))
	for {
		q := &seqGen{Generator: &Generator{rng: rng, image: image}, rows: g, kind: kind, soft: kind == seqLong || n%4 == 3}
		if s := q.make(); s != nil {
			return s
		}
	}
}

// make makes a sequence, or nil if it does not fit.
func (q *seqGen) make() *Sequence {
	q.s = &Sequence{Mode: decode.Mode64, State: randomState(q.rng), Soft: q.soft}
	if q.chance(25) {
		q.s.Mode = decode.Mode32
	}
	s := q.s
	s.Kernel = q.soft && s.Mode == decode.Mode64 && q.chance(40)
	q.left = 5 + q.rng.IntN(56)
	q.start()
	for _, p := range q.rng.Perm(4) {
		if p < 3 {
			q.places = append(q.places, 0x1000*(p+1)-1-q.rng.IntN(100))
		}
		q.places = append(q.places, 0x1000*p+0x480+q.rng.IntN(0x400))
	}
	q.rng.Shuffle(len(q.places), func(i, j int) { q.places[i], q.places[j] = q.places[j], q.places[i] })
	q.open()
	for q.left > 0 {
		q.body(q.left, 0)
	}
	q.emit([]byte{0xcc})
	var code [seqCodeSize]byte
	at, ok := s.Lay(code[:])
	if !ok {
		return nil
	}
	s.State.RIP = at[0][0]
	return s
}

// start chooses the state.
func (q *seqGen) start() {
	st := &q.s.State
	st.GPR[x86.RSP] = sandboxBase + 0x1400 + 8*uint64(q.rng.IntN(64))
	st.FSBase, st.GSBase = 0x40, 0x80
	if q.chance(70) {
		binary.LittleEndian.PutUint32(st.FX[24:], 0x1f80)
	}
	if q.chance(50) {
		binary.LittleEndian.PutUint16(st.FX[0:], 0x37f)
		binary.LittleEndian.PutUint16(st.FX[2:], 0)
	}
	st.RFLAGS &^= 1 << 10
	q.ptr = [2]uint8{pickOf(q.rng, []uint8{x86.RBX, x86.RBP, x86.RSI, x86.RDI}), uint8(8 + q.rng.IntN(8))}
	if q.s.Mode == decode.Mode32 {
		q.start32()
	}
	for i, p := range q.ptr {
		q.val[i] = sandboxBase + 0x800 + 16*uint64(q.rng.IntN(0x100))
		st.GPR[p] = q.val[i]
	}
}

// start32 keeps to the registers that 32-bit code has.
func (q *seqGen) start32() {
	st := &q.s.State
	for i := range st.GPR {
		st.GPR[i] &= 0xffffffff
		if i >= 8 {
			st.GPR[i] = 0
		}
	}
	st.FSBase, st.GSBase = 0, 0
	for q.ptr[1] = q.ptr[0]; q.ptr[1] == q.ptr[0]; {
		q.ptr[1] = pickOf(q.rng, []uint8{x86.RBX, x86.RBP, x86.RSI, x86.RDI})
	}
}

// bare is code without its REX prefix where there is none.
func (q *seqGen) bare(code []byte) []byte {
	i := 0
	for i < len(code)-1 && bytes.IndexByte([]byte{0x66, 0xf0, 0xf2, 0xf3}, code[i]) >= 0 {
		i++
	}
	if q.s.Mode == decode.Mode64 || code[i]&0xf0 != 0x40 {
		return code
	}
	return slices.Delete(slices.Clone(code), i, i+1)
}

// open begins a chunk.
func (q *seqGen) open() bool {
	if len(q.places) == 0 || q.fixed {
		return false
	}
	q.s.Chunks = append(q.s.Chunks, seqChunk{off: q.places[0]})
	q.places = q.places[1:]
	q.chunk = len(q.s.Chunks) - 1
	return true
}

// add adds an instruction, which has REX where 64-bit code may.
func (q *seqGen) add(in seqInst) {
	in.code = q.bare(in.code)
	q.append(in)
}

// append adds an instruction as it is.
func (q *seqGen) append(in seqInst) {
	c := &q.s.Chunks[q.chunk]
	in.undef = q.undef
	c.insts = append(c.insts, in)
	q.left--
}

func (q *seqGen) emit(code []byte) { q.add(seqInst{code: code}) }

// label makes one for the place that code is added at.
func (q *seqGen) label() int {
	l := q.newLabel()
	q.bind(l)
	return l
}

func (q *seqGen) newLabel() int {
	q.s.Labels = append(q.s.Labels, seqPlace{})
	return len(q.s.Labels) - 1
}

func (q *seqGen) bind(l int) {
	q.s.Labels[l] = seqPlace{q.chunk, len(q.s.Chunks[q.chunk].insts)}
}

// define has all status flags defined.
func (q *seqGen) define() {
	q.emit([]byte{0x48, 0x39, 0xc0 | byte(q.rng.IntN(64))}) // cmp
	q.undef = 0
}

// meet is done before control is given away or arrives from elsewhere: only AF may be
// undefined there.
func (q *seqGen) meet() {
	if q.undef&^af != 0 {
		q.define()
	}
	q.undef = af
}

// forget is done where control arrives from elsewhere: nothing is known of registers.
func (q *seqGen) forget() { q.val = [2]uint64{} }

// avoid reports a register that random code should leave alone.
func (q *seqGen) avoid(n uint8) bool {
	return n == x86.RSP || n == q.ptr[0] || n == q.ptr[1] || q.reserved>>n&1 != 0
}

// free is a register that may be spoilt.
func (q *seqGen) free() uint8 {
	for {
		if n := uint8(q.rng.IntN(4 << q.s.Mode)); !q.avoid(n) {
			return n
		}
	}
}

// body adds code of about n instructions.
func (q *seqGen) body(n, depth int) {
	for until := q.left - n; q.left > max(until, 0); {
		switch k := q.rng.IntN(100); {
		case q.s.Kernel && q.chance(20):
			q.system()
		case k < 62:
			q.random()
		case k < 76:
			q.branch(depth)
		case k < 81:
			q.loop(depth)
		case k < 85:
			q.call(depth)
		case k < 87:
			q.hop()
		case k < 90:
			q.strings()
		case k < 92:
			q.fault()
		case k < 95:
			q.modify(depth)
		case k < 96:
			q.popf()
		default:
			q.fix()
		}
	}
}

// fix makes a place where the next fault goes on.
func (q *seqGen) fix() {
	if len(q.s.Fixes) == seqFixes || q.reserved != 0 {
		return // a loop's counter may be anything after a fault
	}
	q.meet()
	q.s.Fixes = append(q.s.Fixes, q.label())
	q.define()
	q.forget()
}

// branch adds a conditional branch over some code.
func (q *seqGen) branch(depth int) {
	q.meet()
	over, at, chunk := q.newLabel(), len(q.s.Chunks[q.chunk].insts), q.chunk
	cond := byte(q.rng.IntN(16))
	near := q.chance(30)
	q.add(seqInst{code: []byte{0x0f, 0x80 | cond, 0, 0, 0, 0}, ref: refRel4, lab: over})
	was := q.fixed
	q.fixed = was || !near
	if depth > 2 {
		q.random()
	} else {
		q.body(1+q.rng.IntN(5), depth+1)
	}
	q.fixed = was
	q.meet()
	q.bind(over)
	q.forget()
	if in := q.s.Chunks[chunk].insts; !near && q.bytes(in[at+1:]) < 120 {
		in[at].code, in[at].ref = []byte{0x70 | cond, 0}, refRel1
	}
}

func (q *seqGen) bytes(in []seqInst) (n int) {
	for i := range in {
		n += len(in[i].code)
	}
	return n
}

// loop adds a loop that ends.
func (q *seqGen) loop(depth int) {
	if depth > 1 {
		return
	}
	n := uint32(2 + q.rng.IntN(12))
	if depth == 0 && q.chance(1+50*int(q.kind)) {
		n = 300 + uint32(q.rng.IntN(3000))
	}
	q.groups++
	group := q.groups
	reg := q.free()
	byReg := q.chance(50)
	counter := seqCounters + 4*uint64(q.counters%32)
	q.counters++
	if byReg {
		q.reserved |= 1 << reg
		q.add(seqInst{code: movImm(reg, n), group: group})
	} else {
		q.add(seqInst{code: le32([]byte{0xc7, 0x05, 0, 0, 0, 0}, n), ref: refData, tail: 4, to: counter, group: group})
	}
	q.meet()
	head := q.label()
	q.forget()
	q.body(2+q.rng.IntN(8), depth+1)
	q.meet()
	if byReg {
		q.add(seqInst{code: decWord(reg), group: group})
	} else {
		q.add(seqInst{code: []byte{0xff, 0x0d, 0, 0, 0, 0}, ref: refData, to: counter, group: group})
	}
	q.undef = af
	q.add(seqInst{code: []byte{0x0f, 0x8f, 0, 0, 0, 0}, ref: refRel4, lab: head, group: group}) // jg
	q.reserved &^= 1 << reg
}

// call adds a call of a function.
func (q *seqGen) call(depth int) {
	q.meet()
	var f int
	if len(q.funcs) > 0 && q.reserved == 0 && q.chance(50) {
		f = pickOf(q.rng, q.funcs)
	} else if f = q.function(depth, nil); f < 0 {
		return
	}
	r := q.free()
	switch q.rng.IntN(4) {
	case 0:
		q.add(seqInst{code: movImm(r, 0), ref: refAbs4, lab: f})
		q.emit([]byte{0x40 | r>>3, 0xff, 0xd0 | r&7}) // call r
	case 1:
		q.slot([]byte{0xff, 0x15, 0, 0, 0, 0}, f) // call [rip+x]
	default:
		q.add(seqInst{code: []byte{0xe8, 0, 0, 0, 0}, ref: refRel4, lab: f})
	}
	q.undef = af
	q.forget()
}

// slot adds a branch through an address in memory.
func (q *seqGen) slot(code []byte, label int) {
	q.add(seqInst{code: code, ref: refData, to: codeBase + seqSlots + 8*uint64(len(q.s.Slots))})
	q.s.Slots = append(q.s.Slots, label)
}

// function makes one elsewhere; special, if there is, adds some of its code.
func (q *seqGen) function(depth int, special func()) int {
	back, val, undef := q.chunk, q.val, q.undef
	if depth > 1 || !q.open() {
		return -1
	}
	q.undef = af
	f := q.label()
	q.forget()
	q.body(1+q.rng.IntN(5), depth+1)
	if special != nil {
		special()
		q.body(q.rng.IntN(3), depth+1)
	}
	q.meet()
	if q.chance(20) {
		r := q.low()
		q.emit([]byte{0x58 | r}) // pop and push
		q.emit([]byte{0x50 | r})
		q.emit(movImm(r, 1)) // no address of code stays in a register: what is stored through it would be code
	}
	q.emit([]byte{0xc3})
	q.chunk, q.val, q.undef = back, val, undef
	q.funcs = append(q.funcs, f)
	return f
}

// low is a free one of the lower eight registers.
func (q *seqGen) low() uint8 {
	for {
		if r := q.free(); r < 8 {
			return r
		}
	}
}

// hop goes on in another chunk.
func (q *seqGen) hop() {
	back := q.chunk
	q.meet()
	if !q.open() {
		return
	}
	l := q.label()
	next := q.chunk
	q.chunk = back
	r := q.free()
	switch q.rng.IntN(6) {
	case 0:
		q.add(seqInst{code: movImm(r, 0), ref: refAbs4, lab: l})
		q.emit([]byte{0x40 | r>>3, 0xff, 0xe0 | r&7}) // jmp r
	case 1:
		q.slot([]byte{0xff, 0x25, 0, 0, 0, 0}, l)
	case 2:
		q.add(seqInst{code: []byte{0x68, 0, 0, 0, 0}, ref: refAbs4, lab: l}) // push
		q.emit([]byte{0xc3})
	default:
		q.add(seqInst{code: []byte{0xe9, 0, 0, 0, 0}, ref: refRel4, lab: l})
	}
	q.chunk, q.undef = next, af
}

// strings adds a repeated string operation.
func (q *seqGen) strings() {
	if q.reserved&(1<<x86.RDI|1<<x86.RSI|1<<x86.RAX) != 0 {
		return
	}
	op := pickOf(q.rng, []byte{0xa4, 0xa5, 0xaa, 0xab, 0xa6, 0xae, 0xac})
	at := func() uint32 { return uint32(sandboxBase + q.rng.IntN(sandboxSize)) }
	q.clobber(x86.RDI)
	q.emit(movImm(x86.RDI, at()))
	q.clobber(x86.RSI)
	q.emit(movImm(x86.RSI, at()))
	if q.reserved>>x86.RCX&1 == 0 {
		q.emit(movImm(x86.RCX, uint32(q.rng.IntN(40))))
	}
	code := []byte{pickOf(q.rng, []byte{0xf3, 0xf3, 0xf2}), op}
	if q.reserved>>x86.RCX&1 != 0 {
		code = code[1:]
	}
	if op&1 != 0 && q.chance(40) {
		code = append(code[:len(code)-1:len(code)-1], 0x48, op)
	}
	if op == 0xa6 || op == 0xae {
		q.define() // a count of 0 leaves them
	}
	q.clobber(x86.RDI)
	q.clobber(x86.RSI)
	q.emit(code)
}

// clobber notes that a register has got another value.
func (q *seqGen) clobber(r uint8) {
	for i, p := range q.ptr {
		if p == r {
			q.val[i] = 0
		}
	}
}

// fault adds an instruction that mostly faults.
func (q *seqGen) fault() {
	r := q.free()
	access := [][]byte{{0x8b}, {0x89}, {0x01}, {0x0f, 0xb6}, {0x87}}
	mem := func(addr uint64) {
		code := append([]byte{0x48}, pickOf(q.rng, access)...)
		q.add(seqInst{code: append(code, 0x05|r&7<<3, 0, 0, 0, 0), ref: refData, to: addr})
	}
	kind := q.rng.IntN(7 + b2i(q.soft))
	if q.kind == seqLong && q.chance(80) {
		kind = 7
	}
	switch kind {
	case 7:
		mem(seqDevice + 8*uint64(q.rng.IntN(16)))
	case 0:
		q.emit([]byte{0x0f, 0x0b})
	case 1:
		if q.s.Kernel {
			return
		}
		q.emit([]byte{0xf4}) // hlt
	case 2:
		mem(seqNothing + uint64(q.rng.IntN(64)) - 32)
	case 3:
		mem(seqReadOnly + uint64(q.rng.IntN(32)) - 16)
	case 4:
		mem(sandboxBase + uint64(q.rng.IntN(16)) - 12)
	case 5:
		if q.s.Mode != decode.Mode64 {
			return
		}
		q.emit(binary.LittleEndian.AppendUint64([]byte{0x48 | r>>3, 0xb8 | r&7}, 1<<47-8+uint64(q.rng.IntN(10))))
		q.emit(append([]byte{0x48 | r>>3, 0x8b, 0x80 | r&7}, make([]byte, 4+b2i(r&7 == 4))...))
		if r&7 == 4 {
			c := q.s.Chunks[q.chunk].insts
			c[len(c)-1].code[3] = 0x24
		}
	case 6:
		if q.reserved>>x86.RCX&1 == 0 && !q.avoid(x86.RAX) && !q.avoid(x86.RDX) {
			q.emit(movImm(x86.RCX, 0))
			q.define()
			q.emit([]byte{0xf7, 0xf1}) // div ecx
		}
	}
}

// popf loads flags.
func (q *seqGen) popf() {
	v := uint32(0x202) | q.rng.Uint32()&0x8d5
	if q.chance(10) {
		v |= 1 << 10
	}
	if q.chance(5) {
		v |= x86.FlagTF
	}
	q.groups++
	q.add(seqInst{code: le32([]byte{0x68}, v), group: q.groups})
	q.add(seqInst{code: []byte{0x9d}, group: q.groups})
	q.undef = 0
	if v&x86.FlagTF != 0 {
		q.emit([]byte{0x90})
		q.emit(le32([]byte{0x68}, v&^x86.FlagTF))
		q.emit([]byte{0x9d})
	}
	if v>>10&1 != 0 && q.chance(70) {
		q.random()
		q.emit([]byte{0xfc})
	}
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// movImm is MOV r32, imm32.
func movImm(r uint8, v uint32) []byte { return le32([]byte{0x40 | r>>3, 0xb8 | r&7}, v) }

// decWord is DEC r16: a loop whose counter is spoilt ends all the same.
func decWord(r uint8) []byte { return []byte{0x66, 0x40 | r>>3, 0xff, 0xc8 | r&7} }

func le32(p []byte, v uint32) []byte { return binary.LittleEndian.AppendUint32(p, v) }
