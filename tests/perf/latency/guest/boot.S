/* Entry of the first processor by PVH, of the others by a start-up IPI, into 64-bit mode. */

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
	/* 1 GiB from 0 and the gigabyte below 4 GiB, in 2 MiB pages. */
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
	/* The others' entry goes to 0x8000. */
	movl $ap_start, %esi
	movl $0x8000, %edi
	movl $ap_end - ap_start, %ecx
	rep movsb
	movl $stack_top, %esp
	movl $main, %ebx
	jmp enter64

ap_protected:
	movl $0x10, %eax
	movl %eax, %ds
	movl %eax, %es
	movl %eax, %ss
	movl $0x4000, %esp		/* each its own stack */
	lock xaddl %esp, next_stack
	movl $spin, %ebx
enter64:
	movl $pml4, %eax
	movl %eax, %cr3
	movl %cr4, %eax
	orl $0x20, %eax			/* PAE */
	movl %eax, %cr4
	movl $0xc0000080, %ecx
	rdmsr
	orl $0x100, %eax		/* LME */
	wrmsr
	movl %cr0, %eax
	orl $0x80000001, %eax		/* PG, PE */
	movl %eax, %cr0
	lgdt gdtr
	ljmp $0x08, $start64

	.code64
start64:
	movl $0x10, %eax
	movl %eax, %ds
	movl %eax, %es
	movl %eax, %ss
	movl %esp, %esp
	movl %ebx, %ebx
	call *%rbx
1:	cli
	hlt
	jmp 1b

	.code16
ap_start:
	cli
	xorw %ax, %ax
	movw %ax, %ds
	lgdtl 0x8000 + ap_gdtr - ap_start
	movl %cr0, %eax
	orl $1, %eax
	movl %eax, %cr0
	ljmpl $0x18, $ap_protected
ap_gdtr:
	.word 31
	.long gdt
ap_end:

	.data
	.align 8
gdt:	.quad 0
	.quad 0x00af9b000000ffff	/* 08 code, 64 bits */
	.quad 0x00cf93000000ffff	/* 10 data */
	.quad 0x00cf9b000000ffff	/* 18 code, 32 bits */
gdtr:	.word gdtr - gdt - 1
	.quad gdt
next_stack:
	.long stacks + 0x4000

	.bss
	.align 4096
pml4:	.skip 4096
pdpt:	.skip 4096
pd0:	.skip 4096
pd3:	.skip 4096
	.skip 0x4000
stack_top:
stacks:	.skip 0x4000 * 64
