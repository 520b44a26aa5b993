/* Loading of segment registers and the instructions that look at descriptors (SDM vol. 2, vol. 3A chapters 3 and 5). */
#include "suite.h"

enum { /* access bytes and flags as segment() takes them */
	DATA_RW = 0x93, DATA_RO = 0x91, CODE_RX = 0x9b, CODE_X = 0x99, CONFORMING = 0x9f, LDT = 0x82, TSS_FREE = 0x89,
	DPL3 = 0x60, ABSENT = 0x7f, BIG = 0x4000, GRAN = 0x8000,
};

static u16 put(int i, u32 attr)
{
	gdt[SCRATCH / 8 + i] = segment(0, 0xfffff, attr | BIG | GRAN);
	return SCRATCH + i * 8;
}

static u64 outcome(int v)
{
	return v == NOTRAP ? (u64)NOTRAP : (u64)v << 32 | last.error;
}
#define FAULT(vector, code) ((u64)(vector) << 32 | (code))
#define NONE ((u64)NOTRAP)

#define LOAD(seg, sel) outcome(TRY(asm volatile("mov %0, %%" #seg : : "r"((u32)(sel)))))

static void loads(void)
{
	u16 s = put(0, DATA_RW);
	eq("ds-rw", LOAD(ds, s), NONE);
	u16 clean = put(1, DATA_RW & ~1);
	eq("ds-sets-accessed", LOAD(ds, clean) == NONE && (gdt[clean / 8] >> 40 & 1), 1);
	s = put(0, DATA_RW & ABSENT);
	eq("ds-absent", LOAD(ds, s), FAULT(NP, s));
	eq("ss-absent", LOAD(ss, s), FAULT(SS, s));
	s = put(0, DATA_RO);
	eq("ds-ro", LOAD(ds, s), NONE);
	eq("ss-ro", LOAD(ss, s), FAULT(GP, s));
	s = put(0, CODE_X);
	eq("ds-execute-only", LOAD(ds, s), FAULT(GP, s));
	s = put(0, CODE_RX);
	eq("ds-code", LOAD(ds, s), NONE);
	eq("ss-code", LOAD(ss, s), FAULT(GP, s));
	s = put(0, LDT);
	eq("ds-system", LOAD(ds, s), FAULT(GP, s));
	s = put(0, DATA_RW);
	eq("ds-rpl3-of-dpl0", LOAD(ds, s | 3), FAULT(GP, s));
	eq("ss-rpl3-at-cpl0", LOAD(ss, s | 3), FAULT(GP, s));
	s = put(0, DATA_RW | DPL3);
	eq("ds-dpl3", LOAD(ds, s | 3), NONE);
	eq("ss-dpl3-at-cpl0", LOAD(ss, s), FAULT(GP, s));
	s = put(0, CONFORMING);
	eq("ds-conforming", LOAD(ds, s | 3), NONE);
	u16 past = gdtr.limit + 1;
	eq("ds-past-gdt", LOAD(ds, past), FAULT(GP, past));
	eq("ss-past-gdt", LOAD(ss, past), FAULT(GP, past));
	eq("ds-null", LOAD(ds, 3), NONE);
	eq("ss-null", LOAD(ss, 0), NONE);
	eq("ss-null-rpl3", LOAD(ss, 3), FAULT(GP, 0));
	eq("mov-cs-ud", outcome(TRY(asm volatile(".byte 0x8e, 0xc8"))), FAULT(UD, 0));
	asm volatile("mov %0, %%ds; mov %0, %%ss; mov %0, %%es" : : "r"(0x10));
	asm volatile("mov %0, %%fs; mov %0, %%gs" : : "r"(0));
}

USER_CODE(u_mov_ds, "mov %edi, %ds; mov %ds, %eax");
USER_CODE(u_mov_ss, "mov %edi, %ss");

static void user_loads(void)
{
	u16 s = put(0, DATA_RW);
	eq("user-ds-dpl0", outcome(user(u_mov_ds, s)), FAULT(GP, s));
	eq("user-ss-null", outcome(user(u_mov_ss, 3)), FAULT(GP, 0));
	s = put(0, CONFORMING);
	eq("user-ds-conforming", outcome(user(u_mov_ds, s)), FAULT(USER_EXIT, 0));
	eq("user-ds-null", outcome(user(u_mov_ds, 0)), FAULT(USER_EXIT, 0));
}

