/* 16-bit protected mode, and 16- and 32-bit code and stacks mixed (SDM vol. 3A chapters 3 and 21). */
#include "legacy32.h"
#include "forms.h"

#define M "%fs:(%bx)"
#define FORM(name, s32, s16, flags, text) CODE16_(form16_##name, text)
FORMS
#undef FORM
#define FORM(name, s32, s16, flags, text) { #name, form16_##name, form16_##name##_end, s16, flags },
static const struct form forms[] = { FORMS };

static struct regs regs16(void)
{
	return (struct regs){ .esp = 0x8000, .eflags = 2, .cs = CODE16, .ss = STACK16, .ds = SEL2, .es = SEL2, .fs = SEL };
}

static void limits(void)
{
	SET(SEL2, data, 0xfff, A_DATA);
	for (const struct form *f = forms; f < forms + ARRAY_LENGTH(forms); f++) {
		struct regs r = regs16();
		copy(SEG16, f->code, f->end);
		u32 *at = (u32 *)(data + 0x1000 - f->size);
		for (u32 i = 0; i < f->size / 4 + 1; i++)
			at[i] = 0;
		if (f->flags & (NEAR | FAR))
			at[0] = (f->end - 2 - f->code) | (f->flags & FAR ? CODE16 << 16 : 0);
		SET(SEL, data, 0xfff, A_DATA);
		r.es = f->flags & SRC ? SEL2 : SEL;
		r.ecx = 1;
		r.ebx = r.esi = r.edi = 0x1000 - f->size;
		eq(name("limit16-", f->name, "-fits"), run(&r), EXIT);
		r.ebx = r.esi = r.edi = 0x1001 - f->size;
		if (!ASTRAY(f))
			eq(name("limit16-", f->name, SUFFIX(f, "-past")), run(&r), FAULT(GP, 0));
	}
}

#define RUN16(name, r) ({ LOAD16(name); run(&(r)); })
CODE16_(push16, "push %ax")
CODE16_(push16_32, "pushl %eax")
CODE16_(pop16, "pop %bx")
CODE16_(call16, "call 1f; 1:")
CODE16_(call16_32, "calll 1f; 1:")
CODE16_(enter16, "enter $8, $0; mov %bp, %ax; leave")
CODE16_(enter16_level, "mov %sp, %bp; enter $0, $2")
CODE16_(ss_sp, "mov %esp, %ecx; mov (%bp), %ax")
CODE16_(pusha16, "pusha")
CODE16_(pushal16, "pushal")
CODE16_(push_sp, "push %sp; pop %ax")
CODE16_(loop_cx, "1: inc %ax; loop 1b")
CODE16_(loop_ecx, "1: inc %ax; addr32 loop 1b")
CODE16_(jcxz16, "mov $1, %ax; jcxz 1f; mov $2, %ax; 1:")
CODE16_(jecxz16, "mov $1, %ax; jecxz 1f; mov $2, %ax; 1:")
CODE16_(wrap_sum, "mov (%bx,%si), %ax")
CODE16_(wrap_32, "addr32 movw (%ebx), %ax")
CODE16_(movs_wrap, "rep movsb")
CODE16_(stos_32, "addr32 rep stosb")
CODE16_(lodsw_bx, "lodsw")
CODE16_(jmp_far_32, "ljmpl $0x08, $flat_exit")
CODE16_(call_far_32, "lcalll $0x08, $flat_lret")
CODE16_(call_far_16, "lcall $0x58, $0x40")
CODE16_(jmp_past, ".byte 0x66, 0xe9; .long 0x10000")
CODE16_(jcc_wrap, "jmp . - 0x20")
CODE16_(int81, "int $0x81")
CODE16_(pushf16, "pushf; pop %ax")
CODE16_(popfd16, "pushl $0x40ed7; popfl; pushfl; popl %eax; cld")
CODE16_(lea16, "mov $0x12345678, %ebx; mov $0x1234fffe, %esi; lea 4(%bx,%si), %eax; lea 4(%bx,%si), %cx; addr32 lea 4(%ebx,%esi), %dx")
CODE16_(lss16, "lss (%bx), %sp; push %ax")
CODE16_(cwd16, "mov $0x8001, %ax; cwd; mov %dx, %bx; cwde; cdq")
CODE16_(lgdt16, "lgdt (%bx); sgdt (%si); lgdtl (%di)")
CODE32_(push32, "push %eax; pop %ebx; push %eax")
extern u8 flat_exit[], flat_lret[], handler16[];
asm(".pushsection .text.tested, \"ax\"\nflat_exit: int $0x80\nflat_lret: lret\nhandler16: int $0x80\n.popsection\n");
#define STACK_WORD(off) (*(volatile u16 *)(STACK16_BASE + (off)))
#define STACK_LONG(off) (*(volatile u32 *)(STACK16_BASE + (off)))

