/* Real mode, with 64 KiB segments and with what protected mode left behind (SDM vol. 3B section 20.1). */
#include "legacy32.h"
#include "forms.h"

#define M "%fs:(%bx)"
#define FORM(name, s32, s16, flags, text) CODE16_(formreal_##name, text)
FORMS
#undef FORM
#define FORM(name, s32, s16, flags, text) { #name, formreal_##name, formreal_##name##_end, s16, flags },
static const struct form forms[] = { FORMS };

static struct regs regs(void)
{
	return (struct regs){ .esp = 0x8000, .eflags = 2, .cs = SEG16 >> 4, .ss = STACK16_BASE >> 4, .ds = DATA16_BASE >> 4,
		.es = DATA16_BASE >> 4, .fs = DATA16_BASE >> 4 };
}
#define REAL(name, r) ({ LOAD16(name); run_real(&(r), 0); })
#define STACK_WORD(off) (*(volatile u16 *)(STACK16_BASE + (off)))
#define DATA_WORD(off) (*(volatile u16 *)(DATA16_BASE + (off)))

static void limits(void)
{
	for (const struct form *f = forms; f < forms + ARRAY_LENGTH(forms); f++) {
		struct regs r = regs();
		copy(SEG16, f->code, f->end);
		if (f->flags & PROT) {
			r.ebx = 0x100;
			eq(name("real-", f->name, "-ud"), run_real(&r, 0), UD);
			continue;
		}
		volatile u32 *at = (volatile u32 *)(DATA16_BASE + 0x10000 - f->size);
		for (u32 i = 0; i < f->size / 4 + 1; i++)
			at[i] = 0;
		if (f->flags & (NEAR | FAR))
			at[0] = (f->end - 2 - f->code) | SEG16 >> 4 << 16;
		r.ecx = 1;
		r.ebx = r.esi = r.edi = 0x10000 - f->size;
		eq(name("real-limit-", f->name, "-fits"), run_real(&r, 0), 0x80);
		r.ebx = r.esi = r.edi = 0x10001 - f->size;
		if (f->size > 1 && !ASTRAY(f))
			eq(name("real-limit-", f->name, SUFFIX(f, "-past")), run_real(&r, 0), GP);
	}
}

CODE16_(real_int60, "int $0x60")
CODE16_(real_far, "mov $0xf000, %ax; lcall $0x2000, $0x100")
CODE16_(real_pushf, "pushf; pop %ax; pushfl; pop %ebx")
CODE16_(real_popf, "push %ax; popf; pushf; pop %bx; push $2; popf")
CODE16_(real_divide, "div %cl")
CODE16_(real_ud, "ud2")
CODE16_(real_int3, "int3")
CODE16_(real_into, "mov $0x7f, %al; inc %al; into")
CODE16_(real_bound, "bound %ax, (%bx)")
CODE16_(real_nm, "mov %cr0, %eax; or $8, %al; mov %eax, %cr0; fnop")
CODE16_(real_push, "push %ax")
CODE16_(real_pop, "pop %bx")
CODE16_(real_pushl, "pushl %eax")
CODE16_(real_pusha, "pusha")
CODE16_(real_popa, "popa")
CODE16_(real_read, "mov (%bx), %ax")
CODE16_(real_read_long, "addr32 movw (%ebx), %ax")
CODE16_(real_write_long, "addr32 movw %ax, (%ebx)")
CODE16_(real_read_fs_long, "addr32 movl %fs:(%ebx), %eax; mov $0x4000, %cx; mov %cx, %fs; addr32 movl %fs:(%ebx), %edx")
CODE16_(real_ss, "mov -2(%bp), %ax")
CODE16_(real_cs_write, "movw $0x1234, %cs:0x300; mov %cs:0x300, %ax")
CODE16_(real_ljmp_long, "ljmpl $0x2000, $0x10000")
CODE16_(real_jmp_long, ".byte 0x66, 0xe9; .long 0x10000")
CODE16_(real_iret, "iretw")
CODE16_(real_iretl, "iretl")
CODE16_(real_iretl_flags, "pushl $0x1a4cd7; pushl $0x2000; pushl $1f - real_iretl_flags; iretl; 1: pushfl; pop %eax; pushl $2; popfl")
CODE16_(real_lidt, "lidt (%bx); int $0x70")
CODE16_(real_msw, "smsw %ax; lmsw %bx; smsw %cx")
CODE16_(real_movs, "rep movsb")
CODE16_(real_system, "mov %cr0, %eax; mov %cr2, %eax; mov %dr7, %eax; wbinvd; clts; invlpg (%bx); cli; in $0x61, %al; mov $0x10, %ecx; rdmsr")
CODE16_(real_hlt_free, "mov %cr4, %eax; mov %eax, %cr4; xor %eax, %eax; cpuid")
CODE16_(real_sysenter, "sysenter")
CODE16_(real_sysexit, "sysexit")
CODE16_(real_push_esp, "pushl %eax; mov %esp, %ecx")
CODE16_(real_sti, "sti; nop; cli; pushf; pop %ax")
CODE16_(real_protected, "cli; mov %cr0, %eax; or $1, %al; mov %eax, %cr0; mov $0x10, %bx; mov %bx, %ds; mov %bx, %es; and $0xfe, %al; mov %eax, %cr0;"
	"xor %bx, %bx; mov %bx, %ds; mov %bx, %es; mov $0x110000, %ebx; addr32 movl %ds:(%ebx), %eax; addr32 movl %es:(%ebx), %ecx")

