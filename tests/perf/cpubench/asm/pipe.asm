; pipe N: N times a number goes through a pipe to another process, which adds 3, and back. Prints 3N.
%include "lib.inc"

; receive reads eight bytes of the pipe whose end is at %1 to value.
%macro receive 1
	mov	edi, [%1]
	lea	rsi, [value]
	mov	edx, 8
	sys	read
%endmacro

%macro send 1
	mov	edi, [%1]
	lea	rsi, [value]
	mov	edx, 8
	sys	write
	cmp	rax, 8
	jne	failed
%endmacro

begin
	lea	rdi, [there]
	sys	pipe
	lea	rdi, [back]
	sys	pipe
	sys	fork
	test	rax, rax
	jz	child
	js	failed
.next:	test	r12, r12
	jz	.done
	send	there+4
	receive	back
	cmp	rax, 8
	jne	failed
	dec	r12
	jmp	.next
.done:	send	there+4			; the child ends at the last
	mov	rdi, -1
	xor	esi, esi
	xor	edx, edx
	xor	r10d, r10d
	sys	wait4
	mov	rax, [value]
	jmp	finish

child:
	receive	there
	cmp	rax, 8
	jne	failed
	add	qword [value], 3
	test	r12, r12
	jz	.done
	send	back+4
	dec	r12
	jmp	child
.done:	xor	edi, edi
	sys	exit

section .bss
there:	resd	2
back:	resd	2
value:	resq	1
