# Entered by PVH's note in 32-bit protected mode; calls work in 64-bit mode, the first
# GiB mapped as it is.
	.section .note, "a"
	.long 4, 4, 18			# Xen, XEN_ELFNOTE_PHYS32_ENTRY
	.asciz "Xen"
	.long entry

	.text
	.code32
	.globl entry
entry:
	cli
	mov $tables + 0x1007, %eax
	mov %eax, tables
	add $0x1000, %eax
	mov %eax, tables + 0x1000
	mov $tables + 0x2000, %edi
	mov $0x87, %eax
	mov $512, %ecx
1:	mov %eax, (%edi)
	add $0x200000, %eax
	add $8, %edi
	loop 1b
	mov $tables, %eax
	mov %eax, %cr3
	mov $0x20, %eax			# PAE
	mov %eax, %cr4
	mov $0xc0000080, %ecx		# EFER
	xor %edx, %edx
	mov $0x100, %eax		# LME
	wrmsr
	mov $0x80000011, %eax		# PG, ET, PE
	mov %eax, %cr0
	lgdt gdtr
	ljmp $8, $1f
	.code64
1:	mov $16, %eax
	mov %eax, %ds
	mov %eax, %es
	mov %eax, %ss
	mov $stack_end, %esp
	call work

	.data
	.balign 8
gdt:	.quad 0, 0x00af9b000000ffff, 0x00cf93000000ffff
gdtr:	.word gdtr - gdt - 1
	.long gdt

	.bss
	.balign 4096
tables:	.skip 0x3000
	.skip 4096
stack_end:
