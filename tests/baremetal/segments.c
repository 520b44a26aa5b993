// Segmentation, descriptor checks and privilege changes (Intel SDM vol. 3A chapters 3 and 5).
#include "suite.h"

static void load_ds(void *a) { __asm__ volatile("movw %w0, %%ds" ::"r"(a)); }
static void load_ss(void *a) { __asm__ volatile("movw %w0, %%ss; movw %w1, %%ss" ::"r"(a), "r"(KDATA)); }
static void load_fs(void *a) { __asm__ volatile("movw %w0, %%fs" ::"r"(a)); }
static void load_cs(void *a) { __asm__ volatile("movw %w0, %%cs" ::"r"(a)); }
static void load_tr(void *a) { __asm__ volatile("ltr %w0" ::"r"(a)); }
static void load_ldt(void *a) { __asm__ volatile("lldt %w0" ::"r"(a)); }
static void far_jump(void *a) {
	struct { u64 rip; u16 cs; } __attribute__((packed)) p = {0, (u16)(u64)a};
	__asm__ volatile("rex.w ljmp *%0" ::"m"(p));
}

static void test_loads(void) {
	expect("DS = null", load_ds, 0, -1, 0);
	expect("DS = absent segment: #NP(selector)", load_ds, (void *)ABSENT, 11, ABSENT);
	expect("DS past the table: #GP(selector)", load_ds, (void *)0x7f8, 13, 0x7f8);
	expect("DS = 64-bit code, readable", load_ds, (void *)KCODE, -1, 0);
	expect("DS = TSS: #GP(selector)", load_ds, (void *)TSS, 13, TSS);
	expect("SS = absent segment: #SS(selector)", load_ss, (void *)ABSENT, 12, ABSENT);
	expect("SS = read-only data: #GP(selector)", load_ss, (void *)RODATA, 13, RODATA);
	expect("SS with RPL 3: #GP(selector)", load_ss, (void *)UDATA, 13, UDATA & ~3);
	expect("SS = null in 64-bit mode at CPL 0", load_ss, 0, -1, 0);
	expect("MOV CS: #UD", load_cs, (void *)KCODE, 6, 0);
	expect("LTR of a busy TSS: #GP(selector)", load_tr, (void *)TSS, 13, TSS);
	expect("LTR of data: #GP(selector)", load_tr, (void *)KDATA, 13, KDATA);
	expect("LTR of null: #GP(0)", load_tr, 0, 13, 0);
	gdt[TSS / 8] &= ~(2ull << 40);
	expect("LTR of an available TSS", load_tr, (void *)TSS, -1, 0);
	check(gdt[TSS / 8] >> 41 & 1, "LTR marks the TSS busy", "descriptor %x", gdt[TSS / 8]);
	expect("LLDT of data: #GP(selector)", load_ldt, (void *)KDATA, 13, KDATA);
	expect("LLDT of null", load_ldt, 0, -1, 0);
	expect("JMP far to data: #GP(selector)", far_jump, (void *)KDATA, 13, KDATA);
	expect("JMP far to CPL 3 code: #GP(selector)", far_jump, (void *)UCODE, 13, UCODE & ~3);
	load_fs((void *)UNTOUCHED);
	check(gdt[UNTOUCHED / 8] >> 40 & 1, "a load sets the descriptor's accessed bit", "descriptor %x", gdt[UNTOUCHED / 8]);
	load_fs(0);
	load_ds((void *)KDATA);
}

static int zf(u64 f) { return f >> 6 & 1; }
static void test_inspection(void) {
	u64 r = 0, f;
	__asm__ volatile("lar %2, %0; pushfq; popq %1" : "+r"(r), "=r"(f) : "r"((u64)KDATA));
	check(zf(f) && (r & 0xf0ff00) == 0xc09300, "LAR of data", "%x flags %x", r, f);
	__asm__ volatile("lsl %2, %0; pushfq; popq %1" : "+r"(r), "=r"(f) : "r"((u64)SMALL));
	check(zf(f) && r == 0xfff, "LSL of a byte-granular limit", "%x", r);
	__asm__ volatile("lsl %2, %0; pushfq; popq %1" : "+r"(r), "=r"(f) : "r"((u64)KDATA));
	check(zf(f) && r == 0xffffffff, "LSL of a page-granular limit", "%x", r);
	r = 7;
	__asm__ volatile("lar %2, %0; pushfq; popq %1" : "+r"(r), "=r"(f) : "r"(0x7f8ull));
	check(!zf(f) && r == 7, "LAR past the table clears ZF and keeps the register", "%x", r);
	__asm__ volatile("verw %w1; pushfq; popq %0" : "=r"(f) : "r"(RODATA));
	check(!zf(f), "VERW of read-only data", "flags %x", f);
	__asm__ volatile("verr %w1; pushfq; popq %0" : "=r"(f) : "r"(RODATA));
	check(zf(f), "VERR of read-only data", "flags %x", f);
	__asm__ volatile("verw %w1; pushfq; popq %0" : "=r"(f) : "r"(KDATA));
	check(zf(f), "VERW of data", "flags %x", f);
}

