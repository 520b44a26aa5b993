/* Local APIC and I/O APIC in detail (SDM vol. 3A chapter 11; 82093AA data sheet). interrupts.c has the first steps. */
#include "chips.h"

#define SELF 0x40000
#define OPEN asm volatile("sti; nop; nop; nop; cli" : : : "memory")

static int bit(int reg, int vector) { return LAPIC(reg + (vector >> 5) * 16) >> (vector & 31) & 1; }

static void registers(void)
{
	u32 version = LAPIC(VERSION);
	ok("apic-max-lvt", (version >> 16 & 0xff) >= 3);
	LAPIC(VERSION) = 0;
	eq("apic-version-read-only", LAPIC(VERSION), version);
	eq("apic-id", LAPIC(ID), 0);
	LAPIC(SVR) = 0x1ff;
	eq("svr", LAPIC(SVR) & 0x1ff, 0x1ff);
	LAPIC(LDR) = ~0U;
	eq("ldr-reserved", LAPIC(LDR), 0xff000000);
	LAPIC(DFR) = 0;
	eq("dfr-ones", LAPIC(DFR), 0x0fffffff);
	LAPIC(DFR) = ~0U;
	LAPIC(LVT_ERROR) = 0x105a;
	eq("lvt-status-read-only", LAPIC(LVT_ERROR), 0x5a);
	LAPIC(LVT_TIMER) = 0x55;
	LAPIC(LINT1) = 0x400;
	LAPIC(SVR) = 0xff;
	eq("disabled-masks-timer", LAPIC(LVT_TIMER), 0x10055);
	eq("disabled-masks-lint1", LAPIC(LINT1), 0x10400);
	eq("disabled-masks-error", LAPIC(LVT_ERROR), 0x1005a);
	LAPIC(LVT_TIMER) = 0x56;
	eq("disabled-keeps-mask", LAPIC(LVT_TIMER), 0x10056);
	LAPIC(ICR) = SELF | 0x50;
	eq("disabled-takes-no-ipi", bit(IRR, 0x50), 0);
	LAPIC(SVR) = 0x1ff;
	eq("enabled-stays-masked", LAPIC(LVT_TIMER), 0x10056);
	LAPIC(DIVIDE) = 0xb;
	eq("divide", LAPIC(DIVIDE), 0xb);
	LAPIC(ICR_HIGH) = 0x07000000;
	eq("icr-high", LAPIC(ICR_HIGH) >> 24, 7);
	LAPIC(ICR) = SELF | 0x51;
	eq("icr-reads-back", LAPIC(ICR), SELF | 0x51);
	clear_counts();
	OPEN;
	eq("icr-self", count[0x51], 1);
	LAPIC(EOI) = 0;
	eq("eoi-of-nothing", bit(ISR, 0x51), 0);
}

/* on_illegal also ends the vectors below 16 of which some APICs make interrupts. */
static int on_illegal(struct frame *f)
{
	if (f->vector != BR && f->vector != UD)
		return on_interrupt(f);
	LAPIC(EOI) = 0;
	return 1;
}

static void errors(void)
{
	clear_counts();
	hook = on_illegal;
	LAPIC(LVT_ERROR) = 0x1005a;
	LAPIC(ESR) = 0;
	LAPIC(ESR) = 0;
	eq("esr-clear", LAPIC(ESR), 0);
	LAPIC(ICR) = SELF | 5;
	eq("esr-before-write", LAPIC(ESR), 0);
	LAPIC(ESR) = 0;
	eq("esr-send-vector", LAPIC(ESR), 0x20);
	LAPIC(ESR) = 0;
	eq("esr-cleared-by-write", LAPIC(ESR), 0);
	(void)LAPIC(0);
	LAPIC(ESR) = 0;
	eq("esr-no-register", LAPIC(ESR), 0x80);
	LAPIC(DIVIDE) = 0xb;
	LAPIC(LVT_TIMER) = 5;
	LAPIC(INITIAL) = 10;
	for (u64 since = rdtsc(); early(since) && LAPIC(CURRENT);)
		asm volatile("pause");
	for (int i = 0; i < 300 && (LAPIC(ESR) = 0, !LAPIC(ESR)); i++)
		for (int j = 0; j < 3000; j++)
			asm volatile("pause");
	eq("esr-received-vector", LAPIC(ESR) & 0x40, 0x40);
	LAPIC(LVT_TIMER) = 0x10000;
	LAPIC(ESR) = 0;
	LAPIC(LVT_ERROR) = 0x5a;
	LAPIC(ICR) = SELF | 6;
	OPEN;
	eq("error-interrupt", count[0x5a], 1);
	LAPIC(ESR) = 0;
	LAPIC(LVT_ERROR) = 0x10000;
	hook = on_interrupt;
}

