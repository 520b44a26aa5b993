/* Far transfers, call gates, double faults and the I/O bitmap in long mode, beyond calls.c (SDM vol. 2; vol. 3A chapters 5 to 7). */
#include "suite.h"

#define FAULT(vector, code) ((u64)(vector) << 32 | (code))
#define EXIT FAULT(USER_EXIT, 0)
#define SEL SCRATCH
#define SEL2 (SCRATCH + 8)
#define GATE (SCRATCH + 0x40)
#define SET(sel, base, limit, attr) (gdt[(sel) / 8] = segment(base, limit, attr))
#define TOP (USER(user_stack) + 4000)

static u64 outcome(int v)
{
	return v == NOTRAP ? (u64)NOTRAP : (u64)v << 32 | last.error;
}

USER_CODE(u64_exit, "nop");
USER_CODE(u64_gate, "push $0x77; lcall *u64_gate_pointer(%rip)");
USER_CODE(u64_gate_jump, "ljmp *u64_gate_pointer(%rip)");
USER_CODE(u64_in, "mov %edi, %edx; in %dx, %al");
USER_CODE(u64_inw, "mov %edi, %edx; in %dx, %ax");
USER_CODE(u64_inl, "mov %edi, %edx; in %dx, %eax");
USER_CODE(u64_ud, "ud2");
USER_CODE(u64_div, "xor %ecx, %ecx; div %ecx");
USER_CODE(u64_touch, "mov (%rdi), %rax");
asm(".text\nu64_gate_pointer: .long 0; .word 0x90 | 3\n"
	"gate64_exit: int $0x46\n"
	"gate64_frame: mov (%rsp), %rax; mov 8(%rsp), %rbx; int $0x46\n"
	/* lret_go(rip, cs, rsp, ss): a far return of 64 bits that releases 16 bytes */
	"lret_go64: push %rcx; push %rdx; sub $16, %rsp; push %rsi; push %rdi; lretq $16\n");
extern u8 gate64_exit[], gate64_frame[];
void lret_go64(u64 rip, u64 cs, u64 rsp, u64 ss);

static void put_gate(u64 t, u16 sel, int type_dpl)
{
	gdt[GATE / 8] = (t & 0xffff) | (u64)sel << 16 | (u64)type_dpl << 40 | (t >> 16 & 0xffff) << 48;
	gdt[GATE / 8 + 1] = t >> 32;
}

