/* The x87: exceptions masked and not, pointers, tags, images (SDM vol. 1 chapters 8, 9.6 and 13; vol. 2 FXSAVE, XSAVE). */
#include "chips.h"

/* Operands, all addressed from %0 of X87. */
struct ext { u64 m; u16 se; } __attribute__((packed));
static struct {
	u64 one, zero, inf, big, minus_one, denormal, qnan, snan, three; /* +0, +8 ... +64 */
	struct ext big80, tiny80, denormal80, unnormal80;                /* +72, +82, +92, +102 */
	u32 denormal32, snan32;                                          /* +112, +116 */
	u8 out[16];                                                      /* +120 */
} __attribute__((packed, aligned(16))) k = {
	0x3ff0000000000000, 0, 0x7ff0000000000000, 0x7fe0000000000000, 0xbff0000000000000, 1, 0x7ff8000000000000,
	0x7ff4000000000000, 0x4008000000000000,
	{ 1UL << 63, 0x7ffe }, { 1UL << 63, 1 }, { 1, 0 }, { 1UL << 62, 0x3fff }, 1, 0x7fa00000, { 0 },
};

#define X87(f, text) static void f(void) { asm volatile(text : : "a"(&k) : "memory"); }
#define IE 1
#define DE_ 2
#define ZE 4
#define OE 8
#define UE 0x10
#define PE 0x20
#define SF 0x40
#define ES_B 0x8080
#define C1 0x200

static void fninit(u16 cw)
{
	asm volatile("fninit; fldcw %0" : : "m"(cw));
}

static u16 fsw(void)
{
	u16 v;
	asm volatile("fnstsw %0" : "=a"(v));
	return v;
}

static u16 fcw(void)
{
	u16 v;
	asm volatile("fnstcw %0" : "=m"(v));
	return v;
}

struct env { u16 cw, r0, sw, r1, tw, r2; u32 fip; u16 fcs, fop; u32 fdp; u16 fds, r3; };
static struct env fnstenv(void)
{
	struct env e;
	asm volatile("fnstenv %0" : "=m"(e));
	return e;
}

static struct ext st0(void)
{
	struct ext e;
	asm volatile("fnclex; fstpt %0" : "=m"(e));
	return e;
}

X87(inf_minus_inf, "fldl 16(%0); fsubl 16(%0)")
X87(zero_times_inf, "fldz; fmull 16(%0)")
X87(zero_over_zero, "fldz; fdivl 8(%0)")
X87(inf_over_inf, "fldl 16(%0); fdivl 16(%0)")
X87(sqrt_minus_one, "fldl 32(%0); fsqrt")
X87(load_snan, "fldl 56(%0)")
X87(load_snan32, "flds 116(%0)")
X87(add_snan, "fld1; faddl 56(%0)")
X87(add_qnan, "fld1; faddl 48(%0)")
X87(add_unnormal, "fldt 102(%0); fadd %%st, %%st")
X87(prem_inf, "fld1; fldl 16(%0); fprem")
X87(prem_zero, "fld1; fldz; fprem")
X87(sin_inf, "fldl 16(%0); fsin")
X87(divide_by_zero, "fld1; fdivl 8(%0)")
X87(divide_minus_by_zero, "fldl 32(%0); fdivl 8(%0)")
X87(log_of_zero, "fld1; fldz; fyl2x")
X87(extract_zero, "fldz; fxtract; fstp %%st")
X87(load_denormal, "fldl 40(%0)")
X87(load_denormal32, "flds 112(%0)")
X87(load_denormal80, "fldt 92(%0)")
X87(add_denormal, "fld1; faddl 40(%0)")
X87(overflow, "fldt 72(%0); fmul %%st, %%st")
X87(underflow, "fldt 82(%0); fmul %%st, %%st")
X87(inexact, "fld1; fdivl 64(%0)")
X87(exact, "fldl 64(%0); fdivl 64(%0)")
X87(stack_over, "fld1; fld1; fld1; fld1; fld1; fld1; fld1; fld1; fldz")
X87(stack_under, "fadd %%st(1), %%st")
X87(tiny_exact, "fldt 82(%0); fmull 64(%0); fdivl 64(%0)")

