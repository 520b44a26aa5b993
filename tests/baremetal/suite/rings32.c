/* Privilege levels in 32-bit protected mode: gates, far transfers and returns, stack switches, double faults, fast system
 * calls (SDM vol. 3A chapters 5 and 6, vol. 2). */
#include "legacy32.h"

CODE32_(user_exit, "")
CODE32_(user_call, "push $0x1111; push $0x2222; lcall $0x43, $0; user_after:")
CODE32_(user_jump, "ljmp $0x43, $0")
CODE32_(user_int81, "int $0x81")
CODE32_(user_cs_call, "lcall $0x3b, $user_cs_target; user_cs_target:")
CODE32_(user_ds, "mov %ds, %eax; mov %es, %ebx; mov %fs, %ecx; mov %gs, %edx")
CODE32_(u_iret_inner, "push $2; push $8; push $0; iret")
CODE32_(u_lret_inner, "push $8; push $0; lret")
CODE32_(u_iret_flags, "pushfl; orl $0x3200, (%esp); push %cs; push $1f; iret; 1: pushfl; pop %eax")
CODE32_(u_popf_flags, "push $0x47ed7; popfl; pushfl; pop %eax")
extern u8 user_after[], gate_target[], gate_exit[], gate_lret16[], conforming_handler[];
asm(".pushsection .text.tested, \"ax\"\n"
	"gate_target: mov 8(%esp), %eax; mov 12(%esp), %ebx; lret $8\n"
	"gate_exit: int $0x80\n"
	"gate_lret16: lretw $4\n"
	"conforming_handler: mov %cs, %eax; int $0x80\n"
	".popsection\n");

static u32 ring3(u8 *code)
{
	return run(&(struct regs){ .esp = USER_TOP, .eip = (u32)code, .eflags = 2, .cs = USER_CODE | 3, .ss = USER_DATA | 3,
		.ds = USER_DATA | 3, .es = USER_DATA | 3 });
}

static void frames(void)
{
	eq("32-ring3", ring3(user_exit), EXIT);
	eq("32-ring3-cs", last.cs, USER_CODE | 3);
	eq("32-ring3-ss", last.ss, USER_DATA | 3);
	eq("32-ring3-esp", last.esp, USER_TOP);
	idt32[0x81] = gate(stubs32[0x81], CODE, 0x6e, 0);
	eq("32-gate-absent", BAD(asm volatile("int $0x81")), FAULT(NP, 0x81 * 8 + 2));
	idt32[0x81] = gate(stubs32[0x81], CODE, 0x8e, 0);
	eq("32-gate-dpl", ring3(user_int81), FAULT(GP, 0x81 * 8 + 2));
	eq("32-gate-dpl-eip", last.eip, (u32)user_int81);
	idt32[0x81] = gate(stubs32[0x81], DATA, 0xee, 0);
	eq("32-gate-to-data", ring3(user_int81), FAULT(GP, DATA));
	idt32[0x81] = gate(stubs32[0x81], 0, 0xee, 0);
	eq("32-gate-to-null", ring3(user_int81), FAULT(GP, 0));
	idt32[0x81] = gate(stubs32[0x81], 0x100, 0xee, 0);
	eq("32-gate-past-gdt", ring3(user_int81), FAULT(GP, 0x100));
	SET(SEL, 0, 0xfffff, 0x1b | A_BIG | A_GRAN);
	idt32[0x81] = gate(stubs32[0x81], SEL, 0xee, 0);
	eq("32-gate-code-absent", ring3(user_int81), FAULT(NP, SEL));
	SET(SEL, 0, 0x10, A_CODE | A_BIG);
	eq("32-gate-past-limit", ring3(user_int81), FAULT(GP, 0));
	SET(SEL, 0, 0xfffff, 0x9f | A_BIG | A_GRAN);
	idt32[0x81] = gate(conforming_handler, SEL, 0xee, 0);
	eq("32-gate-conforming", ring3(user_int81), EXIT);
	eq("32-gate-conforming-cpl", last.eax & 0xffff, SEL | 3);
	eq("32-gate-conforming-stack", last_esp, USER_TOP - 12);
	SET(SEL, 0, 0xfffff, A_CODE | A_DPL3 | A_BIG | A_GRAN);
	idt32[0x81] = gate(stubs32[0x81], SEL, 0x8e, 0);
	eq("32-gate-to-outer", BAD(asm volatile("int $0x81")), FAULT(GP, SEL));
	static const struct { const char *name; u8 type; u32 want; } types[] = {
		{ "0", 0x80, FAULT(GP, 0x40a) }, { "ldt", 0x82, FAULT(GP, 0x40a) }, { "call-gate", 0x8c, FAULT(GP, 0x40a) },
		{ "tss", 0x89, FAULT(GP, 0x40a) }, { "code", 0x9b, FAULT(GP, 0x40a) }, { "trap-gate", 0x8f, FAULT(0x81, 0) },
	};
	for (u32 i = 0; i < ARRAY_LENGTH(types); i++) {
		idt32[0x81] = gate(stubs32[0x81], CODE, types[i].type, 0);
		eq(name("32-idt-", types[i].name, ""), BAD(asm volatile("int $0x81")), types[i].want);
	}
	struct table32 shorter = { 0x81 * 8 + 6, (u32)idt32 };
	u32 got = BAD(asm volatile("lidt %0; int $0x81" : : "m"(shorter)));
	asm volatile("lidt %0" : : "m"(idtr32));
	eq("32-idt-limit", got, FAULT(GP, 0x40a));
}

