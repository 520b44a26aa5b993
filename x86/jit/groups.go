package jit

import (
	"math"
	"math/bits"

	"berth/x86"
	"berth/x86/decode"
	"berth/x86/optab"
)

// A group is accesses of one stretch of instructions, which is left at its end or
// by exits only, whose addresses differ by known constants. The first checks for all of them that
// what lies from lo to hi is in one page that grants it, and leaves the host address of lo in
// Frame.Hosts; the others use that. Nothing else than this address is relied on: what
// a register holds by then is of no concern to the safety of an access.
//
// Where the check fails although the first access would be granted, control
// leaves by a Split exit, to the same instructions without groups.
type group struct {
	key     groupKey
	lo, hi  int64 // relative to the sum of the key
	members int
	write   bool
	align   uint8 // of lo, for all that need it; 0 or 1: none
	aligned int64 // where one of those lies
	branch  bool  // a conditional branch has followed the first
	closed  bool  // nothing joins it any more
	host    uint8 // place in Frame.Hosts
}

// groupKey is a sum, apart from a constant, that addresses have in common.
type groupKey struct {
	base, index origin
	scale, seg  uint8
}

// origin stands for one value that a register had; 0 for none. In 32-bit code all sums are of 32 bits: a
// group across their end is none that one page holds.
type origin uint16

const (
	ripOrigin = origin(17)
	// maxExtent is the bytes that a group spans at most: the more, the more often it
	// reaches into the next page.
	maxExtent = 512
)

// ref says what an access of an instruction has to do with groups.
type ref struct {
	group uint8 // from 1; 0: none
	first bool
	off   int64 // from the group's lo
}

// leaves reports that the access may leave the block.
func (r *ref) leaves() bool { return r.group == 0 || r.first }

// An instruction's accesses.
const (
	accMem   = iota // its memory operand
	accStack        // what it pushes or pops
	accesses
)

// planner finds groups.
type planner struct {
	insts  []inst
	groups []group
	regs   [16]known
	last   origin
}

// known is what a register holds: the value of an origin, and off.
type known struct {
	origin origin
	off    int64
}

// plan finds the groups of a stretch.
func plan(insts []inst, groups []group) []group {
	p := planner{insts: insts, groups: groups[:0], last: ripOrigin}
	for n := range p.regs {
		p.regs[n] = known{origin: origin(n + 1)}
	}
	for i := range insts {
		p.inst(&insts[i])
	}
	p.finish()
	return p.groups
}

// access is how many bytes an instruction reaches, and what for.
type access struct {
	size, align uint8
	write       bool
}

func (p *planner) inst(in *inst) {
	word := wordOf(in.Mode)
	if a, ok := operandAccess(in); ok && in.AddrSize == word && (word == 8 || in.Seg < x86.FS) {
		k, at := p.address(&in.Inst, in.pos)
		in.refs[accMem] = p.join(k, at, a)
	}
	if n, at, a, ok := stackAccess(&in.Inst); ok && in.how == howOwn {
		in.refs[accStack] = p.join(groupKey{base: p.regs[n].origin}, p.regs[n].off+at, a)
	}
	if in.Op == optab.JCC {
		for i := range p.groups {
			p.groups[i].branch = true
		}
	}
	p.effect(in)
}

// address is where the memory operand lies.
func (p *planner) address(in *decode.Inst, pos uint16) (k groupKey, at int64) {
	at = in.Disp
	switch in.Base {
	case decode.NoReg:
	case decode.RIP:
		k.base = ripOrigin
		at += int64(pos) + int64(in.Len)
	default:
		k.base = p.regs[in.Base].origin
		at += p.regs[in.Base].off
	}
	if in.Index != decode.NoReg {
		k.index, k.scale = p.regs[in.Index].origin, in.Scale
		at += p.regs[in.Index].off << in.Scale
	}
	if in.Seg >= x86.FS {
		k.seg = in.Seg
	}
	return k, at
}

// join puts an access into a group. The ref's off is relative to the key until finish.
func (p *planner) join(k groupKey, at int64, a access) ref {
	if at < math.MinInt32/2 || at > math.MaxInt32/2 {
		return ref{}
	}
	for i := len(p.groups) - 1; i >= 0; i-- {
		g := &p.groups[i]
		if g.closed || g.key != k {
			continue
		}
		lo, hi := min(g.lo, at), max(g.hi, at+int64(a.size))
		if hi-lo > maxExtent || a.write && !g.write && g.branch || !g.fits(at, a.align) {
			break
		}
		g.lo, g.hi, g.write = lo, hi, g.write || a.write
		g.members++
		return ref{group: uint8(i + 1), off: at}
	}
	g := group{key: k, lo: at, hi: at + int64(a.size), write: a.write, members: 1}
	g.fits(at, a.align)
	p.groups = append(p.groups, g)
	return ref{group: uint8(len(p.groups)), first: true, off: at}
}

