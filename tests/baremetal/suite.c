// The bare-metal suite's frame: reporting, events, and the pages and users under test.
#include "suite.h"
#include <stdarg.h>

static int passed, failed;

static void put(char c) {
	while (!(inb(0x3fd) & 0x20)) {
	}
	outb(0x3f8, c);
}

static void number(u64 v, unsigned base) {
	char b[20];
	int n = 0;
	do
		b[n++] = "0123456789abcdef"[v % base];
	while (v /= base);
	while (n)
		put(b[--n]);
}

static void format(const char *f, va_list a) {
	for (; *f; f++) {
		if (*f != '%') {
			put(*f);
			continue;
		}
		switch (*++f) {
		case 's':
			for (const char *s = va_arg(a, char *); *s; s++)
				put(*s);
			break;
		case 'x':
			number(va_arg(a, u64), 16);
			break;
		case 'd': {
			long v = va_arg(a, long);
			if (v < 0)
				put('-');
			number(v < 0 ? -v : v, 10);
		}
		}
	}
}

void print(const char *f, ...) {
	va_list a;
	va_start(a, f);
	format(f, a);
	va_end(a);
}

void check(int good, const char *name, const char *f, ...) {
	if (good) {
		passed++;
		print("ok %s\n", name);
		return;
	}
	failed++;
	print("FAIL %s: ", name);
	va_list a;
	va_start(a, f);
	format(f, a);
	va_end(a);
	put('\n');
}

// Plain versions of what the compiler may call.
void *memcpy(void *d, const void *s, u64 n) {
	__asm__ volatile("rep movsb" : "+D"(d), "+S"(s), "+c"(n)::"memory");
	return d;
}
void *memset(void *d, int v, u64 n) {
	void *p = d;
	__asm__ volatile("rep stosb" : "+D"(p), "+c"(n) : "a"(v) : "memory");
	return d;
}

struct gate { u16 low, selector; u8 ist, type; u16 mid; u32 high, zero; } __attribute__((packed));
static struct gate idt[256] __attribute__((aligned(16)));
struct fault fault;
hook hooks[256];
u8 tss[104 + 8193] __attribute__((aligned(16)));
u8 ist_stack[4096] __attribute__((aligned(16))), ring0_stack[8192] __attribute__((aligned(16)));
u64 pt[512] __attribute__((aligned(4096)));
static u64 test_pd[512] __attribute__((aligned(4096)));
static u8 pages[16][4096] __attribute__((aligned(4096)));

void idt_gate(int v, void *target, int dpl, int ist, int present) {
	u64 t = (u64)target;
	idt[v] = (struct gate){t, KCODE, ist, 0x0e | dpl << 5 | present << 7, t >> 16, t >> 32, 0};
}

void tss_stack(u64 rsp0, u64 ist1) {
	*(u64 *)(tss + 4) = rsp0;
	*(u64 *)(tss + 36) = ist1;
}

void on_event(struct frame *f) {
	if (hooks[f->vector]) {
		hooks[f->vector](f);
		return;
	}
	fault = (struct fault){f->vector, f->error, READ_CR(2), f->rip, f->rsp, f->cs, f->rflags, f->rax, READ_DR(6)};
	f->rip = (u64)attempt_failed;
	f->cs = KCODE;
	f->ss = KDATA;
	f->rsp = (u64)(ring0_stack + 4096); // any stack: attempt_failed takes its own
	f->rflags = 2;
}

void expect(const char *name, void (*f)(void *), void *arg, int vector, u64 error) {
	fault.vector = -1;
	fault.error = 0;
	attempt(f, arg);
	check(fault.vector == vector && (vector < 0 || fault.error == error), name, "vector %d error %x at %x, want %d %x",
	      (long)fault.vector, fault.error, fault.rip, (long)vector, error);
}

u8 *page(int n) { return pages[n]; }

void map_to(int n, int target, u64 flags) {
	pt[n] = (u64)page(target) | flags;
	invlpg(VA(n));
}
void map(int n, u64 flags) { map_to(n, n, flags); }

struct user_call { u64 cs, rflags, rdi; };

static void enter(void *arg) {
	struct user_call *c = arg;
	enter_user(VA(UCODE_PAGE), VA(USTACK_PAGE) + 4096 - 64, c->cs, UDATA, c->rflags, c->rdi);
}

void user(const void *code, int len, u64 rdi, u64 flags, int bits32) {
	u8 *p = page(UCODE_PAGE);
	memcpy(p, code, len);
	p[len] = 0xcd; // int 0x40
	p[len + 1] = 0x40;
	struct user_call c = {bits32 ? UCODE32 : UCODE, flags | 2, rdi};
	fault.vector = -1;
	attempt(enter, &c);
}

static void setup(void) {
	for (int v = 0; v < 256; v++)
		idt_gate(v, entries + 16 * v, v == 0x40 || v == 3 ? 3 : 0, 0, 1);
	struct table idtr = {sizeof idt - 1, (u64)idt};
	__asm__ volatile("lidt %0" ::"m"(idtr));
	u64 base = (u64)tss;
	gdt[TSS / 8] = (sizeof tss - 1) | (base & 0xffffff) << 16 | 0x89ull << 40 | ((base >> 24) & 0xff) << 56;
	gdt[TSS / 8 + 1] = base >> 32;
	*(u16 *)(tss + 102) = 104; // the I/O permission bitmap
	memset(tss + 104, 0xff, sizeof tss - 104);
	tss_stack((u64)(ring0_stack + sizeof ring0_stack), (u64)(ist_stack + sizeof ist_stack));
	__asm__ volatile("ltr %w0" ::"r"(TSS));
	pml4[0] |= U;
	pdpt[T >> 30] = (u64)test_pd | P | W | U;
	test_pd[0] = (u64)pt | P | W | U;
	WRITE_CR(3, (u64)pml4);
	map(UCODE_PAGE, P | W | U);
	map(USTACK_PAGE, P | W | U);
}

void suite(void) {
	setup();
	test_exceptions();
	test_paging();
	test_segments();
	test_system();
	test_debug();
	test_interrupts();
	print("%d passed, %d failed\n", (long)passed, (long)failed);
	while (!(inb(0x3fd) & 0x40)) {
	}
	outl(0xf4, failed ? 1 : 0);
}