static void call_gates(void)
{
	gdt32[GATE / 8] = gate(gate_target, CODE, 0xec, 2);
	eq("32-call-gate", ring3(user_call), EXIT);
	eq("32-call-gate-params", last.eax << 16 | last.ebx, 0x22221111);
	eq("32-call-gate-return", last.eip, (u32)user_after + 2);
	eq("32-call-gate-pops", last.esp, USER_TOP);
	gdt32[GATE / 8] = gate(gate_exit, CODE, 0xec, 31);
	eq("32-call-gate-31", ring3(user_call), EXIT);
	eq("32-call-gate-31-esp", last_esp, tss32.esp0 - 16 - 31 * 4);
	eq("32-call-gate-31-order", ((u32 *)last_esp)[2] << 16 | ((u32 *)last_esp)[3], 0x22221111);
	eq("32-call-gate-frame-cs", ((u32 *)last_esp)[1], USER_CODE | 3);
	eq("32-call-gate-frame-ss", ((u32 *)last_esp)[34], USER_DATA | 3);
	eq("32-call-gate-frame-esp", ((u32 *)last_esp)[33], USER_TOP - 8);
	gdt32[GATE / 8] = gate(gate_target, CODE, 0x8c, 2);
	eq("32-call-gate-dpl", ring3(user_call), FAULT(GP, GATE));
	gdt32[GATE / 8] = gate(gate_target, CODE, 0x6c, 2);
	eq("32-call-gate-absent", ring3(user_call), FAULT(NP, GATE));
	gdt32[GATE / 8] = gate(gate_target, DATA, 0xec, 2);
	eq("32-call-gate-to-data", ring3(user_call), FAULT(GP, DATA));
	gdt32[GATE / 8] = gate(gate_target, 0, 0xec, 2);
	eq("32-call-gate-to-null", ring3(user_call), FAULT(GP, 0));
	gdt32[GATE / 8] = gate(gate_target, CODE, 0xec, 0);
	eq("32-jmp-gate-inner", ring3(user_jump), FAULT(GP, CODE));
	gdt32[GATE / 8] = gate(gate_exit, USER_CODE, 0xec, 0);
	eq("32-jmp-gate-same", ring3(user_jump), EXIT);
	eq("32-jmp-gate-same-cs", last.cs, USER_CODE | 3);
	eq("32-call-gate-same", ring3(user_call), EXIT);
	eq("32-call-gate-same-esp", last_esp, USER_TOP - 16);
	SET(SEL, 0, 0xfffff, 0x9f | A_BIG | A_GRAN);
	gdt32[GATE / 8] = gate(gate_exit, SEL, 0xec, 5);
	eq("32-call-gate-conforming", ring3(user_call), EXIT);
	eq("32-call-gate-conforming-cs", last.cs, SEL | 3);
	eq("32-call-gate-conforming-esp", last_esp, USER_TOP - 16);
	eq("32-jmp-gate-conforming", ring3(user_jump), EXIT);
	SET(SEL, 0, 0xff, A_CODE | A_BIG);
	gdt32[GATE / 8] = gate(gate_exit, SEL, 0xec, 0);
	eq("32-call-gate-past-limit", ring3(user_call), FAULT(GP, 0));
	SET(SEL, 0, 0xfffff, 0x1b | A_BIG | A_GRAN);
	eq("32-call-gate-code-absent", ring3(user_call), FAULT(NP, SEL));
	/* a 16-bit gate: words are pushed */
	SET(SEL, (u32)gate_lret16, 0xffff, A_CODE | A_BIG);
	gdt32[GATE / 8] = gate((void *)0, SEL, 0xe4, 2);
	SET(SEL2, (u32)user_call, 0xffff, A_CODE | A_DPL3 | A_BIG);
	u32 got = run(&(struct regs){ .esp = USER_TOP, .eip = 0, .eflags = 2, .cs = SEL2 | 3, .ss = USER_DATA | 3, .ds = USER_DATA | 3, .es = USER_DATA | 3 });
	eq("32-call-gate-16", got, EXIT);
	eq("32-call-gate-16-return", last.eip, user_after - user_call + 2);
	SET(SEL, (u32)gate_exit, 0xffff, A_CODE | A_BIG);
	got = run(&(struct regs){ .esp = USER_TOP, .eip = 0, .eflags = 2, .cs = SEL2 | 3, .ss = USER_DATA | 3, .ds = USER_DATA | 3, .es = USER_DATA | 3 });
	eq("32-call-gate-16-params", got == EXIT ? ((u16 *)last_esp)[2] << 16 | ((u16 *)last_esp)[3] : 0, 0x2222 << 16);
	eq("32-call-gate-16-frame", last_esp, tss32.esp0 - 12);
}

