/* Segment limits and types for every kind of operand, and the instructions that look at descriptors, in 32-bit protected mode
 * (SDM vol. 3A chapters 3 and 5). */
#include "legacy32.h"
#include "forms.h"

static void basics(void)
{
	static const struct { u32 off; u16 sel; } __attribute__((packed)) far = { 7, SEL };
	u32 v;
	SET(SEL, data, 0xfff, A_DATA | A_BIG);
	asm volatile("mov %0, %%fs" : : "r"(SEL));
	eq("32-limit-last-byte", BAD(asm volatile("movb %%fs:0xfff, %%al" : : : "eax")), NONE);
	eq("32-limit-past", BAD(asm volatile("movw %%fs:0xfff, %%ax" : : : "eax")), FAULT(GP, 0));
	eq("32-limit-far-past", BAD(asm volatile("movb %%fs:0x1000, %%al" : : : "eax")), FAULT(GP, 0));
	eq("32-limit-wrap", BAD(asm volatile("movl %%fs:0xfffffffe, %%eax" : : : "eax")), FAULT(GP, 0));
	*(u32 *)(data + 0x10) = 0xfeed;
	asm volatile("movl %%fs:0x10, %0" : "=r"(v));
	eq("32-base", v, 0xfeed);
	SET(SEL, data, 0xfff, 0x91 | A_BIG);
	asm volatile("mov %0, %%fs" : : "r"(SEL));
	eq("32-read-only-read", BAD(asm volatile("movb %%fs:0, %%al" : : : "eax")), NONE);
	eq("32-read-only-write", BAD(asm volatile("movb %%al, %%fs:0" : : : "memory")), FAULT(GP, 0));
	asm volatile("mov %0, %%fs" : : "r"(0));
	eq("32-null-access", BAD(asm volatile("movb %%fs:0, %%al" : : : "eax")), FAULT(GP, 0));
	eq("32-code-write", BAD(asm volatile("movb %%al, %%cs:(%0)" : : "r"(data) : "memory")), FAULT(GP, 0));
	eq("32-ss-null", BAD(asm volatile("mov %0, %%ss" : : "r"(0))), FAULT(GP, 0));
	SET(SEL, 0, 0x1ff, A_DATA | A_BIG | A_GRAN); /* 2 MiB: the stack, and no more */
	stack_base = 0, stack_mask = ~0u;
	eq("32-ss-limit", BAD(asm volatile("mov %0, %%ss; mov %%ss:0x300000, %%eax; mov %1, %%ss" : : "r"(SEL), "r"(DATA) : "eax")), FAULT(SS, 0));
	stack_base = STACK16_BASE, stack_mask = 0xffff;
	eq("32-lfs", BAD(asm volatile("lfs %1, %0" : "=r"(v) : "m"(far))), NONE);
	eq("32-lfs-offset", v, 7);
	SET(SEL, 0, 0xfffff, 0x13 | A_BIG | A_GRAN);
	eq("32-absent", BAD(asm volatile("mov %0, %%fs" : : "r"(SEL))), FAULT(NP, SEL));
	asm volatile("mov %0, %%fs" : : "r"(0));
	SET(SEL, data, 0xf, A_CODE | A_BIG);
	eq("32-ljmp-past-limit", BAD(asm volatile("ljmp $0x38, $0x100")), FAULT(GP, 0));
	eq("32-into", BAD(asm volatile("movb $0x7f, %%al; incb %%al; into" : : : "eax")), FAULT(OF, 0));
	static const u32 bounds[2] = { 1, 5 };
	eq("32-bound-in", BAD(asm volatile("bound %0, %1" : : "r"(5), "m"(bounds))), NONE);
	eq("32-bound-out", BAD(asm volatile("bound %0, %1" : : "r"(6), "m"(bounds))), FAULT(BR, 0));
	eq("32-aam-0", BAD(asm volatile(".byte 0xd4, 0" : : : "eax")), FAULT(DE, 0));
	u16 rpl = 0x10;
	u8 z;
	asm volatile("arpl %w2, %0; setz %1" : "+m"(rpl), "=q"(z) : "r"(3));
	eq("32-arpl", rpl << 1 | z, 0x27);
	asm volatile("arpl %w2, %0; setz %1" : "+m"(rpl), "=q"(z) : "r"(2));
	eq("32-arpl-kept", rpl << 1 | z, 0x26);
}

