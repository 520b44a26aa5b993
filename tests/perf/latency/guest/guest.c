/* Measures how late interrupts wake a halted processor, first alone and then with all others spinning.
 *
 * Each row is printed as "row NAME" and one decimal number of nanoseconds a sample. */
#include <stdint.h>

typedef uint64_t u64;
typedef uint32_t u32;
typedef uint16_t u16;
typedef uint8_t u8;

enum { SAMPLES = 1000, PIT_HZ = 1193182, PIT_VECTOR = 0x40, LAPIC_VECTOR = 0x41, STAMP_VECTOR = 0x42 };

/* The host's device of latency.go: a magic number, a request, the times of the interrupts. */
enum { STAMP_PORT = 0x2f0, STAMP_MAGIC = 0x5354414d, STAMP_GSI = 5 };

static inline void outb(u16 p, u8 v) { __asm__ volatile("outb %0, %1" :: "a"(v), "Nd"(p)); }
static inline void outl(u16 p, u32 v) { __asm__ volatile("outl %0, %1" :: "a"(v), "Nd"(p)); }
static inline u8 inb(u16 p) { u8 v; __asm__ volatile("inb %1, %0" : "=a"(v) : "Nd"(p)); return v; }
static inline u32 inl(u16 p) { u32 v; __asm__ volatile("inl %1, %0" : "=a"(v) : "Nd"(p)); return v; }
static inline u64 rdtsc(void) { u32 a, d; __asm__ volatile("lfence; rdtsc" : "=a"(a), "=d"(d) :: "memory"); return a | (u64)d << 32; }
static inline void wrmsr(u32 r, u64 v) { __asm__ volatile("wrmsr" :: "c"(r), "a"((u32)v), "d"((u32)(v >> 32))); }

static volatile u32 *const lapic = (u32 *)0xfee00000;
static volatile u32 *const ioapic = (u32 *)0xfec00000;

static void put(char c)
{
	while (!(inb(0x3fd) & 0x20))
		;
	outb(0x3f8, c);
}

static void puts(const char *s) { while (*s) put(*s++); }

static void number(u64 v)
{
	char b[21], *p = b + 20;
	for (*p = 0; *--p = '0' + v % 10, v /= 10;)
		;
	puts(p);
	put('\n');
}

/* Interrupts: the handler notes when it ran. */
static volatile u64 came;
static volatile u32 count_at; /* the local APIC timer's counter then */

struct frame;
__attribute__((interrupt)) static void handler(struct frame *f)
{
	(void)f;
	count_at = lapic[0x390 / 4];
	came = rdtsc();
	lapic[0xb0 / 4] = 0;
}

/* The host's device names its time in its register. */
static volatile u64 stamp;
__attribute__((interrupt)) static void stamped(struct frame *f)
{
	(void)f;
	came = rdtsc();
	stamp = inl(STAMP_PORT + 4) | (u64)inl(STAMP_PORT + 8) << 32;
	lapic[0xb0 / 4] = 0;
}

static u64 idt[512];

static void gate(int v, void (*f)(struct frame *))
{
	u64 a = (u64)f;
	idt[2 * v] = (a & 0xffff) | 8 << 16 | 0x8eull << 40 | (a >> 16 & 0xffff) << 48;
	idt[2 * v + 1] = a >> 32;
}

static void route(u32 pin, u8 vector)
{
	ioapic[0] = 0x11 + 2 * pin;
	ioapic[4] = lapic[0x20 / 4] & 0xff000000;
	ioapic[0] = 0x10 + 2 * pin;
	ioapic[4] = vector;
}

static void setup(void)
{
	struct { u16 limit; u64 base; } __attribute__((packed)) r = { sizeof idt - 1, (u64)idt };
	gate(PIT_VECTOR, handler);
	gate(LAPIC_VECTOR, handler);
	gate(STAMP_VECTOR, stamped);
	__asm__ volatile("lidt %0" :: "m"(r));
	outb(0x21, 0xff);
	outb(0xa1, 0xff);
	lapic[0xf0 / 4] = 0x1ff;
	lapic[0x3e0 / 4] = 0xb; /* divide by 1 */
	route(2, PIT_VECTOR);
	route(STAMP_GSI, STAMP_VECTOR);
}

/* Halts until the interrupt has come; no wake-up is lost between the look and HLT, which STI's shadow covers. */
static u64 wait(void)
{
	for (;;) {
		__asm__ volatile("cli" ::: "memory");
		if (came)
			break;
		__asm__ volatile("sti; hlt" ::: "memory");
	}
	__asm__ volatile("sti");
	u64 t = came;
	came = 0;
	return t;
}

/* Frequencies, by the interval timer's channel 2: one-shot of 50 ms, whose output port 0x61 shows. */
static u64 tsc_hz, lapic_hz;