/* ring1_stack calls through a gate to ring 1, whose stack is esp:ss. */
static u32 ring1_stack(u32 ss, u32 esp)
{
	SET(SEL2, 0, 0xfffff, 0xbb | A_BIG | A_GRAN); /* code of ring 1 */
	gdt32[GATE / 8] = gate(gate_exit, SEL2, 0xec, 2);
	tss32.esp1 = esp;
	tss32.ss1 = ss;
	return ring3(user_call);
}

static void tss_stacks(void)
{
	u32 esp = tss32.esp0 - 4096;
	SET(RING1_DATA, 0, 0xfffff, 0xb3 | A_BIG | A_GRAN);
	eq("32-ring1", ring1_stack(RING1_DATA | 1, esp), FAULT(0x80, 0));
	eq("32-ring1-cs", last.cs, SEL2 | 1);
	eq("32-ring1-ss", last.ss, RING1_DATA | 1);
	eq("32-ring1-esp", last.esp, esp - 24);
	eq("32-ts-ss-dpl", ring1_stack(USER_DATA, esp), FAULT(TS, USER_DATA));
	eq("32-ts-ss-rpl", ring1_stack(RING1_DATA, esp), FAULT(TS, RING1_DATA));
	eq("32-ts-ss-null", ring1_stack(0, esp), FAULT(TS, 0));
	eq("32-ts-ss-past-gdt", ring1_stack(0x101, esp), FAULT(TS, 0x100));
	SET(SEL, 0, 0xfffff, 0xb1 | A_BIG | A_GRAN);
	eq("32-ts-ss-read-only", ring1_stack(SEL | 1, esp), FAULT(TS, SEL));
	SET(SEL, 0, 0xfffff, 0x33 | A_BIG | A_GRAN);
	eq("32-ts-ss-absent", ring1_stack(SEL | 1, esp), FAULT(SS, SEL));
	SET(SEL, data, 0xfff, 0xb3 | A_BIG);
	eq("32-inner-stack-fits", ring1_stack(SEL | 1, 24), EXIT);
	eq("32-inner-stack-full", ring1_stack(SEL | 1, 23), FAULT(SS, SEL));
	SET(TSS_SEL, &tss32, 19, A_TSS); /* ESP1 and SS1 are at 12 to 17 */
	asm volatile("ltr %w0" : : "r"(TSS_SEL));
	eq("32-tss-holds-ss1", ring1_stack(RING1_DATA | 1, esp), EXIT);
	SET(TSS_SEL, &tss32, 16, A_TSS);
	asm volatile("ltr %w0" : : "r"(TSS_SEL));
	eq("32-tss-too-short", ring1_stack(RING1_DATA | 1, esp), FAULT(TS, TSS_SEL));
	reset_task();
	/* a 16-bit TSS: SP1 at 6, SS1 at 8 */
	static u16 tss16[22];
	tss16[1] = 0x8000;
	tss16[2] = STACK16;
	tss16[3] = 0x4000;
	tss16[4] = RING1_DATA | 1;
	SET(TASK_A, tss16, 43, A_TSS16);
	asm volatile("ltr %w0" : : "r"(TASK_A));
	SET(SEL3, STACK16_BASE, 0xffff, 0xb3);
	tss16[4] = SEL3 | 1;
	gdt32[GATE / 8] = gate(gate_exit, SEL2, 0xec, 2);
	eq("32-tss16-ring1", ring3(user_call), EXIT);
	eq("32-tss16-ring1-ss-sp", last.ss << 16 | (last.esp & 0xffff), (SEL3 | 1) << 16 | (0x4000 - 24));
	reset_task();
}

