// Control registers, MSRs, SYSCALL, I/O privilege (Intel SDM vol. 3A chapters 2 and 5; vol. 1 chapter 19).
#include "suite.h"

// A register that an engine sets where it should refuse is put back at once.
static void cr0(void *v) {
	u64 old = READ_CR(0);
	WRITE_CR(0, (u64)v);
	WRITE_CR(0, old);
}
static void cr3(void *v) {
	u64 old = READ_CR(3);
	WRITE_CR(3, (u64)v);
	WRITE_CR(3, old);
}
static void cr4(void *v) {
	u64 old = READ_CR(4);
	WRITE_CR(4, (u64)v);
	WRITE_CR(4, old);
}
static void cr8(void *v) { WRITE_CR(8, (u64)v); }
static void cr1(void *v) { __asm__ volatile("mov %%rax, %%cr1" ::: "rax"); }
static void efer(void *v) {
	u64 old = rdmsr(0xc0000080);
	wrmsr(0xc0000080, (u64)v);
	wrmsr(0xc0000080, old);
}
static void fs_base(void *v) { wrmsr(0xc0000100, (u64)v); }
static void pat(void *v) { wrmsr(0x277, (u64)v); }
static void lstar(void *v) { wrmsr(0xc0000082, (u64)v); }
static void xsetbv(void *v) { __asm__ volatile("xsetbv" ::"a"((u32)(u64)v), "d"(0), "c"(0)); }
static void xgetbv(void *v) { __asm__ volatile("xgetbv" ::"c"(0) : "eax", "edx"); }

static void test_registers(void) {
	u64 c0 = READ_CR(0), c4 = READ_CR(4), e = rdmsr(0xc0000080);
	expect("CR0.NW without CD: #GP", cr0, (void *)(c0 | 1 << 29), 13, 0);
	expect("CR0 above 32 bits: #GP", cr0, (void *)(c0 | 1ull << 40), 13, 0);
	if (on_tcg()) {
		print("note: TCG obeys what must be refused of CR0.PG, CR3 and CR4, and dies of it\n");
	} else {
		expect("CR4 reserved bit: #GP", cr4, (void *)(c4 | 1ull << 40), 13, 0);
		expect("CR3 bit 62: #GP", cr3, (void *)(READ_CR(3) | 1ull << 62), 13, 0);
		expect("CR0.PG without PE: #GP", cr0, (void *)(c0 & ~1ull), 13, 0);
		expect("CR0.PG cleared in 64-bit mode: #GP", cr0, (void *)(c0 & 0x7fffffff), 13, 0);
		expect("CR4.PAE cleared in long mode: #GP", cr4, (void *)(c4 & ~0x20ull), 13, 0);
		expect("EFER.LME changed under paging: #GP", efer, (void *)(e & ~0x100ull), 13, 0);
	}
	expect("CR8 above 15: #GP", cr8, (void *)16, 13, 0);
	expect("CR8 = 15", cr8, (void *)15, -1, 0);
	check(READ_CR(8) == 15, "CR8 reads back", "%x", READ_CR(8));
	WRITE_CR(8, 0);
	expect("CR1: #UD", cr1, 0, 6, 0);
	expect("EFER reserved bit: #GP", efer, (void *)(e | 1 << 1), 13, 0);
	check(e >> 10 & 1, "EFER.LMA in long mode", "%x", e);
	expect("FS base non-canonical: #GP", fs_base, (void *)0x800000000000, 13, 0);
	expect("LSTAR non-canonical: #GP", lstar, (void *)0x800000000000, 13, 0);
	expect("PAT of a reserved type: #GP", pat, (void *)2, 13, 0);
	if (cpuid(1, 0).c >> 26 & 1) {
		expect("XGETBV without OSXSAVE: #UD", xgetbv, 0, 6, 0);
		WRITE_CR(4, c4 | 1 << 18);
		check(cpuid(1, 0).c >> 27 & 1, "CPUID shows OSXSAVE", "%x", (u64)cpuid(1, 0).c);
		expect("XSETBV without x87: #GP", xsetbv, (void *)2, 13, 0);
		expect("XSETBV of x87 and SSE", xsetbv, (void *)3, -1, 0);
		expect("XSETBV of an unknown bit: #GP", xsetbv, (void *)(3ull | 1 << 30), 13, 0);
		WRITE_CR(4, c4);
	}
}