static void stacks(void)
{
	struct regs r = regs16();
	r.eax = 0xaaaabbbb;
	r.esp = 0x12340000;
	eq("16-push-wraps", RUN16(push16, r), EXIT);
	eq("16-push-keeps-high-esp", last_esp, 0x1234fffe);
	eq("16-push-value", STACK_WORD(0xfffe), 0xbbbb);
	r.esp = 0x1234fffe;
	STACK_WORD(0xfffe) = 0x5678;
	eq("16-pop-wraps", RUN16(pop16, r), EXIT);
	eq("16-pop-keeps-high-esp", last_esp, 0x12340000);
	eq("16-pop-value", last.ebx, 0x5678);
	r.esp = 0x8000;
	eq("16-push-long", (RUN16(push16_32, r), last_esp), 0x7ffc);
	eq("16-push-long-value", STACK_LONG(0x7ffc), 0xaaaabbbb);
	eq("16-call", (RUN16(call16, r), last_esp << 16 | STACK_WORD(0x7ffe)), 0x7ffe0003);
	eq("16-call-long", (RUN16(call16_32, r), last_esp << 16 | STACK_WORD(0x7ffc)), 0x7ffc0006);
	eq("16-call-long-value", STACK_LONG(0x7ffc), 6);
	eq("16-enter-leave", (RUN16(enter16, r), last_esp << 16 | (last.eax & 0xffff)), 0x80007ffe);
	STACK_WORD(0x7ffe) = 0x1111;
	eq("16-enter-level", (RUN16(enter16_level, r), last_esp), 0x7ffa);
	eq("16-enter-level-bp", last.ebp & 0xffff, 0x7ffe);
	eq("16-enter-level-frame", STACK_WORD(0x7ffa), 0x7ffe);
	eq("16-pusha", (RUN16(pusha16, r), last_esp), 0x7ff0);
	eq("16-pusha-sp", STACK_WORD(0x7ff6), 0x8000);
	eq("16-pushal", (RUN16(pushal16, r), last_esp), 0x7fe0);
	eq("16-pushal-esp", STACK_LONG(0x7fec), 0x8000);
	eq("16-push-sp", (RUN16(push_sp, r), last.eax & 0xffff), 0x8000);
	/* a 32-bit stack under 16-bit code: all of ESP counts */
	r.ss = DATA;
	r.esp = USER_TOP;
	eq("16-code-32-stack", RUN16(push16, r), EXIT);
	eq("16-code-32-stack-esp", last_esp, USER_TOP - 2);
	eq("16-code-32-stack-call", (RUN16(call16, r), last_esp), USER_TOP - 2);
	/* and a 16-bit stack under 32-bit code */
	r = regs16();
	r.cs = CODE;
	r.eip = (u32)push32;
	r.eax = 0x11112222;
	r.esp = 0x43210004;
	eq("32-code-16-stack", run(&r), EXIT);
	eq("32-code-16-stack-esp", last_esp, 0x43210000);
	eq("32-code-16-stack-value", STACK_LONG(0) == 0x11112222 && last.ebx == 0x11112222, 1);
}

