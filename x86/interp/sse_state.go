package interp

import (
	"encoding/binary"

	"berth/x86"
	"berth/x86/decode"
	"berth/x86/mmu"
	"berth/x86/optab"
)

const (
	mxcsrMask  = 0xffff
	mxcsrReset = 0x1f80

	fxsaveSize = 512
	headerEnd  = fxsaveSize + 64 // of an XSAVE image
	ymmOffset  = headerEnd       // the upper halves of YMM follow it
	ymmSize    = 16 * 16
	maxXsave   = ymmOffset + ymmSize

	xcr0X87 = 1 << 0
	xcr0SSE = 1 << 1
	xcr0AVX = 1 << 2
)

// xsaveSize is the bytes of an XSAVE image with the components.
func xsaveSize(components uint64) uint64 {
	if components&xcr0AVX != 0 {
		return maxXsave
	}
	return headerEnd
}

func get32(p []byte) uint32    { return binary.LittleEndian.Uint32(p) }
func put32(p []byte, v uint32) { binary.LittleEndian.PutUint32(p, v) }
func get64(p []byte) uint64    { return binary.LittleEndian.Uint64(p) }
func put64(p []byte, v uint64) { binary.LittleEndian.PutUint64(p, v) }

// sseState is the instructions on the state as a whole.
func (c *CPU) sseState(in *decode.Inst) status {
	switch in.Op {
	case optab.LDMXCSR:
		return c.ldmxcsr(in)
	case optab.STMXCSR:
		va, ok := c.sseAddr(in, 4, false, true)
		return done(ok && c.st32(va, c.fpu.mxcsr))
	}
	c.takeX87()
	switch in.Op {
	case optab.FXSAVE, optab.FXRSTOR:
		if c.CR0&(x86.CR0EM|x86.CR0TS) != 0 {
			return c.raise(x86.NM)
		}
		if in.Op == optab.FXSAVE {
			return c.fxsave(in)
		}
		return c.fxrstor(in)
	}
	if c.CR4&x86.CR4OSXSAVE == 0 {
		return c.raise(x86.UD)
	}
	if c.CR0&x86.CR0TS != 0 {
		return c.raise(x86.NM)
	}
	if in.Op == optab.XRSTOR {
		return c.xrstor(in)
	}
	return c.xsave(in)
}

func (c *CPU) ldmxcsr(in *decode.Inst) status {
	va, ok := c.sseAddr(in, 4, false, false)
	if !ok {
		return faulted
	}
	v, ok := c.ld32(va)
	if !ok {
		return faulted
	}
	if v&^mxcsrMask != 0 {
		return c.raiseErr(x86.GP, 0)
	}
	c.fpu.mxcsr = v
	return next
}

// imageAddr returns the address of an image of n bytes. The CPU accesses it in
// pieces: a page fault at its beginning comes before what is wrong with its end.
func (c *CPU) imageAddr(in *decode.Inst, n, piece, align uint64, write bool) (uint64, bool) {
	off, flat := c.offset(in), c.Mode == decode.Mode64
	va := c.segLinear(in.Seg, off, c.Mode)
	if flat && va&(pageSize-1)+n <= pageSize && va&(align-1) == 0 {
		return va, true
	}
	if !flat && !c.checkSeg(in.Seg, off, piece, write) {
		return 0, false
	}
	if va&(align-1) != 0 {
		c.raiseErr(x86.GP, 0)
		return 0, false
	}
	access := mmu.Read
	if write {
		access = mmu.Write
	}
	return va, c.probe(va, piece, access) && (flat || c.checkSeg(in.Seg, off, n, write))
}

// xmmCount is how many XMM registers an image holds in this mode.
func xmmCount(in *decode.Inst) int {
	if in.Mode == decode.Mode64 {
		return 16
	}
	return 8
}

