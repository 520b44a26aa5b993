; The host side of the differential tests: a process that runs one case after
; another in signal handlers. A case ends in a signal (int3 behind its code, or
; its fault); the handler saves the interrupted state as the result, puts the
; next case's state in the signal frame and returns into it.
;
; With SEQUENCES it runs those of seq_amd64.go: their code can be written and has an
; image of its own, and the first faults of a case go on at the addresses it names.
;
; Build: nasm -f bin -o runner.elf runner.asm; nasm -f bin -DSEQUENCES -o sequences.elf
; runner.asm (TestRunnerIsAssembled checks)
;
; fd 0: a byte starts a batch; fd 1: a byte says it is done; fd 3: the memory below.

bits 64

%define ORIGIN   0x6f0000000000
%define SANDBOX  0x10000000        ; file offset 0
%define WRITTEN  0x2000            ; of the sandbox, what cases may write
%define CODE     0x20000000        ; file offset SANDBOXN
%define SHARED   0x6e0000000000    ; the rest of the file
%define IMAGE    0x1000            ; in SHARED
%ifdef SEQUENCES
%define SANDBOXN 0x3000
%define CODEN    0x4000
%define CODEPROT 7
%define CASES    0x4000
%define CASESIZE 0x5000            ; from 0x1000 on it is the code
%define COUNTERS 0x10008000        ; a page more, zero at first
%define FIXES    0x380             ; in a case: how many, then where
%define MAXCASES 128
%define RESSIZE  0x7000
%define FAULTS   0x380             ; in a result: how many, then vector, error code, RIP, CR2 of each
%define MEMORY   0x1000            ; in a result: the sandbox; after it the code
%else
%define SANDBOXN WRITTEN
%define CODEN    0x10000
%define CODEPROT 5
%define CASES    0x3000
%define CASESIZE 0x380
%define MAXCASES 1024
%define RESSIZE  0x2400
%define MEMORY   0x400
%endif
%define RESULTS  (CASES + MAXCASES*CASESIZE)
%define SHAREDN  (RESULTS + MAXCASES*RESSIZE)
%define FXCOPY   416               ; of the FXSAVE image: the kernel owns the bytes from 464

%define UC_REGS  40                ; struct ucontext: r8 is the first register
%define UC_FP    224
%define XFEATURES 472              ; in the frame's FP state: which components it has
%define YMMH     576               ; there, the upper halves of YMM

org ORIGIN
ehdr:
	db 0x7f, "ELF", 2, 1, 1, 0
	times 8 db 0
	dw 2, 62
	dd 1
	dq start, phdr - $$, 0
	dd 0
	dw 64, 56, 2, 0, 0, 0
phdr:
	dd 1, 7                        ; load, rwx: the signal stack is in it
	dq 0, $$, $$, filesize, filesize + 0x20000, 0x1000
	dd 0x6474e551, 6               ; stack: not executable
	dq 0, 0, 0, 0, 0, 16

%macro map 4                       ; address, length, protection, file offset
	mov rdi, %1
	mov rsi, %2
	mov edx, %3
	mov r10d, 0x108001             ; shared, fixed, no replacement, all of it now
	mov r8d, 3
	mov r9, %4
	mov eax, 9
	syscall
	cmp rax, rdi
	jne fail
%endmacro

start:
	map SANDBOX, WRITTEN, 3, 0
%ifdef SEQUENCES
	map SANDBOX + WRITTEN, SANDBOXN - WRITTEN, 1, WRITTEN
	map COUNTERS, 0x1000, 3, SANDBOXN + CODEN + 0x3000
%endif
	map CODE, CODEN, CODEPROT, SANDBOXN
	map SHARED, SHAREDN, 3, SANDBOXN + CODEN
	mov eax, 131                   ; sigaltstack
	lea rdi, [rel altstack]
	xor esi, esi
	syscall
	test rax, rax
	jnz fail
	lea rbx, [rel signals]
.next:
	movzx edi, byte [rbx]
	test edi, edi
	jz .done
	mov eax, 13                    ; rt_sigaction
	lea rsi, [rel action]
	xor edx, edx
	mov r10d, 8
	syscall
	test rax, rax
	jnz fail
	inc rbx
	jmp .next
.done:
	mov eax, 154                   ; modify_ldt: 16-bit code and data
	mov edi, 0x11
	lea rsi, [rel ldtcode]
	mov edx, 16
	syscall
	mov eax, 154
	mov edi, 0x11
	lea rsi, [rel ldtdata]
	mov edx, 16
	syscall
	mov rbx, SHARED
	mov qword [rbx+8], -1
	mov eax, 0x2b
	mov ds, eax
	mov es, eax
	int3                           ; never comes back here

fail:
	neg rax
	mov edi, eax
	mov eax, 231
	syscall

