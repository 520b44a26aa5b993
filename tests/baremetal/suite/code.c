/* Code that changes under the processor's feet (SDM vol. 3A §8.1.3, §11.6). */
#include "suite.h"

typedef u32 (*fn)(void);

static void put_mov(u8 *p, u32 v)
{
	p[0] = 0xb8; /* mov $v, %eax; ret */
	*(u32 *)(p + 1) = v;
	p[5] = 0xc3;
}

/* next_instruction rewrites the instruction that follows the store. */
static u32 next_instruction(void)
{
	u32 v;
	asm volatile(
		"lea 1f(%%rip), %%rdx\n"
		"movb $2, 1(%%rdx)\n"
		"jmp 1f\n"
		"1: mov $1, %%al\n"
		"movzbl %%al, %0\n"
		"movb $1, 1(%%rdx)\n" : "=r"(v) : : "rax", "rdx", "memory");
	return v;
}

static u32 straight_line(void)
{
	u32 v;
	asm volatile(
		"lea 1f(%%rip), %%rdx\n"
		"movb $2, 1(%%rdx)\n"
		"1: mov $1, %%al\n"
		"movzbl %%al, %0\n"
		"movb $1, 1(%%rdx)\n" : "=r"(v) : : "rax", "rdx", "memory");
	return v;
}

void test_code(void)
{
	u8 *p = pages[6];
	eq("smc-next-block", next_instruction(), 2);
	eq("smc-next-block-again", next_instruction(), 2);
	eq("smc-same-block", straight_line(), 2);
	eq("smc-same-block-again", straight_line(), 2);
	u32 sum = 0;
	for (u32 i = 0; i < 100; i++) {
		put_mov(p, i);
		sum += ((fn)p)();
	}
	eq("smc-loop", sum, 4950);
	map(6, phys(p) | P | W);
	put_mov(p, 1);
	((fn)p)();
	put_mov((u8 *)PAGE(6), 2); /* through another address */
	eq("smc-alias", ((fn)p)(), 2);
	put_mov(p, 3);
	eq("smc-alias-back", ((fn)PAGE(6))(), 3);
	u8 *cross = pages[7] - 3; /* the immediate lies across two pages */
	put_mov(cross, 0x11223344);
	eq("cross-page-code", ((fn)cross)(), 0x11223344);
	pages[7][0] = 0x55;
	eq("smc-second-page", ((fn)cross)(), 0x11553344);
	map(6, phys(pages[9]) | P | W);
	put_mov(pages[9], 9);
	eq("remapped-code", ((fn)PAGE(6))(), 9);
	map(6, phys(pages[10]) | P | W);
	put_mov(pages[10], 10);
	eq("remapped-again", ((fn)PAGE(6))(), 10);
	map(6, phys(pages[9]) | P | W | NX);
	int v = TRY(((fn)PAGE(6))());
	eq("remapped-nx", (u64)v << 32 | last.error, (u64)PF << 32 | 17);
	map(6, 0);
}
