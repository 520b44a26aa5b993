# Entry of the bare-metal suite: a PVH guest (32-bit protected mode, flat, no paging) brings itself to long mode.

#define STACK 16384

	.section .note.pvh, "a", @note
	.long 4, 4, 18 # name size, descriptor size, XEN_ELFNOTE_PHYS32_ENTRY
	.asciz "Xen"
	.long start32

	.text
	.code32
	.globl start32
start32:
	cli
	cld
	movl $stack_top, %esp
	# One PML4, one PDPT, four page directories: 4 GiB of 2 MiB pages, identity mapped, supervisor, writable.
	movl $pdpt + 3, pml4
	movl $pdpt, %edi
	movl $pds + 3, %eax
	movl $4, %ecx
1:	movl %eax, (%edi)
	addl $8, %edi
	addl $4096, %eax
	loop 1b
	movl $pds, %edi
	movl $0x83, %eax
	movl $2048, %ecx
2:	movl %eax, (%edi)
	addl $8, %edi
	addl $0x200000, %eax
	loop 2b
	movl $pml4, %eax
	movl %eax, %cr3
	movl %cr4, %eax
	orl $0x6a0, %eax # PAE, PGE, OSFXSR, OSXMMEXCPT
	movl %eax, %cr4
	movl $0xc0000080, %ecx
	rdmsr
	orl $0x901, %eax # SCE, LME, NXE
	wrmsr
	movl $0x80010033, %eax # PG, WP, NE, ET, MP, PE
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
	movabsq $stack_top, %rsp
	fninit
	call suite
3:	hlt
	jmp 3b

# Exception and interrupt entries: push an error code where the CPU does not, and the vector.
	.macro ENTRY vector, has_error
	.balign 16
	.if \has_error == 0
	pushq $0
	.endif
	pushq $\vector
	jmp entry_common
	.endm

	.balign 16
	.globl entries
entries:
	.set v, 0
	.rept 256
	.if v == 8 || (v >= 10 && v <= 14) || v == 17 || v == 21
	ENTRY v, 1
	.else
	ENTRY v, 0
	.endif
	.set v, v + 1
	.endr

entry_common:
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
	call on_event
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

# int attempt(void (*f)(void *), void *arg): calls f; returns 0 if it came back, 1 if on_event resumed at attempt_failed.
	.globl attempt
attempt:
	pushq %rbx
	pushq %rbp
	pushq %r12
	pushq %r13
	pushq %r14
	pushq %r15
	pushq resume_rsp
	movq %rsp, resume_rsp
	movq %rdi, %rax
	movq %rsi, %rdi
	call *%rax
	xorl %eax, %eax
	jmp 1f
	.globl attempt_failed
attempt_failed:
	movl $1, %eax
1:	movq resume_rsp, %rsp
	popq resume_rsp
	popq %r15
	popq %r14
	popq %r13
	popq %r12
	popq %rbp
	popq %rbx
	ret

# void enter_user(rip, rsp, cs, ss, rflags): leaves to another privilege; the way back is an event.
	.globl enter_user
enter_user:
	pushq %rcx
	pushq %rsi
	pushq %r8
	pushq %rdx
	pushq %rdi
	movq %r9, %rdi
	iretq

# SYSCALL's target: records what the instruction left and comes back by attempt_failed.
	.globl syscall_entry
syscall_entry:
	movq %rcx, syscall_rcx
	movq %r11, syscall_r11
	movq %rsp, syscall_rsp
	movq resume_rsp, %rsp
	pushfq
	popq syscall_flags
	jmp attempt_failed

# Another SYSCALL target, which goes straight back.
	.globl syscall_return
syscall_return:
	sysretq

	.data
	.balign 16
	.globl gdt
gdt:
	.quad 0
	.quad 0x00af9b000000ffff # 08 64-bit code
	.quad 0x00cf93000000ffff # 10 data
	.quad 0x00cffb000000ffff # 18 user 32-bit code
	.quad 0x00cff3000000ffff # 20 user data
	.quad 0x00affb000000ffff # 28 user 64-bit code
	.quad 0x00cf13000000ffff # 30 data, not present
	.quad 0x00cf9b000000ffff # 38 32-bit code
	.quad 0x00cf91000000ffff # 40 data, read only
	.quad 0x00cf9f000000ffff # 48 32-bit code, conforming
	.quad 0, 0               # 50 TSS
	.quad 0, 0               # 60 call gate
	.quad 0x00cf92000000ffff # 70 data, accessed bit clear
	.quad 0x0040930000000fff # 78 data, byte-granular limit 0xfff
	.globl gdtr
gdtr:
	.word . - gdt - 1
	.quad gdt

	.globl resume_rsp, syscall_rcx, syscall_r11, syscall_rsp, syscall_flags
resume_rsp: .quad 0
syscall_rcx: .quad 0
syscall_r11: .quad 0
syscall_rsp: .quad 0
syscall_flags: .quad 0

	.bss
	.balign 4096
	.globl pml4, pdpt, pds
pml4: .skip 4096
pdpt: .skip 4096
pds: .skip 16384
	.skip STACK
stack_top:
	.section .note.GNU-stack, "", @progbits
