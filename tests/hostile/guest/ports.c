#include "hostile.h"

/* ends reports that an access to width ports from p may end or reset the VM, which has tests of its own. */
static int ends(u16 p, int width)
{
	static const u16 last[] = { 0x64, 0xcf9, 0x605, 0x505, 0xf4, 0xf5, 0xf6, 0xf7 };
	if (may_end || (p == 0xcf8 && width == 4 && function_count)) /* the reset port is inside it */
		return 0;
	for (unsigned i = 0; i < sizeof last / sizeof *last; i++)
		if ((u16)(last[i] - p) < width)
			return 1;
	return 0;
}

static u16 odd_port(struct cpu *c)
{
	static const u16 known[] = {
		0x20, 0x21, 0xa0, 0xa1, 0x40, 0x41, 0x42, 0x43, 0x60, 0x61, 0x64, 0x70, 0x71, 0xb2, 0xb3,
		0x3f8, 0x3f9, 0x3fa, 0x3fb, 0x3fc, 0x3fd, 0x3fe, 0x3ff, 0x402, 0x4d0, 0x4d1, 0x505, 0x510, 0x511, 0x514,
		0x600, 0x602, 0x604, 0x608, 0x620, 0x628, 0x630, 0xcf8, 0xcfc, 0xcfd, 0xcfe, 0xcff, 0xc000, 0x92, 0xf0, 0x80,
	};
	switch (below(c, 4)) {
	case 0: return rnd(c);
	case 1: return below(c, 0x800);
	case 2: return known[below(c, sizeof known / sizeof *known)] + below(c, 5) - 2;
	default: return known[below(c, sizeof known / sizeof *known)];
	}
}

/* A string of n elements to or from memory that may cross a page, leave RAM or be a device's. */
static void strings(struct cpu *c, u16 port, int width)
{
	u64 n = below(c, one_in(c, 16) ? 5000 : 40), at = (u64)arena + below(c, sizeof arena - 0x10000);
	int in = one_in(c, 2), down = one_in(c, 8);
	if (one_in(c, 8)) {
		map(c, 0, (u64)arena | P | W);
		u64 to = odd_address(c) & 0xffffff000UL;
		if (to < (u64)arena) /* here the guest must not be the one that it destroys */
			to = (u64)arena;
		map(c, 1, one_in(c, 2) ? 0 : to | P | W);
		at = probe(c, 1) - below(c, 64);
	}
	if (down)
		asm volatile("std");
	TRY(c, ({
		switch (width * 2 + in) {
		case 2: asm volatile("rep outsb" : "+S"(at), "+c"(n) : "d"(port) : "memory"); break;
		case 3: asm volatile("rep insb" : "+D"(at), "+c"(n) : "d"(port) : "memory"); break;
		case 4: asm volatile("rep outsw" : "+S"(at), "+c"(n) : "d"(port) : "memory"); break;
		case 5: asm volatile("rep insw" : "+D"(at), "+c"(n) : "d"(port) : "memory"); break;
		case 8: asm volatile("rep outsl" : "+S"(at), "+c"(n) : "d"(port) : "memory"); break;
		default: asm volatile("rep insl" : "+D"(at), "+c"(n) : "d"(port) : "memory"); break;
		}
	}));
	asm volatile("cld");
}

void step_ports(struct cpu *c)
{
	u16 p = odd_port(c);
	int width = 1 << below(c, 3);
	u32 v = odd_value(c);
	if (ends(p, width))
		return;
	if (one_in(c, 64)) {
		strings(c, p, width);
		return;
	}
	if (one_in(c, 8) && function_count) /* what indexes something else */
		outl(0xcf8, 0x80000000 | functions[below(c, function_count + 1)].devfn << 8 | (rnd(c) & 0xff));
	switch (width * 2 + below(c, 2)) {
	case 2: outb(p, v); break;
	case 3: inb(p); break;
	case 4: outw(p, v); break;
	case 5: inw(p); break;
	case 8: outl(p, v); break;
	default: inl(p); break;
	}
	if (one_in(c, 4096))
		put_bars();
}
