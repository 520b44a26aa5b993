package mmu

import (
	"berth/guestmem"
	"berth/x86"
)

// PhysBits is MAXPHYADDR of every guest CPU that this package walks for.
const PhysBits = 40

// Access is what a translation is wanted for.
type Access uint8

// The kinds of access.
const (
	Read Access = iota
	Write
	Fetch
)

// Bits of the page-fault error code (Intel SDM vol. 3A §4.7).
const (
	FaultPresent = 1 << 0
	FaultWrite   = 1 << 1
	FaultUser    = 1 << 2
	FaultRsvd    = 1 << 3
	FaultFetch   = 1 << 4
)

// Bits of paging-structure entries (Intel SDM vol. 3A tables 4-4 to 4-20).
const (
	ptePresent  = 1 << 0
	pteWrite    = 1 << 1
	pteUser     = 1 << 2
	pteAccessed = 1 << 5
	pteDirty    = 1 << 6
	pteLarge    = 1 << 7
	pteGlobal   = 1 << 8
	pteNX       = 1 << 63

	pteAddr = (1<<PhysBits - 1) &^ 0xfff
	// reservedHigh are the address bits between MAXPHYADDR and 52.
	reservedHigh = (1<<52 - 1) &^ (1<<PhysBits - 1)
)

// Regs is all that a walk depends on besides memory and the access itself.
type Regs struct {
	CR0, CR3, CR4, EFER uint64
	PDPTE               [4]uint64 // PAE paging's registers, loaded with CR3
}

// Privilege is on whose behalf an access is made.
type Privilege uint8

// The privileges; SupervisorAC may reach user pages in spite of SMAP.
const (
	Supervisor Privilege = iota
	SupervisorAC
	User
)

// Page is the 4 KiB page that a walk found.
type Page struct {
	Phys   uint64 // guest-physical address
	Shift  uint8  // log2 of the size of the mapping it is part of
	Global bool
	// Writable: a write under the same privilege needs no further walk: it is
	// permitted and the dirty bit is set.
	Writable bool
}

// Walk translates the canonical linear address va. It checks the permissions of
// access and sets accessed and dirty bits; if the access faults no bit is set,
// ok is false and code is the #PF error code. Safe for concurrent use with the
// guest's own changes of the tables.
func Walk(m *guestmem.Memory, r *Regs, va uint64, access Access, who Privilege) (p Page, code uint32, ok bool) {
	if r.CR0&x86.CR0PG == 0 {
		return Page{Phys: uint64(uint32(va)) &^ 0xfff, Shift: 12, Writable: true}, 0, true
	}
	w := walker{m: m, r: r, va: va, access: access, who: who}
	code, ok = w.walk()
	return w.page, code, ok
}

// walk walks from the top and sets the bits; not ok: page is none.
func (w *walker) walk() (code uint32, ok bool) {
	for {
		*w = walker{m: w.m, r: w.r, va: w.va, access: w.access, who: w.who, rights: pteWrite | pteUser}
		switch {
		case w.r.CR4&x86.CR4PAE == 0:
			w.walk32()
		case w.r.EFER&x86.EFERLMA == 0:
			w.walkPAE()
		default:
			w.walk4()
		}
		if w.fault {
			return w.errorCode(), false
		}
		if w.commit() {
			return 0, true
		}
	}
}

// ref is one entry that a walk used.
type ref struct {
	gpa   uint64
	value uint64
}

type walker struct {
	m      *guestmem.Memory
	r      *Regs
	va     uint64
	access Access
	who    Privilege

	rights uint64 // AND of W and U over the levels
	nx     bool   // OR of NX over the levels
	used   [4]ref
	n      int
	narrow bool // 32-bit entries

	// Of the page table that a walk of 8-byte entries reached, and what led there.
	table, tableRights uint64
	tableNX            bool

	page    Page
	fault   bool
	present bool // of the faulting entry
	rsvd    bool
}

func (w *walker) errorCode() (code uint32) {
	if w.present {
		code |= FaultPresent
	}
	if w.rsvd {
		code |= FaultRsvd
	}
	if w.access == Write {
		code |= FaultWrite
	}
	if w.who == User {
		code |= FaultUser
	}
	nxe := w.r.CR4&x86.CR4PAE != 0 && w.r.EFER&x86.EFERNXE != 0
	if w.access == Fetch && (nxe || w.r.CR4&x86.CR4SMEP != 0) {
		code |= FaultFetch
	}
	return code
}

// fail notes a fault at an entry; not present wins over reserved bits.
func (w *walker) fail(present, rsvd bool) {
	w.fault, w.present, w.rsvd = true, present, rsvd
}

// next reads the entry at gpa, checks P and reserved bits and adds its rights.
func (w *walker) next(gpa, reserved uint64) (value uint64, ok bool) {
	if w.narrow {
		value = uint64(load32(w.m, gpa))
	} else {
		value = load64(w.m, gpa)
	}
	if value&ptePresent == 0 {
		w.fail(false, false)
		return 0, false
	}
	if value&reserved != 0 {
		w.fail(true, true)
		return 0, false
	}
	w.used[w.n] = ref{gpa, value}
	w.n++
	w.rights &= value
	w.nx = w.nx || value&pteNX != 0
	return value, true
}

