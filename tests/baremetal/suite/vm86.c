/* Virtual-8086 mode and virtual interrupts (SDM vol. 3B chapter 20). */
#include "legacy32.h"
#include "forms.h"

#define M "%fs:(%bx)"
#define FORM(name, s32, s16, flags, text) CODE16_(form86_##name, text)
FORMS
#undef FORM
#define FORM(name, s32, s16, flags, text) { #name, form86_##name, form86_##name##_end, s16, flags },
static const struct form forms[] = { FORMS };

#define VM (1u << 17)
#define VIF (1u << 19)
#define VIP (1u << 20)
#define IF_ 0x200u
#define TF_ 0x100u

/* v86_at runs code from SEG16 with a stack at STACK16_BASE and data at DATA16_BASE. */
static u32 v86_at(const u8 *code, const u8 *end, u32 flags, u32 bx, u32 sp)
{
	copy(SEG16, code, end);
	return run(&(struct regs){ .ebx = bx, .esi = bx, .edi = bx, .ecx = 1, .esp = sp, .eip = 0, .eflags = 2 | VM | flags, .cs = SEG16 >> 4,
		.ss = STACK16_BASE >> 4, .ds = DATA16_BASE >> 4, .es = DATA16_BASE >> 4, .fs = DATA16_BASE >> 4 });
}

static u32 v86_code(const u8 *code, u32 n, u32 flags)
{
	return v86_at(code, code + n, flags, 0, 0x8000);
}
#define V86(flags, ...) ({ static const u8 c_[] = { __VA_ARGS__ }; v86_code(c_, sizeof c_, flags); })
#define IOPL(n) ((n) << 12)
#define WORD(off) (*(volatile u16 *)(STACK16_BASE + (off)))

static void entry(void)
{
	copy(0x7000, (const u8 *)"\xcd\x80", (const u8 *)"\xcd\x80" + 2);
	u32 got = run(&(struct regs){ .esp = 0x1234f00, .eip = 0x10, .eflags = 2 | VM | IOPL(3), .cs = 0x6ff, .ss = 0x600, .ds = 0x222, .es = 0x111,
		.fs = 0x333, .gs = 0x444 });
	eq("v86-int-iopl3", got, EXIT);
	eq("v86-vm-pushed", last.eflags >> 17 & 1, 1);
	eq("v86-cs-ip", last.cs << 16 | (last.eip & 0xffff), 0x6ff << 16 | 0x12);
	eq("v86-segments", last.es << 16 | last.ds, 0x111 << 16 | 0x222);
	eq("v86-segments-fs-gs", last.fs << 16 | last.gs, 0x333 << 16 | 0x444);
	eq("v86-ss-sp", last.ss << 16 | (last.esp & 0xffff), 0x600 << 16 | 0x4f00);
	eq("v86-esp-whole", last.esp, 0x1234f00);
	if (!on_tcg32) { /* code has no limit there */
		u32 f[9] = { 0x10000, 0x6ff, 2 | VM, 0xf00, 0x600, 0, 0, 0, 0 };
		eq("v86-iret-past-limit", BAD(go32(f, 9)), FAULT(GP, 0));
		eq("v86-jmp-past-limit", V86(IOPL(3), 0x66, 0xea, 0, 0, 1, 0, 0, 0x20), FAULT(GP, 0));
	}
	idt32[0x81] = gate(stubs32[0x81], SEL, 0xee, 0);
	SET(SEL, 0, 0xfffff, A_CODE | A_DPL3 | A_BIG | A_GRAN);
	eq("v86-handler-not-ring0", V86(IOPL(3), 0xcd, 0x81), FAULT(GP, SEL));
	SET(SEL, 0, 0xfffff, 0x9f | A_BIG | A_GRAN);
	eq("v86-handler-conforming", V86(IOPL(3), 0xcd, 0x81), FAULT(GP, SEL));
	idt32[0x81] = gate(stubs32[0x81], CODE, 0x8e, 0);
	eq("v86-gate-dpl0", V86(IOPL(3), 0xcd, 0x81), FAULT(GP, 0x81 * 8 + 2));
	eq("v86-int3-iopl0", V86(0, 0xcc), FAULT(BP, 0));
	eq("v86-into-iopl0", V86(0, 0xb0, 0x7f, 0xfe, 0xc0, 0xce), FAULT(OF, 0));
	eq("v86-ud", V86(0, 0x0f, 0x0b), FAULT(UD, 0));
	eq("v86-ud-eip", last.eip, 0);
	eq("v86-de", V86(0, 0x31, 0xc9, 0xf7, 0xf1), FAULT(DE, 0));
}

