package interp

import (
	"berth/x86"
	"berth/x86/decode"
	"berth/x86/fp"
	"berth/x86/optab"
)

// execVEX runs one instruction with a VEX prefix (Intel SDM vol. 2 §2.4 for the
// exceptions). A CPU without AVX, and real and virtual-8086 mode, have none.
func (c *CPU) execVEX(in *decode.Inst) status {
	if c.single == nil || c.CR0&x86.CR0PE == 0 || c.Flags&x86.FlagVM != 0 {
		return c.raise(x86.UD)
	}
	if in.Op >= optab.FirstBMI {
		return c.execBMI(in)
	}
	if c.CR4&x86.CR4OSXSAVE == 0 || c.XCR0&(xcr0SSE|xcr0AVX) != xcr0SSE|xcr0AVX || absentVEX(in.Op) {
		return c.raise(x86.UD)
	}
	if c.CR0&x86.CR0TS != 0 {
		return c.raise(x86.NM)
	}
	switch op := in.Op; {
	case op == optab.VZEROUPPER:
		return c.zeroUpper(in)
	case op == optab.MASKMOVDQU:
		return c.maskMove(in)
	case op == optab.LDMXCSR, op == optab.STMXCSR:
		return c.sseState(in)
	case op >= optab.PCMPESTRI && op <= optab.PCMPISTRM:
		st := c.sseShuffle(in)
		if st == next && (op == optab.PCMPESTRM || op == optab.PCMPISTRM) {
			c.fpu.ymmh[0] = [2]uint64{}
		}
		return st
	case op >= optab.VMASKMOVPS && op <= optab.VPMASKMOVQ:
		return c.maskedMove(in)
	case op >= optab.VPGATHERDD && op <= optab.VGATHERQPD:
		return c.gather(in)
	}
	return c.vexNative(in)
}

// absentVEX reports the operations of extensions that CPUID does not offer.
func absentVEX(op optab.Op) bool {
	return op >= optab.PCLMULQDQ && op <= optab.AESKEYGENASSIST
}

// zeroUpper is VZEROUPPER and, with VEX.L, VZEROALL.
func (c *CPU) zeroUpper(in *decode.Inst) status {
	n := xmmCount(in)
	clear(c.fpu.ymmh[:n])
	if in.L != 0 {
		clear(c.fpu.xmm[:n])
	}
	return next
}

func (c *CPU) ymm(n uint8) [4]uint64 {
	l, h := c.fpu.xmm[n&15], c.fpu.ymmh[n&15]
	return [4]uint64{l[0], l[1], h[0], h[1]}
}

func (c *CPU) setYMM(n uint8, v *[4]uint64) {
	c.fpu.xmm[n&15], c.fpu.ymmh[n&15] = [2]uint64{v[0], v[1]}, [2]uint64{v[2], v[3]}
}

// ldVector loads n ≤ 32 bytes, zero-extended.
func (c *CPU) ldVector(va uint64, n uint8, v *[4]uint64) (ok bool) {
	*v = [4]uint64{}
	switch n {
	case 1, 2, 4, 8:
		v[0], ok = c.load(va, n)
		return ok
	}
	lo, ok := c.ld128(va)
	v[0], v[1] = lo[0], lo[1]
	if ok && n == 32 {
		lo, ok = c.ld128(c.after(va, 16))
		v[2], v[3] = lo[0], lo[1]
	}
	return ok
}

// stVector stores the low n bytes of v, all or none.
func (c *CPU) stVector(va uint64, n uint8, v *[4]uint64) bool {
	switch n {
	case 1, 2, 4, 8:
		return c.store(va, v[0], n)
	case 16:
		return c.st128(va, [2]uint64{v[0], v[1]})
	}
	return c.probeWrite(va, 32) && c.st128(va, [2]uint64{v[0], v[1]}) && c.st128(c.after(va, 16), [2]uint64{v[2], v[3]})
}

