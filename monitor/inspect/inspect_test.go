package inspect

import (
	"errors"
	"io"
	"strings"
	"testing"

	"berth/guestmem"
	"berth/irq"
	"berth/x86"
)

// tables4 maps, in 4-level paging: 1 GiB at 0 with a page of 4 KiB, one of 2 MiB after it,
// and the last page below the top of the address space.
func tables4(t *testing.T) (*guestmem.Memory, *x86.State) {
	t.Helper()
	m := guestmem.New()
	if _, err := m.AddRAM(0, 4<<20); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	for gpa, v := range map[uint64]uint64{
		0x1000:         0x2003,                     // PML4[0]
		0x1000 + 8*511: 0x6003,                     // PML4[511]
		0x2000:         0x3007,                     // PDPT
		0x3000:         0x4027,                     // PD[0] -> PT
		0x3008:         0x8000000000200000 | 0x1e3, // PD[1]: 2 MiB, global, NX
		0x4000:         0x5063,                     // PT[0]
		0x4008:         0x6061,                     // PT[1]: read-only
		0x6000 + 8*511: 0x7003, 0x7000 + 8*511: 0x8003, 0x8000 + 8*511: 0x9067,
	} {
		if err := m.Store64(gpa, v); err != nil {
			t.Fatal(err)
		}
	}
	return m, &x86.State{CR0: x86.CR0PG | x86.CR0PE, CR3: 0x1000, CR4: x86.CR4PAE, EFER: x86.EFERLMA | x86.EFERLME}
}

func TestTables(t *testing.T) {
	m, s := tables4(t)
	var b strings.Builder
	if err := TLB(&b, m, s); err != nil {
		t.Fatal(err)
	}
	want := `0000000000000000: 0000000000005000 ---DA---W
0000000000001000: 0000000000006000 ---DA----
0000000000200000: 0000000000200000 XGPDA---W
fffffffffffff000: 0000000000009000 ---DA--UW
`
	if b.String() != want {
		t.Errorf("%s", b.String())
	}
	b.Reset()
	if err := Mappings(&b, m, s); err != nil {
		t.Fatal(err)
	}
	want = `0000000000000000-0000000000001000 0000000000001000 -rw
0000000000001000-0000000000002000 0000000000001000 -r-
0000000000200000-0000000000400000 0000000000200000 -rw
fffffffffffff000-0000000000000000 0000000000001000 -rw
`
	if got := b.String(); got != want {
		t.Errorf("%s", got)
	}
	for va, want := range map[uint64]uint64{0x12: 0x5012, 0x1fff: 0x6fff, 0x3abcde: 0x3abcde, 0xfffffffffffff123: 0x9123} {
		if gpa, ok := Translate(m, s, va); !ok || gpa != want {
			t.Errorf("0x%x: 0x%x %v", va, gpa, ok)
		}
	}
	for _, va := range []uint64{0x2000, 0x40000000, 1 << 47, 0x8000 << 48} {
		if gpa, ok := Translate(m, s, va); ok {
			t.Errorf("0x%x: 0x%x", va, gpa)
		}
	}
	var runs []uint64
	if on, err := Mapped(m, s, func(va, gpa, size uint64) error { runs = append(runs, va, gpa, size); return nil }); !on || err != nil || len(runs) != 9 {
		t.Errorf("%x %v %v", runs, on, err)
	}
}

func TestTablesOf32Bits(t *testing.T) {
	m := guestmem.New()
	if _, err := m.AddRAM(0, 1<<20); err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	for gpa, v := range map[uint64]uint32{0x1000: 0x2007, 0x2004: 0x3067, 0x1004: 0x00800083} {
		if err := m.Store32(gpa, v); err != nil {
			t.Fatal(err)
		}
	}
	s := &x86.State{CR0: x86.CR0PG | x86.CR0PE, CR3: 0x1000, CR4: x86.CR4PSE}
	var b strings.Builder
	if err := TLB(&b, m, s); err != nil {
		t.Fatal(err)
	}
	if want := "0000000000001000: 0000000000003000 ---DA--UW\n0000000000400000: 0000000000800000 --P-----W\n"; b.String() != want {
		t.Errorf("%s", b.String())
	}
	s.CR0 = x86.CR0PE
	b.Reset()
	if err := Mappings(&b, m, s); err != nil || b.String() != "PG disabled\n" {
		t.Errorf("%s %v", b.String(), err)
	}
	if gpa, ok := Translate(m, s, 0x12345); !ok || gpa != 0x12345 {
		t.Errorf("without paging: 0x%x %v", gpa, ok)
	}
}

// A guest's tables may name themselves, and have no end.
func TestTablesWithoutEnd(t *testing.T) {
	m := guestmem.New()
	if _, err := m.AddRAM(0, 1<<20); err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	for i := range uint64(512) {
		if err := m.Store64(0x1000+8*i, 0x1007); err != nil {
			t.Fatal(err)
		}
	}
	s := &x86.State{CR0: x86.CR0PG | x86.CR0PE, CR3: 0x1000, CR4: x86.CR4PAE, EFER: x86.EFERLMA}
	if err := Mappings(io.Discard, m, s); !errors.Is(err, errTooMany) {
		t.Error(err)
	}
}

