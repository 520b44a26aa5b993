; MMIO from protected mode: widths, read-modify-write, a string, the stack.
%include "common.inc"
main:   PROTECTED
        mov ebx, 0xd0000000
        mov byte [ebx], 0x11
        mov word [ebx+2], 0x2222
        mov dword [ebx+4], 0x33333333
        mov eax, [ebx+8]
        out 0x80, eax
        or dword [ebx+12], 0x80000001
        cld
        lea edi, [ebx+16]
        mov ecx, 3
        mov eax, 0x44444444
        rep stosd
        push dword [ebx+8]
        pop eax
        out 0x80, eax
        movzx eax, byte [ebx+8]
        out 0x80, eax
        DONE
