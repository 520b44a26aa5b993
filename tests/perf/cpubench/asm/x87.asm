; x87 N: N terms of Leibniz's series for pi, each through a square root of its square.
; Prints pi times 10^9, rounded. Nothing in it depends on how a host computes a transcendental function.
%include "lib.inc"

begin
	fninit
	fldz				; the sum
	fld1				; the sign
	fld1				; the denominator
.next:	test	r12, r12
	jz	.done
	fld	st0			; den den sign sum
	fmul	st0, st0
	fsqrt
	fdivr	st0, st2		; sign/den
	faddp	st3, st0		; den sign sum
	fadd	qword [two]
	fxch	st1
	fchs
	fxch	st1
	dec	r12
	jmp	.next
.done:	fstp	st0
	fstp	st0
	fmul	qword [scale]
	fistp	qword [answer]
	mov	rax, [answer]
	jmp	finish

section .rodata
align 8
two:	dq	2.0
scale:	dq	4.0e9

section .bss
answer:	resq	1
