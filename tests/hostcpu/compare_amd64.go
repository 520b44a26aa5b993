package hostcpu

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"

	"berth/x86"
	"berth/x86/decode"
	"berth/x86/optab"
)

// Decode is the case's instructions.
func (c *Case) Decode() []decode.Inst {
	var all []decode.Inst
	code := append(c.Code[:len(c.Code):len(c.Code)], bytes.Repeat([]byte{0xcc}, decode.MaxLen)...)
	for off := 0; off < len(c.Code); {
		var in decode.Inst
		if decode.Decode(code[off:], c.Mode, &in) != nil {
			break
		}
		all = append(all, in)
		off += int(in.Len)
	}
	return all
}

// Compare lists what differs between two results of a case, leaving out what
// its last instruction leaves undefined.
func Compare(c *Case, want, got *Result) []string {
	if want.Stop != "" || got.Stop != "" {
		if want.Stop == got.Stop {
			return nil
		}
		return []string{fmt.Sprintf("stopped: want %q, got %q", want.Stop, got.Stop)}
	}
	if strayed(c, want) && strayed(c, got) {
		return nil
	}
	insts := c.Decode()
	if len(insts) == 0 {
		return []string{"does not decode"}
	}
	last, single := &insts[len(insts)-1], len(insts) == 1
	if (want.Vector == x86.AC && got.Vector != x86.AC || intelHost() && got.Vector == x86.AC && want.Vector != x86.AC) && anyLong(insts) {
		return nil // how operands over 8 bytes are checked is the processor's choice (SDM vol. 2, MOVUPS)
	}
	if got.Vector == x86.GP && (want.Vector != x86.GP || want.State.RIP != got.State.RIP) && anyARPLOfCode(insts) {
		return nil // #GP for a segment that cannot be written (SDM vol. 2, ARPL), on Zen 4 only if it writes
	}
	if (want.Vector != got.Vector || want.State.RIP != got.State.RIP) && imagePastEnd(c, insts, got) {
		return nil // the host wraps, with part of the image loaded: see docs/decisions/0011-floating-point.md
	}
	if storeStopped(instAt(c, insts, got), want, got) || maskedPastEnd(instAt(c, insts, want), want) {
		return nil
	}
	d := differ{c: c, insts: insts, last: last, single: single, stopped: instAt(c, insts, want)}
	d.exception(want, got)
	if undefinedResult(last, &c.State, single) || want.Vector != x86.BP && d.has(piecemeal) {
		return d.out
	}
	d.registers(want, got)
	d.fx(want, got)
	d.memory(want, got)
	return d.out
}

// anyARPLOfCode reports an ARPL whose operand is in the code segment.
func anyARPLOfCode(insts []decode.Inst) bool {
	for i := range insts {
		if in := &insts[i]; in.Op == optab.ARPL && in.Mem && in.Seg == x86.CS {
			return true
		}
	}
	return false
}

// imagePastEnd reports a fault of an image of the x87 state that may run past the end of
// its segment.
func imagePastEnd(c *Case, insts []decode.Inst, r *Result) bool {
	if c.Mode == decode.Mode64 || r.Vector != x86.GP && r.Vector != x86.SSFault {
		return false
	}
	at := instAt(c, insts, r)
	return at != nil && longOperand(at)
}

// anyLong reports an instruction with a memory operand over 8 bytes.
func anyLong(insts []decode.Inst) bool {
	for i := range insts {
		in := &insts[i]
		for _, a := range in.Row.Args {
			if in.Mem && in.Width(a) > 8 || longOperand(in) || in.Op == optab.MASKMOVQ || in.Op == optab.MASKMOVDQU {
				return true
			}
		}
	}
	return false
}

// strayed reports that the case jumped into another case's slot: what it did
// there may have left flags undefined.
func strayed(c *Case, r *Result) bool {
	base, _ := bases(c.Mode)
	at := r.State.RIP + base - codeBase
	start := c.State.RIP + base - codeBase
	return at < codeSize && at-start > codeSlot
}

// differ collects differences.
type differ struct {
	c      *Case
	insts  []decode.Inst
	last   *decode.Inst
	single bool
	// stopped is the instruction that the host faulted in, nil if in none or not known.
	stopped *decode.Inst
	out     []string
}

func (d *differ) check(name string, want, got uint64) {
	if want != got {
		d.out = append(d.out, fmt.Sprintf("%s: want %#x, got %#x", name, want, got))
	}
}

func (d *differ) exception(want, got *Result) {
	if d.bothFault(want.Vector, got.Vector) || d.wraps(want, got) {
		return
	}
	d.check("vector", uint64(want.Vector), uint64(got.Vector))
	if want.Vector != got.Vector {
		return
	}
	mask := ^uint64(0)
	switch want.Vector {
	case x86.PF:
		// AMD looks at the last byte of a long operand first; nobody says which is.
		// With 32-bit addresses the operand may wrap at 4 GiB, and still be one.
		if d.has(isCMPS) {
			return // the two operands' faults differ
		}
		elsewhere := d.has(longOperand) || intelHost() && d.has(anyByte) && uint32(want.CR2-got.CR2) < 32
		if !elsewhere || uint32(want.CR2-got.CR2) >= 512 {
			d.check("CR2", want.CR2, got.CR2)
		}
		if want.CR2 >= 0x7ffffffff000 { // Linux hides which kernel pages exist
			mask = ^uint64(1)
		}
		if d.has(func(in *decode.Inst) bool { return in.Op == optab.ARPL }) {
			mask &^= 1 << 1 // W/R
		}
	case x86.GP, x86.SSFault, x86.NP, x86.TS, x86.AC:
	default:
		mask = 0
	}
	d.check("error code", want.Error&mask, got.Error&mask)
}

// bothFault accepts another fault than the host's where an operand deserves
// two and nobody defines the order: #GP for a misaligned 16-byte operand against
// the stack segment's limit or a non-canonical address in it, operands made in
// parts that run past 4 GiB, an alignment check on a page that faults, and CALL to
// a non-canonical address with a bad stack (Intel's pseudocode looks at the target
// first). CMPS may read either operand first.
func (d *differ) bothFault(want, got uint8) bool {
	stack := want == x86.PF || want == x86.SSFault
	memory := func(v uint8) bool { return v == x86.PF || v == x86.GP || v == x86.SSFault }
	return want == x86.AC && got == x86.PF ||
		intelHost() && want == x86.XM && memory(got) && d.has(func(in *decode.Inst) bool { return in.Op == optab.VCVTPS2PH }) ||
		memory(want) && memory(got) && want != got && d.has(isCMPS) ||
		stack && got == x86.GP && d.has(func(in *decode.Inst) bool { return in.Op == optab.CALL }) ||
		want == x86.GP && got == x86.SSFault && d.has(d.misaligned) ||
		want == x86.SSFault && got == x86.GP && d.has(d.misaligned) ||
		want == x86.PF && (got == x86.GP || got == x86.SSFault) && d.c.Mode != decode.Mode64 && d.has(func(in *decode.Inst) bool {
			return in.Op == optab.MASKMOVDQU || in.Op == optab.MASKMOVQ || longOperand(in) || in.Op == optab.BOUND ||
				in.Row.Args != nil && in.Row.Args[0] == optab.Mt
		})
}

// misaligned reports a 16-byte operand in the stack segment that is or, in a
// sequence, may be misaligned.
func (d *differ) misaligned(in *decode.Inst) bool {
	sse := in.Op >= optab.FirstSSE && in.Op <= optab.LastSSE
	return sse && in.Mem && in.Seg == x86.SS && (!d.single || linear(in, &d.c.State)&15 != 0)
}

// has reports whether any instruction of the case satisfies f.
func (d *differ) has(f func(*decode.Inst) bool) bool {
	for i := range d.insts {
		if f(&d.insts[i]) {
			return true
		}
	}
	return false
}

// fused reports FMA and VCVTPS2PH.
func fused(in *decode.Inst) bool { return in.Op >= optab.VCVTPS2PH && in.Op <= optab.LastAVX }

func isCMPS(in *decode.Inst) bool { return in.Op == optab.CMPS }

// piecemeal reports the instructions that fault with part of their work done on
// AMD; they can be restarted, and berth does all or nothing.
func piecemeal(in *decode.Inst) bool { return in.Op == optab.PUSHA || in.Op == optab.POPA }

// longOperand reports the instructions with operands over 16 bytes.
func longOperand(in *decode.Inst) bool {
	return savesPointers(in) || in.Op == optab.FXRSTOR || in.Op == optab.FRSTOR || in.Op == optab.FLDENV
}

