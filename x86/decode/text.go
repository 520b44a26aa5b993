package decode

import (
	"fmt"
	"strings"

	"berth/x86/optab"
)

// String returns the instruction in Intel syntax, branch targets relative to an
// instruction at address 0.
func (in *Inst) String() string { return in.Text(0) }

// Text returns the instruction in Intel syntax as it reads at address pc. It is
// for logs and tests.
func (in *Inst) Text(pc uint64) string {
	if in.Row == nil {
		return "(bad)"
	}
	var b strings.Builder
	if in.Lock {
		b.WriteString("lock ")
	}
	switch {
	case in.RepN:
		b.WriteString("repnz ")
	case in.Rep && (in.Op == optab.CMPS || in.Op == optab.SCAS):
		b.WriteString("repz ")
	case in.Rep:
		b.WriteString("rep ")
	}
	b.WriteString(in.mnemonic())
	sep := " "
	for _, a := range in.Row.Args {
		if s := in.arg(a, pc); s != "" {
			b.WriteString(sep + s)
			sep = ","
		}
	}
	return b.String()
}

var conditions = [16]string{"o", "no", "b", "ae", "e", "ne", "be", "a", "s", "ns", "p", "np", "l", "ge", "le", "g"}

// pick chooses by operand size 2, 4 and 8.
func pick(size uint8, s2, s4, s8 string) string {
	switch size {
	case 2:
		return s2
	case 8:
		return s8
	}
	return s4
}

func (in *Inst) mnemonic() string {
	name := strings.ToLower(in.Op.String())
	if in.Op == optab.VZEROUPPER && in.L != 0 {
		return "vzeroall"
	}
	if in.Vex && in.Op <= optab.LastSSE {
		return "v" + in.vexMnemonic(name)
	}
	switch in.Op {
	case optab.JCC:
		return "j" + conditions[in.Opcode&15]
	case optab.SETCC:
		return "set" + conditions[in.Opcode&15]
	case optab.CMOVCC:
		return "cmov" + conditions[in.Opcode&15]
	case optab.FCMOVCC:
		return "fcmov" + [...]string{"b", "e", "be", "u", "nb", "ne", "nbe", "nu"}[in.Reg&3|in.Opcode&1<<2]
	case optab.CBW:
		return pick(in.OpSize, "cbw", "cwde", "cdqe")
	case optab.CWD:
		return pick(in.OpSize, "cwd", "cdq", "cqo")
	case optab.JCXZ:
		return pick(in.AddrSize, "jcxz", "jecxz", "jrcxz")
	case optab.IRET:
		return pick(in.OpSize, "iretw", "iret", "iretq")
	case optab.MOVD:
		return pick(in.OpSize, "movd", "movd", "movq")
	case optab.FXSAVE, optab.FXRSTOR, optab.XSAVE, optab.XSAVEC, optab.XSAVEOPT, optab.XSAVES, optab.XRSTOR, optab.XRSTORS:
		return name + pick(in.OpSize, "", "", "64")
	case optab.MOVCR, optab.MOVDR, optab.MOVSEG:
		return "mov"
	case optab.PUSHSEG:
		return "push"
	case optab.POPSEG:
		return "pop"
	case optab.JMPFAR, optab.CALLFAR:
		return strings.TrimSuffix(name, "far") + " far"
	case optab.RETFAR:
		return "retf"
	case optab.MOVSDX, optab.CMPSDX:
		return strings.TrimSuffix(name, "x")
	case optab.FNSTSWAX:
		return "fnstsw ax"
	}
	return name
}

// vexMnemonic is mnemonic without the V.
func (in *Inst) vexMnemonic(name string) string {
	switch in.Op {
	case optab.MOVD:
		return pick(in.OpSize, "movd", "movd", "movq")
	case optab.MOVSDX, optab.CMPSDX:
		return strings.TrimSuffix(name, "x")
	}
	return name
}

// vector names vector register n.
func (in *Inst) vector(n uint8, wide bool) string {
	if wide {
		return fmt.Sprintf("ymm%d", n)
	}
	return fmt.Sprintf("xmm%d", n)
}