/* The forms. */

#define M "%fs:(%ebx)"
#define FORM(name, s32, s16, flags, text) CODE32_(form32_##name, text)
FORMS
#undef FORM
#define FORM(name, s32, s16, flags, text) { #name, form32_##name, form32_##name##_end, s32, flags },
static const struct form forms[] = { FORMS };
#undef FORM

/* form runs f at offset off of segment SEL, whose memory begins at data. */
static u32 form(const struct form *f, u32 off)
{
	u32 *at = (u32 *)(data + (off & 0x1fff)), end = (u32)f->end - 2;
	for (u32 *p = at; p < at + f->size / 4 + 1 && p < (u32 *)(data + 8188); p++)
		*p = 0;
	if (f->flags & (NEAR | FAR)) {
		at[0] = end;
		*(u16 *)(at + 1) = f->flags & FAR ? CODE : 0;
	}
	return run(&(struct regs){ .ebx = off, .esi = off, .edi = off, .ecx = 1, .esp = USER_TOP, .eip = (u32)f->code, .eflags = 2,
		.cs = CODE, .ss = DATA, .ds = SEL2, .es = f->flags & SRC ? SEL2 : SEL, .fs = SEL });
}

static void every_form(void)
{
	SET(SEL2, data, 0xfff, A_DATA | A_BIG);
	for (const struct form *f = forms; f < forms + ARRAY_LENGTH(forms); f++) {
		SET(SEL, data, 0xfff, A_DATA | A_BIG);
		eq(name("limit32-", f->name, "-fits"), form(f, 0x1000 - f->size), EXIT);
		if (!ASTRAY(f))
			eq(name("limit32-", f->name, SUFFIX(f, "-past")), form(f, 0x1001 - f->size), FAULT(GP, 0));
		SET(SEL, data, 0xfff, 0x91 | A_BIG);
		eq(name("read-only32-", f->name, f->flags & WR ? SUFFIX(f, "-store") : "-load"), form(f, 0x200), f->flags & WR ? FAULT(GP, 0) : EXIT);
		SET(SEL, data, 0x7ff, 0x97 | A_BIG); /* expand down: offsets from 800 on */
		eq(name("down32-", f->name, "-fits"), form(f, 0x800), EXIT);
		if (!ASTRAY(f))
			eq(name("down32-", f->name, SUFFIX(f, "-below")), form(f, 0x7ff), FAULT(GP, 0));
	}
	/* and without B: up to ffff */
	SET(SEL, data - 0xe000, 0x7ff, 0x97);
	for (const struct form *f = forms; f < forms + 6; f++) {
		eq(name("down16-", f->name, "-fits"), form(f, 0x10000 - f->size), EXIT);
		eq(name("down16-", f->name, SUFFIX(f, "-past")), form(f, 0x10001 - f->size), FAULT(GP, 0));
	}
	SET(SEL, data, 0xfff, 0x99 | A_BIG); /* code cannot be written, and execute-only code not read */
	eq("32-execute-only-load", BAD(asm volatile("mov %0, %%fs" : : "r"(SEL))), FAULT(GP, SEL));
	SET(SEL, data, 0xfff, A_CODE | A_BIG);
	eq("32-readable-code-load", form(&forms[0], 0), EXIT);
	eq("32-readable-code-store", form(&forms[3], 0), FAULT(GP, 0));
}

