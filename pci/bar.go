package pci

import (
	"encoding/binary"
	"fmt"

	"berth/bus"
)

// BARKind is the type of a base address register.
type BARKind uint8

// The kinds of BAR; a BAR64 takes two registers.
const (
	BARIO BARKind = iota
	BAR32
	BAR64
	BAR64Prefetch
)

// low bits of each kind's register (PCI Local Bus 3.0 §6.2.5.1).
var kindBits = [...]uint32{BARIO: 1, BAR32: 0, BAR64: 4, BAR64Prefetch: 12}

// chipsetBase is where the chipset's own addresses begin: IOAPIC, HPET, LAPIC
// and firmware are decoded there before any BAR is.
const chipsetBase, chipsetEnd = 0xfec00000, 1 << 32

// bar is one base address register and its place in the guest's address space.
type bar struct {
	kind    BARKind
	size    uint64 // 0: absent
	handler bus.Handler
	moved   func(base uint64, mapped bool)
	window  *bus.Window // nil while not decoded
}

func (b *bar) wide() bool { return b.kind >= BAR64 }

// AddBAR makes register i (and i+1 for the 64-bit kinds) decode size bytes, a
// power of two, served by h.
func (f *Function) AddBAR(i int, kind BARKind, size uint64, h bus.Handler) error {
	smallest, limit := uint64(16), uint64(1)<<31
	if kind == BARIO {
		smallest, limit = 4, 256
	}
	b := bar{kind: kind, size: size, handler: h}
	if b.wide() {
		limit = 1 << 48
	}
	if i < 0 || i > 5 || (b.wide() && i == 5) || f.bars[i].size != 0 || (i > 0 && f.bars[i-1].size != 0 && f.bars[i-1].wide()) {
		return fmt.Errorf("pci: %s: BAR %d is taken", f.name, i)
	}
	if size&(size-1) != 0 || size < smallest || size > limit {
		return fmt.Errorf("pci: %s: BAR %d cannot have size 0x%x", f.name, i, size)
	}
	f.bars[i] = b
	mask := -size
	off := regBAR0 + 4*i
	le := binary.LittleEndian
	le.PutUint32(f.reset[off:], kindBits[kind])
	le.PutUint32(f.writable[off:], uint32(mask))
	if b.wide() {
		le.PutUint32(f.writable[off+4:], uint32(mask>>32))
	}
	copy(f.cfg[off:off+8], f.reset[off:off+8])
	return nil
}

// OnBARMove has moved called whenever BAR i begins (mapped, at base) or ceases
// to decode. It is called with the complex's lock held and must not touch
// configuration space.
func (f *Function) OnBARMove(i int, moved func(base uint64, mapped bool)) { f.bars[i].moved = moved }

// BAR returns the handler and size of BAR i; size 0 means that there is none.
func (f *Function) BAR(i int) (bus.Handler, uint64) {
	if i < 0 || i > 5 {
		return nil, 0
	}
	return f.bars[i].handler, f.bars[i].size
}

// base returns the address that the guest has put in BAR i.
func (f *Function) base(i int) uint64 {
	off := regBAR0 + 4*i
	v := uint64(binary.LittleEndian.Uint32(f.cfg[off:]))
	if f.bars[i].kind == BARIO {
		return v &^ 3 & 0xffff
	}
	if f.bars[i].wide() {
		v |= uint64(binary.LittleEndian.Uint32(f.cfg[off+4:])) << 32
	}
	return v &^ 15
}

func (f *Function) setBase(i int, base uint64) {
	off := regBAR0 + 4*i
	le := binary.LittleEndian
	le.PutUint32(f.cfg[off:], uint32(base)|kindBits[f.bars[i].kind])
	if f.bars[i].wide() {
		le.PutUint32(f.cfg[off+4:], uint32(base>>32))
	}
}

// wanted returns where BAR i should decode, and whether it should.
func (r *RootComplex) wanted(f *Function, i int) (base uint64, ok bool) {
	b := &f.bars[i]
	if b.size == 0 {
		return 0, false
	}
	base = f.base(i)
	if b.kind == BARIO {
		return base, f.command()&cmdIO != 0 && base != 0 && f.behind == nil // ports pass no I/O on
	}
	if f.command()&cmdMemory == 0 || base == 0 || base+b.size < base {
		return 0, false
	}
	if base < chipsetEnd && base+b.size > chipsetBase {
		return 0, false
	}
	if f.behind != nil && !f.behind.forwards(base, b.size) {
		return 0, false
	}
	for _, ram := range r.cfg.Memory.Regions() {
		if base < ram.End() && base+b.size > ram.GPA {
			return 0, false
		}
	}
	return base, true
}

// remap brings the mapped windows in line with the registers. A BAR that
// collides with what is mapped already stays silent until the way is free; the
// guest harms nobody but itself. Called with the lock held.
func (r *RootComplex) remap() {
	for _, f := range r.functions {
		for i := range f.bars {
			if w := f.bars[i].window; w != nil {
				if base, ok := r.wanted(f, i); !ok || base != w.Base {
					r.unmap(f, i)
				}
			}
		}
	}
	for _, f := range r.functions {
		for i := range f.bars {
			r.tryMap(f, i)
		}
	}
}

func (r *RootComplex) tryMap(f *Function, i int) {
	b := &f.bars[i]
	base, ok := r.wanted(f, i)
	if !ok || b.window != nil {
		return
	}
	w, err := r.space(b.kind).Map(base, b.size, f.name, b.handler)
	if err != nil {
		return
	}
	b.window = w
	if b.moved != nil {
		b.moved(base, true)
	}
}

func (r *RootComplex) unmap(f *Function, i int) {
	b := &f.bars[i]
	if b.moved != nil {
		b.moved(b.window.Base, false)
	}
	r.space(b.kind).Unmap(b.window)
	b.window = nil
}

func (r *RootComplex) space(k BARKind) *bus.Space {
	if k == BARIO {
		return r.cfg.Ports
	}
	return r.cfg.MMIO
}
