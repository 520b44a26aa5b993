/* Entry of the first CPU and of those that it starts, traps, and what C cannot express. */

#include "hostile.h"

	.section .note.Xen, "a", @note
	.align 4
	.long 4, 4, 18			/* XEN_ELFNOTE_PHYS32_ENTRY */
	.asciz "Xen"
	.long pvh_start

	.section .text.boot, "ax"
	.code32
	.globl pvh_start
pvh_start:
	cli
	cld
	movl %ebx, start_info
	movl $cpus + STACK, %esp
	/* 4 GiB from 0 in 2 MiB pages, supervisor but for the last below 2 GiB. */
	movl $pdpt + 7, pml4
	movl $pd + 0x0003, pdpt
	movl $pd + 0x1007, pdpt + 8
	movl $pd + 0x2003, pdpt + 16
	movl $pd + 0x3003, pdpt + 24
	movl $2048, %ecx
	xorl %edi, %edi
	movl $0x83, %eax
1:	movl %eax, pd(,%edi,8)
	addl $0x200000, %eax
	incl %edi
	loop 1b
	movl $probe_pt + 7, pd + 8 * (PROBE_BASE >> 21)
	call enable
	lgdt boot_gdtr
	ljmp $0x08, $first64

/* Long mode with the tables that the first CPU made. */
enable:
	movl $pml4, %eax
	movl %eax, %cr3
	movl $GOOD_CR4, %eax
	movl %eax, %cr4
	movl $0xc0000080, %ecx
	movl $GOOD_EFER, %eax
	xorl %edx, %edx
	wrmsr
	movl $GOOD_CR0, %eax
	movl %eax, %cr0
	ret

	.code64
first64:
	call segments
	movl $cpus + STACK, %esp
	call first
1:	hlt
	jmp 1b

segments:
	movl $0x10, %eax
	movl %eax, %ds
	movl %eax, %es
	movl %eax, %ss
	xorl %eax, %eax
	movl %eax, %fs
	movl %eax, %gs
	ret

/* The other CPUs begin here, copied to a page below 1 MiB. */
	.code16
	.globl trampoline, trampoline_end
trampoline:
	cli
	xorl %eax, %eax
	movw %cs, %ax
	shll $4, %eax
	movl %eax, %ebx
	movw %cs, %ax
	movw %ax, %ds
	leal trampoline32 - trampoline(%ebx), %ecx
	movl %ecx, far32 - trampoline
	lgdtl tramp_gdtr - trampoline
	movl $1, %eax
	movl %eax, %cr0
	data32 ljmp *far32 - trampoline
	.align 4
far32:	.long 0
	.word 0x40, 0
tramp_gdtr:
	.word 0x4f
	.long boot_gdt
	.code32
trampoline32:
	movl $0x10, %eax
	movl %eax, %ds
	movl %eax, %ss
	/* Its APIC ID is its place in cpus. */
	lock incl started
	movl 0xfee00020, %edx
	shrl $24, %edx
	cmpl $MAX_CPUS, %edx
	jae 2f
	movl %edx, %esp
	shll $CPU_SHIFT, %esp
	addl $cpus + STACK, %esp
	pushl %edx
	movl $enable, %eax
	call *%eax
	popl %edi
	ljmp $0x08, $next64
2:	hlt
	jmp 2b
trampoline_end:
	.code64
next64:
	call segments
	movl %esp, %esp
	call next
1:	hlt
	jmp 1b

/* Trap entry: one stub a vector, 16 bytes each. */
	.text
	.align 16
	.globl stubs
stubs:
	vector = 0
	.rept 256
	.align 16
	.if !(vector == 8 || (vector >= 10 && vector <= 14) || vector == 17 || vector == 21 || vector == 29 || vector == 30)
	pushq $0
	.endif
	pushq $vector
	jmp trap
	vector = vector + 1
	.endr

