#include "suite.h"

struct frame last;
u64 last_cr2;
int (*volatile hook)(struct frame *);
struct tss tss __attribute__((aligned(4096)));
u64 region_pdpt[512] __attribute__((aligned(4096)));
u64 region_pd[512] __attribute__((aligned(4096)));
u64 region_pt[512] __attribute__((aligned(4096)));
static u64 user_pdpt[512] __attribute__((aligned(4096)));
static u64 user_pd[512] __attribute__((aligned(4096)));
u8 pages[16][4096] __attribute__((aligned(4096)));
u8 user_stack[4096] __attribute__((aligned(4096)));
static u8 rsp0[8192] __attribute__((aligned(4096)));

static int passed, failed;

static void put(char c)
{
	while (!(inb(0x3fd) & 0x20))
		;
	outb(0x3f8, c);
}

void print(const char *s)
{
	for (; *s; s++)
		put(*s);
}

void printx(u64 v)
{
	int i = 60;
	print("0x");
	while (i > 0 && !(v >> i))
		i -= 4;
	for (; i >= 0; i -= 4)
		put("0123456789abcdef"[v >> i & 15]);
}

void ok(const char *name, int good)
{
	eq(name, good != 0, 1);
}

void eq(const char *name, u64 got, u64 want)
{
	if (got == want) {
		passed++;
		print("ok ");
		print(name);
	} else {
		failed++;
		print("FAIL ");
		print(name);
		print(" got ");
		printx(got);
		print(" want ");
		printx(want);
	}
	print("\n");
}

const char *name(const char *a, const char *b, const char *c)
{
	static char pool[32 << 10];
	static u64 used;
	const char *parts[] = { a, b, c }, *start = pool + used;
	for (int i = 0; i < 3; i++)
		for (const char *s = parts[i]; *s && used < sizeof pool - 1; s++)
			pool[used++] = *s;
	pool[used] = 0;
	used += used < sizeof pool - 1;
	return start;
}

void dispatch(struct frame *f)
{
	int (*h)(struct frame *) = hook;
	if (h && h(f))
		return;
	last = *f;
	last_cr2 = cr2();
	if (trying)
		recover(f->vector);
	print("FAIL unexpected-trap vector ");
	printx(f->vector);
	print(" error ");
	printx(f->error);
	print(" rip ");
	printx(f->rip);
	print(" cr2 ");
	printx(last_cr2);
	print("\n");
	outb(0xf4, 2);
	for (;;)
		asm volatile("hlt");
}

void set_gate(int vector, void *target, int type_dpl, int ist)
{
	u64 t = (u64)target;
	idt[vector] = (struct gate){ t, 0x08, ist, type_dpl, t >> 16, t >> 32, 0 };
}

u64 segment(u64 base, u32 limit, u32 attr)
{
	return (limit & 0xffff) | (base & 0xffffff) << 16 | (u64)(attr & 0xf0ff) << 40 |
		(u64)(limit >> 16 & 15) << 48 | (base >> 24 & 0xff) << 56;
}

u64 phys(void *p)
{
	return (u64)p;
}

void map(int i, u64 entry)
{
	region_pt[i] = entry;
	invlpg(PAGE(i));
}

void setup_tables(void)
{
	for (int i = 0; i < 256; i++)
		set_gate(i, stubs[i], i == BP || i == OF || i == USER_EXIT ? 0xee : 0x8e, 0);
	tss.rsp[0] = (u64)rsp0 + sizeof rsp0;
	tss.iomap = sizeof tss;
	gdt[6] = segment((u64)&tss, sizeof tss - 1, 0x89);
	gdt[7] = (u64)&tss >> 32;
	pml4[REGION >> 39] = phys(region_pdpt) | P | W | U;
	region_pdpt[0] = phys(region_pd) | P | W | U;
	region_pd[0] = phys(region_pt) | P | W | U;
	pml4[USER_BASE >> 39] = phys(user_pdpt) | P | W | U;
	user_pdpt[0] = phys(user_pd) | P | W | U;
	for (u64 i = 0; i < 8; i++)
		user_pd[i] = i << 21 | PS | P | W | U;
}

int user(void (*code)(void), u64 rdi)
{
	return TRY(go(USER(code), 0x2b, 2, USER(user_stack) + sizeof user_stack - 64, 0x23, rdi));
}

static int feature(u32 leaf, int reg, int bit)
{
	u32 r[4];
	cpuid(0, 0, r);
	if (r[0] < leaf)
		return 0;
	cpuid(leaf, 0, r);
	return r[reg] >> bit & 1;
}

int has_pcid(void) { return feature(1, 2, 17); }
int has_x2apic(void) { return feature(1, 2, 21); }
int has_deadline(void) { return feature(1, 2, 24); }
int has_invpcid(void) { return feature(7, 1, 10); }
int has_smep(void) { return feature(7, 1, 7); }
int has_smap(void) { return feature(7, 1, 20); }
int has_umip(void) { return feature(7, 2, 2); }
int has_fsgsbase(void) { return feature(7, 1, 0); }

/* It is known by its error codes, in which IDT entries have twice their number. */
int on_tcg(void)
{
	idt[0x42].type &= 0x7f;
	TRY(((void (*)(void))int_n[0x42])());
	idt[0x42].type |= 0x80;
	return last.error == 0x42 * 16 + 2;
}

int intel(void)
{
	u32 r[4];
	cpuid(0, 0, r);
	return r[1] == 0x756e6547;
}

int main(void)
{
	outb(0x3fb, 3); /* 8 bits, no parity */
	print("baremetal suite\n");
	test_exceptions();
	test_paging();
	test_segments();
	test_control();
	test_debug();
	test_watch();
	test_calls();
	test_far64();
	test_compat();
	test_code();
	test_interrupts();
	test_apic();
	test_timers();
	test_smp();
	test_fpu();
	test_simd();
	test_align();
	test_legacy();
	print("done: passed ");
	printx(passed);
	print(" failed ");
	printx(failed);
	print("\n");
	outb(0xf4, failed != 0);
	return 0;
}
