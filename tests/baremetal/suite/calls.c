/* Fast system calls, call gates, far transfers and IRET between privilege levels and modes. */
#include "suite.h"

static u64 outcome(int v)
{
	return v == NOTRAP ? (u64)NOTRAP : (u64)v << 32 | last.error;
}
#define FAULT(vector, code) ((u64)(vector) << 32 | (code))

/* The kernel's end of SYSCALL: a trap that reports the registers. */
extern u8 syscall_entry[], sysenter_entry[], gate_entry[], gate_return[], u_after_syscall[], compat_text[], compat_text_end[], compat_syscall[], compat_aaa[], compat_limit[], compat_wrap[];
asm(".text\n"
	"syscall_entry: int $0x43\n ud2\n"
	"sysenter_entry: int $0x44\n ud2\n"
	"gate_entry: int $0x45\n ud2\n"
	"gate_return: lretq\n"
	/* sysretq/sysretl to rdi with flags rsi */
	".globl do_sysret64, do_sysret32, do_sysexit64, do_sysexit32\n"
	"do_sysret64: mov %rdi, %rcx; mov %rsi, %r11; mov %rdx, %rsp; sysretq\n"
	"do_sysret32: mov %rdi, %rcx; mov %rsi, %r11; mov %rdx, %rsp; sysretl\n"
	"do_sysexit64: mov %rdx, %rcx; mov %rdi, %rdx; rex.w sysexit\n"
	"do_sysexit32: mov %rdx, %rcx; mov %rdi, %rdx; sysexitl\n"
	/* 32-bit user code */
	".code32\n"
	"compat_text: mov $0x12345678, %eax; int $0x80\n"
	"compat_syscall: sysenter\n"
	"compat_aaa: mov $0x0f, %eax; aaa; int $0x80\n"
	"compat_limit: mov %gs:0x1000, %eax; int $0x80\n"
	"compat_wrap: mov $0xfffffff0, %ebx; mov gdtr + 0x40000010(%ebx), %ax; int $0x80\n"
	"compat_text_end:\n"
	".code64\n");
void do_sysret64(u64 rip, u64 rflags, u64 rsp), do_sysret32(u64 rip, u64 rflags, u64 rsp);
void do_sysexit64(u64 rip, u64 unused, u64 rsp), do_sysexit32(u64 rip, u64 unused, u64 rsp);

asm(".text\n.globl u_syscall\nu_syscall: pushfq; orl $0x40400, (%rsp); popfq; syscall\nu_after_syscall: int $0x80\n");
void u_syscall(void);
USER_CODE(u_sysenter, "sysenter");
USER_CODE(u_nothing, "nop");
USER_CODE(u_pushf, "pushfq; pop %rax");

/* COMPAT is where compatibility mode sees the page with 32-bit code: below 4 GiB. */
#define COMPAT_VA 0x40000000UL

static void map_compat(void)
{
	static u64 pd[512] __attribute__((aligned(4096)));
	pml4[0] |= U;
	pdpt[1] = phys(pd) | P | W | U;
	pd[0] = 0 | PS | P | W | U; /* the image's first 2 MiB again */
	set_cr3(cr3());
}
#define COMPAT(p) ((u64)(p) + COMPAT_VA)

static void syscalls(void)
{
	wrmsr(0xc0000081, 0x0018000800000000);
	wrmsr(0xc0000082, (u64)syscall_entry);
	wrmsr(0xc0000084, 0x40600); /* AC, DF, IF */
	eq("syscall", user(u_syscall, 0), 0x43);
	eq("syscall-cs", last.cs, 0x08);
	eq("syscall-ss", last.ss, 0x10);
	eq("syscall-rcx", last.rcx, USER(u_after_syscall));
	eq("syscall-r11", last.r11 & 0x40600, 0x40400);
	eq("syscall-flags-masked", last.rflags & 0x40600, 0);
	u64 efer = rdmsr(0xc0000080);
	wrmsr(0xc0000080, efer & ~1UL);
	eq("syscall-without-sce", user(u_syscall, 0), UD);
	wrmsr(0xc0000080, efer);
	u64 top = USER(user_stack) + 4000;
	eq("sysret64", TRY(do_sysret64(USER(u_nothing), 0x3002, top)), USER_EXIT);
	eq("sysret64-cs", last.cs, 0x2b);
	eq("sysret64-ss", last.ss, 0x23);
	eq("sysret64-flags", last.rflags & 0x3000, 0x3000);
	if (!on_tcg())
		eq("sysret64-rf-vm-cleared", (TRY(do_sysret64(USER(u_pushf), 0x30002, top)), last.rax & 0x30000), 0);
	eq("sysret64-noncanonical", outcome(TRY(do_sysret64(1UL << 47, 2, top))), FAULT(GP, 0));
	if (intel()) /* AMD's have left ring 0 by then */
		eq("sysret64-noncanonical-cpl", last.cs & 3, 0);
	eq("sysret32", TRY(do_sysret32(COMPAT(compat_text), 2, COMPAT(user_stack) + 4000)), USER_EXIT);
	eq("sysret32-cs", last.cs, 0x1b);
	eq("sysret32-rax", last.rax, 0x12345678);
}