/* nest is a hook whose first interrupt, 0x55, looks around and lets others in. */
static u32 seen_ppr[4], seen_isr, seen_irr, seen_tmr;
static int same_class, higher_class, higher_isr, nested;
static int nest(struct frame *f)
{
	if (f->vector != 0x55 || nested++)
		return on_interrupt(f);
	seen_isr = bit(ISR, 0x55);
	seen_irr = bit(IRR, 0x55);
	seen_tmr = bit(TMR, 0x55);
	static const u8 priorities[] = { 0, 0x4f, 0x52, 0x70 };
	for (int i = 0; i < 4; i++) {
		LAPIC(TPR) = priorities[i];
		seen_ppr[i] = LAPIC(PPR);
	}
	LAPIC(TPR) = 0;
	LAPIC(ICR) = SELF | 0x5f;
	LAPIC(ICR) = SELF | 0x61;
	OPEN;
	same_class = count[0x5f];
	higher_class = count[0x61];
	higher_isr = bit(ISR, 0x61); /* the hook ends 0x61 at the 8259s only */
	LAPIC(EOI) = 0;
	higher_isr = higher_isr << 4 | bit(ISR, 0x61) << 1 | bit(ISR, 0x55);
	LAPIC(ICR) = SELF | 0x55;
	LAPIC(ICR) = SELF | 0x55;
	LAPIC(EOI) = 0;
	count[0x55]++;
	return 1;
}

static void priorities(void)
{
	clear_counts();
	LAPIC(TPR) = 0x47;
	eq("ppr-is-tpr", LAPIC(PPR), 0x47);
	LAPIC(TPR) = 0;
	hook = nest;
	LAPIC(ICR) = SELF | 0x55;
	LAPIC(ICR) = SELF | 0x55;
	OPEN;
	OPEN;
	hook = on_interrupt;
	eq("in-service", seen_isr, 1);
	eq("no-longer-requested", seen_irr, 0);
	eq("edge-tmr", seen_tmr, 0);
	eq("ppr-of-service", seen_ppr[0], 0x50);
	eq("ppr-lower-tpr", seen_ppr[1], 0x50);
	eq("ppr-same-class-tpr", seen_ppr[2], 0x52);
	eq("ppr-higher-tpr", seen_ppr[3], 0x70);
	eq("same-class-waits", same_class, 0);
	eq("higher-class-nests", higher_class, 1);
	eq("eoi-ends-highest", higher_isr, 0x11);
	eq("same-class-later", count[0x5f], 1);
	eq("requests-merge", count[0x55], 2);
	eq("all-ended", LAPIC(PPR), 0);
	clear_counts();
	set_cr8(15);
	LAPIC(ICR) = SELF | 0x50;
	OPEN;
	eq("cr8-15-blocks", count[0x50], 0);
	LAPIC(TPR) = 0x4f;
	eq("cr8-of-tpr", cr8(), 4);
	OPEN;
	eq("tpr-subclass-does-not-count", count[0x50], 1);
	LAPIC(TPR) = 0;
}

