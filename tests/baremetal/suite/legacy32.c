/* The legacy modes, compiled for 32 bits (SDM vol. 3A chapters 3 to 7, vol. 3B chapter 20): what their tests share, and paging. */
#include "legacy32.h"

struct check { const char *name; u32 got, want; } legacy_checks[3000];
u32 legacy_count;

void eq(const char *name, u32 got, u32 want)
{
	if (legacy_count < ARRAY_LENGTH(legacy_checks))
		legacy_checks[legacy_count] = (struct check){ name, got, want };
	legacy_count++;
}

const char *name(const char *a, const char *b, const char *c)
{
	static char pool[128 << 10];
	static u32 used;
	const char *parts[] = { a, b, c }, *start = pool + used;
	for (u32 i = 0; i < 3; i++)
		for (const char *s = parts[i]; *s && used < sizeof pool - 1; s++)
			pool[used++] = *s;
	pool[used < sizeof pool - 1 ? used++ : used] = 0;
	return start;
}

struct frame32 last;
u32 last_cr2, last_esp, stack_base, stack_mask, on_tcg32, has_vme;
extern u8 real_code[], real_code_end[], real_stubs[], stack32_top[];
extern u32 saved_efer;

void dispatch32(struct frame32 *f)
{
	last = *f;
	u32 mask = last_ss == DATA ? ~0u : stack_mask;
	last_esp = (f->esp0 & ~mask) | ((f->esp0 + 20) & mask);
	if (f->eflags & 1 << 17) {
		last_ds = f->ds;
		last_es = f->es;
		last_fs = f->fs;
		last_gs = f->gs;
	}
	if (f->cs & 3 || f->eflags & 1 << 17) {
		last_esp = f->esp;
		last_ss = f->ss;
	}
	asm volatile("mov %%cr2, %0" : "=r"(last_cr2));
	recover32(f->vector);
}

/* legacy.S enters with the first two. */
u64 gdt32[32] __attribute__((aligned(16))) = { 0, 0x00cf9b000000ffff, 0x00cf93000000ffff }, idt32[256] __attribute__((aligned(16))), ldt32[8] __attribute__((aligned(16)));
struct tss32 tss32;
struct table32 gdtr32 = { sizeof gdt32 - 1, (u32)gdt32 }, idtr32 = { sizeof idt32 - 1, (u32)idt32 };
u8 data[8192] __attribute__((aligned(4096)));
u8 user_stack[1024] __attribute__((aligned(16)));

u64 segment(u32 base, u32 limit, u32 attr)
{
	return (limit & 0xffff) | (u64)(base & 0xffffff) << 16 | (u64)(attr & 0xf0ff) << 40 | (u64)(limit >> 16 & 15) << 48 | (u64)(base >> 24) << 56;
}

u64 gate(void *target, u32 sel, u32 type, u32 params)
{
	u32 t = (u32)target;
	return (t & 0xffff) | (u64)sel << 16 | (u64)params << 32 | (u64)type << 40 | (u64)(t >> 16) << 48;
}

void copy(u32 to, const u8 *from, const u8 *end)
{
	for (volatile u8 *p = (volatile u8 *)to; from < end;)
		*p++ = *from++;
}

void reset_task(void)
{
	SET(TSS_SEL, &tss32, sizeof tss32 - 1, A_TSS);
	tss32.esp0 = (u32)stack32_top - 8192;
	tss32.ss0 = DATA;
	tss32.iomap = sizeof tss32;
	tss32.trap = 0;
	asm volatile("ltr %w0; lldt %w1; clts" : : "r"(TSS_SEL), "r"(0));
}