static void system_segments(void)
{
	static u64 ldt[4];
	ldt[1] = segment(0, 0xfffff, DATA_RW | BIG | GRAN);
	gdt[SCRATCH / 8] = segment((u64)ldt, sizeof ldt - 1, LDT);
	gdt[SCRATCH / 8 + 1] = (u64)ldt >> 32;
	eq("lldt", outcome(TRY(asm volatile("lldt %w0" : : "r"(SCRATCH)))), NONE);
	u64 sel = 0;
	asm volatile("sldt %0" : "=r"(sel));
	eq("sldt", sel, SCRATCH);
	eq("ds-from-ldt", LOAD(ds, 0x0c), NONE);
	eq("ds-past-ldt", LOAD(ds, 0x24), FAULT(GP, 0x24));
	asm volatile("mov %0, %%ds" : : "r"(0x10));
	eq("lldt-from-ldt", outcome(TRY(asm volatile("lldt %w0" : : "r"(0x0c)))), FAULT(GP, 0x0c));
	eq("lldt-null", outcome(TRY(asm volatile("lldt %w0" : : "r"(0)))), NONE);
	eq("ds-from-no-ldt", LOAD(ds, 0x0c), FAULT(GP, 0x0c));
	eq("lldt-data", outcome(TRY(asm volatile("lldt %w0" : : "r"(0x10)))), FAULT(GP, 0x10));
	gdt[SCRATCH / 8] &= ~(1UL << 47);
	eq("lldt-absent", outcome(TRY(asm volatile("lldt %w0" : : "r"(SCRATCH)))), FAULT(NP, SCRATCH));
	eq("ltr-busy", outcome(TRY(asm volatile("ltr %w0" : : "r"(0x30)))), FAULT(GP, 0x30));
	eq("ltr-null", outcome(TRY(asm volatile("ltr %w0" : : "r"(0)))), FAULT(GP, 0));
	gdt[6] &= ~(2UL << 40);
	eq("ltr", outcome(TRY(asm volatile("ltr %w0" : : "r"(0x30)))), NONE);
	eq("ltr-sets-busy", gdt[6] >> 40 & 0xf, 0xb);
	asm volatile("str %0" : "=r"(sel));
	eq("str", sel, 0x30);
	asm volatile("mov %0, %%ds; mov %0, %%es" : : "r"(0x10));
}

#define LOOK(op, sel) ({ u64 v_ = 0x5555; u8 z_; asm volatile(#op " %w2, %k0; setz %1" : "+r"(v_), "=r"(z_) : "r"(sel)); (u64)z_ << 32 | v_; })
#define VERIFY(op, sel) ({ u8 z_; asm volatile(#op " %w1; setz %0" : "=r"(z_) : "r"(sel)); z_; })

static void looks(void)
{
	u16 s = put(0, DATA_RW);
	eq("lar-data", LOOK(lar, s) & ~0xf0000UL, 1UL << 32 | 0xc09300);
	eq("lsl-page-granular", LOOK(lsl, s), 1UL << 32 | 0xffffffff);
	eq("lar-null", LOOK(lar, 0), 0x5555);
	eq("lsl-null", LOOK(lsl, 0), 0x5555);
	eq("lar-rpl3", LOOK(lar, s | 3), 0x5555);
	gdt[s / 8] = segment(0, 0x1234, DATA_RW | BIG);
	eq("lsl-byte-granular", LOOK(lsl, s), 1UL << 32 | 0x1234);
	eq("lar-past-gdt", LOOK(lar, gdtr.limit + 1), 0x5555);
	eq("lar-tss", LOOK(lar, 0x30) & ~0xf0000UL, 1UL << 32 | 0x8b00);
	gdt[s / 8] = segment(0, 0, 0x8e);
	eq("lar-gate", LOOK(lar, s), 0x5555);
	s = put(0, DATA_RW);
	eq("verr-rw", VERIFY(verr, s), 1);
	eq("verw-rw", VERIFY(verw, s), 1);
	eq("verr-rpl3", VERIFY(verr, s | 3), 0);
	s = put(0, DATA_RO);
	eq("verw-ro", VERIFY(verw, s), 0);
	s = put(0, CODE_X);
	eq("verr-execute-only", VERIFY(verr, s), 0);
	s = put(0, CODE_RX);
	eq("verr-code", VERIFY(verr, s), 1);
	eq("verw-code", VERIFY(verw, s), 0);
	eq("verr-null", VERIFY(verr, 0), 0);
}

