/* Rights, error codes, accessed and dirty bits, TLB maintenance (SDM vol. 3A chapter 4). */
#include "suite.h"

enum { READ, WRITE, EXEC };

USER_CODE(u_read, "mov (%rdi), %al");
USER_CODE(u_write, "mov %al, (%rdi)");
USER_CODE(u_exec, "call *%rdi");
USER_CODE(u_rmw, "lock incb (%rdi)");

/* kernel_access returns NOTRAP or vector<<32 | error code. */
static u64 kernel_access(int kind, u64 va)
{
	int v;
	pages[0][0] = 0xc3; /* ret */
	switch (kind) {
	case READ:
		v = TRY((void)*(volatile u8 *)va);
		break;
	case WRITE:
		v = TRY(*(volatile u8 *)va = 0xc3);
		break;
	default:
		v = TRY(((void (*)(void))va)());
	}
	return v == NOTRAP ? (u64)NOTRAP : (u64)v << 32 | last.error;
}

static u64 user_access(int kind, u64 va)
{
	pages[0][0] = 0xc3;
	int v = user(kind == READ ? u_read : kind == WRITE ? u_write : u_exec, va);
	return v == USER_EXIT ? (u64)NOTRAP : (u64)v << 32 | last.error;
}

static u64 want(int user_mode, int kind, u64 pte, u64 c0, u64 c4)
{
	u64 code = (u64)PF << 32 | 1;
	int allowed;
	if (kind == WRITE)
		code |= 2;
	if (user_mode)
		code |= 4;
	if (kind == EXEC)
		code |= 16;
	if (user_mode)
		allowed = (pte & U) && (kind != WRITE || (pte & W)) && (kind != EXEC || !(pte & NX));
	else if (kind == EXEC)
		allowed = !(pte & NX) && !((pte & U) && (c4 >> 20 & 1));
	else
		allowed = (kind != WRITE || (pte & W) || !(c0 >> 16 & 1)) && !((pte & U) && (c4 >> 21 & 1));
	return allowed ? (u64)NOTRAP : code;
}

static void append(char *s, const char *t)
{
	while (*s)
		s++;
	while ((*s++ = *t++))
		;
}

/* rights tries every mix of page, control bits, privilege and access. */
static void rights(void)
{
	static const u64 ptes[] = { P, P | W, P | U, P | W | U, P | NX, P | W | NX, P | U | NX, P | W | U | NX };
	u64 c0 = cr0(), c4 = cr4();
	for (int mode = 0; mode < 8; mode++) {
		u64 n0 = mode & 1 ? c0 : c0 & ~(1UL << 16);
		u64 n4 = c4;
		if (mode & 2)
			n4 |= (u64)has_smep() << 20;
		if (mode & 4)
			n4 |= (u64)has_smap() << 21;
		set_cr0(n0);
		set_cr4(n4);
		for (unsigned i = 0; i < sizeof ptes / sizeof *ptes; i++)
			for (int who = 0; who < 2; who++)
				for (int kind = READ; kind <= EXEC; kind++) {
					char name[80] = "rights";
					append(name, mode & 1 ? "-wp" : "");
					append(name, mode & 2 ? "-smep" : "");
					append(name, mode & 4 ? "-smap" : "");
					append(name, ptes[i] & U ? "-user" : "-super");
					append(name, ptes[i] & W ? "-rw" : "-ro");
					append(name, ptes[i] & NX ? "-nx" : "");
					append(name, who ? "-by-user" : "-by-kernel");
					append(name, kind == READ ? "-read" : kind == WRITE ? "-write" : "-exec");
					map(0, phys(pages[0]) | ptes[i]);
					u64 got = who ? user_access(kind, PAGE(0)) : kernel_access(kind, PAGE(0));
					eq(name, got, want(who, kind, ptes[i], n0, n4));
				}
		set_cr0(c0);
		set_cr4(c4);
	}
}

static void smap_ac(void)
{
	if (!has_smap())
		return;
	u64 c4 = cr4();
	set_cr4(c4 | 1 << 21);
	map(0, phys(pages[0]) | P | W | U);
	eq("smap-ac-read", TRY({ asm volatile("stac"); (void)*(volatile u8 *)PAGE(0); asm volatile("clac"); }), NOTRAP);
	eq("smap-clac-read", kernel_access(READ, PAGE(0)), (u64)PF << 32 | 1);
	set_cr4(c4);
}

