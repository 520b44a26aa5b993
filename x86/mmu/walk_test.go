package mmu

import (
	"testing"

	"berth/guestmem"
	"berth/x86"
)

// tables builds paging structures in 16 MiB of guest memory.
type tables struct {
	t    *testing.T
	m    *guestmem.Memory
	regs Regs
	free uint64
}

func newTables(t *testing.T, regs Regs) *tables {
	m := guestmem.New()
	if _, err := m.AddRAM(0, 16<<20); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	regs.CR0 |= x86.CR0PE | x86.CR0PG
	return &tables{t: t, m: m, regs: regs, free: 0x100000}
}

func (b *tables) page() uint64 {
	b.free += 0x1000
	return b.free
}

func (b *tables) put64(gpa, v uint64) {
	if err := b.m.Store64(gpa, v); err != nil {
		b.t.Fatal(err)
	}
}

func (b *tables) put32(gpa uint64, v uint32) {
	if err := b.m.Store32(gpa, v); err != nil {
		b.t.Fatal(err)
	}
}

// long maps va with one entry a level, top first; it returns the entries' addresses.
func (b *tables) long(va uint64, entries ...uint64) []uint64 {
	var at []uint64
	table := b.page()
	b.regs.CR3 = table
	for i, e := range entries {
		gpa := table + va>>(39-9*i)&0x1ff*8
		at = append(at, gpa)
		if i < len(entries)-1 {
			table = b.page()
			e |= table
		}
		b.put64(gpa, e)
	}
	return at
}

const (
	p, w, u  = ptePresent, pteWrite, pteUser
	pwu      = p | w | u
	long     = x86.EFERLMA | x86.EFERLME | x86.EFERNXE
	testVA   = 0x1234_5678_9000
	testPhys = 0x654000
)

func longRegs(cr0, cr4 uint64) Regs { return Regs{CR0: cr0, CR4: cr4 | x86.CR4PAE, EFER: long} }

// TestSDM3A_4_6_AccessRights tries every mix of page, privilege, access and control bits.
func TestSDM3A_4_6_AccessRights(t *testing.T) {
	for _, page := range []uint64{p, p | w, p | u, pwu, p | pteNX, pwu | pteNX} {
		for _, cr0 := range []uint64{0, x86.CR0WP} {
			for _, cr4 := range []uint64{0, x86.CR4SMEP, x86.CR4SMAP, x86.CR4SMEP | x86.CR4SMAP} {
				b := newTables(t, longRegs(cr0, cr4))
				b.long(testVA, pwu, pwu, pwu, page|testPhys)
				for _, who := range []Privilege{Supervisor, SupervisorAC, User} {
					for _, a := range []Access{Read, Write, Fetch} {
						got, code, ok := Walk(b.m, &b.regs, testVA, a, who)
						want := allowed(page, cr0, cr4, who, a)
						if ok != want {
							t.Errorf("page %#x cr0 %#x cr4 %#x privilege %d access %d: %v", page, cr0, cr4, who, a, ok)
						}
						if ok && got.Phys != testPhys {
							t.Errorf("phys %#x", got.Phys)
						}
						if wantCode := codeFor(who, a); !ok && code != wantCode {
							t.Errorf("error code %#x, not %#x", code, wantCode)
						}
					}
				}
			}
		}
	}
}

// allowed restates SDM vol. 3A §4.6.1 from the page's side.
func allowed(page, cr0, cr4 uint64, who Privilege, a Access) bool {
	user := page&u != 0
	if who == User {
		return user && (a != Write || page&w != 0) && (a != Fetch || page&pteNX == 0)
	}
	switch a {
	case Fetch:
		return page&pteNX == 0 && (!user || cr4&x86.CR4SMEP == 0)
	case Write:
		if cr0&x86.CR0WP != 0 && page&w == 0 {
			return false
		}
	}
	return !user || who == SupervisorAC || cr4&x86.CR4SMAP == 0
}