static u64 compat(u8 *code)
{
	return outcome(TRY(go(COMPAT(code), 0x1b, 2, COMPAT(user_stack) + 4000, 0x23, 0)));
}

static void compatibility(void)
{
	eq("compat-aaa", compat(compat_aaa) >> 32, USER_EXIT);
	eq("compat-aaa-ax", last.rax, 0x105);
	gdt[SCRATCH / 8] = segment(COMPAT_VA, 0xfff, 0xf3 | 0x4000);
	int v = TRY({ asm volatile("mov %0, %%gs; mov %1, %%ds" : : "r"(SCRATCH | 3), "r"(0x23)); go(COMPAT(compat_limit), 0x1b, 2, COMPAT(user_stack) + 4000, 0x23, 0); });
	eq("compat-past-limit", outcome(v), FAULT(GP, 0));
	v = TRY({ asm volatile("mov %0, %%ds" : : "r"(0x23)); go(COMPAT(compat_wrap), 0x1b, 2, COMPAT(user_stack) + 4000, 0x23, 0); });
	eq("compat-wrap", outcome(v), FAULT(USER_EXIT, 0));
	eq("compat-wrap-value", last.rax & 0xffff, gdtr.limit);
	asm volatile("mov %0, %%gs" : : "r"(0));
}

static void sysenters(void)
{
	wrmsr(0x174, 0);
	eq("sysenter-null-cs", outcome(user(u_sysenter, 0)), FAULT(GP, 0));
	static u8 stack[4096];
	wrmsr(0x174, 0x08);
	wrmsr(0x175, (u64)stack + sizeof stack);
	wrmsr(0x176, (u64)sysenter_entry);
	eq("sysenter", user(u_sysenter, 0), 0x44);
	eq("sysenter-cs", last.cs, 0x08);
	eq("sysenter-ss", last.ss, 0x10);
	eq("sysenter-rsp", last.rsp, (u64)stack + sizeof stack);
	eq("sysenter-if", last.rflags & 0x200, 0);
	eq("compat-sysenter", TRY(go(COMPAT(compat_syscall), 0x1b, 2, COMPAT(user_stack) + 4000, 0x23, 0)), 0x44);
	/* SYSEXIT: CS and SS lie 16 and 24 past SYSENTER_CS, for 64 bits 32 and 40. */
	for (int i = 0; i < 6; i++)
		gdt[SCRATCH / 8 + i] = (u64[]){ gdt[1], gdt[2], gdt[3], gdt[4], gdt[5], gdt[4] }[i];
	wrmsr(0x174, SCRATCH);
	eq("sysexit64", TRY(do_sysexit64(USER(u_nothing), 0, USER(user_stack) + 4000)), USER_EXIT);
	eq("sysexit64-cs", last.cs, (SCRATCH + 32) | 3);
	eq("sysexit64-ss", last.ss, (SCRATCH + 40) | 3);
	eq("sysexit64-noncanonical", outcome(TRY(do_sysexit64(1UL << 47, 0, USER(user_stack) + 4000))), FAULT(GP, 0));
	eq("sysexit32", TRY(do_sysexit32(COMPAT(compat_text), 0, COMPAT(user_stack) + 4000)), USER_EXIT);
	eq("sysexit32-cs", last.cs, (SCRATCH + 16) | 3);
	wrmsr(0x174, 0);
}

/* put_gate makes a 64-bit call gate in scratch descriptors 8 and 9. */
#define GATE (SCRATCH + 0x40)
static void put_gate(void *target, u16 sel, int type_dpl)
{
	u64 t = (u64)target;
	gdt[GATE / 8] = (t & 0xffff) | (u64)sel << 16 | (u64)type_dpl << 40 | (t >> 16 & 0xffff) << 48;
	gdt[GATE / 8 + 1] = t >> 32;
}

extern u8 u_gate_back[];
asm(".text\n.globl u_gate, u_gate_back\n"
	"u_gate: lcall *u_gate_pointer(%rip)\nu_gate_back: int $0x80\n"
	"u_gate_pointer: .long 0; .word 0x90 | 3\n");
