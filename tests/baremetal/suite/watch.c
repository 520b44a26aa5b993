/* Single step over all kinds of instructions, and breakpoints in detail (SDM vol. 3B §17.2, §17.3; vol. 3A §6.8.3). debug.c has the first steps. */
#include "chips.h"

#define RESET6 0xffff0ff0
static int hits;
static u64 hit_rip[128], hit_dr6[128], hit_rcx[128], hit_flags[128];

/* note keeps each #DB and goes on. */
static int note(struct frame *f)
{
	if (f->vector != DB)
		return 0;
	if (hits < 128) {
		hit_rip[hits] = f->rip;
		hit_dr6[hits] = dr6();
		hit_rcx[hits] = f->rcx;
		hit_flags[hits] = f->rflags;
	}
	if (++hits > 200) {
		f->rflags &= ~0x100UL;
		set_dr7(0x400);
	}
	set_dr6(RESET6);
	return 1;
}

/* resume also lets the instruction of a fault go on. */
static int resume_rf(struct frame *f)
{
	int r = note(f);
	if (r)
		f->rflags |= 1 << 16;
	return r;
}

static void start(int (*h)(struct frame *))
{
	set_dr6(RESET6);
	hits = 0;
	hook = h;
}

/* BP(i, kind, length) is what DR7 has for breakpoint i. */
enum { EXEC, WRITE, PORT, ACCESS };
#define LEN(n) ((n) == 8 ? 2UL : (n) - 1UL)
#define BP(i, kind, length) (0x400UL | 2UL << 2 * (i) | ((kind) | LEN(length) << 2) << (16 + 4 * (i)))

/* STEP leaves the address after the instruction in the table. */
asm(".macro STEP text:vararg\n"
	"\\text\n"
	".Lstep\\@:\n"
	".pushsection .rodata.steps, \"a\"; .quad .Lstep\\@; .popsection\n"
	".endm\n"
	".pushsection .rodata.steps, \"a\"; .globl step_table\nstep_table: .popsection\n");
extern const u64 step_table[];
#define TF_ON "pushfq; orl $0x100, (%%rsp); popfq\n"
#define TF_OFF "STEP pushfq\n STEP andl $~0x100, (%%rsp)\n STEP popfq\n"

