// Exceptions: vectors, error codes, and where RIP stands (Intel SDM vol. 3A chapter 6).
#include "suite.h"

static void divide(void *a) { __asm__ volatile("xorl %%ecx, %%ecx; divl %%ecx" ::: "eax", "ecx", "edx"); }
static void divide_overflow(void *a) { __asm__ volatile("movl $2, %%edx; xorl %%eax, %%eax; movl $1, %%ecx; divl %%ecx" ::: "eax", "ecx", "edx"); }
static void idiv_min(void *a) { __asm__ volatile("movl $0x80000000, %%eax; cltd; movl $-1, %%ecx; idivl %%ecx" ::: "eax", "ecx", "edx"); }
static void ud2(void *a) { __asm__ volatile("ud2"); }
static void into64(void *a) { __asm__ volatile(".byte 0xce"); }
static void push_es64(void *a) { __asm__ volatile(".byte 0x06"); }
static void lock_nop(void *a) { __asm__ volatile(".byte 0xf0, 0x90"); }
static void lock_register(void *a) { __asm__ volatile(".byte 0xf0, 0x01, 0xc0" ::: "eax"); }
static void long_instruction(void *a) { __asm__ volatile(".fill 15, 1, 0x66; nop"); }
static void noncanonical(void *a) { __asm__ volatile("movabsq $0x800000000000, %%rax; movb (%%rax), %%al" ::: "rax"); }
static void noncanonical_stack(void *a) {
	__asm__ volatile("movq %%rsp, %%rcx; movabsq $0x800000000100, %%rsp; pushq %%rax; movq %%rcx, %%rsp" ::: "rcx");
}
static void noncanonical_bp(void *a) {
	__asm__ volatile("pushq %%rbp; movabsq $0x800000000000, %%rbp; movb 0(%%rbp), %%al; popq %%rbp" ::: "rax");
}
static void noncanonical_jump(void *a) { __asm__ volatile("movabsq $0x800000000000, %%rax; jmp *%%rax" ::: "rax"); }
static void misaligned(void *a) { __asm__ volatile("movaps 1(%0), %%xmm0" ::"r"(page(0))); }
static void int_absent(void *a) { __asm__ volatile("int $0x41"); }

static u64 bp_rip;
static void on_bp(struct frame *f) { bp_rip = f->rip; }
static void int3(void *a) { __asm__ volatile("leaq 1f(%%rip), %%rax; movq %%rax, %0; int3; 1:" : "=m"(*(u64 *)a)::"rax", "memory"); }

static void test_positions(void) {
	u64 want = 0;
	hooks[3] = on_bp;
	attempt(int3, &want);
	hooks[3] = 0;
	check(bp_rip == want, "#BP is a trap", "rip %x, want %x", bp_rip, want);
	fault.vector = -1;
	attempt(ud2, 0);
	check(*(u16 *)fault.rip == 0x0b0f, "#UD is a fault", "rip %x", fault.rip);
	fault.vector = -1;
	attempt(noncanonical_jump, 0);
	check(fault.rip == 0x800000000000 || *(u16 *)fault.rip == 0xe0ff, "#GP of a jump points at the jump", "rip %x", fault.rip);
}

static u64 seen_rsp, seen_error;
static void on_df(struct frame *f) {
	seen_rsp = (u64)f;
	seen_error = f->error;
	f->rip = (u64)attempt_failed;
	f->cs = KCODE;
	f->rflags = 2;
}
static void touch_absent(void *a) { *(volatile u8 *)VA(0); }

static void test_double_fault(void) {
	hooks[8] = on_df;
	idt_gate(8, entries + 16 * 8, 0, 1, 1);
	idt_gate(14, entries + 16 * 14, 0, 0, 0);
	map(0, 0);
	seen_rsp = 0;
	seen_error = 99;
	attempt(touch_absent, 0);
	hooks[8] = 0;
	check(seen_rsp >= (u64)ist_stack && seen_rsp < (u64)ist_stack + sizeof ist_stack && seen_error == 0,
	      "#PF with an absent gate is #DF, error 0, on its IST stack", "frame %x error %x", seen_rsp, seen_error);
	idt_gate(14, entries + 16 * 14, 0, 0, 1);
	idt_gate(8, entries + 16 * 8, 0, 0, 1);
}

static void bits(u64 set0, u64 clear0, u64 clear4, void (*f)(void *), const char *name, int vector) {
	u64 cr0 = READ_CR(0), cr4 = READ_CR(4);
	WRITE_CR(0, (cr0 | set0) & ~clear0);
	WRITE_CR(4, cr4 & ~clear4);
	fault.vector = -1;
	attempt(f, 0);
	WRITE_CR(0, cr0);
	WRITE_CR(4, cr4);
	check(fault.vector == vector, name, "vector %d, want %d", (long)fault.vector, (long)vector);
}
static void x87(void *a) { __asm__ volatile("fld1; fstp %st(0)"); }
static void fwait(void *a) { __asm__ volatile("fwait"); }
static void sse(void *a) { __asm__ volatile("xorps %xmm0, %xmm0"); }
static void mmx(void *a) { __asm__ volatile("movd %eax, %mm0; emms"); }
static void fxsave(void *a) { __asm__ volatile("fxsave (%0)" ::"r"(page(1)) : "memory"); }
static void x87_divide(void *a) { __asm__ volatile("fninit; fldcw (%0); fld1; fldz; fdivrp; fwait" ::"r"(a)); }
static void sse_divide(void *a) {
	__asm__ volatile("ldmxcsr (%0); xorps %%xmm1, %%xmm1; movl $0x3f800000, %%eax; movd %%eax, %%xmm0; divss %%xmm1, %%xmm0" ::"r"(a) : "eax");
}

