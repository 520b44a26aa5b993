/* Hardware tasks (SDM vol. 3A chapter 7). */
#include "legacy32.h"

static struct tss32 task_a, task_b;
struct tss16 { u16 link, sp0, ss0, sp1, ss1, sp2, ss2, ip, flags, ax, cx, dx, bx, sp, bp, si, di, es, cs, ss, ds, ldt; };
static struct tss16 task16 __attribute__((aligned(64)));
static u8 stacks[4][1024] __attribute__((aligned(16)));
#define TOP(i) ((u32)stacks[i] + sizeof stacks[i])

/* Tasks that handle exceptions with an error code, each with its vector in EBX. */
static const u8 caught[] = { DF, TS, NP, SS, GP, PF };
static struct { u32 head[26 + 6]; } handlers[ARRAY_LENGTH(caught)] __attribute__((aligned(128)));
static u8 handler_stacks[ARRAY_LENGTH(caught)][1024] __attribute__((aligned(16)));
#define HANDLER(i) (0xb8 + 8 * (i))

#define TYPE(sel) ((u32)(gdt32[(sel) / 8] >> 40) & 0xff)
#define BUSY(sel) (TYPE(sel) >> 1 & 1)

static u16 tr(void)
{
	u16 v;
	asm volatile("str %0" : "=r"(v));
	return v;
}

extern u8 task_exit[], task_iret[], task_handler[], task_iret_loop[];
asm(".pushsection .text.tested, \"ax\"\n"
	"task_exit: int $0x80\n"
	"task_iret: iret\n"
	"task_iret_loop: inc %eax; iret; jmp task_iret_loop\n"
	"task_handler: push %ebx; call handled\n"
	".popsection\n");
static u32 handler_link; /* of the handler task that ran last */

/* Runs in the handler task. */
void handled(u32 vector, u32 error)
{
	for (u32 i = 0; i < ARRAY_LENGTH(caught); i++)
		if (caught[i] == vector)
			handler_link = ((volatile struct tss32 *)&handlers[i])->link & 0xffff;
	asm volatile("mov %%cr2, %0" : "=r"(last_cr2));
	last.error = error;
	recover32(vector);
}

static void clear(void *p, u32 n)
{
	for (volatile u8 *b = p; n--;)
		*b++ = 0;
}

/* prepare makes the task of ring 0 at eip out of t, and its descriptor. */
static void prepare(void *tss, u16 sel, void *eip, u32 top)
{
	struct tss32 *t = tss;
	clear(t, 104);
	t->link = 0xdddd;
	t->eip = (u32)eip;
	t->eflags = 2;
	t->esp = t->esp0 = top;
	t->esp0 -= 512;
	t->ss0 = DATA;
	t->cs = CODE;
	t->ds = t->es = t->ss = DATA;
	t->iomap = 104;
	u32 v;
	asm volatile("mov %%cr3, %0" : "=r"(v));
	t->cr3 = v;
	SET(sel, t, 103, A_TSS);
}

static void user_task(struct tss32 *t)
{
	t->cs = USER_CODE | 3;
	t->ss = t->ds = t->es = USER_DATA | 3;
}

static void fresh(void)
{
	reset_task();
	prepare(&task_a, TASK_A, task_exit, TOP(0));
	prepare(&task_b, TASK_B, task_exit, TOP(1));
	clear(&task16, sizeof task16);
	task16 = (struct tss16){ .link = 0xdddd, .ip = 0, .flags = 2, .sp = 0x8000, .cs = CODE16, .ss = STACK16, .ds = DATA16, .es = DATA16, .sp0 = 0x7000, .ss0 = STACK16 };
	SET(TASK_C, &task16, 43, A_TSS16);
	*(volatile u16 *)SEG16 = 0x80cd;
	gdt32[TASK_GATE / 8] = gate(0, TASK_A, 0x85, 0);
}

/* catch_all makes the handler tasks the handlers; release takes that back. */
static u64 released[ARRAY_LENGTH(caught)];
static void catch_all(void)
{
	for (u32 i = 0; i < ARRAY_LENGTH(caught); i++) {
		released[i] = idt32[caught[i]];
		idt32[caught[i]] = gate(0, HANDLER(i), 0x85, 0);
		prepare(&handlers[i], HANDLER(i), task_handler, (u32)handler_stacks[i + 1]);
		((struct tss32 *)&handlers[i])->ebx = caught[i];
	}
}

static void release(void)
{
	for (u32 i = 0; i < ARRAY_LENGTH(caught); i++)
		idt32[caught[i]] = released[i];
}
#define CAUGHT(expression) ({ catch_all(); u32 c_ = expression; release(); c_; })

#define JMP(sel) BAD(asm volatile("ljmp %0, $0" : : "i"(sel) : "memory"))
#define CALL(sel) BAD(asm volatile("lcall %0, $0" : : "i"(sel) : "memory"))