// fits reports that one check of lo's alignment can do for the group and for an access at a multiple of align.
func (g *group) fits(at int64, align uint8) bool {
	if align <= 1 {
		return true
	}
	if g.align > 1 && (at-g.aligned)&int64(min(align, g.align)-1) != 0 {
		return false
	}
	if align > g.align {
		g.align, g.aligned = align, at
	}
	return true
}

// finish makes groups of those with more than one member.
func (p *planner) finish() {
	hosts := uint8(0)
	for i := range p.groups {
		g := &p.groups[i]
		if g.members == 1 || hosts == maxHosts {
			g.members = 1
			continue
		}
		g.host = hosts
		hosts++
		if g.align > 1 {
			g.lo -= (g.lo - g.aligned) & int64(g.align-1)
		}
	}
	if len(p.groups) == 0 {
		return
	}
	for i := range p.insts {
		for j := range p.insts[i].refs {
			r := &p.insts[i].refs[j]
			switch {
			case r.group == 0:
			case p.groups[r.group-1].members == 1:
				*r = ref{}
			default:
				r.off -= p.groups[r.group-1].lo
			}
		}
	}
}

// forget says that register n holds something else.
func (p *planner) forget(n uint8) {
	p.last++
	p.regs[n] = known{origin: p.last}
}