/* A computation that leaves its result in ST0: its flags, and what it leaves with all exceptions masked. */
static const struct { const char *name; void (*run)(void); u16 flags; u64 m; u16 se; } masked[] = {
	{ "inf-minus-inf", inf_minus_inf, IE, 3UL << 62, 0xffff },
	{ "zero-times-inf", zero_times_inf, IE, 3UL << 62, 0xffff },
	{ "zero-over-zero", zero_over_zero, IE, 3UL << 62, 0xffff },
	{ "inf-over-inf", inf_over_inf, IE, 3UL << 62, 0xffff },
	{ "sqrt-minus-one", sqrt_minus_one, IE, 3UL << 62, 0xffff },
	{ "load-snan", load_snan, IE, 0xe000000000000000, 0x7fff },
	{ "load-snan32", load_snan32, IE, 0xe000000000000000, 0x7fff },
	{ "add-snan", add_snan, IE, 0xe000000000000000, 0x7fff },
	{ "add-qnan", add_qnan, 0, 3UL << 62, 0x7fff },
	{ "unnormal", add_unnormal, IE, 3UL << 62, 0xffff },
	{ "prem-inf", prem_inf, IE, 3UL << 62, 0xffff },
	{ "prem-zero", prem_zero, 0, 0, 0 },
	{ "sin-inf", sin_inf, IE, 3UL << 62, 0xffff },
	{ "divide-by-zero", divide_by_zero, ZE, 1UL << 63, 0x7fff },
	{ "divide-minus-by-zero", divide_minus_by_zero, ZE, 1UL << 63, 0xffff },
	{ "log-of-zero", log_of_zero, ZE, 1UL << 63, 0xffff },
	{ "extract-zero", extract_zero, ZE, 1UL << 63, 0xffff },
	{ "load-denormal", load_denormal, DE_, 1UL << 63, 0x3bcd },
	{ "load-denormal32", load_denormal32, DE_, 1UL << 63, 0x3f6a },
	{ "load-denormal80", load_denormal80, 0, 1, 0 },
	{ "add-denormal", add_denormal, DE_ | PE, 1UL << 63, 0x3fff },
	{ "overflow", overflow, OE | PE | C1, 1UL << 63, 0x7fff },
	{ "underflow", underflow, UE | PE, 0, 0 },
	{ "inexact", inexact, PE | C1, 0xaaaaaaaaaaaaaaab, 0x3ffd },
	{ "exact", exact, 0, 1UL << 63, 0x3fff },
	{ "stack-over", stack_over, IE | SF | C1, 3UL << 62, 0xffff },
	{ "stack-under", stack_under, IE | SF, 3UL << 62, 0xffff },
	{ "tiny-exact", tiny_exact, 0, 1UL << 63, 1 },
};

static void masked_exceptions(void)
{
	for (unsigned i = 0; i < sizeof masked / sizeof *masked; i++) {
		fninit(0x37f);
		masked[i].run();
		eq(name("x87-", masked[i].name, ""), fsw() & (C1 | 0xff | 0x8000), masked[i].flags);
		struct ext e = st0();
		eq(name("x87-", masked[i].name, "-result"), e.m, masked[i].m);
		eq(name("x87-", masked[i].name, "-exponent"), e.se, masked[i].se);
	}
}

/* Left as they were before the exception, or, after overflow and underflow, scaled by 2^24576 (SDM vol. 1 §8.5). */
static const struct { const char *name; void (*run)(void); u16 unmask, flags; u64 m; u16 se; } unmasked[] = {
	{ "inf-minus-inf", inf_minus_inf, IE, IE, 1UL << 63, 0x7fff },
	{ "sqrt-minus-one", sqrt_minus_one, IE, IE, 1UL << 63, 0xbfff },
	{ "add-snan", add_snan, IE, IE, 1UL << 63, 0x3fff },
	{ "prem-inf", prem_inf, IE, IE, 1UL << 63, 0x7fff },
	{ "divide-by-zero", divide_by_zero, ZE, ZE, 1UL << 63, 0x3fff },
	{ "log-of-zero", log_of_zero, ZE, ZE, 0, 0 },
	{ "add-denormal", add_denormal, DE_, DE_, 1UL << 63, 0x3fff },
	{ "overflow", overflow, OE, OE, 1UL << 63, 0x5ffd },
	{ "underflow", underflow, UE, UE, 1UL << 63, 0x2003 },
	{ "inexact", inexact, PE, PE | C1, 0xaaaaaaaaaaaaaaab, 0x3ffd },
	{ "stack-over", stack_over, IE, IE | SF | C1, 1UL << 63, 0x3fff },
};

