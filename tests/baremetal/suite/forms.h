/* Instructions with a memory operand, for checks of segment limits: FORM(name, bytes with 32-bit code, with 16-bit code,
 * flags, text). The operand is M, at rBX = rSI = rDI in FS, or in ES for string destinations. */
enum {
	WR = 1,		/* writes */
	NEAR = 2,	/* reads the address of the code's end */
	FAR = 4,	/* the same with a selector behind */
	PROT = 8,	/* protected mode only */
	PRIV = 16,	/* needs CPL 0 or I/O permission */
	SRC = 32,	/* has a destination in ES besides */
	STILL = 64,	/* leaves the stack pointer alone */
	IO = 128,	/* reaches a port, so KVM emulates it, checks included: its checks have names of their own */
};

#define FORMS \
	FORM(movb_load, 1, 1, 0, "movb " M ", %al") \
	FORM(movw_load, 2, 2, 0, "movw " M ", %ax") \
	FORM(movl_load, 4, 4, 0, "movl " M ", %eax") \
	FORM(movb_store, 1, 1, WR, "movb %al, " M) \
	FORM(movw_store, 2, 2, WR, "movw %ax, " M) \
	FORM(movl_store, 4, 4, WR, "movl %eax, " M) \
	FORM(movl_imm_store, 4, 4, WR, "movl $0, " M) \
	FORM(mov_seg_store, 2, 2, WR, "movw %ds, " M) \
	FORM(mov_seg_load, 2, 2, 0, "movw " M ", %gs") \
	FORM(movzbl, 1, 1, 0, "movzbl " M ", %eax") \
	FORM(movswl, 2, 2, 0, "movswl " M ", %eax") \
	FORM(addb, 1, 1, WR, "addb %al, " M) \
	FORM(adcw, 2, 2, WR, "adcw %ax, " M) \
	FORM(subl, 4, 4, WR, "subl $0, " M) \
	FORM(cmpl, 4, 4, 0, "cmpl %eax, " M) \
	FORM(testw, 2, 2, 0, "testw %ax, " M) \
	FORM(incb, 1, 1, WR, "incb " M) \
	FORM(notl, 4, 4, WR, "notl " M) \
	FORM(negw, 2, 2, WR, "negw " M) \
	FORM(lock_orl, 4, 4, WR, "lock orl $0, " M) \
	FORM(xchgb, 1, 1, WR, "xchgb %al, " M) \
	FORM(xchgl, 4, 4, WR, "xchgl %eax, " M) \
	FORM(xaddw, 2, 2, WR, "xaddw %ax, " M) \
	FORM(cmpxchgl, 4, 4, WR, "cmpxchgl %eax, " M) \
	FORM(cmpxchg8b, 8, 8, WR, "cmpxchg8b " M) \
	FORM(bt_imm, 4, 4, 0, "btl $3, " M) \
	FORM(bt_reg, 4, 4, 0, "btl %eax, " M) \
	FORM(bts_imm, 2, 2, WR, "btsw $3, " M) \
	FORM(btc_reg, 4, 4, WR, "btcl %eax, " M) \
	FORM(shll, 4, 4, WR, "shll $1, " M) \
	FORM(rcrb, 1, 1, WR, "rcrb $1, " M) \
	FORM(shldw, 2, 2, WR, "shldw $1, %ax, " M) \
	FORM(shrdl, 4, 4, WR, "shrdl %cl, %eax, " M) \
	FORM(mulw, 2, 2, 0, "mulw " M) \
	FORM(imull, 4, 4, 0, "imull " M ", %eax") \
	FORM(imulw_imm, 2, 2, 0, "imulw $5, " M ", %ax") \
	FORM(bsfl, 4, 4, 0, "bsfl " M ", %eax") \
	FORM(cmovel, 4, 4, 0, "cmovel " M ", %eax") \
	FORM(setc, 1, 1, WR, "setc " M) \
	FORM(pushw, 2, 2, 0, "pushw " M) \
	FORM(pushl, 4, 4, 0, "pushl " M) \
	FORM(popw, 2, 2, WR, "popw " M) \
	FORM(popl, 4, 4, WR, "popl " M) \
	FORM(lgsw, 4, 4, 0, "lgsw " M ", %ax") \
	FORM(lgsl, 6, 6, 0, "lgsl " M ", %eax") \
	FORM(boundw, 4, 4, 0, "boundw %ax, " M) \
	FORM(boundl, 8, 8, 0, "boundl %eax, " M) \
	FORM(call, 4, 2, NEAR, "call *" M) \
	FORM(jmp, 4, 2, NEAR, "jmp *" M) \
	FORM(lcall, 6, 4, FAR, "lcall *" M) \
	FORM(ljmp, 6, 4, FAR, "ljmp *" M) \
	FORM(sgdt, 6, 6, WR, "sgdt " M) \
	FORM(sidt, 6, 6, WR, "sidt " M) \
	FORM(smsw, 2, 2, WR, "smsw " M) \
	FORM(sldt, 2, 2, WR | PROT, "sldt " M) \
	FORM(str, 2, 2, WR | PROT, "str " M) \
	FORM(lldt, 2, 2, PROT | PRIV, "lldt " M) \
	FORM(verr, 2, 2, PROT, "verr " M) \
	FORM(verw, 2, 2, PROT, "verw " M) \
	FORM(lar, 2, 2, PROT, "larw " M ", %ax") \
	FORM(lsl, 2, 2, PROT, "lslw " M ", %ax") \
	FORM(arpl, 2, 2, WR | PROT, "arpl %ax, " M) \
	FORM(xlat, 1, 1, 0, ".byte 0x64; xlatb") \
	FORM(lodsb, 1, 1, 0, ".byte 0x64; lodsb") \
	FORM(lodsl, 4, 4, 0, ".byte 0x64; lodsl") \
	FORM(stosb, 1, 1, WR, "stosb") \
	FORM(stosw, 2, 2, WR, "stosw") \
	FORM(rep_stosl, 4, 4, WR, "rep stosl") \
	FORM(scasw, 2, 2, 0, "scasw") \
	FORM(repne_scasb, 1, 1, 0, "repne scasb") \
	FORM(cmpsl_source, 4, 4, SRC, "xor %edi, %edi; .byte 0x64; cmpsl") \
	FORM(cmpsw_dest, 2, 2, 0, "xor %esi, %esi; cmpsw") \
	FORM(movsl_source, 4, 4, SRC, "xor %edi, %edi; .byte 0x64; movsl") \
	FORM(movsw_dest, 2, 2, WR, "xor %esi, %esi; movsw") \
	FORM(rep_movsb, 1, 1, WR, "xor %esi, %esi; rep movsb") \
	FORM(insb, 1, 1, WR | PRIV | IO, "mov $0x80, %edx; insb") \
	FORM(outsb, 1, 1, PRIV | IO, "mov $0x80, %edx; .byte 0x64; outsb") \
	FORM(flds, 4, 4, 0, "flds " M "; fninit") \
	FORM(fldl, 8, 8, 0, "fldl " M "; fninit") \
	FORM(fldt, 10, 10, 0, "fldt " M "; fninit") \
	FORM(fsts, 4, 4, WR, "fldz; fsts " M "; fninit") \
	FORM(fstpt, 10, 10, WR, "fldz; fstpt " M "; fninit") \
	FORM(fildll, 8, 8, 0, "fildll " M "; fninit") \
	FORM(fistps, 2, 2, WR, "fldz; fistps " M "; fninit") \
	FORM(fbstp, 10, 10, WR, "fldz; fbstp " M "; fninit") \
	FORM(fiaddl, 4, 4, 0, "fldz; fiaddl " M "; fninit") \
	FORM(fnstcw, 2, 2, WR, "fnstcw " M) \
	FORM(fnstsw, 2, 2, WR, "fnstsw " M) \
	FORM(fnstenv, 28, 14, WR, "fnstenv " M "; fninit") \
	FORM(fnsave, 108, 94, WR, "fnsave " M) \
	FORM(movq_mmx, 8, 8, 0, "movq " M ", %mm0; emms") \
	FORM(movd_store, 4, 4, WR, "movd %mm0, " M "; emms") \
	FORM(movss, 4, 4, 0, "movss " M ", %xmm0") \
	FORM(movlps_store, 8, 8, WR, "movlps %xmm0, " M) \
	FORM(movups_load, 16, 16, 0, "movups " M ", %xmm0") \
	FORM(movups_store, 16, 16, WR, "movups %xmm0, " M) \
	FORM(cvtsi2ss, 4, 4, 0, "cvtsi2ssl " M ", %xmm0") \
	FORM(pinsrw, 2, 2, 0, "pinsrw $0, " M ", %xmm0") \
	FORM(stmxcsr, 4, 4, WR, "stmxcsr " M) \
	FORM(movntil, 4, 4, WR, "movnti %eax, " M)

/* TCG checks no limits, and where it would jump then, nothing catches it. */
#define ASTRAY(f) (on_tcg32 && (f)->flags & (NEAR | FAR))

#define SUFFIX(f, s) ((f)->flags & IO ? s "-io" : s)

struct form { const char *name; const u8 *code, *end; u32 size, flags; };
