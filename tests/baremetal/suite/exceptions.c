/* Vectors, error codes, saved state, double faults, IST (SDM vol. 3A chapter 6). */
#include "suite.h"

extern u8 at_div[], at_ud[], after_int3[];

static void flags_of_faults(void)
{
	int v = TRY(asm volatile("xor %%edx, %%edx; xor %%ecx, %%ecx; .globl at_div; at_div: div %%ecx" : : : "eax", "ecx", "edx"));
	eq("de-vector", v, DE);
	eq("de-rip", last.rip, (u64)at_div);
	ok("fault-pushes-rf", last.rflags >> 16 & 1);
	v = TRY(asm volatile(".globl at_ud; at_ud: ud2"));
	eq("ud-vector", v, UD);
	eq("ud-rip", last.rip, (u64)at_ud);
	v = TRY(asm volatile("int3; .globl after_int3; after_int3: nop"));
	eq("int3-vector", v, BP);
	eq("int3-rip", last.rip, (u64)after_int3);
	ok("trap-pushes-no-rf", !(last.rflags >> 16 & 1));
	eq("int-n-vector", TRY(((void (*)(void))int_n[0x42])()), 0x42);
}

static void undefined(void)
{
	eq("div-overflow", TRY(asm volatile("div %0" : : "r"(1), "d"(2), "a"(0))), DE);
	eq("idiv-overflow", TRY(asm volatile("idivl %0" : : "r"(-1), "d"(-1), "a"(0x80000000))), DE);
	eq("into-64-ud", TRY(asm volatile(".byte 0xce")), UD);
	eq("push-es-64-ud", TRY(asm volatile(".byte 0x06")), UD);
	eq("lock-nop-ud", TRY(asm volatile(".byte 0xf0, 0x90")), UD);
	eq("lock-register-ud", TRY(asm volatile(".byte 0xf0, 0x01, 0xc0")), UD);
	eq("long-instruction-gp", TRY(asm volatile(".fill 15, 1, 0x66; nop")), GP);
	eq("movaps-misaligned-gp", TRY(asm volatile("movaps 1(%0), %%xmm0" : : "r"(pages))), GP);
}

static void general_protection(void)
{
	int v = TRY(PEEK(0x800000000000UL));
	eq("noncanonical-gp", v, GP);
	eq("noncanonical-gp-code", last.error, 0);
	v = TRY(asm volatile("push %%rbp; movabs $0x800000000000, %%rbp; mov (%%rbp), %%rax" : : : "rax", "memory"));
	eq("noncanonical-ss", v, SS);
	eq("noncanonical-ss-code", last.error, 0);
	v = TRY(asm volatile("movabs $0x800000000000, %%rax; jmp *%%rax" : : : "rax"));
	eq("noncanonical-jump-gp", v, GP);
	static u8 safe[4096] __attribute__((aligned(16)));
	tss.ist[0] = (u64)safe + sizeof safe;
	idt[SS].ist = idt[GP].ist = 1;
	v = TRY(asm volatile("mov %%rsp, %%rbx; movabs $0x900000000000, %%rsp; push %%rax" : : : "rbx", "memory"));
	idt[SS].ist = idt[GP].ist = 0;
	eq("noncanonical-push-ss", v, SS);
	v = TRY(wrmsr(0x12345678, 0));
	eq("unknown-msr-gp", v, GP);
}

USER_CODE(u_int42, "int $0x42");
USER_CODE(u_hlt, "hlt");
USER_CODE(u_cli, "cli");
USER_CODE(u_sti, "sti");
USER_CODE(u_rdcr, "mov %cr0, %rax");
USER_CODE(u_rddr, "mov %dr7, %rax");
USER_CODE(u_lgdt, "lgdt (%rsp)");
USER_CODE(u_lidt, "lidt (%rsp)");
USER_CODE(u_ltr, "ltr %ax");
USER_CODE(u_lmsw, "lmsw %ax");
USER_CODE(u_clts, "clts");
USER_CODE(u_wbinvd, "wbinvd");
USER_CODE(u_invlpg, "invlpg (%rsp)");
USER_CODE(u_rdmsr, "mov $0x10, %ecx; rdmsr");
USER_CODE(u_swapgs, "swapgs");
USER_CODE(u_in, "in $0x71, %al");
USER_CODE(u_out, "out %al, $0x80");
USER_CODE(u_nop, "nop");
USER_CODE(u_sysret, "sysretq");
USER_CODE(u_align, "pushfq; orl $0x40000, (%rsp); popfq; mov 1(%rsp), %eax");
USER_CODE(u_into32, "int $4");

