; Writes one word to each address that port 0x81 gives, until it gives 0; then the end.
%include "common.inc"
main:   PROTECTED
        LONG
.next:  in eax, 0x81
        test eax, eax
        jz .done
        mov [rax], eax
        jmp .next
.done:  DONE
