/* A second vCPU: INIT and start-up, IPIs of all kinds, TLB shoot-down (SDM vol. 3A §8.4, §9.1, §11.6, §4.10.5). */
#include "chips.h"

/* What the second vCPU does first, at CODE: it notes its state and enters long mode with this image's tables. */
#define CODE 0x8000UL
struct notes { u32 cr0, edx, flags; u16 cs, ds, ss, sp; u32 cr4; };
#define NOTES ((volatile struct notes *)(CODE + 0xf00))
extern u8 ap_code[], ap_code_end[];
asm(".text\n.code16\n"
	"ap_code:\n"
	"mov %ds, %cs:0xf0e\n" /* the first store shows that CS's base is CODE */
	"mov %ss, %cs:0xf10\n"
	"mov %sp, %cs:0xf12\n"
	"mov %edx, %cs:0xf04\n"
	"mov %cs, %ax\n"
	"mov %ax, %ds\n mov %ax, %ss\n"
	"mov %ax, 0xf0c\n"
	"mov $0xf00, %sp\n"
	"pushfl; popl 0xf08\n"
	"mov %cr0, %eax; mov %eax, 0xf00\n"
	"mov %cr4, %eax; mov %eax, 0xf14\n"
	"lgdtl ap_gdtr - ap_code\n"
	"mov $pml4, %eax; mov %eax, %cr3\n"
	"mov $0x6a0, %eax; mov %eax, %cr4\n"
	"mov $0xc0000080, %ecx; rdmsr; or $0x901, %eax; wrmsr\n"
	"mov $0x80010033, %eax; mov %eax, %cr0\n"
	"ljmpl $0x08, $ap64\n"
	"ap_gdtr: .word 0xcf; .long gdt\n"
	"ap_code_end:\n"
	".code64\n"
	"ap64: mov $0x10, %eax; mov %eax, %ds; mov %eax, %es; mov %eax, %ss\n"
	"xor %eax, %eax; mov %eax, %fs; mov %eax, %gs\n"
	"lea ap_stack + 16384(%rip), %rsp\n"
	"lidt idtr(%rip)\n"
	"call ap_main\n ud2\n");
u8 ap_stack[16384] __attribute__((aligned(16)));

static volatile u32 starts;           /* how often the second vCPU began */
static void (*volatile job)(void);    /* what it is to do; 0 when done */
static volatile int got[2][256];      /* interrupts, by vCPU and vector */
static volatile int both_x2;

static int me(void)
{
	return (both_x2 ? rdmsr(0x802) : LAPIC(ID) >> 24) & 1;
}

void ap_main(void)
{
	starts++;
	for (;;) {
		void (*f)(void) = job;
		if (f) {
			f();
			job = 0;
		}
		asm volatile("pause");
	}
}

static void wait_job(void)
{
	for (u64 since = rdtsc(); early(since) && job;)
		asm volatile("pause");
	eq("smp-job", job == 0, 1);
}

static void on_other(void (*f)(void))
{
	job = f;
	wait_job();
}

static int wait_got(int cpu, int vector, int n)
{
	for (u64 since = rdtsc(); early(since) && got[cpu][vector] < n;)
		asm volatile("pause; sti; nop; cli");
	return got[cpu][vector];
}

/* a_while is long enough for an IPI that should not come. */
static void a_while(void)
{
	for (int i = 0; i < 3000; i++)
		asm volatile("pause; sti; nop; cli");
}

static void clear_got(void)
{
	for (int i = 0; i < 256; i++)
		got[0][i] = got[1][i] = 0;
}

static void send(u32 dest, u32 icr)
{
	LAPIC(ICR_HIGH) = dest << 24;
	LAPIC(ICR) = icr;
	for (u64 since = rdtsc(); early(since) && LAPIC(ICR) & 0x1000;)
		asm volatile("pause");
}

/* The shoot-down: vector 0x58 flushes PAGE(8) and says so; 0x59 answers, 0x5a checks a message. */
static volatile u64 generation, acknowledged, message, message_seen;
static int on_smp(struct frame *f)
{
	int cpu = me();
	if (f->vector != NMI && (f->vector < 0x50 || f->vector > 0x5f))
		return 0;
	if (f->vector == 0x58) {
		invlpg(PAGE(8));
		acknowledged = generation;
	}
	if (f->vector == 0x5a)
		message_seen = message;
	got[cpu][f->vector]++;
	if (f->vector != NMI) {
		if (both_x2)
			wrmsr(0x80b, 0);
		else
			LAPIC(EOI) = 0;
	}
	return 1;
}

