package interp

import (
	"math/rand/v2"
	"testing"

	"berth/x86"
	"berth/x86/jit"
)

// Where TestAccessesAgree has its pages: linear addresses that a page table of its own maps.
const (
	groupLinear = 0x4000_0000
	groupPages  = 8
	groupTable  = 0x6000
	groupData   = testData // the frames
	groupRAM    = groupLinear + groupPages*pageSize
)

// quiet is a bus that reads as a pattern and remembers what was written.
type quiet struct{ log []uint64 }

func (q *quiet) Read(gpa uint64, p []byte) {
	q.log = append(q.log, gpa, uint64(len(p)))
	for i := range p {
		p[i] = byte(gpa) + byte(i) ^ 0x5a
	}
}

func (q *quiet) Write(gpa uint64, p []byte) {
	q.log = append(q.log, ^gpa)
	for _, b := range p {
		q.log = append(q.log, uint64(b))
	}
}

// accesses makes random code of instructions with memory operands near each other.
type accesses struct {
	*rand.Rand
	p []byte
}

func (a *accesses) bytes(p ...byte) { a.p = append(a.p, p...) }

// operand appends ModRM and what follows for reg and an operand in memory, after
// the prefixes and the opcode; w: REX.W.
func (a *accesses) operand(reg int, w bool, prefix []byte, opcode ...byte) {
	base := []int{x86.RBX, x86.RSI, x86.RBP, x86.R13, x86.R10, x86.RSP, x86.R12, x86.R8}[a.IntN(8)]
	index, scale := 4, 0
	if a.IntN(4) == 0 {
		index, scale = []int{x86.RCX, x86.R9, x86.R14}[a.IntN(3)], a.IntN(4)
	}
	rex := byte(0x40 | reg>>3<<2 | index>>3<<1 | base>>3)
	if w {
		rex |= 8
	}
	disp := a.IntN(8) * 8
	switch a.IntN(8) {
	case 0:
		disp += a.IntN(8)
	case 1:
		disp -= 300
	}
	a.bytes(prefix...)
	a.bytes(rex)
	a.bytes(opcode...)
	a.bytes(byte(0x84|reg&7<<3), byte(scale<<6|index&7<<3|base&7), byte(disp), byte(disp>>8), byte(disp>>16), byte(disp>>24))
}

// instruction appends one.
func (a *accesses) instruction() {
	reg := []int{x86.RAX, x86.RDX, x86.RDI, x86.R11}[a.IntN(4)]
	base := []int{x86.RBX, x86.RSI, x86.RBP, x86.RSP}[a.IntN(4)]
	switch a.IntN(34) {
	case 0, 1, 2, 3:
		a.operand(reg, a.IntN(2) == 0, nil, 0x8b)
	case 4, 5, 6, 7:
		a.operand(reg, a.IntN(2) == 0, nil, 0x89)
	case 8:
		a.operand(reg, true, nil, 0x03)
	case 9:
		a.operand(reg, false, nil, 0x01)
	case 10:
		a.operand(0, true, nil, 0xff) // inc
	case 11:
		a.operand(a.IntN(16), false, nil, 0x0f, byte(0x10+a.IntN(2))) // movups
	case 12:
		a.operand(a.IntN(16), false, nil, 0x0f, byte(0x28+a.IntN(2))) // movaps
	case 13:
		a.operand(reg, true, nil, 0x0f, 0xb6)
	case 14:
		a.operand(0, false, nil, 0x0f, byte(0x90+a.IntN(16))) // setcc
	case 15:
		a.operand(6, false, nil, 0xff) // push
	case 16:
		a.operand(reg, true, nil, 0x3b)
	case 17:
		a.operand(reg, true, nil, 0x11) // adc
	case 18:
		a.operand(reg, true, nil, 0x87) // xchg
	case 19:
		a.operand(reg, false, []byte{0xf0}, 0x0f, 0xc1) // lock xadd
	case 20, 21, 22:
		a.bytes(byte(0x50 | []int{0, 2, 3, 5, 6, 4}[a.IntN(6)]))
	case 23, 24:
		a.bytes(byte(0x58 | []int{0, 2, 7}[a.IntN(3)]))
	case 25:
		a.bytes(0x48, 0x83, byte(0xc0|a.IntN(2)*5<<3|base), byte(a.IntN(64)-32)) // add, sub
	case 26:
		a.bytes(0x48, 0x8d, byte(0x80|base<<3|base), byte(a.IntN(64)), 0, 0, 0)
		if base == x86.RSP { // that was [rip]-like nonsense without a SIB byte
			a.p = a.p[:len(a.p)-7]
			a.bytes(0x48, 0x8d, 0x64, 0x24, byte(a.IntN(64)-32))
		}
	case 27:
		a.bytes(0x48, 0x89, byte(0xc0|base<<3|[]int{x86.RBX, x86.RSI, x86.RBP}[a.IntN(3)]))
	case 28:
		a.bytes(byte(0x70+a.IntN(16)), 0) // jcc to the next
	case 29:
		a.bytes(0xc9) // leave
	case 30:
		a.bytes(0x48, 0xff, byte(0xc0|a.IntN(2)<<3|base)) // inc, dec
	case 31:
		a.bytes(0x9c) // pushf
	case 32:
		a.bytes(0x48, 0x29, 0xd0, byte(0x70+a.IntN(16)), 0)
	case 33:
		a.operand(reg, true, []byte{0xf2}, 0x0f, 0x10) // movsd, its REX.W ignored
	}
}

