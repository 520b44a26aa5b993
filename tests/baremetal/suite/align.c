/* Alignment checks: CR0.AM, EFLAGS.AC, CPL 3 (SDM vol. 3A §6.15, interrupt 17). */
#include "suite.h"

#define AC_ON "pushfq; orl $0x40000, (%rsp); popfq;"
/* RDI is where the operand lies. */
#define FORM(f, text) USER_CODE(a_##f, AC_ON text);
FORM(mov8, "mov (%rdi), %al")
FORM(mov16, "mov (%rdi), %ax")
FORM(mov32, "mov (%rdi), %eax")
FORM(mov64, "mov (%rdi), %rax")
FORM(store16, "mov %ax, (%rdi)")
FORM(store32, "mov %eax, (%rdi)")
FORM(store64, "mov %rax, (%rdi)")
FORM(rmw32, "incl (%rdi)")
FORM(locked32, "lock incl (%rdi)")
FORM(xchg64, "xchg %rax, (%rdi)")
FORM(cmpxchg32, "cmpxchg %ecx, (%rdi)")
FORM(cmpxchg8b, "cmpxchg8b (%rdi)")
FORM(push, "lea 64(%rdi), %rsp; push %rax")
FORM(push16, "lea 64(%rdi), %rsp; push %ax")
FORM(pop, "mov %rdi, %rsp; pop %rax")
FORM(call, "lea 64(%rdi), %rsp; call 1f; 1: nop")
FORM(ret, "mov %rdi, %rsp; ret")
FORM(pushf, "lea 64(%rdi), %rsp; pushfq")
FORM(enter, "lea 64(%rdi), %rsp; enter $0, $0")
FORM(leave, "mov %rdi, %rbp; leave")
FORM(iret, "mov %rdi, %rsp; iretq")
FORM(push_mem, "push (%rdi)")
FORM(jmp_mem, "jmp *(%rdi)")
FORM(bt_mem, "xor %eax, %eax; btl %eax, (%rdi)")
FORM(movs32, "mov %rdi, %rsi; lea 64(%rdi), %rdi; movsl")
FORM(movs8, "mov %rdi, %rsi; lea 64(%rdi), %rdi; movsb")
FORM(stos64, "stosq")
FORM(lods16, "mov %rdi, %rsi; lodsw")
FORM(scas32, "scasl")
FORM(xlat, "mov %rdi, %rbx; xor %eax, %eax; xlatb")
FORM(fld32, "fninit; flds (%rdi)")
FORM(fld64, "fninit; fldl (%rdi)")
FORM(fld80, "fninit; fldt (%rdi)")
FORM(fild16, "fninit; filds (%rdi)")
FORM(fstp64, "fninit; fld1; fstpl (%rdi)")
FORM(fbld, "fninit; fbld (%rdi)")
FORM(fnstcw, "fnstcw (%rdi)")
FORM(fnstenv, "fninit; fnstenv (%rdi)")
FORM(fnsave, "fninit; fnsave (%rdi)")
FORM(movss, "movss (%rdi), %xmm0")
FORM(movsd, "movsd (%rdi), %xmm0")
FORM(movd, "movd (%rdi), %xmm0")
FORM(movq_mmx, "movq (%rdi), %mm0; emms")
FORM(stmxcsr, "stmxcsr (%rdi)")
FORM(movaps, "movaps (%rdi), %xmm0")
FORM(cmpxchg16b, "cmpxchg16b (%rdi)")
FORM(nop, ".byte 0x0f, 0x1f, 0x07") /* NOP with an operand reads nothing */
FORM(lea, "lea (%rdi), %eax")
FORM(prefetch, "prefetcht0 (%rdi)")
FORM(clflush, "clflush (%rdi)")
FORM(movnti, "movnti %eax, (%rdi)")
FORM(xadd, "bswap %eax; xadd %eax, (%rdi)")
FORM(fs_load, "mov (%rdi), %fs")
USER_CODE(a_quiet, "mov (%rdi), %rax; mov %eax, (%rdi)");
USER_CODE(a_cleared, AC_ON "pushfq; andl $~0x40000, (%rsp); popfq; mov (%rdi), %rax");