static void sensitive(void)
{
	static const struct { const char *name; u8 code[6]; u32 iopl0, iopl3; } all[] = {
		{ "cli", { 0xfa, 0xcd, 0x80 }, FAULT(GP, 0), EXIT },
		{ "pushf", { 0x9c, 0xcd, 0x80 }, FAULT(GP, 0), EXIT },
		{ "pushfd", { 0x66, 0x9c, 0xcd, 0x80 }, FAULT(GP, 0), EXIT },
		{ "popf", { 0x9d, 0xcd, 0x80 }, FAULT(GP, 0), EXIT },
		{ "popfd", { 0x66, 0x9d, 0xcd, 0x80 }, FAULT(GP, 0), EXIT },
		{ "iret", { 0xcf }, FAULT(GP, 0), EXIT },
		{ "int", { 0xcd, 0x80 }, FAULT(GP, 0), EXIT },
		{ "hlt", { 0xf4 }, FAULT(GP, 0), FAULT(GP, 0) },
		{ "lgdt", { 0x0f, 0x01, 0x16, 0, 0 }, FAULT(GP, 0), FAULT(GP, 0) },
		{ "lidt", { 0x0f, 0x01, 0x1e, 0, 0 }, FAULT(GP, 0), FAULT(GP, 0) },
		{ "lmsw", { 0x0f, 0x01, 0xf0 }, FAULT(GP, 0), FAULT(GP, 0) },
		{ "clts", { 0x0f, 0x06 }, FAULT(GP, 0), FAULT(GP, 0) },
		{ "mov-cr0", { 0x0f, 0x20, 0xc0 }, FAULT(GP, 0), FAULT(GP, 0) },
		{ "mov-dr7", { 0x0f, 0x21, 0xf8 }, FAULT(GP, 0), FAULT(GP, 0) },
		{ "rdmsr", { 0x0f, 0x32 }, FAULT(GP, 0), FAULT(GP, 0) },
		{ "wbinvd", { 0x0f, 0x09 }, FAULT(GP, 0), FAULT(GP, 0) },
		{ "invlpg", { 0x0f, 0x01, 0x3f }, FAULT(GP, 0), FAULT(GP, 0) },
		{ "sysexit", { 0x0f, 0x35 }, FAULT(GP, 0), FAULT(GP, 0) },
		{ "lldt", { 0x0f, 0x00, 0xd0 }, FAULT(UD, 0), FAULT(UD, 0) },
		{ "ltr", { 0x0f, 0x00, 0xd8 }, FAULT(UD, 0), FAULT(UD, 0) },
		{ "sldt", { 0x0f, 0x00, 0xc0 }, FAULT(UD, 0), FAULT(UD, 0) },
		{ "str", { 0x0f, 0x00, 0xc8 }, FAULT(UD, 0), FAULT(UD, 0) },
		{ "verr", { 0x0f, 0x00, 0xe0 }, FAULT(UD, 0), FAULT(UD, 0) },
		{ "verw", { 0x0f, 0x00, 0xe8 }, FAULT(UD, 0), FAULT(UD, 0) },
		{ "lar", { 0x0f, 0x02, 0xc0 }, FAULT(UD, 0), FAULT(UD, 0) },
		{ "lsl", { 0x0f, 0x03, 0xc0 }, FAULT(UD, 0), FAULT(UD, 0) },
		{ "arpl", { 0x63, 0xc0 }, FAULT(UD, 0), FAULT(UD, 0) },
		{ "smsw", { 0x0f, 0x01, 0xe0, 0xcc }, FAULT(BP, 0), FAULT(BP, 0) },
		{ "sgdt", { 0x0f, 0x01, 0x06, 0, 0, 0xcc }, FAULT(BP, 0), FAULT(BP, 0) },
		{ "in", { 0xe4, 0x64 }, FAULT(GP, 0), FAULT(GP, 0) }, /* the bitmap counts, not IOPL */
		{ "outs", { 0x6e }, FAULT(GP, 0), FAULT(GP, 0) },
		{ "mov-es", { 0x8e, 0xc0, 0xcc }, FAULT(BP, 0), FAULT(BP, 0) },
	};
	for (u32 i = 0; i < ARRAY_LENGTH(all); i++) {
		WORD(0x8000) = 0x100; /* for IRET and POPF: at 20100 an INT, flags 0 */
		WORD(0x8002) = SEG16 >> 4;
		WORD(0x8004) = 0;
		*(volatile u16 *)(SEG16 + 0x100) = 0x80cd;
		if (all[i].name[0] == 'p')
			WORD(0x8000) = WORD(0x8002) = 0;
		eq(name("v86-iopl0-", all[i].name, ""), v86_code(all[i].code, 6, 0), all[i].iopl0);
		eq(name("v86-iopl3-", all[i].name, ""), v86_code(all[i].code, 6, IOPL(3)), all[i].iopl3);
	}
	eq("v86-cli-clears-if", (V86(IOPL(3), 0xfa, 0xcd, 0x80), last.eflags & IF_), 0);
	/* POPF and IRET leave IOPL, VM, VIF and VIP alone */
	WORD(0x8000) = 0x4ed7;
	eq("v86-popf", (V86(IOPL(3), 0x9d, 0xfa, 0xcd, 0x80), last.eflags & 0x1f7fd7), VM | IOPL(3) | 0x4cd7);
	WORD(0x8000) = 0xffff & ~TF_ & ~IF_;
	WORD(0x8002) = 0x19; /* no VM, RF, VIF, VIP: all ignored; AC is not */
	eq("v86-popfd", (V86(IOPL(3), 0x66, 0x9d, 0xcd, 0x80), last.eflags & 0x1f7fd7), VM | IOPL(3) | 0x4cd7);
	WORD(0x8002) = 0x4;
	eq("v86-popfd-ac", (V86(IOPL(3), 0x66, 0x9d, 0xcd, 0x80), last.eflags & 0x1f7fd7), VM | IOPL(3) | 1u << 18 | 0x4cd7);
	V86(IOPL(3), 0x9c, 0xcd, 0x80);
	eq("v86-pushf-image", WORD(0x7ffe), 0x3002);
	WORD(0x8000) = 0x100;
	WORD(0x8002) = SEG16 >> 4;
	WORD(0x8004) = 0x0ed7;
	eq("v86-iret-flags", (V86(IOPL(3), 0xcf), last.eflags & 0x1f7fd7 & ~IF_), VM | IOPL(3) | 0xcd7);
	eq("v86-iret-to", last.cs << 16 | last.eip, (SEG16 >> 4) << 16 | 0x102);
}