static void install(void)
{
	SET(USER_CODE, 0, 0xfffff, A_CODE | A_DPL3 | A_BIG | A_GRAN);
	SET(USER_DATA, 0, 0xfffff, A_DATA | A_DPL3 | A_BIG | A_GRAN);
	SET(REAL_CODE, REAL_BASE, 0xffff, A_CODE);
	SET(DATA16, 0, 0xffff, A_DATA);
	SET(CODE16, SEG16, 0xffff, A_CODE);
	SET(STACK16, STACK16_BASE, 0xffff, A_DATA);
	SET(USER_CODE16, SEG16, 0xffff, A_CODE | A_DPL3);
	SET(USER_DATA16, STACK16_BASE, 0xffff, A_DATA | A_DPL3);
	SET(LDT_SEL, ldt32, sizeof ldt32 - 1, A_LDT);
	for (int i = 0; i < 256; i++)
		idt32[i] = gate(stubs32[i], CODE, i == 0x80 || i == BP || i == OF ? 0xee : 0x8e, 0);
	asm volatile("lidt %0" : : "m"(idtr32));
	stack_base = STACK16_BASE;
	stack_mask = 0xffff;
	reset_task();
	u32 a = 1, b, c, d;
	asm volatile("cpuid" : "+a"(a), "=b"(b), "=c"(c), "=d"(d));
	has_vme = d >> 1 & 1;
}

void enter32(const struct regs *r);

u32 run(const struct regs *r)
{
	return BAD(enter32(r));
}

struct real_state { struct regs r; u16 vector, ss, ds, es, fs, gs, ip, cs; };
#define REAL_STATE ((volatile struct real_state *)0x54000)
void real_go(void);

u32 run_real(const struct regs *r, const struct inherited *keep)
{
	static const struct inherited usual = { DATA16, DATA16, DATA16, DATA16, DATA16 };
	if (!keep)
		keep = &usual;
	copy(REAL_BASE, real_code, real_code_end);
	for (u32 i = 0; i < 256; i++)
		((volatile u32 *)0)[i] = REAL_BASE << 12 | (u32)(real_stubs - real_code + 16 * i);
	volatile struct real_state *s = REAL_STATE;
	*(volatile struct regs *)&s->r = *r;
	s->ss = keep->ss;
	s->ds = keep->ds;
	s->es = keep->es;
	s->fs = keep->fs;
	s->gs = keep->gs;
	s->ip = r->eip;
	s->cs = r->cs;
	real_go();
	last = (struct frame32){ s->r.edi, s->r.esi, s->r.ebp, 0, s->r.ebx, s->r.edx, s->r.ecx, s->r.eax, s->vector, 0,
		s->r.eip & 0xffff, s->r.cs, s->r.eflags & 0xffff, s->r.esp, s->r.ss, s->r.es, s->r.ds, s->r.fs, s->r.gs };
	last_esp = s->r.esp;
	return s->vector;
}

u32 pd[1024] __attribute__((aligned(4096))), pt[1024] __attribute__((aligned(4096)));

void set_cr0(u32 set, u32 clear)
{
	u32 v;
	asm volatile("mov %%cr0, %0" : "=r"(v));
	asm volatile("mov %0, %%cr0" : : "r"((v & ~clear) | set) : "memory");
}

void set_cr4(u32 set, u32 clear)
{
	u32 v;
	asm volatile("mov %%cr4, %0" : "=r"(v));
	asm volatile("mov %0, %%cr4" : : "r"((v & ~clear) | set) : "memory");
}

void set_cr3(u32 v)
{
	asm volatile("mov %0, %%cr3" : : "r"(v) : "memory");
}

#define READ(va) BAD((void)*(volatile u8 *)(va))
#define WRITE(va) BAD(*(volatile u8 *)(va) = 0xc3)
#define EXEC(va) BAD(((void (*)(void))(va))())

void paging_on(void)
{
	set_cr4(0x10, 0x20 | 0x80); /* PSE, no PAE, no PGE */
	for (u32 i = 0; i < 4; i++)
		pd[i] = i << 22 | PS | P | W | U;
	pd[VA >> 22] = (u32)pt | P | W | U;
	set_cr3((u32)pd);
	set_cr0(0x80010000, 0);
}

void paging_off(void)
{
	set_cr0(0, 0x80000000);
	set_cr4(0, 0x10);
}

