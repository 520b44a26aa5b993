package interp

import "berth/x86/mmu"

// ages says under which translations something holds that was found by one: code
// fetched from a linear address, a jump to it. What bears an age holds while that
// is the present one. Ages are numbers that are never used again.
type ages struct {
	last    uint64 // the youngest
	current uint64 // of the present address space's translations
	global  uint64 // of those that are global
	held    pageFilter
}

// maxHeldPages is how many pages are held before all are forgotten, so that the
// filter does not take every page for one of them.
const maxHeldPages = filterBits / 32

// of is the age that a translation has now.
func (a *ages) of(global bool) uint64 {
	if global {
		return a.global
	}
	return a.current
}

// hold is of a translation that something will be remembered by: forgetPage will
// know that it is.
func (a *ages) hold(va uint64, pg *mmu.Page) uint64 {
	if a.held.n >= maxHeldPages {
		a.forgetAll()
	}
	age := a.of(pg.Global)
	a.held.add(pageKey(va, pg.Shift, age))
	return age
}

func (a *ages) fresh() uint64 {
	a.last++
	return a.last
}

// forget has nothing hold that is not global.
func (a *ages) forget() { a.current = a.fresh() }

// forgetAll has nothing hold.
func (a *ages) forgetAll() {
	a.current, a.global = a.fresh(), a.fresh()
	a.held = pageFilter{}
}

// forgetPage has nothing hold that was found by the translation of va.
func (a *ages) forgetPage(va uint64) {
	for _, shift := range pageShifts {
		if a.held.has(pageKey(va, shift, a.global)) {
			a.current, a.global = a.fresh(), a.fresh() // jumpTag knows only current
			return
		}
		if a.held.has(pageKey(va, shift, a.current)) {
			a.current = a.fresh()
		}
	}
}

// pageShifts are log2 of the sizes of pages.
var pageShifts = [...]uint8{12, 21, 22, 30}
