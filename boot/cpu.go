package boot

import (
	"encoding/binary"

	"berth/guestmem"
	"berth/x86"
)

// Selectors of the boot GDT: the Linux boot protocol wants code at 0x10 and
// data at 0x18; PVH leaves them open.
const (
	selCode = 0x10
	selData = 0x18
	selTSS  = 0x20
)

// Attributes of the boot segments. All carry the accessed or busy bit that VM
// entry on VMX demands.
const (
	attrData   = x86.AttrG | x86.AttrDB | x86.AttrP | x86.AttrS | x86.AttrRW | x86.AttrAccessed
	attrCode32 = attrData | x86.AttrCode
	attrCode64 = attrCode32&^x86.AttrDB | x86.AttrL
	attrTSS    = x86.AttrP | 0xb // busy; 32-bit and 64-bit share the type
)

// baseState is what all entries share: flat segments, interrupts off, an FPU
// as after FNINIT, memory cached by default (the MTRRs a firmware would set).
func baseState(code x86.Attr) x86.State {
	s := x86.State{Version: 1, RFLAGS: x86.FlagR1, XCR0: 1, MP: x86.MPRunnable}
	for i := range s.Seg {
		s.Seg[i] = x86.Segment{Selector: selData, Attr: attrData, Limit: 0xffffffff}
	}
	s.Seg[x86.CS] = x86.Segment{Selector: selCode, Attr: code, Limit: 0xffffffff}
	s.Seg[x86.LDTR] = x86.Segment{Attr: x86.AttrUnusable}
	s.Seg[x86.TR] = x86.Segment{Selector: selTSS, Attr: attrTSS, Limit: 0x67}
	s.CR0 = x86.CR0PE | x86.CR0ET | x86.CR0NE
	s.DR[6], s.DR[7] = 0xffff0ff0, 0x400
	s.FPU.FCW, s.FPU.MXCSR = 0x37f, 0x1f80
	s.MSRs = []x86.MSR{{Index: x86.MSRMTRRDefType, Value: mtrrEnable | mtrrWriteBack}}
	return s
}

// IA32_MTRR_DEF_TYPE (Intel SDM vol. 3A §12.11.2.1).
const (
	mtrrEnable    = 1 << 11
	mtrrWriteBack = 6
)

// LongMode writes a GDT and identity page tables for the first 4 GiB to guest
// memory and returns the state of a vCPU that starts there in 64-bit mode at
// rip with rsi in RSI (Linux boot protocol, "64-bit boot protocol").
func (l *Layout) LongMode(rip, rsi uint64) (x86.State, error) {
	s := baseState(attrCode64)
	if err := l.putGDT(&s); err != nil {
		return s, err
	}
	if err := l.putIdentityMap(); err != nil {
		return s, err
	}
	s.CR0 |= x86.CR0PG
	s.CR3, s.CR4 = PageTables, x86.CR4PAE
	s.EFER = x86.EFERLME | x86.EFERLMA
	s.RIP, s.GPR[x86.RSI], s.GPR[x86.RSP] = rip, rsi, stackTop
	return s, nil
}

// Protected writes a GDT to guest memory and returns the state of a vCPU that
// starts in 32-bit protected mode without paging at eip with ebx in EBX (Xen
// "x86/HVM direct boot ABI").
func (l *Layout) Protected(eip, ebx uint32) (x86.State, error) {
	s := baseState(attrCode32)
	if err := l.putGDT(&s); err != nil {
		return s, err
	}
	s.RIP, s.GPR[x86.RBX], s.GPR[x86.RSP] = uint64(eip), uint64(ebx), stackTop
	return s, nil
}

// putGDT writes descriptors that agree with the segments of s.
func (l *Layout) putGDT(s *x86.State) error {
	var gdt [6 * 8]byte // a long-mode TSS descriptor takes two slots
	put := func(seg x86.Segment) {
		binary.LittleEndian.PutUint64(gdt[seg.Selector:], descriptor(seg))
	}
	put(s.Seg[x86.CS])
	put(s.Seg[x86.DS])
	put(s.Seg[x86.TR])
	s.GDT = x86.Table{Base: GDTAddr, Limit: uint16(len(gdt) - 1)}
	if err := l.Reserve("GDT", GDTAddr, uint64(len(gdt))); err != nil {
		return err
	}
	return l.mem.Write(GDTAddr, gdt[:])
}

// descriptor encodes a segment (Intel SDM vol. 3A §3.4.5).
func descriptor(s x86.Segment) uint64 {
	limit := uint64(s.Limit)
	if s.Attr&x86.AttrG != 0 {
		limit >>= 12
	}
	base := s.Base
	return limit&0xffff | base&0xffffff<<16 | uint64(s.Attr&0xf0ff)<<40 | limit>>16&0xf<<48 | base>>24&0xff<<56
}

// putIdentityMap maps the first 4 GiB onto themselves with 2 MiB pages.
func (l *Layout) putIdentityMap() error {
	const (
		present, writable, large = 1, 2, 1 << 7
		accessed, dirty          = 1 << 5, 1 << 6
		table                    = present | writable | accessed
	)
	t := make([]byte, 6*guestmem.PageSize)
	put := func(page, i int, v uint64) {
		binary.LittleEndian.PutUint64(t[page*guestmem.PageSize+i*8:], v)
	}
	put(0, 0, PageTables+1*guestmem.PageSize|table)
	for i := range 4 {
		put(1, i, PageTables+uint64(2+i)*guestmem.PageSize|table)
	}
	for i := range 4 * 512 {
		put(2+i/512, i%512, uint64(i)<<21|table|large|dirty)
	}
	if err := l.Reserve("page tables", PageTables, uint64(len(t))); err != nil {
		return err
	}
	return l.mem.Write(PageTables, t)
}
