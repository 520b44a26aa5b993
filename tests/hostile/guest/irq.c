#include "hostile.h"

static void apic_write(u32 reg, u64 v, u32 high)
{
	if ((rdmsr(0x1b) & 0xc00) == 0xc00) {
		wrmsr(0x800 + reg, reg == 0x30 ? (v & 0xffffffff) | (u64)high << 32 : (u32)v);
		return;
	}
	if (reg == 0x30)
		REG(u32, APIC + 0x310) = high;
	REG(u32, APIC + reg * 16) = v;
}

/* Interrupts from this CPU to any. INIT and start-up go to others only: the first CPU has no firmware to begin in. */
static void ipi(struct cpu *c)
{
	u32 mode = below(c, 8), vector = rnd(c) & 0xff, icr = rnd(c) & 0xcc800;
	u32 dest = one_in(c, 3) ? rnd(c) : below(c, MAX_CPUS) << 24;
	if (mode == 5 || mode == 6) {
		if (want_cpus == 1 || c->id != 0 || !one_in(c, 4))
			return;
		icr = 0xc4000; /* all others */
		if (mode == 6)
			vector = one_in(c, 2) ? 8 : vector;
	} else if (mode == 2) {
		mode = 0; /* SMI: nothing handles it */
	}
	TRY(c, apic_write(0x30, icr | mode << 8 | vector, dest));
}

static void apic(struct cpu *c)
{
	static const u8 known[] = { 8, 0xb, 0xd, 0xe, 0xf, 0x28, 0x32, 0x33, 0x34, 0x35, 0x36, 0x37, 0x38, 0x3e };
	u32 reg = one_in(c, 4) ? below(c, 0x100) : known[below(c, sizeof known)];
	if (reg == 0x30)
		return;
	TRY(c, apic_write(reg, odd_value(c), 0));
}

static void ioapic(struct cpu *c)
{
	u32 reg = one_in(c, 8) ? rnd(c) : 0x10 + below(c, 48);
	REG(u32, IOAPIC) = reg;
	u32 v = odd_value(c);
	if (!(reg & 1) && ((v >> 8 & 7) == 5 || (v >> 8 & 7) == 2))
		v &= ~0x700u; /* no INIT or SMI to this CPU */
	REG(u32, IOAPIC + 0x10) = v;
	if (one_in(c, 4))
		(void)REG(u32, IOAPIC + 0x10);
	if (one_in(c, 8))
		REG(u32, IOAPIC + 0x40) = rnd(c);
}

static void pic(struct cpu *c)
{
	static const u16 ports[] = { 0x20, 0x21, 0xa0, 0xa1, 0x4d0, 0x4d1 };
	u16 p = ports[below(c, 6)];
	if (one_in(c, 2))
		outb(p, one_in(c, 2) ? rnd(c) : 0x11);
	else
		inb(p);
}

/* raise makes lines go up and down: the serial port's, the RTC's, PIRQs. */
static void raise(struct cpu *c)
{
	switch (below(c, 5)) {
	case 0: outb(0x3f9, rnd(c)); outb(0x3fc, rnd(c)); break;
	case 1: outb(0x70, 0xb); outb(0x71, rnd(c)); outb(0x70, 0xc); inb(0x71); break;
	case 2: config_write(31 << 3, 0x60 + below(c, 12), 1, rnd(c)); break;
	case 3: outw(0x602, rnd(c)); outw(0x600, rnd(c)); break;
	default: outb(0x43, rnd(c)); outb(0x40 + below(c, 3), rnd(c)); break;
	}
}

/* sleep halts, mostly with a tick to wake up by. */
static void sleep(struct cpu *c)
{
	if (!one_in(c, 20))
		return;
	if (!one_in(c, 200))
		repair(c);
	asm volatile("sti; hlt");
}

void step_irq(struct cpu *c)
{
	switch (below(c, 16)) {
	case 0: apic(c); break;
	case 1: case 2: ioapic(c); break;
	case 3: pic(c); break;
	case 4: raise(c); break;
	case 5: step_virtio(c); break;
	case 6: sti(); for (int i = below(c, 100); i > 0; i--) pause(); break;
	case 7: sleep(c); break;
	case 8: if (one_in(c, 200)) TRY(c, wrmsr(0x1b, APIC | 0xc00 | (rdmsr(0x1b) & 0x100))); break;
	default: ipi(c); break;
	}
}

/* Timers at their extremes. */
static void apic_timer(struct cpu *c)
{
	static const u64 ahead[] = { 0, 1, 2, 100, 10000, 1000000, ~0UL >> 1, 1UL << 63, ~0UL };
	switch (below(c, 4)) {
	case 0: TRY(c, apic_write(0x3e, rnd(c) & 0xb, 0)); break;
	case 1: TRY(c, apic_write(0x32, TICK | (rnd(c) & 0x70000), 0)); break;
	case 2: TRY(c, apic_write(0x38, one_in(c, 2) ? below(c, 4) : odd_value(c), 0)); break;
	default: TRY(c, wrmsr(0x6e0, (one_in(c, 2) ? rdtsc() : 0) + ahead[below(c, sizeof ahead / sizeof *ahead)])); break;
	}
}

static void rtc(u8 reg, u8 v)
{
	outb(0x70, reg);
	outb(0x71, v);
}

void step_timer(struct cpu *c)
{
	switch (below(c, 8)) {
	case 0: case 1: apic_timer(c); break;
	case 2: /* the 8254: every mode, small counts and great ones */
		outb(0x43, rnd(c));
		for (int i = below(c, 4); i > 0; i--)
			outb(0x40 + below(c, 3), one_in(c, 2) ? below(c, 3) : rnd(c));
		if (one_in(c, 4))
			inb(0x40 + below(c, 4));
		outb(0x61, rnd(c) & 3);
		break;
	case 3: rtc(below(c, 0x33), one_in(c, 2) ? rnd(c) : below(c, 60)); break;
	case 4: rtc(0x0a, rnd(c)); rtc(0x0b, rnd(c)); outb(0x70, 0xc); inb(0x71); break;
	case 5: outw(0x602, rnd(c)); outw(0x600, rnd(c)); inl(0x608); break;
	case 6: TRY(c, wrmsr(one_in(c, 2) ? 0x10 : 0x3b, odd_value(c))); break;
	default: sleep(c);
	}
}