static void bases(void)
{
	u64 v;
	wrmsr(0xc0000100, 0x1234567890);
	wrmsr(0xc0000101, 0xffff800000000000);
	eq("fs-base", rdmsr(0xc0000100), 0x1234567890);
	eq("fs-base-noncanonical", outcome(TRY(wrmsr(0xc0000100, 1UL << 47))), FAULT(GP, 0));
	wrmsr(0xc0000102, 0x77000);
	asm volatile("swapgs");
	eq("swapgs", rdmsr(0xc0000101), 0x77000);
	eq("swapgs-kernel", rdmsr(0xc0000102), 0xffff800000000000);
	asm volatile("swapgs");
	wrmsr(0xc0000101, (u64)&gdtr);
	u16 w;
	asm volatile("mov %%gs:0, %0" : "=r"(w));
	eq("gs-relative", w, gdtr.limit);
	wrmsr(0xc0000101, (u64)&gdtr - 0x10);
	asm volatile("mov %%gs:(%1), %0" : "=r"(w) : "r"(0x10UL));
	eq("gs-relative-register", w, gdtr.limit);
	if (has_fsgsbase()) {
		eq("rdfsbase-off-ud", outcome(TRY(asm volatile("rdfsbase %0" : "=r"(v)))), FAULT(UD, 0));
		set_cr4(cr4() | 1 << 16);
		asm volatile("rdfsbase %0" : "=r"(v));
		eq("rdfsbase", v, 0x1234567890);
		asm volatile("wrgsbase %0" : : "r"(0x4444UL));
		eq("wrgsbase", rdmsr(0xc0000101), 0x4444);
		eq("wrfsbase-noncanonical", outcome(TRY(asm volatile("wrfsbase %0" : : "r"(1UL << 63)))), FAULT(GP, 0));
		asm volatile("wrfsbase %k0" : : "r"(0x12345678));
		eq("wrfsbase32", rdmsr(0xc0000100), 0x12345678);
		set_cr4(cr4() & ~(1UL << 16));
	}
	wrmsr(0xc0000100, 0);
	wrmsr(0xc0000101, 0);
}

USER_CODE(u_sgdt, "sgdt -16(%rsp)");
USER_CODE(u_sidt, "sidt -16(%rsp)");
USER_CODE(u_smsw, "smsw %eax");
USER_CODE(u_str, "str %eax");
USER_CODE(u_sldt, "sldt %eax");

static void tables(void)
{
	struct table t = { 0 };
	asm volatile("sgdt %0" : "=m"(t));
	ok("sgdt", t.limit == gdtr.limit && t.base == (u64)gdt);
	asm volatile("sidt %0" : "=m"(t));
	ok("sidt", t.limit == idtr.limit && t.base == (u64)idt);
	t.base = 0x800000000000UL;
	eq("lgdt-noncanonical", outcome(TRY(asm volatile("lgdt %0" : : "m"(t)))), FAULT(GP, 0));
	asm volatile("lgdt %0" : : "m"(gdtr));
	static const struct { const char *name; void (*code)(void); } all[] = {
		{ "sgdt", u_sgdt }, { "sidt", u_sidt }, { "smsw", u_smsw }, { "str", u_str }, { "sldt", u_sldt },
	};
	for (unsigned i = 0; i < 5; i++)
		eq(all[i].name, outcome(user(all[i].code, 0)), FAULT(USER_EXIT, 0));
	if (!has_umip())
		return;
	set_cr4(cr4() | 1 << 11);
	for (unsigned i = 0; i < 5; i++)
		eq(all[i].name, outcome(user(all[i].code, 0)), FAULT(GP, 0));
	set_cr4(cr4() & ~(1UL << 11));
}

void test_segments(void)
{
	loads();
	user_loads();
	system_segments();
	looks();
	bases();
	tables();
}