static void addresses(void)
{
	struct regs r = regs16();
	SET(SEL2, DATA16_BASE, 0xffff, A_DATA);
	r.fs = 0;
	*(volatile u16 *)(DATA16_BASE + 0x10) = 0x1357;
	r.ebx = 0x9999fff0;
	r.esi = 0x88880020;
	eq("16-address-wraps", (RUN16(wrap_sum, r), last.eax & 0xffff), 0x1357);
	r.ebx = 0x10010;
	eq("16-long-address-past", RUN16(wrap_32, r), FAULT(GP, 0));
	r.ebx = 0x10;
	eq("16-long-address", (RUN16(wrap_32, r), last.eax & 0xffff), 0x1357);
	/* a segment of more than 64 KiB: operands do not wrap, offsets do */
	SET(SEL2, DATA16_BASE, 0x1ffff, A_DATA);
	*(volatile u8 *)(DATA16_BASE + 0xffff) = 0xcd;
	*(volatile u8 *)(DATA16_BASE + 0x10000) = 0xab;
	*(volatile u8 *)DATA16_BASE = 0xee;
	r.esi = 0xffff;
	eq("16-operand-crosses-64k", (RUN16(lodsw_bx, r), last.eax & 0xffff), 0xabcd);
	eq("16-lods-index-wraps", last.esi, 1);
	r.esi = 0x7777ffff;
	r.edi = 0x6666fffe;
	r.ecx = 0x50003;
	eq("16-movs-count-is-cx", (RUN16(movs_wrap, r), last.ecx), 0x50000);
	eq("16-movs-si-wraps", last.esi, 0x77770002);
	eq("16-movs-di-wraps", last.edi, 0x66660001);
	eq("16-movs-value", *(volatile u8 *)(DATA16_BASE + 0xfffe) << 8 | *(volatile u8 *)(DATA16_BASE + 0xffff), 0xcdee);
	r.eax = 0x5a;
	r.edi = 0x10005;
	r.ecx = 2;
	eq("16-stos-long-address", (RUN16(stos_32, r), last.edi), 0x10007);
	eq("16-stos-long-address-value", *(volatile u16 *)(DATA16_BASE + 0x10005), 0x5a5a);
	r = regs16();
	r.fs = 0;
	r.ecx = 0x10002;
	eq("16-loop-cx", (RUN16(loop_cx, r), last.eax), 2);
	eq("16-loop-cx-keeps-high", last.ecx, 0x10000);
	r.ecx = 3;
	eq("16-loop-ecx", (RUN16(loop_ecx, r), last.eax), 3);
	r.ecx = 0x10000;
	eq("16-jcxz", (RUN16(jcxz16, r), last.eax), 1);
	eq("16-jecxz", (RUN16(jecxz16, r), last.eax), 2);
	RUN16(lea16, r);
	eq("16-lea-32", last.eax, 0x567a);
	eq("16-lea-16", last.ecx & 0xffff, 0x567a);
	eq("16-lea-addr32", last.edx & 0xffff, 0x567a);
	RUN16(cwd16, r);
	eq("16-cwd", last.ebx & 0xffff, 0xffff);
	eq("16-cwde-cdq", last.eax & last.edx, 0xffff8001);
	/* linear addresses wrap at 4 GiB */
	SET(SEL2, 0xffff0000, 0xfffff, A_DATA);
	*(volatile u16 *)(DATA16_BASE + 0x20) = 0x2468;
	r = regs16();
	r.fs = 0;
	r.ebx = 0x10000 + DATA16_BASE + 0x20;
	eq("16-linear-wraps", (RUN16(wrap_32, r), last.eax & 0xffff), 0x2468);
	SET(SEL, 0xffff0000, 0xfffff, A_CODE | A_BIG | A_GRAN);
	SET(SEL2, 0, 0xfffff, A_DATA | A_BIG | A_GRAN);
	r.cs = SEL;
	r.eip = 0x10000 + (u32)flat_exit;
	eq("32-code-linear-wraps", run(&r), EXIT);
	eq("32-code-linear-wraps-eip", last.eip, 0x10000 + (u32)flat_exit + 2);
}

