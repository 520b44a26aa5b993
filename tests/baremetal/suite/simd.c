/* SSE floating-point exceptions and MXCSR (SDM vol. 1 §10.2.3, §11.5). */
#include "suite.h"

#define IE 1
#define DE_ 2
#define ZE 4
#define OE 8
#define UE 0x10
#define PE 0x20
#define DAZ 0x40
#define MASKED 0x1f80
#define RC(n) ((n) << 13)
#define FTZ 0x8000

static void set_mxcsr(u32 v) { asm volatile("ldmxcsr %0" : : "m"(v)); }
static u32 mxcsr(void)
{
	u32 v;
	asm volatile("stmxcsr %0" : "=m"(v));
	return v;
}

#define ONE_F 0x3f800000UL
#define ONE 0x3ff0000000000000UL
#define INF 0x7ff0000000000000UL
#define BIG 0x7fe0000000000000UL
#define TINY 0x0010000000000000UL
#define QNAN 0x7ff8000000000000UL
#define SNAN 0x7ff4000000000000UL
#define DEFAULT 0xfff8000000000000UL
#define SIGN (1UL << 63)

/* Operations of xmm0 (destination) and xmm1; the result is the low half of xmm0. */
#define OP(f, text) static void f(void) { asm volatile(".globl at_" #f "\nat_" #f ": " text); } extern u8 at_##f[];
OP(addsd, "addsd %xmm1, %xmm0")
OP(subsd, "subsd %xmm1, %xmm0")
OP(mulsd, "mulsd %xmm1, %xmm0")
OP(divsd, "divsd %xmm1, %xmm0")
OP(sqrtsd, "sqrtsd %xmm1, %xmm0")
OP(minsd, "minsd %xmm1, %xmm0")
OP(maxsd, "maxsd %xmm1, %xmm0")
OP(cmpltsd, "cmpltsd %xmm1, %xmm0")
OP(cmpeqsd, "cmpeqsd %xmm1, %xmm0")
OP(comisd, "comisd %xmm1, %xmm0")
OP(ucomisd, "ucomisd %xmm1, %xmm0")
OP(cvtsd2ss, "cvtsd2ss %xmm1, %xmm0")
OP(cvtss2sd, "cvtss2sd %xmm1, %xmm0")
OP(cvtsd2si, "cvtsd2si %xmm1, %rax; movq %rax, %xmm0")
OP(cvttsd2si, "cvttsd2sil %xmm1, %eax; movd %eax, %xmm0")
OP(cvtdq2ps, "cvtdq2ps %xmm1, %xmm0")
OP(cvtps2dq, "cvtps2dq %xmm1, %xmm0")
OP(divps, "divps %xmm1, %xmm0")
OP(mulps, "mulps %xmm1, %xmm0")
OP(rcpps, "rcpps %xmm1, %xmm0")
OP(haddpd, "haddpd %xmm1, %xmm0")
OP(movaps_, "movaps %xmm1, %xmm0")
OP(xorps_, "xorps %xmm1, %xmm0")

static int run(void (*op)(void), u32 csr, u64 a, u64 b)
{
	set_mxcsr(csr);
	asm volatile("movq %0, %%xmm0; movq %1, %%xmm1" : : "r"(a), "r"(b));
	return TRY(op());
}

static u64 result(void)
{
	u64 v;
	asm volatile("movq %%xmm0, %0" : "=r"(v));
	return v;
}

