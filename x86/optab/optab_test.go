package optab

import "testing"

// TestRows checks each row against itself.
func TestRows(t *testing.T) {
	seen := map[[7]int]bool{}
	for _, r := range Rows() {
		key := [7]int{int(r.Map), int(r.Opcode), int(r.Prefix), int(r.Digit), int(r.Mod), int(r.RM),
			int(r.Flags & (No64 | Only64 | RexW))}
		if seen[key] && r.Op != NOP && r.Op != XCHG {
			t.Errorf("%v (%x): encoding given twice", r.Op, r.Opcode)
		}
		seen[key] = true
		if r.Op == Invalid || int(r.Op) >= NumOps {
			t.Errorf("row %x has no operation", r.Opcode)
		}
		if r.Digit > 7 || r.RM > 7 || r.RM >= 0 && (r.Mod != ModReg || r.Digit < 0) {
			t.Errorf("%v (%x): digit %d, rm %d, mod %d", r.Op, r.Opcode, r.Digit, r.RM, r.Mod)
		}
		if r.Flags&Lockable != 0 && (r.Mod == ModReg || r.Mod == ModNone) {
			t.Errorf("%v (%x): LOCK without a memory form", r.Op, r.Opcode)
		}
		if r.Flags&No64 != 0 && r.Flags&(Only64|Default64|Force64) != 0 && r.Op != PUSHSEG && r.Op != POPSEG {
			t.Errorf("%v (%x): 64-bit properties outside 64-bit mode", r.Op, r.Opcode)
		}
	}
}

// TestNames: every operation has a name of its own, and the families hold all.
func TestNames(t *testing.T) {
	names := map[string]Op{}
	for op := Op(0); int(op) < NumOps; op++ {
		s := op.String()
		if other, ok := names[s]; ok || s == "" || s == "Op?" {
			t.Errorf("operation %d is called %q, as %d", op, s, other)
		}
		names[s] = op
	}
	if LastInteger+1 != FirstSystem || LastSystem+1 != FirstX87 || LastX87+1 != FirstSSE || LastSSE+1 != FirstAVX ||
		LastAVX+1 != FirstBMI || int(LastBMI)+1 != NumOps {
		t.Error("the families leave gaps")
	}
}
