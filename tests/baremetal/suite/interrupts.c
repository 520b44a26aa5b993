/* Interrupt controllers, timers, HLT, shadows, NMI (SDM vol. 3A chapters 6 and 11; 8259A, 82093AA, 8254 data sheets). */
#include "chips.h"

volatile int count[256];
volatile u64 order;
static volatile u64 at_rip;
static int x2apic;

static void eoi(void)
{
	if (x2apic)
		wrmsr(0x80b, 0);
	else
		LAPIC(EOI) = 0;
}

/* on_interrupt counts external vectors 0x50-0x6f and NMIs, and ends those of the local APIC. */
int on_interrupt(struct frame *f)
{
	if (f->vector != NMI && (f->vector < 0x50 || f->vector > 0x6f))
		return 0;
	count[f->vector]++;
	at_rip = f->rip;
	order = order << 8 | f->vector;
	if (f->vector >= 0x50 && f->vector < 0x60)
		eoi();
	else if (f->vector >= 0x60) /* the 8259s */
		outb(0x20, 0x20);
	return 1;
}

void clear_counts(void)
{
	for (int i = 0; i < 256; i++)
		count[i] = 0;
	order = 0;
}

/* wait_for waits with interrupts until vector came n times, or for some ten seconds. */
int wait_for(int vector, int n)
{
	for (u64 since = rdtsc(); early(since) && count[vector] < n;)
		asm volatile("sti; nop; cli");
	return count[vector];
}

void ioapic(int pin, u64 entry)
{
	IOAPIC_SELECT = 0x10 + 2 * pin;
	IOAPIC_DATA = (u32)entry;
	IOAPIC_SELECT = 0x11 + 2 * pin;
	IOAPIC_DATA = entry >> 32;
}

void pit(int mode, u16 value)
{
	outb(0x43, 0x30 | mode << 1);
	outb(0x40, value);
	outb(0x40, value >> 8);
}

void pics(u8 mask)
{
	outb(0x20, 0x11);
	outb(0x21, 0x60);
	outb(0x21, 4);
	outb(0x21, 1);
	outb(0xa0, 0x11);
	outb(0xa1, 0x68);
	outb(0xa1, 2);
	outb(0xa1, 1);
	outb(0x21, mask);
	outb(0xa1, 0xff);
}

static void local_apic(void)
{
	ok("apic-version", (*(volatile u32 *)0xfee00030UL & 0xff) >= 0x10);
	LAPIC(SVR) = 0x1ff;
	LAPIC(TPR) = 0;
	LAPIC(ICR_HIGH) = 0;
	LAPIC(ICR) = 0x40000 | 0x50; /* self */
	eq("self-ipi-waits-for-if", count[0x50], 0);
	eq("self-ipi-irr", LAPIC(IRR + 0x20) >> 16 & 1, 1);
	asm volatile("sti; nop; nop; cli");
	eq("self-ipi", count[0x50], 1);
	eq("eoi-clears-isr", LAPIC(ISR + 0x20), 0);
	set_cr8(5);
	eq("cr8-is-tpr", LAPIC(TPR), 0x50);
	LAPIC(ICR) = 0x40000 | 0x51;
	asm volatile("sti; nop; nop; cli");
	eq("tpr-holds-back", count[0x51], 0);
	LAPIC(TPR) = 0x40;
	asm volatile("sti; nop; nop; cli");
	eq("tpr-lets-through", count[0x51], 1);
	set_cr8(5);
	LAPIC(ICR) = 0x40000 | 0x52;
	asm volatile("sti; nop; mov %0, %%cr8; nop; nop; cli" : : "r"(0UL));
	eq("cr8-lets-through", count[0x52], 1);
	LAPIC(ICR) = 0x40000 | 0x50;
	LAPIC(ICR) = 0x40000 | 0x5f;
	order = 0;
	asm volatile("sti; nop; nop; nop; cli");
	eq("priority-order", order & 0xffff, 0x5f50);
}

extern u8 sti_next[];
static void shadows(void)
{
	LAPIC(ICR) = 0x40000 | 0x50;
	at_rip = 0;
	asm volatile("sti; nop; sti_next: nop; cli; .globl sti_next");
	eq("sti-shadow", at_rip, (u64)sti_next);
	LAPIC(ICR) = 0x40000 | 0x50;
	clear_counts();
	asm volatile("sti; cli; nop");
	eq("sti-cli", count[0x50], 0);
	asm volatile("sti; nop; nop; cli");
	clear_counts();
	LAPIC(ICR) = 0x40000 | 0x50;
	asm volatile("pushfq; orl $0x200, (%%rsp); popfq; cli" : : : "memory", "cc");
	eq("popf-no-shadow", count[0x50], 1);
}

