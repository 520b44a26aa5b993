// Package inspect is what a debugger shows of a guest as text: registers, page tables, interrupt controllers, memory and instructions.
package inspect

import (
	"fmt"
	"io"
	"strings"

	"berth/x86"
)

// XCR0 bits (Intel SDM vol. 1 §13.3).
const xcr0AVX = 1<<1 | 1<<2

// long reports that the CPU runs 64-bit code, ia32e that it is in IA-32e mode.
func long(s *x86.State) bool  { return ia32e(s) && s.Seg[x86.CS].Attr&x86.AttrL != 0 }
func ia32e(s *x86.State) bool { return s.EFER&x86.EFERLMA != 0 }

// Registers prints a vCPU's registers as QEMU's monitor does.
func Registers(w io.Writer, s *x86.State) {
	generalRegisters(w, s)
	for i, name := range []string{"ES", "CS", "SS", "DS", "FS", "GS", "LDT", "TR"} {
		segment(w, s, name, s.Seg[i])
	}
	if ia32e(s) {
		fmt.Fprintf(w, "GDT=     %016x %08x\nIDT=     %016x %08x\n", s.GDT.Base, s.GDT.Limit, s.IDT.Base, s.IDT.Limit)
		fmt.Fprintf(w, "CR0=%08x CR2=%016x CR3=%016x CR4=%08x\n", s.CR0, s.CR2, s.CR3, s.CR4)
		fmt.Fprintf(w, "DR0=%016x DR1=%016x DR2=%016x DR3=%016x \nDR6=%016x DR7=%016x\n", s.DR[0], s.DR[1], s.DR[2], s.DR[3], s.DR[6], s.DR[7])
	} else {
		fmt.Fprintf(w, "GDT=     %08x %08x\nIDT=     %08x %08x\n", uint32(s.GDT.Base), s.GDT.Limit, uint32(s.IDT.Base), s.IDT.Limit)
		fmt.Fprintf(w, "CR0=%08x CR2=%08x CR3=%08x CR4=%08x\n", uint32(s.CR0), uint32(s.CR2), uint32(s.CR3), uint32(s.CR4))
		fmt.Fprintf(w, "DR0=%016x DR1=%016x DR2=%016x DR3=%016x \nDR6=%016x DR7=%016x\n", s.DR[0], s.DR[1], s.DR[2], s.DR[3], s.DR[6], s.DR[7])
	}
	fmt.Fprintf(w, "EFER=%016x\n", s.EFER)
	floatingPoint(w, s)
}

func generalRegisters(w io.Writer, s *x86.State) {
	names := [16]string{"AX", "CX", "DX", "BX", "SP", "BP", "SI", "DI", "8 ", "9 ", "10", "11", "12", "13", "14", "15"}
	order := []int{x86.RAX, x86.RBX, x86.RCX, x86.RDX, x86.RSI, x86.RDI, x86.RBP, x86.RSP, 8, 9, 10, 11, 12, 13, 14, 15}
	letter, digits := "R", 16
	ip, flags := "RIP", "RFL"
	if !long(s) {
		letter, digits, ip, flags, order = "E", 8, "EIP", "EFL", order[:8]
	}
	mask := ^uint64(0) >> (64 - 4*digits)
	for i, r := range order {
		end := " "
		if i%4 == 3 {
			end = "\n"
		}
		fmt.Fprintf(w, "%s%s=%0*x%s", letter, names[r], digits, s.GPR[r]&mask, end)
	}
	fmt.Fprintf(w, "%s=%0*x %s=%08x [%s] CPL=%d II=%d A20=1 SMM=0 HLT=%d\n", ip, digits, s.RIP&mask, flags, s.RFLAGS, flagLetters(s.RFLAGS),
		s.Seg[x86.SS].Attr.DPL(), bit(s.Events.ShadowSTI || s.Events.ShadowMovSS), bit(s.MP != x86.MPRunnable))
}

func flagLetters(flags uint64) string {
	var b strings.Builder
	for _, f := range []struct {
		bit    uint64
		letter byte
	}{{x86.FlagDF, 'D'}, {x86.FlagOF, 'O'}, {x86.FlagSF, 'S'}, {x86.FlagZF, 'Z'}, {x86.FlagAF, 'A'}, {x86.FlagPF, 'P'}, {x86.FlagCF, 'C'}} {
		b.WriteByte(letter(flags&f.bit != 0, f.letter))
	}
	return b.String()
}

func letter(on bool, l byte) byte {
	if on {
		return l
	}
	return '-'
}

func bit(on bool) int {
	if on {
		return 1
	}
	return 0
}