var (
	reg8    = [16]string{"al", "cl", "dl", "bl", "ah", "ch", "dh", "bh", "r8b", "r9b", "r10b", "r11b", "r12b", "r13b", "r14b", "r15b"}
	rex8    = [8]string{"al", "cl", "dl", "bl", "spl", "bpl", "sil", "dil"}
	reg16   = [8]string{"ax", "cx", "dx", "bx", "sp", "bp", "si", "di"}
	segName = [8]string{"es", "cs", "ss", "ds", "fs", "gs", "?", "?"}
)

// gpr names general register n of a width in bytes.
func (in *Inst) gpr(n, size uint8) string {
	switch {
	case size == 1 && in.Rex && n < 8:
		return rex8[n]
	case size == 1:
		return reg8[n]
	case n >= 8:
		return fmt.Sprintf("r%d%s", n, pick(size, "w", "d", ""))
	}
	return pick(size, "", "e", "r") + reg16[n]
}

func (in *Inst) arg(a optab.Arg, pc uint64) string {
	switch a {
	case optab.Gb:
		return in.gpr(in.Reg, 1)
	case optab.Gw:
		return in.gpr(in.Reg, 2)
	case optab.Gd:
		return in.gpr(in.Reg, 4)
	case optab.Gy:
		return in.gpr(in.Reg, max(in.OpSize, 4))
	case optab.Gv, optab.Zb, optab.Zv:
		return in.gpr(in.Reg, in.OpSize)
	case optab.Ry:
		return in.gpr(in.RM, in.OpSize)
	case optab.AL:
		return "al"
	case optab.CL:
		return "cl"
	case optab.DX:
		return "dx"
	case optab.RAXv:
		return in.gpr(0, in.OpSize)
	case optab.One:
		return "1"
	case optab.Sw:
		return segName[in.Reg]
	case optab.SegES, optab.SegCS, optab.SegSS, optab.SegDS, optab.SegFS, optab.SegGS:
		return segName[a-optab.SegES]
	case optab.Cd:
		return fmt.Sprintf("cr%d", in.Reg)
	case optab.Dd:
		return fmt.Sprintf("dr%d", in.Reg)
	case optab.ST0:
		return "st"
	case optab.STi:
		return fmt.Sprintf("st(%d)", in.RM&7)
	case optab.Vx:
		return in.vector(in.Reg, in.L != 0)
	case optab.Vo:
		return in.vector(in.Reg, false)
	case optab.Hx:
		return in.vector(in.V, in.L != 0)
	case optab.Lx:
		return in.vector(uint8(in.Imm>>4), in.L != 0)
	case optab.By:
		return in.gpr(in.V, in.OpSize)
	case optab.Pq:
		return fmt.Sprintf("mm%d", in.Reg&7)
	case optab.XMM0:
		return "xmm0"
	}
	if s, ok := in.immArg(a, pc); ok {
		return s
	}
	return in.rmArg(a)
}

func (in *Inst) immArg(a optab.Arg, pc uint64) (string, bool) {
	mask := ^uint64(0)
	if in.OpSize < 8 {
		mask = 1<<(8*in.OpSize) - 1
	}
	switch a {
	case optab.Ib:
		if len(in.Row.Args) > 1 && in.Row.Args[0] == optab.Iw {
			return fmt.Sprintf("%#x", in.Imm2), true
		}
		return fmt.Sprintf("%#x", in.Imm), true
	case optab.Iw:
		return fmt.Sprintf("%#x", in.Imm), true
	case optab.IbS, optab.Iz, optab.Iv:
		return fmt.Sprintf("%#x", in.Imm&mask), true
	case optab.Jb, optab.Jz:
		return fmt.Sprintf("%#x", (pc+uint64(in.Len)+in.Imm)&mask), true
	case optab.Ap:
		return fmt.Sprintf("%#x:%#x", in.Imm2, in.Imm), true
	}
	return "", false
}