static void interrupts(void)
{
	struct regs r = regs();
	r.eflags = 0x4cd7;
	eq("real-int", REAL(real_int60, r), 0x60);
	eq("real-int-cs-ip", last.cs << 16 | last.eip, (SEG16 >> 4) << 16 | 2);
	eq("real-int-flags", last.eflags & 0x7fd7, 0x4cd7);
	eq("real-int-sp", last_esp, 0x8000);
	r.eflags = 2;
	eq("real-divide", REAL(real_divide, r), DE);
	eq("real-divide-ip", last.eip, 0);
	eq("real-ud", REAL(real_ud, r), UD);
	eq("real-int3", REAL(real_int3, r), BP);
	eq("real-int3-ip", last.eip, 1);
	eq("real-into", REAL(real_into, r), OF);
	DATA_WORD(0x200) = 1;
	DATA_WORD(0x202) = 5;
	r.ebx = 0x200;
	r.eax = 6;
	eq("real-bound", REAL(real_bound, r), BR);
	eq("real-nm", REAL(real_nm, r), NM);
	asm volatile("clts");
	/* an error code is not pushed: the stack holds three words whatever the exception */
	r.ebx = 0xffff;
	eq("real-gp", REAL(real_read, r), GP);
	eq("real-gp-frame", last_esp << 16 | last.eip, 0x80000000);
	r.ebp = 1;
	eq("real-ss", REAL(real_ss, r), SS);
	eq("real-system", REAL(real_system, r), 0x80);
	eq("real-cr4-cpuid", REAL(real_hlt_free, r), 0x80);
	eq("real-sysenter", REAL(real_sysenter, r), GP);
	eq("real-sysexit", REAL(real_sysexit, r), GP);
	eq("real-sti", (REAL(real_sti, r), last.eax & 0x200), 0);
	/* the vector table where LIDT puts it, and its limit */
	for (u32 i = 0; i < 0x100; i++)
		((volatile u32 *)(DATA16_BASE + 0x1000))[i] = ((volatile u32 *)0)[i];
	((volatile u32 *)(DATA16_BASE + 0x1000))[0x70] = ((volatile u32 *)0)[0x71];
	*(volatile u16 *)(DATA16_BASE + 0x400) = 0x3ff;
	*(volatile u32 *)(DATA16_BASE + 0x402) = DATA16_BASE + 0x1000;
	r.ebx = 0x400;
	eq("real-lidt", REAL(real_lidt, r), 0x71);
	*(volatile u16 *)(DATA16_BASE + 0x400) = 0x70 * 4 + 2;
	eq("real-idt-limit", REAL(real_lidt, r), GP);
	eq("real-idt-limit-ip", last.eip, 3);
	*(volatile u16 *)(DATA16_BASE + 0x400) = 0x70 * 4 + 3;
	eq("real-idt-limit-fits", REAL(real_lidt, r), 0x71);
	*(volatile u16 *)(DATA16_BASE + 0x400) = DF * 4 + 3;
	eq("real-idt-limit-df", REAL(real_lidt, r), DF); /* #GP has no vector */
}

