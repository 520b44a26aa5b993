; fork N: N times fork; the child writes to half of its parent's pages and executes
; this program again, which ends with status 3. Prints 3N.
%include "lib.inc"

%define PAGES 64

_start:
	mov	r13, [rsp+8]		; argv[0]
	mov	rsi, [rsp+16]
	cmp	byte [rsi], 'x'
	jne	parent
	mov	edi, 3
	sys	exit

parent:
	call	number
	mov	r12, rax
	xor	r14d, r14d
.next:	test	r12, r12
	jz	.done
	mov	rdi, pages
	mov	ecx, PAGES
	call	touch
	sys	fork
	test	rax, rax
	jz	child
	js	failed
	mov	rdi, rax
	lea	rsi, [status]
	xor	edx, edx
	xor	r10d, r10d
	sys	wait4
	movzx	eax, byte [status+1]
	add	r14, rax
	dec	r12
	jmp	.next
.done:	mov	rax, r14
	jmp	finish

child:
	mov	rdi, pages
	mov	ecx, PAGES/2
	call	touch
	mov	[argv], r13
	lea	rax, [x]
	mov	[argv+8], rax
	mov	rdi, r13
	lea	rsi, [argv]
	lea	rdx, [argv+16]		; no environment
	sys	execve
	jmp	failed

; touch writes to ecx pages at rdi.
touch:
	inc	qword [rdi]
	add	rdi, 4096
	dec	ecx
	jnz	touch
	ret

section .rodata
x:	db	'x', 0

section .bss
alignb 4096
pages:	resb	PAGES*4096
argv:	resq	3
status:	resd	1