static void jumps(void)
{
	fresh();
	task_a.eax = 0xa0000001, task_a.ecx = 0xa0000002, task_a.edx = 0xa0000003, task_a.ebx = 0xa0000004;
	task_a.ebp = 0xa0000005, task_a.esi = 0xa0000006, task_a.edi = 0xa0000007;
	task_a.fs = SEL, task_a.gs = SEL2;
	task_a.eflags = 0x8d7;
	SET(SEL, data, 0xff, A_DATA);
	SET(SEL2, data, 0xff, 0x90);
	u32 got = BAD(asm volatile("mov $0xb0000004, %%ebx; mov $0xb0000006, %%esi; mov $0xb0000007, %%edi; stc; ljmp $0x80, $0x12345; after_task_jmp:"
		: : : "ebx", "esi", "edi", "memory"));
	extern u8 after_task_jmp[];
	eq("task-jmp", got, EXIT);
	eq("task-jmp-tr", tr(), TASK_A);
	eq("task-jmp-eip", last.eip, (u32)task_exit + 2);
	eq("task-jmp-eax-ecx", last.eax == 0xa0000001 && last.ecx == 0xa0000002, 1);
	eq("task-jmp-edx-ebx", last.edx == 0xa0000003 && last.ebx == 0xa0000004, 1);
	eq("task-jmp-ebp-esi-edi", last.ebp == 0xa0000005 && last.esi == 0xa0000006 && last.edi == 0xa0000007, 1);
	eq("task-jmp-esp", last_esp, TOP(0));
	eq("task-jmp-flags", last.eflags & 0x7fd7, 0x8d7);
	eq("task-jmp-segments", last_fs << 16 | last_gs, SEL << 16 | SEL2);
	eq("task-jmp-sets-accessed", TYPE(SEL2), 0x91);
	eq("task-jmp-busy", BUSY(TASK_A), 1);
	eq("task-jmp-old-free", BUSY(TSS_SEL), 0);
	eq("task-jmp-link", task_a.link, 0xdddd);
	eq("task-jmp-sets-ts", cr0() & 8, 8);
	eq("task-jmp-saves-eip", tss32.eip, (u32)after_task_jmp);
	eq("task-jmp-saves-ebx", tss32.ebx, 0xb0000004);
	eq("task-jmp-saves-esi-edi", tss32.esi == 0xb0000006 && tss32.edi == 0xb0000007, 1);
	eq("task-jmp-saves-flags", tss32.eflags & 0x4003, 3);
	eq("task-jmp-saves-segments", (tss32.cs & 0xffff) << 16 | (tss32.ss & 0xffff), CODE << 16 | DATA);
	/* and back again, to where it was left */
	fresh();
	extern u8 task_jmp_back[];
	asm(".pushsection .text.tested, \"ax\"\ntask_jmp_back: ljmp $0x28, $0\n.popsection\n");
	task_a.eip = (u32)task_jmp_back;
	u32 a = 1;
	got = BAD(asm volatile("mov $5, %0; ljmp $0x80, $0; add $2, %0" : "=b"(a) : : "memory"));
	eq("task-jmp-back", got, NONE);
	eq("task-jmp-back-continues", a, 7);
	eq("task-jmp-back-tr", tr(), TSS_SEL);
	eq("task-jmp-back-busy", BUSY(TSS_SEL) << 1 | BUSY(TASK_A), 2);
	eq("task-jmp-back-saves", task_a.eip, (u32)task_jmp_back + 7);
	asm volatile("clts");
	/* a task gate */
	fresh();
	eq("task-gate-jmp", JMP(TASK_GATE), EXIT);
	eq("task-gate-jmp-tr", tr(), TASK_A);
	eq("task-gate-jmp-link", task_a.link, 0xdddd);
	fresh();
	ldt32[1] = gate(0, TASK_A, 0x85, 0);
	asm volatile("lldt %w0" : : "r"(LDT_SEL));
	eq("task-gate-in-ldt", JMP(0x0c), EXIT);
	fresh();
}

static void nested(void)
{
	fresh();
	eq("task-call", CALL(TASK_A), EXIT);
	eq("task-call-link", task_a.link & 0xffff, TSS_SEL);
	eq("task-call-nt", last.eflags >> 14 & 1, 1);
	eq("task-call-busy", BUSY(TASK_A) << 1 | BUSY(TSS_SEL), 3);
	eq("task-call-saved-nt", tss32.eflags >> 14 & 1, 0);
	/* IRET comes back; the next call goes on behind the IRET */
	fresh();
	task_a.eip = (u32)task_iret_loop;
	u32 a = 0;
	u32 got = BAD(asm volatile("mov $5, %0; lcall $0x80, $0; add $2, %0; lcall $0x80, $0; add $4, %0" : "=b"(a) : : "memory"));
	eq("task-iret", got, NONE);
	eq("task-iret-continues", a, 11);
	eq("task-iret-tr", tr(), TSS_SEL);
	eq("task-iret-busy", BUSY(TASK_A) << 1 | BUSY(TSS_SEL), 1);
	eq("task-iret-nt-saved-clear", task_a.eflags >> 14 & 1, 0);
	eq("task-iret-saves-eip", task_a.eip, (u32)task_iret_loop + 2);
	eq("task-iret-saves-eax", task_a.eax, 2);
	eq("task-iret-nt", ({ u32 f; asm volatile("pushf; pop %0" : "=r"(f)); f >> 14 & 1; }), 0);
	/* two levels */
	fresh();
	extern u8 task_call_b[];
	asm(".pushsection .text.tested, \"ax\"\ntask_call_b: lcall $0x88, $0; iret\n.popsection\n");
	task_a.eip = (u32)task_call_b;
	task_b.eip = (u32)task_iret;
	got = BAD(asm volatile("mov $5, %0; lcall $0x80, $0; add $2, %0" : "=b"(a) : : "memory"));
	eq("task-two-levels", got == NONE ? a : got, 7);
	eq("task-two-levels-link", task_b.link & 0xffff, TASK_A);
	eq("task-two-levels-busy", BUSY(TASK_A) << 2 | BUSY(TASK_B) << 1 | BUSY(TSS_SEL), 1);
	fresh();
	eq("task-gate-call", CALL(TASK_GATE), EXIT);
	eq("task-gate-call-link", task_a.link & 0xffff, TSS_SEL);
	/* JMP out of a nested task keeps NT in its TSS */
	fresh();
	extern u8 task_jmp_b[];
	asm(".pushsection .text.tested, \"ax\"\ntask_jmp_b: ljmp $0x88, $0\n.popsection\n");
	task_a.eip = (u32)task_jmp_b;
	eq("task-jmp-nested", CALL(TASK_A), EXIT);
	eq("task-jmp-nested-nt-saved", task_a.eflags >> 14 & 1, 1);
	eq("task-jmp-nested-nt", last.eflags >> 14 & 1, 0);
	eq("task-jmp-nested-busy", BUSY(TASK_A) << 2 | BUSY(TASK_B) << 1 | BUSY(TSS_SEL), 3);
	fresh();
}

