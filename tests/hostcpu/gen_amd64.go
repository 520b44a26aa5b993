package hostcpu

import (
	"encoding/binary"
	"math/rand/v2"

	"berth/x86"
	"berth/x86/decode"
	"berth/x86/optab"
)

// Generator makes random cases from the instruction table.
type Generator struct {
	// Longest, not 0, has every case be a sequence of up to so many instructions.
	Longest int

	rng   *rand.Rand
	rows  []optab.Row
	skip  func(*optab.Row) bool
	image []byte // of the batch being made
}

// NewGenerator starts a reproducible stream of cases with the rows that are
// not skipped.
func NewGenerator(seed uint64, skip func(*optab.Row) bool) *Generator {
	g := &Generator{rng: rand.New(rand.NewPCG(seed, 2)), skip: skip}
	for _, r := range optab.Rows() {
		if !skip(&r) {
			g.rows = append(g.rows, r)
		}
	}
	return g
}

// Batch makes n cases over one memory image, which Image makes of imageSeed.
func (g *Generator) Batch(n int) (imageSeed uint64, image []byte, cases []Case) {
	imageSeed = g.rng.Uint64()
	g.image = Image(imageSeed)
	cases = make([]Case, 0, n)
	for len(cases) < n {
		if c, ok := g.one(len(cases)); ok {
			c.State.RIP = startRIP(len(cases), c.Mode)
			cases = append(cases, c)
		}
	}
	return imageSeed, g.image, cases
}

const maxCode = codeSlot - 16 // branches land behind it

func (g *Generator) chance(percent int) bool { return g.rng.IntN(100) < percent }

// one makes the case of a slot: mostly one instruction, sometimes a sequence.
func (g *Generator) one(slot int) (Case, bool) {
	c := Case{Mode: decode.Mode64, State: randomState(g.rng)}
	switch {
	case g.chance(15):
		c.Mode = decode.Mode32
	case g.chance(12):
		c.Mode = decode.Mode16
	}
	g.pointers(&c)
	n := 1
	if g.chance(15) {
		n = 2 + g.rng.IntN(2)
	}
	if g.Longest != 0 {
		n = 1 + g.rng.IntN(g.Longest)
	}
	for range n {
		at := len(c.Code)
		b := builder{g: g, c: &c, at: at, slot: slot, row: &g.rows[g.rng.IntN(len(g.rows))]}
		if !b.build() {
			continue
		}
		c.Code = append(c.Code, b.bytes...)
		if len(c.Code) > maxCode {
			c.Code = c.Code[:at]
			break
		}
		if endsSequence(&b.in) {
			break
		}
	}
	return c, len(c.Code) > 0
}

// pointers puts the stack and string registers into the sandbox.
func (g *Generator) pointers(c *Case) {
	_, base := bases(c.Mode)
	at := func(off int) uint64 { return sandboxBase - base + uint64(off) }
	c.State.GPR[x86.RSP] = at(imageStack + 8*g.rng.IntN(16))
	if g.chance(5) {
		c.State.GPR[x86.RSP] = at(g.rng.IntN(sandboxSize))
	}
	if g.chance(70) {
		c.State.GPR[x86.RSI] = at(g.rng.IntN(sandboxSize))
		c.State.GPR[x86.RDI] = at(g.rng.IntN(sandboxSize))
		c.State.GPR[x86.RBP] = at(0x800 + 8*g.rng.IntN(256))
	}
	if c.Mode != decode.Mode64 {
		for i := range c.State.GPR {
			c.State.GPR[i] &= 0xffffffff
			if i >= 8 {
				c.State.GPR[i] = 0
			}
		}
		c.State.FSBase, c.State.GSBase = 0, 0
	}
	if c.Mode == decode.Mode16 {
		c.State.GPR[x86.RSP] &= 0xffff
	}
}

// builder makes one instruction.
type builder struct {
	g     *Generator
	c     *Case
	at    int // offset in the slot
	slot  int
	row   *optab.Row
	in    decode.Inst
	bytes []byte

	prefixes, opcode, modrm, disp, imm []byte
}

// build makes the bytes, then the registers that its memory operand wants. It
// fails when the bytes turn out to be something else that is skipped.
func (b *builder) build() bool {
	mode := b.c.Mode
	if mode == decode.Mode64 && b.row.Flags&optab.No64 != 0 || mode != decode.Mode64 && b.row.Flags&optab.Only64 != 0 {
		return false
	}
	addr := b.makePrefixes()
	b.makeOpcode()
	if b.row.Mod != optab.ModNone {
		b.makeModRM(addr)
	}
	b.makeImmediates()
	b.join()
	if !b.decode() {
		return false
	}
	b.setup()
	if b.in.Mem && b.in.Op != optab.LEA {
		b.aim()
	}
	b.branch()
	b.join()
	return b.decode() // again: displacement and immediate are final
}

func (b *builder) join() {
	b.bytes = b.bytes[:0]
	for _, p := range [][]byte{b.prefixes, b.opcode, b.modrm, b.disp, b.imm} {
		b.bytes = append(b.bytes, p...)
	}
}