static void do_syscall(void *a) { __asm__ volatile("syscall" ::: "rcx", "r11"); }

static void test_syscall(void) {
	u64 e = rdmsr(0xc0000080);
	wrmsr(0xc0000081, (u64)KCODE << 32 | (u64)UCODE32 << 48);
	wrmsr(0xc0000082, (u64)syscall_entry);
	wrmsr(0xc0000084, 0x200 | 0x400);
	static const u8 call[] = {0xfd, 0x0f, 0x05}; // std; syscall
	user(call, sizeof call, 0, 0, 0);
	check(syscall_rcx == VA(UCODE_PAGE) + 3 && syscall_r11 & 0x400 && !(syscall_flags & 0x600), "SYSCALL: RCX, R11, masked flags", "rcx %x r11 %x flags %x",
	      syscall_rcx, syscall_r11, syscall_flags);
	check(syscall_rsp == VA(USTACK_PAGE) + 4096 - 64, "SYSCALL keeps RSP", "%x", syscall_rsp);
	u64 cs, ss;
	__asm__ volatile("movq %%cs, %0; movq %%ss, %1" : "=r"(cs), "=r"(ss));
	check(cs == KCODE && ss == KDATA, "SYSCALL's CS and SS from STAR", "cs %x ss %x", cs, ss);
	__asm__ volatile("cld");
	wrmsr(0xc0000082, (u64)syscall_return);
	static const u8 twice[] = {0x0f, 0x05, 0x0f, 0x05, 0x8c, 0xc8}; // syscall; syscall; mov %cs, %eax
	user(twice, sizeof twice, 0, 0, 0);
	check(fault.vector == 0x40 && fault.cs == UCODE && (u16)fault.rax == UCODE, "SYSCALL and SYSRET twice, CS from STAR+16", "vector %d cs %x", (long)fault.vector, fault.cs);
	wrmsr(0xc0000080, e & ~1ull);
	expect("SYSCALL without SCE: #UD", do_syscall, 0, 6, 0);
	wrmsr(0xc0000080, e);
	static const u8 back[] = {0x48, 0x0f, 0x07}; // sysretq
	user(back, sizeof back, 0, 0, 0);
	check(fault.vector == 13 && fault.error == 0, "SYSRET at CPL 3: #GP(0)", "vector %d", (long)fault.vector);
}

static void privileged(const char *name, const u8 *code, int n, u64 flags, int vector) {
	user(code, n, 0, flags, 0);
	check(fault.vector == vector && (vector == 0x40 || fault.error == 0), name, "vector %d error %x, want %d", (long)fault.vector, fault.error, (long)vector);
}

