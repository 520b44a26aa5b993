/* The clocks: 8254 counters, ACPI PM timer, TSC, MC146818 RTC (their data sheets; ACPI §4.8.3.3; SDM vol. 3B §17.17). */
#include "chips.h"

static u16 read16(u16 port)
{
	u16 low = inb(port);
	return low | inb(port) << 8;
}

static void load(u8 command, u16 port, u16 v)
{
	outb(0x43, command);
	outb(port, v);
	outb(port, v >> 8);
}

static u32 inl(u16 p)
{
	u32 v;
	asm volatile("inl %1, %0" : "=a"(v) : "Nd"(p));
	return v;
}

static u16 latched(int counter)
{
	outb(0x43, counter << 6);
	return read16(0x40 + counter);
}

static u8 status(int counter)
{
	outb(0x43, 0xe0 | 2 << counter); /* read-back, status only */
	return inb(0x40 + counter);
}

static void gate2(int on) { outb(0x61, (inb(0x61) & ~3) | on); }

static void counters(void)
{
	load(0x34, 0x40, 1000); /* counter 0, mode 2 */
	int within = 1, moves = 0;
	u16 first = latched(0);
	for (int i = 0; i < 2000; i++) {
		u16 v = latched(0);
		within &= v >= 1 && v <= 1000;
		moves |= v != first;
	}
	ok("pit-mode2-range", within);
	ok("pit-mode2-moves", moves);
	eq("pit-mode2-status", status(0) & 0x3f, 0x34);
	load(0x36, 0x40, 1000); /* mode 3 */
	within = 1;
	for (int i = 0; i < 2000; i++) {
		u16 v = latched(0);
		within &= v >= 1 && v <= 1000;
	}
	ok("pit-mode3-range", within);
	int highs = 0, lows = 0;
	for (u64 since = rdtsc(); early(since) && (!highs || !lows);) {
		highs |= status(0) >> 7;
		lows |= !(status(0) >> 7);
	}
	ok("pit-mode3-square", highs && lows);
	/* A latch holds what it took until it is read, and a second latch does nothing. */
	load(0x30, 0x40, 0xffff);
	outb(0x43, 0);
	for (int i = 0; i < 1000; i++)
		asm volatile("pause");
	u16 later_than;
	outb(0x43, 0);
	u16 held = read16(0x40);
	later_than = read16(0x40);
	ok("pit-latch-holds", held > later_than);
	outb(0x43, 0xc2); /* read-back: status and count; the status is read first */
	u8 s = inb(0x40);
	u16 v = read16(0x40);
	eq("pit-readback-status", s & 0x3f, 0x30);
	ok("pit-readback-count", v < held);
	outb(0x43, 0x30);
	eq("pit-null-count", status(0) >> 6 & 1, 1);
	outb(0x40, 0);
	eq("pit-null-count-half", status(0) >> 6 & 1, 1);
	outb(0x40, 0x80);
	for (int i = 0; i < 1000 && status(0) & 0x40; i++)
		;
	eq("pit-null-count-loaded", status(0) >> 6 & 1, 0);
	eq("pit-mode0-output", status(0) >> 7, 0);
	outb(0x43, 0x10); /* low byte only */
	outb(0x40, 200);
	eq("pit-low-only-status", status(0) & 0x3f, 0x10);
	for (u64 since = rdtsc(); early(since) && !(status(0) >> 7);)
		;
	eq("pit-mode0-ends-high", status(0) >> 7, 1);
	load(0x35, 0x40, 0x1000); /* mode 2, BCD */
	int bcd = 1;
	for (int i = 0; i < 500; i++) {
		u16 d = latched(0);
		bcd &= (d & 15) < 10 && (d >> 4 & 15) < 10 && (d >> 8 & 15) < 10 && d <= 0x1000;
	}
	ok("pit-bcd", bcd);
	gate2(1);
	load(0xb0, 0x42, 0xffff);
	gate2(0);
	v = latched(2);
	for (int i = 0; i < 100000; i++)
		asm volatile("pause");
	eq("pit-gate-stops", latched(2), v);
	gate2(1);
	for (int i = 0; i < 1000; i++)
		asm volatile("pause");
	ok("pit-gate-goes-on", latched(2) < v);
	gate2(0);
	load(0xb2, 0x42, 300); /* mode 1: the gate's edge starts it */
	eq("pit-mode1-waits", status(2) >> 7, 1);
	gate2(1);
	for (u32 since = inl(0x608); ((inl(0x608) - since) & 0xffffff) < 20000;)
		; /* 5.6 ms; the count is 0.25 */
	eq("pit-mode1-ends-high", status(2) >> 7, 1);
	gate2(0);
	load(0x30, 0x40, 0);
}

