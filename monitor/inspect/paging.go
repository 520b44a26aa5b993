package inspect

import (
	"errors"
	"fmt"
	"io"

	"berth/guestmem"
	"berth/x86"
)

// Bits of paging-structure entries (Intel SDM vol. 3A tables 4-4 to 4-20).
const (
	ptePresent  = 1 << 0
	pteWrite    = 1 << 1
	pteUser     = 1 << 2
	ptePWT      = 1 << 3
	ptePCD      = 1 << 4
	pteAccessed = 1 << 5
	pteDirty    = 1 << 6
	pteLarge    = 1 << 7
	pteGlobal   = 1 << 8
	pteNX       = 1 << 63
	pteAddr     = (1<<52 - 1) &^ 0xfff
	pteRights   = ptePresent | pteWrite | pteUser
)

// maxEntries is how many entries one look at the tables reads: a guest can have
// tables name themselves, and have no end of them.
const maxEntries = 1 << 26

// errTooMany ends a walk of tables without end.
var errTooMany = errors.New("the guest's page tables have too many entries")

// tables are a vCPU's paging structures. They are read as they are: no accessed bit is set.
type tables struct {
	mem    *guestmem.Memory
	root   uint64
	shifts []uint8 // of the levels, the highest first
	bits   []uint8 // of an address that each level looks at
	wide   bool    // entries of 8 bytes
	large  bool    // 32-bit paging has large pages
	canon  uint8   // the bit of an address that all above are equal to; 0: none
	left   int     // entries that may still be read
}

// newTables returns those that s points to; nil: paging is off.
func newTables(m *guestmem.Memory, s *x86.State) *tables {
	t := &tables{mem: m, wide: true, left: maxEntries}
	switch {
	case s.CR0&x86.CR0PG == 0:
		return nil
	case s.CR4&x86.CR4PAE == 0:
		t.wide, t.large = false, s.CR4&x86.CR4PSE != 0
		t.root, t.shifts, t.bits = s.CR3&0xfffff000, []uint8{22, 12}, []uint8{10, 10}
	case !ia32e(s):
		t.root, t.shifts, t.bits = s.CR3&0xffffffe0, []uint8{30, 21, 12}, []uint8{2, 9, 9}
	case s.CR4&x86.CR4LA57 != 0:
		t.root, t.shifts, t.bits, t.canon = s.CR3&pteAddr, []uint8{48, 39, 30, 21, 12}, []uint8{9, 9, 9, 9, 9}, 56
	default:
		t.root, t.shifts, t.bits, t.canon = s.CR3&pteAddr, []uint8{39, 30, 21, 12}, []uint8{9, 9, 9, 9}, 47
	}
	return t
}

// entry reads entry i of a table; outside RAM there is none.
func (t *tables) entry(table, i uint64) uint64 {
	t.left--
	if t.wide {
		v, err := t.mem.Load64(table + 8*i)
		if err != nil {
			return 0
		}
		return v
	}
	v, err := t.mem.Load32(table + 4*i)
	if err != nil {
		return 0
	}
	return uint64(v)
}

// leaf reports whether an entry of a level maps a page rather than naming a table.
func (t *tables) leaf(level int, e uint64) bool {
	switch {
	case t.shifts[level] == 12:
		return true
	case !t.wide:
		return e&pteLarge != 0 && t.large
	}
	return e&pteLarge != 0 && t.shifts[level] <= 30 && level > 0
}

// page is a run of addresses that one entry maps, or that none does.
type page struct {
	va     uint64
	shift  uint8
	entry  uint64 // 0: nothing is mapped
	rights uint64 // AND of W, U and P over the levels
}

// phys is the address of the page.
func (t *tables) phys(p page) uint64 {
	if !t.wide && p.shift == 22 { // PSE-36
		return p.entry&0xffc00000 | p.entry>>13&0xff<<32
	}
	if !t.wide {
		return p.entry & 0xfffff000
	}
	return p.entry & pteAddr &^ (1<<p.shift - 1)
}

// canonical extends an address's sign.
func (t *tables) canonical(va uint64) uint64 {
	if t.canon == 0 {
		return va
	}
	return uint64(int64(va<<(63-t.canon)) >> (63 - t.canon))
}

// visit calls f for all addresses in order, until f fails.
func (t *tables) visit(f func(page) error) error { return t.below(t.root, 0, 0, pteRights, f) }