static void test_privilege(void) {
	enum { IOPL3 = 3 << 12 };
	static const u8 hlt[] = {0xf4}, cli[] = {0xfa}, in[] = {0xe4, 0x61}, mov_cr[] = {0x0f, 0x20, 0xc0}, rdmsr_[] = {0x0f, 0x32}, lgdt[] = {0x0f, 0x01, 0x17},
	                invlpg_[] = {0x0f, 0x01, 0x3f}, swapgs[] = {0x0f, 0x01, 0xf8}, clts[] = {0x0f, 0x06}, wbinvd[] = {0x0f, 0x09}, in16[] = {0x66, 0xe5, 0x61},
	                popf[] = {0x68, 0x02, 0x32, 0, 0, 0x9d, 0x9c, 0x58}, lmsw[] = {0x0f, 0x01, 0xf0}, rdtsc_[] = {0x0f, 0x31};
	privileged("HLT at CPL 3: #GP(0)", hlt, 1, 0, 13);
	privileged("CLI at CPL 3, IOPL 0: #GP(0)", cli, 1, 0, 13);
	privileged("CLI at CPL 3, IOPL 3", cli, 1, IOPL3, 0x40);
	privileged("IN at CPL 3, IOPL 0, bitmap set: #GP(0)", in, 2, 0, 13);
	privileged("IN at CPL 3, IOPL 3", in, 2, IOPL3, 0x40);
	tss[104 + 0x61 / 8] &= ~(1 << (0x61 % 8));
	privileged("IN at CPL 3, bitmap clear", in, 2, 0, 0x40);
	privileged("16-bit IN, the second port's bit set: #GP(0)", in16, 3, 0, 13);
	tss[104 + 0x61 / 8] |= 1 << (0x61 % 8);
	privileged("MOV from CR0 at CPL 3: #GP(0)", mov_cr, 3, 0, 13);
	privileged("RDMSR at CPL 3: #GP(0)", rdmsr_, 2, 0, 13);
	privileged("LGDT at CPL 3: #GP(0)", lgdt, 3, 0, 13);
	privileged("INVLPG at CPL 3: #GP(0)", invlpg_, 3, 0, 13);
	privileged("SWAPGS at CPL 3: #GP(0)", swapgs, 3, 0, 13);
	privileged("CLTS at CPL 3: #GP(0)", clts, 2, 0, 13);
	privileged("WBINVD at CPL 3: #GP(0)", wbinvd, 2, 0, 13);
	privileged("LMSW at CPL 3: #GP(0)", lmsw, 3, 0, 13);
	user(popf, sizeof popf, 0, 0, 0);
	check(fault.vector == 0x40 && !(fault.rax & 0x3200), "POPF at CPL 3 changes neither IF nor IOPL", "flags %x", fault.rax);
	WRITE_CR(4, READ_CR(4) | 4);
	privileged("RDTSC at CPL 3 with TSD: #GP(0)", rdtsc_, 2, 0, 13);
	WRITE_CR(4, READ_CR(4) & ~4ull);
	privileged("RDTSC at CPL 3", rdtsc_, 2, 0, 0x40);
}

static void test_time(void) {
	u64 a = rdtsc(), b = rdtsc();
	check(b > a, "the TSC moves forward", "%x then %x", a, b);
	u32 lo, hi, aux;
	if (cpuid(0x80000001, 0).d >> 27 & 1) {
		wrmsr(0xc0000103, 0x1234);
		__asm__ volatile("rdtscp" : "=a"(lo), "=d"(hi), "=c"(aux));
		check(aux == 0x1234, "RDTSCP returns TSC_AUX", "%x", (u64)aux);
	}
	if (cpuid(7, 0).b >> 1 & 1) {
		wrmsr(0x3b, 1000000000000);
		check(rdtsc() - b > 900000000000, "TSC_ADJUST moves the TSC", "%x", rdtsc());
		wrmsr(0x3b, 0);
	}
}

static void test_smsw(void) {
	u64 v = 0;
	__asm__ volatile("smsw %0" : "=r"(v));
	check((u32)v == (u32)READ_CR(0), "SMSW", "%x", v);
	WRITE_CR(0, READ_CR(0) | 8);
	__asm__ volatile("clts");
	check(!(READ_CR(0) & 8), "CLTS", "%x", READ_CR(0));
	struct table g;
	__asm__ volatile("sgdt %0" : "=m"(g));
	check(g.limit == gdtr.limit && g.base == gdtr.base, "SGDT", "%x %x", (u64)g.limit, g.base);
	u64 tr = 0;
	__asm__ volatile("str %w0" : "+r"(tr));
	check(tr == TSS, "STR", "%x", tr);
}

void test_system(void) {
	test_registers();
	test_syscall();
	test_privilege();
	test_time();
	test_smsw();
}
