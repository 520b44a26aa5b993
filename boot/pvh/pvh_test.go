package pvh

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

var code = bytes.Repeat([]byte{0x90, 0xf4}, 100)

// kernel is an ELF file with code at 1 MiB and a PVH note that names entry.
func kernel(class64 bool, entry uint32) []byte {
	b := make([]byte, 0x200)
	le := binary.LittleEndian
	note := append(le.AppendUint32(le.AppendUint32(le.AppendUint32(nil, 4), 4), 18), "Xen\x00"...)
	note = le.AppendUint32(note, entry)
	noteOff, codeOff := uint64(0x180), uint64(0x200)
	copy(b[noteOff:], note)
	copy(b, "\x7fELF\x01\x01\x01")
	le.PutUint16(b[16:], 2)
	le.PutUint16(b[18:], 3)
	segments := [][6]uint64{ // type, offset, vaddr, paddr, file size, memory size
		{1, codeOff, mib, mib, uint64(len(code)), uint64(len(code)) + 64},
		{4, noteOff, 0, 0, uint64(len(note)), uint64(len(note))},
	}
	if class64 {
		b[4] = 2
		le.PutUint16(b[18:], 62)
		le.PutUint64(b[32:], 64)
		le.PutUint16(b[54:], 56)
		le.PutUint16(b[56:], 2)
		for i, s := range segments {
			p := b[64+i*56:]
			le.PutUint32(p, uint32(s[0]))
			for j, v := range s[1:] {
				le.PutUint64(p[8+j*8:], v)
			}
		}
	} else {
		le.PutUint32(b[28:], 52)
		le.PutUint16(b[42:], 32)
		le.PutUint16(b[44:], 2)
		for i, s := range segments {
			for j, v := range s {
				le.PutUint32(b[52+i*32+j*4:], uint32(v))
			}
		}
	}
	return append(b, code...)
}

func TestLoad(t *testing.T) {
	for name, class64 := range map[string]bool{"ELF32": false, "ELF64": true} {
		mem := boottest.RAM(t, 8*mib)
		module := bytes.Repeat([]byte{0x5a}, 5000)
		e, err := Load(mem, boot.Params{Kernel: boottest.Section(kernel(class64, mib+4)), Initrd: boottest.Section(module),
			Cmdline: "arguments", RSDP: boot.ACPIBase})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if err := e.State.CheckVMXEntry(); err != nil {
			t.Error(err)
		}
		s := e.State
		if s.RIP != mib+4 || s.GPR[x86.RBX] != boot.StartInfoAddr || s.CR0&(x86.CR0PE|x86.CR0PG) != x86.CR0PE || s.CR4 != 0 || s.EFER != 0 {
			t.Errorf("%s: RIP 0x%x RBX 0x%x CR0 0x%x", name, s.RIP, s.GPR[x86.RBX], s.CR0)
		}
		got := make([]byte, len(code))
		if mem.Read(mib, got); !bytes.Equal(got, code) {
			t.Errorf("%s: segment is not at 1 MiB", name)
		}
		checkStartInfo(t, mem, module)
	}
}

func checkStartInfo(t *testing.T, mem *guestmem.Memory, module []byte) {
	t.Helper()
	word := func(at uint64) uint64 {
		b := make([]byte, 8)
		if err := mem.Read(at, b); err != nil {
			t.Fatal(err)
		}
		return binary.LittleEndian.Uint64(b)
	}
	info := uint64(boot.StartInfoAddr)
	if word(info) != 1<<32|0x336ec578 || word(info+8) != 1<<32 {
		t.Errorf("magic, version, flags, modules: %x %x", word(info), word(info+8))
	}
	if word(info+24) != boot.CmdlineAddr || word(info+32) != boot.ACPIBase || uint32(word(info+48)) != 4 {
		t.Errorf("command line 0x%x, RSDP 0x%x, %d map entries", word(info+24), word(info+32), uint32(word(info+48)))
	}
	list := word(info + 16)
	got := make([]byte, len(module))
	if err := mem.Read(word(list), got); err != nil || word(list+8) != uint64(len(module)) || !bytes.Equal(got, module) {
		t.Errorf("module at 0x%x+0x%x: %v", word(list), word(list+8), err)
	}
	if m := word(info + 40); word(m) != 0 || word(m+8) != 0x9fc00 || word(m+16) != 1 || word(m+3*24) != mib {
		t.Error("memory map differs")
	}
}

func TestRefusals(t *testing.T) {
	noNote := kernel(false, mib)
	noNote[0x180+8] = 17
	for want, p := range map[string]boot.Params{
		"no PVH note":                     {Kernel: boottest.Section(noNote)},
		"entry 0x500000 lies outside":     {Kernel: boottest.Section(kernel(true, 5*mib))},
		"kernel is truncated":             {Kernel: boottest.Section(kernel(true, mib)[:0x210])},
		"command line of 3000 bytes":      {Kernel: boottest.Section(kernel(true, mib)), Cmdline: strings.Repeat("x", 3000)},
		"initrd of 9 MiB does not fit":    {Kernel: boottest.Section(kernel(true, mib)), Initrd: boottest.Section(make([]byte, 9*mib))},
		"not an ELF file":                 {Kernel: boottest.Section(make([]byte, 1000))},
		"truncated inside its ELF header": {Kernel: boottest.Section([]byte("\x7fELF"))},
	} {
		if _, err := Load(boottest.RAM(t, 8*mib), p); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}
