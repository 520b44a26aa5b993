package interp

import (
	"berth/x86"
	"berth/x86/decode"
	"berth/x86/fp"
	"berth/x86/optab"
)

// fpuState is x86.FPU as instructions use it: the registers at their physical
// places, TOP apart from the status word.
type fpuState struct {
	regs  [8]x86.F80 // R0…R7; their significands are MM0…MM7
	top   uint8
	valid uint8  // a set bit is a register that is not empty
	fcw   uint16 // bit 6 set
	fsw   uint16 // without TOP; ES and B agree with the flags and masks
	fop   uint16
	fip   uint64
	fdp   uint64
	mxcsr uint32
	ferr  bool           // FERR# may be asserted
	lent  bool           // Core.Frame holds the x87 and MMX state meanwhile: see lendX87
	xmm   *[16][2]uint64 // Core.Frame's
	ymmh  *[16][2]uint64 // likewise
	arith fp.Arith

	scratch [maxXsave]byte // for images of the state: escapes to IO implementations
}

// Bits of the status word.
const (
	fswIE  = 1 << 0
	fswSF  = 1 << 6 // stack fault
	fswES  = 1 << 7
	fswC0  = 1 << 8
	fswC1  = 1 << 9
	fswC2  = 1 << 10
	fswC3  = 1 << 14
	fswB   = 1 << 15
	fswCC  = fswC0 | fswC1 | fswC2 | fswC3
	fswTop = 7 << 11

	fcwReset = 0x37f
	fcwMask  = 0x1f3f // writable bits; bit 6 reads 1
)

// saveFPU fills f with the x87, MMX and SSE state.
func (c *CPU) saveFPU(f *x86.FPU) {
	c.takeX87()
	s := &c.fpu
	for i := range f.ST {
		f.ST[i] = *s.st(uint8(i))
	}
	f.FCW, f.FSW, f.FTW, f.FOP = s.fcw, s.statusWord(), s.valid, s.fop
	f.FIP, f.FDP, f.MXCSR, f.XMM, f.YMMH = s.fip, s.fdp, s.mxcsr, *s.xmm, *s.ymmh
}

// loadFPU replaces the x87, MMX and SSE state by f; reserved bits are dropped.
func (c *CPU) loadFPU(f *x86.FPU) {
	c.takeX87()
	s := &c.fpu
	s.setStatusWord(f.FSW)
	for i := range f.ST {
		*s.st(uint8(i)) = f.ST[i]
	}
	s.valid, s.fop = f.FTW, f.FOP&0x7ff
	s.fip, s.fdp, s.mxcsr, *s.xmm, *s.ymmh = f.FIP, f.FDP, f.MXCSR&mxcsrMask, f.XMM, f.YMMH
	s.setControlWord(f.FCW)
	s.ferr = c.cfg.FERR != nil && s.fsw&fswES != 0
}

// st returns stack register i.
func (s *fpuState) st(i uint8) *x86.F80 { return &s.regs[(s.top+i)&7] }

// empty reports whether stack register i is empty.
func (s *fpuState) empty(i uint8) bool { return s.valid>>((s.top+i)&7)&1 == 0 }

func (s *fpuState) setValid(i uint8) { s.valid |= 1 << ((s.top + i) & 7) }
func (s *fpuState) free(i uint8)     { s.valid &^= 1 << ((s.top + i) & 7) }

func (s *fpuState) pop() {
	s.free(0)
	s.top = (s.top + 1) & 7
}

func (s *fpuState) statusWord() uint16 { return s.fsw | uint16(s.top)<<11 }

func (s *fpuState) setStatusWord(v uint16) {
	s.top = uint8(v>>11) & 7
	s.fsw = v &^ fswTop
	s.summarize()
}

func (s *fpuState) setControlWord(v uint16) {
	s.fcw = v&fcwMask | 0x40
	s.summarize()
}

// summarize sets ES and B: whether an unmasked exception is pending.
func (s *fpuState) summarize() {
	s.fsw &^= fswES | fswB
	if s.fsw&^s.fcw&uint16(fp.AllFlags) != 0 {
		s.fsw |= fswES | fswB
	}
}

