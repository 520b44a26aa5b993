/* Control registers, MSRs, XCR0, CPUID (SDM vol. 3A chapter 2, vol. 4). */
#include "suite.h"

static u64 outcome(int v)
{
	return v == NOTRAP ? (u64)NOTRAP : (u64)v << 32 | last.error;
}
#define GP0 ((u64)GP << 32)
#define NONE ((u64)NOTRAP)

static void refused(void)
{
	u64 c0 = cr0(), c4 = cr4(), c3 = cr3();
	eq("cr0-pg-without-pe", outcome(TRY(set_cr0(c0 & ~1UL))), GP0);
	eq("cr0-nw-without-cd", outcome(TRY(set_cr0(c0 | 1 << 29))), GP0);
	eq("cr0-high", outcome(TRY(set_cr0(c0 | 1UL << 32))), GP0);
	eq("cr0-clear-pg-in-64-bit", outcome(TRY(set_cr0(c0 & ~(1UL << 31)))), GP0);
	eq("cr0-unchanged", cr0(), c0);
	eq("cr4-clear-pae", outcome(TRY(set_cr4(c4 & ~0x20UL))), GP0);
	eq("cr4-reserved-63", outcome(TRY(set_cr4(c4 | 1UL << 63))), GP0);
	eq("cr4-reserved-15", outcome(TRY(set_cr4(c4 | 1UL << 15))), GP0);
	eq("cr4-unchanged", cr4(), c4);
	eq("cr3-reserved", outcome(TRY(set_cr3(c3 | 1UL << 52))), GP0);
	eq("cr8-reserved", outcome(TRY(set_cr8(16))), GP0);
}

static void control_registers(void)
{
	u64 c0 = cr0();
	if (!on_tcg())
		refused();
	TRY(set_cr0(c0 & ~0x10UL));
	eq("cr0-et-fixed", cr0() & 0x10, 0x10);
	set_cr0(c0);
	set_cr8(5);
	eq("cr8", cr8(), 5);
	set_cr8(0);
	eq("cr1-ud", outcome(TRY(asm volatile(".byte 0x0f, 0x20, 0xc8" : : : "rax"))), (u64)UD << 32);
	eq("cr5-ud", outcome(TRY(asm volatile(".byte 0x0f, 0x22, 0xe8"))), (u64)UD << 32);
	set_cr2(0x123456789abc);
	eq("cr2-write", cr2(), 0x123456789abc);
	u64 v;
	asm volatile("smsw %0" : "=r"(v));
	eq("smsw", v & 0xffff, c0 & 0xffff);
	asm volatile("lmsw %w0" : : "r"((c0 & ~1UL) | 8));
	eq("lmsw-cannot-clear-pe", cr0(), c0 | 8);
	set_cr0(c0);
}

static void msrs(void)
{
	u64 efer = rdmsr(0xc0000080);
	eq("efer", efer & 0xd01, 0xd01);
	eq("efer-reserved", outcome(TRY(wrmsr(0xc0000080, efer | 1UL << 40))), GP0);
	eq("efer-clear-lme", outcome(TRY(wrmsr(0xc0000080, efer & ~0x100UL))), GP0);
	eq("pat-bad-type", outcome(TRY(wrmsr(0x277, 0x0002000000000000))), GP0);
	u64 pat = rdmsr(0x277);
	wrmsr(0x277, 0x0007040600070401);
	eq("pat", rdmsr(0x277), 0x0007040600070401);
	wrmsr(0x277, pat);
	static const u32 addresses[] = { 0xc0000082, 0xc0000083, 0xc0000102, 0x175, 0x176 };
	for (unsigned i = 0; i < sizeof addresses / sizeof *addresses; i++) {
		u64 old = rdmsr(addresses[i]);
		eq("msr-noncanonical", outcome(TRY(wrmsr(addresses[i], 1UL << 47))), GP0);
		wrmsr(addresses[i], 0xffff800012345678);
		eq("msr-address", rdmsr(addresses[i]), 0xffff800012345678);
		wrmsr(addresses[i], old);
	}
	wrmsr(0xc0000081, 0x0018000800000000);
	eq("star", rdmsr(0xc0000081), 0x0018000800000000);
	u64 base = rdmsr(0x1b);
	eq("apic-base", base & ~0xffUL, 0xfee00900);
	eq("apic-base-reserved", outcome(TRY(wrmsr(0x1b, base | 1UL << 52))), GP0);
	eq("mtrrcap-read-only", outcome(TRY(wrmsr(0xfe, 0))), GP0);
}

