; An invalid instruction with no IDT, in protected mode: a triple fault.
%include "common.inc"
main:   PROTECTED
        lidt [none]
        ud2
none:   dw 0
        dd 0