static void far_transfers(void)
{
	static const struct { const char *name; u32 attr, same, rpl3, user; } all[] = {
		{ "code", 0x9b, NONE, FAULT(GP, SEL), FAULT(GP, SEL) }, { "conforming", 0x9f, NONE, NONE, NONE },
		{ "code-dpl3", 0xfb, FAULT(GP, SEL), FAULT(GP, SEL), NONE }, { "conforming-dpl3", 0xff, FAULT(GP, SEL), FAULT(GP, SEL), NONE },
		{ "data", 0x93, FAULT(GP, SEL), FAULT(GP, SEL), FAULT(GP, SEL) }, { "absent", 0x1b, FAULT(NP, SEL), FAULT(GP, SEL), FAULT(GP, SEL) },
		{ "ldt", 0x82, FAULT(GP, SEL), FAULT(GP, SEL), FAULT(GP, SEL) }, { "int-gate", 0x8e, FAULT(GP, SEL), FAULT(GP, SEL), FAULT(GP, SEL) },
		{ "execute-only", 0x99, NONE, FAULT(GP, SEL), FAULT(GP, SEL) },
	};
	for (u32 i = 0; i < ARRAY_LENGTH(all); i++) {
		u32 got;
		SET(SEL, 0, 0xfffff, all[i].attr | A_BIG | A_GRAN);
		got = BAD(asm volatile("ljmp $0x38, $1f; 1: ljmp $8, $1f; 1:"));
		eq(name("32-ljmp-", all[i].name, ""), got, all[i].same);
		got = BAD(asm volatile("lcall $0x38, $1f; 1: add $8, %%esp; ljmp $8, $1f; 1:" : : : "memory"));
		eq(name("32-lcall-", all[i].name, ""), got, all[i].same);
		got = BAD(asm volatile("ljmp $0x3b, $1f; 1: ljmp $8, $1f; 1:"));
		eq(name("32-ljmp-rpl3-", all[i].name, ""), got, all[i].rpl3);
		got = ring3(user_cs_call);
		eq(name("32-user-lcall-", all[i].name, ""), got, all[i].user == NONE ? EXIT : all[i].user);
	}
	eq("32-ljmp-null", BAD(asm volatile("ljmp $3, $0")), FAULT(GP, 0));
	eq("32-ljmp-past-gdt", BAD(asm volatile("ljmp $0x100, $0")), FAULT(GP, 0x100));
	SET(SEL, 0, 0xfffff, 0x9a | A_BIG | A_GRAN);
	asm volatile("ljmp $0x38, $1f; 1: ljmp $8, $1f; 1:");
	eq("32-ljmp-sets-accessed", gdt32[SEL / 8] >> 40 & 0xff, 0x9b);
}

/* lret_to returns from ring 0 with a frame that has an outer stack. */
extern void lret_go(const u32 *frame, u32 words);
asm(".pushsection .text.tested, \"ax\"\nlret_go: mov 4(%esp), %esi; mov 8(%esp), %ecx; lea (%esi,%ecx,4), %esi\n"
	"1: sub $4, %esi; push (%esi); loop 1b; lret $8\n.popsection\n");

