// What the suite's files share: events, attempts, tables, ports, and the reporting of checks.
#pragma once
#include <stdint.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;

// frame is what entry_common leaves on the stack.
struct frame {
	u64 r15, r14, r13, r12, r11, r10, r9, r8, rbp, rdi, rsi, rdx, rcx, rbx, rax;
	u64 vector, error, rip, cs, rflags, rsp, ss;
};

// fault is the last event that an attempt ended with.
struct fault {
	int vector; // -1: none
	u64 error, cr2, rip, rsp, cs, rflags, rax, dr6;
};
extern struct fault fault;

// hooks: an event with a hook calls it and goes on; one without ends the attempt.
typedef void (*hook)(struct frame *);
extern hook hooks[256];

int attempt(void (*f)(void *), void *arg);
void enter_user(u64 rip, u64 rsp, u64 cs, u64 ss, u64 rflags, u64 rdi);
extern u8 entries[], attempt_failed[], syscall_entry[], syscall_return[];
extern u64 gdt[], pml4[], pdpt[], pds[], syscall_rcx, syscall_r11, syscall_rsp, syscall_flags;
struct table { u16 limit; u64 base; } __attribute__((packed));
extern struct table gdtr;

// Selectors of start.S's table.
enum { KCODE = 0x08, KDATA = 0x10, UCODE32 = 0x1b, UDATA = 0x23, UCODE = 0x2b, ABSENT = 0x30, KCODE32 = 0x38, RODATA = 0x40,
       CONFORM32 = 0x48, TSS = 0x50, GATE = 0x60, UNTOUCHED = 0x70, SMALL = 0x78 };

// The pages under test: 4 KiB pages at T, T+0x1000, …, mapped by pt onto page(n).
#define T 0x140000000ull
extern u64 pt[512];
u8 *page(int n);
enum { P = 1, W = 2, U = 4, A = 32, D = 64, G = 256 };
#define NX (1ull << 63)
void map(int n, u64 flags);    // maps T + n*4096 onto page(n)
void map_to(int n, int target, u64 flags);
// The user's page of code and its stack, always mapped for CPL 3.
#define UCODE_PAGE 8
#define USTACK_PAGE 9
#define VA(n) (T + (u64)(n) * 4096)
// user runs bytes at CPL 3 in 64-bit (or 32-bit) code with rdi given; they end by INT 0x40 or a fault.
void user(const void *code, int len, u64 rdi, u64 rflags, int bits32);

void idt_gate(int vector, void *target, int dpl, int ist, int present);
extern u8 tss[104 + 8193];
void tss_stack(u64 rsp0, u64 ist1);
extern u8 ist_stack[4096], ring0_stack[8192];

void check(int good, const char *name, const char *format, ...);
void print(const char *format, ...);
// expect runs f and checks that it ends in this vector and error code (vector -1: it comes back).
void expect(const char *name, void (*f)(void *), void *arg, int vector, u64 error);

static inline u64 rdmsr(u32 i) { u32 a, d; __asm__ volatile("rdmsr" : "=a"(a), "=d"(d) : "c"(i)); return a | (u64)d << 32; }
static inline void wrmsr(u32 i, u64 v) { __asm__ volatile("wrmsr" ::"c"(i), "a"((u32)v), "d"((u32)(v >> 32)) : "memory"); }
static inline void outb(u16 p, u8 v) { __asm__ volatile("outb %0, %1" ::"a"(v), "Nd"(p)); }
static inline u8 inb(u16 p) { u8 v; __asm__ volatile("inb %1, %0" : "=a"(v) : "Nd"(p)); return v; }
static inline void outl(u16 p, u32 v) { __asm__ volatile("outl %0, %1" ::"a"(v), "Nd"(p)); }
static inline u64 rdtsc(void) { u32 a, d; __asm__ volatile("rdtsc" : "=a"(a), "=d"(d)); return a | (u64)d << 32; }
#define READ_CR(n) ({ u64 v_; __asm__ volatile("mov %%cr" #n ", %0" : "=r"(v_)); v_; })
#define WRITE_CR(n, v) __asm__ volatile("mov %0, %%cr" #n ::"r"((u64)(v)) : "memory")
#define READ_DR(n) ({ u64 v_; __asm__ volatile("mov %%db" #n ", %0" : "=r"(v_)); v_; })
#define WRITE_DR(n, v) __asm__ volatile("mov %0, %%db" #n ::"r"((u64)(v)) : "memory")
static inline void invlpg(u64 va) { __asm__ volatile("invlpg (%0)" ::"r"(va) : "memory"); }
static inline u64 rflags(void) { u64 v; __asm__ volatile("pushfq; popq %0" : "=r"(v)); return v; }
struct cpuid { u32 a, b, c, d; };
static inline struct cpuid cpuid(u32 leaf, u32 sub) {
	struct cpuid r;
	__asm__ volatile("cpuid" : "=a"(r.a), "=b"(r.b), "=c"(r.c), "=d"(r.d) : "a"(leaf), "c"(sub));
	return r;
}

// on_tcg recognises QEMU's TCG by its hypervisor leaf: a few checks would end the machine there.
static inline int on_tcg(void) { return cpuid(1, 0).c >> 31 && cpuid(0x40000000, 0).b == 0x54474354; }

// The suite's parts.
void test_exceptions(void);
void test_paging(void);
void test_segments(void);
void test_system(void);
void test_debug(void);
void test_interrupts(void);
