package jit

import (
	"testing"

	"golang.org/x/arch/x86/x86asm"
)

// text is what a disassembler makes of what f emits, which must be one instruction.
func text(t *testing.T, f func(*buf)) string {
	t.Helper()
	e := buf{b: make([]byte, 64)}
	f(&e)
	in, err := x86asm.Decode(e.code(), 64)
	if err != nil || in.Len != len(e.code()) {
		t.Fatalf("% x: %d of %d bytes are an instruction, %v (%v)", e.code(), in.Len, len(e.code()), in, err)
	}
	return x86asm.IntelSyntax(in, 0, nil)
}

func TestInstructionsOfTranslation(t *testing.T) {
	far := at(rAX, 0x12345)
	for _, c := range []struct {
		want string
		emit func(*buf)
	}{
		{"mov rax, qword ptr [rbx]", func(e *buf) { e.load(8, rAX, at(rBX, 0)) }},
		{"mov r12d, dword ptr [r15-0x80]", func(e *buf) { e.load(4, r12, at(r15, -128)) }},
		{"mov si, word ptr [rax+0x12345]", func(e *buf) { e.load(2, rSI, far) }},
		{"mov sil, byte ptr [rax+0x12345]", func(e *buf) { e.load(1, rSI, far) }},
		{"mov qword ptr [rsp], r9", func(e *buf) { e.store(8, r9, at(rSP, 0)) }},
		{"mov byte ptr [r13], dil", func(e *buf) { e.store(1, rDI, at(r13, 0)) }},
		{"movzx r8d, byte ptr [r12+0x7f]", func(e *buf) { e.loadZX(1, r8, at(r12, 127)) }},
		{"movzx r8d, word ptr [r12+0x80]", func(e *buf) { e.loadZX(2, r8, at(r12, 128)) }},
		{"mov r8d, dword ptr [rbp]", func(e *buf) { e.loadZX(4, r8, at(rBP, 0)) }},
		{"mov r10, r9", func(e *buf) { e.mov(r10, r9) }},
		{"add rax, qword ptr [rcx+8*r13+0x10]", func(e *buf) { e.alu(aluAdd, 8, rAX, rm{mem: true, reg: rCX, index: r13, scale: 3, disp: 16}) }},
		{"cmp bpl, byte ptr [2*r9+0x100]", func(e *buf) { e.alu(aluCmp, 1, rBP, rm{mem: true, reg: noReg, index: r9, scale: 1, disp: 256}) }},
		{"xor eax, dword ptr [0x40]", func(e *buf) { e.alu(aluXor, 4, rAX, rm{mem: true, reg: noReg, index: noReg, disp: 64}) }},
		{"sub r14, 0x7f", func(e *buf) { e.aluImm(aluSub, 8, regRM(r14), 127) }},
		{"sub r14, 0x80", func(e *buf) { e.aluImm(aluSub, 8, regRM(r14), 128) }},
		{"and r12, -0x1000", func(e *buf) { e.aluImm(aluAnd, 8, regRM(r12), -4096) }},
		{"cmp word ptr [rdi], 0x1234", func(e *buf) { e.aluImm(aluCmp, 2, at(rDI, 0), 0x1234) }},
		{"cmp byte ptr [rdi], 0xfe", func(e *buf) { e.aluImm(aluCmp, 1, at(rDI, 0), -2) }},
		{"or spl, 0x1", func(e *buf) { e.aluImm(aluOr, 1, regRM(rSP), 1) }},
		{"test r13, r13", func(e *buf) { e.test(8, r13, regRM(r13)) }},
		{"shl r12d, 0x5", func(e *buf) { e.shift(4, 4, r12, 5) }},
		{"shr rax, 0x3f", func(e *buf) { e.shift(5, 8, rAX, 63) }},
		{"sar r13b, 0x1", func(e *buf) { e.shift(7, 1, r13, 1) }},
		{"lea r12, ptr [rax+rcx]", func(e *buf) { e.lea(8, r12, rm{mem: true, reg: rAX, index: rCX}) }},
		{"lea r12d, ptr [rax+0x1]", func(e *buf) { e.lea(4, r12, at(rAX, 1)) }},
		{"mov r12, rax", func(e *buf) { e.lea(8, r12, at(rAX, 0)) }},
		{"mov r12d, -0x1", func(e *buf) { e.constant(r12, 0xffffffff) }},
		{"mov rax, -0x80000000", func(e *buf) { e.constant(rAX, 0xffffffff80000000) }},
		{"mov r9, 0x123456789a", func(e *buf) { e.constant(r9, 0x123456789a) }},
		{"mov qword ptr [r15+0x8], -0x1", func(e *buf) { e.storeImm(8, at(r15, 8), -1) }},
		{"mov dword ptr [r15+0x8], 0x12345678", func(e *buf) { e.storeImm(4, at(r15, 8), 0x12345678) }},
		{"mov word ptr [r15+0x8], 0x1234", func(e *buf) { e.storeImm(2, at(r15, 8), 0x1234) }},
		{"mov byte ptr [r15+0x8], 0x12", func(e *buf) { e.storeImm(1, at(r15, 8), 0x12) }},
		{"lock xadd qword ptr [rbx], r8", func(e *buf) { e.inst(op{lock: true, w: true, opmap: map0F, opcode: 0xc1}, r8, at(rBX, 0)) }},
		{"movbe r8w, word ptr [rbx]", func(e *buf) { e.inst(op{p66: true, opmap: map0F38, opcode: 0xf0}, r8, at(rBX, 0)) }},
		{"crc32 eax, r9b", func(e *buf) { e.inst(op{prefix: 0xf2, opmap: map0F38, opcode: 0xf0}, rAX, regRM(r9)) }},
	} {
		if got := text(t, c.emit); got != c.want {
			t.Errorf("%s, not %s", got, c.want)
		}
	}
}