/* What is wrong before the switch is found in the old task. */
static void refused(void)
{
	static const struct { const char *name; u32 base, limit, attr, want; } all[] = {
		{ "busy", 0, 103, 0x8b, FAULT(GP, TASK_A) }, { "absent", 0, 103, 0x09, FAULT(NP, TASK_A) },
		{ "short", 0, 102, 0x89, FAULT(TS, TASK_A) }, { "short-16", 0, 42, 0x81, FAULT(TS, TASK_A) },
		{ "busy-16", 0, 103, 0x83, FAULT(GP, TASK_A) }, { "ldt", 0, 103, 0x82, FAULT(GP, TASK_A) },
		{ "interrupt-gate", 0, 103, 0x8e, FAULT(GP, TASK_A) }, { "type-0", 0, 103, 0x80, FAULT(GP, TASK_A) },
		{ "fits", 0, 103, 0x89, EXIT }, { "fits-16", 1, 43, 0x81, EXIT },
	};
	for (u32 i = 0; i < ARRAY_LENGTH(all); i++) {
		void *base = all[i].base ? (void *)&task16 : &task_a;
		fresh();
		SET(TASK_A, base, all[i].limit, all[i].attr);
		eq(name("task-jmp-", all[i].name, ""), JMP(TASK_A), all[i].want);
		if (all[i].want != EXIT) {
			eq(name("task-jmp-", all[i].name, "-stays"), tr() << 16 | BUSY(TSS_SEL) << 8 | TYPE(TASK_A), TSS_SEL << 16 | 1 << 8 | all[i].attr);
			eq(name("task-jmp-", all[i].name, "-no-ts"), cr0() & 8, 0);
		}
		fresh();
		SET(TASK_A, base, all[i].limit, all[i].attr);
		eq(name("task-call-", all[i].name, ""), CALL(TASK_A), all[i].want);
		fresh();
		SET(TASK_A, base, all[i].limit, all[i].attr);
		eq(name("task-gate-", all[i].name, ""), JMP(TASK_GATE), all[i].want);
		fresh();
		SET(TASK_A, base, all[i].limit, all[i].attr);
		idt32[0x81] = gate(0, TASK_A, 0x85, 0);
		eq(name("task-int-", all[i].name, ""), BAD(asm volatile("int $0x81" : : : "memory")), all[i].want);
	}
	fresh();
	eq("task-jmp-self", JMP(TSS_SEL), FAULT(GP, TSS_SEL));
	eq("task-jmp-rpl", JMP(TASK_A | 1), FAULT(GP, TASK_A));
	ldt32[1] = segment((u32)&task_a, 103, A_TSS);
	asm volatile("lldt %w0" : : "r"(LDT_SEL));
	eq("task-jmp-in-ldt", JMP(0x0c), FAULT(GP, 0x0c));
	gdt32[TASK_GATE / 8] = gate(0, 0x0c, 0x85, 0);
	eq("task-gate-to-ldt", JMP(TASK_GATE), FAULT(GP, 0x0c));
	gdt32[TASK_GATE / 8] = gate(0, 0x100, 0x85, 0);
	eq("task-gate-past-gdt", JMP(TASK_GATE), FAULT(GP, 0x100));
	gdt32[TASK_GATE / 8] = gate(0, 0, 0x85, 0);
	eq("task-gate-null", JMP(TASK_GATE), FAULT(GP, 0));
	gdt32[TASK_GATE / 8] = gate(0, DATA, 0x85, 0);
	eq("task-gate-to-data", JMP(TASK_GATE), FAULT(GP, DATA));
	gdt32[TASK_GATE / 8] = gate(0, TASK_A, 0x05, 0);
	eq("task-gate-absent", JMP(TASK_GATE), FAULT(NP, TASK_GATE));
	gdt32[TASK_GATE / 8] = gate(0, TASK_A, 0x85, 0);
	eq("task-gate-rpl", JMP(TASK_GATE | 3), FAULT(GP, TASK_GATE));
	/* The RPL of the selector in a gate does not count. */
	gdt32[TASK_GATE / 8] = gate(0, TASK_A | 3, 0x85, 0);
	eq("task-gate-tss-rpl", JMP(TASK_GATE), EXIT);
	fresh();
}

CODE32_(user_jmp_a, "ljmp $0x80, $0")
CODE32_(user_call_gate, "lcall $0x98, $0")
CODE32_(user_int, "int $0x81")
CODE32_(user_ud, "ud2")
CODE32_(user_touch, "mov 0x10005000, %eax")
CODE32_(user_in, "inb %dx, %al")
CODE32_(user_div, "xor %ecx, %ecx; div %ecx")

static u32 ring3(u8 *code)
{
	return run(&(struct regs){ .esp = USER_TOP, .eip = (u32)code, .eflags = 2, .cs = USER_CODE | 3, .ss = USER_DATA | 3,
		.ds = USER_DATA | 3, .es = USER_DATA | 3, .ebx = 0x77 });
}

static void privileges(void)
{
	fresh();
	eq("task-user-jmp-dpl0", ring3(user_jmp_a), FAULT(GP, TASK_A));
	SET(TASK_A, &task_a, 103, A_TSS | A_DPL3);
	eq("task-user-jmp-dpl3", ring3(user_jmp_a), EXIT);
	eq("task-user-jmp-cs", last.cs, CODE); /* privilege comes from the TSS */
	eq("task-user-jmp-saves", (tss32.cs & 0xffff) << 16 | (tss32.ss & 0xffff), (USER_CODE | 3) << 16 | USER_DATA | 3);
	eq("task-user-jmp-saves-ebx", tss32.ebx, 0x77);
	fresh();
	eq("task-user-gate-dpl0", ring3(user_call_gate), FAULT(GP, TASK_GATE));
	gdt32[TASK_GATE / 8] = gate(0, TASK_A, 0xe5, 0);
	eq("task-user-gate-dpl3", ring3(user_call_gate), EXIT); /* whatever the TSS's DPL */
	fresh();
	idt32[0x81] = gate(0, TASK_A, 0x85, 0);
	eq("task-user-int-dpl0", ring3(user_int), FAULT(GP, 0x81 * 8 + 2));
	idt32[0x81] = gate(0, TASK_A, 0xe5, 0);
	eq("task-user-int-dpl3", ring3(user_int), EXIT);
	eq("task-user-int-saves-eip", tss32.eip, (u32)user_int + 2);
	fresh();
	u64 old = idt32[DE];
	idt32[DE] = gate(0, TASK_A, 0x85, 0);
	eq("task-user-exception", ring3(user_div), EXIT); /* no DPL counts */
	eq("task-user-exception-saves-eip", tss32.eip, (u32)user_div + 2);
	idt32[DE] = old;
	/* a task of ring 3: interrupts take its own TSS's stack */
	fresh();
	user_task(&task_a);
	eq("task-to-user", JMP(TASK_A), EXIT);
	eq("task-to-user-cs-ss", last.cs << 16 | last.ss, (USER_CODE | 3) << 16 | USER_DATA | 3);
	eq("task-to-user-esp", last.esp, TOP(0));
	/* one of ring 1 */
	fresh();
	SET(SEL, 0, 0xfffff, 0xbb | A_BIG | A_GRAN);
	SET(RING1_DATA, 0, 0xfffff, 0xb3 | A_BIG | A_GRAN);
	idt32[0x81] = gate(stubs32[0x81], CODE, 0xee, 0);
	task_a.cs = SEL | 1;
	task_a.ss = task_a.ds = task_a.es = RING1_DATA | 1;
	eq("task-to-ring1", JMP(TASK_A), EXIT);
	eq("task-to-ring1-cs", last.cs, SEL | 1);
	fresh();
}