void u_gate(void);
_Static_assert(GATE == 0x90, "the pointer in u_gate");

static void call_gates(void)
{
	put_gate(gate_entry, 0x08, 0xec);
	eq("call-gate", user(u_gate, 0), 0x45);
	eq("call-gate-cs", last.cs, 0x08);
	eq("call-gate-ss", last.ss, 0);
	eq("call-gate-rsp", last.rsp, tss.rsp[0] - 32);
	eq("call-gate-frame-rip", PEEK(last.rsp), USER(u_gate_back));
	eq("call-gate-frame-cs", PEEK(last.rsp + 8), 0x2b);
	eq("call-gate-frame-ss", PEEK(last.rsp + 24), 0x23);
	put_gate(gate_return, 0x08, 0xec);
	eq("call-gate-return", user(u_gate, 0), USER_EXIT);
	eq("call-gate-return-rip", last.rip, USER(u_gate_back) + 2);
	put_gate(gate_entry, 0x08, 0x8c);
	eq("call-gate-dpl0", outcome(user(u_gate, 0)), FAULT(GP, GATE));
	put_gate(gate_entry, 0x08, 0x6c);
	eq("call-gate-absent", outcome(user(u_gate, 0)), FAULT(NP, GATE));
	put_gate(gate_entry, 0x10, 0xec);
	eq("call-gate-to-data", outcome(user(u_gate, 0)), FAULT(GP, 0x10));
	put_gate(gate_entry, 0x40, 0xec);
	eq("call-gate-to-code32", outcome(user(u_gate, 0)), FAULT(GP, 0x40));
	put_gate(gate_entry, 0, 0xec);
	eq("call-gate-to-null", outcome(user(u_gate, 0)), FAULT(GP, 0));
	put_gate(gate_entry, 0x08, 0xe4);
	eq("call-gate-16-bit", outcome(user(u_gate, 0)), FAULT(GP, GATE));
	put_gate(gate_entry, 0x08, 0xec);
	gdt[GATE / 8 + 1] |= 1UL << 40;
	eq("call-gate-bad-upper-type", outcome(user(u_gate, 0)), FAULT(GP, GATE));
}

static u64 far_jump(u32 off, u16 sel)
{
	struct { u32 off; u16 sel; } __attribute__((packed)) p = { off, sel };
	return outcome(TRY(asm volatile("ljmp *%0" : : "m"(p))));
}

extern u8 jump_here[];
asm(".text\njump_here: int $0x46\n");
extern u8 code32_here[];
asm(".text\n.code32\ncode32_here: int $0x46\n.code64\n");

static void far_jumps(void)
{
	eq("ljmp-null", far_jump(0, 0), FAULT(GP, 0));
	eq("ljmp-data", far_jump(0, 0x10), FAULT(GP, 0x10));
	eq("ljmp-dpl3", far_jump(0, 0x28), FAULT(GP, 0x28));
	eq("ljmp-past-gdt", far_jump(0, gdtr.limit + 1), FAULT(GP, gdtr.limit + 1));
	eq("ljmp-tss", far_jump(0, 0x30), FAULT(GP, 0x30));
	eq("ljmp-code64", far_jump((u64)jump_here, 0x08) >> 32, 0x46);
	eq("ljmp-code32", far_jump((u64)code32_here, 0x40) >> 32, 0x46);
	eq("ljmp-code32-cs", last.cs, 0x40);
	gdt[SCRATCH / 8] = segment(0, 0xfffff, 0x9b | 0x6000 | 0x8000);
	if (!on_tcg())
		eq("ljmp-l-and-d", far_jump(0, SCRATCH), FAULT(GP, SCRATCH));
	gdt[SCRATCH / 8] = segment(0, 0xfffff, 0x1b | 0x2000 | 0x8000);
	eq("ljmp-absent", far_jump(0, SCRATCH), FAULT(NP, SCRATCH));
	gdt[SCRATCH / 8] = segment(0, 0x10, 0x9b | 0x4000);
	eq("ljmp-past-limit", far_jump(0x1000, SCRATCH), FAULT(GP, 0));
}

static u64 iret(u64 rip, u64 cs, u64 rflags, u64 rsp, u64 ss)
{
	return outcome(TRY(go(rip, cs, rflags, rsp, ss, 0)));
}

