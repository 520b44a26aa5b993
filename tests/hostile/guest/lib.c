#include "hostile.h"

struct cpu cpus[MAX_CPUS];
_Static_assert(sizeof(struct cpu) == 1 << CPU_SHIFT, "CPU_SHIFT");
_Static_assert(__builtin_offsetof(struct cpu, trying) == TRYING, "TRYING");
_Static_assert(__builtin_offsetof(struct cpu, ist) == STACK, "STACK");
u64 pml4[512] __attribute__((aligned(4096))), pdpt[512] __attribute__((aligned(4096)));
u64 pd[4 * 512] __attribute__((aligned(4096)));
u64 probe_pt[512] __attribute__((aligned(4096)));
static struct gate idt[256] __attribute__((aligned(4096)));
u8 arena[4 << 20] __attribute__((aligned(4096), section(".arena,\"aw\",@nobits#")));
u32 start_info;
volatile u32 started = 1;
u64 low_end, high_end;
int want_cpus = 1, may_end, on_tcg;
extern u8 stubs[256][16], trampoline[], trampoline_end[];
extern const u64 boot_gdt[10];

u64 rnd(struct cpu *c) /* xorshift64* */
{
	c->rng ^= c->rng >> 12;
	c->rng ^= c->rng << 25;
	c->rng ^= c->rng >> 27;
	return c->rng * 0x2545f4914f6cdd1d;
}

u64 odd_value(struct cpu *c)
{
	switch (below(c, 8)) {
	case 0: return 0;
	case 1: return ~0UL;
	case 2: return 1UL << below(c, 64);
	case 3: return ~(1UL << below(c, 64));
	case 4: return below(c, 256);
	case 5: return odd_address(c);
	case 6: return rnd(c) & rnd(c) & rnd(c);
	default: return rnd(c);
	}
}

u64 odd_address(struct cpu *c)
{
	u64 near = below(c, 64) - 32;
	switch (below(c, 16)) {
	case 0: case 1: case 2: return (u64)arena + below(c, sizeof arena);
	case 3: return one_in(c, 100) ? below(c, low_end) : low_end - 1 - below(c, low_end / 2); /* seldom the guest's own */
	case 4: return low_end + near;
	case 5: return high_end + near;
	case 6: return (1UL << 32) + near;
	case 7: return ECAM + below(c, 256 << 20);
	case 8: return ECAM + (u64)functions[below(c, 64)].devfn * 4096 + below(c, 4096);
	case 9: return functions[below(c, function_count + 1)].bar[below(c, 6)] + below(c, 0x5000);
	case 10: return IOAPIC + below(c, 4096);
	case 11: return APIC + below(c, 4096);
	case 12: return 0xfe000000 + below(c, 0x2000000);
	case 13: return (1UL << (36 + below(c, 17))) + near;
	case 14: return ~0UL - below(c, 64);
	default: return rnd(c) >> below(c, 40);
	}
}

/* The serial port is put in order first: others play with it. */
void print(const char *s)
{
	outb(0x3fb, 0x03);
	outb(0x3f9, 0);
	outb(0x3fa, 0x01);
	outb(0x3fc, 0x08);
	for (; *s; s++) {
		for (int i = 0; i < 100000 && !(inb(0x3fd) & 0x20); i++)
			pause();
		outb(0x3f8, *s);
	}
}

void printn(u64 v)
{
	char b[24], *p = b + sizeof b;
	*--p = 0;
	do
		*--p = '0' + v % 10;
	while (v /= 10);
	print(p);
}

u64 probe(struct cpu *c, int i) { return PROBE_BASE + (c->id * PROBES + i) * 4096UL; }

void map(struct cpu *c, int i, u64 entry)
{
	*(volatile u64 *)&probe_pt[c->id * PROBES + i] = entry;
	invlpg(probe(c, i));
}

static u64 segment(u64 base, u32 limit, u32 attr)
{
	return (limit & 0xffff) | (base & 0xffffff) << 16 | (u64)(attr & 0xf0ff) << 40 |
		(u64)(limit >> 16 & 15) << 48 | (base >> 24 & 0xff) << 56;
}

static void set_cr4(u64 v) { asm volatile("mov %0, %%cr4" : : "r"(v) : "memory"); }

/* tables gives c its descriptors and everything that a trap needs. */
static void tables(struct cpu *c)
{
	struct table g = { sizeof c->gdt - 1, (u64)c->gdt }, i = { sizeof idt - 1, (u64)idt };
	for (int n = 0; n < 10; n++)
		c->gdt[n] = boot_gdt[n];
	c->tss.rsp[0] = (u64)c->ist[0] + sizeof c->ist[0];
	for (int n = 0; n < 3; n++)
		c->tss.ist[n] = (u64)c->ist[n] + sizeof c->ist[n];
	c->tss.iomap = 104; /* all ports are user code's, too */
	c->gdt[6] = segment((u64)&c->tss, sizeof c->tss - 1, 0x89);
	c->gdt[7] = (u64)&c->tss >> 32;
	asm volatile("lgdt %0; lidt %1; ltr %w2" : : "m"(g), "m"(i), "r"(0x30) : "memory");
}