var gprNames = [16]string{"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"}

func (d *differ) registers(want, got *Result) {
	w, g := &want.State, &got.State
	for i, name := range gprNames {
		mask := ^uint64(0)
		if d.c.Mode != decode.Mode64 {
			mask = 0xffffffff
			if i >= 8 {
				continue
			}
		}
		if d.c.Mode == decode.Mode16 && i == x86.RSP {
			mask = 0xffff // the return to a 16-bit stack segment spoils the rest
		}
		if d.last.Op == optab.CMPXCHG && d.last.OpSize == 4 && !d.last.Mem && int(d.last.RM) == i {
			mask = 0xffffffff // a destination left alone: Intel writes it back, AMD does not
		}
		mask &= d.stringMask(i)
		d.check(name, w.GPR[i]&mask, g.GPR[i]&mask)
	}
	d.check("rip", w.RIP, g.RIP)
	mask := ^(undefined(d.last, &d.c.State, d.single) | x86.FlagRF | d.stringFlags())
	d.check("rflags", w.RFLAGS&mask, g.RFLAGS&mask)
	if d.c.Mode == decode.Mode64 {
		d.check("fs base", w.FSBase, g.FSBase)
		d.check("gs base", w.GSBase, g.GSBase)
	}
}

// fx compares x87 and SSE registers but for FOP, FIP and FDP, which AMD's
// FXSAVE and XSAVE clear when no exception is pending (APM vol. 2 §11.4.4).
func (d *differ) fx(want, got *Result) {
	le, w, g := binary.LittleEndian, want.State.FX[:], got.State.FX[:]
	d.check("fcw", uint64(le.Uint16(w)), uint64(le.Uint16(g)))
	flags := d.convertedFlags(got)
	if want.Vector == x86.XM && d.has(fused) { // see docs/decisions/0010-cpu-model.md
		flags |= 1 << 5 // inexact
	}
	d.check("mxcsr", uint64(le.Uint32(w[24:])|flags), uint64(le.Uint32(g[24:])|flags))
	x87 := 8
	if d.entersMMXEarly() && want.Vector != x86.BP {
		x87 = 0
	} else {
		d.check("fsw", uint64(le.Uint16(w[2:])), uint64(le.Uint16(g[2:])))
		d.check("ftw", uint64(w[4]), uint64(g[4]))
	}
	for i := range x87 {
		a, b := w[32+16*i:42+16*i], g[32+16*i:42+16*i]
		if !bytes.Equal(a, b) {
			d.out = append(d.out, fmt.Sprintf("st(%d): want %s, got %s", i, f80Text(a), f80Text(b)))
		}
	}
	for i := range 16 {
		a, b, n := w[160+16*i:176+16*i], g[160+16*i:176+16*i], d.gatherRest(i)
		if !bytes.Equal(a[:min(n, 16)], b[:min(n, 16)]) {
			d.out = append(d.out, fmt.Sprintf("xmm%d: want %016x_%016x, got %016x_%016x", i,
				le.Uint64(a[8:]), le.Uint64(a), le.Uint64(b[8:]), le.Uint64(b)))
		}
		if a, b := want.State.YMMH[16*i:16*i+16], got.State.YMMH[16*i:16*i+16]; !bytes.Equal(a[:max(n, 16)-16], b[:max(n, 16)-16]) {
			d.out = append(d.out, fmt.Sprintf("ymm%d's upper half: want %016x_%016x, got %016x_%016x", i,
				le.Uint64(a[8:]), le.Uint64(a), le.Uint64(b[8:]), le.Uint64(b)))
		}
	}
}

// entersMMXEarly reports the instructions that on the host have switched from x87 to
// MMX state when they fault; the manuals do not say.
func (d *differ) entersMMXEarly() bool {
	return d.has(func(in *decode.Inst) bool {
		switch in.Op {
		case optab.MASKMOVQ, optab.CVTPS2PI, optab.CVTTPS2PI, optab.CVTPD2PI, optab.CVTTPD2PI, optab.CVTPI2PS, optab.CVTPI2PD:
			return true
		}
		return intelHost() && storesMMX(in)
	})
}

func f80Text(p []byte) string {
	return fmt.Sprintf("%04x_%016x", binary.LittleEndian.Uint16(p[8:]), binary.LittleEndian.Uint64(p))
}