// initX87 is FNINIT.
func (s *fpuState) initX87() {
	s.fcw, s.fsw, s.top, s.valid = fcwReset, 0, 0, 0
	s.fop, s.fip, s.fdp = 0, 0, 0
}

// mm returns an MMX register.
func (s *fpuState) mm(n uint8) uint64 { return s.regs[n&7].Mant }

// setMM writes one.
func (s *fpuState) setMM(n uint8, v uint64) {
	s.regs[n&7] = x86.F80{Mant: v, SE: 0xffff}
	s.enterMMX()
}

// enterMMX is what every MMX instruction does to the x87 (Intel SDM vol. 1 §9.5.1).
func (s *fpuState) enterMMX() { s.top, s.valid = 0, 0xff }

// fullTags returns the tag word of FNSTENV: 0 valid, 1 zero, 2 special, 3 empty.
func (s *fpuState) fullTags() (w uint16) {
	for i := range s.regs {
		tag := uint16(3)
		if s.valid>>i&1 != 0 {
			r := &s.regs[i]
			switch e := r.SE & 0x7fff; {
			case e == 0 && r.Mant == 0:
				tag = 1
			case e == 0 || e == 0x7fff || r.Mant>>63 == 0:
				tag = 2
			default:
				tag = 0
			}
		}
		w |= tag << (2 * i)
	}
	return w
}

// setFullTags takes FLDENV's tag word: only emptiness is remembered.
func (s *fpuState) setFullTags(w uint16) {
	s.valid = 0
	for i := range 8 {
		if w>>(2*i)&3 != 3 {
			s.valid |= 1 << i
		}
	}
}

// raiseX87 reports a pending unmasked exception before a waiting instruction: #MF
// or, with CR0.NE clear, FERR#. Then the instruction waits for an interrupt, which
// FERR# is to bring about, unless IGNNE# says to go on (Intel SDM vol. 1 §D.2).
func (c *CPU) raiseX87() status {
	switch {
	case c.CR0&x86.CR0NE != 0:
		return c.raise(x86.MF)
	case c.cfg.FERR == nil || c.sys.ignne.Load():
		return next
	}
	c.fpu.ferr = true
	c.cfg.FERR(true)
	c.sys.mp = x86.MPHalted
	c.post(pendHalt)
	return again
}

// settleFERR ends FERR# with the exceptions that it reported.
func (c *CPU) settleFERR() {
	if c.fpu.ferr && c.fpu.fsw&fswES == 0 {
		c.fpu.ferr = false
		c.cfg.FERR(false)
	}
}

// SetIGNNE drives the pin that has x87 exceptions ignored while CR0.NE is clear.
// Any thread.
func (c *CPU) SetIGNNE(on bool) { c.sys.ignne.Store(on) }

// envSize is the bytes of FNSTENV's image.
func envSize(in *decode.Inst) int {
	if in.OpSize == 2 {
		return 14
	}
	return 28
}

// realFormat reports whether environments are in the form of real-address and
// virtual-8086 mode (Intel SDM vol. 1 figures 8-9 to 8-12).
func (c *CPU) realFormat() bool { return c.CR0&x86.CR0PE == 0 || c.Flags&x86.FlagVM != 0 }

// putEnv writes the environment. Selectors are stored as 0: CPUID says that FCS
// and FDS are deprecated (CPUID.(EAX=7,ECX=0):EBX[13]).
func (c *CPU) putEnv(p []byte, in *decode.Inst) {
	s := &c.fpu
	w := func(i int, v uint16) {
		if in.OpSize == 2 {
			p[2*i], p[2*i+1] = uint8(v), uint8(v>>8)
			return
		}
		p[4*i], p[4*i+1], p[4*i+2], p[4*i+3] = uint8(v), uint8(v>>8), 0xff, 0xff
	}
	w(0, s.fcw)
	w(1, s.statusWord())
	w(2, s.fullTags())
	switch {
	case in.OpSize == 2 && c.realFormat():
		w(3, uint16(s.fip))
		w(4, uint16(s.fip>>16)<<12|s.fop)
		w(5, uint16(s.fdp))
		w(6, uint16(s.fdp>>16)<<12)
	case in.OpSize == 2:
		w(3, uint16(s.fip))
		w(4, 0)
		w(5, uint16(s.fdp))
		w(6, 0)
	case c.realFormat():
		w(3, uint16(s.fip))
		put32(p[16:], uint32(s.fip)>>16<<12|uint32(s.fop))
		w(5, uint16(s.fdp))
		put32(p[24:], uint32(s.fdp)>>16<<12)
	default:
		put32(p[12:], uint32(s.fip))
		put32(p[16:], uint32(s.fop)<<16)
		put32(p[20:], uint32(s.fdp))
		put32(p[24:], 0xffff0000)
	}
}