// vexAddr returns the linear address of in's memory operand of n bytes.
func (c *CPU) vexAddr(in *decode.Inst, n uint8, write bool) (uint64, bool) {
	va, ok := c.memAddr(in, n, write)
	if ok && in.Op.VEXAligned() && va&uint64(n-1) != 0 {
		c.raiseErr(x86.GP, 0)
		return 0, false
	}
	return va, ok
}

// vexOperands is where the operands of one instruction are.
type vexOperands struct {
	va    uint64 // of memory
	n     uint8  // its bytes
	store bool   // it is the destination
	gprRM bool   // ModRM.rm is a general register
}

// vexNative has the host run the instruction.
func (c *CPU) vexNative(in *decode.Inst) status {
	var p vexOperands
	if !c.vexLoad(in, &p) {
		return faulted
	}
	o := &c.vex
	if in.Mem && vexMoves(in.Op) { // the host would want Mem aligned of some
		if p.store {
			o.Mem = o.Reg
		} else {
			o.Reg = o.Mem
		}
		return c.vexStore(in, &p)
	}
	if in.Op == optab.VCVTPS2PH && p.store && !c.probeWrite(p.va, uint64(p.n)) { // before it converts
		return faulted
	}
	o.MXCSR = c.fpu.mxcsr&^uint32(fp.AllFlags) | mxcsrMasks
	c.single.Run(in, o)
	if st := c.vexFlags(in, fp.Flags(o.MXCSR)&fp.AllFlags); st != next {
		return st
	}
	return c.vexStore(in, &p)
}

// vexMoves reports the moves of whole vectors.
func vexMoves(op optab.Op) bool {
	switch op {
	case optab.MOVUPS, optab.MOVUPD, optab.MOVDQU, optab.LDDQU:
		return true
	}
	return op.VEXAligned()
}

const mxcsrMasks = 0x3f << 7

// vexLoad fills c.vex with what the instruction reads.
func (c *CPU) vexLoad(in *decode.Inst, p *vexOperands) bool {
	o := &c.vex
	for i, a := range in.Row.Args {
		switch a {
		case optab.Vx, optab.Vo:
			o.Reg = c.ymm(in.Reg)
		case optab.Hx:
			o.V = c.ymm(in.V)
		case optab.Lx:
			o.Is4 = c.ymm(uint8(in.Imm >> 4))
		case optab.Gd, optab.Gy, optab.Ib:
		default:
			switch a {
			case optab.Ed, optab.Ey:
				p.gprRM = !in.Mem
			}
			if !in.Mem {
				o.RM, o.GPRM = c.ymm(in.RM), c.R[in.RM&15]
				break
			}
			p.n, p.store = in.Width(a), i == 0 && !comparesVEX(in.Op)
			var ok bool
			if p.va, ok = c.vexAddr(in, p.n, p.store); !ok || !p.store && !c.ldVector(p.va, p.n, &o.Mem) {
				return false
			}
		}
	}
	return true
}

// comparesVEX reports the operations that only set RFLAGS.
func comparesVEX(op optab.Op) bool {
	switch op {
	case optab.COMISS, optab.COMISD, optab.UCOMISS, optab.UCOMISD, optab.PTEST, optab.VTESTPS, optab.VTESTPD:
		return true
	}
	return false
}

// vexStore puts c.vex's results where they belong.
func (c *CPU) vexStore(in *decode.Inst, p *vexOperands) status {
	o := &c.vex
	switch a := in.Row.Args[0]; {
	case comparesVEX(in.Op):
		c.setStatus(uint64(o.Flags))
	case p.store:
		return done(c.stVector(p.va, p.n, &o.Mem))
	case a == optab.Vx, a == optab.Vo:
		c.setYMM(in.Reg, &o.Reg)
	case a == optab.Hx:
		c.setYMM(in.V, &o.V)
	case a == optab.Gd, a == optab.Gy:
		c.R[in.Reg&15] = o.GPR
	case p.gprRM:
		c.R[in.RM&15] = o.GPRM
	default:
		c.setYMM(in.RM, &o.RM)
	}
	return next
}