static void error_codes(void)
{
	map(1, 0);
	eq("not-present-read", kernel_access(READ, PAGE(1) + 0x123), (u64)PF << 32);
	eq("cr2", last_cr2, PAGE(1) + 0x123);
	eq("not-present-write", kernel_access(WRITE, PAGE(1)), (u64)PF << 32 | 2);
	eq("not-present-exec", kernel_access(EXEC, PAGE(1)), (u64)PF << 32 | 16);
	eq("not-present-user-read", user_access(READ, PAGE(1)), (u64)PF << 32 | 4);
	eq("not-present-user-write", user_access(WRITE, PAGE(1)), (u64)PF << 32 | 6);
	int v = user(u_rmw, PAGE(1));
	eq("not-present-user-rmw", (u64)v << 32 | last.error, (u64)PF << 32 | 6);
	map(1, phys(pages[1]) | P | W | 1UL << 51);
	eq("reserved-read", kernel_access(READ, PAGE(1)), (u64)PF << 32 | 9);
	eq("reserved-user-write", user_access(WRITE, PAGE(1)), (u64)PF << 32 | 15);
	map(1, 0);
	map(0, phys(pages[0]) | P | W);
	int v2 = TRY(PEEK(PAGE(1) - 4));
	eq("crossing-second-page", (u64)v2 << 32 | last.error, (u64)PF << 32);
	eq("crossing-second-page-cr2", last_cr2, PAGE(1));
	POKE(PAGE(0) + 4088, 0x1111111111111111);
	map(1, phys(pages[1]) | P);
	int v3 = TRY(POKE(PAGE(1) - 4, ~0UL));
	eq("crossing-write-fault", (u64)v3 << 32 | last.error, (u64)PF << 32 | 3);
	eq("crossing-write-untouched", PEEK(PAGE(0) + 4088), 0x1111111111111111);
	map(0, phys(pages[2]) | P | W);
	map(1, phys(pages[1]) | P | W);
	POKE(PAGE(1) - 4, 0x1122334455667788);
	eq("crossing-store-low", *(u32 *)(pages[2] + 4092), 0x55667788);
	eq("crossing-store-high", *(u32 *)pages[1], 0x11223344);
	eq("crossing-load", PEEK(PAGE(1) - 4), 0x1122334455667788);
	u64 efer = rdmsr(0xc0000080);
	map(1, phys(pages[1]) | P | W | NX);
	wrmsr(0xc0000080, efer & ~0x800UL);
	eq("xd-without-nxe-reserved", kernel_access(READ, PAGE(1)), (u64)PF << 32 | 9);
	wrmsr(0xc0000080, efer);
	region_pd[0] &= ~W;
	map(1, phys(pages[1]) | P | W | U);
	invlpg(PAGE(1));
	eq("upper-level-ro", user_access(WRITE, PAGE(1)), (u64)PF << 32 | 7);
	region_pd[0] |= W;
	map(1, phys(pages[1]) | P | W | U);
}

static void accessed_dirty(void)
{
	map(2, phys(pages[2]) | P | W);
	region_pd[0] &= ~A;
	region_pdpt[0] &= ~A;
	pml4[REGION >> 39] &= ~A;
	set_cr3(cr3());
	(void)*(volatile u8 *)PAGE(2);
	eq("read-sets-a", region_pt[2] & (A | D), A);
	eq("pde-a", region_pd[0] & A, A);
	eq("pdpte-a", region_pdpt[0] & A, A);
	eq("pml4e-a", pml4[REGION >> 39] & A, A);
	*(volatile u8 *)PAGE(2) = 1;
	eq("write-sets-d", region_pt[2] & (A | D), A | D);
	region_pt[2] &= ~D;
	invlpg(PAGE(2));
	*(volatile u8 *)PAGE(2) = 1;
	eq("write-sets-d-again", region_pt[2] & D, D);
	map(2, phys(pages[2]) | P);
	TRY(*(volatile u8 *)PAGE(2) = 1);
	eq("faulting-write-no-d", region_pt[2] & D, 0);
}

