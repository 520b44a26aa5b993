package interp

import (
	"berth/x86"
	"berth/x86/jit"
)

// x87Home is Frame.X87 for entering translated code.
func (c *CPU) x87Home() uint8 {
	if c.fpu.lent && c.CR0&(x86.CR0EM|x86.CR0TS) == 0 {
		return jit.X87Saved
	}
	return jit.X87Elsewhere
}

// lendX87 has the Frame hold the x87 and MMX state for translated code to use. It does
// not if such instructions would not run as on the host: if they fault, or if an
// exception is unmasked, which is what a pending one is too.
func (c *CPU) lendX87() bool {
	s, f := &c.fpu, &c.Frame
	if !s.lent {
		if s.fcw&jit.X87Masks != jit.X87Masks {
			return false
		}
		s.putImage(f.X87Image[:])
		f.FIP, f.FDP, f.FOP = s.fip, s.fdp, s.fop
		s.lent = true
	}
	f.X87 = c.x87Home()
	return f.X87 == jit.X87Saved
}

// takeX87 undoes it. Whoever looks at the x87 and MMX state of fpuState calls it first.
func (c *CPU) takeX87() {
	s, f := &c.fpu, &c.Frame
	if !s.lent {
		return
	}
	s.lent, f.X87 = false, jit.X87Elsewhere
	s.getImage(f.X87Image[:])
	s.fip, s.fdp, s.fop = f.FIP, f.FDP, f.FOP
}

// putImage writes FNSAVE's image for 64-bit mode without the pointers.
func (s *fpuState) putImage(p []byte) {
	put32(p, uint32(s.fcw))
	put32(p[4:], uint32(s.statusWord()))
	put32(p[8:], uint32(s.fullTags()))
	s.putRegisters(p[28:])
}

// getImage is its inverse.
func (s *fpuState) getImage(p []byte) {
	s.setStatusWord(uint16(get32(p[4:])))
	s.setFullTags(uint16(get32(p[8:])))
	s.getRegisters(p[28:])
	s.setControlWord(uint16(get32(p)))
}