static const struct { const char *name; void (*op)(void); const u8 *at; u64 a, b; u32 csr, flags; u64 want; } cases[] = {
	{ "inf-minus-inf", subsd, at_subsd, INF, INF, 0, IE, DEFAULT },
	{ "zero-times-inf", mulsd, at_mulsd, 0, INF, 0, IE, DEFAULT },
	{ "zero-over-zero", divsd, at_divsd, 0, 0, 0, IE, DEFAULT },
	{ "sqrt-minus-one", sqrtsd, at_sqrtsd, 0, ONE | SIGN, 0, IE, DEFAULT },
	{ "sqrt-minus-zero", sqrtsd, at_sqrtsd, 0, SIGN, 0, 0, SIGN },
	{ "add-snan", addsd, at_addsd, ONE, SNAN, 0, IE, SNAN | 1UL << 51 },
	{ "add-qnans", addsd, at_addsd, QNAN | 1, QNAN | 2, 0, 0, QNAN | 1 },
	{ "min-qnan", minsd, at_minsd, ONE, QNAN, 0, IE, QNAN },
	{ "max-of-qnan", maxsd, at_maxsd, QNAN, ONE, 0, IE, ONE },
	{ "min-zeros", minsd, at_minsd, 0, SIGN, 0, 0, SIGN },
	{ "cmplt-qnan", cmpltsd, at_cmpltsd, ONE, QNAN, 0, IE, 0 },
	{ "cmpeq-qnan", cmpeqsd, at_cmpeqsd, ONE, QNAN, 0, 0, 0 },
	{ "comis-qnan", comisd, at_comisd, ONE, QNAN, 0, IE, ONE },
	{ "ucomis-qnan", ucomisd, at_ucomisd, ONE, QNAN, 0, 0, ONE },
	{ "ucomis-snan", ucomisd, at_ucomisd, ONE, SNAN, 0, IE, ONE },
	{ "divide-by-zero", divsd, at_divsd, ONE, 0, 0, ZE, INF },
	{ "divide-inf-by-zero", divsd, at_divsd, INF, 0, 0, 0, INF },
	{ "denormal", addsd, at_addsd, ONE, 1, 0, DE_ | PE, ONE },
	{ "denormal-exact", addsd, at_addsd, 0, 1, 0, DE_, 1 },
	{ "denormal-and-zero", divsd, at_divsd, 1, 0, 0, ZE, INF },
	{ "daz", addsd, at_addsd, ONE, 1, DAZ, 0, ONE },
	{ "daz-divide", divsd, at_divsd, ONE, 1, DAZ, ZE, INF },
	{ "overflow", mulsd, at_mulsd, BIG, BIG, 0, OE | PE, INF },
	{ "overflow-to-zero", mulsd, at_mulsd, BIG, BIG, RC(3), OE | PE, INF - 1 },
	{ "underflow", mulsd, at_mulsd, TINY, TINY, 0, UE | PE, 0 },
	{ "underflow-up", mulsd, at_mulsd, TINY, TINY, RC(2), UE | PE, 1 },
	{ "tiny-exact", subsd, at_subsd, TINY + 1, TINY, 0, 0, 1 },
	{ "ftz", subsd, at_subsd, TINY + 1, TINY, FTZ, UE | PE, 0 },
	{ "inexact", divsd, at_divsd, ONE, 0x4008000000000000, 0, PE, 0x3fd5555555555555 },
	{ "inexact-up", divsd, at_divsd, ONE, 0x4008000000000000, RC(2), PE, 0x3fd5555555555556 },
	{ "exact", addsd, at_addsd, ONE, ONE, 0, 0, 0x4000000000000000 },
	{ "narrow-overflow", cvtsd2ss, at_cvtsd2ss, 0, BIG, 0, OE | PE, 0x7f800000 },
	{ "narrow-underflow", cvtsd2ss, at_cvtsd2ss, 0, TINY, 0, UE | PE, 0 },
	{ "narrow-denormal", cvtsd2ss, at_cvtsd2ss, 0, 1, 0, DE_ | UE | PE, 0 },
	{ "widen-snan", cvtss2sd, at_cvtss2sd, 0, 0x7fa00000, 0, IE, 0x7ffc000000000000 },
	{ "widen-denormal", cvtss2sd, at_cvtss2sd, 0, 1, 0, DE_, 0x36a0000000000000 },
	{ "to-integer-over", cvtsd2si, at_cvtsd2si, 0, BIG, 0, IE, SIGN },
	{ "to-integer-nan", cvttsd2si, at_cvttsd2si, 0, QNAN, 0, IE, 0x80000000 },
	{ "to-integer-inexact", cvtsd2si, at_cvtsd2si, 0, 0x3ff8000000000000, 0, PE, 2 },
	{ "to-integer-truncated", cvttsd2si, at_cvttsd2si, 0, 0x3ff8000000000000, RC(2), PE, 1 },
	{ "from-integer-inexact", cvtdq2ps, at_cvtdq2ps, 0, 0x1000001, 0, PE, 0x4b800000 },
	{ "packed-to-integer", cvtps2dq, at_cvtps2dq, 0, 0x7f800000UL << 32 | ONE_F, 0, IE, 0x8000000000000001 },
	{ "packed-both", divps, at_divps, ONE_F << 32 | ONE_F, 0x40400000, 0, ZE | PE, 0x7f8000003eaaaaab },
	{ "packed-second", mulps, at_mulps, 0x7f7fffffUL << 32 | ONE_F, 0x7f7fffffUL << 32 | ONE_F, 0, OE | PE, 0x7f8000003f800000 },
	{ "rcpps", rcpps, at_rcpps, 0, 0, 0, 0, 0x7f8000007f800000 },
	{ "move-snan", movaps_, at_movaps_, 0, SNAN, 0, 0, SNAN },
	{ "xor-snan", xorps_, at_xorps_, 0, SNAN, 0, 0, SNAN },
	{ "horizontal", haddpd, at_haddpd, SNAN, 0, 0, IE, SNAN | 1UL << 51 },
};