// Width returns the width in bytes of the memory form of a register-or-memory,
// memory or string operand kind, and 0 for M, Mp and Ms, whose width is the operation's.
func (in *Inst) Width(a optab.Arg) uint8 {
	switch a {
	case optab.Eb, optab.Mb, optab.Wb, optab.Ob, optab.Xb, optab.Yb:
		return 1
	case optab.Ew, optab.Mw, optab.Ww:
		return 2
	case optab.Ed, optab.Md, optab.Wd, optab.Qd:
		return 4
	case optab.Ev, optab.Ey, optab.Ry, optab.Ov, optab.Xv, optab.Yv:
		return in.OpSize
	case optab.Mq, optab.Wq, optab.Qq, optab.Nq:
		return 8
	case optab.Mt:
		return 10
	case optab.Mdq, optab.Wo:
		return 16
	case optab.Wx, optab.Ux, optab.Mx:
		return 16 << in.L
	case optab.Wh:
		return 8 << in.L
	case optab.Wf:
		return 4 << in.L
	case optab.We:
		return 2 << in.L
	case optab.Wdp:
		return 8 << (2 * in.L)
	case optab.Mvd, optab.Mvq:
		return max(in.OpSize, 4)
	}
	return 0
}

var sizeWord = map[uint8]string{1: "BYTE PTR ", 2: "WORD PTR ", 4: "DWORD PTR ", 8: "QWORD PTR ", 10: "TBYTE PTR ", 16: "XMMWORD PTR ", 32: "YMMWORD PTR "}

func (in *Inst) rmArg(a optab.Arg) string {
	width := in.Width(a)
	switch a {
	case optab.Xb, optab.Xv:
		reg := in.gpr(6, in.AddrSize)
		if in.Op == optab.XLAT {
			reg = in.gpr(3, in.AddrSize)
		}
		return fmt.Sprintf("%s%s:[%s]", sizeWord[width], segName[in.Seg], reg)
	case optab.Yb, optab.Yv:
		return fmt.Sprintf("%ses:[%s]", sizeWord[width], in.gpr(7, in.AddrSize))
	case optab.Wx, optab.Ux, optab.Wdp:
		if !in.Mem {
			return in.vector(in.RM, in.L != 0)
		}
	case optab.Wb, optab.Ww, optab.Wd, optab.Wq, optab.Wo, optab.Wh, optab.Wf, optab.We:
		if !in.Mem {
			return in.vector(in.RM, false)
		}
	case optab.Qd, optab.Qq, optab.Nq:
		if !in.Mem {
			return fmt.Sprintf("mm%d", in.RM&7)
		}
	}
	if !in.Mem {
		return in.gpr(in.RM, width)
	}
	return sizeWord[width] + in.address()
}

// indexText names the index, which of a gather is a vector register.
func (in *Inst) indexText() string {
	for _, a := range in.Row.Args {
		switch a {
		case optab.Mvd: // as many indices as elements, of half the size or of theirs
			return in.vector(in.Index, in.L != 0 && in.OpSize != 8)
		case optab.Mvq:
			return in.vector(in.Index, in.L != 0)
		}
	}
	return in.gpr(in.Index, in.AddrSize)
}

// address is the memory operand without its width.
func (in *Inst) address() string {
	var s string
	if in.Base == RIP {
		s = pick(in.AddrSize, "", "eip", "rip")
	} else if in.Base != NoReg {
		s = in.gpr(in.Base, in.AddrSize)
	}
	if in.Index != NoReg {
		if s != "" {
			s += "+"
		}
		s += in.indexText()
		if in.AddrSize != 2 {
			s += fmt.Sprintf("*%d", 1<<in.Scale)
		}
	}
	var seg string
	if in.SegOverride || s == "" {
		seg = segName[in.Seg] + ":"
	}
	switch {
	case s == "":
		disp := uint64(in.Disp)
		if in.AddrSize < 8 {
			disp &= 1<<(8*in.AddrSize) - 1
		}
		return fmt.Sprintf("%s%#x", seg, disp)
	case in.Disp < 0:
		return fmt.Sprintf("%s[%s-%#x]", seg, s, -in.Disp)
	case in.Disp > 0 || in.Base == RIP:
		return fmt.Sprintf("%s[%s+%#x]", seg, s, in.Disp)
	}
	return fmt.Sprintf("%s[%s]", seg, s)
}