static void gates(void)
{
	u64 old_ud = idt32[UD], old_gp = idt32[GP];
	fresh();
	idt32[0x81] = gate(0, TASK_A, 0x85, 0);
	extern u8 after_task_int[], task_at_ud[];
	eq("task-int", BAD(asm volatile("int $0x81; after_task_int:" : : : "memory")), EXIT);
	eq("task-int-link", task_a.link & 0xffff, TSS_SEL);
	eq("task-int-nt", last.eflags >> 14 & 1, 1);
	eq("task-int-saves-eip", tss32.eip, (u32)after_task_int);
	eq("task-int-no-error", last_esp, TOP(0));
	fresh();
	task_a.eip = (u32)task_iret;
	eq("task-int-iret", BAD(asm volatile("int $0x81" : : : "memory")), NONE);
	eq("task-int-iret-tr", tr(), TSS_SEL);
	idt32[0x81] = gate(0, TASK_A, 0x05, 0);
	eq("task-int-gate-absent", BAD(asm volatile("int $0x81" : : : "memory")), FAULT(NP, 0x81 * 8 + 2));
	idt32[0x81] = gate(0, 0x0c, 0x85, 0);
	eq("task-int-to-ldt", BAD(asm volatile("int $0x81" : : : "memory")), FAULT(GP, 0x0c));
	idt32[0x81] = gate(0, 0x100, 0x85, 0);
	eq("task-int-past-gdt", BAD(asm volatile("int $0x81" : : : "memory")), FAULT(GP, 0x100));
	/* exceptions set EXT in the error codes of what is wrong with the gate */
	static const struct { const char *name; u32 sel, attr, limit, want; } all[] = {
		{ "busy", TASK_A, 0x8b, 103, FAULT(GP, TASK_A + 1) }, { "absent", TASK_A, 0x09, 103, FAULT(NP, TASK_A + 1) },
		{ "short", TASK_A, 0x89, 102, FAULT(TS, TASK_A + 1) }, { "not-a-tss", DATA, 0x89, 103, FAULT(GP, DATA + 1) },
		{ "past-gdt", 0x100, 0x89, 103, FAULT(GP, 0x101) }, { "null", 0, 0x89, 103, FAULT(GP, 1) },
	};
	for (u32 i = 0; i < ARRAY_LENGTH(all); i++) {
		fresh();
		SET(TASK_A, &task_a, all[i].limit, all[i].attr);
		idt32[UD] = gate(0, all[i].sel, 0x85, 0);
		eq(name("task-ud-", all[i].name, ""), BAD(asm volatile("ud2" : : : "memory")), all[i].want);
	}
	fresh();
	idt32[UD] = gate(0, TASK_A, 0x85, 0);
	eq("task-ud", BAD(asm volatile("task_at_ud: ud2" : : : "memory")), EXIT);
	eq("task-ud-saves-eip", tss32.eip, (u32)task_at_ud);
	eq("task-ud-saves-rf", tss32.eflags >> 16 & 1, 1);
	eq("task-ud-no-error", last_esp, TOP(0));
	idt32[UD] = gate(0, TASK_A, 0x85, 0);
	fresh();
	task_a.cs = 0; /* found in the new task: EXT all the same */
	eq("task-ud-bad-cs", CAUGHT(BAD(asm volatile("ud2" : : : "memory"))), FAULT(TS, 1));
	eq("task-ud-bad-cs-link", handler_link, TASK_A);
	idt32[UD] = old_ud;
	/* an error code goes to the new task's stack */
	fresh();
	eq("task-gp", CAUGHT(BAD(asm volatile("mov %0, %%fs" : : "r"(0x100) : "memory"))), FAULT(GP, 0x100));
	eq("task-gp-link", handler_link, TSS_SEL);
	fresh();
	idt32[GP] = gate(0, TASK_A, 0x85, 0);
	eq("task-gp-esp", (BAD(asm volatile("mov %0, %%fs" : : "r"(0x100) : "memory")), last_esp), TOP(0) - 4);
	/* no room for it: #GP, then #SS in the new task, make a double fault */
	fresh();
	SET(SEL, data, 0xfff, A_DATA | A_BIG);
	task_a.ss = SEL;
	task_a.esp = 0x1001;
	if (!on_tcg32) { /* its stacks have no limit */
		u64 gp = idt32[GP];
		eq("task-gp-no-room", CAUGHT((idt32[GP] = gp, BAD(asm volatile("mov %0, %%fs" : : "r"(0x100) : "memory")))), FAULT(DF, 0));
		eq("task-gp-no-room-link", handler_link, TASK_A);
	}
	idt32[GP] = old_gp;
	/* a double fault through a task gate: #GP's own gate is absent */
	fresh();
	eq("task-df", CAUGHT((idt32[GP] &= ~(1ull << 47), BAD(asm volatile("mov %0, %%fs" : : "r"(0x100) : "memory")))), FAULT(DF, 0));
	eq("task-df-link", handler_link, TSS_SEL);
	fresh();
}

/* What is wrong with the new task's segments is found in the new task. */
#define POST(what, change, want) do { \
	fresh(); \
	change; \
	eq("task-" what, CAUGHT(JMP(TASK_A)), want); \
	eq("task-" what "-busy", BUSY(TASK_A) << 1 | BUSY(TSS_SEL), 2); \
	if ((want) != EXIT) { \
		eq("task-" what "-link", handler_link, TASK_A); \
		eq("task-" what "-eip", task_a.eip, (u32)task_exit); \
	} \
} while (0)