/* struct frame of hostile.h */
trap:
	pushq %rax
	pushq %rbx
	pushq %rcx
	pushq %rdx
	pushq %rsi
	pushq %rdi
	pushq %rbp
	pushq %r8
	pushq %r9
	pushq %r10
	pushq %r11
	pushq %r12
	pushq %r13
	pushq %r14
	pushq %r15
	cld
	movl $0x10, %eax
	movl %eax, %ds
	movl %eax, %es
	movq %rsp, %rdi
	call dispatch
	popq %r15
	popq %r14
	popq %r13
	popq %r12
	popq %r11
	popq %r10
	popq %r9
	popq %r8
	popq %rbp
	popq %rdi
	popq %rsi
	popq %rdx
	popq %rcx
	popq %rbx
	popq %rax
	addq $16, %rsp
	iretq

/* int try_enter(struct cpu *): returns -1; a trap before the end of the TRY returns its vector here. */
	.globl try_enter
try_enter:
	movq (%rsp), %rax
	movq %rax, JUMP(%rdi)
	leaq 8(%rsp), %rax
	movq %rax, JUMP + 8(%rdi)
	movq %rbx, JUMP + 16(%rdi)
	movq %rbp, JUMP + 24(%rdi)
	movq %r12, JUMP + 32(%rdi)
	movq %r13, JUMP + 40(%rdi)
	movq %r14, JUMP + 48(%rdi)
	movq %r15, JUMP + 56(%rdi)
	movl $1, TRYING(%rdi)
	movl $-1, %eax
	ret

/* void recover(struct cpu *, int vector): continues after try_enter in the state that C needs. */
	.globl recover
recover:
	cli
	movl %esi, %eax
	movl $0x10, %ecx
	movl %ecx, %ds
	movl %ecx, %es
	movl %ecx, %ss
	movq JUMP + 8(%rdi), %rsp
	movq JUMP + 16(%rdi), %rbx
	movq JUMP + 24(%rdi), %rbp
	movq JUMP + 32(%rdi), %r12
	movq JUMP + 40(%rdi), %r13
	movq JUMP + 48(%rdi), %r14
	movq JUMP + 56(%rdi), %r15
	movl $0, TRYING(%rdi)
	pushq $0x202
	popfq
	jmp *JUMP(%rdi)

/* void go(u64 *iret_frame, u64 *registers): IRETQ with all registers loaded. */
	.globl go
go:
	pushq 32(%rdi)
	pushq 24(%rdi)
	pushq 16(%rdi)
	pushq 8(%rdi)
	pushq (%rdi)
	movq %rsi, %rdi
	movq (%rdi), %rax
	movq 8(%rdi), %rbx
	movq 16(%rdi), %rcx
	movq 24(%rdi), %rdx
	movq 32(%rdi), %rsi
	movq 48(%rdi), %rbp
	movq 56(%rdi), %r8
	movq 64(%rdi), %r9
	movq 72(%rdi), %r10
	movq 80(%rdi), %r11
	movq 88(%rdi), %r12
	movq 96(%rdi), %r13
	movq 104(%rdi), %r14
	movq 112(%rdi), %r15
	movq 40(%rdi), %rdi
	iretq

	.section .rodata
	.align 8
	.globl boot_gdt
boot_gdt:
	.quad 0
	.quad 0x00af9b000000ffff	/* 08 code64 */
	.quad 0x00cf93000000ffff	/* 10 data */
	.quad 0x00cffb000000ffff	/* 18 user code32 */
	.quad 0x00cff3000000ffff	/* 20 user data */
	.quad 0x00affb000000ffff	/* 28 user code64 */
	.quad 0, 0			/* 30 TSS */
	.quad 0x00cf9b000000ffff	/* 40 code32 */
	.quad 0x008f9b000000ffff	/* 48 code16, 4 GiB */
boot_gdtr:
	.word . - boot_gdt - 1
	.quad boot_gdt