static void segments(void)
{
	*(volatile u16 *)0x9000 = 0x4321;
	eq("v86-mov-ds", V86(IOPL(3), 0xb8, 0x00, 0x09, 0x8e, 0xd8, 0x8b, 0x1e, 0, 0, 0xcd, 0x80), EXIT);
	eq("v86-mov-ds-value", last.ebx & 0xffff, 0x4321);
	eq("v86-limit", V86(IOPL(3), 0xbe, 0xff, 0xff, 0x8b, 0x1c, 0xcd, 0x80), FAULT(GP, 0));
	eq("v86-limit-ss", V86(IOPL(3), 0xbd, 0xff, 0xff, 0x8b, 0x46, 0x00, 0xcd, 0x80), FAULT(SS, 0));
	eq("v86-code-write", V86(IOPL(3), 0x2e, 0xa2, 0x00, 0x02, 0xcd, 0x80), EXIT);
	eq("v86-long-address", V86(IOPL(3), 0x66, 0xbb, 0, 0, 1, 0, 0x67, 0x8a, 0x03, 0xcd, 0x80), FAULT(GP, 0));
	eq("v86-far-jmp", V86(IOPL(3), 0xea, 0x17, 0, 0xff, 0x1f, 0x0f, 0x0b, 0xcd, 0x80), EXIT);
	eq("v86-far-jmp-to", last.cs << 16 | last.eip, 0x1fff << 16 | 0x19);
	for (const struct form *f = forms; f < forms + ARRAY_LENGTH(forms); f++) {
		if (f->flags & (PROT | PRIV))
			continue;
		volatile u32 *at = (volatile u32 *)(DATA16_BASE + 0x10000 - f->size);
		for (u32 i = 0; i < f->size / 4 + 1; i++)
			at[i] = 0;
		if (f->flags & (NEAR | FAR))
			at[0] = (f->end - 2 - f->code) | SEG16 >> 4 << 16;
		eq(name("v86-limit-", f->name, "-fits"), v86_at(f->code, f->end, IOPL(3), 0x10000 - f->size, 0x8000), EXIT);
		if (f->size > 1 && !ASTRAY(f))
			eq(name("v86-limit-", f->name, SUFFIX(f, "-past")), v86_at(f->code, f->end, IOPL(3), 0x10001 - f->size, 0x8000), FAULT(GP, 0));
	}
	static const struct { const char *name; u8 code[4]; u32 sp, want, after; } stacks[] = {
		{ "push-wraps", { 0x50, 0xcd, 0x80 }, 0, EXIT, 0xfffe }, { "push-odd", { 0x50, 0xcd, 0x80 }, 1, FAULT(SS, 0), 1 },
		{ "pop-wraps", { 0x58, 0xcd, 0x80 }, 0xfffe, EXIT, 0 }, { "pop-odd", { 0x58, 0xcd, 0x80 }, 0xffff, FAULT(SS, 0), 0xffff },
		{ "pushl-wraps", { 0x66, 0x50, 0xcd, 0x80 }, 2, FAULT(SS, 0), 2 }, { "pusha", { 0x60, 0xcd, 0x80 }, 16, EXIT, 0 },
		{ "pusha-wraps", { 0x60, 0xcd, 0x80 }, 8, EXIT, 0xfff8 }, { "pusha-7", { 0x60, 0xcd, 0x80 }, 7, FAULT(GP, 0), 7 },
		{ "pusha-15", { 0x60, 0xcd, 0x80 }, 15, FAULT(GP, 0), 15 }, { "popa-odd", { 0x61, 0xcd, 0x80 }, 0xfff1, FAULT(SS, 0), 0xfff1 },
	};
	for (u32 i = 0; i < ARRAY_LENGTH(stacks); i++) {
		eq(name("v86-", stacks[i].name, ""), v86_at(stacks[i].code, stacks[i].code + 4, IOPL(3), 0, stacks[i].sp), stacks[i].want);
		eq(name("v86-", stacks[i].name, "-sp"), last_esp, stacks[i].after);
	}
}

