package decode

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"berth/x86/optab"
)

// line is one instruction as objdump sees it.
type line struct {
	length int
	text   string
}

// objdump disassembles raw code and returns the lines by address.
func objdump(t *testing.T, mode Mode, code []byte) map[int]line {
	t.Helper()
	file := filepath.Join(t.TempDir(), "code")
	if err := os.WriteFile(file, code, 0o600); err != nil {
		t.Fatal(err)
	}
	arch := [...]string{"i8086", "i386", "i386:x86-64"}[mode]
	out, err := exec.Command("objdump", "-D", "-b", "binary", "-m", "i386", "-M", "intel,intel64", "-m", arch, "--insn-width=16", file).Output()
	if err != nil {
		t.Fatalf("objdump (Debian package binutils): %v", err)
	}
	lines := map[int]line{}
	for l := range bytes.Lines(out) {
		f := strings.SplitN(strings.TrimRight(string(l), "\n"), "\t", 3)
		if len(f) < 2 || !strings.HasSuffix(f[0], ":") {
			continue
		}
		addr, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(f[0], ":")), 16, 64)
		if err != nil {
			continue
		}
		text := ""
		if len(f) == 3 {
			text = f[2]
		}
		lines[int(addr)] = line{len(strings.Fields(f[1])), text}
	}
	return lines
}

const slot = 40 // 15 bytes of a case, then NOPs for objdump to find its feet

// cases covers every map and opcode with every mandatory prefix and random tails.
func cases(mode Mode, rng *rand.Rand, tails int) [][]byte {
	escapes := [4][]byte{nil, {0x0f}, {0x0f, 0x38}, {0x0f, 0x3a}}
	prefixes := [][]byte{nil, nil, {0x66}, {0xf3}, {0xf2}}
	var all [][]byte
	for _, esc := range escapes {
		for op := range 256 {
			for _, pfx := range prefixes {
				for range tails {
					p := bytes.Clone(pfx)
					if mode == Mode64 && rng.IntN(3) == 0 {
						p = append(p, 0x40|byte(rng.IntN(16)))
					}
					p = append(append(p, esc...), byte(op))
					for len(p) < MaxLen {
						p = append(p, byte(rng.Uint32()))
					}
					all = append(all, p)
				}
			}
		}
	}
	return append(all, vexCases(mode, rng, tails)...)
}

// vexCases covers every map, opcode and prefix behind both forms of VEX.
func vexCases(mode Mode, rng *rand.Rand, tails int) [][]byte {
	var all [][]byte
	for opMap := range 3 {
		for op := range 256 {
			for pp := range byte(4) {
				for range 2 * tails {
					last := byte(rng.Uint32())&^3 | pp
					if rng.IntN(2) == 0 {
						last |= 0x78 // vvvv = 1111
					}
					first := byte(rng.Uint32()) & 0xe0
					if mode != Mode64 {
						first |= 0xc0
					}
					p := []byte{0xc4, first | byte(opMap+1), last, byte(op)}
					if opMap == 0 && rng.IntN(2) == 0 {
						p = []byte{0xc5, last | 0x80, byte(op)}
						if mode != Mode64 {
							p[1] |= 0xc0
						}
					}
					for len(p) < MaxLen {
						p = append(p, byte(rng.Uint32()))
					}
					all = append(all, p)
				}
			}
		}
	}
	return all
}

// TestAgainstObjdump compares length and text over every opcode.
func TestAgainstObjdump(t *testing.T) {
	for mode := Mode16; mode <= Mode64; mode++ {
		t.Run(fmt.Sprintf("%d", 16<<mode), func(t *testing.T) {
			all := cases(mode, rand.New(rand.NewPCG(1, uint64(mode))), 3)
			chunk := 40000
			if mode == Mode16 {
				chunk = 0x8000 / slot // so that branch targets fit
			}
			for part := range slices.Chunk(all, chunk) {
				code := bytes.Repeat([]byte{0x90}, len(part)*slot)
				for i, p := range part {
					copy(code[i*slot:], p)
				}
				compareObjdump(t, mode, code, part)
			}
		})
	}
}

func compareObjdump(t *testing.T, mode Mode, code []byte, all [][]byte) {
	lines := objdump(t, mode, code)
	var compared, bad int
	for i := range all {
		at := i * slot
		var in Inst
		err := Decode(code[at:], mode, &in)
		want := lines[at]
		got := "(bad)"
		if err == nil {
			got = in.Text(uint64(at))
		}
		if known(mode, &in, err, want) {
			continue
		}
		compared++
		if w, g := normalise(want.text), normalise(got); g != w || err == nil && int(in.Len) != want.length {
			if bad++; bad < 100000 {
				t.Errorf("% x\n ours    %2d %s\n objdump %2d %s", code[at:at+MaxLen], in.Len, g, want.length, w)
			}
		}
	}
	t.Logf("%d of %d cases compared, %d differ", compared, len(all), bad)
}

