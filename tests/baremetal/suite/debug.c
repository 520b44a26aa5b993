/* Single step, breakpoints, shadows (SDM vol. 3B chapter 17). */
#include "suite.h"

static int steps;
static u64 step_rip[16], step_dr6[16];

/* step notes each #DB and goes on; a fault-like breakpoint resumes with RF. */
static int step(struct frame *f)
{
	if (f->vector != DB)
		return 0;
	if (steps < 16) {
		step_rip[steps] = f->rip;
		step_dr6[steps] = dr6();
	}
	steps++;
	set_dr6(0xffff0ff0);
	if (steps > 100)
		f->rflags &= ~0x100UL;
	return 1;
}

static int breakpoint(struct frame *f)
{
	int r = step(f);
	f->rflags |= 1 << 16;
	return r;
}

extern u8 s1[], s2[], s3[], b1[], b2[], p1[], p2[], m2[], m3[], w1[], rep1[], rep2[];

static void single_step(void)
{
	set_dr6(0xffff0ff0);
	steps = 0;
	hook = step;
	asm volatile(
		"pushfq; orl $0x100, (%%rsp); popfq\n"
		"s1: nop\n"
		"s2: pushfq; andl $~0x100, (%%rsp); popfq\n"
		"s3: nop\n"
		".globl s1, s2, s3" : : : "memory", "cc");
	hook = 0;
	eq("tf-steps", steps, 4);
	eq("tf-first-after-next", step_rip[0], (u64)s2);
	eq("tf-last-after-popf", step_rip[3], (u64)s3);
	eq("tf-dr6-bs", step_dr6[0], 0xffff4ff0);

	steps = 0;
	hook = step;
	asm volatile(
		"mov %%ss, %%ecx\n"
		"pushfq; orl $0x100, (%%rsp); popfq\n"
		"mov %%ecx, %%ss\n"
		"m2: nop\n"
		"m3: pushfq; andl $~0x100, (%%rsp); popfq\n"
		".globl m2, m3" : : : "memory", "cc", "rcx");
	hook = 0;
	eq("tf-mov-ss-shadow", step_rip[0], (u64)m3);

	static u8 src[3], dst[3];
	steps = 0;
	hook = step;
	asm volatile(
		"pushfq; orl $0x100, (%%rsp); popfq\n"
		"rep1: rep movsb\n"
		"rep2: pushfq; andl $~0x100, (%%rsp); popfq\n"
		".globl rep1, rep2" : : "S"(src), "D"(dst), "c"(3) : "memory", "cc");
	hook = 0;
	eq("tf-rep-first", step_rip[0], (u64)rep1);
	eq("tf-rep-last", step_rip[2], (u64)rep2);
}

static int tf_seen;
static int step_int(struct frame *f)
{
	if (f->vector == 0x42) {
		tf_seen = flags() >> 8 & 1;
		return 1;
	}
	return step(f);
}

extern u8 i2[];
static void step_over_int(void)
{
	steps = 0;
	hook = step_int;
	asm volatile(
		"pushfq; orl $0x100, (%%rsp); popfq\n"
		"int $0x42\n"
		"i2: nop\n"
		"pushfq; andl $~0x100, (%%rsp); popfq\n"
		".globl i2" : : : "memory", "cc");
	hook = 0;
	eq("int-clears-tf", tf_seen, 0);
	ok("tf-resumes-after-iret", steps >= 3 && step_rip[0] > (u64)i2);
}

static void breakpoints(void)
{
	static volatile u64 word[2] __attribute__((aligned(16)));
	set_dr6(0xffff0ff0);
	steps = 0;
	hook = breakpoint;
	set_dr0((u64)b1);
	set_dr7(0x401);
	asm volatile("nop; b1: nop; b2: nop; .globl b1, b2");
	set_dr7(0x400);
	hook = 0;
	eq("code-breakpoint-once", steps, 1);
	eq("code-breakpoint-is-fault", step_rip[0], (u64)b1);
	eq("code-breakpoint-dr6", step_dr6[0], 0xffff0ff1);

	steps = 0;
	hook = step;
	set_dr1((u64)word);
	set_dr7(0x400 | 1 << 2 | 1 << 20 | 3 << 22); /* write, 4 bytes */
	word[0] = word[0];
	eq("watch-write", steps, 1);
	eq("watch-write-dr6", step_dr6[0], 0xffff0ff2);
	(void)word[0];
	eq("watch-write-ignores-read", steps, 1);
	((volatile u32 *)word)[1] = 1;
	eq("watch-write-length", steps, 1);
	((volatile u8 *)word)[3] = 1;
	eq("watch-write-overlap", steps, 2);
	set_dr7(0x400 | 1 << 2 | 3 << 20 | 2 << 22); /* access, 8 bytes */
	(void)word[0];
	eq("watch-access-read", steps, 3);
	u64 v;
	asm volatile("mov (%1), %0\n w1: nop\n .globl w1" : "=r"(v) : "r"(word));
	eq("watch-is-trap", step_rip[steps - 1], (u64)w1);
	set_dr7(0x400);
	word[0] = 1;
	eq("watch-off", steps, 4);

	steps = 0;
	set_cr4(cr4() | 8);
	set_dr2(0x80);
	set_dr7(0x400 | 1 << 4 | 2 << 24); /* I/O */
	outb(0x80, 0);
	eq("watch-port", steps, 1);
	eq("watch-port-dr6", step_dr6[0], 0xffff0ff4);
	set_dr7(0x400);
	set_cr4(cr4() & ~8UL);
	hook = 0;
}

static void registers(void)
{
	set_dr0(0x123456789abcdef0);
	eq("dr0", dr0(), 0x123456789abcdef0);
	set_dr0(0);
	eq("dr7-high-gp", TRY(set_dr7(1UL << 32)), GP);
	eq("dr6-high-gp", TRY(set_dr6(1UL << 32)), GP);
	set_dr7(0);
	eq("dr7-fixed", dr7(), 0x400);
	set_dr6(0);
	eq("dr6-fixed", dr6(), 0xffff0ff0);
	u64 v;
	set_dr6(0xffff4ff0);
	asm volatile(".byte 0x0f, 0x21, 0xe0" : "=a"(v));
	eq("dr4-is-dr6", v, 0xffff4ff0);
	set_cr4(cr4() | 8);
	eq("dr4-with-de-ud", TRY(asm volatile(".byte 0x0f, 0x21, 0xe0" : "=a"(v))), UD);
	set_cr4(cr4() & ~8UL);
	set_dr6(0xffff0ff0);
	set_dr7(0x2400);
	eq("general-detect", TRY(dr0()), DB);
	eq("general-detect-dr6", dr6(), 0xffff2ff0);
	eq("general-detect-clears-gd", dr7(), 0x400);
	set_dr6(0xffff0ff0);
	eq("int1", TRY(asm volatile(".byte 0xf1")), DB);
	set_dr6(0xffff0ff0);
}

void test_debug(void)
{
	single_step();
	step_over_int();
	breakpoints();
	registers();
}
