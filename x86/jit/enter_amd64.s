#include "textflag.h"
#include "go_asm.h"

// func enter(frame *Frame, regs *[18]uint64, code uintptr)
//
// Translated code is called: it returns by RET, its stack balanced. It has the
// guest's RAX RCX RDX RBX RBP RSI RDI R8 R9 in the host's registers of that name,
// RSP in R10, R12 in R11; the others stay in memory. It owns R12 and R13; R14 is
// the budget, R15 the frame.
TEXT ·enter(SB), NOSPLIT, $8-24
	MOVQ frame+0(FP), R15
	MOVQ code+16(FP), R12
	MOVQ BP, 0(SP)
	STMXCSR Frame_hostMXCSR(R15)
	MOVQ Frame_Budget(R15), R14
	MOVQ regs+8(FP), R13
	MOVQ 0(R13), AX
	MOVQ 8(R13), CX
	MOVQ 16(R13), DX
	MOVQ 24(R13), BX
	MOVQ 32(R13), R10
	MOVQ 40(R13), BP
	MOVQ 48(R13), SI
	MOVQ 56(R13), DI
	MOVQ 64(R13), R8
	MOVQ 72(R13), R9
	MOVQ 96(R13), R11
	CALL R12
	MOVQ regs+8(FP), R13
	MOVQ AX, 0(R13)
	MOVQ CX, 8(R13)
	MOVQ DX, 16(R13)
	MOVQ BX, 24(R13)
	MOVQ R10, 32(R13)
	MOVQ BP, 40(R13)
	MOVQ SI, 48(R13)
	MOVQ DI, 56(R13)
	MOVQ R8, 64(R13)
	MOVQ R9, 72(R13)
	MOVQ R11, 96(R13)
	MOVQ R14, Frame_Budget(R15)
	MOVQ 0(SP), BP
	CMPB Frame_FPLoaded(R15), $0
	JEQ  done
	STMXCSR Frame_MXCSR(R15)
	LDMXCSR Frame_hostMXCSR(R15)
	MOVB $0, Frame_FPLoaded(R15)
	LEAQ Frame_XMM(R15), R13
	MOVUPS X0, 0(R13)
	MOVUPS X1, 16(R13)
	MOVUPS X2, 32(R13)
	MOVUPS X3, 48(R13)
	MOVUPS X4, 64(R13)
	MOVUPS X5, 80(R13)
	MOVUPS X6, 96(R13)
	MOVUPS X7, 112(R13)
	MOVUPS X8, 128(R13)
	MOVUPS X9, 144(R13)
	MOVUPS X10, 160(R13)
	MOVUPS X11, 176(R13)
	MOVUPS X12, 192(R13)
	MOVUPS X13, 208(R13)
	MOVUPS X14, 224(R13)
	MOVUPS X15, 240(R13)
done:
	CLD
	RET