// The FXSAVE image (Intel SDM vol. 1 §10.5.1, table 10-2); wide is REX.W's form:
//
//	0 FCW | 2 FSW | 4 FTW abridged | 6 FOP | 8 FIP (wide: 64 bits) | 12 FCS
//	16 FDP (wide: 64 bits) | 20 FDS | 24 MXCSR | 28 MXCSR_MASK
//	32 ST0…ST7, 16 bytes each | 160 XMM0…XMM15 | 416 reserved and free
func (c *CPU) putX87Image(p []byte, wide bool) {
	s := &c.fpu
	binary.LittleEndian.PutUint16(p, s.fcw)
	binary.LittleEndian.PutUint16(p[2:], s.statusWord())
	p[4], p[5] = s.valid, 0
	binary.LittleEndian.PutUint16(p[6:], s.fop)
	put64(p[8:], s.fip)
	put64(p[16:], s.fdp)
	if !wide {
		put32(p[12:], 0)
		put32(p[20:], 0)
	}
	for i := range uint8(8) {
		q := p[32+16*int(i):]
		put64(q[8:], 0)
		putF80(q, *s.st(i))
	}
}

func (c *CPU) getX87Image(p []byte, wide bool) {
	s := &c.fpu
	s.setStatusWord(binary.LittleEndian.Uint16(p[2:]))
	s.valid = p[4]
	s.fop = binary.LittleEndian.Uint16(p[6:]) & 0x7ff
	s.fip, s.fdp = get64(p[8:]), get64(p[16:])
	if !wide {
		s.fip, s.fdp = s.fip&0xffffffff, s.fdp&0xffffffff
	}
	for i := range uint8(8) {
		*s.st(i) = getF80(p[32+16*int(i):])
	}
	s.setControlWord(binary.LittleEndian.Uint16(p))
}

func (c *CPU) putMXCSR(p []byte) {
	put32(p[24:], c.fpu.mxcsr)
	put32(p[28:], mxcsrMask)
}

func (c *CPU) putXMM(p []byte, n int) {
	for i := range n {
		put64(p[160+16*i:], c.fpu.xmm[i][0])
		put64(p[168+16*i:], c.fpu.xmm[i][1])
	}
}

func (c *CPU) getXMM(p []byte, n int) {
	for i := range n {
		c.fpu.xmm[i] = [2]uint64{get64(p[160+16*i:]), get64(p[168+16*i:])}
	}
}

// fxsave leaves what the image does not define as it is in memory.
func (c *CPU) fxsave(in *decode.Inst) status {
	va, ok := c.imageAddr(in, fxsaveSize, 16, 16, true)
	if !ok {
		return faulted
	}
	n := xmmCount(in)
	p := c.fpu.scratch[:160+16*n]
	c.putX87Image(p, in.OpSize == 8)
	c.putMXCSR(p)
	c.putXMM(p, n)
	return done(c.probeWrite(va, fxsaveSize) && c.stBytes(va, p))
}

func (c *CPU) fxrstor(in *decode.Inst) status {
	va, ok := c.imageAddr(in, fxsaveSize, 16, 16, false)
	if !ok {
		return faulted
	}
	p := c.fpu.scratch[:fxsaveSize]
	if !c.ldBytes(va, p) {
		return faulted
	}
	if get32(p[24:])&^mxcsrMask != 0 {
		return c.raiseErr(x86.GP, 0)
	}
	c.getX87Image(p, in.OpSize == 8)
	c.fpu.mxcsr = get32(p[24:])
	c.getXMM(p, xmmCount(in))
	c.settleFERR()
	return next
}

// requested returns the components of EDX:EAX that XCR0 enables.
func (c *CPU) requested() uint64 {
	return (c.R[x86.RDX]<<32 | c.R[x86.RAX]&0xffffffff) & c.XCR0
}

