package mmu

import (
	"berth/guestmem"
	"berth/x86"
)

// cacheSize is the number of a Cache's entries, a power of two.
const cacheSize = 256

// Cache remembers where walks of 8-byte entries came to: the page tables they
// reached, and the pages above 4 KiB. It is what a processor's paging-structure
// caches and its TLB for large pages are (Intel SDM vol. 3A §4.10.3), so that a miss
// of the TLB costs one look at memory, or none. It takes nothing from a guest that
// the processor's own would not: an entry is remembered only once its accessed bit
// is set, a page serves a write only once its dirty bit is, and no fault is found by
// what is remembered. The zero value is empty. One thread uses it.
type Cache struct {
	epoch  uint64 // entries of others are forgotten
	places [cacheSize]place
}

// Ages name the translations that hold: a walk's result is used again only under the
// age it was found under. 0 is none.
type Ages struct {
	Current uint64 // those of the present address space
	Global  uint64 // those of global pages
}

// place is where the walks of 2 MiB of linear addresses came to.
type place struct {
	tag        uint64 // the addresses over 2 MiB, moved left by 1, and bit 0
	epoch, age uint64
	at         uint64 // guest-physical address of the page table, or of the page
	entry      uint64 // of a page: its entry
	rights     uint64
	nx         bool
	global     bool
	shift      uint8 // of a page; 0: a page table
}

// Forget has the cache empty.
func (c *Cache) Forget() { c.epoch++ }

// Walk is Walk by way of the cache.
func (c *Cache) Walk(m *guestmem.Memory, r *Regs, ages Ages, va uint64, access Access, who Privilege) (p Page, code uint32, ok bool) {
	if r.CR0&x86.CR0PG == 0 || r.CR4&x86.CR4PAE == 0 {
		return Walk(m, r, va, access, who)
	}
	w := walker{m: m, r: r, va: va, access: access, who: who}
	e := &c.places[(va>>21^va>>30)%cacheSize]
	age := ages.Current
	if e.global {
		age = ages.Global
	}
	if e.tag == va>>21<<1|1 && e.epoch == c.epoch && e.age == age && w.resume(e) && w.commit() {
		return w.page, 0, true
	}
	if code, ok = w.walk(); ok {
		e.remember(&w, ages, c.epoch)
	}
	return w.page, code, ok
}

// resume goes on from e; false: a walk from the top must say what there is.
func (w *walker) resume(e *place) bool {
	w.rights, w.nx = e.rights, e.nx
	if e.shift != 0 {
		if w.access == Write && e.entry&pteDirty == 0 {
			return false
		}
		w.leaf(e.at|w.va&(1<<e.shift-1)&^0xfff, e.shift, e.entry)
	} else if pte, ok := w.next(e.at|w.va>>12&0x1ff<<3, w.rsvd64(w.r.EFER&x86.EFERLMA != 0)); ok {
		w.leaf(pte&pteAddr, 12, pte)
	}
	return !w.fault
}

// remember has e say where w, which is committed, came to.
func (e *place) remember(w *walker, ages Ages, epoch uint64) {
	*e = place{tag: w.va>>21<<1 | 1, epoch: epoch, age: ages.Current, at: w.table, rights: w.tableRights, nx: w.tableNX}
	if shift := w.page.Shift; shift > 12 {
		e.at, e.shift = w.page.Phys&^(1<<shift-1), shift
		e.entry = w.used[w.n-1].value
		if w.access == Write {
			e.entry |= pteDirty
		}
		e.rights, e.nx = w.rights, w.nx
		if e.global = w.page.Global; e.global {
			e.age = ages.Global
		}
	}
}