/* restore undoes what code of chance may have done to this CPU. */
static void restore(struct cpu *c)
{
	wrmsr(0xc0000080, GOOD_EFER | 0x400);
	asm volatile("mov %0, %%cr3" : : "r"((u64)pml4) : "memory");
	set_cr4(GOOD_CR4);
	asm volatile("mov %0, %%cr0" : : "r"((u64)GOOD_CR0) : "memory");
	asm volatile("mov %0, %%dr7; mov %1, %%dr6" : : "r"(0x400UL), "r"(0xffff0ff0UL));
	if (!on_tcg)
		asm volatile("mov %0, %%cr8" : : "r"(0UL));
	tables(c);
}

static int x2apic(void) { return (rdmsr(0x1b) & 0xc00) == 0xc00; }

static void end_of_interrupt(void)
{
	if (x2apic())
		wrmsr(0x80b, 0);
	else
		REG(u32, APIC + 0xb0) = 0;
}

/* Quiet: whatever interrupts without end is masked. */
static void mask_all(void)
{
	for (int i = 0; i < 24; i++) {
		REG(u32, IOAPIC) = 0x10 + 2 * i;
		REG(u32, IOAPIC + 0x10) = 0x10000;
	}
	outb(0x21, 0xff);
	outb(0xa1, 0xff);
}

/* unlike reports an interrupt with the number of an exception, and makes the frame of one that should have had an
 * error code like that of one that had. */
static int unlike(struct cpu *c, struct frame *f)
{
	if (f->rip == 0x08 && f->cs != 0x08) {
		f->ss = f->rsp;
		f->rsp = f->rflags;
		f->rflags = f->cs;
		f->cs = f->rip;
		f->rip = f->error;
		return 1;
	}
	if (c->trying)
		return 0;
	if (c->odd_rip != f->rip || c->odd_ops != c->ops)
		c->odds = 0;
	c->odd_rip = f->rip;
	c->odd_ops = c->ops;
	return ++c->odds < 1000;
}

void dispatch(struct frame *f)
{
	struct cpu *c = me();
	int external = f->vector >= FIRST_EXTERNAL || f->vector == NMI || f->vector == MC || unlike(c, f);
	if (c->trying) {
		wrmsr(0xc0000080, GOOD_EFER | 0x400);
		set_cr4(GOOD_CR4);
	}
	if (f->vector == DB && !c->trying) {
		asm volatile("mov %0, %%dr7" : : "r"(0x400UL));
		f->rflags &= ~0x100UL;
		return;
	}
	if (external) {
		if (f->vector >= 16)
			end_of_interrupt();
		if (c->ops != c->quiet) {
			c->quiet = c->ops;
			c->storm = 0;
		} else if (++c->storm % 5000 == 0) {
			mask_all();
		}
		if (!c->trying || ++c->ticks < 3)
			return;
	}
	if (!c->trying) {
		print("\nlost: vector ");
		printn(f->vector);
		print(" at ");
		printn(f->rip);
		print("\n");
		struct table none = { 0, 0 };
		asm volatile("lidt %0; int3" : : "m"(none));
	}
	restore(c);
	if ((f->rip ^ f->rip >> 7 ^ f->vector) % 16 == 0) /* a mask left behind must not end the watch */
		repair(c);
	c->ticks = 0;
	recover(c, f->vector);
}

void repair(struct cpu *c)
{
	cli();
	u64 base = rdmsr(0x1b);
	if (!(base & 0x800) || (base & ~0xfffUL) != APIC) {
		wrmsr(0x1b, base & 0x100);
		wrmsr(0x1b, APIC | 0x800 | (base & 0x100));
	}
	static const struct { u32 reg, value; } want[] = {
		{ 0x08, 0 }, { 0x0f, 0x1ff }, { 0x3e, 0xb }, { 0x32, 0x20000 | TICK }, { 0x38, 2000000 },
		{ 0x35, 0x10000 }, { 0x36, 0x400 }, { 0x37, 0x21 },
	};
	for (unsigned i = 0; i < sizeof want / sizeof *want; i++)
		if (x2apic())
			wrmsr(0x800 + want[i].reg, want[i].value);
		else
			REG(u32, APIC + want[i].reg * 16) = want[i].value;
	for (int i = 0; i < 8; i++)
		end_of_interrupt();
	c->storm = 0;
	sti();
}

/* Memory as the start_info's map gives it. */
struct range { u64 addr, size; u32 type, reserved; };

