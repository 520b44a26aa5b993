/* Single step, breakpoints and alignment checks in 32-bit protected mode at CPL 3 (SDM vol. 3B §17.2, §17.3; vol. 3A §6.8.3, §6.15). */
#include "legacy32.h"

#define TF 0x100
#define AC_FLAG 0x40000
static u32 dr6(void) { u32 v; asm volatile("mov %%dr6, %0" : "=r"(v)); return v; }
static void set_dr6(u32 v) { asm volatile("mov %0, %%dr6" : : "r"(v)); }
static void set_dr0(u32 v) { asm volatile("mov %0, %%dr0" : : "r"(v)); }
static void set_dr7(u32 v) { asm volatile("mov %0, %%dr7" : : "r"(v)); }

/* STEP_ is one instruction to step over; name_next is where that must end. */
#define STEP_(name, text) extern u8 name##_next[]; CODE32_(name, text "\n" #name "_next: nop")
STEP_(st_aaa, "aaa")
STEP_(st_daa, "daa")
STEP_(st_aam, "aam")
STEP_(st_pusha, "pusha")
STEP_(st_popa, "popa")
STEP_(st_bound, "bound %eax, (%edi)")
STEP_(st_into, "into")
STEP_(st_les, "les (%edi), %ecx")
STEP_(st_push_ds, "push %ds")
STEP_(st_pop_es, "pop %es")
STEP_(st_arpl, "arpl %ax, %cx")
STEP_(st_jecxz, "jecxz 1f; 1:")
STEP_(st_lcall, "lcall $0x33, $st_lcall_next")
STEP_(st_ljmp, "ljmp $0x33, $st_ljmp_next")
STEP_(st_enter, "enter $16, $2")
STEP_(st_salc, ".byte 0xd6")
STEP_(st_inc, "inc %eax")
STEP_(st_mov_moffs, "mov data_32_, %eax")
STEP_(st_popf, "popfl")
STEP_(st_pop_ss, "pop %ss; nop")
STEP_(st_mov_ss, "mov %ebx, %ss; nop")
STEP_(st_lss, "lss (%esi), %esp")
CODE32_(bp_pop_ss, "pop %ss; bp_behind: nop")
CODE32_(bp_pop_es, "pop %es; bp_behind_es: nop")
CODE32_(icebp32, ".byte 0xf1; icebp32_next: nop")
asm(".set data_32_, data\n");
extern u8 bp_behind[], bp_behind_es[], icebp32_next[];

static u32 words[8];
static u32 user(u8 *code, u32 flags, u32 edi)
{
	return run(&(struct regs){ .eax = 0, .ebx = USER_DATA | 3, .ecx = 0, .esp = (u32)words, .ebp = USER_TOP - 64, .esi = (u32)(words + 4),
		.edi = edi, .eip = (u32)code, .eflags = 2 | flags, .cs = USER_CODE | 3, .ss = USER_DATA | 3, .ds = USER_DATA | 3, .es = USER_DATA | 3 });
}

static void steps(void)
{
	static const struct { const char *name; u8 *code, *next; } list[] = {
		{ "aaa", st_aaa, st_aaa_next }, { "daa", st_daa, st_daa_next }, { "aam", st_aam, st_aam_next }, { "popa", st_popa, st_popa_next },
		{ "bound", st_bound, st_bound_next }, { "into", st_into, st_into_next }, { "les", st_les, st_les_next },
		{ "pop-es", st_pop_es, st_pop_es_next }, { "arpl", st_arpl, st_arpl_next }, { "jecxz", st_jecxz, st_jecxz_next },
		{ "ljmp", st_ljmp, st_ljmp_next }, { "salc", st_salc, st_salc_next }, { "inc", st_inc, st_inc_next },
		{ "mov-moffs", st_mov_moffs, st_mov_moffs_next }, { "lss", st_lss, st_lss_next },
	};
	for (u32 i = 0; i < 64; i++)
		data[i] = 0;
	words[4] = USER_TOP - 64;
	words[5] = USER_DATA | 3;
	for (u32 i = 0; i < ARRAY_LENGTH(list); i++) {
		set_dr6(0xffff0ff0);
		eq(name("step32-", list[i].name, ""), user(list[i].code, TF, (u32)data), FAULT(DB, 0));
		eq(name("step32-", list[i].name, "-eip"), last.eip, (u32)list[i].next);
		eq(name("step32-", list[i].name, "-dr6"), dr6(), 0xffff4ff0);
	}
	static const struct { const char *name; u8 *code, *next; } stack[] = {
		{ "pusha", st_pusha, st_pusha_next }, { "push-ds", st_push_ds, st_push_ds_next }, { "lcall", st_lcall, st_lcall_next },
		{ "enter", st_enter, st_enter_next },
	};
	for (u32 i = 0; i < ARRAY_LENGTH(stack); i++) {
		struct regs r = { .esp = USER_TOP, .ebp = USER_TOP - 64, .eip = (u32)stack[i].code, .eflags = 2 | TF, .cs = USER_CODE | 3,
			.ss = USER_DATA | 3, .ds = USER_DATA | 3, .es = USER_DATA | 3 };
		eq(name("step32-", stack[i].name, ""), run(&r), FAULT(DB, 0));
		eq(name("step32-", stack[i].name, "-eip"), last.eip, (u32)stack[i].next);
	}
	eq("step32-pop-ss", user(st_pop_ss, TF, 0), FAULT(DB, 0));
	eq("step32-pop-ss-shadow", last.eip, (u32)st_pop_ss_next);
	eq("step32-mov-ss", user(st_mov_ss, TF, 0), FAULT(DB, 0));
	eq("step32-mov-ss-shadow", last.eip, (u32)st_mov_ss_next);
	set_dr6(0xffff0ff0);
}

