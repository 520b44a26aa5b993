// Paging: permissions, error codes, accessed and dirty bits, reserved bits, invalidation (Intel SDM vol. 3A chapter 4).
#include "suite.h"

enum { WP = 1 << 16, SMEP = 1 << 20, SMAP = 1 << 21, PGE = 1 << 7, PCIDE = 1 << 17 };
enum access { READ, WRITE, EXEC };

static void do_read(void *a) { *(volatile u8 *)a; }
static void do_write(void *a) { *(volatile u8 *)a = 0xc3; }
static void do_exec(void *a) { ((void (*)(void))a)(); }
static void do_read_ac(void *a) { __asm__ volatile("stac; movb (%0), %%al; clac" ::"r"(a) : "rax", "memory"); }
static void do_write_ac(void *a) { __asm__ volatile("stac; movb $0xc3, (%0); clac" ::"r"(a) : "memory"); }

// A combination's circumstances and what the manual says of it.
struct combo { u64 pte; enum access access; int user, wp, smep, smap, ac; };

static int model(struct combo c, u64 *error) {
	u64 e = (c.access == WRITE ? 2 : 0) | (c.user ? 4 : 0) | (c.access == EXEC ? 16 : 0);
	if (!(c.pte & P)) {
		*error = e;
		return 14;
	}
	int bad = 0;
	if (c.access == EXEC && c.pte >> 63)
		bad = 1;
	if (c.user) {
		bad |= !(c.pte & U) || (c.access == WRITE && !(c.pte & W));
	} else {
		bad |= c.access == WRITE && !(c.pte & W) && c.wp;
		bad |= c.access == EXEC && (c.pte & U) && c.smep;
		bad |= c.access != EXEC && (c.pte & U) && c.smap && !c.ac;
	}
	*error = e | 1;
	return bad ? 14 : c.user ? 0x40 : -1;
}

static void try(struct combo c) {
	static const u8 load[] = {0x8a, 0x07}, store[] = {0xc6, 0x07, 0xc3}, jump[] = {0xff, 0xe7};
	page(0)[0] = c.user ? 0xcd : 0xc3;
	page(0)[1] = 0x40;
	map(0, c.pte);
	fault.vector = -1;
	if (c.user) {
		const u8 *code = c.access == READ ? load : c.access == WRITE ? store : jump;
		user(code, c.access == WRITE ? 3 : 2, VA(0), 0, 0);
		return;
	}
	void (*f)(void *) = c.access == EXEC ? do_exec : c.access == READ ? (c.ac ? do_read_ac : do_read) : c.ac ? do_write_ac : do_write;
	attempt(f, (void *)VA(0));
}

static void test_permissions(void) {
	u64 cr0 = READ_CR(0), cr4 = READ_CR(4);
	struct cpuid seven = cpuid(7, 0);
	int has_smep = seven.b >> 7 & 1, has_smap = seven.b >> 20 & 1;
	int wrong = 0, n = 0;
	check(has_smep && has_smap, "CPUID offers SMEP and SMAP", "EBX of leaf 7 is %x", (u64)seven.b);
	for (int i = 0; i < 16 * 3 * 2 * 16; i++) {
		struct combo c = {(i & 1 ? P : 0) | (i & 2 ? W : 0) | (i & 4 ? U : 0) | (i & 8 ? NX : 0), i / 16 % 3, i / 48 % 2, i / 96 & 1, i / 192 & 1, i / 384 & 1, i / 768 & 1};
		if ((c.smep && !has_smep) || (c.smap && !has_smap) || (c.ac && (!has_smap || c.user || c.access == EXEC)))
			continue;
		WRITE_CR(0, c.wp ? cr0 | WP : cr0 & ~(u64)WP);
		WRITE_CR(4, cr4 | (c.smep ? SMEP : 0) | (c.smap ? SMAP : 0));
		u64 error;
		int want = model(c, &error);
		try(c);
		n++;
		if (fault.vector != want || (want == 14 && (fault.error != error || fault.cr2 != VA(0)))) {
			if (wrong++ < 5)
				print("  pte %x access %d user %d wp %d smep %d smap %d ac %d: vector %d error %x cr2 %x, want %d %x\n", c.pte, (long)c.access,
				      (long)c.user, (long)c.wp, (long)c.smep, (long)c.smap, (long)c.ac, (long)fault.vector, fault.error, fault.cr2, (long)want, error);
		}
	}
	WRITE_CR(0, cr0);
	WRITE_CR(4, cr4);
	check(!wrong, "permissions and error codes, every mix of P W U NX, WP, SMEP, SMAP, AC, CPL", "%d of %d wrong", (long)wrong, (long)n);
}

