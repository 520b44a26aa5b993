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
	n := 0
	for _, row := range rows {
		mnemonic, encoding, valid32, valid64, feature, tags := row[0], row[1], row[2], row[3], row[4], row[5]
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
	t.Logf("%d encodings", n)
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
