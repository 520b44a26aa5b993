package elfcore

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"berth/guestmem"
	"berth/x86"
)

// write writes c to a file, and returns its name and what debug/elf makes of it.
func write(t *testing.T, c *Core, m *guestmem.Memory) (string, *elf.File) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "core")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	last := uint64(0)
	if err := c.Write(f, m, func(n uint64) error { last = n; return nil }); err != nil || last != c.Size() {
		t.Fatalf("%d of %d bytes, %v", last, c.Size(), err)
	}
	e, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	return path, e
}

func memory(t *testing.T) *guestmem.Memory {
	t.Helper()
	m := guestmem.New()
	for _, gpa := range []uint64{0, 4 << 30} {
		if _, err := m.AddRAM(gpa, 4<<20); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { m.Close() })
	return m
}

func long(rip uint64) x86.State {
	s := x86.State{RIP: rip, EFER: x86.EFERLMA | x86.EFERLME, CR3: 0x1000, RFLAGS: 2}
	for i := range s.GPR {
		s.GPR[i] = uint64(0x100 + i)
	}
	s.Seg[x86.CS].Selector = 0x10
	return s
}

// Debian's gdb reads registers and memory.
func TestGDBReadsIt(t *testing.T) {
	if _, err := exec.LookPath("gdb"); err != nil {
		t.Skip("no gdb")
	}
	m := memory(t)
	if err := m.Write(0x201000, []byte("\x90\xf4 a string in memory\x00")); err != nil {
		t.Fatal(err)
	}
	c := &Core{
		CPUs:    []x86.State{long(0xffffffff81001000), long(0xffffffff81001001)},
		Regions: []Region{{0, 4 << 20}, {4 << 30, 4 << 20}},
		Loads:   []Load{{0xffffffff81000000, 0x200000, 0x10000}, {0xffff888000000000, 0, 4 << 20}, {0xffff888100000000, 4 << 30, 4 << 20}},
	}
	path, _ := write(t, c, m)
	out, err := exec.Command("gdb", "-batch", "-nx", "-ex", "core-file "+path, "-ex", "info threads", "-ex", "x/2i $rip", "-ex", "x/s $rip+2",
		"-ex", "thread 2", "-ex", "p/x $r15", "-ex", "p/x $cs", "-ex", "x/s 0xffff888000201002").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, want := range []string{"* 1 ", "  2 ", "nop\n", "hlt", "$1 = 0x10f", "$2 = 0x10", "0xffff888000201002:\t\" a string in memory\""} {
		if !strings.Contains(string(out), want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
}

func TestShape(t *testing.T) {
	m := memory(t)
	if err := m.Write(0x3000, []byte("here")); err != nil {
		t.Fatal(err)
	}
	protected := x86.State{RIP: 0x100000}
	low, high := []Region{{0x1000, 0x8000}}, []Region{{0x1000, 0x8000}, {4 << 30, 0x1000}}
	for _, c := range []struct {
		name    string
		cpu     x86.State
		regions []Region
		class   elf.Class
		machine elf.Machine
	}{
		{"64 bits", long(0), low, elf.ELFCLASS64, elf.EM_X86_64},
		{"32 bits", protected, low, elf.ELFCLASS32, elf.EM_386},
		{"32 bits, memory above 4 GiB", protected, high, elf.ELFCLASS64, elf.EM_386},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, e := write(t, &Core{CPUs: []x86.State{c.cpu}, Regions: c.regions, Loads: []Load{{0x1000, 0x1000, 0x8000}, {0x100000000, 0x7fff0000, 0x2000}}}, m)
			if e.Class != c.class || e.Machine != c.machine || e.Type != elf.ET_CORE || len(e.Progs) != 3 {
				t.Fatalf("%v %v %v, %d program headers", e.Class, e.Machine, e.Type, len(e.Progs))
			}
			p := make([]byte, 4)
			if _, err := e.Progs[1].ReadAt(p, 0x2000); err != nil || string(p) != "here" {
				t.Errorf("memory %q, %v", p, err)
			}
			if e.Progs[2].Filesz != 0 || e.Progs[2].Memsz != 0x2000 {
				t.Errorf("what is not in the file: %+v", e.Progs[2].ProgHeader)
			}
			notes := make([]byte, e.Progs[0].Filesz)
			if _, err := e.Progs[0].ReadAt(notes, 0); err != nil {
				t.Fatal(err)
			}
			if !bytes.Contains(notes, []byte("CORE\x00")) || !bytes.Contains(notes, []byte("QEMU\x00")) {
				t.Errorf("notes % x", notes)
			}
		})
	}
}

// The ELF header counts no more than 65534 program headers.
func TestMoreRunsThanTheHeaderCounts(t *testing.T) {
	c := &Core{CPUs: []x86.State{long(0)}, Regions: []Region{{0, 0x1000}}}
	for i := range uint64(70000) {
		c.Loads = append(c.Loads, Load{i << 12, 0, 0x1000})
	}
	path := filepath.Join(t.TempDir(), "core")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := c.Write(f, memory(t), func(uint64) error { return nil }); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	le := binary.LittleEndian
	section := le.Uint64(b[40:])
	if n := le.Uint16(b[56:]); n != tooMany || le.Uint32(b[section+44:]) != 70001 {
		t.Errorf("%d in the header, %d in the section", n, le.Uint32(b[section+44:]))
	}
}