static void user_mode(void)
{
	eq("user-exit", user(u_nop, 0), USER_EXIT);
	eq("user-cs", last.cs, 0x2b);
	eq("user-ss", last.ss, 0x23);
	eq("user-int-dpl0-gp", user(u_int42, 0), GP);
	eq("user-int-dpl0-code", last.error, 0x42 * 8 + 2);
	eq("user-int-rip", last.rip, USER(u_int42));
	eq("user-int4", user(u_into32, 0), OF);
	static const struct { const char *name; void (*code)(void); } privileged[] = {
		{ "user-hlt-gp", u_hlt }, { "user-cli-gp", u_cli }, { "user-sti-gp", u_sti }, { "user-mov-cr-gp", u_rdcr },
		{ "user-mov-dr-gp", u_rddr }, { "user-lgdt-gp", u_lgdt }, { "user-lidt-gp", u_lidt }, { "user-ltr-gp", u_ltr },
		{ "user-lmsw-gp", u_lmsw }, { "user-clts-gp", u_clts }, { "user-wbinvd-gp", u_wbinvd },
		{ "user-invlpg-gp", u_invlpg }, { "user-rdmsr-gp", u_rdmsr }, { "user-swapgs-gp", u_swapgs },
		{ "user-in-gp", u_in }, { "user-out-gp", u_out }, { "user-sysret-gp", u_sysret },
	};
	for (unsigned i = 0; i < sizeof privileged / sizeof *privileged; i++) {
		int v = user(privileged[i].code, 0);
		eq(privileged[i].name, v == NOTRAP ? ~0UL : (u64)v << 32 | last.error, (u64)GP << 32);
	}
	set_cr0(cr0() | 1 << 18);
	eq("user-ac", user(u_align, 0), AC);
	eq("user-ac-code", last.error, 0);
	set_cr0(cr0() & ~(1UL << 18));
	eq("user-no-ac-without-am", user(u_align, 0), USER_EXIT);
}

static void bad_gates(void)
{
	struct gate old = idt[0x42];
	idt[0x42].type &= 0x7f;
	eq("gate-not-present", TRY(((void (*)(void))int_n[0x42])()), NP);
	eq("gate-not-present-code", last.error, 0x42 * 8 + 2);
	idt[0x42].type = 0x85;
	eq("gate-task-in-long-mode", TRY(((void (*)(void))int_n[0x42])()), GP);
	eq("gate-task-code", last.error, 0x42 * 8 + 2);
	idt[0x42] = old;
	idt[0x42].sel = 0x10;
	eq("gate-to-data", TRY(((void (*)(void))int_n[0x42])()), GP);
	eq("gate-to-data-code", last.error, 0x10);
	idt[0x42].sel = 0;
	eq("gate-to-null", TRY(((void (*)(void))int_n[0x42])()), GP);
	eq("gate-to-null-code", last.error, 0);
	idt[0x42].sel = 0x40;
	eq("gate-to-code32", TRY(((void (*)(void))int_n[0x42])()), GP);
	eq("gate-to-code32-code", last.error, 0x40);
	idt[0x42] = old;
	struct table t = idtr;
	t.limit = 0x42 * 16 + 14;
	asm volatile("lidt %0" : : "m"(t));
	int v = TRY(((void (*)(void))int_n[0x42])());
	asm volatile("lidt %0" : : "m"(idtr));
	eq("idt-limit", v, GP);
	eq("idt-limit-code", last.error, 0x42 * 8 + 2);
}

static void double_faults(void)
{
	static u8 ist_stack[4096] __attribute__((aligned(16)));
	tss.ist[0] = (u64)ist_stack + sizeof ist_stack - 8;
	struct gate df = idt[DF], pf = idt[PF], gp = idt[GP], ud = idt[UD];
	idt[DF].ist = 1;
	idt[PF].type &= 0x7f;
	eq("pf-then-np-is-df", TRY(PEEK(PAGE(300))), DF);
	eq("df-code", last.error, 0);
	u64 below = (u64)ist_stack + sizeof ist_stack - 16 - last.rsp;
	ok("df-on-ist", below > 4096); /* saved RSP is the interrupted one */
	idt[PF] = pf;
	idt[GP].type &= 0x7f;
	eq("gp-then-np-is-df", TRY(PEEK(0x800000000000UL)), DF);
	idt[GP] = gp;
	idt[UD].type &= 0x7f;
	eq("ud-then-np-is-np", TRY(asm volatile("ud2")), NP);
	eq("ud-then-np-code", last.error, UD * 8 + 3);
	idt[UD] = ud;
	idt[DF] = df;
}