static void kinds(void)
{
	static const char *const names[] = {
		"nop", "lea", "add-mem", "lock", "push", "pop", "jcc-taken", "jcc-not-taken", "jmp", "call", "ret", "loop", "rep-none", "movs",
		"mul", "div", "cpuid", "in", "out", "rdtsc", "rdmsr", "wrmsr", "mov-from-cr", "mov-to-cr", "mov-from-dr", "cli", "sti",
		"sse", "x87", "x87-mem", "mmx", "emms", "invlpg", "smsw", "lar", "str", "sgdt", "clts", "swapgs", "swapgs-back", "mov-ds", "push-fs", "xchg",
		"cmpxchg16b", "pause", "mfence", "enter", "leave", "rdtscp", "wbinvd",
	};
	static u8 buffer[64] __attribute__((aligned(16)));
	u64 saved = rdmsr(0xc0000083), pointer = (u64)buffer;
	start(note);
	asm volatile(TF_ON
		"STEP nop\n"
		"STEP lea 16(%0), %%rsi\n"
		"STEP addl $1, (%0)\n"
		"STEP lock incl (%0)\n"
		"STEP push %%rax\n"
		"STEP pop %%rax\n"
		"cmp %%eax, %%eax\n"
		"STEP je 2f\n 2:\n"
		"STEP jne 2b\n"
		"STEP jmp 3f\n 3:\n"
		"STEP call 4f\n 4:\n"
		"pop %%rcx; lea 5f(%%rip), %%rcx; push %%rcx\n"
		"STEP ret\n 5:\n"
		"mov $2, %%ecx\n"
		"STEP loop 6f\n 6:\n"
		"xor %%ecx, %%ecx\n mov %0, %%rdi\n"
		"STEP rep movsb\n"
		"STEP movsb\n"
		"STEP mul %%ecx\n"
		"mov $7, %%eax; xor %%edx, %%edx; mov $3, %%ecx\n"
		"STEP div %%ecx\n"
		"xor %%eax, %%eax; mov %%rbx, %%r8\n"
		"STEP cpuid\n"
		"mov %%r8, %%rbx\n"
		"STEP in $0x80, %%al\n"
		"STEP out %%al, $0x80\n"
		"STEP rdtsc\n"
		"mov $0xc0000083, %%ecx\n"
		"STEP rdmsr\n"
		"STEP wrmsr\n"
		"STEP mov %%cr0, %%rcx\n"
		"STEP mov %%rcx, %%cr0\n"
		"STEP mov %%dr7, %%rcx\n"
		"STEP cli\n"
		"pushfq\n"
		"STEP sti\n"
		"cli; add $8, %%rsp\n"
		"STEP xorps %%xmm0, %%xmm0\n"
		"STEP fnop\n"
		"STEP fnstcw 32(%0)\n"
		"STEP movd %%eax, %%mm0\n"
		"STEP emms\n"
		"STEP invlpg (%0)\n"
		"STEP smsw %%eax\n"
		"STEP lar %%ax, %%ecx\n"
		"STEP str %%eax\n"
		"STEP sgdt 32(%0)\n"
		"STEP clts\n"
		"STEP swapgs\n"
		"STEP swapgs\n"
		"mov %%ds, %%eax\n"
		"STEP mov %%eax, %%ds\n"
		"STEP push %%fs\n"
		"add $8, %%rsp\n"
		"STEP xchg %%eax, (%0)\n"
		"xor %%eax, %%eax; xor %%edx, %%edx\n"
		"STEP cmpxchg16b 32(%0)\n"
		"STEP pause\n"
		"STEP mfence\n"
		"STEP enter $16, $0\n"
		"STEP leave\n"
		"STEP rdtscp\n"
		"STEP wbinvd\n"
		TF_OFF : "+r"(pointer) : : "rax", "rcx", "rdx", "rsi", "rdi", "r8", "memory", "cc");
	hook = 0;
	wrmsr(0xc0000083, saved);
	for (unsigned i = 0; i < sizeof names / sizeof *names; i++) {
		int seen = 0;
		for (int j = 0; j < hits && j < 128; j++)
			seen += hit_rip[j] == step_table[i];
		ok(name("step-", names[i], ""), seen >= 1);
	}
}

/* BTF: only branches trap, until one did (SDM vol. 3B §17.4.3). */
extern u8 btf1[], btf2[], btf3[];
static void branches(void)
{
	start(note);
	wrmsr(0x1d9, 2);
	asm volatile(TF_ON
		"nop; nop; jne btf3\n"
		"jmp btf1\n nop\n"
		"btf1: nop\n btf2: pushfq; andl $~0x100, (%%rsp); popfq\n btf3:\n"
		".globl btf1, btf2, btf3" : : : "memory", "cc");
	hook = 0;
	eq("btf-waits-for-branch", hit_rip[0], (u64)btf1);
	eq("btf-bs", hit_dr6[0], RESET6 | 1 << 14);
	eq("btf-then-each", hit_rip[1], (u64)btf2);
	eq("btf-cleared", rdmsr(0x1d9) & 2, 0);
	wrmsr(0x1d9, 0);
}

static volatile int others;
static int step_and_count(struct frame *f)
{
	if (f->vector == DB)
		return note(f);
	others++;
	if (f->vector == UD)
		f->rip += 2;
	return f->vector == BP || f->vector == UD || f->vector == 0x42;
}