static void pm_timer(void)
{
	u32 was = inl(0x608), start = was;
	int forward = 1;
	for (int i = 0; i < 5000; i++) {
		u32 is = inl(0x608);
		forward &= ((is - was) & 0xffffff) < 0x800000;
		was = is;
	}
	ok("pm-timer-forward", forward);
	ok("pm-timer-moves", was != start);
	eq("pm-timer-read-only", ({ u32 a = inl(0x608); asm volatile("outl %0, %1" : : "a"(0), "d"((u16)0x608)); ((inl(0x608) - a) & 0xffffff) < 0x800000; }), 1);
}

static void tsc(void)
{
	u64 was = rdtsc();
	int forward = 1;
	for (int i = 0; i < 100000; i++) {
		u64 is = rdtsc();
		forward &= is >= was;
		was = is;
	}
	ok("tsc-forward", forward);
	for (int i = 0; i < 10000; i++) {
		u64 is = rdmsr(0x10);
		u32 a, d;
		asm volatile("rdtscp" : "=a"(a), "=d"(d) : : "ecx");
		u64 p = a | (u64)d << 32;
		forward &= is >= was && p >= is;
		was = p;
	}
	ok("tsc-by-msr-and-rdtscp", forward);
}

static u8 cmos(u8 i) { outb(0x70, i); return inb(0x71); }
static void set_cmos(u8 i, u8 v) { outb(0x70, i); outb(0x71, v); }
enum { RTC_A = 10, RTC_B, RTC_C, RTC_D, SET = 0x80, PIE = 0x40, AIE = 0x20, UIE = 0x10, BINARY = 4, HOURS24 = 2 };

/* flag waits for flags of register C, which reading clears. */
static u8 flag(u8 mask)
{
	u8 c = 0;
	for (u64 since = rdtsc(); early(since) && !(c & mask);)
		c |= cmos(RTC_C);
	return c;
}

/* set_time also sets the date, to 1 January 2001: another data mode asks for all anew. It returns what then is read,
   while no update comes. */
static u32 set_time(u8 b, u8 hour, u8 minute, u8 second)
{
	set_cmos(RTC_B, SET | b);
	for (int i = 6; i <= 9; i++)
		set_cmos(i, 1);
	set_cmos(0x32, b & BINARY ? 20 : 0x20); /* the century */
	set_cmos(0, second);
	set_cmos(2, minute);
	set_cmos(4, hour);
	u32 v = cmos(4) << 16 | cmos(2) << 8 | cmos(0);
	set_cmos(RTC_B, b);
	return v;
}

static int rtc_quiet;
static int on_rtc(struct frame *f)
{
	if (f->vector == 0x5c && !rtc_quiet)
		cmos(RTC_C);
	return on_interrupt(f);
}