static void checked_late(void)
{
	fresh();
	POST("ldt-null", task_a.ldt = 3, EXIT);
	POST("ldt", task_a.ldt = LDT_SEL, EXIT);
	POST("ldt-data", task_a.ldt = DATA, FAULT(TS, DATA));
	POST("ldt-tss", task_a.ldt = TASK_B, FAULT(TS, TASK_B));
	POST("ldt-in-ldt", task_a.ldt = 0x0c, FAULT(TS, 0x0c));
	POST("ldt-past-gdt", task_a.ldt = 0x100, FAULT(TS, 0x100));
	POST("ldt-absent", (SET(SEL, ldt32, 63, 0x02), task_a.ldt = SEL), FAULT(TS, SEL));
	POST("cs-null", task_a.cs = 0, FAULT(TS, 0));
	POST("cs-data", task_a.cs = DATA, FAULT(TS, DATA));
	POST("cs-tss", task_a.cs = TASK_B, FAULT(TS, TASK_B));
	POST("cs-past-gdt", task_a.cs = 0x100, FAULT(TS, 0x100));
	POST("cs-no-ldt", task_a.cs = 0x0c, FAULT(TS, 0x0c));
	POST("cs-rpl-3", (user_task(&task_a), task_a.cs = CODE | 3), FAULT(TS, CODE));
	POST("cs-dpl-3", task_a.cs = USER_CODE, FAULT(TS, USER_CODE));
	POST("cs-absent", (SET(SEL, 0, 0xfffff, 0x1b | A_BIG | A_GRAN), task_a.cs = SEL), FAULT(NP, SEL));
	POST("cs-conforming", (SET(SEL, 0, 0xfffff, 0x9f | A_BIG | A_GRAN), task_a.cs = SEL), EXIT);
	POST("cs-conforming-dpl-3", (SET(SEL, 0, 0xfffff, 0xff | A_BIG | A_GRAN), task_a.cs = SEL), FAULT(TS, SEL));
	POST("cs-conforming-rpl-3", (SET(SEL, 0, 0xfffff, 0x9f | A_BIG | A_GRAN), user_task(&task_a), task_a.cs = SEL | 3), EXIT);
	POST("cs-limit", (SET(SEL, 0, 0xff, A_CODE | A_BIG), task_a.cs = SEL), FAULT(GP, 0));
	POST("ss-null", task_a.ss = 0, FAULT(TS, 0));
	POST("ss-code", task_a.ss = CODE, FAULT(TS, CODE));
	POST("ss-read-only", (SET(SEL, 0, 0xfffff, 0x91 | A_BIG | A_GRAN), task_a.ss = SEL), FAULT(TS, SEL));
	POST("ss-rpl-3", task_a.ss = DATA | 3, FAULT(TS, DATA));
	POST("ss-dpl-3", task_a.ss = USER_DATA | 3, FAULT(TS, USER_DATA));
	POST("ss-past-gdt", task_a.ss = 0x100, FAULT(TS, 0x100));
	POST("ss-absent", (SET(SEL, 0, 0xfffff, 0x13 | A_BIG | A_GRAN), task_a.ss = SEL), FAULT(SS, SEL));
	POST("ds-null", task_a.ds = 0, EXIT);
	POST("ds-code", task_a.ds = CODE, EXIT);
	POST("ds-execute-only", (SET(SEL, 0, 0xfffff, 0x99 | A_BIG | A_GRAN), task_a.ds = SEL), FAULT(TS, SEL));
	POST("ds-system", task_a.ds = LDT_SEL, FAULT(TS, LDT_SEL));
	POST("ds-past-gdt", task_a.ds = 0x100, FAULT(TS, 0x100));
	POST("ds-rpl-3", task_a.ds = DATA | 3, FAULT(TS, DATA));
	POST("ds-absent", (SET(SEL, 0, 0xfffff, 0x13 | A_BIG | A_GRAN), task_a.ds = SEL), FAULT(NP, SEL));
	POST("es-absent", (SET(SEL, 0, 0xfffff, 0x13 | A_BIG | A_GRAN), task_a.es = SEL), FAULT(NP, SEL));
	POST("fs-absent", (SET(SEL, 0, 0xfffff, 0x13 | A_BIG | A_GRAN), task_a.fs = SEL), FAULT(NP, SEL));
	POST("gs-absent", (SET(SEL, 0, 0xfffff, 0x13 | A_BIG | A_GRAN), task_a.gs = SEL), FAULT(NP, SEL));
	POST("es-past-gdt", task_a.es = 0x108, FAULT(TS, 0x108));
	POST("fs-system", task_a.fs = TASK_B, FAULT(TS, TASK_B));
	POST("gs-rpl-3", task_a.gs = DATA | 3, FAULT(TS, DATA));
	POST("user-ds-dpl-0", (user_task(&task_a), task_a.ds = DATA), FAULT(TS, DATA));
	POST("user-ss-dpl-0", (user_task(&task_a), task_a.ss = DATA | 3), FAULT(TS, DATA));
	fresh();
	task_a.eflags = 0x23002;
	task_a.eip = 0x10000;
	task_a.cs = SEG16 >> 4;
	eq("task-vm-eip-past-limit", CAUGHT(JMP(TASK_A)), FAULT(GP, 0));
	eq("task-vm-eip-past-limit-link", handler_link, TASK_A);
	fresh();
	task_a.ldt = LDT_SEL;
	task_a.ds = 0x0c;
	ldt32[1] = segment(0, 0xfffff, A_DATA | A_BIG | A_GRAN);
	eq("task-loads-ldt", JMP(TASK_A), EXIT);
	u16 ldt;
	asm volatile("sldt %0" : "=r"(ldt));
	eq("task-loads-ldt-ds", ldt << 16 | last_ds, LDT_SEL << 16 | 0x0c);
	fresh();
}

/* IRET with NT. */
static u32 back(u32 link)
{
	tss32.link = link;
	u32 got = BAD(asm volatile("pushf; orl $0x4000, (%%esp); popf; iret; after_back:" : : : "memory"));
	asm volatile("pushf; andl $~0x4000, (%%esp); popf" : : : "memory", "cc");
	return got;
}

CODE32_(user_back, "pushf; orl $0x4000, (%esp); popf; iret")

