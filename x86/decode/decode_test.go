package decode

import (
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	"berth/x86"
	"berth/x86/optab"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	p, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestDecode gives text and length where prefixes, modes and aliases meet.
func TestDecode(t *testing.T) {
	for _, c := range []struct {
		mode  Mode
		bytes string
		want  string
	}{
		{Mode64, "90", "nop"},
		{Mode64, "f3 90", "pause"},
		{Mode64, "41 90", "xchg r8d,eax"},
		{Mode64, "f3 49 90", "pause"}, // on AMD xchg r8,rax
		{Mode64, "66 90", "nop"},
		{Mode64, "f3 0f b8 c1", "popcnt eax,ecx"},
		{Mode64, "66 f3 0f b8 c1", "popcnt ax,cx"},
		{Mode64, "66 f3 48 0f b8 c1", "popcnt rax,rcx"},
		{Mode64, "f3 0f bc c1", "tzcnt eax,ecx"},
		{Mode64, "0f bc c1", "bsf eax,ecx"},
		{Mode64, "66 f2 0f 38 f1 c1", "crc32 eax,cx"},
		{Mode64, "f2 48 0f 38 f1 c1", "crc32 rax,rcx"},
		{Mode64, "f2 0f 38 f0 c1", "crc32 eax,cl"},
		{Mode64, "66 0f 38 f0 01", "movbe ax,WORD PTR [rcx]"},
		{Mode64, "f3 0f 38 f0 01", "(bad)"},
		{Mode64, "48 66 01 c1", "add cx,ax"},                  // REX not right before the opcode
		{Mode64, "66 48 01 c1", "add rcx,rax"},                // REX.W beats 66
		{Mode64, "66 f3 0f 10 c1", "movss xmm0,xmm1"},         // F3 beats 66
		{Mode64, "f3 f2 0f 10 c1", "movsd xmm0,xmm1"},         // the last of F2 and F3
		{Mode64, "f2 f3 0f 10 c1", "movss xmm0,xmm1"},         //
		{Mode64, "64 3e 8b 00", "mov eax,DWORD PTR fs:[rax]"}, // DS override ignored, FS stays
		{Mode64, "3e 8b 04 24", "mov eax,DWORD PTR [rsp]"},
		{Mode64, "8b 05 10 00 00 00", "mov eax,DWORD PTR [rip+0x10]"},
		{Mode64, "67 8b 05 10 00 00 00", "mov eax,DWORD PTR [eip+0x10]"},
		{Mode64, "8b 04 25 10 00 00 80", "mov eax,DWORD PTR ds:0xffffffff80000010"},
		{Mode64, "43 8b 44 a5 00", "mov eax,DWORD PTR [r13+r12*4]"},
		{Mode64, "a1 88 77 66 55 44 33 22 11", "mov eax,DWORD PTR ds:0x1122334455667788"},
		{Mode64, "67 a1 44 33 22 11", "mov eax,DWORD PTR ds:0x11223344"},
		{Mode64, "48 b8 88 77 66 55 44 33 22 11", "mov rax,0x1122334455667788"},
		{Mode64, "48 c7 c0 ff ff ff ff", "mov rax,0xffffffffffffffff"},
		{Mode64, "66 e8 00 00 00 00", "call 0x6"}, // Intel: 66 does nothing to near branches
		{Mode64, "66 50", "push ax"},
		{Mode64, "41 ff f0", "push r8"},
		{Mode64, "63 c1", "movsxd eax,ecx"},
		{Mode32, "63 c1", "arpl cx,ax"},
		{Mode64, "0f c7 09", "cmpxchg8b QWORD PTR [rcx]"},
		{Mode64, "f0 48 0f c7 09", "lock cmpxchg16b XMMWORD PTR [rcx]"},
		{Mode64, "66 48 0f 3a 16 c1 02", "pextrq rcx,xmm0,0x2"},
		{Mode64, "44 0f 20 c0", "mov rax,cr8"},
		{Mode64, "0f 20 00", "mov rax,cr0"}, // mod is ignored
		{Mode64, "0f 18 08", "prefetch BYTE PTR [rax]"},
		{Mode64, "f3 0f 1e fa", "nop edx"}, // ENDBR64
		{Mode64, "0f 01 f8", "swapgs"},
		{Mode64, "0f 01 f9", "rdtscp"},
		{Mode64, "0f 01 38", "invlpg BYTE PTR [rax]"},
		{Mode64, "c0 f0 01", "shl al,0x1"},
		{Mode64, "f6 c8 01", "test al,0x1"},
		{Mode64, "f3 a6", "repz cmps BYTE PTR ds:[rsi],BYTE PTR es:[rdi]"},
		{Mode64, "f3 48 ab", "rep stos QWORD PTR es:[rdi],rax"},
		{Mode64, "48 6d", "ins DWORD PTR es:[rdi],dx"},
		{Mode64, "d6", "(bad)"},
		{Mode64, "c5 f8 77", "vzeroupper"},
		{Mode64, "c5 fc 77", "vzeroall"},
		{Mode64, "66 c5 f8 77", "(bad)"},
		{Mode64, "48 c5 f8 77", "(bad)"},
		{Mode64, "f0 c5 f8 77", "(bad)"},
		{Mode64, "f3 c5 f8 77", "(bad)"},
		{Mode64, "c5 f9 77", "(bad)"},
		{Mode64, "c5 b8 77", "(bad)"}, // vvvv
		{Mode64, "c5 f4 58 c2", "vaddps ymm0,ymm1,ymm2"},
		{Mode64, "c5 ec 5f 03", "vmaxps ymm0,ymm2,YMMWORD PTR [rbx]"},
		{Mode64, "c4 41 38 58 c9", "vaddps xmm9,xmm8,xmm9"},
		{Mode64, "c4 e3 71 4a c2 30", "vblendvps xmm0,xmm1,xmm2,xmm3"},
		{Mode64, "c4 e2 f9 98 c1", "vfmadd132pd xmm0,xmm0,xmm1"},
		{Mode64, "c4 e2 69 92 04 8b", "vgatherdps xmm0,DWORD PTR [rbx+xmm1*4],xmm2"},
		{Mode64, "c4 e2 79 92 04 8b", "(bad)"}, // one register twice
		{Mode64, "c4 e2 69 92 00", "(bad)"},
		{Mode64, "c4 e2 f0 f2 c2", "andn rax,rcx,rdx"},
		{Mode64, "c4 e2 f4 f2 c2", "(bad)"}, // L
		{Mode64, "c4 e3 fd 00 c1 1b", "vpermq ymm0,ymm1,0x1b"},
		{Mode64, "c4 e3 7d 00 c1 1b", "(bad)"}, // W
		{Mode64, "c4 e0 f8 77", "(bad)"},       // map 0
		{Mode32, "c4 e2 f0 f2 c2", "andn eax,ecx,edx"},
		{Mode32, "c5 f4 58 c2", "vaddps ymm0,ymm1,ymm2"},
		{Mode16, "c5 f4 58 c2", "vaddps ymm0,ymm1,ymm2"},
		{Mode64, "82 c0 01", "(bad)"},
		{Mode64, "f0 01 c1", "(bad)"},
		{Mode64, "f0 8b 01", "(bad)"},
		{Mode64, "f0 39 01", "(bad)"},
		{Mode64, "8e c8", "(bad)"}, // MOV CS
		{Mode64, "0f 20 c8", "(bad)"},
		{Mode32, "82 c0 01", "add al,0x1"},
		{Mode32, "d6", "salc"},
		{Mode32, "f1", "int1"},
		{Mode32, "c5 00", "lds eax,[eax]"},
		{Mode32, "c4 00", "les eax,[eax]"},
		{Mode32, "62 00", "bound eax,[eax]"},
		{Mode32, "48", "dec eax"},
		{Mode32, "ea 78 56 34 12 08 00", "jmp far 0x8:0x12345678"},
		{Mode16, "ea 34 12 00 f0", "jmp far 0xf000:0x1234"},
		{Mode16, "66 ea 78 56 34 12 08 00", "jmp far 0x8:0x12345678"},
		{Mode16, "8b 42 10", "mov ax,WORD PTR [bp+si+0x10]"},
		{Mode16, "67 8b 04 65 10 00 00 00", "mov ax,WORD PTR ds:0x10"},
		{Mode16, "8b 0e 34 12", "mov cx,WORD PTR ds:0x1234"},
		{Mode16, "0f 22 c0", "mov cr0,eax"},
		{Mode16, "c8 10 00 02", "enter 0x10,0x2"},
		{Mode32, "d9 e8", "fld1"},
		{Mode32, "dc d1", "fcom st,st(1)"},
		{Mode32, "da c1", "fcmovb st,st(1)"},
		{Mode32, "db d1", "fcmovnbe st,st(1)"},
		{Mode32, "df e0", "fnstsw ax"},
		{Mode32, "df e1", "(bad)"},
	} {
		var in Inst
		p := unhex(t, c.bytes)
		err := Decode(p, c.mode, &in)
		got := "(bad)"
		if err == nil {
			got = in.Text(0)
		} else if !errors.Is(err, ErrUndefined) {
			got = err.Error()
		}
		if got != c.want || err == nil && int(in.Len) != len(p) {
			t.Errorf("%d-bit %s: got %q, length %d; want %q", 16<<c.mode, c.bytes, got, in.Len, c.want)
		}
	}
}

// TestSegmentDefault: SDM vol. 1 table 3-5.
func TestSegmentDefault(t *testing.T) {
	for bytes, want := range map[string]uint8{
		"8b 00": x86.DS, "8b 45 00": x86.SS, "8b 04 24": x86.SS, "8b 04 28": x86.DS, "8b 44 05 00": x86.SS,
		"41 8b 04 24": x86.DS, "41 8b 45 00": x86.DS, "65 8b 04 24": x86.GS,
	} {
		var in Inst
		if err := Decode(unhex(t, bytes), Mode64, &in); err != nil || in.Seg != want {
			t.Errorf("%s: segment %d, %v; want %d", bytes, in.Seg, err, want)
		}
	}
}

// TestLengthLimit: SDM vol. 2 §2.3.11: 15 bytes, then #GP.
func TestLengthLimit(t *testing.T) {
	p := append([]byte(strings.Repeat("\x66", 14)), 0x90, 0x90)
	var in Inst
	if err := Decode(p, Mode64, &in); err != nil || in.Len != MaxLen {
		t.Errorf("14 prefixes: %v, length %d", err, in.Len)
	}
	p = append([]byte{0x66}, p...)
	if err := Decode(p, Mode64, &in); !errors.Is(err, ErrTruncated) {
		t.Errorf("15 prefixes: %v", err)
	}
	for i := range 7 {
		if err := Decode(unhex(t, "48c7c001000000")[:i], Mode64, &in); !errors.Is(err, ErrTruncated) {
			t.Errorf("%d of 7 bytes: %v", i, err)
		}
	}
}

// TestEveryRowReachable: no row is hidden behind another.
func TestEveryRowReachable(t *testing.T) {
	tab := tab()
	seen := make([]bool, len(tab.rows))
	mark := func(code uint16) {
		if code != 0 {
			seen[code-1] = true
		}
	}
	for _, classes := range tab.index {
		for _, maps := range classes {
			for _, codes := range maps {
				for _, code := range codes {
					if code&isGroup == 0 {
						mark(code)
					}
				}
			}
		}
	}
	for _, g := range tab.groups {
		for _, code := range g {
			if code&isRM == 0 {
				mark(code)
			}
		}
	}
	for _, g := range tab.rms {
		for _, code := range g {
			mark(code)
		}
	}
	for _, code := range tab.wide {
		mark(code)
	}
	ops := map[optab.Op]bool{}
	for i, r := range tab.rows {
		ops[r.Op] = true
		if !seen[i] {
			t.Errorf("row %d (%v %x) is unreachable", i, r.Op, r.Opcode)
		}
	}
	for op := optab.Invalid + 1; int(op) < optab.NumOps; op++ {
		if !ops[op] {
			t.Errorf("%v has no row", op)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, s := range []string{"90", "f30f1efa", "67660fae3c25", "f0480fc709", "c8100002", "c5f458c2", "c4e3714ac230", "c4e26992048b", "0f3a", "9a785634120800"} {
		for mode := range uint8(3) {
			f.Add(unhex(f, s), mode)
		}
	}
	f.Fuzz(func(t *testing.T, p []byte, mode uint8) {
		var in Inst
		err := Decode(p, Mode(mode%3), &in)
		if int(in.Len) > min(len(p), MaxLen) {
			t.Fatalf("length %d of %d bytes", in.Len, len(p))
		}
		if err != nil {
			return
		}
		_ = in.Text(0)
		var again Inst
		if err := Decode(p[:in.Len], Mode(mode%3), &again); err != nil || again != in {
			t.Fatalf("exactly its own bytes: %v, %+v, %+v", err, again, in)
		}
		if err := Decode(p[:in.Len-1], Mode(mode%3), &again); !errors.Is(err, ErrTruncated) {
			t.Fatalf("one byte short: %v", err)
		}
	})
}

func BenchmarkDecode(b *testing.B) {
	var code []byte
	for _, s := range []string{"4889e5", "488b4424 08", "85c0", "7405", "0fb61408", "e800000000", "f30f6f07", "48c7c0ffffffff", "c3"} {
		code = append(code, unhex(b, s)...)
	}
	end := len(code)
	code = append(code, make([]byte, MaxLen)...)
	b.ReportAllocs()
	var in Inst
	for off := 0; b.Loop(); off += int(in.Len) {
		if off >= end {
			off = 0
		}
		if err := Decode(code[off:], Mode64, &in); err != nil {
			b.Fatal(err)
		}
	}
}
