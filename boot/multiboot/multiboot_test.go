package multiboot

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"

	"berth/boot"
	"berth/boot/boottest"
	"berth/guestmem"
	"berth/x86"
)

const mib = 1 << 20

// flat returns a kernel whose header, at offset in the file, says where it goes:
// addresses are header, load, load end, bss end and entry.
func flat(offset, size int, flags uint32, addresses ...uint32) []byte {
	b := make([]byte, size)
	for i := range b {
		b[i] = byte(i%251) | 1
	}
	le := binary.LittleEndian
	for i, v := range append([]uint32{0x1badb002, flags, -(0x1badb002 + flags)}, addresses...) {
		le.PutUint32(b[offset+4*i:], v)
	}
	return b
}

// elf returns an ELF32 kernel of one segment at 2 MiB, with its header in the code.
func elf(flags uint32) []byte {
	const codeOff = 0x80
	b := make([]byte, codeOff+0x100)
	le := binary.LittleEndian
	copy(b, "\x7fELF\x01\x01\x01")
	le.PutUint16(b[16:], 2)
	le.PutUint16(b[18:], 3)
	le.PutUint32(b[24:], 2*mib+16) // entry
	le.PutUint32(b[28:], 52)
	le.PutUint16(b[42:], 32)
	le.PutUint16(b[44:], 1)
	for i, v := range []uint32{1, codeOff, 2 * mib, 2 * mib, 0x100, 0x3000} {
		le.PutUint32(b[52+4*i:], v)
	}
	for i, v := range []uint32{0x1badb002, flags, -(0x1badb002 + flags)} {
		le.PutUint32(b[codeOff+4*i:], v)
	}
	return b
}

func load(t *testing.T, kernel []byte) (*guestmem.Memory, *boot.Entry, error) {
	t.Helper()
	mem := boottest.RAM(t, 16*mib)
	e, err := Load(mem, boot.Params{Kernel: boottest.Section(kernel), KernelName: "k"})
	return mem, e, err
}

func TestELF(t *testing.T) {
	mem, e, err := load(t, elf(3))
	if err != nil {
		t.Fatal(err)
	}
	if err := e.State.CheckVMXEntry(); err != nil {
		t.Error(err)
	}
	s := e.State
	if s.RIP != 2*mib+16 || s.GPR[x86.RAX] != 0x2badb002 || s.GPR[x86.RBX] == 0 || s.CR0&(x86.CR0PE|x86.CR0PG) != x86.CR0PE || s.RFLAGS&0x20200 != 0 {
		t.Errorf("%+v", s)
	}
	if v, err := mem.Load32(2 * mib); v != 0x1badb002 || err != nil {
		t.Errorf("at 2 MiB 0x%x, %v", v, err)
	}
}

// §3.1.3: where an image goes that is no ELF file.
func Test_3_1_3_AddressFields(t *testing.T) {
	const base = 3 * mib
	for name, c := range map[string]struct {
		kernel []byte
		first  int    // the file's byte that lies at the load address
		size   uint64 // bytes loaded
	}{
		"whole file":         {flat(64, 2000, 0x10003, base+64, base, 0, 0, base+100), 0, 2000},
		"from the header on": {flat(64, 2000, 0x10003, base, base, 0, 0, base), 64, 1936},
		"load end":           {flat(64, 2000, 0x10000, base+4, base, base+100, 0, base), 60, 100},
		"bss":                {flat(0, 2000, 0x10000, base, base, base+100, base+9000, base+8000), 0, 100},
		"last place":         {flat(8192-32, 9000, 0x10000, base+8192-32, base, 0, 0, base), 0, 9000},
	} {
		mem, e, err := load(t, c.kernel)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		got := make([]byte, c.size+100)
		if err := mem.Read(base, got); err != nil {
			t.Fatal(err)
		}
		want := append(bytes.Clone(c.kernel[c.first:c.first+int(c.size)]), make([]byte, 100)...)
		if !bytes.Equal(got, want) {
			t.Errorf("%s: the image is not there, or more than the image", name)
		}
		if e.Protocol != "multiboot" {
			t.Errorf("%s: %s", name, e.Protocol)
		}
	}
}