/* arrives sends one fixed interrupt to dest and says how often it came. */
static int arrives(u32 dest, u32 icr)
{
	clear_counts();
	LAPIC(ICR_HIGH) = dest << 24;
	LAPIC(ICR) = icr | 0x52;
	for (int i = 0; i < 1000 && LAPIC(ICR) & 0x1000; i++)
		asm volatile("pause");
	OPEN;
	return count[0x52];
}

#define LOGICAL 0x800
static void destinations(void)
{
	eq("dest-own-id", arrives(0, 0), 1);
	eq("dest-other-id", arrives(0x0e, 0), 0);
	eq("dest-broadcast", arrives(0xff, 0), 1);
	eq("dest-lowest-physical-broadcast", arrives(0xff, 0x100), 1);
	eq("dest-assert-level", arrives(0, 0x4000), 1);
	eq("idle-after", LAPIC(ICR) >> 12 & 1, 0);
	LAPIC(DFR) = ~0U;
	LAPIC(LDR) = 4 << 24;
	eq("flat-own", arrives(4, LOGICAL), 1);
	eq("flat-among", arrives(0x1c, LOGICAL), 1);
	eq("flat-other", arrives(8, LOGICAL), 0);
	eq("flat-all", arrives(0xff, LOGICAL), 1);
	eq("flat-lowest", arrives(4, LOGICAL | 0x100), 1);
	eq("flat-nobody", arrives(0, LOGICAL), 0);
	LAPIC(DFR) = 0x0fffffff;
	LAPIC(LDR) = 0x21 << 24;
	eq("cluster-own", arrives(0x21, LOGICAL), 1);
	eq("cluster-among", arrives(0x23, LOGICAL), 1);
	eq("cluster-other-member", arrives(0x22, LOGICAL), 0);
	eq("cluster-other", arrives(0x31, LOGICAL), 0);
	eq("cluster-all", arrives(0xff, LOGICAL), 1);
	LAPIC(DFR) = ~0U;
	LAPIC(LDR) = 0x01000000;
	eq("shorthand-self", arrives(0x0e, SELF), 1);
	eq("shorthand-all", arrives(0x0e, 0x80000), 1);
	eq("shorthand-others", arrives(0, 0xc0000), 0);
	clear_counts();
	LAPIC(ICR_HIGH) = 0x01000000;
	LAPIC(ICR) = 0x4400 | LOGICAL;
	OPEN;
	eq("nmi-logical", count[NMI], 1);
	LAPIC(ICR_HIGH) = 0;
	LAPIC(ICR) = 0x88500; /* INIT's de-assertion does nothing */
	eq("init-deassert", LAPIC(SVR) & 0x100, 0x100);
}

