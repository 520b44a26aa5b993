package decode

import (
	"bytes"
	"encoding/csv"
	"encoding/hex"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestAgainstCSV checks the table's completeness against golang.org/x/arch's
// list of the instructions in Intel's manual.
func TestAgainstCSV(t *testing.T) {
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "golang.org/x/arch").Output()
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(filepath.Join(strings.TrimSpace(string(dir)), "x86", "x86.csv"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r := csv.NewReader(f)
	r.Comment = '#'
	rows, err := r.ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	n, vex := 0, 0
	for _, row := range rows {
		mnemonic, encoding, valid32, valid64, feature, tags := row[0], row[1], row[2], row[3], row[4], row[5]
		if strings.HasPrefix(encoding, "VEX") && !strings.HasPrefix(feature, "AVX512") {
			checkVEX(t, mnemonic, encoding)
			vex++
			continue
		}
		if strings.Contains(encoding, "VEX") || notInList(feature, mnemonic) {
			continue
		}
		if valid64 == "V" {
			checkEncoding(t, Mode64, mnemonic, encoding, tags)
			n++
		}
		if valid32 == "V" && !strings.Contains(encoding, "REX") { // the list's slips
			checkEncoding(t, Mode32, mnemonic, encoding, tags)
			n++
		}
	}
	t.Logf("%d encodings, %d with VEX", n, vex)
}

// checkVEX checks one encoding with VEX: it decodes, to that mnemonic.
func checkVEX(t *testing.T, mnemonic, encoding string) {
	t.Helper()
	f := strings.Fields(strings.NewReplacer("W0.1D", "W0 1D", "660F", "66.0F").Replace(encoding)) // the list's slips
	spec, f := "."+f[0]+".", f[1:]
	has := func(s string) byte {
		if strings.Contains(spec, "."+s+".") {
			return 1
		}
		return 0
	}
	vvvv := byte(0)
	if has("NDS")|has("NDD")|has("DDS") != 0 {
		vvvv = 5
	}
	p := []byte{0xc4, 0xe0 | 1 + has("0F38") + 2*has("0F3A"), has("W1")<<7 | ^vvvv&15<<3 | has("256")<<2 | has("66") + 2*has("F3") + 3*has("F2")}
	args := mnemonic[strings.IndexByte(mnemonic+" ", ' '):]
	for _, tok := range f {
		switch {
		case tok == "/r" && strings.Contains(args, "vm"):
			p = append(p, 0x04, 0x08)
		case tok == "/r" && !strings.Contains(strings.NewReplacer("xmm", "", "ymm", "", "imm", "").Replace(args), "/m") &&
			strings.Contains(strings.NewReplacer("xmm", "", "ymm", "", "imm", "").Replace(args), "m"):
			p = append(p, 0x00)
		case tok == "/r":
			p = append(p, 0xc2)
		case tok[0] == '/' && (tok == "/is4" || strings.HasPrefix(mnemonic, "VLDMXCSR") || strings.HasPrefix(mnemonic, "VSTMXCSR")):
			p = append(p, (tok[1]-'0')<<3&0x38)
		case tok[0] == '/' && len(tok) == 2:
			p = append(p, 0xc2|(tok[1]-'0')<<3)
		case tok == "ib":
			p = append(p, 0x30)
		default:
			b, err := hex.DecodeString(tok)
			if err != nil {
				t.Fatalf("token %q of %q", tok, encoding)
			}
			p = append(p, b...)
		}
	}
	var in Inst
	err := Decode(p, Mode64, &in)
	name, _, _ := strings.Cut(strings.ToLower(mnemonic), " ")
	got, _, _ := strings.Cut(in.Text(0), " ")
	if err != nil || int(in.Len) != len(p) || got != name {
		t.Errorf("%s (%s): % x: %v, %v, length %d", mnemonic, encoding, p, err, &in, in.Len)
	}
}

// notInList is what an x86-64-v2 machine does not have.
func notInList(feature, mnemonic string) bool {
	switch feature {
	case "SHA", "RTM", "HLE", "HLE or RTM", "AVX":
		return true
	}
	name, _, _ := strings.Cut(mnemonic, " ")
	if isPrefix := name == "LOCK" || name == "REP" || name == "REPE" || name == "REPNE" || name == "REPZ" || name == "REPNZ"; isPrefix {
		return true
	}
	return name == "MOVNTSS" || name == "MOVNTSD" || strings.Contains(mnemonic, "TR0-TR7") // SSE4a; the 386's test registers
}

func checkEncoding(t *testing.T, mode Mode, mnemonic, encoding, tags string) {
	t.Helper()
	for _, modrm := range modrms(mnemonic, encoding, tags) {
		p := encode(t, mode, encoding, tags, modrm)
		var in Inst
		err := Decode(p, mode, &in)
		switch {
		case err != nil:
			t.Errorf("%d-bit %s (%s): % x: %v", 16<<mode, mnemonic, encoding, p, err)
		case int(in.Len) != len(p):
			t.Errorf("%d-bit %s (%s): % x: length %d of %d, %v", 16<<mode, mnemonic, encoding, p, in.Len, len(p), &in)
		}
	}
}

// modrms is the ModRM bytes to try, register and memory form, reg left to encode.
func modrms(mnemonic, encoding, tags string) []byte {
	_, args, _ := strings.Cut(mnemonic, " ")
	regOnly := strings.Contains(tags, "modrm_regonly")
	memOnly := strings.Contains(tags, "modrm_memonly")
	if !strings.Contains(encoding, "/") {
		return []byte{0xc0}
	}
	hasMem := strings.Contains(args, "m") && strings.Contains(strings.NewReplacer("xmm", "", "imm", "", "mm1", "", "mm2", "", "mm", "").Replace(args), "m")
	switch {
	case strings.HasPrefix(mnemonic, "MOVHPD") || strings.HasPrefix(mnemonic, "MOVLPD"): // the list allows registers
		return []byte{0x00}
	case strings.HasPrefix(mnemonic, "WRFSBASE") || strings.HasPrefix(mnemonic, "WRGSBASE"): // and memory
		return []byte{0xc0}
	case regOnly || !hasMem:
		return []byte{0xc0}
	case memOnly || !strings.Contains(args, "/m"):
		return []byte{0x00}
	}
	return []byte{0xc0, 0x00}
}

func encode(t *testing.T, mode Mode, encoding, tags string, modrm byte) []byte {
	t.Helper()
	var p []byte
	rel16 := mode == Mode32 && strings.Contains(encoding, " cw")
	if rel16 || strings.Contains(tags, "operand16") && !strings.Contains(tags, "operand32") {
		p = append(p, 0x66)
	}
	size := map[string]int{"ib": 1, "iw": 2, "id": 4, "io": 8, "cb": 1, "cw": 2, "cd": 4, "cp": 6, "cm": 4}
	if mode == Mode64 {
		size["cm"] = 8
	}
	rex := byte(0)
	for _, tok := range strings.Fields(strings.TrimPrefix(encoding, "9B ")) { // FSTCW is FWAIT and FNSTCW
		switch {
		case tok == "+" || tok == "NP" || tok == "PFX":
		case tok == "REX.W":
			rex = 0x48
		case tok == "REX":
			rex = 0x40
		case tok == "/r":
			p = append(p, modrm)
		case tok[0] == '/':
			p = append(p, modrm|(tok[1]-'0')<<3)
		case size[tok] > 0:
			p = append(p, make([]byte, size[tok])...)
		case strings.HasPrefix(tok, "+r") || tok == "+i":
		default:
			b, err := hex.DecodeString(tok[:2])
			if err != nil {
				t.Fatalf("token %q of %q", tok, encoding)
			}
			p = append(p, b...)
		}
	}
	return withREX(p, rex)
}

// withREX puts rex between the prefixes and the opcode.
func withREX(p []byte, rex byte) []byte {
	if rex == 0 {
		return p
	}
	i := 0
	for p[i] == 0x66 || p[i] == 0xf2 || p[i] == 0xf3 {
		i++
	}
	return append(append(bytes.Clone(p[:i]), rex), p[i:]...)
}