static void timers(void)
{
	clear_counts();
	LAPIC(DIVIDE) = 3; /* 16 */
	LAPIC(LVT_TIMER) = 0x53;
	LAPIC(INITIAL) = 2000;
	ok("timer-counts", LAPIC(CURRENT) <= 2000);
	eq("timer-one-shot", wait_for(0x53, 1), 1);
	eq("timer-stays-at-0", LAPIC(CURRENT), 0);
	LAPIC(LVT_TIMER) = 0x20000 | 0x54;
	LAPIC(INITIAL) = 20000;
	ok("timer-periodic", wait_for(0x54, 3) >= 3);
	LAPIC(INITIAL) = 0;
	LAPIC(LVT_TIMER) = 0x10000 | 0x54;
	asm volatile("sti; nop; nop; cli"); /* one may be waiting */
	clear_counts();
	LAPIC(INITIAL) = 1000;
	for (int i = 0; i < 100000; i++)
		asm volatile("pause");
	asm volatile("sti; nop; nop; cli");
	eq("timer-masked", count[0x54], 0);
	LAPIC(INITIAL) = 0;
	clear_counts();
	LAPIC(LVT_TIMER) = 0x55;
	LAPIC(INITIAL) = 200000;
	asm volatile("sti; hlt; cli");
	eq("hlt-wakes", count[0x55], 1);
	if (has_deadline()) {
		clear_counts();
		LAPIC(LVT_TIMER) = 0x40000 | 0x56;
		asm volatile("mfence");
		wrmsr(0x6e0, rdtsc() + 100000000);
		ok("deadline-armed", rdmsr(0x6e0) != 0);
		eq("deadline", wait_for(0x56, 1), 1);
		eq("deadline-used-up", rdmsr(0x6e0), 0);
		wrmsr(0x6e0, 1);
		eq("deadline-past", wait_for(0x56, 2), 2);
		wrmsr(0x6e0, ~0UL >> 1);
		wrmsr(0x6e0, 0);
		eq("deadline-disarmed", rdmsr(0x6e0), 0);
	}
	LAPIC(LVT_TIMER) = 0x10000;
}

static int in_nmi;
static int on_nmi(struct frame *f)
{
	if (f->vector != NMI)
		return on_interrupt(f);
	count[NMI]++;
	if (count[NMI] == 1) {
		LAPIC(ICR_HIGH) = LAPIC(ID);
		LAPIC(ICR) = 0x4400; /* another NMI: held back until IRET */
		for (int i = 0; i < 1000; i++)
			asm volatile("pause");
		in_nmi = count[NMI];
	}
	return 1;
}

static void nmis(void)
{
	clear_counts();
	hook = on_nmi;
	LAPIC(ICR_HIGH) = LAPIC(ID);
	LAPIC(ICR) = 0x4400;
	for (int i = 0; i < 100000 && count[NMI] < 2; i++)
		asm volatile("pause");
	hook = on_interrupt;
	eq("nmi-with-if-clear", count[NMI] >= 1, 1);
	eq("nmi-masks-nmi", in_nmi, 1);
	eq("iret-unmasks-nmi", count[NMI], 2);
}

static void legacy_controllers(void)
{
	clear_counts();
	pics(0xff);
	ioapic(2, 0x57);
	pit(0, 1000);
	eq("pit-through-ioapic", wait_for(0x57, 1), 1);
	ioapic(2, 0x10057);
	clear_counts();
	pit(0, 1000);
	for (int i = 0; i < 1000000; i++)
		asm volatile("pause");
	asm volatile("sti; nop; nop; cli");
	eq("ioapic-masked", count[0x57], 0);
	LAPIC(LINT0) = 0x700; /* ExtINT */
	pics(0xfe);
	pit(2, 10000);
	ok("pit-through-8259", wait_for(0x60, 2) >= 2);
	outb(0x21, 0xff);
	LAPIC(LINT0) = 0x10000;
	clear_counts();
	IOAPIC_SELECT = 1;
	ok("ioapic-pins", (IOAPIC_DATA >> 16 & 0xff) == 23);
	outb(0x43, 0x30);
	outb(0x43, 0xb0); /* channel 2, mode 0 */
	outb(0x61, (inb(0x61) & ~2) | 1);
	outb(0x42, 0xff);
	outb(0x42, 0x10);
	ok("pit2-low", !(inb(0x61) & 0x20));
	for (u64 since = rdtsc(); early(since) && !(inb(0x61) & 0x20);)
		;
	ok("pit2-out", inb(0x61) & 0x20);
}

static void x2apic_mode(void)
{
	if (!has_x2apic())
		return;
	u64 base = rdmsr(0x1b);
	eq("x2apic-msr-gp-in-xapic", TRY(rdmsr(0x802)), GP);
	wrmsr(0x1b, base | 1 << 10);
	x2apic = 1;
	eq("x2apic-id", rdmsr(0x802), 0);
	clear_counts();
	wrmsr(0x83f, 0x50);
	asm volatile("sti; nop; nop; cli");
	eq("x2apic-self-ipi", count[0x50], 1);
	wrmsr(0x830, 0x51);
	asm volatile("sti; nop; nop; cli");
	eq("x2apic-icr", count[0x51], 1);
	eq("x2apic-write-id-gp", TRY(wrmsr(0x802, 1)), GP);
	eq("x2apic-eoi-nonzero-gp", TRY(wrmsr(0x80b, 1)), GP);
	eq("x2apic-dfr-gp", TRY(rdmsr(0x80e)), GP);
	eq("x2apic-svr-reserved-gp", TRY(wrmsr(0x80f, 1UL << 32)), GP);
	eq("x2apic-to-xapic-gp", TRY(wrmsr(0x1b, base)), GP);
	wrmsr(0x83e, 3);
	wrmsr(0x832, 0x53);
	wrmsr(0x838, 2000);
	eq("x2apic-timer", wait_for(0x53, 1), 1);
	wrmsr(0x1b, base & ~(1UL << 11 | 1 << 10));
	wrmsr(0x1b, base);
	x2apic = 0;
	LAPIC(SVR) = 0x1ff;
}

void test_interrupts(void)
{
	pics(0xff);
	hook = on_interrupt;
	local_apic();
	shadows();
	timers();
	nmis();
	legacy_controllers();
	x2apic_mode();
	LAPIC(SVR) = 0xff;
	hook = 0;
}