static void paging(void)
{
	pt[0] = (u32)data | P | W;
	pt[1] = 0;
	pt[2] = (u32)data | P;
	paging_on();
	data[0] = 0xc3;
	eq("32-page-read", READ(PAGE(0)), NONE);
	eq("32-page-a", pt[0] & (A | D), A);
	eq("32-page-write", WRITE(PAGE(0)), NONE);
	eq("32-page-d", pt[0] & (A | D), A | D);
	eq("32-large-a", pd[0] & A, A);
	eq("32-absent-read", READ(PAGE(1)), FAULT(PF, 0));
	eq("32-absent-cr2", last_cr2, PAGE(1));
	eq("32-absent-write", WRITE(PAGE(1)), FAULT(PF, 2));
	eq("32-absent-exec-has-no-id", EXEC(PAGE(1)), FAULT(PF, 0));
	eq("32-read-only-page-write", WRITE(PAGE(2)), FAULT(PF, 3));
	eq("32-exec", EXEC(PAGE(0)), NONE);
	set_cr0(0, 0x10000);
	eq("32-no-wp-write", WRITE(PAGE(2)), NONE);
	set_cr0(0x10000, 0);
	pd[3] |= 1 << 21;
	set_cr3((u32)pd);
	eq("32-pse-reserved", READ(0xc00000), FAULT(PF, 9));
	pd[3] &= ~(1u << 21);
	set_cr3((u32)pd);
	paging_off();
}

static u64 pdpt[4] __attribute__((aligned(32))), pae_pd[512] __attribute__((aligned(4096))), pae_pt[512] __attribute__((aligned(4096)));

static void pae(void)
{
	set_cr4(0x20, 0);
	pdpt[0] = (u32)pae_pd | P;
	for (u32 i = 0; i < 8; i++)
		pae_pd[i] = i << 21 | PS | P | W | U;
	pae_pd[VA >> 21] = (u32)pae_pt | P | W | U;
	pae_pt[0] = (u32)data | P | W;
	pae_pt[1] = (u32)data | P | W | 1ull << 63;
	pae_pt[2] = (u32)data | P | W | 1ull << 52;
	u32 low = saved_efer & ~0x100u, high = 0;
	asm volatile("wrmsr" : : "c"(0xc0000080), "a"(low | 0x800), "d"(high));
	set_cr3((u32)pdpt);
	set_cr0(0x80000000, 0);
	data[0] = 0xc3;
	eq("pae-read", READ(PAGE(0)), NONE);
	eq("pae-write", WRITE(PAGE(0)), NONE);
	eq("pae-ad", pae_pt[0] & (A | D), A | D);
	eq("pae-exec", EXEC(PAGE(0)), NONE);
	eq("pae-nx", EXEC(PAGE(1)), FAULT(PF, 17));
	eq("pae-reserved", READ(PAGE(2)), FAULT(PF, 9));
	eq("pae-absent-pdpte", READ(0x40000000), FAULT(PF, 0));
	pdpt[1] = (u32)pae_pd | P;
	eq("pae-pdpte-held", READ(0x40000000 + (u32)data), FAULT(PF, 0));
	set_cr3((u32)pdpt);
	eq("pae-pdpte-loaded", READ(0x40000000 + (u32)data), NONE);
	pdpt[1] |= 2;
	eq("pae-pdpte-reserved", BAD(set_cr3((u32)pdpt)), FAULT(GP, 0));
	pdpt[1] = 0;
	set_cr3((u32)pdpt);
	set_cr0(0, 0x80000000);
	asm volatile("wrmsr" : : "c"(0xc0000080), "a"(low), "d"(high));
}

void legacy_main(void)
{
	eq("lma-cleared-with-pg", saved_efer >> 10 & 1, 0);
	install();
	segments32();
	paging();
	pae();
	rings32();
	debug32();
	modes16();
	virtual_8086();
	tasks32();
	real_mode();
}
