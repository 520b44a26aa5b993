package main

import (
	"bytes"
	"encoding/binary"
	"os"

	"github.com/rogpeppe/go-internal/testscript"
)

// guests are tiny PVH kernels: 32-bit protected-mode code at 1 MiB.
var guests = map[string][]byte{
	// mov $0x3f8, %dx; mov $'h', %al; out; mov $'i', %al; out; mov $'\n', %al; out; then power off
	"hello": append([]byte{0x66, 0xba, 0xf8, 0x03, 0xb0, 'h', 0xee, 0xb0, 'i', 0xee, 0xb0, '\n', 0xee}, powerOff...),
	// mov $5, %eax; out %eax, $0xf4; jmp .
	"debugexit": {0xb8, 5, 0, 0, 0, 0xe7, 0xf4, 0xeb, 0xfe},
	// an empty IDT, then ud2
	"triple": {0x0f, 0x01, 0x1d, 0x00, 0x80, 0x10, 0x00, 0x0f, 0x0b},
	// mov $0xcf9, %dx; mov $6, %al; out; jmp .
	"reset": {0x66, 0xba, 0xf9, 0x0c, 0xb0, 6, 0xee, 0xeb, 0xfe},
	// mov $0xfe, %al; out %al, $0x64; jmp .
	"reset8042": {0xb0, 0xfe, 0xe6, 0x64, 0xeb, 0xfe},
	// tell pvpanic that the kernel panicked (mov $0x505, %dx; mov $1, %al; out), say "p", power off
	"panic": append([]byte{0x66, 0xba, 0x05, 0x05, 0xb0, 1, 0xee, 0x66, 0xba, 0xf8, 0x03, 0xb0, 'p', 0xee, 0xb0, '\n', 0xee}, powerOff...),
	// the same with a crash kernel loaded, said twice
	"crashloaded": append([]byte{0x66, 0xba, 0x05, 0x05, 0xb0, 2, 0xee, 0xee, 0x66, 0xba, 0xf8, 0x03, 0xb0, 'p', 0xee, 0xb0, '\n', 0xee}, powerOff...),
	// say "r" and spin
	"spin": {0x66, 0xba, 0xf8, 0x03, 0xb0, 'r', 0xee, 0xb0, '\n', 0xee, 0xeb, 0xfe},
	// say "r", then wait for the power button (PM1a status bit 8) and power off
	"button": append([]byte{
		0x66, 0xba, 0xf8, 0x03, 0xb0, 'r', 0xee, 0xb0, '\n', 0xee,
		0x66, 0xba, 0x00, 0x06, // mov $0x600, %dx
		0x66, 0xed, // in %dx, %ax
		0xf6, 0xc4, 0x01, // test $1, %ah
		0x74, 0xf9, // jz to the in
	}, powerOff...),
	// read a byte from the console, send it back plus one, power off
	"echo": append([]byte{
		0x66, 0xba, 0xfd, 0x03, 0xec, 0xa8, 0x01, 0x74, 0xf7, // 1: mov $0x3fd,%dx; in; test $1; jz 1b
		0x66, 0xba, 0xf8, 0x03, 0xec, 0xfe, 0xc0, 0xee, // mov $0x3f8,%dx; in; inc; out
	}, powerOff...),
}

// powerOff is mov $0x604, %dx; mov $0x2000, %ax; out %ax, %dx; jmp . (SLP_TYP 0 is S5, SLP_EN is bit 13)
var powerOff = []byte{0x66, 0xba, 0x04, 0x06, 0x66, 0xb8, 0x00, 0x20, 0x66, 0xef, 0xeb, 0xfe}

// writeGuest NAME writes the guest's ELF image to a file of that name.
func writeGuest(ts *testscript.TestScript, _ bool, args []string) {
	code, ok := guests[args[0]]
	if !ok {
		ts.Fatalf("no guest %s", args[0])
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), pvhImage(code), 0o644))
}

// pvhImage wraps code in an ELF32 file: header, two program headers, the PVH
// note (Xen's XEN_ELFNOTE_PHYS32_ENTRY, 18), the code.
func pvhImage(code []byte) []byte {
	const (
		load    = 0x100000
		noteOff = 52 + 2*32
		codeOff = noteOff + 20
	)
	var b bytes.Buffer
	put := func(v ...any) {
		for _, x := range v {
			_ = binary.Write(&b, binary.LittleEndian, x)
		}
	}
	put([]byte("\x7fELF\x01\x01\x01"), [9]byte{}, uint16(2), uint16(3), uint32(1), uint32(load), uint32(52), uint32(0), uint32(0),
		uint16(52), uint16(32), uint16(2), uint16(0), uint16(0), uint16(0))
	put(uint32(1), uint32(codeOff), uint32(load), uint32(load), uint32(len(code)), uint32(len(code)+0x10000), uint32(7), uint32(1))
	put(uint32(4), uint32(noteOff), uint32(0), uint32(0), uint32(20), uint32(20), uint32(4), uint32(4))
	put(uint32(4), uint32(4), uint32(18), []byte("Xen\x00"), uint32(load), code)
	return b.Bytes()
}