static void masked_cases(void)
{
	for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
		const char *n = cases[i].name;
		/* DIVPS and its like see the upper half too: 1 there keeps quiet */
		asm volatile("movq %0, %%xmm0; movlhps %%xmm0, %%xmm0; movaps %%xmm0, %%xmm1" : : "r"(ONE_F << 32 | ONE_F));
		set_mxcsr(MASKED | cases[i].csr);
		asm volatile("movq %0, %%xmm2; movq %1, %%xmm3; movsd %%xmm2, %%xmm0; movsd %%xmm3, %%xmm1" : : "r"(cases[i].a), "r"(cases[i].b));
		cases[i].op();
		eq(name("sse-", n, ""), mxcsr() & 0x3f, cases[i].flags);
		eq(name("sse-", n, "-result"), result(), cases[i].want);
	}
}

/* Unmasked: #XM at the instruction, the destination as it was, the flag set (SDM vol. 1 §11.5.2). */
static void unmasked_cases(void)
{
	for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
		u32 first = cases[i].flags & 7 ? cases[i].flags & 7 : cases[i].flags & 0x18 ? cases[i].flags & 0x18 : cases[i].flags;
		if (!first || cases[i].csr & FTZ || cases[i].op == cvtsd2si || cases[i].op == cvttsd2si)
			continue; /* FTZ counts only with UE masked; the others write RAX */
		const char *n = cases[i].name;
		asm volatile("movq %0, %%xmm0; movlhps %%xmm0, %%xmm0; movaps %%xmm0, %%xmm1" : : "r"(ONE_F << 32 | ONE_F));
		asm volatile("movq %0, %%xmm2; movq %1, %%xmm3; movsd %%xmm2, %%xmm0; movsd %%xmm3, %%xmm1" : : "r"(cases[i].a), "r"(cases[i].b));
		set_mxcsr((MASKED | cases[i].csr) & ~(first << 7));
		int v = TRY(cases[i].op());
		eq(name("xm-", n, ""), v, XM);
		if (v != XM)
			continue;
		eq(name("xm-", n, "-rip"), last.rip, (u64)cases[i].at);
		ok(name("xm-", n, "-flag"), mxcsr() & first);
		eq(name("xm-", n, "-kept"), result(), cases[i].a);
	}
	set_mxcsr(MASKED);
}