static void ports(void)
{
	for (u32 i = 0; i < sizeof tss32.bitmap; i++)
		tss32.bitmap[i] = 0;
	tss32.iomap = 104;
	/* mov $0x4ff3, %dx; in %dx, %al; int $0x80 */
	eq("v86-in-allowed", V86(0, 0xba, 0xf3, 0x4f, 0xec, 0xcc), FAULT(BP, 0));
	tss32.bitmap[0x4ff3 / 8] = 1 << 3;
	eq("v86-in-refused", V86(0, 0xba, 0xf3, 0x4f, 0xec, 0xcc), FAULT(GP, 0));
	eq("v86-in-refused-iopl3", V86(IOPL(3), 0xba, 0xf3, 0x4f, 0xec, 0xcc), FAULT(GP, 0));
	eq("v86-in-word-refused", V86(IOPL(3), 0xba, 0xf2, 0x4f, 0xed, 0xcc), FAULT(GP, 0));
	tss32.iomap = sizeof tss32;
}

extern u8 sysenter_from_v86[];
asm(".pushsection .text.tested, \"ax\"\nsysenter_from_v86: int $0x80\n.popsection\n");

static void system_calls(void)
{
	asm volatile("wrmsr" : : "c"(0x174), "a"(CODE), "d"(0));
	asm volatile("wrmsr" : : "c"(0x175), "a"(tss32.esp0), "d"(0));
	asm volatile("wrmsr" : : "c"(0x176), "a"(sysenter_from_v86), "d"(0));
	eq("v86-sysenter", V86(0, 0x0f, 0x34), EXIT);
	eq("v86-sysenter-leaves-vm", last.eflags & VM, 0);
	eq("v86-sysenter-cs-ss", last.cs << 16 | last_ss, CODE << 16 | DATA);
	eq("v86-sysenter-keeps-ds", last_ds, DATA16_BASE >> 4);
	asm volatile("wrmsr" : : "c"(0x174), "a"(0), "d"(0));
	eq("v86-sysenter-null-cs", V86(0, 0x0f, 0x34), FAULT(GP, 0));
}