/* Instructions that use the stack, at CPL 3 with a stack of 4 KiB. Pushes are n bytes below ESP, the others n above. */
#define STACK_FORMS \
	PUSHES(pushw, 2, "pushw %ax") PUSHES(pushl, 4, "pushl %eax") PUSHES(pushw_imm, 2, "pushw $1") PUSHES(pushl_imm, 4, "pushl $1") \
	PUSHES(pushl_mem, 4, "pushl (%esi)") PUSHES(pushw_ds, 2, "pushw %ds") PUSHES(pushfl, 4, "pushfl") \
	PUSHES(pushfw, 2, "pushfw") PUSHES(pushal, 32, "pushal") PUSHES(pushaw, 16, "pushaw") PUSHES(call, 4, "call 1f; 1:") \
	PUSHES(call_reg, 4, "mov $1f, %eax; call *%eax; 1:") PUSHES(lcall, 8, "lcall $0x33, $1f; 1:") PUSHES(enter, 4, "enter $0, $0") \
	PUSHES(enter_frame, 20, "enter $16, $0") PUSHES(enter_level_1, 8, "enter $0, $1") PUSHES(enter_level_3, 16, "mov %esp, %ebp; enter $0, $3") \
	POPS(popw, 2, "popw %ax") POPS(popl, 4, "popl %eax") POPS(popl_mem, 4, "popl (%esi)") POPS(popw_ds, 2, "popw %ds") POPS(popw_gs, 2, "popw %gs") \
	POPS(popfl, 4, "popfl") POPS(popfw, 2, "popfw") POPS(popal, 32, "popal") POPS(popaw, 16, "popaw") RETURNS(ret, 4, "ret") \
	RETURNS(ret_imm, 4, "ret $8") RETURNS(lret, 8, "lret") RETURNS(iret, 12, "iret") POPS(leave, 4, "leave") STILL_(load_bp, 4, "mov (%ebp), %eax") \
	STILL_(store_sp, 4, "mov %eax, (%esp)") STILL_(load_ss, 4, "mov %ss:(%ebx), %eax")
#define PUSHES(name, n, text) CODE32_(stack32_##name, text)
#define POPS PUSHES
#define RETURNS PUSHES
#define STILL_ PUSHES
STACK_FORMS
#undef PUSHES
#undef POPS
#undef RETURNS
#undef STILL_
#define PUSHES(name, n, text) { #name, stack32_##name, stack32_##name##_end, n, WR },
#define POPS(name, n, text) { #name, stack32_##name, stack32_##name##_end, n, 0 },
#define RETURNS(name, n, text) { #name, stack32_##name, stack32_##name##_end, n, NEAR },
#define STILL_(name, n, text) { #name, stack32_##name, stack32_##name##_end, n, STILL },
static const struct form stack_forms[] = { STACK_FORMS };

static u32 stack_form(const struct form *f, u32 esp)
{
	u32 *at = (u32 *)(data + (esp & 0x1fff));
	for (u32 *p = (u32 *)data; p < (u32 *)(data + 8192 - 4); p++)
		*p = 0;
	if (f->flags & NEAR) {
		at[0] = (u32)f->end - 2;
		at[1] = USER_CODE | 3;
		at[2] = 2;
	}
	return run(&(struct regs){ .esi = (u32)user_stack, .ebp = esp, .ebx = esp, .esp = esp, .eip = (u32)f->code, .eflags = 2,
		.cs = USER_CODE | 3, .ss = SEL | 3, .ds = USER_DATA | 3, .es = USER_DATA | 3 });
}

static void every_stack_form(void)
{
	for (const struct form *f = stack_forms; f < stack_forms + ARRAY_LENGTH(stack_forms); f++) {
		u32 top = f->flags & WR ? 0x1000 : 0x1000 - f->size;
		SET(SEL, data, 0xfff, A_DATA | A_BIG | A_DPL3);
		eq(name("stack32-", f->name, "-fits"), stack_form(f, top), EXIT);
		if (!ASTRAY(f)) {
			eq(name("stack32-", f->name, SUFFIX(f, "-past")), stack_form(f, top + 1), FAULT(SS, 0));
			if (!(f->flags & STILL))
				eq(name("stack32-", f->name, "-past-esp"), last_esp, top + 1);
		}
		if (!(f->flags & WR))
			continue;
		eq(name("stack32-", f->name, SUFFIX(f, "-below")), stack_form(f, f->size - 1), FAULT(SS, 0));
		SET(SEL, data, 0x7ff, 0x97 | A_BIG | A_DPL3); /* expand down */
		eq(name("stack-down-", f->name, "-fits"), stack_form(f, 0x800 + f->size), EXIT);
		eq(name("stack-down-", f->name, SUFFIX(f, "-below")), stack_form(f, 0x7ff + f->size), FAULT(SS, 0));
	}
}

/* LAR, LSL, VERR, VERW. */
#define LOOK(op, sel) ({ u32 v_ = 0x5555; u8 z_; asm volatile(#op " %w2, %0; setz %1" : "+r"(v_), "=q"(z_) : "r"(sel)); z_ ? v_ : 0x5555u; })
#define VERIFY(op, sel) ({ u8 z_; asm volatile(#op " %w1; setz %0" : "=q"(z_) : "r"(sel)); z_; })

