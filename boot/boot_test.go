package boot

import (
	"bytes"
	"encoding/binary"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"berth/boot/boottest"
	"berth/guestmem"
	"berth/x86"
)

func TestE820CoversAllRAMOnce(t *testing.T) {
	ecam := Range{0xb0000000, 256 << 20}
	for _, size := range []uint64{1 << 20, 64 << 20, 2 << 30, 64 << 30} {
		m := E820(boottest.RAM(t, size), []Range{ecam})
		var usable, end uint64
		for _, e := range m {
			if e.Addr < end {
				t.Errorf("%d MiB: 0x%x is listed twice or out of order", size>>20, e.Addr)
			}
			if end = e.End(); e.Type == E820RAM {
				usable += e.Size
			}
		}
		if want := size - (HighBase - lowEnd); usable != want {
			t.Errorf("%d MiB: %d bytes usable, want %d", size>>20, usable, want)
		}
	}
}

func TestE820OfASmallBoard(t *testing.T) {
	want := []E820Entry{
		{Range{0, 0x9fc00}, E820RAM},
		{Range{0x9fc00, 0x400}, E820Reserved},
		{Range{0xe0000, 0x20000}, E820Reserved},
		{Range{0x100000, 63 << 20}, E820RAM},
	}
	got := E820(boottest.RAM(t, 64<<20), nil)
	if len(got) != len(want) {
		t.Fatalf("%v", got)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("line %d: %v, want %v", i, got[i], want[i])
		}
	}
}

