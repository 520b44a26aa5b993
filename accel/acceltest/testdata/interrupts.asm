; Interrupts by IOAPIC (pin 2 edge 0x42, 4 edge 0x44, 5 level 0x45), 8259
; (IRQ 3 as 0x4b) and messages (any other of 0x40-0x4f): each handler logs its vector.
%include "common.inc"
main:   PROTECTED
        LONG
        lidt [idtr]
        ; the 8259 pair: base 0x48 and 0x50, IRQ 3 open
        mov al, 0x11
        out 0x20, al
        out 0xa0, al
        mov al, 0x48
        out 0x21, al
        mov al, 0x50
        out 0xa1, al
        mov al, 4
        out 0x21, al
        mov al, 2
        out 0xa1, al
        mov al, 1
        out 0x21, al
        out 0xa1, al
        mov al, 0xf7
        out 0x21, al
        mov al, 0xff
        out 0xa1, al
        ; local APIC on, spurious vector 0x3f; LINT0 takes the 8259
        mov rbx, 0xfee00000
        mov dword [rbx+0xf0], 0x13f
        mov dword [rbx+0x350], 0x700
        mov dword [rbx+0x80], 0
        mov rbx, 0xfec00000
        mov dword [rbx], 0x14
        mov dword [rbx+0x10], 0x42
        mov dword [rbx], 0x18
        mov dword [rbx+0x10], 0x44
        mov dword [rbx], 0x1a
        mov dword [rbx+0x10], 0x8045
        mov byte [abs 0x6000], 1        ; ready
        sti
.wait:  hlt
        jmp .wait

%macro HANDLER 1
        align 16
        push rax
        mov al, %1
        jmp handle
%endmacro

        align 16
handlers:
%assign v 0x40
%rep 16
        HANDLER v
%assign v v+1
%endrep
        align 16
handle: out 0x80, al
        cmp al, 0x4b
        je .pic
        push rbx
        mov rbx, 0xfee000b0
        mov dword [rbx], 0
        pop rbx
        pop rax
        iretq
.pic:   mov al, 0x20
        out 0x20, al
        pop rax
        iretq

        align 16
idt:    times 0x40*2 dq 0
%assign v 0
%rep 16
        dw handlers - $$ + 0x1000 + v*16
        dw 0x18
        dw 0x8e00
        dw 0
        dq 0
%assign v v+1
%endrep
idtr:   dw idtr - idt - 1
        dq idt