static u32 ap_svr, ap_ldr, ap_dfr, ap_lint0, ap_timer, ap_id, ap_tpr, ap_dr7;
static u64 ap_base, ap_star, ap_xmm;
static void look(void)
{
	ap_id = LAPIC(ID);
	ap_svr = LAPIC(SVR);
	ap_ldr = LAPIC(LDR);
	ap_dfr = LAPIC(DFR);
	ap_tpr = LAPIC(TPR);
	ap_lint0 = LAPIC(LINT0);
	ap_timer = LAPIC(LVT_TIMER);
	ap_base = rdmsr(0x1b);
	ap_star = rdmsr(0xc0000081);
	ap_dr7 = dr7();
	asm volatile("movq %%xmm0, %0" : "=r"(ap_xmm));
	LAPIC(SVR) = 0x1ff;
	LAPIC(LDR) = 2 << 24;
}

static void init_and_start(void)
{
	u32 n = starts;
	send(1, 0x4500); /* INIT */
	a_while();
	eq("init-stops", starts, n);
	send(1, 0x4600 | CODE >> 12);
	for (u64 since = rdtsc(); early(since) && starts == n;)
		asm volatile("pause");
	eq("sipi-starts", starts, n + 1);
}

static void beginning(void)
{
	u32 r[4];
	for (u64 i = 0; i < (u64)(ap_code_end - ap_code); i++)
		((volatile u8 *)CODE)[i] = ap_code[i];
	init_and_start();
	eq("sipi-cs", NOTES->cs, CODE >> 4);
	eq("init-cr0", NOTES->cr0 & ~0x60000000, 0x10);
	eq("init-cr4", NOTES->cr4, 0);
	eq("init-flags", NOTES->flags, 2);
	eq("init-ds-ss", NOTES->ds | NOTES->ss << 16, 0);
	eq("init-sp", NOTES->sp, 0);
	cpuid(1, 0, r);
	eq("init-edx", NOTES->edx, r[0]);
	on_other(look);
	eq("ap-id", ap_id, 1 << 24);
	eq("ap-svr", ap_svr, 0xff);
	eq("ap-ldr", ap_ldr, 0);
	eq("ap-dfr", ap_dfr, ~0U);
	eq("ap-tpr", ap_tpr, 0);
	eq("ap-lint0", ap_lint0, 0x10000);
	eq("ap-timer", ap_timer, 0x10000);
	eq("ap-base", ap_base & 0xf00, 0x800);
	eq("ap-cpuid-id", ({ u32 q[4]; cpuid(1, 0, q); q[1] >> 24; }), 0);
	u32 n = starts;
	send(1, 0x4600 | CODE >> 12);
	send(1, 0x8500); /* INIT's de-assertion */
	on_other(look);
	eq("sipi-while-running", starts, n);
}

static volatile int stop;
static void listen(void)
{
	while (!stop)
		asm volatile("pause; sti; nop; cli");
}

static volatile int halted;
static void halt(void)
{
	halted = 1;
	asm volatile("sti; hlt; cli" : : : "memory");
	halted = 2;
}

static void halt_shut(void)
{
	halted = 1;
	asm volatile("cli; hlt" : : : "memory");
	halted = 2;
}

static void answer(void)
{
	send(0, 0x52);
}

static void hold(void)
{
	LAPIC(ICR_HIGH) = 0;
	LAPIC(ICR) = 0xc0000 | 0x55; /* all but itself: the first */
}

/* one sends an IPI while the other listens; who should get it once: 0x10 the other, 1 this one. */
static void one(const char *n, u32 dest, u32 icr, int vector, int who)
{
	clear_got();
	stop = 0;
	job = listen;
	send(dest, icr | (vector == NMI ? 0 : vector));
	wait_got(1, vector, who >> 4);
	wait_got(0, vector, who & 1);
	a_while();
	stop = 1;
	wait_job();
	eq(n, got[1][vector] << 4 | got[0][vector], who);
}

