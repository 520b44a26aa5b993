; mmap N: N times map 32 pages, write to each, read back, unmap. Prints the sum of what was read.
%include "lib.inc"

%define PAGES 32

begin
	xor	r14d, r14d
	xor	ebx, ebx
.next:	cmp	rbx, r12
	je	.done
	xor	edi, edi
	mov	esi, PAGES*4096
	mov	edx, 3			; PROT_READ | PROT_WRITE
	mov	r10d, 0x22		; MAP_PRIVATE | MAP_ANONYMOUS
	mov	r8, -1
	xor	r9d, r9d
	sys	mmap
	test	rax, rax
	js	failed
	mov	rdi, rax
	xor	ecx, ecx
.write:	lea	rdx, [rbx+rcx]
	mov	[rax], rdx
	add	rax, 4096
	inc	ecx
	cmp	ecx, PAGES
	jne	.write
.read:	sub	rax, 4096
	add	r14, [rax]
	add	r14, [rax+8]		; 0
	cmp	rax, rdi
	jne	.read
	mov	esi, PAGES*4096
	sys	munmap
	test	rax, rax
	jnz	failed
	inc	rbx
	jmp	.next
.done:	mov	rax, r14
	jmp	finish
