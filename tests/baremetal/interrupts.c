// Interrupts, their shadows, HLT, the local APIC's timer, IOAPIC and PIT (Intel SDM vol. 3A chapters 6 and 11).
#include "suite.h"

#define APIC(off) (*(volatile u32 *)(0xfee00000ull + (off)))
#define IOAPIC_SELECT (*(volatile u32 *)0xfec00000ull)
#define IOAPIC_DATA (*(volatile u32 *)0xfec00010ull)
enum { VECTOR = 0x50, TIMER = 0x51, PIT = 0x52 };

static volatile int got, got_timer, got_pit, got_nmi, nested_nmi;
static volatile u64 got_rip;

static void on_ipi(struct frame *f) {
	got++;
	got_rip = f->rip;
	APIC(0xb0) = 0;
}
static void on_timer(struct frame *f) {
	got_timer++;
	APIC(0xb0) = 0;
}
static void on_pit(struct frame *f) {
	got_pit++;
	APIC(0xb0) = 0;
}
static void self_nmi(void) { APIC(0x300) = 0x44400; }
static void on_nmi(struct frame *f) {
	got_nmi++;
	if (got_nmi == 1) {
		self_nmi();
		for (int i = 0; i < 1000; i++)
			__asm__ volatile("pause");
		nested_nmi = got_nmi - 1;
	}
}

static void self_ipi(void) {
	APIC(0x300) = 0x44000 | VECTOR;
	while (!(APIC(0x200 + VECTOR / 32 * 16) >> (VECTOR % 32) & 1) && !got)
		__asm__ volatile("pause");
}

static void test_shadows(void) {
	u64 spot;
	got = 0;
	self_ipi();
	check(got == 0, "IF clear holds an interrupt", "%d", (long)got);
	__asm__ volatile("sti; cli" ::: "memory");
	check(got == 0, "STI; CLI takes none: the shadow", "%d", (long)got);
	__asm__ volatile("leaq 1f(%%rip), %0; sti; nop; 1: nop; cli" : "=r"(spot)::"memory");
	check(got == 1 && got_rip == spot, "an interrupt after STI's shadow", "%d at %x, want %x", (long)got, got_rip, spot);
	got = 0;
	self_ipi();
	__asm__ volatile("movw %%ss, %%ax; pushfq; orq $0x200, (%%rsp); movw %%ax, %%ss; popfq; leaq 1f(%%rip), %0; 1: nop; cli" : "=r"(spot)::"rax", "memory");
	check(got == 1, "POPF opens at once", "%d", (long)got);
	got = 0;
	self_ipi();
	WRITE_CR(8, VECTOR >> 4);
	__asm__ volatile("sti; nop; nop; cli" ::: "memory");
	check(got == 0, "CR8 holds the vector's class", "%d", (long)got);
	WRITE_CR(8, 0);
	__asm__ volatile("sti; nop; nop; cli" ::: "memory");
	check(got == 1, "CR8 lowered lets it through", "%d", (long)got);
}

static void test_nmi(void) {
	got_nmi = nested_nmi = 0;
	self_nmi();
	for (int i = 0; i < 100000 && got_nmi < 2; i++)
		__asm__ volatile("pause");
	check(got_nmi == 2 && nested_nmi == 0, "an NMI during an NMI waits for IRET", "%d NMIs, %d nested", (long)got_nmi, (long)nested_nmi);
}

// hlt waits in HLT until *n reaches want; it gives up after 2^36 TSC ticks.
static int hlt(volatile int *n, int want) {
	u64 start = rdtsc();
	while (*n < want && rdtsc() - start < 1ull << 36)
		__asm__ volatile("sti; hlt; cli" ::: "memory");
	return *n;
}

static void test_timer(void) {
	APIC(0x3e0) = 0xb; // divide by 1
	APIC(0x320) = TIMER;
	got_timer = 0;
	APIC(0x380) = 1000000;
	u32 first = APIC(0x390);
	check(first <= 1000000 && first > 0, "the timer's current count falls", "%x", (u64)first);
	check(hlt(&got_timer, 1) == 1, "one-shot timer wakes HLT", "%d", (long)got_timer);
	check(APIC(0x390) == 0, "one-shot stops at 0", "%x", (u64)APIC(0x390));
	APIC(0x320) = TIMER | 1 << 17;
	got_timer = 0;
	APIC(0x380) = 1000000;
	check(hlt(&got_timer, 3) >= 3, "periodic timer", "%d", (long)got_timer);
	APIC(0x380) = 0;
	APIC(0x320) = TIMER | 1 << 16;
	if (cpuid(1, 0).c >> 24 & 1) {
		APIC(0x320) = TIMER | 2 << 17;
		__asm__ volatile("mfence");
		got_timer = 0;
		wrmsr(0x6e0, rdtsc() + 1000000);
		check(hlt(&got_timer, 1) == 1 && rdmsr(0x6e0) == 0, "TSC-deadline timer", "%d, deadline %x", (long)got_timer, rdmsr(0x6e0));
		APIC(0x320) = TIMER | 1 << 16;
	} else {
		print("note: no TSC-deadline timer on this CPU\n");
	}
}

static void redirect(int pin, u32 high, u32 low) {
	IOAPIC_SELECT = 0x11 + 2 * pin;
	IOAPIC_DATA = high;
	IOAPIC_SELECT = 0x10 + 2 * pin;
	IOAPIC_DATA = low;
}

static void test_pit(void) {
	IOAPIC_SELECT = 1;
	check((IOAPIC_DATA >> 16 & 0xff) == 23, "IOAPIC has 24 pins", "%x", (u64)IOAPIC_DATA);
	redirect(2, APIC(0x20) & 0xff000000, PIT);
	got_pit = 0;
	outb(0x43, 0x34); // channel 0, mode 2
	outb(0x40, 0x9c);
	outb(0x40, 0x2e); // 100 Hz
	check(hlt(&got_pit, 3) >= 3, "PIT through IOAPIC pin 2", "%d", (long)got_pit);
	redirect(2, 0, 1 << 16);
	outb(0x43, 0x30);
}

static void test_x2apic(void) {
	if (!(cpuid(1, 0).c >> 21 & 1))
		return;
	u64 base = rdmsr(0x1b);
	wrmsr(0x1b, base | 1 << 10);
	check(rdmsr(0x802) == cpuid(1, 0).b >> 24, "x2APIC ID", "%x", rdmsr(0x802));
	got = 0;
	hooks[VECTOR + 1] = 0;
	wrmsr(0x83f, VECTOR); // SELF IPI
	__asm__ volatile("sti; nop; nop; nop; cli" ::: "memory");
	check(got >= 1, "x2APIC self IPI", "%d", (long)got);
}

static void on_ipi_x2(struct frame *f) {
	got++;
	wrmsr(0x80b, 0);
}

void test_interrupts(void) {
	outb(0x21, 0xff); // the 8259s are silent
	outb(0xa1, 0xff);
	APIC(0xf0) = 0x1ff;
	hooks[VECTOR] = on_ipi;
	hooks[TIMER] = on_timer;
	hooks[PIT] = on_pit;
	hooks[2] = on_nmi;
	test_shadows();
	test_nmi();
	test_timer();
	test_pit();
	hooks[VECTOR] = on_ipi_x2;
	test_x2apic();
}