static void transfers(void)
{
	struct regs r = regs();
	*(volatile u32 *)(SEG16 + 0x100) = 0x80cd40; /* inc %ax; int $0x80 */
	eq("real-far-call", (REAL(real_far, r), last.eax & 0xffff), 0xf001);
	eq("real-far-call-frame", STACK_WORD(0x7ffe) << 16 | STACK_WORD(0x7ffc), (SEG16 >> 4) << 16 | 8);
	if (!on_tcg32) { /* code has no limit there */
		eq("real-ljmp-past-limit", REAL(real_ljmp_long, r), GP);
		eq("real-jmp-past-limit", REAL(real_jmp_long, r), GP);
		*(volatile u8 *)(SEG16 + 0xffff) = 0x90;
		r.eip = 0xffff;
		eq("real-runs-past-end", run_real(&r, 0), GP);
		eq("real-runs-past-end-ip", last.eip, 0);
		*(volatile u8 *)(SEG16 + 0xffff) = 0xb0;
		eq("real-instruction-past-end", run_real(&r, 0), GP);
		eq("real-instruction-past-end-ip", last.eip, 0xffff);
		*(volatile u32 *)(STACK16_BASE + 0x8000) = 0x10000;
		*(volatile u32 *)(STACK16_BASE + 0x8004) = SEG16 >> 4;
		*(volatile u32 *)(STACK16_BASE + 0x8008) = 2;
		r.eip = 0;
		eq("real-iretd-past-limit", REAL(real_iretl, r), GP);
	}
	STACK_WORD(0x8000) = 0x40;
	STACK_WORD(0x8002) = (SEG16 + 0x100) >> 4;
	STACK_WORD(0x8004) = 0x4cd7;
	*(volatile u8 *)(SEG16 + 0x140) = 0xcc;
	eq("real-iret", REAL(real_iret, r), BP);
	eq("real-iret-to", last.cs << 16 | last.eip, (SEG16 + 0x100) >> 4 << 16 | 0x41);
	eq("real-iret-flags", last.eflags & 0x7fd7, 0x4cd7);
	/* VIF, VIP and VM stay as they were */
	eq("real-iretd-flags", (REAL(real_iretl_flags, r), last.eax & 0x1f7fd7), 0x4cd7);
	r.eflags = 0x7cd7;
	eq("real-pushf", (REAL(real_pushf, r), last.eax & 0x7fd7), 0x7cd7);
	eq("real-pushfd", last.ebx & 0x1f7fd7, 0x7cd7);
	r.eflags = 2;
	r.eax = 0x7cd7;
	eq("real-popf", (REAL(real_popf, r), last.ebx & 0x7fd7), 0x7cd7);
	r.ebx = 0xe;
	eq("real-msw", REAL(real_msw, r), 0x80);
	eq("real-lmsw", last.ecx & 0xf, 0xe);
	set_cr0(2, 0xc);
}

static void stacks(void)
{
	static const struct { const char *name; const u8 *code, *end; u32 sp, want, after; } all[] = {
		{ "push-wraps", real_push, real_push_end, 0, 0x80, 0xfffe }, { "pop-wraps", real_pop, real_pop_end, 0xfffe, 0x80, 0 },
		{ "pop-odd", real_pop, real_pop_end, 0xffff, SS, 0xffff }, { "pusha", real_pusha, real_pusha_end, 22, 0x80, 6 },
		{ "pusha-wraps", real_pusha, real_pusha_end, 6, 0x80, 0xfff6 }, { "pusha-7", real_pusha, real_pusha_end, 7, GP, 7 },
		{ "pusha-9", real_pusha, real_pusha_end, 9, GP, 9 }, { "pusha-15", real_pusha, real_pusha_end, 15, GP, 15 },
		{ "popa-odd", real_popa, real_popa_end, 0xfff1, SS, 0xfff1 }, { "pushl", real_pushl, real_pushl_end, 10, 0x80, 6 },
	};
	struct regs r = regs();
	for (u32 i = 0; i < ARRAY_LENGTH(all); i++) {
		r.esp = all[i].sp;
		copy(SEG16, all[i].code, all[i].end);
		eq(name("real-", all[i].name, ""), run_real(&r, 0), all[i].want);
		eq(name("real-", all[i].name, "-sp"), last_esp & 0xffff, all[i].after);
	}
	r.esp = 0x12348000;
	eq("real-push-keeps-high-esp", (REAL(real_push, r), last_esp), 0x12347ffe);
}

