package fp

import (
	"bufio"
	"fmt"
	"os"
	"testing"

	"berth/x86/optab"
)

// TestUnmaskedFlags compares with what an AMD EPYC reported to a SIGFPE handler
// (Intel SDM vol. 1 §11.5.2, §11.5.3). Each line: operation, destination, source,
// MXCSR, whether it trapped, the flags then set, the result.
func TestUnmaskedFlags(t *testing.T) {
	ops := map[string]optab.Op{}
	for op := optab.FirstSSE; op <= optab.LastSSE; op++ {
		ops[op.String()] = op
	}
	f, err := os.Open("testdata/unmasked.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	lines, bad := 0, 0
	for sc := bufio.NewScanner(f); sc.Scan(); lines++ {
		var name string
		var d, s, want [2]uint64
		var csr, flags uint32
		var trapped int
		if _, err := fmt.Sscanf(sc.Text(), "%s %x %x %x %x %x %d %x %x %x", &name, &d[0], &d[1], &s[0], &s[1], &csr, &trapped,
			&flags, &want[0], &want[1]); err != nil {
			t.Fatalf("%q: %v", sc.Text(), err)
		}
		for _, a := range []Arith{Native, Soft} {
			got := d
			f := a.Float(ops[name], &got, &s, 0, csr)
			trap := f&^Masked(csr) != 0
			if uint32(f) != flags || trap != (trapped == 1) || !trap && got != want {
				t.Errorf("%s: soft %t: flags %02x, result %x", sc.Text(), a, f, got)
				if bad++; bad > 20 {
					t.FailNow()
				}
			}
		}
	}
	if lines < 100 {
		t.Errorf("only %d lines", lines)
	}
}