static void timer(void)
{
	clear_counts();
	LAPIC(DIVIDE) = 0xb; /* 1 */
	LAPIC(LVT_TIMER) = 0x10053;
	LAPIC(DIVIDE) = 0xa; /* 128 */
	LAPIC(INITIAL) = 0x7fffffff;
	eq("timer-initial", LAPIC(INITIAL), 0x7fffffff);
	u32 was = 0x7fffffff;
	int down = 1;
	for (int i = 0; i < 1000; i++) {
		u32 is = LAPIC(CURRENT);
		down &= is <= was;
		was = is;
	}
	ok("timer-counts-down", down && was < 0x7fffffff);
	LAPIC(DIVIDE) = 0xa; /* 128: minutes */
	LAPIC(INITIAL) = 0x7fffffff;
	LAPIC(CURRENT) = 5;
	ok("timer-current-read-only", LAPIC(CURRENT) > 5);
	LAPIC(INITIAL) = 0xffffffff;
	ok("timer-restarts", LAPIC(CURRENT) > 0x7fffffff);
	LAPIC(DIVIDE) = 0xb;
	LAPIC(INITIAL) = 0;
	eq("timer-stops", LAPIC(CURRENT), 0);
	LAPIC(INITIAL) = 3000000;
	LAPIC(LVT_TIMER) = 0x53; /* unmasked on the way */
	eq("timer-unmasked", wait_for(0x53, 1), 1);
	OPEN;
	eq("timer-once", count[0x53], 1);
	LAPIC(LVT_TIMER) = 0x30053;
	LAPIC(INITIAL) = 50000000; /* many ticks of a host that is a guest itself */
	int inside = 1, reloaded = 0;
	was = LAPIC(CURRENT);
	for (u64 since = rdtsc(); early(since) && !reloaded;) {
		u32 is = LAPIC(CURRENT);
		inside &= is <= 50000000;
		reloaded = is > was;
		was = is;
	}
	ok("timer-reloads", reloaded);
	ok("timer-within-period", inside);
	LAPIC(INITIAL) = 0;
	LAPIC(LVT_TIMER) = 0x10000;
	if (!has_deadline())
		return;
	wrmsr(0x6e0, 1UL << 62);
	eq("deadline-outside-its-mode", rdmsr(0x6e0), 0);
	LAPIC(LVT_TIMER) = 0x40053;
	LAPIC(INITIAL) = 1000;
	eq("deadline-ignores-initial", LAPIC(CURRENT), 0);
	wrmsr(0x6e0, 1UL << 62);
	eq("deadline-reads-back", rdmsr(0x6e0), 1UL << 62);
	eq("deadline-current-0", LAPIC(CURRENT), 0);
	LAPIC(LVT_TIMER) = 0x53;
	eq("deadline-ends-with-mode", rdmsr(0x6e0), 0);
	LAPIC(LVT_TIMER) = 0x50053; /* masked */
	asm volatile("mfence");
	clear_counts();
	wrmsr(0x6e0, rdtsc());
	OPEN;
	eq("deadline-masked", count[0x53], 0);
	LAPIC(LVT_TIMER) = 0x10000;
}