func segment(w io.Writer, s *x86.State, name string, g x86.Segment) {
	// The flags are shown as a descriptor's second half has them.
	flags := uint32(g.Attr)<<8&0xf0ff00 | g.Limit&0xf0000
	if g.Attr&x86.AttrUnusable != 0 {
		flags = 0
	}
	if long(s) {
		fmt.Fprintf(w, "%-3s=%04x %016x %08x %08x", name, g.Selector, g.Base, g.Limit, flags)
	} else {
		fmt.Fprintf(w, "%-3s=%04x %08x %08x %08x", name, g.Selector, uint32(g.Base), g.Limit, flags)
	}
	if s.CR0&x86.CR0PE != 0 && g.Attr&x86.AttrP != 0 {
		fmt.Fprintf(w, " DPL=%d %s", g.Attr.DPL(), segmentType(s, g.Attr))
	}
	fmt.Fprintln(w)
}

func segmentType(s *x86.State, a x86.Attr) string {
	switch {
	case a&x86.AttrS == 0:
		return systemType(ia32e(s), a.Type())
	case a&x86.AttrCode != 0:
		size := "CS16"
		if a&x86.AttrL != 0 {
			size = "CS64"
		} else if a&x86.AttrDB != 0 {
			size = "CS32"
		}
		return fmt.Sprintf("%s [%c%c%c]", size, letter(a&x86.AttrDC != 0, 'C'), letter(a&x86.AttrRW != 0, 'R'), letter(a&x86.AttrAccessed != 0, 'A'))
	}
	size := "DS16"
	if a&x86.AttrDB != 0 || ia32e(s) {
		size = "DS  "
	}
	return fmt.Sprintf("%s [%c%c%c]", size, letter(a&x86.AttrDC != 0, 'E'), letter(a&x86.AttrRW != 0, 'W'), letter(a&x86.AttrAccessed != 0, 'A'))
}

// systemType names a system descriptor's type (Intel SDM vol. 3A table 3-2).
func systemType(long bool, t uint8) string {
	if long {
		if name, ok := map[uint8]string{0: "<hiword>", 2: "LDT", 9: "TSS64-avl", 11: "TSS64-busy", 12: "CallGate64", 14: "IntGate64", 15: "TrapGate64"}[t]; ok {
			return name
		}
		return "Reserved"
	}
	return [16]string{
		"Reserved", "TSS16-avl", "LDT", "TSS16-busy", "CallGate16", "TaskGate", "IntGate16", "TrapGate16",
		"Reserved", "TSS32-avl", "Reserved", "TSS32-busy", "CallGate32", "Reserved", "IntGate32", "TrapGate32",
	}[t&15]
}

func floatingPoint(w io.Writer, s *x86.State) {
	f := &s.FPU
	top := f.FSW >> 11 & 7
	fmt.Fprintf(w, "FCW=%04x FSW=%04x [ST=%d] FTW=%02x MXCSR=%08x\n", f.FCW, f.FSW, top, f.FTW, f.MXCSR)
	for i := range 8 {
		end := " "
		if i%2 == 1 {
			end = "\n"
		}
		r := f.ST[(i-int(top))&7] // FPR i is physical register i
		fmt.Fprintf(w, "FPR%d=%016x %04x%s", i, r.Mant, r.SE, end)
	}
	count := 8
	if long(s) {
		count = 16
	}
	for i := range count {
		x, y := f.XMM[i], f.YMMH[i]
		switch {
		case s.XCR0&xcr0AVX == xcr0AVX && s.CR4&x86.CR4OSXSAVE != 0:
			fmt.Fprintf(w, "YMM%02d=%016x %016x %016x %016x\n", i, y[1], y[0], x[1], x[0])
		case i%2 == 0:
			fmt.Fprintf(w, "XMM%02d=%016x %016x ", i, x[1], x[0])
		default:
			fmt.Fprintf(w, "XMM%02d=%016x %016x\n", i, x[1], x[0])
		}
	}
}

// Register is the value of a register by its name in expressions: QEMU's names,
// under which the 32-bit ones mean all 64 bits, and the CPU's own 64-bit names.
func Register(s *x86.State, name string) (uint64, bool) {
	general := [8]string{"ax", "cx", "dx", "bx", "sp", "bp", "si", "di"}
	for i, n := range general {
		if name == "e"+n || name == "r"+n {
			return s.GPR[i], true
		}
	}
	for i := 8; i < 16; i++ {
		if name == fmt.Sprintf("r%d", i) {
			return s.GPR[i], true
		}
	}
	for i, n := range []string{"es", "cs", "ss", "ds", "fs", "gs"} {
		g := s.Seg[i]
		switch name {
		case n:
			return uint64(g.Selector), true
		case n + ".base":
			return g.Base, true
		case n + ".limit":
			return uint64(g.Limit), true
		}
	}
	v, ok := map[string]uint64{
		"eflags": s.RFLAGS, "rflags": s.RFLAGS, "eip": s.RIP, "rip": s.RIP, "pc": s.Seg[x86.CS].Base + s.RIP,
		"cr0": s.CR0, "cr2": s.CR2, "cr3": s.CR3, "cr4": s.CR4, "cr8": s.CR8, "efer": s.EFER,
	}[name]
	return v, ok
}