// inUse returns which components are not in their initial state (Intel SDM vol.
// 1 §13.6).
func (c *CPU) inUse(n int) (v uint64) {
	s := &c.fpu
	if s.fcw != fcwReset || s.statusWord()|s.fop != 0 || s.valid != 0 || s.fip|s.fdp != 0 || s.regs != [8]x86.F80{} {
		v |= xcr0X87
	}
	for i := range n {
		if s.xmm[i][0]|s.xmm[i][1] != 0 {
			v |= xcr0SSE
		}
		if s.ymmh[i][0]|s.ymmh[i][1] != 0 {
			v |= xcr0AVX
		}
	}
	return v
}

// xsave is XSAVE and XSAVEOPT (Intel SDM vol. 1 §13.7, §13.9): XSAVEOPT omits
// components in their initial state and knows no modified optimization. The
// parts of the image that belong to no component asked for stay as they are.
func (c *CPU) xsave(in *decode.Inst) status {
	size := xsaveSize(c.requested())
	va, ok := c.imageAddr(in, size, 64, 64, true)
	if !ok {
		return faulted
	}
	p := c.fpu.scratch[:size]
	if !c.probeWrite(va, size) || !c.ldBytes(va, p) {
		return faulted
	}
	rfbm, n := c.requested(), xmmCount(in)
	used := c.inUse(n)
	saved := rfbm
	if in.Op == optab.XSAVEOPT {
		saved &= used
	}
	if saved&xcr0X87 != 0 {
		c.putX87Image(p, in.OpSize == 8)
	}
	if rfbm&(xcr0SSE|xcr0AVX) != 0 {
		c.putMXCSR(p)
	}
	if saved&xcr0SSE != 0 {
		c.putXMM(p, n)
	}
	put64(p[fxsaveSize:], get64(p[fxsaveSize:])&^rfbm|used&rfbm)
	if saved&xcr0AVX != 0 {
		for i := range n {
			put64(p[ymmOffset+16*i:], c.fpu.ymmh[i][0])
			put64(p[ymmOffset+8+16*i:], c.fpu.ymmh[i][1])
		}
		if !c.stBytes(c.after(va, ymmOffset), p[ymmOffset:ymmOffset+16*n]) {
			return faulted
		}
	}
	// The header's other fields are not XSAVE's to write.
	return done(c.stBytes(va, p[:fxsaveSize+8]))
}

// xrstor takes the standard form only (Intel SDM vol. 1 §13.8).
func (c *CPU) xrstor(in *decode.Inst) status {
	size := xsaveSize(c.requested())
	va, ok := c.imageAddr(in, size, 64, 64, false)
	if !ok {
		return faulted
	}
	p := c.fpu.scratch[:size]
	if !c.ldBytes(va, p) {
		return faulted
	}
	rfbm, n := c.requested(), xmmCount(in)
	has := get64(p[fxsaveSize:])
	if has&^c.XCR0 != 0 || get64(p[fxsaveSize+8:])|get64(p[fxsaveSize+16:]) != 0 {
		return c.raiseErr(x86.GP, 0)
	}
	if rfbm&(xcr0SSE|xcr0AVX) != 0 {
		if get32(p[24:])&^mxcsrMask != 0 {
			return c.raiseErr(x86.GP, 0)
		}
		c.fpu.mxcsr = get32(p[24:])
	}
	if rfbm&xcr0X87 != 0 {
		if has&xcr0X87 != 0 {
			c.getX87Image(p, in.OpSize == 8)
		} else {
			c.fpu.initX87()
			c.fpu.regs = [8]x86.F80{}
		}
		c.settleFERR()
	}
	if rfbm&xcr0SSE != 0 {
		if has&xcr0SSE == 0 {
			clear(p[160 : 160+16*n])
		}
		c.getXMM(p, n)
	}
	if rfbm&xcr0AVX != 0 {
		for i := range n {
			c.fpu.ymmh[i] = [2]uint64{}
			if has&xcr0AVX != 0 {
				c.fpu.ymmh[i] = [2]uint64{get64(p[ymmOffset+16*i:]), get64(p[ymmOffset+8+16*i:])}
			}
		}
	}
	return next
}