static void transfers(void)
{
	struct regs r = regs16();
	r.ds = r.es = SEL2;
	r.fs = 0;
	SET(SEL2, 0, 0xfffff, A_DATA | A_BIG | A_GRAN);
	eq("16-ljmp-to-32", RUN16(jmp_far_32, r), EXIT);
	eq("16-ljmp-to-32-cs", last.cs, CODE);
	eq("16-lcall-to-32", RUN16(call_far_32, r), EXIT);
	eq("16-lcall-to-32-back", last.cs << 16 | last.eip, CODE16 << 16 | (u32)(call_far_32_end - call_far_32));
	*(volatile u8 *)(SEG16 + 0x40) = 0xcd;
	*(volatile u8 *)(SEG16 + 0x41) = 0x80;
	eq("16-lcall-16", RUN16(call_far_16, r), EXIT);
	eq("16-lcall-16-frame", STACK_WORD(0x7ffe) << 16 | STACK_WORD(0x7ffc), CODE16 << 16 | 5);
	/* a 16-bit jump below 0 wraps to the segment's end */
	*(volatile u16 *)(SEG16 + 0xffe0) = 0x80cd;
	eq("16-jmp-wraps", RUN16(jcc_wrap, r), EXIT);
	eq("16-jmp-wraps-ip", last.eip, 0xffe2);
	if (!on_tcg32) { /* code has no limit there */
		eq("16-jmp-past-limit", RUN16(jmp_past, r), FAULT(GP, 0));
		eq("16-jmp-past-limit-eip", last.eip, 0);
		*(volatile u8 *)(SEG16 + 0xffff) = 0x90;
		r.eip = 0xffff;
		eq("16-runs-past-end", run(&r), FAULT(GP, 0));
		eq("16-runs-past-end-eip", last.eip, 0x10000);
		*(volatile u8 *)(SEG16 + 0xffff) = 0xb0;
		eq("16-instruction-past-end", run(&r), FAULT(GP, 0));
		eq("16-instruction-past-end-eip", last.eip, 0xffff);
	}
	r = regs16();
	r.fs = 0;
	eq("16-pushf", (r.eflags = 0x4cd7, RUN16(pushf16, r), last.eax & 0xffff), 0x4cd7);
	r.eflags = 2;
	eq("16-popfd", (RUN16(popfd16, r), last.eax), 0x40ed7);
	/* LGDT with a 16-bit operand loads 24 bits of base */
	volatile struct table32 t[3] = {
		{ sizeof gdt32 - 1, (u32)gdt32 | 0xff000000 }, { 0, 0 }, { sizeof gdt32 - 1, (u32)gdt32 } };
	SET(SEL2, t, 0xff, A_DATA);
	r.ebx = 0;
	r.esi = 6;
	r.edi = 12;
	eq("16-lgdt", RUN16(lgdt16, r), EXIT);
	eq("16-lgdt-base", t[1].base, (u32)gdt32);
	/* LSS loads SP alone */
	*(volatile u32 *)data = STACK16 << 16 | 0x9000;
	SET(SEL2, data, 0xff, A_DATA);
	r.ebx = 0;
	r.esp = 0x12348000;
	eq("16-lss", (RUN16(lss16, r), last_esp), 0x12348ffe);
}

CODE16_(user_nothing16, "nop")
CODE16_(iret16, "iretw")
CODE16_(iretl16, "iretl")
CODE16_(lret16, "lretw")
CODE16_(ud16, "ud2")
CODE16_(gp16, "mov $0x100, %ax; mov %ax, %es")
CODE16_(user_gate16, "pushw $0x1111; pushw $0x2222; lcall $0x43, $0")