static void returns(void)
{
	static const struct { const char *name; u32 cs, ss, want; } all[] = {
		{ "outer", USER_CODE | 3, USER_DATA | 3, EXIT }, { "null-cs", 0, USER_DATA | 3, FAULT(GP, 0) },
		{ "data-cs", DATA, USER_DATA | 3, FAULT(GP, DATA) }, { "cs-dpl", CODE | 3, USER_DATA | 3, FAULT(GP, CODE) },
		{ "cs-rpl", USER_CODE, USER_DATA | 3, FAULT(GP, USER_CODE) }, { "past-gdt", 0x103, USER_DATA | 3, FAULT(GP, 0x100) },
		{ "null-ss", USER_CODE | 3, 3, FAULT(GP, 0) }, { "ss-rpl", USER_CODE | 3, USER_DATA, FAULT(GP, USER_DATA) },
		{ "ss-dpl", USER_CODE | 3, DATA | 3, FAULT(GP, DATA) }, { "code-ss", USER_CODE | 3, USER_CODE | 3, FAULT(GP, USER_CODE) },
		{ "absent-cs", SEL | 3, USER_DATA | 3, FAULT(NP, SEL) }, { "absent-ss", USER_CODE | 3, SEL2 | 3, FAULT(SS, SEL2) },
		{ "conforming", SEL3 | 3, USER_DATA | 3, EXIT }, { "gate-cs", GATE | 3, USER_DATA | 3, FAULT(GP, GATE) },
		{ "past-limit", SEL4 | 3, USER_DATA | 3, FAULT(GP, 0) },
	};
	SET(SEL, 0, 0xfffff, 0x7b | A_BIG | A_GRAN);
	SET(SEL2, 0, 0xfffff, 0x73 | A_BIG | A_GRAN);
	SET(SEL3, 0, 0xfffff, 0x9f | A_BIG | A_GRAN);
	SET(SEL4, 0, 0xff, A_CODE | A_DPL3 | A_BIG);
	gdt32[GATE / 8] = gate(gate_exit, CODE, 0xec, 0);
	for (u32 i = 0; i < ARRAY_LENGTH(all); i++) {
		u32 f[5] = { (u32)user_exit, all[i].cs, 2, USER_TOP, all[i].ss };
		eq(name("32-iret-", all[i].name, ""), BAD(go32(f, 5)), all[i].want);
		u32 r[6] = { (u32)user_exit, all[i].cs, 0, 0, USER_TOP - 8, all[i].ss };
		eq(name("32-lret-", all[i].name, ""), BAD(lret_go(r, 6)), all[i].want);
		if (all[i].want == EXIT)
			eq(name("32-lret-", all[i].name, "-esp"), last_esp, USER_TOP); /* both stacks release the parameters */
	}
	u32 same[3] = { (u32)user_exit, CODE, 2 };
	eq("32-iret-same", BAD(go32(same, 3)), EXIT);
	u32 far[3] = { (u32)user_exit, CODE, 2 };
	far[1] = SEL4;
	SET(SEL4, 0, 0xff, A_CODE | A_BIG);
	eq("32-iret-same-past-limit", BAD(go32(far, 3)), FAULT(GP, 0));
	eq("32-iret-inner", ring3(u_iret_inner), FAULT(GP, CODE));
	eq("32-lret-inner", ring3(u_lret_inner), FAULT(GP, CODE));
	eq("32-iret-user-flags", (ring3(u_iret_flags), last.eax & 0x3200), 0);
	eq("32-popf-user-flags", (ring3(u_popf_flags), last.eax), 0x44cd7);

	/* data segments that the outer level may not use become null */
	SET(SEL, 0, 0xfffff, A_DATA | A_BIG | A_GRAN);
	SET(SEL2, 0, 0xfffff, 0x9f | A_BIG | A_GRAN);
	SET(SEL3, 0, 0xfffff, 0xd3 | A_BIG | A_GRAN); /* DPL 2 */
	u32 f[5] = { (u32)user_ds, USER_CODE | 3, 2, USER_TOP, USER_DATA | 3 };
	u32 got = BAD({ asm volatile("mov %0, %%ds; mov %1, %%es; mov %2, %%fs; mov %3, %%gs" : : "r"(SEL), "r"(SEL2), "r"(SEL3), "r"(USER_DATA)); go32(f, 5); });
	eq("32-iret-drops", got, EXIT);
	eq("32-iret-drops-dpl0", last.eax & 0xffff, 0);
	eq("32-iret-keeps-conforming", last.ebx & 0xffff, SEL2);
	eq("32-iret-drops-dpl2", last.ecx & 0xffff, 0);
	eq("32-iret-keeps-dpl3", last.edx & 0xffff, USER_DATA);
	asm volatile("mov %0, %%fs; mov %0, %%gs" : : "r"(0));
}