static void test_fpu(void) {
	enum { MP = 2, EM = 4, TS = 8, OSFXSR = 512, OSXMM = 1024 };
	bits(TS, 0, 0, x87, "x87 with TS: #NM", 7);
	bits(EM, 0, 0, x87, "x87 with EM: #NM", 7);
	bits(TS | MP, 0, 0, fwait, "FWAIT with TS and MP: #NM", 7);
	bits(TS, MP, 0, fwait, "FWAIT with TS alone passes", -1);
	bits(TS, 0, 0, sse, "SSE with TS: #NM", 7);
	bits(EM, 0, 0, sse, "SSE with EM: #UD", 6);
	bits(0, 0, OSFXSR, sse, "SSE without OSFXSR: #UD", 6);
	bits(EM, 0, 0, mmx, "MMX with EM: #UD", 6);
	bits(TS, 0, 0, mmx, "MMX with TS: #NM", 7);
	bits(TS, 0, 0, fxsave, "FXSAVE with TS: #NM", 7);
	u16 cw = 0x037b;
	expect("unmasked x87 #Z: #MF at the next waiting instruction", x87_divide, &cw, 16, 0);
	__asm__ volatile("fnclex; fninit");
	u32 csr = 0x1f80 & ~0x200, plain = 0x1f80;
	expect("unmasked SSE #Z: #XM", sse_divide, &csr, 19, 0);
	__asm__ volatile("ldmxcsr %0" ::"m"(plain));
	csr = 0x10000;
	expect("LDMXCSR of a reserved bit: #GP", sse_divide, &csr, 13, 0);
	__asm__ volatile("ldmxcsr %0" ::"m"(plain));
}

static void test_alignment(void) {
	static const u8 load[] = {0x8b, 0x47, 0x01}; // mov 1(%rdi), %eax
	u64 cr0 = READ_CR(0);
	map(2, P | W | U);
	WRITE_CR(0, cr0 | 1 << 18);
	user(load, sizeof load, VA(2), 1 << 18, 0);
	check(fault.vector == 17 && fault.error == 0, "misaligned with AM and AC at CPL 3: #AC(0)", "vector %d error %x", (long)fault.vector, fault.error);
	user(load, sizeof load, VA(2), 0, 0);
	check(fault.vector == 0x40, "misaligned without AC passes", "vector %d", (long)fault.vector);
	WRITE_CR(0, cr0);
}

void test_exceptions(void) {
	expect("DIV by 0", divide, 0, 0, 0);
	expect("DIV overflow", divide_overflow, 0, 0, 0);
	expect("IDIV of the smallest by -1", idiv_min, 0, 0, 0);
	expect("UD2", ud2, 0, 6, 0);
	expect("INTO in 64-bit mode: #UD", into64, 0, 6, 0);
	expect("PUSH ES in 64-bit mode: #UD", push_es64, 0, 6, 0);
	expect("LOCK NOP: #UD", lock_nop, 0, 6, 0);
	expect("LOCK with a register destination: #UD", lock_register, 0, 6, 0);
	expect("16-byte instruction: #GP", long_instruction, 0, 13, 0);
	expect("non-canonical load: #GP", noncanonical, 0, 13, 0);
	idt_gate(12, entries + 16 * 12, 0, 1, 1);
	idt_gate(13, entries + 16 * 13, 0, 1, 1);
	expect("non-canonical push: #SS", noncanonical_stack, 0, 12, 0);
	idt_gate(12, entries + 16 * 12, 0, 0, 1);
	idt_gate(13, entries + 16 * 13, 0, 0, 1);
	expect("non-canonical load through RBP: #SS", noncanonical_bp, 0, 12, 0);
	expect("non-canonical jump: #GP", noncanonical_jump, 0, 13, 0);
	expect("MOVAPS misaligned: #GP", misaligned, 0, 13, 0);
	idt_gate(0x41, entries, 0, 0, 0);
	expect("INT through an absent gate: #NP(vector*8+2)", int_absent, 0, 11, 0x41 * 8 + 2);
	idt_gate(0x41, entries + 16 * 0x41, 0, 0, 1);
	static const u8 int41[] = {0xcd, 0x41};
	user(int41, 2, 0, 0, 0);
	check(fault.vector == 13 && fault.error == 0x41 * 8 + 2, "INT at CPL 3 through a DPL 0 gate: #GP(vector*8+2)", "vector %d error %x", (long)fault.vector, fault.error);
	test_positions();
	test_double_fault();
	test_fpu();
	test_alignment();
}
