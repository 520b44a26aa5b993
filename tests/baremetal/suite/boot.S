/* Entry, descriptor tables, trap entry, and the mode switches that C cannot express. */

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
	movl $stack_top, %esp
	/* 1 GiB from 0 and the gigabyte below 4 GiB, 2 MiB pages, supervisor. */
	movl $pdpt + 3, pml4
	movl $pd0 + 3, pdpt
	movl $pd3 + 3, pdpt + 24
	movl $512, %ecx
	xorl %edi, %edi
	movl $0x83, %eax
1:	movl %eax, pd0(,%edi,8)
	leal 0xc0000010(%eax), %ebx	/* uncached */
	movl %ebx, pd3(,%edi,8)
	addl $0x200000, %eax
	incl %edi
	loop 1b
	movl $pml4, %eax
	movl %eax, %cr3
	movl %cr4, %eax
	orl $0x6a0, %eax		/* PAE, PGE, OSFXSR, OSXMMEXCPT */
	movl %eax, %cr4
	movl $0xc0000080, %ecx
	rdmsr
	orl $0x901, %eax		/* SCE, LME, NXE */
	wrmsr
	movl $0x80010033, %eax		/* PG, WP, NE, ET, MP, PE */
	movl %eax, %cr0
	lgdt gdtr
	ljmp $0x08, $start64

	.code64
start64:
	movl $0x10, %eax
	movl %eax, %ds
	movl %eax, %es
	movl %eax, %ss
	xorl %eax, %eax
	movl %eax, %fs
	movl %eax, %gs
	movq $stack_top, %rsp
	call setup_tables
	lidt idtr
	movl $0x30, %eax
	ltr %ax
	call main
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

/* struct frame of suite.h */
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
	movq %rsp, %rdi
	movq %rsp, %rbx
	andq $-16, %rsp
	call dispatch
	movq %rbx, %rsp
	.globl resume
resume:
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

/* int try_enter(void): returns -1; a trap before try_leave returns its vector here. */
	.globl try_enter
try_enter:
	movq (%rsp), %rax
	movq %rax, jump_buf
	leaq 8(%rsp), %rax
	movq %rax, jump_buf + 8
	movq %rbx, jump_buf + 16
	movq %rbp, jump_buf + 24
	movq %r12, jump_buf + 32
	movq %r13, jump_buf + 40
	movq %r14, jump_buf + 48
	movq %r15, jump_buf + 56
	movl $1, trying
	movl $-1, %eax
	ret

/* void recover(int vector): continues after try_enter, with all state that traps change put back. */
	.globl recover
recover:
	cli
	movl %edi, %eax
	movl $0x10, %ecx
	movl %ecx, %ds
	movl %ecx, %es
	movl %ecx, %ss
	movq jump_buf + 8, %rsp
	movq jump_buf + 16, %rbx
	movq jump_buf + 24, %rbp
	movq jump_buf + 32, %r12
	movq jump_buf + 40, %r13
	movq jump_buf + 48, %r14
	movq jump_buf + 56, %r15
	movl $0, trying
	pushq $2
	popfq
	jmp *jump_buf

/* void go(u64 rip, u64 cs, u64 rflags, u64 rsp, u64 ss): IRETQ there with most registers 0. */
	.globl go
go:
	pushq %r8
	pushq %rcx
	pushq %rdx
	pushq %rsi
	pushq %rdi
	movq %r9, %rdi
	xorl %eax, %eax
	xorl %ebx, %ebx
	xorl %ecx, %ecx
	xorl %edx, %edx
	xorl %esi, %esi
	xorl %ebp, %ebp
	iretq

/* void int_n: 256 of "int n; ret", 16 bytes each. */
	.align 16
	.globl int_n
int_n:
	vector = 0
	.rept 256
	.align 16
	.byte 0xcd, vector
	ret
	vector = vector + 1
	.endr

	.data
	.align 16
	.globl gdt, gdt_end
gdt:
	.quad 0
	.quad 0x00af9b000000ffff	/* 08 code64 */
	.quad 0x00cf93000000ffff	/* 10 data */
	.quad 0x00cffb000000ffff	/* 18 user code32 */
	.quad 0x00cff3000000ffff	/* 20 user data */
	.quad 0x00affb000000ffff	/* 28 user code64 */
	.quad 0, 0			/* 30 TSS */
	.quad 0x00cf9b000000ffff	/* 40 code32 */
	.quad 0x008f9b000000ffff	/* 48 code16, 4 GiB */
	.fill 16, 8, 0			/* 50-c8 scratch */
gdt_end:
	.globl gdtr, idtr
gdtr:	.word gdt_end - gdt - 1
	.quad gdt
idtr:	.word 0xfff
	.quad idt

	.bss
	.align 4096
	.globl pml4, pdpt, pd0, pd3, idt
pml4:	.skip 4096
pdpt:	.skip 4096
pd0:	.skip 4096
pd3:	.skip 4096
idt:	.skip 4096
	.skip 32768
	.globl stack_top
stack_top:
	.globl jump_buf, trying
jump_buf: .skip 64
trying:	.skip 8