extern u8 after_bp[], after_bp2[], after_ud[], after_ud2[], ss1[], ss2[], ss3[], ss4[];
static void around_exceptions(void)
{
	others = 0;
	start(step_and_count);
	asm volatile(TF_ON "int3\n after_bp: nop\n after_bp2: pushfq; andl $~0x100, (%%rsp); popfq\n.globl after_bp, after_bp2"
		: : : "memory", "cc");
	eq("tf-int3-first", hit_rip[0], (u64)after_bp2);
	start(step_and_count);
	asm volatile(TF_ON "ud2\n after_ud: nop\n after_ud2: pushfq; andl $~0x100, (%%rsp); popfq\n.globl after_ud, after_ud2"
		: : : "memory", "cc");
	hook = 0;
	eq("tf-ud-first", hit_rip[0], (u64)after_ud2);
	eq("tf-exceptions", others, 2);

	/* MOV SS puts off what it met itself, and no breakpoint is heeded on the instruction behind it. */
	static u16 selector = 0x10;
	start(note);
	set_dr0((u64)&selector);
	set_dr7(BP(0, ACCESS, 2));
	asm volatile("mov %0, %%ss\n ss1: nop\n ss2: nop\n.globl ss1, ss2" : : "m"(selector));
	set_dr7(0x400);
	eq("mov-ss-data", hits, 1);
	eq("mov-ss-data-put-off", hit_rip[0], (u64)ss2);
	eq("mov-ss-data-dr6", hit_dr6[0] & 0x400f, 1);
	start(resume_rf);
	set_dr0((u64)ss3);
	set_dr7(BP(0, EXEC, 1));
	asm volatile("mov %0, %%ss\n ss3: nop\n nop\n.globl ss3" : : "m"(selector));
	set_dr7(0x400);
	eq("mov-ss-hides-breakpoint", hits, 0);
	start(resume_rf);
	set_dr0((u64)ss4);
	set_dr7(BP(0, EXEC, 1));
	asm volatile("sti\n ss4: cli\n nop\n.globl ss4");
	set_dr7(0x400);
	eq("sti-hides-no-breakpoint", hits, 1);
	others = 0;
	start(step_and_count);
	set_dr0((u64)&selector);
	set_dr7(BP(0, ACCESS, 2));
	asm volatile("mov %0, %%ss\n int $0x42\n" : : "m"(selector));
	set_dr7(0x400);
	eq("mov-ss-int", others, 1);
	eq("mov-ss-int-db", hits, 1);
	eq("mov-ss-int-rip", hit_rip[0], (u64)stubs[0x42]);
	hook = 0;
}

extern u8 e1[], e2[], e3[], e4[], e5[], e6[];
static int break_twice(struct frame *f)
{
	int r = note(f);
	if (r && hits >= 2)
		f->rflags |= 1 << 16;
	return r;
}

static int break_and_map(struct frame *f)
{
	if (f->vector != PF)
		return resume_rf(f);
	others += f->rflags >> 16 & 1;
	map(5, phys(pages[5]) | P | W);
	return 1;
}

static void execution(void)
{
	static u8 from[4], to[4];
	start(break_twice);
	set_dr0((u64)e1);
	set_dr7(BP(0, EXEC, 1));
	asm volatile("nop\n e1: nop\n nop\n.globl e1");
	eq("exec-again-without-rf", hits, 2);
	eq("exec-pushes-no-rf", hit_flags[0] >> 16 & 1, 0);
	start(resume_rf);
	set_dr0((u64)e2);
	set_dr7(BP(0, EXEC, 1));
	asm volatile("mov $3, %%ecx\n e2: dec %%ecx\n jnz e2\n.globl e2" : : : "ecx", "cc");
	eq("exec-each-time", hits, 3);
	start(resume_rf);
	set_dr0((u64)e3);
	asm volatile("e3: rep movsb\n.globl e3" : : "S"(from), "D"(to), "c"(4) : "memory");
	eq("exec-rep-once", hits, 1);
	start(resume_rf);
	set_dr0((u64)e4 + 1);
	asm volatile("e4: mov $0x90909090, %%eax\n nop\n.globl e4" : : : "eax");
	eq("exec-not-inside", hits, 0);
	set_dr0((u64)e5);
	set_dr3((u64)e5);
	set_dr7(BP(0, EXEC, 1) | BP(3, EXEC, 1));
	asm volatile("e5: nop\n nop\n.globl e5");
	eq("exec-two", hits, 1);
	eq("exec-two-dr6", hit_dr6[0] & 0xf, 9);
	/* Through a page fault: RF is in its frame, and the breakpoint is not met again. */
	map(5, 0);
	others = 0;
	start(break_and_map);
	set_dr0((u64)e6);
	set_dr7(BP(0, EXEC, 1));
	asm volatile("e6: mov (%0), %%eax\n nop\n.globl e6" : : "r"(PAGE(5)) : "eax");
	eq("exec-fault-rf", others, 1);
	eq("exec-fault-once", hits, 1);
	map(5, 0);
	start(resume_rf);
	set_dr7(BP(0, EXEC, 1) >> 1 | 0x400); /* local */
	set_dr0((u64)e1);
	set_dr7(0x400 | 1);
	asm volatile("nop");
	eq("exec-elsewhere", hits, 0);
	set_dr3(0);
	set_dr7(0x400);
	hook = 0;
}

