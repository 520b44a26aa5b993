; What a debugger stops: a loop in kernel mode and, unless port 0x81 says 2, in user
; mode, whose places the table at 0x1040 names. Words for the host: 0x6000 turns, 0x6004 INT3s of the guest's own,
; 0x6008 its single-step traps, 4 a turn (neither unless port 0x81 says 1), 0x600c interrupts, which end the halt, and
; from 0x6010 on DR0, DR3, DR6 and DR7 as the guest reads them.
%include "common.inc"
        align 8
table:  dq turn, store, read, own, after, trap, halt, resume, string, tail, user, sys
main:   PROTECTED
        LONG
        lidt [idtr]
        mov dword [abs 4], 0x6e000      ; RSP0 of the task at 0
        mov rbx, 0xfee00000
        mov dword [rbx+0xf0], 0x13f
        xor ebp, ebp
turn:   inc dword [abs 0x6000]
store:  mov [abs 0x8000], ebp
        nop
read:   mov eax, [abs 0x8000]
        inc ebp
        in al, 0x81
        test al, 1
        jz after
own:    int3
after:  in al, 0x81
        test al, 1
        jz quiet
        pushfq                          ; the guest steps itself
        or dword [rsp], 0x100
        popfq
trap:   nop
        pushfq
        and dword [rsp], ~0x100
        popfq
quiet:  mov rax, 0x123
        mov dr0, rax
        mov rax, 0x789
        mov dr3, rax
        mov rcx, dr0
        mov [abs 0x6010], ecx
        mov rcx, dr3
        mov [abs 0x6014], ecx
        mov rcx, dr6
        mov [abs 0x6018], ecx
        mov rcx, dr7
        mov [abs 0x601c], ecx
        mov rsi, 0x9000
        mov rdi, 0xa000
        mov ecx, 4
        cld
string: rep movsd
tail:   sti
halt:   hlt
resume: cli
        in al, 0x81
        test al, 2
        jnz turn
        push 0x23
        push 0x6d000
        push 2
        push 0x2b
        push user
        iretq
user:   mov eax, 1
        mov [abs 0x8008], eax
sys:    ud2                             ; back to kernel mode
        align 16
undef:  mov rsp, 0x6f000
        jmp turn

        align 16
int3h:  inc dword [abs 0x6004]
        iretq
        align 16
debugh: inc dword [abs 0x6008]
        iretq
        align 16
irq:    inc dword [abs 0x600c]
        mov rbx, 0xfee000b0
        mov dword [rbx], 0
        iretq

%macro GATE 2
        dw %1 - $$ + 0x1000
        dw 0x18
        dw 0x8e00 | %2 << 13
        dw 0
        dq 0
%endmacro
        align 16
idt:    times 1*2 dq 0
        GATE debugh, 0
        dq 0, 0
        GATE int3h, 3
        times 2*2 dq 0
        GATE undef, 0
        times 0x39*2 dq 0
        GATE irq, 0
idtr:   dw idtr - idt - 1
        dq idt