static void ipis(void)
{
	one("ipi-fixed", 1, 0, 0x51, 0x10);
	one("ipi-own", 0, 0, 0x51, 1);
	one("ipi-broadcast", 0xff, 0, 0x51, 0x11);
	one("ipi-self", 1, 0x40000, 0x51, 1);
	one("ipi-all", 0, 0x80000, 0x51, 0x11);
	one("ipi-others", 0, 0xc0000, 0x51, 0x10);
	one("ipi-logical-both", 3, 0x800, 0x51, 0x11);
	one("ipi-logical-other", 2, 0x800, 0x51, 0x10);
	one("ipi-logical-own", 1, 0x800, 0x51, 1);
	one("ipi-logical-nobody", 4, 0x800, 0x51, 0);
	one("ipi-lowest-own", 1, 0x900, 0x51, 1);
	LAPIC(TPR) = 0x40;
	clear_got();
	stop = 0;
	job = listen;
	send(3, 0x951);
	for (u64 since = rdtsc(); early(since) && !got[0][0x51] && !got[1][0x51];)
		asm volatile("pause; sti; nop; cli");
	stop = 1;
	wait_job();
	LAPIC(TPR) = 0;
	eq("ipi-lowest-to-lower", got[1][0x51] << 4 | got[0][0x51], 0x10);
	one("ipi-nmi", 1, 0x4400, NMI, 0x10);
	one("ipi-nmi-others", 0, 0xc4400, NMI, 0x10);
	one("ipi-nmi-logical", 2, 0x4c00, NMI, 0x10);
	clear_got();
	on_other(hold);
	eq("ipi-back-others", wait_got(0, 0x55, 1), 1);
	on_other(answer);
	eq("ipi-back", wait_got(0, 0x52, 1), 1);
	/* HLT */
	clear_got();
	halted = 0;
	job = halt;
	for (u64 since = rdtsc(); early(since) && !halted;)
		;
	a_while();
	eq("hlt-stays", halted, 1);
	send(1, 0x53);
	wait_job();
	eq("hlt-ipi", got[1][0x53], 1);
	halted = 0;
	job = halt_shut;
	for (u64 since = rdtsc(); early(since) && !halted;)
		;
	send(1, 0x53);
	a_while();
	eq("hlt-closed", halted << 4 | got[1][0x53], 0x11);
	send(1, 0x4400);
	wait_job();
	eq("hlt-nmi", got[1][NMI], 1);
	on_other((stop = 1, listen));
	stop = 0;
	job = listen; /* takes the interrupt that waited */
	eq("hlt-closed-later", wait_got(1, 0x53, 2), 2);
	/* A device's interrupt, through the I/O APIC */
	clear_got();
	outb(0x3fc, 8);
	ioapic(4, 1UL << 56 | 0x5b);
	outb(0x3f9, 2);
	eq("ioapic-to-other", wait_got(1, 0x5b, 1) << 4 | got[0][0x5b], 0x10);
	inb(0x3fa);
	outb(0x3f9, 0);
	ioapic(4, 0x10000);
	outb(0x3fc, 3);
	stop = 1;
	wait_job();
	stop = 0;
}

/* What was stored before an IPI is seen by its handler. */
static void messages(void)
{
	int wrong = 0;
	clear_got();
	stop = 0;
	job = listen;
	for (int i = 1; i <= 200; i++) {
		message = i;
		send(1, 0x5a);
		wait_got(1, 0x5a, i);
		wrong += message_seen != (u64)i;
	}
	stop = 1;
	wait_job();
	eq("ipi-carries-stores", wrong, 0);
	eq("ipi-each", got[1][0x5a], 200);
}

static volatile u64 stamp, turn;
static void stamps(void)
{
	for (u64 i = 1; i <= 300; i++) {
		for (u64 since = rdtsc(); early(since) && turn != i;)
			;
		stamp = rdtsc();
		asm volatile("" : : : "memory");
		turn = 0;
	}
}

static void clocks(void)
{
	int wrong = 0;
	turn = 0;
	job = stamps;
	for (u64 i = 1; i <= 300; i++) {
		u64 before = rdtsc();
		turn = i;
		for (u64 since = rdtsc(); early(since) && turn;)
			;
		wrong += stamp < before || rdtsc() < stamp;
	}
	wait_job();
	eq("tsc-same-for-all", wrong, 0);
}

/* The second vCPU reads PAGE(8) for ever. Once it has acknowledged a flush it must not see the page that was there. */
static volatile u64 stale, reads;
static void reader(void)
{
	u64 least = 0;
	while (!stop) {
		asm volatile("sti; nop; cli" : : : "memory");
		u64 floor = acknowledged;
		u64 v = PEEK(PAGE(8));
		stale += v < floor || v < least;
		least = v;
		reads++;
	}
}