// vexFlags is sseFlags for the flags that the host raised with everything masked.
func (c *CPU) vexFlags(in *decode.Inst, f fp.Flags) status {
	masked := fp.Masked(c.fpu.mxcsr)
	if masked == fp.AllFlags {
		c.fpu.mxcsr |= uint32(f)
		return next
	}
	if in.Op == optab.DPPS || in.Op == optab.DPPD { // it stops between its steps
		return c.sseFlags(c.unmaskedSSE(in))
	}
	if masked&(fp.OE|fp.UE) != fp.OE|fp.UE && f&(fp.PreFlags&^masked) == 0 {
		f = c.unmaskedFlags(in, f)
	}
	if f&fp.PreFlags&^masked != 0 {
		f &= fp.PreFlags
	}
	return c.sseFlags(f)
}

// maskedElements tells which of a vector's elements of size bytes have their sign set.
func maskedElements(v *[4]uint64, size, n uint8) (pick uint32) {
	for i := range n / size {
		if at := i * size; v[at>>3]>>(8*uint(at&7)+8*uint(size)-1)&1 != 0 {
			pick |= 1 << i
		}
	}
	return pick
}

// element and setElement are a vector's elements of 4 or 8 bytes.
func element(v *[4]uint64, i, size uint8) uint64 {
	if size == 8 {
		return v[i&3]
	}
	return v[i>>1&3] >> (32 * uint(i&1)) & 0xffffffff
}

func setElement(v *[4]uint64, i, size uint8, e uint64) {
	if size == 8 {
		v[i&3] = e
		return
	}
	sh := 32 * uint(i&1)
	v[i>>1&3] = v[i>>1&3]&^(0xffffffff<<sh) | e<<sh
}

// maskedMove is VMASKMOV and VPMASKMOV: what the mask leaves out is not accessed.
func (c *CPU) maskedMove(in *decode.Inst) status {
	size := uint8(4)
	if in.Op == optab.VMASKMOVPD || in.Op == optab.VPMASKMOVQ {
		size = 8
	}
	n := uint8(16) << in.L
	mask, v := c.ymm(in.V), c.ymm(in.Reg)
	store := in.Row.Args[0] == optab.Mx
	pick := maskedElements(&mask, size, n)
	if !store {
		v = [4]uint64{}
	}
	base := c.offset(in)
	at := func(i uint8) (uint64, bool) {
		return c.addr(in.Seg, truncate(base+uint64(i*size), in.AddrSize), size, store)
	}
	for i := range n / size { // nothing is stored if one of them faults
		if pick>>i&1 == 0 {
			continue
		}
		va, ok := at(i)
		switch {
		case ok && store:
			ok = c.probeWrite(va, uint64(size))
		case ok:
			var e uint64
			e, ok = c.load(va, size)
			setElement(&v, i, size, e)
		}
		if !ok {
			return faulted
		}
	}
	if !store {
		c.setYMM(in.Reg, &v)
		return next
	}
	for i := range n / size {
		if pick>>i&1 == 0 {
			continue
		}
		va, _ := at(i)
		if !c.store(va, element(&v, i, size), size) {
			return faulted
		}
	}
	return next
}

// gather loads elements at several indices. One that faults leaves those before it
// loaded and their mask cleared, and the others' mask all ones or 0 (SDM vol. 2, VGATHERDPS).
func (c *CPU) gather(in *decode.Inst) status {
	size, indexSize := max(in.OpSize, 4), uint8(4)
	if in.Row.Args[1] == optab.Mvq {
		indexSize = 8
	}
	n := (uint8(16) << in.L) / max(size, indexSize)
	v, mask, index := c.ymm(in.Reg), c.ymm(in.V), c.ymm(in.Index)
	pick := maskedElements(&mask, size, size*n)
	base := uint64(in.Disp)
	if in.Base != decode.NoReg {
		base += c.R[in.Base&15]
	}
	for i := range n {
		setElement(&mask, i, size, truncate(-uint64(pick>>i&1), size))
	}
	for i := range n {
		if pick>>i&1 == 0 {
			continue
		}
		off := truncate(base+signExtend(element(&index, i, indexSize), indexSize)<<in.Scale, in.AddrSize)
		va, ok := c.addr(in.Seg, off, size, false)
		var e uint64
		if ok {
			e, ok = c.load(va, size)
		}
		if !ok {
			c.setYMM(in.Reg, &v)
			c.setYMM(in.V, &mask)
			return faulted
		}
		setElement(&v, i, size, e)
		setElement(&mask, i, size, 0)
	}
	clear(v[size*n/8:])
	c.setYMM(in.Reg, &v)
	c.setYMM(in.V, &[4]uint64{})
	return next
}

