package jit

import (
	"testing"
	"unsafe"

	"berth/x86/decode"
	"berth/x86/mmu"
)

// fake is a vCPU's state as nobody else lays it out, so that code which takes a place
// for granted goes wrong.
type fake struct {
	Pending uint32
	TLB     [3]mmu.TLB
	R       [18]uint64
	_       [13]uint64
	Frame   Frame
	RIP     uint64
	Seg     [6]struct{ hidden, selector uint32 }
	Flags   uint64
	SegEnd  [6]uint64
	SegBase [6]uint64
	CPL     uint32

	jumps [JumpEntries]Jump
	cache *Cache
	t     *testing.T
}

// page is where a fake's code lies, in both halves of the linear addresses.
const page = 0x7fff12345000

// newFake returns a vCPU whose TLB grants nothing. unsafe: offsets, and the address of
// its table of jumps, which lives as long as it.
func newFake(t *testing.T) *fake {
	t.Helper()
	if !Available() {
		t.Skip("the host runs no translated code")
	}
	f := &fake{t: t}
	from := func(off uintptr) int32 { return int32(off) - int32(unsafe.Offsetof(f.Frame)) }
	var err error
	f.cache, err = New(1<<20, Layout{
		R: from(unsafe.Offsetof(f.R)), SegBase: from(unsafe.Offsetof(f.SegBase)), SegEnd: from(unsafe.Offsetof(f.SegEnd)),
		RIP: from(unsafe.Offsetof(f.RIP)), Flags: from(unsafe.Offsetof(f.Flags)), TLB: from(unsafe.Offsetof(f.TLB)),
		CPL: from(unsafe.Offsetof(f.CPL)), Pending: from(unsafe.Offsetof(f.Pending)),
		Seg: from(unsafe.Offsetof(f.Seg) + unsafe.Offsetof(f.Seg[0].selector)), SegSize: int32(unsafe.Sizeof(f.Seg[0])),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.cache.Close(); err != nil {
			t.Error(err)
		}
	})
	for i := range f.TLB {
		for e := range f.TLB[i] {
			f.TLB[i][e].Read, f.TLB[i][e].Write = mmu.NoPage(uint64(e)), mmu.NoPage(uint64(e))
		}
	}
	f.Frame.Jumps = uintptr(unsafe.Pointer(&f.jumps[0]))
	f.Frame.Tags = [2]uint64{5, 7} // an empty entry has 0
	f.Frame.MXCSR = 0x1f80
	f.R[17] = page
	f.Frame.Budget = 1000
	return f
}

// grant has the page of va be p, a page of the host. unsafe: p's address, which its owner keeps.
func (f *fake) grant(index int, va uint64, p *[pageSize]byte, write bool) {
	e := &f.TLB[index][va/pageSize%mmu.TLBSize]
	e.Read, e.Host = va&^(pageSize-1), uintptr(unsafe.Pointer(p))
	e.Add = e.Host - uintptr(e.Read)
	if write {
		e.Write = e.Read
	}
}

// block translates code as it lies at offset off of the page.
func (f *fake) block(off uint16, code ...byte) Unit {
	f.t.Helper()
	u, ok := f.cache.Translate(append(code, make([]byte, decode.MaxLen)...), off, 0, decode.Mode64, false, false)
	if !ok {
		f.t.Fatalf("% x is not translated", code)
	}
	return u
}

// run enters it.
func (f *fake) run(e Entry) (uint32, *Exit) { return f.cache.Run(&f.Frame, &f.R, e) }
