#include "textflag.h"

// func cpuid(leaf, sub uint32) (a, b, c, d uint32)
TEXT ·cpuid(SB), NOSPLIT, $0-24
	MOVL leaf+0(FP), AX
	MOVL sub+4(FP), CX
	CPUID
	MOVL AX, a+8(FP)
	MOVL BX, b+12(FP)
	MOVL CX, c+16(FP)
	MOVL DX, d+20(FP)
	RET

// func runSingle(code uintptr, o *Operands)
//
// The code has Operands' Reg, V, RM and Is4 in Y0 to Y3, GPR and GPRM in RAX and
// RDX, and RSI pointing at Mem. It changes no other register.
TEXT ·runSingle(SB), NOSPLIT, $8-16
	MOVQ code+0(FP), BX
	MOVQ o+8(FP), DI
	LEAQ 128(DI), SI
	VMOVDQU 0(DI), Y0
	VMOVDQU 32(DI), Y1
	VMOVDQU 64(DI), Y2
	VMOVDQU 96(DI), Y3
	MOVQ 160(DI), AX
	MOVQ 168(DI), DX
	STMXCSR host-8(SP)
	MOVL 176(DI), CX
	CMPL CX, host-8(SP) // loading MXCSR is slow
	JEQ  same
	LDMXCSR 176(DI)
same:
	CALL BX
	PUSHFQ
	POPQ CX
	MOVL CX, 180(DI)
	STMXCSR 176(DI)
	LDMXCSR host-8(SP)
	MOVQ AX, 160(DI)
	MOVQ DX, 168(DI)
	VMOVDQU Y0, 0(DI)
	VMOVDQU Y1, 32(DI)
	VMOVDQU Y2, 64(DI)
	VZEROUPPER
	RET
