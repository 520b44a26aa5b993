package mmu

import (
	"bytes"
	"testing"

	"berth/guestmem"
	"berth/x86"
)

// FuzzWalk walks arbitrary tables: a walk ends, yields a page below MAXPHYADDR
// or a fault with the right bits, and a second one finds and changes nothing more.
func FuzzWalk(f *testing.F) {
	f.Add([]byte{0x03, 0x10, 0, 0, 0, 0, 0, 0}, uint64(0), uint64(0), uint8(0), uint8(0))
	f.Add([]byte{0xe7, 0, 0, 0, 0, 0, 0, 0x80}, uint64(1<<47-1), uint64(0xfff), uint8(2), uint8(0xff))
	f.Fuzz(func(t *testing.T, table []byte, va, cr3 uint64, access, control uint8) {
		m := guestmem.New()
		if _, err := m.AddRAM(0, 64<<10); err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		if len(table) == 0 {
			return
		}
		ram, _ := m.Slice(0, 64<<10)
		copy(ram, bytes.Repeat(table, len(ram)/len(table)+1))
		pick := func(bit uint8, v uint64) uint64 { return v * uint64(control>>bit&1) }
		r := Regs{
			CR0: x86.CR0PE | x86.CR0PG | pick(0, x86.CR0WP), CR3: cr3,
			CR4:   pick(1, x86.CR4PAE) | pick(2, x86.CR4SMEP) | pick(3, x86.CR4SMAP) | pick(4, x86.CR4PSE) | pick(5, x86.CR4PGE),
			EFER:  pick(6, x86.EFERNXE) | pick(7, x86.EFERLMA|x86.EFERLME),
			PDPTE: [4]uint64{cr3 | 1, 0, va | 1, 1},
		}
		a, who := Access(access%3), Privilege(access>>2%3)
		p, code, ok := Walk(m, &r, va, a, who)
		if ok && (p.Phys%4096 != 0 || p.Phys>>PhysBits != 0 || a == Write && !p.Writable) {
			t.Errorf("page %+v", p)
		}
		if !ok && (code&FaultWrite != 0) != (a == Write) {
			t.Errorf("error code %#x for access %d", code, a)
		}
		after := bytes.Clone(ram)
		if p2, code2, ok2 := Walk(m, &r, va, a, who); ok && (p2 != p || code2 != code || !ok2) {
			// Tables that map themselves may change what they say by their own bits.
			if bytes.Equal(after, ram) {
				t.Errorf("first %+v %#x, then %+v %#x", p, code, p2, code2)
			}
		}
	})
}
