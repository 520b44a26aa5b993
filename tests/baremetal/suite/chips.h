/* The interrupt controllers and timers, as interrupts.c programs them. */
#ifndef CHIPS_H
#define CHIPS_H
#include "suite.h"

#define LAPIC(reg) (*(volatile u32 *)(0xfee00000UL + (reg)))
#define IOAPIC_SELECT (*(volatile u32 *)0xfec00000UL)
#define IOAPIC_DATA (*(volatile u32 *)0xfec00010UL)
enum { ID = 0x20, VERSION = 0x30, TPR = 0x80, PPR = 0xa0, EOI = 0xb0, LDR = 0xd0, DFR = 0xe0, SVR = 0xf0, ISR = 0x100, TMR = 0x180,
	IRR = 0x200, ESR = 0x280, ICR = 0x300, ICR_HIGH = 0x310, LVT_TIMER = 0x320, LINT0 = 0x350, LINT1 = 0x360, LVT_ERROR = 0x370,
	INITIAL = 0x380, CURRENT = 0x390, DIVIDE = 0x3e0 };

extern volatile int count[256]; /* of interrupts, by vector */
extern volatile u64 order;      /* the last eight vectors, the latest in the low byte */
int on_interrupt(struct frame *); /* a hook that counts and ends: 50-5f are the local APIC's, 60-6f the 8259s' */
void clear_counts(void);
static inline int early(u64 since) { return rdtsc() - since < 1UL << 34; } /* some ten seconds: when to give up */
int wait_for(int vector, int n); /* with interrupts, until there were n; gives up in the end */
void ioapic(int pin, u64 entry);
void pit(int mode, u16 value);
void pics(u8 mask); /* at vectors 60 and 68, the slave masked */

#endif