static void call_gates(void)
{
	put_gate(1UL << 47, 0x08, 0xec);
	eq("gate64-noncanonical", outcome(user(u64_gate, 0)), FAULT(GP, 0));
	put_gate(USER(gate64_exit), 0x28, 0xec);
	eq("gate64-same", user(u64_gate, 0), GP); /* int $0x46 is not for users: it got there */
	eq("gate64-same-rip", last.rip, USER(gate64_exit));
	eq("gate64-same-rsp", last.rsp, USER(user_stack) + sizeof user_stack - 64 - 24);
	eq("gate64-jmp-same", user(u64_gate_jump, 0) << 16 | last.cs, GP << 16 | 0x2b);
	put_gate((u64)gate64_exit, 0x08, 0xec);
	eq("gate64-jmp-inner", outcome(user(u64_gate_jump, 0)), FAULT(GP, 0x08));
	SET(SEL, 0, 0xfffff, 0x9f | 0x2000 | 0x8000);
	put_gate(USER(gate64_exit), SEL, 0xec);
	eq("gate64-conforming", user(u64_gate, 0) << 16 | last.cs, GP << 16 | SEL | 3);
	SET(SEL, 0, 0xfffff, 0x1b | 0x2000 | 0x8000);
	put_gate((u64)gate64_exit, SEL, 0xec);
	eq("gate64-code-absent", outcome(user(u64_gate, 0)), FAULT(NP, SEL));
	put_gate((u64)gate64_exit, gdtr.limit + 1, 0xec);
	eq("gate64-past-gdt", outcome(user(u64_gate, 0)), FAULT(GP, gdtr.limit + 1));
	/* ring 1: RSP1, and a null SS of that privilege */
	static u8 ring1_stack[1024] __attribute__((aligned(16)));
	SET(SEL, 0, 0xfffff, 0xbb | 0x2000 | 0x8000);
	put_gate((u64)u64_exit, SEL, 0xec);
	tss.rsp[1] = (u64)ring1_stack + sizeof ring1_stack;
	eq("gate64-ring1", outcome(user(u64_gate, 0)), EXIT);
	eq("gate64-ring1-cs-ss", last.cs << 16 | last.ss, (SEL | 1) << 16 | 1);
	eq("gate64-ring1-rsp", last.rsp, tss.rsp[1] - 32);
	tss.rsp[1] = 1UL << 47;
	u64 got = outcome(user(u64_gate, 0));
	eq("gate64-rsp1-noncanonical", got >> 32, SS);
	/* the TSS ends before RSP1 */
	u64 old = gdt[6];
	gdt[6] = segment((u64)&tss, 18, 0x89);
	asm volatile("ltr %w0" : : "r"(0x30));
	eq("gate64-tss-short", outcome(user(u64_gate, 0)), FAULT(TS, 0x30));
	gdt[6] = segment((u64)&tss, 19, 0x89);
	tss.rsp[1] = (u64)ring1_stack + sizeof ring1_stack;
	asm volatile("ltr %w0" : : "r"(0x30));
	eq("gate64-tss-holds-rsp1", outcome(user(u64_gate, 0)), EXIT);
	gdt[6] = old & ~(2UL << 40);
	asm volatile("ltr %w0" : : "r"(0x30));
	/* from ring 0 */
	put_gate((u64)gate64_frame, 0x08, 0xec);
	static const struct { u32 off; u16 sel; } __attribute__((packed)) p = { 0, GATE };
	eq("gate64-kernel", TRY(asm volatile("lcall *%0" : : "m"(p) : "memory")), 0x46);
	eq("gate64-kernel-frame-cs", last.rbx, 0x08);
	put_gate((u64)gate64_exit, 0x08, 0x8c);
	static const struct { u32 off; u16 sel; } __attribute__((packed)) q = { 0, GATE | 3 };
	eq("gate64-rpl", outcome(TRY(asm volatile("lcall *%0" : : "m"(q) : "memory"))), FAULT(GP, GATE));
	gdt[GATE / 8 + 2] = 0;
	/* one that the GDT's end cuts in half */
	struct table shorter = { GATE + 7, gdtr.base };
	asm volatile("lgdt %0" : : "m"(shorter));
	got = outcome(TRY(asm volatile("lcall *%0" : : "m"(p) : "memory")));
	asm volatile("lgdt %0" : : "m"(gdtr));
	eq("gate64-half-in-gdt", got, FAULT(GP, GATE));
}

