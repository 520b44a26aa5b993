package interp

import (
	"berth/x86"
	"berth/x86/decode"
)

// descriptor is the low eight bytes of a segment or gate descriptor (Intel SDM
// vol. 3A §3.4.5).
//
//	63..56 base 31..24 | 55 G | 54 D/B | 53 L | 52 AVL | 51..48 limit 19..16
//	47 P | 46..45 DPL | 44 S | 43..40 type | 39..16 base 23..0 | 15..0 limit 15..0
type descriptor uint64

func (d descriptor) base() uint64 { return uint64(d)>>16&0xffffff | uint64(d)>>56<<24 }

func (d descriptor) limit() uint32 {
	l := uint32(d&0xffff) | uint32(d>>32)&0xf0000
	if d.attr()&x86.AttrG != 0 {
		l = l<<12 | 0xfff
	}
	return l
}

func (d descriptor) attr() x86.Attr { return x86.Attr(d>>40) & 0xf0ff }

func (d descriptor) segment(selector uint16) x86.Segment {
	return x86.Segment{Selector: selector, Attr: d.attr(), Limit: d.limit(), Base: d.base()}
}

// Types of system descriptors (Intel SDM vol. 3A table 3-2). AttrRW is the busy
// flag of a TSS.
const (
	typeTSS16     = 1
	typeLDT       = 2
	typeTSS16Busy = 3
	typeCall16    = 4
	typeTask      = 5
	typeInt16     = 6
	typeTSS       = 9
	typeTSSBusy   = 11
	typeCall      = 12
	typeInt       = 14
	typeTrap      = 15
)

func isCode(a x86.Attr) bool { return a&(x86.AttrS|x86.AttrCode) == x86.AttrS|x86.AttrCode }

func isConforming(a x86.Attr) bool { return isCode(a) && a&x86.AttrDC != 0 }

func isWritableData(a x86.Attr) bool {
	return a&(x86.AttrS|x86.AttrCode|x86.AttrRW) == x86.AttrS|x86.AttrRW
}

func isReadable(a x86.Attr) bool {
	return a&x86.AttrS != 0 && (a&x86.AttrCode == 0 || a&x86.AttrRW != 0)
}

// protected reports protected mode without virtual-8086 mode: selectors name descriptors.
func (c *CPU) protected() bool { return c.CR0&x86.CR0PE != 0 && c.Flags&x86.FlagVM == 0 }

func (c *CPU) longMode() bool { return c.EFER&x86.EFERLMA != 0 }

// modeChanged recomputes what follows from CS, SS, CPL, CR0, CR4, EFER and the
// VM and AC flags. Whoever changes one of these calls it.
func (c *CPU) modeChanged() {
	cs := c.Seg[x86.CS].Attr
	switch {
	case c.longMode() && cs&x86.AttrL != 0:
		c.Mode = decode.Mode64
	case cs&x86.AttrDB != 0:
		c.Mode = decode.Mode32
	default:
		c.Mode = decode.Mode16
	}
	for s := range c.SegBase {
		c.segmentChanged(uint8(s))
	}
	c.sys.flat32 = c.isFlat32()
	c.updateMMUIndex()
}

// updateMMUIndex recomputes MMUIndex: the part of modeChanged that follows from
// CPL, AC and SMAP, and whether alignment is checked.
func (c *CPU) updateMMUIndex() {
	c.MMUIndex = c.mmuIndexAt(c.CPL)
	c.Frame.KernelIndex = c.implicitIndex()
	if on := c.CPL == 3 && c.Flags&x86.FlagAC != 0 && c.CR0&x86.CR0AM != 0; on != c.sys.alignCheck {
		c.sys.alignCheck = on
		c.flushTLB(false) // no entry may serve an access meanwhile
	}
}

func (c *CPU) mmuIndexAt(cpl uint8) uint8 {
	switch {
	case cpl == 3:
		return mmuUser
	case c.CR4&x86.CR4SMAP == 0 || c.Flags&x86.FlagAC != 0:
		return mmuSupervisorAC
	default:
		return mmuSupervisor
	}
}

// segmentChanged recomputes what follows from one segment register and the mode.
func (c *CPU) segmentChanged(seg uint8) {
	s := &c.Seg[seg]
	c.SegBase[seg] = s.Base
	if c.Mode == decode.Mode64 && seg < x86.FS {
		c.SegBase[seg] = 0
	}
	c.SegEnd[seg] = 0
	if s.Attr&(x86.AttrUnusable|x86.AttrP|x86.AttrDC) == x86.AttrP && isWritableData(s.Attr) {
		c.SegEnd[seg] = uint64(s.Limit) + 1
	}
}