extern u8 fpu_wait[];
static void unmasked_exceptions(void)
{
	for (unsigned i = 0; i < sizeof unmasked / sizeof *unmasked; i++) {
		const char *n = unmasked[i].name;
		fninit(0x37f & ~unmasked[i].unmask);
		eq(name("x87-unmasked-", n, "-waits"), TRY(unmasked[i].run()), NOTRAP);
		u16 sw = fsw();
		eq(name("x87-unmasked-", n, ""), sw & (C1 | 0xff | 0x8000), unmasked[i].flags | ES_B);
		eq(name("x87-unmasked-", n, "-mf"), TRY(asm volatile(".globl fpu_wait\nfpu_wait: fwait")), MF);
		eq(name("x87-unmasked-", n, "-rip"), last.rip, (u64)fpu_wait);
		eq(name("x87-unmasked-", n, "-top"), fsw() & 0x3800, sw & 0x3800);
		struct ext e = st0();
		eq(name("x87-unmasked-", n, "-result"), e.m, unmasked[i].m);
		eq(name("x87-unmasked-", n, "-exponent"), e.se, unmasked[i].se);
	}
	fninit(0x37b);
	asm volatile("fld1; fldz; fdivrp");
	eq("x87-unmasked-no-pop", fsw() >> 11 & 7, 6);
	fninit(0x37e);
	asm volatile("fadd %st(1), %st");
	eq("x87-unmasked-under-empty", fnstenv().tw, 0xffff);
}

X87(w_abs, "fabs")
X87(w_ldcw, "fldcw 120(%0)")
X87(w_ldenv, "fldenv (%0)")
X87(w_rstor, "frstor (%0)")
X87(w_free, "ffree %%st")
X87(w_incstp, "fincstp")
X87(w_ld, "fldl (%0)")
X87(w_st, "fsts 120(%0)")
X87(w_emms, "emms")
X87(w_mmx, "movd %%ecx, %%mm0")
X87(w_cvtpi, "cvtpi2ps %%mm0, %%xmm0")
X87(n_stsw, "fnstsw 120(%0)")
X87(n_stcw, "fnstcw 120(%0)")
X87(n_disi, ".byte 0xdb, 0xe1")
#define ON_PAGE(f, text) static void f(void) { asm volatile(text : : "a"(pages[0]) : "memory"); }
ON_PAGE(n_stenv, "fnstenv (%0)")
ON_PAGE(n_save, "fnsave (%0)")
ON_PAGE(n_fxsave, "fxsave (%0)")
ON_PAGE(n_clex, "fnclex")
ON_PAGE(n_init, "fninit")
ON_PAGE(n_sse, "xorps %%xmm0, %%xmm0; cvtsi2sd %%eax, %%xmm0")

