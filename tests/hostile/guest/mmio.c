#include "hostile.h"

/* touch makes one access of some kind to va; traps are its caller's. */
static void touch(struct cpu *c, u64 va)
{
	u64 v = odd_value(c), a = odd_value(c), n = below(c, 200), ram = (u64)arena + below(c, sizeof arena - 0x2000);
	switch (below(c, 48)) {
	case 0: case 1: case 2: asm volatile("movb %b1, (%0)" : : "r"(va), "q"(v) : "memory"); break;
	case 3: case 4: asm volatile("movw %w1, (%0)" : : "r"(va), "r"(v) : "memory"); break;
	case 5: case 6: case 7: case 8: case 9: asm volatile("movl %k1, (%0)" : : "r"(va), "r"(v) : "memory"); break;
	case 10: case 11: asm volatile("movq %1, (%0)" : : "r"(va), "r"(v) : "memory"); break;
	case 12: case 13: asm volatile("movb (%1), %b0" : "+q"(v) : "r"(va)); break;
	case 14: asm volatile("movw (%1), %w0" : "+r"(v) : "r"(va)); break;
	case 15: case 16: case 17: asm volatile("movl (%1), %k0" : "+r"(v) : "r"(va)); break;
	case 18: asm volatile("movq (%1), %0" : "+r"(v) : "r"(va)); break;
	case 19: asm volatile("movups (%0), %%xmm0" : : "r"(va)); break;
	case 20: asm volatile("movups %%xmm0, (%0)" : : "r"(va) : "memory"); break;
	case 21: asm volatile("movhps (%0), %%xmm0; movlps %%xmm0, (%0)" : : "r"(va) : "memory"); break;
	case 22: asm volatile("lock cmpxchg %1, (%2)" : "+a"(a) : "r"(v), "r"(va) : "memory"); break;
	case 23: asm volatile("lock cmpxchgl %k1, (%2)" : "+a"(a) : "r"(v), "r"(va) : "memory"); break;
	case 24: asm volatile("lock xaddl %k0, (%1)" : "+r"(v) : "r"(va) : "memory"); break;
	case 25: asm volatile("xchgq %0, (%1)" : "+r"(v) : "r"(va) : "memory"); break;
	case 26: asm volatile("lock orb %b0, (%1)" : : "q"(v), "r"(va) : "memory"); break;
	case 27: asm volatile("lock btsl %k0, (%1)" : : "r"(v), "r"(va) : "memory"); break;
	case 28: asm volatile("btrq %0, (%1)" : : "r"(below(c, 4096)), "r"(va) : "memory"); break;
	case 29: asm volatile("lock cmpxchg8b (%0)" : "+r"(va), "+a"(a) : "b"(v), "c"(v), "d"(0) : "memory"); break;
	case 30: asm volatile("lock cmpxchg16b (%0)" : "+r"(va), "+a"(a) : "b"(v), "c"(v), "d"(0) : "memory"); break;
	case 31: asm volatile("rep movsb" : "+S"(ram), "+D"(va), "+c"(n) : : "memory"); break;
	case 32: asm volatile("rep movsb" : "+S"(va), "+D"(ram), "+c"(n) : : "memory"); break;
	case 33: asm volatile("rep movsl" : "+S"(ram), "+D"(va), "+c"(n) : : "memory"); break;
	case 34: n &= 31; asm volatile("rep movsq" : "+S"(va), "+D"(ram), "+c"(n) : : "memory"); break;
	case 35: asm volatile("rep stosl" : "+D"(va), "+c"(n) : "a"(v) : "memory"); break;
	case 36: asm volatile("std; rep stosb; cld" : "+D"(va), "+c"(n) : "a"(v) : "memory"); break;
	case 37: asm volatile("repe cmpsl" : "+S"(va), "+D"(ram), "+c"(n) : : "memory", "cc"); break;
	case 38: asm volatile("repne scasb" : "+D"(va), "+c"(n) : "a"(v) : "memory", "cc"); break;
	case 39: asm volatile("fxsave (%0)" : : "r"(va) : "memory"); break;
	case 40: asm volatile("fxrstor (%0)" : : "r"(va)); break;
	case 41: asm volatile("fldt (%0); fstpt (%0)" : : "r"(va) : "memory"); break;
	case 42: asm volatile("fnsave (%0); fninit" : : "r"(va) : "memory"); break;
	case 43: asm volatile("addl %k0, (%1)" : : "r"(v), "r"(va) : "memory", "cc"); break;
	case 44: asm volatile("notq (%0); negw 3(%0)" : : "r"(va) : "memory", "cc"); break;
	case 45: asm volatile("sgdt (%0); sidt 16(%0)" : : "r"(va) : "memory"); break;
	case 46: asm volatile("clflush (%0); prefetcht0 (%0)" : : "r"(va) : "memory"); break;
	default: asm volatile("pushq (%0); popq (%0)" : : "r"(va) : "memory"); break;
	}
}

/* where returns the address of something that answers, or of its edge. */
static u64 where(struct cpu *c)
{
	struct function *f = &functions[below(c, function_count + 1)];
	u64 off = one_in(c, 4) ? rnd(c) : rnd(c) & ~3UL;
	switch (below(c, 10)) {
	case 0: case 1: return ECAM + (u64)f->devfn * 4096 + (off & 0xff);
	case 2: return ECAM + (off & 0xfffffff);
	case 3: return IOAPIC + (one_in(c, 2) ? (off & 0x50) : (off & 0xfff));
	case 4: return APIC + (one_in(c, 2) ? (off & 0xff0) : (off & 0xfff));
	case 5: case 6: case 7: return f->bar[below(c, 6)] + (one_in(c, 2) ? off & 0x7f : off & 0x3fff);
	default: return odd_address(c);
	}
}

/* move_bar puts a BAR over RAM, another BAR, a chip, the end of everything, or back. */
static void move_bar(struct cpu *c)
{
	struct function *f = &functions[below(c, function_count)], *g = &functions[below(c, function_count)];
	int i = below(c, 6);
	u64 to = one_in(c, 3) ? g->bar[below(c, 6)] + (rnd(c) & 0x3000) : odd_value(c);
	config_write(f->devfn, 0x10 + 4 * i, 4, to);
	if (one_in(c, 2) && i < 5)
		config_write(f->devfn, 0x14 + 4 * i, 4, one_in(c, 2) ? 0 : to >> 32);
	config_write(f->devfn, 4, 2, one_in(c, 2) ? 7 : rnd(c));
	if (one_in(c, 4))
		put_bars();
}

void step_mmio(struct cpu *c)
{
	u64 at = where(c);
	if (one_in(c, 256)) {
		move_bar(c);
		return;
	}
	/* The mapping's neighbour may be RAM, nothing, or a device: accesses cross into it. */
	map(c, 0, (at & 0xffffffffff000UL) | P | W | (rnd(c) & 0x18));
	map(c, 1, one_in(c, 2) ? (u64)arena | P | W : ((at & 0xffffffffff000UL) + 4096) | P | W);
	TRY(c, touch(c, probe(c, 0) + (one_in(c, 16) ? 4096 - below(c, 16) : at & 4095)));
	if (one_in(c, 4096))
		put_bars();
}