static u8 area[64] __attribute__((aligned(64)));
#define W_(text) asm volatile(text : : "r"(area + 16) : "rax", "rcx", "rdx", "rsi", "rdi", "memory", "cc")
static void w_byte(void) { W_("movb $1, (%0)"); }
static void w_byte3(void) { W_("movb $1, 3(%0)"); }
static void w_byte4(void) { W_("movb $1, 4(%0)"); }
static void w_before(void) { W_("movb $1, -1(%0)"); }
static void w_over(void) { W_("movq $1, -7(%0)"); }
static void w_short(void) { W_("movq $1, -8(%0)"); }
static void w_xmm(void) { W_("movups %%xmm0, -12(%0)"); }
static void w_read(void) { W_("mov (%0), %%eax"); }
static void w_rmw(void) { W_("incl (%0)"); }
static void w_locked(void) { W_("lock decl (%0)"); }
static void w_cmpxchg(void) { W_("mov $-1, %%eax; lock cmpxchg %%ecx, (%0)"); }
static void w_xchg(void) { W_("xchg %%eax, (%0)"); }
static void w_test(void) { W_("testl $1, (%0)"); }
static void w_push(void) { W_("mov %%rsp, %%rcx; lea 8(%0), %%rsp; push %%rax; mov %%rcx, %%rsp"); }
static void w_pop(void) { W_("mov %%rsp, %%rcx; mov %0, %%rsp; pop %%rax; mov %%rcx, %%rsp"); }
static void w_call(void) { W_("mov %%rsp, %%rcx; lea 8(%0), %%rsp; call 1f; 1: mov %%rcx, %%rsp"); }
static void w_stos(void) { W_("mov %0, %%rdi; stosl"); }
static void w_lods(void) { W_("mov %0, %%rsi; lodsl"); }
static void w_scas(void) { W_("mov %0, %%rdi; scasb"); }
static void w_fst(void) { W_("fninit; fld1; fstps (%0)"); }
static void w_fxsave(void) { W_("fnstenv (%0)"); }
static void w_lea(void) { W_("lea (%0), %%rax"); }
static void w_prefetch(void) { W_("prefetcht0 (%0)"); }
static void w_push_mem(void) { W_("push (%0); pop %%rax"); }
static void w_bts(void) { W_("btsl $3, (%0)"); }
static void w_sgdt(void) { W_("sgdt (%0)"); }

/* Whether an access of area+16 is met by a breakpoint on writes, and on accesses, of 4 bytes there. */
static void data(void)
{
	static const struct { const char *name; void (*run)(void); u8 write, access; } list[] = {
		{ "byte", w_byte, 1, 1 }, { "byte-3", w_byte3, 1, 1 }, { "byte-4", w_byte4, 0, 0 }, { "before", w_before, 0, 0 }, { "over", w_over, 1, 1 },
		{ "short-of", w_short, 0, 0 }, { "xmm", w_xmm, 1, 1 }, { "load", w_read, 0, 1 }, { "inc", w_rmw, 1, 1 }, { "locked", w_locked, 1, 1 },
		{ "cmpxchg-fails", w_cmpxchg, 1, 1 }, { "xchg", w_xchg, 1, 1 }, { "test", w_test, 0, 1 }, { "push", w_push, 1, 1 }, { "pop", w_pop, 0, 1 },
		{ "call", w_call, 1, 1 }, { "stos", w_stos, 1, 1 }, { "lods", w_lods, 0, 1 }, { "scas", w_scas, 0, 1 }, { "fst", w_fst, 1, 1 },
		{ "fnstenv", w_fxsave, 1, 1 }, { "lea", w_lea, 0, 0 }, { "prefetch", w_prefetch, 0, 0 }, { "push-mem", w_push_mem, 0, 1 }, { "bts", w_bts, 1, 1 },
		{ "sgdt", w_sgdt, 1, 1 },
	};
	set_dr2((u64)area + 16);
	for (unsigned i = 0; i < sizeof list / sizeof *list; i++) {
		start(note);
		set_dr7(BP(2, WRITE, 4));
		list[i].run();
		set_dr7(0x400);
		eq(name("watch-w-", list[i].name, ""), hits != 0, list[i].write);
		start(note);
		set_dr7(BP(2, ACCESS, 4));
		list[i].run();
		set_dr7(0x400);
		eq(name("watch-rw-", list[i].name, ""), hits != 0, list[i].access);
		hook = 0;
		asm volatile("fninit");
	}
	/* Length and alignment: low bits of the address do not count. */
	static const u8 lengths[] = { 1, 2, 4, 8 };
	for (int i = 0; i < 4; i++) {
		int n = lengths[i], wrong = 0;
		set_dr1((u64)area + 16 + n - 1);
		for (int j = 8; j < 32; j++) {
			start(note);
			set_dr7(BP(1, WRITE, n));
			*(volatile u8 *)(area + j) = 1;
			set_dr7(0x400);
			wrong += hits != (j >= 16 && j < 16 + n);
			hook = 0;
		}
		static char digit[2];
		digit[0] = '0' + n;
		eq(name("watch-length-", digit, ""), wrong, 0);
	}
	static u8 from[8] = { 1, 2, 3, 4, 5, 6, 7, 8 };
	start(note);
	set_dr1((u64)area + 18);
	set_dr7(BP(1, WRITE, 1));
	asm volatile("rep movsb" : : "S"(from), "D"(area + 16), "c"(8) : "memory");
	set_dr7(0x400);
	eq("watch-rep", hits, 1);
	eq("watch-rep-after-iteration", hit_rcx[0], 5);
	start(note);
	set_dr0((u64)area + 16);
	set_dr1((u64)area + 20);
	set_dr7(BP(0, WRITE, 4) | BP(1, WRITE, 4));
	*(volatile u64 *)(area + 16) = 1;
	set_dr7(0x400);
	eq("watch-two", hits, 1);
	eq("watch-two-dr6", hit_dr6[0] & 0xf, 3);
	/* With a single step: one exception says both. */
	start(note);
	set_dr7(BP(0, WRITE, 4));
	asm volatile(TF_ON "movl $1, (%0)\n pushfq; andl $~0x100, (%%rsp); popfq" : : "r"(area + 16) : "memory", "cc");
	set_dr7(0x400);
	eq("watch-and-step", hit_dr6[0] & 0x600f, 0x4001);
	/* An instruction that faults has met nothing. */
	start(note);
	set_dr7(BP(0, ACCESS, 4));
	eq("watch-fault", ({ hook = 0; TRY(asm volatile("movq (%0), %%mm0; mov (%0), %%rax; push (%0); pop (%1)" : : "r"(area + 16), "r"(PAGE(300)) : "rax", "memory")); }), DB);
	set_dr7(0x400);
	set_dr6(RESET6);
	asm volatile("emms");
	hook = 0;
}

static void ports(void)
{
	static const struct { const char *name; u16 port; u8 length, hit1, hit2, hit4, string; } list[] = {
		{ "own", 0x80, 1, 1, 1, 1, 1 }, { "below", 0x81, 1, 0, 1, 1, 0 }, { "far-below", 0x84, 4, 0, 0, 0, 0 }, { "around", 0x80, 4, 1, 1, 1, 1 },
	};
	static u8 bytes[4];
	set_cr4(cr4() | 8);
	for (unsigned i = 0; i < sizeof list / sizeof *list; i++) {
		set_dr3(list[i].port);
		for (int k = 0; k < 4; k++) {
			start(note);
			set_dr7(BP(3, PORT, list[i].length));
			switch (k) {
			case 0: asm volatile("outb %%al, $0x80" : : "a"(0)); break;
			case 1: asm volatile("outw %%ax, $0x80" : : "a"(0)); break;
			case 2: asm volatile("outl %%eax, $0x80" : : "a"(0)); break;
			case 3: asm volatile("outsb" : : "S"(bytes), "d"(0x80)); break;
			}
			set_dr7(0x400);
			hook = 0;
			static const char *const how[] = { "-byte", "-word", "-dword", "-string" };
			u8 want[] = { list[i].hit1, list[i].hit2, list[i].hit4, list[i].string };
			eq(name(want[k] ? "port-hit-" : "port-miss-", list[i].name, how[k]), hits, want[k]);
		}
	}
	start(note);
	set_dr3(0x80);
	set_dr7(BP(3, PORT, 1));
	inb(0x80);
	inb(0x81);
	set_dr7(0x400);
	eq("port-hit-in", hits, 1);
	set_cr4(cr4() & ~8UL);
	hook = 0;
}

USER_CODE(u_int1, ".byte 0xf1");
USER_CODE(u_mov_dr, "mov %dr0, %rax");
USER_CODE(u_step, "pushfq; orl $0x100, (%rsp); popfq; nop; nop");
asm(".text\n.globl u_step_syscall, step_syscall_entry, do_sysret_tf\n"
	"u_step_syscall: pushfq; orl $0x100, (%rsp); popfq; syscall; ud2\n"
	"step_syscall_entry: nop; int $0x43; ud2\n"
	"do_sysret_tf: mov %rdi, %rcx; mov $0x102, %r11; mov %rsi, %rsp; sysretq\n");
void u_step_syscall(void), do_sysret_tf(u64 rip, u64 rsp);
USER_CODE(u_nops, "nop; nop");
extern u8 step_syscall_entry[], icebp1[];

static void from_user(void)
{
	set_dr6(RESET6);
	eq("icebp", TRY(asm volatile(".byte 0xf1\n icebp1: nop\n.globl icebp1")), DB);
	eq("icebp-rip", last.rip, (u64)icebp1);
	eq("icebp-dr6", dr6(), RESET6);
	eq("icebp-user", user(u_int1, 0), DB);
	set_dr7(0x2400);
	eq("gd-user", user(u_mov_dr, 0), GP);
	ok("gd-user-stays", TRY((void)dr7()) == DB);
	set_dr6(RESET6);
	set_dr7(0x400);
	start(0);
	eq("step-user", user(u_step, 0), DB);
	eq("step-user-cs", last.cs, 0x2b);
	eq("step-user-dr6", dr6() & 0xf00f, 0x4000);
	set_dr6(RESET6);
	u64 star = rdmsr(0xc0000081), target = rdmsr(0xc0000082), mask = rdmsr(0xc0000084);
	wrmsr(0xc0000081, 0x0018000800000000);
	wrmsr(0xc0000082, (u64)step_syscall_entry);
	wrmsr(0xc0000084, 0x300);
	eq("step-syscall-masked", user(u_step_syscall, 0), 0x43);
	wrmsr(0xc0000084, 0x200);
	set_dr6(RESET6);
	eq("step-syscall", user(u_step_syscall, 0), DB);
	eq("step-syscall-rip", last.rip, (u64)step_syscall_entry);
	set_dr6(RESET6);
	eq("step-sysret", TRY(do_sysret_tf(USER(u_nops), USER(user_stack) + 4000)), DB);
	eq("step-sysret-rip", last.rip, USER(u_nops));
	set_dr6(RESET6);
	wrmsr(0xc0000081, star);
	wrmsr(0xc0000082, target);
	wrmsr(0xc0000084, mask);
}

static void registers(void)
{
	set_dr7(0xffff5c00 & ~0x2000);
	eq("dr7-reserved", dr7(), 0xffff0400);
	set_dr7(0x700);
	eq("dr7-exact", dr7(), 0x700);
	set_dr7(0x400);
	set_dr6(0xffffffff);
	eq("dr6-all", dr6() & ~0x10800UL, 0xffffefff & ~0x10800UL);
	set_dr6(0xffff4ff0);
	start(0);
	set_dr0((u64)area);
	set_dr7(BP(0, WRITE, 1));
	set_dr6(0xffff4ff0);
	eq("dr6-bs-stays", ({ TRY(asm volatile("movb $1, (%0)\n nop" : : "r"(area) : "memory")); dr6() & 0x400f; }), 0x4001);
	set_dr7(0x400);
	set_dr6(RESET6);
	eq("dr0-user", user(u_mov_dr, 0), GP);
}

void test_watch(void)
{
	pics(0xff); /* some instructions here are between STI and CLI */
	kinds();
	branches();
	around_exceptions();
	execution();
	data();
	ports();
	from_user();
	registers();
	set_dr0(0);
	set_dr1(0);
	set_dr2(0);
	set_dr3(0);
}
