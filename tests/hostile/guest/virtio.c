#include "hostile.h"

/* A driver that knows how it is done, and does it wrong. Everything lies in arena:
 * 0-1 MiB rings, 1-2 MiB indirect tables, 2-4 MiB headers and data. */
#define RINGS (arena)
#define TABLES (arena + (1 << 20))
#define DATA (arena + (2 << 20))

struct desc { u64 addr; u32 len; u16 flags, next; };
enum { NEXT = 1, WRITE = 2, INDIRECT = 4 };
enum { COMMON = 1, NOTIFY, ISR, DEVICE };

/* The registers of the two transports: where, and how wide; width 0: it has none. */
enum { DEVICE_SEL, DEVICE_FEATURES, DRIVER_SEL, DRIVER_FEATURES, CONFIG_VECTOR, QUEUES, STATUS, QUEUE_SEL, QUEUE_MAX,
	QUEUE_SIZE, QUEUE_VECTOR, QUEUE_ON, QUEUE_NOTIFY, QUEUE_DESC, QUEUE_AVAIL = QUEUE_DESC + 2, QUEUE_USED = QUEUE_AVAIL + 2,
	REGISTERS = QUEUE_USED + 2 };
static const struct { u16 off, width; } on_pci[REGISTERS] = {
	{ 0x00, 4 }, { 0x04, 4 }, { 0x08, 4 }, { 0x0c, 4 }, { 0x10, 2 }, { 0x12, 2 }, { 0x14, 1 }, { 0x16, 2 }, { 0x18, 2 },
	{ 0x18, 2 }, { 0x1a, 2 }, { 0x1c, 2 }, { 0x1e, 2 }, { 0x20, 4 }, { 0x24, 4 }, { 0x28, 4 }, { 0x2c, 4 }, { 0x30, 4 }, { 0x34, 4 },
}, on_mmio[REGISTERS] = {
	{ 0x14, 4 }, { 0x10, 4 }, { 0x24, 4 }, { 0x20, 4 }, { 0, 0 }, { 0, 0 }, { 0x70, 4 }, { 0x30, 4 }, { 0x34, 4 },
	{ 0x38, 4 }, { 0, 0 }, { 0x44, 4 }, { 0, 0 }, { 0x80, 4 }, { 0x84, 4 }, { 0x90, 4 }, { 0x94, 4 }, { 0xa0, 4 }, { 0xa4, 4 },
};

struct queue { u64 desc, avail, used; u16 size, notify, idx, head, seen; };
volatile u64 completed; /* chains that came back */
static struct device {
	struct function *f; /* 0: memory-mapped, and all regions are one */
	u64 region[6];
	u32 multiplier;
	int queues, live;
	struct queue q[8];
} devices[24];
static int device_count;

#define MMIO_DEVICES 0xd0000000UL

static void discover(void)
{
	for (int n = 0; n < function_count && device_count < 16; n++) {
		struct function *f = &functions[n];
		struct device *d = &devices[device_count];
		if (f->vendor != 0x1af4)
			continue;
		d->f = f;
		for (int at = config_read(f->devfn, 0x34, 1), i = 0; at && i < 32; at = config_read(f->devfn, at + 1, 1), i++) {
			int kind = config_read(f->devfn, at + 3, 1), bar = config_read(f->devfn, at + 4, 1);
			if (config_read(f->devfn, at, 1) != 9 || kind < COMMON || kind > DEVICE || bar > 5)
				continue;
			d->region[kind] = f->bar[bar] + config_read(f->devfn, at + 8, 4);
			if (kind == NOTIFY)
				d->multiplier = config_read(f->devfn, at + 16, 4);
		}
		device_count += d->region[COMMON] != 0;
	}
	for (u64 at = MMIO_DEVICES; device_count < 24 && REG(u32, at) == 0x74726976 && REG(u32, at + 8); at += 4096) {
		struct device *d = &devices[device_count++];
		for (int kind = COMMON; kind <= DEVICE; kind++)
			d->region[kind] = at;
	}
}

/* The registers of a device are reached by three pages of its own. */
static u64 region(struct cpu *c, struct device *d, int kind)
{
	u64 at = d->region[kind];
	map(c, 10 + kind, (at & ~0xfffUL) | P | W | 0x18);
	return probe(c, 10 + kind) + (at & 0xfff);
}