static void time_stamps(void)
{
	u64 a = rdtsc(), b = rdtsc();
	ok("tsc-monotonic", b >= a);
	u64 adjust = rdmsr(0x3b);
	wrmsr(0x10, 1UL << 60);
	a = rdtsc();
	ok("tsc-written", a >= 1UL << 60 && a < (1UL << 60) + (1UL << 40));
	u64 moved = rdmsr(0x3b);
	ok("tsc-write-moves-adjust", moved != adjust);
	wrmsr(0x3b, adjust);
	ok("tsc-adjust-moves-tsc", rdtsc() < 1UL << 60);
	wrmsr(0xc0000103, 0x1234);
	u32 aux;
	asm volatile("rdtscp" : "=c"(aux) : : "eax", "edx");
	eq("tsc-aux", aux, 0x1234);
	eq("tsc-aux-high", outcome(TRY(wrmsr(0xc0000103, 1UL << 32))), GP0);
}

USER_CODE(u_rdtsc, "rdtsc");
USER_CODE(u_rdtscp, "rdtscp");
USER_CODE(u_rdpmc, "xor %ecx, %ecx; rdpmc");

static void user_rights(void)
{
	eq("rdtsc-user", outcome(user(u_rdtsc, 0)), (u64)USER_EXIT << 32);
	set_cr4(cr4() | 4);
	eq("tsd-rdtsc-user", outcome(user(u_rdtsc, 0)), GP0);
	eq("tsd-rdtscp-user", outcome(user(u_rdtscp, 0)), GP0);
	eq("tsd-rdtsc-kernel", outcome(TRY(rdtsc())), NONE);
	set_cr4(cr4() & ~4UL);
	eq("rdpmc-user", outcome(user(u_rdpmc, 0)), GP0);
}

static u64 xgetbv(u32 i)
{
	u32 a, d;
	asm volatile("xgetbv" : "=a"(a), "=d"(d) : "c"(i));
	return a | (u64)d << 32;
}

static void xsetbv(u32 i, u64 v)
{
	asm volatile("xsetbv" : : "c"(i), "a"((u32)v), "d"((u32)(v >> 32)));
}

static void extended_state(void)
{
	u32 r[4];
	cpuid(1, 0, r);
	if (!(r[2] >> 26 & 1))
		return;
	eq("osxsave-clear", r[2] >> 27 & 1, 0);
	eq("xgetbv-ud", outcome(TRY(xgetbv(0))), (u64)UD << 32);
	set_cr4(cr4() | 1 << 18);
	cpuid(1, 0, r);
	eq("osxsave-set", r[2] >> 27 & 1, 1);
	eq("xcr0-reset", xgetbv(0), 1);
	eq("xsetbv-without-x87", outcome(TRY(xsetbv(0, 2))), GP0);
	eq("xsetbv-reserved", outcome(TRY(xsetbv(0, 1UL << 63 | 1))), GP0);
	eq("xsetbv-avx-without-sse", outcome(TRY(xsetbv(0, 5))), GP0);
	eq("xsetbv-index", outcome(TRY(xsetbv(5, 1))), GP0);
	eq("xsetbv", outcome(TRY(xsetbv(0, 3))), NONE);
	eq("xcr0", xgetbv(0), 3);
	xsetbv(0, 1);
	set_cr4(cr4() & ~(1UL << 18));
}

static void identification(void)
{
	u32 r[4];
	cpuid(0x80000001, 0, r);
	eq("cpuid-long-mode", r[3] >> 29 & 1, 1);
	eq("cpuid-nx", r[3] >> 20 & 1, 1);
	cpuid(1, 0, r);
	eq("cpuid-hypervisor", r[2] >> 31, 1);
	asm volatile("mov %%rax, %0; mov %%rax, %%rax" : "=r"(*(u64 *)r) : "a"(0UL));
	u64 a, b, c, d;
	asm volatile("mov $-1, %%rbx; mov $-1, %%rdx; cpuid" : "=a"(a), "=b"(b), "=c"(c), "=d"(d) : "a"(~0xffffffffUL), "c"(~0UL));
	ok("cpuid-clears-high-halves", !(a >> 32) && !(b >> 32) && !(c >> 32) && !(d >> 32));
	eq("monitor-follows-cpuid", TRY(asm volatile("mov %%rsp, %%rax; xor %%ecx, %%ecx; xor %%edx, %%edx; monitor" : : : "rax", "rcx", "rdx")),
		({ cpuid(1, 0, r); r[2] >> 3 & 1 ? NOTRAP : UD; }));
}

void test_control(void)
{
	control_registers();
	msrs();
	time_stamps();
	user_rights();
	extended_state();
	identification();
}
