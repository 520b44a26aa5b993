//go:build amd64

package hostcpu

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"berth/x86"
	"berth/x86/decode"
	"berth/x86/jit"
)

// hostOnly reports the encodings that x86/optab does not have and an AMD EPYC or, below, an Intel Xeon does.
func hostOnly(code []byte) bool {
	p := bytes.TrimLeftFunc(code, func(r rune) bool { return r == 0x66 })
	for len(p) > 0 && (p[0] == 0xf2 || p[0] == 0xf3) {
		p = p[1:]
	}
	prefixed := len(p) < len(code)
	switch {
	case p[0]&^1 == 0xc6:
		return p[1] == 0xf8 && intelHost() // XABORT, XBEGIN
	case p[0] != 0x0f:
		return false
	case p[1] == 0x01:
		return p[2] >= 0xc0 // SVM, RDPRU, CLZERO and other whole-ModRM instructions
	case p[1] == 0x2b, p[1] == 0x78, p[1] == 0x79:
		return prefixed // SSE4a
	case p[1] == 0x38:
		// SHA, GFNI; shadow stacks; MOVDIRI, MOVDIR64B
		return p[2] >= 0xc8 && p[2] <= 0xcd || p[2] == 0xcf || p[2] == 0xf5 || p[2] == 0xf6 || p[2] == 0xf8 || p[2] == 0xf9
	case p[1] == 0x3a:
		return p[2] == 0xcc || p[2] == 0xce || p[2] == 0xcf || p[2] == 0xf0 && intelHost() // SHA, GFNI; HRESET
	case p[1] == 0xae:
		return code[0] == 0x66 && p[2]>>3&7 == 6 || code[0] == 0xf3 && p[2]>>3&7 == 4 && intelHost() // CLWB; PTWRITE
	}
	return false
}

// undefinedCases is every opcode with every prefix and ModRM.reg that decode
// says is undefined.
func undefinedCases(mode decode.Mode) []Case {
	var s State
	s.GPR[x86.RAX], s.GPR[x86.RSP], s.RFLAGS = sandboxBase+0x800, sandboxBase+0x1000, 0x202
	s.setFPU(&x86.FPU{FCW: 0x37f, MXCSR: 0x1f80})
	var all []Case
	for _, esc := range [][]byte{{}, {0x0f}, {0x0f, 0x38}, {0x0f, 0x3a}} {
		for _, pfx := range [][]byte{{}, {0x66}, {0xf3}, {0xf2}} {
			for n := range 256 * 16 {
				op, form := byte(n>>4), byte(n&15)
				if len(esc) == 0 && (op == 0xc4 || op == 0xc5 || op == 0x62 || op == 0x8f) {
					continue // EVEX, XOP; of VEX see undefinedVEX
				}
				modrm := form & 7 << 3
				if form >= 8 {
					modrm |= 0xc0
				}
				code := bytes.Join([][]byte{pfx, esc, {op, modrm, 1, 2, 3, 4}}, nil)
				var in decode.Inst
				if decode.Decode(append(code[:len(code):len(code)], 0xcc, 0xcc, 0xcc, 0xcc, 0xcc), mode, &in) == nil || hostOnly(code) {
					continue
				}
				all = append(all, Case{Mode: mode, Code: code, State: s})
			}
		}
	}
	return append(all, undefinedVEX(mode, s)...)
}

// undefinedVEX is likewise of every map, opcode, pp, L and W of VEX, with one vvvv and
// ModRM each.
func undefinedVEX(mode decode.Mode, s State) []Case {
	if !jit.AVX() {
		return nil
	}
	var all []Case
	r := rand.New(rand.NewPCG(1, uint64(mode)))
	for n := range 3 * 256 * 16 {
		opMap, op := byte(n>>12)+1, byte(n>>4)
		last := byte(n&3) | byte(n>>2&1)<<2 | byte(n>>3&1)<<7 | pickOf(r, []byte{15, 15, 7, 0})<<3
		modrm := byte(r.Uint32())
		if modrm < 0xc0 {
			modrm &= 0x38
		}
		code := []byte{0xc4, 0xe0 | opMap, last, op, modrm, 1, 2, 3, 4}
		var in decode.Inst
		if decode.Decode(append(code[:len(code):len(code)], 0xcc, 0xcc, 0xcc, 0xcc, 0xcc), mode, &in) == nil || hostOnlyVEX(opMap, op, last) ||
			mode != decode.Mode64 && opMap == 3 && op == 1 { // AMD ignores VPERMPD's W there
			continue
		}
		all = append(all, Case{Mode: mode, Code: code, State: s})
	}
	return all
}

// hostOnlyVEX reports the VEX encodings of later extensions: AVX-512's mask
// registers, VAES, VPCLMULQDQ, GFNI, AVX-VNNI and AVX-IFMA.
func hostOnlyVEX(opMap, op, last byte) bool {
	switch opMap {
	case 1:
		return op >= 0x41 && op <= 0x4b || op >= 0x90 && op <= 0x93 || op == 0x98 || op == 0x99
	case 2:
		return op >= 0xdc && op <= 0xdf || op == 0xcf || op >= 0x50 && op <= 0x53 || op == 0xb4 || op == 0xb5
	}
	return op >= 0x30 && op <= 0x33 || op == 0x44 && last&4 != 0 || op == 0xce || op == 0xcf
}

// TestUndefined: what the decoder calls undefined is #UD on the host and in the
// soft engine.
func TestUndefined(t *testing.T) {
	p := newPair(t, true)
	image := Image(1)
	r := p.results(maxCases)
	for mode := decode.Mode16; mode <= decode.Mode64; mode++ {
		all := undefinedCases(mode)
		if mode == decode.Mode16 {
			for i := range all {
				all[i].State.GPR[x86.RSP] = 0x1000
			}
		}
		for i := 0; i < len(all); i += maxCases {
			batch := all[i:min(i+maxCases, len(all))]
			p.run(t, image, batch, r)
			for j := range batch {
				if r.want[j].Vector != x86.UD {
					t.Errorf("%d-bit % x: vector %d on the host", 16<<mode, batch[j].Code, r.want[j].Vector)
				}
				for e := range p.got {
					if v := r.got[e][j].Vector; v != x86.UD {
						t.Errorf("%d-bit % x: vector %d, %s", 16<<mode, batch[j].Code, v, p.got[e].name)
					}
				}
			}
		}
		t.Logf("%d-bit: %d undefined encodings", 16<<mode, len(all))
	}
}
