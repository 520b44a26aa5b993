package interp

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"berth/x86"
)

// sequence returns a few random instructions that neither branch nor leave
// testData, where RBX and RSI point.
func sequence(r *rand.Rand) []byte {
	var code []byte
	for range 1 + r.IntN(8) {
		code = append(code, instruction(r)...)
	}
	return code
}

var agreeOpcodes = [][]byte{
	{0x00}, {0x01}, {0x02}, {0x03}, {0x08}, {0x09}, {0x0a}, {0x0b}, {0x10}, {0x11}, {0x12}, {0x13}, {0x18}, {0x19}, {0x1a}, {0x1b},
	{0x20}, {0x21}, {0x22}, {0x23}, {0x28}, {0x29}, {0x2a}, {0x2b}, {0x30}, {0x31}, {0x32}, {0x33}, {0x38}, {0x39}, {0x3a}, {0x3b},
	{0x63}, {0x84}, {0x85}, {0x86}, {0x87}, {0x88}, {0x89}, {0x8a}, {0x8b}, {0x8d},
	{0x80}, {0x81}, {0x83}, {0xc0}, {0xc1}, {0xd0}, {0xd1}, {0xd2}, {0xd3}, {0xf6}, {0xf7}, {0xfe}, {0xff}, {0xc6}, {0xc7},
	{0x69}, {0x6b}, {0x0f, 0xaf}, {0x0f, 0xb6}, {0x0f, 0xb7}, {0x0f, 0xbe}, {0x0f, 0xbf}, {0x0f, 0xa3}, {0x0f, 0xab}, {0x0f, 0xba},
	{0x0f, 0x90}, {0x0f, 0x92}, {0x0f, 0x94}, {0x0f, 0x97}, {0x0f, 0x98}, {0x0f, 0x9a}, {0x0f, 0x9c}, {0x0f, 0x9f},
	{0x0f, 0x40}, {0x0f, 0x43}, {0x0f, 0x45}, {0x0f, 0x46}, {0x0f, 0x4b}, {0x0f, 0x4d}, {0x0f, 0x4e},
	{0x0f, 0xc0}, {0x0f, 0xc1}, {0x0f, 0xb0}, {0x0f, 0xb1}, {0x0f, 0xa4}, {0x0f, 0xad}, {0x0f, 0xbc}, {0x0f, 0xbd},
	{0x50}, {0x58}, {0x98}, {0x99}, {0x9c}, {0x9f}, {0x9e}, {0xf5}, {0xf8}, {0xf9}, {0x90}, {0xb0}, {0xb8}, {0x05}, {0x3c},
	{0x70}, {0x72}, {0x74}, {0x75}, {0x76}, {0x77}, {0x78}, {0x79}, {0x7c}, {0x7d}, {0x7e}, {0x7f},
}

// instruction encodes one with random operands.
func instruction(r *rand.Rand) []byte {
	op := agreeOpcodes[r.IntN(len(agreeOpcodes))]
	var p []byte
	if r.IntN(6) == 0 {
		p = append(p, 0x66)
	}
	rex := byte(0)
	if r.IntN(3) > 0 {
		rex = 0x40 | byte(r.IntN(16))&^1 // B stays clear: the bases are RBX and RSI
		p = append(p, rex)
	}
	last := op[len(op)-1]
	p = append(p, op...)
	plain := len(op) == 1
	switch {
	case plain && last >= 0x70 && last < 0x80:
		return append(p[len(p)-1:], 0) // to the next instruction, either way
	case plain && (last&0xf8 == 0x50 || last&0xf8 == 0x58):
		p[len(p)-1] += byte(r.IntN(3)) // not RBX, RSP
		return p
	case plain && (last == 0xb8 || last == 0xb0 || last == 0x05 || last == 0x3c):
		var imm [8]byte
		binary.LittleEndian.PutUint64(imm[:], r.Uint64())
		n := 4
		switch {
		case last == 0xb0 || last == 0x3c:
			n = 1
		case rex&8 != 0 && last == 0xb8:
			n = 8
		case rex&8 == 0 && p[0] == 0x66:
			n = 2
		}
		return append(p, imm[:n]...)
	case plain && (last >= 0x90 && last < 0xa0 || last >= 0xf5 && last <= 0xf9 && last != 0xf6 && last != 0xf7):
		return p
	}
	return modrm(r, p, last, plain)
}