static char *memory(void)
{
	struct { u32 magic, version, flags, modules; u64 modlist, cmdline, rsdp, map; u32 entries; } *s = (void *)(u64)start_info;
	struct range *r = (void *)s->map;
	for (u32 i = 0; i < s->entries; i++) {
		u64 end = r[i].addr + r[i].size;
		if (r[i].type != 1)
			continue;
		if (end <= 1UL << 32 && end > low_end)
			low_end = end;
		if (end > 1UL << 32 && end > high_end)
			high_end = end;
	}
	return (char *)s->cmdline;
}

/* The command line: seed=N cpus=N ends=N tcg=N and, for each CPU in turn, do=NAME,NAME… */
static const struct { const char *name; void (*step)(struct cpu *); } steps[] = {
	{ "ports", step_ports }, { "mmio", step_mmio }, { "msr", step_msr }, { "code", step_code },
	{ "virtio", step_virtio }, { "race", step_race }, { "irq", step_irq }, { "timer", step_timer },
	{ "reset", step_reset }, { "fault", step_fault }, { "all", step_all },
};

static const char *option(const char *line, const char *name)
{
	for (; *line; line++) {
		const char *n = name;
		while (*n && *n == *line)
			n++, line++;
		if (!*n)
			return line;
		while (*line && *line != ' ')
			line++;
		if (!*line)
			break;
	}
	return "";
}

static u64 number(const char *s)
{
	u64 v = 0;
	for (; *s >= '0' && *s <= '9'; s++)
		v = v * 10 + *s - '0';
	return v;
}

/* program returns what the id-th CPU does. */
static void (*program(const char *s, int id))(struct cpu *)
{
	const char *at = s;
	for (int i = 0; i < id; i++) {
		while (*at && *at != ' ' && *at != ',')
			at++;
		at = *at == ',' ? at + 1 : s;
	}
	for (unsigned i = 0; i < sizeof steps / sizeof *steps; i++) {
		const char *n = steps[i].name, *p = at;
		while (*n && *n == *p)
			n++, p++;
		if (!*n && (!*p || *p == ' ' || *p == ','))
			return steps[i].step;
	}
	return step_all;
}

static u64 seed;
static const char *programs;

static void set_up(struct cpu *c, int id)
{
	c->id = id;
	c->rng = (seed + 1) * 0x9e3779b97f4a7c15 + id * 0xbf58476d1ce4e5b9;
	if (!c->rng)
		c->rng = 1;
	c->step = program(programs, id);
	restore(c);
	repair(c);
}

static void run(struct cpu *c) __attribute__((noreturn));
static void run(struct cpu *c)
{
	for (;;) {
		c->step(c);
		u64 n = ++c->ops;
		if (n % 1024 == 0)
			repair(c);
		if (c->id == 0 && (n & (n - 1)) == 0 && n >= 128) {
			u64 all = 0;
			for (int i = 0; i < MAX_CPUS; i++)
				all += cpus[i].ops;
			print("ops ");
			printn(all);
			print(" chains ");
			printn(completed);
			print("\n");
		}
	}
}

void start_others(struct cpu *c)
{
	u8 *low = (u8 *)0x8000;
	for (u8 *p = trampoline; p < trampoline_end; p++)
		*low++ = *p;
	cli();
	repair(c);
	REG(u32, APIC + 0x300) = 0xc4500; /* INIT, then start-up twice, to all others */
	for (int i = 0; i < 2; i++) {
		for (int j = 0; j < 20000; j++)
			pause();
		REG(u32, APIC + 0x300) = 0xc4608;
	}
	for (u64 i = 0; i < 50000000 && started < (u32)want_cpus; i++)
		pause();
}

void first(void)
{
	const char *line = memory();
	seed = number(option(line, "seed="));
	want_cpus = number(option(line, "cpus="));
	may_end = number(option(line, "ends="));
	on_tcg = number(option(line, "tcg="));
	programs = option(line, "do=");
	for (int i = 0; i < 256; i++) {
		u64 t = (u64)stubs[i];
		idt[i] = (struct gate){ t, 0x08, i == NMI ? 2 : i == 8 || i == MC ? 3 : 1, 0xee, t >> 16, t >> 32, 0 };
	}
	/* Nothing is executed but RAM: what jumps elsewhere gets a fault, where an engine would give up. */
	for (u64 i = 0; i < 2048; i++)
		if (i << 21 >= low_end && i != PROBE_BASE >> 21)
			pd[i] |= 1UL << 63;
	struct cpu *c = me();
	set_up(c, 0);
	scan_pci();
	if (want_cpus > 1)
		start_others(c);
	print("hostile: seed ");
	printn(seed);
	print(" cpus ");
	printn(started);
	print("\n");
	run(c);
}

void next(int id)
{
	struct cpu *c = me();
	set_up(c, id);
	run(c);
}