static void test_bases(void) {
	static u64 a = 0x1111, b = 0x2222;
	u64 v;
	wrmsr(0xc0000100, (u64)&a);
	__asm__ volatile("movq %%fs:0, %0" : "=r"(v));
	check(v == 0x1111, "FS base", "%x", v);
	wrmsr(0xc0000101, (u64)&a);
	wrmsr(0xc0000102, (u64)&b);
	__asm__ volatile("swapgs; movq %%gs:0, %0; swapgs" : "=r"(v));
	check(v == 0x2222 && rdmsr(0xc0000101) == (u64)&a, "SWAPGS", "%x", v);
	__asm__ volatile("movw %w1, %%gs; movw %w1, %%fs" : "=r"(v) : "0"(0));
	print("note: FS base after a null load is %x\n", rdmsr(0xc0000100));
}

static u64 target_rip, target_rsp, target_ss, target_cs;
static void iret_to(void *a) {
	__asm__ volatile("pushq %0; pushq %1; pushq %2; pushq %3; pushq %4; iretq" ::"r"(target_ss), "r"(target_rsp), "r"(2ull), "r"(target_cs), "r"(target_rip));
}
static void iret_nt(void *a) { __asm__ volatile("pushfq; orq $0x4000, (%rsp); popfq; iretq"); }
static void clear_nt(void) { __asm__ volatile("pushfq; andq $~0x4000, (%rsp); popfq"); }

static void test_iret(void) {
	target_cs = KCODE;
	target_ss = KDATA;
	target_rsp = (u64)ring0_stack + 1024;
	target_rip = 0x800000000000;
	expect("IRET to a non-canonical RIP: #GP(0)", iret_to, 0, 13, 0);
	target_rip = (u64)attempt_failed;
	target_cs = KDATA;
	expect("IRET to data: #GP(selector)", iret_to, 0, 13, KDATA);
	target_cs = ABSENT;
	expect("IRET to absent data: #GP before #NP", iret_to, 0, 13, ABSENT);
	target_cs = UCODE;
	target_ss = KDATA;
	expect("IRET to CPL 3 with SS of RPL 0: #GP(selector)", iret_to, 0, 13, KDATA);
	target_ss = 0;
	expect("IRET to CPL 3 with a null SS: #GP(0)", iret_to, 0, 13, 0);
	target_cs = KCODE;
	target_ss = 0;
	target_rip = (u64)attempt_failed;
	expect("IRET to CPL 0 with a null SS", iret_to, 0, -1, 0);
	load_ds((void *)KDATA);
	__asm__ volatile("movw %w0, %%ss" ::"r"(KDATA));
	expect("IRET with NT in long mode: #GP(0)", iret_nt, 0, 13, 0);
	clear_nt();
}

static void test_user_modes(void) {
	static const u8 cpl[] = {0x8c, 0xc8}; // mov %cs, %eax
	user(cpl, 2, 0, 0, 0);
	check(fault.vector == 0x40 && fault.cs == UCODE && (fault.rax & 0xffff) == UCODE, "IRET to 64-bit CPL 3", "vector %d cs %x", (long)fault.vector, fault.cs);
}

// 32-bit code run below 4 GiB: the user's page is above, so compatibility mode gets its own low page.
static u8 low_code[64] __attribute__((aligned(4096)));
static void enter_low(void *a) { enter_user((u64)low_code, (u64)low_code + sizeof low_code, UCODE32, UDATA, 2, 0); }
static void enter_kernel32(void *a) {
	struct { u32 rip; u16 cs; } __attribute__((packed)) p = {(u32)(u64)low_code, KCODE32};
	__asm__ volatile("ljmp *%0" ::"m"(p));
}
static void set_low(const u8 *code, int n) {
	for (int i = 0; i < n; i++)
		((volatile u8 *)low_code)[i] = code[i];
	low_code[n] = 0xcd;
	low_code[n + 1] = 0x40;
}