// loop has the code begin again while R15, which that counts down, is not 0, and adds what comes then.
func (a *accesses) loop() {
	a.bytes([][]byte{
		{0x49, 0xff, 0xcf},                                     // dec r15
		{0x49, 0x83, 0xef, 0x01},                               // sub r15, 1
		{0x49, 0x83, 0xc7, 0xff},                               // add r15, -1
		{0x4d, 0x8d, 0x7f, 0xff, 0x4d, 0x85, 0xff},             // lea r15, [r15-1]; test r15, r15
		{0x4d, 0x8d, 0x7f, 0xff, 0x49, 0x83, 0xff, 0x00, 0xf9}, // ...; cmp r15, 0; stc
		{0x49, 0xd1, 0xef},                                     // shr r15, 1
	}[a.IntN(6)]...)
	branch := []byte{0x0f, 0x85} // jnz
	switch a.IntN(4) {
	case 0:
		branch = []byte{0x74, 0x05, 0xe9} // jz beyond; jmp
	case 1:
		branch = []byte{0x0f, 0x8f} // jg
	}
	a.bytes(branch...)
	back := uint32(-len(a.p) - 4)
	a.bytes(byte(back), byte(back>>8), byte(back>>16), byte(back>>24))
	for range a.IntN(4) {
		a.instruction()
	}
}

// Random sequences of accesses near each other and near the ends of pages of all kinds
// come out alike translated and interpreted: registers, memory, faults, accessed and
// dirty bits, and what a device sees.
func TestAccessesAgree(t *testing.T) {
	if !translate {
		t.Skip("compares the tiers")
	}
	const cases = 10000
	fast := newTestCPU(t, nil)
	translate = false
	slow := newTestCPU(t, nil)
	translate = true
	buses := [2]*quiet{{}, {}}
	cpus := [2]*CPU{fast, slow}
	for i, c := range cpus {
		c.cfg.MMIO = buses[i]
		c.CR4 |= x86.CR4OSFXSR
		c.stateChanged(x86.FlagR1)
		writeTest64(t, c, testTables+0x1008, 0x7000|7)
		writeTest64(t, c, 0x7000, groupTable|7)
	}
	for i := range cases {
		seed := uint64(i)
		var code []byte
		var outs [2]outcome
		for n, c := range cpus {
			r := rand.New(rand.NewPCG(seed, 7))
			code = prepareAccesses(t, c, r)
			buses[n].log = nil
			outs[n] = runAccesses(t, c, r)
		}
		if a, b := &outs[0], &outs[1]; *a != *b || !equalLogs(buses[0].log, buses[1].log) {
			t.Fatalf("case %d: % x\ntranslated  %+v\ninterpreted %+v\n%x\n%x", i, code, a.state, b.state, buses[0].log, buses[1].log)
		}
	}
	if s, _ := fast.Translation(); s.Exits[jit.Split] == 0 || s.Ran < uint64(cases) {
		t.Errorf("no group's check failed in %d instructions: %v", s.Ran, s.Exits)
	}
}