static void sticky(void)
{
	eq("mxcsr-flag-is-no-event", (set_mxcsr(ZE), TRY(asm volatile("xorps %xmm0, %xmm0; addsd %xmm0, %xmm0"))), NOTRAP);
	eq("mxcsr-sticky", mxcsr(), ZE);
	run(addsd, MASKED | IE | PE, ONE, ONE);
	eq("mxcsr-flags-stay", mxcsr(), MASKED | IE | PE);
	run(divsd, MASKED & ~(IE << 7), ONE, 0);
	eq("masked-beside-unmasked", mxcsr(), (MASKED & ~(IE << 7)) | ZE);
	eq("ldmxcsr-high-gp", TRY(set_mxcsr(0x80000000)), GP);
	set_mxcsr(0xffff);
	eq("mxcsr-all", mxcsr(), 0xffff);
	set_mxcsr(MASKED);
	/* A packed operation with an unmasked exception in one element stores none. */
	asm volatile("movq %0, %%xmm0; movq %1, %%xmm1" : : "r"(ONE_F << 32 | ONE_F), "r"(ONE_F << 32));
	set_mxcsr(MASKED & ~(ZE << 7));
	eq("xm-packed-unmasked", TRY(asm volatile("movlhps %xmm1, %xmm1; movlhps %xmm0, %xmm0; divps %xmm1, %xmm0")), XM);
	eq("xm-packed-unmasked-kept", result(), ONE_F << 32 | ONE_F);
	u32 csr = mxcsr();
	eq("packed-unmasked-flag", csr & 0x3f, ZE);
	set_mxcsr(MASKED & ~(PE << 7));
	u64 m = ONE;
	eq("xm-memory-operand", TRY(asm volatile("movq %0, %%xmm0; movq %0, %%xmm1; addsd %%xmm1, %%xmm1; addsd %%xmm0, %%xmm1; divsd %%xmm1, %%xmm0; nop" : : "r"(m))), XM);
	set_mxcsr(MASKED & ~(PE << 7));
	/* ROUNDSD's suppression, bit 3 of its immediate */
	eq("xm-roundsd-inexact", TRY(asm volatile("movq %0, %%xmm1; roundsd $0, %%xmm1, %%xmm0" : : "r"(0x3ff8000000000000))), XM);
	set_mxcsr(MASKED & ~(PE << 7));
	eq("roundsd-suppressed", TRY(asm volatile("movq %0, %%xmm1; roundsd $8, %%xmm1, %%xmm0" : : "r"(0x3ff8000000000000))), NOTRAP);
	set_mxcsr(MASKED);
	/* A page fault comes before an exception of the operands. */
	set_mxcsr(MASKED & ~(IE << 7));
	eq("pf-before-xm", TRY(asm volatile("movq %1, %%xmm0; addsd (%0), %%xmm0" : : "r"(PAGE(300)), "r"(SNAN))), PF);
	set_mxcsr(MASKED);
}

/* The vector and matters of access of SSE instructions (SDM vol. 2 tables 2-21 ff.). */
static void access(void)
{
	u8 *p = pages[2];
	static const struct { const char *name; int trap; } want[] = { { "movaps", GP }, { "movups", NOTRAP }, { "movdqa-store", GP },
		{ "movdqu-store", NOTRAP }, { "addps", GP }, { "addsd", NOTRAP }, { "pand", GP }, { "movntps", GP }, { "lddqu", NOTRAP }, { "punpcklbw", GP },
		{ "movntdqa", GP }, { "pcmpistri", NOTRAP }, { "cvtdq2pd", NOTRAP }, { "cvtps2pd", NOTRAP }, { "cvtpd2ps", GP } };
	int got[] = {
		TRY(asm volatile("movaps 4(%0), %%xmm0" : : "r"(p))),
		TRY(asm volatile("movups 4(%0), %%xmm0" : : "r"(p))),
		TRY(asm volatile("movdqa %%xmm0, 8(%0)" : : "r"(p) : "memory")),
		TRY(asm volatile("movdqu %%xmm0, 8(%0)" : : "r"(p) : "memory")),
		TRY(asm volatile("addps 4(%0), %%xmm0" : : "r"(p))),
		TRY(asm volatile("addsd 4(%0), %%xmm0" : : "r"(p))),
		TRY(asm volatile("pand 1(%0), %%xmm0" : : "r"(p))),
		TRY(asm volatile("movntps %%xmm0, 8(%0)" : : "r"(p) : "memory")),
		TRY(asm volatile("lddqu 3(%0), %%xmm0" : : "r"(p))),
		TRY(asm volatile("punpcklbw 8(%0), %%xmm0" : : "r"(p))),
		TRY(asm volatile("movntdqa 8(%0), %%xmm0" : : "r"(p))),
		TRY(asm volatile("pcmpistri $0, 3(%0), %%xmm0" : : "r"(p) : "ecx")),
		TRY(asm volatile("cvtdq2pd 4(%0), %%xmm0" : : "r"(p))),
		TRY(asm volatile("cvtps2pd 4(%0), %%xmm0" : : "r"(p))),
		TRY(asm volatile("cvtpd2ps 8(%0), %%xmm0" : : "r"(p))),
	};
	for (unsigned i = 0; i < sizeof want / sizeof *want; i++)
		eq(name("unaligned-", want[i].name, ""), got[i], want[i].trap);
}

void test_simd(void)
{
	masked_cases();
	unmasked_cases();
	sticky();
	access();
}