/* Double faults (vol. 3A table 6-5). First the exception named, then another in its delivery. */
static void double_faults(void)
{
	u64 old[256];
	for (u32 i = 0; i < 256; i++)
		old[i] = idt32[i];
	static const struct { const char *name; u8 first; u32 gate; u32 code, want; } all[] = {
		{ "de-np", DE, 0x0e, 0, FAULT(DF, 0) }, { "ud-np", UD, 0x0e, 0, FAULT(NP, UD * 8 + 3) },
		{ "bp-np", BP, 0x6e, 0, FAULT(NP, BP * 8 + 2) }, { "gp-np", GP, 0x0e, 0, FAULT(DF, 0) },
		{ "np-np", NP, 0x0e, 0, FAULT(DF, 0) }, { "ss-np", SS, 0x0e, 0, FAULT(DF, 0) },
		{ "int-np", 0x81, 0x6e, 0, FAULT(NP, 0x81 * 8 + 2) }, { "of-np", OF, 0x6e, 0, FAULT(NP, OF * 8 + 2) },
		{ "br-np", BR, 0x0e, 0, FAULT(NP, BR * 8 + 3) }, { "db-np", DB, 0x0e, 0, FAULT(NP, DB * 8 + 3) },
		{ "de-gp", DE, 0x8e, DATA, FAULT(DF, 0) }, { "ud-gp", UD, 0x8e, DATA, FAULT(GP, DATA + 1) },
		{ "gp-gp", GP, 0x8e, DATA, FAULT(DF, 0) }, { "br-gp", BR, 0x8e, 0, FAULT(GP, 1) },
	};
	static const u32 bounds[2] = { 1, 5 };
	SET(SEL, 0, 0xfffff, 0x13 | A_BIG | A_GRAN);
	for (u32 i = 0; i < ARRAY_LENGTH(all); i++) {
		u32 sel = all[i].gate & 0x80 ? all[i].code : CODE, got;
		idt32[all[i].first] = gate(stubs32[all[i].first], sel, all[i].gate, 0);
		switch (all[i].first) {
		case DE: got = BAD(asm volatile("div %%ecx" : : "c"(0), "a"(0), "d"(0))); break;
		case DB: got = BAD(asm volatile(".byte 0xf1")); break;
		case BP: got = BAD(asm volatile("int3")); break;
		case OF: got = BAD(asm volatile("movb $0x7f, %%al; incb %%al; into" : : : "eax")); break;
		case BR: got = BAD(asm volatile("bound %0, %1" : : "r"(6), "m"(bounds))); break;
		case UD: got = BAD(asm volatile("ud2")); break;
		case NP: got = BAD(asm volatile("mov %0, %%fs" : : "r"(SEL))); break;
		case SS: got = BAD(asm volatile("mov %0, %%ss" : : "r"(SEL))); break;
		case GP: got = BAD(asm volatile("mov %0, %%fs" : : "r"(CODE | 7))); break;
		default: got = BAD(asm volatile("int $0x81"));
		}
		eq(name("df32-", all[i].name, ""), got, all[i].want);
		idt32[all[i].first] = old[all[i].first];
	}
	/* page faults: pages 5 and 6 of VA are absent */
	pt[5] = pt[6] = 0;
	pt[0] = (u32)data | P | W;
	paging_on();
	idt32[PF] &= ~(1ull << 47);
	eq("df32-pf-np", BAD((void)*(volatile u8 *)PAGE(5)), FAULT(DF, 0));
	eq("df32-pf-np-cr2", last_cr2, PAGE(5));
	idt32[PF] = gate(stubs32[PF], DATA, 0x8e, 0);
	eq("df32-pf-gp", BAD((void)*(volatile u8 *)PAGE(5)), FAULT(DF, 0));
	idt32[PF] = old[PF];
	/* the IDT's upper half lies on an absent page */
	for (u32 i = 0; i < 256; i++)
		((volatile u64 *)data)[i] = idt32[i];
	struct table32 split = { 0x7ff, PAGE(1) - 0x400 };
	pt[1] = 0;
	asm volatile("lidt %0" : : "m"(split));
	for (u32 i = 0; i < 128; i++)
		((volatile u64 *)(data + 0xc00))[i] = idt32[i];
	eq("df32-int-pf", BAD(asm volatile("int $0x81")), FAULT(PF, 0));
	eq("df32-int-pf-cr2", last_cr2, PAGE(1) + 0x81 * 8 - 0x400);
	asm volatile("lidt %0" : : "m"(idtr32));
	paging_off();
	for (u32 i = 0; i < 256; i++)
		idt32[i] = old[i];
}

