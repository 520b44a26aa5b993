package decode

import (
	"debug/elf"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/arch/x86/x86asm"

	"berth/x86/optab"
)

// TestAgainstX86asm walks real code, the text of this test binary and of
// busybox, and compares lengths, memory operands and register operands.
func TestAgainstX86asm(t *testing.T) {
	for _, file := range []string{os.Args[0], "/bin/busybox"} {
		e, err := elf.Open(file)
		if err != nil {
			t.Fatalf("Debian package busybox-static: %v", err)
		}
		text, err := e.Section(".text").Data()
		if err != nil {
			t.Fatal(err)
		}
		var n, bad int
		for off := 0; off < len(text)-MaxLen; {
			want, wantErr := x86asm.Decode(text[off:], 64)
			var in Inst
			err := Decode(text[off:], Mode64, &in)
			off += max(want.Len, 1)
			// x86asm takes the F3 of F3 0F 1E and other prefixed hints for an instruction.
			if wantErr != nil || want.Op == 0 || notV2(text[off-max(want.Len, 1):], want) {
				continue
			}
			n++
			if err == nil && int(in.Len) == want.Len && sameOperands(&in, want) {
				continue
			}
			if bad++; bad < 50 {
				t.Errorf("%x: % x: ours %v %d %v; x86asm %v %d", off, text[off-want.Len:off], &in, in.Len, err, want, want.Len)
			}
		}
		t.Logf("%s: %d instructions, %d differ", file, n, bad)
	}
}

func notV2(p []byte, in x86asm.Inst) bool {
	if in.Op == x86asm.LFENCE && p[0] == 0xf3 { // INCSSP
		return true
	}
	op := in.Op.String()
	return p[0] == 0xc4 || p[0] == 0xc5 || p[0] == 0x62 || strings.HasPrefix(op, "SHA") || op == "XTEST" || op == "XBEGIN" || op == "XEND" || op == "XABORT"
}

// sameOperands compares what both decoders state: x86asm leaves out implied
// operands of some instructions and invents one for NOP.
func sameOperands(in *Inst, want x86asm.Inst) bool {
	var regs []string
	for _, a := range want.Args {
		switch a := a.(type) {
		case x86asm.Mem:
			if in.Row.Flags&optab.RepString == 0 && in.Op != optab.XLAT && !sameMemory(in, a) {
				return false
			}
		case x86asm.Reg:
			regs = append(regs, asmReg(a))
		}
	}
	x87 := in.Op >= optab.FirstX87 && in.Op <= optab.LastX87 // both name ST(0) in their own way
	if in.Op == optab.NOP || in.Op == optab.XLAT || x87 || in.Row.Flags&optab.RepString != 0 {
		return true
	}
	return strings.Join(regs, " ") == strings.Join(registers.FindAllString(in.registerText(), -1), " ")
}

// registerText is the operands other than memory and branch targets.
func (in *Inst) registerText() string {
	var s []string
	for _, a := range in.Row.Args {
		text := in.arg(a, 0)
		if !strings.Contains(text, "PTR") && !strings.Contains(text, "[") {
			s = append(s, text)
		}
	}
	return strings.Join(s, " ")
}

var registers = regexp.MustCompile(`\b(xmm\d+|mm\d|st(\(\d\))?|[cd]r\d+|r\d+[bwd]?|[re]?[abcd]x|[abcd][lh]|[re]?[sb]p|[re]?[sd]i|[sb]pl|[sd]il|[cdefgs]s)(\b|$)`)

func asmReg(r x86asm.Reg) string {
	s := strings.ToLower(r.String())
	switch {
	case r >= x86asm.X0 && r <= x86asm.X15:
		return "xmm" + s[1:]
	case r >= x86asm.M0 && r <= x86asm.M7:
		return "mm" + s[1:]
	case r == x86asm.F0:
		return "st"
	case r > x86asm.F0 && r <= x86asm.F7:
		return "st(" + s[1:] + ")"
	case r >= x86asm.R8L && r <= x86asm.R15L:
		return s[:len(s)-1] + "d"
	case r >= x86asm.SPB && r <= x86asm.DIB:
		return s[:2] + "l"
	}
	return s
}

func sameMemory(in *Inst, m x86asm.Mem) bool {
	name := func(n uint8) string {
		switch n {
		case NoReg:
			return "0"
		case RIP:
			return pick(in.AddrSize, "", "eip", "rip")
		}
		return in.gpr(n, in.AddrSize)
	}
	reg := func(r x86asm.Reg) string {
		if r == 0 {
			return "0"
		}
		return asmReg(r)
	}
	index := m.Index
	if index == 0 {
		m.Scale = 0
	}
	// x86asm does not sign-extend every displacement.
	ours := fmt.Sprint(name(in.Base), name(in.Index), int32(in.Disp))
	theirs := fmt.Sprint(reg(m.Base), reg(index), int32(m.Disp))
	return in.Mem && ours == theirs && (in.Index == NoReg || 1<<in.Scale == int(m.Scale))
}
