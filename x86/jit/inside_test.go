package jit

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"testing"

	"berth/x86/decode"
	"berth/x86/optab"
)

// TestEmittedCodeStaysInside: whatever a guest's instruction is, the code made of it
// reaches memory by the state, at a place that is known or indexed by a temporary, or by a
// temporary that a check has made an address of the host; and it writes neither RSP nor R15.
// docs/threat-model.md rests on this.
func TestEmittedCodeStaysInside(t *testing.T) {
	for _, mode := range []decode.Mode{decode.Mode64, decode.Mode32} {
		f := newFake(t)
		r := rand.New(rand.NewPCG(1, uint64(mode)))
		translated, loops := map[optab.Op]bool{}, 0
		for range 60_000 {
			if f.cache.Full() {
				f.cache.Clear()
			}
			rare, exits := (f.cache.rare+7)&^7, len(f.cache.exits)
			code := randomCode(r)
			if r.IntN(2) == 0 {
				loops += looped(r, code, mode)
			}
			u, ok := f.cache.Translate(code, 0, 0, mode, false, false)
			if !ok {
				continue
			}
			for i := range f.cache.insts[:u.Count] {
				if in := &f.cache.insts[i]; in.how != howStep && in.how != howBad {
					translated[in.Op] = true
				}
			}
			for _, part := range [][]byte{f.cache.mem.rw[u.Entry:f.cache.used], withoutData(f.cache, rare, exits)} {
				if what := outside(part); what != nil {
					t.Fatalf("% x becomes %v in % x", code, what, part)
				}
			}
		}
		if len(translated) < 200 || loops < 10_000 {
			t.Errorf("only %d operations were translated, and %d loops", len(translated), loops)
		}
	}
}

// looped has a branch to the start of code stand behind its first instruction, if that is one, and counts it.
func looped(r *rand.Rand, code []byte, mode decode.Mode) int {
	var in decode.Inst
	if decode.Decode(code, mode, &in) != nil || ends(in.Op) {
		return 0
	}
	op := byte(0xeb)
	if cc := r.IntN(17); cc < 16 {
		op = 0x70 | byte(cc)
	}
	code[in.Len], code[in.Len+1] = op, -in.Len-2
	return 1
}

// withoutData is the code from rare on, with NOPs for what Far exits from number n on compare with.
func withoutData(c *Cache, rare uint32, n int) []byte {
	code := slices.Clone(c.mem.rw[rare:c.rare])
	for i := range c.exits[n:] {
		if at := c.exits[n+i].where; at != 0 {
			copy(code[at-rare:], bytes.Repeat([]byte{0x90}, 16))
		}
	}
	return code
}

// randomCode is bytes that often are instructions.
func randomCode(r *rand.Rand) []byte {
	code := make([]byte, 2*decode.MaxLen)
	for i := range code {
		code[i] = byte(r.Uint32())
	}
	i := 0
	put := func(b byte) { code[i], i = b, i+1 }
	if r.IntN(4) == 0 {
		put([]byte{0x66, 0xf2, 0xf3, 0xf0, 0x64, 0x65, 0x67}[r.IntN(7)])
	}
	switch r.IntN(6) {
	case 0:
		put(0x40 | byte(r.IntN(16)))
	case 1:
		put(0x0f)
	case 2:
		put([]byte{0x66, 0xf3, 0xf2}[r.IntN(3)])
		put(0x0f)
	case 3:
		put(0x66)
		put(0x0f)
		put([]byte{0x38, 0x3a}[r.IntN(2)])
	case 4:
		put(0xc4)
		put(0xe1 + byte(r.IntN(3)))
	}
	return code
}

// outside returns an instruction of emitted code that is not as it should be.
func outside(code []byte) *decode.Inst {
	for len(code) > 0 {
		var in decode.Inst
		if err := decode.Decode(code, decode.Mode64, &in); err != nil {
			in.Len = 1
			return &in
		}
		if in.Mem && in.Op != optab.LEA && in.Op != optab.NOP && !inside(&in) || writesFixed(&in) {
			return &in
		}
		code = code[in.Len:]
	}
	return nil
}

// inside: an index that is not a temporary, or a base that is a guest's register, would
// have the guest choose the address.
func inside(in *decode.Inst) bool {
	temporary := func(r uint8) bool { return r == tmp1 || r == tmp2 }
	if in.Index != decode.NoReg && !temporary(in.Index) {
		return false
	}
	return in.Base == state || temporary(in.Base) && in.Index == decode.NoReg || in.Base == decode.RIP && in.Op == optab.CMP
}

// writesFixed reports an instruction that names RSP or R15 as a register operand, which
// none does.
func writesFixed(in *decode.Inst) bool {
	for _, a := range in.Row.Args {
		switch a {
		case optab.Eb, optab.Ew, optab.Ed, optab.Ev, optab.Ey:
			if r := in.RM; !in.Mem && (r == state || r == rSP && !(a == optab.Eb && !in.Rex)) {
				return true
			}
		case optab.Gb, optab.Gw, optab.Gd, optab.Gv, optab.Gy:
			if r := in.Reg; r == state || r == rSP && !(a == optab.Gb && !in.Rex) {
				return true
			}
		case optab.By:
			if in.V == state || in.V == rSP {
				return true
			}
		}
	}
	return false
}