/* redirect sets or clears the bit of a vector in the interrupt redirection bitmap, below the I/O bitmap. */
static void redirect(u32 vector, u32 bit)
{
	u8 *map = (u8 *)&tss32 + tss32.iomap - 32;
	map[vector / 8] = (map[vector / 8] & ~(1 << vector % 8)) | bit << vector % 8;
}

/* Virtual-mode extensions. The program's own handler lies at 20200. */
static void vme(void)
{
	set_cr4(1, 0);
	tss32.iomap = 104 + 32;
	for (u32 i = 0; i < 256; i++)
		redirect(i, 1);
	*(volatile u32 *)(0x42 * 4) = (SEG16 >> 4) << 16 | 0x200;
	*(volatile u16 *)(SEG16 + 0x200) = 0x0b0f; /* #UD shows where it got to */
	redirect(0x80, 1);
	eq("vme-int-iopl3-bit1", V86(IOPL(3), 0xcd, 0x80), EXIT);
	eq("vme-int-iopl0-bit1", V86(0, 0xcd, 0x80), FAULT(GP, 0));
	redirect(0x42, 0);
	for (u32 iopl = 0; iopl <= 3; iopl += 3) {
		const char *n = iopl ? "vme-redirect-iopl3" : "vme-redirect-iopl0";
		WORD(0x7ffe) = WORD(0x7ffc) = WORD(0x7ffa) = 0;
		eq(n, V86(IOPL(iopl) | VIF | 0x4000, 0xcd, 0x42), FAULT(UD, 0));
		eq(name(n, "-to", ""), last.cs << 16 | last.eip, (SEG16 >> 4) << 16 | 0x200);
		eq(name(n, "-sp", ""), last_esp, 0x7ffa);
		eq(name(n, "-frame", ""), WORD(0x7ffc) << 16 | WORD(0x7ffa), (SEG16 >> 4) << 16 | 2);
		eq(name(n, "-flags", ""), WORD(0x7ffe), iopl ? 0x7002 : 0x7202);
		eq(name(n, "-vif", ""), last.eflags & VIF, iopl ? VIF : 0);
		eq(name(n, "-vm", ""), last.eflags & VM, VM);
		eq(name(n, "-iopl", ""), last.eflags & IOPL(3), IOPL(iopl));
	}
	V86(0, 0xcd, 0x42);
	eq("vme-redirect-vif-clear-flags", WORD(0x7ffe), 0x3002);
	eq("vme-redirect-stack-full", v86_at((const u8 *)"\xcd\x42", (const u8 *)"\xcd\x42" + 2, 0, 0, 5), FAULT(SS, 0));
	eq("vme-int3-not-redirected", (redirect(3, 0), V86(0, 0xcc)), FAULT(BP, 0));
	eq("vme-int-3-redirected", (*(volatile u32 *)(3 * 4) = (SEG16 >> 4) << 16 | 0x200, V86(0, 0xcd, 3)), FAULT(UD, 0));
	eq("vme-de-not-redirected", (redirect(0, 0), V86(0, 0x31, 0xc9, 0xf7, 0xf1)), FAULT(DE, 0));
	SET(TSS_SEL, &tss32, 104 + 0x42 / 8 - 1, A_TSS);
	asm volatile("ltr %w0" : : "r"(TSS_SEL));
	eq("vme-bitmap-past-limit", V86(IOPL(3), 0xcd, 0x42), FAULT(GP, 0));
	SET(TSS_SEL, &tss32, 104 + 0x42 / 8, A_TSS);
	asm volatile("ltr %w0" : : "r"(TSS_SEL));
	eq("vme-bitmap-at-limit", V86(IOPL(3), 0xcd, 0x42), FAULT(UD, 0));
	reset_task();
	/* CLI, STI, PUSHF, POPF, IRET below IOPL 3 */
	eq("vme-cli", V86(VIF, 0xfa, 0xcc), FAULT(BP, 0));
	eq("vme-cli-vif", last.eflags & (VIF | IF_), 0);
	eq("vme-sti", V86(0, 0xfb, 0xcc), FAULT(BP, 0));
	eq("vme-sti-vif", last.eflags & (VIF | IF_), VIF);
	eq("vme-sti-vip", V86(VIP, 0xfb, 0xcc), FAULT(GP, 0));
	eq("vme-cli-vip", V86(VIP, 0xfa, 0xcc), FAULT(BP, 0));
	eq("vme-iopl3-sti-vip", V86(VIP | IOPL(3), 0xfb, 0xfa, 0xcc), FAULT(BP, 0));
	eq("vme-pushf", V86(VIF, 0x9c, 0xcc), FAULT(BP, 0));
	eq("vme-pushf-image", WORD(0x7ffe), 0x3202);
	eq("vme-pushfd", V86(VIF, 0x66, 0x9c, 0xcc), FAULT(GP, 0));
	WORD(0x8000) = 0x202;
	eq("vme-popf", V86(0, 0x9d, 0xcc), FAULT(BP, 0));
	eq("vme-popf-vif", last.eflags & (VIF | IF_ | IOPL(3)), VIF);
	eq("vme-popf-vip", V86(VIP, 0x9d, 0xcc), FAULT(GP, 0));
	eq("vme-popfd", V86(0, 0x66, 0x9d, 0xcc), FAULT(GP, 0));
	WORD(0x8000) = 0x4cd7;
	eq("vme-popf-others", (V86(VIF, 0x9d, 0xcc), last.eflags & 0x1f7fd7), VM | 0x4cd7);
	WORD(0x8000) = 0x102;
	eq("vme-popf-tf", V86(0, 0x9d, 0xcc), FAULT(GP, 0));
	WORD(0x8000) = 0x100;
	WORD(0x8002) = SEG16 >> 4;
	*(volatile u8 *)(SEG16 + 0x100) = 0xcc;
	WORD(0x8004) = 0x202;
	eq("vme-iret", V86(0, 0xcf), FAULT(BP, 0));
	eq("vme-iret-to", last.eip, 0x101);
	eq("vme-iret-vif", last.eflags & (VIF | IF_ | IOPL(3)), VIF);
	eq("vme-iret-sp", last_esp, 0x8006);
	eq("vme-iret-vip", V86(VIP, 0xcf), FAULT(GP, 0));
	eq("vme-iret-vip-sp", last_esp, 0x8000);
	eq("vme-iretd", V86(0, 0x66, 0xcf), FAULT(GP, 0));
	WORD(0x8004) = 0x102;
	eq("vme-iret-tf", V86(0, 0xcf), FAULT(GP, 0));
	/* both VIF and VIP at the beginning of an instruction */
	eq("vme-vif-vip", V86(VIF | VIP, 0xcc), FAULT(GP, 0));
	eq("vme-vif-vip-eip", last.eip, 0);
	set_cr4(0, 1);
	eq("no-vme-vif-vip", V86(VIF | VIP, 0xcc), FAULT(BP, 0));
	eq("no-vme-sti", V86(0, 0xfb, 0xcc), FAULT(GP, 0));
}