// modrm appends operands: a register below RBX, or memory based on RBX or RSI.
func modrm(r *rand.Rand, p []byte, last byte, plain bool) []byte {
	regs := []byte{0, 1, 2, 5, 7}
	reg := regs[r.IntN(len(regs))]
	group := plain && (last >= 0x80 && last <= 0x83 || last >= 0xc0 && last <= 0xc1 || last >= 0xd0 && last <= 0xd3)
	switch {
	case group:
		reg = byte(r.IntN(8))
	case plain && last&0xfe == 0xf6:
		reg = byte(r.IntN(6)) // no division
	case plain && last&0xfe == 0xfe:
		reg = byte(r.IntN(2))
	case plain && last&0xfe == 0xc6:
		reg = 0
	case !plain && last == 0xba:
		reg = 4 + byte(r.IntN(4))
	}
	mem := r.IntN(2) == 0 || last == 0x8d && plain
	imm := 0
	switch {
	case plain && (last == 0x80 || last == 0x83 || last&0xfe == 0xc0 || last == 0xc6 || last == 0x6b), !plain && (last == 0xba || last == 0xa4):
		imm = 1
	case plain && last == 0xf6 && reg < 2:
		imm = 1
	case plain && (last == 0x81 || last == 0xc7 || last == 0x69 || last == 0xf7 && reg < 2):
		imm = 4
		if p[0] == 0x66 && (len(p) < 2 || p[1]&0xf8 != 0x48) {
			imm = 2
		}
	}
	if !plain && last == 0xa3 || !plain && last == 0xab {
		mem = false // the bit offset would leave the data
	}
	if mem {
		p = append(p, 0x40|reg<<3|[]byte{3, 6}[r.IntN(2)], byte(r.IntN(256)))
	} else {
		p = append(p, 0xc0|reg<<3|regs[r.IntN(len(regs))])
	}
	for range imm {
		p = append(p, byte(r.Uint32()))
	}
	return p
}

// TestShortcutsAgree runs random sequences through the run loop and through the
// instructions' definitions; everything must come out alike.
func TestShortcutsAgree(t *testing.T) {
	if translate {
		t.Skip("flags that are undefined are the host's in translated code: see tests/hostcpu")
	}
	r := rand.New(rand.NewPCG(1, 2))
	fast, slow := newTestCPU(t, nil), newTestCPU(t, nil)
	for i := range 20000 {
		code := append(sequence(r), 0x0f, 0x0b)
		seed := r.Uint64()
		for _, c := range []*CPU{fast, slow} {
			q := rand.New(rand.NewPCG(seed, 0))
			for n := range 16 {
				c.R[n] = q.Uint64()
				if q.IntN(3) == 0 {
					c.R[n] = uint64(int64(int8(c.R[n])))
				}
			}
			c.R[x86.RBX], c.R[x86.RSI], c.R[x86.RSP] = testData+0x1000, testData+0x1ffc, testStack
			var p [0x200]byte
			for n := range p {
				p[n] = byte(q.Uint32())
			}
			writeTest(t, c, testData+0x1000-0x80, p[:])
			writeTest(t, c, testData+0x1ffc-0x100, p[:])
			c.RIP = testCode + uint64(i%64)*64
			writeTest(t, c, c.RIP, code)
			c.invalidateCode(c.RIP, 128)
			c.setStatus(q.Uint64())
		}
		fs, ss := runToFault(fast, false), runToFault(slow, true)
		if fs != ss || fast.exc != slow.exc || fast.RIP != slow.RIP || fast.rflags() != slow.rflags() ||
			[16]uint64(fast.R[:16]) != [16]uint64(slow.R[:16]) || readTest(t, fast) != readTest(t, slow) {
			t.Fatalf("sequence %d: % x\nfast %d %+v rip %#x flags %#x %x\nslow %d %+v rip %#x flags %#x %x", i, code,
				fs, fast.exc, fast.RIP, fast.rflags(), fast.R[:16], ss, slow.exc, slow.RIP, slow.rflags(), slow.R[:16])
		}
	}
	if fast.Instructions != slow.Instructions {
		t.Errorf("instructions: %d by blocks, %d by steps", fast.Instructions, slow.Instructions)
	}
}

func writeTest(t *testing.T, c *CPU, gpa uint64, p []byte) {
	if err := c.cfg.Memory.Write(gpa, p); err != nil {
		t.Fatal(err)
	}
}

func readTest(t *testing.T, c *CPU) (p [0x2000]byte) {
	if err := c.cfg.Memory.Read(testData+0xc00, p[:]); err != nil {
		t.Fatal(err)
	}
	return p
}
