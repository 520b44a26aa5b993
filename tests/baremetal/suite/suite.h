/* What the tests share: see boot.S and lib.c. */
#ifndef SUITE_H
#define SUITE_H

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long u64;

enum { DE, DB, NMI, BP, OF, BR, UD, NM, DF, TS = 10, NP, SS, GP, PF, MF = 16, AC, MC, XM };

#define NOTRAP (-1)
#define USER_EXIT 0x80 /* int 0x80 ends user code */

struct frame {
	u64 r15, r14, r13, r12, r11, r10, r9, r8, rbp, rdi, rsi, rdx, rcx, rbx, rax;
	u64 vector, error, rip, cs, rflags, rsp, ss;
};

extern struct frame last; /* of the trap that ended the last TRY */
extern u64 last_cr2;
extern int (*volatile hook)(struct frame *); /* sees every trap first; 1: resume */

int try_enter(void) __attribute__((returns_twice));
extern volatile int trying;
void recover(int vector) __attribute__((noreturn));
void go(u64 rip, u64 cs, u64 rflags, u64 rsp, u64 ss, u64 rdi);
extern u8 int_n[256][16];

/* TRY runs a statement and returns the vector of the trap that ended it, or NOTRAP. */
#define TRY(statement) ({ int v_ = try_enter(); if (v_ == NOTRAP) { statement; trying = 0; } v_; })

/* Reporting. */
void ok(const char *name, int good);
void eq(const char *name, u64 got, u64 want);
const char *name(const char *a, const char *b, const char *c); /* joins the parts of one; it stays */
void print(const char *s);
void printx(u64 v);

/* Descriptors. */
extern u64 gdt[], gdt_end[];
struct table { u16 limit; u64 base; } __attribute__((packed));
extern struct table gdtr, idtr;
struct gate { u16 low, sel; u8 ist, type; u16 mid; u32 high, zero; } __attribute__((packed));
extern struct gate idt[256];
struct tss { u32 r0; u64 rsp[3]; u64 r1; u64 ist[7]; u64 r2; u16 r3, iomap; u8 bitmap[0x2000 + 1]; } __attribute__((packed));
extern struct tss tss;
void set_gate(int vector, void *target, int type_dpl, int ist);
extern u8 stubs[256][16];
#define SCRATCH 0x50 /* first of 16 free descriptors */
u64 segment(u64 base, u32 limit, u32 attr);

/* Paging: page i of the test region, a va of its own with 4 KiB entries under user-accessible tables. */
#define REGION 0x008000000000UL
#define PAGE(i) (REGION + (u64)(i) * 4096)
#define P 1UL
#define W 2UL
#define U 4UL
#define A 0x20UL
#define D 0x40UL
#define PS 0x80UL
#define G 0x100UL
#define NX (1UL << 63)
extern u64 pml4[512], pdpt[512], pd0[512], region_pml4e, region_pdpt[512], region_pd[512], region_pt[512];
extern u8 pages[16][4096];
void map(int i, u64 entry); /* and invlpg */
u64 phys(void *p);

/* USER(p) is where user mode sees the image. */
#define USER_BASE 0x010000000000UL
#define USER(p) ((u64)(p) + USER_BASE)
int user(void (*code)(void), u64 rdi); /* runs code at CPL 3 until it traps */
#define USER_CODE(name, text) \
	void name(void); \
	asm(".text\n.globl " #name "\n" #name ":\n" text "\nint $0x80\nud2\n")
extern u8 user_stack[4096];

/* Instructions. */
#define CR(n) \
	static inline u64 cr##n(void) { u64 v; asm volatile("mov %%cr" #n ", %0" : "=r"(v)); return v; } \
	static inline void set_cr##n(u64 v) { asm volatile("mov %0, %%cr" #n : : "r"(v) : "memory"); }
CR(0) CR(2) CR(3) CR(4) CR(8)
#define DR(n) \
	static inline u64 dr##n(void) { u64 v; asm volatile("mov %%dr" #n ", %0" : "=r"(v)); return v; } \
	static inline void set_dr##n(u64 v) { asm volatile("mov %0, %%dr" #n : : "r"(v) : "memory"); }
DR(0) DR(1) DR(2) DR(3) DR(6) DR(7)
static inline u64 rdmsr(u32 i) { u32 a, d; asm volatile("rdmsr" : "=a"(a), "=d"(d) : "c"(i)); return a | (u64)d << 32; }
static inline void wrmsr(u32 i, u64 v) { asm volatile("wrmsr" : : "c"(i), "a"((u32)v), "d"((u32)(v >> 32)) : "memory"); }
static inline u64 rdtsc(void) { u32 a, d; asm volatile("rdtsc" : "=a"(a), "=d"(d)); return a | (u64)d << 32; }
static inline u8 inb(u16 p) { u8 v; asm volatile("inb %1, %0" : "=a"(v) : "Nd"(p)); return v; }
static inline void outb(u16 p, u8 v) { asm volatile("outb %0, %1" : : "a"(v), "Nd"(p)); }
static inline void invlpg(u64 va) { asm volatile("invlpg (%0)" : : "r"(va) : "memory"); }
static inline u64 flags(void) { u64 v; asm volatile("pushfq; pop %0" : "=r"(v)); return v; }
static inline void set_flags(u64 v) { asm volatile("push %0; popfq" : : "r"(v) : "memory", "cc"); }
static inline void cpuid(u32 leaf, u32 sub, u32 *r) { asm volatile("cpuid" : "=a"(r[0]), "=b"(r[1]), "=c"(r[2]), "=d"(r[3]) : "a"(leaf), "c"(sub)); }
#define POKE(p, v) (*(volatile u64 *)(p) = (v))
#define PEEK(p) (*(volatile u64 *)(p))

/* Features of this CPU. */
int has_pcid(void), has_invpcid(void), has_smep(void), has_smap(void), has_umip(void), has_fsgsbase(void), has_x2apic(void), has_deadline(void);

/* on_tcg: QEMU's own CPU, or a KVM on it; it obeys some of what must be refused, and dies of it. */
int on_tcg(void);
#define on_tcg32 on_tcg() /* forms.h's */
int intel(void); /* by vendor */

/* The parts. */
void test_paging(void), test_segments(void), test_exceptions(void), test_control(void), test_debug(void),
	test_calls(void), test_far64(void), test_compat(void), test_interrupts(void), test_code(void), test_legacy(void),
	test_watch(void), test_apic(void), test_timers(void), test_smp(void), test_fpu(void), test_simd(void), test_align(void);

#endif
