/* Compatibility mode: 32- and 16-bit code in long mode, with segment limits (SDM vol. 3A chapters 3 and 5). */
#include "suite.h"
#include "forms.h"

#define COMPAT_VA 0x40000000UL /* as in calls.c: where code below 4 GiB sees the image */
#define COMPAT(p) ((u64)(p) + COMPAT_VA)
#define FAULT(vector, code) ((u64)(vector) << 32 | (code))
#define EXIT FAULT(USER_EXIT, 0)

/* The operand's offset comes in EDI. */
#define CODE_(bits, name, text) \
	extern u8 name[], name##_end[]; \
	asm(".pushsection .text.tested, \"ax\"\n.code" #bits "\n" #name ": mov %edi, %ebx; mov %edi, %esi; mov $1, %ecx;" text "\nint $0x80\n" #name "_end:\n.code64\n.popsection\n");

#define M "%fs:(%ebx)"
#define FORM(name, s32, s16, flags, text) CODE_(32, formc_##name, text)
FORMS
#undef FORM
#define FORM(name, s32, s16, flags, text) { #name, formc_##name, formc_##name##_end, s32, flags },
static const struct form forms[] = { FORMS };

static u64 outcome(int v)
{
	return v == NOTRAP ? (u64)NOTRAP : (u64)v << 32 | last.error;
}

static u64 run_ds(u8 *code, u64 edi, u16 cs, u16 ss, u64 esp, u16 ds, u16 es, u16 fs)
{
	int v = TRY({
		asm volatile("mov %0, %%es; mov %1, %%fs; mov %2, %%ds" : : "r"((u32)es), "r"((u32)fs), "r"((u32)ds));
		go(COMPAT(code), cs, 2, esp, ss, edi);
	});
	return outcome(v);
}

static u64 run(u8 *code, u64 edi, u16 cs, u16 ss, u64 esp, u16 es, u16 fs)
{
	return run_ds(code, edi, cs, ss, esp, 0x23, es, fs);
}

#define DATA_SEL (SCRATCH + 0x18)
#define OTHER_SEL (SCRATCH + 0x20)
#define SET(sel, base, limit, attr) (gdt[(sel) / 8] = segment(base, limit, attr))
#define TOP (COMPAT(user_stack) + 4000)

static u64 form(const struct form *f, u32 off)
{
	u8 *at = pages[0] + off;
	for (u32 i = 0; i < f->size && at + i < pages[2]; i++)
		at[i] = 0;
	if (f->flags & (NEAR | FAR))
		*(u32 *)at = COMPAT(f->end - 2);
	if (f->flags & FAR)
		*(u16 *)(at + 4) = 0x1b;
	return run_ds((u8 *)f->code, off, 0x1b, 0x23, TOP, OTHER_SEL | 3, f->flags & SRC ? OTHER_SEL | 3 : DATA_SEL | 3, DATA_SEL | 3);
}

static void limits(void)
{
	SET(OTHER_SEL, COMPAT(pages[0]), 0xfff, 0x40f3);
	for (const struct form *f = forms; f < forms + sizeof forms / sizeof *forms; f++) {
		if (f->flags & PRIV)
			continue;
		SET(DATA_SEL, COMPAT(pages[0]), 0xfff, 0x40f3);
		eq(name("compat-limit-", f->name, "-fits"), form(f, 0x1000 - f->size), EXIT);
		if (!ASTRAY(f))
			eq(name("compat-limit-", f->name, SUFFIX(f, "-past")), form(f, 0x1001 - f->size), FAULT(GP, 0));
		SET(DATA_SEL, COMPAT(pages[0]), 0xfff, 0x40f1);
		eq(name("compat-read-only-", f->name, f->flags & WR ? SUFFIX(f, "-store") : "-load"), form(f, 0x200), f->flags & WR ? FAULT(GP, 0) : EXIT);
	}
}

CODE_(32, c_push, "push %eax")
CODE_(32, c_pop, "pop %eax")
CODE_(32, c_null, "xor %eax, %eax; mov %eax, %gs; mov %gs:(%edi), %eax")
CODE_(32, c_null_ss, "mov $3, %eax; mov %eax, %ss")
CODE_(32, c_es_null, "mov %es:(%edi), %eax")
CODE_(32, c_dec, "mov $1, %eax; dec %eax; inc %ecx")
CODE_(32, c_wrap, "mov $0xfffffffe, %eax; mov %ds:(%eax), %eax")
CODE_(16, c_16, "mov %esp, %eax; push %ax; mov %esp, %ecx")
CODE_(32, c_syscall, "syscall")
CODE_(32, c_sysret, "sysret")
CODE_(32, c_rdfsbase, ".byte 0xf3, 0x0f, 0xae, 0xc0")
CODE_(32, c_swapgs, ".byte 0x0f, 0x01, 0xf8")
CODE_(32, c_iret, "push $0x23; push $0x41234567; push $2; push $0x1b; push $c_iret_back + 0x40000000; iret; c_iret_back:")
CODE_(32, c_far_64, "push $0x2b; push $c_far_64_code + 0x40000000; lret; .code64; c_far_64_code: mov $0x123456789abc, %rax; int $0x80; .code32")
CODE_(32, c_gate, "lcall $0x93, $0")

extern u8 compat_gate_entry[];
asm(".text\ncompat_gate_entry: int $0x45\n");

static void rules(void)
{
	SET(DATA_SEL, COMPAT(pages[0]), 0xfff, 0x40f3);
	eq("compat-push-fits", run(c_push, 0, 0x1b, DATA_SEL | 3, 0x1000, 0, 0), EXIT);
	eq("compat-push-past", run(c_push, 0, 0x1b, DATA_SEL | 3, 0x1001, 0, 0), FAULT(SS, 0));
	eq("compat-push-wraps", run(c_push, 0, 0x1b, DATA_SEL | 3, 2, 0, 0), FAULT(SS, 0));
	eq("compat-pop-past", run(c_pop, 0, 0x1b, DATA_SEL | 3, 0xffd, 0, 0), FAULT(SS, 0));
	eq("compat-pop-past-rsp", last.rsp, 0xffd);
	eq("compat-null", run(c_null, 0, 0x1b, 0x23, TOP, 0, 0), FAULT(GP, 0));
	eq("compat-null-es", run(c_es_null, 0, 0x1b, 0x23, TOP, 0, 0), FAULT(GP, 0));
	eq("compat-null-ss", run(c_null_ss, 0, 0x1b, 0x23, TOP, 0, 0), FAULT(GP, 0));
	eq("compat-dec", run(c_dec, 0, 0x1b, 0x23, TOP, 0, 0), EXIT); /* 48 is no REX */
	eq("compat-dec-value", last.rax << 32 | last.rcx, 2);
	SET(DATA_SEL, 0, 0xfffff, 0x92 | 0x60 | 0x2000); /* L of a data segment means nothing */
	eq("compat-clean-read", run(c_es_null, COMPAT(pages[0]) & 0xfffff, 0x1b, 0x23, TOP, DATA_SEL | 3, 0) & ~FAULT(0, ~0u), FAULT(PF, 0) & ~FAULT(0, ~0u));
	eq("compat-sets-accessed", gdt[DATA_SEL / 8] >> 40 & 1, 1);
	SET(OTHER_SEL, COMPAT_VA, 0xffff, 0xfb); /* 16-bit code, and a 16-bit stack */
	SET(DATA_SEL, COMPAT(pages[0]), 0xfff, 0xf3);
	gdt[OTHER_SEL / 8] = segment(COMPAT(c_16), 0xfff, 0xfb);
	int v = TRY(go(0, OTHER_SEL | 3, 2, 0x12340800, DATA_SEL | 3, 0));
	eq("compat-16", outcome(v), EXIT);
	eq("compat-16-push", last.rcx & 0xffff, 0x7fe);
	eq("compat-16-ip", last.rip, c_16_end - c_16);
	if (intel()) {
		eq("compat-syscall-ud", run(c_syscall, 0, 0x1b, 0x23, TOP, 0, 0), FAULT(UD, 0));
		eq("compat-sysret-ud", run(c_sysret, 0, 0x1b, 0x23, TOP, 0, 0), FAULT(UD, 0));
	}
	eq("compat-rdfsbase-ud", run(c_rdfsbase, 0, 0x1b, 0x23, TOP, 0, 0), FAULT(UD, 0));
	eq("compat-swapgs-ud", run(c_swapgs, 0, 0x1b, 0x23, TOP, 0, 0), FAULT(UD, 0));
	eq("compat-iret", run(c_iret, 0, 0x1b, 0x23, TOP, 0, 0), EXIT);
	eq("compat-iret-stays", last.rsp, TOP - 8); /* to the same privilege it pops three */
	eq("compat-to-64", run(c_far_64, 0, 0x1b, 0x23, TOP, 0, 0), EXIT);
	eq("compat-to-64-code", last.cs << 48 | (last.rax & 0xffffffffffff), 0x2bUL << 48 | 0x123456789abc);
	/* a 64-bit call gate from compatibility mode */
	u64 t = (u64)compat_gate_entry;
	gdt[0x90 / 8] = (t & 0xffff) | 8UL << 16 | 0xecUL << 40 | (t >> 16 & 0xffff) << 48;
	gdt[0x98 / 8] = t >> 32;
	eq("compat-call-gate", run(c_gate, 0, 0x1b, 0x23, TOP, 0, 0) >> 32, 0x45);
	eq("compat-call-gate-cs-ss", last.cs << 16 | last.ss, 0x080000);
	eq("compat-call-gate-frame", PEEK(last.rsp + 8) << 48 | PEEK(last.rsp + 16), 0x1bUL << 48 | TOP);
	/* 64-bit code knows no limits and no types but of FS and GS bases */
	SET(DATA_SEL, 0x1000, 0, 0xf1);
	v = TRY(asm volatile("mov %0, %%ds; movq $7, %%ds:(%1); mov %%ds:(%1), %%rax" : : "r"(DATA_SEL), "r"(pages[0]) : "rax", "memory"));
	eq("64-data-has-no-limit", outcome(v), (u64)NOTRAP);
	eq("64-data-has-no-base", PEEK(pages[0]), 7);
	SET(DATA_SEL, (u64)pages[0], 0, 0xf1);
	v = TRY(asm volatile("mov %0, %%fs; movq $9, %%fs:0x100" : : "r"(DATA_SEL) : "memory"));
	eq("64-fs-has-no-limit", outcome(v), (u64)NOTRAP);
	eq("64-fs-has-its-base", PEEK(pages[0] + 0x100), 9);
	v = TRY(asm volatile("mov %0, %%fs; mov %%fs:(%1), %%rax" : : "r"(0), "r"(pages[0]) : "rax", "memory"));
	eq("64-null-fs", outcome(v), (u64)NOTRAP);
	v = TRY(asm volatile("movb $0xcc, %%cs:(%0)" : : "r"(pages[0]) : "memory"));
	eq("64-code-write", outcome(v), (u64)NOTRAP);
	asm volatile("mov %0, %%ds; mov %0, %%es; mov %1, %%fs; mov %1, %%gs" : : "r"(0x10), "r"(0));
}

void test_compat(void)
{
	limits();
	rules();
	for (int i = 0; i < 16; i++)
		gdt[SCRATCH / 8 + i] = 0;
}