// isFlat32 reports that 32-bit protected-mode code runs with a flat address space: all
// segments but FS and GS begin at 0 and have no limit below 4 GiB.
func (c *CPU) isFlat32() bool {
	flat := func(seg uint8) bool { return c.SegBase[seg] == 0 && c.SegEnd[seg] == 1<<32 }
	return c.Mode == decode.Mode32 && c.protected() && c.flatCode() &&
		flat(x86.DS) && flat(x86.ES) && flat(x86.SS) && c.Seg[x86.SS].Attr&x86.AttrDB != 0
}

// inLimit reports whether [off, off+size) lies within s's limit (Intel SDM vol. 3A §5.3).
func inLimit(s *x86.Segment, off, size uint64) bool {
	last := off + size - 1
	if s.Attr&(x86.AttrS|x86.AttrCode|x86.AttrDC) == x86.AttrS|x86.AttrDC {
		top := uint64(0xffff)
		if s.Attr&x86.AttrDB != 0 {
			top = 0xffffffff
		}
		return off > uint64(s.Limit) && last <= top
	}
	return last <= uint64(s.Limit)
}

// checkSeg applies segment limit and type checks to [off, off+size) outside
// 64-bit mode (Intel SDM vol. 3A §5.3, §5.4); false: exc is set.
func (c *CPU) checkSeg(seg uint8, off, size uint64, write bool) bool {
	if off+size <= c.SegEnd[seg] {
		return true
	}
	s := &c.Seg[seg]
	ok := inLimit(s, off, size)
	if c.protected() {
		ok = ok && s.Attr&x86.AttrUnusable == 0 && s.Attr&x86.AttrP != 0
		if write {
			ok = ok && isWritableData(s.Attr)
		} else {
			ok = ok && isReadable(s.Attr)
		}
	}
	if ok {
		return true
	}
	vector := uint8(x86.GP)
	if seg == x86.SS {
		vector = x86.SSFault
	}
	c.raiseErr(vector, 0)
	return false
}

// findDesc returns the address of a selector's descriptor of n bytes; not ok: it lies past its table's limit.
func (c *CPU) findDesc(selector uint16, n uint64) (va uint64, ok bool) {
	off := uint64(selector &^ 7)
	if selector&4 == 0 {
		return c.GDT.Base + off, off+n-1 <= uint64(c.GDT.Limit)
	}
	ldt := &c.Seg[x86.LDTR]
	return ldt.Base + off, ldt.Attr&x86.AttrUnusable == 0 && off+n-1 <= uint64(ldt.Limit)
}

// readDesc loads a selector's descriptor; one past the table's limit raises vector.
func (c *CPU) readDesc(selector uint16, vector uint8) (d descriptor, va uint64, ok bool) {
	va, ok = c.findDesc(selector, 8)
	if !ok {
		c.raiseErr(vector, errSel(selector))
		return 0, 0, false
	}
	v, ok := c.sys64(va)
	return descriptor(v), va, ok
}

// errSel is the error code that names a selector (Intel SDM vol. 3A §6.13).
func errSel(selector uint16) uint32 { return uint32(selector &^ 3) }

// touch sets the accessed bit of the descriptor at va.
func (c *CPU) touch(d *descriptor, va uint64) bool {
	if *d>>40&1 != 0 {
		return true
	}
	*d |= 1 << 40
	return c.lockedSys8(va+5, func(v uint64) uint64 { return v | 1 })
}

// lockedSys8 replaces a byte of a descriptor as the processor does: atomically.
func (c *CPU) lockedSys8(va uint64, f func(old uint64) uint64) bool {
	return c.asSupervisor(func() bool { return c.modifyMem(va, 1, true, f) })
}

// fail raises a fault and reports false.
func (c *CPU) fail(vector uint8, code uint32) bool {
	c.raiseErr(vector, code)
	return false
}

// realSegment is what loading a selector does in real and virtual-8086 mode. In
// real mode limit and attributes stay as they were, which protected mode may have
// made larger than 64 KiB; only a null segment becomes what it is after a reset.
func (c *CPU) realSegment(old x86.Segment, selector uint16) x86.Segment {
	switch {
	case c.Flags&x86.FlagVM != 0:
		old.Limit, old.Attr = 0xffff, realAttr|3<<5
	case old.Attr&x86.AttrUnusable != 0:
		old.Limit, old.Attr = 0xffff, realAttr
	}
	old.Selector, old.Base = selector, uint64(selector)<<4
	return old
}

// realAttr is every segment's after a reset, and with DPL 3 in virtual-8086 mode: writable data.
const realAttr = x86.AttrP | x86.AttrS | x86.AttrRW | x86.AttrAccessed