static void returns(void)
{
	static const struct { const char *name; u32 link, attr, limit, want; } all[] = {
		{ "null", 0, 0x8b, 103, FAULT(TS, 0) }, { "ldt", TASK_A | 4, 0x8b, 103, FAULT(TS, TASK_A | 4) },
		{ "past-gdt", 0x100, 0x8b, 103, FAULT(TS, 0x100) }, { "not-busy", TASK_A, 0x89, 103, FAULT(TS, TASK_A) },
		{ "data", DATA, 0x8b, 103, FAULT(TS, DATA) }, { "absent", TASK_A, 0x0b, 103, FAULT(NP, TASK_A) },
		{ "short", TASK_A, 0x8b, 102, FAULT(TS, TASK_A) }, { "not-busy-16", TASK_A, 0x81, 103, FAULT(TS, TASK_A) },
		{ "call-gate", TASK_A, 0x8c, 103, FAULT(TS, TASK_A) }, { "busy", TASK_A, 0x8b, 103, EXIT },
	};
	extern u8 after_back[];
	for (u32 i = 0; i < ARRAY_LENGTH(all); i++) {
		fresh();
		SET(TASK_A, &task_a, all[i].limit, all[i].attr);
		eq(name("task-back-", all[i].name, ""), back(all[i].link), all[i].want);
		eq(name("task-back-", all[i].name, "-tr"), tr(), all[i].want == EXIT ? TASK_A : TSS_SEL);
	}
	eq("task-back-busy-flags", BUSY(TASK_A) << 1 | BUSY(TSS_SEL), 2);
	eq("task-back-saved-nt", tss32.eflags >> 14 & 1, 0);
	eq("task-back-saved-eip", tss32.eip, (u32)after_back);
	eq("task-back-nt", last.eflags >> 14 & 1, 0);
	fresh();
	SET(TASK_A, &task_a, 103, 0x8b);
	tss32.link = TASK_A;
	eq("task-back-user", ring3(user_back), EXIT); /* no privilege counts */
	eq("task-back-user-saved-cs", tss32.cs & 0xffff, USER_CODE | 3);
	fresh();
	tss32.link = 0;
}

static void set_dr7(u32 v) { asm volatile("mov %0, %%dr7" : : "r"(v)); }
static u32 dr6(void) { u32 v; asm volatile("mov %%dr6, %0" : "=r"(v)); return v; }
static void reset_dr6(void) { asm volatile("mov %0, %%dr6" : : "r"(0xffff0ff0)); }
static u32 dr7(void) { u32 v; asm volatile("mov %%dr7, %0" : "=r"(v)); return v; }

static void debugging(void)
{
	fresh();
	reset_dr6();
	task_a.trap = 1;
	eq("task-trap-jmp", JMP(TASK_A), FAULT(DB, 0));
	eq("task-trap-dr6", dr6(), 0xffff8ff0);
	eq("task-trap-eip", last.eip, (u32)task_exit); /* before its first instruction */
	eq("task-trap-tr", tr(), TASK_A);
	reset_dr6();
	fresh();
	task_a.trap = 1;
	eq("task-trap-call", CALL(TASK_A), FAULT(DB, 0));
	eq("task-trap-call-nt", last.eflags >> 14 & 1, 1);
	fresh();
	task_a.trap = 1;
	idt32[0x81] = gate(0, TASK_A, 0x85, 0);
	eq("task-trap-int", BAD(asm volatile("int $0x81" : : : "memory")), FAULT(DB, 0));
	fresh();
	u64 old = idt32[UD];
	task_a.trap = 1;
	idt32[UD] = gate(0, TASK_A, 0x85, 0);
	eq("task-trap-ud", BAD(asm volatile("ud2" : : : "memory")), FAULT(DB, 0));
	eq("task-trap-ud-eip", last.eip, (u32)task_exit);
	idt32[UD] = old;
	fresh();
	user_task(&task_a);
	task_a.trap = 1;
	eq("task-trap-user", JMP(TASK_A), FAULT(DB, 0));
	eq("task-trap-user-cs", last.cs, USER_CODE | 3);
	fresh();
	task_a.trap = 0xfffe;
	eq("task-trap-other-bits", JMP(TASK_A), EXIT);
	/* TF counts from the new task's first instruction on */
	fresh();
	extern u8 task_tf[], task_tf_next[];
	asm(".pushsection .text.tested, \"ax\"\ntask_tf: nop\ntask_tf_next: int $0x80\n.popsection\n");
	task_a.eip = (u32)task_tf;
	task_a.eflags = 0x102;
	reset_dr6();
	eq("task-tf", JMP(TASK_A), FAULT(DB, 0));
	eq("task-tf-eip", last.eip, (u32)task_tf_next);
	eq("task-tf-dr6", dr6(), 0xffff4ff0);
	reset_dr6();
	/* the old task's TF is saved, and does not trap in the new one */
	fresh();
	eq("task-old-tf", BAD(asm volatile("pushf; orl $0x100, (%%esp); popf; ljmp $0x80, $0" : : : "memory")), EXIT);
	eq("task-old-tf-saved", tss32.eflags >> 8 & 1, 1);
	reset_dr6();
	fresh();
	set_dr7(0x7ff);
	eq("task-dr7", (JMP(TASK_A), dr7() & 0xff), 0xaa);
	set_dr7(0x400);
	fresh();
}

static u32 pd2[1024] __attribute__((aligned(4096)));
CODE32_(read_va, "mov 0x10000000, %eax")