func (d *differ) memory(want, got *Result) {
	if bytes.Equal(want.Memory[:], got.Memory[:]) {
		return
	}
	ignore := d.pointerBytes()
	other, n := d.otherBytes(want)
	for i := range want.Memory {
		if want.Memory[i] != got.Memory[i] && !ignore[i] && uint(i-other) >= uint(n) {
			end := min(i+16, len(want.Memory))
			d.out = append(d.out, fmt.Sprintf("memory at %#x: want % x, got % x", i, want.Memory[i:end], got.Memory[i:end]))
			return
		}
	}
}

// savesPointers reports the instructions that store FOP, FIP and FDP.
func savesPointers(in *decode.Inst) bool {
	return in.Op == optab.FNSTENV || in.Op == optab.FNSAVE || in.Op == optab.FXSAVE
}

// pointerBytes is the sandbox offsets where such an instruction put what the
// host decides: the instruction and data pointers, and FXSAVE's MXCSR_MASK.
func (d *differ) pointerBytes() map[int]bool {
	if !savesPointers(d.last) || !d.single {
		return nil
	}
	at := int(linear(d.last, &d.c.State) - sandboxBase)
	first, end := 12, 28 // 32-bit environment: FIP, FCS and FOP, FDP, FDS
	switch {
	case d.last.Op == optab.FXSAVE:
		first, end = 6, 32
	case d.last.OpSize == 2:
		first, end = 6, 14
	}
	m := map[int]bool{}
	for i := first; i < end; i++ {
		if d.last.Op != optab.FXSAVE || i < 24 || i >= 28 {
			m[at+i] = true
		}
	}
	return m
}

// linear is the linear address of a memory operand in a state.
func linear(in *decode.Inst, s *State) uint64 {
	reg := func(n uint8) uint64 {
		if n < decode.NoReg {
			return s.GPR[n]
		}
		return 0
	}
	a := reg(in.Base) + reg(in.Index)<<in.Scale + uint64(in.Disp)
	if in.Base == decode.RIP {
		a += s.RIP + uint64(in.Len)
	}
	if in.AddrSize < 8 {
		a &= 1<<(8*in.AddrSize) - 1
	}
	if _, base := bases(in.Mode); base != 0 {
		a += base
	}
	if in.Mode == decode.Mode64 && in.Seg == x86.FS {
		a += s.FSBase
	}
	if in.Mode == decode.Mode64 && in.Seg == x86.GS {
		a += s.GSBase
	}
	return a
}

// Describe is a case for a person: instructions and inputs.
func (c *Case) Describe(want *Result) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d-bit % x\n", 16<<c.Mode, c.Code)
	pc := uint64(0)
	for _, in := range c.Decode() {
		fmt.Fprintf(&b, "    %s\n", in.Text(pc))
		pc += uint64(in.Len)
		if in.Mem && len(c.Decode()) == 1 {
			if at := linear(&in, &c.State) - sandboxBase; at < sandboxSize {
				fmt.Fprintf(&b, "    operand at sandbox %#x\n", at)
			}
		}
	}
	for i, v := range c.State.GPR {
		fmt.Fprintf(&b, " %s=%x", gprNames[i], v)
	}
	fmt.Fprintf(&b, "\n rflags=%x fsbase=%x gsbase=%x", c.State.RFLAGS, c.State.FSBase, c.State.GSBase)
	f := c.State.fpu()
	fmt.Fprintf(&b, "\n fcw=%x fsw=%x ftw=%x mxcsr=%x\n", f.FCW, f.FSW, f.FTW, f.MXCSR)
	for i := range f.ST {
		fmt.Fprintf(&b, " st%d=%04x_%016x", i, f.ST[i].SE, f.ST[i].Mant)
	}
	b.WriteString("\n")
	for i, x := range f.YMMH {
		fmt.Fprintf(&b, " ymmh%d=%016x_%016x", i, x[1], x[0])
	}
	b.WriteString("\n")
	for i, x := range f.XMM {
		fmt.Fprintf(&b, " xmm%d=%016x_%016x", i, x[1], x[0])
	}
	fmt.Fprintf(&b, "\n host: vector %d, rip %x\n", want.Vector, want.State.RIP)
	return b.String()
}
