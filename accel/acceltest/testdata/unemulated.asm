; An x87 load from MMIO, which no KVM emulates.
%include "common.inc"
main:   PROTECTED
        mov ebx, 0xd0000000
bad:    fld tword [ebx]
        DONE
