; 64-bit mode: registers, 8-byte MMIO, an access above 4 GiB of address bits.
%include "common.inc"
main:   PROTECTED
        LONG
        mov r15, 0x1122334455667788
        mov rbx, 0xd0000000
        mov [rbx], r15
        mov r14, [rbx+8]
        mov rax, r14
        out 0x80, eax
        shr rax, 32
        out 0x80, eax
        mov [abs 0x6000], r15
        mov rax, [abs 0x6000]
        cmp rax, r15
        setz al
        out 0x80, al
        DONE