static void large_pages(void)
{
	u64 va = REGION + (1UL << 30);
	*(volatile u64 *)0x200008 = 0x1234;
	region_pdpt[1] = P | W | PS;
	set_cr3(cr3());
	eq("1gib-read", PEEK(va + 0x200008), 0x1234);
	eq("1gib-a", region_pdpt[1] & (A | D), A);
	region_pdpt[1] = P | W | PS | 1 << 13;
	invlpg(va);
	eq("1gib-reserved", kernel_access(READ, va), (u64)PF << 32 | 9);
	region_pdpt[1] = 0;
	region_pd[1] = 0x200000 | P | W | PS;
	set_cr3(cr3());
	va = REGION + (1UL << 21);
	eq("2mib-read", PEEK(va + 8), 0x1234);
	POKE(va + 0x1000, 0);
	eq("2mib-ad", region_pd[1] & (A | D), A | D);
	region_pd[1] = 0;
	invlpg(va + 0x5000); /* any address of the page does */
	eq("invlpg-large", kernel_access(READ, va + 8), (u64)PF << 32);
	region_pd[1] = 0x200000 | P | W | PS | 1 << 13;
	eq("2mib-reserved", kernel_access(READ, va), (u64)PF << 32 | 9);
	region_pd[1] = 0;
	invlpg(va);
	pml4[REGION >> 39] |= PS;
	set_cr3(cr3());
	eq("pml4e-ps-reserved", kernel_access(READ, PAGE(0)), (u64)PF << 32 | 9);
	pml4[REGION >> 39] &= ~PS;
	set_cr3(cr3());
}

static void global_pages(void)
{
	pages[3][0] = 3;
	pages[4][0] = 4;
	map(3, phys(pages[3]) | P | W);
	(void)*(volatile u8 *)PAGE(3);
	region_pt[3] = phys(pages[4]) | P | W;
	set_cr3(cr3());
	eq("cr3-flushes", *(volatile u8 *)PAGE(3), 4);
	map(3, phys(pages[3]) | P | W | G);
	(void)*(volatile u8 *)PAGE(3);
	region_pt[3] = phys(pages[4]) | P | W | G;
	invlpg(PAGE(3));
	eq("invlpg-global", *(volatile u8 *)PAGE(3), 4);
	region_pt[3] = phys(pages[3]) | P | W | G;
	u64 c4 = cr4();
	set_cr4(c4 & ~0x80UL);
	set_cr4(c4);
	eq("pge-toggle-flushes-global", *(volatile u8 *)PAGE(3), 3);
}

static void pcid(void)
{
	if (!has_pcid())
		return;
	u64 c3 = cr3(), c4 = cr4();
	set_cr3(c3 | 1 << 3);
	eq("pcide-needs-pcid-0", TRY(set_cr4(c4 | 1 << 17)), GP);
	set_cr3(c3);
	eq("pcide", TRY(set_cr4(c4 | 1 << 17)), NOTRAP);
	map(5, phys(pages[3]) | P | W);
	(void)*(volatile u8 *)PAGE(5);
	set_cr3(c3 | 1);
	region_pt[5] = phys(pages[4]) | P | W;
	eq("pcid-1-own-view", *(volatile u8 *)PAGE(5), 4);
	set_cr3(c3);
	eq("pcid-0-flushed", *(volatile u8 *)PAGE(5), 4);
	set_cr3((c3 | 1) | 1UL << 63);
	eq("noflush-bit-reads-0", cr3() >> 63, 0);
	set_cr3(c3);
	eq("clear-pg-with-pcide-gp", TRY(set_cr0(cr0() & ~(1UL << 31))), GP);
	if (has_invpcid()) {
		struct { u64 pcid, va; } d = { 0, PAGE(5) };
		region_pt[5] = phys(pages[3]) | P | W;
		asm volatile("invpcid %0, %1" : : "m"(d), "r"(0UL) : "memory");
		eq("invpcid-address", *(volatile u8 *)PAGE(5), 3);
		region_pt[5] = phys(pages[4]) | P | W;
		asm volatile("invpcid %0, %1" : : "m"(d), "r"(1UL) : "memory");
		eq("invpcid-context", *(volatile u8 *)PAGE(5), 4);
		region_pt[5] = phys(pages[3]) | P | W | G;
		invlpg(PAGE(5));
		(void)*(volatile u8 *)PAGE(5);
		region_pt[5] = phys(pages[4]) | P | W | G;
		asm volatile("invpcid %0, %1" : : "m"(d), "r"(2UL) : "memory");
		eq("invpcid-all-global", *(volatile u8 *)PAGE(5), 4);
		eq("invpcid-bad-type", TRY(asm volatile("invpcid %0, %1" : : "m"(d), "r"(4UL) : "memory")), GP);
		d.pcid = 0x1000;
		eq("invpcid-reserved", TRY(asm volatile("invpcid %0, %1" : : "m"(d), "r"(1UL) : "memory")), GP);
		d.pcid = 0;
		d.va = 0x800000000000UL;
		eq("invpcid-noncanonical", TRY(asm volatile("invpcid %0, %1" : : "m"(d), "r"(0UL) : "memory")), GP);
	}
	set_cr4(c4);
	set_cr3(c3);
}

void test_paging(void)
{
	rights();
	smap_ac();
	error_codes();
	accessed_dirty();
	large_pages();
	global_pages();
	pcid();
}