/* Fast system calls outside long mode. */
CODE32_(user_sysenter, "sysenter")
CODE32_(user_sysexit, "sysexit")
CODE32_(user_syscall, "syscall")
extern u8 sysenter_target[];
asm(".pushsection .text.tested, \"ax\"\nsysenter_target: int $0x80\n.popsection\n");

static void wrmsr(u32 index, u32 value)
{
	asm volatile("wrmsr" : : "c"(index), "a"(value), "d"(0));
}

static void fast_calls(void)
{
	wrmsr(0x174, CODE | 3); /* the RPL does not count */
	wrmsr(0x175, tss32.esp0 - 256);
	wrmsr(0x176, (u32)sysenter_target);
	eq("32-sysenter", ring3(user_sysenter), EXIT);
	eq("32-sysenter-cs-ss", last.cs << 16 | last_ss, CODE << 16 | DATA);
	eq("32-sysenter-esp", last_esp, tss32.esp0 - 256);
	eq("32-sysenter-keeps-ds", last_ds, USER_DATA | 3);
	eq("32-sysenter-ring0", BAD(asm volatile("sysenter")), EXIT);
	eq("32-sysexit", BAD(asm volatile("sysexit" : : "c"(USER_TOP), "d"(user_exit))), EXIT);
	eq("32-sysexit-cs-ss", last.cs << 16 | last.ss, (CODE + 16 + 3) << 16 | (CODE + 24 + 3));
	eq("32-sysexit-esp", last_esp, USER_TOP);
	eq("32-sysexit-user", ring3(user_sysexit), FAULT(GP, 0));
	wrmsr(0x174, 3);
	eq("32-sysenter-null-cs", ring3(user_sysenter), FAULT(GP, 0));
	eq("32-sysexit-null-cs", BAD(asm volatile("sysexit" : : "c"(USER_TOP), "d"(user_exit))), FAULT(GP, 0));
	wrmsr(0x174, 0);
	u32 a = 0, b, c, d;
	asm volatile("cpuid" : "+a"(a), "=b"(b), "=c"(c), "=d"(d));
	if (b == 0x756e6547) /* AMD's have SYSCALL outside long mode too */
		eq("32-syscall-ud", ring3(user_syscall), FAULT(UD, 0));
}

/* The I/O permission bitmap (vol. 1 section 19.5.2). Nothing answers at the ports. */
CODE32_(user_inb, "inb %dx, %al")
CODE32_(user_inw, "inw %dx, %ax")
CODE32_(user_inl, "inl %dx, %eax")
CODE32_(user_outw, "outw %ax, %dx")
CODE32_(user_insl, "insl")
CODE32_(user_rep_outsb, "rep outsb")

static u32 port(u8 *code, u32 port, u32 iopl)
{
	return run(&(struct regs){ .esp = USER_TOP, .eip = (u32)code, .eflags = 2 | iopl << 12, .cs = USER_CODE | 3, .ss = USER_DATA | 3,
		.ds = USER_DATA | 3, .es = USER_DATA | 3, .edx = port, .esi = (u32)data, .edi = (u32)data, .ecx = 1 });
}

static void tss_limit(u32 limit)
{
	SET(TSS_SEL, &tss32, limit, A_TSS);
	asm volatile("ltr %w0" : : "r"(TSS_SEL));
}