handler:                           ; rdx: ucontext
	mov r12, rdx
	rdfsbase r13
	rdgsbase r14
	mov rbx, SHARED
	mov rbp, [rbx+8]
	cmp rbp, -1
	je .wait
	imul rdi, rbp, RESSIZE
	lea rax, [rbx+RESULTS]
	add rdi, rax
%ifdef SEQUENCES
	cmp byte [r12+UC_REGS+8*20], 3
	je .last
	imul rsi, rbp, CASESIZE
	lea rsi, [rsi+rbx+CASES+FIXES]
	mov rcx, [rdi+FAULTS]
	cmp rcx, [rsi]
	jae .last
	inc qword [rdi+FAULTS]
	mov rsi, [rsi+8+8*rcx]
	shl ecx, 5
	lea rdi, [rdi+FAULTS+8+rcx]
	mov rax, [r12+UC_REGS+8*20]
	stosq
	mov rax, [r12+UC_REGS+8*19]
	stosq
	mov rax, rsi
	xchg rax, [r12+UC_REGS+8*16]
	stosq
	mov rax, [r12+UC_REGS+8*22]
	stosq
	ret
.last:
%endif
	lea r15, [rdi+MEMORY]
	lea rsi, [r12+UC_REGS]
	mov ecx, 23
	rep movsq
	mov [rdi], r13
	mov [rdi+8], r14
	xor eax, eax
	mov ax, ds
	mov [rdi+16], ax
	mov ax, es
	mov [rdi+18], ax
	lea rdi, [r15-MEMORY+0xe0]
	mov rsi, [r12+UC_FP]
	mov ecx, FXCOPY/8
	rep movsq
	mov rsi, [r12+UC_FP]
	test byte [rsi+XFEATURES], 4
	jz .noymm
	add rsi, YMMH
	mov ecx, 32
	rep movsq
.noymm:
	mov rdi, r15
	mov esi, SANDBOX
	mov ecx, WRITTEN/8
	rep movsq
%ifdef SEQUENCES
	mov esi, CODE
	mov ecx, CODEN/8
	rep movsq
%endif
	inc rbp
	cmp rbp, [rbx]
	jb .load
	mov edi, 1
	lea rsi, [rbx+16]
	mov edx, 1
	mov eax, 1
	syscall
.wait:
	xor edi, edi
	lea rsi, [rbx+16]
	mov edx, 1
	xor eax, eax
	syscall
	cmp rax, 1
	jne .quit
	xor ebp, ebp
.load:
	mov [rbx+8], rbp
	lea rsi, [rbx+IMAGE]
	mov edi, SANDBOX
	mov ecx, WRITTEN/8
	rep movsq
	imul rsi, rbp, CASESIZE
	lea rsi, [rsi+rbx+CASES]
%ifdef SEQUENCES
	mov rdx, rsi
	add rsi, 0x1000
	mov edi, CODE
	mov ecx, CODEN/8
	rep movsq
	mov rsi, rdx
	imul rdi, rbp, RESSIZE
	xor eax, eax
	mov [rdi+rbx+RESULTS+FAULTS], rax
	mov edi, COUNTERS
	mov ecx, 16
	rep stosq
%endif
	lea rdi, [r12+UC_REGS]
	mov ecx, 19
	rep movsq
	lodsq
	wrfsbase rax
	lodsq
	wrgsbase rax
	lodsq
	mov ds, eax
	shr eax, 16
	mov es, eax
	add rsi, 0xc0 - 22*8
	mov rdi, [r12+UC_FP]
	or qword [rdi+512], 3          ; XSTATE_BV: x87 and SSE
	mov ecx, FXCOPY/8
	rep movsq
	mov rdi, [r12+UC_FP]
	test byte [rdi+XFEATURES], 4
	jz .ret
	or qword [rdi+512], 4
	add rdi, YMMH
	mov ecx, 32
	rep movsq
.ret:
	ret
.quit:
	xor edi, edi
	mov eax, 231
	syscall

restorer:
	push 2                         ; sigreturn keeps the caller's NT and ID
	popfq
	mov eax, 15                    ; rt_sigreturn
	syscall

align 8
action:	dq handler, 0x0c000004, restorer, 0 ; on the stack below, restorer, siginfo
altstack:
	dq $$ + filesize_rounded
	dd 0, 0
	dq 0x10000
signals: db 4, 5, 7, 8, 11, 31, 0
align 4
; struct user_desc: entry, base, limit, flags (contents 0 data, 2<<1 code)
ldtcode: dd 0, CODE, 0xffff, 0x44        ; useable, code
ldtdata: dd 1, SANDBOX, 0x1fff, 0x40     ; useable, data
filesize equ $ - $$
filesize_rounded equ (filesize + 0xfff) & ~0xfff
