/* Runs legacy32.c, which leaves long mode for 32-bit protected, virtual-8086 and real mode, and reports what it found. */
#include "suite.h"

struct check { u32 name, got, want; };
extern struct check legacy_checks[];
extern u32 legacy_count;
void legacy_enter(void);

void test_legacy(void)
{
	u64 c3 = cr3(), c4 = cr4();
	asm volatile("cli");
	legacy_enter();
	for (u32 i = 0; i < legacy_count; i++)
		eq((const char *)(u64)legacy_checks[i].name, legacy_checks[i].got, legacy_checks[i].want);
	ok("long-mode-again", legacy_count > 0 && (rdmsr(0xc0000080) >> 10 & 1) && cr3() == c3 && cr4() == c4);
}
