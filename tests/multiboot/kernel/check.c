// The Multiboot test kernel says on the serial port what the loader gave it, and ends with debug exit 0 (status 1) if all
// of it is as the specification has it, 1 (status 3) if not.

typedef unsigned char u8;
typedef unsigned u32;
typedef unsigned long long u64;

extern u8 image_start[], bss_start[], bss_end[];

static int failed;

static void out(u32 port, u8 v) { __asm__ volatile("outb %0, %w1" : : "a"(v), "Nd"(port)); }

static void put(const char *s)
{
	while (*s)
		out(0x3f8, *s++);
}

static void number(u64 v)
{
	char b[17];
	int i = 16;
	b[16] = 0;
	do
		b[--i] = "0123456789abcdef"[v & 15];
	while (v >>= 4);
	put(b + i);
}

static void say(const char *name, u64 v)
{
	put(name);
	put(" ");
	number(v);
	put("\n");
}

static void must(const char *what, int ok)
{
	if (ok)
		return;
	failed = 1;
	put("FAIL ");
	put(what);
	put("\n");
}

struct module { u32 start, end, string, reserved; };
struct map { u32 size; u64 base, length; u32 type; } __attribute__((packed));
struct info {
	u32 flags, lower, upper, boot_device, cmdline, mods_count, mods_addr, syms[4], mmap_length, mmap_addr,
		drives_length, drives_addr, config_table, loader_name;
};

// memory writes to both ends of a range and puts back what was there.
static void touch(u32 at)
{
	volatile u32 *p = (volatile u32 *)at;
	u32 old = *p;
	*p = 0x5a5aa5a5 ^ at;
	must("memory of the map is not there", *p == (0x5a5aa5a5 ^ at));
	*p = old;
}

static void maps(struct info *i)
{
	u64 end = 0;
	for (u32 at = i->mmap_addr; at < i->mmap_addr + i->mmap_length;) {
		struct map *m = (struct map *)at;
		put("map ");
		number(m->base);
		put(" ");
		number(m->length);
		put(" ");
		number(m->type);
		put("\n");
		must("the map is in order", m->base >= end);
		end = m->base + m->length;
		if (m->type == 1 && end <= 0x100000000ull) {
			touch(m->base);
			touch(end - 4);
		}
		if (m->type == 1 && m->base == 0)
			must("mem_lower is the map's", i->lower == m->length >> 10);
		if (m->type == 1 && m->base == 0x100000)
			must("mem_upper is the map's", i->upper == m->length >> 10);
		must("a map entry's size", m->size >= 20);
		at += m->size + 4;
	}
}

static void modules(struct info *i)
{
	struct module *m = (struct module *)i->mods_addr;
	say("modules", i->mods_count);
	for (u32 n = 0; n < i->mods_count; n++) {
		u32 sum = 0;
		must("a module begins a page", (m[n].start & 0xfff) == 0);
		must("a module lies behind the kernel", m[n].start >= (u32)bss_end);
		must("a module's last word is 0", m[n].reserved == 0);
		for (u8 *p = (u8 *)m[n].start; p < (u8 *)m[n].end; p++)
			sum = sum * 31 + *p;
		put("module ");
		number(m[n].end - m[n].start);
		put(" ");
		number(sum);
		put(" ");
		put((char *)m[n].string);
		put("\n");
	}
}

void check(u32 magic, struct info *i, u32 ds, u32 cs, u32 cr0, u32 eflags)
{
	(void)ds;
	(void)cs;
	must("magic in EAX", magic == 0x2badb002);
	must("protected mode without paging", (cr0 & 0x80000001) == 1);
	must("interrupts off, not virtual 8086", (eflags & 0x20200) == 0);
	for (u8 *p = bss_start; p < bss_end - 4096; p++) // the stack is at its end
		must("bss is zero", *p == 0);
	must("A20 is on", *(volatile u32 *)0x100000 != *(volatile u32 *)0 || (*(volatile u32 *)0 ^= 1, *(volatile u32 *)0x100000 != *(volatile u32 *)0));
	must("the first bytes are loaded", image_start[0] != 0);
	u32 limit;
	__asm__("lsl %1, %0" : "=r"(limit) : "r"(cs));
	must("code segment of 4 GiB", limit == 0xffffffff);
	__asm__("lsl %1, %0" : "=r"(limit) : "r"(ds));
	must("data segment of 4 GiB", limit == 0xffffffff);

	say("flags", i->flags);
	must("memory, command line, map and loader's name are given", (i->flags & 0x245) == 0x245);
	must("symbols of one kind at most", (i->flags & 0x30) != 0x30);
	put("cmdline ");
	put((char *)i->cmdline);
	put("\nloader ");
	put((char *)i->loader_name);
	put("\n");
	say("lower", i->lower);
	say("upper", i->upper);
	if (i->flags & 8)
		modules(i);
	maps(i);
	put(failed ? "failed\n" : "passed\n");
	__asm__ volatile("outl %0, %w1" : : "a"(failed), "Nd"(0xf4));
	for (;;)
		;
}