// loadSeg is MOV or POP to a segment register other than CS; false: exc is set
// and nothing changed. SS starts an interrupt shadow in the callers' instructions.
func (c *CPU) loadSeg(seg uint8, selector uint16) bool {
	s := c.realSegment(c.Seg[seg], selector)
	if c.protected() {
		var ok bool
		if seg == x86.SS {
			s, ok = c.checkSS(selector, c.CPL, x86.GP, c.Mode == decode.Mode64)
		} else {
			s, ok = c.checkData(selector, c.CPL, x86.GP)
		}
		if !ok {
			return false
		}
	}
	c.setSeg(seg, s)
	return true
}

// setSeg sets one data segment register and what depends on it.
func (c *CPU) setSeg(seg uint8, s x86.Segment) {
	c.Seg[seg] = s
	c.segmentChanged(seg)
	c.sys.flat32 = c.isFlat32()
}

func nullSegment(selector uint16) x86.Segment {
	return x86.Segment{Selector: selector, Attr: x86.AttrUnusable}
}

// nullSS is the null stack segment of 64-bit mode at the given privilege.
func nullSS(selector uint16, cpl uint8) x86.Segment {
	return x86.Segment{Selector: selector, Attr: x86.AttrUnusable | x86.Attr(cpl)<<5}
}

// checkSS loads a stack segment for the given privilege (SDM vol. 2, MOV). vector
// is that of its faults: #GP, or #TS when it comes from a TSS.
func (c *CPU) checkSS(selector uint16, cpl, vector uint8, nullOK bool) (s x86.Segment, ok bool) {
	if selector&^3 == 0 {
		if nullOK && cpl != 3 && uint8(selector&3) == cpl {
			return nullSS(selector, cpl), true
		}
		return s, c.fail(vector, 0)
	}
	d, va, ok := c.readDesc(selector, vector)
	if !ok {
		return s, false
	}
	a := d.attr()
	if uint8(selector&3) != cpl || a.DPL() != cpl || !isWritableData(a) {
		return s, c.fail(vector, errSel(selector))
	}
	if a&x86.AttrP == 0 {
		return s, c.fail(x86.SSFault, errSel(selector))
	}
	if !c.touch(&d, va) {
		return s, false
	}
	return d.segment(selector), true
}

// checkData loads a descriptor for DS, ES, FS or GS. vector is that of its faults:
// #GP, or #TS in a task switch.
func (c *CPU) checkData(selector uint16, cpl, vector uint8) (s x86.Segment, ok bool) {
	if selector&^3 == 0 {
		return nullSegment(selector), true
	}
	d, va, ok := c.readDesc(selector, vector)
	if !ok {
		return s, false
	}
	a := d.attr()
	rpl := uint8(selector & 3)
	if !isReadable(a) || !isConforming(a) && max(rpl, cpl) > a.DPL() {
		return s, c.fail(vector, errSel(selector))
	}
	if a&x86.AttrP == 0 {
		return s, c.fail(x86.NP, errSel(selector))
	}
	if !c.touch(&d, va) {
		return s, false
	}
	return d.segment(selector), true
}

// validCodeBits reports whether L and D of a code segment go together.
func (c *CPU) validCodeBits(a x86.Attr) bool {
	return !c.longMode() || a&(x86.AttrL|x86.AttrDB) != x86.AttrL|x86.AttrDB
}

// checkCode loads a code segment for a direct far JMP or CALL (SDM vol. 3A §5.8.1).
// The selector of the result has the current privilege.
func (c *CPU) checkCode(selector uint16, d descriptor, va uint64) (s x86.Segment, ok bool) {
	a := d.attr()
	rpl := uint8(selector & 3)
	switch {
	case !isCode(a) || !c.validCodeBits(a),
		isConforming(a) && a.DPL() > c.CPL,
		!isConforming(a) && (rpl > c.CPL || a.DPL() != c.CPL):
		return s, c.fail(x86.GP, errSel(selector))
	case a&x86.AttrP == 0:
		return s, c.fail(x86.NP, errSel(selector))
	}
	if !c.touch(&d, va) {
		return s, false
	}
	return d.segment(selector&^3 | uint16(c.CPL)), true
}

// dropData makes data segment registers null that a less privileged level may
// not keep (SDM vol. 2, RET and IRET).
func (c *CPU) dropData(cpl uint8) {
	for _, seg := range []uint8{x86.ES, x86.DS, x86.FS, x86.GS} {
		s := &c.Seg[seg]
		if s.Attr&x86.AttrUnusable == 0 && !isConforming(s.Attr) && s.Attr.DPL() < cpl {
			c.Seg[seg] = nullSegment(0)
		}
	}
}

// ripFits reports whether an instruction pointer lies within a code segment:
// its limit, or in 64-bit mode the canonical addresses.
func (c *CPU) ripFits(cs *x86.Segment, rip uint64) bool {
	if c.longMode() && cs.Attr&x86.AttrL != 0 {
		return c.canonical(rip)
	}
	return rip <= uint64(cs.Limit)
}
