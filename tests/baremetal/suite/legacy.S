/* Between long mode and legacy32.c: out, real mode in between, and back. */

#define REAL_BASE 0x50000
#define RS 0x4000
#define REAL_STATE (REAL_BASE + RS)

	.macro load_regs
	movl enter_regs, %eax
	movl enter_regs + 4, %ebx
	movl enter_regs + 8, %ecx
	movl enter_regs + 12, %edx
	movl enter_regs + 16, %esi
	movl enter_regs + 20, %edi
	movl enter_regs + 24, %ebp
	.endm

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
/* Takes the frame from whatever stack it lies on: see stack_base in legacy32.h. */
trap32:
	pushal
	movw %ds, %bx
	movw %es, %cx
	movl $0x10, %eax
	movl %eax, %ds
	movl %eax, %es
	movw %bx, last_ds
	movw %cx, last_es
	movw %fs, last_fs
	movw %gs, last_gs
	movw %ss, last_ss
	movl %esp, %esi
	cmpw $0x10, last_ss
	je 1f
	andl stack_mask, %esi
	addl stack_base, %esi
1:	movl %eax, %ss
	movl $trap32_top, %esp
	cld
	pushl %esi
	call dispatch32

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

/* void enter32(const struct regs *r): see run in legacy32.h. */
	.globl enter32
enter32:
	movl 4(%esp), %esi
	movl $enter_regs, %edi
	movl $13, %ecx
	rep movsl
	movl enter_regs + 32, %eax
	movl %eax, enter_target
	movl enter_regs + 40, %eax	/* CS, and SS above it */
	movl %eax, enter_target + 4
	movl enter_regs + 28, %ecx
	movl %ecx, enter_stack
	shrl $16, %eax
	movw %ax, enter_stack + 4
	testl $0x20000, enter_regs + 36
	jnz 1f
	movw enter_regs + 46, %es
	movw enter_regs + 48, %fs
	movw enter_regs + 50, %gs
	testb $3, enter_regs + 40
	jnz 2f
	pushl enter_regs + 36
	popfl
	lssl enter_stack, %esp
	load_regs
	movw %cs:enter_regs + 44, %ds
	ljmpl *%cs:enter_target
1:	movzwl enter_regs + 50, %ecx
	pushl %ecx
	movzwl enter_regs + 48, %ecx
	pushl %ecx
	movzwl enter_regs + 44, %ecx
	pushl %ecx
	movzwl enter_regs + 46, %ecx
	pushl %ecx
2:	pushl %eax
	pushl enter_regs + 28
	pushl enter_regs + 36
	movzwl enter_regs + 40, %ecx
	pushl %ecx
	pushl enter_regs + 32
	testl $0x20000, enter_regs + 36
	jnz 3f
	load_regs
	movw %cs:enter_regs + 44, %ds
	iretl
3:	load_regs
	iretl

/* u32 real_go(void): runs what real_state says in real mode until it traps. */
	.globl real_go
real_go:
	pushal
	movl %esp, saved_esp
	pushl REAL_STATE + 36
	popfl
	movw REAL_STATE + 58, %es
	movw REAL_STATE + 60, %fs
	movw REAL_STATE + 62, %gs
	movw REAL_STATE + 54, %ss	/* as SDM vol. 3A section 9.9.2 asks, or larger */
	movw REAL_STATE + 56, %ds
	ljmp $0x18, $real_entry - real_code
real_back:
	movl $0x10, %ebx
	movl %ebx, %ds
	movl %ebx, %es
	movl %ebx, %ss
	movl saved_esp, %esp
	lidt idtr32
	popal
	ret

/* Copied to REAL_BASE; the state is at RS in the same segment. */
	.code16
	.globl real_code, real_code_end, real_stubs
real_code:
real_idtr:
	.word 0x3ff
	.long 0
real_entry:
	movl %cr0, %eax
	leal -1(%eax), %eax		/* PE, and no flag changes */
	movl %eax, %cr0
	ljmp $REAL_BASE >> 4, $1f - real_code
1:	lidtl %cs:(real_idtr - real_code)
	movw %cs:(RS + 42), %ss
	movl %cs:(RS + 28), %esp
	movw %cs:(RS + 46), %es
	movw %cs:(RS + 48), %fs
	movw %cs:(RS + 50), %gs
	movw %cs:(RS + 44), %ds
	movl %cs:(RS + 0), %eax
	movl %cs:(RS + 4), %ebx
	movl %cs:(RS + 8), %ecx
	movl %cs:(RS + 12), %edx
	movl %cs:(RS + 16), %esi
	movl %cs:(RS + 20), %edi
	movl %cs:(RS + 24), %ebp
	ljmpw *%cs:(RS + 64)
real_trap:				/* its vector in AX, EAX in DR0; the stack may be full */
	movl %eax, %dr2
	movw %ds, %ax
	movl %eax, %dr1
	movw $REAL_BASE >> 4, %ax
	movw %ax, %ds
	movl %ebx, RS + 4
	movl %ecx, RS + 8
	movl %edx, RS + 12
	movl %esi, RS + 16
	movl %edi, RS + 20
	movl %ebp, RS + 24
	movl %dr0, %eax
	movl %eax, RS
	movl %dr1, %eax
	movw %ax, RS + 44
	movw %es, RS + 46
	movw %fs, RS + 48
	movw %gs, RS + 50
	movw %ss, RS + 42
	movl %dr2, %eax
	movw %ax, RS + 52
	popw RS + 32
	popw RS + 40
	popw RS + 36
	movl %esp, RS + 28
	movl %cr0, %eax
	orb $1, %al
	movl %eax, %cr0
	ljmpl $0x08, $real_back
	.align 16
real_stubs:
	vector = 0
	.rept 256
	.align 16
	movl %eax, %dr0
	movw $vector, %ax
	jmp real_trap
	vector = vector + 1
	.endr
real_code_end:
	.code32

	.bss
	.align 16
	.skip 16384
	.globl stack32_top, saved_efer, jump32, last_ds, last_es, last_fs, last_gs, last_ss
stack32_top:
	.skip 8192
trap32_top:
last_ds: .skip 2
last_es: .skip 2
last_fs: .skip 2
last_gs: .skip 2
last_ss: .skip 2
	.align 8
enter_regs: .skip 52
	.align 8
enter_target: .skip 8
enter_stack: .skip 8
saved_rsp: .skip 8
saved_cr3: .skip 8
saved_cr4: .skip 8
saved_efer: .skip 8
saved_esp: .skip 8
jump32:	.skip 32