/* Whatever comes between makes a measurement greater: the least of several is meant. */
static void calibrate(void)
{
	u32 n = PIT_HZ / 20;
	lapic[0x320 / 4] = 0x10000;
	outb(0x61, (inb(0x61) & ~2) | 1);
	outb(0x43, 0xb0);
	outb(0x42, n);
	outb(0x42, n >> 8);
	u64 t = rdtsc();
	lapic[0x380 / 4] = 0xffffffff;
	while (!(inb(0x61) & 0x20))
		;
	u64 tsc = (rdtsc() - t) * 20, count = (u64)(0xffffffff - lapic[0x390 / 4]) * 20;
	tsc_hz = tsc_hz && tsc_hz < tsc ? tsc_hz : tsc;
	lapic_hz = lapic_hz && lapic_hz < count ? lapic_hz : count;
	lapic[0x380 / 4] = 0;
}

/* Delays of 500 to 1500 us. */
static u32 seed = 1;
static u32 delay_us(void) { return 500 + ((seed = seed * 1103515245 + 12345) >> 8) % 1000; }

static u64 late[SAMPLES];
static u64 to_ns(int64_t tsc) { return tsc < 0 ? 0 : (u64)tsc * 1000 / (tsc_hz / 1000000); }

static void pit(u32 i)
{
	u32 n = (u64)delay_us() * PIT_HZ / 1000000;
	outb(0x43, 0x30); /* channel 0, mode 0 */
	outb(0x40, n);
	u64 t = rdtsc();
	outb(0x40, n >> 8);
	late[i] = to_ns(wait() - t - (u64)n * tsc_hz / PIT_HZ);
}

static void one_shot(u32 i)
{
	u32 n = (u64)delay_us() * lapic_hz / 1000000;
	lapic[0x320 / 4] = LAPIC_VECTOR;
	u64 t = rdtsc();
	lapic[0x380 / 4] = n;
	late[i] = to_ns(wait() - t - (u64)n * tsc_hz / lapic_hz);
}

static void deadline(u32 i)
{
	u64 due = rdtsc() + (u64)delay_us() * tsc_hz / 1000000;
	lapic[0x320 / 4] = LAPIC_VECTOR | 2 << 17;
	wrmsr(0x6e0, due);
	late[i] = to_ns(wait() - due);
}

/* A timer of 1 ms that is never set again. Its counter says how late the interrupt is of its period; a period whose
 * interrupt never came, because the next was there first, counts too. */
static u64 last;
static void periodic(u32 i)
{
	u32 n = lapic_hz / 1000;
	if (i == 0) {
		lapic[0x320 / 4] = LAPIC_VECTOR | 1 << 17;
		last = rdtsc();
		lapic[0x380 / 4] = n;
	}
	u64 t = wait(), period = (u64)n * tsc_hz / lapic_hz;
	u64 in = (u64)(n - count_at) * tsc_hz / lapic_hz;
	u64 periods = (t - in - last + period / 2) / period;
	last = t - in;
	late[i] = to_ns(in + (periods > 1 ? (periods - 1) * period : 0));
}

static void stamped_interrupt(u32 i)
{
	outl(STAMP_PORT, delay_us());
	u64 t = wait();
	late[i] = to_ns(t - stamp);
}

static void row(const char *name, const char *load, void (*one)(u32))
{
	for (u32 i = 0; i < SAMPLES; i++)
		one(i);
	lapic[0x380 / 4] = 0;
	puts("row ");
	puts(name);
	puts(load);
	put('\n');
	for (u32 i = 0; i < SAMPLES; i++)
		number(late[i]);
}

static volatile u32 spinning;

/* What the other processors do from their start to the end. */
void spin(void)
{
	__atomic_add_fetch(&spinning, 1, __ATOMIC_SEQ_CST);
	for (u32 x = 1;; x = x * 5 + 1)
		__asm__ volatile("" : "+r"(x));
}

static void pause_us(u32 us)
{
	for (u64 end = rdtsc() + us * (tsc_hz / 1000000); rdtsc() < end;)
		;
}

/* Starts all others; after a second those that are there are counted. */
static void start_others(void)
{
	lapic[0x300 / 4] = 0xc4500;
	pause_us(10000);
	lapic[0x300 / 4] = 0xc4608;
	pause_us(1000000);
	puts("spinning ");
	number(spinning);
}

static int has_deadline(void)
{
	u32 a = 1, c = 0, d;
	__asm__("cpuid" : "+a"(a), "+c"(c), "=d"(d) :: "rbx");
	return c >> 24 & 1;
}

static void measure(const char *load)
{
	if (inl(STAMP_PORT) == STAMP_MAGIC) {
		row("device interrupt, stamped by its thread", load, stamped_interrupt);
	} else {
		row("interval timer, one-shot", load, pit);
		row("local APIC timer, one-shot", load, one_shot);
		if (has_deadline())
			row("local APIC timer, TSC deadline", load, deadline);
		row("local APIC timer, every 1 ms", load, periodic);
	}
}

void main(void)
{
	setup();
	for (int i = 0; i < 8; i++)
		calibrate();
	puts("tsc ");
	number(tsc_hz);
	puts("lapic ");
	number(lapic_hz);
	measure("; others halted");
	start_others();
	measure("; others spin");
	puts("done\n");
	outl(0xf4, 0);
}