// effect follows what the instruction does with the general registers.
func (p *planner) effect(in *inst) {
	word := wordOf(in.Mode)
	wide := in.OpSize == word
	if wide && (in.how == howPlain || in.how == howOwn) {
		switch in.Op {
		case optab.ADD, optab.SUB:
			if !in.Mem && len(in.Row.Args) == 2 && isImm(in.Row.Args[1]) {
				n := in.RM
				if in.Row.Args[0] == optab.RAXv {
					n = rAX
				}
				by := int64(int32(in.Imm))
				if in.Op == optab.SUB {
					by = -by
				}
				p.regs[n].off += by
				return
			}
		case optab.INC, optab.DEC:
			if !in.Mem {
				p.regs[in.RM].off += 1 - 2*int64(b2i(in.Op == optab.DEC))
				return
			}
		case optab.LEA:
			if in.AddrSize == word && in.Index == decode.NoReg && in.Base < 16 {
				b := p.regs[in.Base]
				p.regs[in.Reg] = known{b.origin, b.off + in.Disp}
				return
			}
		case optab.MOV:
			if !in.Mem && in.how == howPlain && len(in.Row.Args) == 2 {
				switch {
				case in.Row.Args[0] == optab.Gv && in.Row.Args[1] == optab.Ev:
					p.regs[in.Reg] = p.regs[in.RM]
					return
				case in.Row.Args[0] == optab.Ev && in.Row.Args[1] == optab.Gv:
					p.regs[in.RM] = p.regs[in.Reg]
					return
				}
			}
		}
	}
	if in.how == howOwn {
		switch in.Op {
		case optab.PUSH, optab.PUSHF:
			p.regs[rsp].off -= int64(word)
			return
		case optab.POP:
			p.regs[rsp].off += int64(word)
			p.forget(popped(&in.Inst))
			return
		case optab.LEAVE:
			b := p.regs[rBP]
			p.regs[rsp] = known{b.origin, b.off + int64(word)}
			p.forget(rBP)
			return
		}
	}
	w := written(in)
	if w == unknown {
		for i := range p.groups {
			p.groups[i].closed = true
		}
	}
	for ; w != 0; w &= w - 1 {
		p.forget(uint8(bits.TrailingZeros16(w)))
	}
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

func isImm(a optab.Arg) bool {
	switch a {
	case optab.Ib, optab.IbS, optab.Iz:
		return true
	}
	return false
}

// popped is the register that a POP loads.
func popped(in *decode.Inst) uint8 {
	if in.Row.Args[0] == optab.Ev {
		return in.RM
	}
	return in.Reg
}

// unknown is what written says of an instruction that may do anything.
const unknown = 0xffff

// written is the general registers that the instruction may change, a bit each.
func written(in *inst) (w uint16) {
	switch in.how {
	case howNothing:
		return 0
	case howX87:
		if in.Op == optab.FNSTSWAX {
			w = 1 << rAX
		}
		return w
	case howPlain, howSSE, howMMX:
		o := &in.ops
		if o.gWrite && !o.xmmG {
			w |= 1 << (in.Reg & 15)
			if o.gHigh {
				w |= 1 << (in.Reg & 3)
			}
		}
		if o.eWrite && !o.xmmE && !in.Mem {
			switch {
			case o.acc:
				w |= 1 << rAX
			case o.eHigh:
				w |= 1 << (in.RM & 3)
			default:
				w |= 1 << (in.RM & 15)
			}
		}
		if o.implicitRAX || in.Op == optab.MUL || in.Op == optab.IMUL && len(in.Row.Args) == 1 {
			w |= 1 << rAX
		}
		if o.implicitRDX {
			w |= 1 << rDX
		}
		if in.Op == optab.PCMPESTRI || in.Op == optab.PCMPISTRI {
			w |= 1 << rCX
		}
		return w
	case howVEX:
		o := parseVEX(&in.Inst)
		if o.regGPR {
			w |= 1 << (in.Reg & 15)
		}
		if o.vGPR {
			w |= 1 << (in.V & 15)
		}
		if o.rmGPR {
			w |= 1 << (in.RM & 15)
		}
		if in.Op == optab.PCMPESTRI || in.Op == optab.PCMPISTRI {
			w |= 1 << rCX
		}
		return w
	case howOwn:
		return writtenByOwn(&in.Inst)
	}
	return unknown
}

func writtenByOwn(in *decode.Inst) uint16 {
	switch in.Op {
	case optab.MOV:
		switch in.Row.Args[0] {
		case optab.AL, optab.RAXv:
			return 1 << rAX
		case optab.Ob, optab.Ov:
			return 0
		case optab.Zb:
			return 1<<(in.Reg&3) | 1<<in.Reg
		}
		return 1 << in.Reg
	case optab.XCHG:
		return 1<<rAX | 1<<in.Reg
	case optab.BSWAP, optab.LEA:
		return 1 << in.Reg
	case optab.MOVSEG:
		return 1 << in.RM
	case optab.CBW, optab.LAHF:
		return 1 << rAX
	case optab.CWD:
		return 1 << rDX
	case optab.RDTSC:
		return 1<<rAX | 1<<rDX
	case optab.RDTSCP:
		return 1<<rAX | 1<<rCX | 1<<rDX
	case optab.DIV, optab.IDIV:
		return 1<<rAX | 1<<rDX
	case optab.STOS, optab.MOVS:
		return 1<<rCX | 1<<rSI | 1<<rDI
	case optab.SAHF, optab.CLC, optab.STC, optab.CMC, optab.CLD, optab.STD, optab.LFENCE, optab.SFENCE, optab.MFENCE, optab.CLI,
		optab.JCC, optab.BT, optab.BTS, optab.BTR, optab.BTC:
		return 0
	}
	return unknown
}

// operandAccess is what the instruction's memory operand is accessed for, if it is one that memory emits.
func operandAccess(in *inst) (a access, ok bool) {
	if !in.Mem {
		return a, false
	}
	switch in.how {
	case howX87:
		return access{in.Width(in.Row.Args[0]), 1, x87Stores(in.Op)}, in.Op != optab.FLDCW // which may leave anyway
	case howPlain, howSSE, howMMX:
		o := &in.ops
		return access{o.eSize, alignment(&in.Inst, o), o.eWrite}, o.e
	case howVEX:
		o := parseVEX(&in.Inst)
		a = access{size: o.memSize, align: 1, write: o.memWrite}
		if in.Op.VEXAligned() {
			a.align = o.memSize
		}
		return a, true
	case howOwn:
		switch in.Op {
		case optab.DIV, optab.IDIV:
			return access{in.OpSize, 1, false}, true
		case optab.JMP, optab.CALL, optab.PUSH:
			return access{wordOf(in.Mode), 1, false}, true
		}
	}
	return a, false
}

// stackAccess is the word at disp from register n that the instruction pushes or pops.
func stackAccess(in *decode.Inst) (n uint8, disp int64, a access, ok bool) {
	word := wordOf(in.Mode)
	switch in.Op {
	case optab.PUSH, optab.PUSHF, optab.CALL:
		return rsp, -int64(word), access{word, 1, true}, true
	case optab.POP, optab.RET:
		return rsp, 0, access{word, 1, false}, true
	case optab.LEAVE:
		return rBP, 0, access{word, 1, false}, true
	}
	return 0, 0, a, false
}