static void gates(void)
{
	/* interrupt gates of 16 bits push words */
	u64 old_ud = idt32[UD], old_gp = idt32[GP];
	struct regs r = regs16();
	r.ds = r.es = r.fs = 0;
	SET(SEL, (u32)handler16, 0xffff, A_CODE | A_BIG);
	idt32[0x81] = gate(0, SEL, 0xe6, 0);
	eq("gate16-int", RUN16(int81, r), EXIT);
	eq("gate16-int-sp", last_esp, 0x7ffa);
	eq("gate16-int-frame", STACK_WORD(0x7ffc) << 16 | STACK_WORD(0x7ffa), CODE16 << 16 | 2);
	eq("gate16-int-flags", STACK_WORD(0x7ffe), 2);
	idt32[UD] = gate(0, SEL, 0x87, 0);
	eq("gate16-trap-gate", RUN16(ud16, r), EXIT);
	eq("gate16-trap-gate-sp", last_esp, 0x7ffa);
	idt32[UD] = old_ud;
	idt32[GP] = gate(0, SEL, 0x86, 0);
	eq("gate16-error", RUN16(gp16, r), EXIT);
	eq("gate16-error-sp", last_esp, 0x7ff8);
	eq("gate16-error-code", STACK_WORD(0x7ff8), 0x100);
	idt32[GP] = old_gp;
	/* and from ring 3 SS:SP as well */
	r.cs = USER_CODE16 | 3;
	r.ss = USER_DATA16 | 3;
	eq("gate16-int-user", RUN16(int81, r), EXIT);
	eq("gate16-int-user-esp", last_esp, tss32.esp0 - 10);
	eq("gate16-int-user-frame", ((u16 *)last_esp)[4] << 16 | ((u16 *)last_esp)[3], (USER_DATA16 | 3) << 16 | 0x8000);
	/* IRET and RETF of 16 bits to ring 3 and its 16-bit stack */
	r = regs16();
	r.ds = r.es = r.fs = 0;
	LOAD16(user_nothing16);
	copy(SEG16 + 0x100, iret16, iret16_end);
	r.eip = 0x100;
	STACK_WORD(0x8000) = 0;
	STACK_WORD(0x8002) = USER_CODE16 | 3;
	STACK_WORD(0x8004) = 2;
	STACK_WORD(0x8006) = 0x6000;
	STACK_WORD(0x8008) = USER_DATA16 | 3;
	eq("iret16-outer", run(&r), EXIT);
	eq("iret16-outer-sp", last_esp & 0xffff, 0x6000);
	eq("iret16-outer-cs-ss", last.cs << 16 | last.ss, (USER_CODE16 | 3) << 16 | USER_DATA16 | 3);
	STACK_WORD(0x8002) = CODE16;
	eq("iret16-same", run(&r), EXIT);
	eq("iret16-same-sp", last_esp, 0x8006);
	copy(SEG16 + 0x100, iretl16, iretl16_end);
	STACK_LONG(0x8000) = 0;
	STACK_LONG(0x8004) = USER_CODE16 | 3;
	STACK_LONG(0x8008) = 2;
	STACK_LONG(0x800c) = 0xabc06000;
	STACK_LONG(0x8010) = USER_DATA16 | 3;
	eq("iretd16-outer", run(&r), EXIT);
	eq("iretd16-outer-sp", last_esp & 0xffff, 0x6000);
	copy(SEG16 + 0x100, lret16, lret16_end);
	STACK_WORD(0x8000) = 0;
	STACK_WORD(0x8002) = USER_CODE16 | 3;
	STACK_WORD(0x8004) = 0x6000;
	STACK_WORD(0x8006) = USER_DATA16 | 3;
	eq("lret16-outer", run(&r), EXIT);
	eq("lret16-outer-sp", last_esp & 0xffff, 0x6000);
	/* a 16-bit call gate from 16-bit code */
	gdt32[GATE / 8] = gate(0, SEL, 0xe4, 2);
	r = regs16();
	r.ds = r.es = r.fs = 0;
	r.cs = USER_CODE16 | 3;
	r.ss = USER_DATA16 | 3;
	eq("gate16-call", RUN16(user_gate16, r), EXIT);
	eq("gate16-call-esp", last_esp, tss32.esp0 - 12);
	eq("gate16-call-params", ((u16 *)last_esp)[2] << 16 | ((u16 *)last_esp)[3], 0x22221111);
	/* an expand-down stack of 16 bits, at CPL 3: from 8000 to ffff */
	SET(SEL2, STACK16_BASE, 0x7fff, 0xf7);
	r.ss = SEL2 | 3;
	r.esp = 0x8002;
	eq("down-stack16-fits", RUN16(push16, r), EXIT);
	r.esp = 0x8001;
	eq("down-stack16-past", RUN16(push16, r), FAULT(SS, 0));
	r.esp = 0;
	eq("down-stack16-wraps", RUN16(push16, r), EXIT);
	eq("down-stack16-wraps-sp", last_esp & 0xffff, 0xfffe);
	r.esp = 0xffff;
	eq("down-stack16-pop-past", RUN16(pop16, r), FAULT(SS, 0));
}

void modes16(void)
{
	limits();
	stacks();
	addresses();
	transfers();
	gates();
}