// unmaskedFlags corrects flags f, raised with everything masked, for overflow and
// underflow that are not: then a tiny result underflows though it is exact, and an
// overflow is inexact only if the result would be so with any exponent.
func (c *CPU) unmaskedFlags(in *decode.Inst, f fp.Flags) fp.Flags {
	width := resultSize(in.Op)
	switch {
	case width == 0:
		return f
	case in.Op > optab.LastSSE:
		return c.unmaskedFMA(in, f, width)
	}
	return c.unmaskedSSE(in)
}

// resultSize returns the bytes of the floating-point numbers that an operation
// rounds, 0 if it can neither overflow nor underflow.
func resultSize(op optab.Op) uint8 {
	switch op {
	case optab.ADDPS, optab.ADDSS, optab.SUBPS, optab.SUBSS, optab.MULPS, optab.MULSS, optab.DIVPS, optab.DIVSS,
		optab.ADDSUBPS, optab.HADDPS, optab.HSUBPS, optab.DPPS, optab.CVTPD2PS, optab.CVTSD2SS:
		return 4
	case optab.ADDPD, optab.ADDSD, optab.SUBPD, optab.SUBSD, optab.MULPD, optab.MULSD, optab.DIVPD, optab.DIVSD,
		optab.ADDSUBPD, optab.HADDPD, optab.HSUBPD, optab.DPPD:
		return 8
	case optab.VCVTPS2PH:
		return 2
	}
	if op < optab.VFMADDSUB132PS || op > optab.VFNMSUB231SD {
		return 0
	}
	// In each order PS and PD alternate.
	if (op-optab.VFMADDSUB132PS)&1 != 0 {
		return 8
	}
	return 4
}

// unmaskedSSE works flags out in software, 128 bits at a time.
func (c *CPU) unmaskedSSE(in *decode.Inst) (f fp.Flags) {
	src := c.ymm(in.RM)
	if in.Mem {
		src = c.vex.Mem
	}
	first := c.ymm(in.V)
	if in.Op == optab.DPPS && in.L == 1 {
		return fp.DotFlags(&first, &src, uint8(in.Imm), c.fpu.mxcsr)
	}
	for lane := 0; lane <= int(in.L)*2; lane += 2 {
		a, b := [2]uint64(first[lane:]), [2]uint64(src[lane:])
		f |= fp.Soft.Float(in.Op, &a, &b, uint8(in.Imm), c.fpu.mxcsr)
	}
	return f
}

// unmaskedFMA finds tiny results in what the host made. For an overflow it keeps
// what the host says of inexactness.
func (c *CPU) unmaskedFMA(in *decode.Inst, f fp.Flags, size uint8) fp.Flags {
	if fp.Masked(c.fpu.mxcsr)&fp.UE != 0 {
		return f
	}
	n, v := uint8(16)<<in.L, &c.vex.Reg
	if size == 2 {
		n, v = uint8(8)<<in.L, &c.vex.RM
		if in.Mem {
			v = &c.vex.Mem
		}
	}
	if a := in.Row.Args[2]; a == optab.Wd || a == optab.Wq {
		n = size
	}
	exponent := map[uint8]uint64{2: 0x7c00, 4: 0x7f800000, 8: 0x7ff << 52}[size]
	lowest := exponent & -exponent // of a normal number's bits: below it is the fraction
	for i := range n / size {
		at := i * size
		e := v[at>>3] >> (8 * uint(at&7)) & (^uint64(0) >> (64 - 8*size))
		if e&exponent == 0 && e&(lowest-1) != 0 {
			f |= fp.UE
		}
	}
	return f
}