/* Which instructions report a pending exception (SDM vol. 1 §8.3.11, §8.6; vol. 3A §12.5). */
static void waiting(void)
{
	static const struct { const char *name; void (*run)(void); int trap; u16 sw; } list[] = {
		{ "fabs", w_abs, MF, 0x8080 }, { "fldcw", w_ldcw, MF, 0x8080 }, { "fldenv", w_ldenv, MF, 0x8080 },
		{ "frstor", w_rstor, MF, 0x8080 }, { "ffree", w_free, MF, 0x8080 }, { "fincstp", w_incstp, MF, 0x8080 },
		{ "fld", w_ld, MF, 0x8080 }, { "fst", w_st, MF, 0x8080 }, { "emms", w_emms, MF, 0x8080 }, { "mmx", w_mmx, MF, 0x8080 },
		{ "cvtpi2ps", w_cvtpi, MF, 0x8080 },
		{ "fnstsw", n_stsw, NOTRAP, 0x8080 }, { "fnstcw", n_stcw, NOTRAP, 0x8080 }, { "fndisi", n_disi, NOTRAP, 0x8080 },
		{ "fxsave", n_fxsave, NOTRAP, 0x8080 }, { "sse", n_sse, NOTRAP, 0x8080 },
		{ "fnclex", n_clex, NOTRAP, 0 }, { "fninit", n_init, NOTRAP, 0 }, { "fnsave", n_save, NOTRAP, 0 },
		{ "fnstenv", n_stenv, NOTRAP, 0 },
	};
	for (unsigned i = 0; i < sizeof list / sizeof *list; i++) {
		fninit(0x37b);
		asm volatile("fld1; fldz; fdivrp");
		eq(name(list[i].trap == MF ? "x87-waits-" : "x87-free-", list[i].name, ""), TRY(list[i].run()), list[i].trap);
		eq(name("x87-pending-", list[i].name, "-es"), fsw() & 0x8080, list[i].sw);
	}
	fninit(0x37b);
	asm volatile("fld1; fldz; fdivrp");
	eq("x87-fnop-waits", TRY(asm volatile("fnop")), MF);
	fninit(0x37f);
	asm volatile("fld1; fldz; fdivrp");
	eq("x87-masked-no-es", fsw() & 0x8084, ZE);
	u16 cw = 0x37b;
	asm volatile("fldcw %0" : : "m"(cw));
	eq("x87-fldcw-unmasks", fsw() & 0x8084, 0x8084);
	eq("x87-fldcw-unmasks-mf", TRY(asm volatile("fwait")), MF);
	fninit(0x37f);
	struct env e = fnstenv();
	e.cw = 0x37e;
	e.sw = IE;
	asm volatile("fldenv %0" : : "m"(e));
	eq("x87-fldenv-unmasks", fsw() & 0x8081, 0x8081);
	eq("x87-fldenv-unmasks-mf", TRY(asm volatile("fwait")), MF);
	fninit(0x37b);
	asm volatile("fnstenv %0" : "=m"(e));
	eq("x87-fnstenv-masks", fcw(), 0x37f);
}

