; matmul N: N products of two 64x64 matrices of doubles, by SSE2, or by AVX2 (-D AVX2).
; A[i][k] = (3i+7k) mod 16, B[k][j] = (5k+j) mod 16; before each product A[0][0] grows by 1.
; Prints the sum of all elements of all products, all of which are whole numbers.
%include "lib.inc"

%define SIZE 64
%define ROW (SIZE*8)

begin
%ifdef AVX2
	mov	eax, 1
	xor	ecx, ecx
	cpuid
	and	ecx, 3<<27		; OSXSAVE, AVX
	cmp	ecx, 3<<27
	jne	none
	xor	ecx, ecx
	xgetbv
	and	eax, 6
	cmp	eax, 6
	jne	none
	mov	eax, 7
	xor	ecx, ecx
	cpuid
	test	ebx, 1<<5		; AVX2
	jz	none
%endif
	lea	r8, [a]
	lea	r9, [b]
	xor	ebx, ebx		; i
.row:	xor	ecx, ecx		; j
.cell:	lea	eax, [rbx+rbx*2]
	lea	edx, [rcx*8]
	sub	edx, ecx
	add	eax, edx
	and	eax, 15
	cvtsi2sd xmm0, eax
	movsd	[r8], xmm0
	lea	eax, [rbx+rbx*4]
	add	eax, ecx
	and	eax, 15
	cvtsi2sd xmm0, eax
	movsd	[r9], xmm0
	add	r8, 8
	add	r9, 8
	inc	ecx
	cmp	ecx, SIZE
	jne	.cell
	inc	ebx
	cmp	ebx, SIZE
	jne	.row

	xor	r14d, r14d
.next:	test	r12, r12
	jz	.done
	movsd	xmm0, [a]
	addsd	xmm0, [one]
	movsd	[a], xmm0
	call	product
	call	sum
	add	r14, rax
	dec	r12
	jmp	.next
.done:	mov	rax, r14
	jmp	finish

; product has c = a * b, eight columns at a time of SSE2 and sixteen of AVX2.
product:
	lea	rsi, [a]
	lea	rdi, [c]
	mov	r8d, SIZE
.row:	lea	rdx, [b]
	mov	r9d, ROW
.columns:
	mov	rax, rdx
	xor	ecx, ecx
%ifdef AVX2
	vpxor	ymm0, ymm0, ymm0
	vpxor	ymm1, ymm1, ymm1
	vpxor	ymm2, ymm2, ymm2
	vpxor	ymm3, ymm3, ymm3
.k:	vpbroadcastq ymm4, [rsi+rcx*8]
%assign n 0
%rep 4
	vmulpd	ymm5, ymm4, [rax+n*32]
	vaddpd	ymm %+ n, ymm %+ n, ymm5
%assign n n+1
%endrep
	add	rax, ROW
	inc	ecx
	cmp	ecx, SIZE
	jne	.k
	vmovupd	[rdi], ymm0
	vmovupd	[rdi+32], ymm1
	vmovupd	[rdi+64], ymm2
	vmovupd	[rdi+96], ymm3
	add	rdi, 128
	add	rdx, 128
	sub	r9d, 128
%else
	xorpd	xmm0, xmm0
	xorpd	xmm1, xmm1
	xorpd	xmm2, xmm2
	xorpd	xmm3, xmm3
.k:	movsd	xmm4, [rsi+rcx*8]
	unpcklpd xmm4, xmm4
%assign n 0
%rep 4
	movapd	xmm5, [rax+n*16]
	mulpd	xmm5, xmm4
	addpd	xmm %+ n, xmm5
%assign n n+1
%endrep
	add	rax, ROW
	inc	ecx
	cmp	ecx, SIZE
	jne	.k
	movapd	[rdi], xmm0
	movapd	[rdi+16], xmm1
	movapd	[rdi+32], xmm2
	movapd	[rdi+48], xmm3
	add	rdi, 64
	add	rdx, 64
	sub	r9d, 64
%endif
	jnz	.columns
	add	rsi, ROW
	dec	r8d
	jnz	.row
%ifdef AVX2
	vzeroupper
%endif
	ret

; sum returns in rax the sum of c's elements.
sum:
	lea	rsi, [c]
	mov	ecx, SIZE*SIZE/2
	xorpd	xmm0, xmm0
.next:	addpd	xmm0, [rsi]
	add	rsi, 16
	dec	ecx
	jnz	.next
	movapd	xmm1, xmm0
	unpckhpd xmm1, xmm1
	addsd	xmm0, xmm1
	cvttsd2si rax, xmm0
	ret

%ifdef AVX2
none:
	mov	edi, 1
	lea	rsi, [skipped]
	mov	edx, skipped.end - skipped
	sys	write
	xor	edi, edi
	sys	exit
%endif

section .rodata
align 8
one:	dq	1.0
%ifdef AVX2
skipped: db	'skipped: the CPU has no AVX2', 10
.end:
%endif

section .bss
alignb 64
a:	resb	SIZE*ROW
b:	resb	SIZE*ROW
c:	resb	SIZE*ROW
