; syscalls N: N times getpid and umask. Prints the sum of the masks that umask returned.
%include "lib.inc"

begin
	xor	edi, edi
	sys	umask
	sys	getpid
	mov	r13, rax
	xor	r14d, r14d
	xor	ebx, ebx
.next:	cmp	rbx, r12
	je	.done
	sys	getpid
	cmp	rax, r13
	jne	failed
	mov	edi, ebx
	and	edi, 0o777
	sys	umask
	add	r14, rax
	inc	rbx
	jmp	.next
.done:	mov	rax, r14
	jmp	finish