static void test_compat(void) {
	static const u8 incs[] = {0x31, 0xc0, 0x40, 0x40, 0x48, 0xb9, 1, 0, 0, 0};
	set_low(incs, sizeof incs);
	for (int i = 0; i < 8; i++)
		((u64 *)pds)[i] |= U;
	pdpt[0] |= U;
	WRITE_CR(3, READ_CR(3));
	fault.vector = -1;
	attempt(enter_low, 0);
	check(fault.vector == 0x40 && fault.rax == 1 && fault.cs == UCODE32, "compatibility mode at CPL 3 runs 32-bit code", "vector %d rax %x cs %x", (long)fault.vector, fault.rax, fault.cs);
	static const u8 aaa[] = {0xb8, 0x0f, 0, 0, 0, 0x37}; // mov $15, %eax; aaa
	set_low(aaa, sizeof aaa);
	fault.vector = -1;
	attempt(enter_low, 0);
	check(fault.vector == 0x40 && fault.rax == 0x105, "AAA in compatibility mode", "vector %d rax %x", (long)fault.vector, fault.rax);
	static const u8 limit[] = {0x66, 0xb8, SMALL | 3, 0, 0x8e, 0xd8, 0xa1, 0xfe, 0x0f, 0, 0}; // mov small, %ds; mov 0xffe, %eax
	gdt[SMALL / 8] |= 3ull << 45;
	set_low(limit, sizeof limit);
	fault.vector = -1;
	attempt(enter_low, 0);
	gdt[SMALL / 8] &= ~(3ull << 45);
	check(fault.vector == 13 && fault.error == 0, "a load past a segment's limit in compatibility mode: #GP(0)", "vector %d error %x", (long)fault.vector, fault.error);
	set_low(incs, sizeof incs);
	fault.vector = -1;
	attempt(enter_kernel32, 0);
	check(fault.vector == 0x40 && fault.cs == KCODE32 && fault.rax == 1, "far jump to compatibility mode at CPL 0", "vector %d cs %x", (long)fault.vector, fault.cs);
	for (int i = 0; i < 8; i++)
		((u64 *)pds)[i] &= ~(u64)U;
	pdpt[0] &= ~(u64)U;
	WRITE_CR(3, READ_CR(3));
	load_ds((void *)KDATA);
}

// A 64-bit call gate from CPL 3 to gate_target at CPL 0.
static u64 gate_cs, gate_ss, gate_frame_ss;
static void gate_hit(void) {
	u64 *sp = __builtin_frame_address(0);
	__asm__ volatile("movq %%cs, %0; movq %%ss, %1" : "=r"(gate_cs), "=r"(gate_ss));
	gate_frame_ss = sp[4];
	__asm__ volatile("jmp attempt_failed");
}
static void test_call_gate(void) {
	u64 t = (u64)gate_hit;
	gdt[GATE / 8] = (t & 0xffff) | (u64)KCODE << 16 | 0xecull << 40 | (t >> 16 & 0xffff) << 48;
	gdt[GATE / 8 + 1] = t >> 32;
	static const u8 call[] = {0xff, 0x1f}; // lcall *(%rdi)
	map(2, P | W | U);
	*(u32 *)page(2) = 0;
	*(u16 *)(page(2) + 4) = GATE | 3;
	gate_cs = 0;
	user(call, sizeof call, VA(2), 0, 0);
	check(gate_cs == KCODE && gate_ss == 0 && gate_frame_ss == UDATA, "call gate from CPL 3: CS, null SS, the caller's SS on the stack",
	      "cs %x ss %x pushed %x vector %d", gate_cs, gate_ss, gate_frame_ss, (long)fault.vector);
	__asm__ volatile("movw %w0, %%ss" ::"r"(KDATA));
	gdt[GATE / 8] &= ~(3ull << 45);
	user(call, sizeof call, VA(2), 0, 0);
	check(fault.vector == 13 && fault.error == GATE, "call gate of DPL 0 from CPL 3: #GP(selector)", "vector %d error %x", (long)fault.vector, fault.error);
}

void test_segments(void) {
	test_loads();
	test_inspection();
	test_bases();
	test_iret();
	test_user_modes();
	test_compat();
	test_call_gate();
}
