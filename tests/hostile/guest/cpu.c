#include "hostile.h"

static u32 odd_msr(struct cpu *c)
{
	static const u32 known[] = {
		0x10, 0x1b, 0x3a, 0x3b, 0x48, 0x49, 0x79, 0x8b, 0xce, 0xfe, 0x10a, 0x10b, 0x122, 0x174, 0x175, 0x176, 0x179, 0x17a,
		0x186, 0x198, 0x199, 0x19a, 0x1a0, 0x1ac, 0x1d9, 0x1f8, 0x200, 0x20f, 0x250, 0x258, 0x268, 0x26f, 0x277, 0x2ff,
		0x309, 0x345, 0x38d, 0x38f, 0x390, 0x400, 0x403, 0x480, 0x48b, 0x4c1, 0x560, 0x570, 0x6e0, 0x770, 0x774, 0x800, 0x802, 0x803,
		0x808, 0x80b, 0x80d, 0x80f, 0x828, 0x82f, 0x830, 0x832, 0x835, 0x838, 0x839, 0x83e, 0x83f, 0xc80, 0xd90, 0xda0,
		0x4b564d00, 0x4b564d01, 0x4b564d02, 0x4b564d03, 0x4b564d04, 0x4b564d05, 0x4b564d06, 0x4b564d07,
		0x40000000, 0x40000001, 0x40000002, 0x40000020, 0x40000073, 0x400000b0, 0x11, 0x12,
		0xc0000080, 0xc0000081, 0xc0000082, 0xc0000083, 0xc0000084, 0xc0000100, 0xc0000101, 0xc0000102, 0xc0000103, 0xc0000104,
		0xc0010000, 0xc0010004, 0xc0010010, 0xc0010015, 0xc001001f, 0xc0010055, 0xc0010114, 0xc0010117, 0xc0010131, 0xc0011022, 0xc0011029,
	};
	switch (below(c, 8)) {
	case 0: return rnd(c);
	case 1: return below(c, 0x2000);
	case 2: return 0xc0000000 + below(c, 0x2000);
	case 3: return 0xc0010000 + below(c, 0x2000);
	case 4: return 0x800 + below(c, 0x100);
	default: return known[below(c, sizeof known / sizeof *known)];
	}
}

static void msr(struct cpu *c)
{
	u32 i = odd_msr(c);
	u64 v = 0;
	int there = TRY(c, v = rdmsr(i)) == -1;
	if (one_in(c, 4))
		return;
	if (!there || one_in(c, 2))
		v = odd_value(c);
	else
		v ^= 1UL << below(c, 64);
	TRY(c, wrmsr(i, v));
}