func codeFor(who Privilege, a Access) uint32 {
	code := uint32(FaultPresent)
	if who == User {
		code |= FaultUser
	}
	switch a {
	case Write:
		code |= FaultWrite
	case Fetch:
		code |= FaultFetch
	}
	return code
}

func TestSDM3A_4_8_AccessedAndDirty(t *testing.T) {
	b := newTables(t, longRegs(x86.CR0WP, 0))
	at := b.long(testVA, pwu, pwu, pwu, pwu|testPhys)
	check := func(leaf uint64) {
		t.Helper()
		for i, gpa := range at {
			v, _ := b.m.Load64(gpa)
			want := uint64(pteAccessed)
			if i == 3 {
				want = leaf
			}
			if v&(pteAccessed|pteDirty) != want {
				t.Errorf("level %d: entry %#x", i, v)
			}
		}
	}
	if pg, _, ok := Walk(b.m, &b.regs, testVA, Read, User); !ok || pg.Writable {
		t.Errorf("read: %+v %v: a clean page must not be writable without a walk", pg, ok)
	}
	check(pteAccessed)
	if pg, _, ok := Walk(b.m, &b.regs, testVA, Write, User); !ok || !pg.Writable {
		t.Errorf("write: %+v %v", pg, ok)
	}
	check(pteAccessed | pteDirty)
}

func TestFaultingWalkSetsNoBits(t *testing.T) {
	b := newTables(t, longRegs(x86.CR0WP, 0))
	at := b.long(testVA, pwu, pwu, pwu, p|u|testPhys)
	if _, _, ok := Walk(b.m, &b.regs, testVA, Write, User); ok {
		t.Fatal("write to a read-only page")
	}
	for _, gpa := range at {
		if v, _ := b.m.Load64(gpa); v&(pteAccessed|pteDirty) != 0 {
			t.Errorf("entry at %#x is %#x", gpa, v)
		}
	}
}

func TestSDM3A_4_5_LargePages(t *testing.T) {
	va := uint64(0xffff_8000_7fff_f000)
	b := newTables(t, longRegs(0, x86.CR4PGE))
	b.long(va, p|w, p|w, p|w|pteLarge|pteGlobal|0x40_0000)
	pg, _, ok := Walk(b.m, &b.regs, va, Write, Supervisor)
	if want := (Page{Phys: 0x40_0000 | va&0x1ff000, Shift: 21, Global: true, Writable: true}); !ok || pg != want {
		t.Errorf("2 MiB: %+v", pg)
	}
	b.long(va, p|w, p|w|pteLarge|0x4000_0000)
	pg, _, ok = Walk(b.m, &b.regs, va, Read, Supervisor)
	if want := (Page{Phys: 0x4000_0000 | va&0x3fff_f000, Shift: 30}); !ok || pg != want {
		t.Errorf("1 GiB: %+v", pg)
	}
}

func TestSDM3A_4_5_ReservedBits(t *testing.T) {
	leaf := uint64(pwu | testPhys)
	for name, entries := range map[string][]uint64{
		"PML4E PS":              {pwu | pteLarge, pwu, pwu, leaf},
		"PML4E over MAXPHYADDR": {pwu | 1<<PhysBits, pwu, pwu, leaf},
		"PDPTE over MAXPHYADDR": {pwu, pwu | 1<<51, pwu, leaf},
		"1 GiB base":            {pwu, pwu | pteLarge | 1<<13},
		"2 MiB base":            {pwu, pwu, pwu | pteLarge | 1<<20},
		"PTE over MAXPHYADDR":   {pwu, pwu, pwu, leaf | 1<<45},
	} {
		b := newTables(t, longRegs(0, 0))
		b.long(testVA, entries...)
		_, code, ok := Walk(b.m, &b.regs, testVA, Write, User)
		if want := uint32(FaultPresent | FaultRsvd | FaultWrite | FaultUser); ok || code != want {
			t.Errorf("%s: %v %#x", name, ok, code)
		}
	}
	b := newTables(t, longRegs(0, 0))
	b.regs.EFER &^= x86.EFERNXE
	b.long(testVA, pwu, pwu, pwu, leaf|pteNX)
	if _, code, ok := Walk(b.m, &b.regs, testVA, Fetch, User); ok || code != FaultPresent|FaultRsvd|FaultUser {
		t.Errorf("XD without NXE: %v %#x", ok, code)
	}
}

