package interp

import "berth/x86/mmu"

// ages says under which translations something holds that was found by one: code
// fetched from a linear address, a jump to it. What bears an age holds while that
// is the present one. Ages are numbers that are never used again.
// Each PCID's address space has its own, so that what was found in it holds again
// when it is entered without bit 63 of CR3.
type ages struct {
	mmu.Ages
	last   uint64          // the youngest
	floor  uint64          // of those in spaces, the younger ones hold
	spaces [1 << 12]uint64 // the ages of address spaces that were left, by PCID
	held   pageFilter
}

// maxHeldPages is how many pages are held before all are forgotten, so that the
// filter does not take every page for one of them.
const maxHeldPages = filterBits / 32

// of is the age that a translation has now.
func (a *ages) of(global bool) uint64 {
	if global {
		return a.Global
	}
	return a.Current
}

// hold is of a translation that something will be remembered by: forgetPage will
// know that it is.
func (a *ages) hold(va uint64, pg *mmu.Page) uint64 {
	age := a.of(pg.Global)
	a.held.add(pageKey(va, pg.Shift, age))
	return age
}

// limit forgets all if too many pages are held. It is called before a block is looked
// up, not by hold: what is found by two pages is to bear an age that both are held under.
func (a *ages) limit() {
	if a.held.n >= maxHeldPages {
		a.forgetAll()
	}
}

func (a *ages) fresh() uint64 {
	a.last++
	return a.last
}

// enter goes from one address space to another, of which with keep all holds that
// held when it was left.
func (a *ages) enter(from, to uint64, keep bool) {
	a.spaces[from] = a.Current
	if keep && a.spaces[to] > a.floor {
		a.Current = a.spaces[to]
		return
	}
	a.forget()
}

// forget has nothing hold of the present address space.
func (a *ages) forget() { a.Current = a.fresh() }

// forgetSpace has nothing hold of one that was left.
func (a *ages) forgetSpace(pcid uint64) { a.spaces[pcid] = 0 }

// forgetSpaces has nothing hold that is not global.
func (a *ages) forgetSpaces() {
	a.floor = a.last
	a.forget()
}

// forgetAll has nothing hold.
func (a *ages) forgetAll() {
	a.forgetSpaces()
	a.Global = a.fresh()
	a.held = pageFilter{}
}

// forgetPage has nothing hold that was found by the translation of va in the
// present address space.
func (a *ages) forgetPage(va uint64) {
	for _, shift := range pageShifts {
		if a.held.has(pageKey(va, shift, a.Global)) {
			a.forgetAll() // jumpTag knows only Current
			return
		}
		if a.held.has(pageKey(va, shift, a.Current)) {
			a.forget()
		}
	}
}

// pageShifts are log2 of the sizes of pages.
var pageShifts = [...]uint8{12, 21, 22, 30}