// rsvd64 returns the bits reserved in every 8-byte entry.
func (w *walker) rsvd64(long bool) uint64 {
	bits := uint64(reservedHigh)
	if !long {
		bits |= 0x7ff << 52
	}
	if w.r.EFER&x86.EFERNXE == 0 {
		bits |= pteNX
	}
	return bits
}

// walk32 is 32-bit paging with PSE and PSE-36 (Intel SDM vol. 3A §4.3).
func (w *walker) walk32() {
	w.narrow = true
	va := uint64(uint32(w.va))
	pde, ok := w.next(w.r.CR3&0xfffff000|va>>22<<2, 0)
	if !ok {
		return
	}
	if pde&pteLarge != 0 && w.r.CR4&x86.CR4PSE != 0 {
		if pde&(1<<21) != 0 {
			w.fail(true, true)
			return
		}
		base := pde&0xffc00000 | pde>>13&0xff<<32
		w.leaf(base|va&0x3ff000, 22, pde)
		return
	}
	pte, ok := w.next(pde&0xfffff000|va>>12&0x3ff<<2, 0)
	if ok {
		w.leaf(pte&0xfffff000, 12, pte)
	}
}

// walkPAE is PAE paging (§4.4). The PDPTEs' reserved bits were checked at load.
func (w *walker) walkPAE() {
	va := uint64(uint32(w.va))
	pdpte := w.r.PDPTE[va>>30]
	if pdpte&ptePresent == 0 {
		w.fail(false, false)
		return
	}
	w.lower(pdpte&pteAddr, va, w.rsvd64(false))
}

// walk4 is 4-level paging (§4.5).
func (w *walker) walk4() {
	rsvd := w.rsvd64(true)
	pml4e, ok := w.next(w.r.CR3&pteAddr|w.va>>39&0x1ff<<3, rsvd|pteLarge)
	if !ok {
		return
	}
	pdpte, ok := w.next(pml4e&pteAddr|w.va>>30&0x1ff<<3, rsvd)
	if !ok {
		return
	}
	if pdpte&pteLarge != 0 {
		if pdpte&0x3fffe000 != 0 {
			w.fail(true, true)
			return
		}
		w.leaf(pdpte&pteAddr&^0x3fffffff|w.va&0x3ffff000, 30, pdpte)
		return
	}
	w.lower(pdpte&pteAddr, w.va, rsvd)
}

// lower walks the page directory and page table that PAE and 4-level share.
func (w *walker) lower(pd, va, rsvd uint64) {
	pde, ok := w.next(pd|va>>21&0x1ff<<3, rsvd)
	if !ok {
		return
	}
	if pde&pteLarge != 0 {
		if pde&0x1fe000 != 0 {
			w.fail(true, true)
			return
		}
		w.leaf(pde&pteAddr&^0x1fffff|va&0x1ff000, 21, pde)
		return
	}
	w.table, w.tableRights, w.tableNX = pde&pteAddr, w.rights, w.nx
	pte, ok := w.next(w.table|va>>12&0x1ff<<3, rsvd)
	if ok {
		w.leaf(pte&pteAddr, 12, pte)
	}
}

// leaf checks the permissions (§4.6) and describes the page.
func (w *walker) leaf(phys uint64, shift uint8, entry uint64) {
	if !w.permitted(w.access) {
		w.fail(true, false)
		return
	}
	w.page = Page{
		Phys:     phys,
		Shift:    shift,
		Global:   entry&pteGlobal != 0 && w.r.CR4&x86.CR4PGE != 0,
		Writable: (entry&pteDirty != 0 || w.access == Write) && w.permitted(Write),
	}
}

func (w *walker) permitted(a Access) bool {
	user := w.rights&pteUser != 0
	if w.who == User && !user {
		return false
	}
	if a == Fetch {
		return !w.nx && !(user && w.who != User && w.r.CR4&x86.CR4SMEP != 0)
	}
	if user && w.who == Supervisor && w.r.CR4&x86.CR4SMAP != 0 {
		return false
	}
	return a == Read || w.rights&pteWrite != 0 || w.who != User && w.r.CR0&x86.CR0WP == 0
}

// commit sets the accessed bits and, for a write, the leaf's dirty bit. It
// returns false if an entry changed since it was read: the walk starts again.
func (w *walker) commit() bool {
	for i, u := range w.used[:w.n] {
		bits := uint64(pteAccessed)
		if i == w.n-1 && w.access == Write {
			bits |= pteDirty
		}
		if u.value&bits == bits {
			continue
		}
		if !w.set(u, bits) {
			return false
		}
	}
	return true
}

func (w *walker) set(u ref, bits uint64) bool {
	if w.narrow {
		return cas32(w.m, u.gpa, uint32(u.value), uint32(u.value|bits))
	}
	return cas64(w.m, u.gpa, u.value, u.value|bits)
}