static void paging(void)
{
	u32 v;
	for (u32 i = 0; i < 16; i++)
		pt[i] = 0;
	pt[0] = (u32)data | P | W;
	paging_on();
	for (u32 i = 0; i < 1024; i++)
		pd2[i] = pd[i];
	pd2[VA >> 22] = 2u << 22 | PS | P | W; /* there VA is 8 MiB */
	*(u32 *)data = 0x1111;
	*(volatile u32 *)0x800000 = 0x2222;
	fresh();
	task_a.eip = (u32)read_va;
	eq("task-same-cr3", (JMP(TASK_A), last.eax), 0x1111);
	fresh();
	tss32.cr3 = 0x5555;
	task_a.eip = (u32)read_va;
	task_a.cr3 = (u32)pd2;
	eq("task-new-cr3", (JMP(TASK_A), last.eax), 0x2222);
	asm volatile("mov %%cr3, %0" : "=r"(v));
	eq("task-new-cr3-loaded", v, (u32)pd2);
	eq("task-cr3-not-saved", tss32.cr3, 0x5555);
	set_cr3((u32)pd);
	/* the new TSS is absent: nothing happens but #PF */
	fresh();
	SET(TASK_A, PAGE(1), 103, A_TSS);
	eq("task-pf-new", JMP(TASK_A) >> 16, PF);
	eq("task-pf-new-cr2", last_cr2 & ~0xfffu, PAGE(1));
	eq("task-pf-new-stays", tr() << 16 | BUSY(TASK_A) << 1 | BUSY(TSS_SEL), TSS_SEL << 16 | 1);
	eq("task-pf-new-no-ts", cr0() & 8, 0);
	fresh();
	SET(TASK_A, PAGE(1) - 52, 103, A_TSS);
	eq("task-pf-new-half", JMP(TASK_A) >> 16, PF);
	eq("task-pf-new-half-cr2", last_cr2 & ~0xfffu, PAGE(1));
	eq("task-pf-new-half-stays", tr() << 16 | BUSY(TASK_A) << 1 | BUSY(TSS_SEL), TSS_SEL << 16 | 1);
	/* a new TSS that can only be read: JMP needs no more, CALL writes the link */
	pt[2] = ((u32)&task_b & ~0xfffu) | P;
	fresh();
	SET(TASK_A, PAGE(2) | ((u32)&task_b & 0xfff), 103, A_TSS);
	eq("task-read-only-jmp", JMP(TASK_A), EXIT);
	fresh();
	SET(TASK_A, PAGE(2) | ((u32)&task_b & 0xfff), 103, A_TSS);
	eq("task-read-only-call", CALL(TASK_A), FAULT(PF, 3));
	eq("task-read-only-call-stays", tr() << 16 | BUSY(TASK_A) << 1 | BUSY(TSS_SEL), TSS_SEL << 16 | 1);
	/* the old TSS cannot be written */
	fresh();
	SET(SEL, PAGE(2) | ((u32)&task_b & 0xfff), 103, A_TSS);
	asm volatile("ltr %w0" : : "r"(SEL));
	eq("task-pf-old", JMP(TASK_A), FAULT(PF, 3));
	eq("task-pf-old-stays", tr() << 16 | BUSY(TASK_A) << 1 | BUSY(SEL), SEL << 16 | 1);
	/* an LDT that is absent: #PF in the new task */
	fresh();
	SET(SEL, PAGE(1), 0xff, A_LDT);
	task_a.ldt = SEL;
	task_a.ds = 0x0c;
	eq("task-pf-ldt", CAUGHT(JMP(TASK_A)), FAULT(PF, 0));
	eq("task-pf-ldt-cr2", last_cr2, PAGE(1) + 8);
	eq("task-pf-ldt-link", handler_link, TASK_A);
	eq("task-pf-ldt-eip", task_a.eip, (u32)task_exit);
	/* double faults for want of a stack (vol. 3A table 6-5) */
	static const struct { const char *name; u8 *code; } all[] = { { "ud", user_ud }, { "div", user_div }, { "pf", user_touch } };
	for (u32 i = 0; i < ARRAY_LENGTH(all); i++) {
		fresh();
		tss32.esp0 = PAGE(6);
		catch_all();
		idt32[PF] = released[ARRAY_LENGTH(caught) - 1];
		u32 got = ring3(all[i].code);
		release();
		eq(name("df32-no-stack-", all[i].name, ""), got, FAULT(DF, 0));
		eq(name("df32-no-stack-", all[i].name, "-cr2"), last_cr2, PAGE(6) - 4);
	}
	fresh();
	tss32.esp0 = PAGE(6); /* with a task for #PF it is served on its own: first #UD, then #PF */
	eq("df32-no-stack-ud-pf", CAUGHT(ring3(user_ud)), FAULT(PF, 2));
	paging_off();
	fresh();
	asm volatile("mov %%cr3, %0" : "=r"(v));
	task_a.cr3 = 0x12345000;
	u32 w = (JMP(TASK_A), ({ u32 x; asm volatile("mov %%cr3, %0" : "=r"(x)); x; }));
	eq("task-cr3-without-paging", w, v);
	fresh();
}

static void other_modes(void)
{
	/* a virtual-8086 task */
	fresh();
	task_a.eflags = 0x23002;
	task_a.cs = SEG16 >> 4;
	task_a.eip = 0;
	task_a.ss = STACK16_BASE >> 4;
	task_a.esp = 0x6000;
	task_a.ds = 0x111, task_a.es = 0x222, task_a.fs = 0x333, task_a.gs = 0x444;
	eq("task-vm", JMP(TASK_A), EXIT);
	eq("task-vm-flags", last.eflags & 0x23000, 0x23000);
	eq("task-vm-cs-ss", last.cs << 16 | last.ss, (SEG16 >> 4) << 16 | STACK16_BASE >> 4);
	eq("task-vm-ds-es", last_ds << 16 | last_es, 0x1110222);
	eq("task-vm-fs-gs", last_fs << 16 | last_gs, 0x3330444);
	eq("task-vm-esp", last_esp, 0x6000);
	/* an interrupt of a virtual-8086 program through a task gate, and back */
	fresh();
	task_a.eip = (u32)task_iret;
	idt32[0x82] = gate(0, TASK_A, 0xe5, 0);
	*(volatile u32 *)(SEG16 + 0x100) = 0x80cd82cd;
	u32 got = run(&(struct regs){ .esp = 0x6000, .eip = 0x100, .eflags = 0x23002, .cs = SEG16 >> 4, .ss = STACK16_BASE >> 4, .ds = 0x111 });
	eq("task-int-from-vm", got, EXIT);
	eq("task-int-from-vm-back", last.eip << 16 | last_ds, 0x1040111);
	eq("task-int-from-vm-saved", tss32.eflags >> 17 << 16 | (tss32.ds & 0xffff), 1 << 16 | 0x111);
	/* flags of the new task, and its I/O permissions */
	fresh();
	user_task(&task_a);
	task_a.eflags = 0x202;
	eq("task-if", (JMP(TASK_A), last.eflags & 0x3200), 0x200);
	fresh();
	user_task(&task_a);
	task_a.eip = (u32)user_in;
	task_a.edx = 0x4ff3;
	clear(task_a.bitmap, 0xa00 + 2);
	SET(TASK_A, &task_a, 104 + 0xa01, A_TSS);
	eq("task-io-allowed", JMP(TASK_A), EXIT);
	fresh();
	user_task(&task_a);
	task_a.eip = (u32)user_in;
	task_a.edx = 0x4ff3;
	task_a.bitmap[0x4ff3 / 8] = 8;
	SET(TASK_A, &task_a, 104 + 0xa01, A_TSS);
	eq("task-io-refused", JMP(TASK_A), FAULT(GP, 0));
	fresh();
}