static void far_returns(void)
{
	static const struct { const char *name; u64 cs, ss, want; } all[] = {
		{ "outer", 0x2b, 0x23, EXIT }, { "null-cs", 0, 0x23, FAULT(GP, 0) }, { "data-cs", 0x23, 0x23, FAULT(GP, 0x20) },
		{ "cs-dpl", 0x0b, 0x23, FAULT(GP, 0x08) }, { "cs-rpl", 0x28, 0x23, FAULT(GP, 0x28) }, { "null-ss", 0x2b, 3, FAULT(GP, 0) },
		{ "ss-rpl", 0x2b, 0x20, FAULT(GP, 0x20) }, { "ss-dpl", 0x2b, 0x13, FAULT(GP, 0x10) }, { "ss-code", 0x2b, 0x2b, FAULT(GP, 0x28) },
		{ "absent-cs", SEL | 3, 0x23, FAULT(NP, SEL) }, { "absent-ss", 0x2b, SEL2 | 3, FAULT(SS, SEL2) },
	};
	SET(SEL, 0, 0xfffff, 0x7b | 0x2000 | 0x8000);
	SET(SEL2, 0, 0xfffff, 0x73 | 0x4000 | 0x8000);
	for (unsigned i = 0; i < sizeof all / sizeof *all; i++) {
		eq(name("lret64-", all[i].name, ""), outcome(TRY(lret_go64(USER(u64_exit), all[i].cs, TOP - 16, all[i].ss))), all[i].want);
		eq(name("iret64-", all[i].name, ""), outcome(TRY(go(USER(u64_exit), all[i].cs, 2, TOP, all[i].ss, 0))), all[i].want);
	}
	eq("lret64-rsp", (TRY(lret_go64(USER(u64_exit), 0x2b, TOP - 16, 0x23)), last.rsp), TOP);
	eq("lret64-noncanonical", outcome(TRY(lret_go64(1UL << 47, 0x2b, TOP, 0x23))), FAULT(GP, 0));
	SET(SEL, 0, 0xfffff, 0xfb | 0x6000 | 0x8000);
	if (!on_tcg())
		eq("lret64-l-and-d", outcome(TRY(lret_go64(USER(u64_exit), SEL | 3, TOP, 0x23))), FAULT(GP, SEL));
	/* to ring 1 with a null SS, which 64-bit mode allows there */
	SET(SEL, 0, 0xfffff, 0xbb | 0x2000 | 0x8000);
	eq("lret64-ring1-null-ss", outcome(TRY(lret_go64((u64)u64_exit, SEL | 1, (u64)pages[1], 1))), EXIT);
	eq("lret64-ring1-cs-ss", last.cs << 16 | last.ss, (SEL | 1) << 16 | 1);
	eq("iret64-ring1-null-ss-rpl", outcome(TRY(go((u64)u64_exit, SEL | 1, 2, (u64)pages[1], 2, 0))), FAULT(GP, 0));
	SET(SEL2, 0, 0xfffff, 0xbb | 0x4000 | 0x8000); /* compatibility mode does not */
	eq("iret64-compat-null-ss", outcome(TRY(go((u64)u64_exit, SEL2 | 1, 2, (u64)pages[1], 1, 0))), FAULT(GP, 0));
}