// getEnv is its inverse.
func (c *CPU) getEnv(p []byte, in *decode.Inst) {
	s := &c.fpu
	w := func(i int) uint16 {
		if in.OpSize != 2 {
			i *= 2
		}
		return uint16(p[2*i]) | uint16(p[2*i+1])<<8
	}
	s.setStatusWord(w(1))
	s.setFullTags(w(2))
	switch {
	case in.OpSize == 2 && c.realFormat():
		s.fip, s.fop = uint64(w(3))|uint64(w(4)>>12)<<16, w(4)&0x7ff
		s.fdp = uint64(w(5)) | uint64(w(6)>>12)<<16
	case in.OpSize == 2:
		s.fip, s.fdp, s.fop = uint64(w(3)), uint64(w(5)), 0
	case c.realFormat():
		s.fip, s.fop = uint64(w(3))|uint64(get32(p[16:])>>12)<<16, uint16(get32(p[16:]))&0x7ff
		s.fdp = uint64(w(5)) | uint64(get32(p[24:])>>12)<<16
	default:
		s.fip, s.fdp, s.fop = uint64(get32(p[12:])), uint64(get32(p[20:])), uint16(get32(p[16:])>>16)&0x7ff
	}
	s.setControlWord(w(0))
}

// x87Image is FNSTENV, FNSAVE, FLDENV and FRSTOR. The registers follow the
// environment from ST0 on, ten bytes each.
func (c *CPU) x87Image(in *decode.Inst) status {
	s := &c.fpu
	n := envSize(in)
	store := in.Op == optab.FNSTENV || in.Op == optab.FNSAVE
	all := in.Op == optab.FNSAVE || in.Op == optab.FRSTOR
	p := s.scratch[:n]
	if all {
		p = s.scratch[:n+80]
	}
	piece := uint64(min(in.OpSize, 4))
	va, ok := c.imageAddr(in, uint64(len(p)), piece, 1, store)
	if !ok || !c.alignedTo(va, piece) {
		return faulted
	}
	if !store {
		if !c.ldBytes(va, p) {
			return faulted
		}
		c.getEnv(p, in)
		if all {
			s.getRegisters(p[n:])
		}
		return next
	}
	c.putEnv(p, in)
	if all {
		s.putRegisters(p[n:])
	}
	if !c.stBytes(va, p) {
		return faulted
	}
	if all {
		s.initX87()
	} else {
		s.fcw |= uint16(fp.AllFlags) // FNSTENV masks all exceptions
		s.summarize()
	}
	return next
}

// getRegisters takes the registers from an image, ST0 first.
func (s *fpuState) getRegisters(p []byte) {
	for i := range uint8(8) {
		*s.st(i) = getF80(p[10*int(i):])
	}
}

// putRegisters is its inverse.
func (s *fpuState) putRegisters(p []byte) {
	for i := range uint8(8) {
		putF80(p[10*int(i):], *s.st(i))
	}
}

func getF80(p []byte) x86.F80 {
	return x86.F80{Mant: uint64(get32(p)) | uint64(get32(p[4:]))<<32, SE: uint16(p[8]) | uint16(p[9])<<8}
}

func putF80(p []byte, v x86.F80) {
	put32(p, uint32(v.Mant))
	put32(p[4:], uint32(v.Mant>>32))
	p[8], p[9] = uint8(v.SE), uint8(v.SE>>8)
}
