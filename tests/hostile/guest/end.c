#include "hostile.h"

/* Ends of all kinds. CMOS byte 0x40 outlives a reset and counts them: after three the guest goes on working, so that
 * it is seen whether the machine still does. */
void step_reset(struct cpu *c)
{
	if (c->ops % 512 != 511 || c->id != 0) {
		step_ports(c);
		step_mmio(c);
		step_virtio(c);
		return;
	}
	outb(0x70, 0x40);
	u8 n = inb(0x71);
	outb(0x70, 0x41);
	if (n >= 3 || (n && (inb(0x71) ^ n) != 0xff)) /* others write there, too */
		return;
	outb(0x70, 0x40);
	outb(0x71, ++n);
	outb(0x70, 0x41);
	outb(0x71, n ^ 0xff);
	print("reset\n");
	switch (below(c, 3)) {
	case 0: outb(0xcf9, 2); outb(0xcf9, 6); break;
	case 1: outb(0x64, 0xfe); break;
	default: { /* thousands of them at once */
		u64 n = 4000, at = (u64)arena;
		for (u64 i = 0; i < n; i++)
			arena[i] = 6;
		asm volatile("rep outsb" : "+S"(at), "+c"(n) : "d"(0xcf9) : "memory");
	}
	}
}

/* step_fault ends in a triple fault, by several ways. */
void step_fault(struct cpu *c)
{
	struct table none = { 0, 0 };
	if (c->ops < 100) {
		step_msr(c);
		return;
	}
	switch (below(c, 4)) {
	case 0: asm volatile("lidt %0; int3" : : "m"(none)); break;
	case 1: asm volatile("mov %0, %%cr3; hlt" : : "r"(odd_value(c) & 0xfffff000) : "memory"); break;
	case 2: pml4[0] = 0; asm volatile("mov %0, %%cr3" : : "r"((u64)pml4) : "memory"); break;
	default: asm volatile("lidt %0; mov %1, %%rsp; push %%rax" : : "m"(none), "r"(1UL << 60) : "memory"); break;
	}
}

void step_all(struct cpu *c)
{
	static void (*const all[])(struct cpu *) = { step_ports, step_mmio, step_msr, step_virtio, step_irq, step_timer, step_code };
	all[below(c, one_in(c, 4) ? 7 : 6)](c);
}