var (
	strip    = regexp.MustCompile(`^((repz|repnz|rep|lock|data16|data32|addr16|addr32|bnd|notrack|xacquire|xrelease|[cdefgs]s|rex(\.[WRXB]+)?) )+`)
	comment  = regexp.MustCompile(` *(#|<).*`)
	spaces   = regexp.MustCompile(` +`)
	noIndex  = regexp.MustCompile(`\+?[er]iz(\*\d)?`)
	negative = regexp.MustCompile(`\+0x(ffffffff[89a-f][0-9a-f]{7}|[89a-f][0-9a-f]{7})\]`)
	suffixed = regexp.MustCompile(`^(push|pop|pusha|popa|pushf|popf|retf?|[sl][gi]dt|sysexit|sysret|enter|leave|call|jmp|iret|fldenv|fnstenv|fnsave|frstor)(w|d|q)( |$)`)
	absolute = regexp.MustCompile(`\[(0x[0-9a-f]+)\]`)
	unsized  = regexp.MustCompile(`^(bound|l[defgs]s|invpcid|v?lddqu|mov) `)
	width    = regexp.MustCompile(`(BYTE|WORD|DWORD|QWORD|FWORD|XMMWORD|YMMWORD) PTR `)
	hint     = regexp.MustCompile(`^prefetch\w*`)
)

// normalise removes differences of spelling.
func normalise(s string) string {
	s = strings.TrimSpace(comment.ReplaceAllString(spaces.ReplaceAllString(s, " "), ""))
	s = strip.ReplaceAllString(s+" ", "")
	if strings.Contains(s, "(bad)") {
		return "(bad)"
	}
	s = suffixed.ReplaceAllString(noIndex.ReplaceAllString(s, ""), "$1$3")
	s = strings.NewReplacer("{vex} ", "", "+0x0]", "]", "[+", "[", "xlat al,", "xlat ", "iretw", "iret", "iretq", "iret", "jmp far", "jmp", "call far", "call", "movabs", "mov", "pcmpestriq", "pcmpestri", "pcmpestrmq", "pcmpestrm",
		"fcom st,", "fcom ", "fcomp st,", "fcomp ", "fucom st,", "fucom ", "fucomp st,", "fucomp ", "fxch st,", "fxch ").Replace(s)
	s = absolute.ReplaceAllString(s, "ds:$1")
	if unsized.MatchString(s) {
		s = width.ReplaceAllString(s, "")
	}
	if m := negative.FindStringSubmatch(s); m != nil {
		v, _ := strconv.ParseUint(m[1], 16, 64)
		d := -int64(v)
		if len(m[1]) == 8 {
			d = -int64(int32(v))
		}
		s = strings.Replace(s, m[0], fmt.Sprintf("-%#x]", d), 1)
	}
	return strings.TrimSpace(hint.ReplaceAllString(s, "prefetch"))
}

// known reports the disagreements that are understood, by what is behind them.
func known(mode Mode, in *Inst, err error, want line) bool {
	name, _, _ := strings.Cut(normalise(want.text), " ")
	if name == "" { // a prefix that does not count gets a line of its own
		return true
	}
	if err != nil {
		return name == "vzeroupper" || name == "vzeroall" || name == "vldmxcsr" || name == "vstmxcsr" || // with a prefix that is undefined
			in.Lock || in.Vex && strip.MatchString(want.text) || // objdump prints LOCK on anything
			strings.HasPrefix(name, "vm") && !in.Vex || // VMX, SVM
			(strings.HasPrefix(name, "v") && !in.Vex || in.Vex && notInV3(want.text)) || // EVEX, XOP
			notInV2[strings.TrimSuffix(name, "64")] ||
			name == "mov" // test registers; CR and segment numbers that do not exist
	}
	if in.Vex && knownVEX(mode, in, want) {
		return true
	}
	switch in.Op {
	case optab.SALC: // objdump 2.40 does not know D6
		return name == "(bad)"
	case optab.WBINVD: // F3 makes it WBNOINVD where that exists
		return true
	case optab.JMPFAR, optab.CALLFAR: // objdump gives the far pointer a width
		return int(in.Len) == want.length
	case optab.MOVSEG: // objdump gives the source register a width
		return int(in.Len) == want.length
	case optab.JCC, optab.LOOP, optab.LOOPE, optab.LOOPNE, optab.JCXZ, optab.JMP, optab.CALL:
		// objdump does not truncate the target to a 16-bit operand size
		return in.OpSize == 2 && int(in.Len) == want.length
	case optab.UD0, optab.UD1: // operand width of an instruction that only faults
		return true
	case optab.LAR, optab.LSL: // objdump names a 32-bit source register; 16 bits are read
		return true
	case optab.NOP: // hint space with later meanings (MPX, CLDEMOTE), and its holes
		return true
	case optab.FWAIT: // objdump joins it to the x87 instruction behind it
		return true
	case optab.FCOM, optab.FCOMP, optab.FSTP, optab.FXCH: // the 8087's aliases
		return name == "(bad)"
	case optab.BSF, optab.BSR: // F2 or F3 that means nothing
		return name == "(bad)"
	case optab.MOVSXD, optab.MOVMSKPS, optab.MOVMSKPD: // width of an operand under redundant 66 or REX.W
		return true
	}
	return false
}