func TestRefusals(t *testing.T) {
	const base = 3 * mib
	for want, kernel := range map[string][]byte{
		"demands a video mode":                                      elf(7),
		"features that are not known (flags 0xb)":                   elf(0xb),
		"features that are not known (flags 0x8000)":                flat(0, 100, 0x18000, base, base, 0, 0, base),
		"no Multiboot header":                                       make([]byte, 9000),
		"64-bit ELF file with a Multiboot header":                   elf64(),
		"load address 0x300001 lies behind the header's":            flat(0, 100, 0x10000, base, base+1, 0, 0, base+1),
		"wants 0x41 bytes before it loaded; the file has 0":         flat(64, 100, 0x10000, base+65, base, 0, 0, base),
		"load end 0x300000 is not behind its beginning":             flat(0, 100, 0x10000, base, base, base, 0, base),
		"kernel is truncated: 0x65 bytes":                           flat(0, 100, 0x10000, base, base, base+101, 0, base),
		"bss end 0x300010 lies inside":                              flat(0, 100, 0x10000, base, base, 0, base+16, base),
		"entry 0x300064 lies outside":                               flat(0, 100, 0x10000, base, base, 0, 0, base+100),
		"entry 0x2fffff lies outside":                               flat(0, 100, 0x10000, base, base, 0, 0, base-1),
		"kernel needs 0xf00000-0x1100000, but the guest has 16 MiB": flat(0, 100, 0x10000, 15*mib, 15*mib, 0, 17*mib, 15*mib),
		"overlaps the firmware area":                                flat(0, 100, 0x10000, 0x9fc00, 0x9fc00, 0, 0, 0x9fc00),
		"overlaps 0x":                                               flat(0, 100, 0x10000, 0x20000, 0x20000, 0, 0, 0x20000), // the command line's place
		"says nothing of where it goes, and: not an ELF":            flat(0, 100, 3),
	} {
		if _, _, err := load(t, kernel); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

// elf64 is a 64-bit ELF file with a plain Multiboot header.
func elf64() []byte {
	b := make([]byte, 0x200)
	le := binary.LittleEndian
	copy(b, "\x7fELF\x02\x01\x01")
	le.PutUint16(b[16:], 2)
	le.PutUint16(b[18:], 62)
	le.PutUint64(b[24:], 2*mib)
	le.PutUint64(b[32:], 64)
	le.PutUint16(b[54:], 56)
	le.PutUint16(b[56:], 1)
	p := b[64:]
	le.PutUint32(p, 1)
	for i, v := range []uint64{0x100, 2 * mib, 2 * mib, 0x100, 0x100} {
		le.PutUint64(p[8+8*i:], v)
	}
	for i, v := range []uint32{0x1badb002, 0, 0xe4524ffe} {
		le.PutUint32(b[0x100+4*i:], v)
	}
	return b
}

// §3.3: the boot information, read as a kernel reads it.
func Test_3_3_BootInformation(t *testing.T) {
	mem := boottest.RAM(t, 3<<30)
	module := func(name, cmdline string, size int) boot.Module {
		return boot.Module{Name: name, Cmdline: cmdline, File: boottest.Section(bytes.Repeat([]byte{name[0]}, size))}
	}
	e, err := Load(mem, boot.Params{
		Kernel: boottest.Section(elf(3)), KernelName: "kernel.elf", Cmdline: "root=x quiet",
		Modules:  []boot.Module{module("a.mod", "a.mod one two", 5000), module("b.mod", "b.mod", 1)},
		Reserved: []boot.Range{{Addr: 0xb0000000, Size: 256 * mib}},
	})
	if err != nil {
		t.Fatal(err)
	}
	word := func(at uint64) uint64 {
		v, err := mem.Load32(at)
		if err != nil {
			t.Fatal(err)
		}
		return uint64(v)
	}
	text := func(at uint64) string {
		b := make([]byte, 64)
		if err := mem.Read(at, b); err != nil {
			t.Fatal(err)
		}
		s, _, _ := bytes.Cut(b, []byte{0})
		return string(s)
	}
	info := e.State.GPR[x86.RBX]
	for off, want := range map[uint64]uint64{0: 0x24d, 4: 639, 8: 2<<20 - 1024, 20: 2, 44: 6 * 24} {
		if got := word(info + off); got != want {
			t.Errorf("offset %d: 0x%x, want 0x%x", off, got, want)
		}
	}
	if got := text(word(info + 16)); got != "kernel.elf root=x quiet" {
		t.Errorf("command line %q", got)
	}
	if got := text(word(info + 64)); got != "berth" {
		t.Errorf("loader's name %q", got)
	}
	for i, want := range []struct {
		cmdline string
		size    uint64
	}{{"a.mod one two", 5000}, {"b.mod", 1}} {
		m := word(info+24) + uint64(16*i)
		start, end := word(m), word(m+4)
		if start%4096 != 0 || start < 2*mib+0x3000 || end-start != want.size || text(word(m+8)) != want.cmdline || word(m+12) != 0 {
			t.Errorf("module %d: 0x%x-0x%x %q", i, start, end, text(word(m+8)))
		}
		b := make([]byte, want.size)
		if mem.Read(start, b); !bytes.Equal(b, bytes.Repeat([]byte{want.cmdline[0]}, int(want.size))) {
			t.Errorf("module %d is not there", i)
		}
	}
	want := boot.E820(mem, []boot.Range{{Addr: 0xb0000000, Size: 256 * mib}})
	for i, w := range want {
		at := word(info+48) + uint64(24*i)
		got := boot.E820Entry{Range: boot.Range{Addr: word(at+4) | word(at+8)<<32, Size: word(at+12) | word(at+16)<<32}, Type: boot.E820Type(word(at + 20))}
		if word(at) != 20 || got != w {
			t.Errorf("map entry %d: size %d, %+v, want %+v", i, word(at), got, w)
		}
	}
	if v := word(0x40c) >> 16; v != 0x9fc0 {
		t.Errorf("EBDA segment 0x%x", v)
	}
}

func TestTooManyModules(t *testing.T) {
	p := boot.Params{Kernel: boottest.Section(elf(3)), KernelName: "k"}
	for range 100 {
		p.Modules = append(p.Modules, boot.Module{Name: "m", Cmdline: strings.Repeat("x", 100), File: boottest.Section([]byte{1})})
	}
	if _, err := Load(boottest.RAM(t, 16*mib), p); err == nil || !strings.Contains(err.Error(), "100 modules") {
		t.Errorf("%v", err)
	}
	p.Modules = []boot.Module{{Name: "big", Cmdline: "big", File: boottest.Section(make([]byte, 14*mib))}}
	if _, err := Load(boottest.RAM(t, 16*mib), p); err == nil || !strings.Contains(err.Error(), "module big of 14 MiB does not fit behind the kernel") {
		t.Errorf("%v", err)
	}
}

// FuzzMultiboot: a hostile kernel is refused or loaded inside guest memory.
func FuzzMultiboot(f *testing.F) {
	const base = 3 * mib
	for _, seed := range [][]byte{
		elf(3), elf(7), elf64(),
		flat(64, 2000, 0x10003, base+64, base, 0, 0, base+100),
		flat(0, 100, 0x10000, base, base, base+100, base+9000, base+8000),
		flat(4, 100, 0x10000, 0xffffffff, 0xfffffff0, 0, 0xffffffff, 0xfffffff0),
		flat(0, 100, 0x10000, 0, 0, 0xffffffff, 0, 0),
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, kernel []byte) {
		mem := boottest.RAM(t, 4*mib)
		defer mem.Close()
		e, err := Load(mem, boot.Params{Kernel: boottest.Section(kernel), KernelName: "k", Modules: []boot.Module{{Name: "m", Cmdline: "m", File: boottest.Section([]byte{1})}}})
		if err != nil {
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("more than one line: %v", err)
			}
			return
		}
		if err := e.State.CheckVMXEntry(); err != nil {
			t.Error(err)
		}
		for i, p := range e.Placed {
			if _, err := mem.Slice(p.Addr, p.Size); err != nil {
				t.Errorf("%v: %v", p, err)
			}
			for _, q := range e.Placed[:i] {
				if p.Addr < q.End() && q.Addr < p.End() {
					t.Errorf("%v overlaps %v", p, q)
				}
			}
		}
	})
}