func TestRegistersByName(t *testing.T) {
	s := &x86.State{RIP: 0x1234, RFLAGS: 0x246, CR3: 7}
	s.GPR[x86.RAX], s.GPR[10] = 1<<40, 10
	s.Seg[x86.CS] = x86.Segment{Selector: 8, Base: 0x10000, Limit: 0xffff}
	for name, want := range map[string]uint64{"eax": 1 << 40, "rax": 1 << 40, "r10": 10, "pc": 0x11234, "eip": 0x1234, "eflags": 0x246, "cs": 8, "cs.base": 0x10000, "cs.limit": 0xffff, "cr3": 7} {
		if v, ok := Register(s, name); !ok || v != want {
			t.Errorf("%s: 0x%x %v", name, v, ok)
		}
	}
	if _, ok := Register(s, "nosuch"); ok {
		t.Error("a register that is not there")
	}
}

func TestDump(t *testing.T) {
	memory := []byte("A\n'\\\xff\x00\x01\x02\x80\x81\x82\x83\x84\x85\x86\x87\x90\xf4\xeb\xfd\x0f\xff")
	read := func(addr uint64, p []byte) error {
		if addr+uint64(len(p)) > uint64(len(memory)) {
			return errors.New("nothing there")
		}
		copy(p, memory[addr:])
		return nil
	}
	for _, c := range []struct {
		count  int
		format byte
		size   int
		addr   uint64
		want   string
	}{
		{6, 'c', 4, 0, "0000000000000000: 'A' '\\n' '\\'' '\\\\' '\\xff' '\\x00'\n"},
		{9, 'x', 1, 0, "0000000000000000: 0x41 0x0a 0x27 0x5c 0xff 0x00 0x01 0x02\n0000000000000008: 0x80\n"},
		{1, 'd', 8, 8, "0000000000000008: -8681104427521506944\n"},
		{2, 'u', 2, 4, "0000000000000004:   255   513\n"},
		{1, 'o', 1, 0, "0000000000000000: 0101\n"},
		{2, 'x', 8, 16, "0000000000000010: Cannot access memory\n"},
	} {
		var b strings.Builder
		if err := Dump(&b, c.count, c.format, c.size, c.addr, read); err != nil || b.String() != c.want {
			t.Errorf("%q, want %q (%v)", b.String(), c.want, err)
		}
	}
	var b strings.Builder
	if err := Disassemble(&b, 32, 6, 16, read); err != nil {
		t.Fatal(err)
	}
	want := `0x00000010:  90                       nop      
0x00000011:  f4                       hlt      
0x00000012:  eb fd                    jmp      0x11
0x00000014:  0f                       .byte    0x0f
0x00000015:  ff                       .byte    0xff
0x00000016: unable to read memory
`
	if b.String() != want {
		t.Errorf("%s", b.String())
	}
}

func TestChips(t *testing.T) {
	l := &irq.LAPICState{}
	l.Regs[apicSPIV], l.Regs[apicDFR], l.Regs[apicLDR], l.Regs[apicLINT0], l.Regs[apicLINT1] = 0x1ff, 0xffffffff, 1<<24, 0x700, 0x10400
	l.Regs[apicIRR+1], l.Regs[apicTMR+1] = 1<<4, 1<<4
	var b strings.Builder
	LAPIC(&b, 3, l)
	for _, want := range []string{
		"dumping local APIC state for CPU 3 \n", "LVT0\t 0x00000700 active-hi edge                              ExtINT (vec 0)\n",
		"LVT1\t 0x00010400 active-hi edge  masked                      NMI   \n", "SPIV\t 0x000001ff APIC enabled, focus=off, spurious vec 255\n",
		"IRR\t 36(level) \n", "ISR\t (none)\n", "DFR 0x0f LDR 0x01 PPR 0x00\n",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, b.String())
		}
	}
	b.Reset()
	IOAPIC(&b, &irq.IOAPICState{Select: 0x14, IRR: 1<<3 | 1<<7, Redirect: [24]uint64{2: 0x0100000000000830}})
	for _, want := range []string{"sel=0x14 (redir[2])\n", "  pin 2  0x0100000000000830 dest=1 vec=48  active-hi edge         fixed  logical\n", "  IRR      3 7\n", "  Remote IRR (none)\n"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, b.String())
		}
	}
}

// FuzzTables looks at arbitrary tables: no look fails, hangs or reads outside RAM.
func FuzzTables(f *testing.F) {
	f.Add([]byte{0x07, 0x10, 0, 0, 0, 0, 0, 0}, uint64(0), uint8(7))
	f.Add([]byte{0xe7, 0, 0, 0, 0, 0, 0, 0x80}, uint64(1<<47-1), uint8(0))
	f.Fuzz(func(t *testing.T, table []byte, va uint64, control uint8) {
		if len(table) == 0 {
			return
		}
		m := guestmem.New()
		if _, err := m.AddRAM(0, 64<<10); err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		ram, _ := m.Slice(0, 64<<10)
		for i := range ram {
			ram[i] = table[i%len(table)]
		}
		s := &x86.State{CR0: x86.CR0PG | x86.CR0PE, CR3: uint64(control&0xf0) << 8}
		if control&1 != 0 {
			s.CR4 |= x86.CR4PAE
		}
		if control&2 != 0 {
			s.EFER |= x86.EFERLMA
		}
		if control&4 != 0 {
			s.CR4 |= x86.CR4PSE | x86.CR4LA57
		}
		Translate(m, s, va)
		tb := newTables(m, s)
		tb.left = 10000
		_ = tb.visit(func(page) error { return nil })
	})
}