static void shoot_down(void)
{
	PEEK(pages[8]) = 0;
	generation = acknowledged = stale = reads = 0;
	map(8, phys(pages[8]) | P | W | A | D);
	clear_got();
	stop = 0;
	job = reader;
	for (u64 since = rdtsc(); early(since) && !reads;)
		;
	int missed = 0;
	for (u64 i = 1; i <= 300; i++) {
		u8 *now = pages[8 + (i & 1)], *old = pages[8 + (~i & 1)];
		PEEK(now) = i;
		region_pt[8] = phys(now) | P | W | A | D;
		generation = i;
		send(1, 0x58);
		wait_got(1, 0x58, i);
		missed += acknowledged != i;
		PEEK(old) = 0; /* nobody may see this */
		u64 n = reads;
		for (u64 since = rdtsc(); early(since) && reads - n < 4;)
			asm volatile("pause");
	}
	stop = 1;
	wait_job();
	eq("shootdown-acknowledged", missed, 0);
	ok("shootdown-reads", reads > 300);
	eq("shootdown-stale", stale, 0);
	map(8, 0);
}

static void enter_x2(void)
{
	wrmsr(0x1b, rdmsr(0x1b) | 1 << 10);
	ap_id = rdmsr(0x802);
	ap_ldr = rdmsr(0x80d);
}

static void leave_x2(void)
{
	u64 base = rdmsr(0x1b);
	wrmsr(0x1b, base & ~(1UL << 11 | 1 << 10));
	wrmsr(0x1b, base & ~(1UL << 10));
	LAPIC(SVR) = 0x1ff;
}

static void x2(void)
{
	static const struct { const char *name; u64 icr; int who; } list[] = {
		{ "fixed", 1UL << 32 | 0x51, 0x10 }, { "own", 0x51, 1 }, { "logical-both", 3UL << 32 | 0x851, 0x11 },
		{ "logical-other", 2UL << 32 | 0x851, 0x10 }, { "others", 0xc0051, 0x10 }, { "broadcast", 0xffffffffUL << 32 | 0x51, 0x11 },
		{ "nmi", 1UL << 32 | 0x4400, 0x10 },
	};
	if (!has_x2apic())
		return;
	on_other(enter_x2);
	wrmsr(0x1b, rdmsr(0x1b) | 1 << 10);
	both_x2 = 1;
	eq("x2-id", ap_id, 1);
	eq("x2-ldr", ap_ldr, 2);
	for (unsigned i = 0; i < sizeof list / sizeof *list; i++) {
		int vector = list[i].icr >> 8 & 4 ? NMI : 0x51;
		clear_got();
		stop = 0;
		job = listen;
		wrmsr(0x830, list[i].icr);
		wait_got(1, vector, list[i].who >> 4);
		wait_got(0, vector, list[i].who & 1);
		stop = 1;
		wait_job();
		eq(name("x2-ipi-", list[i].name, ""), got[1][vector] << 4 | got[0][vector], list[i].who);
	}
	both_x2 = 0;
	leave_x2();
	on_other(leave_x2);
}

static void prepare(void)
{
	wrmsr(0xc0000081, 0x0018000800000000);
	asm volatile("movq %0, %%xmm0" : : "r"(0x123456789abcdef0));
	set_dr7(0x700);
	LAPIC(TPR) = 0x20;
}

static void again(void)
{
	on_other(prepare);
	init_and_start();
	eq("again-cr0", NOTES->cr0, 0x10); /* CD and NW stay */
	eq("again-sp", NOTES->sp, 0);
	on_other(look);
	eq("again-svr", ap_svr, 0xff);
	eq("again-tpr", ap_tpr, 0);
	eq("again-id", ap_id, 1 << 24);
	eq("again-ldr", ap_ldr, 0);
	eq("again-dr7", ap_dr7, 0x400);
	eq("again-star", ap_star, 0x0018000800000000);
	eq("again-xmm0", ap_xmm, 0x123456789abcdef0);
	u32 n = starts;
	send(1, 0x4500);
	a_while();
	job = look;
	a_while();
	ok("init-stops-again", job == look && starts == n);
	job = 0;
}

void test_smp(void)
{
	pics(0xff);
	hook = on_smp;
	LAPIC(SVR) = 0x1ff;
	LAPIC(LDR) = 1 << 24;
	LAPIC(DFR) = ~0U;
	beginning();
	if (starts) {
		ipis();
		messages();
		clocks();
		shoot_down();
		x2();
		again();
	}
	a_while();
	LAPIC(SVR) = 0xff;
	hook = 0;
}
