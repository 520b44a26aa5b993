#include "textflag.h"

// func cas16(p unsafe.Pointer, old, new uint16) bool
TEXT ·cas16(SB), NOSPLIT, $0-17
	MOVQ p+0(FP), BX
	MOVW old+8(FP), AX
	MOVW new+10(FP), CX
	LOCK
	CMPXCHGW CX, (BX)
	SETEQ ret+16(FP)
	RET

// func cas32(p unsafe.Pointer, old, new uint32) bool
TEXT ·cas32(SB), NOSPLIT, $0-17
	MOVQ p+0(FP), BX
	MOVL old+8(FP), AX
	MOVL new+12(FP), CX
	LOCK
	CMPXCHGL CX, (BX)
	SETEQ ret+16(FP)
	RET

// func cas64(p unsafe.Pointer, old, new uint64) bool
TEXT ·cas64(SB), NOSPLIT, $0-25
	MOVQ p+0(FP), BX
	MOVQ old+8(FP), AX
	MOVQ new+16(FP), CX
	LOCK
	CMPXCHGQ CX, (BX)
	SETEQ ret+24(FP)
	RET

// func cas128(p unsafe.Pointer, old, new [2]uint64) (cur [2]uint64, swapped bool)
TEXT ·cas128(SB), NOSPLIT, $0-57
	MOVQ p+0(FP), SI
	MOVQ old_0+8(FP), AX
	MOVQ old_1+16(FP), DX
	MOVQ new_0+24(FP), BX
	MOVQ new_1+32(FP), CX
	LOCK
	CMPXCHG16B (SI)
	MOVQ AX, cur_0+40(FP)
	MOVQ DX, cur_1+48(FP)
	SETEQ swapped+56(FP)
	RET
