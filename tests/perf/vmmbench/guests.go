package main

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"os"
	"path/filepath"
)

// exitStatus is what berth and QEMU end with after a guest of exitCode's.
const exitStatus = exitValue<<1 | 1

const exitValue = 0x10

// exitCode writes exitValue to the debug exit, in every mode of the CPU.
var exitCode = []byte{
	0xb0, exitValue, // mov al, exitValue
	0xe6, 0xf4, // out 0xf4, al
	0xf4, // hlt
}

// tinyGuests writes the guests that end with their second instruction into a
// folder: a kernel, and a firmware for those who start at the reset vector.
func tinyGuests(dir string) (kernel, firmware string, err error) {
	kernel, firmware = filepath.Join(dir, "tiny.elf"), filepath.Join(dir, "tiny.bin")
	if err = os.WriteFile(kernel, tinyKernel(), 0o600); err == nil {
		err = os.WriteFile(firmware, tinyFirmware(), 0o600)
	}
	return kernel, firmware, err
}

// tinyKernel is an ELF file with a PVH note:
//
//	+0    ELF header
//	+64   program header: everything, loaded at 1 MiB
//	+120  program header: the note
//	+176  note: XEN_ELFNOTE_PHYS32_ENTRY (18) of "Xen", the 32-bit entry point
//	+196  exitCode
//
// Xen, public/elfnote.h and docs/misc/pvh.
func tinyKernel() []byte {
	const base, note, code = 1 << 20, 176, 196
	type noteHeader struct {
		NameSize, DescSize, Type uint32
		Name                     [4]byte
		Entry                    uint32
	}
	size := uint64(code + len(exitCode))
	var b bytes.Buffer
	for _, part := range []any{
		elf.Header64{
			Ident: [elf.EI_NIDENT]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)},
			Type:  uint16(elf.ET_EXEC), Machine: uint16(elf.EM_X86_64), Version: uint32(elf.EV_CURRENT),
			Entry: base + code, Phoff: 64, Ehsize: 64, Phentsize: 56, Phnum: 2, Shentsize: 64,
		},
		elf.Prog64{
			Type: uint32(elf.PT_LOAD), Flags: uint32(elf.PF_R | elf.PF_X),
			Vaddr: base, Paddr: base, Filesz: size, Memsz: size, Align: 4096,
		},
		elf.Prog64{
			Type: uint32(elf.PT_NOTE), Flags: uint32(elf.PF_R),
			Off: note, Vaddr: base + note, Paddr: base + note, Filesz: code - note, Memsz: code - note, Align: 4,
		},
		noteHeader{NameSize: 4, DescSize: 4, Type: 18, Name: [4]byte{'X', 'e', 'n'}, Entry: base + code},
		exitCode,
	} {
		// A bytes.Buffer takes everything, and all parts have a fixed size.
		_ = binary.Write(&b, binary.LittleEndian, part)
	}
	return b.Bytes()
}

// tinyFirmware ends below 4 GiB, with exitCode 16 bytes before (Intel SDM vol. 3 §11.1.4).
func tinyFirmware() []byte {
	rom := make([]byte, 64<<10)
	copy(rom[len(rom)-16:], exitCode)
	return rom
}