static void addresses(void)
{
	struct regs r = regs();
	/* ffff:0010 is 100000: A20 is on */
	*(volatile u16 *)0 = 0x1111;
	u16 at_1m = *(volatile u16 *)0x100000;
	r.ds = 0xffff;
	r.ebx = 0x10;
	u32 got = REAL(real_read, r);
	eq("real-a20", got == 0x80 ? last.eax & 0xffff : got << 16, at_1m);
	r.ds = 0x4321;
	*(volatile u16 *)0x43230 = 0x7531;
	r.ebx = 0x20;
	eq("real-segment-base", (REAL(real_read, r), last.eax & 0xffff), 0x7531);
	eq("real-cs-write", (REAL(real_cs_write, r), last.eax & 0xffff), 0x1234);
	r.ds = DATA16_BASE >> 4;
	r.ebx = 0x10000;
	eq("real-long-address-past", REAL(real_read_long, r), GP);
	r.esi = 0x1ffff;
	r.edi = 0x2fffe;
	r.ecx = 0x30003;
	eq("real-movs-wraps", REAL(real_movs, r), 0x80);
	eq("real-movs-registers", last.ecx == 0x30000 && last.esi == 0x10002 && last.edi == 0x20001, 1);
}

/* What protected mode loaded stays until protected mode loads again: limits, types, stack size. */
static void inherited(void)
{
	struct regs r = regs();
	struct inherited flat = { DATA16, DATA, DATA16, DATA, DATA16 };
	volatile u32 *high = (volatile u32 *)data;
	high[0] = 0x12345678;
	r.ds = 0;
	r.ebx = (u32)data;
	LOAD16(real_read_long);
	eq("unreal-read", run_real(&r, &flat), 0x80);
	eq("unreal-read-value", last.eax & 0xffff, 0x5678);
	LOAD16(real_write_long);
	r.eax = 0xbeef;
	eq("unreal-write", run_real(&r, &flat), 0x80);
	eq("unreal-write-value", high[0], 0x1234beef);
	r.ds = DATA16_BASE >> 4;
	r.fs = 0;
	r.ebx = (u32)data;
	LOAD16(real_read_fs_long);
	eq("unreal-fs", run_real(&r, &flat), 0x80);
	eq("unreal-fs-value", last.eax, 0x1234beef);
	eq("unreal-fs-new-base", last.edx, *(volatile u32 *)((u32)data + DATA16_BASE));
	flat.ds = DATA16;
	eq("unreal-ended", (LOAD16(real_read_long), run_real(&r, &flat)), GP);
	LOAD16(real_protected);
	r = regs();
	eq("unreal-from-inside", run_real(&r, 0), 0x80);
	eq("unreal-from-inside-values", last.eax == *(u32 *)0x110000 && last.ecx == *(u32 *)0x110000, 1);
	/* a smaller limit */
	struct inherited small = { DATA16, DATA16, DATA16, SEL, DATA16 };
	SET(SEL, 0, 0xfff, A_DATA);
	r = regs();
	copy(SEG16, forms[2].code, forms[2].end);
	r.ebx = 0xffc;
	eq("real-small-limit-fits", run_real(&r, &small), 0x80);
	r.ebx = 0xffd;
	eq("real-small-limit-past", run_real(&r, &small), GP);
	SET(SEL, 0, 0xfff, 0x97); /* expand down */
	eq("real-expand-down-below", run_real(&r, &small), GP);
	r.ebx = 0x1000;
	eq("real-expand-down-fits", run_real(&r, &small), 0x80);
	/* a stack of 32 bits */
	struct inherited big = { DATA, DATA16, DATA16, DATA16, DATA16 };
	r = regs();
	r.ss = 0;
	r.esp = (u32)data + 0x800;
	r.eax = 0x5a5a1234;
	LOAD16(real_push_esp);
	eq("unreal-stack", run_real(&r, &big), 0x80);
	eq("unreal-stack-esp", last.ecx, (u32)data + 0x7fc);
	eq("unreal-stack-value", *(u32 *)(data + 0x7fc), 0x5a5a1234);
}

void real_mode(void)
{
	limits();
	interrupts();
	transfers();
	stacks();
	addresses();
	inherited();
}
