package interp

import (
	"berth/x86"
	"berth/x86/decode"
)

// pusher writes a frame below a stack pointer that changes only at commit.
type pusher struct {
	c     *CPU
	seg   *x86.Segment // limit-checked; nil in 64-bit mode
	base  uint64
	sp    uint64
	mask  uint64 // of the stack pointer: 64, 32 or 16 bits
	size  uint64 // of one push
	index uint8  // MMU index
	ext   uint32 // error code of a stack fault
}

// stack returns a pusher for size-byte pushes on the current stack.
func (c *CPU) stack(size uint64) pusher {
	st := c.stackOn(&c.Seg[x86.SS], c.R[x86.RSP], size)
	if c.Mode == decode.Mode64 {
		st.seg, st.base, st.mask = nil, 0, ^uint64(0)
	}
	st.index = c.MMUIndex
	return st
}

func (c *CPU) stackOn(ss *x86.Segment, sp, size uint64) pusher {
	mask := uint64(0xffff)
	if ss.Attr&x86.AttrDB != 0 {
		mask = 0xffffffff
	}
	return pusher{c: c, seg: ss, base: ss.Base, sp: sp, mask: mask, size: size, index: c.MMUIndex}
}

// check reports whether an access of size bytes at sp keeps to the stack segment.
func (s *pusher) check(sp uint64) bool {
	if s.seg == nil || inLimit(s.seg, sp, s.size) {
		return true
	}
	return s.c.fail(x86.SSFault, s.ext)
}

func (s *pusher) linear(sp uint64) uint64 {
	if s.seg == nil {
		return sp
	}
	return uint64(uint32(s.base + sp))
}

// push writes one item; false: exc is set.
func (s *pusher) push(v uint64) bool {
	sp := s.sp&^s.mask | (s.sp-s.size)&s.mask
	if !s.check(sp & s.mask) {
		return false
	}
	va := s.linear(sp & s.mask)
	c, old := s.c, s.c.MMUIndex
	c.MMUIndex = s.index
	var ok bool
	switch s.size {
	case 2:
		ok = c.st16(va, uint16(v))
	case 4:
		ok = c.st32(va, uint32(v))
	default:
		ok = c.st64(va, v)
	}
	c.MMUIndex = old
	if !ok {
		s.stackFault()
		return false
	}
	s.sp = sp
	return true
}

// stackFault turns a non-canonical access into the stack's own fault.
func (s *pusher) stackFault() {
	if s.c.exc.nonCanonical {
		s.c.raiseErr(x86.SSFault, s.ext)
	}
}

func (s *pusher) pushAll(vs ...uint64) bool {
	for _, v := range vs {
		if !s.push(v) {
			return false
		}
	}
	return true
}

// pop reads one item; false: exc is set.
func (s *pusher) pop() (v uint64, ok bool) {
	sp := s.sp & s.mask
	if !s.check(sp) {
		return 0, false
	}
	va := s.linear(sp)
	c, old := s.c, s.c.MMUIndex
	c.MMUIndex = s.index
	switch s.size {
	case 2:
		var w uint16
		w, ok = c.ld16(va)
		v = uint64(w)
	case 4:
		var w uint32
		w, ok = c.ld32(va)
		v = uint64(w)
	default:
		v, ok = c.ld64(va)
	}
	c.MMUIndex = old
	if !ok {
		s.stackFault()
		return 0, false
	}
	s.skip(s.size)
	return v, true
}

// popAll reads items into their places.
func (s *pusher) popAll(vs ...*uint64) bool {
	for _, p := range vs {
		v, ok := s.pop()
		if !ok {
			return false
		}
		*p = v
	}
	return true
}

// skip moves the stack pointer up by n.
func (s *pusher) skip(n uint64) { s.sp = s.sp&^s.mask | (s.sp+n)&s.mask }

// commit makes the frame's stack pointer the CPU's.
func (s *pusher) commit() { s.c.R[x86.RSP] = s.sp }
