/* Between long mode and legacy32.c: out, real mode in between, and back. */

	.text
	.code64
	.globl legacy_enter
legacy_enter:
	pushq %rbx
	pushq %rbp
	pushq %r12
	pushq %r13
	pushq %r14
	pushq %r15
	movq %rsp, saved_rsp
	movq %cr3, %rax
	movq %rax, saved_cr3
	movq %cr4, %rax
	movq %rax, saved_cr4
	ljmp *to32
	.align 8
to32:	.long legacy32, 0x40

	.code32
legacy32:
	movl $0x10, %eax
	movl %eax, %ds
	movl %eax, %es
	movl %eax, %ss
	movl $stack32_top, %esp
	movl %cr0, %eax
	andl $0x7fffffff, %eax
	movl %eax, %cr0			/* paging off: long mode ends */
	movl $0xc0000080, %ecx
	rdmsr
	movl %eax, saved_efer
	andl $~0x100, %eax
	wrmsr
	lgdt gdtr32
	ljmp $0x08, $1f
1:	movl $0x10, %eax
	movl %eax, %ds
	movl %eax, %es
	movl %eax, %ss
	call legacy_main
	/* back to long mode */
	movl saved_cr4, %eax
	movl %eax, %cr4
	movl saved_cr3, %eax
	movl %eax, %cr3
	movl $0xc0000080, %ecx
	movl saved_efer, %eax
	orl $0x100, %eax
	xorl %edx, %edx
	wrmsr
	movl %cr0, %eax
	orl $0x80000000, %eax
	movl %eax, %cr0
	lgdt gdtr
	ljmp $0x08, $1f
	.code64
1:	lidt idtr
	movl $0x10, %eax
	movl %eax, %ds
	movl %eax, %es
	movl %eax, %ss
	movl $0, %eax
	movl %eax, %fs
	movl %eax, %gs
	andl $~0x200, gdt + 0x34	/* the TSS is free again */
	movl $0x30, %eax
	ltr %ax
	movq saved_rsp, %rsp
	popq %r15
	popq %r14
	popq %r13
	popq %r12
	popq %rbp
	popq %rbx
	ret

	.code32
/* Trap stubs, 16 bytes each. */
	.align 16
	.globl stubs32
stubs32:
	vector = 0
	.rept 256
	.align 16
	.if !(vector == 8 || (vector >= 10 && vector <= 14) || vector == 17)
	pushl $0
	.endif
	pushl $vector
	jmp trap32
	vector = vector + 1
	.endr
trap32:
	pushal
	movl $0x10, %eax
	movl %eax, %ds
	movl %eax, %es
	cld
	pushl %esp
	call dispatch32
	addl $4, %esp
	popal
	addl $8, %esp
	iretl

	.globl try32
try32:
	popl %edx
	movl %edx, jump32
	movl %esp, jump32 + 4
	movl %ebx, jump32 + 8
	movl %ebp, jump32 + 12
	movl %esi, jump32 + 16
	movl %edi, jump32 + 20
	movl $-1, %eax
	jmp *%edx

	.globl recover32
recover32:
	movl 4(%esp), %eax
	movl $0x10, %ecx
	movl %ecx, %ss
	movl %ecx, %ds
	movl %ecx, %es
	movl jump32 + 4, %esp
	movl jump32 + 8, %ebx
	movl jump32 + 12, %ebp
	movl jump32 + 16, %esi
	movl jump32 + 20, %edi
	pushl $2
	popfl
	jmp *jump32

/* void go32(const u32 *frame, u32 words): IRET with a frame as given. */
	.globl go32
go32:
	movl 4(%esp), %esi
	movl 8(%esp), %ecx
	leal (%esi,%ecx,4), %esi
1:	subl $4, %esi
	pushl (%esi)
	loop 1b
	xorl %eax, %eax
	iretl

/* Real mode: copied to 0x8000. real_enter returns in %eax what the code left in %ax. */
	.globl real_enter
real_enter:
	pushl %ebx
	pushl %esi
	pushl %edi
	pushl %ebp
	movl %esp, saved_esp
	movl $0x50, %eax		/* as SDM vol. 3A section 9.9.2 asks */
	movl %eax, %ds
	movl %eax, %es
	movl %eax, %ss
	ljmp $0x18, $0x8000
real_back:
	movl $0x10, %ebx
	movl %ebx, %ds
	movl %ebx, %es
	movl %ebx, %ss
	movl saved_esp, %esp
	popl %ebp
	popl %edi
	popl %esi
	popl %ebx
	lidt idtr32
	ret

	.code16
	.globl real_code, real_code_end
real_code:
	movl %cr0, %eax
	andb $0xfe, %al
	movl %eax, %cr0
	ljmp $0, $0x8000 + 1f - real_code
1:	xorw %ax, %ax
	movw %ax, %ss
	movw %ax, %es
	movw $0x7c00, %sp
	lidtw %cs:(0x8000 + real_idtr - real_code)
	movw $0x900, %ax		/* DS = 0x900: its base is 0x9000 */
	movw %ax, %ds
	movw $0x1234, %bx
	int $0x60			/* BX becomes 0x5678 */
	movw %bx, (0)			/* at 0x9000 */
	movw $0xffff, %si		/* fault: a word across the segment's end (#GP through the IVT) */
	xorw %cx, %cx
	movw (%si), %ax
	movw %cx, (2)
	movw $0xf000, %ax		/* far call and return */
	lcall $0x0, $0x8000 + real_far - real_code
	movw %ax, (4)
	pushfw
	popw (6)
	xorw %ax, %ax
	movb $0, %cl
	movw $100, %ax
	divb %cl			/* #DE through the IVT, which skips it */
	movw %dx, (8)
	/* back */
	movl %cr0, %eax
	orb $1, %al
	movl %eax, %cr0
	ljmpl $0x08, $real_back
real_far:
	addw $1, %ax
	lretw
real_int60:
	movw $0x5678, %bx
	iretw
real_gp:
	pushw %bp
	movw %sp, %bp
	addw $2, 2(%bp)			/* past movw (%si), %ax */
	popw %bp
	movw $13, %cx
	iretw
real_de:
	pushw %bp
	movw %sp, %bp
	addw $2, 2(%bp)
	popw %bp
	movw $0xde, %dx
	iretw
real_idtr:
	.word 0x3ff
	.long 0
real_code_end:
	.code32
	.globl real_offsets
	.data
real_offsets:
	.long real_int60 - real_code, real_gp - real_code, real_de - real_code

	.bss
	.align 16
	.skip 16384
	.globl stack32_top, saved_efer, jump32
stack32_top:
saved_rsp: .skip 8
saved_cr3: .skip 8
saved_cr4: .skip 8
saved_efer: .skip 8
saved_esp: .skip 8
jump32:	.skip 32