/* stores: a destination in memory stays, and nothing is popped, when an unmasked exception stops the store. */
static void stores(void)
{
	static u64 out[2] __attribute__((aligned(16)));
#define STORE(n, cw_, load, store, want_flags, want_top, want) do { \
	out[0] = 0x1111111111111111; out[1] = 0x2222222222222222; \
	fninit(cw_); \
	asm volatile(load "\n\t" store : : "a"(&k), "d"(out) : "memory"); \
	eq(n, fsw() & 0x80ff, want_flags); \
	eq(n "-top", fsw() >> 11 & 7, want_top); \
	eq(n "-value", out[0], want); \
} while (0)
	STORE("fistp32-over", 0x37f, "fldl 24(%0)", "fistpl (%1)", IE, 0, 0x1111111180000000);
	STORE("fistp32-over-unmasked", 0x37e, "fldl 24(%0)", "fistpl (%1)", IE | ES_B, 7, 0x1111111111111111);
	STORE("fistp16-over", 0x37f, "fldl 24(%0)", "fistps (%1)", IE, 0, 0x1111111111118000);
	STORE("fistp64-over", 0x37f, "fldl 24(%0)", "fistpll (%1)", IE, 0, 1UL << 63);
	STORE("fistp-inexact", 0x37f, "fld1; fdivl 64(%0); fnclex", "fistpl (%1)", PE, 0, 0x1111111100000000);
	STORE("fisttp-truncates", 0xb7f, "fldpi; fnclex", "fisttpl (%1)", PE, 0, 0x1111111100000003);
	STORE("fistp-rounds-up", 0xb7f, "fldpi; fnclex", "fistpl (%1)", PE, 0, 0x1111111100000004);
	STORE("fistp-empty", 0x37f, "", "fistpl (%1)", IE | SF, 1, 0x1111111180000000);
	STORE("fstp64-over", 0x37f, "fldt 72(%0)", "fstpl (%1)", OE | PE, 0, 0x7ff0000000000000);
	STORE("fstp64-over-unmasked", 0x377, "fldt 72(%0)", "fstpl (%1)", OE | ES_B, 7, 0x1111111111111111);
	STORE("fstp64-under", 0x37f, "fldt 82(%0)", "fstpl (%1)", UE | PE, 0, 0);
	STORE("fstp64-under-unmasked", 0x36f, "fldt 82(%0)", "fstpl (%1)", UE | ES_B, 7, 0x1111111111111111);
	STORE("fstp64-toward-zero", 0xf7f, "fldt 72(%0)", "fstpl (%1)", OE | PE, 0, 0x7fefffffffffffff);
	STORE("fstp64-denormal-exact", 0x37f, "fldl 40(%0); fnclex", "fstpl (%1)", 0, 0, 1);
	STORE("fstp32-snan", 0x37f, "fldl 48(%0)", "fstps (%1)", 0, 0, 0x111111117fc00000);
	STORE("fbstp-over", 0x37f, "fldl 24(%0)", "fbstp (%1)", IE, 0, 0xc000000000000000);
	eq("fbstp-over-sign", out[1] & 0xffff, 0xffff);
	STORE("fbstp-over-unmasked", 0x37e, "fldl 24(%0)", "fbstp (%1)", IE | ES_B, 7, 0x1111111111111111);
	STORE("fbstp", 0x37f, "fldl 64(%0); fmull 32(%0)", "fbstp (%1)", 0, 0, 3);
	eq("fbstp-sign", out[1] & 0xffff, 0x8000);
	fninit(0x37f);
	asm volatile("fldl 48(%0); fld1; fcompp" : : "a"(&k));
	eq("fcom-qnan", fsw() & 0x4580, 0x4500);
	eq("fcom-qnan-ie", fsw() & 0x3f, IE);
	fninit(0x37f);
	asm volatile("fldl 48(%0); fld1; fucompp" : : "a"(&k));
	eq("fucom-qnan", fsw() & 0x45ff, 0x4500);
}

extern u8 ip1[], ip2[], ip3[];
static void pointers(void)
{
	u8 *image = pages[0];
	fninit(0x37f);
	struct env e = fnstenv();
	eq("fninit-fip", e.fip, 0);
	eq("fninit-fdp", e.fdp, 0);
	eq("fninit-fop", e.fop, 0);
	eq("fninit-cw-sw", e.cw | e.sw << 16, 0x37f);
	eq("fninit-tw", e.tw, 0xffff);
	asm volatile("ip1: fldl (%0)\n.globl ip1" : : "a"(&k.one));
	asm volatile("fnop; fxsave64 (%0)" : : "d"(image) : "memory");
	eq("fip-after-fnop", PEEK(image + 8) - (u64)ip1 <= 2, 1);
	eq("fdp", PEEK(image + 16), (u64)&k.one);
	e = fnstenv();
	eq("env-fdp", e.fdp, (u32)(u64)&k.one);
	eq("env-fcs", e.fcs, 0);
	fninit(0x37f);
	asm volatile(".globl ip2\nip2: ds; fldl (%0)" : : "a"(&k.one));
	e = fnstenv();
	eq("fip-of-prefix", e.fip, (u32)(u64)ip2);
	eq("fop", e.fop & 0x7ff, 0x500);
	e = fnstenv();
	eq("fip-kept-by-control", e.fip, (u32)(u64)ip2);
	asm volatile("fnclex; fnstcw %0; fwait" : "=m"(*(u16 *)image));
	eq("fip-kept-by-fnclex", fnstenv().fip, (u32)(u64)ip2);
	fninit(0x37b);
	asm volatile("fld1; .globl ip3\nip3: fdivl (%0); nop; nop" : : "a"(&k.zero));
	asm volatile("fxsave64 (%0)" : : "d"(image) : "memory");
	eq("fip-of-exception", PEEK(image + 8), (u64)ip3);
	eq("fdp-of-exception", PEEK(image + 16), (u64)&k.zero);
	eq("fop-of-exception", *(u16 *)(image + 6), 0x430);
	fninit(0x37f);
	asm volatile("fld1; fldz; ds; fldl (%0); data16 fnstenv (%1)" : : "a"(&k.one), "d"(image) : "memory");
	u16 *w = (u16 *)image;
	eq("env16-cw-sw", w[0] | (u32)w[1] << 16, 0x37f | 5 << 27);
	eq("env16-tw", w[2], 0x13ff);
	eq("env16-fdp", w[5], (u16)(u64)&k.one);
}