static u64 ring_address(struct cpu *c, struct device *d, int i, int part)
{
	u64 base = (u64)RINGS + ((d - devices) * 8 + i) * 0x3000UL % 0xf0000 + part * 0x1000;
	switch (below(c, 64)) {
	case 0: return odd_address(c);
	case 1: return odd_address(c) & ~15UL;
	case 2: return (u64)RINGS + below(c, 0x3000); /* another's, or its own */
	case 3: return one_in(c, 50) ? (u64)pml4 : low_end;
	case 4: return low_end - (below(c, 0x400) & ~3UL);
	default: return base;
	}
}

static u32 get(struct device *d, u64 r, int reg)
{
	int off = d->f ? on_pci[reg].off : on_mmio[reg].off, width = d->f ? on_pci[reg].width : on_mmio[reg].width;
	return width == 1 ? REG(u8, r + off) : width == 2 ? REG(u16, r + off) : width == 4 ? REG(u32, r + off) : 0;
}

static void put(struct device *d, u64 r, int reg, u32 v)
{
	int off = d->f ? on_pci[reg].off : on_mmio[reg].off, width = d->f ? on_pci[reg].width : on_mmio[reg].width;
	if (width == 1)
		REG(u8, r + off) = v;
	else if (width == 2)
		REG(u16, r + off) = v;
	else if (width == 4)
		REG(u32, r + off) = v;
}

static void put_area(struct device *d, u64 r, int reg, u64 v)
{
	put(d, r, reg, v);
	put(d, r, reg + 1, v >> 32);
}

static void set_queue(struct cpu *c, struct device *d, u64 r, int i)
{
	struct queue *q = &d->q[i];
	put(d, r, QUEUE_SEL, one_in(c, 64) ? rnd(c) : (u64)i);
	q->size = get(d, r, QUEUE_MAX);
	while (q->size > 4 && one_in(c, 2))
		q->size /= 2;
	if (one_in(c, 32))
		put(d, r, QUEUE_SIZE, odd_value(c));
	put(d, r, QUEUE_SIZE, q->size);
	put(d, r, QUEUE_VECTOR, one_in(c, 4) ? odd_value(c) : (u64)i + 1);
	q->desc = ring_address(c, d, i, 0);
	q->avail = ring_address(c, d, i, 1);
	q->used = ring_address(c, d, i, 2);
	put_area(d, r, QUEUE_DESC, q->desc);
	put_area(d, r, QUEUE_AVAIL, q->avail);
	put_area(d, r, QUEUE_USED, q->used);
	q->notify = d->f ? get(d, r, QUEUE_NOTIFY) : (u32)i;
	for (u64 p = q->avail; p < q->avail + 0x1000 && q->avail >= (u64)RINGS && p < (u64)TABLES; p += 8)
		REG(u64, p) = 0;
	q->idx = q->head = 0;
	q->seen = q->used >= (u64)arena && q->used < (u64)TABLES ? REG(u16, q->used + 2) : 0;
	put(d, r, QUEUE_ON, one_in(c, 32) ? rnd(c) : 1);
}

static int working(struct device *d, u64 r) { return (get(d, r, STATUS) & 0x4f) == 15; }

/* start goes through initialisation, now and then out of order or with nonsense between. */
static void start(struct cpu *c, struct device *d)
{
	u64 r = region(c, d, COMMON);
	if (d->f)
		config_write(d->f->devfn, 4, 2, 6);
	enum { LOW = 0x40, HIGH, SET_QUEUES };
	static const u8 steps[] = { 0, 1, 3, LOW, HIGH, 11, SET_QUEUES, 15 };
	for (unsigned i = 0; i < sizeof steps; i++) {
		u8 s = steps[one_in(c, 100) ? below(c, sizeof steps) : i];
		if (s == LOW || s == HIGH) {
			put(d, r, DEVICE_SEL, s == HIGH);
			u32 offered = get(d, r, DEVICE_FEATURES);
			put(d, r, DRIVER_SEL, s == HIGH);
			put(d, r, DRIVER_FEATURES, s == LOW ? offered & rnd(c) : one_in(c, 16) ? rnd(c) : 1);
		} else if (s == SET_QUEUES) {
			put(d, r, CONFIG_VECTOR, one_in(c, 4) ? rnd(c) : 0);
			d->queues = d->f ? get(d, r, QUEUES) : 1 + below(c, 3);
			if (d->queues > 8)
				d->queues = 8;
			for (int n = 0; n < d->queues; n++)
				set_queue(c, d, r, n);
		} else {
			put(d, r, STATUS, one_in(c, 100) ? odd_value(c) : s);
		}
	}
	d->live = working(d, r);
}