func TestNotPresentWinsOverRights(t *testing.T) {
	b := newTables(t, longRegs(0, 0))
	b.long(testVA, p, p, p, 0)
	if _, code, _ := Walk(b.m, &b.regs, testVA, Write, User); code != FaultWrite|FaultUser {
		t.Errorf("error code %#x", code)
	}
}

func TestSDM3A_4_3_32Bit(t *testing.T) {
	b := newTables(t, Regs{CR4: x86.CR4PSE})
	pd, pt := b.page(), b.page()
	b.regs.CR3 = pd
	va := uint64(0xc012_3000)
	b.put32(pd+va>>22*4, uint32(pwu|pt))
	b.put32(pt+va>>12&0x3ff*4, uint32(pwu|testPhys))
	pg, _, ok := Walk(b.m, &b.regs, va, Write, User)
	if !ok || pg.Phys != testPhys || !pg.Writable {
		t.Errorf("4 KiB: %+v %v", pg, ok)
	}
	b.put32(pd, uint32(p|w|pteLarge|0x12<<13|0x0080_0000))
	pg, _, ok = Walk(b.m, &b.regs, 0x12345, Read, Supervisor)
	if want := uint64(0x12_0080_0000 | 0x12000); !ok || pg.Phys != want || pg.Shift != 22 {
		t.Errorf("PSE-36: %+v", pg)
	}
	b.put32(pd, uint32(p|w|pteLarge|1<<21))
	if _, code, ok := Walk(b.m, &b.regs, 0, Read, Supervisor); ok || code != FaultPresent|FaultRsvd {
		t.Errorf("PSE-36 reserved bit: %#x", code)
	}
	if v, _ := b.m.Load32(pt + va>>12&0x3ff*4); v&(pteAccessed|pteDirty) != pteAccessed|pteDirty {
		t.Errorf("PTE %#x", v)
	}
}

func TestSDM3A_4_4_PAE(t *testing.T) {
	b := newTables(t, Regs{CR4: x86.CR4PAE})
	pd, pt := b.page(), b.page()
	va := uint64(0xc012_3000)
	b.regs.PDPTE[3] = pd | 1
	b.put64(pd+va>>21&0x1ff*8, pwu|pt)
	b.put64(pt+va>>12&0x1ff*8, pwu|testPhys|1<<36)
	pg, _, ok := Walk(b.m, &b.regs, va, Write, User)
	if !ok || pg.Phys != testPhys|1<<36 {
		t.Errorf("%+v %v", pg, ok)
	}
	if _, code, ok := Walk(b.m, &b.regs, 0, Read, Supervisor); ok || code != 0 {
		t.Errorf("absent PDPTE: %v %#x", ok, code)
	}
	b.put64(pt+va>>12&0x1ff*8, pwu|testPhys|1<<52)
	if _, code, ok := Walk(b.m, &b.regs, va, Read, Supervisor); ok || code != FaultPresent|FaultRsvd {
		t.Errorf("bit 52: %#x", code)
	}
}

func TestTablesOutsideMemory(t *testing.T) {
	b := newTables(t, longRegs(0, 0))
	b.regs.CR3 = 0x80_0000_0000 &^ 0xfff & pteAddr
	if _, code, ok := Walk(b.m, &b.regs, 0, Read, Supervisor); ok || code != FaultPresent|FaultRsvd {
		t.Errorf("%v %#x", ok, code)
	}
}

func TestPagingOff(t *testing.T) {
	b := newTables(t, Regs{})
	b.regs.CR0 = 0
	pg, _, ok := Walk(b.m, &b.regs, 0x1_0000_5123, Write, Supervisor)
	if !ok || pg.Phys != 0x5000 || !pg.Writable {
		t.Errorf("%+v", pg)
	}
}
