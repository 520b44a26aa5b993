; Counts in rcx and in memory for ever, with no exit.
%include "common.inc"
main:   PROTECTED
        LONG
        xor ecx, ecx
.loop:  inc rcx
        mov [abs 0x6000], rcx
        jmp .loop