/* Where data goes: mostly to a place of its own, else over what the guest lives on. */
static u64 buffer(struct cpu *c, u32 len)
{
	switch (c->calm ? 127 : below(c, 128)) {
	case 0: return odd_address(c);
	case 1: return (u64)RINGS + below(c, 1 << 20);
	case 2: return low_end - below(c, 8192);
	case 3: return high_end ? high_end - below(c, 8192) : 0;
	case 4: return one_in(c, 1000) ? (u64)pml4 + below(c, 0x8000) : ~0UL - below(c, 4096);
	default: return (u64)DATA + below(c, len < 1 << 20 ? (2 << 20) - len : 1 << 20);
	}
}

static u32 length(struct cpu *c)
{
	switch (c->calm ? 63 : below(c, 64)) {
	case 0: return 0;
	case 1: return odd_value(c);
	case 2: return ~0u;
	case 3: return low_end;
	case 4: return below(c, 1 << 21);
	case 5: return below(c, 600);
	default: return 512 << below(c, 6);
	}
}

/* header writes a disk's request, and behind it a range for those that discard or zero one. */
static u32 header(struct cpu *c, u8 *h)
{
	static const u32 kinds[] = { 0, 0, 0, 1, 1, 4, 8, 11, 13, 14 };
	u32 kind = one_in(c, 32) ? rnd(c) : kinds[below(c, 10)];
	REG(u32, h) = kind;
	REG(u32, h + 4) = rnd(c);
	REG(u64, h + 8) = one_in(c, 16) ? odd_value(c) : below(c, 4096);
	REG(u64, h + 16) = one_in(c, 16) ? odd_value(c) : below(c, 4096);
	REG(u32, h + 24) = one_in(c, 16) ? odd_value(c) | 1u << 31 : below(c, 64);
	REG(u32, h + 28) = one_in(c, 16) ? odd_value(c) : below(c, 2);
	return kind;
}

/* chain writes a chain of n descriptors into a table of size entries. */
static void chain(struct cpu *c, struct desc *t, u32 first, u32 size, u32 n)
{
	u8 *h = DATA + below(c, 32768) * 32;
	u32 kind = header(c, h), at = first;
	int outs = below(c, 2) ? 1 : 1 + below(c, n);
	for (u32 i = 0; i < n; i++, at = (at + 1) % size) {
		volatile struct desc *d = &t[at];
		d->len = i == 0 ? 16 : i == n - 1 ? 1 : length(c);
		d->addr = i == 0 ? (u64)h : buffer(c, d->len);
		d->flags = (i < n - 1 ? NEXT : 0) | (i >= (u32)outs ? WRITE : 0);
		if (i == 1 && outs > 1 && (kind == 11 || kind == 13)) {
			d->addr = (u64)h + 16;
			d->len = 16;
		}
		d->next = (at + 1) % size;
		switch (c->calm ? 199 : below(c, 200)) {
		case 0: d->flags = rnd(c); break;
		case 1: d->next = rnd(c); break;
		case 2: d->next = first; break;
		case 3: d->len = odd_value(c); break;
		case 4: d->addr = odd_value(c); break;
		case 5: d->flags ^= 1 << below(c, 4); break;
		}
	}
}

static void submit(struct cpu *c, struct device *d, int i)
{
	struct queue *q = &d->q[i];
	u64 end = (u64)arena + sizeof arena;
	if (!q->size || q->desc < (u64)arena || q->desc > end - 0x4000 || q->avail < (u64)arena || q->avail > end - 0x4000)
		return;
	c->calm = !one_in(c, 8);
	for (int k = 1 + below(c, 8); k > 0; k--) {
		u32 n = 1 + below(c, 6), head = q->head;
		if (one_in(c, 3)) {
			struct desc *t = (struct desc *)TABLES + below(c, 60000);
			volatile struct desc *e = (struct desc *)q->desc + head;
			n = !c->calm && one_in(c, 32) ? below(c, 1500) + 1 : n;
			chain(c, t, 0, n + 1, n);
			e->addr = !c->calm && one_in(c, 20) ? odd_address(c) : (u64)t;
			e->len = !c->calm && one_in(c, 20) ? odd_value(c) : n * 16;
			e->flags = !c->calm && one_in(c, 20) ? rnd(c) : INDIRECT;
			q->head = (head + 1) % q->size;
		} else {
			if (n > q->size)
				n = q->size;
			chain(c, (struct desc *)q->desc, head, q->size, n);
			q->head = (head + n) % q->size;
		}
		REG(u16, q->avail + 4 + 2 * (q->idx % q->size)) = !c->calm && one_in(c, 30) ? rnd(c) : head;
		q->idx += !c->calm && one_in(c, 50) ? rnd(c) : 1;
	}
	if (q->used >= (u64)arena && q->used < end - 4) {
		u16 used = REG(u16, q->used + 2), n = used - q->seen;
		completed += n <= q->size ? n : 0;
		q->seen = used;
	}
	REG(u16, q->avail) = below(c, 2);
	REG(u16, q->avail + 4 + 2 * q->size) = rnd(c);
	REG(u16, q->avail + 2) = q->idx;
}

