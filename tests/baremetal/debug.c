// Single step and breakpoints (Intel SDM vol. 3B chapter 18).
#include "suite.h"

static volatile u64 steps[16];
static volatile int count;
static volatile u64 dr6;
static volatile int keep_stepping;

static void on_db(struct frame *f) {
	if (count < 16)
		steps[count] = f->rip;
	count++;
	dr6 = READ_DR(6);
	WRITE_DR(6, 0xffff0ff0);
	if (!keep_stepping)
		f->rflags &= ~0x100ull;
}

static void step_three(void *a) { __asm__ volatile("pushfq; orq $0x100, (%%rsp); popfq; nop; nop; pushfq; andq $~0x100, (%%rsp); popfq; nop" ::: "memory"); }
static void step_movss(void *a) {
	__asm__ volatile("movw %%ss, %%ax; pushfq; orq $0x100, (%%rsp); popfq; movw %%ax, %%ss; nop; pushfq; andq $~0x100, (%%rsp); popfq" ::: "rax", "memory");
}
static void step_rep(void *a) {
	static u8 from[8], to[8];
	__asm__ volatile("movl $3, %%ecx; pushfq; orq $0x100, (%%rsp); popfq; rep movsb; pushfq; andq $~0x100, (%%rsp); popfq" ::"S"(from), "D"(to) : "rcx", "memory");
}
static void icebp(void *a) { __asm__ volatile(".byte 0xf1"); }

static volatile u32 watched;
static u64 spot;
__attribute__((noinline)) static int breakable(int x) { __asm__ volatile(".globl break_here\nbreak_here: addl $1, %0; nop" : "+r"(x)); return x; }
extern u8 break_here[];
static void run_breakable(void *a) { *(int *)a = breakable(41); }
static void write_watched(void *a) {
	__asm__ volatile("leaq 1f(%%rip), %%rax; movq %%rax, %0; movl $7, %1; 1: nop" : "=m"(spot), "=m"(watched)::"rax", "memory");
}
static void read_watched(void *a) { (void)watched; }
static void touch_dr(void *a) { (void)READ_DR(0); }
static void dr4(void *a) { __asm__ volatile("mov %%db4, %%rax" ::: "rax"); }
static void dr7_high(void *a) { WRITE_DR(7, 1ull << 32); }

void test_debug(void) {
	hooks[1] = on_db;
	keep_stepping = 1;
	count = 0;
	step_three(0);
	check(count == 5 && dr6 & 0x4000, "TF: a trap after each instruction but the one that set it, DR6.BS", "%d traps, DR6 %x", (long)count, dr6);
	count = 0;
	step_movss(0);
	check(count == 4, "MOV SS holds back the single-step trap", "%d traps", (long)count);
	count = 0;
	step_rep(0);
	check(count == 6, "TF traps after each iteration of REP MOVSB", "%d traps", (long)count);
	keep_stepping = 0;

	if (on_tcg()) {
		print("note: TCG stops the machine at INT1\n");
	} else {
		count = 0;
		icebp(0);
		check(count == 1, "INT1", "%d", (long)count);
	}

	int result = 0;
	WRITE_DR(6, 0xffff0ff0);
	WRITE_DR(0, (u64)break_here);
	WRITE_DR(7, 0x402);
	count = 0;
	// A fault: the hook returns with RF set, so that the instruction runs.
	void on_break(struct frame *);
	hooks[1] = on_break;
	run_breakable(&result);
	check(count == 1 && result == 42 && (dr6 & 15) == 1 && steps[0] == (u64)break_here, "an instruction breakpoint is a fault; RF passes it",
	      "%d traps, result %d, DR6 %x at %x", (long)count, (long)result, dr6, steps[0]);
	hooks[1] = on_db;

	WRITE_DR(1, (u64)&watched);
	WRITE_DR(7, 0x400 | 8 | 0xd << 20);
	count = 0;
	write_watched(0);
	check(count == 1 && (dr6 & 15) == 2 && steps[0] == spot, "a write watchpoint is a trap after the store", "%d traps, DR6 %x at %x, want %x", (long)count, dr6, steps[0], spot);
	count = 0;
	read_watched(0);
	check(count == 0, "a write watchpoint ignores reads", "%d", (long)count);
	WRITE_DR(7, 0x400 | 8 | 0xf << 20);
	read_watched(0);
	check(count == 1, "a read-write watchpoint sees reads", "%d", (long)count);
	WRITE_DR(7, 0x400 | 0x2000);
	count = 0;
	void on_gd(struct frame *);
	hooks[1] = on_gd;
	touch_dr(0);
	check(count == 1 && dr6 & 0x2000, "DR7.GD: a debug-register access is #DB, BD set, GD cleared", "%d, DR6 %x", (long)count, dr6);
	hooks[1] = 0;
	WRITE_DR(7, 0x400);
	WRITE_CR(4, READ_CR(4) | 8);
	expect("DR4 with CR4.DE: #UD", dr4, 0, 6, 0);
	WRITE_CR(4, READ_CR(4) & ~8ull);
	expect("DR4 without CR4.DE", dr4, 0, -1, 0);
	expect("DR7 above 32 bits: #GP", dr7_high, 0, 13, 0);
	WRITE_DR(7, 0x400);
}

void on_break(struct frame *f) {
	on_db(f);
	f->rflags |= 1 << 16;
}
void on_gd(struct frame *f) { on_db(f); }