#define CONTROL(reg) \
	case __COUNTER__: TRY(c, ({ asm volatile("mov %0, %%" #reg : : "r"(v) : "memory"); })); break; \
	case __COUNTER__: TRY(c, ({ asm volatile("mov %%" #reg ", %0" : "=r"(v)); })); break;

static void control(struct cpu *c)
{
	u64 v = one_in(c, 2) ? odd_value(c) : 1UL << below(c, 64);
	u64 cr0 = GOOD_CR0 ^ (one_in(c, 2) ? 1UL << below(c, 64) : odd_value(c));
	u64 cr4 = GOOD_CR4 ^ (one_in(c, 2) ? 1UL << below(c, 64) : odd_value(c));
	u64 cr3 = (u64)pml4 | (rnd(c) & (one_in(c, 2) ? 0x8000000000000fffUL : 0x18));
	unsigned which = below(c, 28);
	if (which == 16 && on_tcg)
		return;
	switch (which) {
	CONTROL(dr0) CONTROL(dr1) CONTROL(dr2) CONTROL(dr3) CONTROL(dr4) CONTROL(dr5) CONTROL(dr6) CONTROL(dr7) CONTROL(cr8) CONTROL(cr2)
	case 20: TRY(c, ({ asm volatile("mov %0, %%cr0; int3" : : "r"(cr0) : "memory"); })); break;
	case 21: TRY(c, ({ asm volatile("mov %0, %%cr4; int3" : : "r"(cr4) : "memory"); })); break;
	case 22: TRY(c, ({ asm volatile("mov %0, %%cr3; int3" : : "r"(cr3) : "memory"); })); break;
	case 23: TRY(c, ({ asm volatile("mov %0, %%cr1" : : "r"(v)); })); break;
	case 24: TRY(c, ({ asm volatile("xsetbv" : : "c"(below(c, 4)), "a"((u32)v), "d"((u32)(v >> 32))); })); break;
	case 25: TRY(c, ({ asm volatile("clts; lmsw %w0; smsw %w0; int3" : : "r"(v & 0xfffe)); })); break;
	case 26: TRY(c, ({ asm volatile("mov %0, %%cr4; mov %1, %%cr3; int3" : : "r"(cr4 & 0x3f06f0), "r"(cr3) : "memory"); })); break;
	default: TRY(c, ({ asm volatile("push %0; popfq; int3" : : "r"(v) : "cc"); })); break;
	}
}

static void descriptors(struct cpu *c)
{
	struct table t = { rnd(c), odd_value(c) };
	struct { u64 type, lo, hi; } inv = { rnd(c) & 0xfff, odd_value(c), odd_value(c) };
	struct { u64 off; u16 sel; } __attribute__((packed)) far = { odd_value(c), below(c, 0x50) };
	u16 sel = below(c, 0x80);
	c->gdt[10 + below(c, 6)] = odd_value(c);
	switch (below(c, 16)) {
	/* Nobody catches what happens while these two are wrong. */
	case 0: TRY(c, ({ asm volatile("cli; sgdt %1; lgdt %0; mov %w2, %%fs; lgdt %1; sti" : : "m"(t), "m"(*(struct table *)c->rest), "r"(0) : "memory"); })); break;
	case 1: TRY(c, ({ asm volatile("cli; sidt %1; lidt %0; lidt %1; sti" : : "m"(t), "m"(*(struct table *)c->rest) : "memory"); })); break;
	case 2: TRY(c, ({ asm volatile("lldt %w0; int3" : : "r"((u64)sel)); })); break;
	case 3:
		if (!on_tcg)
			TRY(c, ({ asm volatile("ltr %w0; int3" : : "r"((u64)sel)); }));
		break;
	case 4: TRY(c, ({ asm volatile("mov %w0, %%fs; mov %w0, %%gs; mov %w0, %%ds; mov %w0, %%es; int3" : : "r"((u64)sel)); })); break;
	case 5: TRY(c, ({ asm volatile("mov %w0, %%ss; int3; int3" : : "r"((u64)sel)); })); break;
	case 6: TRY(c, ({ asm volatile("rex64 ljmp *%0" : : "m"(far)); })); break;
	case 7: TRY(c, ({ asm volatile("rex64 lcall *%0" : : "m"(far)); })); break;
	case 8: TRY(c, ({ asm volatile("invpcid %0, %1" : : "m"(inv.lo), "r"(inv.type & 7)); })); break;
	case 9: TRY(c, ({ asm volatile("invlpg (%0)" : : "r"(inv.lo)); })); break;
	case 10: TRY(c, ({ asm volatile("verr %w0; verw %w0; lar %w0, %k0; lsl %w0, %k0" : : "r"((u64)sel)); })); break;
	case 11: TRY(c, ({ asm volatile("xor %%ecx, %%ecx; monitor; mwait" : : "a"(inv.lo), "d"(0L) : "rcx"); })); break;
	case 12: TRY(c, ({ asm volatile("rdpmc" : : "c"((u32)inv.lo) : "rax", "rdx"); })); break;
	case 13: TRY(c, ({ asm volatile("swapgs; wbinvd; invd; rdtscp; swapgs" : : : "rax", "rcx", "rdx", "memory"); })); break;
	case 14: TRY(c, ({ asm volatile("vmmcall" : : "a"(inv.lo), "b"(inv.hi), "c"(t.base), "d"(inv.type) : "memory"); })); break;
	default: TRY(c, ({ asm volatile("vmcall" : : "a"(inv.lo), "b"(inv.hi), "c"(t.base), "d"(inv.type) : "memory"); })); break;
	}
}

static void identify(struct cpu *c)
{
	u32 r[4], leaf = one_in(c, 2) ? below(c, 0x40) : odd_value(c);
	if (one_in(c, 3))
		leaf = (leaf & 0xff) | 0x80000000 >> below(c, 2);
	cpuid(leaf, odd_value(c), r);
}

void step_msr(struct cpu *c)
{
	switch (below(c, 8)) {
	case 0: control(c); break;
	case 1: descriptors(c); break;
	case 2: identify(c); break;
	default: msr(c); break;
	}
}

/* soup writes bytes that look like instructions more often than chance does. */
static void soup(struct cpu *c, u8 *p, int n)
{
	static const u8 prefix[] = { 0x66, 0x67, 0xf0, 0xf2, 0xf3, 0x2e, 0x36, 0x64, 0x65, 0x40, 0x48, 0x4c, 0x41 };
	static const u8 two[] = { 0x00, 0x01, 0x18, 0x20, 0x22, 0x30, 0x32, 0xae, 0xc7, 0xb0, 0xb1, 0xa2, 0xc0, 0xff, 0x0b, 0x38, 0x3a };
	u8 *end = p + n - 24;
	while (p < end) {
		u8 op = rnd(c);
		while (one_in(c, 3) && p < end)
			*p++ = prefix[below(c, sizeof prefix)];
		if (one_in(c, 3)) {
			*p++ = 0x0f;
			op = one_in(c, 2) ? two[below(c, sizeof two)] : op;
		}
		/* What leaves the VM or stops the CPU comes less often. */
		if ((op == 0xf4 || (op >= 0xe4 && op <= 0xef)) && !one_in(c, 8))
			op = 0x90;
		*p++ = op;
		*p++ = one_in(c, 2) ? 0xc0 | rnd(c) : rnd(c); /* ModRM */
		for (int i = below(c, 6); i > 0; i--)
			*p++ = one_in(c, 2) ? 0 : rnd(c);
	}
	while (p < end + 24)
		*p++ = 0xcc;
}

/* step_code runs bytes of chance, at some privilege and width, on registers that point at something. */
void step_code(struct cpu *c)
{
	static u8 text[MAX_CPUS][2][4096] __attribute__((aligned(4096)));
	static u8 data[MAX_CPUS][4][4096] __attribute__((aligned(4096)));
	u64 regs[15], at = probe(c, 2) + (one_in(c, 4) ? 4096 - below(c, 64) : below(c, 4000));
	u8 *p = text[c->id][0] + (at - probe(c, 2));
	static const u16 modes[][2] = { { 0x08, 0x10 }, { 0x08, 0x10 }, { 0x2b, 0x23 }, { 0x2b, 0x23 }, { 0x1b, 0x23 }, { 0x40, 0x10 }, { 0x48, 0x10 } };
	int mode = below(c, 7), n = 40 + below(c, 60);
	if (one_in(c, 3))
		for (int i = 0; i < n; i++)
			p[i] = rnd(c);
	else
		soup(c, p, n);
	map(c, 2, (u64)text[c->id][0] | P | W | U);
	map(c, 3, (u64)text[c->id][1] | P | W | U);
	for (int i = 0; i < 4; i++)
		map(c, 4 + i, (u64)data[c->id][i] | P | W | U);
	map(c, 8, one_in(c, 4) ? (odd_address(c) & 0xffffffffff000UL) | P | W | U : 0);
	for (int i = 0; i < 15; i++)
		regs[i] = one_in(c, 3) ? odd_value(c) : probe(c, 4) + below(c, 4 * 4096 + 64);
	u64 frame[5] = { at, modes[mode][0], 0x202 | (one_in(c, 8) ? rnd(c) & 0x270dd5 : 0), probe(c, 6), modes[mode][1] };
	TRY(c, go(frame, regs));
}
