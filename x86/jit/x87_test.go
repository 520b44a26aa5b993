package jit

import (
	"slices"
	"testing"

	"berth/x86/decode"
	"berth/x86/optab"
)

// Which x87 and MMX instructions are left to the caller.
func TestX87AndMMXStepped(t *testing.T) {
	var got []optab.Op
	for _, r := range optab.Rows() {
		mmx := r.Op == optab.EMMS || slices.ContainsFunc(r.Args, func(a optab.Arg) bool {
			return a == optab.Pq || a == optab.Qd || a == optab.Qq || a == optab.Nq
		})
		if !mmx && (r.Op < optab.FirstX87 || r.Op > optab.LastX87) {
			continue
		}
		in := inst{Inst: decode.Inst{Op: r.Op, Row: &r, OpSize: 4, Opcode: r.Opcode, Mem: r.Mod == optab.ModMem}}
		in.classify(false)
		switch {
		case in.how == howStep:
			if !slices.Contains(got, r.Op) {
				got = append(got, r.Op)
			}
		case !in.usesX87():
			t.Errorf("%v does not ask for the x87's registers", r.Op)
		}
	}
	want := []optab.Op{optab.FBLD, optab.FNINIT, optab.FLDENV, optab.FNSTENV, optab.FRSTOR, optab.FNSAVE, optab.MASKMOVQ}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("stepped: %v, want %v", got, want)
	}
}

// Of instructions behind one another only the last stores where it is, unless the
// block may be left before it.
func TestX87PointersStoredOnce(t *testing.T) {
	for _, e := range []struct {
		name string
		code []byte
		want []bool
	}{
		{"fld1, fchs, fabs", []byte{0xd9, 0xe8, 0xd9, 0xe0, 0xd9, 0xe1}, []bool{false, false, true}},
		{"fld1, fld m64, fabs", []byte{0xd9, 0xe8, 0xdd, 0x06, 0xd9, 0xe1}, []bool{true, false, true}},
		{"fld1, jz, fabs", []byte{0xd9, 0xe8, 0x74, 0x00, 0xd9, 0xe1}, []bool{true, false, true}},
		{"fld1, fnstcw, fabs", []byte{0xd9, 0xe8, 0xd9, 0x3e, 0xd9, 0xe1}, []bool{true, false, true}},
		{"fld1, fnstsw ax, fabs", []byte{0xd9, 0xe8, 0xdf, 0xe0, 0xd9, 0xe1}, []bool{false, false, true}},
		{"fld1, hlt", []byte{0xd9, 0xe8, 0xf4}, []bool{true, false}},
	} {
		var tr translation
		tr.c, tr.mode, tr.insts = &Cache{}, decode.Mode64, make([]inst, 0, maxInstructions)
		if !tr.decode(e.code, 0, false) {
			t.Fatal(e.name)
		}
		tr.want()
		tr.wantPointers()
		for i, want := range e.want {
			if tr.insts[i].points != want {
				t.Errorf("%s: instruction %d stores: %v", e.name, i, !want)
			}
		}
	}
}