func equalLogs(a, b []uint64) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

type state struct {
	st    status
	exc   exception
	rip   uint64
	flags uint64
	regs  [16]uint64
	ptes  [groupPages]uint64
	ran   uint64
}

type outcome struct {
	state
	memory [groupPages * pageSize]byte
}

// prepareAccesses puts code, pages and registers where they belong and returns the code.
func prepareAccesses(t *testing.T, c *CPU, r *rand.Rand) []byte {
	for page := range uint64(groupPages) {
		frame := uint64(groupData) + page*2%groupPages*pageSize + page*2/groupPages*pageSize // no neighbours
		pte := frame | 0x67
		switch r.IntN(12) {
		case 0:
			pte &^= 0x40 // clean
		case 1:
			pte &^= 0x60
		case 2:
			pte &^= 2
		case 3:
			pte &^= 1
		case 4:
			pte = groupRAM + page*pageSize | 0x67 // no RAM there
		case 5:
			pte = testCode | 0x67
		}
		writeTest64(t, c, groupTable+8*page, pte)
	}
	c.CR0 |= x86.CR0WP
	c.stateChanged(c.rflags())
	c.Pending = 0
	c.flushTLB(false)
	var data [groupPages * pageSize]byte
	for i := range data {
		data[i] = byte(i * 7 >> 3)
	}
	writeTest(t, c, groupData, data[:])
	a := accesses{Rand: r}
	for range 2 + r.IntN(14) {
		a.instruction()
	}
	if r.IntN(2) == 0 {
		a.loop()
	}
	a.bytes(0x0f, 0x0b)
	c.RIP = testCode + 0x600 + uint64(r.IntN(3))*0x80 // where the accesses do not reach
	writeTest(t, c, c.RIP, a.p)
	c.dropCode(testCode, pageSize)
	for n := range 16 {
		page, off := uint64(r.IntN(groupPages)), uint64(r.IntN(24)*8)
		switch r.IntN(3) {
		case 0:
			off = pageSize - off
		case 1:
			off = 0xa00 + uint64(r.IntN(0x600))
		}
		c.R[n] = groupLinear + page*pageSize + off
		if r.IntN(40) == 0 {
			c.R[n] = 0 - uint64(r.IntN(64))
		}
	}
	for _, n := range []int{x86.RCX, x86.R9, x86.R14} {
		c.R[n] = uint64(r.IntN(64))
	}
	c.R[x86.R15] = uint64(1 + r.IntN(4))
	for n := range c.fpu.xmm {
		c.fpu.xmm[n] = [2]uint64{r.Uint64(), r.Uint64()}
	}
	return a.p
}

// runAccesses runs the code three times over, the second with the TLB as it is, the third
// after a page has changed.
func runAccesses(t *testing.T, c *CPU, r *rand.Rand) (o outcome) {
	start, regs := c.RIP, c.R
	flags := r.Uint64()
	for range 3 {
		c.setStatus(flags)
		c.RIP, c.R = start, regs
		c.exc = exception{}
		before := c.Instructions
		o.st = runToFault(c, false)
		o.ran = o.ran*31 + c.Instructions - before
		o.exc, o.rip, o.flags = c.exc, c.RIP, c.rflags()
		for n := range 16 {
			o.regs[n] = o.regs[n]*31 + c.R[n]
		}
		for page := range o.ptes {
			v, _ := c.cfg.Memory.Load64(groupTable + 8*uint64(page))
			o.ptes[page] = o.ptes[page]*31 + v
		}
		if r.IntN(2) == 0 {
			page := uint64(r.IntN(groupPages))
			v, _ := c.cfg.Memory.Load64(groupTable + 8*page)
			writeTest64(t, c, groupTable+8*page, v&^0x42)
			c.flushPage(groupLinear + page*pageSize)
		}
	}
	if err := c.cfg.Memory.Read(groupData, o.memory[:]); err != nil {
		t.Fatal(err)
	}
	return o
}

func writeTest64(t *testing.T, c *CPU, gpa, v uint64) {
	if err := c.cfg.Memory.Store64(gpa, v); err != nil {
		t.Fatal(err)
	}
}