static const struct { const char *name; void (*code)(void); u8 need; } forms[] = {
	/* need: the alignment in bytes that the operand must have; 1 is none */
	{ "mov8", a_mov8, 1 }, { "mov16", a_mov16, 2 }, { "mov32", a_mov32, 4 }, { "mov64", a_mov64, 8 },
	{ "store16", a_store16, 2 }, { "store32", a_store32, 4 }, { "store64", a_store64, 8 },
	{ "rmw32", a_rmw32, 4 }, { "locked32", a_locked32, 4 }, { "xchg64", a_xchg64, 8 }, { "cmpxchg32", a_cmpxchg32, 4 },
	{ "cmpxchg8b", a_cmpxchg8b, 8 }, { "push", a_push, 8 }, { "push16", a_push16, 2 }, { "pop", a_pop, 8 }, { "call", a_call, 8 },
	{ "pushf", a_pushf, 8 }, { "enter", a_enter, 8 }, { "leave", a_leave, 8 },
	{ "push-mem", a_push_mem, 8 }, { "bt-mem", a_bt_mem, 4 }, { "movs32", a_movs32, 4 }, { "movs8", a_movs8, 1 },
	{ "stos64", a_stos64, 8 }, { "lods16", a_lods16, 2 }, { "scas32", a_scas32, 4 }, { "xlat", a_xlat, 1 },
	{ "fld32", a_fld32, 4 }, { "fld64", a_fld64, 8 }, { "fld80", a_fld80, 8 }, { "fild16", a_fild16, 2 }, { "fstp64", a_fstp64, 8 },
	{ "fbld", a_fbld, 8 }, { "fnstcw", a_fnstcw, 2 }, { "fnstenv", a_fnstenv, 4 }, { "fnsave", a_fnsave, 4 },
	{ "movss", a_movss, 4 }, { "movsd", a_movsd, 8 }, { "movd", a_movd, 4 }, { "movq-mmx", a_movq_mmx, 8 }, { "stmxcsr", a_stmxcsr, 4 },
	{ "nop", a_nop, 1 }, { "lea", a_lea, 1 }, { "prefetch", a_prefetch, 1 }, { "clflush", a_clflush, 1 },
	{ "movnti", a_movnti, 4 }, { "xadd", a_xadd, 4 }, { "mov-fs", a_fs_load, 2 },
};

static void operands(void)
{
	u64 at = USER(pages[4]) + 256;
	for (unsigned i = 0; i < sizeof forms / sizeof *forms; i++) {
		const char *n = forms[i].name;
		for (int off = 1; off <= 8; off *= 2) {
			for (int j = 0; j < 512; j++)
				pages[4][j] = 0;
			int v = user(forms[i].code, at + off);
			static const char *const suffix[] = { 0, "-1", "-2", 0, "-4", 0, 0, 0, "-8" };
			int fault = off % forms[i].need;
			eq(name(fault ? "align-fault-" : "align-free-", n, suffix[off]), v, fault ? AC : USER_EXIT);
			if (v == AC)
				eq(name("align-code-", n, ""), last.error, 0);
		}
	}
	eq("align-fault-ret", user(a_ret, at + 4), AC);
	eq("align-fault-iret", user(a_iret, at + 4), AC);
	eq("align-fault-jmp-mem", user(a_jmp_mem, at + 4), AC);
	/* What needs 16 bytes always says #GP (SDM vol. 3A §6.15). */
	eq("align-movaps", user(a_movaps, at + 8), GP);
	eq("align-cmpxchg16b", user(a_cmpxchg16b, at + 8), GP);
}

static int kernel_ac;
static int probe(struct frame *f)
{
	if (f->vector != USER_EXIT)
		return 0;
	static u64 word[2];
	kernel_ac = flags() >> 18 & 1;
	PEEK((u8 *)word + 1) = 1; /* no check at CPL 0 */
	return 0;
}

static void conditions(void)
{
	u64 at = USER(pages[4]) + 257;
	eq("align-ac-clear", user(a_quiet, at), USER_EXIT);
	eq("align-ac-cleared", user(a_cleared, at), USER_EXIT);
	set_cr0(cr0() & ~(1UL << 18));
	eq("align-am-clear", user(a_mov64, at), USER_EXIT);
	set_cr0(cr0() | 1 << 18);
	hook = probe;
	eq("align-kernel", user(a_mov8, at), USER_EXIT);
	hook = 0;
	eq("align-kernel-ac", kernel_ac, 1);
	/* Accesses that the processor makes for itself are not checked: descriptors. */
	struct table t = gdtr;
	static u8 moved[0x200] __attribute__((aligned(16)));
	for (int i = 0; i <= gdtr.limit; i++)
		moved[i + 1] = ((u8 *)gdt)[i];
	t.base = (u64)moved + 1;
	asm volatile("lgdt %0" : : "m"(t));
	pages[4][256] = 0x23;
	pages[4][257] = 0;
	eq("align-descriptor", user(a_fs_load, at - 1), USER_EXIT);
	asm volatile("lgdt %0" : : "m"(gdtr));
	asm volatile("mov %0, %%fs" : : "r"(0));
	u64 stack = tss.rsp[0];
	tss.rsp[0] = stack - 3; /* aligned by the processor */
	eq("align-fault-kernel-stack", user(a_mov64, at), AC);
	tss.rsp[0] = stack;
	map(3, phys(pages[4]) | P | W | U);
	map(4, 0);
	ok("align-across-bad-page", ({ int v = user(a_mov64, PAGE(4) - 4); v == AC || v == PF; }));
	map(3, 0);
}

void test_align(void)
{
	set_cr0(cr0() | 1 << 18);
	operands();
	conditions();
	set_cr0(cr0() & ~(1UL << 18));
	asm volatile("fninit");
}
