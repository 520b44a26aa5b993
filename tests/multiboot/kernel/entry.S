# The entry of the Multiboot test kernel, and its header. FLAGS are the header's: with bit 16 it says where a flat file
# goes, without it the file is an ELF.

	.set MAGIC, 0x1badb002
	.code32
	.section .header, "ax"

#if FLAGS & 0x10000
	.ascii "before the header, and loaded with the rest"
#endif
	.balign 4
header:
	.long MAGIC
	.long FLAGS
	.long -(MAGIC + FLAGS)
#if FLAGS & 0x10000
	.long header
	.long image_start
	.long image_end
	.long bss_end
	.long entry
#endif

	.text
	.globl entry
entry:
	# What the loader left, before anything changes it.
	pushf			# whatever ESP is, the loader points it at memory
	popl %edx
	movl $stack_top, %esp
	pushl %edx		# EFLAGS
	movl %cr0, %edx
	pushl %edx
	xorl %edx, %edx
	movw %cs, %dx
	pushl %edx
	movw %ds, %dx
	pushl %edx
	pushl %ebx		# boot information
	pushl %eax		# magic
	call check
	hlt

	.bss
	.balign 16
	.skip 8192
stack_top:
