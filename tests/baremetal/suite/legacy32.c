/* The legacy modes, compiled for 32 bits (SDM vol. 3A chapters 3 to 6, vol. 3B chapter 20). */
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

enum { DE, OF = 4, BR, UD, NP = 11, SS, GP, PF, TS = 10 };
#define P 1u
#define W 2u
#define U 4u
#define A 0x20u
#define D 0x40u
#define PS 0x80u

struct check { const char *name; u32 got, want; } legacy_checks[200];
u32 legacy_count;

static void eq(const char *name, u32 got, u32 want)
{
	if (legacy_count < 200)
		legacy_checks[legacy_count++] = (struct check){ name, got, want };
}

struct frame32 { u32 edi, esi, ebp, esp0, ebx, edx, ecx, eax, vector, error, eip, cs, eflags, esp, ss, es, ds, fs, gs; };
static struct frame32 last;
static u32 last_cr2;
extern u8 stubs32[256][16], real_code[], real_code_end[];
extern u32 saved_efer, real_offsets[3], stack32_top[];
int try32(void) __attribute__((returns_twice));
void recover32(int) __attribute__((noreturn));
void go32(const u32 *frame, u32 words);
u32 real_enter(void);

#define TRY(statement) ({ int v_ = try32(); if (v_ == -1) { statement; } v_; })
/* BAD packs how a statement ended: vector<<16 | error code, or all ones. */
#define BAD(statement) ({ int b_ = TRY(statement); b_ == -1 ? ~0u : (u32)b_ << 16 | last.error; })
#define FAULT(vector, code) ((vector) << 16 | (code))
#define NONE (~0u)

void dispatch32(struct frame32 *f)
{
	last = *f;
	asm volatile("mov %%cr2, %0" : "=r"(last_cr2));
	recover32(f->vector);
}

static u64 gdt32[32] __attribute__((aligned(16))) = { 0, 0x00cf9b000000ffff, 0x00cf93000000ffff };
static u64 idt32[256] __attribute__((aligned(16)));
static struct { u32 link, esp0, ss0, rest[22]; u16 trap, iomap; u8 bitmap[256]; } __attribute__((packed)) tss32 __attribute__((aligned(256)));
struct { u16 limit; u32 base; } __attribute__((packed)) gdtr32 = { sizeof gdt32 - 1, (u32)gdt32 }, idtr32 = { sizeof idt32 - 1, (u32)idt32 };

static u64 segment(u32 base, u32 limit, u32 attr)
{
	return (limit & 0xffff) | (u64)(base & 0xffffff) << 16 | (u64)(attr & 0xf0ff) << 40 | (u64)(limit >> 16 & 15) << 48 | (u64)(base >> 24) << 56;
}

static u64 gate(void *target, u32 sel, u32 type, u32 params)
{
	u32 t = (u32)target;
	return (t & 0xffff) | (u64)sel << 16 | (u64)params << 32 | (u64)type << 40 | (u64)(t >> 16) << 48;
}

/* Selectors: 08 code, 10 data, 18 16-bit code, 20 user data, 28 TSS, 30 user code, 50 16-bit data; the others are for the tests. */
static void install(void)
{
	gdt32[3] = segment(0, 0xffff, 0x009b);
	gdt32[10] = segment(0, 0xffff, 0x0093);
	gdt32[4] = segment(0, 0xfffff, 0xc0f3);
	gdt32[5] = segment((u32)&tss32, sizeof tss32 - 1, 0x89);
	gdt32[6] = segment(0, 0xfffff, 0xc0fb);
	for (int i = 0; i < 256; i++)
		idt32[i] = gate(stubs32[i], 8, i == 0x80 || i == 4 ? 0xee : 0x8e, 0);
	tss32.esp0 = (u32)stack32_top - 8192;
	tss32.ss0 = 0x10;
	tss32.iomap = sizeof tss32;
	asm volatile("lidt %0; ltr %w1" : : "m"(idtr32), "r"(0x28));
}

static u8 data[8192] __attribute__((aligned(4096)));
#define SEL 0x38
#define SET(base, limit, attr) (gdt32[SEL / 8] = segment((u32)(base), limit, attr))

static void segments(void)
{
	static const struct { u32 off; u16 sel; } __attribute__((packed)) far = { 7, SEL };
	u32 v;
	SET(data, 0xfff, 0x4093);
	asm volatile("mov %0, %%fs" : : "r"(SEL));
	eq("32-limit-last-byte", BAD(asm volatile("movb %%fs:0xfff, %%al" : : : "eax")), NONE);
	eq("32-limit-past", BAD(asm volatile("movw %%fs:0xfff, %%ax" : : : "eax")), FAULT(GP, 0));
	eq("32-limit-far-past", BAD(asm volatile("movb %%fs:0x1000, %%al" : : : "eax")), FAULT(GP, 0));
	eq("32-limit-wrap", BAD(asm volatile("movl %%fs:0xfffffffe, %%eax" : : : "eax")), FAULT(GP, 0));
	*(u32 *)(data + 0x10) = 0xfeed;
	asm volatile("movl %%fs:0x10, %0" : "=r"(v));
	eq("32-base", v, 0xfeed);
	SET(data, 0xfff, 0x4091);
	asm volatile("mov %0, %%fs" : : "r"(SEL));
	eq("32-read-only-read", BAD(asm volatile("movb %%fs:0, %%al" : : : "eax")), NONE);
	eq("32-read-only-write", BAD(asm volatile("movb %%al, %%fs:0" : : : "memory")), FAULT(GP, 0));
	SET(data, 0xfff, 0x4097);
	asm volatile("mov %0, %%fs" : : "r"(SEL));
	eq("32-expand-down-below", BAD(asm volatile("movb %%fs:0xfff, %%al" : : : "eax")), FAULT(GP, 0));
	eq("32-expand-down-above", BAD(asm volatile("movb %%fs:0x1000, %%al" : : : "eax")), NONE);
	asm volatile("mov %0, %%fs" : : "r"(0));
	eq("32-null-access", BAD(asm volatile("movb %%fs:0, %%al" : : : "eax")), FAULT(GP, 0));
	eq("32-code-write", BAD(asm volatile("movb %%al, %%cs:(%0)" : : "r"(data) : "memory")), FAULT(GP, 0));
	eq("32-ss-null", BAD(asm volatile("mov %0, %%ss" : : "r"(0))), FAULT(GP, 0));
	SET(0, 0x1ff, 0xc093); /* 2 MiB: the stack, and no more */
	eq("32-ss-limit", BAD(asm volatile("mov %0, %%ss; mov $0x300000, %%ebp; mov (%%ebp), %%eax" : : "r"(SEL) : "eax")), FAULT(SS, 0));
	eq("32-lfs", BAD(asm volatile("lfs %1, %0" : "=r"(v) : "m"(far))), NONE);
	eq("32-lfs-offset", v, 7);
	SET(0, 0xfffff, 0xc013);
	eq("32-absent", BAD(asm volatile("mov %0, %%fs" : : "r"(SEL))), FAULT(NP, SEL));
	asm volatile("mov %0, %%fs" : : "r"(0));
	SET((u32)data, 0xf, 0x409b);
	eq("32-ljmp-past-limit", BAD(asm volatile("ljmp $0x38, $0x100")), FAULT(GP, 0));
	eq("32-into", BAD(asm volatile("movb $0x7f, %%al; incb %%al; into" : : : "eax")), FAULT(OF, 0));
	static const u32 bounds[2] = { 1, 5 };
	eq("32-bound-in", BAD(asm volatile("bound %0, %1" : : "r"(5), "m"(bounds))), NONE);
	eq("32-bound-out", BAD(asm volatile("bound %0, %1" : : "r"(6), "m"(bounds))), FAULT(BR, 0));
	eq("32-aam-0", BAD(asm volatile(".byte 0xd4, 0" : : : "eax")), FAULT(DE, 0));
	u16 rpl = 0x10;
	u8 z;
	asm volatile("arpl %w2, %0; setz %1" : "+m"(rpl), "=r"(z) : "r"(3));
	eq("32-arpl", rpl << 1 | z, 0x27);
}

static u32 pd[1024] __attribute__((aligned(4096))), pt[1024] __attribute__((aligned(4096)));
#define VA 0x10000000u
#define PAGE(i) (VA + (i) * 4096)

static void set_cr0(u32 set, u32 clear)
{
	u32 v;
	asm volatile("mov %%cr0, %0" : "=r"(v));
	asm volatile("mov %0, %%cr0" : : "r"((v & ~clear) | set) : "memory");
}

static void set_cr4(u32 set, u32 clear)
{
	u32 v;
	asm volatile("mov %%cr4, %0" : "=r"(v));
	asm volatile("mov %0, %%cr4" : : "r"((v & ~clear) | set) : "memory");
}

static void set_cr3(u32 v)
{
	asm volatile("mov %0, %%cr3" : : "r"(v) : "memory");
}

#define READ(va) BAD((void)*(volatile u8 *)(va))
#define WRITE(va) BAD(*(volatile u8 *)(va) = 0xc3)
#define EXEC(va) BAD(((void (*)(void))(va))())

static void paging(void)
{
	set_cr4(0x10, 0x20 | 0x80); /* PSE, no PAE, no PGE */
	for (u32 i = 0; i < 4; i++)
		pd[i] = i << 22 | PS | P | W | U;
	pd[VA >> 22] = (u32)pt | P | W | U;
	pt[0] = (u32)data | P | W;
	pt[1] = 0;
	pt[2] = (u32)data | P;
	set_cr3((u32)pd);
	set_cr0(0x80010000, 0);
	data[0] = 0xc3;
	eq("32-page-read", READ(PAGE(0)), NONE);
	eq("32-page-a", pt[0] & (A | D), A);
	eq("32-page-write", WRITE(PAGE(0)), NONE);
	eq("32-page-d", pt[0] & (A | D), A | D);
	eq("32-large-a", pd[0] & A, A);
	eq("32-absent-read", READ(PAGE(1)), FAULT(PF, 0));
	eq("32-absent-cr2", last_cr2, PAGE(1));
	eq("32-absent-write", WRITE(PAGE(1)), FAULT(PF, 2));
	eq("32-absent-exec-has-no-id", EXEC(PAGE(1)), FAULT(PF, 0));
	eq("32-read-only-page-write", WRITE(PAGE(2)), FAULT(PF, 3));
	eq("32-exec", EXEC(PAGE(0)), NONE);
	set_cr0(0, 0x10000);
	eq("32-no-wp-write", WRITE(PAGE(2)), NONE);
	set_cr0(0x10000, 0);
	pd[3] |= 1 << 21;
	set_cr3((u32)pd);
	eq("32-pse-reserved", READ(0xc00000), FAULT(PF, 9));
	pd[3] &= ~(1u << 21);
	set_cr3((u32)pd);
	set_cr0(0, 0x80000000);
	set_cr4(0, 0x10);
}

static u64 pdpt[4] __attribute__((aligned(32))), pae_pd[512] __attribute__((aligned(4096))), pae_pt[512] __attribute__((aligned(4096)));

static void pae(void)
{
	set_cr4(0x20, 0);
	pdpt[0] = (u32)pae_pd | P;
	for (u32 i = 0; i < 8; i++)
		pae_pd[i] = i << 21 | PS | P | W | U;
	pae_pd[VA >> 21] = (u32)pae_pt | P | W | U;
	pae_pt[0] = (u32)data | P | W;
	pae_pt[1] = (u32)data | P | W | 1ull << 63;
	pae_pt[2] = (u32)data | P | W | 1ull << 52;
	u32 low = saved_efer & ~0x100u, high = 0;
	asm volatile("wrmsr" : : "c"(0xc0000080), "a"(low | 0x800), "d"(high));
	set_cr3((u32)pdpt);
	set_cr0(0x80000000, 0);
	data[0] = 0xc3;
	eq("pae-read", READ(PAGE(0)), NONE);
	eq("pae-write", WRITE(PAGE(0)), NONE);
	eq("pae-ad", pae_pt[0] & (A | D), A | D);
	eq("pae-exec", EXEC(PAGE(0)), NONE);
	eq("pae-nx", EXEC(PAGE(1)), FAULT(PF, 17));
	eq("pae-reserved", READ(PAGE(2)), FAULT(PF, 9));
	eq("pae-absent-pdpte", READ(0x40000000), FAULT(PF, 0));
	pdpt[1] = (u32)pae_pd | P;
	eq("pae-pdpte-held", READ(0x40000000 + (u32)data), FAULT(PF, 0));
	set_cr3((u32)pdpt);
	eq("pae-pdpte-loaded", READ(0x40000000 + (u32)data), NONE);
	pdpt[1] |= 2;
	eq("pae-pdpte-reserved", BAD(set_cr3((u32)pdpt)), FAULT(GP, 0));
	pdpt[1] = 0;
	set_cr3((u32)pdpt);
	set_cr0(0, 0x80000000);
	asm volatile("wrmsr" : : "c"(0xc0000080), "a"(low), "d"(high));
}

static u8 user_stack[1024] __attribute__((aligned(16)));
void user_exit(void), user_call(void), gate_target(void), gate_target16(void), user_after(void);
asm(".text\n"
	"user_exit: int $0x80\n"
	/* a call gate with two parameters, then the end */
	"user_call: push $0x1111; push $0x2222; lcall $0x43, $0; user_after: int $0x80\n"
	"gate_target: mov 8(%esp), %eax; mov 12(%esp), %ebx; lret $8\n");

static u32 ring3(void (*code)(void))
{
	u32 frame[5] = { (u32)code, 0x33, 2, (u32)user_stack + sizeof user_stack, 0x23 };
	return BAD(go32(frame, 5));
}

static void rings(void)
{
	eq("32-ring3", ring3(user_exit), FAULT(0x80, 0));
	eq("32-ring3-cs", last.cs, 0x33);
	eq("32-ring3-ss", last.ss, 0x23);
	eq("32-ring3-esp", last.esp, (u32)user_stack + sizeof user_stack);
	gdt32[8] = gate(gate_target, 8, 0xec, 2);
	eq("32-call-gate", ring3(user_call), FAULT(0x80, 0));
	eq("32-call-gate-params", last.eax << 16 | last.ebx, 0x22221111);
	eq("32-call-gate-return", last.eip, (u32)user_after + 2);
	eq("32-call-gate-pops", last.esp, (u32)user_stack + sizeof user_stack);
	gdt32[8] = gate(gate_target, 8, 0x8c, 2);
	eq("32-call-gate-dpl", ring3(user_call), FAULT(GP, 0x40));
	gdt32[9] = segment(0, 0xfffff, 0xc0bb); /* code of ring 1 */
	gdt32[8] = gate(gate_target, 0x48, 0xec, 2);
	tss32.rest[0] = tss32.esp0 - 4096;
	tss32.rest[1] = 0x20;
	eq("32-ts-ss-dpl", ring3(user_call), FAULT(TS, 0x20));
	tss32.rest[1] = 0;
	eq("32-ts-ss-null", ring3(user_call), FAULT(TS, 0));
	u32 frame[5] = { (u32)user_exit, 0x33, 2, (u32)user_stack + 1024, 0x10 };
	eq("32-iret-bad-ss", BAD(go32(frame, 5)), FAULT(GP, 0x10));
	u32 same[3] = { (u32)user_exit, 8, 2 };
	eq("32-iret-same", BAD(go32(same, 3)), FAULT(0x80, 0));
	idt32[0x81] = gate(stubs32[0x81], 8, 0x6e, 0);
	eq("32-gate-absent", BAD(asm volatile("int $0x81")), FAULT(NP, 0x81 * 8 + 2));
}