static void ports(void)
{
	for (u32 i = 0; i < sizeof tss32.bitmap; i++)
		tss32.bitmap[i] = 0;
	tss32.iomap = 104;
	eq("iopb32-byte", port(user_inb, 0x4ff3, 0), EXIT);
	tss32.bitmap[0x4ff3 / 8] = 1 << 3;
	eq("iopb32-byte-set", port(user_inb, 0x4ff3, 0), FAULT(GP, 0));
	eq("iopb32-byte-below", port(user_inb, 0x4ff2, 0), EXIT);
	eq("iopb32-byte-above", port(user_inb, 0x4ff4, 0), EXIT);
	eq("iopb32-word-first-set", port(user_inw, 0x4ff3, 0), FAULT(GP, 0));
	eq("iopb32-word-last-set", port(user_inw, 0x4ff2, 0), FAULT(GP, 0));
	eq("iopb32-word-below", port(user_inw, 0x4ff1, 0), EXIT);
	eq("iopb32-dword-last-set", port(user_inl, 0x4ff0, 0), FAULT(GP, 0));
	eq("iopb32-dword-below", port(user_inl, 0x4fef, 0), EXIT);
	eq("iopb32-out", port(user_outw, 0x4ff2, 0), FAULT(GP, 0));
	eq("iopb32-ins", port(user_insl, 0x4ff0, 0), FAULT(GP, 0));
	eq("iopb32-ins-below", port(user_insl, 0x4fef, 0), EXIT);
	eq("iopb32-rep-outs", port(user_rep_outsb, 0x4ff3, 0), FAULT(GP, 0));
	eq("iopb32-iopl3", port(user_inb, 0x4ff3, 3), EXIT);
	eq("iopb32-iopl2", port(user_inb, 0x4ff3, 2), FAULT(GP, 0));
	tss32.bitmap[0x4ff3 / 8] = 0;
	tss32.bitmap[0x4ff8 / 8] = 1;
	eq("iopb32-word-crossing", port(user_inw, 0x4ff7, 0), FAULT(GP, 0));
	eq("iopb32-dword-crossing", port(user_inl, 0x4ff5, 0), FAULT(GP, 0));
	eq("iopb32-dword-short", port(user_inl, 0x4ff4, 0), EXIT);
	tss32.bitmap[0x4ff8 / 8] = 0;
	tss32.bitmap[0x2000] = 1;
	eq("iopb32-last-byte", port(user_inb, 0xffff, 0), EXIT);
	eq("iopb32-last-word", port(user_inw, 0xffff, 0), FAULT(GP, 0));
	tss32.bitmap[0x2000] = 0;
	/* two bytes are read whatever the width */
	tss_limit(104 + 0x4ff3 / 8);
	eq("iopb32-one-byte-in-limit", port(user_inb, 0x4ff3, 0), FAULT(GP, 0));
	tss_limit(104 + 0x4ff3 / 8 + 1);
	eq("iopb32-two-bytes-in-limit", port(user_inb, 0x4ff3, 0), EXIT);
	eq("iopb32-next-byte", port(user_inb, 0x4ff8, 0), FAULT(GP, 0));
	tss32.iomap = 0x1fff;
	eq("iopb32-base-past-limit", port(user_inb, 0, 0), FAULT(GP, 0));
	tss32.iomap = 0xffff;
	eq("iopb32-base-ffff", port(user_inb, 0xffff, 0), FAULT(GP, 0));
	tss32.iomap = 80; /* over SS and on: their bits */
	tss32.ss = 0x0100;
	tss_limit(103);
	eq("iopb32-low-base", port(user_inb, 0, 0), EXIT);
	eq("iopb32-low-base-set", port(user_inb, 8, 0), FAULT(GP, 0));
	tss_limit(102);
	eq("iopb32-no-base", port(user_inb, 0, 0), FAULT(GP, 0));
	static u16 tss16[54];
	tss16[1] = 0x8000;
	tss16[2] = STACK16;
	tss16[51] = 104;
	SET(TASK_A, tss16, 107, A_TSS16);
	asm volatile("ltr %w0" : : "r"(TASK_A));
	eq("iopb32-tss16", port(user_inb, 0, 0), FAULT(GP, 0));
	tss32.ss = 0;
	reset_task();
}

void rings32(void)
{
	frames();
	call_gates();
	tss_stacks();
	far_transfers();
	returns();
	double_faults();
	fast_calls();
	ports();
}