static void tags(void)
{
	u8 *image = pages[0];
	fninit(0x37f);
	asm volatile("fld1; fldz; fldl 16(%0); fldt 92(%0)" : : "a"(&k));
	eq("tags", fnstenv().tw, 0x1aff);
	asm volatile("fxsave (%0)" : : "d"(image) : "memory");
	eq("tags-abridged", image[4], 0xf0);
	asm volatile("ffree %st(1)");
	eq("ffree", fnstenv().tw, 0x1eff);
	asm volatile("fincstp");
	struct env e = fnstenv();
	eq("fincstp-tw", e.tw, 0x1eff);
	eq("fincstp-top", e.sw >> 11 & 7, 5);
	asm volatile("fdecstp; fdecstp");
	eq("fdecstp-top", fsw() >> 11 & 7, 3);
	e.tw = 0; /* what is there decides, not what is loaded */
	e.sw &= ~0x3800;
	asm volatile("fldenv %0" : : "m"(e));
	eq("fldenv-tw", fnstenv().tw >> 8, 0x1a);
	fninit(0x37f);
	asm volatile("fldt 102(%0)" : : "a"(&k));
	eq("tag-unnormal", fnstenv().tw, 0xbfff);
	fninit(0x37f);
	asm volatile("fld1; movd %0, %%mm3; fxsave (%1)" : : "r"(0x12345678), "d"(image) : "memory");
	eq("mmx-tags", image[4], 0xff);
	eq("mmx-top", *(u16 *)(image + 2) >> 11 & 7, 0);
	eq("mmx-value", PEEK(image + 32 + 48), 0x12345678);
	eq("mmx-exponent", *(u16 *)(image + 40 + 48), 0xffff);
	asm volatile("emms; fxsave (%0)" : : "d"(image) : "memory");
	eq("emms-tags", image[4], 0);
	fninit(0x37f);
	asm volatile("fld1; fnsave (%0)" : : "d"(image) : "memory");
	eq("fnsave-tw", *(u16 *)(image + 8), 0x3fff);
	eq("fnsave-st0", PEEK(image + 28), 1UL << 63);
	eq("fnsave-inits", fnstenv().tw, 0xffff);
	asm volatile("frstor (%0)" : : "d"(image));
	eq("frstor-tw", fnstenv().tw, 0x3fff);
}