static void x2apic(void)
{
	static const struct { u8 first, last; char how; } table[] = { /* SDM table 11-6: r read, w write, b both, 0 none */
		{ 0x00, 0x01, 0 }, { 0x02, 0x03, 'r' }, { 0x04, 0x07, 0 }, { 0x08, 0x08, 'b' }, { 0x09, 0x09, 0 }, { 0x0a, 0x0a, 'r' },
		{ 0x0b, 0x0b, 'w' }, { 0x0c, 0x0c, 0 }, { 0x0d, 0x0d, 'r' }, { 0x0e, 0x0e, 0 }, { 0x0f, 0x0f, 'b' }, { 0x10, 0x27, 'r' },
		{ 0x28, 0x28, 'b' }, { 0x29, 0x2e, 0 }, { 0x30, 0x30, 'b' }, { 0x31, 0x31, 0 }, { 0x32, 0x32, 'b' }, { 0x35, 0x38, 'b' },
		{ 0x39, 0x39, 'r' }, { 0x3a, 0x3d, 0 }, { 0x3e, 0x3e, 'b' }, { 0x3f, 0x3f, 'w' }, { 0x40, 0xff, 0 },
	};
	if (!has_x2apic())
		return;
	u64 base = rdmsr(0x1b);
	eq("x2apic-needs-enable", TRY(wrmsr(0x1b, (base & ~(1UL << 11)) | 1 << 10)), GP);
	wrmsr(0x1b, base | 1 << 10);
	for (unsigned i = 0; i < sizeof table / sizeof *table; i++)
		for (u32 reg = table[i].first; reg <= table[i].last; reg++) {
			char how = table[i].how;
			static char digits[3];
			digits[0] = "0123456789abcdef"[reg >> 4];
			digits[1] = "0123456789abcdef"[reg & 15];
			u64 v = 0;
			int reads = TRY(v = rdmsr(0x800 + reg)) == NOTRAP, want = how == 'r' || how == 'b';
			if (reads != want || reg < 0x40) /* the many that are not there speak up only if they are */
				eq(name("x2apic-read-", digits, ""), reads, want);
			want = how == 'w' || how == 'b';
			if (reg == 0x30 || reg == 0x3f)
				v = SELF | 0x50;
			if (reg == 0x28)
				v = 0;
			int writes = TRY(wrmsr(0x800 + reg, reg == 0x3f ? 0x50 : v)) == NOTRAP;
			if (writes != want || reg < 0x40)
				eq(name("x2apic-write-", digits, ""), writes, want);
		}
	clear_counts();
	static const struct { const char *name; u32 reg; u64 v; } reserved[] = {
		{ "tpr", 8, 0x100 }, { "tpr-high", 8, 1UL << 32 }, { "esr", 0x28, 1 }, { "icr-20", 0x30, 1 << 20 | 0x50 }, { "icr-13", 0x30, 1 << 13 | 0x50 },
		{ "lvt-timer", 0x32, 1 << 20 }, { "lvt-lint0", 0x35, 1 << 17 }, { "lvt-error", 0x37, 1 << 8 }, { "initial", 0x38, 1UL << 32 },
		{ "divide", 0x3e, 4 }, { "self", 0x3f, 0x100 }, { "svr", 0x0f, 1 << 13 },
	};
	for (unsigned i = 0; i < sizeof reserved / sizeof *reserved; i++)
		eq(name("x2apic-reserved-", reserved[i].name, ""), TRY(wrmsr(0x800 + reserved[i].reg, reserved[i].v)), GP);
	wrmsr(0x80f, 0x1ff); /* some APICs took those */
	wrmsr(0x808, 0);
	eq("x2apic-ldr", rdmsr(0x80d), 1);
	wrmsr(0x808, 0x60);
	eq("x2apic-tpr-is-cr8", cr8(), 6);
	eq("x2apic-ppr", rdmsr(0x80a), 0x60);
	wrmsr(0x808, 0);
	wrmsr(0x830, 7UL << 32 | 0x52);
	eq("x2apic-icr-reads-back", rdmsr(0x830), 7UL << 32 | 0x52);
	static const struct { const char *name; u64 icr; int n; } sent[] = {
		{ "own-id", 0x52, 1 }, { "other-id", 9UL << 32 | 0x52, 0 }, { "broadcast", 0xffffffffUL << 32 | 0x52, 1 },
		{ "xapic-broadcast", 0xffUL << 32 | 0x52, 0 }, { "logical", 1UL << 32 | LOGICAL | 0x52, 1 },
		{ "logical-among", 3UL << 32 | LOGICAL | 0x52, 1 }, { "logical-other", 4UL << 32 | LOGICAL | 0x52, 0 },
		{ "logical-other-cluster", 0x10001UL << 32 | LOGICAL | 0x52, 0 }, { "logical-all", 0xffffffffUL << 32 | LOGICAL | 0x52, 1 },
		{ "shorthand-self", 9UL << 32 | SELF | 0x52, 1 },
	};
	for (unsigned i = 0; i < sizeof sent / sizeof *sent; i++) {
		clear_counts();
		wrmsr(0x830, sent[i].icr);
		asm volatile("cli");
		int n = rdmsr(0x822) >> 18 & 1;
		eq(name("x2apic-", sent[i].name, ""), n, sent[i].n);
		if (n) { /* on_interrupt ends by the page, which is not there now */
			wrmsr(0x808, 0);
			asm volatile("sti; nop; cli");
		}
		wrmsr(0x80b, 0);
	}
	eq("x2apic-page-gone", TRY((void)LAPIC(VERSION)), NOTRAP);
	ok("x2apic-page-gone-value", LAPIC(VERSION) != (u32)rdmsr(0x803));
	wrmsr(0x1b, base & ~(1UL << 11 | 1 << 10));
	eq("apic-off-cpuid", ({ u32 r[4]; cpuid(1, 0, r); r[3] >> 9 & 1; }), 0);
	eq("apic-off-to-x2apic", TRY(wrmsr(0x1b, base | 1 << 10)), GP);
	wrmsr(0x1b, base);
	eq("apic-on-again-svr", LAPIC(SVR), 0xff);
	eq("apic-on-again-lvt", LAPIC(LVT_TIMER), 0x10000);
	eq("apic-on-again-id", LAPIC(ID), 0);
	LAPIC(SVR) = 0x1ff;
}

