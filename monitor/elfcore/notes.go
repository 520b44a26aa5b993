package elfcore

import (
	"encoding/binary"

	"berth/x86"
)

// ntPRStatus is the type of a note with a thread's registers (System V ABI's NT_PRSTATUS).
const ntPRStatus = 1

// notes are those of all vCPUs.
func (c *Core) notes() []byte {
	var b []byte
	for i := range c.CPUs {
		if c.long() {
			b = note(b, "CORE", ntPRStatus, status64(i+1, &c.CPUs[i]))
		} else {
			b = note(b, "CORE", ntPRStatus, status32(i+1, &c.CPUs[i]))
		}
	}
	for i := range c.CPUs {
		b = note(b, "QEMU", 0, qemuState(&c.CPUs[i]))
	}
	return b
}

// note appends one:
//
//	name size | description size | type | name, padded to 4 bytes | description, likewise
func note(b []byte, name string, kind uint32, description []byte) []byte {
	le := binary.LittleEndian
	b = le.AppendUint32(b, uint32(len(name)+1))
	b = le.AppendUint32(b, uint32(len(description)))
	b = le.AppendUint32(b, kind)
	b = append(b, name...)
	b = append(b, make([]byte, 4-len(name)%4)...)
	b = append(b, description...)
	return append(b, make([]byte, -len(description)&3)...)
}

// status64 is Linux's struct elf_prstatus of x86-64, of which only the thread's
// number and its registers are set.
//
//	0 | 32 pid | 36 | 112 r15 … gs, in the order of struct user_regs_struct | 328 | 336
func status64(pid int, s *x86.State) []byte {
	le := binary.LittleEndian
	p := make([]byte, 336)
	le.PutUint32(p[32:], uint32(pid))
	g := &s.GPR
	for i, v := range []uint64{
		g[15], g[14], g[13], g[12], g[x86.RBP], g[x86.RBX], g[11], g[10], g[9], g[8], g[x86.RAX], g[x86.RCX], g[x86.RDX], g[x86.RSI], g[x86.RDI], 0,
		s.RIP, uint64(s.Seg[x86.CS].Selector), s.RFLAGS, g[x86.RSP], uint64(s.Seg[x86.SS].Selector), s.Seg[x86.FS].Base, s.Seg[x86.GS].Base,
		uint64(s.Seg[x86.DS].Selector), uint64(s.Seg[x86.ES].Selector), uint64(s.Seg[x86.FS].Selector), uint64(s.Seg[x86.GS].Selector),
	} {
		le.PutUint64(p[112+8*i:], v)
	}
	return p
}

// status32 is that of i386.
//
//	0 | 24 pid | 28 | 72 ebx … ss | 140 | 144
func status32(pid int, s *x86.State) []byte {
	le := binary.LittleEndian
	p := make([]byte, 144)
	le.PutUint32(p[24:], uint32(pid))
	g := &s.GPR
	for i, v := range []uint64{
		g[x86.RBX], g[x86.RCX], g[x86.RDX], g[x86.RSI], g[x86.RDI], g[x86.RBP], g[x86.RAX],
		uint64(s.Seg[x86.DS].Selector), uint64(s.Seg[x86.ES].Selector), uint64(s.Seg[x86.FS].Selector), uint64(s.Seg[x86.GS].Selector), 0,
		s.RIP, uint64(s.Seg[x86.CS].Selector), s.RFLAGS, g[x86.RSP], uint64(s.Seg[x86.SS].Selector),
	} {
		le.PutUint32(p[72+4*i:], uint32(v))
	}
	return p
}

// qemuState is QEMU's own note, which crash reads:
//
//	version 4 | size 4 | rax rbx rcx rdx rsi rdi rsp rbp r8 … r15 rip rflags
//	cs ds es fs gs ss ldt tr gdt idt: selector 4 | limit 4 | flags 4 | 0 4 | base 8
//	cr0 … cr4 | kernel GS base
func qemuState(s *x86.State) []byte {
	le := binary.LittleEndian
	const size = 440
	b := le.AppendUint32(nil, 1)
	b = le.AppendUint32(b, size)
	for _, r := range []int{x86.RAX, x86.RBX, x86.RCX, x86.RDX, x86.RSI, x86.RDI, x86.RSP, x86.RBP, 8, 9, 10, 11, 12, 13, 14, 15} {
		b = le.AppendUint64(b, s.GPR[r])
	}
	b = le.AppendUint64(b, s.RIP)
	b = le.AppendUint64(b, s.RFLAGS)
	segment := func(selector, limit, flags uint32, base uint64) {
		for _, v := range []uint32{selector, limit, flags, 0} {
			b = le.AppendUint32(b, v)
		}
		b = le.AppendUint64(b, base)
	}
	for _, i := range []int{x86.CS, x86.DS, x86.ES, x86.FS, x86.GS, x86.SS, x86.LDTR, x86.TR} {
		g := s.Seg[i]
		segment(uint32(g.Selector), g.Limit, uint32(g.Attr&^x86.AttrUnusable)<<8|g.Limit&0xf0000, g.Base)
	}
	segment(0, uint32(s.GDT.Limit), 0, s.GDT.Base)
	segment(0, uint32(s.IDT.Limit), 0, s.IDT.Base)
	for _, v := range []uint64{s.CR0, 0, s.CR2, s.CR3, s.CR4, kernelGS(s)} {
		b = le.AppendUint64(b, v)
	}
	return b
}

func kernelGS(s *x86.State) uint64 {
	for _, m := range s.MSRs {
		if m.Index == x86.MSRKernelGSBase {
			return m.Value
		}
	}
	return 0
}