static void test_accessed_dirty(void) {
	map(0, P | W);
	do_read((void *)VA(0));
	check((pt[0] & (A | D)) == A, "a read sets A, not D", "pte %x", pt[0]);
	do_write((void *)VA(0));
	check((pt[0] & (A | D)) == (A | D), "a write after a read sets D", "pte %x", pt[0]);
	map(0, P | W);
	do_write((void *)VA(0));
	check((pt[0] & (A | D)) == (A | D), "a write sets A and D", "pte %x", pt[0]);
	map(0, P);
	fault.vector = -1;
	attempt(do_write, (void *)VA(0));
	check(fault.vector == 14 && !(pt[0] & D), "a refused write does not set D", "vector %d pte %x", (long)fault.vector, pt[0]);
	map(0, P | W);
	pdpt[T >> 30] &= ~(u64)A;
	WRITE_CR(3, READ_CR(3));
	do_read((void *)VA(0));
	check(pdpt[T >> 30] & A, "a walk sets A of the upper tables", "pdpte %x", pdpt[T >> 30]);
}

static void test_reserved(void) {
	int width = cpuid(0x80000008, 0).a & 0xff;
	map(0, P | W);
	if (width < 52) {
		pt[0] |= 1ull << 51;
		invlpg(VA(0));
		expect("a reserved address bit: error has RSVD", do_read, (void *)VA(0), 14, 9);
	}
	map(0, P | W);
	pml4[2] = (u64)pdpt | P | W | 1 << 7;
	expect("PS in a PML4 entry: error has RSVD", do_read, (void *)(2ull << 39), 14, 9);
	pml4[2] = 0;
}

static void test_large(void) {
	// 1 GiB and 2 MiB pages over RAM that the identity map also shows.
	u8 *here = page(3);
	here[5] = 0x5a;
	if (cpuid(0x80000001, 0).d >> 26 & 1) {
		pdpt[8] = 0 | P | W | 1 << 7;
		check(*(volatile u8 *)((8ull << 30) + (u64)here + 5) == 0x5a, "1 GiB page", "reads %x", (u64) * (u8 *)((8ull << 30) + (u64)here + 5));
		check((pdpt[8] & (A | D)) == A, "1 GiB page gets A", "pdpte %x", pdpt[8]);
		pdpt[8] = 0;
	}
	u64 old = pds[0];
	here[5] = 0x5b;
	check(pds[0] & A && pds[0] & D, "2 MiB page has A and D", "pde %x", old);
	WRITE_CR(3, READ_CR(3));
}

static void store_ones(void *a) { *(volatile u64 *)a = ~0ull; }

static void test_crossing(void) {
	map(0, P | W);
	map(1, 0);
	static const u8 bytes[] = {1, 2, 3, 4};
	for (int i = 0; i < 4; i++)
		page(0)[4092 + i] = bytes[i];
	volatile u64 *p = (u64 *)(VA(0) + 4092);
	fault.vector = -1;
	attempt(do_write, (void *)VA(0)); // warm
	fault.vector = -1;
	attempt(store_ones, (void *)p);
	check(fault.vector == 14 && fault.cr2 == VA(1) && page(0)[4092] == 1, "a store across into an absent page writes nothing, CR2 is the second page",
	      "vector %d cr2 %x byte %x", (long)fault.vector, fault.cr2, (u64)page(0)[4092]);
	map_to(1, 5, P | W);
	*p = 0x1122334455667788;
	check(*(u32 *)(page(0) + 4092) == 0x55667788 && *(u32 *)page(5) == 0x11223344, "a store across two frames", "%x %x", (u64) * (u32 *)(page(0) + 4092), (u64) * (u32 *)page(5));
	check(*p == 0x1122334455667788, "a load across two frames", "%x", *p);
}

static int reads(int n) { return *(volatile u8 *)(VA(n) + 100); }

static void test_invalidation(void) {
	page(3)[100] = 3;
	page(4)[100] = 4;
	map_to(0, 3, P | W);
	reads(0);
	pt[0] = (u64)page(4) | P | W;
	invlpg(VA(0));
	check(reads(0) == 4, "INVLPG shows the new mapping", "reads %d", (long)reads(0));
	pt[0] = (u64)page(3) | P | W;
	WRITE_CR(3, READ_CR(3));
	check(reads(0) == 3, "a CR3 write flushes", "reads %d", (long)reads(0));
	u64 cr4 = READ_CR(4);
	map_to(0, 3, P | W | G);
	reads(0);
	pt[0] = (u64)page(4) | P | W | G;
	WRITE_CR(4, cr4 ^ PGE);
	WRITE_CR(4, cr4);
	check(reads(0) == 4, "toggling CR4.PGE flushes global pages", "reads %d", (long)reads(0));
	map(0, P | W);
}