static void breakpoints(void)
{
	set_dr0((u32)bp_behind);
	set_dr7(0x402);
	eq("pop-ss-hides-breakpoint", user(bp_pop_ss, 0, 0), EXIT);
	set_dr0((u32)bp_behind_es);
	eq("pop-es-hides-none", user(bp_pop_es, 0, 0), FAULT(DB, 0));
	eq("pop-es-breakpoint-eip", last.eip, (u32)bp_behind_es);
	eq("exec32-rf", user(bp_behind_es, 0x10000, 0), EXIT); /* RF, by IRET */
	set_dr0((u32)words);
	set_dr7(0x402 | 0xf << 16); /* accesses, 4 bytes */
	eq("pop-ss-data", user(bp_pop_ss, 0, 0), FAULT(DB, 0));
	eq("pop-ss-data-put-off", last.eip, (u32)bp_behind + 1);
	set_dr7(0x400);
	set_dr6(0xffff0ff0);
	eq("icebp32", user(icebp32, 0, 0), FAULT(DB, 0));
	eq("icebp32-eip", last.eip, (u32)icebp32_next);
	set_dr6(0xffff0ff0);
}

CODE32_(al_pusha, "lea 64(%edi), %esp; pusha")
CODE32_(al_popa, "mov %edi, %esp; popa")
CODE32_(al_push, "lea 64(%edi), %esp; push %eax")
CODE32_(al_push16, "lea 64(%edi), %esp; pushw %ax")
CODE32_(al_pop_mem, "push $0; pop (%edi)")
CODE32_(al_call, "lea 64(%edi), %esp; call 1f; 1:")
CODE32_(al_bound, "bound %eax, (%edi)")
CODE32_(al_bound16, "boundw %ax, (%edi)")
CODE32_(al_les, "les (%edi), %eax")
CODE32_(al_les16, "lesw (%edi), %ax")
CODE32_(al_arpl, "arpl %ax, (%edi)")
CODE32_(al_fnstenv, "fninit; fnstenv (%edi)")
CODE32_(al_fnstenv16, "fninit; data16 fnstenv (%edi)")
CODE32_(al_cmpxchg8b, "cmpxchg8b (%edi)")
CODE32_(al_mov_sreg, "mov %ds, (%edi)")
CODE32_(al_load_sreg, "mov (%edi), %es")
CODE32_(al_moffs, "mov data_32_ + 2, %eax")
CODE32_(al_byte, "mov (%edi), %al")

static void alignment(void)
{
	static const struct { const char *name; u8 *code; u8 need; } list[] = {
		{ "pusha", al_pusha, 4 }, { "popa", al_popa, 4 }, { "push", al_push, 4 }, { "push16", al_push16, 2 }, { "pop-mem", al_pop_mem, 4 },
		{ "call", al_call, 4 }, { "bound", al_bound, 4 }, { "bound16", al_bound16, 2 }, { "les", al_les, 4 }, { "les16", al_les16, 2 },
		{ "arpl", al_arpl, 2 }, { "fnstenv", al_fnstenv, 4 }, { "fnstenv16", al_fnstenv16, 2 }, { "cmpxchg8b", al_cmpxchg8b, 8 },
		{ "mov-from-ds", al_mov_sreg, 2 }, { "mov-to-es", al_load_sreg, 2 }, { "byte", al_byte, 1 },
	};
	static const u8 offs[] = { 1, 2, 4, 8 };
	static const char *const suffix[] = { "-1", "-2", "-4", "-8" };
	set_cr0(AC_FLAG, 0); /* AM is the same bit */
	for (u32 i = 0; i < ARRAY_LENGTH(list); i++)
		for (u32 j = 0; j < ARRAY_LENGTH(offs); j++) {
			for (u32 k = 0; k < 256; k++)
				data[k] = 0;
			int fault = offs[j] % list[i].need;
			eq(name(fault ? "align32-fault-" : "align32-free-", list[i].name, suffix[j]), user(list[i].code, AC_FLAG, (u32)data + offs[j]),
				fault ? FAULT(AC, 0) : EXIT);
		}
	eq("align32-fault-moffs", user(al_moffs, AC_FLAG, 0), FAULT(AC, 0));
	eq("align32-free-ac-clear", user(al_moffs, 0, 0), EXIT);
	set_cr0(0, AC_FLAG);
	eq("align32-free-am-clear", user(al_moffs, AC_FLAG, 0), EXIT);
}

void debug32(void)
{
	words[0] = USER_DATA | 3; /* what is popped */
	steps();
	breakpoints();
	alignment();
}