// TestEveryOperand: each base with each index, scale and length of displacement.
func TestEveryOperand(t *testing.T) {
	for base := range uint8(16) {
		for index := range uint8(16) {
			for _, disp := range []int32{0, 1, -128, 128, -1 << 31} {
				m := rm{mem: true, reg: base, index: index, scale: index % 4, disp: disp}
				want := x86asm.Mem{Base: x86asm.RAX + x86asm.Reg(base), Index: x86asm.RAX + x86asm.Reg(index), Scale: 1 << m.scale, Disp: int64(disp)}
				if index == rSP { // no instruction has it
					m.index, want.Index, want.Scale = noReg, 0, 0
				}
				e := buf{b: make([]byte, 64)}
				e.load(8, index, m)
				in, err := x86asm.Decode(e.code(), 64)
				got, _ := in.Args[1].(x86asm.Mem)
				got.Disp = int64(int32(got.Disp)) // x86asm does not extend the smallest
				if got.Index == 0 {
					got.Scale = 0
				}
				if err != nil || in.Len != len(e.code()) || in.Args[0] != x86asm.RAX+x86asm.Reg(index) || got != want {
					t.Errorf("% x: %v, %+v, not %+v (%v)", e.code(), in, got, want, err)
				}
			}
		}
	}
}

func TestJumpsLeadWhereTheyAreBound(t *testing.T) {
	e := buf{b: make([]byte, 64), base: 0x1000}
	a, b := e.jcc(ccNZ), e.jmp()
	e.bind(a)
	here := e.entry()
	e.jumpTo(0x1000)
	e.callTo(here)
	e.bindTo(b, 0)
	want := []string{"jnz .+0x5", "jmp .-0xb", "jmp .-0x10", "call .-0xa"}
	for code := e.code(); len(code) > 0; want = want[1:] {
		in, err := x86asm.Decode(code, 64)
		if err != nil || len(want) == 0 {
			t.Fatalf("% x: %v", code, err)
		}
		if got := x86asm.GNUSyntax(in, 0, nil); got != want[0] && x86asm.IntelSyntax(in, 0, nil) != want[0] {
			t.Errorf("%s, %s, not %s", got, x86asm.IntelSyntax(in, 0, nil), want[0])
		}
		code = code[in.Len:]
	}
}