CODE16_(jmp_from_16, "stc; ljmp $0x28, $0")
CODE16_(iret_16, "inc %ax; iret; int $0x80")

static void tasks16(void)
{
	fresh();
	task16.ax = 0xa001, task16.cx = 0xa002, task16.dx = 0xa003, task16.bx = 0xa004, task16.bp = 0xa005, task16.si = 0xa006, task16.di = 0xa007;
	task16.flags = 0x8d7;
	asm volatile("mov %0, %%fs; mov %0, %%gs" : : "r"(DATA));
	eq("task16-jmp", JMP(TASK_C), EXIT);
	eq("task16-jmp-tr", tr(), TASK_C);
	eq("task16-jmp-type", TYPE(TASK_C), 0x83);
	eq("task16-jmp-ax-cx", (last.eax & 0xffff) << 16 | (last.ecx & 0xffff), 0xa001a002);
	eq("task16-jmp-dx-bx", (last.edx & 0xffff) << 16 | (last.ebx & 0xffff), 0xa003a004);
	eq("task16-jmp-bp-si", (last.ebp & 0xffff) << 16 | (last.esi & 0xffff), 0xa005a006);
	eq("task16-jmp-di-sp", (last.edi & 0xffff) << 16 | (last_esp & 0xffff), 0xa0078000);
	eq("task16-jmp-cs-ss", last.cs << 16 | last_ss, CODE16 << 16 | STACK16);
	eq("task16-jmp-ds-es", last_ds << 16 | last_es, DATA16 << 16 | DATA16);
	eq("task16-jmp-fs-gs", last_fs << 16 | last_gs, 0);
	eq("task16-jmp-flags", last.eflags & 0x7fd7, 0x8d7);
	eq("task16-jmp-ip", last.eip, 2);
	/* from it back to a task of 32 bits */
	fresh();
	task16.ax = 0x1234;
	task16.sp1 = 0x7777;
	LOAD16(jmp_from_16);
	eq("task16-jmp-back", JMP(TASK_C), NONE);
	eq("task16-jmp-back-tr", tr(), TSS_SEL);
	eq("task16-saves-ip", task16.ip, 6);
	eq("task16-saves-flags", task16.flags & 0x4003, 3);
	eq("task16-saves-ax-sp", task16.ax << 16 | task16.sp, 0x12348000);
	eq("task16-saves-cs-ss", task16.cs << 16 | task16.ss, CODE16 << 16 | STACK16);
	eq("task16-saves-no-more", task16.sp1 << 16 | task16.ldt, 0x77770000);
	/* nested */
	fresh();
	LOAD16(iret_16);
	eq("task16-call-iret", CALL(TASK_C), NONE);
	eq("task16-call-link", task16.link, TSS_SEL);
	eq("task16-call-iret-saved", task16.ip << 16 | task16.ax, 2 << 16 | 1);
	eq("task16-call-iret-nt", task16.flags >> 14 & 1, 0);
	eq("task16-call-iret-busy", BUSY(TASK_C) << 1 | BUSY(TSS_SEL), 1);
	fresh();
	eq("task16-call", CALL(TASK_C), EXIT);
	eq("task16-call-nt", last.eflags >> 14 & 1, 1);
	/* an error code is a word */
	fresh();
	u64 old = idt32[GP];
	idt32[GP] = gate(0, TASK_C, 0x85, 0);
	*(volatile u16 *)(STACK16_BASE + 0x7ffe) = 0;
	eq("task16-gp", BAD(asm volatile("mov %0, %%fs" : : "r"(0x100) : "memory")), EXIT);
	idt32[GP] = old;
	eq("task16-gp-sp", last_esp & 0xffff, 0x7ffe);
	eq("task16-gp-error", *(volatile u16 *)(STACK16_BASE + 0x7ffe), 0x100);
	/* at CPL 3; its interrupts go to SS0:SP0 */
	fresh();
	task16.cs = USER_CODE16 | 3;
	task16.ss = USER_DATA16 | 3;
	task16.ds = task16.es = USER_DATA | 3;
	eq("task16-user", JMP(TASK_C), EXIT);
	eq("task16-user-cs-ss", last.cs << 16 | last.ss, (USER_CODE16 | 3) << 16 | USER_DATA16 | 3);
	eq("task16-user-sp", last_esp & 0xffff, 0x8000);
	static const struct { const char *name; u32 ldt, cs, ss, ds, want; } all[] = {
		{ "ldt", DATA, CODE16, STACK16, DATA16, FAULT(TS, DATA) }, { "cs", 0, DATA16, STACK16, DATA16, FAULT(TS, DATA16) },
		{ "ss", 0, CODE16, CODE16, DATA16, FAULT(TS, CODE16) }, { "ds", 0, CODE16, STACK16, LDT_SEL, FAULT(TS, LDT_SEL) },
		{ "ldt-fits", LDT_SEL, CODE16, STACK16, DATA16, EXIT },
	};
	for (u32 i = 0; i < ARRAY_LENGTH(all); i++) {
		fresh();
		task16.ldt = all[i].ldt;
		task16.cs = all[i].cs;
		task16.ss = all[i].ss;
		task16.ds = all[i].ds;
		eq(name("task16-bad-", all[i].name, ""), CAUGHT(JMP(TASK_C)), all[i].want);
	}
	/* CR3 and the T flag are not part of it */
	pt[0] = (u32)data | P | W;
	*(u32 *)data = 0x1111;
	paging_on();
	fresh();
	eq("task16-keeps-cr3", JMP(TASK_C), EXIT);
	u32 v;
	asm volatile("mov %%cr3, %0" : "=r"(v));
	eq("task16-keeps-cr3-value", v, (u32)pd);
	fresh();
	paging_off();
	asm volatile("mov %0, %%fs; mov %0, %%gs" : : "r"(0));
}

void tasks32(void)
{
	jumps();
	nested();
	refused();
	privileges();
	gates();
	checked_late();
	returns();
	debugging();
	paging();
	other_modes();
	tasks16();
}