// laterVEX is what later extensions than AVX2 and FMA put behind VEX (and AMD's FMA4).
var laterVEX = regexp.MustCompile(`^(k[a-z]+|v?(gf2p8|pdp|pmadd52|sm[34]|cvtne|bcstne|permil2|fn?m(add|sub)(sub|add)?[ps][sd] |aes.*ymm|pclmul.*ymm)|tile|ldtilecfg|sttilecfg|tdp|cmp[a-z]+xadd|urdmsr|uwrmsr)`)

func notInV3(text string) bool { return laterVEX.MatchString(normalise(text)) }

// knownVEX is known for VEX instructions that are defined.
func knownVEX(mode Mode, in *Inst, want line) bool {
	switch {
	case mode != Mode64 && normalise(want.text) == "(bad)":
		return true // a fourth bit of vvvv, which counts in 64-bit mode only
	case in.Row.Flags&optab.LIG != 0: // objdump names YMM with VEX.L
	case in.Op >= optab.CMPPS && in.Op <= optab.CMPSS, in.Op == optab.CMPPD, in.Op == optab.CMPSDX, in.Op == optab.PCLMULQDQ:
		// the predicate is in the name
	default:
		return false
	}
	return int(in.Len) == want.length
}

// notInV2 is instructions objdump knows and an x86-64-v2 machine does not have,
// and rows whose other prefixes are undefined.
var notInV2 = set(`aadd aand aor axor aesdec128kl aesdec256kl aesdecwide128kl aesdecwide256kl aesenc128kl
	aesenc256kl aesencwide128kl aesencwide256kl clwb encodekey128 encodekey256 enqcmd enqcmds extrq femms
	getsec gf2p8affineinvqb gf2p8affineqb gf2p8mulb insertq invept invlpga invvpid loadiwkey movdir64b
	movdiri movntsd movntss sha1msg1 sha1msg2 sha1nexte sha1rnds4 sha256msg1 sha256msg2 sha256rnds2 umwait
	umonitor tpause wrssd wrssq wrussd wrussq rdsspd rdsspq incsspd incsspq setssbsy clrssbsy rstorssp
	saveprevssp endbr32 endbr64 ptwrite pconfig encls enclu enclv rdpkru wrpkru xbegin xend xabort xtest
	serialize clzero mcommit rdpru monitorx mwaitx stgi clgi skinit clui stui testui uiret senduipi hreset
	psmash pvalidate rmpadjust rmpupdate tdcall seamret seamops seamcall xresldtrk xsusldtrk lkgs
	wrmsrlist rdmsrlist wrmsrns xcrypt-cbc xcrypt-cfb xcrypt-ctr xcrypt-ecb xcrypt-ofb xstore-rng xsha1 xsha256 montmul
	pavgusb pfsub pfadd pfmul pfmax pfmin pfacc pfnacc pfpnacc pfrcp pfrcpit1 pfrcpit2 pfrsqrt pfrsqit1 pfsubr
	pfcmpeq pfcmpge pfcmpgt pi2fd pi2fw pf2id pf2iw pmulhrw pswapd
	fxsave fxrstor ldmxcsr stmxcsr xsave xsavec xsaves xsaveopt xrstor xrstors pmovmskb`)

func set(words string) map[string]bool {
	m := map[string]bool{}
	for _, w := range strings.Fields(words) {
		m[w] = true
	}
	return m
}