func (t *tables) below(table uint64, level int, va, rights uint64, f func(page) error) error {
	for i := range uint64(1) << t.bits[level] {
		if t.left <= 0 {
			return errTooMany
		}
		e := t.entry(table, i)
		at := va | i<<t.shifts[level]
		var err error
		switch {
		case e&ptePresent == 0:
			err = f(page{va: at, shift: t.shifts[level]})
		case t.leaf(level, e):
			err = f(page{va: at, shift: t.shifts[level], entry: e, rights: rights & e})
		default:
			err = t.below(t.next(e), level+1, at, t.and(level, rights, e), f)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// next is the table that an entry names.
func (t *tables) next(e uint64) uint64 {
	if !t.wide {
		return e & 0xfffff000
	}
	return e & pteAddr
}

// and adds the rights that an entry grants; those of PAE's highest level grant none.
func (t *tables) and(level int, rights, e uint64) uint64 {
	if t.wide && len(t.bits) == 3 && level == 0 {
		return rights
	}
	return rights & e
}

// Translate returns the guest-physical address of a linear one; not ok: it is not mapped.
// Permissions do not matter, and no bit of the tables is set.
func Translate(m *guestmem.Memory, s *x86.State, va uint64) (gpa uint64, ok bool) {
	t := newTables(m, s)
	if t == nil {
		return va & 0xffffffff, true
	}
	if t.canon == 0 {
		va &= 0xffffffff
	} else if t.canonical(va) != va {
		return 0, false
	}
	table := t.root
	for level, shift := range t.shifts {
		e := t.entry(table, va>>shift&(1<<t.bits[level]-1))
		switch {
		case e&ptePresent == 0:
			return 0, false
		case t.leaf(level, e):
			return t.phys(page{shift: shift, entry: e}) | va&(1<<shift-1), true
		}
		table = t.next(e)
	}
	return 0, false
}

// TLB prints every page that a vCPU's tables map, as QEMU's "info tlb" does. The
// error is w's, or says that the tables have no end.
func TLB(w io.Writer, m *guestmem.Memory, s *x86.State) error {
	t := newTables(m, s)
	if t == nil {
		_, err := fmt.Fprintln(w, "PG disabled")
		return err
	}
	return t.visit(func(p page) error {
		if p.entry == 0 {
			return nil
		}
		e := p.entry
		if p.shift == 12 {
			e &^= pteLarge // that bit is the PAT's here
		}
		flags := []byte("---------")
		for i, f := range []struct {
			bit    uint64
			letter byte
		}{{pteNX, 'X'}, {pteGlobal, 'G'}, {pteLarge, 'P'}, {pteDirty, 'D'}, {pteAccessed, 'A'}, {ptePCD, 'C'}, {ptePWT, 'T'}, {pteUser, 'U'}, {pteWrite, 'W'}} {
			flags[i] = letter(e&f.bit != 0, f.letter)
		}
		_, err := fmt.Fprintf(w, "%016x: %016x %s\n", t.canonical(p.va), t.phys(p), flags)
		return err
	})
}

// Mappings prints the runs of addresses that a vCPU's tables map with equal rights,
// as QEMU's "info mem" does. Errors are as TLB's.
func Mappings(w io.Writer, m *guestmem.Memory, s *x86.State) error {
	t := newTables(m, s)
	if t == nil {
		_, err := fmt.Fprintln(w, "PG disabled")
		return err
	}
	run := page{}
	end := uint64(0)
	print := func(to uint64) error {
		if run.rights == 0 {
			return nil
		}
		_, err := fmt.Fprintf(w, "%016x-%016x %016x %cr%c\n", t.canonical(run.va), t.canonical(to), to-run.va,
			letter(run.rights&pteUser != 0, 'u'), letter(run.rights&pteWrite != 0, 'w'))
		return err
	}
	err := t.visit(func(p page) error {
		end = p.va + 1<<p.shift
		if p.rights &= pteRights; p.rights == run.rights {
			return nil
		}
		err := print(p.va)
		run = p
		return err
	})
	if err != nil {
		return err
	}
	return print(end)
}

// Mapped calls f for each run of addresses that is mapped to guest-physical ones
// that lie one after the other. Errors are f's, or as TLB's; not on: paging is off.
func Mapped(m *guestmem.Memory, s *x86.State, f func(va, gpa, size uint64) error) (on bool, err error) {
	t := newTables(m, s)
	if t == nil {
		return false, nil
	}
	var va, gpa, size uint64
	flush := func() error {
		if size == 0 {
			return nil
		}
		return f(t.canonical(va), gpa, size)
	}
	err = t.visit(func(p page) error {
		if p.entry == 0 {
			return nil
		}
		at := t.phys(p)
		if size != 0 && p.va == va+size && at == gpa+size {
			size += 1 << p.shift
			return nil
		}
		err := flush()
		va, gpa, size = p.va, at, 1<<p.shift
		return err
	})
	if err == nil {
		err = flush()
	}
	return true, err
}
