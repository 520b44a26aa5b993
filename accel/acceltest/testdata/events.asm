; NMIs and machine checks: each handler logs its vector, and that of machine checks
; IA32_MCG_STATUS, the upper half of bank 3's status and its address, which it clears
; only if port 0x81 says so.
%include "common.inc"
main:   PROTECTED
        LONG
        lidt [idtr]
        mov rax, cr4
        or eax, 0x40                    ; MCE
        mov cr4, rax
        mov rbx, 0xfee00000
        mov dword [rbx+0xf0], 0x13f
        mov dword [rbx+0x360], 0x400    ; LINT1 is NMI
        mov byte [abs 0x6000], 1        ; ready
.wait:  hlt
        jmp .wait

        align 16
nmi:    mov al, 2
        out 0x80, al
        iretq

        align 16
check:  mov al, 18
        out 0x80, al
        mov ecx, 0x17a
        rdmsr
        out 0x80, eax
        mov ecx, 0x40d
        rdmsr
        mov eax, edx
        out 0x80, eax
        mov ecx, 0x40e
        rdmsr
        out 0x80, eax
        in al, 0x81
        test al, al
        jz .held
        xor eax, eax
        xor edx, edx
        mov ecx, 0x40d
        wrmsr
        mov ecx, 0x17a
        wrmsr
.held:  mov al, 0xee                    ; done
        out 0x80, al
        iretq

%macro GATE 1
        dw %1 - $$ + 0x1000
        dw 0x18
        dw 0x8e00
        dw 0
        dq 0
%endmacro

        align 16
idt:    times 2*2 dq 0
        GATE nmi
        times 15*2 dq 0
        GATE check
idtr:   dw idtr - idt - 1
        dq idt