static void fx_images(void)
{
	u8 *image = pages[0], *again = pages[1];
	fninit(0x27f);
	u32 csr = 0x1f80;
	asm volatile("ldmxcsr %0" : : "m"(csr));
	for (int i = 0; i < 512; i++)
		image[i] = again[i] = 0x5a;
	asm volatile("fld1; fldz; movq %0, %%xmm0; movq %0, %%xmm15; movlhps %%xmm15, %%xmm15; fxsave64 (%1)"
		: : "r"(0x123456789abcdef0), "d"(image) : "memory");
	eq("fxsave-cw", *(u16 *)image, 0x27f);
	eq("fxsave-top", *(u16 *)(image + 2), 6 << 11);
	eq("fxsave-tag", image[4], 0xc0);
	eq("fxsave-mxcsr", *(u32 *)(image + 24), 0x1f80);
	eq("fxsave-mask", *(u32 *)(image + 28) & 0xffff, 0xffff);
	eq("fxsave-st0", PEEK(image + 32), 0);
	eq("fxsave-st1", PEEK(image + 48), 1UL << 63);
	eq("fxsave-st1-exponent", *(u16 *)(image + 56), 0x3fff);
	eq("fxsave-xmm0", PEEK(image + 160), 0x123456789abcdef0);
	eq("fxsave-xmm15-high", PEEK(image + 160 + 248), 0x123456789abcdef0);
	eq("fxsave-leaves-software's", PEEK(image + 464), 0x5a5a5a5a5a5a5a5a);
	eq("fxsave-leaves-software's-end", PEEK(image + 504), 0x5a5a5a5a5a5a5a5a);
	asm volatile("fninit; xorps %%xmm15, %%xmm15; fxrstor64 (%0); fxsave64 (%1)" : : "d"(image), "c"(again) : "memory");
	int same = 1;
	for (int i = 0; i < 512; i++)
		same &= image[i] == again[i];
	ok("fxrstor-round-trip", same);
	eq("fxsave-unaligned", TRY(asm volatile("fxsave 8(%0)" : : "d"(image) : "memory")), GP);
	eq("fxrstor-unaligned", TRY(asm volatile("fxrstor 8(%0)" : : "d"(image))), GP);
	*(u32 *)(image + 24) = 0x11f80;
	eq("fxrstor-mxcsr-reserved", TRY(asm volatile("fxrstor (%0)" : : "d"(image))), GP);
	*(u32 *)(image + 24) = 0x1f80;
	*(u16 *)(image + 2) = 6 << 11 | IE;
	*(u16 *)image = 0x37e;
	asm volatile("fxrstor (%0)" : : "d"(image));
	eq("fxrstor-pending", TRY(asm volatile("fwait")), MF);
	fninit(0x37f);
}

static void xsave(u8 *to, u32 mask) { asm volatile("xsave64 (%0)" : : "D"(to), "a"(mask), "d"(0) : "memory"); }
static void xsaveopt(u8 *to, u32 mask) { asm volatile("xsaveopt64 (%0)" : : "D"(to), "a"(mask), "d"(0) : "memory"); }
static void xrstor(u8 *from, u32 mask) { asm volatile("xrstor64 (%0)" : : "D"(from), "a"(mask), "d"(0) : "memory"); }

static u64 xmm0(void)
{
	u64 v;
	asm volatile("movq %%xmm0, %0" : "=r"(v));
	return v;
}