static void notify(struct cpu *c, struct device *d, int i)
{
	u64 r = region(c, d, NOTIFY) + (d->f ? d->q[i].notify * d->multiplier & 0xffc : 0x50);
	for (int n = one_in(c, 50) ? 300 : 1; n > 0; n--)
		if (one_in(c, 8) || !d->f)
			REG(u32, r) = one_in(c, 4) ? rnd(c) : (u64)i;
		else
			REG(u16, r) = i;
}

/* The registers as no driver uses them. */
static void meddle(struct cpu *c, struct device *d)
{
	u64 r = region(c, d, one_in(c, 2) ? COMMON : 1 + below(c, 4));
	int off = below(c, one_in(c, 4) ? 4088 : 64), cap = 0x40 + below(c, 0xc0), how = below(c, 8);
	if (!d->f && how < 4)
		how += 4;
	switch (how) {
	case 0: config_write(d->f->devfn, cap, 1 << below(c, 3), odd_value(c)); break;
	case 1: config_write(d->f->devfn, 4, 2, rnd(c)); break;
	case 2: /* MSI-X */
		r = d->f->bar[1] + (off & ~3);
		if (d->f->bar[1] && r < 1UL << 32)
			REG(u32, r) = one_in(c, 2) ? 0xfee00000 | (rnd(c) & 0xfffff) : odd_value(c);
		break;
	case 3: config_write(d->f->devfn, 0x40 + (below(c, 0x80) & ~1), 2, rnd(c)); break;
	case 4: REG(u8, r + off) = rnd(c); break;
	case 5: REG(u16, r + (off & ~1)) = odd_value(c); break;
	case 6: (void)REG(u32, r + (off & ~3)); break;
	default: REG(u32, r + (off & ~3)) = odd_value(c); break;
	}
}

void step_virtio(struct cpu *c)
{
	static volatile int once;
	if (!device_count && !__sync_lock_test_and_set(&once, 1))
		discover();
	if (!device_count)
		return;
	struct device *d = &devices[below(c, device_count)];
	if (!d->live || one_in(c, 200)) {
		start(c, d);
		return;
	}
	int i = below(c, d->queues ? d->queues : 1);
	switch (below(c, 40)) {
	case 0: meddle(c, d); break;
	case 1: d->live = working(d, region(c, d, COMMON)); break;
	case 2: (void)REG(u8, region(c, d, ISR)); break;
	case 3: notify(c, d, i); break;
	default:
		submit(c, d, i);
		notify(c, d, i);
	}
	if (one_in(c, 2000))
		put_bars();
}

/* step_race changes, from another CPU, what a device may be looking at. */
void step_race(struct cpu *c)
{
	u8 *p = arena + below(c, sizeof arena);
	for (int i = 0; i < 64; i++) {
		switch (below(c, 4)) {
		case 0: p = RINGS + (below(c, 1 << 20) & ~1UL); REG(u16, p) = rnd(c); break;
		case 1: { /* a descriptor, between sense and nonsense */
			volatile struct desc *e = (struct desc *)(one_in(c, 2) ? RINGS : TABLES) + below(c, 65536);
			u64 was = e->addr;
			u32 len = e->len;
			e->addr = odd_address(c);
			e->len = odd_value(c);
			e->flags ^= 1 << below(c, 3);
			e->addr = was;
			e->len = len;
			break;
		}
		case 2: REG(u32, DATA + (below(c, 1 << 20) & ~15UL)) ^= 1; break;
		default: REG(u64, p) = odd_value(c); p = arena + below(c, sizeof arena - 8); break;
		}
	}
}
