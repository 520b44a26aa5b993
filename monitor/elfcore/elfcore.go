// Package elfcore writes a guest's memory and vCPUs as an ELF core, which gdb and crash read.
package elfcore

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"io"

	"berth/guestmem"
	"berth/x86"
)

// The file:
//
//	ELF header
//	program headers: PT_NOTE, then a PT_LOAD for each of Loads
//	a section header that counts them, if they are too many for the ELF header
//	notes: NT_PRSTATUS of each vCPU, then QEMU's own of each
//	the memory of Regions, one after the other

// Region is a run of guest-physical memory whose bytes are in the file.
type Region struct{ Address, Size uint64 }

// Load is a run of addresses that lead to memory: virtual ones of the guest, or
// once more its physical ones.
type Load struct{ Virtual, Physical, Size uint64 }

// Core is what is written.
type Core struct {
	CPUs    []x86.State
	Regions []Region // do not overlap
	Loads   []Load   // what of one is in no region is in memory, but not in the file
}

// chunk is how many bytes are written at once.
const chunk = 1 << 20

// Write writes the file. RAM that holds zeros becomes a hole. done is told how many
// bytes of the regions have been written; its error ends the write.
func (c *Core) Write(w io.WriterAt, m *guestmem.Memory, done func(bytes uint64) error) error {
	head, err := c.head()
	if err != nil {
		return err
	}
	if _, err := w.WriteAt(head, 0); err != nil {
		return err
	}
	at, written := int64(len(head)), uint64(0)
	for _, r := range c.Regions {
		for off := uint64(0); off < r.Size; {
			n := min(r.Size-off, chunk)
			p, err := m.Slice(r.Address+off, n)
			if err != nil {
				return err
			}
			if err := writeUnlessZero(w, p, at); err != nil {
				return err
			}
			off, at, written = off+n, at+int64(n), written+n
			if err := done(written); err != nil {
				return err
			}
		}
	}
	return nil
}

// writeUnlessZero writes p, and of a chunk of zeros its last byte only, which keeps the file's length.
func writeUnlessZero(w io.WriterAt, p []byte, at int64) error {
	if zero := bytes.TrimLeft(p, "\x00"); len(zero) == 0 {
		p, at = p[len(p)-1:], at+int64(len(p))-1
	}
	_, err := w.WriteAt(p, at)
	return err
}

// Size is how many bytes of memory the file holds.
func (c *Core) Size() (n uint64) {
	for _, r := range c.Regions {
		n += r.Size
	}
	return n
}

// long reports that the guest runs in IA-32e mode, which decides whose core it is.
func (c *Core) long() bool { return len(c.CPUs) > 0 && c.CPUs[0].EFER&x86.EFERLMA != 0 }

// wide reports that the file is of 64 bits: the guest is, or its memory ends above 4 GiB.
func (c *Core) wide() bool {
	for _, r := range c.Regions {
		if r.Address+r.Size > 1<<32 {
			return true
		}
	}
	return c.long()
}

// tooMany stands in the ELF header for a count of program headers that it has no room for (PN_XNUM).
const tooMany = 0xffff

// head is all before the memory.
func (c *Core) head() ([]byte, error) {
	notes := c.notes()
	headerSize, programSize, sectionSize := 52, 32, 40
	if c.wide() {
		headerSize, programSize, sectionSize = 64, 56, 64
	}
	count, sections := 1+len(c.Loads), 0
	if count >= tooMany {
		sections = 1
	}
	sectionAt := headerSize + count*programSize
	notesAt := sectionAt + sections*sectionSize
	memoryAt := uint64(notesAt + len(notes))
	programs := []elf.Prog64{{Type: uint32(elf.PT_NOTE), Off: uint64(notesAt), Filesz: uint64(len(notes)), Memsz: uint64(len(notes))}}
	for _, l := range c.Loads {
		off, size := c.place(l, memoryAt)
		programs = append(programs, elf.Prog64{Type: uint32(elf.PT_LOAD), Off: off, Vaddr: l.Virtual, Paddr: l.Physical, Filesz: size, Memsz: l.Size})
	}
	var b bytes.Buffer
	if err := c.elfHeader(&b, headerSize, programSize, sectionSize, count, sections, sectionAt); err != nil {
		return nil, err
	}
	for _, p := range programs {
		if err := c.program(&b, p); err != nil {
			return nil, err
		}
	}
	if sections > 0 {
		if err := binary.Write(&b, binary.LittleEndian, elf.Section64{Info: uint32(count)}); err != nil {
			return nil, err
		}
	}
	b.Write(notes)
	return b.Bytes(), nil
}

func (c *Core) elfHeader(b *bytes.Buffer, headerSize, programSize, sectionSize, count, sections, sectionAt int) error {
	ident := [elf.EI_NIDENT]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS32), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)}
	machine := elf.EM_386
	if c.long() {
		machine = elf.EM_X86_64
	}
	shown := uint16(min(count, tooMany))
	if sections == 0 {
		sectionAt, sectionSize = 0, 0
	}
	if c.wide() {
		ident[elf.EI_CLASS] = byte(elf.ELFCLASS64)
		return binary.Write(b, binary.LittleEndian, elf.Header64{
			Ident: ident, Type: uint16(elf.ET_CORE), Machine: uint16(machine), Version: 1, Phoff: uint64(headerSize), Shoff: uint64(sectionAt),
			Ehsize: uint16(headerSize), Phentsize: uint16(programSize), Phnum: shown, Shentsize: uint16(sectionSize), Shnum: uint16(sections),
		})
	}
	if sections > 0 {
		return fmt.Errorf("%d runs of addresses are too many for a core of 32 bits", count)
	}
	return binary.Write(b, binary.LittleEndian, elf.Header32{
		Ident: ident, Type: uint16(elf.ET_CORE), Machine: uint16(machine), Version: 1, Phoff: uint32(headerSize),
		Ehsize: uint16(headerSize), Phentsize: uint16(programSize), Phnum: shown,
	})
}

func (c *Core) program(b *bytes.Buffer, p elf.Prog64) error {
	if c.wide() {
		return binary.Write(b, binary.LittleEndian, p)
	}
	return binary.Write(b, binary.LittleEndian, elf.Prog32{
		Type: p.Type, Off: uint32(p.Off), Vaddr: uint32(p.Vaddr), Paddr: uint32(p.Paddr), Filesz: uint32(p.Filesz), Memsz: uint32(p.Memsz),
	})
}

// place is where in the file a run's memory begins, and how much of it is there.
func (c *Core) place(l Load, memoryAt uint64) (off, size uint64) {
	for _, r := range c.Regions {
		if l.Physical >= r.Address && l.Physical < r.Address+r.Size {
			return memoryAt + l.Physical - r.Address, min(l.Size, r.Address+r.Size-l.Physical)
		}
		memoryAt += r.Size
	}
	return 0, 0
}