CODE32_(user_cli, "cli")
CODE32_(user_sti, "sti")
CODE32_(user_pushf, "pushf; pop %eax")

static u32 user_flags(u8 *code, u32 flags)
{
	return run(&(struct regs){ .esp = USER_TOP, .eip = (u32)code, .eflags = 2 | flags, .cs = USER_CODE | 3, .ss = USER_DATA | 3,
		.ds = USER_DATA | 3, .es = USER_DATA | 3 });
}

/* Protected-mode virtual interrupts (section 20.4). */
static void pvi(void)
{
	set_cr4(2, 0);
	eq("pvi-cli", user_flags(user_cli, VIF), EXIT);
	eq("pvi-cli-vif", last.eflags & (VIF | IF_), 0);
	eq("pvi-sti", user_flags(user_sti, 0), EXIT);
	eq("pvi-sti-vif", last.eflags & (VIF | IF_), VIF);
	eq("pvi-sti-vip", user_flags(user_sti, VIP), FAULT(GP, 0));
	eq("pvi-pushf", user_flags(user_pushf, VIF), EXIT);
	eq("pvi-pushf-image", last.eax & (VIF | IF_ | IOPL(3)), VIF);
	eq("pvi-vif-vip", user_flags(user_pushf, VIF | VIP), FAULT(GP, 0));
	eq("pvi-v86-sti", V86(0, 0xfb, 0xcc), FAULT(GP, 0));
	set_cr4(0, 2);
	eq("no-pvi-cli", user_flags(user_cli, 0), FAULT(GP, 0));
	eq("no-pvi-sti", user_flags(user_sti, 0), FAULT(GP, 0));
}

void virtual_8086(void)
{
	entry();
	sensitive();
	segments();
	ports();
	system_calls();
	if (has_vme) {
		vme();
		pvi();
	}
}