static void rtc(void)
{
	eq("rtc-valid", cmos(RTC_D) & 0x80, 0x80);
	eq("rtc-divider", cmos(RTC_A) & 0x70, 0x20);
	set_cmos(RTC_B, HOURS24);
	u8 s = cmos(0), m = cmos(2), h = cmos(4);
	ok("rtc-bcd", (s & 15) < 10 && s < 0x60 && (m & 15) < 10 && m < 0x60 && (h & 15) < 10 && h < 0x24);
	set_cmos(RTC_D, 0);
	eq("rtc-d-read-only", cmos(RTC_D) & 0x80, 0x80);
	set_cmos(0x50, 0x5a);
	set_cmos(0x51, 0xa5);
	eq("rtc-memory", cmos(0x50) << 8 | cmos(0x51), 0x5aa5);
	/* The periodic interrupt, at pin 8; while register C is not read there is no second edge. */
	clear_counts();
	hook = on_rtc;
	ioapic(8, 0x5c);
	set_cmos(RTC_A, 0x26);
	cmos(RTC_C);
	set_cmos(RTC_B, HOURS24 | PIE);
	ok("rtc-periodic", wait_for(0x5c, 3) >= 3);
	rtc_quiet = 1;
	set_cmos(RTC_B, HOURS24);
	cmos(RTC_C);
	asm volatile("sti; nop; nop; cli"); /* one may be waiting */
	clear_counts();
	set_cmos(RTC_B, HOURS24 | PIE);
	wait_for(0x5c, 1);
	for (int i = 0; i < 2000; i++)
		asm volatile("pause; sti; nop; cli");
	eq("rtc-periodic-once", count[0x5c], 1);
	u8 c = flag(0x40);
	eq("rtc-c", c & 0xc0, 0xc0);
	rtc_quiet = 0;
	set_cmos(RTC_B, HOURS24);
	asm volatile("sti; nop; cli");
	clear_counts();
	for (int i = 0; i < 20000; i++)
		asm volatile("pause; sti; nop; cli");
	eq("rtc-periodic-off", count[0x5c], 0);
	set_cmos(RTC_A, 0x20); /* no rate */

	/* 23:59:58 in BCD, and an alarm at each second of the hour that begins at midnight. */
	set_cmos(1, 0xff);
	set_cmos(3, 0xff);
	set_cmos(5, 0);
	eq("rtc-set", set_time(HOURS24, 0x23, 0x59, 0x58), 0x235958);
	cmos(RTC_C);
	c = flag(0x10);
	eq("rtc-update-ended", c & 0x90, 0x10);
	ok("rtc-update-counts", cmos(0) != 0x58);
	clear_counts();
	set_cmos(RTC_B, HOURS24 | AIE);
	ok("rtc-alarm", wait_for(0x5c, 1) >= 1);
	eq("rtc-midnight", cmos(4), 0);
	eq("rtc-next-day", cmos(7) << 8 | cmos(8), 0x201);
	set_cmos(RTC_B, HOURS24);
	eq("rtc-binary", set_time(BINARY | HOURS24, 13, 59, 7), 13 << 16 | 59 << 8 | 7);
	eq("rtc-binary-goes-on", cmos(4) - 13U <= 1, 1);
	eq("rtc-12-pm", set_time(0, 0x92, 0x30, 0x11) >> 16, 0x92); /* 12 PM in twelve-hour mode */
	eq("rtc-12-pm-goes-on", cmos(4), 0x92);
	set_cmos(RTC_B, SET | HOURS24);
	set_cmos(0, 0x11);
	set_cmos(RTC_C, 0);
	eq("rtc-c-read-only", cmos(RTC_B) & 0x80, 0x80);
	eq("rtc-set-holds-uip", cmos(RTC_A) & 0x80, 0);
	set_cmos(RTC_B, HOURS24);
	set_cmos(RTC_A, 0x26);
	ioapic(8, 0x10000);
	hook = on_interrupt;
}

void test_timers(void)
{
	pics(0xff);
	LAPIC(SVR) = 0x1ff;
	hook = on_interrupt;
	ioapic(2, 0x10000);
	counters();
	pm_timer();
	tsc();
	rtc();
	hook = 0;
	LAPIC(SVR) = 0xff;
}
