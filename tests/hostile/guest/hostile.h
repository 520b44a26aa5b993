/* What the parts share. The constants up to __ASSEMBLER__ are boot.S's too. */
#ifndef HOSTILE_H
#define HOSTILE_H

#define MAX_CPUS 8
#define CPU_SHIFT 16 /* log2 of sizeof (struct cpu) */
#define JUMP 0	     /* offsets in struct cpu */
#define TRYING 64
#define STACK 0x8000
#define PROBE_BASE 0x7fe00000 /* the last 2 MiB below 2 GiB: see probe */

#define GOOD_CR0 0x80050033 /* PG, AM, WP, NE, ET, MP, PE */
#define GOOD_CR4 0x6b0	    /* OSXMMEXCPT, OSFXSR, PGE, PAE, PSE */
#define GOOD_EFER 0x901	    /* NXE, LME, SCE */

#ifndef __ASSEMBLER__

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long u64;

enum { DB = 1, NMI = 2, MC = 18, FIRST_EXTERNAL = 32, TICK = 0x20 };

struct frame {
	u64 r15, r14, r13, r12, r11, r10, r9, r8, rbp, rdi, rsi, rdx, rcx, rbx, rax;
	u64 vector, error, rip, cs, rflags, rsp, ss;
};

struct tss { u32 r0; u64 rsp[3]; u64 r1; u64 ist[7]; u64 r2; u16 r3, iomap; u8 bitmap[0x2000 + 1]; } __attribute__((packed));
struct table { u16 limit; u64 base; } __attribute__((packed));
struct gate { u16 low, sel; u8 ist, type; u16 mid; u32 high, zero; } __attribute__((packed));

/* One CPU's own: 64 KiB, so that a stack pointer in it leads to it. */
struct cpu {
	u64 jump[8];
	volatile int trying; /* a TRY is under way */
	int id;
	u64 rng;
	volatile u64 ops;    /* done so far */
	u64 quiet;	     /* ops at the last interrupt that saw them move */
	u32 storm;	     /* interrupts since */
	u32 ticks;	     /* in this TRY */
	u64 odd_rip, odd_ops, odds; /* see unlike */
	int calm;	     /* what it gives to devices makes sense for once */
	void (*step)(struct cpu *);
	u64 gdt[16];
	struct tss tss;
	u8 stack[0x4000] __attribute__((aligned(0x4000))); /* ends at STACK */
	u8 ist[3][0x2000];
	u8 rest[0x2000];
} __attribute__((aligned(65536)));
extern struct cpu cpus[MAX_CPUS];

static inline struct cpu *me(void) { u64 sp; asm volatile("mov %%rsp, %0" : "=r"(sp)); return (struct cpu *)(sp & ~0xffffUL); }

int try_enter(struct cpu *) __attribute__((returns_twice));
void recover(struct cpu *, int vector) __attribute__((noreturn));
void go(u64 *iret_frame, u64 *registers);

/* TRY runs a statement and returns the vector of the trap that ended it, or -1. */
#define TRY(c, statement) ({ int v_ = try_enter(c); if (v_ == -1) { statement; (c)->trying = 0; } v_; })

/* Chance. */
u64 rnd(struct cpu *);
static inline u64 below(struct cpu *c, u64 n) { return rnd(c) % n; }
static inline int one_in(struct cpu *c, u64 n) { return rnd(c) % n == 0; }
u64 odd_value(struct cpu *);   /* random, 0, ones, a bit, … */
u64 odd_address(struct cpu *); /* guest-physical: RAM, its ends, devices, nowhere */

/* The machine. */
extern u32 start_info;
extern u64 low_end, high_end; /* of RAM below and above 4 GiB; high_end may be 0 */
extern volatile u32 started;  /* CPUs */
extern int want_cpus, may_end, on_tcg; /* on_tcg: what QEMU's TCG aborts on is left alone */
extern volatile u64 completed;
void start_others(struct cpu *);
void repair(struct cpu *); /* APIC on, the watchdog's tick running */
void print(const char *);
void printn(u64);
extern u8 arena[4 << 20]; /* the last of the image: what runs over it finds nothing of ours */

/* Pages of a CPU's own, at probe(c, i), i below PROBES, which map gives an entry. */
#define PROBES 64
extern u64 pml4[512], pdpt[512], pd[4 * 512], probe_pt[512];
u64 probe(struct cpu *, int i);
void map(struct cpu *, int i, u64 entry);
#define P 1UL
#define W 2UL
#define U 4UL

/* PCI. */
struct function { u16 devfn; u16 vendor, device; u64 bar[6]; };
extern struct function functions[64];
extern int function_count;
u32 config_read(u16 devfn, int off, int width);
void config_write(u16 devfn, int off, int width, u32 v);
void scan_pci(void);
void put_bars(void); /* back where they were, decoding on */

/* What a CPU does, over and over. */
void step_ports(struct cpu *);
void step_mmio(struct cpu *);
void step_msr(struct cpu *);
void step_code(struct cpu *);
void step_virtio(struct cpu *);
void step_race(struct cpu *);
void step_irq(struct cpu *);
void step_timer(struct cpu *);
void step_reset(struct cpu *);
void step_fault(struct cpu *);
void step_all(struct cpu *);

/* Instructions. */
static inline u64 rdmsr(u32 i) { u32 a, d; asm volatile("rdmsr" : "=a"(a), "=d"(d) : "c"(i)); return a | (u64)d << 32; }
static inline void wrmsr(u32 i, u64 v) { asm volatile("wrmsr" : : "c"(i), "a"((u32)v), "d"((u32)(v >> 32)) : "memory"); }
static inline u64 rdtsc(void) { u32 a, d; asm volatile("rdtsc" : "=a"(a), "=d"(d)); return a | (u64)d << 32; }
static inline u8 inb(u16 p) { u8 v; asm volatile("inb %1, %0" : "=a"(v) : "Nd"(p)); return v; }
static inline u16 inw(u16 p) { u16 v; asm volatile("inw %1, %0" : "=a"(v) : "Nd"(p)); return v; }
static inline u32 inl(u16 p) { u32 v; asm volatile("inl %1, %0" : "=a"(v) : "Nd"(p)); return v; }
static inline void outb(u16 p, u8 v) { asm volatile("outb %0, %1" : : "a"(v), "Nd"(p) : "memory"); }
static inline void outw(u16 p, u16 v) { asm volatile("outw %0, %1" : : "a"(v), "Nd"(p) : "memory"); }
static inline void outl(u16 p, u32 v) { asm volatile("outl %0, %1" : : "a"(v), "Nd"(p) : "memory"); }
static inline void invlpg(u64 va) { asm volatile("invlpg (%0)" : : "r"(va) : "memory"); }
static inline void cpuid(u32 leaf, u32 sub, u32 *r) { asm volatile("cpuid" : "=a"(r[0]), "=b"(r[1]), "=c"(r[2]), "=d"(r[3]) : "a"(leaf), "c"(sub)); }
static inline void cli(void) { asm volatile("cli" : : : "memory"); }
static inline void sti(void) { asm volatile("sti" : : : "memory"); }
static inline void pause(void) { asm volatile("pause"); }
#define REG(type, at) (*(volatile type *)(u64)(at))

#define APIC 0xfee00000UL
#define IOAPIC 0xfec00000UL
#define ECAM 0xb0000000UL

#endif
#endif
