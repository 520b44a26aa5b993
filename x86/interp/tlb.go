package interp

import (
	"math/bits"

	"berth/guestmem"
	"berth/x86"
	"berth/x86/mmu"
)

// tlbState is what a vCPU knows of the entries of Core.TLB, by MMUIndex.
type tlbState struct {
	filled entrySets              // the entries that hold something: a flush visits only these
	global entrySets              // of these, what a change of CR3 leaves
	pieces entrySets              // of these, those of pages larger than 4 KiB
	phys   [3][mmu.TLBSize]uint64 // guest-physical pages
	shift  [3][mmu.TLBSize]uint8  // log2 of the size of the mapping they are part of
	large  pageFilter             // the larger pages that there were pieces of since all was flushed
}

// entrySets are sets of a TLB's entries, by MMUIndex.
type entrySets [3]entrySet

// entrySet is a set of a TLB's entries.
type entrySet struct {
	any  uint64 // the words that are not 0
	word [mmu.TLBSize / 64]uint64
}

const _ = uint(64 - mmu.TLBSize/64) // entrySet.any has a bit for each word

func (s *entrySet) set(i uint64, on bool) {
	w := i / 64
	s.word[w] &^= 1 << (i % 64)
	if on {
		s.word[w] |= 1 << (i % 64)
		s.any |= 1 << w
	} else if s.word[w] == 0 {
		s.any &^= 1 << w
	}
}

// fill puts a RAM page into the TLB. It grants writes only where nobody must
// hear of them.
func (c *CPU) fill(va uint64, pg *mmu.Page, region *guestmem.Region, a mmu.Access) {
	page := va & pageMask
	if c.DR[7]&0xff != 0 && c.watched(page) || c.sys.alignCheck || c.debug != nil && c.debug.watched(page) {
		return
	}
	i := va / pageSize % mmu.TLBSize
	e := &c.TLB[c.MMUIndex][i]
	host := region.HostAddr() + uintptr(pg.Phys-region.GPA)
	*e = mmu.Entry{Read: page, Write: mmu.NoPage(i), Add: host - uintptr(page), Host: host}
	if pg.Writable && !region.ReadOnly && c.writeUnseen(pg.Phys, a) {
		e.Write = page
	}
	t := &c.sys.mem.tlb
	t.phys[c.MMUIndex][i] = pg.Phys
	t.shift[c.MMUIndex][i] = pg.Shift
	t.filled[c.MMUIndex].set(i, true)
	t.global[c.MMUIndex].set(i, pg.Global)
	t.pieces[c.MMUIndex].set(i, pg.Shift > 12)
	if pg.Shift > 12 {
		t.large.add(pageKey(va, pg.Shift, 0))
	}
}

// flushTLB forgets all translations, or with keepGlobal those not global.
func (c *CPU) flushTLB(keepGlobal bool) {
	m := &c.sys.mem
	if keepGlobal {
		m.ages.forget()
	} else {
		m.ages.forgetAll()
		m.tlb.large = pageFilter{}
	}
	c.emptyTLB(keepGlobal)
}

// switchTLB is flushTLB for a change of the address space, from one PCID to
// another. With keep what was remembered of that one holds again.
func (c *CPU) switchTLB(from, to uint64, keep bool) {
	c.sys.mem.ages.enter(from, to, keep)
	c.emptyTLB(true)
}

// pcid is the present address space's; 0 without PCIDs.
func (c *CPU) pcid() uint64 {
	if c.CR4&x86.CR4PCIDE == 0 {
		return 0
	}
	return c.CR3 & 0xfff
}

// emptyTLB has the TLB alone forget them.
func (c *CPU) emptyTLB(keepGlobal bool) {
	m := &c.sys.mem.tlb
	for t := range m.filled {
		f := &m.filled[t]
		for a := f.any; a != 0; a &= a - 1 {
			w := bits.TrailingZeros64(a)
			set := f.word[w]
			if keepGlobal {
				set &^= m.global[t].word[w]
			}
			if f.word[w] &^= set; f.word[w] == 0 {
				f.any &^= 1 << w
			}
			for ; set != 0; set &= set - 1 {
				c.empty(t, w*64+bits.TrailingZeros64(set))
			}
		}
	}
}

// initTLB makes a TLB of any contents empty.
func (c *CPU) initTLB() {
	for t := range c.TLB {
		for i := range c.TLB[t] {
			c.empty(t, i)
		}
	}
	m := &c.sys.mem
	m.tlb.filled, m.tlb.large = entrySets{}, pageFilter{}
	m.ages.forgetAll()
}

// flushPage forgets the translation of va in the present address space, and all
// of a larger page's pieces (Intel SDM vol. 3A §4.10.4.1).
func (c *CPU) flushPage(va uint64) {
	m := &c.sys.mem
	m.ages.forgetPage(va)
	m.walks.Forget()
	page := va & pageMask
	i := va / pageSize % mmu.TLBSize
	for t := range c.TLB {
		if c.TLB[t][i].Read == page {
			c.drop(t, int(i))
		}
	}
	for _, shift := range largeShifts {
		if m.tlb.large.has(pageKey(va, shift, 0)) {
			c.dropPieces(va, shift)
		}
	}
}

// dropPieces takes what is held of the page of va of 1<<shift bytes out of the TLB.
func (c *CPU) dropPieces(va uint64, shift uint8) {
	m := &c.sys.mem.tlb
	for t := range m.pieces {
		s := &m.pieces[t]
		for a := s.any & m.filled[t].any; a != 0; a &= a - 1 {
			w := bits.TrailingZeros64(a)
			for set := s.word[w] & m.filled[t].word[w]; set != 0; set &= set - 1 {
				i := w*64 + bits.TrailingZeros64(set)
				if m.shift[t][i] == shift && (c.TLB[t][i].Read^va)>>shift == 0 {
					c.drop(t, i)
				}
			}
		}
	}
}

// empty has an entry grant nothing.
func (c *CPU) empty(t, i int) {
	none := mmu.NoPage(uint64(i))
	c.TLB[t][i].Read, c.TLB[t][i].Write = none, none
}

func (c *CPU) drop(t, i int) {
	c.empty(t, i)
	c.sys.mem.tlb.filled[t].set(uint64(i), false)
}

// revokeWrites takes the direct write permission from pages that have it and match.
func (c *CPU) revokeWrites(match func(phys uint64) bool) {
	m := &c.sys.mem.tlb
	for t := range m.filled {
		f := &m.filled[t]
		for a := f.any; a != 0; a &= a - 1 {
			w := bits.TrailingZeros64(a)
			for set := f.word[w]; set != 0; set &= set - 1 {
				i := w*64 + bits.TrailingZeros64(set)
				if e := &c.TLB[t][i]; e.Write == e.Read && match(m.phys[t][i]) {
					e.Write = mmu.NoPage(uint64(i))
				}
			}
		}
	}
}

// largeShifts are log2 of the sizes of pages above 4 KiB.
var largeShifts = [...]uint8{21, 22, 30}