func TestPlaceTakesTheHighestFreePlace(t *testing.T) {
	const mib = 1 << 20
	for _, c := range []struct {
		name      string
		ram, size uint64
		last      uint64
		want      uint64 // 0: an error
	}{
		{"top of RAM", 256 * mib, 8 * mib, 1<<32 - 1, 248 * mib},
		{"under the kernel's limit", 256 * mib, 8 * mib, 128*mib - 1, 120 * mib},
		{"limit not on a page", 256 * mib, 8 * mib, 128*mib + 5, 120 * mib},
		{"exactly to the end of the kernel", 128 * mib, 64 * mib, 1<<32 - 1, 64 * mib},
		{"below the kernel", 64 * mib, 14 * mib, 1<<32 - 1, 2 * mib},
		{"as low as it goes", 64 * mib, 15 * mib, 1<<32 - 1, mib},
		{"too big", 64 * mib, 15*mib + 1, 1<<32 - 1, 0},
		{"larger than all RAM", 64 * mib, 1 << 40, 1<<32 - 1, 0},
		{"size near 2^64", 64 * mib, 1<<64 - 4096, 1<<64 - 1, 0},
		{"low RAM of a large board", 64 << 10 * mib, 8 * mib, 1<<32 - 1, 2<<30 - 8*mib},
		{"high RAM", 64 << 10 * mib, 3 << 30, 1<<64 - 1, 4<<30 + 62<<30 - 3<<30},
	} {
		l := NewLayout(boottest.RAM(t, c.ram))
		if err := l.Reserve("kernel", 16*mib, 48*mib); err != nil {
			t.Fatal(err)
		}
		r, err := l.Place("initrd", c.size, guestmem.PageSize, c.last)
		if (err != nil) != (c.want == 0) || r.Addr != c.want {
			t.Errorf("%s: at 0x%x, %v; want 0x%x", c.name, r.Addr, err, c.want)
		}
		if err != nil && !strings.Contains(err.Error(), "does not fit") {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func TestReserveRefuses(t *testing.T) {
	l := NewLayout(boottest.RAM(t, 64<<20))
	if err := l.Reserve("first", 0x200000, 0x1000); err != nil {
		t.Fatal(err)
	}
	for name, r := range map[string]Range{
		"overlap":            {0x1ff000, 0x1001},
		"inside":             {0x200800, 1},
		"past RAM":           {64<<20 - 1, 2},
		"no RAM":             {1 << 40, 1},
		"wrap":               {1 << 20, 1<<64 - 1},
		"firmware area":      {0x9f000, 0x2000},
		"over ACPI":          {0x50000, 0xc0000},
		"in the ACPI tables": {ACPIBase, 16},
	} {
		if l.Reserve("second", r.Addr, r.Size) == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestStatesPassVMEntry(t *testing.T) {
	mem := boottest.RAM(t, 16<<20)
	long, err := NewLayout(mem).LongMode(0x1000000, BootParams)
	if err != nil {
		t.Fatal(err)
	}
	if err := long.CheckVMXEntry(); err != nil {
		t.Errorf("64-bit: %v", err)
	}
	protected, err := NewLayout(mem).Protected(0x1000000, StartInfoAddr)
	if err != nil {
		t.Fatal(err)
	}
	if err := protected.CheckVMXEntry(); err != nil {
		t.Errorf("32-bit: %v", err)
	}
}

// A kernel that reloads its segment registers must get what it already has.
func TestGDTAgreesWithSegments(t *testing.T) {
	mem := boottest.RAM(t, 16<<20)
	s, err := NewLayout(mem).LongMode(0x1000000, BootParams)
	if err != nil {
		t.Fatal(err)
	}
	for i, seg := range s.Seg {
		if seg.Attr&x86.AttrUnusable != 0 {
			continue
		}
		d, err := mem.Load64(s.GDT.Base + uint64(seg.Selector))
		if err != nil || seg.Selector+7 > s.GDT.Limit {
			t.Fatalf("segment %d: %v", i, err)
		}
		base := d>>16&0xffffff | d>>56<<24
		limit := d&0xffff | d>>48&0xf<<16
		attr := x86.Attr(d >> 40 & 0xf0ff)
		if attr&x86.AttrG != 0 {
			limit = limit<<12 | 0xfff
		}
		if base != seg.Base || limit != uint64(seg.Limit) || attr != seg.Attr {
			t.Errorf("segment %d: descriptor %x, register %+v", i, d, seg)
		}
	}
}

func TestPageTablesMapTheFirst4GiBOntoThemselves(t *testing.T) {
	mem := boottest.RAM(t, 16<<20)
	s, err := NewLayout(mem).LongMode(0x1000000, BootParams)
	if err != nil {
		t.Fatal(err)
	}
	entry := func(table, index uint64) uint64 {
		v, err := mem.Load64(table&^0xfff + index*8)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	for _, va := range []uint64{0, 0x7000, 0x1fffff, 0x200000, 0x3fffffff, 0x40000000, 0xb0000000, 0xfee00000, 0xffffffff} {
		pde := entry(entry(entry(s.CR3, va>>39), va>>30&511), va>>21&511)
		if pde&(1<<7|3) != 1<<7|3 || pde&^0x1fffff|va&0x1fffff != va {
			t.Errorf("0x%x maps to entry 0x%x", va, pde)
		}
	}
	if entry(entry(s.CR3, 0), 4) != 0 {
		t.Error("more than 4 GiB is mapped")
	}
}

func TestCmdline(t *testing.T) {
	mem := boottest.RAM(t, 16<<20)
	if err := NewLayout(mem).PutCmdline(strings.Repeat("x", 2048), 2047); err == nil || !strings.Contains(err.Error(), "2048 bytes is longer than the kernel's limit of 2047") {
		t.Errorf("too long: %v", err)
	}
	if NewLayout(mem).PutCmdline(strings.Repeat("x", 1<<20), 1<<32-1) == nil {
		t.Error("a megabyte: accepted")
	}
	if err := NewLayout(mem).PutCmdline("console=ttyS0", 13); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 14)
	if mem.Read(CmdlineAddr, b); string(b) != "console=ttyS0\x00" {
		t.Errorf("%q", b)
	}
}

func TestInitrdIsReadWhole(t *testing.T) {
	mem := boottest.RAM(t, 16<<20)
	data := bytes.Repeat([]byte("initrd! "), 1000)
	r, err := NewLayout(mem).PutInitrd(boottest.Section(data), 1<<32-1)
	if err != nil || r.Size != 8000 || r.Addr%guestmem.PageSize != 0 {
		t.Fatalf("%+v, %v", r, err)
	}
	got, err := mem.Slice(r.Addr, r.Size)
	if err != nil || !bytes.Equal(got, data) {
		t.Errorf("%v, equal %v", err, bytes.Equal(got, data))
	}
	// A file that shrank since it was opened.
	short := io.NewSectionReader(bytes.NewReader(data), 0, 9000)
	if _, err := NewLayout(mem).PutInitrd(short, 1<<32-1); err == nil || !strings.Contains(err.Error(), "ends after 8000 of 9000 bytes") {
		t.Errorf("short file: %v", err)
	}
}

func note(name string, typ uint32, desc []byte) []byte {
	le := binary.LittleEndian
	b := le.AppendUint32(nil, uint32(len(name)+1))
	b = le.AppendUint32(b, uint32(len(desc)))
	b = le.AppendUint32(b, typ)
	b = append(b, name...)
	b = append(b, make([]byte, 4-len(name)%4)...)
	b = append(b, desc...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

func TestNotes(t *testing.T) {
	b := append(note("Linux", 0x101, []byte("6.1.0\x00")), note("Xen", 18, []byte{0x50, 8, 0, 1, 0, 0, 0, 0})...)
	notes := parseNotes(b, 4)
	if len(notes) != 2 || notes[0].Name != "Linux" || notes[1].Name != "Xen" {
		t.Fatalf("%+v", notes)
	}
	if entry, ok := PVHEntry(notes); !ok || entry != 0x1000850 {
		t.Errorf("entry 0x%x, %v", entry, ok)
	}
	for n := range len(b) { // cut anywhere: fewer notes, no panic
		parseNotes(b[:n], 4)
		parseNotes(b[:n], 8)
	}
	if _, ok := PVHEntry(parseNotes(note("Xen", 18, []byte{0, 0, 0, 0, 1, 0, 0, 0}), 4)); ok {
		t.Error("an entry above 4 GiB was taken")
	}
}

func TestOpenFileSaysWhatIsWrong(t *testing.T) {
	dir := t.TempDir()
	empty := filepath.Join(dir, "empty")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		filepath.Join(dir, "none"): "kernel " + dir + "/none: no such file or directory",
		dir:                        "kernel " + dir + ": is a directory",
		empty:                      "kernel " + empty + ": is empty",
		"/dev/null":                "kernel /dev/null: is not a regular file",
	} {
		if _, err := OpenFile("kernel", path); err == nil || err.Error() != want {
			t.Errorf("%s: %v, want %s", path, err, want)
		}
	}
}