/* The serial port's transmitter is a level: raised while it is empty and asked for, lowered by reading IIR. */
static int level_tmr, level_remote, level_stays;
static int on_level(struct frame *f)
{
	if (f->vector != 0x5b)
		return on_interrupt(f);
	level_tmr = bit(TMR, 0x5b);
	IOAPIC_SELECT = 0x10 + 2 * 4;
	level_remote = IOAPIC_DATA >> 14 & 1;
	if (count[0x5b] >= level_stays) {
		inb(0x3fa);
		outb(0x3f9, 0);
	}
	return on_interrupt(f);
}

static void io(void)
{
	ioapic(23, ~0UL);
	eq("ioapic-entry-low", IOAPIC_DATA >> 24, 0xff);
	IOAPIC_SELECT = 0x10 + 2 * 23;
	eq("ioapic-entry-read-only", IOAPIC_DATA & 0x15fff & ~0xafff, 0x10000);
	eq("ioapic-entry-kept", IOAPIC_DATA & 0xafff, 0xafff);
	ioapic(23, 0x10000);
	IOAPIC_SELECT = 1;
	u32 v = IOAPIC_DATA;
	IOAPIC_DATA = 0;
	eq("ioapic-version-read-only", IOAPIC_DATA, v);

	clear_counts();
	hook = on_level;
	outb(0x3fc, 8);
	level_stays = 2;
	ioapic(4, 0x805b); /* level */
	outb(0x3f9, 2);
	for (int i = 0; i < 100000 && count[0x5b] < 3; i++)
		OPEN;
	eq("level-until-lowered", count[0x5b], 3);
	eq("level-tmr", level_tmr, 1);
	eq("level-remote-irr", level_remote, 1);
	IOAPIC_SELECT = 0x10 + 2 * 4;
	eq("level-remote-irr-ends", IOAPIC_DATA >> 14 & 1, 0);
	clear_counts();
	level_stays = 0;
	ioapic(4, 0x1805b);
	outb(0x3f9, 2);
	OPEN;
	eq("level-masked", count[0x5b], 0);
	ioapic(4, 0x805b);
	for (int i = 0; i < 100000 && !count[0x5b]; i++)
		OPEN;
	eq("level-unmasked", count[0x5b], 1);
	clear_counts();
	ioapic(4, 0x5b); /* edge */
	outb(0x3f9, 2);
	for (int i = 0; i < 100000 && !count[0x5b]; i++)
		OPEN;
	eq("edge-once", count[0x5b], 1);
	LAPIC(LDR) = 0x02000000;
	static const struct { const char *name; u64 entry; int vector, n; } pins[] = {
		{ "logical", 2UL << 56 | 0x85b, 0x5b, 1 }, { "logical-other", 4UL << 56 | 0x85b, 0x5b, 0 },
		{ "lowest", 2UL << 56 | 0x95b, 0x5b, 1 }, { "other-id", 7UL << 56 | 0x5b, 0x5b, 0 }, { "nmi", 0x400, NMI, 1 },
	};
	for (unsigned i = 0; i < sizeof pins / sizeof *pins; i++) {
		clear_counts();
		ioapic(4, pins[i].entry);
		outb(0x3f9, 2);
		for (int j = 0; j < 10000 && !count[pins[i].vector]; j++)
			OPEN;
		eq(name("ioapic-", pins[i].name, ""), count[pins[i].vector], pins[i].n);
		inb(0x3fa);
		outb(0x3f9, 0);
	}
	ioapic(4, 0x10000);
	outb(0x3fc, 3);
	hook = on_interrupt;
}

void test_apic(void)
{
	pics(0xff);
	hook = on_interrupt;
	registers();
	errors();
	priorities();
	destinations();
	timer();
	io();
	x2apic();
	OPEN; /* nothing must wait for the parts that follow */
	LAPIC(SVR) = 0xff;
	hook = 0;
}