// decode accepts what decodes to something not skipped. Undefined encodings
// would do too, but only rows are known to be harmless in user mode.
func (b *builder) decode() bool {
	p := append(b.bytes[:len(b.bytes):len(b.bytes)], 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc)
	if err := decode.Decode(p, b.c.Mode, &b.in); err != nil {
		return false
	}
	if int(b.in.Len) < len(b.bytes) { // 66 shortened an immediate
		b.bytes = b.bytes[:b.in.Len]
	}
	if int(b.in.Len) > len(b.bytes) { // or REX.W lengthened it
		b.imm = append(b.imm, make([]byte, int(b.in.Len)-len(b.bytes))...)
		b.join()
	}
	if b.at > 0 && (savesPointers(&b.in) || b.in.Op == optab.INS || b.in.Op == optab.OUTS) {
		return false // what they do depends on registers or an address known only at the start
	}
	return !b.g.skip(b.in.Row) && !vendorSpecific(&b.in, b.bytes)
}

func (b *builder) makePrefixes() (addrSize int) {
	g, r := b.g, b.row
	var p []byte
	add := func(percent int, v byte) bool {
		if g.chance(percent) {
			p = append(p, v)
			return true
		}
		return false
	}
	prefix := r.Prefix
	if r.VEX() {
		prefix = optab.PNone
	}
	switch prefix {
	case optab.P66:
		add(100, 0x66)
	case optab.PF3:
		add(100, 0xf3)
	case optab.PF2:
		add(100, 0xf2)
	case optab.PAny:
		add(20, 0x66)
		switch {
		case r.Flags&optab.RepString != 0:
			add(60, byte(0xf2+g.rng.IntN(2)))
		default:
			add(2, byte(0xf2+g.rng.IntN(2)))
		}
	}
	if prefix == optab.PF2 || prefix == optab.PF3 {
		add(8, 0x66)
	}
	addrSize = 2 << b.c.Mode
	if add(7, 0x67) {
		addrSize = [3]int{4, 2, 4}[b.c.Mode]
	}
	add(7, pickOf(g.rng, []byte{0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65}))
	if r.Flags&optab.Lockable != 0 {
		add(20, 0xf0)
	}
	g.rng.Shuffle(len(p), func(i, j int) { p[i], p[j] = p[j], p[i] })
	if b.c.Mode == decode.Mode64 && !r.VEX() && (g.chance(60) || r.Flags&optab.RexW != 0) {
		rex := byte(0x40 | g.rng.IntN(16))
		if r.Flags&optab.RexW != 0 {
			rex |= 8
		}
		p = append(p, rex)
	}
	b.prefixes = p
	return addrSize
}

func (b *builder) makeOpcode() {
	op := b.row.Opcode
	if b.row.VEX() {
		b.opcode = append(b.vexPrefix(), op)
		return
	}
	if b.row.Flags&optab.CondLow4 != 0 {
		op += byte(b.g.rng.IntN(16))
	}
	for _, a := range b.row.Args {
		if a == optab.Zb || a == optab.Zv {
			op += byte(b.g.rng.IntN(8))
		}
	}
	b.opcode = append([][]byte{{}, {0x0f}, {0x0f, 0x38}, {0x0f, 0x3a}}[b.row.Map], op)
}

func (b *builder) makeModRM(addrSize int) {
	g, r := b.g, b.row
	reg, rm := byte(g.rng.IntN(8)), byte(g.rng.IntN(8))
	if gathers(r) {
		rm = 4
	}
	if r.Digit >= 0 {
		reg = byte(r.Digit)
	}
	if r.RM >= 0 {
		rm = byte(r.RM)
	}
	if r.Mod == optab.ModReg || r.Mod == optab.ModAny && g.chance(50) {
		b.modrm = []byte{0xc0 | reg<<3 | rm}
		return
	}
	mod := byte(g.rng.IntN(3))
	b.modrm = []byte{mod<<6 | reg<<3 | rm}
	n := [3]int{0, 1, 4}[mod]
	if addrSize == 2 {
		n = [3]int{0, 1, 2}[mod]
		if mod == 0 && rm == 6 {
			n = 2
		}
	} else {
		low := rm
		if rm == 4 {
			sib := byte(g.rng.Uint32())
			b.modrm = append(b.modrm, sib)
			low = sib & 7
		}
		if mod == 0 && low == 5 {
			n = 4
		}
	}
	var d [8]byte
	binary.LittleEndian.PutUint64(d[:], uint64(int64(g.rng.IntN(4096)-2048)))
	b.disp = append([]byte(nil), d[:n]...)
}

// makeImmediates gives as many bytes as the longest form may want; decode trims.
func (b *builder) makeImmediates() {
	size := 0
	for _, a := range b.row.Args {
		switch a {
		case optab.Ib, optab.IbS, optab.Jb, optab.Lx:
			size++
		case optab.Iw:
			size += 2
		case optab.Iz, optab.Jz:
			size += 4
		case optab.Iv, optab.Ob, optab.Ov:
			size += 8
		}
	}
	var p [8]byte
	binary.LittleEndian.PutUint64(p[:], integer(b.g.rng))
	b.imm = append([]byte(nil), p[:size]...)
	if b.row.Op == optab.ENTER {
		b.imm = []byte{byte(b.g.rng.IntN(64)), 0, byte(b.g.rng.IntN(4))}
	}
}

// branch makes a relative branch land on int3 behind the code.
func (b *builder) branch() {
	for _, a := range b.row.Args {
		if a == optab.Jb || a == optab.Jz {
			n := int(b.in.Len) - len(b.prefixes) - len(b.opcode)
			d := uint64(maxCode + b.g.rng.IntN(12) - b.at - int(b.in.Len))
			var p [8]byte
			binary.LittleEndian.PutUint64(p[:], d)
			b.imm = append([]byte(nil), p[:n]...)
		}
	}
}