static void irets(void)
{
	u64 kernel = (u64)jump_here, stack = (u64)tss.rsp[0] - 64, top = USER(user_stack) + 4000;
	eq("iret-same", iret(kernel, 0x08, 2, stack, 0x10) >> 32, 0x46);
	eq("iret-same-rsp", last.rsp, stack);
	eq("iret-null-ss", iret(kernel, 0x08, 2, stack, 0) >> 32, 0x46);
	eq("iret-user-null-ss", iret(USER(u_nothing), 0x2b, 2, top, 3), FAULT(GP, 0));
	eq("iret-noncanonical-rip", iret(1UL << 47, 0x08, 2, stack, 0x10), FAULT(GP, 0));
	eq("iret-null-cs", iret(kernel, 0, 2, stack, 0x10), FAULT(GP, 0));
	eq("iret-data-cs", iret(kernel, 0x10, 2, stack, 0x10), FAULT(GP, 0x10));
	eq("iret-cs-rpl-dpl", iret(USER(u_nothing), 0x28, 2, top, 0x23), FAULT(GP, 0x28));
	eq("iret-ss-rpl", iret(USER(u_nothing), 0x2b, 2, top, 0x20), FAULT(GP, 0x20));
	eq("iret-ss-dpl", iret(USER(u_nothing), 0x2b, 2, top, 0x13), FAULT(GP, 0x10));
	eq("iret-nt", outcome(TRY(asm volatile("pushfq; orl $0x4000, (%%rsp); popfq; iretq" : : : "memory"))), FAULT(GP, 0));
	eq("iret-user-iopl", (iret(USER(u_pushf), 0x2b, 0x3002, top, 0x23), last.rax & 0x3000), 0x3000);
	eq("iret-compat", iret(COMPAT(compat_text), 0x1b, 2, COMPAT(user_stack) + 4000, 0x23) >> 32, USER_EXIT);
	eq("iret-compat-rip", last.rip >> 32, 0);
	eq("iret-compat-past-limit", iret(0x100000000, 0x1b, 2, top, 0x23), FAULT(GP, 0));
	asm volatile("mov %0, %%ds; mov %0, %%es" : : "r"(0x10));
	u64 ds;
	iret(USER(u_nothing), 0x2b, 2, top, 0x23);
	asm volatile("mov %%ds, %0" : "=r"(ds));
	(void)ds;
}

USER_CODE(u_iret_flags, "mov %rsp, %rax; mov %ss, %ecx; push %rcx; push %rax; pushfq; orl $0x3200, (%rsp); mov %cs, %ecx; push %rcx; lea 1f(%rip), %rax; push %rax; iretq; 1: pushfq; pop %rax");
USER_CODE(u_ds, "mov %ds, %eax");

static void user_irets(void)
{
	eq("user-iret", user(u_iret_flags, 0), USER_EXIT);
	eq("user-iret-keeps-if-iopl", last.rax & 0x3200, 0);
	TRY({ asm volatile("mov %0, %%ds" : : "r"(0x10)); go(USER(u_ds), 0x2b, 2, USER(user_stack) + 4000, 0x23, 0); });
	eq("iret-drops-ds", last.rax & 0xffff, 0);
}

USER_CODE(u_in64, "in $0x64, %al");
USER_CODE(u_in3f8_word, "mov $0x1fff, %edx; in %dx, %ax");
USER_CODE(u_in1ff8, "mov $0x1ff8, %edx; in %dx, %al");

static void io_permissions(void)
{
	u64 top = USER(user_stack) + 4000;
	eq("iopl3-in", iret(USER(u_in64), 0x2b, 0x3002, top, 0x23) >> 32, USER_EXIT);
	eq("iopl2-in", iret(USER(u_in64), 0x2b, 0x2002, top, 0x23), FAULT(GP, 0));
	tss.iomap = 104;
	for (unsigned i = 0; i < sizeof tss.bitmap; i++)
		tss.bitmap[i] = 0xff;
	eq("iopb-set", outcome(user(u_in64, 0)), FAULT(GP, 0));
	tss.bitmap[0x64 / 8] &= ~(1 << (0x64 % 8));
	eq("iopb-clear", outcome(user(u_in64, 0)), FAULT(USER_EXIT, 0));
	tss.bitmap[0x1fff / 8] &= ~0x80;
	eq("iopb-crossing-set", outcome(user(u_in3f8_word, 0)), FAULT(GP, 0));
	tss.bitmap[0x2000 / 8] &= ~1;
	eq("iopb-crossing-clear", outcome(user(u_in3f8_word, 0)), FAULT(USER_EXIT, 0));
	tss.iomap = 104 + 0x1c10;
	eq("iopb-past-limit", outcome(user(u_in1ff8, 0)), FAULT(GP, 0));
	tss.iomap = sizeof tss;
}

void test_calls(void)
{
	map_compat();
	syscalls();
	compatibility();
	if (intel()) /* AMD's have none in long mode */
		sysenters();
	call_gates();
	far_jumps();
	irets();
	user_irets();
	io_permissions();
}