static u64 handler_rsp;
static int note_rsp(struct frame *f)
{
	handler_rsp = (u64)f;
	return 0;
}

static void stacks(void)
{
	static u8 ist_stack[4096] __attribute__((aligned(16)));
	hook = note_rsp;
	tss.ist[1] = (u64)ist_stack + sizeof ist_stack - 4;
	idt[0x42].ist = 2;
	TRY(((void (*)(void))int_n[0x42])());
	idt[0x42].ist = 0;
	eq("ist-aligned", handler_rsp + sizeof(struct frame), (u64)ist_stack + sizeof ist_stack - 16);
	user(u_nop, 0);
	eq("rsp0", handler_rsp + sizeof(struct frame), tss.rsp[0]);
	TRY(asm volatile("mov %%rsp, %%rax; sub $3, %%rsp; int $0x42" : : : "rax", "memory"));
	eq("same-stack-aligned", (handler_rsp + sizeof(struct frame)) & 15, 0);
	hook = 0;
	u64 old = tss.rsp[0];
	tss.rsp[0] = 0x800000000000UL;
	struct gate df = idt[DF], ss = idt[SS];
	static u8 safe[4096];
	tss.ist[2] = (u64)safe + sizeof safe;
	idt[SS].ist = 3;
	idt[DF].ist = 3;
	eq("noncanonical-rsp0", user(u_hlt, 0), DF);
	idt[SS] = ss;
	idt[DF] = df;
	tss.rsp[0] = old;
}

static void floating_point(void)
{
	u64 c0 = cr0(), c4 = cr4();
	set_cr0(c0 | 8);
	eq("ts-x87-nm", TRY(asm volatile("fnop")), NM);
	eq("ts-sse-nm", TRY(asm volatile("xorps %%xmm0, %%xmm0" : : : "memory")), NM);
	eq("ts-mmx-nm", TRY(asm volatile("emms")), NM);
	eq("ts-fxsave-nm", TRY(asm volatile("fxsave %0" : "=m"(pages[0]))), NM);
	eq("ts-mp-fwait-nm", TRY(asm volatile("fwait")), NM);
	asm volatile("clts");
	eq("clts", cr0() & 8, 0);
	set_cr0((c0 & ~2UL) | 8);
	eq("ts-without-mp-fwait", TRY(asm volatile("fwait")), NOTRAP);
	set_cr0(c0 | 4);
	eq("em-x87-nm", TRY(asm volatile("fnop")), NM);
	eq("em-mmx-ud", TRY(asm volatile("emms")), UD);
	eq("em-sse-ud", TRY(asm volatile("xorps %%xmm0, %%xmm0" : : : "memory")), UD);
	set_cr0(c0);
	set_cr4(c4 & ~0x200UL);
	eq("no-osfxsr-sse-ud", TRY(asm volatile("xorps %%xmm0, %%xmm0" : : : "memory")), UD);
	set_cr4(c4);
	u16 cw = 0x37b; /* division by zero unmasked */
	asm volatile("fninit; fldcw %0; fld1; fldz; fdivrp" : : "m"(cw));
	eq("x87-mf", TRY(asm volatile("fwait")), MF);
	asm volatile("fninit");
	u32 csr = 0x1d80;
	asm volatile("ldmxcsr %0" : : "m"(csr));
	eq("sse-xm", TRY(asm volatile("xorps %%xmm0, %%xmm0; pcmpeqd %%xmm1, %%xmm1; psrld $25, %%xmm1; pslld $23, %%xmm1; divss %%xmm0, %%xmm1" : : : "memory")), XM);
	asm volatile("ldmxcsr %0" : : "m"(csr));
	set_cr4(c4 & ~0x400UL);
	eq("sse-xm-without-osxmmexcpt", TRY(asm volatile("xorps %%xmm0, %%xmm0; pcmpeqd %%xmm1, %%xmm1; psrld $25, %%xmm1; pslld $23, %%xmm1; divss %%xmm0, %%xmm1" : : : "memory")), UD);
	set_cr4(c4);
	csr = 0x1f80;
	asm volatile("ldmxcsr %0" : : "m"(csr));
	csr = 0x10000;
	eq("ldmxcsr-reserved-gp", TRY(asm volatile("ldmxcsr %0" : : "m"(csr))), GP);
}

void test_exceptions(void)
{
	flags_of_faults();
	undefined();
	general_protection();
	user_mode();
	bad_gates();
	double_faults();
	stacks();
	floating_point();
}