/* Virtual-8086 code lies at 0x7000. */
static u32 v86(const u8 *code, u32 n, u32 iopl)
{
	for (u32 i = 0; i < n; i++)
		((volatile u8 *)0x7000)[i] = code[i];
	u32 frame[9] = { 0, 0x20002 | iopl << 12, 0, 0, 0, 0, 0, 0, 0 };
	u32 f[9] = { 0x10, 0x6ff, frame[1], 0xf00, 0x600, 0x111, 0x222, 0x333, 0x444 };
	return BAD(go32(f, 9));
}
#define V86(iopl, ...) ({ static const u8 c_[] = { __VA_ARGS__ }; v86(c_, sizeof c_, iopl); })

static void virtual_8086(void)
{
	eq("v86-int-iopl3", V86(3, 0xcd, 0x80), FAULT(0x80, 0));
	eq("v86-vm-pushed", last.eflags >> 17 & 1, 1);
	eq("v86-cs-ip", last.cs << 16 | (last.eip & 0xffff), 0x6ff << 16 | 0x12);
	eq("v86-segments", last.es << 16 | last.ds, 0x111 << 16 | 0x222);
	eq("v86-segments-fs-gs", last.fs << 16 | last.gs, 0x333 << 16 | 0x444);
	eq("v86-ss-sp", last.ss << 16 | (last.esp & 0xffff), 0x600 << 16 | 0xf00);
	eq("v86-int-iopl0", V86(0, 0xcd, 0x80), FAULT(GP, 0));
	eq("v86-cli-iopl0", V86(0, 0xfa), FAULT(GP, 0));
	eq("v86-pushf-iopl0", V86(0, 0x9c), FAULT(GP, 0));
	eq("v86-hlt", V86(3, 0xf4), FAULT(GP, 0));
	eq("v86-in-bitmap", V86(3, 0xe4, 0x64), FAULT(GP, 0));
	eq("v86-lgdt", V86(3, 0x0f, 0x01, 0x16, 0, 0), FAULT(GP, 0));
	eq("v86-lldt", V86(3, 0x0f, 0x00, 0xd0), FAULT(UD, 0));
	/* mov $0x900, %ax; mov %ax, %ds; mov (0), %bx; int $0x80 */
	*(volatile u16 *)0x9000 = 0x4321;
	eq("v86-mov-ds", V86(3, 0xb8, 0x00, 0x09, 0x8e, 0xd8, 0x8b, 0x1e, 0, 0, 0xcd, 0x80), FAULT(0x80, 0));
	eq("v86-mov-ds-value", last.ebx & 0xffff, 0x4321);
	eq("v86-limit", V86(3, 0xbe, 0xff, 0xff, 0x8b, 0x1c, 0xcd, 0x80), FAULT(GP, 0));
}

static void real(void)
{
	for (u32 i = 0; i < (u32)(real_code_end - real_code); i++)
		((volatile u8 *)0x8000)[i] = real_code[i];
	static const u8 vectors[] = { 0x60, 13, 0 };
	for (u32 i = 0; i < 3; i++)
		((volatile u32 *)0)[vectors[i]] = 0x8000 + real_offsets[i];
	for (u32 i = 0; i < 5; i++)
		((volatile u16 *)0x9000)[i] = 0;
	real_enter();
	volatile u16 *out = (volatile u16 *)0x9000;
	eq("real-int", out[0], 0x5678);
	eq("real-segment-end-gp", out[1], 13);
	eq("real-far-call", out[2], 0xf001);
	eq("real-pushf", out[3] & 0x7202, 2);
	eq("real-divide", out[4], 0xde);
}

void legacy_main(void)
{
	eq("lma-cleared-with-pg", saved_efer >> 10 & 1, 0);
	install();
	segments();
	paging();
	pae();
	rings();
	virtual_8086();
	real();
}
