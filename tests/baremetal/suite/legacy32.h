/* What the 32-bit parts share: see legacy.S and legacy32.c. */
#ifndef LEGACY32_H
#define LEGACY32_H

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

enum { DE, DB, NMI, BP, OF, BR, UD, NM, DF, TS = 10, NP, SS, GP, PF, MF = 16, AC };
#define P 1u
#define W 2u
#define U 4u
#define A 0x20u
#define D 0x40u
#define PS 0x80u

/* The 64-bit parts have symbols of the same names. */
#define OWN(name) asm(#name "_32")

/* eq notes a result for legacy.c to report; name must stay. */
void eq(const char *name, u32 got, u32 want) OWN(eq);
const char *name(const char *a, const char *b, const char *c) OWN(name); /* joins three parts of one */
#define ARRAY_LENGTH(a) (sizeof(a) / sizeof *(a))

/* What trap32 saves. esp is the interrupted one at any privilege; ss and on only
 * of an outer level; ds and on also in gs32…, as the handler found them. */
struct frame32 { u32 edi, esi, ebp, esp0, ebx, edx, ecx, eax, vector, error, eip, cs, eflags, esp, ss, es, ds, fs, gs; };
extern struct frame32 last OWN(last); /* of the trap that ended the last TRY */
extern u32 last_cr2 OWN(last_cr2);
extern u16 last_ds, last_es, last_fs, last_gs, last_ss; /* the segment registers when the handler began */
extern u32 last_esp; /* as interrupted */

int try32(void) __attribute__((returns_twice));
void recover32(int) __attribute__((noreturn));
void go32(const u32 *frame, u32 words);
#define TRY(statement) ({ int v_ = try32(); if (v_ == -1) { statement; } v_; })
/* BAD packs how a statement ended: vector<<16 | error code, or all ones. */
#define BAD(statement) ({ int b_ = TRY(statement); b_ == -1 ? ~0u : (u32)b_ << 16 | last.error; })
#define FAULT(vector, code) ((u32)(vector) << 16 | (code))
#define NONE (~0u)
#define EXIT FAULT(0x80, 0) /* int $0x80 ends code under test */

/* Descriptors. */
enum {
	CODE = 0x08, DATA = 0x10, REAL_CODE = 0x18, USER_DATA = 0x20, TSS_SEL = 0x28, USER_CODE = 0x30, SEL = 0x38, GATE = 0x40,
	SEL2 = 0x48, DATA16 = 0x50, CODE16 = 0x58, STACK16 = 0x60, USER_CODE16 = 0x68, USER_DATA16 = 0x70, LDT_SEL = 0x78,
	TASK_A = 0x80, TASK_B = 0x88, TASK_C = 0x90, TASK_GATE = 0x98, SEL3 = 0xa0, SEL4 = 0xa8, RING1_DATA = 0xb0, /* to 0xf8 */
};
extern u64 gdt32[32], idt32[256], ldt32[8];
struct table32 { u16 limit; u32 base; } __attribute__((packed));
extern struct table32 gdtr32, idtr32;
u64 segment(u32 base, u32 limit, u32 attr) OWN(segment);
u64 gate(void *target, u32 sel, u32 type, u32 params);
#define SET(sel, base, limit, attr) (gdt32[(sel) / 8] = segment((u32)(base), limit, attr))
extern u8 stubs32[256][16];
enum { A_DATA = 0x93, A_CODE = 0x9b, A_BIG = 0x4000, A_GRAN = 0x8000, A_DPL3 = 0x60, A_LDT = 0x82, A_TSS = 0x89, A_TSS16 = 0x81 };

struct tss32 {
	u32 link, esp0, ss0, esp1, ss1, esp2, ss2, cr3, eip, eflags, eax, ecx, edx, ebx, esp, ebp, esi, edi, es, cs, ss, ds, fs, gs, ldt;
	u16 trap, iomap;
	u8 bitmap[0x2000 + 8];
} __attribute__((packed, aligned(256)));
extern struct tss32 tss32;
void reset_task(void); /* makes tss32 the current task again, with no LDT */

/* run loads a state and lets it go until it traps; it returns as BAD does. CS's RPL or VM decide the privilege. */
struct regs {
	u32 eax, ebx, ecx, edx, esi, edi, ebp, esp, eip, eflags;
	u16 cs, ss, ds, es, fs, gs;
};
u32 run(const struct regs *r);
/* On another stack segment than 10 the handler finds the frame at stack_base + (ESP & stack_mask). */
extern u32 stack_base, stack_mask;

/* run_real does the same in real mode and returns the vector. Limits and attributes are those of the segments that
 * keep names, by default 64 KiB of data. */
struct inherited { u16 ss, ds, es, fs, gs; };
u32 run_real(const struct regs *r, const struct inherited *keep);

/* Code under test. It ends with int $0x80. */
#define CODE_(bits, name, text) \
	extern u8 name[], name##_end[]; \
	asm(".pushsection .text.tested, \"ax\"\n.code" #bits "\n" #name ":" text "\nint $0x80\n" #name "_end:\n.code32\n.popsection\n");
#define CODE32_(name, text) CODE_(32, name, text)
#define CODE16_(name, text) CODE_(16, name, text)
/* 16-bit code runs from a copy at the start of SEG16 (selectors CODE16, USER_CODE16), with STACK16 above it; both of 64 KiB. */
#define SEG16 0x20000u
#define STACK16_BASE 0x30000u
#define DATA16_BASE 0x40000u
void copy(u32 to, const u8 *from, const u8 *end);
#define LOAD16(name) copy(SEG16, name, name##_end)
#define REAL_BASE 0x50000u

/* User mode. */
extern u8 user_stack[1024] OWN(user_stack);
#define USER_TOP ((u32)user_stack + sizeof user_stack)

/* Paging: VA's page table is pt; the first 16 MiB are themselves. */
#define VA 0x10000000u
#define PAGE(i) (VA + (i) * 4096)
extern u32 pd[1024], pt[1024];
void paging_on(void), paging_off(void);
extern u8 data[8192]; /* page aligned */

static inline u32 cr0(void) { u32 v; asm volatile("mov %%cr0, %0" : "=r"(v)); return v; }
static inline u32 cr4(void) { u32 v; asm volatile("mov %%cr4, %0" : "=r"(v)); return v; }
void set_cr0(u32 set, u32 clear), set_cr4(u32 set, u32 clear), set_cr3(u32 v);

extern u32 on_tcg32 asm("legacy_on_tcg"), has_vme; /* as suite.h's on_tcg; CPUID */

/* The parts. */
void tasks32(void), segments32(void), rings32(void), debug32(void), modes16(void), virtual_8086(void), real_mode(void);

#endif