static void x_images(void)
{
	u32 r[4], csr = 0x1f80;
	cpuid(1, 0, r);
	if (!(r[2] >> 26 & 1))
		return;
	u8 *image = pages[0];
	for (int i = 0; i < 1024; i++)
		image[i] = 0;
	eq("xsave-without-osxsave", TRY(xsave(image, 3)), UD);
	set_cr4(cr4() | 1 << 18);
	asm volatile("xsetbv" : : "c"(0), "a"(3), "d"(0));
	cpuid(0xd, 0, r);
	eq("xsave-size", r[1], 576);
	eq("xsave-components", r[0] & 3, 3);
	fninit(0x37f);
	asm volatile("fld1; movq %0, %%xmm0" : : "r"(7UL));
	PEEK(image + 512) = 0x8000;
	PEEK(image + 160) = 99;
	xsave(image, 1);
	eq("xsave-bv", PEEK(image + 512) & 3, 1);
	eq("xsave-keeps-bv", PEEK(image + 512) & 0x8000, 0x8000);
	eq("xsave-tag", image[4], 0x80);
	eq("xsave-leaves-sse", PEEK(image + 160), 99);
	PEEK(image + 512) = 0;
	*(u32 *)(image + 24) = 0;
	xsave(image, 2);
	eq("xsave-sse-bv", PEEK(image + 512), 2);
	eq("xsave-sse", PEEK(image + 160), 7);
	eq("xsave-sse-mxcsr", *(u32 *)(image + 24), 0x1f80);
	eq("xsave-unaligned", TRY(xsave(image + 16, 3)), GP);
	eq("xrstor-unaligned", TRY(xrstor(image + 16, 3)), GP);
	xsave(image, 3);
	PEEK(image + 512) = 1;
	xrstor(image, 3);
	eq("xrstor-init-sse", xmm0(), 0);
	eq("xrstor-x87", fnstenv().tw, 0x3fff);
	asm volatile("movq %0, %%xmm0" : : "r"(8UL));
	PEEK(image + 512) = 0;
	xrstor(image, 1);
	eq("xrstor-init-x87", fnstenv().tw, 0xffff);
	eq("xrstor-init-cw", fcw(), 0x37f);
	eq("xrstor-not-asked", xmm0(), 8);
	*(u32 *)(image + 24) = 0x3f80;
	xrstor(image, 2);
	asm volatile("stmxcsr %0" : "=m"(csr));
	eq("xrstor-mxcsr", csr, 0x3f80); /* whatever XSTATE_BV says (SDM vol. 1 §13.8.1) */
	*(u32 *)(image + 24) = 0x11f80;
	eq("xrstor-mxcsr-reserved", TRY(xrstor(image, 2)), GP);
	*(u32 *)(image + 24) = 0x1f80;
	xrstor(image, 2);
	PEEK(image + 512) = 4;
	eq("xrstor-bv-not-in-xcr0", TRY(xrstor(image, 3)), GP);
	PEEK(image + 512) = 0;
	PEEK(image + 520) = 1UL << 62;
	eq("xrstor-header", TRY(xrstor(image, 3)), GP);
	PEEK(image + 520) = 0;
	PEEK(image + 528) = 1;
	eq("xrstor-header-16", TRY(xrstor(image, 3)), GP);
	PEEK(image + 528) = 0;
	cpuid(0xd, 1, r);
	if (r[0] & 1) {
		asm volatile("fninit; fld1");
		PEEK(image + 512) = 0;
		xsaveopt(image, 1);
		eq("xsaveopt", PEEK(image + 512), 1);
		eq("xsaveopt-tag", image[4], 0x80);
	}
	set_cr0(cr0() | 8);
	eq("xsave-ts", TRY(xsave(image, 3)), NM);
	eq("xrstor-ts", TRY(xrstor(image, 3)), NM);
	asm volatile("clts");
	eq("xsave-lock", TRY(asm volatile(".byte 0xf0, 0x0f, 0xae, 0x27" : : "D"(image), "a"(3), "d"(0) : "memory")), UD);
	asm volatile("xsetbv" : : "c"(0), "a"(1), "d"(0));
	set_cr4(cr4() & ~(1UL << 18));
	fninit(0x37f);
}

static volatile int ferr;
static int on_ferr(struct frame *f)
{
	if (f->vector != 0x6d)
		return 0;
	ferr++;
	outb(0xf0, 0); /* IGNNE# */
	outb(0xa0, 0x20);
	outb(0x20, 0x20);
	return 1;
}

/* A PC's way to report exceptions, CR0.NE = 0 (SDM vol. 1 §8.7.2). */
static void external(void)
{
	pics(0xfb);
	outb(0xa1, 0xdf);
	LAPIC(SVR) = 0x1ff;
	LAPIC(LINT0) = 0x700;
	hook = on_ferr;
	set_cr0(cr0() & ~0x20UL);
	fninit(0x37b);
	int v = TRY(asm volatile("sti; fld1; fldz; fdivrp; fwait; fwait; cli"));
	eq("ferr-no-mf", v, NOTRAP);
	eq("ferr", ferr, 1);
	asm volatile("cli");
	eq("ignne-lasts", TRY(asm volatile("fnop; fld1")), NOTRAP);
	asm volatile("fnclex");
	set_cr0(cr0() | 0x20);
	fninit(0x37f);
	hook = 0;
	LAPIC(LINT0) = 0x10000;
	LAPIC(SVR) = 0xff;
	pics(0xff);
}

void test_fpu(void)
{
	masked_exceptions();
	unmasked_exceptions();
	waiting();
	stores();
	pointers();
	tags();
	fx_images();
	x_images();
	if (!on_tcg()) /* it aborts */
		external();
}