static void looks(void)
{
	static const char *const digits[] = { "0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "a", "b", "c", "d", "e", "f" };
	for (u32 t = 0; t < 16; t++) {
		SET(SEL, 0x123456, 0x5678, 0x80 | t);
		eq(name("32-lar-system-", digits[t], ""), LOOK(lar, SEL) & ~0xf0000u, 0x1a3e >> t & 1 ? 0x8000 | t << 8 : 0x5555);
		eq(name("32-lsl-system-", digits[t], ""), LOOK(lsl, SEL), 0xa0e >> t & 1 ? 0x5678 : 0x5555);
		eq(name("32-verr-system-", digits[t], ""), VERIFY(verr, SEL), 0);
		SET(SEL, 0x123456, 0x5678, 0x90 | t);
		eq(name("32-lar-segment-", digits[t], ""), LOOK(lar, SEL) & ~0xf0000u, 0x9000 | t << 8);
		eq(name("32-lsl-segment-", digits[t], ""), LOOK(lsl, SEL), 0x5678);
		eq(name("32-verr-segment-", digits[t], ""), VERIFY(verr, SEL), t < 8 || t & 2 ? 1 : 0);
		eq(name("32-verw-segment-", digits[t], ""), VERIFY(verw, SEL), t < 8 && t & 2 ? 1 : 0);
	}
	SET(SEL, 0, 0x56789, A_DATA | A_GRAN);
	eq("32-lsl-pages", LOOK(lsl, SEL), 0x56789fff);
	SET(SEL, 0, 0x5678, 0x13); /* absent ones can be looked at */
	eq("32-lar-absent", LOOK(lar, SEL) & ~0xf0000u, 0x1300);
	eq("32-verr-absent", VERIFY(verr, SEL), 1);
	SET(SEL, 0, 0x5678, A_DATA);
	eq("32-lar-rpl", LOOK(lar, SEL | 1), 0x5555);
	SET(SEL, 0, 0x5678, 0x9f);
	eq("32-lar-conforming-rpl", LOOK(lar, SEL | 3) & ~0xf0000u, 0x9f00);
	eq("32-verr-conforming-rpl", VERIFY(verr, SEL | 3), 1);
	eq("32-lar-null", LOOK(lar, 3), 0x5555);
	eq("32-lar-past", LOOK(lar, 0x100), 0x5555);
	eq("32-lar-no-ldt", LOOK(lar, 4), 0x5555);
	ldt32[1] = segment(0, 0x1234, A_DATA);
	asm volatile("lldt %w0" : : "r"(LDT_SEL));
	eq("32-lsl-ldt", LOOK(lsl, 0x0c), 0x1234);
	eq("32-lsl-past-ldt", LOOK(lsl, 0x44), 0x5555);
	asm volatile("lldt %w0" : : "r"(0));
}

static void loads(void)
{
	static const struct { const char *name; u32 attr, data, stack; } all[] = {
		{ "rw", 0x93, NONE, NONE }, { "ro", 0x91, NONE, FAULT(GP, SEL) }, { "down-rw", 0x97, NONE, NONE },
		{ "code-x", 0x99, FAULT(GP, SEL), FAULT(GP, SEL) }, { "code-rx", 0x9b, NONE, FAULT(GP, SEL) },
		{ "conforming-x", 0x9d, FAULT(GP, SEL), FAULT(GP, SEL) }, { "conforming-rx", 0x9f, NONE, FAULT(GP, SEL) },
		{ "ldt", 0x82, FAULT(GP, SEL), FAULT(GP, SEL) }, { "tss", 0x89, FAULT(GP, SEL), FAULT(GP, SEL) },
		{ "gate", 0x8c, FAULT(GP, SEL), FAULT(GP, SEL) }, { "rw-absent", 0x13, FAULT(NP, SEL), FAULT(SS, SEL) },
		{ "rw-dpl3", 0xf3, NONE, FAULT(GP, SEL) }, { "ldt-absent", 0x02, FAULT(GP, SEL), FAULT(GP, SEL) },
	};
	for (u32 i = 0; i < ARRAY_LENGTH(all); i++) {
		SET(SEL, 0, 0xfffff, all[i].attr | A_BIG | A_GRAN);
		eq(name("32-load-data-", all[i].name, ""), BAD(asm volatile("mov %0, %%fs" : : "r"(SEL))), all[i].data);
		eq(name("32-load-stack-", all[i].name, ""),
			BAD(asm volatile("mov %%esp, %%ecx; mov %0, %%ss; mov %1, %%ss" : : "r"(SEL), "r"(DATA) : "ecx")), all[i].stack);
	}
	SET(SEL, 0, 0xfffff, 0x92 | A_BIG | A_GRAN);
	asm volatile("mov %0, %%fs" : : "r"(SEL) : "memory");
	eq("32-load-sets-accessed", gdt32[SEL / 8] >> 40 & 0xff, 0x93);
	eq("32-load-past-gdt", BAD(asm volatile("mov %0, %%fs" : : "r"(0x100))), FAULT(GP, 0x100));
	eq("32-load-last-of-gdt", (gdt32[31] = segment(0, 1, A_DATA), BAD(asm volatile("mov %0, %%fs" : : "r"(0xf8)))), NONE);
	struct table32 shorter = { 0xfe, (u32)gdt32 };
	asm volatile("lgdt %0" : : "m"(shorter));
	eq("32-load-half-in-gdt", BAD(asm volatile("mov %0, %%fs" : : "r"(0xf8))), FAULT(GP, 0xf8));
	asm volatile("lgdt %0" : : "m"(gdtr32));
	eq("32-load-no-ldt", BAD(asm volatile("mov %0, %%fs" : : "r"(0x0c))), FAULT(GP, 0x0c));
	ldt32[1] = segment(0, 1, A_DATA);
	eq("32-lldt", BAD(asm volatile("lldt %w0" : : "r"(LDT_SEL))), NONE);
	eq("32-load-ldt", BAD(asm volatile("mov %0, %%fs" : : "r"(0x0c))), NONE);
	eq("32-load-ldt-entry-0", (ldt32[0] = segment(0, 1, A_DATA), BAD(asm volatile("mov %0, %%fs" : : "r"(4)))), NONE);
	eq("32-load-past-ldt", BAD(asm volatile("mov %0, %%fs" : : "r"(0x44))), FAULT(GP, 0x44));
	eq("32-ltr-ldt", BAD(asm volatile("ltr %w0" : : "r"(LDT_SEL))), FAULT(GP, LDT_SEL));
	eq("32-ltr-in-ldt", BAD(asm volatile("ltr %w0" : : "r"(0x0c))), FAULT(GP, 0x0c));
	eq("32-lldt-tss", BAD(asm volatile("lldt %w0" : : "r"(TSS_SEL))), FAULT(GP, TSS_SEL));
	SET(SEL, data, 103, A_TSS);
	eq("32-ltr", BAD(asm volatile("ltr %w0" : : "r"(SEL))), NONE);
	eq("32-ltr-busy-set", gdt32[SEL / 8] >> 40 & 0xff, 0x8b);
	eq("32-ltr-busy", BAD(asm volatile("ltr %w0" : : "r"(SEL))), FAULT(GP, SEL));
	SET(SEL, data, 43, A_TSS16);
	eq("32-ltr-16-bit", BAD(asm volatile("ltr %w0" : : "r"(SEL))), NONE);
	eq("32-ltr-16-bit-busy-set", gdt32[SEL / 8] >> 40 & 0xff, 0x83);
	SET(SEL, data, 103, 0x09);
	eq("32-ltr-absent", BAD(asm volatile("ltr %w0" : : "r"(SEL))), FAULT(NP, SEL));
	reset_task();
	if (!on_tcg32) { /* it would load them */
		SET(SEL, data, 3, A_DATA | A_BIG);
		asm volatile("mov %0, %%fs" : : "r"(SEL));
		eq("32-lgdt-past-limit", BAD(asm volatile("lgdt %%fs:0" : : )), FAULT(GP, 0));
		eq("32-lidt-past-limit", BAD(asm volatile("lidt %%fs:0" : : )), FAULT(GP, 0));
		eq("32-lmsw-past-limit", BAD(asm volatile("lmsw %%fs:3" : : )), FAULT(GP, 0));
	}
	asm volatile("mov %0, %%fs" : : "r"(0));
}

void segments32(void)
{
	basics();
	every_form();
	every_stack_form();
	looks();
	loads();
}