static void set_cr3(void *v) { WRITE_CR(3, (u64)v); }
static void set_pcide(void *v) { WRITE_CR(4, READ_CR(4) | PCIDE); }
static void invpcid(u64 type, u64 pcid, u64 va) {
	struct { u64 pcid, va; } d = {pcid, va};
	__asm__ volatile("invpcid %0, %1" ::"m"(d), "r"(type) : "memory");
}
static void bad_invpcid(void *a) { invpcid((u64)a, 0, 0); }

static void test_pcid(void) {
	if (!(cpuid(1, 0).c >> 17 & 1) || !(cpuid(7, 0).b >> 10 & 1)) {
		print("note: no PCID or INVPCID on this CPU\n");
		return;
	}
	u64 base = READ_CR(3);
	WRITE_CR(3, base | 1);
	expect("CR4.PCIDE with a PCID in CR3: #GP", set_pcide, 0, 13, 0);
	WRITE_CR(3, base);
	WRITE_CR(4, READ_CR(4) | PCIDE);
	map_to(0, 3, P | W);
	reads(0);
	WRITE_CR(3, base | 1 | 1ull << 63);
	pt[0] = (u64)page(4) | P | W;
	check(reads(0) == 4, "another PCID has no stale entry", "reads %d", (long)reads(0));
	pt[0] = (u64)page(3) | P | W;
	invpcid(0, 1, VA(0));
	check(reads(0) == 3, "INVPCID of an address", "reads %d", (long)reads(0));
	pt[0] = (u64)page(4) | P | W;
	invpcid(1, 1, 0);
	check(reads(0) == 4, "INVPCID of a context", "reads %d", (long)reads(0));
	pt[0] = (u64)page(3) | P | W;
	invpcid(3, 0, 0);
	check(reads(0) == 3, "INVPCID of all but global", "reads %d", (long)reads(0));
	pt[0] = (u64)page(4) | P | W;
	invpcid(2, 0, 0);
	check(reads(0) == 4, "INVPCID of all", "reads %d", (long)reads(0));
	pt[0] = (u64)page(3) | P | W;
	WRITE_CR(3, base | 1);
	check(reads(0) == 3, "CR3 without bit 63 flushes its PCID", "reads %d", (long)reads(0));
	expect("INVPCID of type 4: #GP", bad_invpcid, (void *)4, 13, 0);
	WRITE_CR(3, base);
	check(!(READ_CR(3) >> 63), "CR3 bit 63 reads as 0", "%x", READ_CR(3));
	WRITE_CR(4, READ_CR(4) & ~(u64)PCIDE);
	expect("CR3 bit 63 without PCIDE: #GP", set_cr3, (void *)(base | 1ull << 63), 13, 0);
	map(0, P | W);
}

static void test_code_change(void) {
	// mov $imm, %eax; ret, rewritten through the same and through another mapping.
	u8 *code = page(6);
	map_to(0, 6, P | W);
	map_to(1, 6, P | W);
	int (*f)(void) = (void *)VA(0);
	int good = 1;
	for (int i = 0; i < 200; i++) {
		u8 *through = i % 3 == 0 ? code : (u8 *)VA(i % 2);
		*(volatile u8 *)through = 0xb8;
		*(volatile u32 *)(through + 1) = i;
		*(volatile u8 *)(through + 5) = 0xc3;
		good &= f() == i;
	}
	check(good, "self-modifying code, through aliases", "a stale instruction ran");
	// An instruction that rewrites the next one: movb $0x42, 1f+1; 1: mov $0, %al.
	int result;
	for (int i = 0; i < 3; i++) {
		u8 *c = page(6) + 256;
		u8 seq[] = {0xc6, 0x05, 0x01, 0, 0, 0, (u8)(0x40 + i), 0xb0, 0x00, 0x0f, 0xb6, 0xc0, 0xc3};
		for (unsigned k = 0; k < sizeof seq; k++)
			((volatile u8 *)c)[k] = seq[k];
		result = ((int (*)(void))c)();
		check(result == 0x40 + i, "a store into the next instruction", "returned %x", (u64)result);
	}
}

void test_paging(void) {
	test_permissions();
	test_accessed_dirty();
	test_reserved();
	test_large();
	test_crossing();
	test_invalidation();
	test_pcid();
	test_code_change();
}
