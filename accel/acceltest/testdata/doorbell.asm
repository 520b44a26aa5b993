; Rings at 0xd0001000: words 3 and 4 of two bytes, then four bytes at 0xd0001004.
%include "common.inc"
main:   PROTECTED
        mov ebx, 0xd0001000
        mov word [ebx], 3
        mov word [ebx], 4
        mov word [ebx], 4
        mov dword [ebx+4], 7
        DONE
