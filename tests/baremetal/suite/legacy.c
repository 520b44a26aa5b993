/* Runs legacy32.c, which leaves long mode for 32-bit protected, virtual-8086 and real mode, and reports what it found. */
#include "suite.h"

struct check { u32 name, got, want; };
extern struct check legacy_checks[3000];
extern u32 legacy_count, legacy_on_tcg;
void legacy_enter(void);

void test_legacy(void)
{
	u64 c3 = cr3(), c4 = cr4();
	legacy_on_tcg = on_tcg();
	asm volatile("cli");
	legacy_enter();
	for (u32 i = 0; i < legacy_count && i < 3000; i++)
		eq((const char *)(u64)legacy_checks[i].name, legacy_checks[i].got, legacy_checks[i].want);
	ok("legacy-checks-all-noted", legacy_count > 0 && legacy_count <= 3000);
	ok("long-mode-again", (rdmsr(0xc0000080) >> 10 & 1) && cr3() == c3 && cr4() == c4);
}