/* LAR, LSL of system descriptors in IA-32e mode. */
static void looks(void)
{
	static const char *const digits[] = { "0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "a", "b", "c", "d", "e", "f" };
	for (u32 t = 0; t < 16; t++) {
		u32 v = 0x5555, w = 0x5555;
		u8 z, y;
		gdt[SEL / 8] = segment(0x123456, 0x5678, 0x80 | t);
		gdt[SEL2 / 8] = 0;
		asm volatile("lar %w2, %0; setz %1" : "+r"(v), "=r"(z) : "r"(SEL));
		asm volatile("lsl %w2, %0; setz %1" : "+r"(w), "=r"(y) : "r"(SEL));
		eq(name("64-lar-system-", digits[t], ""), z ? v & ~0xf0000 : 0, 0x1a04 >> t & 1 ? 0x8000 | t << 8 : 0);
		eq(name("64-lsl-system-", digits[t], ""), y ? w : 0, 0xa04 >> t & 1 ? 0x5678 : 0);
	}
}

/* Double faults (vol. 3A table 6-5): the exception named, then what its delivery meets. */
static void double_faults(void)
{
	static u8 ist_stack[4096] __attribute__((aligned(16)));
	static const struct { const char *name; u8 first, type; u16 sel; u64 want; } all[] = {
		{ "de-np", DE, 0x0e, 8, FAULT(DF, 0) }, { "ud-np", UD, 0x0e, 8, FAULT(NP, UD * 8 + 3) }, { "gp-np", GP, 0x0e, 8, FAULT(DF, 0) },
		{ "np-np", NP, 0x0e, 8, FAULT(DF, 0) }, { "ss-np", SS, 0x0e, 8, FAULT(DF, 0) }, { "bp-np", BP, 0x6e, 8, FAULT(NP, BP * 8 + 2) },
		{ "int-np", 0x42, 0x6e, 8, FAULT(NP, 0x42 * 8 + 2) }, { "pf-np", PF, 0x0e, 8, FAULT(DF, 0) },
		{ "de-gp", DE, 0x8e, 0x10, FAULT(DF, 0) }, { "ud-gp", UD, 0x8e, 0x10, FAULT(GP, 0x11) }, { "gp-gp", GP, 0x8e, 0x10, FAULT(DF, 0) },
		{ "pf-gp", PF, 0x8e, 0x10, FAULT(DF, 0) }, { "ud-gate-type", UD, 0x8c, 8, FAULT(GP, UD * 8 + 3) },
		{ "de-gate-type", DE, 0x85, 8, FAULT(DF, 0) },
	};
	SET(SEL, 0, 0xfffff, 0x13 | 0x4000 | 0x8000);
	map(5, 0);
	map(6, 0);
	map(7, 0);
	for (unsigned i = 0; i < sizeof all / sizeof *all; i++) {
		struct gate old = idt[all[i].first];
		int v = 0;
		idt[all[i].first].type = all[i].type;
		idt[all[i].first].sel = all[i].sel;
		switch (all[i].first) {
		case DE: v = TRY(asm volatile("div %%ecx" : : "c"(0), "a"(0), "d"(0))); break;
		case UD: v = TRY(asm volatile("ud2")); break;
		case GP: v = TRY(asm volatile("mov %0, %%fs" : : "r"(0x0f))); break;
		case NP: v = TRY(asm volatile("mov %0, %%fs" : : "r"(SEL))); break;
		case SS: v = TRY(asm volatile("mov %0, %%ss" : : "r"(SEL))); break;
		case BP: v = TRY(asm volatile("int3")); break;
		case PF: v = TRY(PEEK(PAGE(5))); break;
		default: v = TRY(((void (*)(void))int_n[0x42])());
		}
		eq(name("df64-", all[i].name, ""), outcome(v), all[i].want);
		idt[all[i].first] = old;
	}
	/* the handler's stack is on an absent page: a page fault in the delivery of each */
	tss.ist[3] = (u64)ist_stack + sizeof ist_stack;
	u64 rsp0 = tss.rsp[0];
	tss.rsp[0] = PAGE(6);
	idt[PF].ist = 4;
	eq("df64-ud-pf", outcome(user(u64_ud, 0)), FAULT(PF, 2));
	eq("df64-ud-pf-cr2", last_cr2, PAGE(6) - 8);
	eq("df64-ud-pf-rip", last.rip, USER(u64_ud));
	eq("df64-de-pf", outcome(user(u64_div, 0)), FAULT(PF, 2));
	idt[PF].ist = 0;
	idt[DF].ist = 4;
	eq("df64-pf-pf", outcome(user(u64_touch, PAGE(7))), FAULT(DF, 0));
	eq("df64-pf-pf-cr2", last_cr2, PAGE(6) - 8);
	eq("df64-ud-pf-pf", outcome(user(u64_ud, 0)), FAULT(DF, 0));
	idt[DF].ist = 0;
	tss.rsp[0] = rsp0;
}

static void ports(void)
{
	for (unsigned i = 0; i < sizeof tss.bitmap; i++)
		tss.bitmap[i] = 0;
	tss.iomap = 104;
	eq("iopb64-byte", outcome(user(u64_in, 0x4ff3)), EXIT);
	tss.bitmap[0x4ff3 / 8] = 1 << 3;
	eq("iopb64-byte-set", outcome(user(u64_in, 0x4ff3)), FAULT(GP, 0));
	eq("iopb64-word-last-set", outcome(user(u64_inw, 0x4ff2)), FAULT(GP, 0));
	eq("iopb64-dword-last-set", outcome(user(u64_inl, 0x4ff0)), FAULT(GP, 0));
	eq("iopb64-dword-below", outcome(user(u64_inl, 0x4fef)), EXIT);
	tss.bitmap[0x4ff3 / 8] = 0;
	tss.iomap = sizeof tss - 1;
	eq("iopb64-at-limit", outcome(user(u64_in, 0)), FAULT(GP, 0));
	tss.iomap = sizeof tss - 2;
	eq("iopb64-two-bytes", outcome(user(u64_in, 0)), EXIT);
	eq("iopb64-next-byte", outcome(user(u64_in, 8)), FAULT(GP, 0));
	tss.iomap = sizeof tss;
}

void test_far64(void)
{
	call_gates();
	far_returns();
	looks();
	double_faults();
	ports();
	for (int i = 0; i < 16; i++)
		gdt[SCRATCH / 8 + i] = 0;
}
